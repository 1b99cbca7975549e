/* vec.h: the vector types of kern.h; the includer has defined L, the lanes. */
#ifndef MINISGL_DEV_CPU_VEC_H
#define MINISGL_DEV_CPU_VEC_H
#include <stdint.h>

/* -O2 leaves loops over registers rolled, and the registers in memory. */
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* A vector whose origin the compiler forgets: it would rather shift a number before it spreads it over the lanes, through a
 * general register. */
#if defined(__x86_64__)
#define V_HIDE(v) __asm__ volatile("" : "+v"(v))
#else
#define V_HIDE(v) (void)(v)
#endif

typedef float vf __attribute__((vector_size(L * 4)));
typedef int32_t vi __attribute__((vector_size(L * 4)));
typedef uint32_t vu __attribute__((vector_size(L * 4)));
typedef float hf __attribute__((vector_size(L * 2))); /* half a vector */

#endif
