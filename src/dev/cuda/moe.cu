/* moe.cu: OP_MOE: choose experts, sort the (token, expert) pairs by expert, run each expert's matrices on its pairs in one launch
 * (tiles of 64 x 64 on the matrix unit, K through two stages of shared memory), add the answers in order of rank. Every order is
 * fixed: a pair's place is by token and rank, so the result does not depend on timing. No state; see kernel.h. */
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"
#include "dev/cuda/mma.h"

enum { EXPERTS_A_LANE = 16, SORT_THREADS = 256 };

__device__ __forceinline__ int tokens_here(const struct tabs &t, const struct moe_args &a) {
    int left = t.head->n_tokens - a.token0;
    return left < 0 ? 0 : left < a.tokens ? left : a.tokens;
}

/* ---- one warp a token: softmax over all experts, the top_k largest, ties to the lower id ---- */

__global__ void route_kernel(struct tabs t, struct moe_args a) {
    early();
    int lane = threadIdx.x % 32, row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, X = a.n_experts;
    if (row >= tokens_here(t, a)) return;
    const float *z = a.logits + (size_t)row * a.ldl;
    float p[EXPERTS_A_LANE], big = -INFINITY, sum = 0, kept = 0, mine = 0;
    int mine_id = 0;
#pragma unroll
    for (int k = 0; k < EXPERTS_A_LANE; k++) {
        p[k] = k * 32 + lane < X ? z[k * 32 + lane] : -INFINITY;
        big = fmaxf(big, p[k]);
    }
    big = warp_max(big);
#pragma unroll
    for (int k = 0; k < EXPERTS_A_LANE; k++) {
        p[k] = k * 32 + lane < X ? expf(p[k] - big) : -1;
        if (k * 32 + lane < X) sum += p[k];
    }
    sum = warp_sum(sum);
    for (int i = 0; i < a.top_k; i++) {
        float best = -1;
        int id = X;
#pragma unroll
        for (int k = 0; k < EXPERTS_A_LANE; k++)
            if (p[k] > best) best = p[k], id = k * 32 + lane;
        for (int m = 16; m; m >>= 1) {
            float other = __shfl_xor_sync(~0u, best, m);
            int other_id = __shfl_xor_sync(~0u, id, m);
            if (other > best || (other == best && other_id < id)) best = other, id = other_id;
        }
        float w = best / sum;
        if (id >= X) id = i, w = NAN; /* no number is left: the logits will say so */
#pragma unroll
        for (int k = 0; k < EXPERTS_A_LANE; k++)
            if (k * 32 + lane == id) p[k] = -1;
        kept += w;
        if (lane == i) mine = w, mine_id = id;
    }
    if (lane < a.top_k) { /* at most 32 */
        a.expert[(size_t)row * a.top_k + lane] = mine_id;
        a.p[(size_t)row * a.top_k + lane] = a.norm_topk ? mine / kept : mine;
    }
}

/* ---- one block an expert: its pairs, in order ---- */

__global__ void __launch_bounds__(SORT_THREADS) sort_kernel(struct tabs t, struct moe_args a) {
    early();
    __shared__ int s_count[SORT_THREADS / 32 + 1];
    int e = blockIdx.x, n = tokens_here(t, a) * a.top_k, lane = threadIdx.x % 32, warp = threadIdx.x / 32, less = 0;
    for (int i = threadIdx.x; i < n; i += SORT_THREADS) less += a.expert[i] < e;
    for (int m = 16; m; m >>= 1) less += __shfl_xor_sync(~0u, less, m);
    if (lane == 0) s_count[warp] = less;
    __syncthreads();
    int at = 0;
    for (int w = 0; w < SORT_THREADS / 32; w++) at += s_count[w];
    if (threadIdx.x == 0) {
        a.first[e] = at;
        if (e == a.n_experts - 1) a.first[a.n_experts] = n, a.n_tiles[1] = n;
    }
    for (int base = 0; base < n; base += SORT_THREADS) {
        int i = base + threadIdx.x;
        bool mine = i < n && a.expert[i] == e;
        unsigned who = __ballot_sync(~0u, mine);
        __syncthreads();
        if (lane == 0) s_count[warp] = __popc(who);
        __syncthreads();
        int before = 0, all = 0;
        for (int w = 0; w < SORT_THREADS / 32; w++) {
            if (w < warp) before += s_count[w];
            all += s_count[w];
        }
        if (mine) {
            int place = at + before + __popc(who & ((1u << lane) - 1));
            a.at[i] = place;
            a.source[place] = a.token0 + i / a.top_k;
        }
        at += all;
    }
}

