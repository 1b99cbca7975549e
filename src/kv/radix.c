/* radix.c: see radix.h. State belongs to the scheduler thread.
 *
 * Children are found in one hash table for the whole tree, keyed by (parent, first page of the label), so a node
 * costs the same with two children as with a hundred thousand. Evictable leaves lie in a binary heap by time of
 * last use; a locked or inner node is in no heap. */
#include "kv/radix.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct radix_node {
    struct radix_node *parent;
    int32_t *tokens;        /* [n_pages * page_size], then pages [n_pages], in one block */
    int32_t *pages;
    int32_t n_pages;        /* 0: a root */
    int32_t n_children;
    int32_t locks;          /* sequences whose prefix ends here */
    int32_t held;           /* locks > 0, plus the children with held > 0: not evictable while > 0 */
    int32_t heap_at;        /* index in the heap, -1 when not there */
    uint32_t key;           /* hash of the parent and the first page */
    uint64_t used;          /* time of last use */
    struct radix_node *next_in_slot;
    int32_t seen_children, seen_held; /* radix_check's */
    char *salt;             /* of a root; NULL elsewhere */
    struct radix_node *next_root;
};

struct radix {
    int32_t page_size;
    struct pool *pool;
    struct radix_node common, *roots; /* roots: the salted ones */
    struct radix_node **slots;        /* hash table of children, chained */
    uint32_t n_slots, n_nodes;
    struct radix_node **heap;
    int32_t n_heap, cap_heap;
    int32_t n_pages, n_held;          /* pages in the tree; of them in held nodes */
    uint64_t now;
    size_t bytes;
};

/* ---- the heap of evictable leaves, oldest on top ---- */

static void heap_put(struct radix *r, int32_t i, struct radix_node *x) {
    r->heap[i] = x;
    x->heap_at = i;
}

static void heap_up(struct radix *r, int32_t i, struct radix_node *x) {
    for (int32_t p; i > 0 && r->heap[p = (i - 1) / 2]->used > x->used; i = p) heap_put(r, i, r->heap[p]);
    heap_put(r, i, x);
}

static void heap_down(struct radix *r, int32_t i, struct radix_node *x) {
    for (int32_t c; (c = 2 * i + 1) < r->n_heap; i = c) {
        if (c + 1 < r->n_heap && r->heap[c + 1]->used < r->heap[c]->used) c++;
        if (r->heap[c]->used >= x->used) break;
        heap_put(r, i, r->heap[c]);
    }
    heap_put(r, i, x);
}

static void heap_drop(struct radix *r, struct radix_node *x) {
    int32_t i = x->heap_at;
    if (i < 0) return;
    x->heap_at = -1;
    struct radix_node *last = r->heap[--r->n_heap];
    if (last == x) return;
    heap_down(r, i, last);
    heap_up(r, last->heap_at, last);
}

/* Put x into the heap, or take it out, as its state says. */
static void heap_settle(struct radix *r, struct radix_node *x) {
    bool evictable = x->n_pages > 0 && x->n_children == 0 && x->held == 0;
    if (!evictable) {
        heap_drop(r, x);
        return;
    }
    if (x->heap_at >= 0) {
        heap_down(r, x->heap_at, x);
        heap_up(r, x->heap_at, x);
        return;
    }
    if (r->n_heap == r->cap_heap) {
        r->cap_heap = r->cap_heap ? 2 * r->cap_heap : 256;
        r->heap = mem_grow(r->heap, (size_t)r->cap_heap, sizeof *r->heap);
    }
    heap_up(r, r->n_heap++, x);
}

/* ---- the table of children ---- */

