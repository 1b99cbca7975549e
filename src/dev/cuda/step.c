/* step.c: one step of a CUDA device. The host side reads the batch, checks it, plans which attention kernel takes what, and writes
 * one pinned block; the device side is one copy up, the operators (enqueued one by one, or as captured graphs), and one copy down.
 * Nothing here waits for the device but step_collect. Runs on the rank thread. A batch that names slots, pages or tokens that do not
 * exist is our own bug. */
#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "dev/cuda/cuda.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- the block ---- */

enum { FI_CHUNK_MIN = 64, FI_UNITS_AN_SM = 4 };

static int32_t group_of(const struct dev_shape *s) { return s->n_heads / s->n_kv_heads; }

/* Units of work that `fi` cuts a step into, at most: enough to fill the GPU some times over. */
static int32_t fi_units(const struct dev *d) { return d->n_sms * FI_UNITS_AN_SM; }

int32_t step_parts_max(const struct dev *d, const struct dev_shape *s) {
    return fi_units(d) / s->n_kv_heads + s->limits.max_seqs + 1;
}

static size_t fa_items_max(const struct dev_shape *s) {
    return (size_t)s->limits.max_tokens * (size_t)group_of(s) / (size_t)fa_rows(s->head_dim) + (size_t)s->limits.max_seqs + 1;
}

size_t step_block_bytes(const struct dev_shape *s, int32_t parts_max) {
    const struct batch_limits *l = &s->limits;
    return up256(sizeof(struct step_head) + (size_t)l->max_seqs * (sizeof(struct step_seq) + sizeof(struct batch_slot)) +
                 (size_t)l->max_pages * sizeof(struct batch_page) + (size_t)l->max_tokens * 4 +
                 (size_t)(parts_max + l->max_seqs) * sizeof(struct fi_item) + fa_items_max(s) * sizeof(struct fa_item) + CUDNN_SEQS * 4 + 8 * 16);
}

struct writer {
    char *base;
    size_t at;
};

static uint32_t put(struct writer *w, const void *from, size_t bytes) {
    uint32_t at = (uint32_t)w->at;
    if (from && bytes) memcpy(w->base + at, from, bytes);
    w->at = (w->at + bytes + 15) & ~(size_t)15;
    return at;
}

static void check_changes(const struct dev *d, const struct batch *b) {
    int32_t n_slots = d->shape.limits.max_seqs;
    for (int32_t i = 0; i < b->n_slots; i++) {
        const struct batch_slot *s = &batch_slots(b)[i];
        if (s->slot < 0 || s->slot >= n_slots) BUG("step %llu: slot %d of %d", (unsigned long long)b->step, s->slot, n_slots);
    }
    for (int32_t i = 0; i < b->n_pages; i++) {
        const struct batch_page *p = &batch_pages(b)[i];
        if (p->slot < 0 || p->slot >= n_slots || p->index < 0 || p->index >= d->tabs.table_len || p->page < 0 ||
            p->page >= d->shape.n_pages)
            BUG("step %llu: page %d at index %d of slot %d", (unsigned long long)b->step, p->page, p->index, p->slot);
    }
    for (int32_t i = 0; i < b->n_given; i++)
        if (batch_tokens(b)[i] < 0)
            BUG("step %llu: token %d", (unsigned long long)b->step, batch_tokens(b)[i]);
}

static void check_seq(const struct dev *d, const struct batch *b, const struct batch_seq *s, int32_t t) {
    if (s->slot < 0 || s->slot >= d->shape.limits.max_seqs || s->n_tokens < 1 || s->pos < 0 ||
        s->n_tokens > d->shape.max_len - s->pos || s->n_tokens > d->shape.limits.max_tokens - t || s->row >= b->n_rows ||
        (s->token_at < 0 && s->n_tokens > 1) || s->token_at + s->n_tokens > b->n_given + (s->token_at < 0))
        BUG("step %llu: slot %d, position %d, %d tokens, row %d of %d", (unsigned long long)b->step, s->slot, s->pos, s->n_tokens,
            s->row, b->n_rows);
}

