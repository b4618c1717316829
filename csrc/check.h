// What the checks share: bf16 and back.
#pragma once

#include <cstdint>
#include <cstring>

inline float as_float(float value) { return value; }

inline float as_float(uint16_t bf16) {
    const uint32_t bits = uint32_t(bf16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Cut, not rounded, so that floats made of it are bf16 already.
inline uint16_t to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return uint16_t(bits >> 16);
}