static uint32_t page_key(const struct radix *r, const struct radix_node *parent, const int32_t *tokens) {
    uint64_t h = (uint64_t)(uintptr_t)parent * 0x9e3779b97f4a7c15u;
    for (int32_t i = 0; i < r->page_size; i++) h = (h ^ (uint32_t)tokens[i]) * 0xff51afd7ed558ccdu, h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

static struct radix_node *child(const struct radix *r, const struct radix_node *parent, const int32_t *tokens) {
    if (!parent->n_children) return NULL;
    uint32_t key = page_key(r, parent, tokens);
    struct radix_node *x = r->slots[key & (r->n_slots - 1)];
    while (x && (x->key != key || x->parent != parent ||
                 memcmp(x->tokens, tokens, (size_t)r->page_size * sizeof *tokens)))
        x = x->next_in_slot;
    return x;
}

static void table_link(struct radix *r, struct radix_node *x) {
    struct radix_node **slot = &r->slots[x->key & (r->n_slots - 1)];
    x->next_in_slot = *slot;
    *slot = x;
}

static void table_grow(struct radix *r) {
    uint32_t n = r->n_slots;
    struct radix_node **old = r->slots;
    r->n_slots = n ? 2 * n : 256;
    r->slots = mem_zalloc(r->n_slots, sizeof *r->slots);
    for (uint32_t i = 0; i < n; i++)
        for (struct radix_node *x = old[i], *next; x; x = next) {
            next = x->next_in_slot;
            table_link(r, x);
        }
    free(old);
}

static void attach(struct radix *r, struct radix_node *x, struct radix_node *parent) {
    if (r->n_nodes >= r->n_slots) table_grow(r);
    x->parent = parent;
    x->key = page_key(r, parent, x->tokens);
    table_link(r, x);
    parent->n_children++;
    r->n_nodes++;
}

static void detach(struct radix *r, struct radix_node *x) {
    struct radix_node **at = &r->slots[x->key & (r->n_slots - 1)];
    while (*at != x) at = &(*at)->next_in_slot;
    *at = x->next_in_slot;
    x->parent->n_children--;
    r->n_nodes--;
}

/* ---- nodes ---- */

static size_t label_ints(const struct radix *r, int32_t n_pages) {
    return (size_t)n_pages * ((size_t)r->page_size + 1);
}

static void set_label(struct radix *r, struct radix_node *x, const int32_t *tokens, const int32_t *pages, int32_t n) {
    size_t n_tokens = (size_t)n * (size_t)r->page_size;
    int32_t *block = mem_array(label_ints(r, n), sizeof *block);
    memcpy(block, tokens, n_tokens * sizeof *block);
    memcpy(block + n_tokens, pages, (size_t)n * sizeof *block);
    r->bytes += label_ints(r, n) * sizeof *block;
    if (x->tokens) r->bytes -= label_ints(r, x->n_pages) * sizeof *block;
    free(x->tokens);
    x->tokens = block;
    x->pages = block + n_tokens;
    x->n_pages = n;
}

static struct radix_node *node_new(struct radix *r, const int32_t *tokens, const int32_t *pages, int32_t n) {
    struct radix_node *x = mem_zalloc(1, sizeof *x);
    x->heap_at = -1;
    x->used = r->now;
    r->bytes += sizeof *x;
    set_label(r, x, tokens, pages, n);
    return x;
}

static void node_free(struct radix *r, struct radix_node *x) {
    r->bytes -= sizeof *x + label_ints(r, x->n_pages) * sizeof *x->tokens;
    free(x->tokens);
    free(x);
}

struct radix *radix_new(int32_t page_size, struct pool *pool) {
    struct radix *r = mem_zalloc(1, sizeof *r);
    r->page_size = page_size;
    r->pool = pool;
    r->common.heap_at = -1;
    r->bytes = sizeof *r;
    table_grow(r);
    return r;
}

void radix_free(struct radix *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i], *next; x; x = next) {
            next = x->next_in_slot;
            free(x->tokens);
            free(x);
        }
    for (struct radix_node *x = r->roots, *next; x; x = next) {
        next = x->next_root;
        free(x->salt);
        free(x);
    }
    free(r->slots);
    free(r->heap);
    free(r);
}

/* ---- roots ---- */

struct radix_node *radix_root_find(struct radix *r, const char *salt) {
    if (!salt || !*salt) return &r->common;
    for (struct radix_node *x = r->roots; x; x = x->next_root)
        if (!strcmp(x->salt, salt)) return x;
    return NULL;
}

struct radix_node *radix_root(struct radix *r, const char *salt) {
    struct radix_node *x = radix_root_find(r, salt);
    if (x) return x;
    x = mem_zalloc(1, sizeof *x);
    x->heap_at = -1;
    x->salt = mem_strdup(salt);
    x->next_root = r->roots;
    r->roots = x;
    r->bytes += sizeof *x + strlen(salt) + 1;
    return x;
}

