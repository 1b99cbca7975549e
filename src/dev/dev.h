/* dev.h: the contract between the decoder and a device: the operators, the step program, and how a step runs.
 *
 * A device (one rank: a GPU, or a share of the CPU cores) is given at load time
 *   - struct dev_shape: what it must have room for,
 *   - struct dev_program: the operators of one step, in order; the decoder (model/decoder.c) writes it once.
 * and then runs batches. It owns the KV cache, the page tables, the sampling parameters and the last sample of
 * every slot, and all activation buffers. Nothing is allocated after `load`.
 *
 * Makers: cpu (dev/cpu: `ref`, slow and obvious, the oracle, and the fast paths), cuda (dev/cuda: a shared object, dev/open.h).
 *
 * Several ranks (tensor parallelism) run the same program over their own shares of the weights; what they add up or exchange goes
 * through a communicator (comm/comm.h on the CPU, comm/gpu.h on GPUs): in OP_REDUCE, in OP_MOE, in OP_SAMPLE and, before the first of them,
 * a look whether all ranks run the same step of the same batch.
 *
 * Letters: T tokens of the step, S sequences, R rows wanting logits, H query heads, K KV heads, D head dim, E hidden, F ffn,
 * V vocabulary, P page size, X experts. Head and ffn counts are this rank's share.
 *
 * The law of arithmetic (CPU makers; for one instruction set the same bits whatever the batch, the chunk, the
 * threads or the tile; instruction sets agree within a bound):
 *   - an output of LINEAR is one chain over k, ascending, in float32 (bf16-dot instructions: over pairs of k);
 *     OP_LINEAR with k_slices = 8 sums eight chains over equal K slices in the tree ((0+1)+(2+3))+((4+5)+(6+7)),
 *     so that tensor-parallel ranks that hold 4, 2 or 1 slices each reach the same sum by an all-reduce in tree order;
 *   - attention reduces over absolute blocks of 64 positions, block after block, one (token, head) never split;
 *   - a piece of work handed to a thread never splits a reduction.
 * Activations between operators are float32. A bf16-dot LINEAR rounds its input to bf16 (nearest even).
 * The CUDA maker keeps the residual stream and the logits in float32, all else in the dtype of the weights, and agrees within a
 * bound (`minisgl selftest`): the order of its sums hangs on the batch. k_slices means nothing to it. Its ranks round their parts of a
 * sum to that dtype and add them in float32, so that answers of different degrees agree within rounding. */
#ifndef MINISGL_DEV_DEV_H
#define MINISGL_DEV_DEV_H
#include "base/err.h"
#include "flow/batch.h"
#include "flow/result.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { DEV_ABI = 5 };

/* FP8_E4M3 is for the KV cache only: sign, 4 bits of exponent (bias 7), 3 of mantissa; up to 448, no infinity, NaN is 0x7f. What is
 * stored there is rounded to nearest even and saturates, without a scale (as if all scales were 1). */
enum dtype { DT_F32, DT_BF16, DT_F16, DT_FP8_E4M3 };
static inline size_t dtype_size(enum dtype t) { return t == DT_F32 ? 4 : t == DT_FP8_E4M3 ? 1 : 2; }
const char *dtype_name(enum dtype t); /* "float32", "bfloat16", "float16", "fp8_e4m3" */

/* A weight, [n, k] row-major with row stride ld (elements). A vector is [1, k]. data == NULL: the model has none. */
struct view {
    const void *data;
    enum dtype dtype;
    int32_t n, k;
    int64_t ld;
};

/* Activation buffers of a step, float32, one row a token (BUF_ROWS and BUF_LOGITS: one row a logits row).
 * Their widths are in dev_shape. */
