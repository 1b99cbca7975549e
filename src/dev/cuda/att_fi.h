/* att_fi.h: `fi`, attention of sequences with one new token. A thread block of four warps takes one (range of positions, KV head)
 * at a time, with all query heads of that KV head as the rows of a matrix product (padded to 16, or 8 where that is enough). Each
 * warp takes tiles of 16 positions in turn, through a ring of its own in shared memory: while it computes with one tile, copies of
 * the next ones are under way, and no warp waits for another. At the end warps join their sums in order of warp. A
 * sequence that was cut leaves partial results; the block that comes last joins them in order of part. Nothing depends on which
 * block was fast. */
#ifndef MINISGL_DEV_CUDA_ATT_FI_H
#define MINISGL_DEV_CUDA_ATT_FI_H
#include "dev/cuda/att.h"

enum { FI_WARPS = 4, FI_TILE = 16 };

/* A stage of fp8 is half as long, so there are more: what is under way keeps the memory busy. */
template <class C, int D> constexpr int fi_stages = D <= 128 ? (sizeof(C) == 1 ? 5 : 3) : (sizeof(C) == 1 ? 3 : 2);
template <class C, int D> struct fi_row { /* of shared memory, padded by 16 bytes: no bank conflicts */
    typedef C type[D + 16 / sizeof(C)];
};
template <class C, int D> constexpr size_t fi_shared = (size_t)FI_WARPS * fi_stages<C, D> * 2 * FI_TILE * sizeof(typename fi_row<C, D>::type);

/* A tile of K and V into one stage of a warp's ring. Rows after `last` are copies of it: their weights are zero. */
template <class C, int D>
__device__ __forceinline__ void fi_load(typename fi_row<C, D>::type *to, const struct att_args &a, const int32_t *pages, int kh, size_t v_at, int base, int last) {
    constexpr int PART = 16 / sizeof(C), CHUNKS = D / PART, ALL = FI_TILE * CHUNKS;
    const int lane = threadIdx.x % 32;
    const bool one_page = a.page_shift >= 4 && base + FI_TILE - 1 <= last;
    size_t first = one_page ? kv_at(a, pages, kh, base) : 0;
#pragma unroll
    for (int i = 0; i < (ALL + 31) / 32; i++) {
        int at = i * 32 + lane, row = at / CHUNKS, chunk = at % CHUNKS * PART;
        if (ALL % 32 && at >= ALL) break;
        size_t from = one_page ? first + row * D : kv_at(a, pages, kh, base + row < last ? base + row : last);
        copy16(&to[row][chunk], (const C *)a.kv + from + chunk, true);
        copy16(&to[FI_TILE + row][chunk], (const C *)a.kv + from + v_at + chunk, true);
    }
}

/* Accumulators of one fragment column: rows g and, unless HALF, g + 8. */
template <bool HALF> struct fi_acc {
    float v[HALF ? 2 : 4];
};

template <class A> __device__ __forceinline__ void fi_mma(float (&c)[2], unsigned a0, unsigned, unsigned a2, unsigned, unsigned b0, unsigned b1) {
    mma_half(c, a0, a2, b0, b1, A());
}
template <class A> __device__ __forceinline__ void fi_mma(float (&c)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    mma(c, a0, a1, a2, a3, b0, b1, A());
}

