/* test_radix.c: the prefix cache against an obvious model: a list of (salt, tokens of k pages) -> page. Random
 * operations, every invariant checked after every step; and the parts below it, runs and pool, against bitmaps.
 * MINISGL_TEST_LONG=1: 10 million. */
/* clang-format off: cmocka.h needs the others first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/mem.h"
#include "kv/radix.h"
#include "kv/runs.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state = 1;
static int32_t rng(int32_t n) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((uint32_t)(rng_state >> 33) % (uint32_t)n);
}

static int64_t steps(int64_t usual) { return getenv("MINISGL_TEST_LONG") ? 50 * usual : usual; }

/* ---- the model ---- */

enum { P_MAX = 3, PAGES_MAX = 14, TOKENS_MAX = P_MAX * PAGES_MAX, POOL_MAX = 64, HOLDERS = 5, SALTS = 3 };

struct entry { /* a cached page: the last of the n_pages that these tokens fill */
    int32_t salt, n_pages, page;
    int32_t tokens[TOKENS_MAX];
};

struct holder { /* what a running sequence is to the cache */
    struct radix_node *node;
    int32_t salt, n_pages; /* pages that the lock surely protects */
    int32_t tokens[TOKENS_MAX];
};

struct twin {
    int32_t P;
    struct pool pool;
    struct radix *r;
    struct entry entry[POOL_MAX];
    int32_t n;
    struct holder holder[HOLDERS];
};

static const char *const salts[SALTS] = {NULL, "a", "another salt"};

static struct entry *find(struct twin *t, int32_t salt, const int32_t *tokens, int32_t n_pages) {
    for (int32_t i = 0; i < t->n; i++)
        if (t->entry[i].salt == salt && t->entry[i].n_pages == n_pages &&
            !memcmp(t->entry[i].tokens, tokens, (size_t)(n_pages * t->P) * sizeof *tokens))
            return &t->entry[i];
    return NULL;
}

static bool protected_by(const struct twin *t, const struct holder *h, const struct entry *e) {
    return h->node && h->salt == e->salt && h->n_pages >= e->n_pages &&
           !memcmp(h->tokens, e->tokens, (size_t)(e->n_pages * t->P) * sizeof *e->tokens);
}

static int32_t n_protected(const struct twin *t) {
    int32_t n = 0;
    for (int32_t i = 0; i < t->n; i++) {
        bool any = false;
        for (int h = 0; h < HOLDERS; h++) any |= protected_by(t, &t->holder[h], &t->entry[i]);
        n += any;
    }
    return n;
}

static void check(struct twin *t) {
    uint8_t owners[POOL_MAX] = {0};
    int locks = 0;
    for (int h = 0; h < HOLDERS; h++)
        if (t->holder[h].node) radix_expect_lock(t->holder[h].node), locks++;
    radix_check(t->r, owners);
    for (int32_t i = 0; i < t->n; i++) {
        assert_int_equal(owners[t->entry[i].page], 1);
        owners[t->entry[i].page] = 0;
    }
    for (int32_t i = 0; i < POOL_MAX; i++) assert_int_equal(owners[i], 0);
    assert_int_equal(radix_pages(t->r), t->n);
    assert_int_equal(t->pool.n_free + t->n, t->pool.n_pages - 1);
    int32_t held = t->n - radix_evictable(t->r);
    assert_true(held >= n_protected(t)); /* a lock may hold the rest of a label too */
    if (!locks) assert_int_equal(held, 0);
}

/* Which entries are gone? Nobody's protected page, and no page whose continuation is still there. */
static void forget_evicted(struct twin *t) {
    for (int32_t i = t->n - 1; i >= 0; i--) {
        if (t->pool.taken[t->entry[i].page]) continue;
        for (int h = 0; h < HOLDERS; h++) assert_false(protected_by(t, &t->holder[h], &t->entry[i]));
        t->entry[i] = t->entry[--t->n];
    }
    for (int32_t i = 0; i < t->n; i++)
        if (t->entry[i].n_pages > 1)
            assert_non_null(find(t, t->entry[i].salt, t->entry[i].tokens, t->entry[i].n_pages - 1));
}

