/* decoder.h: the ONE forward pass: turns a config and bound weights into the device's step program.
 *
 * Dense and MoE models, with or without biases, q/k norms, sliding windows, tied embeddings: all by data; a view
 * with data == NULL is a part the model lacks. */
#ifndef MINISGL_MODEL_DECODER_H
#define MINISGL_MODEL_DECODER_H
#include "dev/dev.h"
#include "model/weights.h"

struct decoder {
    struct op *ops;
    int32_t n_ops;
    struct rope rope;
};

void decoder_init(struct decoder *d, const struct config *c, const struct weights *w, struct shard shard);
void decoder_release(struct decoder *d);

/* The sizes a device needs for this model on this rank (page and batch limits are the caller's to fill). */
void decoder_shape(struct dev_shape *s, const struct config *c, const struct decoder *d, struct shard shard);

/* KV bytes of one page on one rank. */
size_t decoder_page_bytes(const struct config *c, struct shard shard, int32_t page_size, enum dtype kv);

#endif
