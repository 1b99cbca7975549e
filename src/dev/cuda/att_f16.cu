/* att_f16.cu: the fast attention kernels for f16. A file of its own, so that make compiles it beside the other. */
#include "dev/cuda/att_fa.h"
#include "dev/cuda/att_fi.h"

void att_fi_f16(struct tabs t, struct att_args a, cudaStream_t stream) { fi_by_size<f16>(t, a, stream); }
void att_fa_f16(struct tabs t, struct att_args a, cudaStream_t stream) { fa_by_size<f16>(t, a, stream); }
int att_init_f16(void) {
    int bad = fa_init<f16>();
    return bad ? bad : fi_init<f16>();
}
