/* vec.h: the vector types of kern.h; the includer has defined L, the lanes. */
#ifndef MINISGL_DEV_CPU_VEC_H
#define MINISGL_DEV_CPU_VEC_H
#include <stdint.h>

typedef float vf __attribute__((vector_size(L * 4)));
typedef int32_t vi __attribute__((vector_size(L * 4)));
typedef uint32_t vu __attribute__((vector_size(L * 4)));

#endif
