/* att_fa.h: `fa`, attention of chunks (several new tokens a sequence), tiled for the matrix unit after FlashAttention 2 (Dao, 2023).
 * A block of four warps takes fa_rows(D) rows, a row being one (token, query head) of one KV head, so that short chunks and
 * grouped heads fill a tile; a warp has two fragments of 16 rows where registers allow, which halves what it reads of K and V.
 * K and V come in tiles of 64 positions through two stages of shared memory; where a position lies is looked up once a tile, two tiles
 * ahead. Rows of shared memory are padded by 16 bytes, which keeps ldmatrix free of bank conflicts. */
#ifndef MINISGL_DEV_CUDA_ATT_FA_H
#define MINISGL_DEV_CUDA_ATT_FA_H
#include "dev/cuda/att.h"

enum { FA_KEYS = 64, FA_WARPS = 4 };

template <int D> constexpr int fa_frags = D <= 128 ? 2 : 1; /* of 16 rows, a warp */
template <class C, int D> struct fa_row {
    typedef C type[D + 16 / sizeof(C)];
};
template <class C, int D>
constexpr size_t fa_shared = (size_t)FA_WARPS * 16 * fa_frags<D> * (D + 8) * 2 + 4 * FA_KEYS * sizeof(typename fa_row<C, D>::type);

/* A tile of K or V. Positions after the last have the offset -1: zeros. */
template <class C, int D>
__device__ __forceinline__ void fa_load(typename fa_row<C, D>::type *to, const C *kv, const int64_t *offsets) {
    constexpr int PART = 16 / sizeof(C), CHUNKS = D / PART, ALL = FA_KEYS * CHUNKS, THREADS = FA_WARPS * 32;
#pragma unroll
    for (int i = 0; i < ALL / THREADS; i++) {
        int at = i * THREADS + threadIdx.x, key = at / CHUNKS, chunk = at % CHUNKS * PART;
        int64_t from = offsets[key];
        copy16(&to[key][chunk], kv + (from < 0 ? 0 : from) + chunk, from >= 0);
    }
}

/* A row's queries to shared memory, 16 at a time, as M and in the order that K's fragments have; !real: zeros. */
template <class A, class C, int D>
__device__ __forceinline__ void fa_load_q(typename kv_frags<A, C>::M *to, const A *from, bool real) {
    if constexpr (sizeof(C) == 2) {
        copy16(to, from, real);
        copy16(to + 8, from + 8, real);
    } else {
        unsigned in[8], out[8];
        *reinterpret_cast<uint4 *>(in) = real ? reinterpret_cast<const uint4 *>(from)[0] : make_uint4(0, 0, 0, 0);
        *reinterpret_cast<uint4 *>(in + 4) = real ? reinterpret_cast<const uint4 *>(from)[1] : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < 8; i++) out[i % 2 * 4 + i / 2] = kv_frags<A, C>::q(in[i]);
        reinterpret_cast<uint4 *>(to)[0] = *reinterpret_cast<uint4 *>(out);
        reinterpret_cast<uint4 *>(to)[1] = *reinterpret_cast<uint4 *>(out + 4);
    }
}

