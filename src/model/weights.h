/* weights.h: the model's weights, bound once by a strict table: field, tensor name, shape, dtype, shard axis.
 *
 * A missing tensor, one that belongs nowhere (tied lm_head copies and rotary inv_freq buffers are known and let pass),
 * a wrong shape or dtype: one sentence that names it. Each tensor may be float32, float16 or bfloat16, whatever the
 * others are. Views point into the mapping (or, for dummy weights, into memory that this module made); nothing is
 * copied, but for a tensor that lies unaligned in its file. A rank's views cover its own shard only:
 *   axis N  rows of q, k, v, gate, up: rows [rank * n/ranks, ...); KV heads are replicated when ranks > n_kv_heads;
 *           embed_tokens and lm_head by eighths of the vocabulary, rounded up
 *   axis K  columns of o_proj, down_proj: views with ld = the whole K (dummy weights: ld = the rank's K)
 * Every rank has the biases of o_proj and down_proj: they are added to the sum over ranks.
 * Heads and ffn widths must be multiples of the ranks; KV heads a multiple or a divisor. */
#ifndef MINISGL_MODEL_WEIGHTS_H
#define MINISGL_MODEL_WEIGHTS_H
#include "base/err.h"
#include "model/config.h"
#include "model/safetensors.h"

struct shard {
    int32_t rank, n_ranks;
};

struct layer_weights {
    struct view input_norm, post_norm; /* [1, E] */
    struct view q, k, v, o;            /* [H D, E], [K D, E], [K D, E], [E, H D] */
    struct view q_bias, k_bias, v_bias, o_bias;
    struct view q_norm, k_norm;        /* [1, D] */
    struct view gate, up, down;        /* [F, E], [F, E], [E, F] */
    struct view gate_bias, up_bias, down_bias;
    struct view router;                /* [X, E] */
    struct view *experts;              /* [3 X]: gate, up, down of each; NULL in a dense layer */
};

struct weights {
    struct view embed;   /* [V, E] */
    struct view norm;    /* [1, E] */
    struct view lm_head; /* [V, E]; the embedding itself when tied */
    struct layer_weights *layers;
    int32_t n_layers;
    size_t bytes;        /* of this rank's views */
    void *owned;         /* memory of this module: dummy weights, aligned copies (owned.h); or NULL */
};

/* Bind to an open checkpoint, which must outlive the weights. */
int weights_bind(struct weights *w, const struct config *c, const struct checkpoint *from, struct shard shard,
                 struct err *e);
/* Random weights from the config alone: normal-like with standard deviation 0.02 (norms 1), the same for the same
 * seed, tensor name and element whatever the shard; memory is filled by n_threads. */
int weights_dummy(struct weights *w, const struct config *c, struct shard shard, uint64_t seed, int n_threads,
                  struct err *e);
/* Shapes alone: views whose data is not to be read, for asking what a model's operators will be. */
int weights_shapes(struct weights *w, const struct config *c, struct shard shard, struct err *e);
void weights_release(struct weights *w);

/* Touch every page of the weights that n_local ranks from `first` on will read, so that the first request does not wait for the disk: of
 * row-split tensors their rows, of the others all, since a page holds columns of all ranks. */
struct prefetch_args {
    const struct checkpoint *from;
    const struct config *config;
    struct shard first;
    int32_t n_local;
    int n_threads;
    /* May be NULL. Called now and then (bytes done, bytes in all, base name of the file), from any of the n_threads readers, one call at a
     * time. */
    void (*progress)(void *arg, size_t done, size_t all, const char *file);
    void *arg;
};
size_t weights_prefetch(const struct prefetch_args *a); /* how many bytes that were */

/* Write a whole checkpoint folder with the weights of weights_dummy(seed): config.json copied, model.safetensors in
 * shards of at most shard_bytes (0: one file; a larger tensor has a shard to itself) with an index when more than one,
 * tokenizer files copied when the source folder has them. out_dir is made; it must not have anything in it. */
int dummy_write(const char *model_dir, const char *out_dir, uint64_t seed, size_t shard_bytes, struct err *e);

#endif
