/* kern_lanes.h: the part of kern.h that multiplies many rows of x by weights; included by it alone.
 *
 * Here a lane is a row of x and a weight is broadcast: x is turned once for the whole product (lin_turn) instead of the weights
 * once for every chunk of rows, and the weights are read as they lie. An output is the same chain over k as in
 * kern_linear.h, since a product does not depend on the order of its factors. A register tile is LANES_COLS columns by up to LANES_VECS
 * vectors of rows; a last vector of which at most half is needed is computed at half its width where the instruction set can. */

enum {
    LANES_VECS = L == 16 ? 3 : 2,
    LANES_ROWS = LANES_VECS * L,
    LANES_MOST = 11, /* columns of the widest tile */
    LANES_SCRATCH = ((STRIP + LANES_MOST) + LEVELS * LANES_MOST) * LANES_ROWS * 4,
};

/* Enough chains to hide the latency of a multiply-add, few enough to stay in registers. Half a vector has time for more, unless
 * rows of weights lie so that their lines compete for one set of the first-level cache. */
INLINE int32_t lanes_cols(int32_t halves, size_t stride) {
    if (L == 16) return halves == 1 && stride % 4096 ? 11 : 8;
    return halves <= 2 ? 8 : 6;
}

/* xt[step][L]: up to L rows of x, dwords; missing ones repeat the first. */
static void lin_turn(uint32_t *xt, const void *x, size_t ldx, int32_t rows, int32_t steps) {
    const char *row[L];
    for (int32_t r = 0; r < L; r++) row[r] = (const char *)x + (r < rows ? (size_t)r * ldx * 4 : 0);
    for (int32_t i = 0; i < steps; i += L) {
        vu o[L];
        if (steps - i >= L) {
            turn(row, (int64_t)i * 4, o);
            UNROLL
            for (int32_t q = 0; q < L; q++) *(vuu *)(xt + (size_t)(i + q) * L) = o[q];
        } else {
            turn_tail(row, (int64_t)i * 4, (size_t)(steps - i) * 4, o);
            for (int32_t q = 0; q < steps - i; q++) *(vuu *)(xt + (size_t)(i + q) * L) = o[q];
        }
    }
}

struct lanes {
    const char *w;  /* the first column's numbers */
    size_t ldw;     /* bytes from one column to the next */
    const uint32_t *x;
    size_t ldx;     /* dwords from one vector of rows to the next */
    int32_t n_k;
    float *out;     /* [columns][vectors][L] */
    const char *ahead; /* prefetched: a line for each line of weights that is used */
    size_t ahead_on;
};

INLINE hf half_mac(bool dot, hf acc, hf a, vu w) {
#if HALVES
    return dot ? V_DOT_HALF(acc, a, V_LOW(w)) : V_FMA_HALF(a, V_LOW(w), acc);
#else
    return (void)dot, (void)a, (void)w, acc;
#endif
}

/* One step of k: its weight in all lanes times one row of each vector. */
INLINE void lanes_mac(bool dot, int32_t full, bool half, vf *acc, hf *rest, const uint32_t *x, size_t ldx, vu w) {
    UNROLL
    for (int32_t v = 0; v < full; v++) {
        vu a = *(const vuu *)(x + (size_t)v * ldx);
        acc[v] = dot ? V_DOT(acc[v], a, w) : V_FMA((vf)a, (vf)w, acc[v]);
        if (L < 16) V_HIDE(acc[v]); /* in this order: of 16 registers none is left to load ahead into */
    }
    if (half) *rest = half_mac(dot, *rest, *(const hfu *)(const void *)(x + (size_t)full * ldx), w);
}

/* One dword of every column's weights, or half of the last: a step of k. */
INLINE void lanes_step(bool dot, int32_t cols, int32_t full, bool half, vf (*acc)[LANES_VECS], hf *rest, const struct lanes *a,
                       const char *w, const uint32_t *x, size_t bytes) {
    UNROLL
    for (int32_t i = 0; i < cols; i++) {
        uint32_t d = 0;
        memcpy(&d, w + (size_t)i * a->ldw, bytes);
        lanes_mac(dot, full, half, acc[i], rest + i, x, a->ldx, v_setu(d));
    }
}

