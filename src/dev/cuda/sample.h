/* sample.h: what the kernels of sampling share, by the rules of dev/cpu/sample.h: the same order, the same noise, the same ties. CUDA C++ only.
 *
 * A block looks at numbers through struct pick: a row of logits, or what ranks told of one. Nothing sorts the vocabulary: the k-th token is
 * found by a radix selection on (bits of the logit, id). */
#ifndef MINISGL_DEV_CUDA_SAMPLE_H
#define MINISGL_DEV_CUDA_SAMPLE_H
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"
#include "dev/cuda/num.h"
#include "dev/sample_rules.h"
#include "flow/result.h"

enum { SCAN_THREADS = 256, PICK_THREADS = 1024, BUCKETS = 4096, PADDED = BUCKETS + BUCKETS / 128 };

struct sample_part {
    float max;
    int32_t argmax, bad, winner;
    double best;
};
static_assert(sizeof(struct sample_part) <= SAMPLE_PART_BYTES, "kernel.h must have room");

struct sample_entry { /* id is any where x is -INFINITY: none */
    float x;
    int32_t id;
};
static_assert(sizeof(struct sample_entry) == SAMPLE_ENTRY_BYTES, "kernel.h must have room");

template <class T> __device__ const T *step_part(const struct step_head *h, uint32_t at) {
    return reinterpret_cast<const T *>(reinterpret_cast<const char *>(h) + at);
}

/* ---- noise ---- */

__device__ __forceinline__ double gumbel_noise(uint32_t h) { return -log(-log(((double)h + 0.5) * 0x1p-32)); }

/* The race of logit / temperature + noise: enter() keeps the winner; `near` is a bound that spares most tokens the logarithms. */
struct race {
    double inv;
    uint64_t key;
    double best;
    int32_t winner;
    float inv_f, near;
};

__device__ __forceinline__ void race_take(struct race *r, double score, int32_t id) {
    if (score > r->best || (score == r->best && id < r->winner)) r->best = score, r->winner = id;
}

__device__ __forceinline__ void race_enter(struct race *r, float x, int32_t id) {
    uint32_t h = gumbel_bits(r->key, (uint32_t)id);
    float z = x * r->inv_f;
    if (z + gumbel_bound(h) + fabsf(z) * 1e-6f < r->near) return;
    race_take(r, (double)x * r->inv + gumbel_noise(h), id);
    r->near = fmaxf(r->near, (float)r->best - 2e-3f - fabsf((float)r->best) * 1e-6f);
}

__device__ __forceinline__ struct race race_begin(const struct sampling *s, int32_t position) {
    struct race r;
    r.inv = 1 / (double)s->temperature;
    r.key = gumbel_key(s->seed, position);
    r.best = -INFINITY;
    r.winner = 0x7fffffff;
    r.inv_f = (float)r.inv;
    r.near = -INFINITY;
    return r;
}

__device__ __forceinline__ void race_join_warp(struct race *r) {
    for (int m = 16; m; m >>= 1) {
        double score = __shfl_xor_sync(~0u, r->best, m);
        int32_t id = __shfl_xor_sync(~0u, r->winner, m);
        race_take(r, score, id);
    }
}

/* What row `row` is: its sequence's sampling and the position of the token to come. */
struct row_info {
    struct sampling how;
    int32_t slot, position;
    bool greedy, free; /* free: a temperature and nothing else */
};

__device__ inline struct row_info row_of(const struct tabs &t, int row) {
    struct step_seq s = step_part<struct step_seq>(t.head, t.head->seqs_at)[t.row_seq[row]];
    struct row_info r;
    r.how = t.sampling[s.slot];
    r.slot = s.slot;
    r.position = s.pos + s.n_tokens;
    r.greedy = r.how.temperature < SAMPLE_GREEDY;
    r.free = !r.greedy && r.how.top_k <= 0 && r.how.top_p >= 1 && r.how.min_p <= 0;
    return r;
}

__device__ __forceinline__ float scale_of(const struct row_info &info) { return info.greedy ? 1 : (float)(1 / (double)info.how.temperature); }

/* A row's answer, without log-probabilities. */
__device__ __forceinline__ void tell_token(const struct tabs &t, struct result_row *out, int32_t slot, int32_t token, int32_t bad) {
    out->slot = slot;
    out->n_tokens = 1;
    out->tokens[0] = token;
    out->bad = bad;
    out->logprobs.n = 0;
    out->logprobs.chosen = 0;
    t.last[slot] = token;
}

__device__ __forceinline__ void join_part(struct sample_part *p, const struct sample_part &q) {
    if (q.max > p->max || (q.max == p->max && q.argmax < p->argmax)) p->max = q.max, p->argmax = q.argmax;
    if (q.best > p->best || (q.best == p->best && q.winner < p->winner)) p->best = q.best, p->winner = q.winner;
    p->bad |= q.bad;
}

