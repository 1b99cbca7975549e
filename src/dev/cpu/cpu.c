/* cpu.c: a CPU device: its life and its memory. Owned by the rank thread; the compute threads are in pool.c. It refuses a
 * program whose shapes do not fit the buffers, and more than one rank without a communicator. */
#include "dev/cpu/device.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MINISGL_BUILD_ID
#define MINISGL_BUILD_ID "source"
#endif

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

/* ---- sizes ---- */

static void buffer_sizes(const struct dev_shape *s, size_t width[BUF_COUNT], size_t rows[BUF_COUNT]) {
    size_t E = (size_t)s->hidden, HD = (size_t)s->n_heads * (size_t)s->head_dim, KD = (size_t)s->n_kv_heads * (size_t)s->head_dim;
    const size_t w[BUF_COUNT] = {[BUF_H] = E,           [BUF_X] = E,   [BUF_QKV] = HD + 2 * KD,
                                 [BUF_ATT] = HD,        [BUF_GU] = 2 * (size_t)s->ffn,
                                 [BUF_FF] = (size_t)s->ffn, [BUF_Y] = E, [BUF_ROWS] = E,
                                 [BUF_LOGITS] = (size_t)s->vocab};
    for (int i = 0; i < BUF_COUNT; i++) {
        width[i] = w[i];
        rows[i] = (size_t)(i == BUF_ROWS || i == BUF_LOGITS ? s->limits.max_seqs : s->limits.max_tokens);
    }
}

static size_t page_size_bytes(const struct dev_shape *s) {
    return 2 * (size_t)s->n_kv_heads * (size_t)s->page_size * (size_t)s->head_dim * dtype_size(s->kv_dtype);
}

static int32_t table_length(const struct dev_shape *s) { return (s->max_len + s->page_size - 1) / s->page_size; }

/* The widest input of a LINEAR, rounded: K plus one for each odd slice. */
static size_t xh_elements(const struct dev_shape *s) {
    size_t w[BUF_COUNT], r[BUF_COUNT], most = 0, rows = 0;
    buffer_sizes(s, w, r);
    for (int i = 0; i < BUF_COUNT; i++) {
        if (i != BUF_LOGITS && w[i] > most) most = w[i];
        if (r[i] > rows) rows = r[i];
    }
    return rows * (most + K_SLICES_MAX);
}

/* The same turned: whole blocks of rows, dwords. */
static size_t xt_elements(const struct dev_shape *s) {
    size_t rows = (size_t)(s->limits.max_tokens > s->limits.max_seqs ? s->limits.max_tokens : s->limits.max_seqs);
    return xh_elements(s) / rows * (rows + LANES_MAX);
}

static size_t scratch_bytes(const struct dev *d, const struct dev_shape *s) {
    size_t most = 0;
    for (int32_t k = 1; k <= K_SLICES_MAX; k *= 2) {
        int32_t rows = s->limits.max_tokens > s->limits.max_seqs ? s->limits.max_tokens : s->limits.max_seqs;
        size_t n = d->ops->lin_scratch(rows < 256 ? rows : 256, k);
        if (n > most) most = n;
    }
    size_t n = d->ops->att_scratch(ATT_ROWS, s->head_dim);
    return align64(n > most ? n : most);
}

static void cpu_plan(const struct dev *d, const struct dev_shape *s, struct dev_bytes *b) {
    size_t w[BUF_COUNT], r[BUF_COUNT], T = (size_t)s->limits.max_tokens, S = (size_t)s->limits.max_seqs;
    buffer_sizes(s, w, r);
    *b = (struct dev_bytes){.kv = (size_t)s->n_layers * (size_t)s->n_pages * page_size_bytes(s)};
    for (int i = 0; i < BUF_COUNT; i++) b->activations += align64(w[i] * r[i] * sizeof(float));
    b->activations += xh_elements(s) * 2 + xt_elements(s) * 4;
    b->tables = T * (12 + (size_t)s->head_dim * 4) +
                S * ((size_t)table_length(s) * 4 + sizeof(struct sampling) + 2 * sizeof(struct result_row) + sizeof(struct att_seq));
    b->workspace = (size_t)d->args.n_threads * scratch_bytes(d, s) + sampler_bytes(s->vocab, s->limits.max_seqs);
}

