/* p2p.cu: sums (with the norm that follows) and gathers over the ranks' blocks of memory; p2p.h has the protocol. No state but what lies
 * on the device.
 *
 * These kernels are started without programmatic launch and never let the next kernel's blocks come early: blocks that wait for a
 * kernel which waits for another rank could fill a GPU that both ranks share. Sums are float32 in tree order over the ranks,
 * ((0+1)+(2+3))+..., rounded once to the buffer's type; every rank computes all of them, so all have the same bits. */
#include "dev/cuda/num.h"
#include "dev/cuda/p2p.h"

enum { THREADS = 512 };

__device__ __forceinline__ uint32_t *flag_of(const struct p2p_view &v, int rank) {
    return reinterpret_cast<uint32_t *>(v.block[rank] + (size_t)blockIdx.x * P2P_FLAG_BYTES);
}

__device__ __forceinline__ uint4 *stage_of(const struct p2p_view &v, int rank, uint32_t piece) {
    size_t at = (size_t)P2P_BLOCKS * P2P_FLAG_BYTES + ((size_t)(piece & 1) * P2P_BLOCKS + blockIdx.x) * P2P_PIECE;
    return reinterpret_cast<uint4 *>(v.block[rank] + at);
}

__device__ __forceinline__ uint64_t now_ns() {
    uint64_t t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}

__device__ __forceinline__ uint32_t load_acquire(const uint32_t *p) {
    uint32_t x;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}

__device__ void wait_for(const struct p2p_view &v, int rank, uint32_t piece) {
    const uint32_t *flag = flag_of(v, rank);
    uint64_t start = now_ns();
    for (int turn = 1; (int32_t)(load_acquire(flag) - piece) < 0; turn++) {
        if (turn % 64) continue;
        if (*(volatile uint32_t *)v.gave_up) return;
        if (now_ns() - start < v.timeout_ns) continue;
        *(volatile uint32_t *)v.absent = 1 + (uint32_t)rank;
        *(volatile uint32_t *)v.gave_up = 1;
        __threadfence_system();
        return;
    }
}

/* The whole thread block: what it staged can be read by others, and what they staged by it. */
__device__ void meet(const struct p2p_view &v, uint32_t piece) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence_system();
        asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(flag_of(v, v.rank)), "r"(piece) : "memory");
    }
    if ((int)threadIdx.x < v.n && (int)threadIdx.x != v.rank) wait_for(v, threadIdx.x, piece);
    __syncthreads();
}

template <int N> __device__ __forceinline__ float tree(float *x) {
#pragma unroll
    for (int w = N / 2; w; w /= 2)
#pragma unroll
        for (int i = 0; i < w; i++) x[i] = x[2 * i] + x[2 * i + 1];
    return x[0];
}

template <int N> __device__ __forceinline__ unsigned add_word(const unsigned *u, float) {
    float x[N];
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = __uint_as_float(u[i]);
    return __float_as_uint(tree<N>(x));
}

template <int N, class T> __device__ __forceinline__ unsigned add_word(const unsigned *u, T type) {
    float x[N], y[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        float2 f = pair_f(u[i], type);
        x[i] = f.x, y[i] = f.y;
    }
    return pair_of(tree<N>(x), tree<N>(y), type);
}

template <class T, int N> __device__ __forceinline__ uint4 add_unit(const struct p2p_view &v, uint32_t piece, int i) {
    uint4 u[N];
    unsigned x[N], y[N], z[N], w[N];
#pragma unroll
    for (int r = 0; r < N; r++) u[r] = __ldcg(stage_of(v, r, piece) + i);
#pragma unroll
    for (int r = 0; r < N; r++) x[r] = u[r].x, y[r] = u[r].y, z[r] = u[r].z, w[r] = u[r].w;
    return make_uint4(add_word<N>(x, T()), add_word<N>(y, T()), add_word<N>(z, T()), add_word<N>(w, T()));
}

/* n units, of which a thread block takes `each` at a time. */
struct work {
    size_t n;
    int each;
};

