/* comm.h: what the ranks of one model say to each other: a small table of operations behind one handle a rank.
 *
 * The law: every rank makes the same calls in the same order with the same sizes. Sums go in tree order over the
 * ranks, ((0+1)+(2+3))+((4+5)+(6+7)), so that they do not depend on who comes first. The number of ranks is a power of two.
 * A handle belongs to its rank's thread; only comm_threads_fail may be called from any thread.
 *
 * Nobody waits for ever: a rank that does not come within the timeout, or for which comm_threads_fail was called, makes the call
 * return -1 on every other rank with a sentence that names rank, step and operation. After that the machine is broken:
 * end the process. Waiting spins for spin_ns, then sleeps.
 *
 * Makers: threads.c (ranks of one process), mpi.c (ranks of several processes; threads below, a plug-in between). GPU tensors do
 * not go this way: see comm/gpu.h; the GPU backend uses this one for start-up and control. */
#ifndef MINISGL_COMM_COMM_H
#define MINISGL_COMM_COMM_H
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { COMM_MAX_RANKS = 64 };

/* The compute threads of a rank, for operations that move much: run(ctx, fn, arg, n) calls fn(arg, piece, thread) for each piece 0..n-1
 * and returns when all are done (dev/cpu/pool.h's pool_run). */
typedef void comm_piece_fn(void *arg, int32_t piece, int32_t thread);
struct comm_runner {
    void (*run)(void *ctx, comm_piece_fn *fn, void *arg, int32_t n);
    void *ctx;
    int32_t n_threads;
};

struct comm;
struct comm_ops {
    const char *name; /* "threads", "mpi" */
    /* buf[n] becomes the sum over the ranks, in place. */
    int (*sum_f32)(struct comm *c, float *buf, size_t n, struct err *e);
    int (*sum_u64)(struct comm *c, uint64_t *buf, size_t n, struct err *e);
    /* all [n_ranks][bytes] becomes everyone's `mine`; all may not overlap mine. */
    int (*gather)(struct comm *c, const void *mine, void *all, size_t bytes, struct err *e);
};

struct comm {
    const struct comm_ops *ops;
    int32_t rank, n_ranks;
    struct comm_runner runner; /* run NULL: the rank thread does it alone */
    /* For messages only: what the rank is at. */
    uint64_t step;
    const char *what;
    int32_t layer;
};

/* Say where the rank is, for the sentence that others get when it does not come. `what` outlives the communicator. */
static inline void comm_at(struct comm *c, uint64_t step, const char *what, int32_t layer) {
    c->step = step;
    c->what = what;
    c->layer = layer;
}

/* One rank (c == NULL) has nothing to add and nobody to wait for. */
static inline int comm_sum_f32(struct comm *c, float *buf, size_t n, struct err *e) {
    return c && n ? c->ops->sum_f32(c, buf, n, e) : 0;
}
static inline int comm_sum_u64(struct comm *c, uint64_t *buf, size_t n, struct err *e) {
    return c && n ? c->ops->sum_u64(c, buf, n, e) : 0;
}
static inline int comm_gather(struct comm *c, const void *mine, void *all, size_t bytes, struct err *e) {
    if (c) return c->ops->gather(c, mine, all, bytes, e);
    memcpy(all, mine, bytes);
    return 0;
}

/* Before a step's first sum: every rank must be at the same step with the same batch. -1: *e names the first that is not. */
static inline int comm_same_batch(struct comm *c, uint64_t step, uint64_t checksum, struct err *e) {
    struct {
        uint64_t step, checksum;
    } mine = {step, checksum}, all[COMM_MAX_RANKS];
    if (!c) return 0;
    comm_at(c, step, "the comparison of batches", -1);
    if (comm_gather(c, &mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 1; i < c->n_ranks; i++)
        if (all[i].step != all[0].step || all[i].checksum != all[0].checksum)
            return err_machine(e, "rank %d runs step %llu with a batch of checksum %08llx, rank 0 runs step %llu with %08llx: expected the same; "
                                  "a machine computes wrongly or this is a bug of minisgl",
                               i, (unsigned long long)all[i].step, (unsigned long long)all[i].checksum, (unsigned long long)all[0].step,
                               (unsigned long long)all[0].checksum);
    return 0;
}

/* ---- threads.c ---- */

struct comm_threads;

/* A group of n_ranks (a power of two up to COMM_MAX_RANKS) threads of this process. timeout_ns: how long a rank waits for another. */
int comm_threads_new(struct comm_threads **out, int32_t n_ranks, uint64_t timeout_ns, uint64_t spin_ns, struct err *e);
void comm_threads_free(struct comm_threads *g);
/* The handle of a rank; lives as long as the group. */
struct comm *comm_threads_rank(struct comm_threads *g, int32_t rank);
/* Where the group is a part of a larger one: the number of its first rank there, for messages. */
void comm_threads_number_from(struct comm_threads *g, int32_t first);
/* This rank will not come any more (an error, its thread ends): every call that others make or are in returns -1. `sentence` is copied;
 * the first one is kept. */
void comm_threads_fail(struct comm_threads *g, int32_t rank, const char *sentence);

#endif
