/* att_f16.cu: the fast attention kernels for f16. No state but what fi_init keeps. */
#include "dev/cuda/att_fa.h"
#include "dev/cuda/att_fa90.h"
#include "dev/cuda/att_fi.h"

static int init(void) {
    int bad = fa_init<f16, f16>();
    if (!bad) bad = fa90_init<f16>();
    return bad ? bad : fi_init<f16, f16>();
}

const struct att_kernels att_f16 = {DT_F16, DT_F16, fi_by_size<f16, f16>, fa_by_size<f16, f16>, fa90_by_size<f16>, init};
