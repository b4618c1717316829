// The residual and the layer norm that follow a linear layer, in float whatever values are stored as.
#pragma once

#include "sparsebert.h"
#include "vec.h"

namespace {

// y [wide] = the layer norm of y + residual [wide].
template <typename Value>
void normalize(const SbNorm& norm, int64_t wide, const Value* residual, Value* y) {
    const int64_t even = wide - wide % LANES, rest = wide - even;
    const auto together = [&](int64_t h) { return load(y + h) + load(residual + h); };
    Vec sums{}, squares{};
    float total = 0.0f, square = 0.0f;
    for (int64_t h = 0; h < even; h += LANES) sums += together(h);
    for (int64_t h = even; h < wide; h++) total += one(y + h) + one(residual + h);
    const float mean = (total + sum(sums)) / float(wide);
    // A second pass over values in the nearest cache: the mean of squares less the squared mean would cancel digits.
    for (int64_t h = 0; h < even; h += LANES) squares += (together(h) - mean) * (together(h) - mean);
    for (int64_t h = even; h < wide; h++) {
        const float apart = one(y + h) + one(residual + h) - mean;
        square += apart * apart;
    }
    const float scale = 1.0f / __builtin_sqrtf((square + sum(squares)) / float(wide) + norm.epsilon);
    for (int64_t h = 0; h < even; h += LANES)
        store_part(y + h, (together(h) - mean) * scale * load(norm.gamma + h) + load(norm.beta + h), LANES);
    if (rest == 0) return;
    const Vec last = load_part(y + even, rest) + load_part(residual + even, rest);
    const Vec gamma = load_part(norm.gamma + even, rest), beta = load_part(norm.beta + even, rest);
    store_part(y + even, (last - mean) * scale * gamma + beta, rest);
}

// Rows `from` to `to` of y [tokens, wide], if anything follows.
template <typename Value>
void normalize_rows(const SbNorm& norm, int64_t from, int64_t to, int64_t wide, Value* y) {
    if (norm.residual == nullptr) return;
    const Value* residual = static_cast<const Value*>(norm.residual);
    for (int64_t t = from; t < to; t++) normalize(norm, wide, residual + t * wide, y + t * wide);
}

}  // namespace
