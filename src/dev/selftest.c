/* selftest.c: see selftest.h. Runs in the calling thread, which becomes the rank thread of both devices. It times nothing. */
#include "dev/selftest.h"

#include "base/mem.h"
#include "dev/cpu/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- random data ---- */

struct dice {
    uint64_t state;
};

static uint32_t roll(struct dice *d) {
    d->state += 0x9e3779b97f4a7c15u;
    uint64_t x = d->state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 32);
}

static float roll_f(struct dice *d) { return (float)(int32_t)roll(d) * 0x1p-31f; } /* [-1, 1) */

/* A random weight; the gap behind its columns is NaN, so that reading it shows. */
static struct view roll_weight(struct dice *d, int32_t n, int32_t k, int32_t gap, enum dtype t, float scale) {
    size_t ld = (size_t)(k + gap), all = (size_t)n * ld;
    void *p = mem_array(all + 1, dtype_size(t));
    for (size_t i = 0; i < all; i++) store_any(p, t, i, i % ld < (size_t)k ? roll_f(d) * scale : NAN);
    return (struct view){p, t, n, k, (int64_t)ld};
}

static void drop(struct view *v) { free((void *)(uintptr_t)v->data); }

/* ---- the table ---- */

struct line {
    const char *what;
    int cases, failed;
    double worst, bound;
    char where[160];
};

struct test {
    const struct dev_maker *m;
    const struct dev_args *args;
    struct dev *dev, *ref;
    struct dice dice;
    FILE *out;
    struct line line;
    int failed;
    struct err *e;
    bool broken;
};

static double bound_of(enum dtype t) { return t == DT_F32 ? 5e-5 : t == DT_F16 ? 4e-3 : 2e-2; }

/* Of attention over an fp8 cache, to which both round what they computed themselves: now and then a number falls to the other side. */
static double fp8_bound(enum dtype t) { return t == DT_BF16 ? bound_of(t) : 4e-3; }

static void begin(struct test *t, const char *what, double bound) { t->line = (struct line){.what = what, .bound = bound}; }

static void add_case(struct test *t, const char *where, double error) {
    struct line *l = &t->line;
    bool ok = error <= l->bound;
    l->cases++;
    l->failed += !ok;
    if (!ok && l->failed <= 5) fprintf(t->out, "  FAILED %s: %s: error %.3g, at most %.3g allowed\n", l->what, where, error, l->bound);
    if (l->cases > 1 && (ok || l->worst > l->bound || isnan(l->worst)) && !(error > l->worst)) return;
    l->worst = error;
    snprintf(l->where, sizeof l->where, "%s", where);
}

static void end(struct test *t) {
    const struct line *l = &t->line;
    if (t->broken) return;
    fprintf(t->out, "%-22s %5d cases  worst %9.2e  bound %7.0e  %s  (%s)\n", l->what, l->cases, l->worst, l->bound,
            l->failed ? "FAILED" : "ok    ", l->where);
    fflush(t->out);
    t->failed += l->failed;
}

static double error_of(const float *got, const float *want, size_t n) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
        s += (double)want[i] * (double)want[i];
    }
    return sqrt(d / (s > 0 ? s : 1));
}

/* ---- one program on both devices ---- */

struct job {
    struct test *t;
    struct dev_shape shape;
    void *mem[2];
    struct batch *b;
    struct result result[2];
    uint64_t step;
};

static int job_open(struct job *j, struct test *t, const struct dev_shape *s, const struct op *ops, int32_t n_ops) {
    struct dev_program prog = {ops, n_ops};
    *j = (struct job){.t = t, .shape = *s, .step = 1};
    t->broken = t->broken || t->m->load(t->dev, s, &prog, t->e) || dev_cpu.load(t->ref, s, &prog, t->e);
    if (t->broken) return -1;
    j->mem[0] = mem_aligned(64, batch_size(&s->limits));
    j->b = batch_init(j->mem[0], &s->limits);
    batch_reset(j->b, j->step);
    for (int i = 0; i < 2; i++) j->result[i].rows = mem_zalloc((size_t)s->limits.max_seqs, sizeof *j->result[i].rows);
    return 0;
}

static void job_close(struct job *j) {
    free(j->mem[0]);
    for (int i = 0; i < 2; i++) free(j->result[i].rows);
}

static void job_seq(struct job *j, int32_t slot, int32_t pos, int32_t n, const int32_t *tokens, bool row) {
    struct batch *b = j->b;
    batch_seqs(b)[b->n_seqs++] = (struct batch_seq){slot, pos, n, tokens ? b->n_given : -1, row ? b->n_rows++ : -1};
    b->n_tokens += n;
    if (!tokens) return;
    memcpy(batch_tokens(b) + b->n_given, tokens, (size_t)n * sizeof *tokens);
    b->n_given += n;
}

static void job_sampling(struct job *j, int32_t slot, struct sampling s) {
    batch_slots(j->b)[j->b->n_slots++] = (struct batch_slot){.slot = slot, .sampling = s};
}

/* Pages from..: one after the other of a shuffled list would do; these are every `stride`-th, which is as scattered. */
static void job_pages(struct job *j, int32_t slot, int32_t first, int32_t stride, int32_t n) {
    for (int32_t i = 0; i < n; i++) batch_pages(j->b)[j->b->n_pages++] = (struct batch_page){slot, i, first + i * stride};
}

