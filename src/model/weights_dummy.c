/* weights_dummy.c: weights made from the config alone, in memory. The calling rank's thread and helpers that it starts
 * and joins; the views are constant afterwards. Refuses (as a broken machine) sizes that the system has no memory for.
 */
#include "base/mem.h"
#include "model/dummy.h"
#include "model/owned.h"
#include "model/slots.h"
#include "model/weights.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, THREADS_MAX = 64 };
static const size_t JOB_ELEMENTS = 2 << 20;

/* Rows [row, row + n) of the rank's part of one tensor. */
struct job {
    uint64_t key;
    size_t full_k, col; /* of the whole tensor */
    size_t row, n, k;   /* row: of the whole tensor */
    bool norm;
    char *to;
};

struct make {
    struct weights *w;
    const struct config *c;
    struct shard shard;
    struct dummy d;
    char *base;
    size_t at; /* bytes laid out so far */
    struct job *jobs;
    size_t n_jobs, cap;
    atomic_size_t next;
};

static size_t part_bytes(const struct make *m, const struct part *p) {
    return (size_t)p->n * (size_t)p->k * dtype_size(m->c->dtype);
}

static int count_slot(void *arg, const struct slot *s) {
    struct make *m = arg;
    struct part p = slot_part(s, m->c, m->shard);
    m->at += (part_bytes(m, &p) + ALIGN - 1) / ALIGN * ALIGN;
    return 0;
}

static void add_jobs(struct make *m, const struct slot *s, const struct part *p, char *to) {
    const size_t size = dtype_size(m->c->dtype), k = (size_t)p->k;
    const size_t step = JOB_ELEMENTS / k ? JOB_ELEMENTS / k : 1;
    for (size_t row = 0; row < (size_t)p->n; row += step) {
        size_t n = (size_t)p->n - row < step ? (size_t)p->n - row : step;
        if (m->n_jobs == m->cap) m->jobs = mem_grow(m->jobs, m->cap = m->cap ? 2 * m->cap : 256, sizeof *m->jobs);
        m->jobs[m->n_jobs++] = (struct job){.key = dummy_key(&m->d, s->name),
                                            .full_k = (size_t)s->k,
                                            .col = (size_t)p->col,
                                            .row = (size_t)p->row + row,
                                            .n = n,
                                            .k = k,
                                            .norm = s->norm,
                                            .to = to + row * k * size};
    }
}

static int place_slot(void *arg, const struct slot *s) {
    struct make *m = arg;
    struct part p = slot_part(s, m->c, m->shard);
    if (!p.n) return 0;
    char *to = m->base + m->at;
    *s->view = (struct view){.data = to, .dtype = m->c->dtype, .n = p.n, .k = p.k, .ld = p.k};
    m->at += (part_bytes(m, &p) + ALIGN - 1) / ALIGN * ALIGN;
    m->w->bytes += part_bytes(m, &p);
    add_jobs(m, s, &p, to);
    return 0;
}

static void run_job(const struct make *m, const struct job *j) {
    const size_t size = dtype_size(m->c->dtype);
    if (j->norm)
        dummy_ones(&m->d, j->n * j->k, j->to);
    else if (j->k == j->full_k)
        dummy_fill(&m->d, j->key, j->row * j->full_k, j->n * j->k, j->to);
    else
        for (size_t i = 0; i < j->n; i++)
            dummy_fill(&m->d, j->key, (j->row + i) * j->full_k + j->col, j->k, j->to + i * j->k * size);
}

static void *work(void *arg) {
    struct make *m = arg;
    for (size_t i; (i = atomic_fetch_add(&m->next, 1)) < m->n_jobs;) run_job(m, &m->jobs[i]);
    return NULL;
}

/* Helpers are a convenience: where none can be started, the caller's thread does it all. */
static void run_jobs(struct make *m, int n_threads) {
    pthread_t helpers[THREADS_MAX];
    int n = 0;
    while (n < n_threads - 1 && n < THREADS_MAX && !pthread_create(&helpers[n], NULL, work, m)) n++;
    work(m);
    while (n) pthread_join(helpers[--n], NULL);
}

int weights_dummy(struct weights *w, const struct config *c, struct shard shard, uint64_t seed, int n_threads,
                  struct err *e) {
    *w = (struct weights){0};
    if (shard_check(c, shard, e)) return -1;
    struct make m = {.w = w, .c = c, .shard = shard};
    slots_walk(NULL, c, count_slot, &m);
    slots_prepare(w, c);
    m.base = owned_add(w, m.at);
    if (!m.base) {
        weights_release(w);
        return err_machine(e, "this machine has no %zu MiB of memory for dummy weights; choose a smaller model",
                           m.at >> 20);
    }
    dummy_init(&m.d, seed, c->dtype);
    m.at = 0;
    slots_walk(w, c, place_slot, &m);
    run_jobs(&m, n_threads);
    if (c->tied) w->lm_head = w->embed;
    dummy_release(&m.d);
    free(m.jobs);
    return 0;
}
