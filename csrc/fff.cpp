// Fast feedforward inference (Belcak & Wattenhofer, arXiv:2311.10770, algorithm 1): each token walks down each tree,
// and its output is the sum of the output rows on its path, times the activations.
//
// Several tokens walk side by side, so that the latency of one's dot product hides behind the others'. The output rows
// are added up once the path is known. Where there are many tokens they are sorted by the subtree that they enter, so
// that its weights are read while they are in the cache.

#include "sparsebert.h"
#include "vec.h"
#include "sort_by_node.h"

namespace {

constexpr int64_t SIDE_BY_SIDE = 8;  // tokens: so many sums hide the latency of one, and fit into the registers
constexpr int64_t AT_ONCE = 8;       // vectors of a token's output that stay in registers over all levels

template <typename Weight>
struct Layer {
    int64_t hidden, trees, levels, nodes;
    const Weight* in;
    const float* bias;
    const Weight* out;
};

// Where a token stands, level by level: node and logit [levels], for one tree.
struct Path {
    int32_t* node;
    float* logit;
};

template <typename Weight, int64_t COUNT>
void step(const Layer<Weight>& layer, int64_t tree, int64_t level, const float* const* x, const Path* paths) {
    const Weight* rows[COUNT];
    Vec sums[COUNT];
    for (int64_t j = 0; j < COUNT; j++) {
        rows[j] = layer.in + (tree * layer.nodes + paths[j].node[level]) * layer.hidden;
        sums[j] = Vec{};
    }
    const Weight* wanted = layer.out + (tree * layer.nodes + paths[0].node[level]) * layer.hidden;
    int64_t h = 0;
    // A few cache lines of one row after another: rows are far apart, and hardware reads ahead within one. A token
    // alone has time to fetch what it will need of the output rows.
    for (; h + 4 * LANES <= layer.hidden; h += 4 * LANES)
        for (int64_t j = 0; j < COUNT; j++)
            for (int64_t k = 0; k < 4; k++) {
                sums[j] += load(x[j] + h + k * LANES) * load(rows[j] + h + k * LANES);
                if (COUNT == 1) __builtin_prefetch(wanted + h + k * LANES, 0, 2);
            }
    for (; h + LANES <= layer.hidden; h += LANES)
        for (int64_t j = 0; j < COUNT; j++) sums[j] += load(x[j] + h) * load(rows[j] + h);
    for (int64_t j = 0; j < COUNT; j++) {
        float logit = sum(sums[j]);
        for (int64_t rest = h; rest < layer.hidden; rest++) logit += x[j][rest] * one(rows[j] + rest);
        logit += layer.bias[tree * layer.nodes + paths[j].node[level]];
        paths[j].logit[level] = logit;
        if (level + 1 < layer.levels) paths[j].node[level + 1] = 2 * paths[j].node[level] + 1 + (logit > 0.0f);
    }
}

template <typename Weight>
void walk(const Layer<Weight>& layer, int64_t tree, int64_t from, int64_t to, int64_t count, const float* const* x,
          const Path* paths) {
    for (int64_t level = from; level < to; level++) {
        if (count == SIDE_BY_SIDE)
            step<Weight, SIDE_BY_SIDE>(layer, tree, level, x, paths);
        else
            for (int64_t j = 0; j < count; j++) step<Weight, 1>(layer, tree, level, x + j, paths + j);
    }
}

// y [hidden] = or += the rows of one path, times their activations.
template <typename Weight>
void gather(const Layer<Weight>& layer, int64_t tree, const Path& path, const float* active, float* y, bool first) {
    const Weight* base = layer.out + tree * layer.nodes * layer.hidden;
    int64_t h = 0;
    for (; h + AT_ONCE * LANES <= layer.hidden; h += AT_ONCE * LANES) {
        Vec sums[AT_ONCE];
        for (int64_t k = 0; k < AT_ONCE; k++) sums[k] = first ? Vec{} : load(y + h + k * LANES);
        for (int64_t level = 0; level < layer.levels; level++) {
            const Weight* row = base + path.node[level] * layer.hidden + h;
            const Vec factor = all(active[level]);
            for (int64_t k = 0; k < AT_ONCE; k++) sums[k] += factor * load(row + k * LANES);
        }
        for (int64_t k = 0; k < AT_ONCE; k++) store(y + h + k * LANES, sums[k]);
    }
    for (; h < layer.hidden; h++) {
        float value = first ? 0.0f : y[h];
        for (int64_t level = 0; level < layer.levels; level++)
            value += active[level] * one(base + path.node[level] * layer.hidden + h);
        y[h] = value;
    }
}

void activate_all(const float* logits, int64_t count, int kind, float* active) {
    for (int64_t first = 0; first < count; first += LANES) {
        float padded[LANES] = {};
        const int64_t here = smaller(LANES, count - first);
        std::memcpy(padded, logits + first, here * sizeof(float));
        store(padded, activate(load(padded), kind));
        std::memcpy(active + first, padded, here * sizeof(float));
    }
}

template <typename Weight>
struct Pass {
    const Layer<Weight>& layer;
    const float* x;
    float* y;
    int activation;
    int64_t tree;
    int32_t* nodes;
    float* logits;

