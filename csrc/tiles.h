// The eight tile registers of AMX: 16 rows of 64 bytes each, and what multiplies them.
//
// With the instructions where the compiler was told to use them, else emulated, so that the kernels can be tested on
// any processor. With AVX-512 BF16 alone there are none, and products are of vector registers: see tile_product.h. The
// emulation adds in the order of the instruction's definition. It keeps denormal numbers, which the instruction takes
// for zero, and a product beyond the range of float becomes infinite before it is added.
#pragma once

#if defined(__AVX512VBMI2__)
#include <immintrin.h>
#endif

#include "vec.h"

namespace {

constexpr int64_t TILE = 16;          // rows, and outputs of a row of weights or of sums
constexpr int64_t WIDTH = 32;         // bf16 of a row
constexpr int64_t TILE_VALUES = 512;  // bf16 of a tile

#if defined(__AMX_BF16__)

// A thread has tiles of its own as long as this lives. The instructions are spelled out: intrinsics of GCC take a
// number only as it is written, and do not say that memory is read.
class Tiles {
  public:
    Tiles() {
        Shape shape{};
        shape.palette = 1;
        for (int tile = 0; tile < 8; tile++) {
            shape.rows[tile] = TILE;
            shape.bytes[tile] = 64;
        }
        asm volatile("ldtilecfg %0" ::"m"(shape));
    }
    ~Tiles() { asm volatile("tilerelease"); }
    Tiles(const Tiles&) = delete;

    template <int T>
    void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(T));
    }

    // Rows of 32 bf16, `stride` apart.
    template <int T>
    void load(const uint16_t* from, int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 2), "i"(T) : "memory");
    }

    // sums [16][16] += a [16][32] b, where row p of b has inputs 2p and 2p + 1 of 16 outputs, side by side.
    template <int SUMS, int A, int B>
    void dot() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUMS), "i"(A), "i"(B));
    }

    // Rows of 16 floats, `stride` apart.
    template <int T>
    void store(float* to, int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "i"(T) : "memory");
    }

  private:
    struct alignas(64) Shape {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    };
};

#elif !defined(__AVX512BF16__)

class Tiles {
  public:
    Tiles() = default;
    Tiles(const Tiles&) = delete;

    template <int T>
    void zero() {
        std::memset(held[T], 0, sizeof held[T]);
    }

    template <int T>
    void load(const uint16_t* from, int64_t stride) {
        for (int64_t row = 0; row < TILE; row++) std::memcpy(held[T] + row, from + row * stride, sizeof(Words));
    }

    template <int SUMS, int A, int B>
    void dot() {
        for (int64_t row = 0; row < TILE; row++) {
            Vec even{}, odd{};
            for (int64_t pair = 0; pair < TILE; pair++) {
                const uint32_t a = held[A][row][pair];
                const Words b = held[B][pair];
                const Words left = Words{} + (a << 16), right = Words{} + (a & 0xffff0000u);
                even += (Vec)left * (Vec)(b << 16);
                odd += (Vec)right * (Vec)(b & 0xffff0000u);
            }
            held[SUMS][row] = (Words)((Vec)held[SUMS][row] + (even + odd));
        }
    }

    template <int T>
    void store(float* to, int64_t stride) {
        for (int64_t row = 0; row < TILE; row++) std::memcpy(to + row * stride, held[T] + row, sizeof(Words));
    }

  private:
    Words held[8][TILE];
};

#endif

}  // namespace
