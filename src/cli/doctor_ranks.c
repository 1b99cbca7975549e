/* doctor_ranks.c: how fast ranks that are threads of this process exchange sums: a group of threads is made for the measurement and
 * released. */
#include "cli/doctor.h"

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { SMALL_ROUNDS = 501, LARGE_ROUNDS = 9, SPIN_NS = 40000 };
#define TIMEOUT_NS UINT64_C(5000000000)

struct member {
    pthread_t thread;
    struct comm *comm;
    float *buf;
    uint64_t took[SMALL_ROUNDS]; /* ns */
    uint64_t small, large;       /* medians of them */
    int failed;
};

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The median of so many sums, ns. */
static uint64_t sums(struct member *m, size_t bytes, int rounds) {
    struct err e;
    for (int i = 0; i < rounds && !m->failed; i++) {
        uint64_t start = clock_ns();
        m->failed = comm_sum_f32(m->comm, m->buf, bytes / sizeof *m->buf, &e);
        m->took[i] = clock_ns() - start;
    }
    qsort(m->took, (size_t)rounds, sizeof *m->took, by_size);
    return m->took[rounds / 2];
}

/* Each rank on a processor of its own: left alone, the system wakes two that talk on the same one. */
static void pin(int to) {
    cpu_set_t may, one;
    if (sched_getaffinity(0, sizeof may, &may)) return;
    CPU_ZERO(&one);
    for (int cpu = 0, n = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &may) && n++ == to) CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
}

static void *run(void *arg) {
    struct member *m = arg;
    pin(m->comm->rank);
    m->small = sums(m, DOCTOR_SMALL, SMALL_ROUNDS);
    m->large = sums(m, DOCTOR_LARGE, LARGE_ROUNDS);
    return NULL;
}

void doctor_measure_ranks(struct doctor_ranks *r, int n) {
    struct comm_threads *group;
    struct err e;
    *r = (struct doctor_ranks){.n = n};
    if (comm_threads_new(&group, n, TIMEOUT_NS, SPIN_NS, &e)) return;
    struct member *m = mem_zalloc((size_t)n, sizeof *m);
    for (int i = 0; i < n; i++) {
        m[i].comm = comm_threads_rank(group, i);
        m[i].buf = mem_zalloc(DOCTOR_LARGE, 1);
    }
    int started = 0;
    while (started < n && !pthread_create(&m[started].thread, NULL, run, &m[started])) started++;
    if (started < n) comm_threads_fail(group, started, "no thread can be started");
    for (int i = 0; i < started; i++) pthread_join(m[i].thread, NULL);
    if (started == n && !m[0].failed) {
        r->small = (double)m[0].small / 1e9;
        r->large = (double)m[0].large / 1e9;
    }
    for (int i = 0; i < n; i++) free(m[i].buf);
    free(m);
    comm_threads_free(group);
}
