/* formats.c: see formats.h. No state. Refuses to convert weights for the CPU: they are used where they lie in the mapped file, and a
 * converted copy of all of them would take the memory that the mapping saves and change no activation, which are float32 there. */
#include "formats.h"

#include <string.h>

static enum dtype dtype_of(const char *name, enum dtype automatic) {
    for (enum dtype t = DT_F32; t <= DT_FP8_E4M3; t++)
        if (!strcmp(name, dtype_name(t))) return t;
    return automatic;
}

int formats_choose(struct formats *f, const struct options *o, struct config *c, bool on_gpu, struct err *e) {
    enum dtype want = dtype_of(o->dtype, c->dtype);
    bool given = strcmp(o->dtype, "auto") != 0;
    if (o->dummy_weight) c->dtype = want;
    else if (!on_gpu && want != c->dtype)
        return err_input(e, "--dtype %s: the checkpoint is %s, and on the CPU weights are used as they lie in its files (activations are float32 "
                            "whatever they are): leave --dtype out, or compute on a GPU, which converts",
                         o->dtype, dtype_name(c->dtype));
    *f = (struct formats){.dtype = want, .kv_dtype = dtype_of(o->kv_dtype, want), .convert = given && on_gpu && !o->dummy_weight};
    return 0;
}
