/* weights_shapes.c: weights that are shapes only. No state. */
#include "model/slots.h"
#include "model/weights.h"

struct shapes {
    const struct config *c;
    struct shard shard;
};

static int set_shape(void *arg, const struct slot *s) {
    static const char nothing;
    const struct shapes *m = arg;
    struct part p = slot_part(s, m->c, m->shard);
    if (p.n) *s->view = (struct view){.data = &nothing, .dtype = m->c->dtype, .n = p.n, .k = p.k, .ld = p.k};
    return 0;
}

int weights_shapes(struct weights *w, const struct config *c, struct shard shard, struct err *e) {
    *w = (struct weights){0};
    if (shard_check(c, shard, e)) return -1;
    slots_prepare(w, c);
    slots_walk(w, c, set_shape, &(struct shapes){c, shard});
    if (c->tied) w->lm_head = w->embed;
    return 0;
}
