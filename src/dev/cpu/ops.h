/* ops.h: the kernels of one instruction set, as a table. The device (cpu.c) cuts each operator into pieces and calls these.
 *
 * Makers of the table: ref.c (the oracle: plain loops, sums in double), generic.c, x_avx2.c, x_avx512.c and x_avx512bf16.c (all
 * four are kern.h with other macros). Every function is pure: it writes only to its outputs and its scratch, and
 * its result for one row does not depend on the other rows of the call. */
#ifndef MINISGL_DEV_CPU_OPS_H
#define MINISGL_DEV_CPU_OPS_H
#include "dev/dev.h"

/* y[T, N] = x[T, K] . W^T + bias; W are up to three views side by side. Cut into n_strips column strips (never across a
 * view's end) times n_chunks chunks of rows: piece = chunk * n_strips + strip. */
struct lin_job {
    const float *x;     /* [T, K], row stride ldx */
    const uint16_t *xh; /* x as bf16 by lin_round, row stride ldxh; needed where a view is bf16 and ops->bf16_dot */
    const uint32_t *xt; /* x turned by lin_turn, [T / lanes][steps][lanes], a step a number of x or a pair of xh; NULL: not made */
    const float *xb;    /* x by blocks of k, [block][T][numbers of the block]: a block is lin_block numbers, or what is left of a slice; NULL:
                           not made */
    float *y;           /* [T, N], row stride ldy */
    size_t ldx, ldxh, ldy;
    int32_t rows, k, k_slices; /* T, K */
    struct view w[3];
    const float *bias[3]; /* float32 or NULL */
    int32_t strips[3];    /* of each view */
    int32_t n_strips, n_chunks, chunk_rows;
};

/* Attention of `count` sequences' new tokens. Piece: see att_job_pieces. */
struct att_seq {
    const int32_t *table; /* page numbers */
    int32_t pos, n_tokens, row; /* first new position, new tokens, their first row in q and out */
    int32_t first_piece;
};

struct att_job {
    const float *q; /* [T, ..], row stride ldq, H heads of D */
    float *out;     /* [T, H D], row stride ldo */
    size_t ldq, ldo;
    const char *kv; /* this layer: [page][K|V][head][P][D] */
    size_t page_bytes, v_at, head_bytes;
    enum dtype dtype;
    int32_t page_size, n_heads, n_kv_heads, head_dim, window;
    float scale;
    const struct att_seq *seqs;
    int32_t n_seqs, n_pieces;
    int32_t group, group_part, n_parts; /* query heads of a KV head; of one piece; parts = ceil(group / group_part) */
    int32_t tile;                       /* query tokens of one piece */
};

struct cpu_ops {
    const char *isa;
    bool bf16_dot;    /* LINEAR with bf16 weights takes its input rounded to bf16 */
    int32_t strip;    /* columns of one LINEAR strip */
    int32_t lanes;    /* rows of x that are turned together; 0: lin_turn is of no use here */
    int32_t few;      /* nor is it for so few rows */
    int32_t many;     /* nor for more rows than this, where xb helps; 0: xb never does */
    int32_t (*lin_block)(int32_t n); /* numbers of a block of xb in a slice of n */
    size_t (*lin_scratch)(int32_t chunk_rows, int32_t k_slices);
    void (*lin_round)(uint16_t *xh, const float *x, int32_t k, int32_t k_slices);
    /* xt[steps][lanes] = `rows` (1 .. lanes) rows of x in dwords, row stride ldx dwords. */
    void (*lin_turn)(uint32_t *xt, const void *x, size_t ldx, int32_t rows, int32_t steps);
    void (*linear)(const struct lin_job *j, int32_t piece, void *scratch);
    size_t (*att_scratch)(int32_t rows, int32_t head_dim);
    void (*attention)(const struct att_job *j, int32_t piece, void *scratch);
    /* One row of n. add may be NULL. */
    void (*norm)(float *out, float *in, const float *add, const float *w, float eps, int32_t n);
    /* One head of d: w NULL = no norm; cos, sin [d / 2]. */
    void (*rope)(float *head, const float *w, float eps, const float *cos, const float *sin, int32_t d);
    void (*silu_mul)(float *out, const float *gate, const float *up, int32_t n);
    void (*load)(float *out, const void *in, enum dtype t, int32_t n);  /* n numbers of any dtype to float32 */
    void (*store)(void *out, const float *in, enum dtype t, int32_t n); /* and back */
    void (*axpy)(float *y, float a, const float *x, int32_t n);         /* y += a x */
    /* Of a row of logits. */
    bool (*scan)(const float *x, int32_t n, float *max);                /* false: a NaN or an infinity is in it */
    double (*sum_exp)(const float *x, int32_t n, float max);            /* sum of exp(x - max) */
    void (*exp_scaled)(float *out, const float *x, int32_t n, float max, float scale); /* exp((x - max) * scale) */
    /* Indices with (x - max) * scale >= floor, ascending; how many. */
    int32_t (*pick)(int32_t *out, const float *x, int32_t n, float max, float scale, float floor);
    /* The next index >= from that may reach `best` with Gumbel noise of this key (n when none): see sample.h. */
    int32_t (*gumbel_next)(const float *x, int32_t n, int32_t from, float max, float scale, uint64_t key, float best);
};