/* The sequences, how long all decodes are together, and what the rows' sampling asks of the ranks. */
static struct step_dims put_seqs(struct dev *d, const struct batch *b, struct step_seq *to, int64_t *decode_len, int32_t *candidates) {
    struct step_dims n = {.seqs = b->n_seqs};
    if (b->n_seqs > d->shape.limits.max_seqs) BUG("step %llu: %d sequences", (unsigned long long)b->step, b->n_seqs);
    *decode_len = 0;
    *candidates = 0;
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *s = &batch_seqs(b)[i];
        check_seq(d, b, s, n.tokens);
        to[i] = (struct step_seq){s->slot, s->pos, s->n_tokens, s->token_at, s->row, n.tokens, 0, 0};
        n.tokens += s->n_tokens;
        n.rows += s->row >= 0;
        if (s->row >= 0 && d->candidates[s->slot] > *candidates) *candidates = d->candidates[s->slot];
        if (s->n_tokens == 1) *decode_len += s->pos + 1;
    }
    if (n.rows != b->n_rows) BUG("step %llu: %d rows, its sequences want %d", (unsigned long long)b->step, b->n_rows, n.rows);
    return n;
}

/* Cut the decodes into ranges of about the same length, so many that the GPU is full. */
static int32_t plan_fi(const struct dev *d, struct step_seq *seqs, int32_t n, int64_t total, struct fi_item *items) {
    int32_t count = 0, parts = 0, K = d->shape.n_kv_heads;
    int64_t chunk = (total * K / fi_units(d) + 64) / 64 * 64;
    if (chunk < FI_CHUNK_MIN) chunk = FI_CHUNK_MIN;
    for (int32_t i = 0; i < n; i++) {
        if (seqs[i].n_tokens != 1 || d->args.decode_fa) continue;
        int32_t len = seqs[i].pos + 1, cuts = (int32_t)((len + chunk - 1) / chunk);
        int32_t each = ((len + cuts - 1) / cuts + 63) / 64 * 64;
        cuts = (len + each - 1) / each;
        seqs[i].n_parts = cuts;
        seqs[i].part0 = parts;
        for (int32_t k = 0; k < cuts; k++) {
            int32_t end = (k + 1) * each < len ? (k + 1) * each : len;
            items[count++] = (struct fi_item){i, k * each, end, cuts > 1 ? parts + k : -1};
        }
        if (cuts > 1) parts += cuts;
    }
    return count;
}

/* Tiles of chunks, those that see most first: the last of every chunk, those before them, and so on. */
static int32_t plan_fa(const struct dev *d, const struct step_seq *seqs, int32_t n, bool chunks, struct fa_item *items) {
    int32_t count = 0, most = 0, G = group_of(&d->shape), rows = fa_rows(d->shape.head_dim);
    for (int32_t i = 0; i < n; i++)
        if (seqs[i].n_tokens > most) most = seqs[i].n_tokens;
    for (int32_t tile = (most * G - 1) / rows; tile >= 0; tile--)
        for (int32_t i = 0; i < n; i++)
            if (tile * rows < seqs[i].n_tokens * G && (seqs[i].n_tokens > 1 ? chunks : d->args.decode_fa)) items[count++] = (struct fa_item){i, tile};
    return count;
}

static struct step_dims put_block(struct dev *d, const struct batch *b, char *block, int32_t *candidates) {
    struct step_head *h = (struct step_head *)(void *)block;
    struct writer w = {block, sizeof *h};
    int64_t decode_len;
    check_changes(d, b);
    sampling_note(d, b);
    *h = (struct step_head){.n_seqs = b->n_seqs, .n_slots = b->n_slots, .n_pages = b->n_pages};
    w.at = (w.at + 15) & ~(size_t)15;
    struct step_seq *seqs = (struct step_seq *)(void *)(block + w.at);
    struct step_dims n = put_seqs(d, b, seqs, &decode_len, candidates);
    h->seqs_at = put(&w, NULL, (size_t)b->n_seqs * sizeof *seqs);
    h->n_tokens = n.tokens;
    h->n_rows = n.rows;
    h->slots_at = put(&w, batch_slots(b), (size_t)b->n_slots * sizeof(struct batch_slot));
    h->pages_at = put(&w, batch_pages(b), (size_t)b->n_pages * sizeof(struct batch_page));
    h->tokens_at = put(&w, batch_tokens(b), (size_t)b->n_given * sizeof(int32_t));
    h->n_fi = plan_fi(d, seqs, b->n_seqs, decode_len, (struct fi_item *)(void *)(block + w.at));
    h->fi_at = put(&w, NULL, (size_t)h->n_fi * sizeof(struct fi_item));
    h->n_chunks = chunks_plan(d, seqs, b->n_seqs, n.tokens, (int32_t *)(void *)(block + w.at));
    h->chunks_at = put(&w, NULL, (size_t)h->n_chunks * sizeof(int32_t));
    h->n_fa = plan_fa(d, seqs, b->n_seqs, !h->n_chunks, (struct fa_item *)(void *)(block + w.at));
    h->fa_at = put(&w, NULL, (size_t)h->n_fa * sizeof(struct fa_item));
    h->size = (uint32_t)w.at;
    if (w.at > d->block_bytes) BUG("step %llu: a block of %zu bytes", (unsigned long long)b->step, w.at);
    return n;
}