enum buf_id {
    BUF_NONE,
    BUF_H,      /* [T, E] the residual stream */
    BUF_X,      /* [T, E] the normed input of a block */
    BUF_QKV,    /* [T, (H + 2 K) D]: q, k, v side by side */
    BUF_ATT,    /* [T, H D] */
    BUF_GU,     /* [T, 2 F]: gate, up */
    BUF_FF,     /* [T, F] */
    BUF_Y,      /* [T, E] the output of a block, before it is added to the residual */
    BUF_ROWS,   /* [R, E] the rows that want logits */
    BUF_LOGITS, /* [R, V] */
    BUF_COUNT
};

enum op_kind {
    OP_EMBED,     /* out[T,E] = w[0][token - vocab_first]; a token of another rank's share: -0.0, which a sum leaves as it is */
    OP_NORM,      /* if (in2 != BUF_NONE) in += in2; out = in / rms(in, eps) * w[0]. `in` is the residual, updated in place */
    OP_LINEAR,    /* out = in . [w0; w1; w2]^T (+ bias0..2): up to three weights side by side, N = n0 + n1 + n2; k_slices 1 or 8 */
    OP_ROPE_KV,   /* on BUF_QKV in place: optional RMS norm of each q and k head (w[0] [1,D], w[1] [1,D], eps), rotate
                     q and k (halves: element i pairs with i + D/2), then store k and v of the new tokens into the KV pages */
    OP_ATTENTION, /* out[T, H D] from BUF_QKV's q and the KV pages: causal, softmax(q.k * scale), `window` newest positions
                     only when window > 0 (position j is seen from p when p - j < window) */
    OP_SILU_MUL,  /* out[T,F] = silu(gate) * up from BUF_GU */
    OP_MOE,       /* out[T,E] = sum over the top_k experts e of p_e * down_e(silu(gate_e x) * up_e x);
                     router w[0] [X, E]; p = softmax over all X in f32, the top_k largest, ties to the lower id; divided by their
                     sum when norm_topk; experts are views experts[3 * e + {0: gate [F,E], 1: up [F,E], 2: down [E,F]}];
                     down uses k_slices; experts are added in the order of their rank (most likely first). Several ranks: the sum over
                     the ranks is part of this operator (CPU: of down_e's outputs, before experts are added up) */
    OP_REDUCE,    /* in += the other ranks' `in`, float32, tree order; then + bias[0] where there is one */
    OP_ROWS,      /* out[R,E] = the rows of `in` that want logits (each sequence's last new token) */
    OP_SAMPLE     /* BUF_LOGITS to result rows, and into the last-sample table by slot; ranks hold columns vocab_first .. + vocab - 1
                     and exchange a few numbers a row, so that all come to the same tokens (CUDA: top_k numbers where it is set; all logits
                     in steps with a row whose top_p stands without a top_k, or whose top_k is above 1024) */
};

struct op {
    enum op_kind kind;
    int32_t layer; /* of the model; KV layer for ROPE_KV and ATTENTION; -1 outside */
    enum buf_id in, in2, out;
    struct view w[3], bias[3];
    float eps;
    int32_t k_slices;       /* LINEAR, MOE's down: 1, or 8 for row-parallel weights (K / 8 whole) */
    int32_t window;         /* ATTENTION: 0 = none */
    float scale;            /* ATTENTION */
    const struct view *experts; /* MOE: [3 X] */
    int32_t n_experts, top_k;   /* MOE */
    bool norm_topk;             /* MOE */
};

/* Rotary embedding: angle(p, i) = (float)p * inv_freq[i] in float32; cos and sin are multiplied by `scale`
 * (yarn's attention factor). dynamic_max > 0 (rope type "dynamic"): a position p >= dynamic_max uses the base of a sequence
 * of length p + 1: base' = theta * (factor * (p+1) / dynamic_max - (factor - 1)) ^ (D / (D - 2)), inv_freq from base'. */
struct rope {
    int32_t dim;           /* D (whole heads are rotated) */
    const float *inv_freq; /* [D / 2] */
    float scale;
    int32_t dynamic_max;
    float dynamic_theta, dynamic_factor;
};

