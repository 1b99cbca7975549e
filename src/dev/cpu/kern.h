/* kern.h: the fast kernels, written once in vectors of L floats and compiled once an instruction set.
 *
 * A file that includes this defines
 *   ISA_NAME, ISA_TABLE   the table's name and symbol
 *   L, NR, MR             lanes of a vector; a register tile is MR rows by NR vectors
 *   DOT                   1: bf16 weights go through V_DOT(acc, pairs, pairs), a dot product of bf16 pairs
 *   V_FMA(a, b, c)        a * b + c, V_MAX(a, b)  a > b ? a : b, V_ANY(m)  is a lane of the mask set
 *   HALVES                1: V_LOW(a), V_FMA_HALF, V_DOT_HALF: the same on half vectors, and cheaper
 *   PART, turn_part       like turn for the first PART dwords, of which a line is a whole number
 *   LINES                 1: turn_line, like turn for the 16 dwords of a line, which few rows of x are multiplied by
 *   turn(row, at, o)      L rows of L dwords from offset `at`, transposed: o[i] lane r = dword i of row r
 *   v_f16_lo, v_f16_hi    the low and high halves of each dword, f16 to f32; v_f16_load, v_f16_store: L numbers
 *
 * The order of every sum is written down here and is the same on each route: a LINEAR output is one chain over k from 0 (lane =
 * output column, or row of x), whether a few rows take weights that are turned in registers (`direct`), many rows are turned
 * themselves (`lanes`) or many rows share a panel of turned weights (`packed`). Attention is the same two products on blocks of
 * 64 positions. */
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"
#include "dev/cpu/sample.h"

#include <math.h>
#include <string.h>

typedef float vfu __attribute__((vector_size(L * 4), aligned(4), may_alias));
typedef float hfu __attribute__((vector_size(L * 2), aligned(4), may_alias));
typedef uint32_t vuu __attribute__((vector_size(L * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(L * 2)));
typedef uint16_t vhu __attribute__((vector_size(L * 2), aligned(2), may_alias));
typedef uint8_t vbu __attribute__((vector_size(L), aligned(1), may_alias));

enum {
    W = NR * L,           /* columns of a panel */
    STRIP = L == 16 ? 64 : 48, /* columns of a piece: whole panels, and whole tiles of DIRECT_COLS and of kern_lanes.h */
    PANEL_STEPS = 4096 / W, /* of a panel: half of a small first-level cache */
    PANEL_WHOLE = L == 8 ? 6144 / W : PANEL_STEPS, /* or the whole of a slice, if it is no more */
    PANEL_BYTES = PANEL_WHOLE * W * 4,
    DIRECT_COLS = L == 4 ? 8 : 16, /* rows of weights that `direct` reads side by side */
    DIRECT_ROWS = 4, /* `direct` takes so many rows of x; above, turning x or packing pays */
    MANY_ROWS = 112, /* of fewer lanes than 16, more rows are faster by `packed`: the panel is turned once for all of them */
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

/* Subnormal codes are whole numbers times 2^-9: as subnormal floats they would be slow. */
INLINE vf v_fp8_load(const void *p) {
    vu u = __builtin_convertvector(*(const vbu *)p, vu), mag = u & 0x7f;
    vf small = __builtin_convertvector((vi)mag, vf) * v_set(0x1p-9f), x = v_sel((vi)(mag < v_setu(8)), small, (vf)((mag << 20) + (120u << 23)));
    vu nan = (vu)(mag == v_setu(0x7f)) & 0x7fc00000u;
    return (vf)((vu)x | nan | (u & 0x80) << 24);
}

INLINE vf v_load_any(const void *p, enum dtype t) {
    if (t == DT_F32) return v_load(p);
    if (t == DT_F16) return v_f16_load(p);
    if (t == DT_FP8_E4M3) return v_fp8_load(p);
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

/* ---- LINEAR, three ways ---- */

#include "dev/cpu/kern_linear.h"

#include "dev/cpu/kern_lanes.h"

static size_t lin_scratch(int32_t chunk_rows, int32_t k_slices) {
    size_t rows = (size_t)(chunk_rows > DIRECT_ROWS ? chunk_rows : DIRECT_ROWS), acc = rows * PACKED_COLS * LEVELS * 4;
    (void)k_slices;
    return PANEL_BYTES + (acc > LANES_SCRATCH ? acc : LANES_SCRATCH);
}

static void linear(const struct lin_job *j, int32_t piece, void *scratch) {
    struct lin_piece p = lin_piece_at(j, piece, STRIP);
    enum kind kind = kind_of(j->w[p.view].dtype);
    int32_t rows = p.row1 - p.row0;
    float *acc = (float *)(void *)((char *)scratch + PANEL_BYTES);
    if (rows <= DIRECT_ROWS)
        direct(j, &p, kind, acc);
    else if (lanes_take(j, &p, kind))
        lanes(j, &p, kind, acc);
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

#include "dev/cpu/kern_attention.h"

const struct cpu_ops ISA_TABLE = {
    .isa = ISA_NAME,
    .bf16_dot = DOT,
    .strip = STRIP,
    .lin_scratch = lin_scratch,
    .lin_round = lin_round,
    .lanes = L,
    .few = DIRECT_ROWS,
    .many = L == 16 ? 0 : MANY_ROWS,
    .lin_block = lin_block,
    .lin_turn = lin_turn,
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
