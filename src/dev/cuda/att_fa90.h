/* att_fa90.h: `fa` for compute capability 9.0, after FlashAttention 3 (Shah et al., 2024). The same work items and the same numbers as att_fa.h:
 * a tile is 128 rows of (token, query head) of one KV head; sums are f32, weights are rounded to the cache's dtype.
 *
 * A thread block of three warpgroups stays on a multiprocessor and takes items in turn. The first warpgroup fetches: queries, and tiles of
 * 128 positions of K and of V, each through two stages of shared memory, as the matrix unit wants them; it runs ahead, into the next
 * item too. The other two compute, 64 rows each. They take turns at starting products, so that one's softmax runs beside the other's
 * products; and each starts the scores of a tile before the weighted sum of the one before, so that its own softmax does too.
 * Tiles are taken from the last to the first: only the first ones taken are cut by causality.
 *
 * Pages may have any size: each row of K or V is fetched by itself, 16 bytes a thread, from where a lane of the same warp looked it up. */
#ifndef MINISGL_DEV_CUDA_ATT_FA90_H
#define MINISGL_DEV_CUDA_ATT_FA90_H
#include "dev/cuda/att.h"
#include "dev/cuda/hopper.h"
#include "dev/cuda/mma.h"

enum { FA90_ROWS = 128, FA90_KEYS = 128, FA90_GROUP = 128 /* threads */, FA90_THREADS = 3 * FA90_GROUP };
enum { FA90_BLOCK = 128 * 128 /* bytes of 128 rows of 64 numbers */, FA90_FETCH_REGS = 40, FA90_COMPUTE_REGS = 232 };
enum { FA90_TURN = 1 /* and 2: barriers of the warpgroups that compute */ };

/* Two stages each of Q, K and V, with room to begin at a multiple of 1,024; their barriers are: filled, free. */
enum fa90_what { FA90_Q, FA90_K, FA90_V, FA90_WHATS };
template <int D> constexpr unsigned fa90_tile = D / 64 * FA90_BLOCK;
template <int D> constexpr size_t fa90_shared = 2 * FA90_WHATS * fa90_tile<D> + 1024;

#if HOPPER
/* Stage n % 2 of one of them, its n-th filling. */
template <int D> struct fa90_stage {
    unsigned tiles, barriers; /* of all, in shared memory */
    int n;
    enum fa90_what what;
    __device__ __forceinline__ unsigned tile() const { return tiles + (unsigned)(2 * what + n % 2) * fa90_tile<D>; }
    __device__ __forceinline__ unsigned filled() const { return barriers + (unsigned)(2 * what + n % 2) * 16; }
    __device__ __forceinline__ unsigned emptied() const { return filled() + 8; }
    __device__ __forceinline__ unsigned parity() const { return (unsigned)n / 2 & 1; }
};

/* A work item as both sides see it. */
struct fa90_work {
    struct step_seq s;
    int kh, row0, rows, last, from, tiles;
};

__device__ __forceinline__ struct fa90_work fa90_work_of(const struct step_head *h, const struct att_args &a, int u, int K, int G) {
    struct fa90_work w;
    const struct fa_item it = block_part<struct fa_item>(h, h->fa_at)[u / K];
    w.s = block_part<struct step_seq>(h, h->seqs_at)[it.seq];
    w.kh = u % K, w.row0 = it.tile * FA90_ROWS;
    w.rows = w.s.n_tokens * G - w.row0 < FA90_ROWS ? w.s.n_tokens * G - w.row0 : (int)FA90_ROWS;
    w.last = w.s.pos + (w.row0 + w.rows - 1) / G; /* the last position that a row sees */
    w.from = first_seen(a, w.s.pos + w.row0 / G) & ~(FA90_KEYS - 1);
    w.tiles = (w.last - w.from) / FA90_KEYS + 1;
    return w;
}

