/* bandwidth.c: see bandwidth.h. The threads live for one call and own a piece of the buffer each. */
#include "hw/bandwidth.h"

#include "base/clock.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct team;

struct worker {
    pthread_t thread;
    struct team *team;
    uint64_t *from, *to; /* half of the piece each */
    uint64_t sum;
};

struct team {
    pthread_mutex_t born; /* held until every thread exists, or one could not be made */
    pthread_barrier_t gate;
    struct worker *workers;
    int n;
    size_t words; /* of each half */
    enum { READ, COPY, STOP } job;
};

static uint64_t read_all(const uint64_t *p, size_t n) {
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++) s[j] += p[i + j];
    return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static void *work(void *arg) {
    struct worker *w = arg;
    struct team *t = w->team;
    pthread_mutex_lock(&t->born);
    pthread_mutex_unlock(&t->born);
    if (t->job == STOP) return NULL;
    /* The thread that uses memory touches it first, so that it lies on its own node. */
    for (size_t i = 0; i < t->words; i++) w->from[i] = i * 0x9e3779b97f4a7c15u;
    memset(w->to, 1, t->words * sizeof *w->to);
    for (;;) {
        pthread_barrier_wait(&t->gate);
        if (t->job == STOP) return NULL;
        if (t->job == READ)
            w->sum += read_all(w->from, t->words) + read_all(w->to, t->words);
        else
            memcpy(w->to, w->from, t->words * sizeof *w->to);
        pthread_barrier_wait(&t->gate);
    }
}

/* Seconds of one round. */
static double round_of(struct team *t, int job) {
    t->job = job;
    pthread_barrier_wait(&t->gate);
    uint64_t start = clock_ns();
    pthread_barrier_wait(&t->gate);
    return (double)(clock_ns() - start) / 1e9;
}

static double best_of(struct team *t, int job, double seconds) {
    double best = round_of(t, job), spent = best;
    for (int rounds = 1; rounds < 3 || spent < seconds; rounds++) {
        double s = round_of(t, job);
        spent += s;
        if (s < best) best = s;
    }
    return best > 0 ? best : 1e-9;
}

static int start(struct team *t, struct err *e) {
    int n = 0;
    pthread_mutex_lock(&t->born);
    while (n < t->n && !pthread_create(&t->workers[n].thread, NULL, work, &t->workers[n])) n++;
    if (n < t->n) t->job = STOP;
    pthread_mutex_unlock(&t->born);
    if (n == t->n) return 0;
    for (int i = 0; i < n; i++) pthread_join(t->workers[i].thread, NULL);
    return err_machine(e, "no thread can be started to measure the memory's bandwidth");
}

static void stop(struct team *t) {
    t->job = STOP;
    pthread_barrier_wait(&t->gate);
    for (int i = 0; i < t->n; i++) pthread_join(t->workers[i].thread, NULL);
}

int bandwidth_measure(struct bandwidth *b, int n_threads, size_t bytes, double seconds, struct err *e) {
    struct team t = {.n = n_threads, .words = bytes / (size_t)n_threads / 2 / 64 * 8};
    size_t all = t.words * 8 * 2 * (size_t)n_threads;
    *b = (struct bandwidth){.threads = n_threads, .bytes = all};
    uint64_t *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return err_machine(e, "the system refused %zu MiB to measure the memory's bandwidth", all >> 20);
    madvise(p, all, MADV_HUGEPAGE);
    t.workers = mem_zalloc((size_t)n_threads, sizeof *t.workers);
    for (int i = 0; i < n_threads; i++)
        t.workers[i] =
            (struct worker){.team = &t, .from = p + t.words * 2 * (size_t)i, .to = p + t.words * (2 * (size_t)i + 1)};
    pthread_mutex_init(&t.born, NULL);
    pthread_barrier_init(&t.gate, NULL, (unsigned)n_threads + 1);
    int rc = start(&t, e);
    if (!rc) {
        b->read = (double)all / best_of(&t, READ, seconds / 2);
        b->copy = (double)all / best_of(&t, COPY, seconds / 2);
        stop(&t);
    }
    pthread_barrier_destroy(&t.gate);
    pthread_mutex_destroy(&t.born);
    free(t.workers);
    munmap(p, all);
    return rc;
}
