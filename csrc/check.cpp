// Runs every kernel over odd shapes and compares the instruction sets; built with sanitizers by `build.py --check`.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "sparsebert.h"

int check_tiles();

namespace {

struct Case {
    int64_t tokens, hidden, trees, depth, sort_level;
    int32_t activation, threads;
};

std::mt19937 generator(0);

template <typename Value>
std::vector<Value> random_values(int64_t count) {
    std::normal_distribution<float> normal(0.0f, 0.3f);
    std::vector<Value> values(count);
    for (auto& value : values) {
        const float drawn = normal(generator);
        if constexpr (sizeof(Value) == 2)
            value = to_bf16(drawn);
        else
            value = drawn;
    }
    return values;
}

// bf16 may be off by what its last bit counts.
template <typename Value>
int apart(const std::vector<Value>& y, const std::vector<Value>& expected) {
    constexpr float MOST = sizeof(Value) == 2 ? 9e-3f : 1e-3f;
    int found = 0;
    for (size_t i = 0; i < y.size(); i++)
        found +=
            !(std::fabs(as_float(y[i]) - as_float(expected[i])) <= MOST * (1.0f + std::fabs(as_float(expected[i]))));
    return found;
}

template <typename Weight>
int differences(const Case& c) {
    const int64_t levels = c.depth + 1, nodes = (int64_t(1) << levels) - 1;
    const auto x = random_values<float>(c.tokens * c.hidden);
    const auto in = random_values<Weight>(c.trees * nodes * c.hidden);
    const auto out = random_values<Weight>(c.trees * nodes * c.hidden);
    const auto bias = random_values<float>(c.trees * nodes);
    const SbFff call{c.tokens,    c.hidden,   c.trees,      c.depth,      c.sort_level,        in.data(),
                     bias.data(), out.data(), c.activation, sizeof(Weight) == 2, c.threads};
    std::vector<float> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        const int64_t steps = c.trees * c.tokens * levels, level = c.sort_level < levels ? c.sort_level : 0;
        std::vector<float> y(c.tokens * c.hidden, NAN);
        std::vector<int32_t> workspace(2 * steps + 2 * c.tokens + (int64_t(1) << level) + 1, -1);
        found += sb_fff(isa, &call, x.data(), y.data(), workspace.data()) != 0;
        for (size_t i = 0; i < y.size(); i++) found += !std::isfinite(y[i]);
        for (int64_t i = 0; i < steps; i++) found += workspace[i] < 0 || workspace[i] >= nodes;
        if (isa == 0) first = y;
        found += apart(y, first);
        if (c.tokens != 1 || c.sort_level != 0) continue;
        std::vector<float> alone(c.hidden, NAN);
        found += sb_fff(isa, &call, x.data(), alone.data(), nullptr) != 0;
        found += apart(alone, first);
    }
    return found;
}

struct LinearCase {
    int64_t tokens, inputs, outputs, height, chunk;
    int32_t activation, threads;
    bool bias;
};

// What is left of a matrix: every block from the first or second on, or every second value for `height` 0.
struct Kept {
    std::vector<int32_t> starts{0}, columns;
    std::vector<float> values;

    explicit Kept(const LinearCase& c) {
        const int64_t rows = c.height > 0 ? (c.outputs + c.height - 1) / c.height : c.outputs;
        const int64_t across = c.height > 0 ? (c.inputs + 31) / 32 : c.inputs, step = c.height > 0 ? 1 : 2;
        for (int64_t row = 0; row < rows; row++) {
            for (int64_t i = row % 2; i < across; i += step) columns.push_back(int32_t(i));
            starts.push_back(int32_t(columns.size()));
        }
        values = random_values<float>(columns.size() * (c.height > 0 ? 32 * c.height : 1));
    }
};

int block_differences(const LinearCase& c) {
    const Kept kept(c);
    const auto x = random_values<float>(c.tokens * c.inputs), bias = random_values<float>(c.outputs);
    const SbBlocks layer{c.inputs,
                         c.outputs,
                         c.height,
                         kept.values.data(),
                         kept.starts.data(),
                         kept.columns.data(),
                         c.bias ? bias.data() : nullptr,
                         c.activation};
    const SbChain chain{c.tokens, 1, c.chunk, SbNorm{}, c.threads};
    std::vector<float> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        std::vector<float> y(c.tokens * c.outputs, NAN);
        std::vector<float> workspace(c.threads * 2 * c.chunk * ((c.inputs + 31) / 32 * 32), NAN);
        found += 0 != sb_blocks(isa, &chain, &layer, x.data(), y.data(), workspace.data());
        if (isa == 0) first = y;
        found += apart(y, first);
    }
    return found;
}

template <typename Value>
int element_differences(const LinearCase& c) {
    constexpr bool HALF = sizeof(Value) == 2;
    const Kept kept(c);
    const auto x = random_values<Value>(c.tokens * c.inputs);
    const auto bias = random_values<float>(c.outputs);
    const SbLinear call{c.tokens, c.inputs, c.outputs, c.activation, HALF, c.threads};
    std::vector<Value> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        std::vector<Value> y(c.tokens * c.outputs, HALF ? Value(0xffff) : Value(NAN));
        std::vector<float> workspace(c.threads * 64 * c.inputs, NAN);
        found += 0 != sb_elements(isa, &call, x.data(), kept.values.data(), kept.starts.data(), kept.columns.data(),
                                  c.bias ? bias.data() : nullptr, y.data(), workspace.data());
        if (isa == 0) first = y;
        found += apart(y, first);
    }
    return found;
}

