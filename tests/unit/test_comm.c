/* test_comm.c: the ranks' communicator: sums in tree order against a plain twin, gathers, ranks that fail or do not come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX = 40000, ROUNDS = 60, RANKS = 8 };

static uint32_t mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* What rank r brings to element i in a round. Sizes differ so much that another order of the sum shows. */
static float value(int round, int r, size_t i) {
    uint32_t h = mix((uint32_t)round * 7919u + mix((uint32_t)r * 31u + mix((uint32_t)i)));
    return (float)(int32_t)h * (h & 1 ? 0x1p-31f : 0x1p-10f);
}

static float tree(int round, int first, int n, size_t i) {
    return n == 1 ? value(round, first, i) : tree(round, first, n / 2, i) + tree(round, first + n / 2, n / 2, i);
}

static size_t size_of_round(int round) { return round % 7 == 6 ? MAX - (size_t)round : 1 + mix((uint32_t)round) % 3000; }

struct player {
    struct comm *c;
    pthread_t thread;
    int bad, rc;
    struct err err;
};

static void play(struct player *p, float *buf, uint64_t *wide, uint64_t *all, int round) {
    int n = p->c->n_ranks;
    size_t size = size_of_round(round);
    comm_at(p->c, (uint64_t)round, "a test", -1);
    for (size_t i = 0; i < size; i++) buf[i] = value(round, p->c->rank, i);
    if (comm_sum_f32(p->c, buf, size, &p->err)) p->bad++;
    for (size_t i = 0; i < size; i++) {
        float want = tree(round, 0, n, i);
        if (memcmp(&want, &buf[i], sizeof want)) p->bad++;
    }
    for (size_t i = 0; i < 100; i++) wide[i] = (uint64_t)(p->c->rank + 1) * (i + (1ull << 40));
    if (comm_sum_u64(p->c, wide, 100, &p->err)) p->bad++;
    for (size_t i = 0; i < 100; i++)
        if (wide[i] != (uint64_t)(n * (n + 1) / 2) * (i + (1ull << 40))) p->bad++;
    uint64_t mine[3] = {(uint64_t)p->c->rank, (uint64_t)round, 5};
    if (comm_gather(p->c, mine, all, sizeof mine, &p->err)) p->bad++;
    for (int r = 0; r < n; r++)
        if (all[3 * r] != (uint64_t)r || all[3 * r + 1] != (uint64_t)round) p->bad++;
}

static void *player_main(void *arg) {
    struct player *p = arg;
    float *buf = mem_aligned(64, MAX * sizeof *buf);
    uint64_t wide[100], all[3 * RANKS];
    for (int round = 0; round < ROUNDS; round++) play(p, buf, wide, all, round);
    free(buf);
    return NULL;
}

static void sums_and_gathers(void **state) {
    (void)state;
    for (int32_t n = 1; n <= RANKS; n *= 2)
        for (int spin = 0; spin < 2; spin++) {
            struct comm_threads *g;
            struct err e;
            struct player p[RANKS] = {0};
            assert_int_equal(comm_threads_new(&g, n, 3600000000000u, spin ? 20000 : 0, &e), 0);
            for (int32_t r = 0; r < n; r++) {
                p[r].c = comm_threads_rank(g, r);
                assert_int_equal(pthread_create(&p[r].thread, NULL, player_main, &p[r]), 0);
            }
            for (int32_t r = 0; r < n; r++) {
                pthread_join(p[r].thread, NULL);
                assert_int_equal(p[r].bad, 0);
            }
            comm_threads_free(g);
        }
}

static void *wait_in_sum(void *arg) {
    struct player *p = arg;
    float x[4] = {1, 2, 3, 4};
    comm_at(p->c, 17, "the sum after attention", 3);
    p->rc = comm_sum_f32(p->c, x, 4, &p->err);
    return NULL;
}

/* Ranks 0..n-2 are in a sum; the last one does not come, or fails. All must get out with a sentence. */
static void trouble(bool fails, const char *says) {
    enum { N = 4 };
    struct comm_threads *g;
    struct err e;
    struct player p[N] = {0};
    uint64_t start = clock_ns();
    assert_int_equal(comm_threads_new(&g, N, fails ? 3600000000000u : 200000000u, 20000, &e), 0);
    for (int r = 0; r < N - 1; r++) {
        p[r].c = comm_threads_rank(g, r);
        assert_int_equal(pthread_create(&p[r].thread, NULL, wait_in_sum, &p[r]), 0);
    }
    if (fails) usleep(20000), comm_threads_fail(g, N - 1, "rank 3 ended in step 17");
    for (int r = 0; r < N - 1; r++) {
        pthread_join(p[r].thread, NULL);
        assert_int_equal(p[r].rc, -1);
        assert_int_equal(p[r].err.kind, ERR_MACHINE);
        if (!strstr(p[r].err.text, says)) fail_msg("%s", p[r].err.text);
    }
    assert_true(fails || clock_ns() - start >= 200000000u);
    comm_threads_free(g);
}

static void a_rank_that_does_not_come(void **state) {
    (void)state;
    trouble(false, "rank 3 did not come to step 17, the sum after attention of layer 3");
}

static void a_rank_that_fails(void **state) {
    (void)state;
    trouble(true, "rank 3 ended in step 17");
}

static void wrong_sizes(void **state) {
    (void)state;
    struct comm_threads *g;
    struct err e;
    assert_int_equal(comm_threads_new(&g, 3, 1, 0, &e), -1);
    assert_non_null(strstr(e.text, "found 3"));
    assert_int_equal(comm_threads_new(&g, 128, 1, 0, &e), -1);
    int mine = 4, all = 0;
    assert_int_equal(comm_gather(NULL, &mine, &all, sizeof mine, &e), 0); /* one rank needs no communicator */
    assert_int_equal(all, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_and_gathers), cmocka_unit_test(a_rank_that_does_not_come),
                                       cmocka_unit_test(a_rank_that_fails), cmocka_unit_test(wrong_sizes)};
    return cmocka_run_group_tests_name("comm", tests, NULL, NULL);
}
