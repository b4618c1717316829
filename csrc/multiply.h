// The product that block-sparse layers and attention share: a few tokens with weights whose outputs lie side by side.
//
// A register holds the weights of one input and several outputs, and each input of a token is used for all of them, so
// that rows of x are read as they lie. Sums stay in registers over all blocks of a row.
#pragma once

#include "vec.h"

namespace {

// With two registers of outputs each token has two sums: 24 of AVX-512's 32 registers, 12 of AVX2's 16. The others hold
// weights and the input. More tokens would spill sums to memory in the inner loop, fewer would load each weight more
// often.
constexpr int TOKENS = REGISTER == 16 ? 12 : REGISTER == 8 ? 6 : 3;
constexpr int WIDTH = 32;        // inputs of a block

// Values of tokens: rows that are `stride` apart, in panels of WIDTH values that are `across` apart. Side by side in a
// row as a matrix has them, or with the tokens of a panel close together.
template <typename Value>
struct PlacesOf {
    Value* first;
    int64_t stride, across = WIDTH;

    PlacesOf from(int64_t token) const { return {first + token * stride, stride, across}; }
    PlacesOf at(int64_t value) const { return {first + value / WIDTH * across + value % WIDTH, stride, across}; }
    operator PlacesOf<const Value>() const { return {first, stride, across}; }
};
using Places = PlacesOf<float>;
using Given = PlacesOf<const float>;

// What is left of one row of blocks.
struct BlockRow {
    int64_t inputs, height, count;
    const float* values;  // [count][WIDTH][height]
    const int32_t* columns;  // null = all, one after another

    int64_t column(int64_t block) const { return columns == nullptr ? block : columns[block]; }
};

// y [T, S registers] = bias (null = none) + x W^T of `T` tokens, from output `first` of the row on.
template <int T, int S>
void add_up(const BlockRow& row, int64_t first, Given x, const float* bias, Places y) {
    constexpr int POINTERS = (T + 2) / 3;
    // T S sums that do not depend on one another: enough to keep both multipliers busy while each waits for its last.
    Lane acc[T][S] = {};
    for (int64_t b = 0; b < row.count; b++) {
        const int64_t column = row.column(b);
        const float* weight = row.values + b * WIDTH * row.height + first;
        // One pointer for three tokens: with one for each there are more than there are registers.
        const float* from[POINTERS];
        for (int p = 0; p < POINTERS; p++) from[p] = x.first + 3 * p * x.stride + column * x.across;
        const int64_t width = smaller(WIDTH, row.inputs - column * WIDTH);
        for (int64_t k = 0; k < width; k++) {
            Lane w[S];
#pragma GCC unroll 2
            for (int s = 0; s < S; s++) w[s] = load_lane(weight + s * REGISTER);
#pragma GCC unroll 12
            for (int t = 0; t < T; t++) {
                const Lane value = broadcast(from[t / 3][t % 3 * x.stride]);
#pragma GCC unroll 2
                for (int s = 0; s < S; s++) acc[t][s] += value * w[s];
            }
            weight += row.height;
#pragma GCC unroll 4
            for (int p = 0; p < POINTERS; p++) from[p]++;
        }
    }
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
        const Lane shift = bias == nullptr ? Lane{} : load_lane(bias + first + s * REGISTER);
#pragma GCC unroll 12
        for (int t = 0; t < T; t++) store_lane(y.first + t * y.stride + first + s * REGISTER, acc[t][s] + shift);
    }
}

template <int T>
void add_up_all(const BlockRow& row, Given x, const float* bias, Places y) {
    int64_t first = 0;
    for (; first + 2 * REGISTER <= row.height; first += 2 * REGISTER) add_up<T, 2>(row, first, x, bias, y);
    for (; first < row.height; first += REGISTER) add_up<T, 1>(row, first, x, bias, y);
}

// A last group of tokens that is not full goes in thirds and ones: fewer sums at once wait for one another.
void add_up_some(const BlockRow& row, int64_t tokens, Given x, const float* bias, Places y) {
    constexpr int THIRD = TOKENS / 3;
    int64_t t = 0;
    for (; t + TOKENS <= tokens; t += TOKENS) add_up_all<TOKENS>(row, x.from(t), bias, y.from(t));
    for (; t + 2 * THIRD <= tokens; t += 2 * THIRD) add_up_all<2 * THIRD>(row, x.from(t), bias, y.from(t));
    for (; t + THIRD <= tokens; t += THIRD) add_up_all<THIRD>(row, x.from(t), bias, y.from(t));
    for (; t < tokens; t++) add_up_all<1>(row, x.from(t), bias, y.from(t));
}

// The places of a result are fetched for writing while it is computed: stores wait for one another.
void expect(Places y, int64_t tokens, int64_t wide) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < wide; h += LANES) __builtin_prefetch(y.from(t).first + h, 1);
}

}  // namespace
