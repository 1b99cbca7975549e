/* slots.h: the table of a model's weights: which tensor goes where, with what shape, split along which axis.
 *
 * Binding, dummy weights and writing a checkpoint all walk this one list, in this order: embedding, layers, norm,
 * output head. Only tensors that the config asks for are listed; a tied output head is not. */
#ifndef MINISGL_MODEL_SLOTS_H
#define MINISGL_MODEL_SLOTS_H
#include "model/weights.h"

enum split {
    SPLIT_NONE,    /* every rank has the whole */
    SPLIT_ROWS,    /* axis N; a vector's only axis */
    SPLIT_KV_ROWS, /* axis N by KV heads, replicated when there are fewer than ranks */
    SPLIT_COLS,    /* axis K */
    SPLIT_VOCAB    /* axis N by eighths of the vocabulary, rounded up: the last share is shorter */
};

enum { SLOT_NAME_MAX = 96 };

struct slot {
    char name[SLOT_NAME_MAX];
    struct view *view; /* where it goes; NULL when walked without weights */
    int32_t n, k;      /* the whole tensor: [n, k], or [k] for a vector (n is 1) */
    bool vector, norm; /* norm: a vector that multiplies, 1 in dummy weights */
    enum split split;
};

/* The part of a slot that a rank holds: rows [row, row + n), columns [col, col + k). n == 0: nothing. */
struct part {
    int32_t row, n, col, k;
};

/* Make the layer arrays of w for this config (views are empty). */
void slots_prepare(struct weights *w, const struct config *c);
/* Call each(arg, slot) for every weight; stops at the first non-zero answer and returns it. w may be NULL. */
int slots_walk(struct weights *w, const struct config *c, int (*each)(void *arg, const struct slot *s), void *arg);

/* That the config divides over the ranks (1, 2, 4 or 8): heads, KV heads (or ranks by them), ffn widths. */
int shard_check(const struct config *c, struct shard shard, struct err *e);
/* A rank's ids of the vocabulary: [from, from + count). */
void vocab_share(const struct config *c, struct shard shard, int32_t *from, int32_t *count);
struct part slot_part(const struct slot *s, const struct config *c, struct shard shard);

#endif
