/* cuda.h: the insides of a CUDA device, shared by maker.c (life and memory), upload.c (weights), linear.c (products), tune.c, step.c (one
 * step), sampling.c (its last operator) and graph.c (captured steps). Everything belongs to the rank thread; only upload.c starts threads, and joins them.
 *
 * Memory is planned in one place (lay_out in maker.c), printed by the caller, and allocated once by load. Two steps may be
 * under way: each has its own pinned block and pinned results; on the device there is one of everything, since a stream keeps order. */
#ifndef MINISGL_DEV_CUDA_CUDA_H
#define MINISGL_DEV_CUDA_CUDA_H
#include "comm/gpu.h"
#include "dev/cuda/cudnn.h"
#include "dev/cuda/kernel.h"
#include "dev/lintab.h"

#include <cublasLt.h>

enum { CUDNN_PLANS_MAX = 4, GRAPHS_MAX = 256, WORKSPACE_BYTES = 64 << 20 };

/* A weight on the device, [n, k] with zeros from k to ld. */
struct weight {
    void *p;
    enum dtype dtype;
    int32_t n, k;
    int64_t ld;
};

/* An operator with what it needs on the device. */
struct dop {
    const struct op *o;
    struct weight w;        /* LINEAR: up to three side by side; EMBED; MOE: the router */
    struct weight up, down; /* MOE: [X][2 F, E], [X][E, F] */
    float *vector[2];       /* NORM, ROPE_KV; LINEAR's and REDUCE's bias in [0] */
    void *bias;             /* LINEAR: [N] in the output's dtype */
    int32_t silu_n;
    struct cudnn_plan *cudnn; /* ATTENTION: for chunks; NULL: by `fa` */
    cublasLtMatmulDesc_t desc; /* LINEAR, MOE's router */
    cublasLtMatrixLayout_t layout;
};

/* How one product is computed for one number of rows. */
enum way { WAY_PLAIN, WAY_LT, WAY_OWN, WAY_GEMV };
struct algo {
    int32_t n, k, rows;
    enum dtype y;
    bool bias;
    enum way way;
    struct own_way own;        /* WAY_OWN */
    cublasLtMatmulAlgo_t algo; /* WAY_LT */
};

struct pending {
    uint64_t step;
    int32_t n_rows;
    char *block;             /* pinned */
    struct result_row *rows; /* pinned */
    cudaEvent_t done;
};

/* A step is two graphs: the operators over tokens (of decodes only, or of anything), then those over the rows that want logits. */
enum graph_kind { GRAPH_DECODE, GRAPH_MIXED, GRAPH_ROWS, GRAPH_KINDS };
struct graph {
    enum graph_kind kind;
    int32_t size; /* tokens, or rows: it runs for up to so many */
    cudaGraphExec_t exec;
};

struct dev {
    struct dev_args args;
    int32_t gpu, n_sms, capability;
    char name[64];
    char describe[800];
    size_t described; /* of describe: what is known before load() */
    cudaStream_t stream;
    struct gpu_health *health; /* what the driver says of the GPU; NULL: nothing */
    cublasLtHandle_t lt;
    const struct gpu_comm_maker *comm_maker;
    struct gpu_comm *comm; /* NULL at one rank */

    /* Made by load. */
    bool loaded;
    struct dev_shape shape;
    enum dtype act;
    struct dop *ops;
    int32_t n_ops;
    char *arena, *weights, *kv; /* all device memory */
    bool arena_is_comms;        /* the communicator gave it */
    void *buf[BUF_COUNT];
    int64_t ld[BUF_COUNT], width[BUF_COUNT];
    int32_t cap_tokens, cap_rows;
    size_t layer_bytes;
    struct tabs tabs;
    struct angle_args angles;
    struct att_args att; /* what all layers share */
    struct cudnn *cudnn; /* NULL: not found, or not wanted */
    struct cudnn_plan *plans[CUDNN_PLANS_MAX]; /* by window */
    int32_t plan_window[CUDNN_PLANS_MAX], n_plans;
    struct chunk_lists chunks;
    struct moe_args moe;
    float *router; /* [moe tokens, X] */
    int32_t moe_tokens;
    struct sample_args sample;
    struct sample_rank_args sample_rank; /* several ranks */
    int32_t *candidates;    /* [slots] on the host: what the slot's sampling asks of the ranks (sampling.c) */
    float *shares, *logits; /* several ranks: everyone's part of the logits; all of them, [rows, logits_ld] */
    int64_t logits_ld;
    void *workspace;
    size_t block_bytes;
    int32_t parts_max;
    struct algo *algos;
    int32_t n_algos, cap_algos;
    struct lintab shipped; /* the backend's own table of products */
    int32_t user_part, shipped_part; /* of this GPU, in the user's table and in ours; -1: none */
    char chosen[300];
    int32_t rows_at; /* the first operator over rows */
    struct graph graphs[GRAPHS_MAX]; /* of each kind in order of size */
    int32_t n_graphs;
    size_t graphs_taken;
    double graphs_s;
    size_t libraries; /* bytes that NCCL and cuDNN took when they were opened */
    size_t free_at_open, taken; /* of the GPU's memory */
    struct dev_bytes bytes;
    bool warming; /* the first steps are load's own */
    bool alone;   /* nothing is exchanged: in the first of them */

