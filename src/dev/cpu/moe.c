/* moe.c: OP_MOE: route tokens to experts, let every expert take all of its tokens at once, add the answers by rank.
 * A token's numbers do not depend on its neighbours: LINEAR's rows are independent and the sum goes by rank. Several ranks of a model
 * add up the experts' outputs before these are weighted, so that their number does not show in the sum.
 * Runs on the rank thread; at most MOE_TOKENS tokens at a time, which bounds the memory. */
#include "dev/cpu/device.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

struct sizes {
    size_t tokens, entries, experts, hidden, ffn;
};

static struct sizes sizes_of(const struct dev_shape *s, const struct op *ops, int32_t n_ops) {
    struct sizes z = {0};
    int32_t top_k = 0;
    for (int32_t i = 0; i < n_ops; i++) {
        if (ops[i].kind != OP_MOE) continue;
        if (ops[i].top_k > top_k) top_k = ops[i].top_k;
        if ((size_t)ops[i].n_experts > z.experts) z.experts = (size_t)ops[i].n_experts;
        if ((size_t)ops[i].experts[0].n > z.ffn) z.ffn = (size_t)ops[i].experts[0].n;
    }
    z.tokens = (size_t)(s->limits.max_tokens < MOE_TOKENS ? s->limits.max_tokens : MOE_TOKENS);
    z.entries = z.tokens * (size_t)top_k;
    z.hidden = (size_t)s->hidden;
    return z;
}

void moe_init(struct dev *d) {
    struct sizes z = sizes_of(&d->shape, d->prog, d->n_ops);
    if (!z.experts) return;
    d->moe = (struct moe){
        .logits = mem_array(z.tokens * z.experts, sizeof(float)),
        .expert = mem_array(z.entries, sizeof(int32_t)),
        .p = mem_array(z.entries, sizeof(float)),
        .at = mem_array(z.entries, sizeof(int32_t)),
        .first = mem_array(z.experts + 1, sizeof(int32_t)),
        .fill = mem_array(z.experts, sizeof(int32_t)),
        .xh = mem_array(z.entries * ((z.hidden > z.ffn ? z.hidden : z.ffn) + K_SLICES_MAX), sizeof(uint16_t)),
        .x = mem_array(z.entries * z.hidden, sizeof(float)),
        .gu = mem_array(z.entries * 2 * z.ffn, sizeof(float)),
        .ff = mem_array(z.entries * z.ffn, sizeof(float)),
        .y = mem_array(z.entries * z.hidden, sizeof(float)),
        .jobs = mem_array(z.experts, sizeof(struct lin_job)),
        .job_piece = mem_array(z.experts + 1, sizeof(int32_t)),
    };
}

void moe_release(struct dev *d) {
    void *all[] = {d->moe.logits, d->moe.expert, d->moe.p, d->moe.at, d->moe.first, d->moe.fill,
                   d->moe.x, d->moe.xh, d->moe.gu, d->moe.ff, d->moe.y, d->moe.jobs, d->moe.job_piece};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    memset(&d->moe, 0, sizeof d->moe);
}

/* One call's view of the operator. */
struct run {
    const struct op *o;
    int32_t t0, n; /* tokens t0 .. t0 + n - 1 of the step */
};

static float *row(struct dev *d, enum buf_id b, int32_t t) { return d->buf[b] + (size_t)t * d->width[b]; }

/* Softmax over all experts in float32, then the top_k, ties to the lower id. */
static void choose_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    const struct run *r = arg;
    int32_t X = r->o->n_experts, k = r->o->top_k;
    float *p = d->moe.logits + (size_t)t * (size_t)X, max, sum = 0, kept = 0;
    d->ops->scan(p, X, &max);
    d->ops->exp_scaled(p, p, X, max, 1);
    for (int32_t e = 0; e < X; e++) sum += p[e];
    int32_t *expert = d->moe.expert + (size_t)t * (size_t)k;
    float *weight = d->moe.p + (size_t)t * (size_t)k;
    for (int32_t i = 0; i < k; i++) {
        int32_t best = -1;
        for (int32_t e = 0; e < X; e++)
            if (p[e] >= 0 && (best < 0 || p[e] > p[best])) best = e;
        if (best < 0) best = i; /* all are NaN: the logits will say so */
        expert[i] = best;
        weight[i] = p[best] < 0 ? p[best] : p[best] / sum;
        kept += weight[i];
        p[best] = -1;
    }
    if (r->o->norm_topk)
        for (int32_t i = 0; i < k; i++) weight[i] /= kept;
}

/* Give every (token, rank) its place in the order of experts. */
static void sort_entries(struct dev *d, const struct run *r) {
    struct moe *m = &d->moe;
    int32_t X = r->o->n_experts, n = r->n * r->o->top_k;
    memset(m->first, 0, (size_t)(X + 1) * sizeof *m->first);
    for (int32_t i = 0; i < n; i++) m->first[m->expert[i] + 1]++;
    for (int32_t e = 0; e < X; e++) {
        m->first[e + 1] += m->first[e];
        m->fill[e] = m->first[e];
    }
    for (int32_t i = 0; i < n; i++) m->at[i] = m->fill[m->expert[i]]++;
}

