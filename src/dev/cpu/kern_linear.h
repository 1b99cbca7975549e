/* kern_linear.h: the part of kern.h that multiplies by weights; included by it alone.
 *
 * Few rows go `direct`: weights are turned in registers and used at once. More rows go through kern_lanes.h where x has been turned
 * for them, else, and so many that it pays, `packed`: a panel of W columns by some steps of k is turned into the scratch memory
 * once, and register tiles of MR rows work through it (attention uses them too). All make an output by the same chain: from zero,
 * over k ascending, slices of k apart and then added in the tree. */

/* Up to W or DIRECT_COLS rows of a weight, as columns of the product; those past the last repeat it and are not stored. */
struct cols {
    const char *row[W > DIRECT_COLS ? W : DIRECT_COLS];
    const char *ahead; /* where the memory that comes next starts, for prefetching */
    size_t ahead_on;   /* 1; 0: do not, or where rows do not follow each other (a shard): that would fetch others' columns */
};

INLINE void cols_set(struct cols *c, const struct view *w, int32_t n, int32_t end, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        c->row[i] = elem_at(w->data, w->dtype, (int64_t)(n + i < end ? n + i : end - 1) * w->ld);
    c->ahead_on = w->ld == w->k;
    c->ahead = c->ahead_on ? elem_at(w->data, w->dtype, (int64_t)(n + count) * w->ld) : c->row[0];
}

/* The same for rows that end after `bytes`: what is missing is zero. */
static void turn_tail(const char *const *row, int64_t at, size_t bytes, vu o[L]) {
    char copy[L][L * 4];
    const char *rows[L];
    memset(copy, 0, sizeof copy);
    for (int r = 0; r < L; r++) {
        memcpy(copy[r], row[r] + at, bytes);
        rows[r] = copy[r];
    }
    turn(rows, 0, o);
}

INLINE vf pair_lo(enum kind kind, vu d) { return kind == KIND_F16 ? v_f16_lo(d) : (vf)(d << 16); }
INLINE vf pair_hi(enum kind kind, vu d) { return kind == KIND_F16 ? v_f16_hi(d) : (vf)(d & 0xffff0000u); }

/* acc[g][i] += turned dwords o[g][..] times row i of x, k ascending: n_k numbers or fewer. x: float32, or bf16 pairs. */
INLINE void turn_mac(enum kind kind, int32_t groups, int32_t dwords, vf (*acc)[DIRECT_ROWS], int32_t m, const vu *o, const void *x,
                     size_t ldx, int32_t n_k) {
    const float *xf = x;
    UNROLL
    for (int32_t j = 0; j < dwords; j++) {
        if ((kind == KIND_F32 ? j : 2 * j) >= n_k) break;
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            size_t at = (size_t)i * ldx;
            uint32_t pair = 0;
            if (kind == KIND_DOT) memcpy(&pair, (const uint16_t *)x + at + 2 * j, 4);
            vf a = kind == KIND_DOT ? (vf)v_setu(pair) : v_set(xf[at + (size_t)(kind == KIND_F32 ? j : 2 * j)]);
            UNROLL
            for (int32_t g = 0; g < groups; g++) {
                vu w = o[g * dwords + j];
                acc[g][i] = kind == KIND_DOT ? V_DOT(acc[g][i], w, a) : V_FMA(a, kind == KIND_F32 ? (vf)w : pair_lo(kind, w), acc[g][i]);
            }
        }
        if (kind == KIND_DOT || kind == KIND_F32 || 2 * j + 1 >= n_k) continue;
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            vf a = v_set(xf[(size_t)i * ldx + 2 * (size_t)j + 1]);
            UNROLL
            for (int32_t g = 0; g < groups; g++) acc[g][i] = V_FMA(a, pair_hi(kind, o[g * dwords + j]), acc[g][i]);
        }
    }
}

/* What a slice of K reads: x and weights from k0, n_k numbers; x0: where the slice starts in x (it is padded there for KIND_DOT). */
struct slice {
    const void *x;
    size_t ldx;
    int32_t k0, n_k;
};

