/* slots.c: the weight table and how ranks divide it. Constant tables and pure functions; any thread.
 * Refuses (shard_check) a rank count that does not divide the model evenly: unequal shares would make the collectives
 * depend on the rank. */
#include "model/slots.h"

#include "base/mem.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Sizes and conditions by name, so that the table below is data. */
enum dim { N_ONE, N_E, N_Q, N_KV, N_D, N_F, N_X };
enum cond { IF_ALWAYS, IF_QKV_BIAS, IF_O_BIAS, IF_QK_NORM, IF_DENSE, IF_DENSE_BIAS, IF_MOE };

struct row {
    const char *name; /* behind "model.layers.I." */
    size_t offset;    /* of the view in struct layer_weights */
    enum dim n, k;
    enum split split;
    enum cond cond;
    bool norm;
};

#define AT(field) offsetof(struct layer_weights, field)

static const struct row rows[] = {
    {"input_layernorm.weight", AT(input_norm), N_ONE, N_E, SPLIT_NONE, IF_ALWAYS, true},
    {"self_attn.q_proj.weight", AT(q), N_Q, N_E, SPLIT_ROWS, IF_ALWAYS, false},
    {"self_attn.k_proj.weight", AT(k), N_KV, N_E, SPLIT_KV_ROWS, IF_ALWAYS, false},
    {"self_attn.v_proj.weight", AT(v), N_KV, N_E, SPLIT_KV_ROWS, IF_ALWAYS, false},
    {"self_attn.o_proj.weight", AT(o), N_E, N_Q, SPLIT_COLS, IF_ALWAYS, false},
    {"self_attn.q_proj.bias", AT(q_bias), N_ONE, N_Q, SPLIT_ROWS, IF_QKV_BIAS, false},
    {"self_attn.k_proj.bias", AT(k_bias), N_ONE, N_KV, SPLIT_KV_ROWS, IF_QKV_BIAS, false},
    {"self_attn.v_proj.bias", AT(v_bias), N_ONE, N_KV, SPLIT_KV_ROWS, IF_QKV_BIAS, false},
    {"self_attn.o_proj.bias", AT(o_bias), N_ONE, N_E, SPLIT_NONE, IF_O_BIAS, false},
    {"self_attn.q_norm.weight", AT(q_norm), N_ONE, N_D, SPLIT_NONE, IF_QK_NORM, true},
    {"self_attn.k_norm.weight", AT(k_norm), N_ONE, N_D, SPLIT_NONE, IF_QK_NORM, true},
    {"post_attention_layernorm.weight", AT(post_norm), N_ONE, N_E, SPLIT_NONE, IF_ALWAYS, true},
    {"mlp.gate_proj.weight", AT(gate), N_F, N_E, SPLIT_ROWS, IF_DENSE, false},
    {"mlp.up_proj.weight", AT(up), N_F, N_E, SPLIT_ROWS, IF_DENSE, false},
    {"mlp.down_proj.weight", AT(down), N_E, N_F, SPLIT_COLS, IF_DENSE, false},
    {"mlp.gate_proj.bias", AT(gate_bias), N_ONE, N_F, SPLIT_ROWS, IF_DENSE_BIAS, false},
    {"mlp.up_proj.bias", AT(up_bias), N_ONE, N_F, SPLIT_ROWS, IF_DENSE_BIAS, false},
    {"mlp.down_proj.bias", AT(down_bias), N_ONE, N_E, SPLIT_NONE, IF_DENSE_BIAS, false},
    {"mlp.gate.weight", AT(router), N_X, N_E, SPLIT_NONE, IF_MOE, false},
};

static int32_t dim_of(enum dim d, const struct config *c) {
    switch (d) {
    case N_ONE: return 1;
    case N_E: return c->hidden;
    case N_Q: return c->n_heads * c->head_dim;
    case N_KV: return c->n_kv_heads * c->head_dim;
    case N_D: return c->head_dim;
    case N_F: return c->ffn;
    case N_X: return c->n_experts;
    }
    BUG("dim %d", (int)d);
}

static bool wanted(enum cond cond, const struct config *c, int32_t layer) {
    switch (cond) {
    case IF_ALWAYS: return true;
    case IF_QKV_BIAS: return c->qkv_bias;
    case IF_O_BIAS: return c->o_bias;
    case IF_QK_NORM: return c->qk_norm;
    case IF_DENSE: return !c->layer_moe[layer];
    case IF_DENSE_BIAS: return !c->layer_moe[layer] && c->mlp_bias;
    case IF_MOE: return c->layer_moe[layer];
    }
    BUG("condition %d", (int)cond);
}

struct walk {
    struct weights *w;
    const struct config *c;
    int (*each)(void *arg, const struct slot *s);
    void *arg;
};

