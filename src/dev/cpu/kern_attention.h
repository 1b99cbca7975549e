/* kern_attention.h: the part of kern.h that attends over KV pages; included by it alone.
 *
 * A piece is some tokens of one sequence with the query heads of one KV head. It goes through absolute blocks of 64 positions:
 * scores (a chain over d each), the block's maximum, exponentials, and values (a chain over the 64 positions each); what was
 * there shrinks by exp(old maximum - new). Positions that a row does not see have probability 0, so its numbers do not depend
 * on which rows share the block; all that a product with 0 can do is to turn -0 into 0, which is therefore done to every output.
 * An fp8 cache is first brought to bf16, which holds its numbers exactly, block by block. */

static const char zeros[HEAD_DIM_MAX * 4];

/* A piece's rows are (token, query head), tokens first; row r belongs to token r / n_q. */
struct att {
    const struct att_job *j;
    struct att_piece p;
    int32_t rows, d, dp; /* dp: D up to a multiple of W */
    uint32_t *k, *v;     /* panels of one block: [64 / W][D][W] and [dp / W][64][W] */
    float *q, *s, *acc;  /* [rows, D], [rows, 64], [rows, dp] */
    float *max, *sum;    /* [rows] */
    int32_t piece, n_valid; /* positions of the block that exist for some row */
    enum dtype t;           /* of the rows that are computed with */
    size_t v_at;            /* bytes from a K row to its V row */
    char *wide;             /* fp8: [K|V][64][D] in bf16 */
    const char *row[ATT_BLOCK];  /* K rows of the block */
    const char *next[ATT_BLOCK]; /* and of the one after it, for prefetching */
};

static size_t att_scratch(int32_t rows, int32_t head_dim) {
    size_t d = ((size_t)head_dim + 31) & ~(size_t)31, dp = ((size_t)head_dim + W - 1) / W * W, r = (size_t)rows;
    return 4 * (ATT_BLOCK * (d + d + dp) + r * (d + ATT_BLOCK + dp + 2)) + 64; /* 2 d bf16: d floats */
}

static void att_init(struct att *a, const struct att_job *j, int32_t piece, void *scratch) {
    a->j = j;
    a->piece = piece;
    a->p = att_piece_at(j, piece);
    a->d = j->head_dim;
    a->dp = (a->d + W - 1) / W * W;
    a->rows = (a->p.t1 - a->p.t0) * a->p.n_q;
    size_t d = ((size_t)a->d + 31) & ~(size_t)31, rows = (size_t)a->rows;
    a->k = scratch;
    a->v = a->k + ATT_BLOCK * d;
    a->acc = (float *)(void *)(a->v + ATT_BLOCK * a->dp);
    a->s = a->acc + rows * (size_t)a->dp;
    a->q = a->s + rows * ATT_BLOCK;
    a->max = a->q + rows * d;
    a->sum = a->max + rows;
    a->wide = (char *)(a->sum + rows);
    a->t = j->dtype == DT_FP8_E4M3 ? DT_BF16 : j->dtype;
    a->v_at = j->dtype == DT_FP8_E4M3 ? ATT_BLOCK * d * 2 : j->v_at;
    for (int32_t r = 0; r < a->rows; r++) {
        const float *q = j->q + (size_t)(a->p.seq->row + a->p.t0 + r / a->p.n_q) * j->ldq;
        memcpy(a->q + (size_t)r * (size_t)a->d, q + (size_t)(a->p.q_head + r % a->p.n_q) * (size_t)a->d, (size_t)a->d * 4);
        a->max[r] = -INFINITY;
        a->sum[r] = 0;
    }
    memset(a->acc, 0, rows * (size_t)a->dp * 4);
}

INLINE enum kind kv_kind(enum dtype t) { return t == DT_F32 ? KIND_F32 : t == DT_F16 ? KIND_F16 : KIND_BF16; }

