// Chooses, while running, the functions that fit the processor.

#include "sparsebert.h"

extern "C" int32_t sb_best_isa() {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (wide) return 2;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
}

extern "C" int32_t sb_fff(int32_t isa, const SbFff* call, const float* x, const void* in, const float* bias,
                          const void* out, float* y, int32_t* nodes, float* logits, int32_t* scratch) {
    if (isa < 0 || isa > sb_best_isa()) return 1;
    const auto run = isa == 2 ? sb_fff_avx512 : isa == 1 ? sb_fff_avx2 : sb_fff_portable;
    run(call, x, in, bias, out, y, nodes, logits, scratch);
    return 0;
}

extern "C" int32_t sb_blocks(int32_t isa, const SbChain* call, const SbBlocks* layers, const float* x, float* y,
                             float* scratch) {
    if (isa < 0 || isa > sb_best_isa()) return 1;
    const auto run = isa == 2 ? sb_blocks_avx512 : isa == 1 ? sb_blocks_avx2 : sb_blocks_portable;
    run(call, layers, x, y, scratch);
    return 0;
}

extern "C" int32_t sb_attention(int32_t isa, const SbAttention* call, const float* q, const float* k, const float* v,
                                const uint8_t* mask, float* y, float* scratch) {
    if (isa < 0 || isa > sb_best_isa()) return 1;
    const auto run = isa == 2 ? sb_attention_avx512 : isa == 1 ? sb_attention_avx2 : sb_attention_portable;
    run(call, q, k, v, mask, y, scratch);
    return 0;
}

extern "C" int32_t sb_elements(int32_t isa, const SbLinear* call, const float* x, const float* values,
                               const int32_t* starts, const int32_t* columns, const float* bias, float* y,
                               float* scratch) {
    if (isa < 0 || isa > sb_best_isa()) return 1;
    const auto run = isa == 2 ? sb_elements_avx512 : isa == 1 ? sb_elements_avx2 : sb_elements_portable;
    run(call, x, values, starts, columns, bias, y, scratch);
    return 0;
}
