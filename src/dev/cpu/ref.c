/* ref.c: the oracle: every operator as the loop one would write on a blackboard, sums in double. Slow on purpose. No state. */
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"
#include "dev/cpu/sample.h"

#include <math.h>

enum { STRIP = 16 };

static size_t ref_lin_scratch(int32_t chunk_rows, int32_t k_slices) {
    (void)chunk_rows, (void)k_slices;
    return 0;
}

static void ref_lin_round(uint16_t *xh, const float *x, int32_t k, int32_t k_slices) {
    (void)xh, (void)x, (void)k, (void)k_slices;
}

static void ref_linear(const struct lin_job *j, int32_t piece, void *scratch) {
    (void)scratch;
    struct lin_piece p = lin_piece_at(j, piece, STRIP);
    const struct view *w = &j->w[p.view];
    for (int32_t t = p.row0; t < p.row1; t++) {
        const float *x = j->x + (size_t)t * j->ldx;
        for (int32_t n = p.n0; n < p.n1; n++) {
            double sum = j->bias[p.view] ? j->bias[p.view][n] : 0;
            for (int32_t k = 0; k < j->k; k++)
                sum += (double)x[k] * (double)load_any(w->data, w->dtype, (size_t)n * (size_t)w->ld + (size_t)k);
            j->y[(size_t)t * j->ldy + (size_t)(p.col + n - p.n0)] = (float)sum;
        }
    }
}

static size_t ref_att_scratch(int32_t rows, int32_t head_dim) {
    (void)rows;
    return (size_t)head_dim * sizeof(double);
}

static double ref_score(const struct att_job *j, const float *q, const char *k) {
    double dot = 0;
    for (int32_t d = 0; d < j->head_dim; d++) dot += (double)q[d] * (double)load_any(k, j->dtype, (size_t)d);
    return dot * (double)j->scale;
}

/* One query head of one token at position pos. */
static void ref_attend(const struct att_job *j, const struct att_piece *p, const float *q, int32_t pos, float *out,
                       double *acc) {
    int32_t first = j->window > 0 && pos - j->window + 1 > 0 ? pos - j->window + 1 : 0;
    double max = -INFINITY, sum = 0;
    for (int32_t i = first; i <= pos; i++) max = fmax(max, ref_score(j, q, kv_row(j, p->seq, p->head, i)));
    for (int32_t d = 0; d < j->head_dim; d++) acc[d] = 0;
    for (int32_t i = first; i <= pos; i++) {
        const char *row = kv_row(j, p->seq, p->head, i);
        double e = exp(ref_score(j, q, row) - max);
        sum += e;
        for (int32_t d = 0; d < j->head_dim; d++) acc[d] += e * (double)load_any(row + j->v_at, j->dtype, (size_t)d);
    }
    for (int32_t d = 0; d < j->head_dim; d++) out[d] = (float)(acc[d] / sum);
}

static void ref_attention(const struct att_job *j, int32_t piece, void *scratch) {
    struct att_piece p = att_piece_at(j, piece);
    for (int32_t t = p.t0; t < p.t1; t++)
        for (int32_t h = p.q_head; h < p.q_head + p.n_q; h++) {
            size_t row = (size_t)(p.seq->row + t), at = (size_t)h * (size_t)j->head_dim;
            ref_attend(j, &p, j->q + row * j->ldq + at, p.seq->pos + t, j->out + row * j->ldo + at, scratch);
        }
}

static void ref_norm(float *out, float *in, const float *add, const float *w, float eps, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        if (add) in[i] += add[i];
        sum += (double)in[i] * (double)in[i];
    }
    double r = 1 / sqrt(sum / n + (double)eps);
    for (int32_t i = 0; i < n; i++) out[i] = (float)((double)in[i] * r * (double)w[i]);
}

static void ref_rope(float *head, const float *w, float eps, const float *cos, const float *sin, int32_t d) {
    if (w) ref_norm(head, head, NULL, w, eps, d);
    for (int32_t i = 0; i < d / 2; i++) {
        double a = (double)head[i], b = (double)head[i + d / 2], c = (double)cos[i], s = (double)sin[i];
        head[i] = (float)(a * c - b * s);
        head[i + d / 2] = (float)(b * c + a * s);
    }
}

static void ref_silu_mul(float *out, const float *gate, const float *up, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        double g = (double)gate[i];
        out[i] = (float)(g / (1 + exp(-g)) * (double)up[i]);
    }
}

static void ref_load(float *out, const void *in, enum dtype t, int32_t n) {
    for (int32_t i = 0; i < n; i++) out[i] = load_any(in, t, (size_t)i);
}

static void ref_store(void *out, const float *in, enum dtype t, int32_t n) {
    for (int32_t i = 0; i < n; i++) store_any(out, t, (size_t)i, in[i]);
}

static void ref_axpy(float *y, float a, const float *x, int32_t n) {
    for (int32_t i = 0; i < n; i++) y[i] += a * x[i];
}

static bool ref_scan(const float *x, int32_t n, float *max) {
    bool finite = true;
    *max = x[0];
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) finite = false;
        if (x[i] > *max) *max = x[i];
    }
    return finite;
}

static double ref_sum_exp(const float *x, int32_t n, float max) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return sum;
}

static void ref_exp_scaled(float *out, const float *x, int32_t n, float max, float scale) {
    for (int32_t i = 0; i < n; i++) out[i] = (float)exp((double)((x[i] - max) * scale));
}

static int32_t ref_pick(int32_t *out, const float *x, int32_t n, float max, float scale, float floor) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        if ((x[i] - max) * scale >= floor) out[count++] = i;
    return count;
}

static int32_t ref_gumbel_next(const float *x, int32_t n, int32_t from, float max, float scale, uint64_t key, float best) {
    while (from < n && (x[from] - max) * scale + gumbel_bound(gumbel_bits(key, (uint32_t)from)) < best) from++;
    return from;
}

const struct cpu_ops cpu_ops_ref = {
    .isa = "ref",
    .strip = STRIP,
    .lin_scratch = ref_lin_scratch,
    .lin_round = ref_lin_round,
    .linear = ref_linear,
    .att_scratch = ref_att_scratch,
    .attention = ref_attention,
    .norm = ref_norm,
    .rope = ref_rope,
    .silu_mul = ref_silu_mul,
    .load = ref_load,
    .store = ref_store,
    .axpy = ref_axpy,
    .scan = ref_scan,
    .sum_exp = ref_sum_exp,
    .exp_scaled = ref_exp_scaled,
    .pick = ref_pick,
    .gumbel_next = ref_gumbel_next,
};
