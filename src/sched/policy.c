/* policy.c: who is admitted next, and whose prompt goes on. A policy is a row of one table: how it ranks waiting
 * requests, whether it reserves an answer's whole length, whether prompts and decodes share a step.
 *
 * fcfs: first come, first served, but a prompt that costs less to compute (what the cache has of it costs nothing) may
 * go first, so that nobody waits long behind a long prompt. Two bounds keep it fair. A waiting request is passed over at
 * most SCHED_PASSED_MOST times: one that was, and still does not fit, holds up all behind it. And a prompt that was
 * begun is overtaken step by step, but every TURN-th step is for the oldest: it gets that share of the device at least.
 * lpm: most cached tokens first, within the first bound; prompts that were begun are not overtaken.
 *
 * Over-commitment: an answer of n tokens is still there t tokens later with the probability that finished answers tell
 * (estimate.h). So the pages that the running sequences and a new one will hold at some time are a sum of independent
 * numbers, of known mean and variance; a request is admitted when at all times the mean and SPREADS standard deviations
 * stay within the pool. The fewer sequences, the wider the margin. When it was wrong all the same, plan.c puts the
 * youngest back. */
#include "sched/seq.h"

#include <math.h>
#include <string.h>

/* Waiting requests that are looked at: to rank them, and for one that fits. */
enum { RANK = 64, LOOK_AT = 16, PASSED_MOST = SCHED_PASSED_MOST };
/* Every so many plans the oldest prompt that was begun goes first. */
enum { TURN = 4 };
static const double SPREADS = 2;

enum rank { BY_ARRIVAL, BY_COST, BY_PREFIX };

static const struct policy {
    const char *name;
    enum rank rank;
    bool reserve_whole;  /* pages for prompt and max_tokens, so that nothing is ever put back */
    bool prefill_first;  /* a step has prompts or decodes, prompts first */
} policies[] = {
    {"fcfs", BY_COST, false, false},
    {"lpm", BY_PREFIX, false, false},
    {"classic", BY_ARRIVAL, true, true},
};

static const struct policy *policy_of(const struct sched *s) { return &policies[s->a.policy]; }

int sched_policy(const char *name) {
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        if (!strcmp(policies[i].name, name)) return (int)i;
    return -1;
}

bool policy_ranks(const struct sched *s) { return policy_of(s)->rank != BY_ARRIVAL; }

bool policy_prefill_first(const struct sched *s) { return policy_of(s)->prefill_first; }

/* ---- does it fit? ---- */

/* 0, 16, 24, 32, 48, 64, ...: two to a doubling. */
static int32_t horizon(int h) { return h == 0 ? 0 : (h & 1 ? 16 : 24) << ((h - 1) / 2); }

/* Horizons at which a sequence that may get `left` tokens more is still there. */
static int n_horizons(int32_t left) {
    int h = 0;
    while (h < HORIZONS && horizon(h) < left) h++;
    return h;
}

static double growth(const struct sched *s, int h) { return (double)horizon(h) / s->a.page_size; }

/* P(an answer of this bucket's length is still there at each horizon); may lack the last few answers learned. */
static const float *alive(struct sched *s, int32_t bucket) {
    enum { LAG = 16 };
    struct odds *o = &s->odds[bucket];
    uint32_t n = s->lengths.n + 1;
    if (o->as_of && (n == o->as_of || (n > LENGTHS_FADE && n - o->as_of < LAG))) return o->alive;
    for (int h = 0; h < HORIZONS; h++)
        o->alive[h] = (float)lengths_alive(&s->lengths, length_of_bucket(bucket), horizon(h));
    o->as_of = n;
    return o->alive;
}

/* One group's part of the outlook: of n sequences alive with probability p each, that own `own` pages in all. */
static void add_group(const struct sched *s, struct outlook *o, const float *odds, struct outlook_group *g) {
    struct outlook_group sum = {0};
    for (int h = HORIZONS; h >= 0; h--) {
        sum.n += g[h].n;
        sum.own += g[h].own;
        sum.own2 += g[h].own2;
        g[h] = (struct outlook_group){0};
        if (!sum.n || !h) continue;
        double p = odds[h - 1], t = growth(s, h - 1);
        o->mean[h - 1] += p * (sum.own + sum.n * t);
        o->var[h - 1] += p * (1 - p) * (sum.own2 + 2 * t * sum.own + sum.n * t * t);
    }
}

static void make_outlook(struct sched *s) {
    struct outlook *o = &s->outlook;
    int64_t held = s->a.n_pages - 1 - share_available(s);
    int32_t first = LENGTH_BUCKETS, last = -1;
    for (const struct seq *r = s->running.first; r; r = r->next) {
        if (r->finish != FINISH_NONE) continue;
        int32_t to_come = pages_for(s, r->n_given + 1) - r->n_pages, b = length_bucket(r->n_out);
        if (to_come < 0) to_come = 0;
        double own = r->n_pages - r->n_shared + to_come;
        held -= r->n_pages - r->n_shared;
        struct outlook_group *g = &o->group[b][n_horizons(r->max_out - r->n_out)];
        g->n++;
        g->own += own;
        g->own2 += own * own;
        if (b < first) first = b;
        if (b > last) last = b;
    }
    for (int h = 0; h < HORIZONS; h++) o->mean[h] = (double)held, o->var[h] = 0; /* what is held whoever leaves */
    for (int32_t b = first; b <= last; b++) add_group(s, o, alive(s, b), o->group[b]);
    o->known = true;
}