static void evict(struct twin *t, int32_t n) {
    int32_t can = radix_evictable(t->r), before = t->n;
    int32_t done = radix_evict(t->r, n);
    assert_int_equal(done, n < can ? n : can);
    forget_evicted(t);
    assert_int_equal(before - t->n, done);
}

/* Few tokens and few first pages, so that beginnings meet, part in the middle of labels, and end inside them. */
static int32_t random_tokens(struct twin *t, int32_t *tokens) {
    int32_t n = rng(PAGES_MAX * t->P + 1), family = rng(3), own = rng(PAGES_MAX * t->P + 1);
    for (int32_t i = 0; i < n; i++) tokens[i] = i < own ? family + i % 2 : rng(3);
    return n;
}

static struct radix_hit match(struct twin *t, int32_t salt, const int32_t *tokens, int32_t n, int32_t *row) {
    struct radix_node *root = rng(2) ? radix_root(t->r, salts[salt]) : radix_root_find(t->r, salts[salt]);
    int32_t want = 0;
    while ((want + 1) * t->P <= n && find(t, salt, tokens, want + 1)) want++;
    if (!root) {
        assert_int_equal(want, 0);
        root = radix_root(t->r, salts[salt]);
    }
    struct radix_hit hit = radix_match(t->r, root, tokens, n, row);
    assert_int_equal(hit.n_pages, want);
    assert_true(hit.n_unheld >= 0 && hit.n_unheld <= want);
    for (int32_t k = 0; k < want; k++) assert_int_equal(row[k], find(t, salt, tokens, k + 1)->page);
    return hit;
}

static void drop(struct twin *t, struct holder *h) {
    radix_unlock(t->r, h->node);
    h->node = NULL;
    (void)t;
}

/* A sequence comes, is computed, and goes on holding its prefix. */
static void insert(struct twin *t, struct holder *h) {
    int32_t row[PAGES_MAX] = {0}, changed, want_changed;
    if (h->node) drop(t, h);
    h->salt = rng(SALTS);
    int32_t n = random_tokens(t, h->tokens) / t->P;
    struct radix_hit hit = match(t, h->salt, h->tokens, n * t->P, row);
    radix_lock(t->r, hit.node);
    h->node = hit.node;
    h->n_pages = hit.n_pages;
    int32_t shared = rng(4) ? hit.n_pages : 0; /* 0: it was computed beside the cache */
    for (int32_t k = shared; k < n; k++) {
        if (!t->pool.n_free) evict(t, 1);
        row[k] = pool_take(&t->pool);
        if (row[k] < 0) { /* no page to be had: it takes what it has */
            n = k;
            break;
        }
    }
    if (n < hit.n_pages) { /* keep to what it holds */
        for (int32_t k = shared; k < n; k++) pool_give(&t->pool, row[k]);
        return;
    }
    want_changed = n;
    for (int32_t k = n - 1; k >= 0; k--) {
        struct entry *e = find(t, h->salt, h->tokens, k + 1);
        if (e && e->page != row[k]) want_changed = k;
    }
    struct radix_node *node = radix_insert(t->r, radix_root(t->r, salts[h->salt]), h->tokens, n, shared, row, &changed);
    radix_unlock(t->r, h->node);
    h->node = node;
    h->n_pages = n;
    assert_int_equal(changed, want_changed);
    for (int32_t k = 0; k < n; k++) {
        struct entry *e = find(t, h->salt, h->tokens, k + 1);
        if (!e) {
            e = &t->entry[t->n++];
            *e = (struct entry){.salt = h->salt, .n_pages = k + 1, .page = row[k]};
            memcpy(e->tokens, h->tokens, (size_t)((k + 1) * t->P) * sizeof *e->tokens);
        }
        assert_int_equal(row[k], e->page);
        assert_true(t->pool.taken[row[k]]);
    }
}

