/* crowd.c: see crowd.h. Each thread owns its member; the caller's thread owns the rest and reads the members' atomics. Refuses
 * nothing: where the system does not let it bind threads, they stay where they are.
 *
 * A thread was off its core for as long as the clock went on and neither its processor time did nor it slept. Reading processor time
 * is a system call, so it is done after long jobs and now and then only. */
#include "dev/cpu/crowd.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const uint64_t MS = 1000000;
/* A job so long may have been interrupted; read at least so often; lost so much: interrupted; two in such a time are a crowd, which
 * is then believed in for STAY. */
static const uint64_t LONG_JOB = 1 * MS, READ_EVERY = 20 * MS, LOST = 3 * MS / 10, AGAIN = 25 * MS, STAY = 250 * MS;
/* Within the slice that Linux grants on few cores (1.4 ms). However short the nap, the other then gets its own slice. */
static const uint64_t RUN = 13 * MS / 10, NAP = MS / 20;
/* The caller changes places at most so often. */
static const uint64_t SWAP_EVERY = 10 * MS;

struct member {
    _Alignas(64) _Atomic pid_t tid; /* 0: not started yet */
    uint64_t begun, ended, ran_from, read_at, cpu_at, slept, lost_at;
    _Atomic uint64_t crowded; /* until then; 0: never */
};

struct crowd {
    int32_t n, turned; /* thread t is bound to cpu[(t + turned) % n] */
    bool on, bound;
    uint64_t swapped;
    cpu_set_t allowed;
    int *cpu; /* [n] */
    _Atomic uint32_t nap; /* nobody wakes it */
    struct member *m;
};

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct crowd *crowd_new(int32_t n_threads) {
    struct crowd *c = mem_zalloc(1, sizeof *c);
    c->n = n_threads;
    c->cpu = mem_zalloc((size_t)n_threads, sizeof *c->cpu);
    c->m = mem_aligned(64, (size_t)n_threads * sizeof *c->m);
    memset(c->m, 0, (size_t)n_threads * sizeof *c->m);
    c->on = n_threads > 1 && !sched_getaffinity(0, sizeof c->allowed, &c->allowed) && CPU_COUNT(&c->allowed) == n_threads;
    for (int i = 0, t = 0; c->on && i < CPU_SETSIZE && t < n_threads; i++)
        if (CPU_ISSET(i, &c->allowed)) c->cpu[t++] = i;
    return c;
}

void crowd_join(struct crowd *c, int32_t t) { c->m[t].tid = (pid_t)syscall(SYS_gettid); }

void crowd_slept(struct crowd *c, int32_t t, uint64_t ns) {
    c->m[t].slept += ns;
    c->m[t].ran_from = clock_ns();
}

void crowd_begin(struct crowd *c, int32_t t) {
    struct member *m = &c->m[t];
    if (!c->on) return;
    m->begun = clock_ns();
    if (!t && m->begun - m->ended > LOST) m->read_at = 0; /* it may have slept where nobody told */
}

void crowd_end(struct crowd *c, int32_t t) {
    struct member *m = &c->m[t];
    if (!c->on) return;
    uint64_t now = clock_ns();
    m->ended = now;
    if (now - m->begun < LONG_JOB && now - m->read_at < READ_EVERY) return;
    uint64_t cpu = cpu_ns(), wall = now - m->read_at, here = cpu - m->cpu_at + m->slept;
    if (wall < 2 * READ_EVERY && wall > here + LOST) {
        if (now - m->lost_at < AGAIN) atomic_store_explicit(&m->crowded, now + STAY, memory_order_relaxed);
        m->lost_at = now;
    }
    m->read_at = now;
    m->cpu_at = cpu;
    m->slept = 0;
}

bool crowd_tired(struct crowd *c, int32_t t) {
    struct member *m = &c->m[t];
    uint64_t until = atomic_load_explicit(&m->crowded, memory_order_relaxed);
    if (!until || !t) return false;
    uint64_t now = clock_ns();
    if (now >= until) atomic_store_explicit(&m->crowded, 0, memory_order_relaxed);
    return now < until && now - m->ran_from >= RUN;
}

void crowd_nap(struct crowd *c, int32_t t) {
    uint64_t now = clock_ns();
    futex_wait(&c->nap, 0, NAP);
    crowd_slept(c, t, clock_ns() - now);
}

static void bind(struct crowd *c, int32_t t, const cpu_set_t *to) {
    pid_t tid = atomic_load(&c->m[t].tid);
    if (tid) sched_setaffinity(tid, sizeof *to, to); /* 0 would be the caller */
}

static void bind_all(struct crowd *c) {
    for (int32_t t = 0; t < c->n; t++) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(c->cpu[(t + c->turned) % c->n], &one);
        bind(c, t, &one);
    }
    c->bound = true;
}

static void unbind_all(struct crowd *c) {
    for (int32_t t = 0; t < c->n; t++) bind(c, t, &c->allowed);
    c->bound = false;
}

void crowd_free(struct crowd *c) {
    if (!c) return;
    if (c->bound) bind(c, 0, &c->allowed); /* the workers are gone */
    free(c->cpu);
    free(c->m);
    free(c);
}

void crowd_arrange(struct crowd *c) {
    if (!c->on) return;
    uint64_t last = 0, caller = 0;
    for (int32_t t = 0; t < c->n; t++) {
        uint64_t until = atomic_load_explicit(&c->m[t].crowded, memory_order_relaxed);
        if (until > last) last = until;
        if (!t) caller = until;
    }
    if (!last && !c->bound) return;
    uint64_t now = clock_ns();
    if (now >= last) {
        if (c->bound) unbind_all(c);
        atomic_store_explicit(&c->m[0].crowded, 0, memory_order_relaxed);
    } else if (!c->bound) {
        bind_all(c);
        c->swapped = now;
    } else if (caller > now && now - c->swapped > SWAP_EVERY) {
        c->turned = (c->turned + 1) % c->n;
        bind_all(c);
        c->swapped = now;
        atomic_store_explicit(&c->m[0].crowded, 0, memory_order_relaxed);
    }
}

bool crowd_here(const struct crowd *c) { return c->bound; }
