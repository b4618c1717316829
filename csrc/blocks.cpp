// Linear layers whose weight keeps only some of its blocks: y = activation(x W^T + b), in float.
//
// A block is stored with its outputs side by side, so that a register holds the weights of one input and several
// outputs, and each input of a token is used for all of them: rows of x are read as they lie, nothing is packed. Sums
// of a few tokens stay in registers over all blocks of a row; bias and activation follow while the result is at hand.

#include <omp.h>

#include "sparsebert.h"
#include "vec.h"

namespace {

// With two registers of outputs each, as many as the sums of which fit into all registers.
constexpr int TOKENS = REGISTER == 16 ? 12 : REGISTER == 8 ? 6 : 3;
constexpr int WIDTH = 32;        // inputs of a block
constexpr int TALLEST = 64;      // outputs of a block
constexpr int64_t PADDING = 16;  // else rows of 2^n inputs would all fall on the same lines of the cache

// What one thread does for one row of blocks.
struct Row {
    int64_t inputs, stride, height, count;
    const float* values;  // [count][WIDTH][height]
    const int32_t* columns;
};

// sums [TOKENS at most, height] of `T` tokens and `S` registers of outputs, from output `first` of the row on.
template <int T, int S>
void add_up(const Row& row, int64_t first, const float* x, float* sums) {
    constexpr int POINTERS = (T + 2) / 3;
    Lane acc[T][S] = {};
    for (int64_t b = 0; b < row.count; b++) {
        const float* weight = row.values + b * WIDTH * row.height + first;
        // One pointer for three tokens: with one for each there are more than there are registers.
        const float* from[POINTERS];
        for (int p = 0; p < POINTERS; p++) from[p] = x + 3 * p * row.stride + int64_t(row.columns[b]) * WIDTH;
        const int64_t width = smaller(WIDTH, row.inputs - int64_t(row.columns[b]) * WIDTH);
        for (int64_t k = 0; k < width; k++) {
            Lane w[S];
#pragma GCC unroll 2
            for (int s = 0; s < S; s++) w[s] = load_lane(weight + s * REGISTER);
#pragma GCC unroll 12
            for (int t = 0; t < T; t++) {
                const Lane value = broadcast(from[t / 3][t % 3 * row.stride]);
#pragma GCC unroll 2
                for (int s = 0; s < S; s++) acc[t][s] += value * w[s];
            }
            weight += row.height;
#pragma GCC unroll 4
            for (int p = 0; p < POINTERS; p++) from[p]++;
        }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
#pragma GCC unroll 2
        for (int s = 0; s < S; s++)
            store_lane(sums + t * row.height + first + s * REGISTER, acc[t][s]);
}

template <int T>
void add_up_all(const Row& row, const float* x, float* sums) {
    int64_t first = 0;
    for (; first + 2 * REGISTER <= row.height; first += 2 * REGISTER) add_up<T, 2>(row, first, x, sums);
    for (; first < row.height; first += REGISTER) add_up<T, 1>(row, first, x, sums);
}

// A last group of tokens that is not full goes in threes and ones.
void add_up_some(const Row& row, int64_t tokens, const float* x, float* sums) {
    int64_t t = 0;
    for (; t + TOKENS <= tokens; t += TOKENS) add_up_all<TOKENS>(row, x + t * row.stride, sums + t * row.height);
    for (; t + 3 <= tokens; t += 3) add_up_all<3>(row, x + t * row.stride, sums + t * row.height);
    for (; t < tokens; t++) add_up_all<1>(row, x + t * row.stride, sums + t * row.height);
}

// The places of a result are fetched for writing while it is computed: stores wait for one another.
void expect(const float* y, int64_t tokens, int64_t stride, int64_t height) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < height; h += LANES) __builtin_prefetch(y + t * stride + h, 1);
}

// y [tokens, call.outputs] at the outputs of one row of blocks.
void finish(const SbLinear& call, int64_t row, int64_t height, int64_t tokens, const float* sums, const float* bias,
            float* y) {
    const int64_t first = row * height, here = smaller(height, call.outputs - first);
    for (int64_t h = 0; h < here; h += LANES) {
        const Vec shift = bias == nullptr ? Vec{} : load_part(bias + first + h, here - h);
        for (int64_t t = 0; t < tokens; t++)
            store_part(y + t * call.outputs + first + h, activate(load(sums + t * height + h) + shift, call.activation),
                       here - h);
    }
}

}  // namespace

extern "C" void SB_NAME(sb_blocks)(const SbLinear* call, int64_t height, int64_t chunk, const float* x,
                                   const float* values, const int32_t* starts, const int32_t* columns,
                                   const float* bias, float* y, float* scratch) {
    const int64_t rows = (call->outputs + height - 1) / height, stride = call->inputs + PADDING;
    const int64_t chunks = (call->tokens + chunk - 1) / chunk;
    // Few tokens: threads share the rows instead.
    const int64_t parts = chunks < call->threads ? smaller(rows, 4 * call->threads) : 1;
#pragma omp parallel num_threads(call->threads) if (call->threads > 1)
    {
        float* const own = scratch + omp_get_thread_num() * chunk * stride;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t c = 0; c < chunks; c++)
            for (int64_t part = 0; part < parts; part++) {
                const int64_t begin = c * chunk, count = smaller(chunk, call->tokens - begin);
                for (int64_t t = 0; t < count; t++)
                    std::memcpy(own + t * stride, x + (begin + t) * call->inputs, call->inputs * sizeof(float));
                for (int64_t r = rows * part / parts; r < rows * (part + 1) / parts; r++) {
                    const Row row{call->inputs, stride, height, starts[r + 1] - starts[r],
                                  values + int64_t(starts[r]) * WIDTH * height, columns + starts[r]};
                    for (int64_t t = 0; t < count; t += TOKENS) {
                        float sums[TOKENS * TALLEST];
                        const int64_t tokens = smaller(TOKENS, count - t);
                        expect(y + (begin + t) * call->outputs + r * height, tokens, call->outputs, height);
                        add_up_some(row, tokens, own + t * stride, sums);
                        finish(*call, r, height, tokens, sums, bias, y + (begin + t) * call->outputs);
                    }
                }
            }
    }
}
