/* pool.c: fork and join for the compute threads of a rank. The rank thread owns `job`; everything that others touch is atomic.
 * It refuses nested jobs by not having them.
 *
 * A range is one word, (end << 32 | next): one fetch_add takes a piece and tells at once whether it was valid, so a
 * thread that comes late to an old job can never take a piece that is not there. Whoever holds a piece may read `job`, since
 * the caller does not return, and so cannot change it, before that piece is counted in `done`. */
#include "dev/cpu/pool.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"
#include "dev/cpu/crowd.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct range {
    _Alignas(64) _Atomic uint64_t word;
};

struct job {
    pool_fn *fn;
    void *arg;
};

struct worker {
    struct pool *pool;
    int32_t id;
    pthread_t thread;
};

struct pool {
    int32_t n_threads, n_started;
    struct job job;
    struct range *ranges;
    struct worker *workers;
    struct crowd *crowd;
    bool joined; /* the caller, to the crowd */
    _Alignas(64) _Atomic uint32_t epoch; /* counts jobs; futex of the sleeping workers */
    _Atomic int32_t sleepers;
    _Atomic bool stop;
    _Alignas(64) _Atomic uint32_t done; /* finished pieces of this job; futex of the sleeping caller */
    _Atomic uint32_t wanted;            /* pieces of this job while the caller sleeps, else 0 */
};

/* Spin until *word differs from value, for limit_ns at most. */
static bool spin_changed(_Atomic uint32_t *word, uint32_t value, uint64_t limit_ns) {
    uint64_t end = 0;
    for (;;) {
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value) return true;
            cpu_relax();
        }
        uint64_t now = clock_ns();
        if (!end) end = now + limit_ns;
        if (now >= end) return false;
    }
}

static void count_done(struct pool *p, uint32_t n) {
    if (!n) return;
    uint32_t done = atomic_fetch_add(&p->done, n) + n;
    if (done == atomic_load(&p->wanted)) futex_wake(&p->done, 1);
}

/* Take and run pieces of one range until it is empty; *n counts those that `done` does not know of. After a nap the range may be
 * another job's: no matter. */
static void drain(struct pool *p, struct range *r, int32_t thread, uint32_t *n) {
    for (;;) {
        uint64_t w = atomic_load_explicit(&r->word, memory_order_relaxed);
        if ((uint32_t)w >= (uint32_t)(w >> 32)) return;
        w = atomic_fetch_add_explicit(&r->word, 1, memory_order_acq_rel);
        if ((uint32_t)w >= (uint32_t)(w >> 32)) return;
        p->job.fn(p->job.arg, (int32_t)(uint32_t)w, thread);
        ++*n;
        if (!crowd_tired(p->crowd, thread)) continue;
        count_done(p, *n);
        *n = 0;
        crowd_nap(p->crowd, thread);
    }
}

static void work(struct pool *p, int32_t thread) {
    uint32_t n = 0;
    crowd_begin(p->crowd, thread);
    for (int32_t i = 0; i < p->n_threads; i++) drain(p, &p->ranges[(thread + i) % p->n_threads], thread, &n);
    crowd_end(p->crowd, thread);
    count_done(p, n);
}

/* Sleep while *word is value. */
static void sleep_on(struct pool *p, int32_t thread, _Atomic uint32_t *word, uint32_t value) {
    uint64_t from = clock_ns();
    futex_wait(word, value, 0);
    crowd_slept(p->crowd, thread, clock_ns() - from);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct pool *p = w->pool;
    uint32_t seen = 0;
    crowd_join(p->crowd, w->id);
    for (;;) {
        if (!spin_changed(&p->epoch, seen, POOL_SPIN_NS)) {
            atomic_fetch_add(&p->sleepers, 1);
            while (atomic_load(&p->epoch) == seen) sleep_on(p, w->id, &p->epoch, seen);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen = atomic_load(&p->epoch);
        if (atomic_load(&p->stop)) return NULL;
        work(p, w->id);
    }
}

static void publish(struct pool *p) {
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->sleepers)) futex_wake(&p->epoch, p->n_threads);
}

static void wait_done(struct pool *p, uint32_t n) {
    for (;;) {
        uint32_t done = atomic_load(&p->done);
        if (done == n) break;
        if (spin_changed(&p->done, done, crowd_here(p->crowd) ? POOL_SPIN_CROWD_NS : POOL_SPIN_NS)) continue;
        atomic_store(&p->wanted, n);
        if (atomic_load(&p->done) == done) sleep_on(p, 0, &p->done, done);
    }
    atomic_store(&p->wanted, 0);
}

void pool_run(struct pool *p, pool_fn *fn, void *arg, int32_t n) {
    if (p->n_threads == 1 || n <= 1) {
        for (int32_t i = 0; i < n; i++) fn(arg, i, 0);
        return;
    }
    if (!p->joined) crowd_join(p->crowd, 0);
    p->joined = true;
    crowd_arrange(p->crowd);
    p->job = (struct job){fn, arg};
    atomic_store(&p->done, 0);
    for (int32_t t = 0; t < p->n_threads; t++) {
        uint64_t from = (uint64_t)n * (uint64_t)t / (uint64_t)p->n_threads;
        uint64_t to = (uint64_t)n * (uint64_t)(t + 1) / (uint64_t)p->n_threads;
        atomic_store_explicit(&p->ranges[t].word, to << 32 | from, memory_order_release);
    }
    publish(p);
    work(p, 0);
    wait_done(p, (uint32_t)n);
}

int pool_new(struct pool **out, int32_t n_threads, struct err *e) {
    if (n_threads < 1 || n_threads > POOL_MAX_THREADS)
        return err_input(e, "expected 1 to %d compute threads, found %d", POOL_MAX_THREADS, n_threads);
    struct pool *p = mem_aligned(64, sizeof *p);
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->ranges = mem_aligned(64, (size_t)n_threads * sizeof *p->ranges);
    memset(p->ranges, 0, (size_t)n_threads * sizeof *p->ranges);
    p->crowd = crowd_new(n_threads);
    p->workers = mem_zalloc((size_t)n_threads, sizeof *p->workers);
    for (int32_t t = 1; t < n_threads; t++) {
        p->workers[t] = (struct worker){.pool = p, .id = t};
        if (pthread_create(&p->workers[t].thread, NULL, worker_main, &p->workers[t])) {
            pool_free(p);
            return err_machine(e, "the system refused compute thread %d of %d; lower the number of threads", t, n_threads);
        }
        p->n_started = t;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    publish(p);
    for (int32_t t = 1; t <= p->n_started; t++) pthread_join(p->workers[t].thread, NULL);
    crowd_free(p->crowd);
    free(p->workers);
    free(p->ranges);
    free(p);
}

int32_t pool_threads(const struct pool *p) { return p->n_threads; }
