// Chooses, while running, the functions that fit the processor.

#include "cpu_features.h"
#include "sparsebert.h"

namespace {

enum Isa : int32_t { PORTABLE, AVX2, AVX512, AVX512_BF16, AMX, EMULATED };

// What one instruction set runs at each entry point; null where it has no form of that kernel.
struct Kernels {
    decltype(&sb_fff_portable) fff;
    decltype(&sb_blocks_portable) blocks;
    decltype(&sb_elements_portable) elements;
    decltype(&sb_attention_portable) attention;
    decltype(&sb_tile_linear_emulated) tile_linear;
    decltype(&sb_tile_attention_emulated) tile_attention;
    decltype(&sb_tile_fff_emulated) tile_fff;
};

#define SB_FLOAT(isa) sb_fff_##isa, sb_blocks_##isa, sb_elements_##isa, sb_attention_##isa

// One line per instruction set, in the order of Isa. Those with bf16 or AMX run float as AVX-512 does.
constexpr Kernels TABLE[] = {
    {SB_FLOAT(portable), nullptr, nullptr, nullptr},
    {SB_FLOAT(avx2), nullptr, nullptr, nullptr},
    {SB_FLOAT(avx512), nullptr, nullptr, nullptr},
    {SB_FLOAT(avx512), SB_IF_BF16(sb_tile_linear_avx512_bf16), SB_IF_BF16(sb_tile_attention_avx512_bf16), nullptr},
    {SB_FLOAT(avx512), SB_IF_AMX(sb_tile_linear_amx), SB_IF_AMX(sb_tile_attention_amx), SB_IF_AMX(sb_tile_fff_amx)},
    {SB_FLOAT(portable), sb_tile_linear_emulated, sb_tile_attention_emulated, sb_tile_fff_emulated},
};
static_assert(sizeof TABLE / sizeof TABLE[0] == EMULATED + 1, "each instruction set needs its line");

// Calls an entry point's function of this instruction set. 0 = done, 1 = there is none here.
template <typename Function, typename... Arguments>
int32_t run(int32_t isa, Function Kernels::*entry, Arguments... arguments) {
    // Plain code runs anywhere, so the emulation needs no support of the processor.
    const bool runs_here = isa == EMULATED || (isa >= PORTABLE && isa <= sb_best_isa());
    const Function function = runs_here ? TABLE[isa].*entry : nullptr;
    if (function == nullptr) return 1;
    function(arguments...);
    return 0;
}

}  // namespace

extern "C" int32_t sb_version() { return SB_VERSION; }

extern "C" int32_t sb_best_isa() {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide) return !has_bf16() ? AVX512 : has_amx() ? AMX : AVX512_BF16;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? AVX2 : PORTABLE;
}

extern "C" int32_t sb_fff(int32_t isa, const SbFff* call, const float* x, float* y, void* workspace) {
    return run(isa, &Kernels::fff, call, x, y, workspace);
}

extern "C" int32_t sb_blocks(int32_t isa, const SbChain* call, const SbBlocks* layers, const float* x, float* y,
                             float* workspace) {
    return run(isa, &Kernels::blocks, call, layers, x, y, workspace);
}

extern "C" int32_t sb_elements(int32_t isa, const SbLinear* call, const void* x, const float* values,
                               const int32_t* starts, const int32_t* columns, const float* bias, void* y,
                               float* workspace) {
    return run(isa, &Kernels::elements, call, x, values, starts, columns, bias, y, workspace);
}

extern "C" int32_t sb_attention(int32_t isa, const SbAttention* call, const float* q, const float* k, const float* v,
                                const uint8_t* mask, float* y, float* workspace) {
    return run(isa, &Kernels::attention, call, q, k, v, mask, y, workspace);
}

extern "C" int32_t sb_tile_linear(int32_t isa, const SbTileChain* call, const SbTileLayer* layers, const void* x,
                                  void* y, uint16_t* workspace) {
    return run(isa, &Kernels::tile_linear, call, layers, x, y, workspace);
}

extern "C" int32_t sb_tile_attention(int32_t isa, const SbAttention* call, const uint16_t* q, const uint16_t* k,
                                     const uint16_t* v, const uint8_t* mask, uint16_t* y, uint16_t* workspace) {
    return run(isa, &Kernels::tile_attention, call, q, k, v, mask, y, workspace);
}

extern "C" int32_t sb_tile_fff(int32_t isa, const SbTileFff* call, const uint16_t* x, const uint16_t* in,
                               const float* bias, const uint16_t* out, float* y, int32_t* nodes, float* logits,
                               int32_t* numbers, uint16_t* rows) {
    return run(isa, &Kernels::tile_fff, call, x, in, bias, out, y, nodes, logits, numbers, rows);
}