/* Where the first block starts that a piece sees. */
INLINE int32_t att_first(const struct att_job *j, const struct att_piece *p) {
    int32_t p0 = p->seq->pos + p->t0;
    return j->window > 0 && p0 >= j->window ? (p0 - j->window + 1) / ATT_BLOCK * ATT_BLOCK : 0;
}

/* row[0 .. count - 1]: K rows of positions first .. first + n - 1, then `rest`. Page by page: a division a row would be felt. */
static void kv_rows(const struct att_job *j, const struct att_piece *p, int32_t first, int32_t n, const char **row, int32_t count,
                    const char *rest) {
    size_t bytes = (size_t)j->head_dim * dtype_size(j->dtype);
    int32_t i = 0, in_page = first % j->page_size;
    if (n > count) n = count;
    while (i < n) {
        const char *at = kv_row(j, p->seq, p->head, first + i);
        for (; i < n && in_page < j->page_size; i++, in_page++, at += bytes) row[i] = at;
        in_page = 0;
    }
    for (; i < count; i++) row[i] = rest;
}

INLINE void widen(char *to, const char *from, int32_t n) {
    int32_t i = 0;
    for (; i + L <= n; i += L) *(vhu *)((uint16_t *)(void *)to + i) = __builtin_convertvector((vu)v_fp8_load(from + i) >> 16, vh);
    for (; i < n; i++) ((uint16_t *)(void *)to)[i] = (uint16_t)(bits_of_f32(e4m3_to_f32((uint8_t)from[i])) >> 16);
}

/* The block's rows from fp8 to bf16; they are the wide ones then. */
static void att_widen(struct att *a) {
    size_t row = (((size_t)a->d + 31) & ~(size_t)31) * 2;
    for (int32_t i = 0; i < a->n_valid; i++) {
        char *to = a->wide + (size_t)i * row;
        widen(to, a->row[i], a->d);
        widen(to + a->v_at, a->row[i] + a->j->v_at, a->d);
        a->row[i] = to;
    }
}

/* Find the rows of positions first .. first + 63 (from n_valid on zeros), and those that will be read after them: the next block's,
 * then those of the next piece, which most likely comes to this thread (without them memory has nothing to do before a short block). */
static void att_rows(struct att *a, int32_t first, int32_t n_valid) {
    const struct att_job *j = a->j;
    int32_t from = first + ATT_BLOCK, n = a->p.seq->pos + a->p.t1 - from;
    a->n_valid = n_valid;
    if (n < 0) n = 0;
    if (n > ATT_BLOCK) n = ATT_BLOCK;
    kv_rows(j, &a->p, first, n_valid, a->row, ATT_BLOCK, zeros);
    if (n) kv_rows(j, &a->p, from, n, a->next, n, NULL);
    if (n < ATT_BLOCK && a->piece + 1 < j->n_pieces) {
        struct att_piece after = att_piece_at(j, a->piece + 1);
        from = att_first(j, &after);
        kv_rows(j, &after, from, after.seq->pos + after.t1 - from, a->next + n, ATT_BLOCK - n, a->row[0]);
    } else {
        for (; n < ATT_BLOCK; n++) a->next[n] = a->row[0];
    }
    if (j->dtype == DT_FP8_E4M3) att_widen(a);
}

/* K's and V's lines of position i of the next block, from column c on, W of them. */
INLINE void att_prefetch(const struct att *a, int32_t i, int32_t c, size_t size) {
    const char *k = a->next[i] + (size_t)c * size;
    for (size_t b = 0; b < W * size; b += 64) {
        __builtin_prefetch(k + b, 0, 2);
        __builtin_prefetch(k + a->j->v_at + b, 0, 2);
    }
}

INLINE const char *v_row(const struct att *a, const char *k_row) { return k_row == zeros ? zeros : k_row + a->v_at; }