INLINE struct slice slice_at(const struct lin_job *j, enum kind kind, int32_t row, int32_t s) {
    struct slice c = {.n_k = j->k / j->k_slices};
    c.k0 = s * c.n_k;
    if (kind == KIND_DOT) {
        c.ldx = j->ldxh;
        c.x = j->xh + (size_t)row * c.ldx + (size_t)s * (((size_t)c.n_k + 1) & ~(size_t)1);
    } else {
        c.ldx = j->ldx;
        c.x = j->x + (size_t)row * c.ldx + (size_t)c.k0;
    }
    return c;
}

/* Where number k of the slice's first row of x lies. */
INLINE const void *x_at(enum kind kind, const struct slice *s, int32_t k) {
    return kind == KIND_DOT ? (const void *)((const uint16_t *)s->x + k) : (const void *)((const float *)s->x + k);
}

/* m rows, DIRECT_COLS columns: out[m][DIRECT_COLS] = one slice. Columns advance together, a line of each at a time, since one chain
 * waits for its own sums; 16 of them, since rows are often a power of two apart, so that their lines compete for the same few places
 * of the first-level cache. The memory that follows is prefetched in its own order, one line for each line used. */
INLINE void direct_slice(enum kind kind, int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    enum { B = DIRECT_COLS / L, LINE = 64 / (PART * 4) };
    vf acc[B][DIRECT_ROWS];
    UNROLL
    for (int32_t b = 0; b < B; b++) {
        UNROLL
        for (int32_t i = 0; i < m; i++) acc[b][i] = v_set(0);
    }
    int32_t k = 0, size = kind == KIND_F32 ? 4 : 2, part = kind == KIND_F32 ? PART : 2 * PART, tk = turn_k(kind);
    const char *pf = *ahead;
    for (; k + LINE * part <= s->n_k; k += LINE * part) {
        UNROLL
        for (int32_t l = 0; l < LINE; l++) {
            vu o[B][PART];
            UNROLL
            for (int32_t b = 0; b < B; b++) turn_part(c->row + b * L, (int64_t)(s->k0 + k + l * part) * size, o[b]);
            turn_mac(kind, B, PART, acc, m, o[0], x_at(kind, s, k + l * part), s->ldx, part);
        }
        if (!c->ahead_on) continue;
        UNROLL
        for (int32_t l = 0; l < DIRECT_COLS; l++) __builtin_prefetch(pf + l * 64, 0, 2);
        pf += DIRECT_COLS * 64;
    }
    *ahead = pf;
    for (; k < s->n_k; k += tk) {
        int32_t n_k = s->n_k - k < tk ? s->n_k - k : tk;
        for (int32_t b = 0; b < B; b++) {
            vu o[L];
            turn_tail(c->row + b * L, (int64_t)(s->k0 + k) * size, (size_t)(n_k * size), o);
            turn_mac(kind, 1, L, acc + b, m, o, x_at(kind, s, k), s->ldx, n_k);
        }
    }
    UNROLL
    for (int32_t b = 0; b < B; b++) {
        UNROLL
        for (int32_t i = 0; i < m; i++) v_store(out + i * DIRECT_COLS + b * L, acc[b][i]);
    }
}

#define CASE(kind, m)                                                                                                  \
    case m: direct_slice(kind, m, c, s, out, ahead); return;
#define CASES_4(kind, m) CASE(kind, m) CASE(kind, m + 1) CASE(kind, m + 2) CASE(kind, m + 3)

static void direct_f32(int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    switch (m) { CASES_4(KIND_F32, 1) }
}
static void direct_f16(int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    switch (m) { CASES_4(KIND_F16, 1) }
}
static void direct_bf16(int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    switch (m) { CASES_4(KIND_BF16, 1) }
}
#if DOT
static void direct_dot(int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    switch (m) { CASES_4(KIND_DOT, 1) }
}
#endif

