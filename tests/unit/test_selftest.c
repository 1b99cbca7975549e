/* test_selftest.c: the comparison that `minisgl selftest` makes: of a device that is wrong in one operator (the CPU's, meddled with) it fails that
 * operator's cases and passes all others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

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

/* A device whose SiLU is off by a hair too much. */
static int peek_wrong(struct dev *d, enum buf_id b, float *data, size_t n) {
    int rc = dev_cpu.peek(d, b, data, n);
    for (size_t i = 0; b == BUF_FF && i < n; i++) data[i] *= 1.05f;
    return rc;
}

static void what_is_wrong_fails_and_nothing_else(void **state) {
    (void)state;
    struct dev_maker wrong = dev_cpu;
    wrong.peek = peek_wrong;
    assert_int_equal(run(&wrong), 27); /* nine widths in three dtypes */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_wrong_fails_and_nothing_else)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
