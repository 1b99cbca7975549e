/* att_bf16.cu: the fast attention kernels for bf16. No state but what fi_init keeps. */
#include "dev/cuda/att_fa.h"
#include "dev/cuda/att_fa90.h"
#include "dev/cuda/att_fi.h"

static int init(void) {
    int bad = fa_init<bf16, bf16>();
    if (!bad) bad = fa90_init<bf16>();
    return bad ? bad : fi_init<bf16, bf16>();
}

const struct att_kernels att_bf16 = {DT_BF16, DT_BF16, fi_by_size<bf16, bf16>, fa_by_size<bf16, bf16>, fa90_by_size<bf16>, init};
