/* selftest_logits.c: the log-probabilities of a model on a device against the CPU's, at every position of the same texts (probe.h).
 *
 * The CPU writes the texts: a few random ids, then its own samples, token by token; so they are what this model is used on. The device gets the
 * same ids whatever it would have said: token by token (steps of decodes), and in chunks of random lengths beside decodes, where a row of logits
 * comes at each chunk's end. Judged are all ids of the vocabulary at each position. The main thread does it all.
 *
 * bfloat16 has a noise of its own, which grows with a model's logits: where the CPU can round as a GPU does (to bf16 before each product) it reads the texts
 * too, and twice its difference is allowed where that is more than the bound, and one position in 200 more with another most likely id (three with
 * experts). */
#include "cli/probe.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SEQS_MAX = 32, LEN_MAX = 600, CHUNK_MAX = 96, PAGE = 16, CHUNK_TIMES = 8 };
static const double LOGITS_MAX = 1.3e8; /* floats of the CPU's that are kept */

struct text {
    int32_t n, pos; /* its length, and how much of it was fed */
    int32_t ids[LEN_MAX];
    float *want; /* [n, V] log-probabilities */
};

struct bench {
    const struct probe *p;
    int32_t V, n_texts;
    struct text *texts;
    struct probe_sizes sizes;
    struct batch *batch;
    struct engine *engine;
    uint64_t step;
    float *logits; /* of a step */
    struct dice dice;
    double bound, least_same; /* of P99.9; of the share of positions whose most likely id is the same, or as good as */
    FILE *out;
    struct err *e;
};

/* ---- steps ---- */

static struct sampling greedy(void) { return (struct sampling){.top_p = 1, .n_logprobs = -1}; }

/* n more tokens of a text; its slot is its number. */
static void feed(struct bench *t, int32_t i, int32_t n, struct sampling s) {
    struct batch *b = t->batch;
    struct text *x = &t->texts[i];
    if (!x->pos) batch_slots(b)[b->n_slots++] = (struct batch_slot){.slot = i, .sampling = s};
    for (int32_t k = (x->pos + PAGE - 1) / PAGE; k <= (x->pos + n - 1) / PAGE; k++)
        batch_pages(b)[b->n_pages++] = (struct batch_page){i, k, 1 + i + k * t->n_texts}; /* scattered */
    batch_seqs(b)[b->n_seqs++] = (struct batch_seq){i, x->pos, n, b->n_given, b->n_rows++};
    memcpy(batch_tokens(b) + b->n_given, x->ids + x->pos, (size_t)n * sizeof *x->ids);
    b->n_given += n;
    b->n_tokens += n;
    x->pos += n;
}

static int run_step(struct bench *t, const struct result **r) {
    batch_seal(t->batch);
    return engine_launch(t->engine, t->batch, t->e) || engine_collect(t->engine, r, t->e) ||
                   engine_logits(t->engine, t->logits, t->batch->n_rows, t->e) ? -1 : 0;
}

static void begin_step(struct bench *t) { batch_reset(t->batch, ++t->step); }

/* Log-probabilities of a row, in place; the most likely id. */
static int32_t log_softmax(float *row, int32_t V) {
    int32_t best = 0;
    double sum = 0;
    for (int32_t i = 1; i < V; i++)
        if (row[i] > row[best]) best = i;
    float most = row[best];
    for (int32_t i = 0; i < V; i++) sum += exp((double)row[i] - (double)most);
    double off = (double)most + log(sum);
    for (int32_t i = 0; i < V; i++) row[i] = (float)((double)row[i] - off);
    return best;
}

/* ---- the CPU writes the texts ---- */

enum { GIVEN = 4 }; /* random ids that a text begins with */

static void keep_row(struct bench *t, struct text *x, const float *logits, int32_t sampled) {
    float *to = x->want + (size_t)(x->pos - 1) * (size_t)t->V;
    memcpy(to, logits, (size_t)t->V * sizeof *to);
    log_softmax(to, t->V);
    if (x->pos < x->n) x->ids[x->pos] = x->pos < GIVEN ? roll_to(&t->dice, 0, t->V - 1) : sampled;
}