/* Many rows: K turned into panels, V as float32. */
static void att_pack(struct att *a) {
    size_t size = dtype_size(a->j->dtype); /* in the cache */
    const char *const *row = a->row;
    for (int32_t i = 0; i < a->n_valid; i += W)
        pack_any(kv_kind(a->t), a->k + (size_t)i * (size_t)a->d, row + i, 0, a->d);
    for (int32_t c = 0; c < a->d; c += W) {
        float *to = (float *)(void *)(a->v + (size_t)c * ATT_BLOCK);
        for (int32_t i = 0; i < a->n_valid; i++, to += W) {
            const char *v = elem_at(v_row(a, row[i]), a->t, c);
            att_prefetch(a, i, c, size);
            if (a->d - c < W) {
                load(to, v, a->t, a->d - c);
                continue;
            }
            UNROLL
            for (int32_t b = 0; b < NR; b++) v_store(to + b * L, v_load_any(elem_at(v, a->t, b * L), a->t));
        }
    }
}

static void att_scores(struct att *a, int32_t r0, int32_t rows) {
    for (int32_t i = 0; i < a->n_valid; i += W)
        tiles(false, rows,
              (struct tile_args){.panel = a->k + (size_t)i * (size_t)a->d, .x = a->q + (size_t)r0 * (size_t)a->d, .ldx = (size_t)a->d,
                                 .steps = a->d, .acc = a->s + (size_t)r0 * ATT_BLOCK + i, .lda = ATT_BLOCK, .zero = true});
}

static void att_values(struct att *a, int32_t r0, int32_t rows) {
    for (int32_t c = 0; c < a->dp; c += W)
        tiles(false, rows,
              (struct tile_args){.panel = a->v + (size_t)c * ATT_BLOCK, .x = a->s + (size_t)r0 * ATT_BLOCK, .ldx = ATT_BLOCK,
                                 .steps = a->n_valid, .acc = a->acc + (size_t)r0 * (size_t)a->dp + c, .lda = (size_t)a->dp});
}

/* Few rows (decode): K is turned in registers and V used as it lies; the same chains without the panels. */
static void att_scores_direct(struct att *a) {
    float out[DIRECT_ROWS * DIRECT_COLS];
    const struct slice s = {a->q, (size_t)a->d, 0, a->d};
    for (int32_t i = 0; i < a->n_valid; i += DIRECT_COLS) {
        struct cols c = {.ahead_on = 0};
        memcpy(c.row, a->row + i, DIRECT_COLS * sizeof *a->row);
        const char *ahead = a->row[i]; /* att_values_m prefetches */
        direct_any(kv_kind(a->t), a->rows, &c, &s, out, &ahead);
        for (int32_t r = 0; r < a->rows; r++)
            memcpy(a->s + r * ATT_BLOCK + i, out + r * DIRECT_COLS, DIRECT_COLS * sizeof *out);
    }
}

INLINE void att_values_m(struct att *a, int32_t m, enum dtype t) {
    for (int32_t c = 0; c < a->dp; c += W) {
        vf acc[DIRECT_ROWS][NR];
        int32_t n = a->d - c;
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            UNROLL
            for (int32_t b = 0; b < NR; b++) acc[i][b] = v_load(a->acc + (size_t)i * (size_t)a->dp + c + b * L);
        }
        for (int32_t k = 0; k < a->n_valid; k++) {
            const char *v = elem_at(v_row(a, a->row[k]), t, c);
            att_prefetch(a, k, c, dtype_size(a->j->dtype));
            vf x[NR];
            if (n >= W) {
                UNROLL
                for (int32_t b = 0; b < NR; b++) x[b] = v_load_any(elem_at(v, t, b * L), t);
            } else {
                float tail[W] = {0};
                load(tail, v, t, n);
                UNROLL
                for (int32_t b = 0; b < NR; b++) x[b] = v_load(tail + b * L);
            }
            UNROLL
            for (int32_t i = 0; i < m; i++) {
                UNROLL
                for (int32_t b = 0; b < NR; b++) acc[i][b] = V_FMA(v_set(a->s[i * ATT_BLOCK + k]), x[b], acc[i][b]);
            }
        }
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            UNROLL
            for (int32_t b = 0; b < NR; b++) v_store(a->acc + (size_t)i * (size_t)a->dp + c + b * L, acc[i][b]);
        }
    }
}