/* The block's i-th item, -1: no more. Items come longest first; every other round is dealt from the other end. */
__device__ __forceinline__ int fa90_item(int i, int all) {
    int u = i * (int)gridDim.x + (int)(i & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    return u < all ? u : -1;
}

/* ---- the warpgroup that fetches ---- */

/* A filling that is on its way: its barrier is told when it is there. */
struct fa90_fetch {
    unsigned filled; /* 0: none */
    template <int LATER> __device__ __forceinline__ void tell() {
        copy_wait<LATER>();
        hopper::written();
        if (filled) hopper::arrive(filled);
        filled = 0;
    }
};

/* 128 rows to shared memory. row: lane i's is where row i of the warp's 32 lies, in units of UNIT bytes from `from`; -1: zeros. */
template <int D, int UNIT> __device__ __forceinline__ void fa90_fetch_rows(struct fa90_fetch &f, struct fa90_stage<D> to, const void *from, int row) {
    constexpr int CHUNKS = D / 8, AT_ONCE = 32 / CHUNKS;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = lane % CHUNKS, first = lane / CHUNKS;
    if (!hopper::is_done(to.emptied(), to.parity() ^ 1)) {
        f.tell<0>(); /* who empties it may wait for this */
        hopper::wait(to.emptied(), to.parity() ^ 1);
    }
    __syncwarp();
    const unsigned tile = to.tile() + (unsigned)warp * 32 * 128, place = hopper::at(first, c, FA90_BLOCK);
    const char *chunk = (const char *)from + c * 16;
#pragma unroll
    for (int i = 0; i < 32; i += AT_ONCE) {
        int r = __shfl_sync(~0u, row, i + first);
        unsigned p = tile + (unsigned)i * 128 + (place ^ (unsigned)(i % 8 * 16)); /* at(i + first, c): i has none of first's bits */
        asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(p), "l"(chunk + (int64_t)(r < 0 ? 0 : r) * UNIT), "r"(r < 0 ? 0 : 16) : "memory");
    }
    copy_commit();
    f.tell<1>();
    f.filled = to.filled();
}

template <class A, int D>
__device__ __forceinline__ void fa90_fetcher(const struct tabs &t, const struct att_args &a, unsigned tiles, unsigned barriers) {
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, me = threadIdx.x;
    const A *kv = (const A *)a.kv, *kv_v = kv + (size_t)K * a.page_size * D;
    struct fa90_fetch f = {0};
    int n = 0; /* tiles so far */
    for (int i = 0, u; (u = fa90_item(i, h->n_fa * K)) >= 0; i++) {
        const struct fa90_work w = fa90_work_of(h, a, u, K, G);
        const int32_t *pages = t.pages + (size_t)w.s.slot * t.table_len;
        auto look_up = [&](int b) {
            int pos = w.from + b * FA90_KEYS + me;
            return pos <= w.last ? (int)(kv_at(a, pages, w.kh, pos) / D) : -1;
        };
        int row = w.row0 + me, now, before = -1;
        int q = (int)(((w.s.first + row / G) * a.ldq + (w.kh * G + row % G) * D) / 8);
        fa90_fetch_rows<D, 16>(f, {tiles, barriers, i, FA90_Q}, a.q, me < w.rows ? q : -1);
        for (int b = w.tiles - 1; b >= 0; b--, n++) {
            now = look_up(b);
            fa90_fetch_rows<D, 2 * D>(f, {tiles, barriers, n, FA90_K}, kv, now);
            if (b < w.tiles - 1) fa90_fetch_rows<D, 2 * D>(f, {tiles, barriers, n - 1, FA90_V}, kv_v, before);
            before = now;
        }
        fa90_fetch_rows<D, 2 * D>(f, {tiles, barriers, n - 1, FA90_V}, kv_v, before);
    }
    f.tell<0>();
}

/* ---- those that compute ---- */

/* Of a thread's two rows: what the softmax keeps. */
struct fa90_rows {
    int pos[2];
    float m[2], l[2], shrink[2];
};

/* Scores of positions that a row does not see become nothing. */
__device__ __forceinline__ void fa90_mask(float (&sc)[64], const struct fa90_rows &r, int base, int window) {
    int c = threadIdx.x % 4;
#pragma unroll
    for (int x = 0; x < 64; x++) {
        int key = base + x / 4 * 8 + 2 * c + (x & 1), p = r.pos[x >> 1 & 1];
        if (key > p || (window > 0 && p - key >= window)) sc[x] = -INFINITY;
    }
}