    Path path_of(int64_t token) const { return {nodes + token * layer.levels, logits + token * layer.levels}; }

    // Tokens order[0..count) go from one level to another, and if that is the end their outputs are written.
    void run(const int32_t* order, int64_t count, int64_t from, int64_t to) const {
        const float* inputs[SIDE_BY_SIDE];
        Path paths[SIDE_BY_SIDE];
        for (int64_t j = 0; j < count; j++) {
            inputs[j] = x + order[j] * layer.hidden;
            paths[j] = path_of(order[j]);
            if (from == 0) paths[j].node[0] = 0;
        }
        walk(layer, tree, from, to, count, inputs, paths);
        if (to < layer.levels) return;
        for (int64_t j = 0; j < count; j++) {
            float active[64];
            activate_all(paths[j].logit, layer.levels, activation, active);
            gather(layer, tree, paths[j], active, y + order[j] * layer.hidden, tree == 0);
        }
    }
};

template <typename Weight>
void run_all(const Pass<Weight>& pass, const int32_t* order, int64_t tokens, int64_t from, int64_t to, int threads) {
    const int64_t blocks = whole(tokens, SIDE_BY_SIDE);
    // Static: blocks take equally long, and neighbours in the sorted order, which read the same subtree, share a core.
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && blocks > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t first = block * SIDE_BY_SIDE;
        pass.run(order + first, smaller(SIDE_BY_SIDE, tokens - first), from, to);
    }
}

template <typename Weight>
void forward(const SbFff& call, const float* x, float* y, void* workspace) {
    const int64_t levels = call.depth + 1, every = (int64_t(1) << levels) - 1, steps = call.tokens * levels;
    const Layer<Weight> layer{call.hidden, call.trees, levels, every, static_cast<const Weight*>(call.in), call.bias,
                              static_cast<const Weight*>(call.out)};
    // The path of a single token, which nobody wants.
    int32_t path[64], alone;
    float found[64];
    int32_t *nodes = path, *sorting = &alone;
    float* logits = found;
    if (workspace != nullptr) {
        nodes = static_cast<int32_t*>(workspace);
        sorting = nodes + 2 * call.trees * steps;
        logits = reinterpret_cast<float*>(nodes + call.trees * steps);
    }
    const int64_t apart = workspace == nullptr ? 0 : steps;
    int32_t *const arrival = sorting, *const sorted = sorting + call.tokens, *const starts = sorted + call.tokens;
    for (int64_t token = 0; token < call.tokens; token++) arrival[token] = int32_t(token);
    for (int64_t tree = 0; tree < call.trees; tree++) {
        const Pass<Weight> pass{layer, x, y, call.activation, tree, nodes + tree * apart, logits + tree * apart};
        if (call.sort_level <= 0 || call.sort_level >= levels) {
            run_all(pass, arrival, call.tokens, 0, levels, call.threads);
            continue;
        }
        // The step that ends a level has already chosen the node of the next one, by which tokens are sorted.
        run_all(pass, arrival, call.tokens, 0, call.sort_level, call.threads);
        sort_by_node(pass.nodes, call.tokens, levels, call.sort_level, sorted, starts);
        run_all(pass, sorted, call.tokens, call.sort_level, levels, call.threads);
    }
}

}  // namespace

extern "C" void SB_NAME(sb_fff)(const SbFff* call, const float* x, float* y, void* workspace) {
    if (call->bf16)
        forward<uint16_t>(*call, x, y, workspace);
    else
        forward<float>(*call, x, y, workspace);
}