template <class A, class C, int D, bool HALF> __global__ void __launch_bounds__(FI_WARPS * 32) fi_kernel(struct tabs t, struct att_args a) {
    early();
    typedef kv_frags<A, C> frags;
    typedef typename frags::M M;
    constexpr int ROWS = HALF ? 8 : 16, NR = HALF ? 1 : 2, STEPS = D / 16, NT = D / 8, STAGES = fi_stages<C, D>, EACH = frags::STEPS;
    extern __shared__ __align__(16) char shared[];
    __shared__ float s_m[FI_WARPS][ROWS], s_l[FI_WARPS][ROWS];
    __shared__ int s_last, s_next;
    typedef typename fi_row<C, D>::type row_t;
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    const int units = h->n_fi * K;
    const float scale = a.scale * LOG2E;
    const size_t v_at = (size_t)K * a.page_size * D;
    row_t *ring = (row_t *)shared + warp * STAGES * 2 * FI_TILE;
    float(*s_out)[D + 4] = (float(*)[D + 4]) shared; /* the rings' memory, when they are done */
    for (int u = blockIdx.x, next; u < units; u = next) {
        if (threadIdx.x == 0) s_next = gridDim.x + atomicAdd(a.turn, 1); /* read after the barriers below */
        const struct fi_item it = block_part<struct fi_item>(h, h->fi_at)[u / K];
        const struct step_seq s = block_part<struct step_seq>(h, h->seqs_at)[it.seq];
        const int kh = u % K, last = it.end - 1, seen = first_seen(a, s.pos);
        const int32_t *pages = t.pages + (size_t)s.slot * t.table_len;
        const int from = ((seen > it.begin ? seen : it.begin) & ~(FI_TILE - 1)) + warp * FI_TILE;
        int ahead = from;
#pragma unroll
        for (int i = 0; i < STAGES - 1; i++, ahead += FI_WARPS * FI_TILE) {
            if (ahead < it.end) fi_load<C, D>(ring + i * 2 * FI_TILE, a, pages, kh, v_at, ahead, last);
            copy_commit();
        }
        unsigned q[STEPS][2 * NR];
#pragma unroll
        for (int r = 0; r < NR; r++) {
            const A *p = (const A *)a.q + (size_t)s.first * a.ldq + (size_t)(kh * G + g + 8 * r) * D;
            bool real = g + 8 * r < G;
#pragma unroll
            for (int j = 0; j < STEPS; j++) {
                q[j][r] = real ? frags::q(*reinterpret_cast<const unsigned *>(p + 16 * j + frags::q_at(c, 0))) : 0;
                q[j][NR + r] = real ? frags::q(*reinterpret_cast<const unsigned *>(p + 16 * j + frags::q_at(c, 1))) : 0;
            }
        }
        float m[NR], l[NR], o[NT][2 * NR];
#pragma unroll
        for (int r = 0; r < NR; r++) m[r] = -INFINITY, l[r] = 0;
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int r = 0; r < 2 * NR; r++) o[j][r] = 0;
        int stage = 0, fill = STAGES - 1;
        for (int base = from; base < it.end; base += FI_WARPS * FI_TILE) {
            if (ahead < it.end) fi_load<C, D>(ring + fill * 2 * FI_TILE, a, pages, kh, v_at, ahead, last);
            copy_commit();
            ahead += FI_WARPS * FI_TILE;
            fill = fill + 1 == STAGES ? 0 : fill + 1;
            copy_wait<STAGES - 1>();
            __syncwarp();
            row_t *k = ring + stage * 2 * FI_TILE, *v = k + FI_TILE;
            stage = stage + 1 == STAGES ? 0 : stage + 1;
            float sc[2][2 * NR];
#pragma unroll
            for (int r = 0; r < 2; r++)
#pragma unroll
                for (int i = 0; i < 2 * NR; i++) sc[r][i] = 0;
#pragma unroll
            for (int i = 0; i < STEPS / EACH; i++) {
                unsigned kb[EACH][4];
                frags::k(kb, &k[lane % 8 + lane / 16 * 8][EACH * (i * 16 + lane / 8 % 2 * 8)]);
#pragma unroll
                for (int e = 0; e < EACH; e++) {
                    int j = i * EACH + e;
                    fi_mma<M>(sc[0], q[j][0], q[j][NR - 1], q[j][NR], q[j][2 * NR - 1], kb[e][0], kb[e][1]);
                    fi_mma<M>(sc[1], q[j][0], q[j][NR - 1], q[j][NR], q[j][2 * NR - 1], kb[e][2], kb[e][3]);
                }
            }
            unsigned p[2][NR]; /* [8 positions][rows]: the weights as an A fragment */
#pragma unroll
            for (int n = 0; n < NR; n++) {
                float big = m[n];
#pragma unroll
                for (int r = 0; r < 2; r++)
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        int pos = base + 8 * r + 2 * c + i;
                        float &x = sc[r][2 * n + i];
                        x = pos >= seen && pos <= last && pos >= it.begin ? x * scale : -INFINITY;
                        big = fmaxf(big, x);
                    }
                big = fmaxf(big, __shfl_xor_sync(~0u, big, 1));
                big = fmaxf(big, __shfl_xor_sync(~0u, big, 2));
                float use = big == -INFINITY ? 0 : big, shrink = exp2f(m[n] - use);
                m[n] = big;
                l[n] *= shrink;
#pragma unroll
                for (int j = 0; j < NT; j++) o[j][2 * n] *= shrink, o[j][2 * n + 1] *= shrink;
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    float x = exp2f(sc[r][2 * n] - use), y = exp2f(sc[r][2 * n + 1] - use);
                    l[n] += x + y;
                    p[r][n] = pair_of(x, y, M());
                }
            }
