/* exchange_test.h: what the test of communicators (exchange_test.c) and its kernels (exchange_test.cu) share: numbers that every rank can make for
 * every other, so that a sum can be checked where it lies. Compiles as C11 and as CUDA C++. */
#ifndef MINISGL_DEV_CUDA_EXCHANGE_TEST_H
#define MINISGL_DEV_CUDA_EXCHANGE_TEST_H
#include "comm/gpu.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#define EXCHANGE_TEST_FN __host__ __device__ static inline
#else
#define EXCHANGE_TEST_FN static inline
#endif

/* Number i of source `who` in round `seed`: in [-2, 2), 24 bits. */
EXCHANGE_TEST_FN float made_number(uint32_t who, uint32_t i, uint32_t seed) {
    uint32_t x = i * 0x9e3779b9u + who * 0x85ebca6bu + seed * 0xc2b2ae35u + 1;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return (float)(int32_t)((x ^ x >> 16) >> 8) * 0x1p-22f - 2;
}

/* Beside the ranks 0..: the residual. */
enum { MADE_RESIDUAL = 100, MADE_WEIGHT, MADE_BIAS };

struct made {
    void *p;
    size_t n; /* numbers; check_gather: of each rank */
    enum gpu_number type;
    int32_t n_ranks, who; /* fill: who */
    const uint32_t *seed; /* on the device: one graph makes new numbers every time */
    float tolerance;      /* check: 0 means the very bits of a sum in tree order, rounded once */
    unsigned long long *wrong; /* [2] on the device: how many, and 1 + the last place */
};

/* Return a cudaError_t. None waits for anything. */
int made_load(void);
int made_next(uint32_t *seed, cudaStream_t stream);
int made_fill(const struct made *m, cudaStream_t stream);
int made_check_sum(const struct made *m, cudaStream_t stream);
int made_check_gather(const struct made *m, cudaStream_t stream);
/* p: the residual after the sum (of numbers of `type`, float32 itself) was added. */
int made_check_residual(const struct made *m, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
