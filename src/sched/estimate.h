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
 * ns = fixed + read * (positions before the decodes) + token * (prompt tokens) + pair * (pairs of a prompt token and a
 * position before it), fitted by least squares to the steps measured lately. The last part is what makes the end of a
 * long prompt dearer than its beginning. */
enum pace_part { PACE_TOKEN, PACE_FIXED, PACE_READ, PACE_PAIR, PACE_PARTS };

struct pace {
    double of[PACE_PARTS];                            /* ns of each, >= 0 */
    double most, most_pairs;                          /* prompt tokens, pairs, that lately were in one step */
    double xx[PACE_PARTS][PACE_PARTS], xy[PACE_PARTS]; /* weighted sums of the steps */
};

struct step_shape {
    int32_t n_decodes, n_prompt; /* tokens of each kind */
    int64_t read;                /* positions before the decodes, of all of them */
    double pairs;                /* of the prompt tokens */
};

static inline double pace_pairs(int32_t pos, int32_t n) { return n * (pos + 0.5 * n); }

void pace_learn(struct pace *p, const struct step_shape *s, uint64_t ns);
/* ns of decodes that read so much, 0: not known yet; of n prompt tokens from position pos on, n: not known yet. */
double pace_decodes(const struct pace *p, int64_t read);
double pace_prompt(const struct pace *p, int32_t pos, int32_t n);
/* Prompt tokens from position pos on that take at most ns. */
int32_t pace_fit(const struct pace *p, int32_t pos, double ns);
/* So much in one step can be foreseen, twice what there was lately: a few tokens cost next to nothing beside decodes, and
 * tell little of many; nor does the beginning of a prompt tell of the end of another. */
enum { PACE_UNKNOWN = 64, PACE_LEAST = 16 };
int32_t pace_most(const struct pace *p);
double pace_most_pairs(const struct pace *p);

#endif
