/* generic.c: kern.h in plain C, four lanes: what every 64-bit processor has. No state. */
#define ISA_NAME "generic"
#define ISA_TABLE cpu_ops_generic
#define L 4
#define NR 2
#define MR 6
#define DOT 0
#define PART 4
#define turn_part turn

#include "dev/cpu/half.h"
#include "dev/cpu/vec.h"

#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_MAX(a, b) v_sel((a) > (b), a, b)
#define V_ANY(m) any(m)
#define V_DOT(acc, a, b) (acc)
#define HALVES 0
#define LINES 0

INLINE int any(vi m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }

INLINE void turn(const char *const *row, int64_t at, vu o[4]) {
    uint32_t a[4][4];
    UNROLL
    for (int r = 0; r < 4; r++) memcpy(a[r], row[r] + at, 16);
    UNROLL
    for (int i = 0; i < 4; i++) o[i] = (vu){a[0][i], a[1][i], a[2][i], a[3][i]};
}

static __attribute__((noinline)) vf v_f16_of(const uint16_t h[4]) {
    return (vf){f16_to_f32(h[0]), f16_to_f32(h[1]), f16_to_f32(h[2]), f16_to_f32(h[3])};
}
INLINE vf v_f16_lo(vu d) {
    return v_f16_of((uint16_t[]){(uint16_t)d[0], (uint16_t)d[1], (uint16_t)d[2], (uint16_t)d[3]});
}
INLINE vf v_f16_hi(vu d) { return v_f16_lo(d >> 16); }
INLINE vf v_f16_load(const void *p) {
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return v_f16_of(h);
}
INLINE void v_f16_store(void *p, vf a) {
    UNROLL
    for (int i = 0; i < 4; i++) store_any(p, DT_F16, (size_t)i, a[i]);
}

#include "dev/cpu/kern.h"