INLINE void lanes_dwords(bool dot, int32_t cols, int32_t full, bool half, vf (*acc)[LANES_VECS], hf *rest, const struct lanes *a) {
    enum { LINE = 16 };
    int32_t dwords = dot ? a->n_k / 2 : a->n_k;
    const char *w = a->w, *ahead = a->ahead;
    const uint32_t *x = a->x;
    for (int32_t k = 0; k < dwords;) {
        int32_t end = k + LINE < dwords ? k + LINE : dwords;
        UNROLL
        for (int32_t i = 0; i < cols; i++) __builtin_prefetch(ahead + i * 64, 0, 2);
        ahead += (size_t)cols * 64 * a->ahead_on;
        for (; k < end; k++, w += 4, x += L) lanes_step(dot, cols, full, half, acc, rest, a, w, x, 4);
    }
    if (dot && a->n_k & 1) lanes_step(dot, cols, full, half, acc, rest, a, w, x, 2);
}

/* bf16 weights are widened by groups of L dwords of every column, to `to` [cols][GROUP]: the even numbers of the group, then the
 * odd ones. Two operations for 2 L weights where broadcast ones would need one each, in the multiply-adds' places. */
enum { GROUP = 2 * L };

INLINE void lanes_widen(const char *w, float *to) {
    vu d;
    memcpy(&d, w, sizeof d); /* bf16 is aligned to two bytes, and no vector type to so few */
    v_store(to, (vf)(d << 16));
    v_store(to + L, (vf)(d & v_setu(0xffff0000u)));
}

/* Number k of a group, widened. */
INLINE void lanes_wide(int32_t k, int32_t cols, int32_t full, bool half, vf (*acc)[LANES_VECS], hf *rest, size_t ldx,
                       const float *wide, const float *x) {
    vf a[LANES_VECS];
    UNROLL
    for (int32_t v = 0; v < full; v++) a[v] = v_load(x + (size_t)v * ldx);
    UNROLL
    for (int32_t i = 0; i < cols; i++) {
        vf w = v_set(wide[i * GROUP + k % 2 * L + k / 2]);
        UNROLL
        for (int32_t v = 0; v < full; v++) {
            acc[i][v] = V_FMA(a[v], w, acc[i][v]);
            if (L < 16) V_HIDE(acc[i][v]); /* in this order: of 16 registers none is left to load ahead into */
        }
        if (half) rest[i] = half_mac(false, rest[i], *(const hfu *)(const void *)(x + (size_t)full * ldx), (vu)w);
    }
}

/* The next group is widened while one is multiplied: its stores are done when they are loaded. */
INLINE void lanes_groups(int32_t cols, int32_t full, bool half, vf (*acc)[LANES_VECS], hf *rest, const struct lanes *a) {
    _Alignas(64) float wide[2][LANES_MOST * GROUP];
    int32_t groups = a->n_k / GROUP, left = a->n_k % GROUP;
    const char *w = a->w, *ahead = a->ahead;
    const float *x = (const float *)(const void *)a->x;
    for (int32_t i = 0; groups && i < cols; i++) lanes_widen(w + (size_t)i * a->ldw, wide[0] + i * GROUP);
    for (int32_t g = 0; g < groups; g++, x += GROUP * L) {
        w += g + 1 < groups ? GROUP * 2 : 0;
        UNROLL
        for (int32_t b = 0; b < cols * GROUP * 2; b += 64) __builtin_prefetch(ahead + b, 0, 2);
        ahead += (size_t)(cols * GROUP * 2) * a->ahead_on;
        UNROLL
        for (int32_t i = 0; i < cols; i++)
            lanes_widen(w + (size_t)i * a->ldw, wide[(g + 1) % 2] + i * GROUP);
        for (int32_t k = 0; k < GROUP; k += 8) { /* more in one go is no faster, and takes compilers a minute */
            UNROLL
            for (int32_t i = 0; i < 8; i++) lanes_wide(i, cols, full, half, acc, rest, a->ldx, wide[g % 2] + k / 2, x + (k + i) * L);
        }
    }
    if (!left) return;
    w = a->w + (size_t)groups * GROUP * 2;
    for (int32_t i = 0; i < cols; i++) {
        vu d = {0};
        memcpy(&d, w + (size_t)i * a->ldw, (size_t)left * 2);
        lanes_widen((const char *)&d, wide[0] + i * GROUP);
    }
    for (int32_t k = 0; k < left; k++, x += L) lanes_wide(k, cols, full, half, acc, rest, a->ldx, wide[0], x);
}

