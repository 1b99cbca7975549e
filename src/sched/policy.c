/* policy.c: who is admitted next. A policy is a row of one table: how it ranks waiting requests, whether it
 * reserves an answer's whole length, whether prompts and decodes share a step.
 *
 * Nobody is passed over more than PASSED_MOST times: a request that was, and still does not fit, holds up all
 * behind it. Over-commitment: a request is admitted when the expected peak of pages, by the lengths that finished
 * answers had, stays within the pool; when the expectation was wrong, plan.c puts the youngest back. */
#include "sched/seq.h"

#include <string.h>

enum { LOOK_AT = 64, PASSED_MOST = 8 };

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

static bool fits_whole(struct sched *s, const struct seq *q) {
    int32_t unheld, have = share_peek(s, q, &unheld);
    int64_t need = pages_for(s, q->req->n_prompt + q->req->max_tokens) - have + unheld;
    for (const struct seq *r = s->running.first; r; r = r->next)
        if (r->finish == FINISH_NONE) need += pages_for(s, r->req->n_prompt + r->req->max_tokens) - r->n_pages;
    return need <= share_available(s);
}

/* Expected peak: at time t (tokens from now) the answers expected to last t or longer have grown by t each, and the
 * shorter ones have given back their own pages. Buckets by expected rest, longest first. */
struct growth {
    int32_t n[LENGTH_BUCKETS];      /* sequences whose rest lies in the bucket */
    int64_t own[LENGTH_BUCKETS];    /* their own pages by now, prompts counted whole */
    int64_t start;                  /* pages that will be held once all prompts are computed */
};

static void grow_by(const struct sched *s, struct growth *g, const struct seq *q, int64_t own) {
    int32_t most = q->req->max_tokens, b = length_bucket(lengths_rest(&s->lengths, q->n_out, most));
    g->n[b]++;
    g->own[b] += own;
}

static bool fits_expected(struct sched *s, const struct seq *q) {
    int32_t unheld, have = share_peek(s, q, &unheld), own = pages_for(s, q->n_given + 1) - have;
    struct growth g = {.start = s->a.n_pages - 1 - share_available(s) + unheld + own};
    for (const struct seq *r = s->running.first; r; r = r->next) {
        if (r->finish != FINISH_NONE) continue;
        int32_t to_come = pages_for(s, r->n_given + 1) - r->n_pages;
        if (to_come > 0) g.start += to_come;
        grow_by(s, &g, r, r->n_pages - r->n_shared + (to_come > 0 ? to_come : 0));
    }
    grow_by(s, &g, q, own);
    int64_t gone = 0, alive = s->running.n + 1, room = s->a.n_pages - 1;
    room -= room * s->a.margin_percent / 100;
    for (int32_t b = 0; b < LENGTH_BUCKETS; b++) {
        if (!g.n[b]) continue;
        int64_t grown = alive * ((int64_t)length_of_bucket(b) / s->a.page_size + 1);
        if (g.start - gone + grown > room) return false;
        gone += g.own[b];
        alive -= g.n[b];
    }
    return true;
}

static bool fits(struct sched *s, const struct seq *q) {
    if (!s->running.n) return true; /* alone everything fits: checked at the front door */
    return policy_of(s)->reserve_whole ? fits_whole(s, q) : fits_expected(s, q);
}

/* ---- who is next? ---- */

/* Rank by cached prefix: the best of the first LOOK_AT, unless somebody waited long enough. */
static struct seq *longest_prefix(struct sched *s) {
    struct seq *best = s->waiting.first;
    int32_t most = -1, left = LOOK_AT;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        int32_t unheld, n = share_peek(s, q, &unheld);
        if (q->passed >= PASSED_MOST) return q;
        if (n > most) most = n, best = q;
    }
    return best;
}

static struct seq *pass_over(struct sched *s, struct seq *chosen) {
    for (struct seq *q = s->waiting.first; q != chosen; q = q->next) q->passed++;
    return chosen;
}

static bool may_overtake(const struct sched *s, const struct seq *q) {
    for (const struct seq *r = s->waiting.first; r != q; r = r->next)
        if (r->passed >= PASSED_MOST) return false;
    return true;
}

struct seq *policy_next(struct sched *s) {
    if (!s->waiting.first || !s->n_free_slots) return NULL;
    if (policy_of(s)->longest_prefix) {
        struct seq *q = longest_prefix(s);
        if (may_overtake(s, q) && fits(s, q)) return pass_over(s, q);
    }
    int32_t left = policy_of(s)->reserve_whole ? 1 : LOOK_AT;
    for (struct seq *q = s->waiting.first; q && left-- > 0; q = q->next) {
        if (fits(s, q)) return pass_over(s, q);
        if (q->passed >= PASSED_MOST) return NULL;
    }
    return NULL;
}