static void play(int32_t P, int32_t n_pages, int64_t n) {
    struct twin *t = mem_zalloc(1, sizeof *t);
    t->P = P;
    pool_init(&t->pool, n_pages);
    t->r = radix_new(P, &t->pool);
    for (int64_t i = 0; i < n; i++) {
        int32_t tokens[TOKENS_MAX], row[PAGES_MAX];
        struct holder *h = &t->holder[rng(HOLDERS)];
        switch (rng(8)) {
        case 0: evict(t, 1 + rng(6)); break;
        case 1:
            if (rng(50) == 0) evict(t, POOL_MAX);
            break;
        case 2:
        case 3:
            if (h->node) drop(t, h);
            break;
        case 4:
        case 5: {
            int32_t salt = rng(SALTS);
            struct radix_hit hit = match(t, salt, tokens, random_tokens(t, tokens), row);
            if (hit.node && !hit.n_pages) { /* an empty root may not stay */
                radix_lock(t->r, hit.node);
                radix_unlock(t->r, hit.node);
            }
            break;
        }
        default: insert(t, h);
        }
        check(t);
    }
    for (int h = 0; h < HOLDERS; h++)
        if (t->holder[h].node) drop(t, &t->holder[h]);
    evict(t, POOL_MAX);
    assert_int_equal(t->n, 0);
    check(t);
    radix_free(t->r);
    pool_release(&t->pool);
    free(t);
}

static void like_the_model(void **state) {
    (void)state;
    static const int32_t sets[][2] = {{1, 8}, {1, POOL_MAX}, {2, 20}, {3, 40}, {3, POOL_MAX}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) play(sets[i][0], sets[i][1], steps(40000));
}

/* ---- order of eviction ---- */

/* Sequences that part at known places, each used whole: the page that goes is always the last of the longest unused
 * one. */
static void least_recently_used_first(void **state) {
    (void)state;
    enum { N = 24, LEN = 6, PAGES = 200 };
    for (int round = 0; round < 200; round++) {
        struct pool pool;
        pool_init(&pool, PAGES);
        struct radix *r = radix_new(1, &pool);
        int32_t seq[N][LEN], row[N][LEN], changed;
        for (int i = 0; i < N; i++) {
            for (int k = 0; k < LEN; k++) seq[i][k] = k < 2 ? i % 2 : k < 4 ? i % 6 : i; /* a tree of three levels */
            for (int k = 0; k < LEN; k++) row[i][k] = pool_take(&pool);
            radix_unlock(r, radix_insert(r, radix_root(r, NULL), seq[i], LEN, 0, row[i], &changed));
        }
        uint64_t used[PAGES] = {0}, now = 0;
        int32_t n_below[PAGES] = {0};
        bool counted[PAGES] = {0};
        int32_t below[PAGES];
        memset(below, 0, sizeof below);
        for (int i = 0; i < N; i++) /* every sequence once, then some again, in random order */
            for (int k = 0; k < LEN; k++) {
                if (!counted[row[i][k]] && k) n_below[row[i][k - 1]]++, below[row[i][k]] = row[i][k - 1];
                counted[row[i][k]] = true;
            }
        int order[3 * N];
        for (int i = 0; i < 3 * N; i++) order[i] = i % N;
        for (int i = 3 * N - 1; i > 0; i--) {
            int j = rng(i + 1), x = order[i];
            order[i] = order[j], order[j] = x;
        }
        struct radix_node *held[3 * N] = {0};
        for (int i = 0; i < 4 * N; i++) { /* some are held for a while: letting go is a use, too */
            if (i < 3 * N) {
                int32_t hit[LEN];
                struct radix_hit h = radix_match(r, radix_root(r, NULL), seq[order[i]], LEN, hit);
                assert_int_equal(h.n_pages, LEN);
                now++;
                for (int k = 0; k < LEN; k++) used[hit[k]] = now;
                if (rng(3) == 0) radix_lock(r, held[i] = h.node);
            }
            int let = i < N ? rng(3 * N) : i - N;
            if (!held[let]) continue;
            radix_unlock(r, held[let]);
            held[let] = NULL;
            now++;
            for (int k = 0; k < LEN; k++) used[row[order[let]][k]] = now;
        }
        for (int32_t left = radix_pages(r); left > 0; left--) {
            int32_t want = 0;
            for (int32_t p = 1; p < PAGES; p++)
                if (counted[p] && pool.taken[p] && !n_below[p] && (!want || used[p] < used[want])) want = p;
            assert_int_equal(radix_evict(r, 1), 1);
            assert_false(pool.taken[want]);
            if (below[want]) n_below[below[want]]--;
            uint8_t owners[PAGES] = {0};
            radix_check(r, owners);
        }
        radix_free(r);
        pool_release(&pool);
    }
}