__global__ void tiles_kernel(struct moe_args a) {
    early();
    __shared__ int s_n[EXPERTS_A_LANE * 32];
    int e = threadIdx.x, X = a.n_experts;
    int from = e < X ? a.first[e] : 0, to = e < X ? a.first[e + 1] : 0;
    s_n[e] = (to - from + MOE_TILE - 1) / MOE_TILE;
    __syncthreads();
    int at = 0;
    for (int i = 0; i < e; i++) at += s_n[i];
    for (int i = 0; i < s_n[e]; i++) {
        int32_t *tile = a.tiles + (size_t)(at + i) * 3;
        tile[0] = e, tile[1] = from + i * MOE_TILE, tile[2] = to;
    }
    if (e == X - 1) a.n_tiles[0] = at + s_n[e];
}

/* ---- the experts' matrices ---- */

struct group_args {
    const void *x, *w; /* rows of x; [X][n, ldw] */
    void *y;           /* [entries, ldy] */
    const int32_t *source; /* row of x of an entry; NULL: the entry itself */
    const int32_t *tiles, *n_tiles;
    int64_t ldx, ldw, ldy, step; /* step: from one expert's w to the next */
    int32_t n, k;
};

template <class A> __global__ void __launch_bounds__(128) group_kernel(struct group_args a) {
    early();
    constexpr int KS = 64, LD = KS + 8;
    __shared__ __align__(16) A sx[2][MOE_TILE][LD], sw[2][MOE_TILE][LD];
    if ((int)blockIdx.y >= a.n_tiles[0]) return;
    const int32_t *tile = a.tiles + (size_t)blockIdx.y * 3;
    const int expert = tile[0], row0 = tile[1], rows = tile[2] - row0 < MOE_TILE ? tile[2] - row0 : MOE_TILE, n0 = blockIdx.x * MOE_TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, wm = warp / 2 * 32, wn = warp % 2 * 32, steps = (a.k + KS - 1) / KS;
    const A *w = (const A *)a.w + expert * a.step;
    /* A thread always loads the same chunk of 8 columns of rows r, r + 16, r + 32, r + 48. */
    const int chunk = threadIdx.x % 8 * 8, r0 = threadIdx.x / 8;
    const A *px[4], *pw[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = r0 + 16 * i, row = row0 + (r < rows ? r : 0);
        px[i] = (const A *)a.x + (size_t)(a.source ? a.source[row] : row) * a.ldx + chunk;
        pw[i] = w + (size_t)(n0 + r < a.n ? n0 + r : 0) * a.ldw + chunk;
    }
    auto load = [&](int step) {
        bool in = step * KS + chunk < a.k; /* what lies behind k in a chunk is zero in w */
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int r = r0 + 16 * i;
            copy16(&sx[step & 1][r][chunk], in ? px[i] + step * KS : px[i], in && r < rows);
            copy16(&sw[step & 1][r][chunk], in ? pw[i] + step * KS : pw[i], in && n0 + r < a.n);
        }
    };
    float c[2][4][4] = {};
    load(0);
    copy_commit();
    for (int s = 0; s < steps; s++) {
        if (s + 1 < steps) load(s + 1);
        copy_commit();
        copy_wait<1>();
        __syncthreads();
#pragma unroll
        for (int k = 0; k < KS; k += 16) {
            unsigned x[2][4], y[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                ldsm4(x[i], &sx[s & 1][wm + i * 16 + lane % 16][k + lane / 16 * 8]);
                ldsm4(y[i], &sw[s & 1][wn + i * 16 + lane % 8 + lane / 16 * 8][k + lane / 8 % 2 * 8]);
            }
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    mma(c[i][j], x[i][0], x[i][1], x[i][2], x[i][3], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1], A());
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int r = wm + i * 16 + lane / 4 + q / 2 * 8, n = n0 + wn + j * 8 + lane % 4 * 2 + q % 2;
                if (r < rows && n < a.n) ((A *)a.y)[(size_t)(row0 + r) * a.ldy + n] = from_f<A>(c[i][j][q]);
            }
}

