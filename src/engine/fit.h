/* fit.h: what a rank must hold of a model, counted from its config before anything is loaded. */
#ifndef MINISGL_ENGINE_FIT_H
#define MINISGL_ENGINE_FIT_H
#include "base/err.h"
#include "dev/dev.h"
#include "model/config.h"

struct fit_args {
    const struct config *config;
    int32_t n_ranks;
    const struct dev_maker *maker;
    struct dev_args dev; /* threads and instruction set of a rank */
    struct batch_limits limits;
    int32_t max_len, page_size;
    enum dtype dtype, kv_dtype; /* of weights (and activations), of the KV cache */
};

/* Bytes of rank 0, which holds the most. */
struct fit {
    size_t weights; /* in that dtype */
    size_t page;    /* of the KV cache, all layers */
    size_t kv;      /* the KV cache of one sequence of max_len tokens, and the dummy page */
    size_t buffers; /* everything else of the device: the sum of what beside weights and KV pages is in */
    struct dev_bytes parts;
};

/* -1: the model does not divide over so many ranks; *e says what does not. */
int fit_count(struct fit *f, const struct fit_args *a, struct err *e);

/* The longest sequence whose KV cache fits into `memory` bytes beside weights and buffers; 0: none. */
size_t fit_longest(const struct fit *f, size_t memory, int32_t page_size);

#endif
