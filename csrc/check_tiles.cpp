// Runs the kernels on tiles, emulated and as the processor has them, against plain sums in double.

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "check.h"
#include "sparsebert.h"

namespace {

constexpr int32_t BF16 = 3, AMX = 4, EMULATED = 5;

std::mt19937 generator(1);

uint16_t drawn() { return to_bf16(std::normal_distribution<float>(0.0f, 0.3f)(generator)); }

std::vector<uint16_t> drawn(int64_t count, int keep_one_of) {
    std::vector<uint16_t> values(count);
    for (auto& value : values) value = generator() % keep_one_of == 0 ? drawn() : uint16_t(0);
    return values;
}

struct Case {
    int64_t tokens, inputs, outputs, height, chunk;
    int32_t threads;
    bool single;
};

struct Packed {
    std::vector<uint16_t> values;
    std::vector<int32_t> starts{0}, columns, begins;
    std::vector<uint32_t> masks;
};

// A tile's row: a pair of inputs of 16 outputs. Kept whole, or only what is not zero, with bits that say where.
void pack_row(const std::vector<uint16_t>& weight, const Case& c, int64_t output, int64_t input, Packed& to) {
    uint32_t mask = 0;
    for (int64_t i = 0; i < 32; i++) {
        const int64_t o = output + i / 2, k = input + i % 2;
        const uint16_t value = o < c.outputs && k < c.inputs ? weight[o * c.inputs + k] : uint16_t(0);
        mask |= uint32_t(value != 0) << i;
        if (!c.single || value != 0) to.values.push_back(value);
    }
    to.masks.push_back(mask);
}

Packed packed(const std::vector<uint16_t>& weight, const Case& c) {
    Packed made;
    for (int64_t output = 0; output < c.outputs; output += c.height) {
        for (int64_t input = 0; input < c.inputs; input += 32) {
            made.columns.push_back(int32_t(input / 32));
            made.begins.push_back(int32_t(made.values.size()));
            for (int64_t line = 0; line < c.height; line++)
                pack_row(weight, c, output + line / 16 * 16, input + line % 16 * 2, made);
        }
        made.starts.push_back(int32_t(made.columns.size()));
    }
    return made;
}

double sum_of(const Case& c, const std::vector<uint16_t>& x, const std::vector<uint16_t>& weight, int64_t token,
              int64_t output) {
    double sum = 0;
    for (int64_t k = 0; k < c.inputs; k++)
        sum += double(as_float(x[token * c.inputs + k])) * as_float(weight[output * c.inputs + k]);
    return sum;
}

// Of y from the layer norm of `before` and a residual, with gamma 2 and beta 1.
template <typename Value>
int norm_differences(const Case& c, const std::vector<Value>& before, const std::vector<Value>& residual,
                     const std::vector<Value>& y) {
    int found = 0;
    for (int64_t token = 0; token < c.tokens; token++) {
        double sum = 0, squares = 0;
        const auto value = [&](int64_t output) {
            const int64_t i = token * c.outputs + output;
            return double(as_float(before[i])) + as_float(residual[i]);
        };
        for (int64_t output = 0; output < c.outputs; output++) sum += value(output);
        const double mean = sum / c.outputs;
        for (int64_t output = 0; output < c.outputs; output++) squares += std::pow(value(output) - mean, 2);
        const double scale = 1 / std::sqrt(squares / c.outputs + 1e-6);
        for (int64_t output = 0; output < c.outputs; output++) {
            const double expected = (value(output) - mean) * scale * 2 + 1;
            const double apart = std::fabs(as_float(y[token * c.outputs + output]) - expected);
            found += !(apart <= 0.02 * (1 + std::fabs(expected)));
        }
    }
    return found;
}

SbTileLayer layer_of(const Case& c, const Packed& w, const std::vector<float>& bias) {
    const uint32_t* masks = c.single ? w.masks.data() : nullptr;
    return {c.inputs, c.outputs, c.height, w.values.data(), w.starts.data(), w.columns.data(),
            masks,    w.begins.data(), bias.data(), 1};
}

// Three layers in one call, there and back and there, against one call each.
int chain_differences(const Case& c, int32_t isa) {
    Case back = c;
    back.inputs = c.outputs, back.outputs = c.inputs;
    const auto x = drawn(c.tokens * c.inputs, 1);
    const Packed first = packed(drawn(c.outputs * c.inputs, 3), c);
    const Packed second = packed(drawn(c.outputs * c.inputs, 3), back);
    const std::vector<float> bias(c.outputs + c.inputs, 0.5f);
    const SbTileLayer there = layer_of(c, first, bias), again = layer_of(back, second, bias);
    const SbTileLayer layers[] = {there, again, there};
    const int64_t most = (c.inputs > c.outputs ? c.inputs : c.outputs) + 63;
    std::vector<uint16_t> workspace(c.threads * (3 * c.chunk * most + c.height * most), 0xffff);
    int refused = 0;
    const auto run = [&](int64_t count, const SbTileLayer* from, const std::vector<uint16_t>& given, int64_t outputs) {
        const SbTileChain call{c.tokens, count, c.chunk, {}, 1, c.threads};
        std::vector<uint16_t> y(c.tokens * outputs, 0xffff);
        refused += sb_tile_linear(isa, &call, from, given.data(), y.data(), workspace.data());
        return y;
    };
    const auto one = run(1, &there, x, c.outputs), two = run(1, &again, one, c.inputs);
    const bool differs = run(3, layers, x, c.outputs) != run(1, &there, two, c.outputs);
    return refused + differs;
}

struct Attention {
    int64_t batch, heads, tokens, size;
    int32_t threads;
};

// Of every second key, q = k = v.
int attention_differences(const Attention& c, int32_t isa) {
    const int64_t wide = c.heads * c.size, blocks = (c.tokens + 31) / 32, across = (c.size + 31) / 32;
    const int64_t rows = 32 * 32 * (across + blocks + 2), scores = 32 * (blocks * 32 + 16);
    const int64_t per_thread = 2 * blocks * across * 1024 + rows + 2 * scores;
    const auto x = drawn(c.batch * c.tokens * wide, 1);
    std::vector<uint8_t> mask(c.tokens);
    for (int64_t key = 0; key < c.tokens; key++) mask[key] = key % 2 == 0;
    const SbStrides strides{c.tokens * wide, wide, c.size};
    const SbAttention call{c.batch, c.heads, c.tokens, c.tokens, c.size, strides,  strides,
                           strides, 0,       0,        0,        0.5f,   c.threads};
    std::vector<uint16_t> y(x.size(), 0xffff), workspace(c.threads * per_thread, 0xffff);
    int found = sb_tile_attention(isa, &call, x.data(), x.data(), x.data(), mask.data(), y.data(), workspace.data());
    for (int64_t at = 0; at < c.batch * c.tokens * c.heads; at++) {
        const int64_t first = at / (c.tokens * c.heads) * c.tokens, head = at % c.heads;
        const auto value = [&](int64_t token, int64_t d) {
            return double(as_float(x[token * wide + head * c.size + d]));
        };
        double total = 0;
        std::vector<double> expected(c.size);
        for (int64_t key = first; key < first + c.tokens; key += 2) {
            double score = 0;
            for (int64_t d = 0; d < c.size; d++) score += value(at / c.heads, d) * value(key, d);
            total += std::exp(0.5 * score);
            for (int64_t d = 0; d < c.size; d++) expected[d] += std::exp(0.5 * score) * value(key, d);
        }
        for (int64_t d = 0; d < c.size; d++)
            found += !(std::fabs(as_float(y[at * c.size + d]) - expected[d] / total) <= 0.02);
    }
    return found;
}

template <typename Value>
int linear_differences(const Case& c, int32_t isa) {
    const auto x = drawn(c.tokens * c.inputs, 1), weight = drawn(c.outputs * c.inputs, c.single ? 4 : 1);
    std::vector<Value> given;
    for (uint16_t value : x) given.push_back(sizeof(Value) == 2 ? Value(value) : Value(as_float(value)));
    const Packed w = packed(weight, c);
    const std::vector<float> bias(c.outputs, 0.5f);
    SbTileChain call{c.tokens, 1, c.chunk, {}, sizeof(Value) == 2, c.threads};
    const SbTileLayer layer = layer_of(c, w, bias);
    std::vector<uint16_t> workspace(c.threads * (c.chunk * (c.inputs + 63) + c.height * (c.inputs + 31)), 0xffff);
    const auto run = [&](std::vector<Value>& y) {
        return sb_tile_linear(isa, &call, &layer, given.data(), y.data(), workspace.data());
    };
    std::vector<Value> y(c.tokens * c.outputs), normed(y.size());
    int found = run(y);
    std::vector<Value> residual(given);
    residual.resize(y.size());
    const std::vector<float> gamma(c.outputs, 2.0f), beta(c.outputs, 1.0f);
    call.norm = {residual.data(), gamma.data(), beta.data(), 1e-6f};
    found += run(normed) + norm_differences(c, y, residual, normed);
    for (int64_t token = 0; token < c.tokens; token++)
        for (int64_t output = 0; output < c.outputs; output++) {
            const double expected = std::fmax(0.0, sum_of(c, x, weight, token, output) + 0.5);
            const float got = as_float(y[token * c.outputs + output]);
            found += !(std::fabs(got - expected) <= 0.01 * (1.0 + expected));
        }
    return found;
}

struct TreeCase {
    int64_t tokens, hidden, trees, depth;
    int32_t threads;
};

// Where the weights of one node lie, in the tiles of its stage's subtree.
struct Place {
    int64_t subtree, node, node_blocks, across;