/* ---- the operators ---- */

static char *buf_row(const struct dev *d, enum buf_id b, int64_t row) {
    return (char *)d->buf[b] + (size_t)(row * d->ld[b]) * dtype_size(buf_dtype(d, b));
}

static int32_t rows_in(const struct run *r, enum buf_id b) { return b == BUF_ROWS || b == BUF_LOGITS ? r->n.rows : r->n.tokens; }

/* The embedding, of the rows that this rank has. */
static void run_embed(const struct run *r, const struct dop *o) {
    struct dev *d = r->d;
    struct embed_args a = {.w = o->w.p, .w_dtype = o->w.dtype, .out_dtype = buf_dtype(d, o->o->out), .ldw = o->w.ld,
                           .ldo = d->ld[o->o->out], .width = o->w.k, .first = d->shape.vocab_first, .n = o->w.n, .out = d->buf[o->o->out]};
    k_embed(d->tabs, a, r->n.tokens, d->stream);
}

static void run_norm(const struct run *r, const struct dop *o) {
    struct dev *d = r->d;
    enum buf_id in = o->o->in, add = o->o->in2, out = o->o->out;
    struct norm_args a = {.in = d->buf[in], .add = add == BUF_NONE ? NULL : d->buf[add], .w = o->vector[0], .out = d->buf[out],
                          .in_dtype = buf_dtype(d, in), .a = d->act, .ldi = d->ld[in], .lda = d->ld[add], .ldo = d->ld[out],
                          .width = o->o->w[0].k, .rows = in == BUF_ROWS, .eps = o->o->eps};
    k_norm(d->tabs, a, rows_in(r, in), d->stream);
}

static int run_linear(const struct run *r, struct dop *o, struct err *e) {
    struct dev *d = r->d;
    enum buf_id in = o->o->in, out = o->o->out;
    return linear_run(d, &(struct linear_args){.op = o, .x = d->buf[in], .y = d->buf[out], .ldx = d->ld[in], .ldy = d->ld[out],
                                               .y_dtype = buf_dtype(d, out), .rows = rows_in(r, in)}, e);
}

static void run_rope(const struct run *r, const struct dop *o) {
    struct dev *d = r->d;
    const struct dev_shape *s = &d->shape;
    struct rope_args a = {.qkv = d->buf[BUF_QKV], .a = d->act, .kv_dtype = s->kv_dtype, .ld = d->ld[BUF_QKV],
                          .kv = d->kv + (size_t)o->o->layer * d->layer_bytes, .q_norm = o->vector[0], .k_norm = o->vector[1],
                          .eps = o->o->eps, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim,
                          .page_size = s->page_size};
    k_rope_kv(d->tabs, a, r->n.tokens, d->stream);
}

static int32_t blocks_for(int32_t items, int32_t heads) {
    enum { MOST = 1 << 20 };
    return items < MOST / heads ? items * heads : MOST;
}

static int run_attention(const struct run *r, const struct dop *o, struct err *e) {
    struct dev *d = r->d;
    struct att_args a = d->att;
    a.kv = d->kv + (size_t)o->o->layer * d->layer_bytes;
    a.q = d->buf[BUF_QKV];
    a.out = d->buf[o->o->out];
    a.ldo = d->ld[o->o->out];
    a.window = o->o->window;
    a.scale = o->o->scale;
    a.turn = d->tabs.turn + (o - d->ops);
    a.n_sms = d->n_sms;
    a.capability = d->capability;
    if (!att_fast_takes(&a)) {
        k_att_plain(d->tabs, a, r->n.tokens, d->stream);
        return 0;
    }
    if (r->n_fi) {
        a.grid = blocks_for(r->n_fi, a.n_kv_heads);
        k_att_fi(d->tabs, a, d->stream);
    }
    if (r->n_fa) {
        a.grid = blocks_for(r->n_fa, a.n_kv_heads);
        k_att_fa(d->tabs, a, d->stream);
    }
    return r->n_chunks ? chunks_run(d, o, &a, e) : 0;
}