/* What the device must have room for; sizes of this rank. */
struct dev_shape {
    int32_t n_layers, n_heads, n_kv_heads, head_dim, hidden, ffn, vocab; /* ffn: the widest row of BUF_FF */
    int32_t vocab_first, vocab_total; /* this rank's share of the vocabulary begins there; all of it (0: vocab is all).
                                         Shares are whole eighths of ceil(vocab_total / 8) ids, the last one shorter */
    int32_t max_len;     /* longest sequence: positions < max_len */
    int32_t page_size;   /* P */
    int32_t n_pages;     /* pages of the KV cache; page 0 is the dummy page and is never given out */
    enum dtype kv_dtype; /* of the KV cache: any, whatever the weights are */
    enum dtype dtype;    /* what weights are for the most part; plan() counts with it */
    bool convert;        /* CUDA: bring all weights to dtype (else to the first matrix's own); a number that float16 cannot hold is an error.
                            The CPU reads every weight as it lies in its file */
    void (*weight_name)(const void *arg, const void *data, char *name, size_t n); /* what the weight at data is called, for that error; or NULL */
    const void *weight_arg;
    int32_t n_experts, top_k, moe_ffn; /* of the widest OP_MOE; 0 experts: there is none */
    struct batch_limits limits;
    struct rope rope;
};

struct dev_program {
    const struct op *ops; /* [n_ops], constant while the device lives */
    int32_t n_ops;
};

struct comm;   /* comm/comm.h */
struct lintab; /* dev/lintab.h */

/* How a device is opened. */
struct dev_args {
    int32_t rank, n_ranks;
    int32_t local;       /* this rank's number in its process */
    struct comm *comm;   /* NULL at one rank */
    int32_t n_threads;   /* CPU: compute threads of this rank, the calling rank thread included */
    const char *isa;     /* CPU: NULL or "auto"; "ref", "generic", "avx2", "avx512", "avx512bf16" */
    bool prefill_cudnn;  /* CUDA: attention of chunks by cuDNN instead of `fa`; open() refuses where the library is not found */
    bool decode_fa;      /* CUDA: attention of single new tokens by `fa`, the kernel of chunks, instead of `fi` */
    int32_t graph_max;   /* CUDA: largest batch of decodes captured in a graph, and a quarter of the tokens of the largest
                            mixed step that is (1024 at most); 0: none, -1: the device decides */
    const int32_t *gpus; /* CUDA: by `local`, the ordinal of the rank's GPU, several may name one; NULL: the same number */
    uint64_t comm_timeout_ns; /* CUDA, several ranks: how long a kernel waits for another rank */
    const struct lintab *products; /* CUDA: the user's table of matrix products (lintab.h), before the one in the backend; or NULL */
    const char *gpu_comm;     /* CUDA, several ranks: "p2p", "nccl"; NULL or "auto": comm/gpu.h */
    bool no_windows;          /* CUDA: nccl without symmetric windows */
};

/* What `minisgl tune` asks for: how to compute the matrix products of this program, up to the shape's limits. Views of the program need no
 * data, but NULL still means that there is no such weight. */
struct lintab_gpu;
struct lintab_row;
struct dev_tune {
    const struct dev_shape *shape;
    const struct dev_program *prog;
    void (*found)(void *arg, const struct lintab_gpu *gpu, const struct lintab_row *row); /* called for each product and number of rows */
    void *arg;
};

/* Bytes that one rank takes on its device, by what they are for. */
struct dev_bytes {
    size_t weights;     /* the device's own copy; plan() leaves it 0 */
    size_t kv;          /* all pages */
    size_t activations; /* the buffers of a step */
    size_t tables;      /* what is kept by slot, and the step block */
    size_t experts;     /* OP_MOE's scratch */
    size_t workspace;   /* scratch of attention, sampling and libraries */
    size_t comm;        /* exchange with other ranks */
    size_t libraries;   /* what NCCL and cuDNN took for themselves, measured; before they are opened it is not known and 0 */
    size_t graphs, code; /* what the driver takes for captured steps and for kernels: not ours to lay out, so an upper estimate */
};
static inline size_t dev_bytes_beside(const struct dev_bytes *b) { /* beside weights and KV pages */
    return b->activations + b->tables + b->experts + b->workspace + b->comm + b->libraries + b->graphs + b->code;
}

