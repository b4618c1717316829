// Linear layers whose weight keeps single values: y = activation(x W^T + b), computed in float.
//
// Tokens are turned so that those of a panel lie side by side: a weight that is left is then one broadcast, times the
// panel's values of its input. Results are turned back 16 x 16 at a time, with bias and activation, while they are in
// the nearest cache.

#include <omp.h>

#include "sparsebert.h"
#include "vec.h"

namespace {

// Tokens: four registers of AVX-512, so that one load of a weight and its column serves four products.
constexpr int64_t PANEL = 64;

struct Weights {
    const float* values;
    const int32_t *columns, *starts;
};

// panel [inputs][lanes]; tokens that are not there are zero.
template <typename Value>
void turn(const Value* x, int64_t tokens, int64_t inputs, int64_t lanes, float* panel) {
    for (int64_t t = 0; t < lanes; t += LANES)
        for (int64_t k = 0; k < inputs; k += LANES) {
            const int64_t wide = smaller(LANES, inputs - k);
            Vec tile[LANES] = {};
            for (int64_t i = 0; i < LANES && t + i < tokens; i++) tile[i] = load_part(x + (t + i) * inputs + k, wide);
            transpose(tile);
            for (int64_t j = 0; j < wide; j++) store(panel + (k + j) * lanes + t, tile[j]);
        }
}

// sums [LANES V] of one output: the weights from `i` to `end` times the panel.
template <int V>
void add_up(const Weights& w, int64_t i, int64_t end, const float* panel, float* sums) {
    constexpr int REGISTERS = V * int(LANES) / REGISTER;
    constexpr int AT_ONCE = REGISTERS % 4 == 0 ? 4 : REGISTERS % 3 == 0 ? 3 : REGISTERS;
    const int64_t begin = i;
    for (int first = 0; first < REGISTERS; first += AT_ONCE, i = begin) {
        // Two sums of each, as an addition waits for the one before: with one the multipliers would idle half the time.
        Lane even[AT_ONCE] = {}, odd[AT_ONCE] = {};
        const float* from = panel + first * REGISTER;
        for (; i + 2 <= end; i += 2) {
            const float *a = from + w.columns[i] * (V * LANES), *b = from + w.columns[i + 1] * (V * LANES);
            const Lane left = broadcast(w.values[i]), right = broadcast(w.values[i + 1]);
            for (int r = 0; r < AT_ONCE; r++) {
                even[r] += left * load_lane(a + r * REGISTER);
                odd[r] += right * load_lane(b + r * REGISTER);
            }
        }
        if (i < end) {
            const float* a = from + w.columns[i] * (V * LANES);
            const Lane left = broadcast(w.values[i]);
            for (int r = 0; r < AT_ONCE; r++) even[r] += left * load_lane(a + r * REGISTER);
        }
        for (int r = 0; r < AT_ONCE; r++) store_lane(sums + (first + r) * REGISTER, even[r] + odd[r]);
    }
}

// y at LANES outputs, from sums [LANES][lanes].
template <typename Value>
void finish(const SbLinear& call, int64_t output, int64_t tokens, int64_t lanes, const float* sums, const float* bias,
            Value* y) {
    const int64_t wide = smaller(LANES, call.outputs - output);
    const Vec shift = bias == nullptr ? Vec{} : load_part(bias + output, wide);
    for (int64_t t = 0; t < tokens; t += LANES) {
        Vec tile[LANES];
        for (int64_t j = 0; j < LANES; j++) tile[j] = load(sums + j * lanes + t);
        transpose(tile);
        for (int64_t i = 0; i < LANES && t + i < tokens; i++)
            store_part(y + (t + i) * call.outputs + output, activate(tile[i] + shift, call.activation), wide);
    }
}

template <int V, typename Value>
void outputs(const SbLinear& call, const Weights& w, int64_t from, int64_t to, int64_t tokens, const float* panel,
             const float* bias, Value* y) {
    for (int64_t output = from; output < to; output += LANES) {
        alignas(64) float sums[LANES * V * LANES] = {};
        for (int64_t j = 0; j < smaller(LANES, to - output); j++)
            add_up<V>(w, w.starts[output + j], w.starts[output + j + 1], panel, sums + j * V * LANES);
        finish(call, output, tokens, V * LANES, sums, bias, y);
    }
}

template <typename Value>
void elements(const SbLinear& call, const Weights& w, const Value* x, const float* bias, Value* y, float* workspace) {
    const int64_t panels = whole(call.tokens, PANEL), groups = whole(call.outputs, LANES);
    // Few tokens: threads share the outputs instead, and each part turns the panel anew. Four parts a thread, so
    // that rows with more weights than others are evened out.
    const int64_t parts = panels < call.threads ? smaller(groups, 4 * call.threads) : 1;
#pragma omp parallel num_threads(call.threads) if (call.threads > 1)
    {
        float* const panel = workspace + omp_get_thread_num() * PANEL * call.inputs;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t p = 0; p < panels; p++)
            for (int64_t part = 0; part < parts; part++) {
                const int64_t begin = p * PANEL, tokens = smaller(PANEL, call.tokens - begin);
                const int64_t from = groups * part / parts * LANES;
                const int64_t to = smaller(call.outputs, groups * (part + 1) / parts * LANES);
                const int64_t vectors = whole(tokens, LANES);
                Value* const rows = y + begin * call.outputs;
                turn(x + begin * call.inputs, tokens, call.inputs, vectors * LANES, panel);
                const auto run = vectors == 4   ? outputs<4, Value>
                                 : vectors == 3 ? outputs<3, Value>
                                 : vectors == 2 ? outputs<2, Value>
                                                : outputs<1, Value>;
                run(call, w, from, to, tokens, panel, bias, rows);
            }
    }
}

}  // namespace

extern "C" void SB_NAME(sb_elements)(const SbLinear* call, const void* x, const float* values, const int32_t* starts,
                                     const int32_t* columns, const float* bias, void* y, float* workspace) {
    const Weights w{values, columns, starts};
    if (call->bf16)
        elements(*call, w, static_cast<const uint16_t*>(x), bias, static_cast<uint16_t*>(y), workspace);
    else
        elements(*call, w, static_cast<const float*>(x), bias, static_cast<float*>(y), workspace);
}