static int walk_experts(const struct walk *k, int32_t layer) {
    static const char *const parts[] = {"gate", "up", "down"};
    const struct config *c = k->c;
    for (int32_t x = 0; x < c->n_experts; x++)
        for (int p = 0; p < 3; p++) {
            struct slot s = {.n = p < 2 ? c->moe_ffn : c->hidden,
                             .k = p < 2 ? c->hidden : c->moe_ffn,
                             .split = p < 2 ? SPLIT_ROWS : SPLIT_COLS};
            if (k->w) s.view = &k->w->layers[layer].experts[3 * x + p];
            snprintf(s.name, sizeof s.name, "model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, x, parts[p]);
            int rc = k->each(k->arg, &s);
            if (rc) return rc;
        }
    return 0;
}

static int walk_layer(const struct walk *k, int32_t layer) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        if (!wanted(r->cond, k->c, layer)) continue;
        struct slot s = {.n = dim_of(r->n, k->c),
                         .k = dim_of(r->k, k->c),
                         .vector = r->n == N_ONE,
                         .norm = r->norm,
                         .split = r->split};
        if (k->w) s.view = (struct view *)((char *)&k->w->layers[layer] + r->offset);
        snprintf(s.name, sizeof s.name, "model.layers.%d.%s", layer, r->name);
        int rc = k->each(k->arg, &s);
        if (rc) return rc;
    }
    return k->c->layer_moe[layer] ? walk_experts(k, layer) : 0;
}

int slots_walk(struct weights *w, const struct config *c, int (*each)(void *arg, const struct slot *s), void *arg) {
    struct walk k = {.w = w, .c = c, .each = each, .arg = arg};
    struct slot embed = {.name = "model.embed_tokens.weight",
                         .view = w ? &w->embed : NULL,
                         .n = c->vocab,
                         .k = c->hidden,
                         .split = SPLIT_VOCAB};
    struct slot norm = {
        .name = "model.norm.weight", .view = w ? &w->norm : NULL, .n = 1, .k = c->hidden, .vector = true, .norm = true};
    struct slot head = {
        .name = "lm_head.weight", .view = w ? &w->lm_head : NULL, .n = c->vocab, .k = c->hidden, .split = SPLIT_VOCAB};
    int rc = each(arg, &embed);
    for (int32_t i = 0; i < c->n_layers && !rc; i++) rc = walk_layer(&k, i);
    if (!rc) rc = each(arg, &norm);
    return rc || c->tied ? rc : each(arg, &head);
}

void slots_prepare(struct weights *w, const struct config *c) {
    *w = (struct weights){.n_layers = c->n_layers, .layers = mem_zalloc((size_t)c->n_layers, sizeof *w->layers)};
    for (int32_t i = 0; i < c->n_layers; i++)
        if (c->layer_moe[i]) w->layers[i].experts = mem_zalloc(3 * (size_t)c->n_experts, sizeof(struct view));
}

/* ---- ranks ---- */

static int divides(const char *what, int32_t n, int32_t ranks, struct err *e) {
    return n % ranks ? err_input(e,
                                 "the model's %s (%d) cannot be split evenly over %d ranks; choose a tensor-parallel "
                                 "size that divides it",
                                 what, n, ranks)
                     : 0;
}

int shard_check(const struct config *c, struct shard s, struct err *e) {
    if (s.rank < 0 || s.rank >= s.n_ranks) return err_input(e, "there is no rank %d of %d", s.rank, s.n_ranks);
    if (s.n_ranks > 8 || (s.n_ranks & (s.n_ranks - 1)))
        return err_input(e, "the tensor-parallel size must be 1, 2, 4 or 8, found %d", s.n_ranks);
    if (divides("attention heads", c->n_heads, s.n_ranks, e)) return -1;
    if (c->n_kv_heads % s.n_ranks && s.n_ranks % c->n_kv_heads)
        return err_input(e,
                         "the model's %d KV heads can be neither split nor copied evenly over %d ranks; choose a "
                         "tensor-parallel size that divides them or is a multiple of them",
                         c->n_kv_heads, s.n_ranks);
    if (divides("ffn width", c->ffn, s.n_ranks, e)) return -1;
    if (c->n_experts && divides("expert width", c->moe_ffn, s.n_ranks, e)) return -1;
    int32_t from, count;
    vocab_share(c, (struct shard){s.n_ranks - 1, s.n_ranks}, &from, &count);
    return count > 0 ? 0 : err_input(e, "a vocabulary of %d cannot be split over %d ranks", c->vocab, s.n_ranks);
}

/* The rank's share of n units. */
static void share(int32_t n, struct shard s, int32_t *from, int32_t *count) {
    *count = n / s.n_ranks;
    *from = *count * s.rank;
}

static void share_kv(const struct config *c, struct shard s, int32_t *from, int32_t *count) {
    if (c->n_kv_heads >= s.n_ranks)
        share(c->n_kv_heads, s, from, count);
    else {
        *count = 1;
        *from = s.rank / (s.n_ranks / c->n_kv_heads);
    }
    *from *= c->head_dim;
    *count *= c->head_dim;
}

void vocab_share(const struct config *c, struct shard s, int32_t *from, int32_t *count) {
    int32_t width = (c->vocab + 7) / 8 * (8 / s.n_ranks), at = width * s.rank;
    *from = at < c->vocab ? at : c->vocab;
    *count = c->vocab - *from < width ? c->vocab - *from : width;
}

struct part slot_part(const struct slot *s, const struct config *c, struct shard shard) {
    struct part p = {.n = s->n, .k = s->k};
    int32_t *from = s->vector ? &p.col : &p.row, *count = s->vector ? &p.k : &p.n;
    switch (s->split) {
    case SPLIT_NONE: break;
    case SPLIT_ROWS: share(s->vector ? s->k : s->n, shard, from, count); break;
    case SPLIT_KV_ROWS: share_kv(c, shard, from, count); break;
    case SPLIT_COLS: share(s->k, shard, &p.col, &p.k); break;
    case SPLIT_VOCAB: vocab_share(c, shard, from, count); break;
    }
    return p;
}
