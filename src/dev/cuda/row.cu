/* row.cu: the start of a step and the operators that work row by row: embedding, norm, q and k norms with RoPE and the KV store,
 * SiLU, the rows that want logits; and LINEAR where cuBLASLt is not the tool. No state; see kernel.h. */
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"
#include "dev/cuda/num.h"

template <class T> __device__ const T *part(const struct step_head *h, uint32_t at) {
    return reinterpret_cast<const T *>(reinterpret_cast<const char *>(h) + at);
}

/* ---- begin: take the changes, lay out tokens and rows ---- */

__global__ void begin_kernel(struct tabs t) {
    early();
    const struct step_head *h = t.head;
    int n_threads = gridDim.x * blockDim.x, me = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = me; i < t.n_turns; i += n_threads) t.turn[i] = 0;
    const struct batch_page *pages = part<struct batch_page>(h, h->pages_at);
    for (int i = me; i < h->n_pages; i += n_threads)
        t.pages[(size_t)pages[i].slot * t.table_len + pages[i].index] = pages[i].page;
    const struct batch_slot *slots = part<struct batch_slot>(h, h->slots_at);
    for (int i = me; i < h->n_slots; i += n_threads) t.sampling[slots[i].slot] = slots[i].sampling;
    const int32_t *tokens = part<int32_t>(h, h->tokens_at);
    for (int i = blockIdx.x; i < h->n_seqs; i += gridDim.x) {
        struct step_seq s = part<struct step_seq>(h, h->seqs_at)[i];
        for (int k = threadIdx.x; k < s.n_tokens; k += blockDim.x) {
            t.token[s.first + k] = s.token_at < 0 ? t.last[s.slot] : tokens[s.token_at + k];
            t.pos[s.first + k] = s.pos + k;
            t.slot[s.first + k] = s.slot;
        }
        if (threadIdx.x == 0 && s.row >= 0) {
            t.row_token[s.row] = s.first + s.n_tokens - 1;
            t.row_seq[s.row] = i;
        }
    }
}

void k_begin(struct tabs t, struct step_dims n, cudaStream_t stream) {
    launch(begin_kernel, n.seqs < 1 ? 1 : n.seqs, 128, 0, stream, t);
}

__global__ void angle_kernel(struct tabs t, struct angle_args a) {
    early();
    int row = blockIdx.x, half = a.dim / 2;
    if (row >= t.head->n_tokens) return;
    int p = t.pos[row];
    bool dynamic = a.dynamic_max > 0 && p >= a.dynamic_max;
    double base = 0;
    if (dynamic) {
        double f = a.dynamic_factor, stretch = f * ((double)p + 1) / a.dynamic_max - (f - 1);
        base = a.dynamic_theta * pow(stretch, (double)a.dim / (a.dim - 2));
    }
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float inv = dynamic ? (float)(1 / pow(base, 2.0 * i / a.dim)) : a.inv_freq[i];
        float angle = __fmul_rn((float)p, inv);
        t.cos[(size_t)row * half + i] = cosf(angle) * a.scale;
        t.sin[(size_t)row * half + i] = sinf(angle) * a.scale;
    }
}

void k_angles(struct tabs t, struct angle_args a, int32_t tokens, cudaStream_t stream) {
    launch(angle_kernel, tokens, a.dim / 2 < 32 ? 32 : (a.dim / 2 + 31) / 32 * 32, 0, stream, t, a);
}

/* ---- embedding ---- */

template <class A, class O> __global__ void embed_kernel(struct tabs t, struct embed_args a) {
    early();
    int row = blockIdx.x;
    if (row >= t.head->n_tokens) return;
    int id = t.token[row] - a.first;
    bool mine = id >= 0 && id < a.n;
    const A *w = (const A *)a.w + (size_t)(mine ? id : 0) * a.ldw;
    O *out = (O *)a.out + (size_t)row * a.ldo;
    for (int i = threadIdx.x * 4; i < a.width; i += blockDim.x * 4) {
        float4 v = mine ? load4(w + i) : make_float4(-0.0f, -0.0f, -0.0f, -0.0f); /* the padding of w is zero, and out has room for it */
        store4(out + i, v);
    }
}

