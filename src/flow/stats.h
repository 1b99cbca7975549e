/* stats.h: the numbers an operator looks at. Written by the scheduler thread, read by anyone (relaxed atomics). What is
 * known of a request only where its text is made (its true end, when its client got what) is counted there:
 * serve/metrics.h. */
#ifndef MINISGL_FLOW_STATS_H
#define MINISGL_FLOW_STATS_H
#include "flow/histo.h"

#include <stdatomic.h>
#include <stdint.h>

struct stats {
    atomic_int running, waiting;                       /* requests now */
    atomic_int pages_used, pages_total;                /* KV pages held by requests; all that can be given out */
    atomic_int pages_cached;                           /* KV pages in the prefix cache, held or not */
    atomic_int page_size;                              /* tokens of a page */
    atomic_uint_fast64_t steps;                        /* since start, as all below */
    atomic_uint_fast64_t prompt_tokens;                /* computed, not taken from a cache */
    atomic_uint_fast64_t cache_queries, cached_tokens; /* prompt tokens looked up in the prefix cache, and found; of
                                                          requests that were put back only the first time */
    atomic_uint_fast64_t generated_tokens;
    atomic_uint_fast64_t finished_stop, finished_length, finished_abort, finished_timeout, finished_error;
    atomic_uint_fast64_t retracted; /* requests put back to the queue because pages ran out */
    struct histo step_time;         /* ns that a step took on the device (stats_times) */
    struct histo step_tokens;       /* new tokens in a step, prompts' and decodes (stats_tokens) */
};

extern const struct histo_scale stats_times, stats_tokens;

#endif
