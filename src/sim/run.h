/* run.h: the real scheduler under a virtual clock: what a trace would have seen.
 *
 * The device is a cost model (cost.h) that answers with made-up tokens: a request's answer ends after as many tokens as
 * it had in the trace, which the scheduler does not know before. With overlap the next step is planned while one runs,
 * as loop.c does it; without, the host's time comes between steps. */
#ifndef MINISGL_SIM_RUN_H
#define MINISGL_SIM_RUN_H
#include "sched/sched.h"
#include "sim/cost.h"
#include "sim/trace.h"

#include <stdbool.h>
#include <stdint.h>

struct sim_args {
    struct sched_args sched; /* stats is not looked at */
    const struct cost *cost;
    const struct trace *trace;
    int32_t max_tokens; /* what each request asks for at most; at least its answer's real length */
    bool overlap;
    uint64_t host; /* ns the host needs for one step */
};

struct percentiles {
    double p50, p90, p99, mean, max; /* seconds */
};

/* What was going on between two moments: means over time. */
struct sim_moment {
    double at, running, queued, used, cached; /* seconds; requests; pages that requests hold; pages in the cache */
};
enum { SIM_MOMENTS = 1024 };

struct sim_report {
    int32_t n_requests, n_refused; /* refused: longer than max_len */
    double seconds;                /* from the first arrival to the last token */
    double busy;                   /* share of it in which the device computed */
    uint64_t steps, prompt_tokens, output_tokens, cached_tokens;
    uint64_t computed; /* positions that steps computed */
    uint64_t twice;    /* of them, positions computed before for the same request: after it was put back */
    uint64_t dropped;  /* of them, samples behind the end of an answer */
    uint64_t retracted;
    double running_mean, queued_mean, used_mean; /* used: share of the pages that requests hold */
    int32_t running_max, queued_max;
    struct percentiles ttft, itl;
    double best_hit; /* trace_best_hit of what was not refused */
    struct sim_moment moment[SIM_MOMENTS];
    int32_t n_moments;
};

/* Runs to the end. -1 for a trace that lasts longer than 1e9 s, or a machine without event descriptors. */
int sim_run(const struct sim_args *a, struct sim_report *out, struct err *e);

#endif
