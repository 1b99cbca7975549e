/* test_selftest.c: the comparisons that `minisgl selftest` makes. Of a device that is wrong in one operator (the CPU's, meddled with) it fails that
 * operator's cases and passes all others; with a model it fails one whose logits are off, or whose samples are not those of its logits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cli/probe.h"
#include "dev/selftest.h"

#include <stdio.h>

static int run(const struct dev_maker *m) {
    struct err e;
    FILE *out = tmpfile();
    assert_non_null(out);
    int failed = dev_selftest(m, &(struct dev_args){.n_ranks = 1, .n_threads = 2}, out, &e);
    fclose(out);
    return failed;
}

/* A device whose SiLU is off by a hair too much, and whose attention is where positions are beyond 4,096. */
static bool far; /* such a position is in the last step */

static int launch_watched(struct dev *d, const struct batch *b, struct err *e) {
    far = false;
    for (int32_t i = 0; i < b->n_seqs; i++) far = far || batch_seqs(b)[i].pos > 4096;
    return dev_cpu.launch(d, b, e);
}

static int peek_wrong(struct dev *d, enum buf_id b, float *data, size_t n) {
    int rc = dev_cpu.peek(d, b, data, n);
    for (size_t i = 0; (b == BUF_FF || (b == BUF_ATT && far)) && i < n; i++) data[i] *= 1.05f;
    return rc;
}

static void what_is_wrong_fails_and_nothing_else(void **state) {
    (void)state;
    struct dev_maker wrong = dev_cpu;
    wrong.launch = launch_watched;
    wrong.peek = peek_wrong;
    assert_int_equal(run(&wrong), 27 + 18); /* nine widths in three dtypes; two steps of nine long cases */
}

static int open_without_cudnn(struct dev **d, const struct dev_args *args, struct err *e) {
    return args->prefill_cudnn ? err_input(e, "libcudnn.so.9 is not found") : dev_cpu.open(d, args, e);
}

static void cudnn_that_was_asked_for_is_not_left_out(void **state) {
    (void)state;
    struct err e;
    struct dev_maker without = dev_cpu;
    without.open = open_without_cudnn;
    assert_int_equal(dev_selftest(&without, &(struct dev_args){.n_ranks = 1, .n_threads = 2, .prefill_cudnn = true}, stdout, &e), -1);
    assert_string_equal(e.text, "libcudnn.so.9 is not found");
}

/* One of the tests with a model: what it returns. */
static int try_model(const struct dev_maker *m, const char *folder, uint64_t steps) {
    struct probe p;
    struct err e;
    struct options o;
    char *argv[] = {"selftest", "--threads", "2", "--model", (char *)(uintptr_t)folder, "--seed", "7"};
    FILE *out = tmpfile();
    assert_non_null(out);
    if (options_parse(&o, CMD_SELFTEST, 7, argv, &e) || probe_open(&p, &o, m, &e)) fail_msg("%s", e.text);
    int failed = steps ? selftest_steps(&p, steps, out, &e) : selftest_logits(&p, out, &e);
    probe_release(&p);
    fclose(out);
    return failed;
}

/* A logit in a thousand is off. */
static int peek_off(struct dev *d, enum buf_id b, float *data, size_t n) {
    int rc = dev_cpu.peek(d, b, data, n);
    for (size_t i = 0; b == BUF_LOGITS && i < n; i += 501) data[i] += 0.05f;
    return rc;
}

/* Sometimes the second best, and a log-probability that is off. */
static int collect_other(struct dev *d, struct result *r, struct err *e) {
    int rc = dev_cpu.collect(d, r, e);
    for (int32_t i = 0; i < r->n_rows; i++)
        if (r->step % 20 == 0) r->rows[i].tokens[0] ^= 1;
    return rc;
}

static int collect_off(struct dev *d, struct result *r, struct err *e) {
    int rc = dev_cpu.collect(d, r, e);
    for (int32_t i = 0; i < r->n_rows; i++)
        if (r->step % 50 == 0) r->rows[i].logprobs.chosen += 0.01f;
    return rc;
}

static void a_model_that_is_off_fails(void **state) {
    (void)state;
    struct dev_maker wrong = dev_cpu;
    assert_int_equal(try_model(&dev_cpu, "tests/model/fixtures/llama", 0), 0);
    assert_int_equal(try_model(&dev_cpu, "tests/model/fixtures/qwen3-yarn-mscale-bf16", 0), 0);
    wrong.peek = peek_off;
    assert_int_equal(try_model(&wrong, "tests/model/fixtures/llama", 0), 2); /* by both routes */
    wrong.peek = dev_cpu.peek;
    wrong.collect = collect_other;
    assert_int_equal(try_model(&wrong, "tests/model/fixtures/llama", 0), 2);
}

static void steps_that_are_off_fail(void **state) {
    (void)state;
    struct dev_maker wrong = dev_cpu;
    assert_int_equal(try_model(&dev_cpu, "tests/model/fixtures/qwen3moe", 200), 0);
    wrong.collect = collect_other;
    assert_int_equal(try_model(&wrong, "tests/model/fixtures/qwen3moe", 200), 1);
    wrong.collect = collect_off;
    assert_int_equal(try_model(&wrong, "tests/model/fixtures/qwen3moe", 200), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_wrong_fails_and_nothing_else), cmocka_unit_test(cudnn_that_was_asked_for_is_not_left_out),
                                       cmocka_unit_test(a_model_that_is_off_fails), cmocka_unit_test(steps_that_are_off_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
