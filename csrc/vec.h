// Sixteen floats as one value, for any instruction set: the compiler splits it where registers are narrower.
//
// Every file that includes this is compiled once an instruction set, so everything here has internal linkage, and
// nothing of the C++ library is used: a function that was merged with its namesake of a wider set would stop on the
// wrong processor.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t LANES = 16;

typedef float Vec __attribute__((vector_size(64)));
typedef float LooseVec __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32), aligned(2), may_alias));
typedef int32_t Ints __attribute__((vector_size(64)));

inline Vec load(const float* from) { return *reinterpret_cast<const LooseVec*>(from); }

inline Vec load(const uint16_t* bf16) {
    const Words wide = __builtin_convertvector(*reinterpret_cast<const Halves*>(bf16), Words) << 16;
    return (Vec)wide;  // the same bits
}

// As many floats as one register holds.
#if defined(__AVX512F__)
constexpr int REGISTER = 16;
#elif defined(__AVX__)
constexpr int REGISTER = 8;
#else
constexpr int REGISTER = 4;
#endif
typedef float Lane __attribute__((vector_size(4 * REGISTER)));
typedef float LooseLane __attribute__((vector_size(4 * REGISTER), aligned(4), may_alias));

inline Lane load_lane(const float* from) { return *reinterpret_cast<const LooseLane*>(from); }

inline void store_lane(float* to, Lane value) { *reinterpret_cast<LooseLane*>(to) = value; }

// Spelled out: the compiler takes `Lane{} + v` for an addition.
inline Lane broadcast(float v) {
#if defined(__AVX512F__)
    return Lane{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v};
#elif defined(__AVX__)
    return Lane{v, v, v, v, v, v, v, v};
#else
    return Lane{v, v, v, v};
#endif
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

inline float one(const float* from) { return *from; }

inline float one(const uint16_t* bf16) {
    const uint32_t bits = uint32_t(*bf16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void store(float* to, Vec value) { *reinterpret_cast<LooseVec*>(to) = value; }

// The first `count` values; the others are zero, and nothing is read or written there.
inline Vec load_part(const float* from, int64_t count) {
    if (count >= LANES) return load(from);
    float part[LANES] = {};
    std::memcpy(part, from, count * sizeof(float));
    return load(part);
}

inline void store_part(float* to, Vec value, int64_t count) {
    if (count >= LANES)
        store(to, value);
    else
        std::memcpy(to, &value, count * sizeof(float));
}

inline Vec all(float v) { return Vec{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }

inline float sum(Vec v) {
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    const Half half = halves[0] + halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, &half, sizeof half);
    const Quarter quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

// 16 x 16 values, in place: interleaving row i with row i + 8 four times over brings each to its place.
inline void transpose(Vec* rows) {
    constexpr Ints LOW = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    constexpr Ints HIGH = {8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
#pragma GCC unroll 4
    for (int round = 0; round < 4; round++) {
        Vec next[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + LANES / 2], LOW);
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + LANES / 2], HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = next[i];
    }
}

inline Vec select(Ints where, Vec yes, Vec no) { return where ? yes : no; }

// e^x for x <= 0: 2^n from the exponent bits, and the Taylor polynomial of what is left in [-ln 2 / 2, ln 2 / 2].
inline Vec exp_of_negative(Vec x) {
    x = select(x < -87.0f, all(-87.0f), x);
    const Vec scaled = x * 1.44269504f - 0.5f;
    const Ints n = __builtin_convertvector(scaled, Ints);
    const Vec whole = __builtin_convertvector(n, Vec);
    const Vec r = (x - whole * 0.693145752f) - whole * 1.42860677e-6f;
    Vec p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const Ints bits = (n + 127) << 23;
    return p * (Vec)bits;
}

// Abramowitz & Stegun, 7.1.26: absolute error below 1.5e-7.
inline Vec erf_of(Vec x) {
    const Vec size = select(x < 0.0f, -x, x);
    const Vec t = 1.0f / (1.0f + 0.3275911f * size);
    Vec p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Vec value = 1.0f - p * t * exp_of_negative(-size * size);
    return select(x < 0.0f, -value, value);
}

enum Activation : int { GELU = 0, RELU = 1, NO_ACTIVATION = 2 };

inline Vec activate(Vec x, int kind) {
    if (kind == NO_ACTIVATION) return x;
    // Written so that what is not a number stays so.
    if (kind == RELU) return select(x < 0.0f, Vec{}, x);
    return 0.5f * x * (1.0f + erf_of(x * 0.707106781f));
}

}  // namespace
