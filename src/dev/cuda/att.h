/* att.h: what the attention kernels share: where K and V lie, and which sizes get a template. CUDA C++ only. */
#ifndef MINISGL_DEV_CUDA_ATT_H
#define MINISGL_DEV_CUDA_ATT_H
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"
#include "dev/cuda/att_kv.h"

template <class T> __device__ __forceinline__ const T *block_part(const struct step_head *h, uint32_t at) {
    return reinterpret_cast<const T *>(reinterpret_cast<const char *>(h) + at);
}

/* Element of the K row of `head` at position pos; V's is n_kv_heads * P * D elements further. */
__device__ __forceinline__ size_t kv_at(const struct att_args &a, const int32_t *pages, int head, int pos) {
    int index = a.page_shift >= 0 ? pos >> a.page_shift : pos / a.page_size, in = pos - index * a.page_size;
    return (((size_t)pages[index] * 2 * a.n_kv_heads + head) * a.page_size + in) * a.head_dim;
}

/* The first position that a token at `pos` sees. */
__device__ __forceinline__ int first_seen(const struct att_args &a, int pos) {
    return a.window > 0 && pos - a.window + 1 > 0 ? pos - a.window + 1 : 0;
}

#define LOG2E 1.4426950408889634f

/* One pair of activations' and cache's dtypes; the files att_*.cu make them from att_fi.h, att_fa.h and att_fa90.h, so that make compiles them side by side. */
struct att_kernels {
    enum dtype a, kv;
    void (*fi)(struct tabs t, struct att_args a, cudaStream_t stream);
    void (*fa)(struct tabs t, struct att_args a, cudaStream_t stream);
    void (*fa90)(struct tabs t, struct att_args a, cudaStream_t stream); /* or NULL */
    int (*init)(void); /* a cudaError_t */
};
extern const struct att_kernels att_bf16, att_f16, att_bf16_fp8, att_f16_fp8;

#endif
