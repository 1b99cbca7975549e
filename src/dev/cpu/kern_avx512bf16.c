/* kern_avx512bf16.c: kern.h with sixteen lanes; bf16 weights go through the bf16 dot product. No state. */
#define ISA_NAME "avx512bf16"
#define ISA_TABLE cpu_ops_avx512bf16
#define L 16
#define NR 4
#define MR 6
#define DOT 1

#include "dev/cpu/vec512.h"

#define V_DOT(acc, a, b) ((vf)_mm512_dpbf16_ps((__m512)(acc), (__m512bh)(a), (__m512bh)(b)))
#define V_DOT_HALF(acc, a, b) ((hf)_mm256_dpbf16_ps((__m256)(acc), (__m256bh)(a), (__m256bh)(b)))

#include "dev/cpu/kern.h"
