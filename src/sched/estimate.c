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
    int32_t log = 4 + (b - 16) / 8, step = 1 << (log - 3);
    return (8 + (b - 16) % 8) * step + step / 2;
}

void lengths_learn(struct lengths *l, int32_t n) {
    int32_t b = length_bucket(n);
    l->count[b] += 1;
    l->sum[b] += (float)n;
    bool fade = ++l->n % LENGTHS_FADE == 0;
    float count = 0, sum = 0;
    for (int32_t i = LENGTH_BUCKETS - 1; i >= 0; i--) {
        if (fade) l->count[i] *= 0.5f, l->sum[i] *= 0.5f;
        l->above_count[i] = count += l->count[i];
        l->above_sum[i] = sum += l->sum[i];
    }
}

int32_t lengths_rest(const struct lengths *l, int32_t n, int32_t most) {
    int32_t left = most - n, b = length_bucket(n);
    if (l->n < LENGTHS_ENOUGH) return left;
    float count = l->above_count[b + 1], sum = l->above_sum[b + 1];
    /* Longer than nearly all before it: nothing is known but that it goes on; half as much again. */
    float rest = count >= 2 ? sum / count - (float)n : 0.5f * (float)n;
    if (rest < 1) rest = 1;
    return rest < (float)left ? (int32_t)rest : left;
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