/* Even when every answer gets as long as it may. */
static bool fits_whole(const struct sched *s, const struct seq *q) {
    int64_t need = pages_for(s, q->req->n_prompt + q->max_out) - q->peek.n_pages + q->peek.n_unheld;
    return s->pages_whole - s->pages_rows + need <= share_available(s);
}

static bool fits_expected(struct sched *s, const struct seq *q) {
    if (!s->outlook.known) make_outlook(s);
    const struct outlook *o = &s->outlook;
    const float *odds = alive(s, length_bucket(q->n_out));
    double own = pages_for(s, q->n_given + 1) - q->peek.n_pages, room = s->a.n_pages - 1;
    room = room * (100 - s->a.margin_percent) / 100 - q->peek.n_unheld;
    int n = n_horizons(q->max_out - q->n_out);
    for (int h = 0; h < HORIZONS; h++) {
        double p = h < n ? odds[h] : 0, mine = own + growth(s, h);
        double left = room - o->mean[h] - p * mine, var = o->var[h] + p * (1 - p) * mine * mine;
        if (left < 0 || left * left < SPREADS * SPREADS * var) return false;
    }
    return true;
}

void policy_admitted(struct sched *s, const struct seq *q) {
    struct outlook *o = &s->outlook;
    if (!o->known) return;
    double own = pages_for(s, q->n_given + 1) - q->peek.n_pages;
    int n = n_horizons(q->max_out - q->n_out);
    const float *odds = alive(s, length_bucket(q->n_out));
    for (int h = 0; h < HORIZONS; h++) {
        double p = h < n ? odds[h] : 0, mine = own + growth(s, h);
        o->mean[h] += q->peek.n_unheld + p * mine;
        o->var[h] += p * (1 - p) * mine * mine;
    }
}

static bool fits_by_peek(struct sched *s, const struct seq *q) {
    return fits_whole(s, q) || (!policy_of(s)->reserve_whole && fits_expected(s, q));
}

/* By what the cache had lately; a yes is made sure of by what it has now. */
static bool fits(struct sched *s, struct seq *q) {
    if (!s->running.n) return true; /* alone everything fits: checked at the front door */
    if (!q->peek.version || !policy_ranks(s)) share_peek(s, q);
    if (!fits_by_peek(s, q)) return false;
    share_peek(s, q);
    return fits_by_peek(s, q);
}

/* ---- who is next? ---- */

/* What q's prompt still costs when the cache has its first `done` tokens. */
static double rest(const struct sched *s, const struct seq *q, int32_t done) {
    return pace_prompt(&s->pace, done, q->n_given - done);
}

static double waiting_rest(const struct sched *s, const struct seq *q) {
    return rest(s, q, q->peek.n_pages * s->a.page_size);
}

/* Prompts that were begun go on, and are overtaken, by cost; in every TURN-th step in the order they were begun. */
static bool by_cost_now(const struct sched *s) {
    return policy_of(s)->rank == BY_COST && s->n_plans % TURN;
}

/* The best of the first RANK, unless somebody waited long enough. */
static struct seq *best_ranked(struct sched *s) {
    bool by_cost = policy_of(s)->rank == BY_COST;
    struct seq *best = s->waiting.first;
    double least = INFINITY;
    int32_t left = RANK;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        if (q->passed >= PASSED_MOST) return q;
        if (!q->peek.version) share_peek(s, q);
        double key = by_cost ? waiting_rest(s, q) : -q->peek.n_pages;
        if (key < least) least = key, best = q;
    }
    return best;
}

void policy_pass_over(struct sched *s, const struct seq *chosen) {
    for (struct seq *q = s->waiting.first; q != chosen; q = q->next) q->passed++;
}

struct seq *policy_next(struct sched *s) {
    if (!s->waiting.first || !s->n_free_slots) return NULL;
    if (policy_ranks(s)) {
        struct seq *q = best_ranked(s);
        if (fits(s, q)) return q;
    }
    int32_t left = policy_of(s)->reserve_whole ? 1 : LOOK_AT;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        if (fits(s, q)) return q;
        if (q->passed >= PASSED_MOST) return NULL;
    }
    return NULL;
}

struct seq *policy_begun(struct sched *s) {
    struct seq *best = NULL;
    double least = INFINITY;
    for (int32_t i = 0; i < s->n_begun; i++) {
        struct seq *q = s->begun[i];
        if (q->finish != FINISH_NONE || q->retract || q->tried == s->n_plans) continue;
        if (!by_cost_now(s)) return q;
        double key = rest(s, q, q->n_done);
        if (key < least) least = key, best = q;
    }
    return best;
}

bool policy_overtakes(const struct sched *s) { return by_cost_now(s); }

bool policy_before(const struct sched *s, const struct seq *waiting, const struct seq *begun) {
    return by_cost_now(s) && waiting_rest(s, waiting) < rest(s, begun, begun->n_done);
}