/* The same step on both; the batch is empty afterwards. */
static int job_step(struct job *j) {
    struct test *t = j->t;
    batch_seal(j->b);
    t->broken = t->broken || t->m->launch(t->dev, j->b, t->e) || t->m->collect(t->dev, &j->result[0], t->e) ||
                dev_cpu.launch(t->ref, j->b, t->e) || dev_cpu.collect(t->ref, &j->result[1], t->e);
    batch_reset(j->b, ++j->step);
    return t->broken ? -1 : 0;
}

/* Random rows into a buffer of both, rounded to t. */
static void job_poke(struct job *j, enum buf_id b, size_t rows, size_t width, enum dtype dt, float scale) {
    float *x = mem_array(rows * width, sizeof *x);
    for (size_t i = 0; i < rows * width; i++) {
        store_any(x, DT_F32, i, roll_f(&j->t->dice) * scale);
        if (dt != DT_F32) {
            uint16_t h;
            store_any(&h, dt, 0, x[i]);
            x[i] = load_any(&h, dt, 0);
        }
    }
    if (j->t->m->poke(j->t->dev, b, x, rows * width) || dev_cpu.poke(j->t->ref, b, x, rows * width)) j->t->broken = true;
    free(x);
}

/* Compare the first n columns of `rows` rows. */
static double job_compare(struct job *j, enum buf_id b, size_t rows, size_t width, size_t n) {
    float *got = mem_zalloc(rows * width, sizeof *got), *want = mem_zalloc(rows * width, sizeof *want);
    if (j->t->m->peek(j->t->dev, b, got, rows * width) || dev_cpu.peek(j->t->ref, b, want, rows * width)) j->t->broken = true;
    for (size_t r = 1; n < width && r < rows; r++) {
        memmove(got + r * n, got + r * width, n * sizeof *got);
        memmove(want + r * n, want + r * width, n * sizeof *want);
    }
    double error = error_of(got, want, rows * n);
    free(got);
    free(want);
    return error;
}

static struct dev_shape small_shape(void) {
    return (struct dev_shape){.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .hidden = 8, .ffn = 8, .vocab = 8,
                              .max_len = 1024, .page_size = 16, .n_pages = 8, .kv_dtype = DT_F32,
                              .limits = {.max_tokens = 320, .max_seqs = 8, .max_pages = 4096}};
}

/* Any cut of T rows into sequences. */
static void job_rows(struct job *j, int32_t T) {
    static const int32_t zeros[320];
    for (int32_t at = 0, slot = 0; at < T; slot++) {
        int32_t n = T - at < 64 ? T - at : 64;
        job_seq(j, slot, 0, n, zeros, false);
        at += n;
    }
}

static const enum dtype all_dtypes[] = {DT_F32, DT_BF16, DT_F16};
enum { N_DTYPES = 3 };

/* ---- row operators ---- */

struct lin_case {
    int32_t k, n[3], gap;
    bool bias;
};

static void linear_case(struct test *t, const struct lin_case *c, enum dtype dt, enum buf_id out) {
    static const int32_t rows[] = {1, 2, 3, 4, 5, 7, 16, 33, 71, 130, 300};
    struct dev_shape s = small_shape();
    struct op op = {.kind = OP_LINEAR, .layer = -1, .in = BUF_X, .out = out, .k_slices = 1};
    int32_t n = 0;
    for (int i = 0; i < 3 && c->n[i]; i++) {
        op.w[i] = roll_weight(&t->dice, c->n[i], c->k, c->gap, dt, 1);
        if (c->bias && i != 1) op.bias[i] = roll_weight(&t->dice, 1, c->n[i], 0, dt, 1);
        n += c->n[i];
    }
    s.hidden = c->k;
    s.ffn = (n + 1) / 2;
    s.vocab = n;
    s.dtype = s.kv_dtype = dt;
    struct job j;
    if (!job_open(&j, t, &s, &op, 1)) {
        size_t width = out == BUF_LOGITS ? (size_t)n : 2 * (size_t)s.ffn;
        for (size_t i = 0; i < sizeof rows / sizeof *rows && !t->broken; i++) {
            char where[160];
            snprintf(where, sizeof where, "%s, %d rows, K %d, N %d+%d+%d%s%s", dtype_name(dt), rows[i], c->k, c->n[0], c->n[1], c->n[2],
                     c->bias ? ", bias" : "", out == BUF_LOGITS ? ", logits" : "");
            job_poke(&j, BUF_X, (size_t)rows[i], (size_t)c->k, dt, 1);
            job_rows(&j, rows[i]);
            if (job_step(&j)) break;
            add_case(t, where, job_compare(&j, out, (size_t)(out == BUF_LOGITS && rows[i] > 8 ? 8 : rows[i]), width, (size_t)n));
        }
        job_close(&j);
    }
    for (int i = 0; i < 3; i++) drop(&op.w[i]), drop(&op.bias[i]);
}

static void linear_test(struct test *t) {
    static const struct lin_case cases[] = {
        {64, {64}, 0, false}, {96, {40, 8, 8}, 0, true}, {33, {17}, 0, true}, {1, {1}, 0, false}, {7, {3, 5}, 3, false},
        {256, {130}, 0, true}, {1024, {1000, 24}, 8, false}, {515, {66, 2, 31}, 2, true}, {2048, {151}, 0, false}, {264, {1031}, 5, false},
    };
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "linear %s", dtype_name(all_dtypes[k]));
        begin(t, what, bound_of(all_dtypes[k]));
        for (size_t i = 0; i < sizeof cases / sizeof *cases && !t->broken; i++) linear_case(t, &cases[i], all_dtypes[k], BUF_GU);
        end(t);
    }
}

