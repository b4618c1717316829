// Linear layers on bf16 tiles whose weight keeps some of its blocks, or single values: y = activation(x W^T + b).
//
// Rows of x are loaded as they lie, but for the last few, and where their length is not whole tiles or they are float:
// those are copied. Single values are spread over tiles that are zero elsewhere, one row of blocks at a time, which
// then serves all tokens of a chunk. Sums are float; bias and activation follow while the result is at hand, and
// residual and norm when all outputs of a chunk are there.

#include <omp.h>

#include "norm.h"
#include "sparsebert.h"
#include "tile_product.h"

namespace {

struct Weights {
    const uint16_t* values;
    const int32_t *starts, *columns;
    const uint32_t* masks;
    const int32_t* begins;
};

// The tokens of a chunk: `ready` tiles lie in x, those behind them are copied.
struct Chunk {
    Rows given, copied;
    int64_t count, ready;
};

int64_t stride_of_copies(const SbTileLinear& call) {
    // Else rows of 2^n inputs would all fall on the same lines of the cache.
    return (whole(call.inputs, WIDTH) + 1) * WIDTH;
}

template <typename Value>
Chunk prepare(const SbTileLinear& call, const Value* x, int64_t count, uint16_t* copies) {
    const int64_t stride = stride_of_copies(call);
    Chunk chunk{{nullptr, call.inputs}, {copies, stride}, count, 0};
    if constexpr (sizeof(Value) == sizeof(uint16_t))
        if (call.inputs % WIDTH == 0) {
            chunk.given.at = x;
            chunk.ready = count / TILE;
        }
    const int64_t first = chunk.ready * TILE, end = whole(count, TILE) * TILE;
    for (int64_t t = first; t < end; t++) {
        uint16_t* to = copies + (t - first) * stride;
        if (t < count)
            copy_row(x + t * call.inputs, call.inputs, stride, to);
        else
            std::memset(to, 0, stride * sizeof(uint16_t));
    }
    return chunk;
}

// One row of a tile, 32 bf16, of which the mask names those that are there.
inline void spread(uint32_t mask, const uint16_t* values, uint16_t* to) {
#if defined(__AVX512VBMI2__)
    _mm512_storeu_si512(to, _mm512_maskz_expandloadu_epi16(mask, values));
#else
    for (int64_t i = 0; i < WIDTH; i++) to[i] = mask >> i & 1 ? *values++ : 0;
#endif
}

template <int N>
BlockRow row_of(const Weights& w, int64_t r, uint16_t* tiles) {
    const int64_t first = w.starts[r], count = w.starts[r + 1] - first;
    if (w.masks == nullptr) return {w.values + first * N * TILE_VALUES, w.columns + first, count};
    for (int64_t b = 0; b < count; b++) {
        const uint16_t* values = w.values + w.begins[first + b];
        for (int64_t line = 0; line < N * TILE; line++) {
            const uint32_t mask = w.masks[(first + b) * N * TILE + line];
            spread(mask, values, tiles + (b * N * TILE + line) * WIDTH);
            values += __builtin_popcount(mask);
        }
    }
    return {tiles, w.columns + first, count};
}

// y [tokens] at the outputs of one row of blocks.
template <int T, int N, typename Value>
void finish(const SbTileLinear& call, int64_t output, int64_t tokens, Vec (&sums)[T][N], const float* bias, Value* y) {
    constexpr int FOUR = 4 / N;  // vectors in step, as each operation waits for the one before
    const int64_t here = smaller(N * TILE, call.outputs - output);
    Vec shift[N] = {};
    if (bias != nullptr)
        for (int j = 0; j < N && j * LANES < here; j++) shift[j] = load_part(bias + output + j * LANES, here - j * LANES);
#pragma GCC unroll 4
    for (int t = 0; t < T; t += FOUR) {
        Vec values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) values[i] = sums[t + i / N][i % N] + shift[i % N];
        activate(values, call.activation);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sums[t + i / N][i % N] = values[i];
    }
    for (int64_t t = 0; t < smaller(T, tokens); t++) store_row(y + t * call.outputs + output, sums[t], here);
}

template <int N, typename Value>
class Layer {
  public:
    Layer(const SbTileLinear& call, const Weights& weights, const float* bias, Value* y)
        : call(call), weights(weights), bias(bias), y(y) {}