static void cpu_loaded(const struct dev *d, struct dev_loaded *l) {
    *l = (struct dev_loaded){0};
    cpu_plan(d, &d->shape, &l->bytes);
}

/* ---- checks ---- */

static int check_shape(const struct dev_shape *s, struct err *e) {
    if (s->n_layers < 0 || s->n_heads < 1 || s->n_kv_heads < 1 || s->head_dim < 2 || s->hidden < 1 || s->ffn < 0 || s->vocab < 1)
        return err_input(e, "expected positive model sizes, found %d layers, %d heads, %d KV heads of %d, hidden %d, vocabulary %d",
                         s->n_layers, s->n_heads, s->n_kv_heads, s->head_dim, s->hidden, s->vocab);
    if (s->n_heads % s->n_kv_heads)
        return err_input(e, "expected the number of heads to be a multiple of the KV heads, found %d and %d", s->n_heads,
                         s->n_kv_heads);
    if (s->head_dim % 2 || s->head_dim > HEAD_DIM_MAX)
        return err_input(e, "expected an even head size up to %d, found %d", HEAD_DIM_MAX, s->head_dim);
    if (s->page_size < 1 || s->n_pages < 1 || s->max_len < 1 || s->limits.max_tokens < 1 || s->limits.max_seqs < 1)
        return err_input(e, "expected positive limits, found page size %d, %d pages, length %d, %d tokens and %d sequences a step",
                         s->page_size, s->n_pages, s->max_len, s->limits.max_tokens, s->limits.max_seqs);
    if (s->vocab_first < 0 || (s->vocab_total && s->vocab_first > s->vocab_total - s->vocab))
        return err_input(e, "expected a share of the vocabulary of %d, found %d ids from %d", s->vocab_total, s->vocab, s->vocab_first);
    return 0;
}

static int check_linear(const struct dev *d, const struct op *o, int32_t at, struct err *e) {
    int64_t n = 0;
    int32_t k = o->w[0].k, slices = o->k_slices > 0 ? o->k_slices : 1;
    for (int i = 0; i < 3; i++) {
        if (!o->w[i].data) continue;
        if (o->w[i].k != k || o->w[i].n < 1 || o->w[i].ld < k)
            return err_input(e, "operator %d: expected weights side by side with %d columns, found [%d, %d] with row stride %lld", at, k,
                             o->w[i].n, o->w[i].k, (long long)o->w[i].ld);
        n += o->w[i].n;
    }
    if (!o->w[0].data || k < 1 || (size_t)k > d->width[o->in] || n > (int64_t)d->width[o->out])
        return err_input(e, "operator %d: a weight of [%lld, %d] does not fit its buffers of %zu and %zu columns", at, (long long)n, k,
                         d->width[o->out], d->width[o->in]);
    if (slices > K_SLICES_MAX || (slices & (slices - 1)) || k % slices)
        return err_input(e, "operator %d: expected K slices (1, 2, 4, 8) that divide %d, found %d", at, k, o->k_slices);
    return 0;
}

static int check_op(const struct dev *d, const struct op *o, int32_t at, struct err *e) {
    if ((unsigned)o->in >= BUF_COUNT || (unsigned)o->in2 >= BUF_COUNT || (unsigned)o->out >= BUF_COUNT)
        return err_input(e, "operator %d names a buffer that does not exist", at);
    if (o->kind == OP_LINEAR) return check_linear(d, o, at, e);
    if (o->kind == OP_ROPE_KV || o->kind == OP_ATTENTION) {
        if (o->layer < 0 || o->layer >= d->shape.n_layers)
            return err_input(e, "operator %d: expected a layer below %d, found %d", at, d->shape.n_layers, o->layer);
    }
    if (o->kind == OP_ROPE_KV && d->shape.rope.dim != d->shape.head_dim)
        return err_input(e, "operator %d: expected a rotary size of %d, found %d", at, d->shape.head_dim, d->shape.rope.dim);
    if (o->kind == OP_NORM && (size_t)o->w[0].k > d->width[o->in])
        return err_input(e, "operator %d: a norm of %d does not fit its buffer of %zu columns", at, o->w[0].k, d->width[o->in]);
    if (o->kind == OP_MOE && (o->n_experts < 1 || o->top_k < 1 || o->top_k > o->n_experts))
        return err_input(e, "operator %d: expected 1 to %d experts a token, found %d", at, o->n_experts, o->top_k);
    return 0;
}

