/* test_room.c: dividing a rank's memory, and the advice when a model does not fit: every option that is named must do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/room.h"
#include "hw/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct room_args args_for(const struct config *c, size_t memory) {
    return (struct room_args){.fit = {.config = c, .n_ranks = 1, .maker = &dev_cpu, .dev = {.n_threads = 1}, .limits = {8192 + 256, 256, 20000},
                                      .max_len = 40960, .page_size = 16, .dtype = DT_BF16, .kv_dtype = DT_BF16},
                              .prefill = 8192, .max_running = 256, .num_pages = -1, .memory = memory, .ratio = 0.9};
}

static void open_config(struct config *c, const char *dir) {
    struct err e;
    if (config_open(c, dir, &e)) fail_msg("%s", e.text);
}

static void what_is_left_goes_to_pages(void **state) {
    (void)state;
    struct config c;
    struct room r;
    struct err e = {0};
    open_config(&c, "models/Qwen/Qwen3-8B");
    struct room_args a = args_for(&c, (size_t)80 << 30);
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
    size_t all = r.fit.weights + r.fit.buffers + r.fit.kv;
    assert_true(all <= (size_t)(0.9 * (double)a.memory) && all + r.fit.page > (size_t)(0.9 * (double)a.memory));
    assert_int_equal(r.max_len, 40960);
    a.memory = (size_t)22 << 30; /* few pages: sequences are shorter */
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.max_len, (r.n_pages - 1) * 16);
    a.memory = (size_t)1 << 44; /* no more pages than can be used */
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
    assert_int_equal(r.n_pages, 256 * (40960 / 16) + 1);
    config_release(&c);
}

/* The value behind an option in the advice, or -1. */
static double advised(const char *text, const char *option) {
    const char *at = strstr(text, "each alone: ");
    at = at ? strstr(at, option) : NULL;
    return at ? atof(at + strlen(option) + 1) : -1;
}

/* Take what is advised for an option; it must fit, and the value before it must not. */
static void check_advice(const struct config *c, size_t memory, const char *option, double expected) {
    struct room_args a = args_for(c, memory);
    struct room r;
    struct err e = {0};
    assert_int_equal(room_plan(&r, &a, &e), -1);
    assert_int_equal(e.kind, ERR_INPUT);
    double v = advised(e.text, option);
    if (expected >= 0 && v != expected) fail_msg("expected %s %g: %s", option, expected, e.text);
    if (v < 0) fail_msg("no %s in: %s", option, e.text);
    if (!strcmp(option, "--tp")) a.fit.n_ranks = (int32_t)v;
    if (!strcmp(option, "--memory-ratio")) a.ratio = v;
    if (!strcmp(option, "--max-prefill-length")) a.fit.limits.max_tokens = (int32_t)v + a.max_running;
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
}

static void advice_is_computed(void **state) {
    (void)state;
    struct config c;
    struct room r;
    struct err e = {0};
    open_config(&c, "models/Qwen/Qwen3-14B");
    check_advice(&c, (size_t)20 << 30, "--tp", 2);
    check_advice(&c, (size_t)13 << 30, "--tp", 4);
    struct room_args a = args_for(&c, (size_t)1 << 40);
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
    size_t tight = (size_t)((double)(r.fit.weights + r.fit.buffers) / 0.9); /* the buffers are what is too much */
    check_advice(&c, tight, "--max-prefill-length", 4096);
    check_advice(&c, tight, "--memory-ratio", -1);
    a = args_for(&c, (size_t)9 << 30);
    a.host = true; /* more ranks of one machine do not help */
    assert_int_equal(room_plan(&r, &a, &e), -1);
    assert_true(advised(e.text, "--tp") < 0);
    assert_non_null(strstr(e.text, "a smaller model or more memory"));
    a = args_for(&c, (size_t)80 << 30);
    a.num_pages = 1000000;
    assert_int_equal(room_plan(&r, &a, &e), -1);
    double pages = advised(e.text, "--num-pages");
    assert_true(pages > 1000 && pages < 1000000);
    a.num_pages = (int64_t)pages;
    if (room_plan(&r, &a, &e)) fail_msg("%s", e.text);
    a.num_pages++;
    assert_int_equal(room_plan(&r, &a, &e), -1);
    a = args_for(&c, (size_t)80 << 30);
    a.fit.n_ranks = 3;
    assert_int_equal(room_plan(&r, &a, &e), -1);
    assert_non_null(strstr(e.text, "1, 2, 4 or 8"));
    config_release(&c);
}

static void as_many_gpus_as_ranks(void **state) {
    (void)state;
    struct err e = {0};
    assert_int_equal(gpus_enough(&(struct gpus){.n = 4}, 4, &e), 0);
    assert_int_equal(gpus_enough(&(struct gpus){.n = 3}, 4, &e), -1);
    assert_int_equal(e.kind, ERR_INPUT);
    assert_non_null(strstr(e.text, "4 ranks need 4 GPUs and this machine has 3 (`nvidia-smi --list-gpus`"));
    assert_non_null(strstr(e.text, "--tp of at most 2"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_left_goes_to_pages), cmocka_unit_test(advice_is_computed),
                                       cmocka_unit_test(as_many_gpus_as_ranks)};
    return cmocka_run_group_tests_name("room", tests, NULL, NULL);
}
