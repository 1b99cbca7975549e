/* device.h: the insides of a CPU device, shared by cpu.c (life and memory), step.c (one step) and moe.c (experts).
 * Everything here belongs to the rank thread; compute threads touch it only inside pool_run. */
#ifndef MINISGL_DEV_CPU_DEVICE_H
#define MINISGL_DEV_CPU_DEVICE_H
#include "comm/comm.h"
#include "dev/cpu/ops.h"
#include "dev/cpu/pool.h"
#include "dev/cpu/sample.h"
#include "dev/cpu/touch.h"

/* What the device keeps for an operator beside the program's own: vectors (norm weights, biases) as float32. */
struct op_vectors {
    const float *v[3];
};

/* Buffers of MoE for up to moe_tokens tokens at a time; an entry is one (token, expert) pair. */
struct moe {
    float *logits;                                /* [tokens, X] */
    int32_t *expert;                              /* [entries] by token and rank */
    float *p;                                     /* [entries] by token and rank */
    int32_t *at;                                  /* [entries]: where the pair lies in expert order */
    int32_t *first;                               /* [X + 1]: first entry of an expert */
    int32_t *fill;                                /* [X] */
    float *x, *gu, *ff, *y;                       /* [entries, E], [entries, 2 F], [entries, F], [entries, E], in expert order */
    uint16_t *xh;                                 /* x or ff rounded for LINEAR */
    struct lin_job *jobs;                         /* [X] */
    int32_t *job_piece;                           /* [X + 1] */
};
enum { MOE_TOKENS = 256 };

struct pending {
    uint64_t step;
    int32_t n_rows;
    struct result_row *rows;
};

struct dev {
    struct dev_args args;
    const struct cpu_ops *ops;
    struct pool *pool;
    char describe[64];

    /* Made by load. */
    struct dev_shape shape;
    const struct op *prog;
    int32_t n_ops;
    struct op_vectors *vectors; /* [n_ops] */
    float *vector_memory;
    float *buf[BUF_COUNT];
    size_t width[BUF_COUNT], rows[BUF_COUNT];
    uint16_t *xh; /* a LINEAR's input rounded to bf16 */
    uint32_t *xt; /* and turned: lin_job.xt */
    char *kv;
    size_t kv_bytes, page_bytes, layer_bytes;
    struct touch *touch;
    int32_t *tables, table_len; /* [max_seqs][table_len] */
    struct sampling *sampling;  /* [max_seqs] by slot */
    int32_t *last;              /* [max_seqs] by slot */
    void **scratch;             /* [n_threads] */
    struct sampler *sampler;
    struct sample_row *sample_rows; /* [max_seqs] */
    struct moe moe;

    /* The step. */
    const struct batch *batch;
    int32_t n_tokens, n_rows;
    int32_t *token, *pos, *seq_of; /* [max_tokens] */
    float *cos, *sin;              /* [max_tokens, D / 2] */
    struct att_seq *att;           /* [max_seqs] */
    struct pending pending[2];
    int32_t first_pending, n_pending;
};

/* Everything LINEAR needs beside the weights' views. */
struct lin_args {
    const float *x;
    float *y;
    size_t ldx, ldy;
    int32_t rows, k_slices;
    const struct view *w; /* [3] */
    const float *const *bias;
};

/* step.c */
/* -1: another rank failed or runs another step; *e. */
int step_run(struct dev *d, const struct batch *b, struct pending *out, struct err *e);
/* Add up n floats over the ranks; `what` and layer for the sentence when one does not come. */
int step_sum(struct dev *d, float *buf, size_t n, const char *what, int32_t layer, struct err *e);
struct lin_job step_lin_job(const struct dev *d, const struct lin_args *a);
void step_linear(struct dev *d, const struct lin_args *a);
/* fn(d, row, thread) for each row; `cost`: elements touched by one, so that small work stays on the caller. */
typedef void step_row_fn(struct dev *d, void *arg, int32_t row, int32_t thread);
void step_rows(struct dev *d, step_row_fn *fn, void *arg, int32_t rows, size_t cost);

/* moe.c */
void moe_init(struct dev *d);
void moe_release(struct dev *d);
int moe_run(struct dev *d, const struct op *o, struct err *e);

#endif