/* ---- vectors ---- */

/* Norm weights and biases of the program: the views that are read as float32 vectors. */
static const struct view *vector_view(const struct op *o, int i) {
    const struct view *v = NULL;
    if (o->kind == OP_LINEAR || o->kind == OP_REDUCE)
        v = &o->bias[i];
    else if ((o->kind == OP_NORM && i == 0) || (o->kind == OP_ROPE_KV && i < 2))
        v = &o->w[i];
    return v && v->data ? v : NULL;
}

static size_t view_length(const struct view *v) { return (size_t)v->n * (size_t)v->k; }

static void copy_vectors(struct dev *d) {
    size_t n = 0;
    for (int32_t o = 0; o < d->n_ops; o++)
        for (int i = 0; i < 3; i++) {
            const struct view *v = vector_view(&d->prog[o], i);
            if (v) n += align64(view_length(v) * sizeof(float));
        }
    d->vectors = mem_zalloc((size_t)d->n_ops, sizeof *d->vectors);
    d->vector_memory = mem_aligned(64, n);
    char *at = (char *)d->vector_memory;
    for (int32_t o = 0; o < d->n_ops; o++)
        for (int i = 0; i < 3; i++) {
            const struct view *v = vector_view(&d->prog[o], i);
            if (!v) continue;
            d->ops->load((float *)(void *)at, v->data, v->dtype, (int32_t)view_length(v));
            d->vectors[o].v[i] = (float *)(void *)at;
            at += align64(view_length(v) * sizeof(float));
        }
}

/* ---- life ---- */

static void unload(struct dev *d) {
    touch_free(d->touch);
    d->touch = NULL;
    if (d->kv) munmap(d->kv, d->kv_bytes);
    d->kv = NULL;
    for (int i = 0; i < BUF_COUNT; i++) {
        free(d->buf[i]);
        d->buf[i] = NULL;
    }
    for (int32_t t = 0; t < d->args.n_threads; t++) {
        if (d->scratch) free(d->scratch[t]);
    }
    sampler_free(d->sampler);
    d->sampler = NULL;
    void **all[] = {(void **)&d->vectors, (void **)&d->vector_memory, (void **)&d->xh, (void **)&d->xt, (void **)&d->tables,
                    (void **)&d->sampling, (void **)&d->last, (void **)&d->scratch, (void **)&d->sample_rows,
                    (void **)&d->token, (void **)&d->pos, (void **)&d->seq_of, (void **)&d->cos,
                    (void **)&d->sin, (void **)&d->att, (void **)&d->pending[0].rows, (void **)&d->pending[1].rows};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(*all[i]);
        *all[i] = NULL;
    }
    moe_release(d);
    d->n_ops = 0;
    d->n_pending = 0;
}

