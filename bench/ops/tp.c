/* tp.c: what splitting a model over CPU ranks costs: one rank with N threads against N ranks with one thread each, the same cores,
 * Qwen3-0.6B's shape with random bf16 weights, steps of both in turn; and the time of an all-reduce between pinned threads.
 *
 *   build/bench/ops/tp [RANKS [RUNS]]
 *
 * Best and median of the runs; the ratio is unsplit over split, so 1 is no loss. */
#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "engine/engine.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 16, MAX_T = 512, MAX_S = 16, MAX_LEN = 1024, N_PAGES = MAX_S * MAX_LEN / PAGE + 1, MOST = 64, ROUNDS = 20000 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- all-reduce ---- */

struct player {
    struct comm *c;
    size_t n;
    double *seconds; /* rank 0: [ROUNDS] */
    pthread_t thread;
};

static void *player_main(void *arg) {
    struct player *p = arg;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(p->c->rank, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
    float *buf = mem_aligned(64, p->n * sizeof *buf);
    memset(buf, 0, p->n * sizeof *buf);
    struct err e;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t from = clock_ns();
        if (comm_sum_f32(p->c, buf, p->n, &e)) fprintf(stderr, "%s\n", e.text), exit(1);
        if (p->seconds) p->seconds[i] = (double)(clock_ns() - from) * 1e-9;
    }
    free(buf);
    return NULL;
}

static void bench_sum(int32_t ranks, size_t bytes) {
    struct comm_threads *g;
    struct err e;
    struct player p[COMM_MAX_RANKS];
    double *t = mem_array(ROUNDS, sizeof *t);
    if (comm_threads_new(&g, ranks, 60000000000u, 100000, &e)) fprintf(stderr, "%s\n", e.text), exit(2);
    for (int32_t r = 0; r < ranks; r++) {
        p[r] = (struct player){comm_threads_rank(g, r), bytes / 4, r ? NULL : t, 0};
        pthread_create(&p[r].thread, NULL, player_main, &p[r]);
    }
    for (int32_t r = 0; r < ranks; r++) pthread_join(p[r].thread, NULL);
    qsort(t, ROUNDS, sizeof *t, by_value);
    printf("all-reduce of %7zu bytes over %d pinned threads: median %.2f us, P90 %.2f us, %.1f GB/s\n", bytes, ranks, t[ROUNDS / 2] * 1e6,
           t[ROUNDS * 9 / 10] * 1e6, (double)bytes / t[ROUNDS / 2] * 1e-9);
    comm_threads_free(g);
    free(t);
}

/* ---- the model ---- */

struct side {
    struct weights w[8];
    struct engine *g;
    double t[MOST];
};

static void open_side(struct side *s, const struct config *c, int32_t ranks, int32_t threads, const struct batch_limits *lim) {
    struct err e;
    for (int32_t r = 0; r < ranks; r++)
        if (weights_dummy(&s->w[r], c, (struct shard){r, ranks}, 1, 2, &e)) fprintf(stderr, "%s\n", e.text), exit(2);
    struct engine_args a = {.config = c, .weights = s->w, .n_ranks = ranks, .maker = &dev_cpu, .dev = {.n_threads = threads}, .limits = *lim,
                            .max_len = MAX_LEN, .page_size = PAGE, .n_pages = N_PAGES, .kv_dtype = DT_BF16,
                            .comm_timeout_ns = 60000000000u, .comm_spin_ns = 40000};
    if (engine_open(&s->g, &a, &e)) fprintf(stderr, "%s\n", e.text), exit(2);
}

static double step(struct side *s, struct batch *b, int32_t seqs, int32_t n, int32_t pos) {
    static uint64_t number;
    struct err e;
    const struct result *r;
    batch_reset(b, ++number);
    for (int32_t i = 0; i < seqs; i++) {
        for (int32_t k = 0; k < n; k++) batch_tokens(b)[b->n_given + k] = (i * 7919 + k * 31 + (int32_t)number) % 150000;
        batch_seqs(b)[b->n_seqs++] = (struct batch_seq){i, pos, n, b->n_given, b->n_rows++};
        b->n_given += n;
        b->n_tokens += n;
        for (int32_t k = 0; !pos && k < MAX_LEN / PAGE; k++)
            batch_pages(b)[b->n_pages++] = (struct batch_page){i, k, 1 + i * (MAX_LEN / PAGE) + k};
    }
    batch_seal(b);
    uint64_t from = clock_ns();
    if (engine_launch(s->g, b, &e) || engine_collect(s->g, &r, &e)) fprintf(stderr, "%s\n", e.text), exit(1);
    return (double)(clock_ns() - from) * 1e-9;
}

static void compare(struct side *a, struct side *b, struct batch *batch, const char *name, int32_t seqs, int32_t n, int32_t pos, int runs) {
    for (int k = 0; k < 2; k++) {
        struct side *s = k ? b : a;
        if (pos) step(s, batch, seqs, 1, 0);
        step(s, batch, seqs, n, pos);
    }
    for (int i = 0; i < runs; i++) {
        a->t[i] = step(a, batch, seqs, n, pos);
        b->t[i] = step(b, batch, seqs, n, pos);
    }
    qsort(a->t, (size_t)runs, sizeof *a->t, by_value);
    qsort(b->t, (size_t)runs, sizeof *b->t, by_value);
    printf("%-20s one rank %8.2f ms (median %8.2f), split %8.2f ms (median %8.2f); ratio %.3f of the best, %.3f of the medians\n", name, a->t[0] * 1e3,
           a->t[runs / 2] * 1e3, b->t[0] * 1e3, b->t[runs / 2] * 1e3, a->t[0] / b->t[0], a->t[runs / 2] / b->t[runs / 2]);
}

int main(int argc, char **argv) {
    int32_t ranks = argc > 1 ? atoi(argv[1]) : 2;
    int runs = argc > 2 ? atoi(argv[2]) : 15;
    if (runs < 1 || runs > MOST) runs = MOST;
    bench_sum(ranks, 8192);
    bench_sum(ranks, 65536);
    bench_sum(ranks, 2 << 20);
    struct config c;
    struct err e;
    if (config_open(&c, "models/Qwen/Qwen3-0.6B", &e)) return fprintf(stderr, "%s\n", e.text), 2;
    struct batch_limits lim = {MAX_T, MAX_S, N_PAGES};
    struct side *a = mem_zalloc(1, sizeof *a), *b = mem_zalloc(1, sizeof *b);
    struct batch *batch = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    open_side(a, &c, 1, ranks, &lim);
    open_side(b, &c, ranks, 1, &lim);
    compare(a, b, batch, "decode of 1 at 128", 1, 1, 128, runs);
    compare(a, b, batch, "decode of 16 at 128", 16, 1, 128, runs);
    compare(a, b, batch, "prefill of 512", 1, 512, 0, runs > 5 ? 5 : runs);
    return 0;
}