/* What load() came to. */
struct dev_loaded {
    struct dev_bytes bytes;         /* as planned */
    size_t taken;                   /* by how much the device's free memory became less meanwhile: whoever took it; 0: not known */
    size_t graphs_taken;            /* of this: while graphs were captured */
    int32_t n_graphs;               /* captured */
    int32_t decodes, tokens;        /* the largest: decodes, tokens of a mixed step */
    double graphs_s;                /* seconds that took */
};

enum { COMM_TEST_SIZES = 17 };

/* The test of GPU ranks' communicators (comm/gpu.h), one rank's part; filled in by comm_test. */
struct dev_comm_test {
    int32_t rounds;  /* of random exchanges */
    bool time;       /* measure in place of testing: us */
    bool absent;     /* test that the last rank does not come, and is named */
    FILE *out;       /* rank 0's; NULL: silent */
    int32_t failed;  /* cases */
    double us[COMM_TEST_SIZES]; /* microseconds of a sum of bf16 over 1 KiB << i, one after the other */
};

struct dev; /* the maker's own */

/* One maker of devices. All calls for one device come from its rank thread, except where said. */
struct dev_maker {
    uint32_t abi;
    const char *build_id; /* must equal the program's own */
    const char *name;     /* "cpu", "cuda" */
    bool async;           /* launch returns before the step is done */

    int (*open)(struct dev **out, const struct dev_args *args, struct err *e);
    void (*close)(struct dev *d);
    /* One line for the log: "cpu avx512bf16, 2 threads". Lives as long as the device. */
    const char *(*describe)(const struct dev *d);
    /* Memory of the device that these arguments name, before it is opened. NULL: the host's. */
    int (*memory)(const struct dev_args *args, size_t *free_bytes, size_t *total, struct err *e);
    /* Bytes that load() will take, before it is done: the one plan of a rank's memory. */
    void (*plan)(const struct dev *d, const struct dev_shape *shape, struct dev_bytes *b);
    /* Take the program; allocate everything. May be called again with another program (tests): the old state is dropped. */
    int (*load)(struct dev *d, const struct dev_shape *shape, const struct dev_program *prog, struct err *e);
    /* After load. */
    void (*loaded)(const struct dev *d, struct dev_loaded *l);

    /* Run one step. launch returns at once where the device is asynchronous (CPU: it does the work before it
     * returns); b must stay unchanged until collect returned. collect waits and fills r (rows is r->rows [max_seqs]).
     * At most two steps may be launched and not collected. -1: the machine is broken. */
    int (*launch)(struct dev *d, const struct batch *b, struct err *e);
    int (*collect)(struct dev *d, struct result *r, struct err *e);

    /* For tests and selftest: write and read activation buffers (float32, rows x width), between steps of a
     * program without OP_EMBED. `rows` as T or R. KV pages are read through ROPE_KV and ATTENTION only. */
    int (*poke)(struct dev *d, enum buf_id buf, const float *data, size_t n);
    int (*peek)(struct dev *d, enum buf_id buf, float *data, size_t n);

    /* NULL: nothing can be tuned. Else: try the ways of computing each product of a program, on a device that has loaded none. */
    int (*tune)(struct dev *d, const struct dev_tune *what, struct err *e);
    /* After load, one line for the log of what was chosen; "": nothing. May be NULL. Lives as long as the device. */
    const char *(*chosen)(const struct dev *d);

    /* Test or time the communicator that these arguments name, with all other ranks, each in its own thread. No device is open. NULL where
     * there is none but the host's. -1: it could not be opened, or broke. */
    int (*comm_test)(const struct dev_args *args, struct dev_comm_test *t, struct err *e);
};

extern const struct dev_maker dev_cpu; /* dev/cpu/cpu.c */

#endif
