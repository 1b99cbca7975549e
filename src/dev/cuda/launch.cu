/* launch.cu: whether kernels are started early. One flag for the process, written by launch_init when a device is opened (all GPUs of one
 * process are alike) and only read afterwards. */
#include "dev/cuda/kernel.h"
#include "dev/cuda/launch.h"

static bool is_early;

void launch_init(int major) { is_early = major >= 9; }
bool launch_is_early(void) { return is_early; }