INLINE void lanes_tile(enum kind kind, int32_t cols, int32_t full, bool half, const struct lanes *a) {
    vf acc[LANES_MOST][LANES_VECS];
    hf rest[LANES_MOST];
    UNROLL
    for (int32_t i = 0; i < cols; i++) {
        UNROLL
        for (int32_t v = 0; v < full; v++) acc[i][v] = v_set(0);
        rest[i] = (hf){0};
    }
    if (kind == KIND_BF16)
        lanes_groups(cols, full, half, acc, rest, a);
    else
        lanes_dwords(kind == KIND_DOT, cols, full, half, acc, rest, a);
    UNROLL
    for (int32_t i = 0; i < cols; i++) {
        float *out = a->out + (size_t)i * (size_t)(full + half) * L;
        UNROLL
        for (int32_t v = 0; v < full; v++) v_store(out + v * L, acc[i][v]);
        if (half) *(hfu *)(void *)(out + full * L) = rest[i];
    }
}

/* `halves` counts half vectors. */
#define PAIRS (DOT ? KIND_DOT : KIND_BF16)
#define LANES_CASE(kind, halves)                                                                                       \
    case halves: lanes_tile(kind, lanes_cols(halves, 4096), halves / 2, halves % 2, a); return;
#define LANES_NARROW(kind)                                                                                             \
    case 1:                                                                                                            \
        if (lanes_cols(1, a->ldw) == LANES_MOST)                                                                       \
            lanes_tile(kind, LANES_MOST, 0, true, a);                                                                  \
        else                                                                                                           \
            lanes_tile(kind, lanes_cols(1, 4096), 0, true, a);                                                         \
        return;

static void lanes_f32(int32_t halves, const struct lanes *a) {
    switch (halves) {
#if HALVES
        LANES_NARROW(KIND_F32) LANES_CASE(KIND_F32, 3) LANES_CASE(KIND_F32, 5)
#endif
        LANES_CASE(KIND_F32, 2) LANES_CASE(KIND_F32, 4)
#if L == 16
        LANES_CASE(KIND_F32, 6)
#endif
    }
}

static void lanes_bf16(int32_t halves, const struct lanes *a) {
    switch (halves) {
#if HALVES
        LANES_NARROW(PAIRS) LANES_CASE(PAIRS, 3) LANES_CASE(PAIRS, 5)
#endif
        LANES_CASE(PAIRS, 2) LANES_CASE(PAIRS, 4)
#if L == 16
        LANES_CASE(PAIRS, 6)
#endif
    }
}

/* Turned back: out[column][vector][L] to rows of y, with the bias. */
static void lanes_finish(const struct lin_job *j, const struct lin_piece *p, const float *out, int32_t vecs, int32_t row0, int32_t rows) {
    const float *bias = j->bias[p->view] ? j->bias[p->view] + p->n0 : NULL;
    for (int32_t r0 = 0; r0 < rows; r0 += L) {
        for (int32_t c = 0; c < p->n1 - p->n0; c += L) {
            const char *from[L];
            vu o[L];
            int32_t n = p->n1 - p->n0 - c;
            UNROLL
            for (int32_t i = 0; i < L; i++) from[i] = (const char *)(out + (size_t)(i < n ? c + i : c) * (size_t)(vecs * L) + r0);
            turn(from, 0, o);
            float *y = j->y + (size_t)(row0 + r0) * j->ldy + (size_t)(p->col + c);
            if (n >= L && rows - r0 >= L) {
                UNROLL
                for (int32_t i = 0; i < L; i++) v_store(y + (size_t)i * j->ldy, bias ? (vf)o[i] + v_load(bias + c) : (vf)o[i]);
                continue;
            }
            for (int32_t i = 0; i < L && r0 + i < rows; i++, y += j->ldy)
                v_store_n(y, bias ? (vf)o[i] + v_load_n(bias + c, n) : (vf)o[i], n);
        }
    }
}

