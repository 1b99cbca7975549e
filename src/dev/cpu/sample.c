/* sample.c: see sample.h. The rank thread runs the phases of a group of rows one after the other; within a phase rows are independent and
 * go to the pool. Between phases the ranks exchange what the phase found; one rank skips that. */
#include "dev/cpu/sample.h"

#include "base/mem.h"
#include "comm/comm.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIGIT_BITS = 11, DIGITS = 3, BUCKETS = 1 << DIGIT_BITS, GROUP = 16, SLICES = 8 };

/* The race of z + noise. `best` of the winner so far lets gumbel_next jump over all who can not pass it. Ids are this rank's, from 0; the
 * key has the rank's first id added. */
struct race {
    const float *x;
    float max;
    double temperature;
    uint64_t key;
    double best;
    int32_t winner;
};

/* A row on its way. */
struct cand {
    const struct sample_row *row;
    const float *x;
    float max; /* over all ranks, after exchange_max */
    bool bad, greedy, some; /* some: top_k, top_p or min_p leave only some tokens */
    struct race race;
    int32_t n;      /* candidates of this rank: */
    int32_t *ids;   /* ascending */
    uint32_t *keys; /* their logits as integers in the same order */
    float *values;  /* their logits, then exp(z - z_max) */
    /* Selection of a prefix in (key descending, id ascending) order. */
    bool selecting, by_weight;
    uint64_t need;
    uint32_t prefix, known;
    uint64_t *buckets; /* [BUCKETS], while selecting */
};

struct found_max {
    float max;
    int32_t bad;
};
struct found_best {
    double best;
    int32_t id, reserved; /* -1: none */
};
struct found_logprobs {
    double sums[SLICES];
    struct token_logprobs top; /* logits; `chosen` is the owner's */
};

struct sampler {
    struct sampler_args a;
    int32_t n_ranks, rank, group, n; /* rows at a time; rows under way */
    struct cand *rows;               /* [group] */
    uint64_t *buckets;               /* [group][BUCKETS] */
    char *mine, *all;                /* what is exchanged: [group] and [n_ranks][group] of the largest */
    int32_t digit;
};

static int32_t group_of(int32_t max_rows) { return max_rows < GROUP ? max_rows : GROUP; }

size_t sampler_bytes(int32_t n_ids, int32_t max_rows) {
    size_t row = (size_t)n_ids * 12 + BUCKETS * sizeof(uint64_t) + sizeof(struct cand) + 2 * sizeof(struct found_logprobs);
    return sizeof(struct sampler) + (size_t)group_of(max_rows) * row;
}

struct sampler *sampler_new(const struct sampler_args *a) {
    struct sampler *s = mem_zalloc(1, sizeof *s);
    s->a = *a;
    s->n_ranks = a->comm ? a->comm->n_ranks : 1;
    s->rank = a->comm ? a->comm->rank : 0;
    s->group = group_of(a->max_rows);
    size_t group = (size_t)s->group, ids = (size_t)a->n_ids;
    s->rows = mem_zalloc(group, sizeof *s->rows);
    s->buckets = mem_array(group * BUCKETS, sizeof *s->buckets);
    s->mine = mem_zalloc(group, sizeof(struct found_logprobs));
    s->all = mem_zalloc(group * (size_t)s->n_ranks, sizeof(struct found_logprobs));
    for (size_t i = 0; i < group; i++) {
        s->rows[i].ids = mem_array(ids, sizeof *s->rows[i].ids);
        s->rows[i].keys = mem_array(ids, sizeof *s->rows[i].keys);
        s->rows[i].values = mem_array(ids, sizeof *s->rows[i].values);
    }
    return s;
}

void sampler_free(struct sampler *s) {
    if (!s) return;
    for (int32_t i = 0; i < s->group; i++) {
        free(s->rows[i].ids);
        free(s->rows[i].keys);
        free(s->rows[i].values);
    }
    free(s->rows);
    free(s->buckets);
    free(s->mine);
    free(s->all);
    free(s);
}

/* ---- noise ---- */

double gumbel_noise(uint32_t h) { return -log(-log(((double)h + 0.5) * 0x1p-32)); }