    uint16_t in(const std::vector<uint16_t>& tiles, int64_t k) const {
        return tiles[at(subtree + (node / 32 * across + k / 32) * 1024, node, k)];
    }
    uint16_t out(const std::vector<uint16_t>& tiles, int64_t h) const {
        return tiles[at(subtree + (h / 32 * node_blocks + node / 32) * 1024, h, node)];
    }

    static int64_t at(int64_t block, int64_t output, int64_t input) {
        return block + output % 32 / 16 * 512 + (input % 32 / 2 * 16 + output % 16) * 2 + input % 2;
    }
};

// Of the `index`-th node of a level. The tree's tiles begin at `offset`, which is then where they end.
Place place_of(const TreeCase& c, int64_t level, int64_t index, int64_t& offset) {
    const int64_t levels = c.depth + 1, stages = (levels + 5) / 6, across = (c.hidden + 31) / 32;
    Place found{};
    for (int64_t stage = 0, first = 0; stage < stages; stage++) {
        const int64_t deep = levels / stages + (stage < levels % stages), node_blocks = deep == 6 ? 2 : 1;
        const int64_t size = node_blocks * across * 1024, below = level - first;
        if (below >= 0 && below < deep) {
            const int64_t subtree = offset + (index >> below) * size;
            found = {subtree, (int64_t(1) << below) - 1 + index % (int64_t(1) << below), node_blocks, across};
        }
        offset += (int64_t(1) << first) * size;
        first += deep;
    }
    return found;
}

struct Tree {
    std::vector<uint16_t> x, in, out;
    std::vector<float> bias, y, logits;
    std::vector<int32_t> nodes;
};

// Adds one token's output of the tree whose tiles begin at `offset` to `expected`, and counts what its path has wrong.
int walk(const TreeCase& c, const Tree& t, int64_t token, int64_t tree, int64_t offset, std::vector<double>& expected) {
    const int64_t levels = c.depth + 1, every = (int64_t(1) << levels) - 1;
    int found = 0;
    for (int64_t level = 0, node = 0; level < levels; level++) {
        const int64_t step = (tree * c.tokens + token) * levels + level;
        int64_t begin = offset;
        const Place place = place_of(c, level, node - ((int64_t(1) << level) - 1), begin);
        double logit = t.bias[tree * every + node];
        for (int64_t k = 0; k < c.hidden; k++)
            logit += double(as_float(t.x[token * c.hidden + k])) * as_float(place.in(t.in, k));
        found += t.nodes[step] != node || !(std::fabs(t.logits[step] - logit) < 1e-4);
        for (int64_t h = 0; h < c.hidden; h++) expected[h] += std::fmax(logit, 0.0) * as_float(place.out(t.out, h));
        node = 2 * node + 1 + (t.logits[step] > 0);
    }
    return found;
}

int tree_differences(const TreeCase& c, int32_t isa) {
    const int64_t levels = c.depth + 1, steps = c.trees * c.tokens * levels;
    int64_t a_tree = 0;
    place_of(c, 0, 0, a_tree);
    Tree t{drawn(c.tokens * c.hidden, 1), drawn(c.trees * a_tree, 1), drawn(c.trees * a_tree, 1)};
    t.bias.assign(c.trees * ((int64_t(1) << levels) - 1), 0.1f);
    t.y.assign(c.tokens * c.hidden, NAN);
    t.logits.assign(steps, NAN);
    t.nodes.assign(steps, -1);
    std::vector<int32_t> numbers(4 * c.tokens + (int64_t(1) << c.depth) + 1, -1);
    std::vector<uint16_t> rows(c.threads * 32 * (c.hidden + 63), 0xffff);
    const SbTileFff call{c.tokens, c.hidden, c.trees, c.depth, 1, c.threads};
    int found = sb_tile_fff(isa, &call, t.x.data(), t.in.data(), t.bias.data(), t.out.data(), t.y.data(),
                            t.nodes.data(), t.logits.data(), numbers.data(), rows.data());
    for (int64_t token = 0; token < c.tokens; token++) {
        std::vector<double> expected(c.hidden);
        for (int64_t tree = 0; tree < c.trees; tree++) found += walk(c, t, token, tree, tree * a_tree, expected);
        for (int64_t h = 0; h < c.hidden; h++) found += !(std::fabs(t.y[token * c.hidden + h] - expected[h]) < 0.05);
    }
    return found;
}

template <typename F>
int on_all(int32_t first, F differences) {
    int found = differences(EMULATED);
    for (int32_t isa = first; isa <= sb_best_isa(); isa++) found += differences(isa);
    return found;
}

}  // namespace

