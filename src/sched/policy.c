/* policy.c: who is admitted next. A policy is a row of one table: how it ranks waiting requests, whether it
 * reserves an answer's whole length, whether prompts and decodes share a step.
 *
 * Nobody is passed over more than PASSED_MOST times: a request that was, and still does not fit, holds up all
 * behind it. Over-commitment: a request is admitted when the expected peak of pages, by the lengths that finished
 * answers had, stays within the pool; when the expectation was wrong, plan.c puts the youngest back. */
#include "sched/seq.h"

#include <string.h>

/* Waiting requests that are looked at: to rank them, and for one that fits. */
enum { RANK = 64, LOOK_AT = 16, PASSED_MOST = SCHED_PASSED_MOST };

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

/* Expected peak: at time t (tokens from now) the answers expected to last t or longer have grown by t each, and the
 * shorter ones have given back their own pages. Buckets by expected rest, shortest first. */
static void outlook_add(const struct sched *s, struct outlook *o, const struct seq *q, int64_t own) {
    int32_t b = length_bucket(lengths_rest(&s->lengths, q->n_out, q->req->max_tokens));
    o->n[b]++;
    o->own[b] += own;
    if (b < o->first) o->first = b;
    if (b > o->last) o->last = b;
}

static void make_outlook(struct sched *s) {
    struct outlook *o = &s->outlook;
    *o = (struct outlook){
        .known = true, .start = s->a.n_pages - 1 - share_available(s), .first = LENGTH_BUCKETS, .last = -1};
    for (const struct seq *r = s->running.first; r; r = r->next) {
        if (r->finish != FINISH_NONE) continue;
        int32_t to_come = pages_for(s, r->n_given + 1) - r->n_pages;
        if (to_come < 0) to_come = 0;
        o->start += to_come;
        o->whole += pages_for(s, r->req->n_prompt + r->req->max_tokens) - r->n_pages;
        outlook_add(s, o, r, r->n_pages - r->n_shared + to_come);
    }
}

static bool fits_whole(const struct sched *s, const struct seq *q) {
    int64_t need = pages_for(s, q->req->n_prompt + q->req->max_tokens) - q->peek.n_pages + q->peek.n_unheld;
    return s->outlook.whole + need <= share_available(s);
}

static bool fits_expected(const struct sched *s, const struct seq *q) {
    const struct outlook *o = &s->outlook;
    int32_t own = pages_for(s, q->n_given + 1) - q->peek.n_pages;
    int32_t mine = length_bucket(lengths_rest(&s->lengths, q->n_out, q->req->max_tokens));
    int64_t start = o->start + q->peek.n_unheld + own, alive = s->running.n + 1, room = s->a.n_pages - 1;
    room -= room * s->a.margin_percent / 100;
    if (start > room) return false;
    int32_t last = mine > o->last ? mine : o->last;
    for (int32_t b = mine < o->first ? mine : o->first; b <= last; b++) {
        int32_t n = o->n[b] + (b == mine);
        if (!n) continue;
        if (start + alive * ((int64_t)length_of_bucket(b) / s->a.page_size + 1) > room) return false;
        start -= o->own[b] + (b == mine ? own : 0);
        alive -= n;
    }
    return true;
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
