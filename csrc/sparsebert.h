// The C interface of the kernels: raw pointers, no other library's types. All tensors are contiguous.
#pragma once

#include <cstdint>

#define SB_JOIN_(a, b) a##_##b
#define SB_JOIN(a, b) SB_JOIN_(a, b)
#define SB_NAME(name) SB_JOIN(name, SB_ISA)

extern "C" {

// One call of a fast feedforward layer: in and out [trees, 2^(depth+1) - 1, hidden], bias [trees, 2^(depth+1) - 1].
// `bf16`: weights in and out are bfloat16, else float. `activation`: 0 gelu (the exact one, not by tanh), 1 relu.
// `sort_level`: tokens are sorted by the node that they reach at this level; 0 = not at all.
struct SbFff {
    int64_t tokens, hidden, trees, depth, sort_level;
    const void* in;
    const float* bias;
    const void* out;
    int32_t activation, bf16, threads;
};

// x and y [tokens, hidden]. workspace receives the paths, nodes (int32) and logits (float), both
// [trees, tokens, depth + 1], and then has [2 tokens + 2^sort_level + 1] of int32 for sorting. For one token that is
// not sorted it may be null.
#define SB_FFF(isa) void sb_fff_##isa(const SbFff* call, const float* x, float* y, void* workspace);
SB_FFF(portable)
SB_FFF(avx2)
SB_FFF(avx512)
#undef SB_FFF

// A linear layer of blocks of `height` outputs (16 or 32) x 32 inputs. Row r of blocks has those from starts[r] to
// starts[r + 1]; block b begins at input 32 columns[b], its values [32][height] are zero outside the matrix. bias
// [outputs] or null. `activation`: as above, 2 none.
struct SbBlocks {
    int64_t inputs, outputs, height;
    const float* values;
    const int32_t *starts, *columns;
    const float* bias;
    int64_t activation;
};

// What follows a layer: the layer norm of its result and a residual [tokens, outputs] of the same type, with gamma and
// beta [outputs]; residual null = nothing follows.
struct SbNorm {
    const void* residual;
    const float *gamma, *beta;
    float epsilon;
};

// `layers` of them, each reading what the one before gives; `norm` follows the last. A thread takes `chunk` tokens
// through all layers; workspace [threads, 2, chunk, the largest number of inputs, up to a multiple of 32].
struct SbChain {
    int64_t tokens, layers, chunk;
    SbNorm norm;
    int32_t threads;
};
#define SB_BLOCKS(isa)                                                                                  \
    void sb_blocks_##isa(const SbChain* call, const SbBlocks* layers, const float* x, float* y, float* workspace);
SB_BLOCKS(portable)
SB_BLOCKS(avx2)
SB_BLOCKS(avx512)
#undef SB_BLOCKS

// A linear layer of single values, y = activation(x W^T + b). `activation`: as above. `bf16`: x and y are bfloat16,
// else float.
struct SbLinear {
    int64_t tokens, inputs, outputs;
    int32_t activation, bf16, threads;
};

// Output o has those from starts[o] to starts[o + 1], each at the input columns[i]. bias [outputs] or
// null; workspace [threads, 64, inputs], best at a multiple of 64 bytes.
#define SB_ELEMENTS(isa)                                                                                          \
    void sb_elements_##isa(const SbLinear* call, const void* x, const float* values,             \
                           const int32_t* starts, const int32_t* columns, const float* bias, void* y, float* workspace);
SB_ELEMENTS(portable)
SB_ELEMENTS(avx2)
SB_ELEMENTS(avx512)
#undef SB_ELEMENTS

// Values from one sequence, token and head to the next; those of a head lie side by side.
struct SbStrides {
    int64_t batch, token, head;
};

// Attention of `queries` and `keys` [size] in every head and sequence. mask [keys] of bytes for each query, head and
// sequence, or null: 0 = not seen. scale > 0. y [batch, queries, heads, size], zero where nothing is seen. workspace:
// for each thread up32(keys) size + keys up16(size) + 12 (up32(keys) + 16) + 12 up16(size), where upN is to the next
// multiple of N.
struct SbAttention {
    int64_t batch, heads, queries, keys, size;
    SbStrides q, k, v;
    int64_t mask_batch, mask_head, mask_query;
    float scale;
    int32_t threads;
};
#define SB_ATTENTION(isa)                                                                            \
    void sb_attention_##isa(const SbAttention* call, const float* q, const float* k, const float* v, \
                            const uint8_t* mask, float* y, float* workspace);
SB_ATTENTION(portable)
SB_ATTENTION(avx2)
SB_ATTENTION(avx512)
#undef SB_ATTENTION

// The same of bfloat16, on tiles. workspace: for each thread 2 up32(keys) up32(size) + 32 (up32(size) + 32) +
// 32 (up32(keys) + 32) + 64 (up32(keys) + 16).
#define SB_TILE_ATTENTION(isa)                                                                                  \
    void sb_tile_attention_##isa(const SbAttention* call, const uint16_t* q, const uint16_t* k, const uint16_t* v, \
                                 const uint8_t* mask, uint16_t* y, uint16_t* workspace);
