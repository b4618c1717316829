// Products of bf16 rows with blocks of weights, on tiles or in vector registers, and the conversion of values to bf16.
#pragma once

#include "tiles.h"

namespace {

// Rows of bf16 inputs, a token each, `stride` apart.
struct Rows {
    const uint16_t* at;
    int64_t stride;
};

// Blocks of 16 N outputs x 32 inputs, N tiles each; block b begins at input 32 columns[b].
struct BlockRow {
    const uint16_t* values;
    const int32_t* columns;  // null = all, one after another
    int64_t count;

    int64_t column(int64_t block) const { return columns == nullptr ? block : columns[block]; }
};

// The first `count` of 16 N values.
template <int N, typename Value>
inline void store_row(Value* to, const Vec (&values)[N], int64_t count) {
    for (int j = 0; j < N && j * LANES < count; j++) store_part(to + j * LANES, values[j], count - j * LANES);
}

// Tokens whose sums are finished together: with 16 N outputs each they fill half of the registers.
template <int N>
constexpr int TOGETHER = TILE / N;

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)

// Nothing to set up: a row of a tile is a register, a pair of inputs of 16 outputs, which each token multiplies with
// its own pair.
class Tiles {};

// sums [T, N], in registers over all blocks of the row.
template <int T, int N>
inline void multiply_some(Rows x, BlockRow row, Vec (&sums)[T][N]) {
    __m512 sum[T][N];
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) sum[t][j] = _mm512_setzero_ps();
    for (int64_t b = 0; b < row.count; b++) {
        const uint16_t* weight = row.values + b * N * TILE_VALUES;
        const uint16_t* from = x.at + row.column(b) * WIDTH;
        // Rows of x are far apart, and the next block's place is known here only.
        const uint16_t* next = x.at + row.column(b + 1 < row.count ? b + 1 : b) * WIDTH;
#pragma GCC unroll 16
        for (int t = 0; t < T; t++) __builtin_prefetch(next + t * x.stride);
#pragma GCC unroll 2
        for (int64_t pair = 0; pair < TILE; pair++) {
            __m512bh held[N];
#pragma GCC unroll 2
            for (int j = 0; j < N; j++)
                held[j] = (__m512bh)_mm512_loadu_si512(weight + j * TILE_VALUES + pair * WIDTH);
#pragma GCC unroll 16
            for (int t = 0; t < T; t++) {
                int32_t both;
                std::memcpy(&both, from + t * x.stride + 2 * pair, sizeof both);
                const __m512bh given = (__m512bh)_mm512_set1_epi32(both);
#pragma GCC unroll 2
                for (int j = 0; j < N; j++) sum[t][j] = _mm512_dpbf16_ps(sum[t][j], given, held[j]);
            }
        }
    }
#pragma GCC unroll 16
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int j = 0; j < N; j++) sums[t][j] = (Vec)sum[t][j];
}

// end(t, sums [T, N]) of T tokens from t on, for all of 16 M tokens.
template <int M, int N, typename End>
void multiply(Tiles&, Rows x, BlockRow row, End end) {
    constexpr int T = TOGETHER<N>;
    for (int64_t t = 0; t < M * TILE; t += T) {
        Vec sums[T][N];
        multiply_some({x.at + t * x.stride, x.stride}, row, sums);
        end(t, sums);
    }
}

// A row of 32 as one register.
inline void store_row(uint16_t* to, const Vec (&values)[2], int64_t count) {
    if (count < 2 * LANES) return store_row<2, uint16_t>(to, values, count);
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)values[1], (__m512)values[0]));
}

#else

template <int I>
struct Number {
    static constexpr int value = I;
};

// f(Number<0>), ..., f(Number<N - 1>): the number of a tile must be known to the compiler.
template <int N, typename F>
inline void each(F f) {
    if constexpr (N > 0) {
        each<N - 1>(f);
        f(Number<N - 1>{});
    }
}

// sums [16 M, 16 N], rows `width` apart. They stay in tiles over all blocks of the row: of the eight there are, 2 x 2
// hold sums, two inputs and two weights, so that each tile that is loaded serves two products.
template <int M, int N>
void multiply(Tiles& tiles, Rows x, BlockRow row, float* sums, int64_t width) {
    constexpr int GIVEN = M * N, WEIGHT = GIVEN + 2;
    static_assert(WEIGHT + N <= 8, "there are eight tiles");
    each<M * N>([&](auto t) { tiles.zero<t.value>(); });
    for (int64_t b = 0; b < row.count; b++) {
        const uint16_t* weight = row.values + b * N * TILE_VALUES;
        const uint16_t* from = x.at + row.column(b) * WIDTH;
        each<N>([&](auto j) { tiles.load<WEIGHT + j.value>(weight + j.value * TILE_VALUES, WIDTH); });
        each<M>([&](auto i) {
            // Two by turns, so that one is loaded while the other is used.
            constexpr int A = GIVEN + i.value % 2, FIRST = i.value * N;
            tiles.load<A>(from + i.value * TILE * x.stride, x.stride);
            each<N>([&](auto j) { tiles.dot<FIRST + j.value, A, WEIGHT + j.value>(); });
        });
    }
    each<M>([&](auto i) {
        constexpr int I = i.value;
        each<N>([&](auto j) { tiles.store<I * N + j.value>(sums + I * TILE * width + j.value * TILE, width); });
    });
}

// end(t, sums [T, N]) of T tokens from t on, for all of 16 M tokens.
template <int M, int N, typename End>
void multiply(Tiles& tiles, Rows x, BlockRow row, End end) {
    constexpr int T = TOGETHER<N>;
    alignas(64) float sums[M * N * TILE * TILE];
    multiply<M, N>(tiles, x, row, sums, N * TILE);
    for (int64_t t = 0; t < M * TILE; t += T) {
        Vec some[T][N];
        for (int i = 0; i < T; i++)
            for (int j = 0; j < N; j++) some[i][j] = load(sums + ((t + i) * N + j) * TILE);
        end(t, some);
    }
}

#endif

// A row of `count` values and then zeros, `padded` in all: a multiple of 32.
inline void copy_row(const uint16_t* from, int64_t count, int64_t padded, uint16_t* to) {
    std::memcpy(to, from, count * sizeof(uint16_t));
    std::memset(to + count, 0, (padded - count) * sizeof(uint16_t));
}

inline void copy_row(const float* from, int64_t count, int64_t padded, uint16_t* to) {
    for (int64_t h = 0; h < padded; h += LANES)
        store_part(to + h, h < count ? load_part(from + h, count - h) : Vec{}, LANES);
}

}  // namespace
