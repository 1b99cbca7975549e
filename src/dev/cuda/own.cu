/* own.cu: LINEAR for few rows by the matrix unit, where weights are small and the time goes into starting and ending: all thread blocks are
 * resident at once, weights flow through a ring of shared memory stages that begins to fill before the kernel before this one is done (weights
 * do not change), and the blocks that share a tile of outputs over k are a cluster and add up through each other's shared memory, in a fixed
 * order. Weights are the matrix unit's A, activations its B. Also what tune.c needs: feed and differ. No state. */
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"
#include "dev/cuda/mma.h"

#include <cooperative_groups.h>

enum { THREADS = 256, BK = 64, CHUNKS = BK / 8, ROW_BYTES = BK * 2, STAGES_MAX = 12 };

/* TILE outputs, ROWS rows (a multiple of 16), BLOCKS thread blocks a multiprocessor; MT matrix tiles of 16 outputs a warp, WN warps along
 * outputs, WK along k. */
template <int TILE, int ROWS, int BLOCKS> struct shape {
    static constexpr int SHARED_MAX = 208 * 1024 / BLOCKS;
    static constexpr int MT = TILE >= 64 ? 2 : 1, WN = TILE / 16 / MT, WK = THREADS / 32 / WN, PITCH = TILE + 4;
    static constexpr int STAGE = (TILE + ROWS) * ROW_BYTES, FIT = SHARED_MAX / STAGE, STAGES = FIT < STAGES_MAX ? FIT : STAGES_MAX;
    static constexpr int SUMS = ROWS * PITCH * 4, PARTS = (WK - 1) * TILE * ROWS * 4;
    static constexpr int ENDS = SUMS + PARTS, SHARED = STAGES * STAGE > ENDS ? STAGES * STAGE : ENDS;
    static_assert(BK / 16 % WK == 0, "each warp has whole steps of k");
};

/* Where 8 numbers of a row lie: shifted row by row, so that a matrix of 8 rows comes from all banks. */
__device__ __forceinline__ char *place(char *base, int row, int chunk) { return base + row * ROW_BYTES + ((chunk ^ row) & (CHUNKS - 1)) * 16; }

/* Rows first .. first + N - 1 of a matrix, columns k0 .. k0 + BK - 1; zeros beyond. */
template <int N, class A> __device__ __forceinline__ void load_rows(char *to, const A *from, int64_t ld, int first, int rows, int k0, int k) {
#pragma unroll
    for (int i = 0; i < (N * CHUNKS + THREADS - 1) / THREADS; i++) {
        int at = i * THREADS + threadIdx.x, row = at / CHUNKS, chunk = at % CHUNKS;
        if (N * CHUNKS % THREADS && row >= N) break;
        bool real = first + row < rows && k0 + chunk * 8 < k;
        copy16(place(to, row, chunk), real ? from + (int64_t)(first + row) * ld + k0 + chunk * 8 : from, real);
    }
}