/* A salted root without nodes and locks is forgotten, so that salts cannot pile up. */
static void drop_empty_root(struct radix *r, struct radix_node *root) {
    if (!root->salt || root->n_children || root->locks) return;
    struct radix_node **at = &r->roots;
    while (*at != root) at = &(*at)->next_root;
    *at = root->next_root;
    r->bytes -= sizeof *root + strlen(root->salt) + 1;
    free(root->salt);
    free(root);
}

/* ---- matching ---- */

/* How many whole pages of x's label equal tokens[0..n). */
static int32_t common_pages(const struct radix *r, const struct radix_node *x, const int32_t *tokens, int32_t n) {
    int32_t whole = n / r->page_size, i = 0;
    if (whole > x->n_pages) whole = x->n_pages;
    size_t page = (size_t)r->page_size * sizeof *tokens;
    if (!memcmp(x->tokens, tokens, (size_t)whole * page)) return whole;
    while (!memcmp((const char *)x->tokens + (size_t)i * page, (const char *)tokens + (size_t)i * page, page)) i++;
    return i;
}

struct radix_hit radix_match(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n, int32_t *pages) {
    struct radix_hit hit = {.node = root};
    struct radix_node *x = root;
    int32_t at = 0;
    r->now++;
    while (n - at >= r->page_size && (x = child(r, x, tokens + at))) {
        int32_t m = common_pages(r, x, tokens + at, n - at);
        memcpy(pages + hit.n_pages, x->pages, (size_t)m * sizeof *pages);
        hit.n_pages += m;
        if (!x->held) hit.n_unheld += m;
        at += m * r->page_size;
        x->used = r->now;
        hit.node = x;
        if (m < x->n_pages) break;
    }
    heap_settle(r, hit.node); /* its time changed */
    return hit;
}

/* ---- locks ---- */

/* A node that becomes held makes its parent held; the walk stops at the first that was held already. */
static void hold(struct radix *r, struct radix_node *x) {
    for (; x && x->held++ == 0; x = x->parent) {
        r->n_held += x->n_pages;
        heap_settle(r, x);
    }
}

static void let_go(struct radix *r, struct radix_node *x) {
    for (; x && --x->held == 0; x = x->parent) {
        r->n_held -= x->n_pages;
        heap_settle(r, x);
    }
}

void radix_lock(struct radix *r, struct radix_node *x) {
    if (x->locks++ == 0) hold(r, x);
}

void radix_unlock(struct radix *r, struct radix_node *x) {
    if (x->locks <= 0) BUG("a node of the prefix cache is unlocked twice");
    x->used = ++r->now;
    if (--x->locks == 0) let_go(r, x);
    if (x->salt) drop_empty_root(r, x);
}

/* ---- inserting ---- */

/* Make the first m pages of x's label a node of their own, above x. */
static void split(struct radix *r, struct radix_node *x, int32_t m) {
    struct radix_node *parent = x->parent, *upper = node_new(r, x->tokens, x->pages, m);
    upper->used = x->used;
    detach(r, x);
    attach(r, upper, parent);
    int32_t rest = x->n_pages - m;
    int32_t *tokens = x->tokens, *pages = x->pages;
    x->tokens = NULL; /* set_label copies from the old block */
    size_t old = label_ints(r, x->n_pages) * sizeof *tokens;
    set_label(r, x, tokens + (size_t)m * (size_t)r->page_size, pages + m, rest);
    r->bytes -= old;
    free(tokens);
    attach(r, x, upper);
    upper->held = x->held > 0;
    heap_settle(r, upper);
}

/* The caller's copy of a page that the tree has: rewritten, and given back when it was the caller's own. */
static void adopt(struct radix *r, const struct radix_node *x, int32_t m, int32_t at, int32_t n_shared, int32_t *row,
                  int32_t *first_changed) {
    for (int32_t i = 0; i < m; i++) {
        int32_t mine = row[at + i], theirs = x->pages[i];
        if (mine == theirs) continue;
        if (at + i < n_shared) BUG("shared page %d of a sequence is page %d of the cache", mine, theirs);
        pool_give(r->pool, mine);
        row[at + i] = theirs;
        if (at + i < *first_changed) *first_changed = at + i;
    }
}

