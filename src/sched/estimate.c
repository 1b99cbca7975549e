/* estimate.c: see estimate.h. Plain values of the scheduler thread. */
#include "sched/estimate.h"

#include <stdbool.h>

/* Lengths below 16 have a bucket each; above, eight buckets to a doubling. */
int32_t length_bucket(int32_t n) {
    if (n < 16) return n < 0 ? 0 : n;
    int32_t log = 31 - __builtin_clz((uint32_t)n);
    int32_t b = 16 + 8 * (log - 4) + ((n >> (log - 3)) & 7);
    return b < LENGTH_BUCKETS ? b : LENGTH_BUCKETS - 1;
}

int32_t length_of_bucket(int32_t b) {
    if (b < 16) return b;
    int32_t log = 4 + (b - 16) / 8;
    return (8 + (b - 16) % 8) << (log - 3);
}

void lengths_learn(struct lengths *l, int32_t n) {
    l->count[length_bucket(n)] += 1;
    bool fade = ++l->n % LENGTHS_FADE == 0;
    float count = 0;
    for (int32_t i = LENGTH_BUCKETS - 1; i >= 0; i--) {
        if (fade) l->count[i] *= 0.5f;
        l->above[i] = count += l->count[i];
    }
}

double lengths_alive(const struct lengths *l, int32_t n, int32_t t) {
    if (l->n < LENGTHS_ENOUGH) return 1;
    float now = l->above[length_bucket(n)];
    if (now < 2) return t <= n / 2;
    return (double)(l->above[length_bucket(n + t)] / now);
}

static void blend(double *to, double x) { *to = *to > 0 ? *to + (x - *to) / 8 : x; }

void pace_learn(struct pace *p, int32_t n_decodes, int32_t n_chunk, uint64_t ns) {
    if (n_chunk == 0) {
        blend(&p->decode, (double)ns);
        return;
    }
    if (n_chunk < PACE_LEAST) return; /* too few to tell their share */
    double least = (double)ns / n_chunk * 0.05, share = ((double)ns - (n_decodes ? p->decode : 0)) / n_chunk;
    blend(&p->token, share > least ? share : least);
}

int32_t pace_chunk(const struct pace *p, uint64_t target) {
    if (p->token <= 0) return PACE_UNKNOWN;
    double n = ((double)target - p->decode) / p->token;
    if (n < PACE_LEAST) return PACE_LEAST;
    return n > 1e9 ? 1000000000 : (int32_t)n / PACE_LEAST * PACE_LEAST;
}