/* The piece's units go to this rank's stage, and all ranks' are there. */
__device__ void stage(const struct p2p_view &v, uint32_t piece, const uint4 *from, int n) {
    for (int i = threadIdx.x; i < n; i += THREADS) __stcg(stage_of(v, v.rank, piece) + i, from[i]);
    meet(v, piece);
}

/* The second shot: this rank's part of the piece, added up, is its next piece. */
template <class T, int N> __device__ void add_part(const struct p2p_view &v, uint32_t piece, int n, int part) {
    int from = v.rank * part, to = from + part < n ? from + part : n;
    for (int i = from + threadIdx.x; i < to; i += THREADS) __stcg(stage_of(v, v.rank, piece + 1) + i, add_unit<T, N>(v, piece, i));
    meet(v, piece + 1);
}

/* Unit i of the sum; part: how many units of the piece each rank has added up (TWO). */
template <class T, int N, bool TWO> __device__ __forceinline__ uint4 summed(const struct p2p_view &v, uint32_t piece, int i, int part) {
    if constexpr (TWO) return __ldcg(stage_of(v, i / part, piece) + i);
    else return add_unit<T, N>(v, piece, i);
}

template <class T, int N, bool TWO> __global__ void __launch_bounds__(THREADS) sum_kernel(struct p2p_view v, uint4 *buf, struct work w) {
    uint32_t piece = v.piece[blockIdx.x];
    for (size_t at = (size_t)blockIdx.x * w.each; at < w.n; at += (size_t)gridDim.x * w.each) {
        int here = w.n - at < (size_t)w.each ? (int)(w.n - at) : w.each, part = (here + N - 1) / N;
        stage(v, ++piece, buf + at, here);
        if (TWO) add_part<T, N>(v, piece++, here, part);
        for (int i = threadIdx.x; i < here; i += THREADS) buf[at + i] = summed<T, N, TWO>(v, piece, i, part);
    }
    __syncthreads();
    if (threadIdx.x == 0) v.piece[blockIdx.x] = piece;
}

/* ---- with residual and norm ---- */

/* Numbers of a unit. */
template <class T> struct unit {
    static constexpr int N = P2P_UNIT / sizeof(T);
    float x[N];
};

__device__ __forceinline__ void open_unit(struct unit<float> &f, uint4 u) {
    f.x[0] = __uint_as_float(u.x), f.x[1] = __uint_as_float(u.y), f.x[2] = __uint_as_float(u.z), f.x[3] = __uint_as_float(u.w);
}
template <class T> __device__ __forceinline__ void open_unit(struct unit<T> &f, uint4 u) {
    const unsigned w[4] = {u.x, u.y, u.z, u.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 p = pair_f(w[i], T());
        f.x[2 * i] = p.x, f.x[2 * i + 1] = p.y;
    }
}
__device__ __forceinline__ uint4 close_unit(const struct unit<float> &f) {
    return make_uint4(__float_as_uint(f.x[0]), __float_as_uint(f.x[1]), __float_as_uint(f.x[2]), __float_as_uint(f.x[3]));
}
template <class T> __device__ __forceinline__ uint4 close_unit(const struct unit<T> &f) {
    return make_uint4(pair_of(f.x[0], f.x[1], T()), pair_of(f.x[2], f.x[3], T()), pair_of(f.x[4], f.x[5], T()), pair_of(f.x[6], f.x[7], T()));
}

/* Add to f, or multiply it by, the floats at p; 4 at a time. */
template <class T> __device__ __forceinline__ void add_floats(struct unit<T> &f, const float *p) {
#pragma unroll
    for (int i = 0; i < unit<T>::N; i += 4) {
        float4 q = load4(p + i);
        f.x[i] += q.x, f.x[i + 1] += q.y, f.x[i + 2] += q.z, f.x[i + 3] += q.w;
    }
}
template <class T> __device__ __forceinline__ void scale_floats(struct unit<T> &f, float r, const float *p) {
#pragma unroll
    for (int i = 0; i < unit<T>::N; i += 4) {
        float4 q = load4(p + i);
        f.x[i] *= r * q.x, f.x[i + 1] *= r * q.y, f.x[i + 2] *= r * q.z, f.x[i + 3] *= r * q.w;
    }
}

