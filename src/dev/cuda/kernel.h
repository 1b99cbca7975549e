/* kernel.h: what the host side and the kernels of the CUDA device share: the step block, the tables on the device, and the
 * launchers. Compiles as C11 and as CUDA C++. Every launcher enqueues on `stream` and returns; it allocates nothing, reads no
 * device memory, and its grid depends on its arguments alone, so that all of them can be captured in a graph. Kernels take the
 * real numbers of tokens, sequences and rows from the step block's head, and leave what lies beyond alone: a launch may be for
 * more (a graph's bucket) than the step has.
 *
 * Numbers: activations have the weights' dtype ("A": bf16, f16 or f32), but for the residual stream BUF_H and the logits, which are
 * f32. Sums are f32. Rows of activations are `ld` elements apart, a multiple of 8; weights are padded to 8 columns with zeros. */
#ifndef MINISGL_DEV_CUDA_KERNEL_H
#define MINISGL_DEV_CUDA_KERNEL_H
#include "dev/dev.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Before any launcher: the GPU's major compute capability. */
void launch_init(int major);

/* ---- the step block: one copy brings it up ---- */

struct step_head {
    int32_t n_tokens, n_seqs, n_rows, n_slots, n_pages;
    int32_t n_fi, n_fa; /* work items of the two attention kernels */
    uint32_t seqs_at, slots_at, pages_at, tokens_at, fi_at, fa_at; /* bytes from the head */
    uint32_t size;
    int32_t n_chunks;   /* chunks that cuDNN takes: their sequences */
    uint32_t chunks_at; /* int32 [n_chunks] */
};

/* A sequence of the step: as struct batch_seq, and where its first new token lies among the step's. */
struct step_seq {
    int32_t slot, pos, n_tokens, token_at, row, first;
    int32_t part0, n_parts; /* `fi`: its partial results; n_parts 0 or 1: none */
};

/* `fi`: positions begin..end-1 of the one new token of `seq`. part: where the partial result goes, -1: it is the whole. */
struct fi_item {
    int32_t seq, begin, end, part;
};

/* `fa`: tile number `tile` of the new tokens of `seq`; a tile is fa_rows(D) rows of (token, query head of one KV head). */
struct fa_item {
    int32_t seq, tile;
};
static inline int32_t fa_rows(int32_t head_dim) { return head_dim <= 128 ? 128 : 64; }

/* What lies on the device for all steps and for this one. */
struct tabs {
    const struct step_head *head;
    int32_t *token, *pos, *slot; /* [tokens] of this step */
    int32_t *row_token, *row_seq; /* [rows] */
    float *cos, *sin;            /* [tokens, D / 2] */
    int32_t *pages;              /* [slots][table_len] */
    int32_t table_len;
    struct sampling *sampling; /* [slots] */
    int32_t *last;             /* [slots]: the last sample */
    int32_t *turn;             /* [n_turns]: the next work item of `fi`, an operator; zeroed by k_begin */
    int32_t n_turns;
};

/* Enqueue for up to these many. */
struct step_dims {
    int32_t tokens, seqs, rows;
};

void k_begin(struct tabs t, struct step_dims n, cudaStream_t stream);
struct angle_args {
    const float *inv_freq; /* [dim / 2] on the device */
    int32_t dim, dynamic_max;
    float scale, dynamic_theta, dynamic_factor;
};
void k_angles(struct tabs t, struct angle_args a, int32_t tokens, cudaStream_t stream);

/* ---- row operators; pointers are on the device, `a` is the dtype of activations ---- */

struct embed_args {
    const void *w; /* [vocab, ldw] */
    enum dtype w_dtype, out_dtype;
    int64_t ldw, ldo;
    int32_t width;
    int32_t first, n; /* this rank's rows: ids first .. first + n - 1; others give -0.0, which a sum over ranks leaves as it is */
    void *out;
};
void k_embed(struct tabs t, struct embed_args a, int32_t tokens, cudaStream_t stream);

struct norm_args {
    void *in;        /* updated in place when add != NULL */
    const void *add; /* or NULL */
    const float *w;
    void *out;
    enum dtype in_dtype, a; /* of in; of add and out */
    int64_t ldi, lda, ldo;
    int32_t width;
    bool rows; /* over the step's rows, not its tokens */
    float eps;
};
void k_norm(struct tabs t, struct norm_args a, int32_t rows, cudaStream_t stream);

struct rope_args {
    void *qkv; /* [tokens, ld] */
    enum dtype a, kv_dtype;
    int64_t ld;
    void *kv; /* this layer: [page][K|V][head][P][D] */
    const float *q_norm, *k_norm; /* or NULL */
    float eps;
    int32_t n_heads, n_kv_heads, head_dim, page_size;
};
void k_rope_kv(struct tabs t, struct rope_args a, int32_t tokens, cudaStream_t stream);

