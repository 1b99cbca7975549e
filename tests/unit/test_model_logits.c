/* test_model_logits.c: every architecture and setting against transformers: the logits at all positions of the models in
 * tests/model/fixtures, through decoder and CPU device, on every instruction set of this machine, by two routes:
 * token by token, and all prefixes of the text as separate sequences of one step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/decoder.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 16, TOKENS_MAX = 64 };

struct model {
    const char *name;
    struct config config;
    struct checkpoint *checkpoint, *expected;
    struct weights weights;
    const float *want; /* [n, V] */
    int32_t ids[TOKENS_MAX], n;
};

static void open_model(struct model *m, const char *name) {
    struct err e = {0};
    char *dir = path_join("tests/model/fixtures", name), *tokens = path_join(dir, "tokens.json"), *tmp;
    json_t *ids = json_load_file(tokens, 0, NULL);
    *m = (struct model){.name = name, .n = (int32_t)json_array_size(ids)};
    assert_in_range(m->n, 40, TOKENS_MAX);
    for (int32_t i = 0; i < m->n; i++) m->ids[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    if (config_open(&m->config, dir, &e) || checkpoint_open(&m->checkpoint, dir, &e) ||
        weights_bind(&m->weights, &m->config, m->checkpoint, (struct shard){0, 1}, &e))
        fail_msg("%s: %s", name, e.text);
    tmp = path_join(dir, "logits");
    if (checkpoint_open(&m->expected, tmp, &e)) fail_msg("%s: %s", name, e.text);
    const struct tensor *t = checkpoint_find(m->expected, "logits");
    assert_true(t && t->dims[0] == m->n && t->dims[1] == m->config.vocab);
    m->want = t->data;
    json_decref(ids);
    free(tmp), free(tokens), free(dir);
}

static void close_model(struct model *m) {
    weights_release(&m->weights);
    checkpoint_close(m->expected);
    checkpoint_close(m->checkpoint);
    config_release(&m->config);
}

struct runner {
    struct dev *dev;
    struct decoder decoder;
    struct batch *batch;
    struct result result;
    int32_t next_page;
};

/* False: this machine lacks the instruction set. */
static bool runner_open(struct runner *r, const struct model *m, const char *isa) {
    struct err e = {0};
    struct dev_args args = {.n_ranks = 1, .n_threads = 2, .isa = isa};
    *r = (struct runner){.next_page = 1};
    if (dev_cpu.open(&r->dev, &args, &e)) return false;
    decoder_init(&r->decoder, &m->config, &m->weights, (struct shard){0, 1});
    struct dev_shape shape;
    decoder_shape(&shape, &m->config, &r->decoder, (struct shard){0, 1});
    shape.max_len = TOKENS_MAX;
    shape.page_size = PAGE;
    shape.n_pages = 1 + TOKENS_MAX * TOKENS_MAX / PAGE;
    shape.kv_dtype = DT_F32;
    shape.limits = (struct batch_limits){TOKENS_MAX * TOKENS_MAX / 2 + TOKENS_MAX, TOKENS_MAX, TOKENS_MAX * TOKENS_MAX / PAGE};
    struct dev_program prog = {r->decoder.ops, r->decoder.n_ops};
    if (dev_cpu.load(r->dev, &shape, &prog, &e)) fail_msg("%s, %s: %s", m->name, isa, e.text);
    r->batch = batch_init(mem_aligned(64, batch_size(&shape.limits)), &shape.limits);
    r->result.rows = mem_zalloc(TOKENS_MAX, sizeof *r->result.rows);
    return true;
}

static void runner_close(struct runner *r) {
    dev_cpu.close(r->dev);
    decoder_release(&r->decoder);
    free(r->batch);
    free(r->result.rows);
}

/* n new tokens of a slot that has pos of them, and a row for the last. */
static void add(struct runner *r, int32_t slot, int32_t pos, const int32_t *ids, int32_t n) {
    struct batch *b = r->batch;
    if (!pos) batch_slots(b)[b->n_slots++] = (struct batch_slot){.slot = slot, .sampling = {.top_p = 1, .n_logprobs = -1}};
    for (int32_t i = (pos + PAGE - 1) / PAGE; i <= (pos + n - 1) / PAGE; i++)
        batch_pages(b)[b->n_pages++] = (struct batch_page){slot, i, r->next_page++};
    batch_seqs(b)[b->n_seqs++] = (struct batch_seq){slot, pos, n, b->n_given, b->n_rows++};
    memcpy(batch_tokens(b) + b->n_given, ids, (size_t)n * sizeof *ids);
    b->n_given += n;
    b->n_tokens += n;
}

static void run(struct runner *r, float *logits, size_t n) {
    struct err e = {0};
    batch_seal(r->batch);
    if (dev_cpu.launch(r->dev, r->batch, &e) || dev_cpu.collect(r->dev, &r->result, &e)) fail_msg("%s", e.text);
    if (dev_cpu.peek(r->dev, BUF_LOGITS, logits, n)) fail_msg("cannot read the logits");
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What the given share of the positions stay within: the largest difference of a position's logits, as a share of the
 * largest logit of all. Infinite when one is not finite. */
static double distance(const struct model *m, const float *got, double share) {
    double row[TOKENS_MAX], most = 0;
    const size_t V = (size_t)m->config.vocab;
    for (int32_t p = 0; p < m->n; p++) {
        row[p] = 0;
        for (size_t i = (size_t)p * V; i < (size_t)(p + 1) * V; i++) {
            if (!isfinite(got[i])) return INFINITY;
            row[p] = fmax(row[p], fabs((double)got[i] - (double)m->want[i]));
            most = fmax(most, fabs((double)m->want[i]));
        }
    }
    qsort(row, (size_t)m->n, sizeof *row, by_size);
    return row[(int32_t)(share * (m->n - 1))] / most;
}

/* bf16 dot products round their inputs to 8 bits. That may turn a near tie between experts, which changes the position
 * and those that see it: with experts a quarter of the positions may be off. */
static void compare(const struct model *m, const char *isa, const char *route, const float *got) {
    bool rounded = m->config.dtype == DT_BF16 && !strcmp(isa, "avx512bf16");
    double bound = rounded ? 1.5e-2 : 2e-5, off = distance(m, got, rounded && m->config.n_experts ? 0.75 : 1);
    if (!(off <= bound)) fail_msg("%s, %s, %s: logits differ by %g of the largest; allowed %g", m->name, isa, route, off, bound);
}

static void one_by_one(struct runner *r, const struct model *m, float *got) {
    const size_t V = (size_t)m->config.vocab;
    for (int32_t p = 0; p < m->n; p++) {
        batch_reset(r->batch, (uint64_t)p);
        add(r, 0, p, m->ids + p, 1);
        run(r, got + (size_t)p * V, V);
    }
}

static void check_model(const struct model *m, const char *isa) {
    struct runner r;
    if (!runner_open(&r, m, isa)) return;
    const size_t V = (size_t)m->config.vocab;
    float *got = mem_array((size_t)m->n * V, sizeof *got);
    one_by_one(&r, m, got);
    compare(m, isa, "token by token", got);
    batch_reset(r.batch, (uint64_t)m->n);
    for (int32_t p = 0; p < m->n; p++) add(&r, p, 0, m->ids, p + 1);
    run(&r, got, (size_t)m->n * V);
    compare(m, isa, "all prefixes at once", got);
    free(got);
    runner_close(&r);
}

static void logits_are_those_of_transformers(void **state) {
    (void)state;
    static const char *const isas[] = {"ref", "generic", "avx2", "avx512", "avx512bf16"};
    DIR *d = opendir("tests/model/fixtures");
    assert_non_null(d);
    int seen = 0;
    for (struct dirent *x; (x = readdir(d)); ) {
        if (strchr(x->d_name, '.')) continue;
        struct model m;
        open_model(&m, x->d_name);
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) check_model(&m, isas[i]);
        close_model(&m);
        seen++;
    }
    closedir(d);
    assert_true(seen >= 20);
}

/* The bound is tight enough to see a window that is one too wide, and experts whose shares are not divided. */
static void small_mistakes_are_seen(void **state) {
    (void)state;
    static const char *const names[] = {"mistral-window", "qwen3moe"};
    for (int i = 0; i < 2; i++) {
        struct model m;
        struct runner r;
        open_model(&m, names[i]);
        float *got = mem_array((size_t)m.n * (size_t)m.config.vocab, sizeof *got);
        if (i == 0) m.config.window[1]++;
        else m.config.norm_topk = false;
        assert_true(runner_open(&r, &m, "ref"));
        one_by_one(&r, &m, got);
        assert_true(distance(&m, got, 1) > 1e-3);
        runner_close(&r);
        free(got);
        close_model(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(logits_are_those_of_transformers),
                                       cmocka_unit_test(small_mistakes_are_seen)};
    return cmocka_run_group_tests_name("model logits", tests, NULL, NULL);
}
