/* att_fa.h: `fa`, attention of chunks (several new tokens a sequence), tiled for the matrix unit after FlashAttention 2 (Dao, 2023).
 * A block of four warps takes FA_ROWS rows, a row being one (token, query head) of one KV head, so that short chunks and
 * grouped heads fill a tile; K and V come in tiles of 64 positions through two stages of shared memory. Rows of shared
 * memory are padded by 16 bytes, which keeps ldmatrix free of bank conflicts. */
#ifndef MINISGL_DEV_CUDA_ATT_FA_H
#define MINISGL_DEV_CUDA_ATT_FA_H
#include "dev/cuda/att.h"

enum { FA_KEYS = 64, FA_WARPS = FA_ROWS / 16 };

static constexpr size_t fa_shared(int D) { return (size_t)(FA_ROWS + 4 * FA_KEYS) * (D + 8) * 2; }

template <class A, int D> __device__ __forceinline__ void fa_load(A (*to)[D + 8], const struct att_args &a, const int32_t *pages, int kh,
                                                                  size_t offset, int base, int last) {
    constexpr int CHUNKS = D / 8;
    for (int i = threadIdx.x; i < FA_KEYS * CHUNKS; i += FA_WARPS * 32) {
        int key = i / CHUNKS, chunk = i % CHUNKS, pos = base + key;
        const A *from = (const A *)a.kv + offset + kv_at(a, pages, kh, pos <= last ? pos : last) + chunk * 8;
        copy16(&to[key][chunk * 8], from, pos <= last);
    }
}