/* What the blocks of a scan found. */
__device__ __forceinline__ struct sample_part join_parts(const struct sample_args &a, int row) {
    struct sample_part p = {-INFINITY, 0x7fffffff, 0, 0x7fffffff, -INFINITY};
    for (int s = 0; s < a.splits; s++)
        join_part(&p, *reinterpret_cast<const struct sample_part *>((const char *)a.parts + ((size_t)row * a.splits + s) * SAMPLE_PART_BYTES));
    return p;
}

/* ---- one block a row ---- */

/* Bits in the order of the logits; -0 counts as +0. */
__device__ __forceinline__ uint32_t key_of(float f) {
    uint32_t u = __float_as_uint(f + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* (logit descending, id ascending) is this number descending; ids have 24 bits. */
__device__ __forceinline__ uint64_t rank_of(float x, int id) { return (uint64_t)key_of(x) << 24 | (uint32_t)(0xffffff - id); }

enum { LIST_MAX = 2048, BINS_A_UNIT = 64 };

struct pick {
    const float *x; /* of ids first and on */
    int first;
    const struct sample_entry *told; /* in place of x where it is not NULL: `per` of each rank, the ranks' `stride` apart */
    int per;
    size_t stride;
    int n;             /* numbers to look at: all, */
    const int *list;   /* or those at the places of this list, in any order */
    float max, scale;
    bool all;          /* no floor: for log-probabilities */
    uint64_t at_least; /* rank of the last one kept so far */
};

__device__ __forceinline__ float value_of(const struct pick &p, float x) { return expf((x - p.max) * p.scale); }
__device__ __forceinline__ uint64_t weight_of(float value) { return (uint64_t)((double)value * 0x1p40); }
__device__ __forceinline__ bool kept(const struct pick &p, float x, int id) {
    return (p.all || (x - p.max) * p.scale >= SAMPLE_FLOOR) && rank_of(x, id) >= p.at_least;
}

__device__ __forceinline__ int place_of(const struct pick &p, int i) { return p.list ? p.list[i] : i; }
__device__ __forceinline__ const struct sample_entry *told_at(const struct pick &p, int place) {
    return p.told + (size_t)(place / p.per) * p.stride + place % p.per;
}
__device__ __forceinline__ float x_at(const struct pick &p, int place) { return p.told ? told_at(p, place)->x : p.x[place]; }
__device__ __forceinline__ int id_at(const struct pick &p, int place) { return p.told ? told_at(p, place)->id : p.first + place; }

/* BODY for each (x, id) at its `place`, this thread's share, four reads under way at a time. */
#define FOR_EACH(p, ...)                                                                                                          \
    for (int base_ = threadIdx.x; base_ < (p).n; base_ += 4 * PICK_THREADS) {                                                     \
        float x_[4];                                                                                                              \
        _Pragma("unroll") for (int k_ = 0; k_ < 4; k_++) x_[k_] =                                                                 \
            base_ + k_ * PICK_THREADS < (p).n ? x_at(p, place_of(p, base_ + k_ * PICK_THREADS)) : 0;                              \
        _Pragma("unroll") for (int k_ = 0; k_ < 4; k_++) {                                                                        \
            int at_ = base_ + k_ * PICK_THREADS;                                                                                  \
            if (at_ < (p).n) {                                                                                                    \
                const float x = x_[k_];                                                                                           \
                const int place = place_of(p, at_), id = id_at(p, place);                                                         \
                (void)x, (void)id;                                                                                                \
                __VA_ARGS__;                                                                                                      \
            }                                                                                                                     \
        }                                                                                                                         \
    }

__device__ inline uint64_t block_sum64(uint64_t v, uint64_t *room) {
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(~0u, v, m);
    __syncthreads();
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = v;
    __syncthreads();
    uint64_t sum = 0;
    for (int w = 0; w < PICK_THREADS / 32; w++) sum += room[w];
    return sum;
}

/* Where bucket b lies: lanes that look at every 128th use different banks. */
__device__ __forceinline__ int slot_of(int b) { return b + b / 128; }

/* The first bucket, from the highest or from the lowest, at which the sum so far reaches `need`, and what of it is `left` there. */
struct reached {
    int bucket;
    uint64_t left;
    bool mine; /* this lane found it; one of a warp does */
};

/* By one warp: a lane sums 128 buckets; then the one whose sum reaches it looks into its own. */
__device__ inline struct reached reach(const unsigned long long *bucket, uint64_t need, bool from_highest) {
    const int step = from_highest ? -1 : 1, lane = threadIdx.x % 32, from = from_highest ? BUCKETS - 1 - 128 * lane : 128 * lane;
    uint64_t mine = 0;
    for (int i = 0; i < 128; i++) mine += bucket[slot_of(from + i * step)];
    uint64_t upto = mine;
    for (int m = 1; m < 32; m <<= 1) {
        uint64_t v = __shfl_up_sync(~0u, upto, m);
        if (lane >= m) upto += v;
    }
    unsigned reached = __ballot_sync(~0u, upto >= need);
    struct reached r = {from, need - (upto - mine), lane == (reached ? __ffs(reached) - 1 : 31)};
    if (r.mine)
        for (int i = 0; i < 127 && bucket[slot_of(r.bucket)] < r.left; i++) r.left -= bucket[slot_of(r.bucket)], r.bucket += step;
    return r;
}

/* Among the kept, in order: the rank at which the count (or weight) so far reaches `need`. One histogram a digit, from the top. */
__device__ inline uint64_t select_rank(const struct pick &p, uint64_t need, bool by_weight, unsigned long long *bucket) {
    __shared__ uint64_t s_prefix, s_need;
    __shared__ int s_done;
    const int shifts[5] = {45, 34, 24, 12, 0}, bits[5] = {11, 11, 10, 12, 12};
    uint64_t prefix = 0, known = 0;
    for (int d = 0; d < 5; d++) {
        for (int i = threadIdx.x; i < PADDED; i += PICK_THREADS) bucket[i] = 0;
        __syncthreads();
        for (int base = threadIdx.x; base - (int)threadIdx.x < p.n; base += 4 * PICK_THREADS) {
            float y[4];
            int id[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int at = base + k * PICK_THREADS, place = at < p.n ? place_of(p, at) : 0;
                id[k] = at < p.n ? id_at(p, place) : -1;
                y[k] = at < p.n ? x_at(p, place) : 0;
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                uint64_t rank = rank_of(y[k], id[k]);
                bool in = id[k] >= 0 && !((rank ^ prefix) & known) && kept(p, y[k], id[k]);
                if (!__any_sync(~0u, in)) continue;
                /* Logits crowd into few buckets: lanes of the same one add up first. */
                int b = in ? (int)(rank >> shifts[d] & ((1u << bits[d]) - 1)) : -1;
                unsigned same = __match_any_sync(~0u, b);
                uint64_t w = by_weight && in ? weight_of(value_of(p, y[k])) : 0, sum = __popc(same);
                if (by_weight)
                    sum = (uint64_t)__reduce_add_sync(same, (unsigned)(w >> 20)) * 1048576u + __reduce_add_sync(same, (unsigned)(w & 0xfffffu));
                if (in && (threadIdx.x % 32) == __ffs(same) - 1u) atomicAdd(&bucket[slot_of(b)], (unsigned long long)sum);
            }
        }
        __syncthreads();
        if (threadIdx.x < 32) {
            struct reached at = reach(bucket, need, true);
            if (at.mine) {
                s_prefix = prefix | (uint64_t)at.bucket << shifts[d];
                s_need = at.left;
                s_done = bucket[slot_of(at.bucket)] <= at.left;
            }
        }
        __syncthreads();
        prefix = s_prefix;
        need = s_need;
        known |= (uint64_t)((1u << bits[d]) - 1) << shifts[d];
        bool done = s_done;
        __syncthreads();
        if (done) break; /* all of this bucket are kept */
    }
    return prefix;
}

/* How far below the largest logit, in bins: coarse, and never wrong about who comes first. */
__device__ __forceinline__ int bin_of(const struct pick &p, float x) {
    float far = (p.max - x) * BINS_A_UNIT;
    return far < BUCKETS - 1 ? (int)far : BUCKETS - 1;
}

/* The first bin, from the largest logit down, at which the count (or weight) so far reaches `need`. */
__device__ inline int find_bin(const unsigned long long *bucket, uint64_t need) {
    __shared__ int s_bin;
    if (threadIdx.x < 32) {
        struct reached at = reach(bucket, need, false);
        if (at.mine) s_bin = at.bucket;
    }
    __syncthreads();
    return s_bin;
}

/* Leave all but those who may be among the first `need` out of p, when so few remain that a list holds them: one histogram over
 * coarse bins, in which the many unlikely tokens are spread well. */
__device__ inline void shorten(struct pick &p, uint64_t need, bool by_weight, unsigned long long *bucket, int *list) {
    __shared__ int s_count;
    for (int i = threadIdx.x; i < PADDED; i += PICK_THREADS) bucket[i] = 0;
    if (threadIdx.x == 0) s_count = 0;
    __syncthreads();
    FOR_EACH(p, if (kept(p, x, id)) atomicAdd(&bucket[slot_of(bin_of(p, x))], by_weight ? (unsigned long long)weight_of(value_of(p, x)) : 1ull))
    __syncthreads();
    int bin = find_bin(bucket, need);
    FOR_EACH(p, if (kept(p, x, id) && bin_of(p, x) <= bin) {
        int at = atomicAdd(&s_count, 1);
        if (at < LIST_MAX) list[at] = place;
    })
    __syncthreads();
    if (s_count > LIST_MAX) return; /* too many are alike: the selection goes over all */
    p.n = s_count;
    p.list = list;
}

/* Keep the first k. */
__device__ inline void keep_top_k(struct pick &p, uint64_t k, unsigned long long *bucket, uint64_t *room, int *list) {
    uint64_t n = 0;
    if (k <= LIST_MAX) shorten(p, k, false, bucket, list);
    FOR_EACH(p, n += kept(p, x, id))
    n = block_sum64(n, room);
    if (n > k) p.at_least = select_rank(p, k, false, bucket);
}

__device__ inline void keep_top_p(struct pick &p, float top_p, unsigned long long *bucket, uint64_t *room, int *list) {
    uint64_t sum = 0;
    FOR_EACH(p, if (kept(p, x, id)) sum += weight_of(value_of(p, x)))
    sum = block_sum64(sum, room);
    uint64_t need = (uint64_t)ceil((double)top_p * (double)sum);
    need = need < 1 ? 1 : need > sum ? sum : need;
    if (!p.list) shorten(p, need, true, bucket, list);
    p.at_least = select_rank(p, need, true, bucket);
}

/* The race of those kept that min_p leaves; 0x7fffffff: there is none. */
__device__ inline int32_t race_kept(const struct pick &p, const struct row_info &info) {
    __shared__ double s_best[PICK_THREADS / 32];
    __shared__ int32_t s_winner[PICK_THREADS / 32];
    struct race race = race_begin(&info.how, info.position);
    FOR_EACH(p, if (kept(p, x, id) && !(info.how.min_p > 0 && value_of(p, x) < info.how.min_p)) race_enter(&race, x, id))
    race_join_warp(&race);
    if (threadIdx.x % 32 == 0) s_best[threadIdx.x / 32] = race.best, s_winner[threadIdx.x / 32] = race.winner;
    __syncthreads();
    for (int w = 0; w < PICK_THREADS / 32; w++) race_take(&race, s_best[w], s_winner[w]);
    return race.winner;
}

__device__ inline int32_t pick_some(struct pick &p, const struct row_info &info, unsigned long long *bucket, uint64_t *room) {
    __shared__ int s_list[LIST_MAX];
    if (info.how.top_k > 0 && info.how.top_k < p.n) keep_top_k(p, (uint64_t)info.how.top_k, bucket, room, s_list);
    if (info.how.top_p < 1) keep_top_p(p, info.how.top_p, bucket, room, s_list);
    return race_kept(p, info);
}

/* ---- log-probabilities ---- */

/* Of exp(x - p.max), over all numbers. */
__device__ inline double sum_exp(const struct pick &p) {
    __shared__ double s_sum[PICK_THREADS / 32];
    double sum = 0;
    FOR_EACH(p, sum += expf(x - p.max))
    for (int m = 16; m; m >>= 1) sum += __shfl_xor_sync(~0u, sum, m);
    if (threadIdx.x % 32 == 0) s_sum[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int w = 0; w < PICK_THREADS / 32; w++) sum += s_sum[w];
    return sum;
}

/* The first `want` (up to LOGPROBS_MAX, up to p.n) of all numbers, as their ranks, in any order. */
__device__ inline void find_top(struct pick &p, int want, uint64_t *top, unsigned long long *bucket) {
    __shared__ int s_n;
    p.all = true;
    p.at_least = 0;
    if (threadIdx.x == 0) s_n = 0;
    __syncthreads();
    if (want > 0) {
        p.at_least = select_rank(p, (uint64_t)want, false, bucket);
        FOR_EACH(p, if (kept(p, x, id)) {
            int at = atomicAdd(&s_n, 1);
            if (at < LOGPROBS_MAX) top[at] = rank_of(x, id);
        })
    }
    __syncthreads();
}

/* The logit of a rank; -0 has become +0. */
__device__ __forceinline__ float logit_of(uint64_t rank) {
    uint32_t key = (uint32_t)(rank >> 24);
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* The first `want` of n ranks into the row's answer. Ranks differ, but for 0, which is none: each finds its own place. */
__device__ inline void tell_top(const uint64_t *top, int n, int want, double lse, struct token_logprobs *out) {
    if ((int)threadIdx.x >= n || !top[threadIdx.x]) return;
    uint64_t mine = top[threadIdx.x];
    int place = 0;
    for (int i = 0; i < n; i++) place += top[i] > mine;
    if (place >= want) return;
    out->top[place].id = 0xffffff - (int)(mine & 0xffffff);
    out->top[place].logprob = (float)((double)logit_of(mine) - lse);
}

__device__ __forceinline__ int least_of(int a, int b) { return a < b ? a : b; }

#endif