enum { UNITS_A_THREAD = P2P_PIECE / P2P_UNIT / THREADS };

/* One row: its units lie from `at` on in the piece, `units` of them that the norm is over. */
template <class T, int N, bool TWO>
__device__ void norm_row(const struct p2p_view &v, const struct gpu_sum_norm &a, int row, uint32_t piece, int at, int part, float *room) {
    constexpr int E = unit<T>::N;
    const int units = a.width / E;
    float *h = a.h + (size_t)row * a.ldh;
    T *x = (T *)a.x + (size_t)row * a.ldx;
    struct unit<T> f[UNITS_A_THREAD];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < UNITS_A_THREAD; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i >= units) break;
        open_unit(f[k], summed<T, N, TWO>(v, piece, at + i, part));
        if (a.bias) {
            add_floats(f[k], a.bias + i * E);
#pragma unroll
            for (int j = 0; j < E; j++) f[k].x[j] = to_f(from_f<T>(f[k].x[j]));
        }
        add_floats(f[k], h + i * E);
#pragma unroll
        for (int j = 0; j < E; j += 4) store4(h + i * E + j, make_float4(f[k].x[j], f[k].x[j + 1], f[k].x[j + 2], f[k].x[j + 3]));
#pragma unroll
        for (int j = 0; j < E; j++) sum += f[k].x[j] * f[k].x[j];
    }
    float r = rsqrtf(block_sum(sum, room) / a.width + a.eps);
#pragma unroll
    for (int k = 0; k < UNITS_A_THREAD; k++) {
        int i = k * THREADS + threadIdx.x;
        if (i >= units) break;
        scale_floats(f[k], r, a.weight + i * E);
        reinterpret_cast<uint4 *>(x)[i] = close_unit(f[k]);
    }
    __syncthreads(); /* `room` is used again */
}

/* A piece is `each` whole rows. */
template <class T, int N, bool TWO> __global__ void __launch_bounds__(THREADS) norm_sum_kernel(struct p2p_view v, struct gpu_sum_norm a, int each) {
    __shared__ float room[33];
    const int rows = a.n_rows ? min(*a.n_rows, a.rows) : a.rows, units = (int)(a.ldy / unit<T>::N);
    uint32_t piece = v.piece[blockIdx.x];
    for (int row = blockIdx.x * each; row < rows; row += gridDim.x * each) {
        int here = min(rows - row, each), part = (here * units + N - 1) / N;
        stage(v, ++piece, (const uint4 *)a.y + (size_t)row * units, here * units);
        if (TWO) add_part<T, N>(v, piece++, here * units, part);
        for (int i = 0; i < here; i++) norm_row<T, N, TWO>(v, a, row + i, piece, i * units, part, room);
    }
    __syncthreads();
    if (threadIdx.x == 0) v.piece[blockIdx.x] = piece;
}

/* ---- gather ---- */

__global__ void __launch_bounds__(THREADS) gather_kernel(struct p2p_view v, const uint4 *mine, uint4 *all, struct work w) {
    uint32_t piece = v.piece[blockIdx.x];
    for (size_t at = (size_t)blockIdx.x * w.each; at < w.n; at += (size_t)gridDim.x * w.each) {
        int here = w.n - at < (size_t)w.each ? (int)(w.n - at) : w.each;
        stage(v, ++piece, mine + at, here);
        for (int r = 0; r < v.n; r++)
            for (int i = threadIdx.x; i < here; i += THREADS) all[(size_t)r * w.n + at + i] = __ldcg(stage_of(v, r, piece) + i);
    }
    __syncthreads();
    if (threadIdx.x == 0) v.piece[blockIdx.x] = piece;
}

/* ---- launches ---- */

