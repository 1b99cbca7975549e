/* test_selftest.c: the comparison that `minisgl selftest` makes: it passes the CPU's fast kernels, and fails a device that is wrong. */
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

static void the_cpu_passes(void **state) {
    (void)state;
    assert_int_equal(run(&dev_cpu), 0);
}

/* A device whose SiLU is off by a hair too much. */
static int peek_wrong(struct dev *d, enum buf_id b, float *data, size_t n) {
    int rc = dev_cpu.peek(d, b, data, n);
    for (size_t i = 0; b == BUF_FF && i < n; i++) data[i] *= 1.05f;
    return rc;
}

static void a_wrong_device_fails(void **state) {
    (void)state;
    struct dev_maker wrong = dev_cpu;
    wrong.peek = peek_wrong;
    assert_int_equal(run(&wrong), 27); /* nine widths in three dtypes */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_cpu_passes), cmocka_unit_test(a_wrong_device_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
