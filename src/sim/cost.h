/* cost.h: what a step would take on a GPU, and what memory holds: a roofline with the overheads that were measured
 * around it.
 *
 * Each matrix product is max(bytes / bandwidth, operations / peak); decode attention is the bytes of keys and values
 * that it reads; prefill attention its operations; and a step has a fixed part, for the kernels of each layer. Tensor
 * parallelism divides all of it by the GPUs and adds two all-reduces a layer. What comes out is a model's figure, never
 * a measurement: good for comparing schedules and for sizing, not for promises. */
#ifndef MINISGL_SIM_COST_H
#define MINISGL_SIM_COST_H
#include "base/err.h"
#include "model/config.h"

#include <stddef.h>
#include <stdint.h>

struct gpu {
    const char *name;
    double memory;           /* bytes */
    double bandwidth;        /* bytes a second that reading reaches */
    double flops, attention; /* bf16 operations a second of a large matrix product, of causal prefill attention */
    double link;             /* bytes a second to the other GPUs of the host */
    double link_latency;     /* seconds of one small all-reduce */
};
const struct gpu *gpu_find(const char *name); /* NULL when unknown */

struct cost {
    const struct gpu *gpu;
    int32_t n_gpus, n_layers;
    double product; /* parameters that every token meets, LM head excluded, all layers, one GPU's share */
    double expert;  /* parameters of one expert, all layers, one GPU's share; 0 for dense models */
    int32_t n_experts, experts_per_token;
    double head;    /* parameters of the LM head, one GPU's share */
    double weights; /* bytes of all parameters on one GPU */
    double kv;      /* bytes of one token's keys and values on one GPU, all layers */
    double pair;    /* operations of one (query, key) pair on one GPU, all layers */
    double hidden;  /* bytes of one token's hidden state */
};

/* Refuses GPUs that do not divide the model's heads. */
int cost_init(struct cost *c, const struct config *m, const struct gpu *g, int32_t n_gpus, struct err *e);

/* Pages of keys and values that fit beside the weights into `ratio` of each GPU's memory; may be <= 0. */
int64_t cost_pages(const struct cost *c, double ratio, int32_t page_size);

/* One step's work. */
struct work {
    int64_t n_tokens, n_rows; /* new tokens; rows of logits */
    int64_t kv_read;          /* tokens whose keys and values are read: of each decode its context, of each chunk too */
    double pairs;             /* (query, key) pairs of the chunks */
};
uint64_t cost_step(const struct cost *c, const struct work *w); /* ns */

#endif
