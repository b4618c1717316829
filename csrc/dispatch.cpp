// Chooses, while running, the functions that fit the processor.

#include "bf16.h"
#include "sparsebert.h"

namespace {

constexpr int32_t AVX512 = 2, BF16 = 3, AMX = 4, EMULATED = 5;

// What kernels without tiles run with; -1 = not here.
int32_t of_vectors(int32_t isa) {
    if (isa == EMULATED) return 0;
    return isa > sb_best_isa() ? -1 : isa > AVX512 ? AVX512 : isa;
}

// One of three forms of a kernel on tiles; null = not here.
template <typename F>
F* of_tiles(int32_t isa, F* emulated, decltype(emulated) dots, decltype(emulated) amx) {
    if (isa == EMULATED) return emulated;
    return isa > sb_best_isa() ? nullptr : isa == AMX ? amx : isa == BF16 ? dots : nullptr;
}

}  // namespace

extern "C" int32_t sb_version() { return SB_VERSION; }

extern "C" int32_t sb_best_isa() {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide) return !has_bf16() ? AVX512 : has_amx() ? AMX : BF16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
}

extern "C" int32_t sb_fff(int32_t isa, const SbFff* call, const float* x, float* y, void* room) {
    isa = of_vectors(isa);
    if (isa < 0) return 1;
    const auto run = isa == 2 ? sb_fff_avx512 : isa == 1 ? sb_fff_avx2 : sb_fff_portable;
    run(call, x, y, room);
    return 0;
}

extern "C" int32_t sb_blocks(int32_t isa, const SbChain* call, const SbBlocks* layers, const float* x, float* y,
                             float* scratch) {
    isa = of_vectors(isa);
    if (isa < 0) return 1;
    const auto run = isa == 2 ? sb_blocks_avx512 : isa == 1 ? sb_blocks_avx2 : sb_blocks_portable;
    run(call, layers, x, y, scratch);
    return 0;
}

extern "C" int32_t sb_attention(int32_t isa, const SbAttention* call, const float* q, const float* k, const float* v,
                                const uint8_t* mask, float* y, float* scratch) {
    isa = of_vectors(isa);
    if (isa < 0) return 1;
    const auto run = isa == 2 ? sb_attention_avx512 : isa == 1 ? sb_attention_avx2 : sb_attention_portable;
    run(call, q, k, v, mask, y, scratch);
    return 0;
}

extern "C" int32_t sb_elements(int32_t isa, const SbLinear* call, const void* x, const float* values,
                               const int32_t* starts, const int32_t* columns, const float* bias, void* y,
                               float* scratch) {
    isa = of_vectors(isa);
    if (isa < 0) return 1;
    const auto run = isa == 2 ? sb_elements_avx512 : isa == 1 ? sb_elements_avx2 : sb_elements_portable;
    run(call, x, values, starts, columns, bias, y, scratch);
    return 0;
}

extern "C" int32_t sb_tile_attention(int32_t isa, const SbAttention* call, const uint16_t* q, const uint16_t* k,
                                     const uint16_t* v, const uint8_t* mask, uint16_t* y, uint16_t* scratch) {
    const auto run = of_tiles(isa, sb_tile_attention_emulated, SB_IF_BF16(sb_tile_attention_avx512_bf16),
                              SB_IF_AMX(sb_tile_attention_amx));
    if (run == nullptr) return 1;
    run(call, q, k, v, mask, y, scratch);
    return 0;
}

extern "C" int32_t sb_tile_linear(int32_t isa, const SbTileChain* call, const SbTileLayer* layers, const void* x,
                                  void* y, uint16_t* scratch) {
    const auto run = of_tiles(isa, sb_tile_linear_emulated, SB_IF_BF16(sb_tile_linear_avx512_bf16),
                              SB_IF_AMX(sb_tile_linear_amx));
    if (run == nullptr) return 1;
    run(call, layers, x, y, scratch);
    return 0;
}

extern "C" int32_t sb_tile_fff(int32_t isa, const SbTileFff* call, const uint16_t* x, const uint16_t* in,
                               const float* bias, const uint16_t* out, float* y, int32_t* nodes, float* logits,
                               int32_t* numbers, uint16_t* rows) {
    const auto run = of_tiles(isa, sb_tile_fff_emulated, nullptr, SB_IF_AMX(sb_tile_fff_amx));
    if (run == nullptr) return 1;
    run(call, x, in, bias, out, y, nodes, logits, numbers, rows);
    return 0;
}
