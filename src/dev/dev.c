/* dev.c: what every device and its callers share. No state. */
#include "dev/dev.h"

const char *dtype_name(enum dtype t) {
    switch (t) {
    case DT_F32: return "float32";
    case DT_BF16: return "bfloat16";
    case DT_F16: return "float16";
    case DT_FP8_E4M3: return "fp8_e4m3";
    }
    return "unknown";
}