/* How many thread blocks, and units a block: the same on every rank, since n is. */
static int cut(const struct p2p_view *v, size_t n, struct work *w) {
    enum { UNITS_A_BLOCK = THREADS, UNITS_MAX = P2P_PIECE / P2P_UNIT };
    size_t blocks = (n + UNITS_A_BLOCK - 1) / UNITS_A_BLOCK;
    if (blocks > (size_t)v->blocks) blocks = (size_t)v->blocks;
    size_t per = (n + blocks - 1) / blocks;
    *w = {n, per < UNITS_MAX ? (int)per : (int)UNITS_MAX};
    return (int)blocks;
}

/* Above this one shot moves too much: as vLLM's custom_all_reduce.cuh has it for GPUs that are all linked to each other. */
static bool two_shots(int n, size_t bytes) { return n > 2 && bytes >= (n == 4 ? 512u << 10 : 256u << 10); }

#define OF_RANKS(KERNEL, T, n, two)                                                                                               \
    ((n) == 2 ? (void *)KERNEL<T, 2, false>                                                                                       \
     : (n) == 4 ? ((two) ? (void *)KERNEL<T, 4, true> : (void *)KERNEL<T, 4, false>)                                              \
                : ((two) ? (void *)KERNEL<T, 8, true> : (void *)KERNEL<T, 8, false>))
#define OF_TYPE(KERNEL, type, n, two)                                                                                             \
    ((type) == GPU_F32 ? OF_RANKS(KERNEL, float, n, two)                                                                          \
     : (type) == GPU_BF16 ? OF_RANKS(KERNEL, bf16, n, two)                                                                        \
                          : OF_RANKS(KERNEL, f16, n, two))

static void *sum_of(enum gpu_number type, int n, bool two) { return OF_TYPE(sum_kernel, type, n, two); }
static void *norm_sum_of(enum gpu_number type, int n, bool two) { return OF_TYPE(norm_sum_kernel, type, n, two); }

int p2p_load(void) {
    static const enum gpu_number types[] = {GPU_F32, GPU_BF16, GPU_F16};
    cudaFuncAttributes a;
    cudaError_t rc = cudaFuncGetAttributes(&a, (const void *)gather_kernel);
    for (int t = 0; t < 3; t++)
        for (int n = 2; n <= P2P_RANKS && !rc; n *= 2)
            for (int two = 0; two < 2 && !rc; two++) {
                rc = cudaFuncGetAttributes(&a, sum_of(types[t], n, two));
                if (!rc) rc = cudaFuncGetAttributes(&a, norm_sum_of(types[t], n, two));
            }
    return rc;
}

int p2p_sum(const struct p2p_view *v, void *buf, size_t n, enum gpu_number type, cudaStream_t stream) {
    struct work w;
    int blocks = cut(v, n, &w);
    struct p2p_view view = *v;
    void *args[] = {&view, &buf, &w};
    return cudaLaunchKernel(sum_of(type, v->n, two_shots(v->n, n * P2P_UNIT)), blocks, THREADS, args, 0, stream);
}

int p2p_sum_norm(const struct p2p_view *v, const struct gpu_sum_norm *a, cudaStream_t stream) {
    int64_t size = a->type == GPU_F32 ? 4 : 2, bytes = a->ldy * size;
    if (bytes > P2P_PIECE || bytes % P2P_UNIT || a->width * size % P2P_UNIT || a->ldx * size % P2P_UNIT || a->ldh % 4) return -1;
    int each = (a->rows + v->blocks - 1) / v->blocks, most = (int)(P2P_PIECE / bytes);
    if (each > most) each = most;
    int blocks = (a->rows + each - 1) / each;
    struct p2p_view view = *v;
    struct gpu_sum_norm copy = *a;
    void *args[] = {&view, &copy, &each};
    return cudaLaunchKernel(norm_sum_of(a->type, v->n, two_shots(v->n, (size_t)a->rows * (size_t)bytes)), blocks < v->blocks ? blocks : v->blocks,
                            THREADS, args, 0, stream);
}

int p2p_gather(const struct p2p_view *v, const void *mine, void *all, size_t n, cudaStream_t stream) {
    struct work w;
    int blocks = cut(v, n, &w);
    gather_kernel<<<blocks, THREADS, 0, stream>>>(*v, (const uint4 *)mine, (uint4 *)all, w);
    return cudaPeekAtLastError();
}