static void norm_case(struct test *t, int32_t width, int32_t rows, enum dtype dt) {
    struct dev_shape s = small_shape();
    s.hidden = width;
    s.dtype = s.kv_dtype = dt;
    struct view w = roll_weight(&t->dice, 1, width, 0, dt, 1);
    struct op op = {.kind = OP_NORM, .layer = -1, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {w}};
    struct job j;
    if (!job_open(&j, t, &s, &op, 1)) {
        char where[160];
        snprintf(where, sizeof where, "%s, %d rows of %d", dtype_name(dt), rows, width);
        job_poke(&j, BUF_H, (size_t)rows, (size_t)width, DT_F32, 3);
        job_poke(&j, BUF_Y, (size_t)rows, (size_t)width, dt, 2);
        job_rows(&j, rows);
        if (!job_step(&j)) {
            add_case(t, where, job_compare(&j, BUF_X, (size_t)rows, (size_t)width, (size_t)width));
            add_case(t, "the residual", job_compare(&j, BUF_H, (size_t)rows, (size_t)width, (size_t)width));
        }
        job_close(&j);
    }
    drop(&w);
}

static void silu_case(struct test *t, int32_t width, int32_t rows, enum dtype dt) {
    struct dev_shape s = small_shape();
    s.ffn = width;
    s.dtype = s.kv_dtype = dt;
    struct op op = {.kind = OP_SILU_MUL, .layer = -1, .in = BUF_GU, .out = BUF_FF};
    struct job j;
    if (job_open(&j, t, &s, &op, 1)) return;
    char where[160];
    snprintf(where, sizeof where, "%s, %d rows of %d", dtype_name(dt), rows, width);
    job_poke(&j, BUF_GU, (size_t)rows, 2 * (size_t)width, dt, 30);
    job_rows(&j, rows);
    if (!job_step(&j)) add_case(t, where, job_compare(&j, BUF_FF, (size_t)rows, (size_t)width, (size_t)width));
    job_close(&j);
}

static void rows_test(struct test *t) {
    static const int32_t widths[] = {1, 8, 15, 64, 100, 704, 1024, 5120, 9001};
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "norm %s", dtype_name(all_dtypes[k]));
        begin(t, what, bound_of(all_dtypes[k]));
        for (size_t i = 0; i < sizeof widths / sizeof *widths && !t->broken; i++) norm_case(t, widths[i], i % 2 ? 1 : 37, all_dtypes[k]);
        end(t);
        snprintf(what, sizeof what, "silu %s", dtype_name(all_dtypes[k]));
        begin(t, what, bound_of(all_dtypes[k]));
        for (size_t i = 0; i < sizeof widths / sizeof *widths && !t->broken; i++) silu_case(t, widths[i], i % 2 ? 70 : 1, all_dtypes[k]);
        end(t);
    }
}

static void embed_case(struct test *t, int32_t vocab, int32_t width, enum dtype dt) {
    enum { T = 19 };
    struct dev_shape s = small_shape();
    s.vocab = vocab;
    s.hidden = width;
    s.dtype = s.kv_dtype = dt;
    struct view w = roll_weight(&t->dice, vocab, width, 3, dt, 1), one = roll_weight(&t->dice, 1, width, 0, dt, 1);
    struct op ops[] = {{.kind = OP_EMBED, .layer = -1, .out = BUF_H, .w = {w}},
                       {.kind = OP_NORM, .layer = -1, .in = BUF_H, .out = BUF_X, .w = {one}, .eps = 1e-6f},
                       {.kind = OP_ROWS, .layer = -1, .in = BUF_X, .out = BUF_ROWS}};
    struct job j;
    int32_t tokens[T];
    for (int i = 0; i < T; i++) tokens[i] = (int32_t)(roll(&t->dice) % (uint32_t)vocab);
    tokens[0] = vocab - 1;
    if (!job_open(&j, t, &s, ops, 3)) {
        char where[160];
        snprintf(where, sizeof where, "%s, vocabulary %d, width %d", dtype_name(dt), vocab, width);
        job_seq(&j, 0, 0, 1, tokens, true);
        job_seq(&j, 1, 4, 7, tokens + 1, false);
        job_seq(&j, 2, 0, 11, tokens + 8, true);
        if (!job_step(&j)) {
            add_case(t, where, job_compare(&j, BUF_H, T, (size_t)width, (size_t)width));
            add_case(t, "the rows that want logits", job_compare(&j, BUF_ROWS, 2, (size_t)width, (size_t)width));
        }
        job_close(&j);
    }
    drop(&w), drop(&one);
}

static void embed_test(struct test *t) {
    begin(t, "embedding and rows", bound_of(DT_BF16));
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        embed_case(t, 8, 8, all_dtypes[k]);
        embed_case(t, 1001, 100, all_dtypes[k]);
        embed_case(t, 257, 33, all_dtypes[k]);
    }
    end(t);
}

/* ---- attention ---- */

struct att_case {
    int32_t heads, kv_heads, d, page, window;
    bool norms;
};

