/* att.cu: attention for every dtype and head size, plain: one block a (token, query head), warps take positions in turn; and the
 * choice of the fast kernels' templates. No state; see kernel.h. */
#include "dev/cuda/att.h"

enum { WARPS = 4 };

template <class A, int NE> __global__ void __launch_bounds__(WARPS * 32) plain_kernel(struct tabs t, struct att_args a) {
    early();
    __shared__ float s_m[WARPS], s_l[WARPS], s_out[WARPS][NE * 32];
    int row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 32, warp = threadIdx.x / 32, D = a.head_dim;
    if (row >= t.head->n_tokens) return;
    int pos = t.pos[row], kh = head / (a.n_heads / a.n_kv_heads);
    const int32_t *pages = t.pages + (size_t)t.slot[row] * t.table_len;
    const A *q = (const A *)a.q + (size_t)row * a.ldq + (size_t)head * D;
    size_t v_at = (size_t)a.n_kv_heads * a.page_size * D;
    float x[NE], o[NE], m = -INFINITY, l = 0;
#pragma unroll
    for (int e = 0; e < NE; e++) {
        x[e] = e * 32 + lane < D ? to_f(q[e * 32 + lane]) * a.scale : 0;
        o[e] = 0;
    }
    for (int p = first_seen(a, pos) + warp; p <= pos; p += WARPS) {
        size_t at = kv_at(a, pages, kh, p);
        float dot = 0;
#pragma unroll
        for (int e = 0; e < NE; e++)
            if (e * 32 + lane < D) dot += x[e] * load_any(a.kv, a.kv_dtype, at + e * 32 + lane);
        dot = warp_sum(dot);
        float big = fmaxf(m, dot), shrink = expf(m - big), w = expf(dot - big);
        m = big, l = l * shrink + w;
#pragma unroll
        for (int e = 0; e < NE; e++)
            if (e * 32 + lane < D) o[e] = o[e] * shrink + w * load_any(a.kv, a.kv_dtype, at + v_at + e * 32 + lane);
    }
#pragma unroll
    for (int e = 0; e < NE; e++) s_out[warp][e * 32 + lane] = o[e];
    if (lane == 0) s_m[warp] = m, s_l[warp] = l;
    __syncthreads();
    float big = s_m[0], sum = 0;
    for (int w = 1; w < WARPS; w++) big = fmaxf(big, s_m[w]);
    for (int w = 0; w < WARPS; w++) sum += s_m[w] == -INFINITY ? 0 : s_l[w] * expf(s_m[w] - big);
    for (int d = threadIdx.x; d < D; d += WARPS * 32) {
        float out = 0;
        for (int w = 0; w < WARPS; w++) out += s_m[w] == -INFINITY ? 0 : s_out[w][d] * expf(s_m[w] - big);
        ((A *)a.out)[(size_t)row * a.ldo + (size_t)head * D + d] = from_f<A>(out / sum);
    }
}

template <class A> static void plain_launch(struct tabs t, struct att_args a, int32_t tokens, cudaStream_t stream) {
    dim3 grid(tokens, a.n_heads);
    if (a.head_dim <= 128) launch(plain_kernel<A, 4>, grid, WARPS * 32, 0, stream, t, a);
    else launch(plain_kernel<A, 16>, grid, WARPS * 32, 0, stream, t, a);
}

void k_att_plain(struct tabs t, struct att_args a, int32_t tokens, cudaStream_t stream) {
    BY_DTYPE(a.a, plain_launch<A>(t, a, tokens, stream));
}

static const struct att_kernels *const fast[] = {&att_bf16, &att_f16, &att_bf16_fp8, &att_f16_fp8};

static const struct att_kernels *fast_for(const struct att_args *a) {
    for (const struct att_kernels *k : fast)
        if (k->a == a->a && k->kv == a->kv_dtype) return k;
    return nullptr;
}

bool att_fast_takes(const struct att_args *a) {
    int d = a->head_dim;
    return fast_for(a) && a->n_heads / a->n_kv_heads <= 16 && (d == 32 || d == 64 || d == 96 || d == 128 || d == 256);
}

void k_att_fi(struct tabs t, struct att_args a, cudaStream_t stream) { fast_for(&a)->fi(t, a, stream); }

/* Which form of `fa`: Hopper's where this object has code for it, the GPU is one, and its products fit the head. */
static bool takes_fa90(const struct att_args *a) {
#ifdef MINISGL_SM90A
    return a->capability == 90 && fast_for(a)->fa90 && (a->head_dim == 64 || a->head_dim == 128);
#else
    (void)a;
    return false;
#endif
}

void k_att_fa(struct tabs t, struct att_args a, cudaStream_t stream) {
    const struct att_kernels *k = fast_for(&a);
    (takes_fa90(&a) ? k->fa90 : k->fa)(t, a, stream);
}

/* A block an entry. Entries of the table beyond a chunk's own keep what they had: pages that exist. */
__global__ void chunk_kernel(struct tabs t, struct chunk_lists l, int64_t ldq, int64_t ldo, int page_size) {
    early();
    const struct step_head *h = t.head;
    const int32_t *chunks = block_part<int32_t>(h, h->chunks_at);
    const struct step_seq *seqs = block_part<struct step_seq>(h, h->seqs_at);
    int i = blockIdx.x;
    bool real = i < h->n_chunks;
    const struct step_seq s = seqs[chunks[real ? i : h->n_chunks - 1]];
    int row = real ? s.first : s.first + s.n_tokens, len = s.pos + s.n_tokens;
    if (threadIdx.x == 0) {
        l.at_q[i] = row * ldq, l.at_out[i] = row * ldo;
        if (i < CUDNN_SEQS) l.len_q[i] = real ? s.n_tokens : 0, l.len_kv[i] = real ? len : 0;
    }
    for (int p = threadIdx.x; real && p * page_size < len; p += blockDim.x)
        l.table[(size_t)i * t.table_len + p] = t.pages[(size_t)s.slot * t.table_len + p];
}

void k_chunks(struct tabs t, struct chunk_lists l, int64_t ldq, int64_t ldo, int32_t page_size, cudaStream_t stream) {
    launch(chunk_kernel, CUDNN_SEQS + 1, 256, 0, stream, t, l, ldq, ldo, page_size);
}

int att_init(void) {
    for (const struct att_kernels *k : fast) {
        int bad = k->init();
        if (bad) return bad;
    }
    return 0;
}