void k_embed(struct tabs t, struct embed_args a, int32_t tokens, cudaStream_t stream) {
    if (a.out_dtype == DT_F32) {
        BY_DTYPE(a.w_dtype, launch(embed_kernel<A, float>, tokens, 128, 0, stream, t, a));
    } else {
        BY_DTYPE(a.w_dtype, launch(embed_kernel<A, A>, tokens, 128, 0, stream, t, a));
    }
}

/* ---- ranks ---- */

template <class A> __global__ void bias_kernel(struct tabs t, struct bias_args a) {
    early();
    int row = blockIdx.x;
    if (row >= t.head->n_tokens) return;
    A *x = (A *)a.x + (size_t)row * a.ld;
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) x[i] = from_f<A>(to_f(x[i]) + a.bias[i]);
}

void k_bias(struct tabs t, struct bias_args a, int32_t tokens, cudaStream_t stream) {
    BY_DTYPE(a.a, launch(bias_kernel<A>, tokens, 256, 0, stream, t, a));
}

__global__ void join_kernel(struct tabs t, struct join_args a) {
    early();
    int row = blockIdx.y, rank = blockIdx.z, first = rank * a.share;
    if (row >= t.head->n_rows) return;
    int n = a.total - first < a.share ? a.total - first : a.share;
    const float *from = a.from + ((size_t)rank * a.rows + row) * a.from_ld;
    float *to = a.to + (size_t)row * a.to_ld + first;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] = from[i];
}

void k_join(struct tabs t, struct join_args a, int32_t rows, cudaStream_t stream) {
    launch(join_kernel, dim3((a.share + 2047) / 2048, rows, (a.total + a.share - 1) / a.share), 256, 0, stream, t, a);
}

/* ---- norm ---- */

enum { NORM_THREADS = 256, NORM_VECS = 8 };

template <class A, class I> __global__ void __launch_bounds__(NORM_THREADS) norm_kernel(struct tabs t, struct norm_args a) {
    early();
    __shared__ float room[33];
    int row = blockIdx.x;
    if (row >= (a.rows ? t.head->n_rows : t.head->n_tokens)) return;
    I *in = (I *)a.in + (size_t)row * a.ldi;
    const A *add = a.add ? (const A *)a.add + (size_t)row * a.lda : nullptr;
    A *out = (A *)a.out + (size_t)row * a.ldo;
    float4 v[NORM_VECS];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < NORM_VECS; k++) {
        int i = (k * NORM_THREADS + threadIdx.x) * 4;
        if (i >= a.width) break;
        v[k] = load4(in + i);
        if (add) {
            float4 y = load4(add + i);
            v[k] = make_float4(v[k].x + y.x, v[k].y + y.y, v[k].z + y.z, v[k].w + y.w);
            store4(in + i, v[k]);
        }
        sum += v[k].x * v[k].x + v[k].y * v[k].y + v[k].z * v[k].z + v[k].w * v[k].w;
    }
    float r = rsqrtf(block_sum(sum, room) / a.width + a.eps);
#pragma unroll
    for (int k = 0; k < NORM_VECS; k++) {
        int i = (k * NORM_THREADS + threadIdx.x) * 4;
        if (i >= a.width) break;
        float4 w = load4(a.w + i);
        store4(out + i, make_float4(v[k].x * r * w.x, v[k].y * r * w.y, v[k].z * r * w.z, v[k].w * r * w.w));
    }
}

