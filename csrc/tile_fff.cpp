// Fast feedforward inference for many tokens, on bf16 tiles: the tree goes by stages of up to six levels.
//
// All nodes of a stage's subtree, 63 at most, are one dense product for the tokens that enter it. Each token then finds
// its path through their logits; activations off the path are zero, so that the second product is dense too. Between
// stages tokens are sorted by the subtree that they enter. That is ten times the arithmetic of walking, at more than
// ten times the rate, and weights are read once for a block of tokens.

#include <omp.h>

#include "sparsebert.h"
#include "tile_product.h"
#include "sort_by_node.h"

namespace {

constexpr int64_t DEEPEST = 6;                    // levels of a stage
constexpr int64_t NODES = int64_t(1) << DEEPEST;  // space for those of a subtree
constexpr int64_t AT_ONCE = 2 * TILE;             // tokens
constexpr int64_t BLOCK = 2 * TILE_VALUES;        // 32 outputs x 32 inputs

// Levels `first` to `first + deep`. Of each subtree: in [blocks of nodes][across hidden], out the other way round.
struct Stage {
    int64_t first, deep, node_blocks;
    const uint16_t *in, *out;
};

struct Tree {
    const SbTileFff& call;
    int64_t levels, across;
    const uint16_t* x;
    const float* bias;
    float* y;
    int32_t* nodes;
    float* logits;
    bool adds;  // to what earlier trees gave
};

// Tokens that enter the same subtree, the `group`-th of its level.
struct Block {
    int32_t group, begin, count;
};

struct Workspace {
    int32_t *order, *starts;
    Block* blocks;
    uint16_t* rows;
};

int64_t stride_of_rows(int64_t across) {
    // Else rows of 2^n inputs would all fall on the same lines of the cache.
    return (across + 1) * WIDTH;
}

// Of a stage's levels; the first stages are the deeper ones.
int64_t levels_of(int64_t levels, int64_t stage) {
    const int64_t stages = whole(levels, DEEPEST);
    return levels / stages + (stage < levels % stages);
}

// The activations on the path of one token are put into active [NODES]; its logits but for the bias are sums [NODES].
void route_token(const Tree& tree, const Stage& stage, int64_t token, const float* sums, uint16_t* active) {
    int32_t* const node = tree.nodes + token * tree.levels + stage.first;
    float* const logit = tree.logits + token * tree.levels + stage.first;
    int64_t places[DEEPEST], place = 0;
    for (int64_t level = 0; level < stage.deep; level++) {
        places[level] = place;
        logit[level] = sums[place] + tree.bias[node[level]];
        const bool right = logit[level] > 0.0f;
        place = 2 * place + 1 + right;
        if (stage.first + level + 1 < tree.levels) node[level + 1] = 2 * node[level] + 1 + right;
    }
    uint16_t values[LANES];
    store_part(values, activate(load_part(logit, stage.deep), tree.call.activation), LANES);
    for (int64_t level = 0; level < stage.deep; level++) active[places[level]] = values[level];
}

// y at 32 outputs, of the tokens of a block.
void add_to(const Tree& tree, const Stage& stage, const int32_t* tokens, int64_t count, int64_t first,
            const float* sums) {
    const int64_t here = smaller(WIDTH, tree.call.hidden - first);
    const bool adds = tree.adds || stage.first > 0;
    for (int64_t t = 0; t < count; t++)
        for (int64_t h = 0; h < here; h += LANES) {
            float* to = tree.y + tokens[t] * tree.call.hidden + first + h;
            const Vec sum = load(sums + t * WIDTH + h);
            store_part(to, adds ? load_part(to, here - h) + sum : sum, here - h);
        }
}

// M tiles of tokens at most, all of which enter the same subtree.
template <int M>
void run_block(Tiles& tiles, const Tree& tree, const Stage& stage, const Block& block, const Workspace& workspace,
               uint16_t* rows) {
    const int32_t* const tokens = workspace.order + block.begin;
    const int64_t stride = stride_of_rows(tree.across), hidden = tree.call.hidden;
    const int64_t subtree = stage.node_blocks * tree.across * BLOCK;
    // On the stack, 12 KB: both stay in the nearest cache between the two products.
    alignas(64) float sums[AT_ONCE * NODES];
    alignas(64) uint16_t active[AT_ONCE * NODES] = {};
    for (int64_t t = 0; t < M * TILE; t++)
        if (t < block.count)
            copy_row(tree.x + tokens[t] * hidden, hidden, stride, rows + t * stride);
        else
            std::memset(rows + t * stride, 0, stride * sizeof(uint16_t));
    for (int64_t b = 0; b < stage.node_blocks; b++) {
        const uint16_t* weight = stage.in + block.group * subtree + b * tree.across * BLOCK;
        multiply<M, 2>(tiles, {rows, stride}, {weight, nullptr, tree.across}, sums + b * WIDTH, NODES);
    }
    for (int64_t t = 0; t < block.count; t++)
        route_token(tree, stage, tokens[t], sums + t * NODES, active + t * NODES);
    for (int64_t h = 0; h < tree.across; h++) {
        const uint16_t* weight = stage.out + block.group * subtree + h * stage.node_blocks * BLOCK;
        multiply<M, 2>(tiles, {active, NODES}, {weight, nullptr, stage.node_blocks}, sums, WIDTH);
        add_to(tree, stage, tokens, block.count, h * WIDTH, sums);
    }
}

// Blocks of tokens that stand on the same node of the stage's first level.
int64_t split(const Tree& tree, const Stage& stage, const Workspace& workspace) {
    const int64_t groups = int64_t(1) << stage.first;
    sort_by_node(tree.nodes, tree.call.tokens, tree.levels, stage.first, workspace.order, workspace.starts);
    int64_t count = 0, begin = 0;
    for (int64_t group = 0; group < groups; group++)
        for (const int64_t end = workspace.starts[group]; begin < end;) {
            const int64_t here = smaller(AT_ONCE, end - begin);
            workspace.blocks[count++] = {int32_t(group), int32_t(begin), int32_t(here)};
            begin += here;
        }
    return count;
}

void run_stage(const Tree& tree, const Stage& stage, const Workspace& workspace) {
    const int64_t blocks = split(tree, stage, workspace);
#pragma omp parallel num_threads(tree.call.threads) if (tree.call.threads > 1 && blocks > 1)
    {
        Tiles tiles;
        uint16_t* const rows = workspace.rows + omp_get_thread_num() * AT_ONCE * stride_of_rows(tree.across);
#pragma omp for schedule(dynamic)
        for (int64_t b = 0; b < blocks; b++) {
            const auto run = workspace.blocks[b].count > TILE ? run_block<2> : run_block<1>;
            run(tiles, tree, stage, workspace.blocks[b], workspace, rows);
        }
    }
}

Workspace workspace_of(const SbTileFff& call, int32_t* numbers, uint16_t* rows) {
    const int64_t levels = call.depth + 1, last = levels - levels_of(levels, whole(levels, DEEPEST) - 1);
    int32_t *const starts = numbers + call.tokens, *const blocks = starts + (int64_t(1) << last) + 1;
    return {numbers, starts, reinterpret_cast<Block*>(blocks), rows};
}

}  // namespace

extern "C" void SB_NAME(sb_tile_fff)(const SbTileFff* call, const uint16_t* x, const uint16_t* in, const float* bias,
                                     const uint16_t* out, float* y, int32_t* nodes, float* logits, int32_t* numbers,
                                     uint16_t* rows) {
    const int64_t levels = call->depth + 1, every = (int64_t(1) << levels) - 1, steps = call->tokens * levels;
    const int64_t across = whole(call->hidden, WIDTH);
    const Workspace workspace = workspace_of(*call, numbers, rows);
    for (int64_t t = 0; t < call->trees; t++) {
        const Tree tree{*call, levels, across, x, bias + t * every, y, nodes + t * steps, logits + t * steps, t > 0};
        for (int64_t token = 0; token < call->tokens; token++) tree.nodes[token * levels] = 0;
        for (int64_t first = 0, stage = 0; first < levels; stage++) {
            const int64_t deep = levels_of(levels, stage), node_blocks = deep == DEEPEST ? 2 : 1;
            run_stage(tree, {first, deep, node_blocks, in, out}, workspace);
            const int64_t size = (int64_t(1) << first) * node_blocks * across * BLOCK;
            in += size;
            out += size;
            first += deep;
        }
    }
}
