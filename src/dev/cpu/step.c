/* step.c: one step of a CPU device: takes the batch's changes, then runs the program operator by operator, each cut into pieces
 * for the pool. Runs on the rank thread. A batch that names slots, pages or tokens that do not exist is our own bug. */
#include "dev/cpu/device.h"

#include <math.h>
#include <string.h>

enum { SMALL_WORK = 16384, CHUNK_ROWS = 256, TURN_PART = 512 };

/* ---- rows ---- */

struct rows_job {
    struct dev *d;
    step_row_fn *fn;
    void *arg;
    int32_t rows, per_piece;
};

static void rows_piece(void *arg, int32_t piece, int32_t thread) {
    struct rows_job *j = arg;
    int32_t from = piece * j->per_piece, to = from + j->per_piece < j->rows ? from + j->per_piece : j->rows;
    for (int32_t i = from; i < to; i++) j->fn(j->d, j->arg, i, thread);
}

void step_rows(struct dev *d, step_row_fn *fn, void *arg, int32_t rows, size_t cost) {
    size_t per = cost >= SMALL_WORK ? 1 : SMALL_WORK / (cost ? cost : 1);
    struct rows_job j = {d, fn, arg, rows, per > (size_t)rows ? rows : (int32_t)per};
    if (rows > 0) pool_run(d->pool, rows_piece, &j, (rows + j.per_piece - 1) / j.per_piece);
}

/* ---- LINEAR ---- */