SB_TILE_ATTENTION(avx512_bf16)
SB_TILE_ATTENTION(amx)
SB_TILE_ATTENTION(emulated)
#undef SB_TILE_ATTENTION

// A linear layer on bf16 tiles: blocks of `height` outputs (16 or 32) x 32 inputs, starts and columns as for sb_blocks.
// A block is height / 16 tiles [16 pairs of inputs][16 outputs][2], zero outside the matrix. Where masks is not null it
// is [blocks, height / 16, 16], and of each row of a tile only the bf16 whose bits are set are there, one after
// another, those of block b from begins[b] on. bias [outputs] or null.
struct SbTileLayer {
    int64_t inputs, outputs, height;
    const uint16_t* values;
    const int32_t *starts, *columns;
    const uint32_t* masks;
    const int32_t* begins;
    const float* bias;
    int64_t activation;
};

// `layers` of them, each reading what the one before gives, rounded to bf16; `norm` follows the last. `bf16`: x and y
// are bfloat16, else float. A thread takes `chunk` tokens, a multiple of 16, through all layers.
struct SbTileChain {
    int64_t tokens, layers, chunk;
    SbNorm norm;
    int32_t bf16, threads;
};

// workspace, best at a multiple of 64 bytes: with pad(n) = up32(n) + 32, for each thread chunk pad(inputs of the first
// layer) + 2 chunk pad(the most inputs of another) + the most height up32(inputs) of a layer with masks.
#define SB_TILE_LINEAR(isa)                                                                                    \
    void sb_tile_linear_##isa(const SbTileChain* call, const SbTileLayer* layers, const void* x, void* y,      \
                              uint16_t* workspace);
SB_TILE_LINEAR(avx512_bf16)
SB_TILE_LINEAR(amx)
SB_TILE_LINEAR(emulated)
#undef SB_TILE_LINEAR

// One call of a fast feedforward layer on bf16 tiles, by stages: as few as there can be of six levels at most, the
// first ones deeper by one where they cannot be equal.
struct SbTileFff {
    int64_t tokens, hidden, trees, depth;
    int32_t activation, threads;
};

// x [tokens, hidden] is bf16; bias, y, nodes and logits as for sb_fff. in and out: tree by tree, stage by stage,
// subtree by subtree, tiles of blocks of 32 x 32 as above. in: of a matrix of the subtree's nodes (level by level, then
// zero, 32 or 64 in all) and the inputs; out: of one of the outputs and these nodes. numbers
// [4 tokens + 2^depth + 1], rows [threads, 32, hidden + 63].
#define SB_TILE_FFF(isa)                                                                                          \
    void sb_tile_fff_##isa(const SbTileFff* call, const uint16_t* x, const uint16_t* in, const float* bias,       \
                           const uint16_t* out, float* y, int32_t* nodes, float* logits, int32_t* numbers,        \
                           uint16_t* rows);
SB_TILE_FFF(amx)
SB_TILE_FFF(emulated)
#undef SB_TILE_FFF

#pragma GCC visibility push(default)

// Of this interface: to be raised with each change of it.
constexpr int32_t SB_VERSION = 5;
int32_t sb_version();

// The best instruction set that this processor has: 0 portable, 1 AVX2 with FMA, 2 AVX-512, 3 AVX-512 with dot products
// of bf16, 4 AVX-512 and AMX's bf16 tiles. 5 is AMX emulated in plain code, for tests: never the best, never refused.
int32_t sb_best_isa();

// With the given instruction set. 0 = done, 1 = this processor or build does not have it, or the kernel no form for it.
int32_t sb_fff(int32_t isa, const SbFff* call, const float* x, float* y, void* workspace);
int32_t sb_blocks(int32_t isa, const SbChain* call, const SbBlocks* layers, const float* x, float* y, float* workspace);
int32_t sb_attention(int32_t isa, const SbAttention* call, const float* q, const float* k, const float* v,
                     const uint8_t* mask, float* y, float* workspace);
int32_t sb_tile_attention(int32_t isa, const SbAttention* call, const uint16_t* q, const uint16_t* k,
                          const uint16_t* v, const uint8_t* mask, uint16_t* y, uint16_t* workspace);
int32_t sb_elements(int32_t isa, const SbLinear* call, const void* x, const float* values,
                    const int32_t* starts, const int32_t* columns, const float* bias, void* y, float* workspace);
int32_t sb_tile_linear(int32_t isa, const SbTileChain* call, const SbTileLayer* layers, const void* x, void* y,
                       uint16_t* workspace);
int32_t sb_tile_fff(int32_t isa, const SbTileFff* call, const uint16_t* x, const uint16_t* in, const float* bias,
                    const uint16_t* out, float* y, int32_t* nodes, float* logits, int32_t* numbers, uint16_t* rows);

#pragma GCC visibility pop
}
