/* maker.c: a CUDA device: its life and its memory. Owned by the rank thread. All device memory is laid out from one list (lay_out),
 * walked once to count and once to hand out, and allocated by load; nothing is allocated afterwards. It refuses GPUs older
 * than compute capability 8.0, and programs whose shapes do not fit the buffers. */
#include "base/clock.h"
#include "base/mem.h"
#include "dev/cpu/half.h"
#include "comm/comm.h"
#include "dev/cuda/cuda.h"
#include "dev/cuda/exchange.h"
#include "hw/health.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- trouble ---- */

const char *op_name(enum op_kind k) {
    static const char *const names[] = {"embedding", "norm", "linear", "rope and KV store", "attention", "silu", "experts", "reduce",
                                        "rows", "sampling"};
    return (size_t)k < sizeof names / sizeof *names ? names[k] : "unknown";
}

int cuda_ok(struct dev *d, cudaError_t rc, const char *what, struct err *e) {
    char health[480], where[80] = "";
    if (rc == cudaSuccess) return 0;
    if (d->op_at >= 0 && d->op_at < d->n_ops)
        snprintf(where, sizeof where, ", operator %d (%s)", d->op_at, op_name(d->ops[d->op_at].o->kind));
    else if (d->op_at == -2)
        snprintf(where, sizeof where, ", one of its operators");
    gpu_health_describe(d->health, health, sizeof health);
    return err_machine(e, "CUDA, rank %d on GPU %d, step %llu%s: %s: %s (%s); %s", d->args.rank, d->gpu, (unsigned long long)d->step, where, what,
                       cudaGetErrorString(rc), cudaGetErrorName(rc), *health ? health : "NVML says nothing");
}

/* ---- sizes ---- */

static void buffer_widths(const struct dev_shape *s, int64_t w[BUF_COUNT]) {
    int64_t E = s->hidden, HD = (int64_t)s->n_heads * s->head_dim, KD = (int64_t)s->n_kv_heads * s->head_dim, F = s->ffn;
    const int64_t all[BUF_COUNT] = {[BUF_H] = E,       [BUF_X] = E,  [BUF_QKV] = HD + 2 * KD, [BUF_ATT] = HD,
                                    [BUF_GU] = 2 * F,  [BUF_FF] = F, [BUF_Y] = E,             [BUF_ROWS] = E,
                                    [BUF_LOGITS] = s->vocab};
    memcpy(w, all, sizeof all);
}

/* Ids in a rank's part of the vocabulary: whole eighths; the last has fewer. One rank has all. */
static int32_t vocab_share(const struct dev_shape *s, int32_t n_ranks) { return n_ranks > 1 ? (s->vocab_total + 7) / 8 * 8 / n_ranks : s->vocab; }

static int32_t capacity(int32_t rows) { return rows < 8 ? 8 : linear_rows(rows); }

static size_t page_bytes(const struct dev_shape *s) {
    return 2 * (size_t)s->n_kv_heads * (size_t)s->page_size * (size_t)s->head_dim * dtype_size(s->kv_dtype);
}

struct arena {
    char *base; /* NULL: only count */
    size_t bytes;
};

static void *take(struct arena *a, size_t n) {
    size_t at = a->bytes;
    a->bytes += up256(n);
    return a->base ? a->base + at : NULL;
}

static void lay_buffers(struct dev *d, struct arena *a) {
    for (int i = 1; i < BUF_COUNT; i++) {
        bool rows = i == BUF_ROWS || i == BUF_LOGITS;
        d->ld[i] = up8(i == BUF_LOGITS ? vocab_share(&d->shape, d->args.n_ranks) : d->width[i]);
        d->buf[i] = take(a, (size_t)d->ld[i] * (size_t)(rows ? d->cap_rows : d->cap_tokens) * dtype_size(buf_dtype(d, (enum buf_id)i)));
    }
}

/* Everyone's shares have the same stride, also the last one, which is shorter. */
static void lay_shares(struct dev *d, struct arena *a) {
    int32_t ranks = d->args.n_ranks;
    if (ranks < 2) return; /* a single one with a communicator sums with itself, but has all logits */
    d->logits_ld = up8(d->shape.vocab_total);
    d->shares = take(a, (size_t)d->ld[BUF_LOGITS] * (size_t)d->cap_rows * (size_t)ranks * 4);
    d->logits = take(a, (size_t)d->logits_ld * (size_t)d->cap_rows * 4);
    struct sample_rank_args *r = &d->sample_rank;
    r->mine = take(a, (size_t)d->cap_rows * SAMPLE_FOUND_BYTES);
    r->all = take(a, (size_t)d->cap_rows * (size_t)ranks * SAMPLE_FOUND_BYTES);
    r->state = take(a, (size_t)d->cap_rows * SAMPLE_STATE_BYTES);
    r->list = d->logits, r->all_list = d->shares; /* a step has lists or all logits, never both */
}