struct lin_job step_lin_job(const struct dev *d, const struct lin_args *a) {
    struct lin_job j = {.x = a->x, .y = a->y, .ldx = a->ldx, .ldy = a->ldy, .rows = a->rows, .k = a->w[0].k,
                        .k_slices = a->k_slices > 0 ? a->k_slices : 1};
    for (int i = 0; i < 3; i++) {
        if (!a->w[i].data) continue;
        j.w[i] = a->w[i];
        j.bias[i] = a->bias ? a->bias[i] : NULL;
        j.strips[i] = (a->w[i].n + d->ops->strip - 1) / d->ops->strip;
        j.n_strips += j.strips[i];
        if (d->ops->bf16_dot && a->w[i].dtype == DT_BF16) j.ldxh = lin_round_width(j.k, j.k_slices);
    }
    int32_t want = (2 * d->args.n_threads + j.n_strips - 1) / j.n_strips, chunks = (j.rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    if (chunks < want) chunks = want < (j.rows + 31) / 32 ? want : (j.rows + 31) / 32;
    if (chunks < 1) chunks = 1;
    j.chunk_rows = ((j.rows + chunks - 1) / chunks + LANES_MAX - 1) / LANES_MAX * LANES_MAX; /* whole blocks of turned rows */
    j.n_chunks = j.chunk_rows ? (j.rows + j.chunk_rows - 1) / j.chunk_rows : 0;
    return j;
}

static void round_row(struct dev *d, void *arg, int32_t row, int32_t thread) {
    (void)thread;
    struct lin_job *j = arg;
    d->ops->lin_round(d->xh + (size_t)row * j->ldxh, j->x + (size_t)row * j->ldx, j->k, j->k_slices);
}

/* What a pool function gets: the device and a job. */
struct dev_job {
    struct dev *d;
    const void *job;
};

static void lin_piece_run(void *arg, int32_t piece, int32_t thread) {
    struct dev_job *j = arg;
    j->d->ops->linear(j->job, piece, j->d->scratch[thread]);
}

/* Many rows are turned for LINEAR, by blocks of rows and parts of K (the slices, or PART numbers). */
struct turn_job {
    struct dev *d;
    const struct lin_job *j;
    int32_t parts, part;
};

static void turn_piece(void *arg, int32_t piece, int32_t thread) {
    (void)thread;
    struct turn_job *t = arg;
    const struct lin_job *j = t->j;
    const struct cpu_ops *ops = t->d->ops;
    int32_t block = piece / t->parts, k0 = piece % t->parts * t->part, n = j->k - k0 < t->part ? j->k - k0 : t->part;
    int32_t row0 = block * ops->lanes, rows = j->rows - row0 < ops->lanes ? j->rows - row0 : ops->lanes;
    const float *x = j->x + (size_t)row0 * j->ldx + k0;
    size_t steps = j->ldxh ? j->ldxh / 2 : (size_t)j->k;
    uint32_t *xt = t->d->xt + (size_t)block * steps * (size_t)ops->lanes;
    if (!j->ldxh) {
        ops->lin_turn(xt + (size_t)k0 * (size_t)ops->lanes, x, j->ldx, rows, n);
        return;
    }
    size_t at = (size_t)(piece % t->parts) * lin_round_width(t->part, 1);
    uint16_t *xh = t->d->xh + (size_t)row0 * j->ldxh + at;
    for (int32_t r = 0; r < rows; r++) ops->lin_round(xh + (size_t)r * j->ldxh, x + (size_t)r * j->ldx, n, 1);
    ops->lin_turn(xt + at / 2 * (size_t)ops->lanes, xh, j->ldxh / 2, rows, (n + 1) / 2);
}

/* So many rows that weights are turned for them: x by blocks, which lie apart otherwise and compete for the same places of the caches. */
static void block_row(struct dev *d, void *arg, int32_t row, int32_t thread) {
    (void)thread;
    const struct lin_job *j = arg;
    const float *x = j->x + (size_t)row * j->ldx;
    float *xb = (float *)(void *)d->xt;
    int32_t n = j->k / j->k_slices, block = d->ops->lin_block(n);
    for (int32_t s = 0; s < j->k_slices; s++) {
        for (int32_t k = 0; k < n; k += block) {
            size_t part = (size_t)(n - k < block ? n - k : block), at = (size_t)(s * n + k);
            memcpy(xb + at * (size_t)j->rows + (size_t)row * part, x + at, part * sizeof *x);
        }
    }
}

/* float16 weights are turned themselves: to broadcast one costs more than to multiply by it. */
static bool turns(const struct dev *d, const struct lin_job *j) {
    if (!d->ops->lanes || j->rows <= d->ops->few) return false;
    for (int i = 0; i < 3; i++)
        if (j->w[i].data && (j->w[i].dtype == DT_F16 || j->w[i].dtype != j->w[0].dtype)) return false;
    return true;
}

void step_linear(struct dev *d, const struct lin_args *a) {
    struct lin_job j = step_lin_job(d, a);
    j.xh = d->xh;
    if (d->ops->many && j.rows > d->ops->many) {
        step_rows(d, block_row, &j, j.rows, (size_t)j.k);
        j.xb = (const float *)(const void *)d->xt;
    } else if (turns(d, &j)) {
        struct turn_job t = {d, &j, j.k_slices, j.k / j.k_slices};
        if (j.k_slices == 1) t.part = TURN_PART, t.parts = (j.k + TURN_PART - 1) / TURN_PART;
        pool_run(d->pool, turn_piece, &t, (j.rows + d->ops->lanes - 1) / d->ops->lanes * t.parts);
        j.xt = d->xt;
    } else if (j.ldxh) {
        step_rows(d, round_row, &j, j.rows, (size_t)j.k);
    }
    pool_run(d->pool, lin_piece_run, &(struct dev_job){d, &j}, j.n_strips * j.n_chunks);
}

/* ---- the operators ---- */

struct op_ref {
    const struct op *o;
    const struct op_vectors *v;
    int32_t n;
};

static float *row_of(struct dev *d, enum buf_id b, int32_t row) { return d->buf[b] + (size_t)row * d->width[b]; }

static void embed_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    const struct op *o = ((struct op_ref *)arg)->o;
    const struct view *w = &o->w[0];
    int32_t token = d->token[t] - d->shape.vocab_first;
    float *to = row_of(d, o->out, t);
    if (token >= 0 && token < w->n) {
        d->ops->load(to, elem_at(w->data, w->dtype, (int64_t)token * w->ld), w->dtype, w->k);
        return;
    }
    for (int32_t i = 0; i < w->k; i++) to[i] = -0.0f;
}