template <class A, int D> __global__ void __launch_bounds__(FA_WARPS * 32) fa_kernel(struct tabs t, struct att_args a) {
    early();
    extern __shared__ __align__(16) char shared[];
    typedef A row_t[D + 8];
    row_t *sq = (row_t *)shared, *sk = sq + FA_ROWS, *sv = sk + 2 * FA_KEYS; /* two stages of K, two of V */
    const struct step_head *h = t.head;
    const int K = a.n_kv_heads, G = a.n_heads / K, lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
    const float scale = a.scale * LOG2E;
    const size_t v_at = (size_t)K * a.page_size * D;
    for (int u = blockIdx.x; u < h->n_fa * K; u += gridDim.x) {
        const struct fa_item it = block_part<struct fa_item>(h, h->fa_at)[u / K];
        const struct step_seq s = block_part<struct step_seq>(h, h->seqs_at)[it.seq];
        const int kh = u % K, row0 = it.tile * FA_ROWS, rows = s.n_tokens * G - row0 < FA_ROWS ? s.n_tokens * G - row0 : FA_ROWS;
        const int32_t *pages = t.pages + (size_t)s.slot * t.table_len;
        const int last = s.pos + (row0 + rows - 1) / G;                             /* the last position that a row sees */
        const int from = first_seen(a, s.pos + row0 / G) & ~(FA_KEYS - 1), n = (last - from) / FA_KEYS + 1;
        __syncthreads(); /* the tiles of the item before are read */
        for (int i = threadIdx.x; i < FA_ROWS * (D / 8); i += FA_WARPS * 32) {
            int r = i / (D / 8), chunk = i % (D / 8), row = row0 + (r < rows ? r : 0);
            const A *p = (const A *)a.q + (size_t)(s.first + row / G) * a.ldq + (size_t)(kh * G + row % G) * D + chunk * 8;
            copy16(&sq[r][chunk * 8], p, r < rows);
        }
        fa_load<A, D>(sk, a, pages, kh, 0, from, last);
        fa_load<A, D>(sv, a, pages, kh, v_at, from, last);
        copy_commit();
        int pos[2], seen[2]; /* of this lane's rows g and g + 8 */
        float m[2], l[2], o[D / 8][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            pos[i] = s.pos + (row0 + warp * 16 + g + 8 * i) / G;
            seen[i] = first_seen(a, pos[i]);
            m[i] = -INFINITY, l[i] = 0;
        }
#pragma unroll
        for (int j = 0; j < D / 8; j++) o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0;
        for (int b = 0; b < n; b++) {
            int base = from + b * FA_KEYS;
            if (b + 1 < n) {
                fa_load<A, D>(sk + ((b + 1) & 1) * FA_KEYS, a, pages, kh, 0, base + FA_KEYS, last);
                fa_load<A, D>(sv + ((b + 1) & 1) * FA_KEYS, a, pages, kh, v_at, base + FA_KEYS, last);
            }
            copy_commit();
            copy_wait<1>();
            __syncthreads();
            row_t *k = sk + (b & 1) * FA_KEYS, *v = sv + (b & 1) * FA_KEYS;
            float sc[FA_KEYS / 8][4];
#pragma unroll
            for (int j = 0; j < FA_KEYS / 8; j++) sc[j][0] = sc[j][1] = sc[j][2] = sc[j][3] = 0;
#pragma unroll
            for (int i = 0; i < D / 16; i++) {
                unsigned qa[4];
                ldsm4(qa, &sq[warp * 16 + lane % 16][i * 16 + lane / 16 * 8]);
#pragma unroll
                for (int j = 0; j < FA_KEYS / 16; j++) {
                    unsigned kb[4]; /* two column tiles: keys 16 j .. 16 j + 15 */
                    ldsm4(kb, &k[j * 16 + lane % 8 + lane / 16 * 8][i * 16 + lane / 8 % 2 * 8]);
                    mma(sc[2 * j], qa[0], qa[1], qa[2], qa[3], kb[0], kb[1], A());
                    mma(sc[2 * j + 1], qa[0], qa[1], qa[2], qa[3], kb[2], kb[3], A());
                }
            }
            bool edge = base + FA_KEYS - 1 > s.pos + row0 / G || a.window > 0;
            float shrink[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float big = m[i];
#pragma unroll
                for (int j = 0; j < FA_KEYS / 8; j++)
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        float &y = sc[j][2 * i + x];
                        int key = base + j * 8 + 2 * c + x;
                        y = edge && (key > pos[i] || key < seen[i]) ? -INFINITY : y * scale;
                        big = fmaxf(big, y);
                    }
                big = fmaxf(big, __shfl_xor_sync(~0u, big, 1));
                big = fmaxf(big, __shfl_xor_sync(~0u, big, 2));
                float use = big == -INFINITY ? 0 : big;
                shrink[i] = exp2f(m[i] - use);
                m[i] = big;
                l[i] *= shrink[i];
#pragma unroll
                for (int j = 0; j < FA_KEYS / 8; j++)
#pragma unroll
                    for (int x = 0; x < 2; x++) {
                        sc[j][2 * i + x] = exp2f(sc[j][2 * i + x] - use);
                        l[i] += sc[j][2 * i + x];
                    }
            }
#pragma unroll
            for (int j = 0; j < D / 8; j++) o[j][0] *= shrink[0], o[j][1] *= shrink[0], o[j][2] *= shrink[1], o[j][3] *= shrink[1];
#pragma unroll
            for (int i = 0; i < FA_KEYS / 16; i++) {
                unsigned p0 = pair_of(sc[2 * i][0], sc[2 * i][1], A()), p1 = pair_of(sc[2 * i][2], sc[2 * i][3], A());
                unsigned p2 = pair_of(sc[2 * i + 1][0], sc[2 * i + 1][1], A()), p3 = pair_of(sc[2 * i + 1][2], sc[2 * i + 1][3], A());
#pragma unroll
                for (int j = 0; j < D / 16; j++) {
                    unsigned vb[4];
                    ldsm4_trans(vb, &v[i * 16 + lane % 16][j * 16 + lane / 16 * 8]);
                    mma(o[2 * j], p0, p1, p2, p3, vb[0], vb[1], A());
                    mma(o[2 * j + 1], p0, p1, p2, p3, vb[2], vb[3], A());
                }
            }
            __syncthreads(); /* before the next but one tile overwrites these */
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            l[i] += __shfl_xor_sync(~0u, l[i], 1);
            l[i] += __shfl_xor_sync(~0u, l[i], 2);
            int r = warp * 16 + g + 8 * i, row = row0 + r;
            if (r >= rows) continue;
            A *out = (A *)a.out + (size_t)(s.first + row / G) * a.ldo + (size_t)(kh * G + row % G) * D + 2 * c;
            float inv = 1 / l[i];
#pragma unroll
            for (int j = 0; j < D / 8; j++)
                *reinterpret_cast<unsigned *>(out + j * 8) = pair_of(o[j][2 * i] * inv, o[j][2 * i + 1] * inv, A());
        }
    }
}

template <class A, int D> static void fa_launch(struct tabs t, struct att_args a, cudaStream_t stream) {
    launch(fa_kernel<A, D>, a.grid, FA_WARPS * 32, fa_shared(D), stream, t, a);
}

template <class A> static void fa_by_size(struct tabs t, struct att_args a, cudaStream_t stream) {
    switch (a.head_dim) {
    case 32: fa_launch<A, 32>(t, a, stream); break;
    case 64: fa_launch<A, 64>(t, a, stream); break;
    case 96: fa_launch<A, 96>(t, a, stream); break;
    case 128: fa_launch<A, 128>(t, a, stream); break;
    case 256: fa_launch<A, 256>(t, a, stream); break;
    }
}

template <class A, int D> static int fa_allow(void) {
    return cudaFuncSetAttribute(fa_kernel<A, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)fa_shared(D));
}

template <class A> static int fa_init(void) {
    int bad = fa_allow<A, 32>();
    if (!bad) bad = fa_allow<A, 64>();
    if (!bad) bad = fa_allow<A, 96>();
    if (!bad) bad = fa_allow<A, 128>();
    /* 256 needs 165 KB, which cards other than data-centre ones do not have: there chunks of that size run plainly. */
    return bad ? bad : fa_allow<A, 256>();
}

#endif
