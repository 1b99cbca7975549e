/* att_fi.h: `fi`, attention of sequences with one new token. A thread block of four warps takes one (range of positions, KV head)
 * at a time, with all query heads of that KV head as the rows of a matrix product (padded to 16, or 8 where that is enough). K and V
 * go from memory straight into registers, 16 bytes a lane: a dot product does not mind in which order its k runs, so
 * the lane that holds column c of a fragment takes 8 neighbours at 8 c; and a row of V gives 8 columns, one to each of 8
 * fragments. Warps take tiles of 16 positions in turn and join their sums in order of warp. A sequence that was cut leaves
 * partial results; the block that comes last joins them in order of part. Nothing depends on which block was fast. */
#ifndef MINISGL_DEV_CUDA_ATT_FI_H
#define MINISGL_DEV_CUDA_ATT_FI_H
#include "dev/cuda/att.h"

enum { FI_WARPS = 4, FI_TILE = 16 };

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

template <class A, int D, bool HALF> __global__ void __launch_bounds__(FI_WARPS * 32) fi_kernel(struct tabs t, struct att_args a) {
    constexpr int ROWS = HALF ? 8 : 16, NR = HALF ? 1 : 2, STEPS = D / 32, FULL = D / 64, REST = D % 64 / 32, NT = D / 8;
    __shared__ float s_out[ROWS][D + 4], s_m[FI_WARPS][ROWS], s_l[FI_WARPS][ROWS];
    __shared__ int s_last;
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    const int units = h->n_fi * K;
    const float scale = a.scale * LOG2E;
    const size_t v_at = (size_t)K * a.page_size * D;
    for (int u = blockIdx.x; u < units; u += gridDim.x) {
        const struct fi_item it = block_part<struct fi_item>(h, h->fi_at)[u / K];
        const struct step_seq s = block_part<struct step_seq>(h, h->seqs_at)[it.seq];
        const int kh = u % K;
        const int32_t *pages = t.pages + (size_t)s.slot * t.table_len;
        uint4 q[NR][STEPS];
#pragma unroll
        for (int r = 0; r < NR; r++)
#pragma unroll
            for (int j = 0; j < STEPS; j++) {
                const A *p = (const A *)a.q + (size_t)s.first * a.ldq + (size_t)(kh * G + g + 8 * r) * D + 32 * j + 8 * c;
                q[r][j] = g + 8 * r < G ? *reinterpret_cast<const uint4 *>(p) : make_uint4(0, 0, 0, 0);
            }
        float m[NR], l[NR];
        float o[NT][2 * NR];
#pragma unroll
        for (int r = 0; r < NR; r++) m[r] = -INFINITY, l[r] = 0;
#pragma unroll
        for (int j = 0; j < NT; j++)
#pragma unroll
            for (int r = 0; r < 2 * NR; r++) o[j][r] = 0;
        const int seen = first_seen(a, s.pos), from = seen > it.begin ? seen : it.begin, last = it.end - 1;
        const A *kv = (const A *)a.kv;
        for (int base = (from & ~(FI_TILE - 1)) + warp * FI_TILE; base < it.end; base += FI_WARPS * FI_TILE) {
            uint4 k[2][STEPS], v[4][FULL ? FULL : 1];
            uint2 vr[4];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int pos = base + 8 * r + g;
                const A *p = kv + kv_at(a, pages, kh, pos < last ? pos : last) + 8 * c;
#pragma unroll
                for (int j = 0; j < STEPS; j++) k[r][j] = __ldg(reinterpret_cast<const uint4 *>(p + 32 * j));
            }
#pragma unroll
            for (int r = 0; r < 4; r++) {
                int pos = base + 2 * c + (r & 1) + 8 * (r >> 1);
                const A *p = kv + v_at + kv_at(a, pages, kh, pos < last ? pos : last);
#pragma unroll
                for (int j = 0; j < FULL; j++) v[r][j] = __ldg(reinterpret_cast<const uint4 *>(p + 64 * j + 8 * g));
                if (REST) vr[r] = __ldg(reinterpret_cast<const uint2 *>(p + 64 * FULL + 4 * g));
            }
            float sc[2][2 * NR];
#pragma unroll
            for (int r = 0; r < 2; r++) {
#pragma unroll
                for (int i = 0; i < 2 * NR; i++) sc[r][i] = 0;
#pragma unroll
                for (int j = 0; j < STEPS; j++) {
                    fi_mma<A>(sc[r], q[0][j].x, q[NR - 1][j].x, q[0][j].y, q[NR - 1][j].y, k[r][j].x, k[r][j].y);
                    fi_mma<A>(sc[r], q[0][j].z, q[NR - 1][j].z, q[0][j].w, q[NR - 1][j].w, k[r][j].z, k[r][j].w);
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
                    p[r][n] = pair_of(x, y, A());
                }
            }
#pragma unroll
            for (int b = 0; b < FULL; b++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const unsigned *v0 = &v[0][b].x, *v1 = &v[1][b].x, *v2 = &v[2][b].x, *v3 = &v[3][b].x;
                    fi_mma<A>(o[b * 8 + 2 * i], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1], __byte_perm(v0[i], v1[i], 0x5410),
                              __byte_perm(v2[i], v3[i], 0x5410));
                    fi_mma<A>(o[b * 8 + 2 * i + 1], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1], __byte_perm(v0[i], v1[i], 0x7632),
                              __byte_perm(v2[i], v3[i], 0x7632));
                }
            if (REST) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const unsigned *v0 = &vr[0].x, *v1 = &vr[1].x, *v2 = &vr[2].x, *v3 = &vr[3].x;
                    fi_mma<A>(o[FULL * 8 + 2 * i], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1], __byte_perm(v0[i], v1[i], 0x5410),
                              __byte_perm(v2[i], v3[i], 0x5410));
                    fi_mma<A>(o[FULL * 8 + 2 * i + 1], p[0][0], p[0][NR - 1], p[1][0], p[1][NR - 1],
                              __byte_perm(v0[i], v1[i], 0x7632), __byte_perm(v2[i], v3[i], 0x7632));
                }
            }
        }
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
                        int n = 2 * c + (i & 1), row = g + 8 * (i >> 1);
                        int d = j < FULL * 8 ? j / 8 * 64 + n * 8 + j % 8 : FULL * 64 + n * 4 + (j - FULL * 8);
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
                for (int i = threadIdx.x; i < G * D; i += FI_WARPS * 32) {
                    int row = i / D, d = i % D;
                    float big = -INFINITY, sum = 0, out = 0;
                    for (int p = s.part0; p < s.part0 + s.n_parts; p++)
                        big = fmaxf(big, __ldcg(&a.part_ml[((size_t)p * a.n_heads + kh * G + row) * 2]));
                    for (int p = s.part0; p < s.part0 + s.n_parts; p++) {
                        size_t at = (size_t)p * a.n_heads + kh * G + row;
                        float mp = __ldcg(&a.part_ml[at * 2]), w = mp == -INFINITY ? 0 : exp2f(mp - big);
                        sum += w * __ldcg(&a.part_ml[at * 2 + 1]);
                        out += w * __ldcg(&a.part_out[at * D + d]);
                    }
                    ((A *)a.out)[(size_t)s.first * a.ldo + (size_t)(kh * G + row) * D + d] = from_f<A>(out / sum);
                }
                if (threadIdx.x == 0) a.arrived[(size_t)it.seq * K + kh] = 0;
            }
        }
        __syncthreads();
    }
}

template <class A, int D> static void fi_launch(struct tabs t, struct att_args a, cudaStream_t stream) {
    if (a.n_heads / a.n_kv_heads <= 8) fi_kernel<A, D, true><<<a.grid, FI_WARPS * 32, 0, stream>>>(t, a);
    else fi_kernel<A, D, false><<<a.grid, FI_WARPS * 32, 0, stream>>>(t, a);
}

template <class A> static void fi_by_size(struct tabs t, struct att_args a, cudaStream_t stream) {
    switch (a.head_dim) {
    case 32: fi_launch<A, 32>(t, a, stream); break;
    case 64: fi_launch<A, 64>(t, a, stream); break;
    case 96: fi_launch<A, 96>(t, a, stream); break;
    case 128: fi_launch<A, 128>(t, a, stream); break;
    case 256: fi_launch<A, 256>(t, a, stream); break;
    }
}

#endif
