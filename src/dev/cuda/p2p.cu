/* p2p.cu: sum and gather over the ranks' blocks of memory; p2p.h has the protocol. No state but what lies on the device.
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
template <class T, int N> __global__ void __launch_bounds__(THREADS) sum_kernel(struct p2p_view v, uint4 *buf, size_t n, int each) {
    uint32_t piece = v.piece[blockIdx.x];
    for (size_t at = (size_t)blockIdx.x * each; at < n; at += (size_t)gridDim.x * each) {
        int here = n - at < (size_t)each ? (int)(n - at) : each;
        piece++;
        for (int i = threadIdx.x; i < here; i += THREADS) __stcg(stage_of(v, v.rank, piece) + i, buf[at + i]);
        meet(v, piece);
        for (int i = threadIdx.x; i < here; i += THREADS) buf[at + i] = add_unit<T, N>(v, piece, i);
    }
    __syncthreads();
    if (threadIdx.x == 0) v.piece[blockIdx.x] = piece;
}

__global__ void __launch_bounds__(THREADS) gather_kernel(struct p2p_view v, const uint4 *mine, uint4 *all, size_t n, int each) {
    uint32_t piece = v.piece[blockIdx.x];
    for (size_t at = (size_t)blockIdx.x * each; at < n; at += (size_t)gridDim.x * each) {
        int here = n - at < (size_t)each ? (int)(n - at) : each;
        piece++;
        for (int i = threadIdx.x; i < here; i += THREADS) __stcg(stage_of(v, v.rank, piece) + i, mine[at + i]);
        meet(v, piece);
        for (int r = 0; r < v.n; r++)
            for (int i = threadIdx.x; i < here; i += THREADS) all[(size_t)r * n + at + i] = __ldcg(stage_of(v, r, piece) + i);
    }
    __syncthreads();
    if (threadIdx.x == 0) v.piece[blockIdx.x] = piece;
}

/* How many thread blocks, and units a block: the same on every rank, since n is. */
static int cut(size_t n, int *each) {
    enum { UNITS_A_BLOCK = 256, UNITS_MAX = P2P_PIECE / P2P_UNIT };
    size_t blocks = (n + UNITS_A_BLOCK - 1) / UNITS_A_BLOCK;
    if (blocks > P2P_BLOCKS) blocks = P2P_BLOCKS;
    size_t per = (n + blocks - 1) / blocks;
    *each = per < UNITS_MAX ? (int)per : (int)UNITS_MAX;
    return (int)blocks;
}

template <class T> static void *sum_for(int n) {
    return n == 2 ? (void *)sum_kernel<T, 2> : n == 4 ? (void *)sum_kernel<T, 4> : (void *)sum_kernel<T, 8>;
}

static void *sum_of(enum gpu_number type, int n) {
    return type == GPU_F32 ? sum_for<float>(n) : type == GPU_BF16 ? sum_for<bf16>(n) : sum_for<f16>(n);
}

int p2p_load(void) {
    static const enum gpu_number types[] = {GPU_F32, GPU_BF16, GPU_F16};
    cudaFuncAttributes a;
    cudaError_t rc = cudaFuncGetAttributes(&a, (const void *)gather_kernel);
    for (int t = 0; t < 3; t++)
        for (int n = 2; n <= P2P_RANKS && !rc; n *= 2) rc = cudaFuncGetAttributes(&a, sum_of(types[t], n));
    return rc;
}

int p2p_sum(const struct p2p_view *v, void *buf, size_t n, enum gpu_number type, cudaStream_t stream) {
    int each, blocks = cut(n, &each);
    struct p2p_view view = *v;
    void *args[] = {&view, &buf, &n, &each};
    return cudaLaunchKernel(sum_of(type, v->n), blocks, THREADS, args, 0, stream);
}

int p2p_gather(const struct p2p_view *v, const void *mine, void *all, size_t n, cudaStream_t stream) {
    int each, blocks = cut(n, &each);
    gather_kernel<<<blocks, THREADS, 0, stream>>>(*v, (const uint4 *)mine, (uint4 *)all, n, each);
    return cudaPeekAtLastError();
}