static void norm_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    struct op_ref *r = arg;
    const float *add = r->o->in2 == BUF_NONE ? NULL : row_of(d, r->o->in2, t);
    d->ops->norm(row_of(d, r->o->out, t), row_of(d, r->o->in, t), add, r->v->v[0], r->o->eps, r->o->w[0].k);
}

static void silu_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    struct op_ref *r = arg;
    const float *gu = row_of(d, r->o->in, t);
    d->ops->silu_mul(row_of(d, r->o->out, t), gu, gu + r->n, r->n);
}

static void rope_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    struct op_ref *r = arg;
    int32_t D = d->shape.head_dim, H = d->shape.n_heads, K = d->shape.n_kv_heads, P = d->shape.page_size, pos = d->pos[t];
    const struct batch_seq *s = &batch_seqs(d->batch)[d->seq_of[t]];
    const float *cos = d->cos + (size_t)t * (size_t)(D / 2), *sin = d->sin + (size_t)t * (size_t)(D / 2);
    float *q = row_of(d, BUF_QKV, t);
    for (int32_t h = 0; h < H + K; h++)
        d->ops->rope(q + (size_t)h * (size_t)D, r->v->v[h >= H], r->o->eps, cos, sin, D);
    size_t es = dtype_size(d->shape.kv_dtype), head = (size_t)P * (size_t)D * es;
    int32_t page = d->tables[(size_t)s->slot * (size_t)d->table_len + (size_t)(pos / P)];
    char *to = d->kv + (size_t)r->o->layer * d->layer_bytes + (size_t)page * d->page_bytes + (size_t)(pos % P) * (size_t)D * es;
    for (int32_t h = 0; h < 2 * K; h++) /* K and V of all heads: a page is [K|V][head][P][D] */
        d->ops->store(to + (size_t)h * head, q + (size_t)(H + h) * (size_t)D, d->shape.kv_dtype, D);
}

static void att_piece_run(void *arg, int32_t piece, int32_t thread) {
    struct dev_job *j = arg;
    j->d->ops->attention(j->job, piece, j->d->scratch[thread]);
}

static void run_attention(struct dev *d, const struct op *o) {
    const struct dev_shape *s = &d->shape;
    struct att_job j = {.q = d->buf[BUF_QKV], .out = d->buf[o->out], .ldq = d->width[BUF_QKV], .ldo = d->width[o->out],
                        .kv = d->kv + (size_t)o->layer * d->layer_bytes, .page_bytes = d->page_bytes, .v_at = d->page_bytes / 2,
                        .dtype = s->kv_dtype, .page_size = s->page_size, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads,
                        .head_dim = s->head_dim, .window = o->window, .scale = o->scale, .seqs = d->att,
                        .n_seqs = d->batch->n_seqs, .group = s->n_heads / s->n_kv_heads};
    j.head_bytes = (size_t)s->page_size * (size_t)s->head_dim * dtype_size(s->kv_dtype);
    j.group_part = j.group < ATT_GROUP ? j.group : ATT_GROUP;
    j.n_parts = (j.group + j.group_part - 1) / j.group_part;
    j.tile = ATT_ROWS / j.group_part;
    for (int32_t i = 0; i < j.n_seqs; i++) {
        d->att[i].first_piece = j.n_pieces;
        j.n_pieces += att_seq_pieces(&j, d->att[i].n_tokens);
    }
    pool_run(d->pool, att_piece_run, &(struct dev_job){d, &j}, j.n_pieces);
}

static void run_rows(struct dev *d, const struct op *o) {
    const struct batch_seq *s = batch_seqs(d->batch);
    size_t n = d->width[o->in] < d->width[o->out] ? d->width[o->in] : d->width[o->out];
    for (int32_t i = 0; i < d->batch->n_seqs; i++)
        if (s[i].row >= 0)
            memcpy(row_of(d, o->out, s[i].row), row_of(d, o->in, d->att[i].row + s[i].n_tokens - 1), n * sizeof(float));
}

