// Linear layers whose weights keep only some of their blocks, one after another: y = activation(x W^T + b), in float.
//
// A block is stored with its outputs side by side, so that a register holds the weights of one input and several
// outputs, and each input of a token is used for all of them: rows of x are read as they lie. Sums of a few tokens stay
// in registers over all blocks of a row; bias and activation follow while the result is at hand. A thread takes a chunk
// of tokens through all layers, so that what lies between two of them never leaves its cache.

#include <omp.h>

#include "multiply.h"
#include "norm.h"
#include "sparsebert.h"

namespace {

constexpr int TALLEST = 32;        // outputs of a block
constexpr int64_t ONE_WAY = 1024;  // floats after which lines fall on the same place of the nearest cache

BlockRow row_of(const SbBlocks& layer, int64_t row) {
    const int64_t start = layer.starts[row];
    return {layer.inputs, layer.height, layer.starts[row + 1] - start, layer.values + start * WIDTH * layer.height,
            layer.columns + start};
}

int64_t rows_of(const SbBlocks& layer) { return whole(layer.outputs, layer.height); }

template <int T>
void activate_at(Places y, int64_t h, int kind) {
    Vec values[T];
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) values[t] = load(y.from(t).first + h);
    activate(values, kind);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) store(y.from(t).first + h, values[t]);
}

void activate_rows(Places y, int64_t tokens, int64_t wide, int kind) {
    if (kind == NO_ACTIVATION) return;
    int64_t t = 0;
    for (; t + 4 <= tokens; t += 4)
        for (int64_t h = 0; h < wide; h += LANES) activate_at<4>(y.from(t), h, kind);
    for (; t < tokens; t++)
        for (int64_t h = 0; h < wide; h += LANES) activate_at<1>(y.from(t), h, kind);
}

// y [TOKENS at most, outputs] at the outputs of one row of blocks.
void multiply(const SbBlocks& layer, int64_t index, int64_t tokens, Given x, Places y) {
    const BlockRow row = row_of(layer, index);
    const int64_t first = index * layer.height, here = smaller(layer.height, layer.outputs - first);
    const Places to = y.at(first);
    expect(to, tokens, here);
    float shift[TALLEST] = {};
    if (layer.bias != nullptr) std::memcpy(shift, layer.bias + first, here * sizeof(float));
    if (here == layer.height) {
        add_up_some(row, tokens, x, shift, to);
        activate_rows(to, tokens, here, layer.activation);
        return;
    }
    float whole[TOKENS * TALLEST];
    const Places beside{whole, layer.height};
    add_up_some(row, tokens, x, shift, beside);
    activate_rows(beside, tokens, layer.height, layer.activation);
    for (int64_t t = 0; t < tokens; t++)
        std::memcpy(to.from(t).first, beside.from(t).first, here * sizeof(float));
}

void multiply_rows(const SbBlocks& layer, int64_t begin, int64_t end, int64_t tokens, Given x, Places y) {
    for (int64_t row = begin; row < end; row++)
        for (int64_t t = 0; t < tokens; t += TOKENS)
            multiply(layer, row, smaller(TOKENS, tokens - t), x.from(t), y.from(t));
}

// What lies between layers, in two places that take turns. The tokens of a panel are side by side: rows would each lie
// on a page of their own, and those of 2^n values on the same lines of the cache.
struct Between {
    float* workspace;
    int64_t tokens, widest;

    Places before(int64_t layer) const { return {workspace + layer % 2 * tokens * widest, WIDTH, tokens * WIDTH}; }
};

struct Chain {
    const SbChain& call;
    const SbBlocks* layers;
    const float* x;
    float* y;

    // Inputs as they lie, or, where their rows would push one another out of the cache, a copy of them.
    Given given(int64_t token, int64_t tokens, const Between& between) const {
        const int64_t inputs = layers[0].inputs;
        const Given rows{x + token * inputs, inputs};
        if (inputs % ONE_WAY != 0) return rows;
        const Places copy = between.before(0);
        for (int64_t t = 0; t < tokens; t++)
            for (int64_t k = 0; k < inputs; k += WIDTH)
                std::memcpy(copy.from(t).at(k).first, rows.from(t).first + k, WIDTH * sizeof(float));
        return copy;
    }

    Places after(int64_t layer, int64_t token, const Between& between) const {
        const int64_t outputs = layers[layer].outputs;
        return layer + 1 < call.layers ? between.before(layer + 1) : Places{y + token * outputs, outputs};
    }

    void finish(int64_t token, int64_t tokens) const {
        normalize_rows(call.norm, token, token + tokens, layers[call.layers - 1].outputs, y);
    }

    void run_alone(int64_t token, int64_t tokens, const Between& between) const {
        Given from = given(token, tokens, between);
        for (int64_t i = 0; i < call.layers; i++) {
            const Places to = after(i, token, between);
            multiply_rows(layers[i], 0, rows_of(layers[i]), tokens, from, to);
            from = to;
        }
        finish(token, tokens);
    }

    // Few tokens: all threads share the rows of each layer. Four parts a thread, as rows keep different numbers of
    // blocks.
    void run_together(const Between& between) const {
        Given from = given(0, call.tokens, between);
        for (int64_t i = 0; i < call.layers; i++) {
            const Places to = after(i, 0, between);
            const int64_t rows = rows_of(layers[i]), parts = smaller(rows, 4 * call.threads);
#pragma omp parallel for num_threads(call.threads) if (call.threads > 1) schedule(dynamic)
            for (int64_t part = 0; part < parts; part++)
                multiply_rows(layers[i], rows * part / parts, rows * (part + 1) / parts, call.tokens, from, to);
            from = to;
        }
        finish(0, call.tokens);
    }
};

}  // namespace

extern "C" void SB_NAME(sb_blocks)(const SbChain* call, const SbBlocks* layers, const float* x, float* y,
                                   float* workspace) {
    const Chain chain{*call, layers, x, y};
    const int64_t chunks = whole(call->tokens, call->chunk);
    int64_t widest = 0;
    for (int64_t i = 0; i < call->layers; i++) widest = widest < layers[i].inputs ? layers[i].inputs : widest;
    widest = whole(widest, WIDTH) * WIDTH;
    if (chunks < call->threads) return chain.run_together({workspace, call->tokens, widest});
#pragma omp parallel for num_threads(call->threads) if (call->threads > 1) schedule(dynamic)
    for (int64_t c = 0; c < chunks; c++) {
        const int64_t token = c * call->chunk;
        float* const own = workspace + omp_get_thread_num() * 2 * call->chunk * widest;
        chain.run_alone(token, smaller(call->chunk, call->tokens - token), {own, call->chunk, widest});
    }
}