#pragma unroll
            for (int i = 0; i < STEPS / EACH; i++) {
                unsigned vb[EACH][4];
                frags::v(vb, &v[lane % 16][EACH * (i * 16 + lane / 16 * 8)]);
#pragma unroll
                for (int e = 0; e < EACH; e++) {
                    int j = i * EACH + e;
                    fi_mma<M>(o[2 * j], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1], vb[e][0], vb[e][1]);
                    fi_mma<M>(o[2 * j + 1], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1], vb[e][2], vb[e][3]);
                }
            }
            __syncwarp(); /* before the next copy lands in this stage */
        }
        copy_wait<0>();
        /* Join the warps. */
#pragma unroll
        for (int n = 0; n < NR; n++) {
            l[n] += __shfl_xor_sync(~0u, l[n], 1);
            l[n] += __shfl_xor_sync(~0u, l[n], 2);
            if (c == 0) s_m[warp][g + 8 * n] = m[n], s_l[warp][g + 8 * n] = l[n];
        }
        __syncthreads();
        float shrink[NR];
#pragma unroll
        for (int n = 0; n < NR; n++) {
            float big = s_m[0][g + 8 * n];
            for (int w = 1; w < FI_WARPS; w++) big = fmaxf(big, s_m[w][g + 8 * n]);
            shrink[n] = m[n] == -INFINITY ? 0 : exp2f(m[n] - big);
        }
        for (int w = 0; w < FI_WARPS; w++) {
            if (w == warp) {
#pragma unroll
                for (int j = 0; j < NT; j++)
#pragma unroll
                    for (int i = 0; i < 2 * NR; i++) {
                        int d = frags::col(j, c, i & 1), row = g + 8 * (i >> 1);
                        float x = o[j][i] * shrink[i >> 1];
                        s_out[row][d] = w == 0 ? x : s_out[row][d] + x;
                    }
            }
            __syncthreads();
        }
        for (int i = threadIdx.x; i < G * D; i += FI_WARPS * 32) {
            int row = i / D, d = i % D, head = kh * G + row;
            float big = s_m[0][row], sum = 0;
            for (int w = 1; w < FI_WARPS; w++) big = fmaxf(big, s_m[w][row]);
            for (int w = 0; w < FI_WARPS; w++) sum += s_m[w][row] == -INFINITY ? 0 : s_l[w][row] * exp2f(s_m[w][row] - big);
            if (it.part < 0) {
                ((A *)a.out)[(size_t)s.first * a.ldo + (size_t)head * D + d] = from_f<A>(s_out[row][d] / sum);
            } else {
                size_t at = (size_t)it.part * a.n_heads + head;
                a.part_out[at * D + d] = s_out[row][d];
                if (d == 0) a.part_ml[at * 2] = big, a.part_ml[at * 2 + 1] = sum;
            }
        }
        if (it.part >= 0) {
            __threadfence();
            __syncthreads();
            if (threadIdx.x == 0) s_last = atomicAdd(&a.arrived[(size_t)it.seq * K + kh], 1) == s.n_parts - 1;
            __syncthreads();
            if (s_last) { /* the last part of this sequence and head: join them all */
                __threadfence();
                /* A warp a row turns the parts' maxima into weights, then a thread takes four columns of a row. */
                for (int row = warp; row < G; row += FI_WARPS) {
                    float big = -INFINITY, sum = 0;
                    float *ml = a.part_ml + ((size_t)s.part0 * a.n_heads + kh * G + row) * 2;
                    for (int p = lane; p < s.n_parts; p += 32) big = fmaxf(big, __ldcg(&ml[(size_t)p * a.n_heads * 2]));
                    big = warp_max(big);
                    for (int p = lane; p < s.n_parts; p += 32) {
                        float *one = &ml[(size_t)p * a.n_heads * 2], m_p = __ldcg(one), w = m_p == -INFINITY ? 0 : exp2f(m_p - big);
                        sum += w * __ldcg(one + 1);
                        __stcg(one, w);
                    }
                    sum = warp_sum(sum);
                    if (lane == 0) s_l[0][row] = 1 / sum;
                }
                __syncthreads();
                for (int i = threadIdx.x; i < G * D / 4; i += FI_WARPS * 32) {
                    int row = i / (D / 4), d = i % (D / 4) * 4, head = kh * G + row;
                    float4 out = make_float4(0, 0, 0, 0);
#pragma unroll 8
                    for (int p = s.part0; p < s.part0 + s.n_parts; p++) {
                        size_t at = (size_t)p * a.n_heads + head;
                        float w = __ldcg(&a.part_ml[at * 2]);
                        float4 x = __ldcg(reinterpret_cast<const float4 *>(&a.part_out[at * D + d]));
                        out.x += w * x.x, out.y += w * x.y, out.z += w * x.z, out.w += w * x.w;
                    }
                    float inv = s_l[0][row];
                    store4((A *)a.out + (size_t)s.first * a.ldo + (size_t)head * D + d,
                           make_float4(out.x * inv, out.y * inv, out.z * inv, out.w * inv));
                }
                if (threadIdx.x == 0) a.arrived[(size_t)it.seq * K + kh] = 0;
            }
        }
        next = s_next;
        __syncthreads();
    }
}