static void run_silu(const struct run *r, const struct dop *o) {
    struct dev *d = r->d;
    enum buf_id in = o->o->in, out = o->o->out;
    struct silu_args a = {.in = d->buf[in], .out = d->buf[out], .a = d->act, .ldi = d->ld[in], .ldo = d->ld[out], .n = o->silu_n};
    k_silu(d->tabs, a, r->n.tokens, d->stream);
}

/* ---- ranks ---- */

static enum gpu_number number_of(enum dtype t) { return t == DT_F32 ? GPU_F32 : t == DT_BF16 ? GPU_BF16 : GPU_F16; }

bool step_exchanges(const struct dev *d) { return d->comm && !d->alone; }

/* A buffer of the step's tokens becomes the sum over the ranks. */
static int sum_ranks(const struct run *r, enum buf_id b, struct err *e) {
    struct dev *d = r->d;
    if (!step_exchanges(d)) return 0;
    return d->comm_maker->sum(d->comm, d->buf[b], (size_t)r->n.tokens * (size_t)d->ld[b], number_of(buf_dtype(d, b)), d->stream, e);
}

/* The sum over the ranks that ends operator o, and the norm behind it, in one kernel. 1: not here. */
static int sum_and_norm(const struct run *r, const struct dop *op, enum buf_id y, struct err *e) {
    struct dev *d = r->d;
    const struct dop *norm = op + 1 < d->ops + d->n_ops ? op + 1 : op;
    const struct op *o = norm->o;
    const float *bias = op->o->kind == OP_REDUCE ? op->vector[0] : NULL;
    if (!step_exchanges(d) || !d->comm_maker->sum_norm || o->kind != OP_NORM || o->in2 != y || buf_dtype(d, o->in) != DT_F32) return 1;
    struct gpu_sum_norm a = {.y = d->buf[y], .h = d->buf[o->in], .x = d->buf[o->out], .weight = norm->vector[0], .bias = bias,
                             .ldy = d->ld[y], .ldh = d->ld[o->in], .ldx = d->ld[o->out], .type = number_of(d->act), .rows = r->n.tokens,
                             .width = o->w[0].k, .n_rows = &d->tabs.head->n_tokens, .eps = o->eps};
    return d->comm_maker->sum_norm(d->comm, &a, d->stream, e);
}

/* How many operators behind it are done too. */
static int run_reduce(const struct run *r, const struct dop *o, struct err *e) {
    struct dev *d = r->d;
    enum buf_id b = o->o->in;
    int rc = sum_and_norm(r, o, b, e);
    if (rc < 1) return rc ? -1 : 1;
    if (sum_ranks(r, b, e)) return -1;
    if (o->vector[0])
        k_bias(d->tabs, (struct bias_args){d->buf[b], o->vector[0], buf_dtype(d, b), d->ld[b], o->o->bias[0].k}, r->n.tokens, d->stream);
    return 0;
}

/* ---- experts and what ends a step ---- */

static int run_moe(const struct run *r, struct dop *o, struct err *e) {
    struct dev *d = r->d;
    struct moe_args a = d->moe;
    a.ldl = up8(o->o->n_experts);
    a.w_gu = o->up.p, a.w_down = o->down.p;
    a.ld_gu = o->up.ld, a.ld_down = o->down.ld;
    a.gu_step = (int64_t)(up256((size_t)o->up.n * (size_t)o->up.ld * dtype_size(d->act)) / dtype_size(d->act));
    a.down_step = (int64_t)(up256((size_t)o->down.n * (size_t)o->down.ld * dtype_size(d->act)) / dtype_size(d->act));
    a.n_experts = o->o->n_experts, a.top_k = o->o->top_k, a.norm_topk = o->o->norm_topk;
    a.hidden = o->down.n, a.ffn = o->down.k;
    a.ld2f = up8(2 * a.ffn), a.ldf = up8(a.ffn), a.ldy = up8(a.hidden);
    a.x = d->buf[o->o->in], a.out = d->buf[o->o->out];
    a.ldx = d->ld[o->o->in], a.ldo = d->ld[o->o->out];
    for (a.token0 = 0; a.token0 < r->n.tokens; a.token0 += d->moe_tokens) {
        a.tokens = r->n.tokens - a.token0 < d->moe_tokens ? r->n.tokens - a.token0 : d->moe_tokens;
        struct linear_args router = {.op = o, .x = buf_row(d, o->o->in, a.token0), .y = d->router, .ldx = a.ldx, .ldy = a.ldl,
                                     .y_dtype = DT_F32, .rows = a.tokens};
        if (linear_run(d, &router, e)) return -1;
        k_moe(d->tabs, a, d->stream);
    }
    int rc = sum_and_norm(r, o, o->o->out, e);
    return rc < 1 ? rc ? -1 : 1 : sum_ranks(r, o->o->out, e);
}