/* Any width: one element at a time, the row read twice. */
template <class A, class I> __global__ void norm_any_kernel(struct tabs t, struct norm_args a) {
    early();
    __shared__ float room[33];
    int row = blockIdx.x;
    if (row >= (a.rows ? t.head->n_rows : t.head->n_tokens)) return;
    I *in = (I *)a.in + (size_t)row * a.ldi;
    const A *add = a.add ? (const A *)a.add + (size_t)row * a.lda : nullptr;
    A *out = (A *)a.out + (size_t)row * a.ldo;
    float sum = 0;
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) {
        float x = to_f(in[i]);
        if (add) {
            x += to_f(add[i]);
            in[i] = from_f<I>(x);
        }
        sum += x * x;
    }
    float r = rsqrtf(block_sum(sum, room) / a.width + a.eps);
    for (int i = threadIdx.x; i < a.width; i += blockDim.x) out[i] = from_f<A>(to_f(in[i]) * r * a.w[i]);
}

template <class A, class I> static void norm_launch(struct tabs t, struct norm_args a, int32_t rows, cudaStream_t stream) {
    if (a.width % 4 == 0 && a.width <= NORM_THREADS * NORM_VECS * 4) launch(norm_kernel<A, I>, rows, NORM_THREADS, 0, stream, t, a);
    else launch(norm_any_kernel<A, I>, rows, NORM_THREADS, 0, stream, t, a);
}

void k_norm(struct tabs t, struct norm_args a, int32_t rows, cudaStream_t stream) {
    if (a.in_dtype == DT_F32) {
        BY_DTYPE(a.a, norm_launch<A, float>(t, a, rows, stream));
    } else {
        BY_DTYPE(a.a, norm_launch<A, A>(t, a, rows, stream));
    }
}

/* ---- q and k norms, RoPE, KV store: one warp a head ---- */

template <class A, int PAIRS> __global__ void rope_kernel(struct tabs t, struct rope_args a) {
    early();
    int row = blockIdx.x, lane = threadIdx.x % 32, head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32;
    int H = a.n_heads, K = a.n_kv_heads, D = a.head_dim, half = D / 2;
    if (row >= t.head->n_tokens || head >= H + 2 * K) return;
    A *x = (A *)a.qkv + (size_t)row * a.ld + (size_t)head * D;
    float lo[PAIRS], hi[PAIRS];
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        int i = lane + 32 * k;
        lo[k] = i < half ? to_f(x[i]) : 0;
        hi[k] = i < half ? to_f(x[i + half]) : 0;
    }
    const float *w = head < H ? a.q_norm : head < H + K ? a.k_norm : nullptr;
    if (w) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < PAIRS; k++) sum += lo[k] * lo[k] + hi[k] * hi[k];
        float r = rsqrtf(warp_sum(sum) / D + a.eps);
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            int i = lane + 32 * k;
            if (i < half) lo[k] *= r * w[i], hi[k] *= r * w[i + half];
        }
    }
    if (head < H + K) {
#pragma unroll
        for (int k = 0; k < PAIRS; k++) {
            int i = lane + 32 * k;
            if (i >= half) continue;
            float c = t.cos[(size_t)row * half + i], s = t.sin[(size_t)row * half + i], p = lo[k], q = hi[k];
            lo[k] = p * c - q * s, hi[k] = q * c + p * s;
            x[i] = from_f<A>(lo[k]), x[i + half] = from_f<A>(hi[k]);
        }
    }
    if (head < H) return;
    int pos = t.pos[row], P = a.page_size, page = t.pages[(size_t)t.slot[row] * t.table_len + pos / P];
    size_t at = (((size_t)page * 2 * K + (head - H)) * P + pos % P) * D; /* K heads, then V heads: [K|V][head] is one index */
#pragma unroll
    for (int k = 0; k < PAIRS; k++) {
        int i = lane + 32 * k;
        if (i >= half) continue;
        store_any(a.kv, a.kv_dtype, at + i, lo[k]);
        store_any(a.kv, a.kv_dtype, at + i + half, hi[k]);
    }
}

template <class A> static void rope_launch(struct tabs t, struct rope_args a, int32_t tokens, cudaStream_t stream) {
    dim3 grid(tokens, (a.n_heads + 2 * a.n_kv_heads + 3) / 4);
    if (a.head_dim <= 64) launch(rope_kernel<A, 1>, grid, 128, 0, stream, t, a);
    else if (a.head_dim <= 128) launch(rope_kernel<A, 2>, grid, 128, 0, stream, t, a);
    else if (a.head_dim <= 256) launch(rope_kernel<A, 4>, grid, 128, 0, stream, t, a);
    else launch(rope_kernel<A, 8>, grid, 128, 0, stream, t, a);
}

