/* policy.c: who is admitted next. A policy is a row of one table: how it ranks waiting requests, whether it
 * reserves an answer's whole length, whether prompts and decodes share a step.
 *
 * Nobody is passed over more than SCHED_PASSED_MOST times: a request that was, and still does not fit, holds up all
 * behind it.
 *
 * Over-commitment: an answer of n tokens is still there t tokens later with the probability that finished answers tell
 * (estimate.h). So the pages that the running sequences and a new one will hold at some time are a sum of independent
 * numbers, of known mean and variance; a request is admitted when at all times the mean and SPREADS standard deviations
 * stay within the pool. The fewer sequences, the wider the margin. When it was wrong all the same, plan.c puts the
 * youngest back. */
#include "sched/seq.h"

#include <string.h>

/* Waiting requests that are looked at: to rank them, and for one that fits. */
enum { RANK = 64, LOOK_AT = 16, PASSED_MOST = SCHED_PASSED_MOST };
static const double SPREADS = 2;

static const struct policy {
    const char *name;
    bool longest_prefix; /* rank by what the cache has, else by arrival */
    bool reserve_whole;  /* pages for prompt and max_tokens, so that nothing is ever put back */
    bool prefill_first;  /* a step has prompts or decodes, prompts first */
} policies[] = {
    {"fcfs", false, false, false},
    {"lpm", true, false, false},
    {"classic", false, true, true},
};

static const struct policy *policy_of(const struct sched *s) { return &policies[s->a.policy]; }

int sched_policy(const char *name) {
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        if (!strcmp(policies[i].name, name)) return (int)i;
    return -1;
}

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

/* One group's part of the outlook: of n sequences alive with probability p each, that own `own` pages in all. */
static void add_group(const struct sched *s, struct outlook *o, int32_t length, struct outlook_group *g) {
    struct outlook_group sum = {0};
    for (int h = HORIZONS; h >= 0; h--) {
        sum.n += g[h].n;
        sum.own += g[h].own;
        sum.own2 += g[h].own2;
        g[h] = (struct outlook_group){0};
        if (!sum.n || !h) continue;
        double p = lengths_alive(&s->lengths, length, horizon(h - 1)), t = growth(s, h - 1);
        o->mean[h - 1] += p * (sum.own + sum.n * t);
        o->var[h - 1] += p * (1 - p) * (sum.own2 + 2 * t * sum.own + sum.n * t * t);
    }
}

static void make_outlook(struct sched *s) {
    struct outlook *o = &s->outlook;
    int64_t held = s->a.n_pages - 1 - share_available(s), whole = 0;
    int32_t first = LENGTH_BUCKETS, last = -1;
    for (const struct seq *r = s->running.first; r; r = r->next) {
        if (r->finish != FINISH_NONE) continue;
        int32_t to_come = pages_for(s, r->n_given + 1) - r->n_pages, b = length_bucket(r->n_out);
        if (to_come < 0) to_come = 0;
        double own = r->n_pages - r->n_shared + to_come;
        held -= r->n_pages - r->n_shared;
        whole += pages_for(s, r->req->n_prompt + r->req->max_tokens) - r->n_pages;
        struct outlook_group *g = &o->group[b][n_horizons(r->req->max_tokens - r->n_out)];
        g->n++;
        g->own += own;
        g->own2 += own * own;
        if (b < first) first = b;
        if (b > last) last = b;
    }
    for (int h = 0; h < HORIZONS; h++) o->mean[h] = (double)held, o->var[h] = 0; /* what is held whoever leaves */
    for (int32_t b = first; b <= last; b++) add_group(s, o, length_of_bucket(b), o->group[b]);
    o->whole = whole;
    o->known = true;
}

static bool fits_whole(const struct sched *s, const struct seq *q) {
    int64_t need = pages_for(s, q->req->n_prompt + q->req->max_tokens) - q->peek.n_pages + q->peek.n_unheld;
    return s->outlook.whole + need <= share_available(s);
}

static bool fits_expected(const struct sched *s, const struct seq *q) {
    const struct outlook *o = &s->outlook;
    double own = pages_for(s, q->n_given + 1) - q->peek.n_pages, room = s->a.n_pages - 1;
    room = room * (100 - s->a.margin_percent) / 100 - q->peek.n_unheld;
    int n = n_horizons(q->req->max_tokens - q->n_out);
    for (int h = 0; h < HORIZONS; h++) {
        double p = h < n ? lengths_alive(&s->lengths, q->n_out, horizon(h)) : 0, mine = own + growth(s, h);
        double left = room - o->mean[h] - p * mine, var = o->var[h] + p * (1 - p) * mine * mine;
        if (left < 0 || left * left < SPREADS * SPREADS * var) return false;
    }
    return true;
}

void policy_admitted(struct sched *s, const struct seq *q) {
    struct outlook *o = &s->outlook;
    if (!o->known) return;
    double own = pages_for(s, q->n_given + 1) - q->peek.n_pages;
    int n = n_horizons(q->req->max_tokens - q->n_out);
    o->whole += pages_for(s, q->req->n_prompt + q->req->max_tokens) - q->n_pages;
    for (int h = 0; h < HORIZONS; h++) {
        double p = h < n ? lengths_alive(&s->lengths, q->n_out, horizon(h)) : 0, mine = own + growth(s, h);
        o->mean[h] += q->peek.n_unheld + p * mine;
        o->var[h] += p * (1 - p) * mine * mine;
    }
}

static bool fits_by_peek(const struct sched *s, const struct seq *q) {
    return policy_of(s)->reserve_whole ? fits_whole(s, q) : fits_expected(s, q);
}

/* By what the cache had lately; a yes is made sure of by what it has now. */
static bool fits(struct sched *s, struct seq *q) {
    if (!s->running.n) return true; /* alone everything fits: checked at the front door */
    if (!s->outlook.known) make_outlook(s);
    share_peek(s, q, q == s->waiting.first);
    if (!fits_by_peek(s, q)) return false;
    share_peek(s, q, true);
    return fits_by_peek(s, q);
}

/* ---- who is next? ---- */

/* Rank by cached prefix: the best of the first RANK, unless somebody waited long enough. */
static struct seq *longest_prefix(struct sched *s) {
    struct seq *best = s->waiting.first;
    int32_t most = -1, left = RANK;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        if (q->passed >= PASSED_MOST) return q;
        share_peek(s, q, false);
        if (q->peek.n_pages > most) most = q->peek.n_pages, best = q;
    }
    return best;
}

static struct seq *pass_over(struct sched *s, struct seq *chosen) {
    for (struct seq *q = s->waiting.first; q != chosen; q = q->next) q->passed++;
    return chosen;
}

struct seq *policy_next(struct sched *s) {
    if (!s->waiting.first || !s->n_free_slots) return NULL;
    if (policy_of(s)->longest_prefix) {
        struct seq *q = longest_prefix(s);
        if (fits(s, q)) return pass_over(s, q);
    }
    int32_t left = policy_of(s)->reserve_whole ? 1 : LOOK_AT;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        if (fits(s, q)) return pass_over(s, q);
        if (q->passed >= PASSED_MOST) return NULL;
    }
    return NULL;
}