struct silu_args {
    const void *in; /* gate at column 0, up at column n */
    void *out;
    enum dtype a;
    int64_t ldi, ldo;
    int32_t n;
    const int32_t *rows; /* number of rows on the device; NULL: the step's tokens */
};
void k_silu(struct tabs t, struct silu_args a, int32_t rows, cudaStream_t stream);

struct rows_args {
    const void *in;
    void *out;
    int64_t ldi, ldo; /* elements of `size` bytes */
    int32_t width, size;
};
void k_rows(struct tabs t, struct rows_args a, int32_t rows, cudaStream_t stream);

/* x[token] += bias, over `width` columns. */
struct bias_args {
    void *x;
    const float *bias;
    enum dtype a;
    int64_t ld;
    int32_t width;
};
void k_bias(struct tabs t, struct bias_args a, int32_t tokens, cudaStream_t stream);

/* The ranks' shares of the logits, [ranks][rows][from_ld], side by side: rank r's are columns r * share and on. */
struct join_args {
    const float *from;
    float *to; /* [rows, to_ld] */
    int64_t from_ld, to_ld;
    int32_t share, total, rows; /* rows: of each share in `from` */
};
void k_join(struct tabs t, struct join_args a, int32_t rows, cudaStream_t stream);

/* Any dtype to any dtype, with other row strides; columns from `width` to `ldo` become zero. */
void k_convert(void *out, enum dtype to, int64_t ldo, const void *in, enum dtype from, int64_t ldi, int64_t rows, int32_t width,
               cudaStream_t stream);

/* ---- LINEAR without cuBLASLt: y = x . w^T + bias, any shape; slow, for what the library refuses ---- */

struct plain_args {
    const void *x, *w;
    void *y;
    const float *bias;
    enum dtype a, y_dtype;
    int64_t ldx, ldw, ldy;
    int32_t rows, n, k;
};
void k_linear_plain(struct plain_args a, cudaStream_t stream);
/* The same for few rows (1 to GEMV_ROWS), 2-byte numbers, k and the strides multiples of 8: reads the weights once, at memory speed. */
enum { GEMV_ROWS = 4 };
void k_gemv(struct plain_args a, cudaStream_t stream);

/* The same for up to OWN_ROWS rows, by the matrix unit: a thread block computes `tile` (32, 64, 128) outputs of all rows over a share of k, `split`
 * (1, 2, 4, 8) blocks, a cluster, add up theirs; `blocks` (1, 2) of them fit on a multiprocessor, each with so much less room to read ahead.
 * Compute capability 9.0, and what own_takes says. */
enum { OWN_ROWS = 64 };
struct own_way {
    int32_t tile, split, blocks;
};
bool own_takes(struct plain_args a, struct own_way way);
void k_own(struct plain_args a, struct own_way way, cudaStream_t stream);
int own_init(void); /* shared memory limits; returns a cudaError_t */

/* For tune.c. out[0] = the largest |y - ref|, out[1] = the largest |ref|; a NaN counts as infinite. Strides as in y. */
struct differ_args {
    const void *y, *ref;
    enum dtype t;
    int64_t ld;
    int32_t rows, n;
    float *out; /* [2], zero before */
};
void k_differ(struct differ_args a, cudaStream_t stream);
/* `rows` rows of k numbers of 2 or 4 bytes, as the operator before a product would write them. */
void k_feed(void *to, const void *from, int64_t bytes, cudaStream_t stream);

/* ---- attention ---- */

struct att_args {
    const void *q; /* [tokens, ldq]: H heads of D */
    void *out;     /* [tokens, ldo] */
    enum dtype a, kv_dtype;
    int64_t ldq, ldo;
    const void *kv;
    int32_t page_size, n_heads, n_kv_heads, head_dim, window;
    int32_t page_shift; /* log2 of page_size, or -1 */
    float scale;
    float *part_out;   /* `fi`: [parts, H, D] sums that are not yet divided */
    float *part_ml;    /* [parts, H, 2]: maximum and sum of weights */
    int32_t *arrived;  /* [seqs, K] zero between steps */
    int32_t n_sms, capability; /* of the GPU */
    int32_t grid;      /* thread blocks of `fi` (at most) and `fa`: they take items in turn */
    int32_t *turn;     /* `fi`: the operator's own counter */
};
void k_att_plain(struct tabs t, struct att_args a, int32_t tokens, cudaStream_t stream);
bool att_fast_takes(const struct att_args *a); /* dtypes and head sizes of fi and fa */
void k_att_fi(struct tabs t, struct att_args a, cudaStream_t stream);
void k_att_fa(struct tabs t, struct att_args a, cudaStream_t stream);
int att_init(void); /* shared memory limits; returns a cudaError_t */

