/* estimate.c: see estimate.h. Plain values of the scheduler thread. */
#include "sched/estimate.h"

#include <math.h>
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

/* What the factors but i and j leave of the sum for i. */
static double rest_for(const struct pace *p, int i, int j) {
    double rest = p->xy[i];
    for (int k = 0; k < PACE_PARTS; k++) rest -= k == i || k == j ? 0 : p->xx[i][k] * p->of[k];
    return rest;
}

static void solve_one(struct pace *p, int i) {
    double rest = rest_for(p, i, i);
    if (p->xx[i][i] > 0) p->of[i] = rest > 0 ? rest / p->xx[i][i] : 0;
}

/* Two that often go together, at once where the steps tell them apart. */
static void solve_two(struct pace *p, int i, int j) {
    static const double CLEAR = 1e-3;
    double both = p->xx[i][i] * p->xx[j][j], det = both - p->xx[i][j] * p->xx[i][j];
    if (det > CLEAR * both) {
        double a = rest_for(p, i, j), b = rest_for(p, j, i);
        double x = (a * p->xx[j][j] - b * p->xx[i][j]) / det, y = (b * p->xx[i][i] - a * p->xx[i][j]) / det;
        if (x >= 0 && y >= 0) {
            p->of[i] = x, p->of[j] = y;
            return;
        }
    }
    solve_one(p, i);
    solve_one(p, j);
}

/* Gauss-Seidel on the normal equations, from the factors as they are: what the steps of late do not tell apart stays as
 * it was, and no factor becomes negative. */
static void solve(struct pace *p) {
    enum { SWEEPS = 4 };
    for (int k = 0; k < SWEEPS; k++) {
        solve_two(p, PACE_TOKEN, PACE_PAIR);
        solve_two(p, PACE_FIXED, PACE_READ);
    }
}

/* A step counts FADE times as much with each one after it, and errors count relative to its length. */
void pace_learn(struct pace *p, const struct step_shape *s, uint64_t ns) {
    static const double FADE = 0.95, TINY = 1e-200;
    double y = ns > 0 ? (double)ns : 1, x[PACE_PARTS];
    x[PACE_TOKEN] = s->n_prompt / y, x[PACE_FIXED] = 1 / y, x[PACE_READ] = (double)s->read / y, x[PACE_PAIR] = s->pairs / y;
    for (int i = 0; i < PACE_PARTS; i++) {
        for (int j = 0; j < PACE_PARTS; j++) p->xx[i][j] = p->xx[i][j] * FADE + x[i] * x[j];
        p->xy[i] = p->xy[i] * FADE + x[i];
        if (p->xx[i][i] < TINY) p->xx[i][i] = 0;
    }
    if (s->n_prompt) {
        p->most = fmax(p->most * FADE, s->n_prompt);
        p->most_pairs = fmax(p->most_pairs * FADE, s->pairs);
    }
    solve(p);
}

double pace_decodes(const struct pace *p, int64_t read) { return p->of[PACE_FIXED] + p->of[PACE_READ] * (double)read; }

static bool prompt_known(const struct pace *p) { return p->of[PACE_TOKEN] > 0 || p->of[PACE_PAIR] > 0; }

double pace_prompt(const struct pace *p, int32_t pos, int32_t n) {
    return prompt_known(p) ? p->of[PACE_TOKEN] * n + p->of[PACE_PAIR] * pace_pairs(pos, n) : n;
}

/* The root of pair/2 n^2 + (token + pair pos) n - ns. */
int32_t pace_fit(const struct pace *p, int32_t pos, double ns) {
    if (!prompt_known(p)) return INT32_MAX;
    if (ns <= 0) return 0;
    double pair = p->of[PACE_PAIR], each = p->of[PACE_TOKEN] + pair * pos;
    double n = 2 * ns / (each + sqrt(each * each + 2 * pair * ns));
    return n < 1e9 ? (int32_t)n : 1000000000;
}

double pace_most_pairs(const struct pace *p) { return fmax(2 * p->most_pairs, PACE_UNKNOWN * 1024.0); }

int32_t pace_most(const struct pace *p) { return p->most > PACE_UNKNOWN / 2 ? (int32_t)(2 * p->most) : PACE_UNKNOWN; }