void k_rope_kv(struct tabs t, struct rope_args a, int32_t tokens, cudaStream_t stream) {
    BY_DTYPE(a.a, rope_launch<A>(t, a, tokens, stream));
}

/* ---- SiLU ---- */

__device__ __forceinline__ float silu(float g) { return g / (1 + __expf(-g)); }

template <class A> __global__ void silu_kernel(struct tabs t, struct silu_args a) {
    early();
    int row = blockIdx.y;
    if (row >= (a.rows ? *a.rows : t.head->n_tokens)) return;
    const A *in = (const A *)a.in + (size_t)row * a.ldi;
    A *out = (A *)a.out + (size_t)row * a.ldo;
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= a.n) return;
    if (a.n % 4 == 0) {
        float4 g = load4(in + i), u = load4(in + a.n + i);
        store4(out + i, make_float4(silu(g.x) * u.x, silu(g.y) * u.y, silu(g.z) * u.z, silu(g.w) * u.w));
    } else {
        for (int k = i; k < i + 4 && k < a.n; k++) out[k] = from_f<A>(silu(to_f(in[k])) * to_f(in[a.n + k]));
    }
}

void k_silu(struct tabs t, struct silu_args a, int32_t rows, cudaStream_t stream) {
    dim3 grid((a.n + 511) / 512, rows);
    BY_DTYPE(a.a, launch(silu_kernel<A>, grid, 128, 0, stream, t, a));
}

/* ---- the rows that want logits ---- */

__global__ void rows_kernel(struct tabs t, struct rows_args a) {
    early();
    int row = blockIdx.x;
    if (row >= t.head->n_rows) return;
    const char *in = (const char *)a.in + (size_t)t.row_token[row] * a.ldi * a.size;
    char *out = (char *)a.out + (size_t)row * a.ldo * a.size;
    for (int i = threadIdx.x; i < a.width * a.size / 2; i += blockDim.x) ((uint16_t *)out)[i] = ((const uint16_t *)in)[i];
}

void k_rows(struct tabs t, struct rows_args a, int32_t rows, cudaStream_t stream) {
    launch(rows_kernel, rows, 256, 0, stream, t, a);
}

/* ---- other dtypes and strides ---- */

__global__ void convert_kernel(void *out, enum dtype to, int64_t ldo, const void *in, enum dtype from, int64_t ldi, int64_t rows,
                               int32_t width) {
    early();
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x)
        for (int64_t i = threadIdx.x; i < ldo; i += blockDim.x)
            store_any(out, to, (size_t)(r * ldo + i), i < width ? load_any(in, from, (size_t)(r * ldi + i)) : 0);
}

void k_convert(void *out, enum dtype to, int64_t ldo, const void *in, enum dtype from, int64_t ldi, int64_t rows, int32_t width,
               cudaStream_t stream) {
    if (rows > 0) launch(convert_kernel, rows < 4096 ? (int)rows : 4096, 256, 0, stream, out, to, ldo, in, from, ldi, rows, width);
}

/* ---- LINEAR, plain: one warp an output ---- */

template <class A> __global__ void plain_kernel(struct plain_args a) {
    early();
    int lane = threadIdx.x % 32;
    int64_t n = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, row = blockIdx.y;
    if (n >= a.n) return;
    const A *x = (const A *)a.x + row * a.ldx, *w = (const A *)a.w + n * a.ldw;
    float sum = 0;
    for (int k = lane; k < a.k; k += 32) sum += to_f(x[k]) * to_f(w[k]);
    sum = warp_sum(sum);
    if (lane == 0) store_any(a.y, a.y_dtype, (size_t)(row * a.ldy + n), sum + (a.bias ? a.bias[n] : 0));
}