/* float32: one warp an output column, over the tile's rows. For comparison, not for speed. */
template <> __global__ void __launch_bounds__(128) group_kernel<float>(struct group_args a) {
    early();
    if ((int)blockIdx.y >= a.n_tiles[0]) return;
    const int32_t *tile = a.tiles + (size_t)blockIdx.y * 3;
    int lane = threadIdx.x % 32, end = tile[2] < tile[1] + MOE_TILE ? tile[2] : tile[1] + MOE_TILE;
    for (int n = blockIdx.x * MOE_TILE + threadIdx.x / 32; n < a.n && n < (int)(blockIdx.x + 1) * MOE_TILE; n += 4) {
        const float *w = (const float *)a.w + tile[0] * a.step + n * a.ldw;
        for (int row = tile[1]; row < end; row++) {
            const float *x = (const float *)a.x + (size_t)(a.source ? a.source[row] : row) * a.ldx;
            float sum = 0;
            for (int k = lane; k < a.k; k += 32) sum += x[k] * w[k];
            sum = warp_sum(sum);
            if (lane == 0) ((float *)a.y)[(size_t)row * a.ldy + n] = sum;
        }
    }
}

template <class A> __global__ void combine_kernel(struct tabs t, struct moe_args a) {
    early();
    int row = blockIdx.x;
    if (row >= tokens_here(t, a)) return;
    A *out = (A *)a.out + (size_t)(a.token0 + row) * a.ldo;
    for (int i = threadIdx.x; i < a.hidden; i += blockDim.x) {
        float sum = 0;
        for (int k = 0; k < a.top_k; k++) {
            size_t pair = (size_t)row * a.top_k + k;
            sum += a.p[pair] * to_f(((const A *)a.y)[(size_t)a.at[pair] * a.ldy + i]);
        }
        out[i] = from_f<A>(sum);
    }
}

template <class A> static void moe_launch(struct tabs t, struct moe_args a, cudaStream_t stream) {
    int entries = a.tokens * a.top_k, tiles = moe_max_tiles(entries, a.n_experts);
    launch(route_kernel, (a.tokens + 3) / 4, 128, 0, stream, t, a);
    launch(sort_kernel, a.n_experts, SORT_THREADS, 0, stream, t, a);
    launch(tiles_kernel, 1, (a.n_experts + 31) / 32 * 32, 0, stream, a);
    struct group_args up = {a.x, a.w_gu, a.gu, a.source, a.tiles, a.n_tiles, a.ldx, a.ld_gu, a.ld2f, a.gu_step, 2 * a.ffn, a.hidden};
    launch(group_kernel<A>, dim3((2 * a.ffn + MOE_TILE - 1) / MOE_TILE, tiles), 128, 0, stream, up);
    struct silu_args s = {a.gu, a.ff, a.a, a.ld2f, a.ldf, a.ffn, a.n_tiles + 1};
    k_silu(t, s, entries, stream);
    struct group_args down = {a.ff, a.w_down, a.y, NULL, a.tiles, a.n_tiles, a.ldf, a.ld_down, a.ldy, a.down_step, a.hidden, a.ffn};
    launch(group_kernel<A>, dim3((a.hidden + MOE_TILE - 1) / MOE_TILE, tiles), 128, 0, stream, down);
    launch(combine_kernel<A>, a.tokens, 256, 0, stream, t, a);
}

void k_moe(struct tabs t, struct moe_args a, cudaStream_t stream) { BY_DTYPE(a.a, moe_launch<A>(t, a, stream)); }
