/* share.c: a sequence's pages and the prefix cache. Scheduler thread. */
#include "sched/seq.h"

#include <string.h>

/* A match costs as long as it is; many requests wait, and the tree changes with every step: so many of them are asked
 * for in one. */
enum { PEEKS_A_STEP = 4 };

/* The first n tokens of q, in s->tokens where they are not one array. */
static const int32_t *tokens_of(struct sched *s, const struct seq *q, int32_t n) {
    int32_t n_prompt = q->req->n_prompt;
    if (n <= n_prompt) return q->req->prompt;
    memcpy(s->tokens, q->req->prompt, (size_t)n_prompt * sizeof *s->tokens);
    memcpy(s->tokens + n_prompt, q->req->out_tokens, (size_t)(n - n_prompt) * sizeof *s->tokens);
    return s->tokens;
}

int32_t share_available(const struct sched *s) { return s->pool.n_free + (s->radix ? radix_evictable(s->radix) : 0); }

int32_t share_take_page(struct sched *s) {
    if (!s->pool.n_free && s->radix) radix_evict(s->radix, 1);
    return pool_take(&s->pool);
}

void share_peek(struct sched *s, struct seq *q) {
    if (!s->radix) return;
    uint64_t version = radix_version(s->radix) + 1;
    if (q->peek.version == version) return;
    struct radix_hit hit = {0};
    struct radix_node *root = radix_root_find(s->radix, q->req->cache_salt);
    if (root) hit = radix_match(s->radix, root, tokens_of(s, q, q->n_given), q->n_given - 1, s->match);
    q->peek.n_pages = hit.n_pages;
    q->peek.n_unheld = hit.n_unheld;
    q->peek.version = version;
}

void share_peek_some(struct sched *s) {
    for (int i = 0; i < PEEKS_A_STEP && i < s->waiting.n; i++) {
        if (!s->peek_next) s->peek_next = s->waiting.first;
        share_peek(s, s->peek_next);
        s->peek_next = s->peek_next->next;
    }
}

/* At least the last token is computed anew, for its logits. */
void share_begin(struct sched *s, struct seq *q) {
    q->n_shared = q->dirty_from = 0;
    if (!s->radix) return;
    q->root = radix_root(s->radix, q->req->cache_salt);
    struct radix_hit hit =
        radix_match(s->radix, q->root, tokens_of(s, q, q->n_given), q->n_given - 1, page_row(s, q->slot));
    radix_lock(s->radix, hit.node);
    q->node = hit.node;
    q->n_shared = q->n_pages = hit.n_pages;
    s->pages_rows += q->n_pages;
    q->n_done = q->n_kv = q->n_shared * s->a.page_size;
    if (q->admitted) return; /* put back before: what it finds now is mostly its own */
    q->n_cached = q->n_done;
    if (s->a.stats) {
        atomic_fetch_add_explicit(&s->a.stats->cache_queries, (uint64_t)q->n_given, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->a.stats->cached_tokens, (uint64_t)q->n_done, memory_order_relaxed);
    }
}

/* Whole pages of known tokens. Where the cache has the same tokens already, q goes on with the cache's pages; the
 * device hears of it before q's next step, and no step that is under way is disturbed, since what is freed here is
 * written by later steps only. */
void share_computed(struct sched *s, struct seq *q) {
    if (!s->radix) return;
    int32_t known = q->req->n_prompt + q->n_out, n = (q->n_kv < known ? q->n_kv : known) / s->a.page_size, changed;
    if (n <= q->n_shared) return;
    struct radix_node *node = radix_insert(s->radix, q->root, tokens_of(s, q, n * s->a.page_size), n, q->n_shared,
                                           page_row(s, q->slot), &changed);
    radix_unlock(s->radix, q->node);
    q->node = node;
    q->n_shared = n;
    if (changed < q->dirty_from) q->dirty_from = changed;
}

void share_end(struct sched *s, struct seq *q) {
    const int32_t *row = page_row(s, q->slot);
    for (int32_t i = q->n_shared; i < q->n_pages; i++) pool_give(&s->pool, row[i]);
    if (s->radix) radix_unlock(s->radix, q->node);
    s->pages_rows -= q->n_pages;
    q->n_pages = q->n_shared = 0;
    q->node = q->root = NULL;
}