static void direct_any(enum kind kind, int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    if (kind == KIND_F32)
        direct_f32(m, c, s, out, ahead);
    else if (kind == KIND_F16)
        direct_f16(m, c, s, out, ahead);
    else if (!DOT || kind == KIND_BF16)
        direct_bf16(m, c, s, out, ahead);
#if DOT
    else
        direct_dot(m, c, s, out, ahead);
#endif
}

/* Add up finished slices in the order of the tree: after slice s the top of the stack folds once for every trailing 1 of s. */
INLINE int32_t fold(float *acc, size_t n, int32_t top, int32_t s) {
    for (; s & 1; s >>= 1, top--) {
        float *below = acc + (size_t)(top - 1) * n, *above = acc + (size_t)top * n;
        for (size_t i = 0; i < n; i += L) v_store(below + i, v_load(below + i) + v_load(above + i));
    }
    return top + 1;
}

/* Rows of acc (ld columns each) to y, with the bias, n columns. */
INLINE void finish(const struct lin_job *j, const struct lin_piece *p, const float *acc, int32_t ld, int32_t at, int32_t n) {
    const float *bias = j->bias[p->view] ? j->bias[p->view] + p->n0 + at : NULL;
    for (int32_t t = p->row0; t < p->row1; t++, acc += ld) {
        float *y = j->y + (size_t)t * j->ldy + (size_t)(p->col + at);
        for (int32_t i = 0; i < n; i += L) {
            vf a = v_load(acc + i);
            if (bias) a = a + v_load_n(bias + i, n - i);
            v_store_n(y + i, a, n - i);
        }
    }
}

#if LINES
/* m rows by DIRECT_COLS columns of bf16 weights, all slices: sums [m][DIRECT_COLS], with LEVELS of them to work in. The columns'
 * lines are turned into memory, a line ahead of their use and in between the products: a chain waits for its own sums. */
enum { LINE_K = 32, LINE_GROUPS = DIRECT_COLS / L };
typedef vu line_turned[LINE_K / 2];

INLINE void line_mac(int32_t m, vf (*acc)[DIRECT_ROWS], const line_turned *line, const float *x, size_t ldx, const char *const *row,
                     int64_t next, line_turned *to, const char *ahead) {
    UNROLL
    for (int32_t q = 0; q < LINE_K / 2; q++) {
        if (q % 2 == 0 && q / 2 < LINE_GROUPS) turn_line(row + q / 2 * L, next, to[q / 2]);
        __builtin_prefetch(ahead + q * 64, 0, 2);
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            vf even = v_set(x[(size_t)i * ldx + (size_t)(2 * q)]), odd = v_set(x[(size_t)i * ldx + (size_t)(2 * q + 1)]);
            UNROLL
            for (int32_t b = 0; b < LINE_GROUPS; b++) acc[b][i] = V_FMA(even, pair_lo(KIND_BF16, line[b][q]), acc[b][i]);
            UNROLL
            for (int32_t b = 0; b < LINE_GROUPS; b++) acc[b][i] = V_FMA(odd, pair_hi(KIND_BF16, line[b][q]), acc[b][i]);
        }
    }
}

INLINE void lines_tile(int32_t m, const struct lin_job *j, const float *x, struct cols *c, float *sums) {
    line_turned line[2][LINE_GROUPS];
    vf acc[LINE_GROUPS][DIRECT_ROWS];
    int32_t n = j->k / LINE_K, per = n / j->k_slices;
    size_t level = (size_t)m * DIRECT_COLS;
    for (int32_t b = 0; b < LINE_GROUPS; b++) turn_line(c->row + b * L, 0, line[0][b]);
    for (int32_t s = 0, l = 0, top = 0; s < j->k_slices; s++) {
        UNROLL
        for (int32_t b = 0; b < LINE_GROUPS; b++) {
            UNROLL
            for (int32_t i = 0; i < m; i++) acc[b][i] = v_set(0);
        }
        for (int32_t end = l + per; l < end; l++, x += LINE_K) {
            int64_t next = (int64_t)(l + 1 < n ? l + 1 : l) * 64;
            line_mac(m, acc, (const line_turned *)line[l % 2], x, j->ldx, c->row, next, line[(l + 1) % 2], c->ahead);
            c->ahead += DIRECT_COLS * 64 * c->ahead_on;
        }
        UNROLL
        for (int32_t b = 0; b < LINE_GROUPS; b++) {
            UNROLL
            for (int32_t i = 0; i < m; i++) v_store(sums + (size_t)top * level + i * DIRECT_COLS + b * L, acc[b][i]);
        }
        top = fold(sums, level, top, s);
    }
}

