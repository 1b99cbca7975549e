/* dispatch.c: picks the kernels for this machine by what the processor and the operating system offer. No state. */
#include "dev/cpu/ops.h"

#include <string.h>

struct isa {
    const struct cpu_ops *ops;
    bool (*here)(void);
};

static bool always(void) { return true; }

/* From the best to the slowest. */
static const struct isa isas[] = {
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
