/* threads.c: the communicator of ranks that are threads of one process. A rank writes only its own `place` and, within a call, the
 * parts of others' buffers that the call gives it; two meetings frame each call.
 *
 * A meeting: every rank publishes (its count of meetings, its buffer) in its own cache line and waits until all others' counts have come
 * that far. No locks: one store, n - 1 loads. Sleepers are counted; who arrives wakes them only when there are any. The futex word is read
 * before the counts are looked at, and an arrival changes the count before it looks for sleepers, so no wake-up is lost.
 *
 * A sum: each rank owns an equal part of the elements, adds it up over all ranks' buffers in tree order and writes
 * the result into all of them. Nobody else touches that part between the two meetings. */
#include "comm/comm.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/mem.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 16384 /* elements */, SLEEP_NS = 50000000 };

struct place {
    _Alignas(64) _Atomic uint64_t count; /* meetings that this rank has come to */
    void *buf;                           /* of the call under way */
    uint64_t step;                       /* what it came for */
    const char *what;
    int32_t layer;
};

struct rank {
    struct comm comm; /* first: struct comm * is struct rank * */
    struct comm_threads *group;
};

struct comm_threads {
    int32_t n_ranks, first; /* first: for messages */
    uint64_t timeout_ns, spin_ns;
    struct rank *ranks;
    struct place *places;
    _Alignas(64) _Atomic uint32_t word; /* the futex of those who sleep */
    _Atomic int32_t sleepers;
    _Atomic int failed; /* 0; 1 while the sentence is written; 2 */
    char sentence[sizeof ((struct err *)0)->text];
};

static void wake(struct comm_threads *g) {
    if (!atomic_load(&g->sleepers)) return;
    atomic_fetch_add(&g->word, 1);
    futex_wake(&g->word, COMM_MAX_RANKS);
}

/* The first rank that has not come to meeting `count`, or -1. */
static int32_t absent(const struct comm_threads *g, uint64_t count) {
    for (int32_t r = 0; r < g->n_ranks; r++)
        if (atomic_load_explicit(&g->places[r].count, memory_order_acquire) < count) return r;
    return -1;
}

static int tell_failed(struct comm_threads *g, struct err *e) {
    while (atomic_load(&g->failed) == 1) cpu_relax();
    return err_machine(e, "%s", g->sentence);
}

static int tell_late(struct comm_threads *g, const struct rank *r, int32_t late, struct err *e) {
    const struct comm *c = &r->comm;
    char where[32] = "";
    if (c->layer >= 0) snprintf(where, sizeof where, " of layer %d", c->layer);
    err_machine(e, "rank %d did not come to step %llu, %s%s, within %.0f s, where rank %d waits for it; its thread or its machine hangs. Restart; "
                   "where a step really takes so long, give a higher --comm-timeout",
                g->first + late, (unsigned long long)c->step, c->what, where, (double)g->timeout_ns / 1e9, g->first + c->rank);
    comm_threads_fail(g, c->rank, e->text);
    return -1;
}

static void sleep_on(struct comm_threads *g, uint64_t count) {
    atomic_fetch_add(&g->sleepers, 1);
    uint32_t seen = atomic_load(&g->word);
    if (absent(g, count) >= 0 && !atomic_load(&g->failed))
        futex_wait(&g->word, seen, SLEEP_NS);
    atomic_fetch_sub(&g->sleepers, 1);
}

static int meet(struct rank *r, struct err *e) {
    struct comm_threads *g = r->group;
    struct place *mine = &g->places[r->comm.rank];
    uint64_t count = atomic_load_explicit(&mine->count, memory_order_relaxed) + 1, start = 0;
    atomic_store(&mine->count, count);
    wake(g);
    for (int32_t late; (late = absent(g, count)) >= 0;) {
        if (atomic_load_explicit(&g->failed, memory_order_relaxed)) return tell_failed(g, e);
        for (int i = 0; i < 64 && g->spin_ns && absent(g, count) >= 0; i++) cpu_relax();
        uint64_t now = clock_ns();
        if (!start) start = now;
        if (now - start >= g->timeout_ns) return tell_late(g, r, late, e);
        if (now - start >= g->spin_ns) sleep_on(g, count);
    }
    return atomic_load_explicit(&g->failed, memory_order_relaxed) ? tell_failed(g, e) : 0;
}

static void place_set(struct rank *r, void *buf) {
    struct place *p = &r->group->places[r->comm.rank];
    p->buf = buf;
    p->step = r->comm.step;
    p->what = r->comm.what;
    p->layer = r->comm.layer;
}

/* ---- sums ---- */

struct part {
    const struct rank *r;
    size_t from, to; /* this rank's elements */
    void (*add)(void *const *bufs, int32_t n_ranks, size_t from, size_t to);
};

/* Two at a time from the leaves up. Blocks of the tree live in registers or L1: BLOCK elements a time. */
enum { BLOCK = 64 };

