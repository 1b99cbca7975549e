/* att_kv.h: how tiles of K and V become fragments of the matrix unit, by the cache's dtype C and the activations' A. M is what is multiplied.
 * CUDA C++ only.
 *
 * Two-byte caches are read as they lie. fp8 lies in shared memory as it does in the cache, ldmatrix takes two neighbours for one number, and
 * they become f16 in registers, which holds all of fp8 exactly; so M is f16 whatever A is. A lane then has the columns of D in another
 * order than for two-byte numbers: in K's product that is a sum, so Q is laid out the same way; in V's it is the order of outputs (col). */
#ifndef MINISGL_DEV_CUDA_ATT_KV_H
#define MINISGL_DEV_CUDA_ATT_KV_H
#include "dev/cuda/mma.h"

template <class A, class C> struct kv_frags;

template <class A> struct kv_frags<A, A> {
    typedef A M;
    static constexpr int STEPS = 1; /* steps of 16 along D that one load gives */
    /* b[step] = {b0, b1} of positions 0..7 and of 8..15 */
    static __device__ __forceinline__ void k(unsigned (&b)[1][4], const void *p) { ldsm4(b[0], p); }
    /* b[step] = {b0, b1} of two tiles of 8 columns */
    static __device__ __forceinline__ void v(unsigned (&b)[1][4], const void *p) { ldsm4_trans(b[0], p); }
    /* where in 16 columns of Q a lane's pair lies: k = 2c and 2c + 8 of the fragment */
    static __device__ __forceinline__ int q_at(int c, int high) { return 2 * c + 8 * high; }
    /* the column of D of number i (0, 1) in column tile n of the output */
    static __device__ __forceinline__ int col(int n, int c, int i) { return 8 * n + 2 * c + i; }
    static __device__ __forceinline__ unsigned q(unsigned pair) { return pair; }
};

template <class A> struct kv_frags<A, e4m3> {
    typedef f16 M;
    static constexpr int STEPS = 2;
    static __device__ __forceinline__ void k(unsigned (&b)[2][4], const void *p) {
        unsigned r[4];
        ldsm4(r, p);
#pragma unroll
        for (int s = 0; s < 2; s++)
#pragma unroll
            for (int g = 0; g < 2; g++) b[s][2 * g] = e4m3_pair(r[2 * g + s]), b[s][2 * g + 1] = e4m3_pair(r[2 * g + s] >> 16);
    }
    /* A register has two columns of two positions: even columns to one tile, odd ones to the next. */
    static __device__ __forceinline__ void v(unsigned (&b)[2][4], const void *p) {
        unsigned r[4];
        ldsm4_trans(r, p);
#pragma unroll
        for (int s = 0; s < 2; s++) {
            unsigned x = __byte_perm(r[2 * s], 0, 0x3120), y = __byte_perm(r[2 * s + 1], 0, 0x3120);
            b[s][0] = e4m3_pair(x), b[s][1] = e4m3_pair(y), b[s][2] = e4m3_pair(x >> 16), b[s][3] = e4m3_pair(y >> 16);
        }
    }
    static __device__ __forceinline__ int q_at(int c, int high) { return 4 * c + 2 * high; }
    static __device__ __forceinline__ int col(int n, int c, int i) { return n / 2 * 16 + 4 * c + 2 * i + (n & 1); }
    static __device__ __forceinline__ unsigned q(unsigned pair) {
        float2 x = pair_f(pair, A());
        return pair_of(x.x, x.y, f16());
    }
};

#endif