int check_tiles() {
    const Case cases[] = {{0, 32, 32, 32, 64, 1, false},  {1, 100, 33, 16, 64, 2, false},
                              {77, 64, 70, 32, 64, 2, false}, {13, 31, 5, 16, 64, 1, false},
                              {0, 7, 3, 32, 64, 1, true},     {1, 65, 40, 32, 64, 3, true},
                              {90, 96, 50, 32, 64, 2, true}};
    int failed = 0;
    for (const Case& c : cases) {
        const int found = on_all(BF16, [&](int32_t isa) {
            return linear_differences<float>(c, isa) + linear_differences<uint16_t>(c, isa) + chain_differences(c, isa);
        });
        std::printf("tiles, %lld x %lld to %lld, height %lld: %d differences\n", (long long)c.tokens,
                    (long long)c.inputs, (long long)c.outputs, (long long)c.height, found);
        failed += found;
    }
    const Attention heads[] = {
        {0, 2, 5, 8, 1}, {1, 1, 1, 64, 2}, {2, 3, 33, 24, 2}, {1, 2, 70, 5, 1}, {3, 2, 20, 40, 3}};
    for (const Attention& c : heads) {
        const int found = on_all(BF16, [&](int32_t isa) { return attention_differences(c, isa); });
        std::printf("tiles, attention %lld x %lld x %lld x %lld: %d differences\n", (long long)c.batch,
                    (long long)c.heads, (long long)c.tokens, (long long)c.size, found);
        failed += found;
    }
    const TreeCase trees[] = {{0, 32, 1, 3, 1}, {1, 33, 2, 0, 1}, {70, 64, 2, 6, 3}, {100, 7, 1, 11, 2}};
    for (const TreeCase& c : trees) {
        const int found = on_all(AMX, [&](int32_t isa) { return tree_differences(c, isa); });
        std::printf("tiles, %lld x %lld, %lldx%lld: %d differences\n", (long long)c.tokens, (long long)c.hidden,
                    (long long)c.trees, (long long)c.depth, found);
        failed += found;
    }
    return failed;
}
