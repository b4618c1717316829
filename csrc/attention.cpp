// Attention of short sequences, y = softmax(scale q k^T) v, head by head, in float.
//
// Keys are turned so that 32 of them lie side by side: both products are then those of a layer whose blocks are all
// kept. The scores of a few queries stay in the nearest cache from the first product to the second.

#include <omp.h>

#include "multiply.h"
#include "softmax.h"
#include "sparsebert.h"

namespace {

constexpr int64_t PADDING = 16;  // else rows of 2^n scores would fall on the same lines of the cache

// One head of one sequence, and where a thread keeps what it made of it.
struct Head {
    const SbAttention& call;
    Given q, k, v;
    const uint8_t* mask;
    float *keys, *values, *scores, *sums;

    int64_t wide() const { return up_to(call.size, LANES); }
    int64_t score_stride() const { return up_to(call.keys, TURNED) + PADDING; }

    // keys [blocks of TURNED][size][TURNED], zero where there are none; values [keys][wide], zero past the size.
    void prepare() const {
        for (int64_t first = 0; first < call.keys; first += TURNED)
            for (int64_t half = 0; half < TURNED; half += LANES)
                for (int64_t d = 0; d < call.size; d += LANES) {
                    const int64_t wide = smaller(LANES, call.size - d);
                    Vec tile[LANES] = {};
                    for (int64_t i = 0; i < LANES && first + half + i < call.keys; i++)
                        tile[i] = load_part(k.from(first + half + i).first + d, wide);
                    transpose(tile);
                    float* const to = keys + first * call.size + d * TURNED + half;
                    for (int64_t j = 0; j < wide; j++) store(to + j * TURNED, tile[j]);
                }
        for (int64_t key = 0; key < call.keys; key++)
            for (int64_t d = 0; d < call.size; d += LANES)
                store(values + key * wide() + d, load_part(v.from(key).first + d, call.size - d));
    }

    // Some of what the next head reads comes near while this one is computed: its rows are far apart.
    void fetch_next(int64_t part, int64_t parts) const {
        for (int64_t key = call.keys * part / parts; key < call.keys * (part + 1) / parts; key++)
            for (int64_t d = call.size; d < 2 * call.size; d += LANES) {
                __builtin_prefetch(k.from(key).first + d, 0, 2);
                __builtin_prefetch(v.from(key).first + d, 0, 2);
            }
    }

    const uint8_t* seen_by(int64_t query) const { return mask == nullptr ? nullptr : mask + query * call.mask_query; }

    // y [TOKENS at most, heads, size] of `count` queries.
    void run(int64_t query, int64_t count, float* y) const {
        const Places rows{scores, score_stride()}, out{sums, wide()};
        expect({y, call.heads * call.size}, count, call.size);
        const int64_t parts = whole(call.size, WIDTH), across = whole(call.keys, WIDTH);
        for (int64_t first = 0; first < call.keys; first += TURNED)
            add_up_some({call.size, TURNED, parts, keys + first * call.size, nullptr}, count, q.from(query), nullptr,
                        {rows.first + first, rows.stride});
        float totals[TOKENS];
        for (int64_t t = 0; t < count; t++)
            totals[t] = exponentials(rows.from(t).first, call.keys, call.scale, seen_by(query + t), rows.from(t).first);
        add_up_some({call.keys, wide(), across, values, nullptr}, count, rows, nullptr, out);
        for (int64_t t = 0; t < count; t++) {
            const float share = totals[t] == 0.0f ? 0.0f : 1.0f / totals[t];
            float* const to = y + t * call.heads * call.size;
            for (int64_t d = 0; d < call.size; d += LANES)
                store_part(to + d, load(out.from(t).first + d) * share, call.size - d);
        }
    }
};

}  // namespace

extern "C" void SB_NAME(sb_attention)(const SbAttention* call, const float* q, const float* k, const float* v,
                                      const uint8_t* mask, float* y, float* workspace) {
    const SbAttention& c = *call;
    const int64_t wide = up_to(c.size, LANES), keys = up_to(c.keys, TURNED) * c.size, values = c.keys * wide;
    const int64_t scores = TOKENS * (up_to(c.keys, TURNED) + PADDING), sums = TOKENS * wide;
    const int64_t per_thread = keys + values + scores + sums;
    // Over sequences and heads: the keys and values of one such pair fit into a core's cache, and no two write to the
    // same place.
#pragma omp parallel for collapse(2) num_threads(c.threads) if (c.threads > 1) schedule(dynamic)
    for (int64_t b = 0; b < c.batch; b++)
        for (int64_t h = 0; h < c.heads; h++) {
            float* const own = workspace + omp_get_thread_num() * per_thread;
            const Head head{c,
                            {q + b * c.q.batch + h * c.q.head, c.q.token},
                            {k + b * c.k.batch + h * c.k.head, c.k.token},
                            {v + b * c.v.batch + h * c.v.head, c.v.token},
                            mask == nullptr ? nullptr : mask + b * c.mask_batch + h * c.mask_head,
                            own,
                            own + keys,
                            own + keys + values,
                            own + keys + values + scores};
            head.prepare();
            const int64_t groups = whole(c.queries, TOKENS);
            for (int64_t group = 0; group < groups; group++) {
                const int64_t query = group * TOKENS;
                if (h + 1 < c.heads) head.fetch_next(group, groups);
                float* const to = y + ((b * c.queries + query) * c.heads + h) * c.size;
                head.run(query, smaller(TOKENS, c.queries - query), to);
            }
        }
}