/* Sequence lengths after the first step, and how many tokens each gets in the later ones (0: it rests). */
enum { ATT_SEQS = 6, ATT_STEPS = 3 };
static const int32_t att_tokens[ATT_STEPS][ATT_SEQS] = {{1, 5, 17, 64, 100, 420}, {1, 1, 30, 1, 1, 1}, {1, 0, 1, 65, 1, 1}};

static void att_case(struct test *t, const struct att_case *c, enum dtype dt, enum dtype kv) {
    static const int32_t zeros[1024];
    float inv[256];
    for (int i = 0; i < c->d / 2; i++) inv[i] = powf(10000, -2.0f * (float)i / (float)c->d);
    struct dev_shape s = small_shape();
    s.n_heads = c->heads, s.n_kv_heads = c->kv_heads, s.head_dim = c->d, s.page_size = c->page, s.kv_dtype = kv;
    int32_t pages_a_seq = (512 + c->page - 1) / c->page;
    s.n_pages = pages_a_seq * ATT_SEQS + 1;
    s.max_len = 512;
    s.limits = (struct batch_limits){.max_tokens = 640, .max_seqs = ATT_SEQS, .max_pages = s.n_pages};
    s.rope = (struct rope){.dim = c->d, .inv_freq = inv, .scale = 1.25f};
    struct view qn = roll_weight(&t->dice, 1, c->d, 0, dt, 1), kn = roll_weight(&t->dice, 1, c->d, 0, dt, 1), none = {0};
    struct view dummy = roll_weight(&t->dice, 1, 1, 0, dt, 1);
    struct op ops[] = {{.kind = OP_ROPE_KV, .in = BUF_QKV, .out = BUF_QKV, .eps = 1e-6f, .w = {c->norms ? qn : none, c->norms ? kn : none}},
                       {.kind = OP_ATTENTION, .in = BUF_QKV, .out = BUF_ATT, .window = c->window, .scale = 1 / sqrtf((float)c->d)},
                       {.kind = OP_LINEAR, .in = BUF_FF, .out = BUF_GU, .w = {dummy}, .k_slices = 1}}; /* tells the dtype */
    struct job j;
    size_t width = (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->d, out = (size_t)c->heads * (size_t)c->d;
    if (!job_open(&j, t, &s, ops, 3)) {
        for (int i = 0; i < ATT_SEQS; i++) job_pages(&j, i, 1 + i, ATT_SEQS, pages_a_seq);
        int32_t pos[ATT_SEQS] = {0};
        for (int step = 0; step < ATT_STEPS && !t->broken; step++) {
            int32_t T = 0;
            for (int one = 1; one >= 0; one--) /* decodes first, as the scheduler orders them */
                for (int i = 0; i < ATT_SEQS; i++) {
                    int32_t n = att_tokens[step][i];
                    if (n == 0 || (n == 1) != one) continue;
                    job_seq(&j, i, pos[i], n, zeros, false);
                    pos[i] += n, T += n;
                }
            job_poke(&j, BUF_QKV, (size_t)T, width, dt, 2);
            if (job_step(&j)) break;
            char where[160];
            snprintf(where, sizeof where, "%s, KV %s, heads %d/%d of %d, page %d, window %d%s, step %d", dtype_name(dt), dtype_name(kv),
                     c->heads, c->kv_heads, c->d, c->page, c->window, c->norms ? ", norms" : "", step);
            double rope = job_compare(&j, BUF_QKV, (size_t)T, width, width), att = job_compare(&j, BUF_ATT, (size_t)T, out, out);
            add_case(t, where, rope > att || isnan(rope) ? rope : att);
        }
        job_close(&j);
    }
    drop(&qn), drop(&kn), drop(&dummy);
}

/* Long sequences, whose pages are the same few again and again: what they hold is soon made, and both devices read the same. */
static void long_case(struct test *t, const struct att_case *c, enum dtype dt, enum dtype kv) {
    enum { POOL = 8, SEQS = 2, LEN = 10240, STEPS = 3, FIRST = 64 };
    static const struct {
        int32_t pos, n;
    } steps[STEPS][SEQS] = {{{0, FIRST}, {0, FIRST}}, {{9000, 1}, {4990, 5}}, {{2000, 9}, {LEN - 1, 1}}};
    static const int32_t zeros[FIRST];
    float inv[256];
    for (int i = 0; i < c->d / 2; i++) inv[i] = powf(10000, -2.0f * (float)i / (float)c->d);
    struct dev_shape s = small_shape();
    s.n_heads = c->heads, s.n_kv_heads = c->kv_heads, s.head_dim = c->d, s.page_size = c->page, s.kv_dtype = kv, s.dtype = dt, s.convert = true;
    s.n_pages = POOL * SEQS + 1, s.max_len = LEN;
    s.limits = (struct batch_limits){.max_tokens = SEQS * FIRST, .max_seqs = SEQS, .max_pages = SEQS * LEN / c->page};
    s.rope = (struct rope){.dim = c->d, .inv_freq = inv, .scale = 1};
    struct op ops[] = {{.kind = OP_ROPE_KV, .in = BUF_QKV, .out = BUF_QKV, .eps = 1e-6f},
                       {.kind = OP_ATTENTION, .in = BUF_QKV, .out = BUF_ATT, .window = c->window, .scale = 1 / sqrtf((float)c->d)}};
    struct job j;
    size_t width = (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->d, out = (size_t)c->heads * (size_t)c->d;
    if (job_open(&j, t, &s, ops, 2)) return;
    for (int32_t i = 0; i < LEN / c->page; i++)
        for (int32_t q = 0; q < SEQS; q++) batch_pages(j.b)[j.b->n_pages++] = (struct batch_page){q, i, 1 + q * POOL + i % POOL};
    for (int step = 0; step < STEPS && !t->broken; step++) {
        int32_t T = 0;
        for (int one = 1; one >= 0; one--)
            for (int i = 0; i < SEQS; i++) {
                if ((steps[step][i].n == 1) != one) continue;
                job_seq(&j, i, steps[step][i].pos, steps[step][i].n, zeros, false);
                T += steps[step][i].n;
            }
        job_poke(&j, BUF_QKV, (size_t)T, width, dt, 2);
        if (job_step(&j)) break;
        char where[160];
        snprintf(where, sizeof where, "%s, KV %s, heads %d/%d of %d, page %d, window %d, tokens at %d and %d", dtype_name(dt), dtype_name(kv), c->heads,
                 c->kv_heads, c->d, c->page, c->window, steps[step][0].pos, steps[step][1].pos);
        double rope = job_compare(&j, BUF_QKV, (size_t)T, width, width), att = job_compare(&j, BUF_ATT, (size_t)T, out, out);
        add_case(t, where, rope > att || isnan(rope) ? rope : att);
    }
    job_close(&j);
}

static void long_test(struct test *t) {
    static const struct att_case cases[] = {{2, 1, 128, 16, 0, false}, {8, 1, 64, 16, 0, false}, {3, 1, 96, 16, 1500, false}};
    static const int n[N_DTYPES] = {1, 3, 1};
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "long attention %s", k ? k == 1 ? "bf16" : "f16" : "f32");
        begin(t, what, bound_of(all_dtypes[k]));
        for (int i = 0; i < n[k] && !t->broken; i++) long_case(t, &cases[i], all_dtypes[k], all_dtypes[k]);
        end(t);
    }
    begin(t, "long attention, KV fp8", fp8_bound(DT_BF16));
    for (int i = 0; i < 2 && !t->broken; i++) long_case(t, &cases[i], DT_BF16, DT_FP8_E4M3);
    end(t);
}

