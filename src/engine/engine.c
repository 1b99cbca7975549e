/* engine.c: see engine.h. State belongs to the scheduler thread. */
#include "engine/engine.h"

#include "base/mem.h"
#include "model/decoder.h"

#include <stdlib.h>

struct engine {
    const struct dev_maker *maker;
    struct decoder decoder;
    struct dev *dev;
    struct result result;
};

static int load(struct engine *g, const struct engine_args *a, struct err *e) {
    struct shard whole = {.rank = 0, .n_ranks = 1};
    decoder_init(&g->decoder, a->config, a->weights, whole);
    struct dev_shape shape;
    decoder_shape(&shape, a->config, &g->decoder, whole);
    shape.max_len = a->max_len;
    shape.page_size = a->page_size;
    shape.n_pages = a->n_pages;
    shape.kv_dtype = a->kv_dtype;
    shape.limits = a->limits;
    struct dev_program prog = {.ops = g->decoder.ops, .n_ops = g->decoder.n_ops};
    g->result.rows = mem_zalloc((size_t)a->limits.max_seqs, sizeof *g->result.rows);
    return g->maker->load(g->dev, &shape, &prog, e);
}

int engine_open(struct engine **out, const struct engine_args *a, struct err *e) {
    struct engine *g = mem_zalloc(1, sizeof *g);
    g->maker = a->maker;
    if (a->maker->abi != DEV_ABI) {
        free(g);
        return err_machine(e, "the %s backend speaks device ABI %u, this program %u: rebuild both", a->maker->name,
                           a->maker->abi, DEV_ABI);
    }
    struct dev_args dev = a->dev;
    dev.rank = 0;
    dev.n_ranks = 1;
    if (g->maker->open(&g->dev, &dev, e)) {
        free(g);
        return -1;
    }
    if (load(g, a, e)) {
        engine_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

void engine_close(struct engine *g) {
    if (!g) return;
    g->maker->close(g->dev);
    decoder_release(&g->decoder);
    free(g->result.rows);
    free(g);
}

bool engine_async(const struct engine *g) { return g->maker->async; }

const char *engine_describe(const struct engine *g) { return g->maker->describe(g->dev); }

int engine_launch(struct engine *g, const struct batch *b, struct err *e) {
    return g->maker->launch(g->dev, b, e);
}

int engine_collect(struct engine *g, const struct result **r, struct err *e) {
    *r = &g->result;
    return g->maker->collect(g->dev, &g->result, e);
}