/* What lanes_finish will write, fetched while the products are made. */
static void outputs_ahead(const struct lin_job *j, const struct lin_piece *p, int32_t row0, int32_t rows) {
    const float *y = j->y + (size_t)row0 * j->ldy + (size_t)p->col;
    for (int32_t r = 0; r < rows; r++, y += j->ldy)
        for (int32_t c = 0; c < p->n1 - p->n0; c += 16) __builtin_prefetch(y + c, 1, 2);
}

/* Rows row0 .. row0 + rows - 1 of a piece, LANES_ROWS at most. */
static void lanes_rows(const struct lin_job *j, const struct lin_piece *p, enum kind kind, float *scratch, int32_t row0, int32_t rows) {
    const struct view *w = &j->w[p->view];
    size_t size = dtype_size(w->dtype), stride = (size_t)w->ld * size;
    int32_t vecs = (rows + L - 1) / L, halves = 2 * vecs - (HALVES && (rows - 1) % L < L / 2), cols = lanes_cols(halves, stride);
    size_t level = (size_t)(cols * vecs * L);
    int32_t n_k = j->k / j->k_slices, per = kind == KIND_DOT ? (n_k + 1) / 2 : n_k; /* steps of a slice */
    float *acc = scratch, *out = scratch + LEVELS * level;
    struct lanes a = {.ldw = stride, .ldx = (size_t)per * (size_t)(j->k_slices * L), .n_k = n_k};
    const uint32_t *x = j->xt + (size_t)(row0 / L) * a.ldx;
    a.ahead_on = w->ld == w->k && row0 == p->row0;
    outputs_ahead(j, p, row0, rows);
    for (int32_t n = p->n0; n < p->n1; n += cols) {
        int32_t from = n + cols <= p->n1 ? n : p->n1 - cols; /* the last tile computes some columns again */
        const char *col = (const char *)w->data + (size_t)from * stride;
        if (n == p->n0 || !a.ahead_on) a.ahead = a.ahead_on ? col + (size_t)cols * stride : col;
        for (int32_t s = 0, top = 0; s < j->k_slices; s++) {
            a.w = col + (size_t)s * (size_t)n_k * size;
            a.x = x + (size_t)s * (size_t)per * L;
            a.out = j->k_slices > 1 ? acc + (size_t)top * level : out + (size_t)(from - p->n0) * (size_t)(vecs * L);
            if (kind == KIND_F32)
                lanes_f32(halves, &a);
            else
                lanes_bf16(halves, &a);
            a.ahead += (size_t)cols * (size_t)n_k * size * a.ahead_on;
            if (j->k_slices > 1) top = fold(acc, level, top, s);
        }
        if (j->k_slices > 1) memcpy(out + (size_t)(from - p->n0) * (size_t)(vecs * L), acc, level * 4);
    }
    lanes_finish(j, p, out, vecs, row0, rows);
}

/* Is this piece done here? A view narrower than a tile is left to `packed`. */
INLINE bool lanes_take(const struct lin_job *j, const struct lin_piece *p, enum kind kind) {
    return j->xt && kind != KIND_F16 && p->n1 - p->n0 >= LANES_MOST;
}

static void lanes(const struct lin_job *j, const struct lin_piece *p, enum kind kind, float *scratch) {
    for (int32_t r = p->row0; r < p->row1; r += LANES_ROWS)
        lanes_rows(j, p, kind, scratch, r, p->row1 - r < LANES_ROWS ? p->row1 - r : LANES_ROWS);
}
