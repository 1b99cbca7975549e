/* weights.c: binding a checkpoint's tensors to the model by the table in slots.c. Runs at start in a rank's thread;
 * the views are constant afterwards.
 *
 * Refuses tensors that are missing, left over, of another shape than the config says, or of a dtype that the kernels
 * do not read. Nothing is copied, but for a tensor that lies unaligned in its file (old writers did that). */
#include "model/weights.h"

#include "base/mem.h"
#include "model/owned.h"
#include "model/slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bind {
    struct weights *w;
    const struct config *c;
    const struct checkpoint *from;
    struct shard shard;
    bool *used; /* [checkpoint_count] */
    struct err *e;
};

static int dtype_of(const struct tensor *t, enum dtype *out) {
    if (!strcmp(t->dtype, "BF16"))
        *out = DT_BF16;
    else if (!strcmp(t->dtype, "F16"))
        *out = DT_F16;
    else if (!strcmp(t->dtype, "F32"))
        *out = DT_F32;
    else
        return -1;
    return 0;
}

static const char *show_shape(const struct tensor *t, char out[200]) {
    int at = snprintf(out, 200, "[");
    for (int32_t i = 0; i < t->n_dims && at < 180; i++)
        at += snprintf(out + at, 200 - (size_t)at, "%s%lld", i ? ", " : "", (long long)t->dims[i]);
    snprintf(out + at, 200 - (size_t)at, "]");
    return out;
}

static int check_shape(const struct slot *s, const struct tensor *t, struct err *e) {
    char found[200];
    if (s->vector ? t->n_dims == 1 && t->dims[0] == s->k : t->n_dims == 2 && t->dims[0] == s->n && t->dims[1] == s->k)
        return 0;
    show_shape(t, found);
    if (s->vector)
        return err_input(e, "tensor %s in %s must have the shape [%d] by config.json, found %s", s->name, t->file, s->k,
                         found);
    return err_input(e, "tensor %s in %s must have the shape [%d, %d] by config.json, found %s", s->name, t->file, s->n,
                     s->k, found);
}

static int missing(const struct bind *b, const struct slot *s) {
    const char *hint = s->view == &b->w->lm_head ? " (config.json's tie_word_embeddings is not true)" : "";
    return err_input(b->e, "tensor %s is missing from the checkpoint%s; expected for %s", s->name, hint,
                     b->c->arch->name);
}

/* An aligned copy of the view's rows, for a tensor that begins at an odd address. */
static int realign(struct weights *w, struct view *v, struct err *e) {
    size_t row = (size_t)v->k * dtype_size(v->dtype), stride = (size_t)v->ld * dtype_size(v->dtype);
    char *to = owned_add(w, (size_t)v->n * row);
    if (!to) return err_machine(e, "no memory for an aligned copy of %zu bytes of weights", (size_t)v->n * row);
    for (int32_t i = 0; i < v->n; i++) memcpy(to + (size_t)i * row, (const char *)v->data + (size_t)i * stride, row);
    v->data = to;
    v->ld = v->k;
    return 0;
}

static int bind_slot(void *arg, const struct slot *s) {
    struct bind *b = arg;
    const struct tensor *t = checkpoint_find(b->from, s->name);
    enum dtype dtype;
    if (!t) return missing(b, s);
    b->used[t - checkpoint_at(b->from, 0)] = true;
    if (dtype_of(t, &dtype))
        return err_input(b->e, "tensor %s in %s has the dtype %s; expected F32, F16 or BF16", s->name, t->file,
                         t->dtype);
    if (check_shape(s, t, b->e)) return -1;
    struct part p = slot_part(s, b->c, b->shard);
    if (!p.n) return 0;
    size_t size = dtype_size(dtype);
    *s->view = (struct view){.dtype = dtype,
                             .n = p.n,
                             .k = p.k,
                             .ld = s->k,
                             .data = (const char *)t->data + ((size_t)p.row * (size_t)s->k + (size_t)p.col) * size};
    b->w->bytes += (size_t)p.n * (size_t)p.k * size;
    return (uintptr_t)s->view->data % size ? realign(b->w, s->view, b->e) : 0;
}

/* Buffers that old writers saved and that are computed anew, and a copy of the tied embedding. */
static bool may_be_left(const struct config *c, const char *name) {
    static const char inv[] = ".rotary_emb.inv_freq";
    size_t n = strlen(name);
    if (n > sizeof inv - 1 && !strcmp(name + n - (sizeof inv - 1), inv)) return true;
    return c->tied && !strcmp(name, "lm_head.weight");
}

static int check_left(const struct bind *b) {
    for (size_t i = 0; i < checkpoint_count(b->from); i++) {
        const struct tensor *t = checkpoint_at(b->from, i);
        if (!b->used[i] && !may_be_left(b->c, t->name))
            return err_input(b->e, "tensor %s in %s belongs nowhere in a %s with this config.json", t->name, t->file,
                             b->c->arch->name);
    }
    return 0;
}

int weights_bind(struct weights *w, const struct config *c, const struct checkpoint *from, struct shard shard,
                 struct err *e) {
    *w = (struct weights){0};
    if (shard_check(c, shard, e)) return -1;
    slots_prepare(w, c);
    struct bind b = {.w = w,
                     .c = c,
                     .from = from,
                     .shard = shard,
                     .e = e,
                     .used = mem_zalloc(checkpoint_count(from) + 1, sizeof *b.used)};
    int rc = slots_walk(w, c, bind_slot, &b);
    if (!rc) rc = check_left(&b);
    free(b.used);
    if (rc)
        weights_release(w);
    else if (c->tied)
        w->lm_head = w->embed;
    return rc;
}

void weights_release(struct weights *w) {
    for (int32_t i = 0; i < w->n_layers; i++) free(w->layers[i].experts);
    free(w->layers);
    owned_release(w);
    *w = (struct weights){0};
}