static void run_rows(const struct run *r, const struct dop *o) {
    struct dev *d = r->d;
    enum buf_id in = o->o->in, out = o->o->out;
    int64_t n = d->width[in] < d->width[out] ? d->width[in] : d->width[out];
    struct rows_args a = {.in = d->buf[in], .out = d->buf[out], .ldi = d->ld[in], .ldo = d->ld[out], .width = (int32_t)n,
                          .size = (int32_t)dtype_size(buf_dtype(d, in))};
    k_rows(d->tabs, a, r->n.rows, d->stream);
}

/* -1, or how many operators behind it are done with it. */
static int run_op(const struct run *r, struct dop *o, struct err *e) {
    bool none = (o->o->in == BUF_ROWS || o->o->out == BUF_ROWS || o->o->kind == OP_SAMPLE) && r->n.rows == 0;
    if (none) return 0;
    switch (o->o->kind) {
    case OP_EMBED: run_embed(r, o); break;
    case OP_NORM: run_norm(r, o); break;
    case OP_LINEAR: return run_linear(r, o, e);
    case OP_ROPE_KV: run_rope(r, o); break;
    case OP_ATTENTION: return run_attention(r, o, e);
    case OP_SILU_MUL: run_silu(r, o); break;
    case OP_MOE: return run_moe(r, o, e);
    case OP_REDUCE: return run_reduce(r, o, e);
    case OP_ROWS: run_rows(r, o); break;
    case OP_SAMPLE: return sampling_run(r->d, r->n.rows, e);
    }
    return 0;
}

static int run_ops(const struct run *r, int32_t from, int32_t to, struct err *e) {
    struct dev *d = r->d;
    for (int32_t i = from; i < to; i++) {
        d->op_at = i;
        int more = run_op(r, &d->ops[i], e);
        if (more < 0 || cuda_ok(d, cudaPeekAtLastError(), "a launch", e)) return -1;
        i += more;
    }
    return 0;
}

int step_tokens(const struct run *r, struct err *e) {
    struct dev *d = r->d;
    d->op_at = -1;
    k_begin(d->tabs, r->n, d->stream);
    if (d->angles.inv_freq) k_angles(d->tabs, d->angles, r->n.tokens, d->stream);
    if (r->n_chunks) k_chunks(d->tabs, d->chunks, d->ld[BUF_QKV], d->ld[BUF_ATT], d->shape.page_size, d->stream);
    return run_ops(r, 0, d->rows_at, e);
}

int step_rows(const struct run *r, struct err *e) { return r->n.rows ? run_ops(r, r->d->rows_at, r->d->n_ops, e) : 0; }

/* Both halves, each from a graph where one has room. */
static int enqueue(const struct run *r, struct err *e) {
    struct dev *d = r->d;
    const struct graph *tokens = NULL, *rows = NULL;
    if (!d->warming && r->n.tokens == r->n.seqs) tokens = graph_find(d, GRAPH_DECODE, r->n.tokens);
    if (!d->warming && !tokens) tokens = graph_find(d, GRAPH_MIXED, r->n.tokens);
    if (!d->warming && r->n.rows) rows = graph_find(d, GRAPH_ROWS, r->n.rows);
    d->op_at = -1;
    if (tokens ? cuda_ok(d, cudaGraphLaunch(tokens->exec, d->stream), "a graph", e) : step_tokens(r, e)) return -1;
    d->op_at = -1;
    return rows ? cuda_ok(d, cudaGraphLaunch(rows->exec, d->stream), "a graph of rows", e) : step_rows(r, e);
}