struct radix_node *radix_insert(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n_pages,
                                int32_t n_shared, int32_t *row, int32_t *first_changed) {
    struct radix_node *x = root, *next;
    int32_t at = 0;
    r->now++;
    *first_changed = n_pages;
    while (at < n_pages && (next = child(r, x, tokens + (size_t)at * (size_t)r->page_size))) {
        int32_t m = common_pages(r, next, tokens + (size_t)at * (size_t)r->page_size, (n_pages - at) * r->page_size);
        adopt(r, next, m, at, n_shared, row, first_changed);
        at += m;
        if (m < next->n_pages && at < n_pages) {
            split(r, next, m);
            next = next->parent;
        }
        x = next;
        x->used = r->now;
    }
    if (at < n_pages) {
        if (at < n_shared) BUG("the cache lost %d pages of a running sequence", n_shared - at);
        next = node_new(r, tokens + (size_t)at * (size_t)r->page_size, row + at, n_pages - at);
        attach(r, next, x);
        r->n_pages += next->n_pages;
        heap_settle(r, x);
        x = next;
    }
    radix_lock(r, x);
    return x;
}

/* ---- eviction ---- */

int32_t radix_evict(struct radix *r, int32_t n) {
    int32_t done = 0;
    while (done < n && r->n_heap > 0) {
        struct radix_node *x = r->heap[0], *parent = x->parent;
        int32_t take = n - done < x->n_pages ? n - done : x->n_pages;
        for (int32_t i = 0; i < take; i++) pool_give(r->pool, x->pages[x->n_pages - 1 - i]);
        done += take;
        r->n_pages -= take;
        if (take < x->n_pages) {
            int32_t *old = x->tokens;
            size_t old_bytes = label_ints(r, x->n_pages) * sizeof *old;
            x->tokens = NULL;
            set_label(r, x, old, x->pages, x->n_pages - take);
            r->bytes -= old_bytes;
            free(old);
            continue;
        }
        heap_drop(r, x);
        detach(r, x);
        if (parent->used < x->used) parent->used = x->used; /* a use of the child was one of the parent */
        node_free(r, x);
        heap_settle(r, parent);
        if (parent->salt) drop_empty_root(r, parent);
    }
    return done;
}

int32_t radix_pages(const struct radix *r) { return r->n_pages; }

int32_t radix_evictable(const struct radix *r) { return r->n_pages - r->n_held; }

size_t radix_bytes(const struct radix *r) {
    return r->bytes + r->n_slots * sizeof *r->slots + (size_t)r->cap_heap * sizeof *r->heap;
}

/* ---- checking ---- */

static void check_node(const struct radix *r, const struct radix_node *x) {
    if (x->seen_children != x->n_children || x->held != x->seen_held + (x->locks > 0) || x->locks < 0)
        BUG("prefix cache: a node with %d children has %d, held %d by %d children and %d locks", x->seen_children,
            x->n_children, x->held, x->seen_held, x->locks);
    bool leaf = x->n_pages > 0 && !x->n_children && !x->held;
    if (leaf != (x->heap_at >= 0) || (leaf && r->heap[x->heap_at] != x))
        BUG("prefix cache: an evictable leaf is not in the heap, or another node is");
    if (x->n_pages && child(r, x->parent, x->tokens) != x) BUG("prefix cache: a node cannot be found from its parent");
}

void radix_check(struct radix *r, uint8_t *owners) {
    int32_t pages = 0, held = 0;
    r->common.seen_children = r->common.seen_held = 0;
    for (struct radix_node *x = r->roots; x; x = x->next_root) x->seen_children = x->seen_held = 0;
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i]; x; x = x->next_in_slot) x->seen_children = x->seen_held = 0;
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i]; x; x = x->next_in_slot) {
            x->parent->seen_children++;
            x->parent->seen_held += x->held > 0;
            pages += x->n_pages;
            if (x->held) held += x->n_pages;
            for (int32_t p = 0; p < x->n_pages; p++) owners[x->pages[p]]++;
        }
    check_node(r, &r->common);
    for (struct radix_node *x = r->roots; x; x = x->next_root) check_node(r, x);
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i]; x; x = x->next_in_slot) check_node(r, x);
    for (int32_t i = 1; i < r->n_heap; i++)
        if (r->heap[(i - 1) / 2]->used > r->heap[i]->used) BUG("prefix cache: the heap is out of order");
    if (pages != r->n_pages || held != r->n_held)
        BUG("prefix cache: %d pages, %d held; counted %d, %d", r->n_pages, r->n_held, pages, held);
}