static void lay_tables(struct dev *d, struct arena *a) {
    const struct dev_shape *s = &d->shape;
    size_t S = (size_t)s->limits.max_seqs, T = (size_t)d->cap_tokens, half = (size_t)s->head_dim / 2;
    struct tabs *t = &d->tabs;
    t->table_len = (s->max_len + s->page_size - 1) / s->page_size;
    t->head = take(a, d->block_bytes);
    t->token = take(a, T * 4), t->pos = take(a, T * 4), t->slot = take(a, T * 4);
    t->row_token = take(a, S * 4), t->row_seq = take(a, S * 4);
    t->cos = take(a, T * half * 4), t->sin = take(a, T * half * 4);
    t->pages = take(a, S * (size_t)t->table_len * 4);
    t->sampling = take(a, S * sizeof(struct sampling));
    t->last = take(a, S * 4);
    t->n_turns = d->n_ops;
    t->turn = take(a, (size_t)d->n_ops * 4);
    d->angles.inv_freq = s->rope.inv_freq ? take(a, half * 4) : NULL;
    d->sample.out = take(a, S * sizeof(struct result_row));
}

static void lay_scratch(struct dev *d, struct arena *a) {
    const struct dev_shape *s = &d->shape;
    size_t S = (size_t)s->limits.max_seqs, parts = (size_t)d->parts_max * (size_t)s->n_heads;
    d->att.part_out = take(a, parts * (size_t)s->head_dim * 4);
    d->att.part_ml = take(a, parts * 2 * 4);
    d->att.arrived = take(a, S * (size_t)s->n_kv_heads * 4);
    d->sample.parts = take(a, S * SAMPLE_SPLITS_MAX * SAMPLE_PART_BYTES);
    d->workspace = take(a, WORKSPACE_BYTES);
    struct chunk_lists *l = &d->chunks;
    l->len_q = take(a, CUDNN_SEQS * 4), l->len_kv = take(a, CUDNN_SEQS * 4);
    l->at_q = take(a, (CUDNN_SEQS + 1) * 8), l->at_out = take(a, (CUDNN_SEQS + 1) * 8);
    l->table = take(a, CUDNN_SEQS * (size_t)d->tabs.table_len * 4);
}

static void lay_experts(struct dev *d, struct arena *a) {
    enum { TOKENS = 4096 };
    int32_t X = d->shape.n_experts, top = d->shape.top_k;
    int64_t F = d->shape.moe_ffn;
    if (!X) return;
    d->moe_tokens = d->cap_tokens < TOKENS ? d->cap_tokens : TOKENS;
    size_t n = (size_t)d->moe_tokens * (size_t)top, size = dtype_size(d->act);
    struct moe_args *m = &d->moe;
    d->router = take(a, (size_t)d->moe_tokens * (size_t)up8(X) * 4);
    m->gu = take(a, n * (size_t)up8(2 * F) * size);
    m->ff = take(a, n * (size_t)up8(F) * size);
    m->y = take(a, n * (size_t)up8(d->shape.hidden) * size);
    m->expert = take(a, n * 4), m->at = take(a, n * 4), m->source = take(a, n * 4), m->p = take(a, n * 4);
    m->first = take(a, ((size_t)X + 1) * 4);
    m->tiles = take(a, (size_t)moe_max_tiles((int32_t)n, X) * 12);
    m->n_tiles = take(a, 8);
    m->a = d->act;
    m->logits = d->router;
    m->max_tokens = d->moe_tokens;
}

/* The one list of what the arena holds, and how much of it is for what. */
static void lay_out(struct dev *d, struct arena *a, struct dev_bytes *b) {
    size_t at[5];
    at[0] = a->bytes;
    lay_buffers(d, a);
    lay_shares(d, a);
    at[1] = a->bytes;
    lay_tables(d, a);
    at[2] = a->bytes;
    lay_experts(d, a);
    at[3] = a->bytes;
    lay_scratch(d, a);
    at[4] = a->bytes;
    b->activations = at[1] - at[0];
    b->tables = at[2] - at[1];
    b->experts = at[3] - at[2];
    b->workspace = at[4] - at[3];
}