INLINE bool lines_take(const struct lin_job *j, enum kind kind) { return kind == KIND_BF16 && j->k / j->k_slices % LINE_K == 0; }

static void lines(const struct lin_job *j, int32_t m, const float *x, struct cols *c, float *sums) {
    switch (m) {
    case 1: lines_tile(1, j, x, c, sums); break;
    case 2: lines_tile(2, j, x, c, sums); break;
    case 3: lines_tile(3, j, x, c, sums); break;
    default: lines_tile(4, j, x, c, sums); break;
    }
}
#endif

static void direct(const struct lin_job *j, const struct lin_piece *p, enum kind kind, float *acc) {
    int32_t m = p->row1 - p->row0;
    size_t level = (size_t)m * DIRECT_COLS;
    for (int32_t n = p->n0; n < p->n1; n += DIRECT_COLS) {
        struct cols c;
        cols_set(&c, &j->w[p->view], n, p->n1, DIRECT_COLS);
#if LINES
        if (lines_take(j, kind)) {
            lines(j, m, j->x + (size_t)p->row0 * j->ldx, &c, acc);
            finish(j, p, acc, DIRECT_COLS, n - p->n0, p->n1 - n < DIRECT_COLS ? p->n1 - n : DIRECT_COLS);
            continue;
        }
#endif
        for (int32_t s = 0, top = 0; s < j->k_slices; s++) {
            struct slice slice = slice_at(j, kind, p->row0, s);
            direct_any(kind, m, &c, &slice, acc + (size_t)top * level, &c.ahead);
            top = fold(acc, level, top, s);
        }
        finish(j, p, acc, DIRECT_COLS, n - p->n0, p->n1 - n < DIRECT_COLS ? p->n1 - n : DIRECT_COLS);
    }
}

/* panel[step][W]: the weights of W rows, k .. k + n_k - 1 (room for whole turns). */
INLINE void pack(enum kind kind, uint32_t *panel, const char *const *row, int32_t k, int32_t n_k) {
    int32_t tk = turn_k(kind), size = kind == KIND_F32 ? 4 : 2;
    for (int32_t b = 0; b < NR; b++) { /* outside: rows that are a power of two apart compete for one place of the first-level cache */
        for (int32_t i = 0; i < n_k; i += tk) {
            vu o[L];
            if (n_k - i >= tk)
                turn(row + b * L, (int64_t)(k + i) * size, o);
            else
                turn_tail(row + b * L, (int64_t)(k + i) * size, (size_t)((n_k - i) * size), o);
            uint32_t *to = panel + (size_t)(kind == KIND_DOT ? i / 2 : i) * W + b * L;
            UNROLL
            for (int32_t q = 0; q < L; q++) {
                if (kind == KIND_DOT || kind == KIND_F32) {
                    *(vuu *)(to + q * W) = o[q];
                } else {
                    *(vfu *)(void *)(to + 2 * q * W) = pair_lo(kind, o[q]);
                    *(vfu *)(void *)(to + (2 * q + 1) * W) = pair_hi(kind, o[q]);
                }
            }
        }
    }
}