static int run_sample(struct dev *d, struct pending *out, struct err *e) {
    const struct batch *b = d->batch;
    if (d->args.comm) comm_at(d->args.comm, b->step, "sampling", -1);
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &batch_seqs(b)[i];
        if (s->row < 0) continue;
        d->sample_rows[s->row] = (struct sample_row){row_of(d, BUF_LOGITS, s->row), &d->sampling[s->slot], s->pos + s->n_tokens, &out->rows[s->row]};
        out->rows[s->row].slot = s->slot;
    }
    if (sampler_run(d->sampler, d->sample_rows, d->n_rows, e)) return -1;
    for (int32_t i = 0; i < d->n_rows; i++) d->last[out->rows[i].slot] = out->rows[i].tokens[0];
    return 0;
}

/* ---- ranks ---- */

int step_sum(struct dev *d, float *buf, size_t n, const char *what, int32_t layer, struct err *e) {
    if (!d->args.comm) return 0;
    comm_at(d->args.comm, d->batch->step, what, layer);
    return comm_sum_f32(d->args.comm, buf, n, e);
}

static void bias_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    struct op_ref *r = arg;
    d->ops->axpy(row_of(d, r->o->in, t), 1, r->v->v[0], r->n);
}

static int run_reduce(struct dev *d, struct op_ref *r, struct err *e) {
    enum buf_id in = r->o->in;
    const char *what = in == BUF_H ? "the sum of the embeddings" : r->o[-1].in == BUF_ATT ? "the sum after attention" : "the sum after the MLP";
    if (step_sum(d, d->buf[in], (size_t)d->n_tokens * d->width[in], what, r->o->layer, e)) return -1;
    r->n = r->o->bias[0].k;
    if (r->v->v[0]) step_rows(d, bias_row, r, d->n_tokens, d->width[in]);
    return 0;
}

static int run_op(struct dev *d, int32_t i, struct pending *out, struct err *e) {
    const struct op *o = &d->prog[i];
    struct op_ref r = {o, &d->vectors[i], 0};
    int32_t T = d->n_tokens;
    switch (o->kind) {
    case OP_EMBED: step_rows(d, embed_row, &r, T, d->width[o->out]); break;
    case OP_NORM: step_rows(d, norm_row, &r, o->in == BUF_ROWS ? d->n_rows : T, d->width[o->in]); break;
    case OP_LINEAR:
        step_linear(d, &(struct lin_args){.x = d->buf[o->in], .y = d->buf[o->out], .ldx = d->width[o->in],
                                          .ldy = d->width[o->out], .rows = o->in == BUF_ROWS ? d->n_rows : T,
                                          .k_slices = o->k_slices, .w = o->w, .bias = d->vectors[i].v});
        break;
    case OP_ROPE_KV: step_rows(d, rope_row, &r, T, d->width[BUF_QKV]); break;
    case OP_ATTENTION: run_attention(d, o); break;
    case OP_SILU_MUL:
        r.n = d->shape.ffn;
        for (int32_t k = i - 1; k >= 0; k--)
            if (d->prog[k].kind == OP_LINEAR && d->prog[k].out == o->in) {
                r.n = (d->prog[k].w[0].n + d->prog[k].w[1].n + d->prog[k].w[2].n) / 2;
                break;
            }
        step_rows(d, silu_row, &r, T, (size_t)r.n * 4);
        break;
    case OP_MOE: return moe_run(d, o, e);
    case OP_REDUCE: return run_reduce(d, &r, e);
    case OP_ROWS: run_rows(d, o); break;
    case OP_SAMPLE: return run_sample(d, out, e);
    }
    return 0;
}

/* ---- what the batch brings ---- */

static void take_changes(struct dev *d, const struct batch *b) {
    int32_t n_slots = d->shape.limits.max_seqs;
    for (int32_t i = 0; i < b->n_slots; i++) {
        const struct batch_slot *s = &batch_slots(b)[i];
        if (s->slot < 0 || s->slot >= n_slots) BUG("step %llu: slot %d of %d", (unsigned long long)b->step, s->slot, n_slots);
        d->sampling[s->slot] = s->sampling;
    }
    int32_t last = -1;
    for (int32_t i = 0; i < b->n_pages; i++) {
        const struct batch_page *p = &batch_pages(b)[i];
        if (p->slot < 0 || p->slot >= n_slots || p->index < 0 || p->index >= d->table_len || p->page < 0 ||
            p->page >= d->shape.n_pages)
            BUG("step %llu: page %d at index %d of slot %d", (unsigned long long)b->step, p->page, p->index, p->slot);
        d->tables[(size_t)p->slot * (size_t)d->table_len + (size_t)p->index] = p->page;
        if (p->page > last) last = p->page;
    }
    touch_used(d->touch, (size_t)(last + 1) * d->page_bytes);
}