static void set_sizes(struct dev *d, const struct dev_shape *s) {
    d->shape = *s;
    if (!d->shape.vocab_total) d->shape.vocab_total = s->vocab;
    d->cap_tokens = capacity(s->limits.max_tokens);
    d->cap_rows = capacity(s->limits.max_seqs);
    d->parts_max = step_parts_max(d, s);
    d->block_bytes = step_block_bytes(s, d->parts_max);
    d->layer_bytes = page_bytes(s) * (size_t)s->n_pages;
    buffer_widths(s, d->width);
}

/* What the driver and cuBLASLt take for kernels, which are loaded at start; what NCCL takes later than when it is opened (measured: up to 20 MB). */
enum { CODE_BYTES = 64 << 20, NCCL_LATER_BYTES = 32 << 20, OPS_A_LAYER = 11, OPS_AROUND = 6 };

static int32_t ranks_of(const struct dev_shape *s) {
    int32_t n = 1;
    while (n < P2P_RANKS && s->vocab * (int64_t)n < s->vocab_total) n *= 2;
    return n;
}

/* d: NULL, or opened perhaps for one rank only. */
static void cuda_plan(const struct dev *d, const struct dev_shape *s, struct dev_bytes *b) {
    struct dev count = {.n_sms = d ? d->n_sms : 132, .act = s->dtype, .args.n_ranks = ranks_of(s), .args.graph_max = d ? d->args.graph_max : -1,
                        .n_ops = s->n_layers * OPS_A_LAYER + OPS_AROUND};
    struct arena a = {0};
    *b = (struct dev_bytes){0};
    set_sizes(&count, s);
    lay_out(&count, &a, b);
    b->kv = count.layer_bytes * (size_t)s->n_layers;
    b->comm = count.args.n_ranks > 1 ? P2P_BYTES : 0;
    if (d && d->comm && d->comm_maker->must_look(d->comm)) b->comm += NCCL_LATER_BYTES;
    b->libraries = d ? d->libraries : 0;
    b->graphs = graphs_bytes(&count, s);
    b->code = CODE_BYTES;
}

static void cuda_loaded(const struct dev *d, struct dev_loaded *l) {
    *l = (struct dev_loaded){.bytes = d->bytes, .taken = d->taken, .graphs_taken = d->graphs_taken, .n_graphs = d->n_graphs, .graphs_s = d->graphs_s};
    for (int32_t i = 0; i < d->n_graphs; i++) {
        if (d->graphs[i].kind == GRAPH_DECODE) l->decodes = d->graphs[i].size;
        if (d->graphs[i].kind == GRAPH_MIXED) l->tokens = d->graphs[i].size;
    }
}

/* ---- checks ---- */

static int check_shape(const struct dev_shape *s, struct err *e) {
    enum { HEAD_DIM_MAX = 512 };
    if (s->n_layers < 0 || s->n_heads < 1 || s->n_kv_heads < 1 || s->head_dim < 2 || s->hidden < 1 || s->ffn < 0 || s->vocab < 1)
        return err_input(e, "expected positive model sizes, found %d layers, %d heads, %d KV heads of %d, hidden %d, vocabulary %d",
                         s->n_layers, s->n_heads, s->n_kv_heads, s->head_dim, s->hidden, s->vocab);
    if (s->n_heads % s->n_kv_heads)
        return err_input(e, "expected the number of heads to be a multiple of the KV heads, found %d and %d", s->n_heads,
                         s->n_kv_heads);
    if (s->head_dim % 2 || s->head_dim > HEAD_DIM_MAX)
        return err_input(e, "expected an even head size up to %d, found %d", HEAD_DIM_MAX, s->head_dim);
    if (s->vocab > 0xffffff) return err_input(e, "expected a vocabulary up to %d, found %d", 0xffffff, s->vocab);
    if (s->page_size < 1 || s->n_pages < 1 || s->max_len < 1 || s->limits.max_tokens < 1 || s->limits.max_seqs < 1)
        return err_input(e, "expected positive limits, found page size %d, %d pages, length %d, %d tokens and %d sequences a step",
                         s->page_size, s->n_pages, s->max_len, s->limits.max_tokens, s->limits.max_seqs);
    return 0;
}

