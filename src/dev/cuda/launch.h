/* launch.h: how kernels are started: with programmatic launches where the GPU has them (9.0 and later), so that a kernel's blocks are set
 * up while the one before it ends. CUDA C++ only. The law: a kernel started by launch() calls early() before it reads or writes anything that
 * another kernel touches. */
#ifndef MINISGL_DEV_CUDA_LAUNCH_H
#define MINISGL_DEV_CUDA_LAUNCH_H
#include <cuda_runtime.h>

/* Lets the next kernel's blocks come, then waits until the kernel before is done and its writes are seen. */
__device__ __forceinline__ void early() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

extern "C" bool launch_is_early(void); /* launch.cu */

template <class... P, class... Q>
static inline void launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, Q... args) {
    cudaLaunchAttribute a[1];
    a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    a[0].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = stream;
    c.attrs = a;
    c.numAttrs = launch_is_early() ? 1 : 0;
    cudaLaunchKernelEx(&c, kernel, P(args)...);
}

#endif