static void gather_row(struct dev *d, void *arg, int32_t i, int32_t thread) {
    (void)thread;
    const struct run *r = arg;
    size_t E = (size_t)d->shape.hidden;
    memcpy(d->moe.x + (size_t)d->moe.at[i] * E, row(d, r->o->in, r->t0 + i / r->o->top_k), E * sizeof(float));
}

struct lins {
    struct dev *d;
    int32_t n;
    const float *x;
    size_t ldx, ldxh;
    int32_t k, k_slices;
};

static void lins_round_row(struct dev *d, void *arg, int32_t i, int32_t thread) {
    (void)thread;
    const struct lins *l = arg;
    d->ops->lin_round(d->moe.xh + (size_t)i * l->ldxh, l->x + (size_t)i * l->ldx, l->k, l->k_slices);
}

static void lins_piece(void *arg, int32_t piece, int32_t thread) {
    const struct lins *l = arg;
    const int32_t *first = l->d->moe.job_piece;
    int32_t lo = 0, hi = l->n - 1;
    while (lo < hi) {
        int32_t mid = (lo + hi + 1) / 2;
        if (first[mid] <= piece)
            lo = mid;
        else
            hi = mid - 1;
    }
    l->d->ops->linear(&l->d->moe.jobs[lo], piece - first[lo], l->d->scratch[thread]);
}

/* One LINEAR an expert, all in one fork: a->x, a->y are in the order of entries; `which`: 0 gate and up, 2 down. */
static void run_experts(struct dev *d, const struct run *r, const struct lin_args *a, int which) {
    struct lins l = {.d = d, .x = a->x, .ldx = a->ldx, .k = r->o->experts[which].k, .k_slices = a->k_slices};
    int32_t n_pieces = 0;
    for (int32_t e = 0; e < r->o->n_experts; e++) {
        int32_t from = d->moe.first[e], n = d->moe.first[e + 1] - from;
        if (!n) continue;
        struct view w[3] = {r->o->experts[3 * e + which]};
        if (which == 0) w[1] = r->o->experts[3 * e + 1];
        struct lin_args one = *a;
        one.w = w;
        one.rows = n;
        one.x += (size_t)from * a->ldx;
        one.y += (size_t)from * a->ldy;
        struct lin_job *j = &d->moe.jobs[l.n];
        *j = step_lin_job(d, &one);
        if (j->ldxh) {
            j->xh = d->moe.xh + (size_t)from * j->ldxh;
            l.ldxh = j->ldxh;
        }
        d->moe.job_piece[l.n++] = n_pieces;
        n_pieces += j->n_strips * j->n_chunks;
    }
    if (l.ldxh) step_rows(d, lins_round_row, &l, r->n * r->o->top_k, (size_t)l.k);
    pool_run(d->pool, lins_piece, &l, n_pieces);
}

static void silu_entry(struct dev *d, void *arg, int32_t i, int32_t thread) {
    (void)thread;
    size_t F = (size_t)((const struct run *)arg)->o->experts[0].n;
    const float *gu = d->moe.gu + (size_t)i * 2 * F;
    d->ops->silu_mul(d->moe.ff + (size_t)i * F, gu, gu + F, (int32_t)F);
}

static void combine_row(struct dev *d, void *arg, int32_t t, int32_t thread) {
    (void)thread;
    const struct run *r = arg;
    size_t E = (size_t)d->shape.hidden;
    float *out = row(d, r->o->out, r->t0 + t);
    memset(out, 0, E * sizeof *out);
    for (int32_t k = 0; k < r->o->top_k; k++) {
        size_t i = (size_t)t * (size_t)r->o->top_k + (size_t)k;
        d->ops->axpy(out, d->moe.p[i], d->moe.y + (size_t)d->moe.at[i] * E, (int32_t)E);
    }
}

int moe_run(struct dev *d, const struct op *o, struct err *e) {
    size_t E = (size_t)d->shape.hidden, F = (size_t)o->experts[0].n;
    for (int32_t t0 = 0; t0 < d->n_tokens; t0 += MOE_TOKENS) {
        struct run r = {o, t0, d->n_tokens - t0 < MOE_TOKENS ? d->n_tokens - t0 : MOE_TOKENS};
        step_linear(d, &(struct lin_args){.x = row(d, o->in, t0), .y = d->moe.logits, .ldx = d->width[o->in],
                                          .ldy = (size_t)o->n_experts, .rows = r.n, .k_slices = 1, .w = o->w});
        step_rows(d, choose_row, &r, r.n, (size_t)o->n_experts * (size_t)o->top_k);
        sort_entries(d, &r);
        step_rows(d, gather_row, &r, r.n * o->top_k, E);
        run_experts(d, &r, &(struct lin_args){.x = d->moe.x, .y = d->moe.gu, .ldx = E, .ldy = 2 * F, .k_slices = 1}, 0);
        step_rows(d, silu_entry, &r, r.n * o->top_k, F * 4);
        run_experts(d, &r, &(struct lin_args){.x = d->moe.ff, .y = d->moe.y, .ldx = F, .ldy = E, .k_slices = o->k_slices}, 2);
        if (step_sum(d, d->moe.y, (size_t)(r.n * o->top_k) * E, "the sum of the experts' outputs", o->layer, e)) return -1;
        step_rows(d, combine_row, &r, r.n, E * (size_t)o->top_k);
    }
    return 0;
}
