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

// How many parts of a size hold so many; the last may be in use only partly.
inline int64_t whole(int64_t count, int64_t part) { return (count + part - 1) / part; }

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

inline Vec load_part(const uint16_t* from, int64_t count) {
    if (count >= LANES) return load(from);
    uint16_t part[LANES] = {};
    std::memcpy(part, from, count * sizeof(uint16_t));
    return load(part);
}

// To nearest, ties to even; what is not a number stays so.
inline Halves to_bf16(Vec value) {
    const Words bits = (Words)value, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const Words kept = (bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40u : rounded;
    return __builtin_convertvector(kept, Halves);
}

inline void store_part(uint16_t* to, Vec value, int64_t count) {
    const Halves half = to_bf16(value);
    if (count >= LANES)
        *reinterpret_cast<Halves*>(to) = half;
    else
        std::memcpy(to, &half, count * sizeof(uint16_t));
}

inline Vec all(float v) { return Vec{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}; }

typedef float Half __attribute__((vector_size(32)));
typedef float Quarter __attribute__((vector_size(16)));

inline float sum(Vec v) {
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    const Half half = halves[0] + halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, &half, sizeof half);
    const Quarter quarter = quarters[0] + quarters[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

inline float larger(float a, float b) { return a > b ? a : b; }

inline float largest(Vec v) {
    Half halves[2];
    std::memcpy(halves, &v, sizeof v);
    const Half half = halves[0] > halves[1] ? halves[0] : halves[1];
    Quarter quarters[2];
    std::memcpy(quarters, &half, sizeof half);
    const Quarter quarter = quarters[0] > quarters[1] ? quarters[0] : quarters[1];
    return larger(larger(quarter[0], quarter[1]), larger(quarter[2], quarter[3]));
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

// c[0] x^(COUNT - 1) + ... + c[COUNT - 1], of several values in step, as each operation waits for the one before.
template <int COUNT, int N>
inline void polynomial(const float (&c)[COUNT], const Vec (&x)[N], Vec (&y)[N]) {
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) y[i] = all(c[0]);
#pragma GCC unroll 16
    for (int k = 1; k < COUNT; k++)
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) y[i] = y[i] * x[i] + c[k];
}

// 2^log, for log from -126 to 0.
template <int N>
inline void power_of_two(Vec (&log)[N], Vec (&power)[N]) {
    constexpr float POWER[] = {1.32764721e-3f, 9.67554166e-3f, 5.55071328e-2f,
                               2.40221197e-1f, 6.93146967e-1f, 1.00000007f};
    Ints whole[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        whole[i] = __builtin_convertvector(log[i] - 0.5f, Ints);
        log[i] -= __builtin_convertvector(whole[i], Vec);
    }
    polynomial(POWER, log, power);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        const Ints bits = (whole[i] + 127) << 23;
        power[i] *= (Vec)bits;
    }
}

// x times the normal distribution's function at -x, for x >= 0. The logarithm of the latter is nearly a square: a
// polynomial (minimax in what the result is off, 7e-9) and a power of two do without erf and a division.
template <int N>
inline void lower_tail(Vec (&x)[N]) {
    constexpr float LOG[] = {-1.69037719e-6f, 2.50829653e-5f, -1.14460723e-4f, -3.23348009e-4f, 7.33339414e-3f,
                             -5.27142100e-2f, -4.59115446e-1f, -1.15112329f, -9.99998868e-1f};
    Vec log[N], power[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) x[i] = select(x[i] > 10.0f, all(10.0f), x[i]);
    polynomial(LOG, x, log);
    power_of_two(log, power);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) x[i] *= power[i];
}

enum Activation : int { GELU = 0, RELU = 1, NO_ACTIVATION = 2 };

// Written so that what is not a number stays so.
template <int N>
inline void activate(Vec (&x)[N], int kind) {
    if (kind == NO_ACTIVATION) return;
    Vec tail[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) {
        tail[i] = (Vec)((Words)x[i] & 0x7fffffffu);
        x[i] = select(x[i] < 0.0f, Vec{}, x[i]);
    }
    if (kind == RELU) return;
    lower_tail(tail);
#pragma GCC unroll 8
    for (int i = 0; i < N; i++) x[i] -= tail[i];
}

inline Vec activate(Vec x, int kind) {
    Vec one[1] = {x};
    activate(one, kind);
    return one[0];
}

}  // namespace
