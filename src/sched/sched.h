/* sched.h: who computes what in the next step. Pure C on integers: no device, no model, no text; it runs as well
 * under a simulator's clock. One thread owns it (the scheduler's); nothing here locks (but outboxes, in sched_flush) or
 * waits.
 *
 * The life of a request:
 *
 *   sched_add -> WAITING --admitted: a slot--> RUNNING: prefill chunks, then one token a step
 *                   ^                             |  |
 *                   '---- retracted: no pages ----'  '-- finish known --> leaving --> gone
 *
 * A step is planned (sched_plan fills a batch), launched by the caller, and later committed with its result. At most
 * two steps are planned and not committed (overlap scheduling): a sequence may so be planned once more after the token
 * that ends it; that token is dropped. Slot and pages are freed exactly once, when a leaving
 * sequence is in no planned step any more.
 *
 * A step holds all running sequences' decodes first, then prompt chunks: up to max_prefill tokens in all, or, beside
 * decodes, as many as keep the step within target_itl by what steps have cost lately; within less when few prompts wait
 * for many streams (plan.c). Prompts share steps by what they cost, in fair bounds (policy.c). Admission over-commits by what
 * answers have turned out to need (policy.c); when pages run out after all, the youngest sequence is put back and later
 * redone from its tokens: nobody sees it but the clock. */
#ifndef MINISGL_SCHED_SCHED_H
#define MINISGL_SCHED_SCHED_H
#include "flow/batch.h"
#include "flow/request.h"
#include "flow/result.h"
#include "flow/stats.h"

#include <stdbool.h>

/* margin_percent that traces have shown to be enough (bench/results). */
enum { SCHED_MARGIN_PERCENT = 1 };

/* prompt_weight for a GPU, and for the CPU, where target_itl is many times a step of decodes (trials in bench/results). */
enum { SCHED_PROMPT_WEIGHT = 8, SCHED_PROMPT_WEIGHT_CPU = 20 };

/* Younger requests that may be admitted before one that waits. */
enum { SCHED_PASSED_MOST = 8 };

struct sched_args {
    int32_t max_running; /* slots */
    int32_t max_prefill; /* prompt tokens of one step, less its decodes */
    int32_t max_len;     /* tokens of one sequence; n_pages must hold one such sequence */
    int32_t page_size;
    int32_t n_pages;        /* the dummy page 0 included */
    int32_t policy;         /* sched_policy() */
    int32_t margin_percent; /* share of the pages that admission leaves for answers longer than expected */
    double prompt_weight;   /* what a prompt's wait counts against a stream's, in target_itl; 0: SCHED_PROMPT_WEIGHT */
    uint64_t target_itl;    /* ns between a running stream's tokens that prompt chunks may cost; 0: no limit */
    bool radix;             /* keep a prefix cache (kv/radix.h); false: none */
    struct stats *stats;    /* may be NULL */
};

struct sched;

/* The number of a policy ("fcfs", "lpm", "classic"), or -1. */
int sched_policy(const char *name);

struct sched *sched_new(const struct sched_args *args);
void sched_free(struct sched *s);
/* The capacities that batches for this scheduler must have. */
struct batch_limits sched_limits(const struct sched_args *args);

/* A new request. It must fit: n_prompt >= 1, n_prompt + max_tokens <= max_len (checked at the front door; BUG here). */
void sched_add(struct sched *s, struct request *r);

/* Some request's `cancelled` was set: look for it in the next plan. */
void sched_look_for_cancelled(struct sched *s);

/* Drop the whole prefix cache but what running sequences hold. */
void sched_flush_cache(struct sched *s);

/* Plan one step into b (reset here). False: there is nothing to compute now. `now` in ns, of any clock that the
 * requests' deadlines are in. */
bool sched_plan(struct sched *s, struct batch *b, uint64_t now);

/* Take in the result of the oldest planned step. */
void sched_commit(struct sched *s, const struct batch *b, const struct result *r, uint64_t now);

/* Requests waiting, running or leaving. */
int32_t sched_count(const struct sched *s);
bool sched_idle(const struct sched *s); /* none of them, and nothing to tell */

/* Publish what changed since the last call to the requests' outboxes: one lock and one wake-up for each box. */
void sched_flush(struct sched *s);

/* Check every invariant (slow; tests): BUG() when one is broken. */
void sched_check(struct sched *s);

#endif
