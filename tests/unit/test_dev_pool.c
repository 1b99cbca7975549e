/* test_dev_pool.c: the compute threads: every piece once, nothing before, nothing left behind; run it under tsan too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dev/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
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

static atomic_int stop;

static void *be_busy(void *arg) {
    while (!atomic_load(&stop)) (void)arg;
    return NULL;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void longer_piece(void *arg, int32_t i, int32_t thread) {
    uint64_t end = now_ns() + 30000;
    while (now_ns() < end) {}
    piece(arg, i, thread);
}

/* Threads that lose their cores are bound, take naps and change places: nothing is lost, and in the end all is as before. */
static void in_a_crowd(void **state) {
    (void)state;
    enum { BUSY_MOST = 8, JOBS = 150, PIECES = 200 };
    static struct job j;
    cpu_set_t before, after;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    int32_t n = CPU_COUNT(&before) < BUSY_MOST ? CPU_COUNT(&before) : BUSY_MOST;
    struct err e;
    struct pool *p;
    pthread_t busy[BUSY_MOST];
    assert_int_equal(pool_new(&p, n, &e), 0);
    for (int32_t i = 0; i < n; i++) assert_int_equal(pthread_create(&busy[i], NULL, be_busy, NULL), 0);
    for (int32_t r = 0; r < JOBS; r++) {
        memset(&j, 0, sizeof j);
        j.base = r + 1;
        pool_run(p, longer_piece, &j, PIECES);
        for (int32_t i = 0; i < PIECES; i++) assert_int_equal(j.count[i], r + 1);
    }
    atomic_store(&stop, 1);
    for (int32_t i = 0; i < n; i++) pthread_join(busy[i], NULL);
    pool_free(p);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
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
        cmocka_unit_test(in_a_crowd),
        cmocka_unit_test(too_many_threads_is_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
