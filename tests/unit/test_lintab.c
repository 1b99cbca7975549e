/* test_lintab.c: tables of matrix products: what is written is read again, lookups, merging, and lines that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "dev/lintab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char text[] = "# a comment\n"
                           "gpu 132 90 130100 NVIDIA H200\n"
                           "4096 1024 bf16 bf16 0 64 lt 66 20 36 1 0 0 0 0 5 3.10 7.00\n"
                           "\n"
                           "4096 1024 bf16 bf16 0 16 own 128 4 2 2.40 6.90\r\n"
                           "4096 1024 bf16 bf16 1 1 gemv 2.00 0\n"
                           "151936 1024 bf16 f32 0 16 lt 66 20 36 1 0 0 0 0 5 99 100\n"
                           "gpu 132 90 130100 NVIDIA H100 80GB HBM3\n"
                           "4096 1024 bf16 bf16 0 64 own 64 2 1 4 5\n";
static const struct lintab_shape qkv = {.n = 4096, .k = 1024, .x = LINTAB_BF16, .y = LINTAB_BF16};

static void read_it(struct lintab *t, const char *s, size_t n) {
    struct err e;
    if (lintab_read(t, s, n, &e)) fail_msg("%s", e.text);
}

static void a_gpu_finds_its_part(void **state) {
    (void)state;
    struct lintab t;
    read_it(&t, text, sizeof text - 1);
    struct lintab_gpu g = {132, 90, 130102, "NVIDIA H200"};
    assert_int_equal(t.n_rows, 5);
    assert_int_equal(lintab_part(&t, &g), 0);
    strcpy(g.name, "NVIDIA H100 80GB HBM3");
    assert_int_equal(lintab_part(&t, &g), 1);
    strcpy(g.name, "NVIDIA H800");
    assert_int_equal(lintab_part(&t, &g), 0); /* the same processors */
    g.version = 130200;
    assert_int_equal(lintab_part(&t, &g), -1);
    g = (struct lintab_gpu){114, 90, 130100, "NVIDIA H100 PCIe"};
    assert_int_equal(lintab_part(&t, &g), -1);
    lintab_release(&t);
}

static void the_next_larger_row_stands_in(void **state) {
    (void)state;
    struct lintab t;
    read_it(&t, text, sizeof text - 1);
    assert_int_equal(lintab_find(&t, 0, &qkv, 16)->way.kind, LINTAB_OWN);
    assert_int_equal(lintab_find(&t, 0, &qkv, 8)->rows, 16);
    assert_null(lintab_find(&t, 0, &qkv, 4)); /* more than twice as many is another matter */
    assert_int_equal(lintab_find(&t, 0, &qkv, 40)->rows, 64);
    assert_int_equal(lintab_find(&t, 0, &qkv, 40)->way.v[LT_CLUSTER], 5);
    assert_null(lintab_find(&t, 0, &qkv, 72));
    assert_null(lintab_find(&t, -1, &qkv, 64));
    struct lintab_shape other = qkv;
    other.bias = true;
    assert_int_equal(lintab_find(&t, 0, &other, 1)->way.kind, LINTAB_GEMV);
    other.y = LINTAB_F32;
    assert_null(lintab_find(&t, 0, &other, 1));
    lintab_release(&t);
}

static void merging_and_writing(void **state) {
    (void)state;
    struct lintab t, again;
    char *out;
    size_t n;
    read_it(&t, text, sizeof text - 1);
    struct lintab_row r = {.shape = qkv, .rows = 64, .way = {.kind = LINTAB_GEMV}, .us = 1, .first_us = 2};
    struct lintab_gpu h200 = {132, 90, 130100, "NVIDIA H200"}, other = {108, 80, 130100, "NVIDIA A100-SXM4-80GB"};
    lintab_put(&t, &h200, &r);
    assert_int_equal(t.n_rows, 5);
    r.rows = 72;
    lintab_put(&t, &h200, &r);
    lintab_put(&t, &other, &r);
    assert_int_equal(t.n_rows, 7);
    FILE *f = open_memstream(&out, &n);
    lintab_write(&t, f);
    fclose(f);
    read_it(&again, out, n);
    assert_int_equal(again.n_rows, 7);
    assert_int_equal(again.n_parts, 3);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(again.rows[i].rows, t.rows[i].rows);
        assert_memory_equal(&again.rows[i].way, &t.rows[i].way, sizeof r.way);
    }
    assert_int_equal(lintab_find(&again, 0, &qkv, 64)->way.kind, LINTAB_GEMV);
    assert_int_equal(lintab_find(&again, 2, &qkv, 72)->way.kind, LINTAB_GEMV);
    free(out);
    lintab_release(&t);
    lintab_release(&again);
}

static void bad_lines_are_named(void **state) {
    (void)state;
    static const char *const bad[] = {"4096 1024 bf16 bf16 0 64 gemv 1 1\n", "gpu 132 90 130100\n", "gpu 132 90 x NVIDIA\n", "gpu -1 90 1 A\n",
                                      "gpu 1 90 1 A\n1 1 bf16 int8 0 1 gemv 1 1\n", "gpu 1 90 1 A\n1 1 bf16 f32 2 1 gemv 1 1\n",
                                      "gpu 1 90 1 A\n1 1 bf16 f32 0 1 magic 1 1\n", "gpu 1 90 1 A\n1 1 bf16 f32 0 1 own 1 1 1 1\n",
                                      "gpu 1 90 1 A\n1 1 bf16 f32 0 1 gemv 1 1 1\n", "gpu 1 90 1 A\n1 1 bf16 f32 0 1 gemv nan 1\n",
                                      "gpu 1 90 1 A\n99999999999 1 bf16 f32 0 1 gemv 1 1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct lintab t;
        struct err e = {0};
        assert_int_equal(lintab_read(&t, bad[i], strlen(bad[i]), &e), -1);
        assert_int_equal(e.kind, ERR_INPUT);
        assert_non_null(strstr(e.text, strchr(bad[i], '\n')[1] ? "line 2" : "line 1"));
        lintab_release(&t);
    }
    struct lintab t;
    struct err e;
    assert_int_equal(lintab_read(&t, "gpu 1\0", 6, &e), -1);
    lintab_release(&t);
}

static void the_program_s_table_is_good(void **state) {
    (void)state;
    char *all;
    size_t n;
    struct err e;
    struct lintab t;
    if (file_read("src/dev/cuda/products.txt", LINTAB_BYTES_MAX, &all, &n, &e)) fail_msg("%s", e.text);
    read_it(&t, all, n);
    for (int32_t i = 0; i < t.n_rows; i++) {
        const struct lintab_row *r = &t.rows[i];
        assert_true(r->rows > 0 && r->us > 0 && r->way.kind <= LINTAB_GEMV);
        assert_ptr_equal(lintab_find(&t, r->part, &r->shape, r->rows), r); /* none twice */
    }
    lintab_release(&t);
    free(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_gpu_finds_its_part), cmocka_unit_test(the_next_larger_row_stands_in),
                                       cmocka_unit_test(merging_and_writing), cmocka_unit_test(bad_lines_are_named),
                                       cmocka_unit_test(the_program_s_table_is_good)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