#define VALUES_CASES(t)                                                                                                \
    switch (a->rows) {                                                                                                 \
    case 1: att_values_m(a, 1, t); break;                                                                         \
    case 2: att_values_m(a, 2, t); break;                                                                         \
    case 3: att_values_m(a, 3, t); break;                                                                         \
    default: att_values_m(a, 4, t); break;                                                                        \
    }

static void att_values_direct(struct att *a) {
    if (a->t == DT_BF16) {
        VALUES_CASES(DT_BF16)
    } else if (a->t == DT_F16) {
        VALUES_CASES(DT_F16)
    } else {
        VALUES_CASES(DT_F32)
    }
}

/* The block's positions that row r sees: lo .. hi - 1. */
struct seen {
    int32_t lo, hi;
};

INLINE struct seen att_seen(const struct att *a, int32_t first, int32_t r) {
    int32_t p = a->p.seq->pos + a->p.t0 + r / a->p.n_q - first, window = a->j->window > 0 ? a->j->window : INT32_MAX;
    return (struct seen){p >= window ? p - window + 1 : 0, p + 1 < ATT_BLOCK ? p + 1 : ATT_BLOCK};
}

enum { ATT_VECS = ATT_BLOCK / L };

/* A row's scores, scaled, -infinity where it sees nothing; lanes of their maximum and of the old one. */
INLINE vf att_scale(const struct att *a, float *s, struct seen seen, float old) {
    vf top = v_set(old);
    UNROLL
    for (int32_t i = 0; i < ATT_VECS; i++) {
        vf x = v_load(s + i * L) * v_set(a->j->scale);
        if (seen.lo > 0 || seen.hi < ATT_BLOCK) {
            vi at = (vi)(v_iota() + v_setu((uint32_t)(i * L)));
            x = v_sel((at >= (vi)v_setu((uint32_t)seen.lo)) & (at < (vi)v_setu((uint32_t)seen.hi)), x, v_set(-INFINITY));
        }
        v_store(s + i * L, x);
        top = V_MAX(x, top);
    }
    return top;
}

/* Its probabilities; lanes of their sum. */
INLINE vf att_exp(float *s, float max) {
    vf sum = v_set(0);
    UNROLL
    for (int32_t i = 0; i < ATT_VECS; i++) {
        vf e = v_exp(v_load(s + i * L) - v_set(max));
        v_store(s + i * L, e);
        sum += e;
    }
    return sum;
}

INLINE void att_shrink(struct att *a, int32_t r, float shrink) {
    float *acc = a->acc + (size_t)r * (size_t)a->dp;
    for (int32_t c = 0; c < a->dp; c += L) v_store(acc + c, v_load(acc + c) * v_set(shrink));
}

/* One row's scores of a block to probabilities. The old sums shrink to the new maximum. */
INLINE void att_softmax(struct att *a, int32_t r, int32_t first) {
    float *s = a->s + (size_t)r * ATT_BLOCK, max = v_top(att_scale(a, s, att_seen(a, first, r), a->max[r]));
    vf sum = att_exp(s, max), shrink = v_exp(v_set(a->max[r] - max));
    a->sum[r] = a->sum[r] * shrink[0] + v_sum(sum);
    a->max[r] = max;
    att_shrink(a, r, shrink[0]);
}