extern const struct cpu_ops cpu_ops_ref, cpu_ops_generic, cpu_ops_avx2, cpu_ops_avx512, cpu_ops_avx512bf16;

/* dispatch.c: the table by name; NULL or "auto": the best this machine runs. NULL and an error when unknown or not here. */
const struct cpu_ops *cpu_ops_find(const char *isa, struct err *e);

enum { ATT_BLOCK = 64, ATT_ROWS = 64, ATT_GROUP = 16, HEAD_DIM_MAX = 512, K_SLICES_MAX = 8, LANES_MAX = 16 };

/* Elements of one row of xh: every slice is padded to an even count. */
static inline size_t lin_round_width(int32_t k, int32_t k_slices) {
    return (size_t)k_slices * (((size_t)(k / k_slices) + 1) & ~(size_t)1);
}

/* The sum of k slices in the fixed tree ((0+1)+(2+3))+((4+5)+(6+7)); n is 1, 2, 4 or 8. */
static inline float tree_sum(const float *s, size_t stride, int32_t n) {
    if (n == 1) return s[0];
    return tree_sum(s, stride, n / 2) + tree_sum(s + (size_t)(n / 2) * stride, stride, n / 2);
}

/* Which rows and which view columns a LINEAR piece covers. */
struct lin_piece {
    int32_t view, n0, n1, col; /* columns n0..n1-1 of that view; col: where n0 lies in y */
    int32_t row0, row1;
};
static inline struct lin_piece lin_piece_at(const struct lin_job *j, int32_t piece, int32_t strip_width) {
    struct lin_piece p = {0};
    int32_t strip = piece % j->n_strips;
    p.row0 = piece / j->n_strips * j->chunk_rows;
    p.row1 = p.row0 + j->chunk_rows < j->rows ? p.row0 + j->chunk_rows : j->rows;
    while (strip >= j->strips[p.view]) {
        strip -= j->strips[p.view];
        p.col += j->w[p.view].n;
        p.view++;
    }
    p.n0 = strip * strip_width;
    p.n1 = p.n0 + strip_width < j->w[p.view].n ? p.n0 + strip_width : j->w[p.view].n;
    p.col += p.n0;
    return p;
}

/* Which tokens and heads an attention piece covers: tiles of tokens from the last (the longest) to the first, by KV head, by part
 * of its group. */
struct att_piece {
    const struct att_seq *seq;
    int32_t head, q_head, n_q; /* KV head; first query head; how many */
    int32_t t0, t1;            /* new tokens of the sequence */
};
static inline int32_t att_seq_pieces(const struct att_job *j, int32_t n_tokens) {
    return (n_tokens + j->tile - 1) / j->tile * j->n_kv_heads * j->n_parts;
}
static inline struct att_piece att_piece_at(const struct att_job *j, int32_t piece) {
    int32_t lo = 0, hi = j->n_seqs - 1;
    while (lo < hi) {
        int32_t mid = (lo + hi + 1) / 2;
        if (j->seqs[mid].first_piece <= piece)
            lo = mid;
        else
            hi = mid - 1;
    }
    struct att_piece p = {.seq = &j->seqs[lo]};
    piece -= p.seq->first_piece;
    int32_t per_tile = j->n_kv_heads * j->n_parts, n_tiles = (p.seq->n_tokens + j->tile - 1) / j->tile;
    int32_t tile = n_tiles - 1 - piece / per_tile, part = piece % j->n_parts;
    p.head = piece % per_tile / j->n_parts;
    p.q_head = p.head * j->group + part * j->group_part;
    p.n_q = j->group - part * j->group_part < j->group_part ? j->group - part * j->group_part : j->group_part;
    p.t0 = tile * j->tile;
    p.t1 = p.t0 + j->tile < p.seq->n_tokens ? p.t0 + j->tile : p.seq->n_tokens;
    return p;
}

/* Where position pos of a sequence lies: the K row of one head; the V row is v_at bytes further. */
static inline const char *kv_row(const struct att_job *j, const struct att_seq *s, int32_t head, int32_t pos) {
    size_t at = (size_t)(pos % j->page_size) * (size_t)j->head_dim * dtype_size(j->dtype);
    return j->kv + (size_t)s->table[pos / j->page_size] * j->page_bytes + (size_t)head * j->head_bytes + at;
}

#endif
