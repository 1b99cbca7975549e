/* num.h: numbers in kernels: f32, bf16, f16 and fp8 to and from float, in vectors where memory is read; reductions; and which template
 * a dtype picks. CUDA C++ only. */
#ifndef MINISGL_DEV_CUDA_NUM_H
#define MINISGL_DEV_CUDA_NUM_H
#include "dev/dev.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;
struct e4m3 { /* a number of an fp8 cache */
    unsigned char code;
};

__device__ __forceinline__ float to_f(float x) { return x; }
__device__ __forceinline__ float to_f(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_f(f16 x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T from_f(float x);
template <> __device__ __forceinline__ float from_f<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f<bf16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ __forceinline__ f16 from_f<f16>(float x) { return __float2half_rn(x); }

__device__ __forceinline__ float to_f(e4m3 x) { return __half2float(__half(__nv_cvt_fp8_to_halfraw(x.code, __NV_E4M3))); }
template <> __device__ __forceinline__ e4m3 from_f<e4m3>(float x) { return {__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3)}; }

/* Two codes, in the low 16 bits, to a pair of f16. Without the instruction: a code's bits one place further to the right are an f16 that is
 * too small by 2^8, subnormal ones too. */
__device__ __forceinline__ unsigned e4m3_pair(unsigned u) {
#if __CUDA_ARCH__ >= 890
    unsigned h;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(h) : "h"((unsigned short)u));
    return h;
#else
    unsigned t = __byte_perm(u, 0, 0x1404), mag = t & 0x7f007f00, nan = __vcmpeq2(mag, 0x7f007f00), h = (t & 0x80008000) | mag >> 1;
    __half2 x = __hmul2(*reinterpret_cast<__half2 *>(&h), __float2half2_rn(256));
    return *reinterpret_cast<unsigned *>(&x) | nan;
#endif
}

/* Element i of an array whose dtype is known at run time only. */
__device__ __forceinline__ float load_any(const void *p, enum dtype t, size_t i) {
    if (t == DT_F32) return ((const float *)p)[i];
    if (t == DT_FP8_E4M3) return to_f(((const e4m3 *)p)[i]);
    return t == DT_BF16 ? to_f(((const bf16 *)p)[i]) : to_f(((const f16 *)p)[i]);
}
__device__ __forceinline__ void store_any(void *p, enum dtype t, size_t i, float f) {
    if (t == DT_F32) ((float *)p)[i] = f;
    else if (t == DT_BF16) ((bf16 *)p)[i] = from_f<bf16>(f);
    else if (t == DT_FP8_E4M3) ((e4m3 *)p)[i] = from_f<e4m3>(f);
    else ((f16 *)p)[i] = from_f<f16>(f);
}

__device__ __forceinline__ float2 pair_f(unsigned u, bf16) {
    return __bfloat1622float2(*reinterpret_cast<__nv_bfloat162 *>(&u));
}
__device__ __forceinline__ float2 pair_f(unsigned u, f16) { return __half22float2(*reinterpret_cast<__half2 *>(&u)); }
__device__ __forceinline__ unsigned pair_of(float a, float b, bf16) {
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *reinterpret_cast<unsigned *>(&h);
}
__device__ __forceinline__ unsigned pair_of(float a, float b, f16) {
    __half2 h = __floats2half2_rn(a, b);
    return *reinterpret_cast<unsigned *>(&h);
}

/* Four neighbours; p is aligned to four elements. */
__device__ __forceinline__ float4 load4(const float *p) { return *reinterpret_cast<const float4 *>(p); }
template <class T> __device__ __forceinline__ float4 load4(const T *p) {
    uint2 u = *reinterpret_cast<const uint2 *>(p);
    float2 a = pair_f(u.x, T()), b = pair_f(u.y, T());
    return make_float4(a.x, a.y, b.x, b.y);
}
__device__ __forceinline__ void store4(float *p, float4 v) { *reinterpret_cast<float4 *>(p) = v; }
template <class T> __device__ __forceinline__ void store4(T *p, float4 v) {
    *reinterpret_cast<uint2 *>(p) = make_uint2(pair_of(v.x, v.y, T()), pair_of(v.z, v.w, T()));
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int m = 16; m; m >>= 1) x += __shfl_xor_sync(~0u, x, m);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int m = 16; m; m >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, m));
    return x;
}

/* Sum over a block of whole warps; every thread gets it. `room`: 33 floats of shared memory. */
__device__ __forceinline__ float block_sum(float x, float *room) {
    x = warp_sum(x);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = blockDim.x / 32;
    if (lane == 0) room[warp] = x;
    __syncthreads();
    if (warp == 0) {
        float s = warp_sum(lane < n ? room[lane] : 0);
        if (lane == 0) room[32] = s;
    }
    __syncthreads();
    return room[32];
}

/* CALL with A a type: the dtype's. */
#define BY_DTYPE(t, ...)                                                                                                          \
    do {                                                                                                                          \
        if ((t) == DT_F32) { typedef float A; __VA_ARGS__; }                                                                      \
        else if ((t) == DT_BF16) { typedef bf16 A; __VA_ARGS__; }                                                                 \
        else { typedef f16 A; __VA_ARGS__; }                                                                                      \
    } while (0)

#endif
