/* kern_avx512.c: kern.h with sixteen lanes and fused multiply-add in float32. No state. */
#define ISA_NAME "avx512"
#define ISA_TABLE cpu_ops_avx512
#define L 16
#define NR 4
#define MR 6
#define DOT 0

#include "dev/cpu/vec512.h"

#define V_DOT(acc, a, b) (acc)
#define V_DOT_HALF(acc, a, b) (acc)

#include "dev/cpu/kern.h"
