// Linear layers on bf16 tiles whose weights keep some of their blocks, or single values, one after another: y =
// activation(x W^T + b).
//
// Rows of x are loaded as they lie, but for the last few, and where their length is not whole tiles or they are float:
// those are copied. Single values are spread over tiles that are zero elsewhere, one row of blocks at a time, which
// then serves all tokens of a chunk. Sums are float; bias and activation follow while they are at hand. A thread takes
// a chunk of tokens through all layers, so that what lies between two of them never leaves its cache; residual and norm
// follow when all outputs of the chunk are there.

#include <omp.h>

#include "norm.h"
#include "sparsebert.h"
#include "tile_product.h"

namespace {

// The tokens of a chunk: the first `ready`, whole tiles or all of them, lie in one place, the others in another.
struct Chunk {
    Rows given, copied;
    int64_t count, ready;
};

// Results [tokens, outputs], rows `stride` apart.
template <typename Value>
struct Results {
    Value* at;
    int64_t stride;
};

// Else rows of 2^n values would all fall on the same lines of the cache.
int64_t stride_of(int64_t values) { return (whole(values, WIDTH) + 1) * WIDTH; }

template <typename Value>
Chunk prepare(const Value* x, int64_t inputs, int64_t count, uint16_t* copies) {
    const int64_t stride = stride_of(inputs);
    Chunk chunk{{nullptr, inputs}, {copies, stride}, count, 0};
    if constexpr (sizeof(Value) == sizeof(uint16_t))
        if (inputs % WIDTH == 0) {
            chunk.given.at = x;
            chunk.ready = count / TILE * TILE;
        }
    const int64_t end = whole(count, TILE) * TILE;
    for (int64_t t = chunk.ready; t < end; t++) {
        uint16_t* to = copies + (t - chunk.ready) * stride;
        if (t < count)
            copy_row(x + t * inputs, inputs, stride, to);
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
BlockRow row_of(const SbTileLayer& w, int64_t r, uint16_t* tiles) {
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
void finish(const SbTileLayer& layer, int64_t output, int64_t tokens, Vec (&sums)[T][N], Results<Value> y) {
    constexpr int ROWS = 4 / N;  // four vectors in step, as each operation waits for the one before
    const int64_t here = smaller(N * TILE, layer.outputs - output);
    Vec shift[N] = {};
    if (layer.bias != nullptr)
        for (int j = 0; j < N && j * LANES < here; j++)
            shift[j] = load_part(layer.bias + output + j * LANES, here - j * LANES);
#pragma GCC unroll 4
    for (int t = 0; t < T; t += ROWS) {
        Vec values[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) values[i] = sums[t + i / N][i % N] + shift[i % N];
        activate(values, layer.activation);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sums[t + i / N][i % N] = values[i];
    }
    for (int64_t t = 0; t < smaller(T, tokens); t++) store_row(y.at + t * y.stride + output, sums[t], here);
}

template <int N, typename Value>
class Layer {
  public:
    Layer(const SbTileLayer& layer, Results<Value> y) : layer(layer), y(y) {}

    // Rows of blocks `from` to `to`.
    void run(Tiles& tiles, const Chunk& x, int64_t from, int64_t to, uint16_t* spread_tiles) const {
        for (int64_t r = from; r < to; r++) {
            const BlockRow row = row_of<N>(layer, r, spread_tiles);
            all_tokens(tiles, x.given, row, x.ready, r, 0);
            all_tokens(tiles, x.copied, row, x.count - x.ready, r, x.ready);
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
        Value* const to = y.at + (token + t) * y.stride;
        // Fetched for writing while they are computed: stores wait for one another.
        for (int64_t i = 0; i < smaller(M * TILE, count - t); i++) __builtin_prefetch(to + i * y.stride + output, 1);
        multiply<M, N>(tiles, {x.at + t * x.stride, x.stride}, row, [&](int64_t first, auto& sums) {
            const int64_t left = count - t - first;
            if (left > 0) finish(layer, output, left, sums, Results<Value>{to + first * y.stride, y.stride});
        });
    }

    const SbTileLayer& layer;
    const Results<Value> y;
};

// What a thread needs, one after another: copies of inputs, what lies between layers, in two places that take turns,
// and a row of blocks of spread values.
struct Sizes {
    int64_t copies, between, spread;

    explicit Sizes(const SbTileChain& call, const SbTileLayer* layers) : copies(), between(), spread() {
        copies = call.chunk * stride_of(layers[0].inputs);
        for (int64_t i = 0; i < call.layers; i++) {
            const int64_t here = i == 0 ? 0 : call.chunk * stride_of(layers[i].inputs);
            const int64_t tiles = whole(layers[i].inputs, WIDTH) * layers[i].height * WIDTH;
            if (here > between) between = here;
            if (layers[i].masks != nullptr && tiles > spread) spread = tiles;
        }
    }
    int64_t all() const { return copies + 2 * between + spread; }
};

template <typename Value>
struct Chain {
    const SbTileChain& call;
    const SbTileLayer* layers;
    const Value* x;
    Value* y;
    uint16_t* workspace;
    Sizes sizes;

    uint16_t* of_thread() const { return workspace + omp_get_thread_num() * sizes.all(); }

    Results<uint16_t> between(uint16_t* own, int64_t layer) const {
        return {own + sizes.copies + layer % 2 * sizes.between, stride_of(layers[layer].outputs)};
    }

    int64_t rows_of(int64_t layer) const { return whole(layers[layer].outputs, layers[layer].height); }

    Chunk given(int64_t token, uint16_t* own) const {
        const int64_t inputs = layers[0].inputs;
        return prepare(x + token * inputs, inputs, smaller(call.chunk, call.tokens - token), own);
    }

    // What layer `i` reads of the one before, which `own` has.
    Chunk after(int64_t i, int64_t count, uint16_t* own) const {
        const Results<uint16_t> rows = between(own, i - 1);
        return {{rows.at, rows.stride}, {nullptr, 0}, count, count};
    }

    // Rows of blocks `from` to `to` of layer `i`, for a chunk whose first token is `token`.
    void run(Tiles& tiles, int64_t i, const Chunk& chunk, int64_t token, int64_t from, int64_t to,
             uint16_t* own) const {
        uint16_t* const spread_tiles = of_thread() + sizes.copies + 2 * sizes.between;
        const int64_t outputs = layers[i].outputs;
        if (i + 1 == call.layers)
            return run(tiles, i, chunk, Results<Value>{y + token * outputs, outputs}, from, to, spread_tiles);
        const Results<uint16_t> into = between(own, i);
        const int64_t past = whole(outputs, WIDTH) * WIDTH - outputs;
        if (from == 0 && past > 0)
            for (int64_t t = 0; t < chunk.count; t++)
                std::memset(into.at + t * into.stride + outputs, 0, past * sizeof(uint16_t));
        run(tiles, i, chunk, into, from, to, spread_tiles);
    }

    template <typename Out>
    void run(Tiles& tiles, int64_t i, const Chunk& chunk, Results<Out> into, int64_t from, int64_t to,
             uint16_t* spread_tiles) const {
        if (layers[i].height == TILE)
            Layer<1, Out>(layers[i], into).run(tiles, chunk, from, to, spread_tiles);
        else
            Layer<2, Out>(layers[i], into).run(tiles, chunk, from, to, spread_tiles);
    }

    void normalize(int64_t from, int64_t to) const {
        normalize_rows(call.norm, from, to, layers[call.layers - 1].outputs, y);
    }

    // Inside a parallel region, as the next: each thread has chunks of its own.
    void run_apart(Tiles& tiles, int64_t chunks) const {
        uint16_t* const own = of_thread();
#pragma omp for schedule(dynamic)
        for (int64_t c = 0; c < chunks; c++) {
            const int64_t token = c * call.chunk;
            Chunk chunk = given(token, own);
            for (int64_t i = 0; i < call.layers; i++) {
                if (i > 0) chunk = after(i, chunk.count, own);
                run(tiles, i, chunk, token, 0, rows_of(i), own);
            }
            normalize(token, token + chunk.count);
        }
    }

    // Few tokens: all threads share the rows of each layer, and what lies between layers. Four parts a thread, as rows
    // keep different numbers of blocks. Each copies the inputs for itself rather than wait for one that does it.
    void run_together(Tiles& tiles, int64_t chunks) const {
        for (int64_t c = 0; c < chunks; c++) {
            const int64_t token = c * call.chunk;
            Chunk chunk = given(token, of_thread());
            for (int64_t i = 0; i < call.layers; i++) {
                if (i > 0) chunk = after(i, chunk.count, workspace);
                const int64_t rows = rows_of(i), parts = smaller(rows, 4 * call.threads);
#pragma omp for schedule(dynamic)
                for (int64_t part = 0; part < parts; part++)
                    run(tiles, i, chunk, token, rows * part / parts, rows * (part + 1) / parts, workspace);
            }
        }
#pragma omp for
        for (int64_t token = 0; token < call.tokens; token++) normalize(token, token + 1);
    }
};

template <typename Value>
void forward(const SbTileChain& call, const SbTileLayer* layers, const void* x, void* y, uint16_t* workspace) {
    const Chain<Value> chain{call, layers, static_cast<const Value*>(x), static_cast<Value*>(y), workspace,
                             Sizes(call, layers)};
    const int64_t chunks = whole(call.tokens, call.chunk);
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
    {
        Tiles tiles;
        if (chunks < call.threads)
            chain.run_together(tiles, chunks);
        else
            chain.run_apart(tiles, chunks);
    }
}

}  // namespace

extern "C" void SB_NAME(sb_tile_linear)(const SbTileChain* call, const SbTileLayer* layers, const void* x, void* y,
                                        uint16_t* workspace) {
    if (call->bf16)
        forward<uint16_t>(*call, layers, x, y, workspace);
    else
        forward<float>(*call, layers, x, y, workspace);
}