static void att_test(struct test *t) {
    static const struct att_case cases[] = {
        {1, 1, 64, 16, 0, false}, {2, 1, 128, 16, 0, true},  {4, 2, 96, 1, 0, true},    {16, 1, 64, 16, 0, false}, {5, 1, 128, 7, 0, true},
        {8, 1, 256, 16, 0, false}, {12, 1, 128, 64, 0, true}, {8, 8, 32, 16, 0, true},  {4, 1, 128, 16, 50, false}, {2, 2, 64, 16, 7, true},
        {2, 1, 80, 16, 0, false},  {16, 1, 256, 32, 0, true}, {20, 1, 64, 16, 0, false}, {3, 1, 32, 256, 0, false}, {6, 2, 96, 16, 33, true},
        {40, 8, 128, 16, 0, true}, {32, 16, 64, 3, 70, false}, /* more work items than a GPU has multiprocessors */
    };
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "rope, attention %s", k ? k == 1 ? "bf16" : "f16" : "f32");
        begin(t, what, bound_of(all_dtypes[k]));
        for (size_t i = 0; i < sizeof cases / sizeof *cases && !t->broken; i++) att_case(t, &cases[i], all_dtypes[k], all_dtypes[k]);
        end(t);
    }
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "attention %s, KV fp8", k ? k == 1 ? "bf16" : "f16" : "f32");
        begin(t, what, fp8_bound(all_dtypes[k]));
        for (size_t i = 0; i < (k ? sizeof cases / sizeof *cases : 3) && !t->broken; i++) att_case(t, &cases[i], all_dtypes[k], DT_FP8_E4M3);
        end(t);
    }
    begin(t, "attention, other KV", bound_of(DT_BF16));
    for (int k = 0; k < N_DTYPES; k++)
        for (int v = 0; v < N_DTYPES; v++)
            if (v != k) att_case(t, &cases[k + v], all_dtypes[k], all_dtypes[v]);
    end(t);
}

/* The device again with cuDNN for chunks; without the library that is said and passed over, where nobody asked for it. */
static void cudnn_test(struct test *t) {
    static const struct att_case cases[] = {{16, 8, 128, 16, 0, true}, {2, 1, 128, 16, 0, true}, {1, 1, 64, 16, 0, false},  {4, 2, 96, 1, 0, true},
                                            {8, 1, 256, 16, 0, false}, {12, 1, 128, 64, 0, true}, {4, 1, 128, 16, 50, false}, {2, 2, 64, 16, 7, true},
                                            {6, 2, 96, 16, 33, true},  {8, 8, 32, 16, 0, true},   {40, 8, 128, 16, 0, false}};
    struct dev_args args = *t->args;
    struct dev *own = t->dev;
    struct err why;
    args.prefill_cudnn = true;
    if (t->broken) return;
    if (t->m->open(&t->dev, &args, &why)) {
        fprintf(t->out, "attention by cuDNN: left out: %s\n", why.text);
        t->dev = own;
        return;
    }
    for (int k = 1; k < N_DTYPES && !t->broken; k++) {
        begin(t, k == 1 ? "attention by cuDNN bf16" : "attention by cuDNN f16", bound_of(all_dtypes[k]));
        for (size_t i = 0; i < sizeof cases / sizeof *cases && !t->broken; i++) att_case(t, &cases[i], all_dtypes[k], all_dtypes[k]);
        long_case(t, &cases[1], all_dtypes[k], all_dtypes[k]);
        end(t);
    }
    t->m->close(t->dev);
    t->dev = own;
}

