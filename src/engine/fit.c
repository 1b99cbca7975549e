/* fit.c: see fit.h. No state. Refuses degrees that do not divide the model. */
#include "engine/fit.h"

#include "model/decoder.h"
#include "model/slots.h"

struct sum {
    const struct config *c;
    enum dtype dtype;
    struct shard shard;
    size_t bytes;
};

static int add(void *arg, const struct slot *slot) {
    struct sum *s = arg;
    struct part p = slot_part(slot, s->c, s->shard);
    s->bytes += (size_t)p.n * (size_t)p.k * dtype_size(s->dtype);
    return 0;
}

/* What the device takes beside the KV cache, as it says itself. */
static int count_buffers(struct fit *f, const struct fit_args *a, struct shard shard, int32_t pages, struct err *e) {
    struct dev *d;
    struct dev_args one = a->dev;
    one.rank = 0;
    one.n_ranks = 1; /* only counting: no communicator, no library that is slow to start */
    one.gpu_comm = NULL;
    one.prefill_cudnn = false;
    if (a->maker->open(&d, &one, e)) return -1;
    struct decoder decoder = {0};
    struct dev_shape shape;
    rope_init(&decoder.rope, a->config);
    decoder_shape(&shape, a->config, &decoder, shard);
    shape.max_len = a->max_len;
    shape.page_size = a->page_size;
    shape.n_pages = pages;
    shape.kv_dtype = a->kv_dtype;
    shape.dtype = a->dtype;
    shape.limits = a->limits;
    a->maker->plan(d, &shape, &f->parts);
    f->buffers = dev_bytes_beside(&f->parts);
    decoder_release(&decoder);
    a->maker->close(d);
    return 0;
}

int fit_count(struct fit *f, const struct fit_args *a, struct err *e) {
    struct shard shard = {.rank = 0, .n_ranks = a->n_ranks};
    struct sum s = {.c = a->config, .dtype = a->dtype, .shard = shard};
    *f = (struct fit){0};
    if (shard_check(a->config, shard, e)) return -1;
    slots_walk(NULL, a->config, add, &s);
    int32_t pages = (a->max_len + a->page_size - 1) / a->page_size + 1;
    f->weights = s.bytes;
    f->page = decoder_page_bytes(a->config, shard, a->page_size, a->kv_dtype);
    f->kv = (size_t)pages * f->page;
    return count_buffers(f, a, shard, pages, e);
}

size_t fit_longest(const struct fit *f, size_t memory, int32_t page_size) {
    size_t taken = f->weights + f->buffers + f->page;
    return memory > taken ? (memory - taken) / f->page * (size_t)page_size : 0;
}
