/* sample.c: see sample.h. A sampler belongs to one compute thread; rows are independent of each other. */
#include "dev/cpu/sample.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIGIT_BITS = 11, DIGITS = 3, BUCKETS = 1 << DIGIT_BITS };

struct sampler {
    int32_t *ids;   /* the candidates, ascending */
    uint32_t *keys; /* their logits as integers in the same order */
    float *values;  /* their logits, then exp(z - z_max) */
    uint64_t buckets[BUCKETS];
};

size_t sampler_bytes(int32_t vocab) { return sizeof(struct sampler) + (size_t)vocab * 12; }

struct sampler *sampler_new(int32_t vocab) {
    struct sampler *s = mem_alloc(sizeof *s);
    s->ids = mem_array((size_t)vocab, sizeof *s->ids);
    s->keys = mem_array((size_t)vocab, sizeof *s->keys);
    s->values = mem_array((size_t)vocab, sizeof *s->values);
    return s;
}

void sampler_free(struct sampler *s) {
    if (!s) return;
    free(s->ids);
    free(s->keys);
    free(s->values);
    free(s);
}

double gumbel_noise(uint32_t h) { return -log(-log(((double)h + 0.5) * 0x1p-32)); }

/* splitmix64's finalizer, twice, so that neighbouring seeds and positions share nothing. */
static uint64_t mix64(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

uint64_t gumbel_key(uint64_t seed, int32_t position) {
    return mix64(mix64(seed + 0x9e3779b97f4a7c15u) + (uint64_t)(uint32_t)position * 0xd1342543de82ef95u);
}

/* Order-preserving bits; -0 counts as +0. */
static uint32_t key_of(float f) {
    uint32_t u = bits_of_f32(f + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static int32_t argmax(const float *x, int32_t n, float max) {
    for (int32_t i = 0; i < n; i++)
        if (x[i] == max) return i;
    return 0;
}

static uint64_t weight_of(const struct sampler *s, int32_t i) { return (uint64_t)((double)s->values[i] * 0x1p40); }

/* Among candidates in (key descending, id ascending) order find the shortest prefix whose total (count, or weight) reaches
 * `need` and keep it. Radix selection: one histogram a digit, from the top, among those that share the digits so far. */
static int32_t keep_prefix(struct sampler *s, int32_t n, uint64_t need, bool by_weight) {
    uint32_t prefix = 0, known = 0;
    for (int32_t d = 0; d < DIGITS; d++) {
        uint32_t shift = d == 0 ? 21 : d == 1 ? 10 : 0, bits = d == 2 ? 10 : 11;
        memset(s->buckets, 0, sizeof s->buckets);
        for (int32_t i = 0; i < n; i++)
            if (((s->keys[i] ^ prefix) & known) == 0)
                s->buckets[s->keys[i] >> shift & ((1u << bits) - 1)] += by_weight ? weight_of(s, i) : 1;
        uint32_t b = (1u << bits) - 1;
        while (b > 0 && s->buckets[b] < need) need -= s->buckets[b--];
        prefix |= b << shift;
        known |= ((1u << bits) - 1) << shift;
    }
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++) { /* `need` is now what those equal to the key must give, lowest ids first */
        if (s->keys[i] < prefix) continue;
        if (s->keys[i] == prefix) {
            if (need == 0) continue;
            uint64_t w = by_weight ? weight_of(s, i) : 1;
            need -= w < need ? w : need;
        }
        s->ids[kept] = s->ids[i];
        s->keys[kept] = s->keys[i];
        s->values[kept++] = s->values[i];
    }
    return kept;
}

static int32_t keep_top_p(struct sampler *s, int32_t n, float top_p) {
    uint64_t sum = 0;
    for (int32_t i = 0; i < n; i++) sum += weight_of(s, i);
    uint64_t need = (uint64_t)ceil((double)top_p * (double)sum);
    return keep_prefix(s, n, need < 1 ? 1 : need > sum ? sum : need, true);
}

static int32_t keep_min_p(struct sampler *s, int32_t n, float min_p) {
    int32_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (s->values[i] >= min_p) s->ids[kept++] = s->ids[i];
    return kept;
}

/* The race of z + noise. `best` of the winner so far lets gumbel_next jump over all who can not pass it. */
struct race {
    const float *x;
    float max;
    double temperature;
    uint64_t key;
    double best;
    int32_t winner;
};

static void race_enter(struct race *r, int32_t id) {
    double z = ((double)r->x[id] - (double)r->max) / r->temperature;
    double score = z + gumbel_noise(gumbel_bits(r->key, (uint32_t)id));
    if (r->winner >= 0 && (score < r->best || (score == r->best && id >= r->winner))) return;
    r->best = score;
    r->winner = id;
}

static int32_t sample_all(struct race *r, const struct cpu_ops *ops, int32_t vocab) {
    float scale = (float)(1 / r->temperature);
    race_enter(r, argmax(r->x, vocab, r->max));
    for (int32_t i = 0;; i++) {
        i = ops->gumbel_next(r->x, vocab, i, r->max, scale, r->key, (float)r->best - 1e-3f);
        if (i >= vocab) return r->winner;
        race_enter(r, i);
    }
}

static int32_t sample_some(struct race *r, struct sampler *s, const struct cpu_ops *ops, const float *x, int32_t vocab,
                           const struct sampling *how) {
    float scale = (float)(1 / r->temperature);
    int32_t n = ops->pick(s->ids, x, vocab, r->max, scale, SAMPLE_FLOOR);
    for (int32_t i = 0; i < n; i++) {
        s->values[i] = x[s->ids[i]];
        s->keys[i] = key_of(s->values[i]);
    }
    if (how->top_k > 0 && how->top_k < n) n = keep_prefix(s, n, (uint64_t)how->top_k, false);
    ops->exp_scaled(s->values, s->values, n, r->max, scale);
    if (how->top_p < 1) n = keep_top_p(s, n, how->top_p);
    if (how->min_p > 0) n = keep_min_p(s, n, how->min_p);
    for (int32_t i = 0; i < n; i++) {
        float z = (x[s->ids[i]] - r->max) * scale;
        if (r->winner >= 0 && z + gumbel_bound(gumbel_bits(r->key, (uint32_t)s->ids[i])) < (float)r->best - 1e-3f) continue;
        race_enter(r, s->ids[i]);
    }
    return r->winner;
}

/* Insert (id, value) where it belongs among the n most likely; ids come ascending, so an equal one goes behind. */
static void top_insert(struct token_logprobs *p, int32_t want, int32_t id, float value) {
    int32_t at = p->n < want ? p->n++ : want - 1;
    for (; at > 0 && p->top[at - 1].logprob < value; at--) p->top[at] = p->top[at - 1];
    p->top[at] = (struct logprob){id, value};
}

static void fill_logprobs(struct token_logprobs *p, const struct cpu_ops *ops, const float *x, int32_t n, float max,
                          int32_t want, int32_t chosen) {
    double lse = (double)max + log(ops->sum_exp(x, n, max));
    if (want > n) want = n;
    if (want > LOGPROBS_MAX) want = LOGPROBS_MAX;
    p->n = 0;
    for (int32_t i = 0; want > 0 && i < n; i++)
        if (p->n < want || x[i] > p->top[want - 1].logprob) top_insert(p, want, i, x[i]);
    for (int32_t i = 0; i < p->n; i++) p->top[i].logprob = (float)((double)p->top[i].logprob - lse);
    p->chosen = (float)((double)x[chosen] - lse);
}

void sample_row(struct sampler *s, const struct cpu_ops *ops, const float *logits, int32_t vocab, const struct sampling *how,
                int32_t position, struct result_row *r) {
    float max;
    r->bad = !ops->scan(logits, vocab, &max);
    r->n_tokens = 1;
    r->tokens[0] = 0;
    r->logprobs.n = 0;
    r->logprobs.chosen = 0;
    if (r->bad) return;
    if (how->temperature < SAMPLE_GREEDY) {
        r->tokens[0] = argmax(logits, vocab, max);
    } else {
        struct race race = {logits, max, (double)how->temperature, gumbel_key(how->seed, position), 0, -1};
        bool all = how->top_k <= 0 && how->top_p >= 1 && how->min_p <= 0;
        r->tokens[0] = all ? sample_all(&race, ops, vocab) : sample_some(&race, s, ops, logits, vocab, how);
    }
    if (how->n_logprobs >= 0) fill_logprobs(&r->logprobs, ops, logits, vocab, max, how->n_logprobs, r->tokens[0]);
}
