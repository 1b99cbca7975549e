/* sample_ranks.cu: OP_SAMPLE of several ranks (kernel.h, struct sample_rank_args). Each looks at its own share of a row, they exchange what they found,
 * and all come to the same token from the same numbers. Nothing here waits for another rank: the exchanges lie between the kernels. */
#include "dev/cuda/sample.h"

/* What a rank found in its share of a row. */
struct found {
    uint64_t top[LOGPROBS_MAX]; /* its most likely, by rank_of; 0 beyond */
    double best, sum;           /* of its race; of exp(x - max), where log-probabilities are wanted */
    float max, logit;           /* logit of the race's winner */
    int32_t argmax, winner, bad, reserved[3];
};
static_assert(sizeof(struct found) == SAMPLE_FOUND_BYTES && sizeof(struct found) % 16 == 0, "kernel.h must have room");

/* A row after all have told. */
struct state {
    double lse;
    float max;
    int32_t bad;
};
static_assert(sizeof(struct state) == SAMPLE_STATE_BYTES, "kernel.h must have room");

/* ---- all rows ---- */

__global__ void __launch_bounds__(PICK_THREADS) tell_kernel(struct tabs t, struct sample_rank_args a) {
    early();
    __shared__ unsigned long long bucket[PADDED];
    __shared__ uint64_t s_top[LOGPROBS_MAX];
    int row = blockIdx.x, want = 0;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    struct sample_part p = join_parts(a.s, row);
    struct pick pick = {.x = a.s.logits + (size_t)row * a.s.ld, .first = a.s.first, .n = a.s.vocab, .max = p.max, .scale = 1};
    struct found *f = (struct found *)a.mine + row;
    double sum = 0;
    if (!p.bad && info.how.n_logprobs >= 0) {
        want = least_of(least_of(info.how.n_logprobs, LOGPROBS_MAX), a.s.vocab);
        sum = sum_exp(pick);
        find_top(pick, want, s_top, bucket);
    }
    if (threadIdx.x < LOGPROBS_MAX) f->top[threadIdx.x] = (int)threadIdx.x < want ? s_top[threadIdx.x] : 0;
    if (threadIdx.x) return;
    f->best = p.best;
    f->sum = sum;
    f->max = p.max;
    f->argmax = p.argmax;
    f->winner = p.winner;
    f->logit = info.free && !p.bad ? pick.x[p.winner - a.s.first] : 0;
    f->bad = p.bad;
}

enum { MERGE_THREADS = 160 };
static_assert(MERGE_THREADS >= SAMPLE_RANKS_MAX * LOGPROBS_MAX, "a thread for each candidate");

__global__ void __launch_bounds__(MERGE_THREADS) merge_kernel(struct tabs t, struct sample_rank_args a) {
    early();
    __shared__ uint64_t s_top[SAMPLE_RANKS_MAX * LOGPROBS_MAX];
    int row = blockIdx.x, n = a.n_ranks * LOGPROBS_MAX;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    const struct found *all = (const struct found *)a.all + row;
    float max = -INFINITY, logit = 0;
    int32_t argmax = 0, winner = 0, bad = 0;
    double best = -INFINITY, sum = 0;
    for (int r = 0; r < a.n_ranks; r++) { /* ranks' ids ascend: an equal one of a later rank loses */
        const struct found *f = all + (size_t)r * a.rows;
        bad |= f->bad;
        if (f->max > max) max = f->max, argmax = f->argmax;
        if (f->best > best) best = f->best, winner = f->winner, logit = f->logit;
    }
    for (int r = 0; r < a.n_ranks; r++) sum += all[(size_t)r * a.rows].sum * exp((double)all[(size_t)r * a.rows].max - (double)max);
    double lse = (double)max + log(sum);
    bool logprobs = !bad && info.how.n_logprobs >= 0;
    struct result_row *out = &a.s.out[row];
    int want = least_of(least_of(info.how.n_logprobs, LOGPROBS_MAX), a.total);
    if ((int)threadIdx.x < n) s_top[threadIdx.x] = all[(size_t)(threadIdx.x / LOGPROBS_MAX) * a.rows].top[threadIdx.x % LOGPROBS_MAX];
    __syncthreads();
    if (logprobs) tell_top(s_top, n, want, lse, &out->logprobs);
    if (threadIdx.x) return;
    tell_token(t, out, info.slot, bad ? 0 : info.free ? winner : argmax, bad);
    if (logprobs) {
        out->logprobs.n = want;
        out->logprobs.chosen = (float)((double)(info.free ? logit : max) - lse);
    }
    ((struct state *)a.state)[row] = {lse, max, bad};
}