/* Blocks that an SM holds at once; written by fi_init, when a device is opened. */
template <class A, class C, int D, bool HALF> static int fi_resident = 1;

template <class A, class C, int D> static void fi_launch(struct tabs t, struct att_args a, cudaStream_t stream) {
    int fits = a.n_sms * (a.n_heads / a.n_kv_heads <= 8 ? fi_resident<A, C, D, true> : fi_resident<A, C, D, false>);
    if (a.grid > fits) a.grid = fits;
    if (a.n_heads / a.n_kv_heads <= 8) launch(fi_kernel<A, C, D, true>, a.grid, FI_WARPS * 32, fi_shared<C, D>, stream, t, a);
    else launch(fi_kernel<A, C, D, false>, a.grid, FI_WARPS * 32, fi_shared<C, D>, stream, t, a);
}

template <class A, class C> static void fi_by_size(struct tabs t, struct att_args a, cudaStream_t stream) {
    switch (a.head_dim) {
    case 32: fi_launch<A, C, 32>(t, a, stream); break;
    case 64: fi_launch<A, C, 64>(t, a, stream); break;
    case 96: fi_launch<A, C, 96>(t, a, stream); break;
    case 128: fi_launch<A, C, 128>(t, a, stream); break;
    case 256: fi_launch<A, C, 256>(t, a, stream); break;
    }
}

template <class A, class C, int D> static int fi_allow(void) {
    int bad = cudaFuncSetAttribute(fi_kernel<A, C, D, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fi_shared<C, D>);
    if (!bad) bad = cudaFuncSetAttribute(fi_kernel<A, C, D, false>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fi_shared<C, D>);
    if (!bad) bad = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fi_resident<A, C, D, true>, fi_kernel<A, C, D, true>, FI_WARPS * 32, fi_shared<C, D>);
    if (!bad) bad = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fi_resident<A, C, D, false>, fi_kernel<A, C, D, false>, FI_WARPS * 32, fi_shared<C, D>);
    return bad;
}

template <class A, class C> static int fi_init(void) {
    int bad = fi_allow<A, C, 32>();
    if (!bad) bad = fi_allow<A, C, 64>();
    if (!bad) bad = fi_allow<A, C, 96>();
    if (!bad) bad = fi_allow<A, C, 128>();
    return bad ? bad : fi_allow<A, C, 256>();
}

#endif