/* The chunks of a step as cuDNN reads them; what lies beyond n_chunks is empty. */
enum { CUDNN_SEQS = 32 };
struct chunk_lists {
    int32_t *len_q, *len_kv; /* [CUDNN_SEQS]: new tokens; all tokens */
    int32_t *table;          /* [CUDNN_SEQS][table_len] pages */
    int64_t *at_q, *at_out;  /* [CUDNN_SEQS + 1]: elements from the step's first row */
};
void k_chunks(struct tabs t, struct chunk_lists l, int64_t ldq, int64_t ldo, int32_t page_size, cudaStream_t stream);

/* ---- experts ---- */

enum { MOE_TILE = 64, MOE_EXPERTS_MAX = 512, MOE_TOP_MAX = 32 };
struct moe_args {
    const float *logits; /* [tokens, ldl]: router */
    int64_t ldl;
    const void *x, *w_gu, *w_down; /* [tokens, ldx], [X][2 F][ld_gu], [X][E][ld_down] */
    int64_t gu_step, down_step;    /* elements from one expert to the next */
    void *gu, *ff, *y;             /* [entries, ld2f], [entries, ldf], [entries, ldy] in the order of experts */
    void *out;                     /* [tokens, ldo] */
    enum dtype a;
    int64_t ldx, ld_gu, ld_down, ld2f, ldf, ldy, ldo;
    int32_t n_experts, top_k, hidden, ffn;
    bool norm_topk;
    int32_t *expert, *at, *source; /* [entries] by (token, rank): expert; place in expert order. By place: the token */
    float *p;                      /* [entries] by (token, rank) */
    int32_t *first;                /* [X + 1] */
    int32_t *tiles;                /* [n][3]: expert, first entry, end */
    int32_t *n_tiles;              /* [2]: tiles, entries */
    int32_t token0, tokens, max_tokens; /* this pass: tokens token0 .. token0 + tokens - 1 of the step; what there is room for */
};
void k_moe(struct tabs t, struct moe_args a, cudaStream_t stream);
static inline int32_t moe_max_tiles(int32_t entries, int32_t n_experts) { return entries / MOE_TILE + n_experts; }

/* ---- sampling ---- */

struct result_row; /* flow/result.h */

struct sample_args {
    const float *logits; /* [rows, ld]: ids first .. first + vocab - 1 */
    int64_t ld;
    int32_t vocab, first;
    void *parts;            /* [rows, splits] of SAMPLE_PART_BYTES */
    int32_t splits;
    struct result_row *out; /* [rows] */
};
enum { SAMPLE_PART_BYTES = 40, SAMPLE_SPLITS_MAX = 64 };
void k_sample(struct tabs t, struct sample_args a, int32_t rows, cudaStream_t stream);
void k_sample_scan(struct tabs t, struct sample_args a, int32_t rows, cudaStream_t stream); /* its first half: a.parts */

/* Several ranks, each with its own ids (sample_ranks.cu). `mine` is gathered into `all` between the two halves of each exchange.
 * All rows: k_sample_tell, k_sample_merge: settles rows that are greedy or have a temperature alone, and all log-probabilities.
 * Where a row of the step has top_k or min_p, then k_sample_list, k_sample_choose: a rank lists its own first top_k tokens, or the winner of
 * its own race, `per` entries for each row, and the rest is decided among these. Rows with top_p and no top_k, or more than SAMPLE_LIST_MAX, are not
 * for these: who samples them needs all logits. */
struct sample_rank_args {
    struct sample_args s;  /* this rank's */
    int32_t n_ranks, total; /* ids of all ranks */
    int32_t rows;          /* of each rank in `all` */
    void *mine, *all;      /* [rows], [n_ranks][rows] of SAMPLE_FOUND_BYTES */
    void *state;           /* [rows] of SAMPLE_STATE_BYTES */
    int32_t per;           /* even */
    void *list, *all_list; /* [rows][per], [n_ranks][rows][per] of SAMPLE_ENTRY_BYTES */
};
enum { SAMPLE_FOUND_BYTES = 208, SAMPLE_STATE_BYTES = 16, SAMPLE_ENTRY_BYTES = 8, SAMPLE_LIST_MAX = 1024, SAMPLE_RANKS_MAX = 8 };
void k_sample_tell(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream);
void k_sample_merge(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream);
void k_sample_list(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream);
void k_sample_choose(struct tabs t, struct sample_rank_args a, int32_t rows, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
