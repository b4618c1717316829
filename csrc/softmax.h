// The exponentials of the scores of one query, for both kernels of attention.
#pragma once

#include "vec.h"

namespace {

constexpr int64_t TURNED = 32;  // keys side by side
// 2^-126 is the smallest normal float: power_of_two builds an exponent from bits and cannot go below.
constexpr float LOWEST = -126.0f, LOG2_E = 1.44269504f, NOTHING = -__builtin_inff();

inline int64_t up_to(int64_t count, int64_t multiple) { return whole(count, multiple) * multiple; }

// The scores in row [keys, up to a multiple of TURNED] are used up; their exponentials are put into `to`, which may be
// the same place, zero past the keys and where `kept` is not null and zero. Gives their sum.
template <typename Value>
float exponentials(float* row, int64_t keys, float scale, const uint8_t* kept, Value* to) {
    const float factor = scale * LOG2_E;
    for (int64_t key = keys; key < up_to(keys, TURNED); key++) row[key] = NOTHING;
    if (kept != nullptr)
        for (int64_t key = 0; key < keys; key++) row[key] = kept[key] ? row[key] : NOTHING;
    Vec top = all(NOTHING);
    for (int64_t key = 0; key < keys; key += LANES) {
        const Vec here = load(row + key);
        top = select(here > top, here, top);
    }
    // Where no key is kept any finite number will do. Subtracted first, so that the highest is exactly 1.
    const Vec highest = all(largest(top) == NOTHING ? 0.0f : largest(top));
    Vec total{};
    for (int64_t key = 0; key < keys; key += TURNED) {
        Vec log[2], power[2];
        Ints gone[2];
        for (int i = 0; i < 2; i++) {
            log[i] = (load(row + key + i * LANES) - highest) * factor;
            gone[i] = log[i] < LOWEST;
            log[i] = select(gone[i], all(LOWEST), log[i]);
        }
        power_of_two(log, power);
        for (int i = 0; i < 2; i++) {
            const Vec value = select(gone[i], Vec{}, power[i]);
            total += value;
            store_part(to + key + i * LANES, value, LANES);
        }
    }
    return sum(total);
}

}  // namespace