/* Scores become weights; what is summed already must be multiplied by shrink. */
__device__ __forceinline__ void fa90_softmax(float (&sc)[64], struct fa90_rows &r, float scale) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float big = r.m[i];
#pragma unroll
        for (int j = 0; j < 16; j++) big = fmaxf(big, fmaxf(sc[4 * j + 2 * i], sc[4 * j + 2 * i + 1]));
        big = fmaxf(big, __shfl_xor_sync(~0u, big, 1));
        big = fmaxf(big, __shfl_xor_sync(~0u, big, 2));
        float use = big == -INFINITY ? 0 : big * scale, sum = 0, old = r.m[i] * scale - use;
        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r.shrink[i]) : "f"(old));
        r.m[i] = big;
#pragma unroll
        for (int j = 0; j < 16; j++)
#pragma unroll
            for (int x = 4 * j + 2 * i; x < 4 * j + 2 * i + 2; x++) {
                float y = sc[x] * scale - use;
                asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(sc[x]) : "f"(y));
                sum += sc[x];
            }
        r.l[i] = r.l[i] * r.shrink[i] + sum;
    }
}

template <class A> __device__ __forceinline__ void fa90_weights(unsigned (&p)[32], const float (&sc)[64]) {
#pragma unroll
    for (int i = 0; i < 32; i++) p[i] = pair_of(sc[2 * i], sc[2 * i + 1], A());
}

/* sc = q . k^T, started. */
template <class A, int D> __device__ __forceinline__ void fa90_scores(float (&sc)[64], unsigned q, unsigned k) {
#pragma unroll
    for (int i = 0; i < D / 16; i++) {
        unsigned to = (unsigned)(i / 4 * FA90_BLOCK + i % 4 * 32);
        hopper::product(sc, hopper::by_rows(q + to), hopper::by_rows(k + to), i > 0, A());
    }
    hopper::commit();
}

/* o += p . v, started. */
template <class A, int D> __device__ __forceinline__ void fa90_sums(float (&o)[D / 2], const unsigned (&p)[32], unsigned v) {
#pragma unroll
    for (int i = 0; i < FA90_KEYS / 16; i++)
        hopper::product(o, p + 4 * i, hopper::by_columns(v + (unsigned)i * 16 * 128, FA90_BLOCK), 1, A());
    hopper::commit();
}

template <class A, int D>
__device__ __forceinline__ void fa90_store(const struct att_args &a, const struct fa90_work &w, const struct fa90_rows &r, const float (&o)[D / 2],
                                           int row, int G) {
    int c = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = r.l[i];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        int at = row + 8 * i;
        if (at >= w.row0 + w.rows) continue;
        A *out = (A *)a.out + (size_t)(w.s.first + at / G) * a.ldo + (size_t)(w.kh * G + at % G) * D;
        float inv = 1 / sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *reinterpret_cast<unsigned *>(out + 8 * j + 2 * c) = pair_of(o[4 * j + 2 * i] * inv, o[4 * j + 2 * i + 1] * inv, A());
    }
}

