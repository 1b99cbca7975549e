/* test_dev_pool.c: the compute threads: every piece once, nothing before, nothing left behind; run it under tsan too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/cpu/pool.h"

#include <string.h>
#include <time.h>

enum { MOST = 4096 };

struct job {
    int32_t count[MOST]; /* plain: pieces are disjoint, and pool_run orders them with the caller */
    int32_t base;
};

static void piece(void *arg, int32_t i, int32_t thread) {
    struct job *j = arg;
    if (thread >= 0 && thread < POOL_MAX_THREADS) j->count[i] += j->base;
}

static void every_piece_runs_once(void **state) {
    (void)state;
    static struct job j;
    struct err e;
    for (int32_t n_threads = 1; n_threads <= 5; n_threads++) {
        struct pool *p;
        assert_int_equal(pool_new(&p, n_threads, &e), 0);
        assert_int_equal(pool_threads(p), n_threads);
        for (int32_t r = 0; r < 2000; r++) {
            int32_t n = r % 7 == 0 ? r * 2 : r % 7;
            memset(&j, 0, sizeof j);
            j.base = r + 1;
            pool_run(p, piece, &j, n);
            for (int32_t i = 0; i < MOST; i++) assert_int_equal(j.count[i], i < n ? r + 1 : 0);
        }
        pool_free(p);
    }
}

/* Long enough apart for the threads to fall asleep. */
static void sleepers_wake_up(void **state) {
    (void)state;
    static struct job j;
    struct err e;
    struct pool *p;
    assert_int_equal(pool_new(&p, 3, &e), 0);
    for (int32_t r = 0; r < 30; r++) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        memset(&j, 0, sizeof j);
        j.base = 1;
        pool_run(p, piece, &j, 300);
        for (int32_t i = 0; i < 300; i++) assert_int_equal(j.count[i], 1);
    }
    pool_free(p);
}

static void slow_piece(void *arg, int32_t i, int32_t thread) {
    if (i == 5) nanosleep(&(struct timespec){0, 2000000}, NULL);
    piece(arg, i, thread);
}

/* One slow piece holds up nobody but whoever waits for the whole. */
static void the_caller_waits_for_the_last_piece(void **state) {
    (void)state;
    static struct job j;
    struct err e;
    struct pool *p;
    assert_int_equal(pool_new(&p, 3, &e), 0);
    for (int32_t r = 0; r < 20; r++) {
        memset(&j, 0, sizeof j);
        j.base = 1;
        pool_run(p, slow_piece, &j, 9);
        for (int32_t i = 0; i < 9; i++) assert_int_equal(j.count[i], 1);
    }
    pool_free(p);
}

static void too_many_threads_is_a_sentence(void **state) {
    (void)state;
    struct err e = {0};
    struct pool *p;
    assert_int_equal(pool_new(&p, POOL_MAX_THREADS + 1, &e), -1);
    assert_non_null(strstr(e.text, "257"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once),
        cmocka_unit_test(sleepers_wake_up),
        cmocka_unit_test(the_caller_waits_for_the_last_piece),
        cmocka_unit_test(too_many_threads_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