static int map_kv(struct dev *d, struct err *e) {
    const struct dev_shape *s = &d->shape;
    d->page_bytes = page_size_bytes(s);
    if (!size_mul(d->page_bytes, (size_t)s->n_pages, &d->layer_bytes) ||
        !size_mul(d->layer_bytes, s->n_layers ? (size_t)s->n_layers : 1, &d->kv_bytes))
        return err_input(e, "a KV cache of %d pages is too large; lower the number of pages", s->n_pages);
    void *p = mmap(NULL, d->kv_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return err_machine(e, "the system refused %zu MiB for the KV cache; lower the number of pages", d->kv_bytes >> 20);
    madvise(p, d->kv_bytes, MADV_HUGEPAGE);
    d->kv = p;
    return 0;
}

/* Large buffers in large pages: their rows lie far apart. */
static void *buffer_new(size_t bytes) {
    const size_t huge = 2 << 20;
    bool large = bytes >= 2 * huge;
    void *p = mem_aligned(large ? huge : 64, bytes);
    if (large) madvise(p, bytes / huge * huge, MADV_HUGEPAGE);
    return p;
}

static void allocate(struct dev *d) {
    const struct dev_shape *s = &d->shape;
    size_t T = (size_t)s->limits.max_tokens, S = (size_t)s->limits.max_seqs, n_threads = (size_t)d->args.n_threads;
    for (int i = 1; i < BUF_COUNT; i++) d->buf[i] = buffer_new(d->width[i] * d->rows[i] * sizeof(float));
    d->xh = buffer_new(xh_elements(s) * sizeof *d->xh);
    d->xt = buffer_new(xt_elements(s) * sizeof *d->xt);
    d->table_len = table_length(s);
    d->tables = mem_zalloc(S * (size_t)d->table_len, sizeof *d->tables);
    d->sampling = mem_zalloc(S, sizeof *d->sampling);
    for (size_t i = 0; i < S; i++) d->sampling[i] = (struct sampling){.top_p = 1, .n_logprobs = -1};
    d->last = mem_zalloc(S, sizeof *d->last);
    d->scratch = mem_zalloc(n_threads, sizeof *d->scratch);
    for (size_t t = 0; t < n_threads; t++) d->scratch[t] = mem_aligned(64, scratch_bytes(d, s));
    d->sample_rows = mem_zalloc(S, sizeof *d->sample_rows);
    d->sampler = sampler_new(&(struct sampler_args){.ops = d->ops, .pool = d->pool, .comm = d->args.comm, .first = s->vocab_first,
                                                    .n_ids = s->vocab, .n_total = s->vocab_total, .max_rows = s->limits.max_seqs});
    d->token = mem_zalloc(T, sizeof *d->token);
    d->pos = mem_zalloc(T, sizeof *d->pos);
    d->seq_of = mem_zalloc(T, sizeof *d->seq_of);
    d->cos = mem_zalloc(T * (size_t)(s->head_dim / 2), sizeof *d->cos);
    d->sin = mem_zalloc(T * (size_t)(s->head_dim / 2), sizeof *d->sin);
    d->att = mem_zalloc(S, sizeof *d->att);
    for (int i = 0; i < 2; i++) d->pending[i].rows = mem_zalloc(S, sizeof *d->pending[i].rows);
}

/* What the first requests will write. Rows of logits come by ones: not all that there may be. */
static void touch_ahead(struct dev *d) {
    enum { ROWS_OF_LOGITS = 32 };
    struct touch_area areas[BUF_COUNT + 2];
    int n = 0;
    for (int i = 1; i < BUF_COUNT; i++) {
        size_t rows = i == BUF_LOGITS && d->rows[i] > ROWS_OF_LOGITS ? ROWS_OF_LOGITS : d->rows[i];
        areas[n++] = (struct touch_area){(char *)d->buf[i], d->width[i] * rows * sizeof(float)};
    }
    areas[n++] = (struct touch_area){(char *)d->xh, xh_elements(&d->shape) * sizeof *d->xh};
    areas[n++] = (struct touch_area){(char *)d->xt, xt_elements(&d->shape) * sizeof *d->xt};
    size_t pages = TOUCH_AHEAD_TOKENS / (size_t)d->shape.page_size + 1;
    d->touch = touch_new(&(struct touch_args){.parts_at = d->kv, .parts = (size_t)d->shape.n_layers, .part_bytes = d->layer_bytes,
                                              .ahead = pages * d->page_bytes, .areas = areas, .n_areas = n});
}

static int cpu_load(struct dev *d, const struct dev_shape *shape, const struct dev_program *prog, struct err *e) {
    unload(d);
    if (check_shape(shape, e)) return -1;
    d->shape = *shape;
    if (!d->shape.vocab_total) d->shape.vocab_total = shape->vocab;
    d->prog = prog->ops;
    buffer_sizes(shape, d->width, d->rows);
    for (int32_t i = 0; i < prog->n_ops; i++)
        if (check_op(d, &prog->ops[i], i, e)) return -1;
    if (map_kv(d, e)) return -1;
    d->n_ops = prog->n_ops;
    allocate(d);
    copy_vectors(d);
    moe_init(d);
    touch_ahead(d);
    return 0;
}

static void cpu_close(struct dev *d) {
    if (!d) return;
    unload(d);
    pool_free(d->pool);
    free(d);
}

static void run_pieces(void *pool, comm_piece_fn *fn, void *arg, int32_t n) { pool_run(pool, fn, arg, n); }

static int cpu_open(struct dev **out, const struct dev_args *args, struct err *e) {
    if (args->n_ranks > 1 && !args->comm) return err_input(e, "%d ranks need a communicator", args->n_ranks);
    const struct cpu_ops *ops = cpu_ops_find(args->isa, e);
    if (!ops) return -1;
    struct dev *d = mem_zalloc(1, sizeof *d);
    d->args = *args;
    d->ops = ops;
    if (pool_new(&d->pool, args->n_threads, e)) {
        free(d);
        return -1;
    }
    if (args->comm) args->comm->runner = (struct comm_runner){run_pieces, d->pool, args->n_threads};
    snprintf(d->describe, sizeof d->describe, "cpu %s, %d thread%s", ops->isa, args->n_threads, args->n_threads == 1 ? "" : "s");
    *out = d;
    return 0;
}

static const char *cpu_describe(const struct dev *d) { return d->describe; }

/* ---- steps ---- */

static int cpu_launch(struct dev *d, const struct batch *b, struct err *e) {
    if (!d->kv) return err_machine(e, "the device has no program yet");
    if (d->n_pending == 2) BUG("step %llu: two steps are launched and not collected", (unsigned long long)b->step);
    if (batch_check(b)) return err_machine(e, "step %llu: the batch does not fit its checksum", (unsigned long long)b->step);
    if (step_run(d, b, &d->pending[(d->first_pending + d->n_pending) % 2], e)) return -1;
    d->n_pending++;
    return 0;
}

static int cpu_collect(struct dev *d, struct result *r, struct err *e) {
    if (!d->n_pending) return err_machine(e, "no step was launched");
    const struct pending *p = &d->pending[d->first_pending];
    d->first_pending ^= 1;
    d->n_pending--;
    r->step = p->step;
    r->n_rows = p->n_rows;
    memcpy(r->rows, p->rows, (size_t)p->n_rows * sizeof *p->rows);
    return 0;
}

static float *buffer_for(struct dev *d, enum buf_id buf, size_t n) {
    if (buf <= BUF_NONE || buf >= BUF_COUNT || !d->buf[buf] || n > d->width[buf] * d->rows[buf]) return NULL;
    return d->buf[buf];
}

static int cpu_poke(struct dev *d, enum buf_id buf, const float *data, size_t n) {
    float *to = buffer_for(d, buf, n);
    if (!to) return -1;
    memcpy(to, data, n * sizeof *to);
    return 0;
}

static int cpu_peek(struct dev *d, enum buf_id buf, float *data, size_t n) {
    const float *from = buffer_for(d, buf, n);
    if (!from) return -1;
    memcpy(data, from, n * sizeof *data);
    return 0;
}

const struct dev_maker dev_cpu = {
    .abi = DEV_ABI,
    .build_id = MINISGL_BUILD_ID,
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .plan = cpu_plan,
    .load = cpu_load,
    .loaded = cpu_loaded,
    .launch = cpu_launch,
    .collect = cpu_collect,
    .poke = cpu_poke,
    .peek = cpu_peek,
};
