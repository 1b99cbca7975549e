/* cost.c: see cost.h. Plain functions of values. Refuses GPUs that cannot share the model's heads evenly. */
#include "sim/cost.h"

#include <math.h>
#include <strings.h>

/* H200: bandwidth and products as measured on one (reads 4.3 of 4.8 TB/s, products 790 of 989 TFLOP/s). H100: the same
 * chip with less memory: the data sheet's bandwidth times the H200's share. */
static const struct gpu gpus[] = {
    {"h200", 150.7e9, 4.3e12, 790e12, 500e12, 300e9, 8e-6},
    {"h100", 85.0e9, 3.0e12, 790e12, 500e12, 300e9, 8e-6},
};

/* Shares of those that kernels reach in a real step, and what starting them costs. */
static const double product_share = 0.88, attention_share = 0.87, layer_seconds = 6 * 0.7e-6, step_seconds = 10e-6;

const struct gpu *gpu_find(const char *name) {
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        if (!strcasecmp(gpus[i].name, name)) return &gpus[i];
    return NULL;
}

static double attention_params(const struct config *m) {
    double q = (double)m->n_heads * m->head_dim, kv = (double)m->n_kv_heads * m->head_dim;
    return (double)m->hidden * (q + 2 * kv) + q * m->hidden;
}

int cost_init(struct cost *c, const struct config *m, const struct gpu *g, int32_t n_gpus, struct err *e) {
    if (m->n_heads % n_gpus || (m->n_kv_heads % n_gpus && n_gpus % m->n_kv_heads))
        return err_input(e, "--gpus: %d attention heads and %d KV heads cannot be shared by %d GPUs", m->n_heads,
                         m->n_kv_heads, n_gpus);
    double n = n_gpus, kv_heads = m->n_kv_heads >= n_gpus ? m->n_kv_heads / n : 1;
    int32_t moe_layers = 0;
    for (int32_t i = 0; m->layer_moe && i < m->n_layers; i++) moe_layers += m->layer_moe[i];
    double dense_layers = m->n_layers - moe_layers;
    *c = (struct cost){.gpu = g, .n_gpus = n_gpus, .n_layers = m->n_layers};
    c->product = (m->n_layers * attention_params(m) + dense_layers * 3.0 * m->hidden * m->ffn) / n;
    if (moe_layers) {
        c->n_experts = m->n_experts;
        c->experts_per_token = m->experts_per_token;
        c->expert = moe_layers * 3.0 * m->hidden * m->moe_ffn / n;
    }
    c->head = (double)m->vocab * m->hidden / n;
    c->weights = 2 * (c->product + c->expert * c->n_experts + c->head * (m->tied ? 1 : 2));
    c->kv = m->n_layers * 2.0 * kv_heads * m->head_dim * 2;
    c->pair = 4.0 * m->n_heads * m->head_dim * m->n_layers / n;
    c->hidden = 2.0 * m->hidden;
    return 0;
}

int64_t cost_pages(const struct cost *c, double ratio, int32_t page_size) {
    return (int64_t)((c->gpu->memory * ratio - c->weights) / (c->kv * page_size));
}

static double product(const struct gpu *g, double params_read, double params_used, double rows) {
    double bytes = 2 * params_read / g->bandwidth, ops = 2 * params_used * rows / g->flops;
    return (bytes > ops ? bytes : ops) / product_share;
}

static double experts(const struct cost *c, double tokens) {
    if (!c->n_experts) return 0;
    double share = (double)c->experts_per_token / c->n_experts; /* of a layer's experts that one token meets */
    double met = c->n_experts * (1 - pow(1 - share, tokens));
    return product(c->gpu, c->expert * met, c->expert * c->experts_per_token, tokens);
}

static double all_reduces(const struct cost *c, double tokens) {
    if (c->n_gpus == 1) return 0;
    double bytes = tokens * c->hidden * 2 * (c->n_gpus - 1) / c->n_gpus;
    return 2.0 * c->n_layers * (c->gpu->link_latency + bytes / c->gpu->link);
}

uint64_t cost_step(const struct cost *c, const struct work *w) {
    const struct gpu *g = c->gpu;
    double tokens = (double)w->n_tokens;
    double t = product(g, c->product, c->product, tokens) + experts(c, tokens);
    if (w->n_rows) t += product(g, c->head, c->head, (double)w->n_rows);
    t += (double)w->kv_read * c->kv / (g->bandwidth * attention_share) + w->pairs * c->pair / g->attention;
    t += all_reduces(c, tokens) + c->n_layers * layer_seconds + step_seconds;
    return (uint64_t)(t * 1e9);
}