/* ---- experts ---- */

static void moe_case(struct test *t, int32_t E, int32_t F, int32_t X, int32_t top, int32_t T, bool norm, enum dtype dt) {
    struct dev_shape s = small_shape();
    s.hidden = E, s.ffn = F, s.dtype = s.kv_dtype = dt, s.n_experts = X, s.top_k = top, s.moe_ffn = F;
    struct view *experts = mem_zalloc(3 * (size_t)X, sizeof *experts), router = roll_weight(&t->dice, X, E, 1, dt, 1);
    for (int e = 0; e < X; e++) {
        experts[3 * e] = roll_weight(&t->dice, F, E, 0, dt, 1);
        experts[3 * e + 1] = roll_weight(&t->dice, F, E, 2, dt, 1);
        experts[3 * e + 2] = roll_weight(&t->dice, E, F, 0, dt, 1);
    }
    struct op op = {.kind = OP_MOE, .in = BUF_X, .out = BUF_Y, .w = {router}, .experts = experts, .n_experts = X, .top_k = top,
                    .norm_topk = norm, .k_slices = 1};
    struct job j;
    if (!job_open(&j, t, &s, &op, 1)) {
        char where[160];
        snprintf(where, sizeof where, "%s, %d tokens, %d of %d experts, %d x %d%s", dtype_name(dt), T, top, X, E, F, norm ? ", normed" : "");
        job_poke(&j, BUF_X, (size_t)T, (size_t)E, dt, 1);
        job_rows(&j, T);
        if (!job_step(&j)) add_case(t, where, job_compare(&j, BUF_Y, (size_t)T, (size_t)E, (size_t)E));
        job_close(&j);
    }
    for (int e = 0; e < 3 * X; e++) drop(&experts[e]);
    free(experts);
    drop(&router);
}

static void moe_test(struct test *t) {
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "experts %s", dtype_name(all_dtypes[k]));
        begin(t, what, bound_of(all_dtypes[k]));
        moe_case(t, 40, 24, 7, 3, 50, true, all_dtypes[k]);
        moe_case(t, 64, 96, 128, 8, 33, true, all_dtypes[k]);
        moe_case(t, 64, 32, 2, 1, 300, false, all_dtypes[k]);
        moe_case(t, 100, 33, 5, 5, 1, false, all_dtypes[k]);
        moe_case(t, 128, 64, 40, 2, 130, true, all_dtypes[k]);
        end(t);
    }
}

/* ---- sampling: tokens must be equal, log-probabilities near ---- */

static struct sampling any_sampling(struct dice *d, int i) {
    struct sampling s = {.top_p = 1, .n_logprobs = i % 3 == 0 ? i % 7 : -1, .seed = roll(d)};
    if (i % 5) s.temperature = i % 4 == 1 ? 0.6f : i % 4 == 2 ? 1.0f : 0.05f + (float)(i % 9) * 0.3f;
    if (i % 5 >= 2) s.top_k = i % 5 == 2 ? 1 + i % 50 : 0;
    if (i % 5 >= 3) s.top_p = 0.3f + 0.07f * (float)(i % 10);
    if (i % 5 == 4) s.min_p = 0.02f * (float)(i % 6);
    return s;
}

static double logprob_error(const struct result_row *got, const struct result_row *want) {
    double worst = fabs((double)got->logprobs.chosen - (double)want->logprobs.chosen);
    if (got->logprobs.n != want->logprobs.n) return INFINITY;
    for (int i = 0; i < want->logprobs.n; i++) {
        if (got->logprobs.top[i].id != want->logprobs.top[i].id) return INFINITY;
        double d = fabs((double)got->logprobs.top[i].logprob - (double)want->logprobs.top[i].logprob);
        if (d > worst) worst = d;
    }
    return worst;
}

static void sample_case(struct test *t, int32_t vocab, int32_t rows, float spread, bool ties, int *edge) {
    struct dev_shape s = small_shape();
    s.vocab = vocab;
    s.limits = (struct batch_limits){.max_tokens = rows, .max_seqs = rows, .max_pages = 1};
    struct op op = {.kind = OP_SAMPLE, .layer = -1, .in = BUF_LOGITS};
    struct job j;
    if (job_open(&j, t, &s, &op, 1)) return;
    struct sampling *how = mem_zalloc((size_t)rows, sizeof *how);
    for (int round = 0; round < 3 && !t->broken; round++) {
        static const int32_t zero;
        job_poke(&j, BUF_LOGITS, (size_t)rows, (size_t)vocab, ties ? DT_BF16 : DT_F32, spread);
        for (int i = 0; i < rows; i++) {
            how[i] = any_sampling(&t->dice, i + round * rows);
            job_sampling(&j, i, how[i]);
            job_seq(&j, i, round + 3 * i, 1, &zero, true);
        }
        if (job_step(&j)) break;
        for (int i = 0; i < rows; i++) {
            const struct result_row *got = &j.result[0].rows[i], *want = &j.result[1].rows[i];
            char where[160];
            snprintf(where, sizeof where, "vocabulary %d, row %d of %d, temperature %g, top_k %d, top_p %g, min_p %g%s: token %d for %d", vocab,
                     i, rows, (double)how[i].temperature, how[i].top_k, (double)how[i].top_p, (double)how[i].min_p, ties ? ", ties" : "",
                     got->tokens[0], want->tokens[0]);
            bool soft = how[i].top_p < 1 || how[i].min_p > 0; /* exp may round the other way at the very edge */
            bool same = got->tokens[0] == want->tokens[0] && got->slot == want->slot && got->bad == want->bad && got->n_tokens == 1;
            if (!same && soft && *edge < 2) {
                ++*edge;
                continue;
            }
            add_case(t, where, !same ? INFINITY : how[i].n_logprobs >= 0 ? logprob_error(got, want) : 0);
        }
    }
    free(how);
    job_close(&j);
}