static int check_op(const struct dev *d, const struct op *o, int32_t at, struct err *e) {
    if ((unsigned)o->in >= BUF_COUNT || (unsigned)o->in2 >= BUF_COUNT || (unsigned)o->out >= BUF_COUNT)
        return err_input(e, "operator %d names a buffer that does not exist", at);
    int64_t n = 0;
    for (int i = 0; i < 3; i++) {
        if (o->kind != OP_LINEAR || !o->w[i].data) continue;
        if (o->w[i].k != o->w[0].k || o->w[i].n < 1 || o->w[i].ld < o->w[i].k)
            return err_input(e, "operator %d: expected weights side by side with %d columns, found [%d, %d] with row stride %lld", at,
                             o->w[0].k, o->w[i].n, o->w[i].k, (long long)o->w[i].ld);
        n += o->w[i].n;
    }
    if (o->kind == OP_LINEAR && (!o->w[0].data || o->w[0].k > d->width[o->in] || n > d->width[o->out]))
        return err_input(e, "operator %d: a weight of [%lld, %d] does not fit its buffers of %lld and %lld columns", at, (long long)n,
                         o->w[0].k, (long long)d->width[o->out], (long long)d->width[o->in]);
    if ((o->kind == OP_ROPE_KV || o->kind == OP_ATTENTION) && (o->layer < 0 || o->layer >= d->shape.n_layers))
        return err_input(e, "operator %d: expected a layer below %d, found %d", at, d->shape.n_layers, o->layer);
    if (o->kind == OP_ROPE_KV && (d->shape.rope.dim != d->shape.head_dim || !d->shape.rope.inv_freq))
        return err_input(e, "operator %d: expected a rotary size of %d, found %d", at, d->shape.head_dim, d->shape.rope.dim);
    if (o->kind == OP_NORM && o->w[0].k > d->width[o->in])
        return err_input(e, "operator %d: a norm of %d does not fit its buffer of %lld columns", at, o->w[0].k, (long long)d->width[o->in]);
    if (o->kind == OP_MOE && (o->n_experts > d->shape.n_experts || o->top_k > d->shape.top_k || o->experts[0].n > d->shape.moe_ffn))
        return err_input(e, "operator %d: %d experts of %d, %d a token, do not fit a shape with %d of %d, %d a token", at, o->n_experts,
                         o->experts[0].n, o->top_k, d->shape.n_experts, d->shape.moe_ffn, d->shape.top_k);
    if (o->kind == OP_MOE && (o->n_experts < 1 || o->n_experts > MOE_EXPERTS_MAX || o->top_k < 1 || o->top_k > o->n_experts ||
                              o->top_k > MOE_TOP_MAX))
        return err_input(e, "operator %d: expected up to %d experts and up to %d a token, found %d and %d", at, MOE_EXPERTS_MAX, MOE_TOP_MAX,
                         o->n_experts, o->top_k);
    return 0;
}

/* ---- load ---- */

/* Activations are in the dtype that is wished for, or that of the first matrix that multiplies; other matrices are brought to it. */
static enum dtype activation_dtype(const struct dev_shape *s, const struct dev_program *p) {
    if (s->convert) return s->dtype;
    for (int32_t i = 0; i < p->n_ops; i++)
        if (p->ops[i].kind == OP_LINEAR || p->ops[i].kind == OP_MOE) return p->ops[i].w[0].dtype;
    return s->dtype;
}

static void unload(struct dev *d) {
    if (d->stream) cudaStreamSynchronize(d->stream);
    graphs_release(d);
    linear_release(d);
    chunks_release(d);
    for (int i = 0; i < 2; i++) {
        struct pending *p = &d->pending[i];
        if (p->block) cudaFreeHost(p->block);
        if (p->rows) cudaFreeHost(p->rows);
        if (p->done) cudaEventDestroy(p->done);
        *p = (struct pending){0};
    }
    char **all[] = {&d->arena, &d->weights, &d->kv};
    if (d->arena_is_comms) d->arena = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i]) cudaFree(*all[i]);
        *all[i] = NULL;
    }
    upload_forget(d);
    free(d->candidates);
    d->candidates = NULL;
    d->n_pending = d->first_pending = d->moe_tokens = 0;
    d->loaded = false;
}