static int write_texts(struct bench *t) {
    for (int32_t i = 0; i < t->n_texts; i++) t->texts[i].ids[0] = roll_to(&t->dice, 0, t->V - 1);
    for (;;) {
        const struct result *r;
        int32_t who[SEQS_MAX], n = 0;
        begin_step(t);
        for (int32_t i = 0; i < t->n_texts; i++) {
            if (t->texts[i].pos == t->texts[i].n) continue;
            who[n++] = i;
            feed(t, i, 1, (struct sampling){.temperature = 1, .top_p = 1, .seed = (uint64_t)i, .n_logprobs = -1});
        }
        if (!n) return 0;
        if (run_step(t, &r)) return -1;
        for (int32_t k = 0; k < n; k++) keep_row(t, &t->texts[who[k]], t->logits + (size_t)k * (size_t)t->V, r->rows[k].tokens[0]);
    }
}

/* ---- the device reads them ---- */

struct verdict {
    struct spread all;
    int64_t positions, same_top, near_top; /* near: another token, that the CPU holds as likely within the bound */
    int64_t wrong_sample;                  /* the greedy sample is not the largest logit */
};

static void judge(struct bench *t, struct verdict *v, const struct text *x, float *got, int32_t sampled) {
    const float *want = x->want + (size_t)(x->pos - 1) * (size_t)t->V;
    int32_t mine = log_softmax(got, t->V), theirs = 0;
    for (int32_t i = 0; i < t->V; i++) {
        if (want[i] > want[theirs]) theirs = i;
        spread_add(&v->all, (double)got[i] - (double)want[i]);
    }
    v->positions++;
    v->same_top += mine == theirs;
    v->near_top += mine != theirs && (double)want[theirs] - (double)want[mine] <= t->p->bound;
    v->wrong_sample += sampled != mine;
}

static int32_t piece(struct bench *t, const struct text *x, bool chunks) {
    int32_t n = !chunks || roll(&t->dice) % 2 ? 1 : roll_to(&t->dice, 2, CHUNK_MAX);
    return n < x->n - x->pos ? n : x->n - x->pos;
}

static int read_texts(struct bench *t, struct verdict *v, bool chunks) {
    for (int32_t i = 0; i < t->n_texts; i++) t->texts[i].pos = 0;
    for (;;) {
        const struct result *r;
        int32_t who[SEQS_MAX], n[SEQS_MAX], more = 0;
        begin_step(t);
        for (int32_t i = 0; i < t->n_texts; i++) n[i] = t->texts[i].pos < t->texts[i].n ? piece(t, &t->texts[i], chunks) : 0;
        for (int one = 1; one >= 0; one--) /* decodes first, as the scheduler orders them */
            for (int32_t i = 0; i < t->n_texts; i++)
                if (n[i] && (n[i] == 1) == one) {
                    who[more++] = i;
                    feed(t, i, n[i], greedy());
                }
        if (!more) return 0;
        if (run_step(t, &r)) return -1;
        for (int32_t k = 0; k < more; k++) judge(t, v, &t->texts[who[k]], t->logits + (size_t)k * (size_t)t->V, r->rows[k].tokens[0]);
    }
}

/* The share of differences that must be within the bound: rounding turns a near tie between experts, which changes a position and those that see it. */
static double judged(const struct bench *t) { return t->p->config.n_experts && t->p->config.dtype != DT_F32 ? 0.98 : 0.999; }

static bool tell(struct bench *t, const char *route, const struct verdict *v) {
    double most = spread_at(&v->all, judged(t)), same = (double)v->same_top / (double)v->positions, near = (double)v->near_top / (double)v->positions;
    bool ok = most <= t->bound && same + near >= t->least_same && !v->wrong_sample && !v->all.not_finite;
    fprintf(t->out, "%-30s %9lld %10.2e %10.2e %10.2e %8.1e %9.2f %% %6.2f %%   %s\n", route, (long long)v->positions, spread_at(&v->all, 0.5), most,
            v->all.max, t->bound, 100 * same, 100 * near, ok ? "ok" : "FAILED");
    if (v->wrong_sample) fprintf(t->out, "  FAILED: %lld greedy samples are not the largest logit\n", (long long)v->wrong_sample);
    fflush(t->out);
    return ok;
}

/* ---- all of it ---- */