#define DEFINE_ADD(name, type)                                                                                         \
    static void name(void *const *bufs, int32_t n_ranks, size_t from, size_t to) {                                     \
        type sum[COMM_MAX_RANKS / 2][BLOCK];                                                                           \
        for (size_t at = from; at < to; at += BLOCK) {                                                                 \
            size_t n = to - at < BLOCK ? to - at : BLOCK;                                                              \
            for (int32_t i = 0; i < n_ranks / 2; i++) {                                                                \
                const type *a = (const type *)bufs[2 * i] + at, *b = (const type *)bufs[2 * i + 1] + at;               \
                for (size_t k = 0; k < n; k++) sum[i][k] = a[k] + b[k];                                                \
            }                                                                                                          \
            for (int32_t w = n_ranks / 4; w >= 1; w /= 2)                                                              \
                for (int32_t i = 0; i < w; i++)                                                                        \
                    for (size_t k = 0; k < n; k++) sum[i][k] = sum[2 * i][k] + sum[2 * i + 1][k];                      \
            for (int32_t i = 0; i < n_ranks; i++) memcpy((type *)bufs[i] + at, sum[0], n * sizeof(type));              \
        }                                                                                                              \
    }
DEFINE_ADD(add_f32, float)
DEFINE_ADD(add_u64, uint64_t)

static void part_piece(void *arg, int32_t piece, int32_t thread) {
    (void)thread;
    const struct part *p = arg;
    void *bufs[COMM_MAX_RANKS];
    size_t from = p->from + (size_t)piece * PIECE, to = from + PIECE < p->to ? from + PIECE : p->to;
    for (int32_t i = 0; i < p->r->group->n_ranks; i++) bufs[i] = p->r->group->places[i].buf;
    p->add(bufs, p->r->group->n_ranks, from, to);
}

static void add_part(const struct rank *r, struct part *p) {
    if (p->from >= p->to) return;
    int32_t pieces = (int32_t)((p->to - p->from + PIECE - 1) / PIECE);
    if (pieces > 1 && r->comm.runner.run) {
        r->comm.runner.run(r->comm.runner.ctx, part_piece, p, pieces);
        return;
    }
    for (int32_t i = 0; i < pieces; i++) part_piece(p, i, 0);
}

/* A rank's part is whole cache lines, so that no two ranks write to one. */
static int sum(struct comm *c, void *buf, size_t n, size_t size, void (*add)(void *const *, int32_t, size_t, size_t), struct err *e) {
    struct rank *r = (struct rank *)c;
    if (c->n_ranks == 1) return 0;
    size_t line = 64 / size, lines = (n + line - 1) / line, ranks = (size_t)c->n_ranks, per = (lines + ranks - 1) / ranks * line;
    struct part p = {.r = r, .from = (size_t)c->rank * per, .add = add};
    p.to = p.from + per < n ? p.from + per : n;
    place_set(r, buf);
    if (meet(r, e)) return -1;
    add_part(r, &p);
    return meet(r, e);
}

static int threads_sum_f32(struct comm *c, float *buf, size_t n, struct err *e) { return sum(c, buf, n, sizeof *buf, add_f32, e); }
static int threads_sum_u64(struct comm *c, uint64_t *buf, size_t n, struct err *e) { return sum(c, buf, n, sizeof *buf, add_u64, e); }

static int threads_gather(struct comm *c, const void *mine, void *all, size_t bytes, struct err *e) {
    struct rank *r = (struct rank *)c;
    place_set(r, (void *)(uintptr_t)mine);
    if (meet(r, e)) return -1;
    for (int32_t i = 0; i < c->n_ranks; i++) memcpy((char *)all + (size_t)i * bytes, r->group->places[i].buf, bytes);
    return meet(r, e);
}

static const struct comm_ops threads_ops = {"threads", threads_sum_f32, threads_sum_u64, threads_gather};

/* ---- life ---- */

int comm_threads_new(struct comm_threads **out, int32_t n_ranks, uint64_t timeout_ns, uint64_t spin_ns, struct err *e) {
    if (n_ranks < 1 || n_ranks > COMM_MAX_RANKS || (n_ranks & (n_ranks - 1)))
        return err_input(e, "expected 1, 2, 4, ... %d ranks, found %d", COMM_MAX_RANKS, n_ranks);
    struct comm_threads *g = mem_aligned(64, sizeof *g);
    memset(g, 0, sizeof *g);
    g->n_ranks = n_ranks;
    g->timeout_ns = timeout_ns;
    g->spin_ns = spin_ns;
    g->ranks = mem_zalloc((size_t)n_ranks, sizeof *g->ranks);
    g->places = mem_aligned(64, (size_t)n_ranks * sizeof *g->places);
    memset(g->places, 0, (size_t)n_ranks * sizeof *g->places);
    for (int32_t i = 0; i < n_ranks; i++)
        g->ranks[i] = (struct rank){.comm = {.ops = &threads_ops, .rank = i, .n_ranks = n_ranks, .what = "start", .layer = -1}, .group = g};
    *out = g;
    return 0;
}

void comm_threads_free(struct comm_threads *g) {
    if (!g) return;
    free(g->ranks);
    free(g->places);
    free(g);
}

void comm_threads_number_from(struct comm_threads *g, int32_t first) { g->first = first; }

struct comm *comm_threads_rank(struct comm_threads *g, int32_t rank) { return &g->ranks[rank].comm; }

void comm_threads_fail(struct comm_threads *g, int32_t rank, const char *sentence) {
    int none = 0;
    (void)rank;
    if (!atomic_compare_exchange_strong(&g->failed, &none, 1)) return;
    snprintf(g->sentence, sizeof g->sentence, "%s", sentence);
    atomic_store(&g->failed, 2);
    wake(g);
}