/* Ranks that share a GPU cannot tell whose doing it was. */
static bool alone_there(const struct dev *d) {
    for (int32_t i = 0; d->args.gpus && i < d->args.n_ranks; i++)
        if (i != d->args.local && d->args.gpus[i] == d->gpu) return false;
    return true;
}

/* Free memory of the GPU; 0: it is not told. */
static size_t free_now(void) {
    size_t now = 0, total;
    return cudaMemGetInfo(&now, &total) ? 0 : now;
}

/* Libraries took what is gone since `before`, but for `ours`. */
static void count_library(const struct dev *d, size_t before, size_t ours, size_t *bytes) {
    size_t now = free_now();
    if (now && alone_there(d) && before > now + ours) *bytes += before - now - ours;
}

static int allocate(struct dev *d, char **p, size_t n, const char *what, struct err *e) {
    size_t free_bytes = 0, total = 0;
    if (!n) n = 256;
    cudaError_t rc = cudaMalloc((void **)p, n);
    if (rc == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cudaMemGetInfo(&free_bytes, &total);
        return err_machine(e, "GPU %d has no %.2f GB for %s: %.2f of its %.2f GB are free; lower --memory-ratio or --num-pages, "
                              "or split the model over more GPUs with --tp",
                           d->gpu, (double)n / 1e9, what, (double)free_bytes / 1e9, (double)total / 1e9);
    }
    if (!rc) rc = cudaMemsetAsync(*p, 0, n, d->stream);
    return cuda_ok(d, rc, what, e);
}

/* What is exchanged lies in it, so the communicator may want to give it. */
static int allocate_arena(struct dev *d, size_t n, struct err *e) {
    void *p = NULL;
    size_t before = free_now();
    if (d->comm && d->comm_maker->symmetric(d->comm, n, &p, e)) return -1;
    d->arena_is_comms = p != NULL;
    if (!p) return allocate(d, &d->arena, n, "activations and workspace", e);
    d->arena = p;
    count_library(d, before, n, &d->bytes.libraries);
    return cuda_ok(d, cudaMemsetAsync(p, 0, n, d->stream), "activations and workspace", e);
}

static int allocate_all(struct dev *d, const struct dev_program *prog, struct err *e) {
    struct arena count = {0};
    struct dev_bytes parts;
    size_t weights = upload_size(d, prog, d->act);
    lay_out(d, &count, &parts);
    size_t kv = d->layer_bytes * (size_t)(d->shape.n_layers ? d->shape.n_layers : 1);
    cuda_plan(d, &d->shape, &d->bytes);
    d->bytes.weights = weights;
    if (allocate(d, &d->weights, weights, "the weights", e) || allocate_arena(d, count.bytes, e) ||
        allocate(d, &d->kv, kv, "the KV cache", e))
        return -1;
    struct arena a = {.base = d->arena};
    lay_out(d, &a, &parts);
    for (int i = 0; i < 2; i++) {
        struct pending *p = &d->pending[i];
        if (cuda_ok(d, cudaHostAlloc((void **)&p->block, d->block_bytes, cudaHostAllocDefault), "pinned memory", e)) return -1;
        size_t rows = (size_t)d->shape.limits.max_seqs * sizeof *p->rows;
        if (cuda_ok(d, cudaHostAlloc((void **)&p->rows, rows, cudaHostAllocDefault), "pinned memory", e)) return -1;
        if (cuda_ok(d, cudaEventCreateWithFlags(&p->done, cudaEventDisableTiming), "an event", e)) return -1;
    }
    return 0;
}