    /* The steps. */
    struct pending pending[2];
    int32_t first_pending, n_pending;
    uint64_t step; /* the last launched, for messages */
    int32_t op_at; /* the operator being enqueued, for messages */
};

static inline int64_t up8(int64_t n) { return (n + 7) & ~(int64_t)7; }
static inline size_t up256(size_t n) { return (n + 255) & ~(size_t)255; }
static inline enum dtype buf_dtype(const struct dev *d, enum buf_id b) { return b == BUF_H || b == BUF_LOGITS ? DT_F32 : d->act; }

/* -1 and a sentence with rank, step, operator and the GPU's state, when rc is an error. */
int cuda_ok(struct dev *d, cudaError_t rc, const char *what, struct err *e);
const char *op_name(enum op_kind k);

/* upload.c: fills d->ops from the program: sizes first (d->weights NULL: *bytes), then with memory there: copies. */
size_t upload_size(struct dev *d, const struct dev_program *prog, enum dtype act);
int upload(struct dev *d, struct err *e);
void upload_forget(struct dev *d);

/* linear.c */
int linear_tables(struct dev *d, struct err *e); /* finds this GPU in the tables of products; once, when the device is opened */
int linear_prepare(struct dev *d, struct err *e);
void linear_release(struct dev *d);
struct linear_args {
    struct dop *op;
    const void *x;
    void *y;
    int64_t ldx, ldy;
    enum dtype y_dtype;
    int32_t rows;
};
int linear_run(struct dev *d, const struct linear_args *a, struct err *e);
/* The same in a given way, rows as they are. -1 also where cuBLASLt refuses it. */
int linear_with(struct dev *d, const struct linear_args *a, const struct algo *c, struct err *e);
/* A LINEAR's or router's descriptors, of what is in o->w and o->bias. */
int linear_describe(struct dev *d, struct dop *o, enum dtype output, struct err *e);
void linear_forget(struct dop *o);
/* A table's way as it can be run here; false: it cannot. */
bool linear_way(struct dev *d, const struct linear_args *a, const struct lintab_way *way, struct algo *out);
/* Ways that cuBLASLt proposes, the likely best first. How many. */
int32_t linear_proposals(struct dev *d, const struct linear_args *a, struct lintab_way *out, int32_t max);
struct lintab_gpu linear_gpu(const struct dev *d);
/* How many rows are computed for so many: shapes come in steps, so that choices can be kept. */
int32_t linear_rows(int32_t rows);

/* table.c: the table that comes with the program. */
int table_shipped(struct lintab *t, struct err *e);

/* tune.c */
int tune_products(struct dev *d, const struct dev_tune *what, struct err *e);

/* step.c */
struct run {
    struct dev *d;
    struct step_dims n;
    int32_t n_fi, n_fa, n_chunks; /* attention's work items, at most; 0: there is no such work */
};
int step_tokens(const struct run *r, struct err *e); /* enqueue the operators over tokens */
int step_rows(const struct run *r, struct err *e);   /* enqueue those over rows */
int step_launch(struct dev *d, const struct batch *b, struct err *e);
int step_collect(struct dev *d, struct result *r, struct err *e);
bool step_exchanges(const struct dev *d); /* there are other ranks, and they take part */
int step_warm(struct dev *d, struct err *e); /* a first step, which loads kernels; empty pages */
size_t step_block_bytes(const struct dev_shape *s, int32_t parts_max);
int32_t step_parts_max(const struct dev *d, const struct dev_shape *s);

/* sampling.c */
void sampling_note(struct dev *d, const struct batch *b); /* the slots whose sampling changes */
int sampling_run(struct dev *d, int32_t rows, struct err *e); /* OP_SAMPLE */
int sampling_finish(struct dev *d, int32_t rows, int32_t candidates, struct err *e); /* what its rows need beyond: never part of a graph */

/* graph.c */
int graphs_make(struct dev *d, struct err *e); /* after step_warm: all graphs, and all kernels that other steps need */
void graphs_release(struct dev *d);
size_t graphs_bytes(const struct dev *d, const struct dev_shape *s); /* what they may take */
const struct graph *graph_find(const struct dev *d, enum graph_kind kind, int32_t size); /* the smallest with room, or NULL */

/* chunks.c */
int chunks_open(struct dev *d, struct err *e);    /* the library, where it is asked for */
int chunks_prepare(struct dev *d, struct err *e); /* plans for the loaded program; says in `describe` who computes attention */
void chunks_release(struct dev *d);
/* The chunks that cuDNN takes of a step of so many tokens, by the number of their sequence; returns how many, up to CUDNN_SEQS. */
int32_t chunks_plan(const struct dev *d, const struct step_seq *seqs, int32_t n, int32_t tokens, int32_t *chunks);
int chunks_run(const struct dev *d, const struct dop *o, const struct att_args *a, struct err *e);

#endif