    // Rows of blocks `from` to `to`, for the chunk whose first token is `token`.
    void run(Tiles& tiles, const Chunk& chunk, int64_t token, int64_t from, int64_t to, uint16_t* spread_tiles) const {
        const int64_t ready = chunk.ready * TILE;
        for (int64_t r = from; r < to; r++) {
            const BlockRow row = row_of<N>(weights, r, spread_tiles);
            all_tokens(tiles, chunk.given, row, ready, r, token);
            all_tokens(tiles, chunk.copied, row, chunk.count - ready, r, token + ready);
        }
    }

  private:
    // Four tiles of sums at once; the tokens that are left go by single tiles.
    void all_tokens(Tiles& tiles, const Rows& x, const BlockRow& row, int64_t count, int64_t r, int64_t token) const {
        constexpr int M = 4 / N;
        int64_t t = 0;
        for (; t + (M - 1) * TILE < count; t += M * TILE) some_tokens<M>(tiles, x, row, count, t, r, token);
        for (; t < count; t += TILE) some_tokens<1>(tiles, x, row, count, t, r, token);
    }

    template <int M>
    void some_tokens(Tiles& tiles, const Rows& x, const BlockRow& row, int64_t count, int64_t t, int64_t r,
                     int64_t token) const {
        const int64_t output = r * N * TILE;
        Value* const to = y + (token + t) * call.outputs;
        // Fetched for writing while they are computed: stores wait for one another.
        for (int64_t i = 0; i < smaller(M * TILE, count - t); i++)
            __builtin_prefetch(to + i * call.outputs + output, 1);
        multiply<M, N>(tiles, {x.at + t * x.stride, x.stride}, row, [&](int64_t first, auto& sums) {
            if (first < count - t)
                finish(call, output, count - t - first, sums, bias, to + first * call.outputs);
        });
    }

    const SbTileLinear& call;
    const Weights& weights;
    const float* bias;
    Value* y;
};

template <int N, typename Value>
void forward(const SbTileLinear& call, const Value* x, const Weights& weights, const float* bias, Value* y,
             uint16_t* scratch) {
    const Layer<N, Value> layer(call, weights, bias, y);
    const int64_t rows = whole(call.outputs, call.height), chunks = whole(call.tokens, call.chunk);
    // Few tokens: threads share the rows instead.
    const int64_t parts = chunks < call.threads ? smaller(rows, 4 * call.threads) : 1;
    const int64_t copies = call.chunk * stride_of_copies(call);
    const int64_t own = copies + (weights.masks == nullptr ? 0 : whole(call.inputs, WIDTH) * N * TILE_VALUES);
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
    {
        Tiles tiles;
        uint16_t* const mine = scratch + omp_get_thread_num() * own;
        Chunk chunk{};
        int64_t prepared = -1;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t c = 0; c < chunks; c++)
            for (int64_t part = 0; part < parts; part++) {
                const int64_t token = c * call.chunk;
                if (c != prepared)
                    chunk = prepare(call, x + token * call.inputs, smaller(call.chunk, call.tokens - token), mine);
                prepared = c;
                layer.run(tiles, chunk, token, rows * part / parts, rows * (part + 1) / parts, mine + copies);
                if (parts == 1) normalize_rows(call.norm, token, token + chunk.count, call.outputs, y);
            }
        if (parts > 1) {
#pragma omp for
            for (int64_t token = 0; token < call.tokens; token++)
                normalize_rows(call.norm, token, token + 1, call.outputs, y);
        }
    }
}

template <typename Value>
void forward(const SbTileLinear& call, const void* x, const Weights& weights, const float* bias, void* y,
             uint16_t* scratch) {
    const auto run = call.height == TILE ? forward<1, Value> : forward<2, Value>;
    run(call, static_cast<const Value*>(x), weights, bias, static_cast<Value*>(y), scratch);
}

}  // namespace

extern "C" void SB_NAME(sb_tile_linear)(const SbTileLinear* call, const void* x, const uint16_t* values,
                                        const int32_t* starts, const int32_t* columns, const uint32_t* masks,
                                        const int32_t* begins, const float* bias, void* y, uint16_t* scratch) {
    const Weights weights{values, starts, columns, masks, begins};
    if (call->bf16)
        forward<uint16_t>(*call, x, weights, bias, y, scratch);
    else
        forward<float>(*call, x, weights, bias, y, scratch);
}