static void sample_test(struct test *t) {
    int edge = 0;
    begin(t, "sampling", 1e-4);
    sample_case(t, 1, 1, 1, false, &edge);
    sample_case(t, 8, 5, 4, false, &edge);
    sample_case(t, 1001, 60, 10, false, &edge);
    sample_case(t, 2560, 40, 3, true, &edge);
    sample_case(t, 32003, 30, 12, false, &edge);
    sample_case(t, 151936, 20, 8, false, &edge);
    sample_case(t, 151936, 1, 20, true, &edge);
    end(t);
    if (edge && !t->broken) fprintf(t->out, "%d tokens at the very edge of top_p or min_p fell the other way\n", edge);
}

/* ---- a small model: all operators together, graphs, feedback ---- */

struct model {
    struct view embed, norm, q[2], k[2], v[2], o[2], gate[2], up[2], down[2];
    struct op ops[32];
    int32_t n_ops;
    float inv[32];
    struct dev_shape shape;
};

enum { ME = 128, MH = 4, MK = 2, MD = 64, MF = 192, MV = 515 };

static struct op *emit(struct model *m, enum op_kind kind, enum buf_id in, enum buf_id out, struct view w) {
    struct op *o = &m->ops[m->n_ops++];
    *o = (struct op){.kind = kind, .in = in, .out = out, .w = {w}, .eps = 1e-6f, .k_slices = 1, .scale = 0.125f};
    return o;
}

static void model_init(struct model *m, struct dice *d, enum dtype dt) {
    *m = (struct model){0};
    m->embed = roll_weight(d, MV, ME, 0, dt, 1);
    m->norm = roll_weight(d, 1, ME, 0, dt, 1);
    for (int i = 0; i < MD / 2; i++) m->inv[i] = powf(10000, -2.0f * (float)i / MD);
    emit(m, OP_EMBED, BUF_NONE, BUF_H, m->embed)->layer = -1;
    for (int l = 0; l < 2; l++) {
        m->q[l] = roll_weight(d, MH * MD, ME, 0, dt, 0.1f), m->k[l] = roll_weight(d, MK * MD, ME, 0, dt, 0.1f);
        m->v[l] = roll_weight(d, MK * MD, ME, 0, dt, 0.1f), m->o[l] = roll_weight(d, ME, MH * MD, 0, dt, 0.1f);
        m->gate[l] = roll_weight(d, MF, ME, 0, dt, 0.1f), m->up[l] = roll_weight(d, MF, ME, 0, dt, 0.1f);
        m->down[l] = roll_weight(d, ME, MF, 0, dt, 0.1f);
        emit(m, OP_NORM, BUF_H, BUF_X, m->norm)->in2 = l ? BUF_Y : BUF_NONE;
        struct op *o = emit(m, OP_LINEAR, BUF_X, BUF_QKV, m->q[l]);
        o->w[1] = m->k[l], o->w[2] = m->v[l];
        emit(m, OP_ROPE_KV, BUF_QKV, BUF_QKV, (struct view){0})->layer = l;
        emit(m, OP_ATTENTION, BUF_QKV, BUF_ATT, (struct view){0})->layer = l;
        emit(m, OP_LINEAR, BUF_ATT, BUF_Y, m->o[l]);
        emit(m, OP_NORM, BUF_H, BUF_X, m->norm)->in2 = BUF_Y;
        emit(m, OP_LINEAR, BUF_X, BUF_GU, m->gate[l])->w[1] = m->up[l];
        emit(m, OP_SILU_MUL, BUF_GU, BUF_FF, (struct view){0});
        emit(m, OP_LINEAR, BUF_FF, BUF_Y, m->down[l]);
    }
    emit(m, OP_NORM, BUF_H, BUF_X, m->norm)->in2 = BUF_Y;
    emit(m, OP_ROWS, BUF_X, BUF_ROWS, (struct view){0});
    emit(m, OP_LINEAR, BUF_ROWS, BUF_LOGITS, m->embed);
    emit(m, OP_SAMPLE, BUF_LOGITS, BUF_NONE, (struct view){0});
    m->shape = (struct dev_shape){.n_layers = 2, .n_heads = MH, .n_kv_heads = MK, .head_dim = MD, .hidden = ME, .ffn = MF, .vocab = MV,
                                  .max_len = 256, .page_size = 16, .n_pages = 16 * 7, .dtype = dt, .kv_dtype = dt,
                                  .limits = {.max_tokens = 200, .max_seqs = 6, .max_pages = 128},
                                  .rope = {.dim = MD, .inv_freq = m->inv, .scale = 1}};
}