template <class A, class C, int D> __global__ void __launch_bounds__(FA_WARPS * 32) fa_kernel(struct tabs t, struct att_args a) {
    early();
    typedef kv_frags<A, C> frags;
    typedef typename frags::M N; /* what is multiplied */
    constexpr int M = fa_frags<D>, ROWS = FA_WARPS * 16 * M, EACH = frags::STEPS;
    extern __shared__ __align__(16) char shared[];
    __shared__ int64_t s_at[2][FA_KEYS];
    typedef typename fa_row<C, D>::type row_t;
    N(*sq)[D + 8] = (N(*)[D + 8]) shared;
    row_t *sk = (row_t *)(sq + ROWS), *sv = sk + 2 * FA_KEYS; /* two stages of K, two of V */
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    const float scale = a.scale * LOG2E;
    const C *kv = (const C *)a.kv, *kv_v = kv + (size_t)K * a.page_size * D;
    for (int u = blockIdx.x; u < h->n_fa * K; u += gridDim.x) {
        const struct fa_item it = block_part<struct fa_item>(h, h->fa_at)[u / K];
        const struct step_seq s = block_part<struct step_seq>(h, h->seqs_at)[it.seq];
        const int kh = u % K, row0 = it.tile * ROWS, rows = s.n_tokens * G - row0 < ROWS ? s.n_tokens * G - row0 : ROWS;
        const int32_t *pages = t.pages + (size_t)s.slot * t.table_len;
        const int last = s.pos + (row0 + rows - 1) / G; /* the last position that a row sees */
        const int from = first_seen(a, s.pos + row0 / G) & ~(FA_KEYS - 1), n = (last - from) / FA_KEYS + 1;
        auto look_up = [&](int b) {
            int pos = from + b * FA_KEYS + threadIdx.x;
            if (threadIdx.x < FA_KEYS) s_at[b & 1][threadIdx.x] = pos <= last ? (int64_t)kv_at(a, pages, kh, pos) : -1;
        };
        __syncthreads(); /* the tiles of the item before are read */
        look_up(0);
        look_up(1);
        for (int i = threadIdx.x; i < ROWS * (D / 16); i += FA_WARPS * 32) {
            int r = i / (D / 16), chunk = i % (D / 16), row = row0 + (r < rows ? r : 0);
            const A *p = (const A *)a.q + (size_t)(s.first + row / G) * a.ldq + (size_t)(kh * G + row % G) * D + chunk * 16;
            fa_load_q<A, C, D>(&sq[r][chunk * 16], p, r < rows);
        }
        __syncthreads();
        fa_load<C, D>(sk, kv, s_at[0]);
        fa_load<C, D>(sv, kv_v, s_at[0]);
        copy_commit();
        int pos[M][2]; /* of this lane's rows g and g + 8 of each fragment */
        float m[M][2], l[M][2], o[M][D / 8][4];
#pragma unroll
        for (int f = 0; f < M; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                pos[f][i] = s.pos + (row0 + (warp * M + f) * 16 + g + 8 * i) / G;
                m[f][i] = -INFINITY, l[f][i] = 0;
            }
#pragma unroll
        for (int f = 0; f < M; f++)
#pragma unroll
            for (int j = 0; j < D / 8; j++) o[f][j][0] = o[f][j][1] = o[f][j][2] = o[f][j][3] = 0;
        for (int b = 0; b < n; b++) {
            int base = from + b * FA_KEYS;
            if (b + 1 < n) {
                fa_load<C, D>(sk + ((b + 1) & 1) * FA_KEYS, kv, s_at[(b + 1) & 1]);
                fa_load<C, D>(sv + ((b + 1) & 1) * FA_KEYS, kv_v, s_at[(b + 1) & 1]);
            }
            copy_commit();
            copy_wait<1>();
            __syncthreads();
            look_up(b + 2);
            row_t *k = sk + (b & 1) * FA_KEYS, *v = sv + (b & 1) * FA_KEYS;
            float sc[M][FA_KEYS / 8][4];
#pragma unroll
            for (int f = 0; f < M; f++)
#pragma unroll
                for (int j = 0; j < FA_KEYS / 8; j++) sc[f][j][0] = sc[f][j][1] = sc[f][j][2] = sc[f][j][3] = 0;
#pragma unroll
            for (int i = 0; i < D / 16; i += EACH) {
                unsigned q[EACH][M][4];
#pragma unroll
                for (int e = 0; e < EACH; e++)
#pragma unroll
                    for (int f = 0; f < M; f++) ldsm4(q[e][f], &sq[(warp * M + f) * 16 + lane % 16][(i + e) * 16 + lane / 16 * 8]);
#pragma unroll
                for (int j = 0; j < FA_KEYS / 16; j++) {
                    unsigned kb[EACH][4]; /* two column tiles: keys 16 j .. 16 j + 15 */
                    frags::k(kb, &k[j * 16 + lane % 8 + lane / 16 * 8][i * 16 + EACH * (lane / 8 % 2 * 8)]);
#pragma unroll
                    for (int e = 0; e < EACH; e++)
#pragma unroll
                        for (int f = 0; f < M; f++) {
                            mma(sc[f][2 * j], q[e][f][0], q[e][f][1], q[e][f][2], q[e][f][3], kb[e][0], kb[e][1], N());
                            mma(sc[f][2 * j + 1], q[e][f][0], q[e][f][1], q[e][f][2], q[e][f][3], kb[e][2], kb[e][3], N());
                        }
                }
            }
            if (base + FA_KEYS - 1 > s.pos + row0 / G || a.window > 0) { /* some row does not see all of this tile */
#pragma unroll
                for (int f = 0; f < M; f++)
#pragma unroll
                    for (int j = 0; j < FA_KEYS / 8; j++)
#pragma unroll
                        for (int x = 0; x < 4; x++) {
                            int key = base + j * 8 + 2 * c + (x & 1), p = pos[f][x >> 1];
                            if (key > p || (a.window > 0 && p - key >= a.window)) sc[f][j][x] = -INFINITY;
                        }
            }
#pragma unroll
            for (int f = 0; f < M; f++) {
                float shrink[2];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    float big = m[f][i];
#pragma unroll
                    for (int j = 0; j < FA_KEYS / 8; j++) big = fmaxf(big, fmaxf(sc[f][j][2 * i], sc[f][j][2 * i + 1]));
                    big = fmaxf(big, __shfl_xor_sync(~0u, big, 1));
                    big = fmaxf(big, __shfl_xor_sync(~0u, big, 2));
                    float use = big == -INFINITY ? 0 : big * scale, sum = 0;
                    shrink[i] = exp2f(m[f][i] * scale - use);
                    m[f][i] = big;
#pragma unroll
                    for (int j = 0; j < FA_KEYS / 8; j++)
#pragma unroll
                        for (int x = 0; x < 2; x++) {
                            sc[f][j][2 * i + x] = exp2f(sc[f][j][2 * i + x] * scale - use);
                            sum += sc[f][j][2 * i + x];
                        }
                    l[f][i] = l[f][i] * shrink[i] + sum;
                }
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    o[f][j][0] *= shrink[0], o[f][j][1] *= shrink[0];
                    o[f][j][2] *= shrink[1], o[f][j][3] *= shrink[1];
                }
            }
#pragma unroll
            for (int i = 0; i < FA_KEYS / 16; i++) {
                unsigned p[M][4];
#pragma unroll
                for (int f = 0; f < M; f++) {
                    p[f][0] = pair_of(sc[f][2 * i][0], sc[f][2 * i][1], N()), p[f][1] = pair_of(sc[f][2 * i][2], sc[f][2 * i][3], N());
                    p[f][2] = pair_of(sc[f][2 * i + 1][0], sc[f][2 * i + 1][1], N());
                    p[f][3] = pair_of(sc[f][2 * i + 1][2], sc[f][2 * i + 1][3], N());
                }
#pragma unroll
                for (int j = 0; j < D / 16; j += EACH) {
                    unsigned vb[EACH][4];
                    frags::v(vb, &v[i * 16 + lane % 16][j * 16 + EACH * (lane / 16 * 8)]);
#pragma unroll
                    for (int e = 0; e < EACH; e++)
#pragma unroll
                        for (int f = 0; f < M; f++) {
                            mma(o[f][2 * (j + e)], p[f][0], p[f][1], p[f][2], p[f][3], vb[e][0], vb[e][1], N());
                            mma(o[f][2 * (j + e) + 1], p[f][0], p[f][1], p[f][2], p[f][3], vb[e][2], vb[e][3], N());
                        }
                }
            }
            __syncthreads(); /* before the next but one tile overwrites these */
        }