static void size_texts(struct bench *t) {
    int32_t most = t->p->config.max_position < LEN_MAX ? t->p->config.max_position : LEN_MAX;
    double left = LOGITS_MAX / t->V;
    for (t->n_texts = 0; t->n_texts < SEQS_MAX; t->n_texts++) {
        struct text *x = &t->texts[t->n_texts];
        x->n = t->n_texts % 8 == 0 ? most : roll_to(&t->dice, 1, most < 100 ? most : 100);
        if (t->n_texts && left < x->n) break;
        if (x->n > left) x->n = left < 8 ? 8 : (int32_t)left;
        left -= x->n;
        x->want = mem_array((size_t)x->n * (size_t)t->V, sizeof *x->want);
    }
    int32_t a_text = (most + PAGE - 1) / PAGE;
    t->sizes = (struct probe_sizes){.max_len = most, .page_size = PAGE, .n_pages = 1 + a_text * t->n_texts,
                                    .limits = {t->n_texts * CHUNK_MAX, t->n_texts, a_text * t->n_texts}};
    t->batch = batch_init(mem_aligned(64, batch_size(&t->sizes.limits)), &t->sizes.limits);
    t->logits = mem_array((size_t)t->n_texts * (size_t)t->V, sizeof *t->logits);
}

static int open_engine(struct bench *t, int32_t n_ranks, enum probe_on on) {
    t->step = 0;
    return probe_engine(&t->engine, t->p, &t->sizes, n_ranks, on, t->e);
}

static int write_all(struct bench *t) {
    if (open_engine(t, 1, PROBE_EXACT)) return -1;
    int bad = write_texts(t);
    int32_t all = 0;
    for (int32_t i = 0; i < t->n_texts; i++) all += t->texts[i].n;
    fprintf(t->out, "%s of %s, vocabulary %d: %d texts, %d positions, written by %s\n", t->p->config.arch->name, dtype_name(t->p->config.dtype), t->V,
            t->n_texts, all, engine_describe(t->engine));
    engine_close(t->engine);
    return bad;
}

/* Who reads, and what the columns are. */
static void head(struct bench *t, int32_t n_ranks) {
    char column[16];
    snprintf(column, sizeof column, "P%g", 100 * judged(t));
    fprintf(t->out, "read by %s, %d rank%s\n%-30s %9s %10s %10s %10s %8s %11s %8s\n", engine_describe(t->engine), n_ranks, n_ranks > 1 ? "s" : "",
            "log-probabilities", "positions", "P50", column, "largest", "bound", "same top", "near");
}

/* How many checks failed; -1: *e. */
static int read_all(struct bench *t, struct verdict *v) {
    int failed = 0;
    if (open_engine(t, t->p->n_ranks, PROBE_TESTED)) return -1;
    head(t, t->p->n_ranks);
    for (int chunks = 0; chunks < 2 && failed >= 0; chunks++) {
        memset(v, 0, sizeof *v);
        for (int i = 0; i < (chunks ? CHUNK_TIMES : 1) && failed >= 0; i++)
            if (read_texts(t, v, chunks)) failed = -1;
        if (failed >= 0) failed += !tell(t, chunks ? "chunks and single tokens" : "token by token", v);
    }
    engine_close(t->engine);
    return failed;
}

/* How far rounding alone takes the CPU. */
static int read_rounded(struct bench *t, struct verdict *v) {
    struct err lacks_it;
    if (t->p->config.dtype != DT_BF16 || probe_engine(&t->engine, t->p, &t->sizes, 1, PROBE_ROUNDED, &lacks_it)) return 0;
    memset(v, 0, sizeof *v);
    int bad = read_texts(t, v, false);
    double own = spread_at(&v->all, judged(t));
    if (!bad) fprintf(t->out, "rounding alone, %s: P50 %.2e, P%g %.2e, largest %.2e, same top %.2f %%\n", engine_describe(t->engine), spread_at(&v->all, 0.5),
                      100 * judged(t), own, v->all.max, 100 * (double)v->same_top / (double)v->positions);
    double same = (double)(v->same_top + v->near_top) / (double)v->positions - 0.005;
    if (2 * own > t->bound) t->bound = 2 * own;
    if (same < t->least_same) t->least_same = same;
    if (t->p->config.n_experts) t->least_same -= 0.01;
    engine_close(t->engine);
    return bad;
}

int selftest_logits(const struct probe *p, FILE *out, struct err *e) {
    struct bench t = {.p = p, .V = p->config.vocab, .dice = dice_of((uint64_t)p->options->seed, 0), .bound = p->bound, .least_same = 0.995, .out = out, .e = e};
    struct verdict *v = mem_alloc(sizeof *v);
    t.texts = mem_zalloc(SEQS_MAX, sizeof *t.texts);
    size_texts(&t);
    int failed = write_all(&t) || read_rounded(&t, v) ? -1 : read_all(&t, v);
    for (int32_t i = 0; i < SEQS_MAX; i++) free(t.texts[i].want);
    free(t.texts);
    free(t.logits);
    free(t.batch);
    free(v);
    return failed;
}
