/* formats.h: which number formats a run computes with: what --dtype and --kv-cache-dtype mean for this model on this device. */
#ifndef MINISGL_FORMATS_H
#define MINISGL_FORMATS_H
#include "base/err.h"
#include "dev/dev.h"
#include "model/config.h"
#include "opt.h"

struct formats {
    enum dtype dtype;    /* of weights, and on a GPU of activations */
    enum dtype kv_dtype; /* of the KV cache; `auto`: as dtype */
    bool convert;        /* weights are brought to dtype as they are copied to the GPU */
};

/* Dummy weights are made in the format that is wanted: then c->dtype becomes that. -1: a GPU would convert, the CPU does not. */
int formats_choose(struct formats *f, const struct options *o, struct config *c, bool on_gpu, struct err *e);

#endif