template <class A, int TILE, int ROWS, int BLOCKS> __global__ void __launch_bounds__(THREADS, BLOCKS) own_kernel(struct plain_args a, int split) {
#if __CUDA_ARCH__ >= 900
    using S = shape<TILE, ROWS, BLOCKS>;
    extern __shared__ __align__(128) char room[];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, wn = warp % S::WN, wk = warp / S::WN;
    const int rank = blockIdx.x % split, n0 = blockIdx.x / split * TILE;
    const int tiles = (a.k + BK - 1) / BK, each = (tiles + split - 1) / split, t0 = rank * each, mine = min(each, tiles - t0);
    const A *w = (const A *)a.w, *x = (const A *)a.x;
#pragma unroll
    for (int i = 0; i < S::STAGES - 1; i++) {
        if (i < mine) load_rows<TILE>(room + i * S::STAGE, w, a.ldw, n0, a.n, (t0 + i) * BK, a.k);
        copy_commit();
    }
    early();
#pragma unroll
    for (int i = 0; i < S::STAGES - 1; i++) {
        if (i < mine) load_rows<ROWS>(room + i * S::STAGE + TILE * ROW_BYTES, x, a.ldx, 0, a.rows, (t0 + i) * BK, a.k);
        copy_commit();
    }
    float acc[S::MT][ROWS / 8][4] = {};
    for (int t = 0; t < mine; t++) {
        copy_wait<S::STAGES - 2>();
        __syncthreads();
        int next = t + S::STAGES - 1;
        if (next < mine) {
            char *to = room + next % S::STAGES * S::STAGE;
            load_rows<TILE>(to, w, a.ldw, n0, a.n, (t0 + next) * BK, a.k);
            load_rows<ROWS>(to + TILE * ROW_BYTES, x, a.ldx, 0, a.rows, (t0 + next) * BK, a.k);
        }
        copy_commit();
        char *sw = room + t % S::STAGES * S::STAGE, *sx = sw + TILE * ROW_BYTES;
#pragma unroll
        for (int step = 0; step < BK / 16 / S::WK; step++) {
            int chunk = (step * S::WK + wk) * 2;
            unsigned fa[S::MT][4], fb[ROWS / 16][4];
#pragma unroll
            for (int m = 0; m < S::MT; m++) ldsm4(fa[m], place(sw, (wn * S::MT + m) * 16 + lane % 16, chunk + lane / 16));
#pragma unroll
            for (int r = 0; r < ROWS / 16; r++) ldsm4(fb[r], place(sx, r * 16 + lane % 8 + lane / 16 * 8, chunk + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < S::MT; m++)
#pragma unroll
                for (int r = 0; r < ROWS / 8; r++)
                    mma(acc[m][r], fa[m][0], fa[m][1], fa[m][2], fa[m][3], fb[r / 2][r % 2 * 2], fb[r / 2][r % 2 * 2 + 1], A());
        }
    }
    copy_wait<0>();
    __syncthreads();
    /* Warps that took other steps of k give their sums to the first. */
    float *sums = reinterpret_cast<float *>(room), *parts = sums + S::SUMS / 4;
    float4 *part = reinterpret_cast<float4 *>(parts) + (wn * 32 + lane);
    constexpr int VECS = S::MT * ROWS / 8, STEP = S::WN * 32;
    if (wk > 0) {
#pragma unroll
        for (int i = 0; i < VECS; i++) {
            const float *c = acc[i / (ROWS / 8)][i % (ROWS / 8)];
            part[((wk - 1) * VECS + i) * STEP] = make_float4(c[0], c[1], c[2], c[3]);
        }
    }
    __syncthreads();
    if (wk == 0) {
#pragma unroll
        for (int i = 0; i < VECS; i++) {
            float *c = acc[i / (ROWS / 8)][i % (ROWS / 8)];
#pragma unroll
            for (int q = 0; q < S::WK - 1; q++) {
                float4 u = part[(q * VECS + i) * STEP];
                c[0] += u.x, c[1] += u.y, c[2] += u.z, c[3] += u.w;
            }
        }
#pragma unroll
        for (int m = 0; m < S::MT; m++)
#pragma unroll
            for (int r = 0; r < ROWS / 8; r++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    sums[(r * 8 + lane % 4 * 2 + i % 2) * S::PITCH + (wn * S::MT + m) * 16 + lane / 4 + i / 2 * 8] = acc[m][r][i];
    }
    auto cluster = cooperative_groups::this_cluster();
    if (split > 1) cluster.sync();
    else __syncthreads();
    for (int at = rank * THREADS + threadIdx.x; at < ROWS * TILE / 4; at += split * THREADS) {
        int row = at / (TILE / 4), col = at % (TILE / 4) * 4;
        if (row >= a.rows) break;
        float4 v = make_float4(0, 0, 0, 0);
        for (int s = 0; s < split; s++) {
            float4 u = *reinterpret_cast<const float4 *>((split > 1 ? cluster.map_shared_rank(sums, s) : sums) + row * S::PITCH + col);
            v.x += u.x, v.y += u.y, v.z += u.z, v.w += u.w;
        }
        const float all[4] = {v.x, v.y, v.z, v.w};
        int n = n0 + col;
        if (n + 4 <= a.n && a.y_dtype != DT_F32) {
            if (a.bias) v.x += a.bias[n], v.y += a.bias[n + 1], v.z += a.bias[n + 2], v.w += a.bias[n + 3];
            store4((A *)a.y + (int64_t)row * a.ldy + n, v);
        } else {
            for (int i = 0; i < 4 && n + i < a.n; i++) store_any(a.y, a.y_dtype, (size_t)((int64_t)row * a.ldy + n + i), all[i] + (a.bias ? a.bias[n + i] : 0));
        }
    }
    if (split > 1) cluster.sync(); /* the others may still read what is here */
#endif
}

/* ---- which of them ---- */

template <class A, int TILE, int ROWS, int BLOCKS> static void own_launch(struct plain_args a, int split, cudaStream_t stream) {
    cudaLaunchAttribute at[2];
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    at[1].id = cudaLaunchAttributeClusterDimension;
    at[1].val.clusterDim.x = split, at[1].val.clusterDim.y = 1, at[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = dim3((unsigned)((a.n + TILE - 1) / TILE * split));
    c.blockDim = dim3(THREADS);
    c.dynamicSmemBytes = shape<TILE, ROWS, BLOCKS>::SHARED;
    c.stream = stream;
    c.attrs = at;
    c.numAttrs = split > 1 ? 2 : 1;
    cudaLaunchKernelEx(&c, own_kernel<A, TILE, ROWS, BLOCKS>, a, split);
}

/* One call for all kernels: with stream and arguments, or (a NULL) for their limits of shared memory. */
struct own_call {
    const struct plain_args *a;
    int32_t tile, split, blocks;
    cudaStream_t stream;
    int rc;
};

template <class A, int TILE, int ROWS, int BLOCKS> static void own_one(struct own_call *c) {
    if (c->a) own_launch<A, TILE, ROWS, BLOCKS>(*c->a, c->split, c->stream);
    else if (!c->rc)
        c->rc = (int)cudaFuncSetAttribute(own_kernel<A, TILE, ROWS, BLOCKS>, cudaFuncAttributeMaxDynamicSharedMemorySize, shape<TILE, ROWS, BLOCKS>::SHARED);
}

template <class A, int TILE, int ROWS> static void own_blocks(struct own_call *c) {
    if (!c->a || c->blocks == 1) own_one<A, TILE, ROWS, 1>(c);
    if (!c->a || c->blocks == 2) own_one<A, TILE, ROWS, 2>(c);
}

template <class A, int TILE> static void own_rows(struct own_call *c) {
    int rows = c->a ? (c->a->rows + 15) / 16 : 0;
    if (!c->a || rows == 1) own_blocks<A, TILE, 16>(c);
    if (!c->a || rows == 2) own_blocks<A, TILE, 32>(c);
    if (!c->a || rows == 3) own_blocks<A, TILE, 48>(c);
    if (!c->a || rows == 4) own_blocks<A, TILE, 64>(c);
}

template <class A> static void own_tile(struct own_call *c) {
    if (!c->a || c->tile == 32) own_rows<A, 32>(c);
    if (!c->a || c->tile == 64) own_rows<A, 64>(c);
    if (!c->a || c->tile == 128) own_rows<A, 128>(c);
}

int own_init(void) {
    struct own_call c = {};
    own_tile<bf16>(&c);
    own_tile<f16>(&c);
    return c.rc;
}

bool own_takes(struct plain_args a, struct own_way way) {
    bool known = (way.tile == 32 || way.tile == 64 || way.tile == 128) && (way.split == 1 || way.split == 2 || way.split == 4 || way.split == 8) &&
                 (way.blocks == 1 || way.blocks == 2);
    bool even = a.k % 8 == 0 && a.ldx % 8 == 0 && a.ldw % 8 == 0 && a.ldy % 4 == 0;
    return known && even && a.a != DT_F32 && a.rows <= OWN_ROWS && (a.k + BK - 1) / BK >= way.split;
}

void k_own(struct plain_args a, struct own_way way, cudaStream_t stream) {
    struct own_call c = {&a, way.tile, way.split, way.blocks, stream, 0};
    if (a.a == DT_BF16) own_tile<bf16>(&c);
    else own_tile<f16>(&c);
}

/* ---- for tune.c ---- */

__global__ void feed_kernel(uint4 *to, const uint4 *from, int64_t n) {
    early();
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) to[i] = from[i];
}

void k_feed(void *to, const void *from, int64_t bytes, cudaStream_t stream) {
    int64_t n = bytes / 16, blocks = (n + 255) / 256;
    launch(feed_kernel, (unsigned)(blocks < 1024 ? blocks : 1024), 256, 0, stream, (uint4 *)to, (const uint4 *)from, n);
}

__device__ void larger(float *at, float v) { atomicMax((int *)at, __float_as_int(isnan(v) ? INFINITY : v)); }

__global__ void differ_kernel(struct differ_args a) {
    early();
    float worst = 0, size = 0;
    int64_t all = (int64_t)a.rows * a.n;
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < all; i += (int64_t)gridDim.x * blockDim.x) {
        size_t at = (size_t)(i / a.n * a.ld + i % a.n);
        float y = load_any(a.y, a.t, at), r = load_any(a.ref, a.t, at), d = fabsf(y - r);
        worst = isnan(d) ? INFINITY : fmaxf(worst, d);
        size = fmaxf(size, fabsf(r));
    }
    larger(&a.out[0], warp_max(worst));
    larger(&a.out[1], warp_max(size));
}

void k_differ(struct differ_args a, cudaStream_t stream) { launch(differ_kernel, 512, 256, 0, stream, a); }
