/* check.c: the scheduler's invariants, looked at from outside the code that keeps them. For tests: slow. */
#include "base/err.h"
#include "base/mem.h"
#include "sched/seq.h"

#include <stdlib.h>

static int32_t check_row(const struct sched *s, const struct seq *q, uint8_t *owners) {
    if (s->by_slot[q->slot] != q) BUG("slot %d is not its sequence's", q->slot);
    if (q->finish != FINISH_NONE && !q->in_flight) BUG("slot %d is kept by a finished sequence", q->slot);
    if (q->in_flight < 0 || q->n_sampling < 0 || q->n_kv > q->n_done || q->n_done > q->n_pages * s->a.page_size ||
        q->n_shared > q->n_pages)
        BUG("slot %d: in flight %d, sampling %d, computed %d, planned %d, %d pages, %d shared", q->slot, q->in_flight,
            q->n_sampling, q->n_kv, q->n_done, q->n_pages, q->n_shared);
    const int32_t *row = page_row(s, q->slot);
    for (int32_t i = 0; i < q->n_pages; i++) {
        if (row[i] <= 0 || row[i] >= s->a.n_pages) BUG("slot %d has page %d", q->slot, row[i]);
        if (i < q->n_shared && !(owners[row[i]] & 1)) BUG("page %d is shared, but not in the cache", row[i]);
        if (i >= q->n_shared && owners[row[i]]) BUG("page %d has two owners", row[i]);
        if (i >= q->n_shared) owners[row[i]] = 2;
    }
    return q->n_pages - q->n_shared;
}

/* Prompts not wholly planned are in the list of those begun, each once, and nothing else is. */
static void check_begun(const struct sched *s) {
    int32_t n = 0;
    for (const struct seq *q = s->running.first; q; q = q->next) {
        int32_t times = 0;
        for (int32_t i = 0; i < s->n_begun; i++) times += s->begun[i] == q;
        if (times != (q->n_done < q->n_given))
            BUG("slot %d, %d of %d tokens planned, is %d times among the prompts begun", q->slot, q->n_done, q->n_given,
                times);
        n += times;
    }
    if (n != s->n_begun) BUG("%d prompts are begun, of which %d run", s->n_begun, n);
}

static void check_sums(const struct sched *s) {
    int64_t whole = 0, rows = 0;
    for (const struct seq *q = s->running.first; q; q = q->next) {
        whole += pages_for(s, q->req ? q->req->n_prompt + q->max_out : q->n_whole * s->a.page_size);
        rows += q->n_pages;
    }
    if (whole != s->pages_whole || rows != s->pages_rows)
        BUG("running sequences may grow to %lld pages and have %lld; counted %lld and %lld", (long long)whole,
            (long long)rows, (long long)s->pages_whole, (long long)s->pages_rows);
}

void sched_check(struct sched *s) {
    int32_t held = 0, slots = 0, cached = s->radix ? radix_pages(s->radix) : 0;
    uint8_t *owners = mem_zalloc((size_t)s->a.n_pages, 1); /* 1: the cache, 2: a sequence */
    for (const struct seq *q = s->running.first; q; q = q->next)
        if (q->node) radix_expect_lock(q->node);
    if (s->radix) radix_check(s->radix, owners);
    for (int32_t i = 0; i < s->a.n_pages; i++)
        if (owners[i] > 1) BUG("page %d lies under two nodes of the cache", i);
    for (const struct seq *q = s->running.first; q; q = q->next, slots++) held += check_row(s, q, owners);
    for (int32_t i = 1; i < s->a.n_pages; i++)
        if ((owners[i] != 0) != (s->pool.taken[i] != 0))
            BUG("page %d: taken %d, owner %d", i, s->pool.taken[i], owners[i]);
    for (const struct seq *q = s->waiting.first; q; q = q->next)
        if (q->passed > SCHED_PASSED_MOST || q->slot >= 0 || q->in_flight || q->finish != FINISH_NONE)
            BUG("a waiting request was passed over %d times, has slot %d and %d steps", q->passed, q->slot,
                q->in_flight);
    free(owners);
    check_begun(s);
    check_sums(s);
    if (held + cached + s->pool.n_free != s->a.n_pages - 1)
        BUG("pages: %d held + %d cached + %d free != %d", held, cached, s->pool.n_free, s->a.n_pages - 1);
    if (slots + s->n_free_slots != s->a.max_running || slots != s->running.n)
        BUG("slots: %d used + %d free != %d", slots, s->n_free_slots, s->a.max_running);
}
