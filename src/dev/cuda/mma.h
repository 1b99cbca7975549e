/* mma.h: the matrix unit's 16x8x16 product and what feeds it (PTX of sm_80 and later). CUDA C++ only.
 *
 * Fragments, by lane (g = lane / 4, c = lane % 4), two numbers a register:
 *   A [16, 16]  a0 (row g, k 2c..2c+1)  a1 (row g+8, same)  a2 (row g, k 2c+8..)  a3 (row g+8, k 2c+8..)
 *   B [16, 8]   b0 (k 2c..2c+1, col g)  b1 (k 2c+8.., col g)
 *   C [16, 8]   c0, c1 (row g, cols 2c, 2c+1)  c2, c3 (row g+8) */
#ifndef MINISGL_DEV_CUDA_MMA_H
#define MINISGL_DEV_CUDA_MMA_H
#include "dev/cuda/num.h"

__device__ __forceinline__ void mma(float c[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1, bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(float c[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1, f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

/* The same when rows 8..15 of A are zero: only c[0], c[1] exist. */
__device__ __forceinline__ void mma_half(float c[2], unsigned a0, unsigned a2, unsigned b0, unsigned b1, bf16) {
    float x, y;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%5},{%7,%8},{%0,%1,%9,%9};"
                 : "+f"(c[0]), "+f"(c[1]), "=f"(x), "=f"(y) : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1), "f"(0.f));
    (void)x, (void)y;
}
__device__ __forceinline__ void mma_half(float c[2], unsigned a0, unsigned a2, unsigned b0, unsigned b1, f16) {
    float x, y;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%5},{%7,%8},{%0,%1,%9,%9};"
                 : "+f"(c[0]), "+f"(c[1]), "=f"(x), "=f"(y) : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1), "f"(0.f));
    (void)x, (void)y;
}

/* Four 8x8 tiles of 2-byte numbers from shared memory; each lane names a row of 16 bytes. */
__device__ __forceinline__ void ldsm4(unsigned r[4], const void *p) {
    unsigned at = (unsigned)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
__device__ __forceinline__ void ldsm4_trans(unsigned r[4], const void *p) {
    unsigned at = (unsigned)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}

/* 16 bytes from global to shared memory without waiting; !real: zeros. */
__device__ __forceinline__ void copy16(void *to, const void *from, bool real) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(at), "l"(from), "r"(real ? 16 : 0));
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;"); }
template <int N> __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N)); }

#endif