/* L rows: the lanes of their maxima and sums are turned, so that they are found side by side, by v_top's and v_sum's steps. */
INLINE void att_softmax_rows(struct att *a, int32_t r, int32_t first) {
    float lanes[L][L], max[L], shrink[L];
    const char *rows[L];
    vu o[L];
    for (int32_t i = 0; i < L; i++) {
        rows[i] = (const char *)lanes[i];
        v_store(lanes[i], att_scale(a, a->s + (size_t)(r + i) * ATT_BLOCK, att_seen(a, first, r + i), a->max[r + i]));
    }
    turn(rows, 0, o);
    UNROLL
    for (int n = L / 2; n; n /= 2) {
        UNROLL
        for (int i = 0; i < n; i++) o[i] = (vu)v_sel((vf)o[i] > (vf)o[i + n], (vf)o[i], (vf)o[i + n]);
    }
    vf less = v_exp(v_load(a->max + r) - (vf)o[0]);
    v_store(max, (vf)o[0]);
    v_store(shrink, less);
    v_store(a->max + r, (vf)o[0]);
    for (int32_t i = 0; i < L; i++) v_store(lanes[i], att_exp(a->s + (size_t)(r + i) * ATT_BLOCK, max[i]));
    turn(rows, 0, o);
    UNROLL
    for (int n = L / 2; n; n /= 2) {
        UNROLL
        for (int i = 0; i < n; i++) o[i] = (vu)((vf)o[i] + (vf)o[i + n]);
    }
    v_store(a->sum + r, v_load(a->sum + r) * less + (vf)o[0]);
    for (int32_t i = 0; i < L; i++)
        if (shrink[i] != 1) att_shrink(a, r + i, shrink[i]);
}

/* One block of positions for the rows that see some of it. */
static void att_block(struct att *a, int32_t first) {
    const struct att_job *j = a->j;
    int32_t p0 = a->p.seq->pos + a->p.t0, last = a->p.seq->pos + a->p.t1 - 1, window = j->window > 0 ? j->window : INT32_MAX;
    int32_t n_valid = last - first + 1 < ATT_BLOCK ? last - first + 1 : ATT_BLOCK;
    att_rows(a, first, n_valid);
    int32_t t0 = first > p0 ? first - p0 : 0, t1 = a->p.t1 - a->p.t0;      /* tokens at or behind the block's start */
    int64_t out = (int64_t)first + ATT_BLOCK - 1 + window - p0;            /* the first token that sees none of it */
    if (out < t1) t1 = (int32_t)out;
    int32_t r0 = t0 * a->p.n_q, rows = t1 * a->p.n_q - r0;
    bool few = a->rows <= DIRECT_ROWS && rows == a->rows;
    if (few) {
        att_scores_direct(a);
    } else {
        att_pack(a);
        att_scores(a, r0, rows);
    }
    int32_t r = r0;
    for (; r + L <= r0 + rows; r += L) att_softmax_rows(a, r, first);
    for (; r < r0 + rows; r++) att_softmax(a, r, first);
    if (few)
        att_values_direct(a);
    else
        att_values(a, r0, rows);
    for (int32_t i = n_valid; i < ATT_BLOCK; i++) /* a short block has not prefetched all of the next */
        for (int32_t c = 0; c < a->d; c += W) att_prefetch(a, i, c, dtype_size(j->dtype));
}

static void attention(const struct att_job *j, int32_t piece, void *scratch) {
    struct att a;
    att_init(&a, j, piece, scratch);
    int32_t last = a.p.seq->pos + a.p.t1 - 1;
    for (int32_t first = att_first(j, &a.p); first <= last; first += ATT_BLOCK) att_block(&a, first);
    for (int32_t r = 0; r < a.rows; r++) {
        float *out = j->out + (size_t)(a.p.seq->row + a.p.t0 + r / a.p.n_q) * j->ldo + (size_t)(a.p.q_head + r % a.p.n_q) * (size_t)a.d;
        const float *acc = a.acc + (size_t)r * (size_t)a.dp;
        for (int32_t c = 0; c < a.d; c += L) /* no -0: see above */
            v_store_n(out + c, v_load(acc + c) / v_set(a.sum[r]) + v_set(0), a.d - c);
    }
}
