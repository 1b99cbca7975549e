/* dispatch.c: picks the kernels for this machine by what the processor and the operating system offer. No state. */
#include "dev/cpu/ops.h"

#include <string.h>

struct isa {
    const struct cpu_ops *ops;
    bool (*here)(void);
};

static bool always(void) { return true; }

#if defined(__x86_64__)
/* f16c is not asked for: clang 14 has no name for it, and no processor has AVX2 and FMA without it. */
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
static bool has_avx512bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

/* From the best to the slowest. */
static const struct isa isas[] = {
#if defined(__x86_64__)
    {&cpu_ops_avx512bf16, has_avx512bf16},
    {&cpu_ops_avx512, has_avx512},
    {&cpu_ops_avx2, has_avx2},
#endif
    {&cpu_ops_generic, always},
    {&cpu_ops_ref, always},
};

const struct cpu_ops *cpu_ops_find(const char *isa, struct err *e) {
    bool any = !isa || !strcmp(isa, "auto");
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        if (!any && strcmp(isa, isas[i].ops->isa)) continue;
        if (isas[i].here()) return isas[i].ops;
        if (!any) {
            err_input(e, "expected an instruction set that this processor has, found \"%s\"; try \"auto\"", isa);
            return NULL;
        }
    }
    err_input(e, "expected one of auto, ref, generic, avx2, avx512, avx512bf16 as the instruction set, found \"%s\"", isa);
    return NULL;
}