/* gumbel_bits(key_from(key, first), i) == gumbel_bits(key, first + i) */
static uint64_t key_from(uint64_t key, int32_t first) {
    return (key & 0xffffffff00000000u) | (uint32_t)((uint32_t)key + (uint32_t)first);
}

/* Order-preserving bits; -0 counts as +0. */
static uint32_t key_of(float f) {
    uint32_t u = bits_of_f32(f + 0.0f);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* ---- phases and exchanges ---- */

typedef void phase_fn(struct sampler *s, struct cand *c, int32_t i);
struct phase {
    struct sampler *s;
    phase_fn *fn;
};

static void phase_piece(void *arg, int32_t piece, int32_t thread) {
    (void)thread;
    struct phase *p = arg;
    struct cand *c = &p->s->rows[piece];
    if (!c->bad) p->fn(p->s, c, piece);
}

static void each(struct sampler *s, phase_fn *fn) { pool_run(s->a.pool, phase_piece, &(struct phase){s, fn}, s->n); }

/* Everyone's `mine` of `size` bytes a row into `all`. */
static int exchange(struct sampler *s, size_t size, struct err *e) {
    return comm_gather(s->a.comm, s->mine, s->all, size * (size_t)s->n, e);
}

static void *of_rank(const struct sampler *s, int32_t rank, int32_t row, size_t size) {
    return s->all + ((size_t)rank * (size_t)s->n + (size_t)row) * size;
}

static void look(struct sampler *s, struct cand *c, int32_t i) {
    struct found_max *f = (struct found_max *)(void *)s->mine + i;
    f->bad = !s->a.ops->scan(c->x, s->a.n_ids, &f->max);
}

static int find_max(struct sampler *s, struct err *e) {
    each(s, look);
    if (exchange(s, sizeof(struct found_max), e)) return -1;
    for (int32_t i = 0; i < s->n; i++) {
        struct cand *c = &s->rows[i];
        c->max = -INFINITY;
        for (int32_t r = 0; r < s->n_ranks; r++) {
            const struct found_max *f = of_rank(s, r, i, sizeof *f);
            c->bad |= f->bad != 0;
            if (f->max > c->max) c->max = f->max;
        }
        c->row->to->bad = c->bad;
    }
    return 0;
}

/* ---- the race ---- */

static int32_t argmax(const float *x, int32_t n, float max) {
    for (int32_t i = 0; i < n; i++)
        if (x[i] == max) return i;
    return -1;
}

static void race_enter(struct race *r, int32_t id) {
    double z = ((double)r->x[id] - (double)r->max) / r->temperature;
    double score = z + gumbel_noise(gumbel_bits(r->key, (uint32_t)id));
    if (r->winner >= 0 && (score < r->best || (score == r->best && id >= r->winner))) return;
    r->best = score;
    r->winner = id;
}

static void race_all(struct sampler *s, struct race *r) {
    float scale = (float)(1 / r->temperature);
    int32_t n = s->a.n_ids, first = argmax(r->x, n, r->max);
    race_enter(r, first < 0 ? 0 : first);
    for (int32_t i = 0;; i++) {
        i = s->a.ops->gumbel_next(r->x, n, i, r->max, scale, r->key, (float)r->best - 1e-3f);
        if (i >= n) return;
        race_enter(r, i);
    }
}

static void race_some(struct sampler *s, struct cand *c, int32_t at) {
    (void)s, (void)at;
    struct race *r = &c->race;
    float scale = (float)(1 / r->temperature);
    for (int32_t i = 0; c->some && i < c->n; i++) {
        float z = (c->x[c->ids[i]] - r->max) * scale;
        if (r->winner >= 0 && z + gumbel_bound(gumbel_bits(r->key, (uint32_t)c->ids[i])) < (float)r->best - 1e-3f) continue;
        race_enter(r, c->ids[i]);
    }
}

/* Greedy and unlimited rows run to their end; the others take their candidates. */
static void enter(struct sampler *s, struct cand *c, int32_t at) {
    (void)at;
    const struct sampling *how = c->row->how;
    c->race = (struct race){.x = c->x, .max = c->max, .temperature = (double)how->temperature,
                            .key = key_from(gumbel_key(how->seed, c->row->position), s->a.first), .winner = -1};
    c->greedy = how->temperature < SAMPLE_GREEDY;
    c->some = !c->greedy && (how->top_k > 0 || how->top_p < 1 || how->min_p > 0);
    if (c->greedy) {
        c->race.winner = argmax(c->x, s->a.n_ids, c->max);
    } else if (!c->some) {
        race_all(s, &c->race);
    } else {
        c->n = s->a.ops->pick(c->ids, c->x, s->a.n_ids, c->max, (float)(1 / c->race.temperature), SAMPLE_FLOOR);
        for (int32_t i = 0; i < c->n; i++) {
            c->values[i] = c->x[c->ids[i]];
            c->keys[i] = key_of(c->values[i]);
        }
    }
}

static int find_winner(struct sampler *s, struct err *e) {
    for (int32_t i = 0; i < s->n; i++) {
        const struct race *r = &s->rows[i].race;
        ((struct found_best *)(void *)s->mine)[i] = (struct found_best){r->best, s->rows[i].bad || r->winner < 0 ? -1 : s->a.first + r->winner, 0};
    }
    if (exchange(s, sizeof(struct found_best), e)) return -1;
    for (int32_t i = 0; i < s->n; i++) {
        const struct found_best *won = NULL;
        for (int32_t r = 0; r < s->n_ranks; r++) { /* ranks' ids ascend: an equal one of a later rank loses */
            const struct found_best *f = of_rank(s, r, i, sizeof *f);
            if (f->id >= 0 && (!won || f->best > won->best)) won = f;
        }
        s->rows[i].row->to->tokens[0] = won ? won->id : 0;
    }
    return 0;
}

/* ---- keeping a prefix: the shortest whose total (count, or weight) reaches `need`. Radix selection: one histogram a digit, from the
 * top, among those that share the digits so far ---- */

static uint64_t weight_of(const struct cand *c, int32_t i) { return c->by_weight ? (uint64_t)((double)c->values[i] * 0x1p40) : 1; }

static uint32_t digit_shift(int32_t d) { return d == 0 ? 21 : d == 1 ? 10 : 0; }
static uint32_t digit_mask(int32_t d) { return d == 2 ? (1u << 10) - 1 : BUCKETS - 1; }

static void histogram(struct sampler *s, struct cand *c, int32_t at) {
    (void)at;
    if (!c->selecting) return;
    uint32_t shift = digit_shift(s->digit), mask = digit_mask(s->digit);
    memset(c->buckets, 0, BUCKETS * sizeof *c->buckets);
    for (int32_t i = 0; i < c->n; i++)
        if (((c->keys[i] ^ c->prefix) & c->known) == 0) c->buckets[c->keys[i] >> shift & mask] += weight_of(c, i);
}

static void choose_bucket(const struct sampler *s, struct cand *c) {
    uint32_t mask = digit_mask(s->digit), b = mask;
    while (b > 0 && c->buckets[b] < c->need) c->need -= c->buckets[b--];
    c->prefix |= b << digit_shift(s->digit);
    c->known |= mask << digit_shift(s->digit);
}

static void weigh_equal(struct sampler *s, struct cand *c, int32_t at) {
    uint64_t sum = 0;
    for (int32_t i = 0; c->selecting && i < c->n; i++)
        if (c->keys[i] == c->prefix) sum += weight_of(c, i);
    ((uint64_t *)(void *)s->mine)[at] = sum;
}

/* `need` is now what those equal to the key must give, lowest ids first. */
static void compact(struct sampler *s, struct cand *c, int32_t at) {
    (void)s, (void)at;
    int32_t kept = 0;
    if (!c->selecting) return;
    for (int32_t i = 0; i < c->n; i++) {
        if (c->keys[i] < c->prefix) continue;
        if (c->keys[i] == c->prefix) {
            if (c->need == 0) continue;
            uint64_t w = weight_of(c, i);
            c->need -= w < c->need ? w : c->need;
        }
        c->ids[kept] = c->ids[i];
        c->keys[kept] = c->keys[i];
        c->values[kept++] = c->values[i];
    }
    c->n = kept;
}

static int keep_prefix(struct sampler *s, struct err *e) {
    size_t n = 0;
    for (int32_t i = 0; i < s->n; i++)
        if (s->rows[i].selecting) s->rows[i].buckets = s->buckets + BUCKETS * n++;
    for (s->digit = 0; s->digit < DIGITS; s->digit++) {
        each(s, histogram);
        if (comm_sum_u64(s->a.comm, s->buckets, n * BUCKETS, e)) return -1;
        for (int32_t i = 0; i < s->n; i++)
            if (s->rows[i].selecting) choose_bucket(s, &s->rows[i]);
    }
    each(s, weigh_equal);
    if (exchange(s, sizeof(uint64_t), e)) return -1;
    for (int32_t i = 0; i < s->n; i++)
        for (int32_t r = 0; r < s->rank && s->rows[i].selecting; r++) {
            uint64_t before = *(const uint64_t *)of_rank(s, r, i, sizeof(uint64_t));
            s->rows[i].need -= before < s->rows[i].need ? before : s->rows[i].need;
        }
    each(s, compact);
    return 0;
}

/* Start the selection of those rows that `wants`; are there any? */
static bool start_selection(struct sampler *s, bool (*wants)(const struct cand *c), bool by_weight) {
    bool any = false;
    for (int32_t i = 0; i < s->n; i++) {
        struct cand *c = &s->rows[i];
        c->selecting = !c->bad && c->some && wants(c);
        c->by_weight = by_weight;
        c->prefix = c->known = 0;
        any |= c->selecting;
    }
    return any;
}

static bool wants_top_k(const struct cand *c) { return c->row->how->top_k > 0; }
static bool wants_top_p(const struct cand *c) { return c->row->how->top_p < 1; }

static int keep_top_k(struct sampler *s, struct err *e) {
    if (!start_selection(s, wants_top_k, false)) return 0;
    for (int32_t i = 0; i < s->n; i++) s->rows[i].need = (uint64_t)s->rows[i].row->how->top_k;
    return keep_prefix(s, e);
}

static void weigh(struct sampler *s, struct cand *c, int32_t at) {
    uint64_t sum = 0;
    if (c->some) s->a.ops->exp_scaled(c->values, c->values, c->n, c->max, (float)(1 / c->race.temperature));
    for (int32_t i = 0; c->selecting && i < c->n; i++) sum += weight_of(c, i);
    ((uint64_t *)(void *)s->mine)[at] = sum;
}

static int keep_top_p(struct sampler *s, struct err *e) {
    bool any = start_selection(s, wants_top_p, true);
    each(s, weigh);
    if (!any) return 0;
    if (exchange(s, sizeof(uint64_t), e)) return -1;
    for (int32_t i = 0; i < s->n; i++) {
        struct cand *c = &s->rows[i];
        uint64_t sum = 0;
        for (int32_t r = 0; r < s->n_ranks; r++) sum += *(const uint64_t *)of_rank(s, r, i, sizeof(uint64_t));
        uint64_t need = (uint64_t)ceil((double)c->row->how->top_p * (double)sum);
        c->need = need < 1 ? 1 : need > sum ? sum : need;
    }
    return keep_prefix(s, e);
}

static void keep_min_p(struct sampler *s, struct cand *c, int32_t at) {
    (void)s, (void)at;
    int32_t kept = 0;
    if (!c->some || c->row->how->min_p <= 0) return;
    for (int32_t i = 0; i < c->n; i++)
        if (c->values[i] >= c->row->how->min_p) c->ids[kept++] = c->ids[i];
    c->n = kept;
}

static int limit_rows(struct sampler *s, struct err *e) {
    bool any = false;
    for (int32_t i = 0; i < s->n; i++) any |= !s->rows[i].bad && s->rows[i].some;
    if (!any) return 0;
    if (keep_top_k(s, e) || keep_top_p(s, e)) return -1;
    each(s, keep_min_p);
    each(s, race_some);
    return 0;
}

/* ---- log-probabilities ---- */

/* Insert (id, value) where it belongs among the n most likely; ids come ascending, so an equal one goes behind. */
static void top_insert(struct token_logprobs *p, int32_t want, int32_t id, float value) {
    int32_t at = p->n < want ? p->n++ : want - 1;
    for (; at > 0 && p->top[at - 1].logprob < value; at--) p->top[at] = p->top[at - 1];
    p->top[at] = (struct logprob){id, value};
}

static int32_t wanted(const struct cand *c, int32_t n) {
    int32_t want = c->row->how->n_logprobs;
    if (want > LOGPROBS_MAX) want = LOGPROBS_MAX;
    return want < n ? want : n;
}

static void top_add(struct token_logprobs *p, int32_t want, int32_t id, float value) {
    if (want > 0 && (p->n < want || value > p->top[want - 1].logprob)) top_insert(p, want, id, value);
}

static void look_logprobs(struct sampler *s, struct cand *c, int32_t at) {
    struct found_logprobs *f = (struct found_logprobs *)(void *)s->mine + at;
    if (c->row->how->n_logprobs < 0) return;
    int32_t slice = (s->a.n_total + SLICES - 1) / SLICES, n = s->a.n_ids, want = wanted(c, n);
    for (int32_t k = 0; k < SLICES; k++) {
        int32_t from = k * slice < n ? k * slice : n, to = n - from < slice ? n : from + slice;
        f->sums[k] = s->a.ops->sum_exp(c->x + from, to - from, c->max);
    }
    f->top.n = 0;
    for (int32_t i = 0; want > 0 && i < n; i++) top_add(&f->top, want, s->a.first + i, c->x[i]);
    int32_t chosen = c->row->to->tokens[0] - s->a.first;
    f->top.chosen = chosen >= 0 && chosen < n ? c->x[chosen] : 0;
}

static double tree(const double *x, int32_t n) { return n == 1 ? x[0] : tree(x, n / 2) + tree(x + n / 2, n / 2); }

static void merge_logprobs(const struct sampler *s, const struct cand *c, int32_t at) {
    struct token_logprobs *to = &c->row->to->logprobs;
    int32_t share = SLICES / s->n_ranks, want = wanted(c, s->a.n_total), owner = 0, slice = (s->a.n_total + SLICES - 1) / SLICES;
    double sums[SLICES];
    owner = c->row->to->tokens[0] / (slice * share);
    to->n = 0;
    for (int32_t r = 0; r < s->n_ranks; r++) {
        const struct found_logprobs *f = of_rank(s, r, at, sizeof *f);
        memcpy(sums + r * share, f->sums, (size_t)share * sizeof *sums);
        for (int32_t i = 0; i < f->top.n; i++) top_add(to, want, f->top.top[i].id, f->top.top[i].logprob);
        if (r == owner) to->chosen = f->top.chosen;
    }
    double lse = (double)c->max + log(tree(sums, SLICES));
    for (int32_t i = 0; i < to->n; i++) to->top[i].logprob = (float)((double)to->top[i].logprob - lse);
    to->chosen = (float)((double)to->chosen - lse);
}

static int find_logprobs(struct sampler *s, struct err *e) {
    bool any = false;
    for (int32_t i = 0; i < s->n; i++) any |= !s->rows[i].bad && s->rows[i].row->how->n_logprobs >= 0;
    if (!any) return 0;
    each(s, look_logprobs);
    if (exchange(s, sizeof(struct found_logprobs), e)) return -1;
    for (int32_t i = 0; i < s->n; i++)
        if (!s->rows[i].bad && s->rows[i].row->how->n_logprobs >= 0) merge_logprobs(s, &s->rows[i], i);
    return 0;
}

/* ---- a group ---- */

static void begin(struct cand *c, const struct sample_row *row) {
    c->row = row;
    c->x = row->logits;
    c->bad = c->some = c->selecting = false;
    c->n = 0;
    row->to->n_tokens = 1;
    row->to->tokens[0] = 0;
    row->to->logprobs.n = 0;
    row->to->logprobs.chosen = 0;
}

static int run_group(struct sampler *s, const struct sample_row *rows, int32_t n, struct err *e) {
    s->n = n;
    for (int32_t i = 0; i < n; i++) begin(&s->rows[i], &rows[i]);
    if (find_max(s, e)) return -1;
    each(s, enter);
    if (limit_rows(s, e) || find_winner(s, e)) return -1;
    return find_logprobs(s, e);
}

int sampler_run(struct sampler *s, const struct sample_row *rows, int32_t n, struct err *e) {
    for (int32_t i = 0; i < n; i += s->group)
        if (run_group(s, rows + i, n - i < s->group ? n - i : s->group, e)) return -1;
    return 0;
}