// Two dense layers of blocks and a norm: back to as many outputs as there were inputs, which are the residual.
int chain_differences(int64_t tokens, int64_t inputs, int64_t between, int32_t threads) {
    const auto x = random_values<float>(tokens * inputs), gamma = random_values<float>(inputs);
    std::vector<float> values[2];
    std::vector<int32_t> starts[2], columns[2];
    SbBlocks layers[2];
    for (int i = 0; i < 2; i++) {
        const int64_t from = i == 0 ? inputs : between, to = i == 0 ? between : inputs;
        starts[i].push_back(0);
        for (int64_t row = 0; row < (to + 31) / 32; row++) {
            for (int64_t column = 0; column < (from + 31) / 32; column++) columns[i].push_back(int32_t(column));
            starts[i].push_back(int32_t(columns[i].size()));
        }
        values[i] = random_values<float>(columns[i].size() * 32 * 32);
        layers[i] = {from, to, 32, values[i].data(), starts[i].data(), columns[i].data(), nullptr, i == 0 ? 0 : 2};
    }
    const SbChain chain{tokens, 2, 12, {x.data(), gamma.data(), gamma.data(), 1e-6f}, threads};
    std::vector<float> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        std::vector<float> y(tokens * inputs, NAN);
        std::vector<float> workspace(threads * 2 * 12 * (((inputs < between ? between : inputs) + 31) / 32 * 32), NAN);
        found += 0 != sb_blocks(isa, &chain, layers, x.data(), y.data(), workspace.data());
        if (isa == 0) first = y;
        found += apart(y, first);
    }
    return found;
}

// Every third key of every second head is not seen; values of tokens lie as a layer gives them.
int attention_differences(int64_t batch, int64_t heads, int64_t tokens, int64_t size, int32_t threads) {
    const int64_t wide = heads * size;
    const auto q = random_values<float>(batch * tokens * wide), k = random_values<float>(batch * tokens * wide);
    const auto v = random_values<float>(batch * tokens * wide);
    std::vector<uint8_t> mask(heads * tokens);
    for (int64_t i = 0; i < heads * tokens; i++) mask[i] = i / tokens % 2 == 0 || i % 3 != 0;
    const SbStrides strides{tokens * wide, wide, size};
    const SbAttention call{batch, heads, tokens, tokens, size, strides, strides, strides, 0, tokens, 0, 0.2f, threads};
    const int64_t turned = (tokens + 31) / 32 * 32, even = (size + 15) / 16 * 16;
    std::vector<float> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        std::vector<float> y(batch * tokens * wide, NAN);
        std::vector<float> workspace(threads * (turned * size + tokens * even + 12 * (turned + 16 + even)), NAN);
        found += 0 != sb_attention(isa, &call, q.data(), k.data(), v.data(), mask.data(), y.data(), workspace.data());
        if (isa == 0) first = y;
        found += apart(y, first);
    }
    return found;
}

}  // namespace

int main() {
    const Case cases[] = {{0, 32, 1, 3, 0, 0, 1},   {1, 768, 1, 11, 0, 0, 1},  {7, 33, 3, 4, 0, 1, 1},
                          {9, 1, 2, 0, 0, 0, 1},    {65, 70, 1, 6, 3, 0, 2},   {300, 48, 2, 5, 4, 1, 3},
                          {17, 15, 1, 8, 7, 0, 2},  {1000, 64, 1, 9, 6, 0, 2}};
    int failed = 0;
    for (const Case& c : cases) {
        const int found = differences<float>(c) + differences<uint16_t>(c);
        std::printf("%lld x %lld, %lldx%lld: %d differences\n", (long long)c.tokens, (long long)c.hidden,
                    (long long)c.trees, (long long)c.depth, found);
        failed += found;
    }
    const LinearCase linear[] = {{0, 32, 32, 32, 12, 0, 1, true},   {1, 100, 33, 16, 12, 1, 2, false},
                                 {61, 64, 70, 32, 24, 0, 2, true},  {13, 31, 5, 16, 12, 2, 1, true},
                                 {0, 7, 3, 0, 0, 0, 1, true},       {1, 65, 40, 0, 0, 1, 3, false},
                                 {77, 33, 18, 0, 0, 0, 2, true},    {200, 50, 16, 0, 0, 2, 2, true}};
    for (const LinearCase& c : linear) {
        const int found = c.height > 0 ? block_differences(c)
                                       : element_differences<float>(c) + element_differences<uint16_t>(c);
        std::printf("%lld x %lld to %lld, height %lld: %d differences\n", (long long)c.tokens, (long long)c.inputs,
                    (long long)c.outputs, (long long)c.height, found);
        failed += found;
    }
    const int64_t chains[][4] = {{0, 32, 64, 1}, {1, 48, 33, 2}, {50, 33, 70, 2}, {29, 64, 1024, 1}, {13, 1024, 32, 2}};
    for (const auto& c : chains) {
        const int found = chain_differences(c[0], c[1], c[2], int32_t(c[3]));
        std::printf("%lld x %lld, through %lld: %d differences\n", (long long)c[0], (long long)c[1], (long long)c[2],
                    found);
        failed += found;
    }
    const int64_t heads[][5] = {
        {0, 2, 5, 8, 1}, {1, 1, 1, 64, 2}, {2, 3, 33, 24, 2}, {1, 2, 70, 5, 1}, {3, 2, 20, 32, 3}};
    for (const auto& c : heads) {
        const int found = attention_differences(c[0], c[1], c[2], c[3], int32_t(c[4]));
        std::printf("attention %lld x %lld x %lld x %lld: %d differences\n", (long long)c[0], (long long)c[1],
                    (long long)c[2], (long long)c[3], found);
        failed += found;
    }
    failed += check_tiles();
    SbFff none{};
    failed += sb_fff(6, &none, nullptr, nullptr, nullptr) != 1;
    return failed == 0 ? 0 : 1;
}