static void pack_any(enum kind kind, uint32_t *panel, const char *const *row, int32_t k, int32_t n_k) {
    if (kind == KIND_F32)
        pack(KIND_F32, panel, row, k, n_k);
    else if (kind == KIND_F16)
        pack(KIND_F16, panel, row, k, n_k);
    else if (kind == KIND_BF16)
        pack(KIND_BF16, panel, row, k, n_k);
    else
        pack(DOT ? KIND_DOT : KIND_BF16, panel, row, k, n_k);
}

/* The register tile: acc[m][W] (+)= x[m][steps] . panel[steps][W]; a step of x is a float, or a pair of bf16. */
struct tile_args {
    const uint32_t *panel;
    const void *x;
    size_t ldx; /* in steps */
    int32_t steps;
    float *acc;
    size_t lda;
    bool zero;
    const char *const *ahead; /* W rows of which lines from ahead_at (bytes) on are prefetched on the way, ahead_lines of each */
    int64_t ahead_at;
    int32_t ahead_lines;
    float *below; /* add the sums to these, and leave acc; NULL: do not */
    const float *y; /* where the sums will go in the end, prefetched too; NULL: not yet */
    size_t ldy;
};

INLINE void tile(bool dot, int32_t m, const struct tile_args *a) {
    vf acc[MR][NR];
    UNROLL
    for (int32_t i = 0; i < m; i++) {
        UNROLL
        for (int32_t b = 0; b < NR; b++) acc[i][b] = a->zero ? v_set(0) : v_load(a->acc + (size_t)i * a->lda + b * L);
    }
    const uint32_t *w = a->panel, *x = a->x;
    for (int32_t k = 0; k < a->steps; k++, w += W, x++) {
        vu c[NR];
        UNROLL
        for (int32_t b = 0; b < NR; b++) c[b] = *(const vuu *)(w + b * L);
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            vu s = v_setu(x[(size_t)i * a->ldx]);
            UNROLL
            for (int32_t b = 0; b < NR; b++) {
                if (dot)
                    acc[i][b] = V_DOT(acc[i][b], c[b], s);
                else
                    acc[i][b] = V_FMA((vf)s, (vf)c[b], acc[i][b]);
            }
        }
    }
    UNROLL
    for (int32_t i = 0; i < m; i++) {
        UNROLL
        for (int32_t b = 0; b < NR; b++) {
            size_t at = (size_t)i * a->lda + (size_t)(b * L);
            if (a->below)
                v_store(a->below + at, v_load(a->below + at) + acc[i][b]);
            else
                v_store(a->acc + at, acc[i][b]);
        }
    }
}

#define TILE_CASES(dot)                                                                                                \
    switch (m) {                                                                                                       \
    case 1: tile(dot, 1, a); break;                                                                                    \
    case 2: tile(dot, 2, a); break;                                                                                    \
    case 3: tile(dot, 3, a); break;                                                                                    \
    case 4: tile(dot, 4, a); break;                                                                                    \
    case 5: tile(dot, 5, a); break;                                                                                    \
    default: tile(dot, 6, a); break;                                                                                   \
    }

static void tile_any(bool dot, int32_t m, const struct tile_args *a) {
    if (dot) {
        TILE_CASES(DOT)
    } else {
        TILE_CASES(0)
    }
}

/* All `rows` rows against one panel. */
static void tiles(bool dot, int32_t rows, struct tile_args a) {
    int32_t lines = W * a.ahead_lines, n = (rows + MR - 1) / MR, l = 0;
    for (int32_t i = 0, t = 1; i < rows; i += MR, t++) {
        for (int32_t end = lines * t / n; l < end; l++)
            __builtin_prefetch(a.ahead[l / a.ahead_lines] + a.ahead_at + l % a.ahead_lines * 64, 0, 2);
        for (int32_t r = i; a.y && r < i + MR && r < rows; r++)
            for (int32_t b = 0; b < W; b += 16) __builtin_prefetch(a.y + (size_t)r * a.ldy + b, 1, 2);
        tile_any(dot, rows - i < MR ? rows - i : MR, &a);
        a.x = (const uint32_t *)a.x + MR * a.ldx;
        a.acc += MR * a.lda;
        if (a.below) a.below += MR * a.lda;
    }
}