#pragma unroll
        for (int f = 0; f < M; f++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float sum = l[f][i];
                sum += __shfl_xor_sync(~0u, sum, 1);
                sum += __shfl_xor_sync(~0u, sum, 2);
                int r = (warp * M + f) * 16 + g + 8 * i, row = row0 + r;
                if (r >= rows) continue;
                A *out = (A *)a.out + (size_t)(s.first + row / G) * a.ldo + (size_t)(kh * G + row % G) * D;
                float inv = 1 / sum;
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    if constexpr (EACH == 1)
                        *reinterpret_cast<unsigned *>(out + frags::col(j, c, 0)) = pair_of(o[f][j][2 * i] * inv, o[f][j][2 * i + 1] * inv, A());
                    else if (j % 2 == 0) /* tile j has the even ones of four columns, the next the odd ones */
                        store4(out + frags::col(j, c, 0), make_float4(o[f][j][2 * i] * inv, o[f][j + 1][2 * i] * inv, o[f][j][2 * i + 1] * inv,
                                                                      o[f][j + 1][2 * i + 1] * inv));
                }
            }
    }
}

template <class A, class C, int D> static void fa_launch(struct tabs t, struct att_args a, cudaStream_t stream) {
    launch(fa_kernel<A, C, D>, a.grid, FA_WARPS * 32, fa_shared<C, D>, stream, t, a);
}

template <class A, class C> static void fa_by_size(struct tabs t, struct att_args a, cudaStream_t stream) {
    switch (a.head_dim) {
    case 32: fa_launch<A, C, 32>(t, a, stream); break;
    case 64: fa_launch<A, C, 64>(t, a, stream); break;
    case 96: fa_launch<A, C, 96>(t, a, stream); break;
    case 128: fa_launch<A, C, 128>(t, a, stream); break;
    case 256: fa_launch<A, C, 256>(t, a, stream); break;
    }
}

template <class A, class C, int D> static int fa_allow(void) {
    return cudaFuncSetAttribute(fa_kernel<A, C, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fa_shared<C, D>);
}

template <class A, class C> static int fa_init(void) {
    int bad = fa_allow<A, C, 32>();
    if (!bad) bad = fa_allow<A, C, 64>();
    if (!bad) bad = fa_allow<A, C, 96>();
    if (!bad) bad = fa_allow<A, C, 128>();
    return bad ? bad : fa_allow<A, C, 256>();
}

#endif
