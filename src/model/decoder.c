/* decoder.c: see decoder.h. Emits operators only; computes nothing. */
#include "model/decoder.h"

#include "base/mem.h"
#include "model/slots.h"

#include <math.h>
#include <stdlib.h>

struct emitter {
    struct decoder *d;
    const struct config *c;
    struct shard shard;
    int32_t layer;
    bool pending; /* BUF_Y waits to be added to the residual by the next norm */
};

static struct op *emit(struct emitter *m, enum op_kind kind, enum buf_id in, enum buf_id out) {
    struct op *op = &m->d->ops[m->d->n_ops++];
    *op = (struct op){.kind = kind, .layer = m->layer, .in = in, .out = out, .k_slices = 1};
    return op;
}

static void norm(struct emitter *m, struct view weight) {
    struct op *op = emit(m, OP_NORM, BUF_H, BUF_X);
    op->in2 = m->pending ? BUF_Y : BUF_NONE;
    op->w[0] = weight;
    op->eps = m->c->rms_eps;
    m->pending = false;
}

static struct op *linear(struct emitter *m, enum buf_id in, enum buf_id out, struct view w, struct view bias) {
    struct op *op = emit(m, OP_LINEAR, in, out);
    op->w[0] = w;
    op->bias[0] = bias;
    return op;
}

/* Row-parallel: eight slices of the whole K (four or two where eight do not divide it), of which this rank holds its share. The sum
 * is the same for every number of ranks up to that. */
static int32_t slices(const struct emitter *m, int32_t k_local) {
    int32_t n = 8, whole = k_local * m->shard.n_ranks;
    while (whole % n) n /= 2;
    return n > m->shard.n_ranks ? n / m->shard.n_ranks : 1;
}

static void row_parallel(struct emitter *m, enum buf_id in, struct view w, struct view bias) {
    bool alone = m->shard.n_ranks == 1;
    linear(m, in, BUF_Y, w, alone ? bias : (struct view){0})->k_slices = slices(m, w.k);
    if (!alone) emit(m, OP_REDUCE, BUF_Y, BUF_Y)->bias[0] = bias;
    m->pending = true;
}

static void attention(struct emitter *m, const struct layer_weights *w) {
    const struct config *c = m->c;
    norm(m, w->input_norm);
    struct op *op = linear(m, BUF_X, BUF_QKV, w->q, w->q_bias);
    op->w[1] = w->k, op->bias[1] = w->k_bias;
    op->w[2] = w->v, op->bias[2] = w->v_bias;
    op = emit(m, OP_ROPE_KV, BUF_QKV, BUF_QKV);
    op->w[0] = w->q_norm;
    op->w[1] = w->k_norm;
    op->eps = c->rms_eps;
    op = emit(m, OP_ATTENTION, BUF_QKV, BUF_ATT);
    op->window = c->window[m->layer];
    op->scale = 1.0f / sqrtf((float)c->head_dim);
    row_parallel(m, BUF_ATT, w->o, w->o_bias);
}

static void dense(struct emitter *m, const struct layer_weights *w) {
    struct op *op = linear(m, BUF_X, BUF_GU, w->gate, w->gate_bias);
    op->w[1] = w->up, op->bias[1] = w->up_bias;
    emit(m, OP_SILU_MUL, BUF_GU, BUF_FF);
    row_parallel(m, BUF_FF, w->down, w->down_bias);
}

static void experts(struct emitter *m, const struct layer_weights *w) {
    const struct config *c = m->c;
    struct op *op = emit(m, OP_MOE, BUF_X, BUF_Y);
    op->w[0] = w->router;
    op->experts = w->experts;
    op->n_experts = c->n_experts;
    op->top_k = c->experts_per_token;
    op->norm_topk = c->norm_topk;
    op->k_slices = slices(m, w->experts[2].k);
    m->pending = true;
}

void decoder_init(struct decoder *d, const struct config *c, const struct weights *w, struct shard shard) {
    enum { OPS_A_LAYER = 11, OPS_AROUND = 6 };
    *d = (struct decoder){0};
    d->ops = mem_zalloc((size_t)c->n_layers * OPS_A_LAYER + OPS_AROUND, sizeof *d->ops);
    struct emitter m = {.d = d, .c = c, .shard = shard, .layer = -1};
    emit(&m, OP_EMBED, BUF_NONE, BUF_H)->w[0] = w->embed;
    if (shard.n_ranks > 1) emit(&m, OP_REDUCE, BUF_H, BUF_H);
    for (m.layer = 0; m.layer < c->n_layers; m.layer++) {
        const struct layer_weights *lw = &w->layers[m.layer];
        attention(&m, lw);
        norm(&m, lw->post_norm);
        if (lw->experts) experts(&m, lw);
        else dense(&m, lw);
    }
    m.layer = -1;
    norm(&m, w->norm);
    emit(&m, OP_ROWS, BUF_X, BUF_ROWS);
    linear(&m, BUF_ROWS, BUF_LOGITS, w->lm_head, (struct view){0});
    emit(&m, OP_SAMPLE, BUF_LOGITS, BUF_NONE);
    rope_init(&d->rope, c);
}

void decoder_release(struct decoder *d) {
    rope_release(&d->rope);
    free(d->ops);
    *d = (struct decoder){0};
}

static int32_t share(int32_t n, struct shard s) { return n >= s.n_ranks ? n / s.n_ranks : 1; }

static int32_t widest_ffn(const struct config *c) {
    int32_t widest = c->n_experts ? c->moe_ffn : c->ffn;
    for (int32_t i = 0; i < c->n_layers; i++)
        if (!c->layer_moe[i] && c->ffn > widest) widest = c->ffn;
    return widest;
}

void decoder_shape(struct dev_shape *s, const struct config *c, const struct decoder *d, struct shard shard) {
    int32_t vocab_first, vocab;
    vocab_share(c, shard, &vocab_first, &vocab);
    *s = (struct dev_shape){
        .n_layers = c->n_layers,
        .n_heads = share(c->n_heads, shard),
        .n_kv_heads = share(c->n_kv_heads, shard),
        .head_dim = c->head_dim,
        .hidden = c->hidden,
        .ffn = share(widest_ffn(c), shard),
        .vocab = vocab,
        .vocab_first = vocab_first,
        .vocab_total = c->vocab,
        .max_len = c->max_position,
        .rope = d->rope,
        .n_experts = c->n_experts,
        .top_k = c->experts_per_token,
        .moe_ffn = share(c->moe_ffn, shard),
    };
}

size_t decoder_page_bytes(const struct config *c, struct shard shard, int32_t page_size, enum dtype kv) {
    return (size_t)c->n_layers * 2 * (size_t)share(c->n_kv_heads, shard) * (size_t)page_size * (size_t)c->head_dim *
           dtype_size(kv);
}