static int fill_tables(struct dev *d, struct err *e) {
    const struct dev_shape *s = &d->shape;
    const struct rope *r = &s->rope;
    size_t S = (size_t)s->limits.max_seqs;
    struct sampling *greedy = mem_zalloc(S, sizeof *greedy);
    for (size_t i = 0; i < S; i++) greedy[i] = (struct sampling){.top_p = 1, .n_logprobs = -1};
    cudaError_t rc = cudaMemcpy(d->tabs.sampling, greedy, S * sizeof *greedy, cudaMemcpyHostToDevice);
    if (!rc && r->inv_freq)
        rc = cudaMemcpy((void *)(uintptr_t)d->angles.inv_freq, r->inv_freq, (size_t)r->dim / 2 * 4, cudaMemcpyHostToDevice);
    free(greedy);
    d->angles = (struct angle_args){.inv_freq = d->angles.inv_freq, .dim = r->dim, .dynamic_max = r->dynamic_max, .scale = r->scale,
                                    .dynamic_theta = r->dynamic_theta, .dynamic_factor = r->dynamic_factor};
    d->sample.logits = d->args.n_ranks > 1 ? d->logits : d->buf[BUF_LOGITS];
    d->sample.ld = d->args.n_ranks > 1 ? d->logits_ld : d->ld[BUF_LOGITS];
    d->sample.vocab = s->vocab_total;
    struct sample_rank_args *share = &d->sample_rank;
    share->s = d->sample;
    share->s.logits = d->buf[BUF_LOGITS], share->s.ld = d->ld[BUF_LOGITS];
    share->s.vocab = s->vocab, share->s.first = s->vocab_first;
    share->n_ranks = d->args.n_ranks, share->total = s->vocab_total;
    struct att_args *a = &d->att;
    a->a = d->act, a->kv_dtype = s->kv_dtype, a->ldq = d->ld[BUF_QKV], a->page_size = s->page_size;
    a->n_heads = s->n_heads, a->n_kv_heads = s->n_kv_heads, a->head_dim = s->head_dim;
    a->page_shift = s->page_size & (s->page_size - 1) ? -1 : __builtin_ctz((unsigned)s->page_size);
    return cuda_ok(d, rc, "the first tables", e);
}

/* SILU_MUL's half: what the LINEAR before it gives. */
static void find_halves(struct dev *d) {
    for (int32_t i = 0; i < d->n_ops; i++) {
        if (d->ops[i].o->kind != OP_SILU_MUL) continue;
        d->ops[i].silu_n = d->shape.ffn;
        for (int32_t k = i - 1; k >= 0; k--)
            if (d->ops[k].o->kind == OP_LINEAR && d->ops[k].o->out == d->ops[i].o->in) {
                d->ops[i].silu_n = d->ops[k].w.n / 2;
                break;
            }
    }
}

static bool complete(const struct dev_program *p) {
    return p->n_ops > 1 && p->ops[0].kind == OP_EMBED && p->ops[p->n_ops - 1].kind == OP_SAMPLE;
}

static int count_taken(struct dev *d, struct err *e) {
    size_t now, total;
    if (cuda_ok(d, cudaMemGetInfo(&now, &total), "asking for free memory", e)) return -1;
    d->taken = alone_there(d) && d->free_at_open > now ? d->free_at_open - now : 0;
    return 0;
}

static int32_t first_of_rows(const struct dev *d) {
    for (int32_t i = 0; i < d->n_ops; i++) {
        const struct op *o = d->ops[i].o;
        if (o->in == BUF_ROWS || o->out == BUF_ROWS || o->kind == OP_SAMPLE) return i;
    }
    return d->n_ops;
}

/* The weights, and how fast they came, for the log; and what became of the communicator, whose memory is there now. */
static int upload_timed(struct dev *d, struct err *e) {
    uint64_t start = clock_ns();
    if (upload(d, e)) return -1;
    double s = (double)(clock_ns() - start) / 1e9, gb = (double)d->bytes.weights / 1e9;
    snprintf(d->describe + d->described, sizeof d->describe - d->described, "%s%s; %.2f GB of weights came in %.2f s, %.1f GB/s",
             d->comm ? ", exchange by " : "", d->comm ? d->comm_maker->describe(d->comm) : "", gb, s, gb / s);
    return 0;
}

static int cuda_load(struct dev *d, const struct dev_shape *shape, const struct dev_program *prog, struct err *e) {
    if (cuda_ok(d, cudaSetDevice(d->gpu), "choosing the GPU", e)) return -1;
    unload(d);
    if (check_shape(shape, e)) return -1;
    set_sizes(d, shape);
    d->act = activation_dtype(shape, prog);
    for (int32_t i = 0; i < prog->n_ops; i++)
        if (check_op(d, &prog->ops[i], i, e)) return -1;
    d->op_at = -1;
    d->candidates = mem_zalloc((size_t)shape->limits.max_seqs, sizeof *d->candidates);
    if (allocate_all(d, prog, e)) return -1;
    /* What follows copies on other streams: memory must be clear before, or be cleared after them (another rank's clearing is in the way). */
    if (cuda_ok(d, cudaStreamSynchronize(d->stream), "clearing memory", e)) return -1;
    if (fill_tables(d, e) || upload_timed(d, e) || linear_prepare(d, e)) return -1;
    find_halves(d);
    d->rows_at = first_of_rows(d);
    size_t before = free_now();
    if (chunks_prepare(d, e)) return -1;
    count_library(d, before, 0, &d->bytes.libraries);
    d->loaded = true;
    if (complete(prog) && (step_warm(d, e) || graphs_make(d, e))) return -1;
    return count_taken(d, e);
}

