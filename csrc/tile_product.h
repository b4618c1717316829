// Products of bf16 rows with blocks of weights, on tiles, and the way of values to bf16 and back.
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
    const int32_t* columns;
    int64_t count;
};

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

// sums [16 M, 16 N], rows `width` apart. They stay in tiles over all blocks of the row.
template <int M, int N>
void multiply(Tiles& tiles, Rows x, BlockRow row, float* sums, int64_t width) {
    constexpr int GIVEN = M * N, WEIGHT = GIVEN + 2;
    static_assert(WEIGHT + N <= 8, "there are eight tiles");
    each<M * N>([&](auto t) { tiles.zero<t.value>(); });
    for (int64_t b = 0; b < row.count; b++) {
        const uint16_t* weight = row.values + b * N * TILE_VALUES;
        const uint16_t* from = x.at + row.columns[b] * WIDTH;
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