/* What `packed` reads of x, from number k of the slice on, n_k numbers a row: a block of j->xb, or x as it lies. */
INLINE void packed_x(const struct lin_job *j, const struct lin_piece *p, enum kind kind, const struct slice *s, int32_t k, int32_t n_k,
                     struct tile_args *a) {
    a->x = x_at(kind, s, k);
    a->ldx = kind == KIND_DOT ? s->ldx / 2 : s->ldx;
    if (!j->xb) return;
    a->ldx = (size_t)n_k;
    a->x = j->xb + (size_t)(s->k0 + k) * (size_t)j->rows + (size_t)p->row0 * a->ldx;
}

enum { PACKED_COLS = STRIP > W ? STRIP : W, PACKED_PANELS = PACKED_COLS / W };

/* Steps of a block of a slice of n. */
static int32_t lin_block(int32_t n) { return n <= PANEL_WHOLE ? n : PANEL_STEPS; }

/* All panels of a piece work through a block of k before the next: that of x comes from afar once. The panel that comes next is
 * prefetched; after the last one, the first of the columns behind this piece. */
static void packed(const struct lin_job *j, const struct lin_piece *p, enum kind kind, uint32_t *panel, float *acc) {
    const struct view *w = &j->w[p->view];
    int32_t rows = p->row1 - p->row0, size = kind == KIND_F32 ? 4 : 2;
    int32_t panels = (p->n1 - p->n0 + W - 1) / W, n_k;
    size_t level = (size_t)rows * W;
    struct cols c[PACKED_PANELS + 1];
    for (int32_t q = 0; q < panels; q++) cols_set(&c[q], w, p->n0 + q * W, p->n1, W);
    cols_set(&c[panels], w, p->n1 < w->n ? p->n1 : p->n0, w->n, W);
    for (int32_t s = 0, top = 0; s < j->k_slices; s++) {
        struct slice slice = slice_at(j, kind, p->row0, s);
        int32_t block = kind == KIND_DOT ? 2 * PANEL_STEPS : lin_block(slice.n_k);
        for (int32_t k = 0; k < slice.n_k; k += n_k) {
            n_k = slice.n_k - k < block ? slice.n_k - k : block;
            struct tile_args a = {.panel = panel, .steps = steps_of(kind, n_k), .lda = W, .zero = k == 0};
            bool whole = k + n_k == slice.n_k, last = whole && s == j->k_slices - 1;
            packed_x(j, p, kind, &slice, k, n_k, &a);
            for (int32_t q = 0; q < panels; q++) {
                bool next = q + 1 < panels, end = last && !next;
                pack_any(kind, panel, c[q].row, slice.k0 + k, n_k);
                a.acc = acc + (size_t)(q * LEVELS + top) * level;
                a.below = whole && s & 1 ? a.acc - level : NULL;
                a.y = last ? j->y + (size_t)p->row0 * j->ldy + (size_t)(p->col + q * W) : NULL;
                a.ldy = j->ldy;
                a.ahead = c[next ? q + 1 : end ? panels : 0].row;
                a.ahead_at = end ? 0 : (int64_t)(slice.k0 + k + (next ? 0 : n_k)) * size;
                a.ahead_lines = (n_k * size + 63) / 64;
                tiles(kind == KIND_DOT, rows, a);
            }
        }
        int32_t left = s & 1 ? s >> 1 : s, from = top - (s & 1); /* one fold is done by the tiles */
        for (int32_t q = 0; q < panels; q++) top = fold(acc + (size_t)(q * LEVELS) * level, level, from, left);
    }
    for (int32_t q = 0, n = 0; q < panels; q++, n += W)
        finish(j, p, acc + (size_t)(q * LEVELS) * level, W, n, p->n1 - p->n0 - n < W ? p->n1 - p->n0 - n : W);
}