template <class A, int D>
__device__ __forceinline__ void fa90_computer(const struct tabs &t, const struct att_args &a, unsigned tiles, unsigned barriers) {
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, lane = threadIdx.x % 32, group = threadIdx.x / FA90_GROUP - 1;
    const int warp = threadIdx.x % FA90_GROUP / 32, mine = FA90_TURN + group, other = FA90_TURN + (group ^ 1);
    const float scale = a.scale * LOG2E;
    float sc[64], o[D / 2];
    unsigned p[32];
    int n = 0; /* tiles so far */
#pragma unroll
    for (int x = 0; x < 64; x++) sc[x] = 0;
    if (group == 1) hopper::meet(other, 2 * FA90_GROUP);
    for (int i = 0, u; (u = fa90_item(i, h->n_fa * K)) >= 0; i++) {
        const struct fa90_work w = fa90_work_of(h, a, u, K, G);
        const int first_row = w.row0 + group * 64, row = first_row + warp * 16 + lane / 4;
        const int first_pos = w.s.pos + first_row / G, last_pos = w.s.pos + (first_row + 63) / G;
        struct fa90_rows r = {{w.s.pos + row / G, w.s.pos + (row + 8) / G}, {-INFINITY, -INFINITY}, {0, 0}, {1, 1}};
        const struct fa90_stage<D> sq = {tiles, barriers, i, FA90_Q};
        const unsigned q = sq.tile() + (unsigned)group * 64 * 128;
        struct fa90_stage<D> k = {tiles, barriers, n, FA90_K}, v = {tiles, barriers, n, FA90_V};
        auto done = [&](struct fa90_stage<D> s) {
            if (lane == 0) hopper::arrive(s.emptied());
        };
        auto soften = [&](int b) {
            int base = w.from + b * FA90_KEYS;
            if (base + FA90_KEYS - 1 > first_pos || (a.window > 0 && last_pos - base >= a.window)) fa90_mask(sc, r, base, a.window);
            fa90_softmax(sc, r, scale);
        };
        /* The products under way end; the weights that stand in sc are next, and what is summed already follows their maxima. */
        auto settle = [&](bool under_way) {
            hopper::finish<0>();
            hopper::hold(o);
            if (under_way) done(v), v.n++;
            fa90_weights<A>(p, sc);
#pragma unroll
            for (int x = 0; x < D / 2; x++) o[x] *= r.shrink[x >> 1 & 1];
        };
#pragma unroll
        for (int x = 0; x < D / 2; x++) o[x] = 0;
        hopper::wait(sq.filled(), sq.parity());
        hopper::wait(k.filled(), k.parity());
        hopper::hold(sc);
        hopper::begin();
        fa90_scores<A, D>(sc, q, k.tile());
        hopper::finish<0>();
        hopper::hold(sc);
        done(k);
        soften(w.tiles - 1);
        for (int b = w.tiles - 2; b >= 0; b--) {
            k.n++;
            hopper::wait(k.filled(), k.parity()); /* a branch, over which the compiler moves no softmax */
            settle(b < w.tiles - 2);
            hopper::sync(mine, 2 * FA90_GROUP);
            hopper::hold(sc);
            hopper::hold(o);
            hopper::begin();
            fa90_scores<A, D>(sc, q, k.tile());
            hopper::wait(v.filled(), v.parity());
            fa90_sums<A, D>(o, p, v.tile());
            hopper::meet(other, 2 * FA90_GROUP);
            hopper::finish<1>();
            hopper::hold(sc);
            done(k);
            soften(b);
        }
        done(sq);
        settle(w.tiles > 1);
        hopper::wait(v.filled(), v.parity());
        hopper::hold(o);
        hopper::begin();
        fa90_sums<A, D>(o, p, v.tile());
        hopper::finish<0>();
        hopper::hold(o);
        done(v);
        n += w.tiles;
        fa90_store<A, D>(a, w, r, o, row, G);
    }
    if (group == 0) hopper::sync(mine, 2 * FA90_GROUP); /* the other's last turn */
}
#endif

template <class A, int D> __global__ void __launch_bounds__(FA90_THREADS, 1) fa90_kernel(struct tabs t, struct att_args a) {
#if HOPPER
    extern __shared__ char fa90_room[];
    __shared__ uint64_t s_barriers[FA90_WHATS][2][2];
    const unsigned tiles = (hopper::address(fa90_room) + 1023) & ~1023u, barriers = hopper::address(s_barriers);
    if (threadIdx.x < 2 * FA90_WHATS) {
        hopper::barrier_init(barriers + threadIdx.x * 16, FA90_GROUP);             /* every thread that fetches */
        hopper::barrier_init(barriers + threadIdx.x * 16 + 8, 2 * FA90_GROUP / 32); /* every warp that computes */
    }
    __syncthreads();
    early();
    if (threadIdx.x < FA90_GROUP) {
        hopper::fewer_registers<FA90_FETCH_REGS>();
        fa90_fetcher<A, D>(t, a, tiles, barriers);
    } else {
        hopper::more_registers<FA90_COMPUTE_REGS>();
        fa90_computer<A, D>(t, a, tiles, barriers);
    }
#else
    (void)t, (void)a; /* never started */
#endif
}

template <class A, int D> static void fa90_launch(struct tabs t, struct att_args a, cudaStream_t stream) {
    launch(fa90_kernel<A, D>, a.grid < a.n_sms ? a.grid : a.n_sms, FA90_THREADS, fa90_shared<D>, stream, t, a);
}

template <class A> static void fa90_by_size(struct tabs t, struct att_args a, cudaStream_t stream) {
    if (a.head_dim == 64) fa90_launch<A, 64>(t, a, stream);
    else fa90_launch<A, 128>(t, a, stream);
}

template <class A> static int fa90_init(void) {
    int bad = cudaFuncSetAttribute(fa90_kernel<A, 64>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fa90_shared<64>);
    return bad ? bad : cudaFuncSetAttribute(fa90_kernel<A, 128>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fa90_shared<128>);
}

#endif