/* ---- life ---- */

static void cuda_close(struct dev *d) {
    if (!d) return;
    cudaSetDevice(d->gpu);
    unload(d);
    if (d->comm) d->comm_maker->close(d->comm);
    lintab_release(&d->shipped);
    if (d->lt) cublasLtDestroy(d->lt);
    gpu_health_close(d->health);
    cudnn_close(d->cudnn);
    if (d->stream) cudaStreamDestroy(d->stream);
    free(d);
}

/* From the start on, so that what the driver reports later is seen. */
static void watch_gpu(struct dev *d) {
    char bus[32];
    if (!cudaDeviceGetPCIBusId(bus, sizeof bus, d->gpu)) d->health = gpu_health_open(bus);
}

static int look_at(struct dev *d, struct err *e) {
    int major = 0, driver = 0, runtime = 0;
    size_t total;
    struct cudaDeviceProp p;
    if (cuda_ok(d, cudaSetDevice(d->gpu), "choosing the GPU", e)) return -1;
    if (cuda_ok(d, cudaGetDeviceProperties(&p, d->gpu), "asking for the GPU's properties", e)) return -1;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, d->gpu);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (major < 8)
        return err_machine(e, "GPU %d (%s) has compute capability %d.%d; expected 8.0 or later; use --device cpu", d->gpu, p.name, p.major,
                           p.minor);
    d->n_sms = p.multiProcessorCount;
    d->capability = p.major * 10 + p.minor;
    snprintf(d->name, sizeof d->name, "%.63s", p.name);
    if (cuda_ok(d, cudaMemGetInfo(&d->free_at_open, &total), "asking for free memory", e)) return -1;
    launch_init(major);
    snprintf(d->describe, sizeof d->describe, "cuda, GPU %d: %s, %d SMs, %.1f GB, CUDA %d.%d (driver %d.%d)", d->gpu, p.name, d->n_sms,
             (double)p.totalGlobalMem / 1e9, runtime / 1000, runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
    d->described = strlen(d->describe);
    return 0;
}

static int32_t gpu_of(const struct dev_args *a) { return a->gpus ? a->gpus[a->local] : a->local; }