void k_sample_tell(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream) {
    k_sample_scan(t, a.s, rows, stream);
    launch(tell_kernel, rows, PICK_THREADS, 0, stream, t, a);
}

void k_sample_merge(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream) {
    launch(merge_kernel, rows, MERGE_THREADS, 0, stream, t, a);
}

/* ---- rows with top_k or min_p ---- */

__device__ __forceinline__ bool settled(const struct row_info &info, const struct state &s) { return s.bad || info.greedy || info.free; }

/* Tokens too unlikely to win are left out here as everywhere, so there may be fewer than top_k. */
__global__ void __launch_bounds__(PICK_THREADS) list_kernel(struct tabs t, struct sample_rank_args a) {
    early();
    __shared__ unsigned long long bucket[PADDED];
    __shared__ uint64_t room[PICK_THREADS / 32];
    __shared__ int s_list[LIST_MAX], s_n;
    int row = blockIdx.x;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    struct state state = ((const struct state *)a.state)[row];
    if (settled(info, state)) return;
    struct pick p = {.x = a.s.logits + (size_t)row * a.s.ld, .first = a.s.first, .n = a.s.vocab, .max = state.max, .scale = scale_of(info)};
    struct sample_entry *to = (struct sample_entry *)a.list + (size_t)row * a.per;
    if (threadIdx.x == 0) s_n = 0;
    __syncthreads();
    if (info.how.top_k > 0) {
        if (info.how.top_k < p.n) keep_top_k(p, (uint64_t)info.how.top_k, bucket, room, s_list);
        FOR_EACH(p, if (kept(p, x, id)) {
            int at = atomicAdd(&s_n, 1);
            if (at < a.per) to[at] = {x, id};
        })
    } else {
        int32_t winner = race_kept(p, info);
        if (threadIdx.x == 0 && winner != 0x7fffffff) {
            to[0] = {p.x[winner - p.first], winner};
            s_n = 1;
        }
    }
    __syncthreads();
    for (int i = s_n + threadIdx.x; i < a.per; i += PICK_THREADS) to[i] = {-INFINITY, 0};
}

__global__ void __launch_bounds__(PICK_THREADS) choose_kernel(struct tabs t, struct sample_rank_args a) {
    early();
    __shared__ unsigned long long bucket[PADDED];
    __shared__ uint64_t room[PICK_THREADS / 32];
    int row = blockIdx.x;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    struct state state = ((const struct state *)a.state)[row];
    if (settled(info, state)) return;
    struct pick p = {.told = (const struct sample_entry *)a.all_list + (size_t)row * a.per, .per = a.per, .stride = (size_t)a.rows * a.per,
                     .n = a.n_ranks * a.per, .max = state.max, .scale = scale_of(info)};
    int32_t token = pick_some(p, info, bucket, room);
    struct result_row *out = &a.s.out[row];
    FOR_EACH(p, if (id == token && x != -INFINITY && info.how.n_logprobs >= 0) out->logprobs.chosen = (float)((double)x - state.lse))
    if (threadIdx.x) return;
    out->tokens[0] = token;
    t.last[info.slot] = token;
}

void k_sample_list(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream) {
    launch(list_kernel, rows, PICK_THREADS, 0, stream, t, a);
}

void k_sample_choose(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream) {
    launch(choose_kernel, rows, PICK_THREADS, 0, stream, t, a);
}