/* ---- salts ---- */

static void many_salts(void **state) {
    (void)state;
    enum { N = 3000 };
    struct pool pool;
    pool_init(&pool, N + 1);
    struct radix *r = radix_new(1, &pool);
    int32_t token = 7, row, changed, pages[N];
    char salt[32];
    size_t empty = radix_bytes(r);
    for (int i = 0; i < N; i++) {
        snprintf(salt, sizeof salt, "tenant %d", i);
        row = pages[i] = pool_take(&pool);
        radix_unlock(r, radix_insert(r, radix_root(r, salt), &token, 1, 0, &row, &changed));
    }
    for (int i = 0; i < N; i++) { /* the same token under each salt, and its own page each time */
        snprintf(salt, sizeof salt, "tenant %d", i);
        assert_int_equal(radix_match(r, radix_root_find(r, salt), &token, 1, &row).n_pages, 1);
        assert_int_equal(row, pages[i]);
    }
    assert_int_equal(radix_match(r, radix_root(r, ""), &token, 1, &row).n_pages, 0);
    assert_null(radix_root_find(r, "tenant"));
    assert_int_equal(radix_evict(r, N), N);
    assert_null(radix_root_find(r, "tenant 1")); /* salts do not pile up */
    assert_int_equal(radix_bytes(r), empty);
    radix_free(r);
    pool_release(&pool);
}

/* ---- below the tree ---- */

static void runs_like_a_bitmap(void **state) {
    (void)state;
    enum { UNITS = 77 };
    for (int32_t most = 1; most <= 16; most *= 2) {
        struct runs r;
        runs_init(&r, UNITS, most);
        uint8_t used[UNITS] = {0};
        int32_t n_used = 0;
        for (int64_t i = 0; i < steps(20000); i++) {
            if (rng(2)) {
                int32_t want = 1 + rng(2 * most), n = want, at = runs_take(&r, &n);
                assert_int_equal(at < 0, n_used == UNITS);
                if (at < 0) continue;
                assert_true(n >= 1 && n <= want && n <= most && at + n <= UNITS);
                for (int32_t k = at; k < at + n; k++) assert_int_equal(used[k]++, 0);
                n_used += n;
            } else { /* give back any part of what is used */
                int32_t at = rng(UNITS), n = 0;
                while (at + n < UNITS && used[at + n] && n < 20) n++;
                for (int32_t k = at; k < at + n; k++) used[k] = 0;
                if (n) runs_give(&r, at, n);
                n_used -= n;
            }
            assert_int_equal(r.n_free, UNITS - n_used);
        }
        for (int32_t k = 0; k < UNITS; k++)
            if (used[k]) runs_give(&r, k, 1);
        int32_t n = most; /* all joined again */
        assert_true(runs_take(&r, &n) >= 0);
        assert_int_equal(n, most);
        runs_release(&r);
    }
}

static void pool_like_a_bitmap(void **state) {
    (void)state;
    enum { PAGES = 30 };
    struct pool p;
    pool_init(&p, PAGES);
    bool out[PAGES] = {0};
    int32_t n_out = 0;
    for (int64_t i = 0; i < steps(20000); i++) {
        int32_t page = rng(PAGES);
        if (rng(2)) {
            page = pool_take(&p);
            assert_int_equal(page < 0, n_out == PAGES - 1);
            if (page < 0) continue;
            assert_true(page > 0 && page < PAGES && !out[page]);
            out[page] = true, n_out++;
        } else if (out[page]) {
            pool_give(&p, page);
            out[page] = false, n_out--;
        }
        assert_int_equal(p.n_free, PAGES - 1 - n_out);
    }
    pool_release(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_the_model),     cmocka_unit_test(least_recently_used_first), cmocka_unit_test(many_salts),
        cmocka_unit_test(runs_like_a_bitmap), cmocka_unit_test(pool_like_a_bitmap),
    };
    return cmocka_run_group_tests_name("radix", tests, NULL, NULL);
}