/* One eager step, so that every kernel of ours is loaded. The pages of empty tables are page 0, which holds nothing. */
int step_warm(struct dev *d, struct err *e) {
    const struct batch_limits *l = &d->shape.limits;
    struct batch *b = batch_init(mem_aligned(64, batch_size(l)), l);
    struct result r = {.rows = mem_zalloc((size_t)l->max_seqs, sizeof *r.rows)};
    int32_t chunk = l->max_tokens < 4 ? l->max_tokens : 3, n = 0;
    if (chunk > d->shape.max_len) chunk = d->shape.max_len;
    batch_reset(b, 0);
    if (l->max_seqs > 1 && l->max_tokens > chunk) batch_seqs(b)[n++] = (struct batch_seq){1, 0, 1, -1, b->n_rows++};
    batch_seqs(b)[n++] = (struct batch_seq){0, 0, chunk, 0, b->n_rows++};
    b->n_given = chunk;
    b->n_seqs = n;
    b->n_tokens = chunk + n - 1;
    batch_seal(b);
    d->warming = d->alone = true;
    int bad = step_launch(d, b, e);
    if (!bad) bad = step_collect(d, &r, e);
    d->warming = d->alone = false;
    free(r.rows);
    free(b);
    return bad;
}

/* ---- launch and collect ---- */

int step_launch(struct dev *d, const struct batch *b, struct err *e) {
    if (!d->loaded) return err_machine(e, "the device has no program yet");
    if (d->n_pending == 2) BUG("step %llu: two steps are launched and not collected", (unsigned long long)b->step);
    if (batch_check(b)) return err_machine(e, "step %llu: the batch does not fit its checksum", (unsigned long long)b->step);
    struct pending *p = &d->pending[(d->first_pending + d->n_pending) % 2];
    d->step = b->step;
    d->op_at = -1;
    if (cuda_ok(d, cudaSetDevice(d->gpu), "choosing the GPU", e) || (step_exchanges(d) && comm_same_batch(d->args.comm, b->step, b->checksum, e))) return -1;
    int32_t candidates;
    struct step_dims n = put_block(d, b, p->block, &candidates);
    const struct step_head *h = (const struct step_head *)(const void *)p->block;
    cudaError_t rc = cudaMemcpyAsync((void *)(uintptr_t)d->tabs.head, p->block, h->size, cudaMemcpyHostToDevice, d->stream);
    if (cuda_ok(d, rc, "the copy up", e)) return -1;
    struct run r = {.d = d, .n = n, .n_fi = h->n_fi, .n_fa = h->n_fa, .n_chunks = h->n_chunks};
    if (n.tokens && enqueue(&r, e)) return -1;
    if (n.rows && sampling_finish(d, n.rows, candidates, e)) return -1;
    p->step = b->step;
    p->n_rows = n.rows;
    rc = n.rows ? cudaMemcpyAsync(p->rows, d->sample.out, (size_t)n.rows * sizeof *p->rows, cudaMemcpyDeviceToHost, d->stream) : 0;
    if (!rc) rc = cudaEventRecord(p->done, d->stream);
    d->n_pending++;
    return cuda_ok(d, rc, "the copy down", e);
}

/* Where nothing on the GPU gives up a wait for another rank, the host looks at the clock. */
static int wait_for_step(struct dev *d, const struct pending *p, struct err *e) {
    enum { LOOK_NS = 20000000 };
    uint64_t start = clock_ns(), looked = start;
    cudaError_t rc = cudaSuccess;
    if (!d->comm || !d->comm_maker->must_look(d->comm)) rc = cudaEventSynchronize(p->done);
    else
        while ((rc = cudaEventQuery(p->done)) == cudaErrorNotReady) {
            uint64_t now = clock_ns();
            if (now - looked < LOOK_NS) continue;
            looked = now;
            if (d->comm_maker->check(d->comm, p->step, now - start, e)) return -1;
            sched_yield();
        }
    if (cuda_ok(d, rc, "waiting", e)) return -1;
    return d->comm ? d->comm_maker->check(d->comm, p->step, 0, e) : 0;
}

int step_collect(struct dev *d, struct result *r, struct err *e) {
    if (!d->n_pending) return err_machine(e, "no step was launched");
    struct pending *p = &d->pending[d->first_pending];
    d->op_at = -2;
    if (wait_for_step(d, p, e)) return -1;
    d->first_pending ^= 1;
    d->n_pending--;
    r->step = p->step;
    r->n_rows = p->n_rows;
    memcpy(r->rows, p->rows, (size_t)p->n_rows * sizeof *p->rows);
    return 0;
}
