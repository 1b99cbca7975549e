/* kern.h: the fast kernels, written once in vectors of L floats and compiled once an instruction set.
 *
 * A file that includes this defines
 *   ISA_NAME, ISA_TABLE   the table's name and symbol
 *   L, NR, MR             lanes of a vector; a register tile is MR rows by NR vectors
 *   DOT                   1: bf16 weights go through V_DOT(acc, pairs, pairs), a dot product of bf16 pairs
 *   V_FMA(a, b, c)        a * b + c, V_MAX(a, b)  a > b ? a : b, V_ANY(m)  is a lane of the mask set
 *   turn(row, at, o)      L rows of L dwords from offset `at`, transposed: o[i] lane r = dword i of row r
 *   v_f16_lo, v_f16_hi    the low and high halves of each dword, f16 to f32; v_f16_load, v_f16_store: L numbers
 *
 * The order of every sum is written down here and is the same on each route: a LINEAR output is one chain over k from 0 (lane =
 * output column; weights are turned L rows by L dwords at a time, in registers), whether a few rows take the weights straight
 * from memory (`direct`) or many rows share a packed panel (`packed`). Attention is the same two products on blocks of 64 positions. */
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"
#include "dev/cpu/sample.h"

#include <math.h>
#include <string.h>

typedef float vfu __attribute__((vector_size(L * 4), aligned(4), may_alias));
typedef uint32_t vuu __attribute__((vector_size(L * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(L * 2)));
typedef uint16_t vhu __attribute__((vector_size(L * 2), aligned(2), may_alias));

enum {
    W = NR * L,           /* columns of a panel */
    STRIP = 64,           /* columns of a piece */
    AHEAD_MAX = DOT ? 128 : 64, /* bytes that a step of a register tile prefetches: half of the weights' bytes, in whole lines */
    PANEL_BYTES = 16384,  /* half of a small first-level cache */
    DIRECT_COLS = L == 4 ? 8 : 32, /* rows of weights that `direct` reads side by side */
    DIRECT_ROWS = 4, /* `direct` takes so many rows of x; above, packing pays */
    LEVELS = 4,           /* partial sums of the tree of 8 slices that are alive at once */
};

/* How a weight's dwords are used: a k each, or a pair of k; pairs are multiplied one by one or as a dot product. */
enum kind { KIND_F32, KIND_BF16, KIND_F16, KIND_DOT };

INLINE enum kind kind_of(enum dtype t) {
    return t == DT_F32 ? KIND_F32 : t == DT_F16 ? KIND_F16 : DOT ? KIND_DOT : KIND_BF16;
}
INLINE int32_t turn_k(enum kind kind) { return kind == KIND_F32 ? L : 2 * L; } /* k in L dwords */
INLINE int32_t steps_of(enum kind kind, int32_t k) { return kind == KIND_DOT ? (k + 1) / 2 : k; } /* of a chain */

/* ---- vectors ---- */

INLINE vf v_set(float a) { return a - (vf){0}; }
INLINE vu v_setu(uint32_t a) { return a + (vu){0}; }
INLINE vf v_load(const float *p) { return *(const vfu *)p; }
INLINE void v_store(float *p, vf a) { *(vfu *)p = a; }
INLINE vf v_load_n(const float *p, int32_t n) {
    if (n >= L) return v_load(p);
    vf a = {0};
    memcpy(&a, p, (size_t)n * 4);
    return a;
}
INLINE void v_store_n(float *p, vf a, int32_t n) {
    if (n >= L)
        v_store(p, a);
    else
        memcpy(p, &a, (size_t)n * 4);
}
INLINE vf v_sel(vi m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }

INLINE vu v_iota(void) {
    vu a;
    for (int i = 0; i < L; i++) a[i] = (uint32_t)i;
    return a;
}

/* Sum of the lanes, halves onto halves. */
INLINE float v_sum(vf a) {
    float x[L];
    memcpy(x, &a, sizeof x);
    for (int n = L / 2; n; n /= 2)
        for (int i = 0; i < n; i++) x[i] += x[i + n];
    return x[0];
}
INLINE float v_top(vf a) {
    float x[L];
    memcpy(x, &a, sizeof x);
    for (int n = L / 2; n; n /= 2)
        for (int i = 0; i < n; i++) x[i] = x[i] > x[i + n] ? x[i] : x[i + n];
    return x[0];
}

/* exp, to 2 ulp: 2^n times a polynomial on [-ln2/2, ln2/2] (coefficients: Cephes). 0 below -87.3, NaN stays. */
INLINE vf v_exp(vf x) {
    vi zero = x < v_set(-87.33f);
    x = v_sel(x > v_set(88.37f), v_set(88.37f), x);
    vf t = V_FMA(x, v_set(1.44269504f), v_set(12582912.0f)); /* the integer lands in the low bits */
    vf n = t - v_set(12582912.0f);
    vf r = V_FMA(n, v_set(-0.693359375f), x);
    r = V_FMA(n, v_set(2.12194440e-4f), r);
    vf p = v_set(1.9875691500e-4f);
    p = V_FMA(p, r, v_set(1.3981999507e-3f));
    p = V_FMA(p, r, v_set(8.3334519073e-3f));
    p = V_FMA(p, r, v_set(4.1665795894e-2f));
    p = V_FMA(p, r, v_set(1.6666665459e-1f));
    p = V_FMA(p, r, v_set(5.0000001201e-1f));
    p = V_FMA(p, r * r, r) + v_set(1.0f);
    vf scale = (vf)(((vu)t + v_setu(127u - 0x4b400000u)) << 23);
    return v_sel(zero, v_set(0), p * scale);
}

/* To bf16, nearest even. */
INLINE vh v_to_bf16(vf a) {
    vu u = (vu)a, r = (u + v_setu(0x7fff) + ((u >> 16) & 1)) >> 16, nan = (u >> 16) | 0x40;
    vu is_nan = (vu)(a != a);
    return __builtin_convertvector((r & ~is_nan) | (nan & is_nan), vh);
}

INLINE vf v_load_any(const void *p, enum dtype t) {
    if (t == DT_F32) return v_load(p);
    if (t == DT_F16) return v_f16_load(p);
    return (vf)(__builtin_convertvector(*(const vhu *)p, vu) << 16);
}

/* ---- small operators ---- */

static void load(float *out, const void *in, enum dtype t, int32_t n) {
    int32_t i = 0;
    for (; i + L <= n; i += L) v_store(out + i, v_load_any(elem_at(in, t, i), t));
    for (; i < n; i++) out[i] = load_any(in, t, (size_t)i);
}

static void store(void *out, const float *in, enum dtype t, int32_t n) {
    int32_t i = 0;
    for (; t == DT_BF16 && i + L <= n; i += L) *(vhu *)((uint16_t *)out + i) = v_to_bf16(v_load(in + i));
    for (; t == DT_F16 && i + L <= n; i += L) v_f16_store((uint16_t *)out + i, v_load(in + i));
    for (; i < n; i++) store_any(out, t, (size_t)i, in[i]);
}

static void axpy(float *y, float a, const float *x, int32_t n) {
    for (int32_t i = 0; i < n; i += L)
        v_store_n(y + i, V_FMA(v_set(a), v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

static void norm(float *out, float *in, const float *add, const float *w, float eps, int32_t n) {
    vf sum = v_set(0);
    for (int32_t i = 0; i < n; i += L) {
        vf x = v_load_n(in + i, n - i);
        if (add) {
            x = x + v_load_n(add + i, n - i);
            v_store_n(in + i, x, n - i);
        }
        sum = V_FMA(x, x, sum);
    }
    vf r = v_set(1.0f / sqrtf(v_sum(sum) / (float)n + eps));
    for (int32_t i = 0; i < n; i += L)
        v_store_n(out + i, v_load_n(in + i, n - i) * r * v_load_n(w + i, n - i), n - i);
}

static void rope(float *head, const float *w, float eps, const float *cos, const float *sin, int32_t d) {
    if (w) norm(head, head, NULL, w, eps, d);
    int32_t half = d / 2;
    for (int32_t i = 0; i < half; i += L) {
        int32_t n = half - i;
        vf a = v_load_n(head + i, n), b = v_load_n(head + half + i, n), c = v_load_n(cos + i, n), s = v_load_n(sin + i, n);
        v_store_n(head + i, a * c - b * s, n);
        v_store_n(head + half + i, b * c + a * s, n);
    }
}

static void silu_mul(float *out, const float *gate, const float *up, int32_t n) {
    for (int32_t i = 0; i < n; i += L) {
        vf g = v_load_n(gate + i, n - i), u = v_load_n(up + i, n - i);
        v_store_n(out + i, g / (v_set(1) + v_exp(-g)) * u, n - i);
    }
}

/* ---- logits ---- */

static bool scan(const float *x, int32_t n, float *max) {
    vf top = v_set(x[0]);
    vi bad = {0};
    int32_t i = 0;
    for (; i + L <= n; i += L) {
        vf a = v_load(x + i);
        bad |= a - a != v_set(0);
        top = V_MAX(a, top);
    }
    bool finite = !V_ANY(bad);
    float m = v_top(top);
    for (; i < n; i++) {
        if (x[i] - x[i] != 0) finite = false;
        if (x[i] > m) m = x[i];
    }
    *max = m;
    return finite;
}

/* Float32 sums of 1,024 at a time, those in double. */
static double sum_exp(const float *x, int32_t n, float max) {
    double all = 0;
    for (int32_t i = 0; i < n; i += 1024) {
        int32_t end = i + 1024 < n ? i + 1024 : n, k = i;
        vf sum = v_set(0);
        for (; k + L <= end; k += L) sum += v_exp(v_load(x + k) - v_set(max));
        if (k < end) {
            vf e = v_exp(v_load_n(x + k, end - k) - v_set(max));
            for (int32_t l = end - k; l < L; l++) e[l] = 0;
            sum += e;
        }
        all += (double)v_sum(sum);
    }
    return all;
}

static void exp_scaled(float *out, const float *x, int32_t n, float max, float scale) {
    for (int32_t i = 0; i < n; i += L)
        v_store_n(out + i, v_exp((v_load_n(x + i, n - i) - v_set(max)) * v_set(scale)), n - i);
}

static int32_t pick(int32_t *out, const float *x, int32_t n, float max, float scale, float floor) {
    int32_t count = 0, i = 0;
    for (; i + L <= n; i += L) {
        vi in = (v_load(x + i) - v_set(max)) * v_set(scale) >= v_set(floor);
        if (!V_ANY(in)) continue;
        for (int32_t l = 0; l < L; l++) {
            out[count] = i + l;
            count -= in[l];
        }
    }
    for (; i < n; i++)
        if ((x[i] - max) * scale >= floor) out[count++] = i;
    return count;
}

INLINE vu v_gumbel_bits(uint64_t key, vu id) {
    vu x = id + v_setu((uint32_t)key);
    x = (x ^ x >> 16) * v_setu(0x7feb352du);
    x = (x ^ x >> 15) * v_setu(0x846ca68bu);
    x ^= x >> 16 ^ v_setu((uint32_t)(key >> 32));
    x = (x ^ x >> 16) * v_setu(0x21f0aaadu);
    x = (x ^ x >> 15) * v_setu(0xd35a2d97u);
    return x ^ x >> 15;
}

static int32_t gumbel_next(const float *x, int32_t n, int32_t from, float max, float scale, uint64_t key, float best) {
    int32_t i = from;
    for (; i + L <= n; i += L) {
        vf q = __builtin_convertvector((vi)(~v_gumbel_bits(key, v_iota() + v_setu((uint32_t)i)) >> 1), vf);
        vf bits = __builtin_convertvector((vi)q, vf);
        vf bound = (v_set(158.0f) - bits * v_set(0x1p-23f)) * v_set(0.69314718f) + v_set(2e-3f);
        vi may = (v_load(x + i) - v_set(max)) * v_set(scale) + bound >= v_set(best);
        if (!V_ANY(may)) continue;
        for (int32_t l = 0; l < L; l++)
            if (may[l]) return i + l;
    }
    while (i < n && (x[i] - max) * scale + gumbel_bound(gumbel_bits(key, (uint32_t)i)) < best) i++;
    return i;
}

/* ---- LINEAR ---- */

/* Up to W or DIRECT_COLS rows of a weight, as columns of the product; those past the last repeat it and are not stored. */
struct cols {
    const char *row[W > DIRECT_COLS ? W : DIRECT_COLS];
    const char *ahead; /* where the memory that comes next starts, for prefetching */
};

INLINE void cols_set(struct cols *c, const struct view *w, int32_t n, int32_t end, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        c->row[i] = elem_at(w->data, w->dtype, (int64_t)(n + i < end ? n + i : end - 1) * w->ld);
    c->ahead = elem_at(w->data, w->dtype, (int64_t)(n + count) * w->ld);
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

/* acc[i] += L turned dwords times row i of x, k ascending: turn_k numbers, or n_k when fewer. x: float32, or bf16 pairs. */
INLINE void turn_mac(enum kind kind, vf *acc, int32_t m, const vu o[L], const void *x, size_t ldx, int32_t n_k) {
    const float *xf = x;
    UNROLL
    for (int32_t j = 0; j < L; j++) {
        if (kind == KIND_DOT) {
            if (2 * j >= n_k) break;
            UNROLL
            for (int32_t i = 0; i < m; i++) {
                uint32_t pair;
                memcpy(&pair, (const uint16_t *)x + (size_t)i * ldx + 2 * j, 4);
                acc[i] = V_DOT(acc[i], o[j], v_setu(pair));
            }
        } else if (kind == KIND_F32) {
            if (j >= n_k) break;
            UNROLL
            for (int32_t i = 0; i < m; i++) acc[i] = V_FMA(v_set(xf[(size_t)i * ldx + (size_t)j]), (vf)o[j], acc[i]);
        } else {
            if (2 * j >= n_k) break;
            vf lo = pair_lo(kind, o[j]), hi = pair_hi(kind, o[j]);
            UNROLL
            for (int32_t i = 0; i < m; i++) acc[i] = V_FMA(v_set(xf[(size_t)i * ldx + 2 * (size_t)j]), lo, acc[i]);
            if (2 * j + 1 >= n_k) break;
            UNROLL
            for (int32_t i = 0; i < m; i++) acc[i] = V_FMA(v_set(xf[(size_t)i * ldx + 2 * (size_t)j + 1]), hi, acc[i]);
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

/* m rows, DIRECT_COLS columns: out[m][DIRECT_COLS] = one slice. Every line of the weights is read once and whole: rows are often
 * a power of two apart, so their lines compete for the same few places of the first-level cache and do not stay there.
 * NOTE: the memory that follows is prefetched in its own order, one line for each line used. */
INLINE void direct_slice(enum kind kind, int32_t m, const struct cols *c, const struct slice *s, float *out, const char **ahead) {
    enum { B = DIRECT_COLS / L, LINE = 64 / (L * 4) };
    vf acc[B][DIRECT_ROWS];
    UNROLL
    for (int32_t b = 0; b < B; b++) {
        UNROLL
        for (int32_t i = 0; i < m; i++) acc[b][i] = v_set(0);
    }
    int32_t k = 0, size = kind == KIND_F32 ? 4 : 2, tk = turn_k(kind);
    const char *pf = *ahead;
    for (; k + LINE * tk <= s->n_k; k += LINE * tk) {
        UNROLL
        for (int32_t b = 0; b < B; b++) {
            UNROLL
            for (int32_t l = 0; l < LINE; l++) {
                vu o[L];
                turn(c->row + b * L, (int64_t)(s->k0 + k + l * tk) * size, o);
                turn_mac(kind, acc[b], m, o, x_at(kind, s, k + l * tk), s->ldx, tk);
            }
            UNROLL
            for (int32_t l = 0; l < L; l++) __builtin_prefetch(pf + l * 64, 0, 2);
            pf += L * 64;
        }
    }
    *ahead = pf;
    for (; k < s->n_k; k += tk) {
        int32_t n_k = s->n_k - k < tk ? s->n_k - k : tk;
        for (int32_t b = 0; b < B; b++) {
            vu o[L];
            turn_tail(c->row + b * L, (int64_t)(s->k0 + k) * size, (size_t)(n_k * size), o);
            turn_mac(kind, acc[b], m, o, x_at(kind, s, k), s->ldx, n_k);
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

static void direct(const struct lin_job *j, const struct lin_piece *p, enum kind kind, float *acc) {
    int32_t m = p->row1 - p->row0;
    size_t level = (size_t)m * DIRECT_COLS;
    for (int32_t n = p->n0; n < p->n1; n += DIRECT_COLS) {
        struct cols c;
        cols_set(&c, &j->w[p->view], n, p->n1, DIRECT_COLS);
        for (int32_t s = 0, top = 0; s < j->k_slices; s++) {
            struct slice slice = slice_at(j, kind, p->row0, s);
            direct_any(kind, m, &c, &slice, acc + (size_t)top * level, &c.ahead);
            top = fold(acc, level, top, s);
        }
        finish(j, p, acc, DIRECT_COLS, n - p->n0, p->n1 - n < DIRECT_COLS ? p->n1 - n : DIRECT_COLS);
    }
}

/* panel[step][W]: the weights of W rows, k .. k + n_k - 1 (room for whole turns). */
INLINE void pack(enum kind kind, uint32_t *panel, const char *const *row, int32_t k, int32_t n_k, const char *ahead) {
    int32_t tk = turn_k(kind), size = kind == KIND_F32 ? 4 : 2;
    for (int32_t i = 0; i < n_k; i += tk) {
        UNROLL
        for (int32_t b = 0; b < NR; b++) {
            vu o[L];
            if (n_k - i >= tk)
                turn(row + b * L, (int64_t)(k + i) * size, o);
            else
                turn_tail(row + b * L, (int64_t)(k + i) * size, (size_t)((n_k - i) * size), o);
            UNROLL
            for (int32_t l = 0; l < L * L * 2; l += 64) __builtin_prefetch(ahead + l, 0, 2);
            ahead += L * L * 2; /* half of what a turn reads; the register tiles fetch the other half */
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

static void pack_any(enum kind kind, uint32_t *panel, const char *const *row, int32_t k, int32_t n_k, const char *ahead) {
    if (kind == KIND_F32)
        pack(KIND_F32, panel, row, k, n_k, ahead);
    else if (kind == KIND_F16)
        pack(KIND_F16, panel, row, k, n_k, ahead);
    else if (kind == KIND_BF16)
        pack(KIND_BF16, panel, row, k, n_k, ahead);
    else
        pack(DOT ? KIND_DOT : KIND_BF16, panel, row, k, n_k, ahead);
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
    const char *ahead; /* prefetched on the way: ahead_step bytes a step; NULL: nothing */
    size_t ahead_step;
};

INLINE void tile(bool dot, int32_t m, const struct tile_args *a) {
    vf acc[MR][NR];
    UNROLL
    for (int32_t i = 0; i < m; i++) {
        UNROLL
        for (int32_t b = 0; b < NR; b++) acc[i][b] = a->zero ? v_set(0) : v_load(a->acc + (size_t)i * a->lda + b * L);
    }
    const uint32_t *w = a->panel, *x = a->x;
    const char *ahead = a->ahead;
    for (int32_t k = 0; k < a->steps; k++, w += W, x++, ahead += a->ahead_step) {
        UNROLL
        for (size_t b = 0; b < AHEAD_MAX; b += 64) __builtin_prefetch(ahead + b, 0, 2);
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
        for (int32_t b = 0; b < NR; b++) v_store(a->acc + (size_t)i * a->lda + b * L, acc[i][b]);
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
    if (!a.ahead) a.ahead = (const char *)a.panel;
    for (int32_t i = 0; i < rows; i += MR) {
        tile_any(dot, rows - i < MR ? rows - i : MR, &a);
        a.x = (const uint32_t *)a.x + MR * a.ldx;
        a.acc += MR * a.lda;
        a.ahead = (const char *)a.panel; /* once is enough */
        a.ahead_step = 0;
    }
}

static void packed(const struct lin_job *j, const struct lin_piece *p, enum kind kind, uint32_t *panel, float *acc) {
    int32_t rows = p->row1 - p->row0;
    size_t level = (size_t)rows * W;
    int32_t block = PANEL_BYTES / (W * 4) * (kind == KIND_DOT ? 2 : 1), size = kind == KIND_F32 ? 4 : 2;
    for (int32_t n = p->n0; n < p->n1; n += W) {
        struct cols c;
        cols_set(&c, &j->w[p->view], n, p->n1, W);
        for (int32_t s = 0, top = 0; s < j->k_slices; s++) {
            struct slice slice = slice_at(j, kind, p->row0, s);
            for (int32_t k = 0; k < slice.n_k; k += block) {
                int32_t n_k = slice.n_k - k < block ? slice.n_k - k : block;
                size_t half = (size_t)(n_k * size * W) / 2;
                pack_any(kind, panel, c.row, slice.k0 + k, n_k, c.ahead);
                tiles(kind == KIND_DOT, rows,
                      (struct tile_args){.panel = panel,
                                         .x = (const uint32_t *)slice.x + (kind == KIND_DOT ? k / 2 : k),
                                         .ldx = kind == KIND_DOT ? slice.ldx / 2 : slice.ldx,
                                         .steps = steps_of(kind, n_k),
                                         .acc = acc + (size_t)top * level,
                                         .lda = W,
                                         .zero = k == 0,
                                         .ahead = c.ahead + half,
                                         .ahead_step = half / (size_t)steps_of(kind, n_k)});
                c.ahead += 2 * half;
            }
            top = fold(acc, level, top, s);
        }
        finish(j, p, acc, W, n - p->n0, p->n1 - n < W ? p->n1 - n : W);
    }
}

static size_t lin_scratch(int32_t chunk_rows, int32_t k_slices) {
    size_t width = W > DIRECT_COLS ? W : DIRECT_COLS;
    return PANEL_BYTES + (size_t)(chunk_rows > DIRECT_ROWS ? chunk_rows : DIRECT_ROWS) * width * (k_slices > 1 ? LEVELS : 1) * 4;
}

static void linear(const struct lin_job *j, int32_t piece, void *scratch) {
    struct lin_piece p = lin_piece_at(j, piece, STRIP);
    enum kind kind = kind_of(j->w[p.view].dtype);
    int32_t rows = p.row1 - p.row0;
    float *acc = (float *)(void *)((char *)scratch + PANEL_BYTES);
    if (rows <= DIRECT_ROWS)
        direct(j, &p, kind, acc);
    else
        packed(j, &p, kind, scratch, acc);
}

static void lin_round(uint16_t *xh, const float *x, int32_t k, int32_t k_slices) {
    int32_t n = k / k_slices;
    for (int32_t s = 0; s < k_slices; s++, x += n, xh += n + (n & 1)) {
        store(xh, x, DT_BF16, n);
        if (n & 1) xh[n] = 0;
    }
}

/* ---- attention ---- */

static const char zeros[HEAD_DIM_MAX * 4];

/* A piece's rows are (token, query head), tokens first; row r belongs to token r / n_q. */
struct att {
    const struct att_job *j;
    struct att_piece p;
    int32_t rows, d, dp; /* dp: D up to a multiple of W */
    uint32_t *k, *v;     /* panels of one block: [64 / W][D][W] and [dp / W][64][W] */
    float *q, *s, *acc;  /* [rows, D], [rows, 64], [rows, dp] */
    float *max, *sum;    /* [rows] */
};

static size_t att_scratch(int32_t rows, int32_t head_dim) {
    size_t d = ((size_t)head_dim + 31) & ~(size_t)31, dp = ((size_t)head_dim + W - 1) / W * W, r = (size_t)rows;
    return 4 * (ATT_BLOCK * (d + dp) + r * (d + ATT_BLOCK + dp + 2)) + 64;
}

static void att_init(struct att *a, const struct att_job *j, int32_t piece, void *scratch) {
    a->j = j;
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
    for (int32_t r = 0; r < a->rows; r++) {
        const float *q = j->q + (size_t)(a->p.seq->row + a->p.t0 + r / a->p.n_q) * j->ldq;
        memcpy(a->q + (size_t)r * (size_t)a->d, q + (size_t)(a->p.q_head + r % a->p.n_q) * (size_t)a->d, (size_t)a->d * 4);
        a->max[r] = -INFINITY;
        a->sum[r] = 0;
    }
    memset(a->acc, 0, rows * (size_t)a->dp * 4);
}

INLINE enum kind kv_kind(enum dtype t) { return t == DT_F32 ? KIND_F32 : t == DT_F16 ? KIND_F16 : KIND_BF16; }

/* K rows of positions first .. first + 63; from n_valid on they count as zero. The next block's lines are on their way. */
INLINE void att_rows(const struct att *a, int32_t first, int32_t n_valid, const char *row[ATT_BLOCK]) {
    const struct att_job *j = a->j;
    int32_t last = a->p.seq->pos + a->p.t1 - 1;
    for (int32_t i = 0; i < ATT_BLOCK; i++) row[i] = i < n_valid ? kv_row(j, a->p.seq, a->p.head, first + i) : zeros;
    for (int32_t i = 0; i < ATT_BLOCK && first + ATT_BLOCK + i <= last; i++) {
        const char *next = kv_row(j, a->p.seq, a->p.head, first + ATT_BLOCK + i);
        for (size_t b = 0; b < (size_t)a->d * dtype_size(j->dtype); b += 64) {
            __builtin_prefetch(next + b, 0, 2);
            __builtin_prefetch(next + j->v_at + b, 0, 2);
        }
    }
}

INLINE const char *v_row(const struct att *a, const char *k_row) { return k_row == zeros ? zeros : k_row + a->j->v_at; }

/* Many rows: K turned into panels, V as float32. */
static void att_pack(struct att *a, const char *const *row) {
    const struct att_job *j = a->j;
    for (int32_t i = 0; i < ATT_BLOCK; i += W)
        pack_any(kv_kind(j->dtype), a->k + (size_t)i * (size_t)a->d, row + i, 0, a->d, row[i]);
    for (int32_t i = 0; i < ATT_BLOCK; i++) {
        const char *v = v_row(a, row[i]);
        float *to = (float *)(void *)(a->v + (size_t)i * W);
        for (int32_t c = 0; c < a->d; c += W, to += ATT_BLOCK * W)
            load(to, elem_at(v, j->dtype, c), j->dtype, a->d - c < W ? a->d - c : W);
    }
}

static void att_scores(struct att *a, int32_t r0, int32_t rows) {
    for (int32_t i = 0; i < ATT_BLOCK; i += W)
        tiles(false, rows,
              (struct tile_args){.panel = a->k + (size_t)i * (size_t)a->d, .x = a->q + (size_t)r0 * (size_t)a->d, .ldx = (size_t)a->d,
                                 .steps = a->d, .acc = a->s + (size_t)r0 * ATT_BLOCK + i, .lda = ATT_BLOCK, .zero = true});
}

static void att_values(struct att *a, int32_t r0, int32_t rows) {
    for (int32_t c = 0; c < a->dp; c += W)
        tiles(false, rows,
              (struct tile_args){.panel = a->v + (size_t)c * ATT_BLOCK, .x = a->s + (size_t)r0 * ATT_BLOCK, .ldx = ATT_BLOCK,
                                 .steps = ATT_BLOCK, .acc = a->acc + (size_t)r0 * (size_t)a->dp + c, .lda = (size_t)a->dp});
}

/* Few rows (decode): K is turned in registers and V used as it lies; the same chains without the panels. */
static void att_scores_direct(struct att *a, const char *const *row) {
    float out[DIRECT_ROWS * DIRECT_COLS];
    const struct slice s = {a->q, (size_t)a->d, 0, a->d};
    for (int32_t i = 0; i < ATT_BLOCK; i += DIRECT_COLS) {
        struct cols c;
        memcpy(c.row, row + i, DIRECT_COLS * sizeof *row);
        const char *ahead = row[i]; /* att_rows prefetches */
        direct_any(kv_kind(a->j->dtype), a->rows, &c, &s, out, &ahead);
        for (int32_t r = 0; r < a->rows; r++)
            memcpy(a->s + r * ATT_BLOCK + i, out + r * DIRECT_COLS, DIRECT_COLS * sizeof *out);
    }
}

INLINE void att_values_m(struct att *a, int32_t m, enum dtype t, const char *const *row) {
    for (int32_t c = 0; c < a->dp; c += W) {
        vf acc[DIRECT_ROWS][NR];
        int32_t n = a->d - c;
        UNROLL
        for (int32_t i = 0; i < m; i++) {
            UNROLL
            for (int32_t b = 0; b < NR; b++) acc[i][b] = v_load(a->acc + (size_t)i * (size_t)a->dp + c + b * L);
        }
        for (int32_t k = 0; k < ATT_BLOCK; k++) {
            const char *v = elem_at(v_row(a, row[k]), t, c);
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
    case 1: att_values_m(a, 1, t, row); break;                                                                         \
    case 2: att_values_m(a, 2, t, row); break;                                                                         \
    case 3: att_values_m(a, 3, t, row); break;                                                                         \
    default: att_values_m(a, 4, t, row); break;                                                                        \
    }

static void att_values_direct(struct att *a, const char *const *row) {
    if (a->j->dtype == DT_BF16) {
        VALUES_CASES(DT_BF16)
    } else if (a->j->dtype == DT_F16) {
        VALUES_CASES(DT_F16)
    } else {
        VALUES_CASES(DT_F32)
    }
}

/* One row's scores of a block to probabilities; lo .. hi - 1 are the positions it sees. The old sums shrink to the new maximum. */
INLINE void att_softmax(struct att *a, int32_t r, int32_t lo, int32_t hi) {
    enum { N = ATT_BLOCK / L };
    float *s = a->s + (size_t)r * ATT_BLOCK;
    vf x[N], top = v_set(a->max[r]);
    for (int32_t i = 0; i < N; i++) {
        x[i] = v_load(s + i * L) * v_set(a->j->scale);
        if (lo > 0 || hi < ATT_BLOCK) {
            vi at = (vi)(v_iota() + v_setu((uint32_t)(i * L)));
            x[i] = v_sel((at >= (vi)v_setu((uint32_t)lo)) & (at < (vi)v_setu((uint32_t)hi)), x[i], v_set(-INFINITY));
        }
        top = V_MAX(x[i], top);
    }
    float max = v_top(top);
    vf sum = v_set(0);
    for (int32_t i = 0; i < N; i++) {
        vf e = v_exp(x[i] - v_set(max));
        v_store(s + i * L, e);
        sum += e;
    }
    vf shrink = v_exp(v_set(a->max[r] - max));
    a->sum[r] = a->sum[r] * shrink[0] + v_sum(sum);
    a->max[r] = max;
    float *acc = a->acc + (size_t)r * (size_t)a->dp;
    for (int32_t c = 0; c < a->dp; c += L) v_store(acc + c, v_load(acc + c) * shrink);
}

/* One block of positions for the rows that see some of it. */
static void att_block(struct att *a, int32_t first) {
    const struct att_job *j = a->j;
    int32_t p0 = a->p.seq->pos + a->p.t0, last = a->p.seq->pos + a->p.t1 - 1, window = j->window > 0 ? j->window : INT32_MAX;
    int32_t n_valid = last - first + 1 < ATT_BLOCK ? last - first + 1 : ATT_BLOCK;
    const char *row[ATT_BLOCK];
    att_rows(a, first, n_valid, row);
    int32_t t0 = first > p0 ? first - p0 : 0, t1 = a->p.t1 - a->p.t0;      /* tokens at or behind the block's start */
    int64_t out = (int64_t)first + ATT_BLOCK - 1 + window - p0;            /* the first token that sees none of it */
    if (out < t1) t1 = (int32_t)out;
    int32_t r0 = t0 * a->p.n_q, rows = t1 * a->p.n_q - r0;
    bool few = a->rows <= DIRECT_ROWS && rows == a->rows;
    if (few) {
        att_scores_direct(a, row);
    } else {
        att_pack(a, row);
        att_scores(a, r0, rows);
    }
    for (int32_t r = r0; r < r0 + rows; r++) {
        int32_t p = p0 + r / a->p.n_q, hi = p - first + 1 < ATT_BLOCK ? p - first + 1 : ATT_BLOCK;
        att_softmax(a, r, p - first >= window ? p - first - window + 1 : 0, hi);
    }
    if (few)
        att_values_direct(a, row);
    else
        att_values(a, r0, rows);
}

static void attention(const struct att_job *j, int32_t piece, void *scratch) {
    struct att a;
    att_init(&a, j, piece, scratch);
    int32_t p0 = a.p.seq->pos + a.p.t0, last = a.p.seq->pos + a.p.t1 - 1;
    int32_t first = j->window > 0 && p0 >= j->window ? (p0 - j->window + 1) / ATT_BLOCK * ATT_BLOCK : 0;
    for (; first <= last; first += ATT_BLOCK) att_block(&a, first);
    for (int32_t r = 0; r < a.rows; r++) {
        float *out = j->out + (size_t)(a.p.seq->row + a.p.t0 + r / a.p.n_q) * j->ldo + (size_t)(a.p.q_head + r % a.p.n_q) * (size_t)a.d;
        const float *acc = a.acc + (size_t)r * (size_t)a.dp;
        for (int32_t c = 0; c < a.d; c += L) v_store_n(out + c, v_load(acc + c) / v_set(a.sum[r]), a.d - c);
    }
}

const struct cpu_ops ISA_TABLE = {
    .isa = ISA_NAME,
    .bf16_dot = DOT,
    .strip = STRIP,
    .lin_scratch = lin_scratch,
    .lin_round = lin_round,
    .linear = linear,
    .att_scratch = att_scratch,
    .attention = attention,
    .norm = norm,
    .rope = rope,
    .silu_mul = silu_mul,
    .load = load,
    .store = store,
    .axpy = axpy,
    .scan = scan,
    .sum_exp = sum_exp,
    .exp_scaled = exp_scaled,
    .pick = pick,
    .gumbel_next = gumbel_next,
};
