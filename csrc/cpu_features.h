// Whether AVX-512's dot products of bf16, and AMX's bf16 tiles, can be used here: this build and the processor must
// have them, for tiles the operating system too. SB_IF_BF16(function) and SB_IF_AMX(function) are null where this build
// does not.
#pragma once

#if defined(SB_BF16)

inline bool has_bf16() { return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi2"); }

#define SB_IF_BF16(function) function

#else

inline bool has_bf16() { return false; }

#define SB_IF_BF16(function) nullptr

#endif

#if defined(SB_AMX) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

// Tiles are large, so a process must ask Linux to save them for it.
inline bool may_use_tiles() {
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

inline bool has_amx() {
    static const bool found = [] {
        constexpr unsigned VBMI2 = 1u << 6, BF16 = 1u << 22, TILES = 1u << 24;
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
        return (c & VBMI2) && (d & BF16) && (d & TILES) && may_use_tiles();
    }();
    return found;
}

#define SB_IF_AMX(function) function

#else

inline bool has_amx() { return false; }

#define SB_IF_AMX(function) nullptr

#endif