static void take_seqs(struct dev *d, const struct batch *b) {
    int32_t t = 0, rows = 0;
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &batch_seqs(b)[i];
        if (s->slot < 0 || s->slot >= d->shape.limits.max_seqs || s->n_tokens < 1 || s->pos < 0 ||
            s->n_tokens > d->shape.max_len - s->pos || s->n_tokens > d->shape.limits.max_tokens - t ||
            s->row >= b->n_rows || (s->token_at < 0 && s->n_tokens > 1))
            BUG("step %llu: slot %d, position %d, %d tokens, row %d of %d", (unsigned long long)b->step, s->slot, s->pos,
                s->n_tokens, s->row, b->n_rows);
        d->att[i] = (struct att_seq){.table = d->tables + (size_t)s->slot * (size_t)d->table_len, .pos = s->pos,
                                     .n_tokens = s->n_tokens, .row = t};
        rows += s->row >= 0;
        for (int32_t k = 0; k < s->n_tokens; k++, t++) {
            d->token[t] = s->token_at < 0 ? d->last[s->slot] : batch_tokens(b)[s->token_at + k];
            d->pos[t] = s->pos + k;
            d->seq_of[t] = i;
            if (d->token[t] < 0 || d->token[t] >= d->shape.vocab_total)
                BUG("step %llu: token %d of a vocabulary of %d", (unsigned long long)b->step, d->token[t], d->shape.vocab_total);
        }
    }
    if (rows != b->n_rows || rows > d->shape.limits.max_seqs)
        BUG("step %llu: %d rows, its sequences want %d", (unsigned long long)b->step, b->n_rows, rows);
    d->n_tokens = t;
    d->n_rows = rows;
}

/* Cosines and sines of one token's position; the formulas are in dev.h. */
static void angle_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)arg, (void)thread;
    const struct rope *r = &d->shape.rope;
    int32_t half = r->dim / 2, p = d->pos[t];
    bool dynamic = r->dynamic_max > 0 && p >= r->dynamic_max;
    double base = 0;
    if (dynamic) {
        double f = (double)r->dynamic_factor, stretch = f * ((double)p + 1) / r->dynamic_max - (f - 1);
        base = (double)r->dynamic_theta * pow(stretch, (double)r->dim / (r->dim - 2));
    }
    for (int32_t i = 0; i < half; i++) {
        float inv = dynamic ? (float)(1 / pow(base, 2.0 * i / r->dim)) : r->inv_freq[i];
        float angle = (float)p * inv;
        d->cos[(size_t)t * (size_t)half + (size_t)i] = cosf(angle) * r->scale;
        d->sin[(size_t)t * (size_t)half + (size_t)i] = sinf(angle) * r->scale;
    }
}

static int run_program(struct dev *d, const struct batch *b, struct pending *out, struct err *e) {
    if (comm_same_batch(d->args.comm, b->step, b->checksum, e)) return -1;
    d->batch = b;
    take_changes(d, b);
    take_seqs(d, b);
    if (d->shape.rope.inv_freq) step_rows(d, angle_row, NULL, d->n_tokens, (size_t)d->shape.rope.dim * 32);
    out->step = b->step;
    out->n_rows = d->n_rows;
    for (int32_t i = 0; i < d->n_ops; i++)
        if (run_op(d, i, out, e)) return -1;
    d->batch = NULL;
    return 0;
}

int step_run(struct dev *d, const struct batch *b, struct pending *out, struct err *e) {
    touch_step(d->touch);
    int rc = run_program(d, b, out, e);
    touch_step(d->touch);
    return rc;
}