/* Processes have options of their own. */
static int same_comm(struct comm *c, const char *name, struct err *e) {
    char mine[8] = "", all[COMM_MAX_RANKS][8];
    snprintf(mine, sizeof mine, "%s", name);
    if (c) comm_at(c, 0, "the choice of a communicator", -1);
    if (comm_gather(c, mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 1; c && i < c->n_ranks; i++)
        if (memcmp(all[i], all[0], sizeof mine)) return err_input(e, "rank %d has --gpu-comm %s, rank 0 %s: start all with the same options", i, all[i], all[0]);
    return 0;
}

/* A device of several ranks that is opened without their communicator is asked for its memory only. One rank has nobody to exchange with; NCCL
 * that is asked for is used all the same, so that it can be tested with one GPU. */
static int open_comm(struct dev *d, struct err *e) {
    const struct dev_args *a = &d->args;
    bool alone = a->n_ranks == 1 && a->gpu_comm && !strcmp(a->gpu_comm, "nccl");
    if (!a->comm && !alone) return 0;
    d->comm_maker = gpu_comm_by_name(a->gpu_comm);
    if (same_comm(a->comm, d->comm_maker->name, e)) return -1;
    return d->comm_maker->open(&d->comm, &(struct gpu_comm_args){.control = a->comm, .device = d->gpu, .timeout_ns = a->comm_timeout_ns,
                                                                 .no_windows = a->no_windows}, e);
}

static int cuda_open(struct dev **out, const struct dev_args *args, struct err *e) {
    struct dev *d = mem_zalloc(1, sizeof *d);
    d->args = *args;
    d->op_at = -1;
    d->gpu = gpu_of(args);
    watch_gpu(d);
    if (look_at(d, e) || cuda_ok(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "a stream", e) ||
        cuda_ok(d, (cudaError_t)att_init(), "shared memory for attention", e) ||
        (d->capability >= 90 && cuda_ok(d, (cudaError_t)own_init(), "shared memory for products", e))) {
        cuda_close(d);
        return -1;
    }
    cublasStatus_t rc = cublasLtCreate(&d->lt);
    if (rc) {
        cuda_close(d);
        return err_machine(e, "cuBLASLt does not start: status %d", (int)rc);
    }
    size_t before = free_now();
    if (linear_tables(d, e) || chunks_open(d, e) || open_comm(d, e)) {
        cuda_close(d);
        return -1;
    }
    count_library(d, before, d->comm && d->args.n_ranks > 1 ? P2P_BYTES : 0, &d->libraries);
    *out = d;
    return 0;
}

static const char *cuda_describe(const struct dev *d) { return d->describe; }

static const char *cuda_chosen(const struct dev *d) { return d->chosen; }

static int cuda_memory(const struct dev_args *args, size_t *free_bytes, size_t *total, struct err *e) {
    int32_t gpu = gpu_of(args);
    cudaError_t rc = cudaSetDevice(gpu);
    if (!rc) rc = cudaMemGetInfo(free_bytes, total);
    return rc ? err_machine(e, "GPU %d does not tell its memory: %s", gpu, cudaGetErrorString(rc)) : 0;
}

/* ---- buffers for tests ---- */

static bool buffer_holds(const struct dev *d, enum buf_id b, size_t n) {
    if (b <= BUF_NONE || b >= BUF_COUNT || !d->loaded || !d->width[b] || n % (size_t)d->width[b]) return false;
    return n / (size_t)d->width[b] <= (size_t)(b == BUF_ROWS || b == BUF_LOGITS ? d->cap_rows : d->cap_tokens);
}

/* Move rows through a host buffer in the device's dtype and stride. */
static int move(struct dev *d, enum buf_id b, float *data, size_t n, bool up) {
    if (!buffer_holds(d, b, n)) return -1;
    enum dtype t = buf_dtype(d, b);
    size_t width = (size_t)d->width[b], rows = n / width, ld = (size_t)d->ld[b], bytes = rows * ld * dtype_size(t);
    char *tmp = mem_zalloc(rows * ld, dtype_size(t));
    cudaError_t rc = cudaSetDevice(d->gpu); /* peek may come from another thread than the rank's */
    if (!rc) rc = cudaDeviceSynchronize();
    if (!rc && !up) rc = cudaMemcpy(tmp, d->buf[b], bytes, cudaMemcpyDeviceToHost);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < width; i++) {
            if (up) store_any(tmp, t, r * ld + i, data[r * width + i]);
            else data[r * width + i] = load_any(tmp, t, r * ld + i);
        }
    if (!rc && up) rc = cudaMemcpy(d->buf[b], tmp, bytes, cudaMemcpyHostToDevice);
    free(tmp);
    return rc ? -1 : 0;
}

static int cuda_poke(struct dev *d, enum buf_id b, const float *data, size_t n) {
    return move(d, b, (float *)(uintptr_t)data, n, true);
}

static int cuda_peek(struct dev *d, enum buf_id b, float *data, size_t n) { return move(d, b, data, n, false); }

static const struct dev_maker maker = {
    .abi = DEV_ABI,
    .build_id = MINISGL_BUILD_ID,
    .name = "cuda",
    .async = true,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .memory = cuda_memory,
    .plan = cuda_plan,
    .load = cuda_load,
    .loaded = cuda_loaded,
    .launch = step_launch,
    .collect = step_collect,
    .poke = cuda_poke,
    .peek = cuda_peek,
    .tune = tune_products,
    .chosen = cuda_chosen,
    .comm_test = exchange_test,
};

/* For `minisgl doctor`, which asks without a GPU too. */
__attribute__((visibility("default"))) extern const int minisgl_cuda_built;
const int minisgl_cuda_built = CUDART_VERSION;

/* What the program looks up in the shared object. NULL, and why, when no GPU answers. */
__attribute__((visibility("default"))) const struct dev_maker *minisgl_device(char *why, size_t n);
const struct dev_maker *minisgl_device(char *why, size_t n) {
    int count = 0;
    cudaError_t rc = cudaGetDeviceCount(&count);
    if (!rc && count > 0) return &maker;
    snprintf(why, n, "%s", rc ? cudaGetErrorString(rc) : "there is no GPU");
    return NULL;
}
