/* att_f16_fp8.cu: the fast attention kernels for f16 over an fp8 cache. No state but what fi_init keeps. */
#include "dev/cuda/att_fa.h"
#include "dev/cuda/att_fi.h"

static int init(void) {
    int bad = fa_init<f16, e4m3>();
    return bad ? bad : fi_init<f16, e4m3>();
}

const struct att_kernels att_f16_fp8 = {DT_F16, DT_FP8_E4M3, fi_by_size<f16, e4m3>, fa_by_size<f16, e4m3>, nullptr, init};
