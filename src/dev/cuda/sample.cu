/* sample.cu: OP_SAMPLE of one rank, and the first look at a row that all ranks begin with.
 *
 * scan_kernel reads each row once, cut over several blocks: the largest logit, whether a number is bad, and, where nothing but a
 * temperature is asked for, the winner of logit / temperature + noise. pick_kernel, one block a row, joins the
 * blocks' answers, and reads the row again only for top_k, top_p, min_p and log-probabilities. */
#include "dev/cuda/sample.h"

/* ---- first: read each row once ---- */

__global__ void __launch_bounds__(SCAN_THREADS) scan_kernel(struct tabs t, struct sample_args a) {
    early();
    __shared__ struct sample_part s_part[SCAN_THREADS / 32];
    int row = blockIdx.y, split = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    struct race race = race_begin(&info.how, info.position);
    const float *x = a.logits + (size_t)row * a.ld;
    int per = (a.vocab + a.splits * 4 - 1) / (a.splits * 4) * 4, from = split * per, to = from + per < a.vocab ? from + per : a.vocab;
    float max = -INFINITY;
    int argmax = 0x7fffffff, bad = 0, turn = 0;
    for (int base = from; base < to; base += SCAN_THREADS * 4) {
        int i = base + threadIdx.x * 4;
        if (i < to) { /* rows have room for 8 more numbers than the vocabulary */
            float4 v = *reinterpret_cast<const float4 *>(x + i);
            float y[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (i + k >= to) break;
                if (!isfinite(y[k])) bad = 1;
                if (y[k] > max) max = y[k], argmax = a.first + i + k;
                if (info.free) race_enter(&race, y[k], a.first + i + k);
            }
        }
        if (info.free && (++turn & 3) == 1) race.near = warp_max(race.near); /* everyone profits from the best so far */
    }
    for (int m = 16; m; m >>= 1) {
        float other = __shfl_xor_sync(~0u, max, m);
        int id = __shfl_xor_sync(~0u, argmax, m);
        if (other > max || (other == max && id < argmax)) max = other, argmax = id;
    }
    bad = __any_sync(~0u, bad);
    if (info.free) race_join_warp(&race);
    if (lane == 0) s_part[warp] = {max, argmax, bad, race.winner, race.best};
    __syncthreads();
    if (threadIdx.x) return;
    struct sample_part p = s_part[0];
    for (int w = 1; w < SCAN_THREADS / 32; w++) join_part(&p, s_part[w]);
    reinterpret_cast<struct sample_part *>((char *)a.parts + ((size_t)row * a.splits + split) * SAMPLE_PART_BYTES)[0] = p;
}

__device__ void tell_logprobs(struct pick &p, int vocab, int want, int32_t chosen, struct token_logprobs *out, unsigned long long *bucket) {
    __shared__ uint64_t s_top[LOGPROBS_MAX];
    p.n = vocab;
    p.list = NULL;
    double lse = (double)p.max + log(sum_exp(p));
    want = least_of(least_of(want, LOGPROBS_MAX), vocab);
    find_top(p, want, s_top, bucket);
    tell_top(s_top, want, want, lse, out);
    if (threadIdx.x) return;
    out->n = want;
    out->chosen = (float)((double)p.x[chosen] - lse);
}

__global__ void __launch_bounds__(PICK_THREADS) pick_kernel(struct tabs t, struct sample_args a) {
    early();
    __shared__ unsigned long long bucket[PADDED];
    __shared__ uint64_t room[PICK_THREADS / 32];
    int row = blockIdx.x;
    if (row >= t.head->n_rows) return;
    struct row_info info = row_of(t, row);
    struct sample_part p = join_parts(a, row);
    struct pick pick = {.x = a.logits + (size_t)row * a.ld, .n = a.vocab, .max = p.max, .scale = scale_of(info)};
    int32_t token = p.bad ? 0 : info.greedy ? p.argmax : info.free ? p.winner : pick_some(pick, info, bucket, room);
    struct result_row *out = &a.out[row];
    if (threadIdx.x == 0) tell_token(t, out, info.slot, token, p.bad);
    __syncthreads();
    if (!p.bad && info.how.n_logprobs >= 0) tell_logprobs(pick, a.vocab, info.how.n_logprobs, token, &out->logprobs, bucket);
}

void k_sample_scan(struct tabs t, struct sample_args a, int32_t rows, cudaStream_t stream) {
    launch(scan_kernel, dim3(a.splits, rows), SCAN_THREADS, 0, stream, t, a);
}

void k_sample(struct tabs t, struct sample_args a, int32_t rows, cudaStream_t stream) {
    k_sample_scan(t, a, rows, stream);
    launch(pick_kernel, rows, PICK_THREADS, 0, stream, t, a);
}
