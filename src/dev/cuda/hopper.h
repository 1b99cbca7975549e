/* hopper.h: what only compute capability 9.0 has, thinly: products of a warpgroup (four warps) that read shared memory themselves, barriers in
 * shared memory, and registers that move from one warpgroup to another. CUDA C++ only, and only where HOPPER is 1: compiled for sm_90a.
 *
 * Matrices in shared memory are rows of 128 bytes (64 numbers), 8 rows of which, 1,024 bytes, are a unit that begins at a multiple of 1,024:
 * the 16 bytes number c of row r lie at place c ^ (r % 8) of the row (at()), so that neither rows nor columns meet in a bank. A wider
 * matrix is several of these side by side, `block` bytes apart. Source: NVIDIA's PTX ISA, "wgmma". */
#ifndef MINISGL_DEV_CUDA_HOPPER_H
#define MINISGL_DEV_CUDA_HOPPER_H
#include "dev/cuda/num.h"

#if defined __CUDA_ARCH_FEAT_SM90_ALL
#define HOPPER 1
#else
#define HOPPER 0
#endif

namespace hopper {

__device__ __forceinline__ unsigned address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

/* Bytes from a matrix's begin to the 16 bytes number c of row r; blocks of 64 columns are `block` bytes apart. */
__device__ __forceinline__ unsigned at(int r, int c, unsigned block) {
    return (unsigned)(c / 8) * block + (unsigned)r * 128 + (unsigned)((c % 8 ^ r % 8) * 16);
}

#if HOPPER

/* ---- barriers: `count` arrivals complete a phase; phases are told apart by their number's lowest bit ---- */

__device__ __forceinline__ void barrier_init(unsigned b, int count) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(count)); }
__device__ __forceinline__ void arrive(unsigned b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory"); }
__device__ __forceinline__ bool is_done(unsigned b, unsigned parity) {
    unsigned done;
    asm volatile("{.reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;}"
                 : "=r"(done) : "r"(b), "r"(parity) : "memory");
    return done;
}
__device__ __forceinline__ void wait(unsigned b, unsigned parity) {
    while (!is_done(b, parity)) {}
}
/* What this thread wrote to shared memory is seen by the matrix unit, once a barrier was passed. */
__device__ __forceinline__ void written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* Numbered barriers (0 is __syncthreads'): `threads` of sync and meet together. meet does not wait. */
__device__ __forceinline__ void sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void meet(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

template <int N> __device__ __forceinline__ void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

/* ---- products ---- */

/* A matrix whose rows (of 128 bytes) are the numbers that a product sums over (K of Q K^T). */
__device__ __forceinline__ uint64_t by_rows(unsigned p) { return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 16 | p >> 4; }
/* One whose columns are (V of P V). */
__device__ __forceinline__ uint64_t by_columns(unsigned p, unsigned block) {
    return (uint64_t)1 << 62 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)(block >> 4) << 16 | p >> 4;
}

/* Before the first product after registers that products take were written; after the last of a group; until only N groups are under way. */
__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void finish() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }
/* The compiler does not know that products write registers later: nothing that reads or writes x is moved over this. */
template <int N> __device__ __forceinline__ void hold(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(x[i])::"memory");
}

#define ACC8(x, i) "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]), "+f"(x[i + 7])
#define ACC32(x, i) ACC8(x, i), ACC8(x, i + 8), ACC8(x, i + 16), ACC8(x, i + 24)
#define NAMES32 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES64 NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WITH(p) "{.reg .pred p;\n setp.ne.b32 p, " p ", 0;\n wgmma.mma_async.sync.aligned."

/* c [64, 128] = a . b^T (+ c if add): a [64, 16], b [128, 16] by rows. */
#define PRODUCT_OF_ROWS(T, NAME)                                                                                                              \
    __device__ __forceinline__ void product(float (&c)[64], uint64_t a, uint64_t b, int add, T) {                                             \
        asm volatile(WITH("%66") "m64n128k16.f32." NAME "." NAME " " NAMES64 "}, %64, %65, p, 1, 1, 0, 0;}" : ACC32(c, 0), ACC32(c, 32)        \
                     : "l"(a), "l"(b), "r"(add));                                                                                             \
    }
/* c [64, 128 or 64] = a . b (+ c): a [64, 16] in registers as mma.h has it, the warps' rows one after the other; b [16, 128 or 64] by columns. */
#define PRODUCT_OF_COLUMNS(T, NAME)                                                                                                           \
    __device__ __forceinline__ void product(float (&c)[64], const unsigned *a, uint64_t b, int add, T) {                                      \
        asm volatile(WITH("%69") "m64n128k16.f32." NAME "." NAME " " NAMES64 "}, {%64,%65,%66,%67}, %68, p, 1, 1, 1;}"                         \
                     : ACC32(c, 0), ACC32(c, 32) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                             \
    }                                                                                                                                         \
    __device__ __forceinline__ void product(float (&c)[32], const unsigned *a, uint64_t b, int add, T) {                                      \
        asm volatile(WITH("%37") "m64n64k16.f32." NAME "." NAME " " NAMES32 "}, {%32,%33,%34,%35}, %36, p, 1, 1, 1;}"                          \
                     : ACC32(c, 0) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));                                           \
    }
PRODUCT_OF_ROWS(bf16, "bf16")
PRODUCT_OF_ROWS(f16, "f16")
PRODUCT_OF_COLUMNS(bf16, "bf16")
PRODUCT_OF_COLUMNS(f16, "f16")

#undef ACC8
#undef ACC32
#undef NAMES32
#undef NAMES64
#undef WITH
#undef PRODUCT_OF_ROWS
#undef PRODUCT_OF_COLUMNS

#endif
}
#endif
