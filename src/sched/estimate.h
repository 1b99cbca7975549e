/* estimate.h: what the scheduler learns from what it sees: how long answers get, and what a step costs. */
#ifndef MINISGL_SCHED_ESTIMATE_H
#define MINISGL_SCHED_ESTIMATE_H
#include <stdint.h>

/* ---- lengths of answers ----
 * A histogram of the lengths of finished answers, old ones fading (halved every LENGTHS_FADE). From it: how likely an
 * answer of n tokens gets t more, P(L > n + t | L > n). */
enum { LENGTH_BUCKETS = 160, LENGTHS_ENOUGH = 16, LENGTHS_FADE = 2048 };

struct lengths {
    float count[LENGTH_BUCKETS];
    float above[LENGTH_BUCKETS]; /* of this bucket and all longer ones */
    uint32_t n;
};

void lengths_learn(struct lengths *l, int32_t n);
/* 1 while too little is known. An answer longer than nearly all before it is expected to get half as long again. */
double lengths_alive(const struct lengths *l, int32_t n, int32_t t);
/* A bucket for any length, in order of length. */
int32_t length_bucket(int32_t n);
int32_t length_of_bucket(int32_t b); /* the shortest */

/* ---- cost of a step ----
 * A step with decodes takes `decode` ns, and each prompt token beside them `token` ns more; both as measured lately. */
struct pace {
    double decode, token; /* 0: not measured yet */
};

void pace_learn(struct pace *p, int32_t n_decodes, int32_t n_chunk, uint64_t ns);
/* Prompt tokens that fit into a step beside decodes so that it takes at most target ns; at least PACE_LEAST, so that
 * prompts go on even where decodes alone take longer. */
enum { PACE_LEAST = 16, PACE_UNKNOWN = 64 };
int32_t pace_chunk(const struct pace *p, uint64_t target);

#endif