static void model_release(struct model *m) {
    drop(&m->embed), drop(&m->norm);
    for (int l = 0; l < 2; l++)
        drop(&m->q[l]), drop(&m->k[l]), drop(&m->v[l]), drop(&m->o[l]), drop(&m->gate[l]), drop(&m->up[l]), drop(&m->down[l]);
}

/* A few steps of a mix of chunks and decodes; logits compared after each. feed: decodes take their last sample (f32: the two devices
 * agree on it), else given tokens. */
static void model_case(struct test *t, enum dtype dt, enum dtype kv, bool feed) {
    static const int32_t first[5] = {1, 40, 3, 17, 90};
    struct model m;
    struct job j;
    int32_t tokens[200], pos[6] = {0};
    model_init(&m, &t->dice, dt);
    m.shape.kv_dtype = kv;
    for (int i = 0; i < 200; i++) tokens[i] = (int32_t)(roll(&t->dice) % MV);
    if (!job_open(&j, t, &m.shape, m.ops, m.n_ops)) {
        for (int i = 0; i < 6; i++) job_pages(&j, i, 1 + i, 6, 16);
        for (int step = 0; step < 8 && !t->broken; step++) {
            int32_t rows = 0;
            for (int i = 0; i < 5; i++) {
                if (step == 0) job_seq(&j, i, 0, first[i], tokens + i, true), pos[i] += first[i];
                else if (i != step) job_seq(&j, i, pos[i]++, 1, feed ? NULL : tokens + step + i, true);
                else continue;
                rows++;
            }
            if (step == 3) job_seq(&j, 5, 0, 50, tokens + 9, true), rows++, pos[5] = 50; /* a newcomer's chunk beside decodes */
            if (job_step(&j)) break;
            char where[160];
            snprintf(where, sizeof where, "%s, KV %s, step %d%s", dtype_name(dt), dtype_name(kv), step, feed ? ", fed back" : "");
            add_case(t, where, job_compare(&j, BUF_LOGITS, (size_t)rows, MV, MV));
            for (int i = 0; feed && i < rows; i++)
                if (j.result[0].rows[i].tokens[0] != j.result[1].rows[i].tokens[0]) add_case(t, "another token", INFINITY);
        }
        job_close(&j);
    }
    model_release(&m);
}

static void model_test(struct test *t) {
    for (int k = 0; k < N_DTYPES && !t->broken; k++) {
        char what[40];
        snprintf(what, sizeof what, "model %s", dtype_name(all_dtypes[k]));
        begin(t, what, all_dtypes[k] == DT_F32 ? 2e-4 : 2 * bound_of(all_dtypes[k]));
        model_case(t, all_dtypes[k], all_dtypes[k], all_dtypes[k] == DT_F32);
        end(t);
    }
    begin(t, "model, KV fp8", 0.1); /* what differs by the dtype's own rounding falls to neighbours that are 1/8 apart */
    for (int k = 0; k < N_DTYPES && !t->broken; k++) model_case(t, all_dtypes[k], DT_FP8_E4M3, false);
    end(t);
}

/* With the last model loaded: the device took no more memory than it had planned. A device that cannot tell is not asked. */
static void memory_test(struct test *t) {
    struct dev_loaded l;
    char where[160];
    t->m->loaded(t->dev, &l);
    size_t planned = l.bytes.weights + l.bytes.kv + dev_bytes_beside(&l.bytes);
    if (!l.taken || !planned) return;
    begin(t, "memory taken of planned", 1);
    snprintf(where, sizeof where, "%.1f of %.1f MB; %d graphs, %.1f of %.1f MB", (double)l.taken / 1e6, (double)planned / 1e6, l.n_graphs,
             (double)l.graphs_taken / 1e6, (double)l.bytes.graphs / 1e6);
    add_case(t, where, (double)l.taken / (double)planned);
    end(t);
}

int dev_selftest(const struct dev_maker *m, const struct dev_args *args, FILE *out, struct err *e) {
    struct dev_args own = *args;
    struct test t = {.m = m, .args = args, .out = out, .e = e, .dice = {1}};
    struct dev_args ref = {.n_ranks = 1, .n_threads = args->n_threads, .isa = "ref"};
    e->kind = ERR_NONE;
    if (args->prefill_cudnn) { /* asked for: to be had, or an error */
        if (m->open(&t.dev, &own, e)) return -1;
        m->close(t.dev);
    }
    own.prefill_cudnn = false;
    if (m->open(&t.dev, &own, e)) return -1;
    fprintf(out, "%s, against the reference on the CPU\n", m->describe(t.dev));
    if (dev_cpu.open(&t.ref, &ref, e)) {
        m->close(t.dev);
        return -1;
    }
    static void (*const tests[])(struct test *) = {rows_test, embed_test, linear_test, att_test, long_test, cudnn_test, moe_test, sample_test, model_test, memory_test};
    for (size_t i = 0; i < sizeof tests / sizeof *tests && !t.broken; i++) tests[i](&t);
    dev_cpu.close(t.ref);
    m->close(t.dev);
    if (t.broken && e->kind == ERR_NONE) err_machine(e, "a buffer of the device could not be written or read");
    return t.broken ? -1 : t.failed;
}
