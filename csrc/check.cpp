// Runs every kernel over odd shapes and compares the instruction sets; built with sanitizers by `build.py --check`.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "sparsebert.h"

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
        if constexpr (sizeof(Value) == 2) {
            uint32_t bits;
            __builtin_memcpy(&bits, &drawn, sizeof bits);
            value = Value(bits >> 16);
        } else {
            value = drawn;
        }
    }
    return values;
}

template <typename Weight>
int differences(const Case& c) {
    const int64_t levels = c.depth + 1, nodes = (int64_t(1) << levels) - 1;
    const auto x = random_values<float>(c.tokens * c.hidden);
    const auto in = random_values<Weight>(c.trees * nodes * c.hidden), out = random_values<Weight>(c.trees * nodes * c.hidden);
    const auto bias = random_values<float>(c.trees * nodes);
    const SbFff call{c.tokens, c.hidden, c.trees, c.depth, c.sort_level, c.activation, sizeof(Weight) == 2, c.threads};
    std::vector<float> first;
    int found = 0;
    for (int32_t isa = 0; isa <= sb_best_isa(); isa++) {
        std::vector<float> y(c.tokens * c.hidden, NAN), logits(c.trees * c.tokens * levels, NAN);
        std::vector<int32_t> visited(c.trees * c.tokens * levels, -1), scratch(2 * c.tokens + nodes + 2, -1);
        if (sb_fff(isa, &call, x.data(), in.data(), bias.data(), out.data(), y.data(), visited.data(), logits.data(),
                   scratch.data()) != 0)
            found++;
        for (size_t i = 0; i < y.size(); i++) found += !std::isfinite(y[i]);
        for (int32_t node : visited) found += node < 0 || node >= nodes;
        if (isa == 0) first = y;
        for (size_t i = 0; i < y.size(); i++) found += std::fabs(y[i] - first[i]) > 1e-3f * (1.0f + std::fabs(first[i]));
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
    SbFff none{};
    failed += sb_fff(3, &none, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr) != 1;
    return failed == 0 ? 0 : 1;
}
