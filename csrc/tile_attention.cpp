// Attention of short sequences on bf16 tiles, y = softmax(scale q k^T) v, head by head; sums and exponentials are
// float.
//
// Keys and values of a head are brought into tiles once, as if they were weights: both products are then those of a
// layer whose blocks are all kept. Probabilities are rounded to bf16 before the second.

#include <omp.h>

#include "softmax.h"
#include "sparsebert.h"
#include "tile_product.h"

namespace {

constexpr int64_t BLOCK = 2 * TILE_VALUES;  // 32 outputs x 32 inputs
constexpr int64_t MOST = 2 * TILE;          // queries at once

// Rows of bf16, `stride` apart, of which `count` are there.
struct Given {
    const uint16_t* at;
    int64_t stride, count;
};

int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

// Sixteen pairs of the rows from `first` on, zero where there are none, side by side from value d on: 16 tiles' rows.
void pack_pairs(Given v, int64_t first, int64_t d, int64_t here, uint16_t* to) {
    for (int64_t pair = 0; pair < TILE; pair++) {
        Words halves[2] = {};
        for (int64_t i = 0; i < 2; i++) {
            const int64_t row = first + 2 * pair + i;
            if (row < v.count) halves[i] = (Words)load_part(v.at + row * v.stride + d, here);
        }
        const Words both = halves[0] >> 16 | halves[1];
        std::memcpy(to + pair * WIDTH, &both, sizeof both);
    }
}

// Sixteen rows from `first` on, zero where there are none, turned: pairs of values from d on, of sixteen rows.
void pack_turned(Given k, int64_t first, int64_t d, int64_t here, uint16_t* to) {
    Vec rows[LANES] = {};
    for (int64_t i = 0; i < TILE && first + i < k.count; i++)
        std::memcpy(rows + i, k.at + (first + i) * k.stride + d, here * sizeof(uint16_t));
    transpose(rows);
    std::memcpy(to, rows, sizeof rows);
}

struct Head {
    const SbAttention& call;
    Given q, k, v;
    const uint8_t* mask;
    uint16_t *keys, *values, *queries, *shares;
    float* scores;

    int64_t across() const { return whole(call.size, WIDTH); }
    int64_t blocks() const { return whole(call.keys, WIDTH); }
    // Else rows of 2^n values would all fall on the same lines of the cache.
    int64_t query_stride() const { return (across() + 1) * WIDTH; }
    int64_t share_stride() const { return (blocks() + 1) * WIDTH; }
    int64_t score_stride() const { return blocks() * WIDTH + TILE; }

    // keys [blocks][across] tiles of outputs that are keys, values [across][blocks] of outputs that are a head's.
    void prepare() const {
        for (int64_t block = 0; block < blocks(); block++)
            for (int64_t part = 0; part < across(); part++)
                for (int64_t half = 0; half < 2; half++) {
                    const int64_t d = part * WIDTH, at = half * TILE;
                    pack_turned(k, block * WIDTH + at, d, smaller(WIDTH, call.size - d),
                                keys + (block * across() + part) * BLOCK + half * TILE_VALUES);
                    pack_pairs(v, block * WIDTH, d + at, larger_of(0, smaller(TILE, call.size - d - at)),
                               values + (part * blocks() + block) * BLOCK + half * TILE_VALUES);
                }
    }

    // 16 M queries at most.
    template <int M>
    void run(Tiles& tiles, int64_t query, int64_t count, uint16_t* y) const {
        for (int64_t t = 0; t < M * TILE; t++)
            if (t < count)
                copy_row(q.at + (query + t) * q.stride, call.size, query_stride(), queries + t * query_stride());
            else
                std::memset(queries + t * query_stride(), 0, query_stride() * sizeof(uint16_t));
        for (int64_t block = 0; block < blocks(); block++)
            multiply<M, 2>(tiles, {queries, query_stride()}, {keys + block * across() * BLOCK, nullptr, across()},
                           [&](int64_t first, auto& sums) { keep(first, sums, block * WIDTH); });
        float parts[MOST] = {};
        for (int64_t t = 0; t < M * TILE; t++) {
            const uint8_t* seen = mask == nullptr || t >= count ? nullptr : mask + (query + t) * call.mask_query;
            const float total =
                exponentials(scores + t * score_stride(), call.keys, call.scale, seen, shares + t * share_stride());
            parts[t] = total == 0.0f ? 0.0f : 1.0f / total;
        }
        const int64_t wide = call.heads * call.size;
        for (int64_t part = 0; part < across(); part++)
            multiply<M, 2>(tiles, {shares, share_stride()}, {values + part * blocks() * BLOCK, nullptr, blocks()},
                           [&](int64_t first, auto& sums) {
                               const int64_t here = smaller(WIDTH, call.size - part * WIDTH);
                               give(first, sums, parts, count, here, y + part * WIDTH, wide);
                           });
    }

    template <int T>
    void keep(int64_t first, const Vec (&sums)[T][2], int64_t key) const {
        for (int t = 0; t < T; t++) store_row(scores + (first + t) * score_stride() + key, sums[t], WIDTH);
    }

    template <int T>
    static void give(int64_t first, Vec (&sums)[T][2], const float* parts, int64_t count, int64_t here, uint16_t* y,
                     int64_t wide) {
        for (int64_t t = 0; t < smaller(T, count - first); t++) {
            for (int j = 0; j < 2; j++) sums[t][j] *= parts[first + t];
            store_row(y + (first + t) * wide, sums[t], here);
        }
    }
};

}  // namespace

extern "C" void SB_NAME(sb_tile_attention)(const SbAttention* call, const uint16_t* q, const uint16_t* k,
                                           const uint16_t* v, const uint8_t* mask, uint16_t* y, uint16_t* workspace) {
    const SbAttention& c = *call;
    const int64_t across = whole(c.size, WIDTH), blocks = whole(c.keys, WIDTH), tiles = across * blocks * BLOCK;
    const int64_t queries = MOST * (across + 1) * WIDTH, shares = MOST * (blocks + 1) * WIDTH;
    const int64_t scores = MOST * (blocks * WIDTH + TILE), per_thread = 2 * tiles + queries + shares + 2 * scores;
#pragma omp parallel num_threads(c.threads) if (c.threads > 1)
    {
        Tiles held;
        uint16_t* const own = workspace + omp_get_thread_num() * per_thread;
        uint16_t* const after = own + 2 * tiles + queries + shares;
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t b = 0; b < c.batch; b++)
            for (int64_t h = 0; h < c.heads; h++) {
                const Head head{c,
                                {q + b * c.q.batch + h * c.q.head, c.q.token, c.queries},
                                {k + b * c.k.batch + h * c.k.head, c.k.token, c.keys},
                                {v + b * c.v.batch + h * c.v.head, c.v.token, c.keys},
                                mask == nullptr ? nullptr : mask + b * c.mask_batch + h * c.mask_head,
                                own,
                                own + tiles,
                                own + 2 * tiles,
                                own + 2 * tiles + queries,
                                reinterpret_cast<float*>(after)};
                head.prepare();
                for (int64_t query = 0; query < c.queries; query += MOST) {
                    uint16_t* const to = y + ((b * c.queries + query) * c.heads + h) * c.size;
                    const int64_t count = smaller(MOST, c.queries - query);
                    if (count > TILE)
                        head.run<2>(held, query, count, to);
                    else
                        head.run<1>(held, query, count, to);
                }
            }
    }
}
