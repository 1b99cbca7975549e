/* comm_test.c: see comm_test.h. The calling thread starts the ranks' threads and waits for them. */
#include "dev/comm_test.h"

#include "base/mem.h"
#include "comm/comm.h"

#include <pthread.h>
#include <stdlib.h>

enum { HOST_TIMEOUT_S = 300, SPIN_NS = 20000 };

struct rank {
    const struct comm_test_args *a;
    struct comm_threads *group;
    struct dev_args dev;
    struct dev_comm_test test;
    struct err err;
    int rc;
    pthread_t thread;
};

static void *rank_main(void *arg) {
    struct rank *r = arg;
    r->rc = r->a->maker->comm_test(&r->dev, &r->test, &r->err);
    if (r->rc && r->group) comm_threads_fail(r->group, r->dev.rank, r->err.text);
    return NULL;
}

static int start(struct rank *ranks, const struct comm_test_args *a, struct comm_threads *group, FILE *out, struct err *e) {
    for (int32_t i = 0; i < a->n_ranks; i++) {
        struct rank *r = &ranks[i];
        r->a = a;
        r->group = group;
        r->dev = (struct dev_args){.rank = i, .local = i, .n_ranks = a->n_ranks, .comm = group ? comm_threads_rank(group, i) : NULL, .gpus = a->gpus,
                                   .gpu_comm = a->name, .no_windows = a->no_windows, .comm_timeout_ns = (uint64_t)a->timeout_s * 1000000000};
        r->test = (struct dev_comm_test){.rounds = a->rounds, .time = a->time, .absent = a->absent, .out = i ? NULL : out};
        if (!pthread_create(&r->thread, NULL, rank_main, r)) continue;
        err_machine(e, "the system refused the thread of rank %d", i);
        if (group) comm_threads_fail(group, i, e->text);
        return i;
    }
    return a->n_ranks;
}

/* The rank that broke by itself; others repeat what it said, as a broken machine. */
static const struct rank *cause(const struct rank *ranks, int32_t n) {
    const struct rank *first = NULL;
    for (int32_t i = n - 1; i >= 0; i--)
        if (ranks[i].rc && (!first || ranks[i].err.kind == ERR_INPUT || first->err.kind != ERR_INPUT)) first = &ranks[i];
    return first;
}

int dev_comm_test(const struct comm_test_args *a, FILE *out, double *us, struct err *e) {
    struct comm_threads *group = NULL;
    int failed = 0;
    if (a->n_ranks > 1 && comm_threads_new(&group, a->n_ranks, HOST_TIMEOUT_S * 1000000000ull, SPIN_NS, e)) return -1;
    struct rank *ranks = mem_zalloc((size_t)a->n_ranks, sizeof *ranks);
    int32_t started = start(ranks, a, group, out, e);
    for (int32_t i = 0; i < started; i++) pthread_join(ranks[i].thread, NULL);
    const struct rank *broken = cause(ranks, started);
    if (broken) *e = broken->err;
    for (int32_t i = 0; i < started; i++) failed += ranks[i].test.failed;
    if (us) memcpy(us, ranks[0].test.us, sizeof ranks[0].test.us);
    free(ranks);
    comm_threads_free(group);
    return broken || started < a->n_ranks ? -1 : failed;
}
