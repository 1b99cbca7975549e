/* stats.h: the numbers an operator looks at. Written by the scheduler thread, read by anyone (relaxed atomics). */
#ifndef MINISGL_FLOW_STATS_H
#define MINISGL_FLOW_STATS_H
#include <stdatomic.h>
#include <stdint.h>

struct stats {
    atomic_int running, waiting;             /* requests now */
    atomic_int pages_used, pages_total;      /* KV pages held by requests; all that can be given out */
    atomic_int pages_cached;                 /* KV pages in the prefix cache, held or not */
    atomic_uint_fast64_t steps;              /* since start, as all below */
    atomic_uint_fast64_t prompt_tokens;      /* computed, not taken from a cache */
    atomic_uint_fast64_t cache_queries, cached_tokens; /* prompt tokens looked up in the prefix cache, and found */
    atomic_uint_fast64_t generated_tokens;
    atomic_uint_fast64_t finished_stop, finished_length, finished_abort, finished_timeout, finished_error;
    atomic_uint_fast64_t retracted;          /* requests put back to the queue because pages ran out */
};

#endif
