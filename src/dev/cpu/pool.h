/* pool.h: the compute threads of one CPU rank.
 *
 * The rank thread calls pool_run(); it takes part in the work itself. Work is cut into small pieces; every thread owns a contiguous
 * range of them (so that it streams through memory in order) and helps the others when its own range is done. A
 * core that somebody else disturbs therefore slows only the piece it holds; crowd.h sees to it that a piece is seldom held then. Nobody
 * polls: a thread that finds no work spins for POOL_SPIN_NS and then sleeps on a futex; so does the caller while it waits for the last
 * pieces (it spins longer in a crowd). */
#ifndef MINISGL_DEV_CPU_POOL_H
#define MINISGL_DEV_CPU_POOL_H
#include "base/err.h"

#include <stdint.h>

enum { POOL_MAX_THREADS = 256, POOL_SPIN_NS = 40000, POOL_SPIN_CROWD_NS = 5000000 };

/* One piece of a job; `thread` (0 is the caller) picks the thread's own scratch memory. */
typedef void pool_fn(void *arg, int32_t piece, int32_t thread);

struct pool;

/* n_threads 1..POOL_MAX_THREADS, the caller included: n_threads - 1 are started. */
int pool_new(struct pool **out, int32_t n_threads, struct err *e);
void pool_free(struct pool *p);
int32_t pool_threads(const struct pool *p);

/* Run pieces 0..n-1 and return when all are done. Only one thread, always the same, may call this. */
void pool_run(struct pool *p, pool_fn *fn, void *arg, int32_t n);

#endif