void k_linear_plain(struct plain_args a, cudaStream_t stream) {
    dim3 grid((a.n + 3) / 4, a.rows);
    BY_DTYPE(a.a, launch(plain_kernel<A>, grid, 128, 0, stream, a));
}

/* Few rows: WARPS warps take one output, and all their lanes read the weights 16 bytes at a time. The first reads are under way before
 * the kernel before this one is done: weights do not change. */
template <class A, int ROWS, int WARPS> __global__ void __launch_bounds__(128) gemv_kernel(struct plain_args a) {
    constexpr int AHEAD = 4, OUTPUTS = 4 / WARPS, STRIDE = WARPS * 256;
    __shared__ float s_sum[4][ROWS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, from = (warp % WARPS * 32 + lane) * 8;
    const int64_t n = (int64_t)blockIdx.x * OUTPUTS + warp / WARPS;
    const A *w = (const A *)a.w + (n < a.n ? n : 0) * a.ldw;
    uint4 u[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (from + i * STRIDE < a.k) u[i] = __ldg(reinterpret_cast<const uint4 *>(w + from + i * STRIDE));
    early();
    float sum[ROWS] = {};
    for (int base = from; base < a.k; base += AHEAD * STRIDE) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int k = base + i * STRIDE;
            if (k >= a.k) break;
            if (base != from) u[i] = __ldg(reinterpret_cast<const uint4 *>(w + k));
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            int k = base + i * STRIDE;
            if (k >= a.k) break;
            float2 w0 = pair_f(u[i].x, A()), w1 = pair_f(u[i].y, A()), w2 = pair_f(u[i].z, A()), w3 = pair_f(u[i].w, A());
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                uint4 v = *reinterpret_cast<const uint4 *>((const A *)a.x + (size_t)r * a.ldx + k);
                float2 x0 = pair_f(v.x, A()), x1 = pair_f(v.y, A()), x2 = pair_f(v.z, A()), x3 = pair_f(v.w, A());
                sum[r] += w0.x * x0.x + w0.y * x0.y + w1.x * x1.x + w1.y * x1.y + w2.x * x2.x + w2.y * x2.y + w3.x * x3.x + w3.y * x3.y;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) sum[r] = warp_sum(sum[r]);
    if (WARPS > 1) {
        if (lane == 0)
            for (int r = 0; r < ROWS; r++) s_sum[warp][r] = sum[r];
        __syncthreads();
        if (warp % WARPS == 0 && lane == 0)
            for (int r = 0; r < ROWS; r++)
                for (int i = 1; i < WARPS; i++) sum[r] += s_sum[warp + i][r];
    }
    if (warp % WARPS || lane || n >= a.n) return;
    for (int r = 0; r < ROWS; r++) store_any(a.y, a.y_dtype, (size_t)r * a.ldy + n, sum[r] + (a.bias ? a.bias[n] : 0));
}

template <class A, int WARPS> static void gemv_launch(struct plain_args a, cudaStream_t stream) {
    int blocks = (a.n * WARPS + 3) / 4;
    if (a.rows == 1) launch(gemv_kernel<A, 1, WARPS>, blocks, 128, 0, stream, a);
    else if (a.rows == 2) launch(gemv_kernel<A, 2, WARPS>, blocks, 128, 0, stream, a);
    else launch(gemv_kernel<A, 4, WARPS>, blocks, 128, 0, stream, a); /* rows 3 are computed as 4: the buffers have room */
}

/* Few outputs would leave the GPU idle with one warp each. */
template <class A> static void gemv_by_size(struct plain_args a, cudaStream_t stream) {
    if (a.n <= 2048) gemv_launch<A, 4>(a, stream);
    else if (a.n <= 5120) gemv_launch<A, 2>(a, stream);
    else gemv_launch<A, 1>(a, stream);
}

void k_gemv(struct plain_args a, cudaStream_t stream) {
    if (a.a == DT_BF16) gemv_by_size<bf16>(a, stream);
    else gemv_by_size<f16>(a, stream);
}
