/* exchange_test.cu: see exchange_test.h. Kernels that make and check numbers; few blocks, that wait for nobody. */
#include "dev/cuda/exchange_test.h"
#include "dev/cuda/num.h"

enum { THREADS = 256, BLOCKS = 64 };

template <class T> __device__ __forceinline__ float made(uint32_t who, size_t i, uint32_t seed) {
    return to_f(from_f<T>(made_number(who, (uint32_t)i, seed)));
}

/* ((0+1)+(2+3))+... of a power of two. */
template <class T> __device__ float tree_sum(int n, size_t i, uint32_t seed) {
    float x[8];
    for (int r = 0; r < n; r++) x[r] = made<T>(r, i, seed);
    for (int w = n / 2; w; w /= 2)
        for (int k = 0; k < w; k++) x[k] = x[2 * k] + x[2 * k + 1];
    return to_f(from_f<T>(x[0]));
}

__device__ void compare(const struct made &m, float got, float want, size_t i) {
    if (fabsf(got - want) <= m.tolerance) return; /* a NaN is not */
    atomicAdd(&m.wrong[0], 1ull);
    m.wrong[1] = i + 1;
}

#define EACH(i, n) (size_t i = blockIdx.x * (size_t)THREADS + threadIdx.x; i < (n); i += (size_t)BLOCKS * THREADS)

__global__ void next_kernel(uint32_t *seed) { ++*seed; }
template <class T> __global__ void fill_kernel(struct made m) {
    for EACH(i, m.n) ((T *)m.p)[i] = from_f<T>(made_number(m.who, (uint32_t)i, *m.seed));
}
template <class T> __global__ void check_sum_kernel(struct made m) {
    for EACH(i, m.n) compare(m, to_f(((const T *)m.p)[i]), tree_sum<T>(m.n_ranks, i, *m.seed), i);
}
template <class T> __global__ void check_gather_kernel(struct made m) {
    for EACH(i, m.n * (size_t)m.n_ranks) compare(m, to_f(((const T *)m.p)[i]), made<T>(i / m.n, i % m.n, *m.seed), i);
}
template <class T> __global__ void check_residual_kernel(struct made m) {
    for EACH(i, m.n) compare(m, ((const float *)m.p)[i], made_number(MADE_RESIDUAL, i, *m.seed) + tree_sum<T>(m.n_ranks, i, *m.seed), i);
}

static void *kernel_of(int which, enum gpu_number type) {
#define OF(K) (type == GPU_F32 ? (void *)K<float> : type == GPU_BF16 ? (void *)K<bf16> : (void *)K<f16>)
    return which == 0 ? OF(fill_kernel) : which == 1 ? OF(check_sum_kernel) : which == 2 ? OF(check_gather_kernel) : OF(check_residual_kernel);
}

static int run(int which, const struct made *m, cudaStream_t stream) {
    struct made copy = *m;
    void *args[] = {&copy};
    return cudaLaunchKernel(kernel_of(which, m->type), BLOCKS, THREADS, args, 0, stream);
}

int made_load(void) {
    static const enum gpu_number types[] = {GPU_F32, GPU_BF16, GPU_F16};
    cudaFuncAttributes a;
    cudaError_t rc = cudaFuncGetAttributes(&a, (const void *)next_kernel);
    for (int w = 0; w < 4; w++)
        for (int t = 0; t < 3 && !rc; t++) rc = cudaFuncGetAttributes(&a, kernel_of(w, types[t]));
    return rc;
}

int made_next(uint32_t *seed, cudaStream_t stream) {
    next_kernel<<<1, 1, 0, stream>>>(seed);
    return cudaPeekAtLastError();
}
int made_fill(const struct made *m, cudaStream_t stream) { return run(0, m, stream); }
int made_check_sum(const struct made *m, cudaStream_t stream) { return run(1, m, stream); }
int made_check_gather(const struct made *m, cudaStream_t stream) { return run(2, m, stream); }
int made_check_residual(const struct made *m, cudaStream_t stream) { return run(3, m, stream); }
