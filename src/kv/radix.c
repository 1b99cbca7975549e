/* radix.c: see radix.h. State belongs to the scheduler thread.
 *
 * Children are found in one hash table for the whole tree, keyed by (parent, first page of the label), so a node
 * costs the same with two children as with a hundred thousand. Evictable leaves lie in a binary heap by time of
 * last use; a locked or inner node is in no heap.
 *
 * All memory but that of salted roots is taken at the start, for a tree of as many pages as the pool has: nodes from
 * one array, labels from another by runs of neighbouring pages (kv/runs.h). A label is one run, at most LABEL_TOKENS
 * long; where no run of its length is free it becomes a chain of shorter nodes, so the memory cannot run out before the
 * pool does. Splits and trims move no label. */
#include "kv/radix.h"

#include "base/err.h"
#include "base/mem.h"
#include "kv/runs.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_TOKENS = 1024, ROOT_BUCKETS = 1024 };

struct radix_node {
    struct radix_node *parent; /* of a free node: the next free one */
    int32_t run;               /* label and pages: the units [run, run + n_pages) */
    int32_t n_pages;           /* 0: a root */
    int32_t n_children;
    int32_t locks;   /* sequences whose prefix ends here */
    int32_t held;    /* locks > 0, plus the children with held > 0: not evictable while > 0 */
    int32_t heap_at; /* index in the heap, -1 when not there */
    uint32_t key;    /* hash of the parent and the first page */
    uint64_t used;   /* time of last use */
    struct radix_node *next_in_slot;
    int32_t seen_children, seen_held, seen_locks; /* radix_check's */
};

/* The root of a salt. */
struct salted {
    struct radix_node node; /* first, so that the one is the other */
    struct salted *next;    /* in its bucket */
    uint32_t hash;
    char salt[];
};

struct radix {
    int32_t page_size;
    struct pool *pool;
    struct radix_node common;
    struct salted *roots[ROOT_BUCKETS];
    struct radix_node *nodes, *free_nodes; /* [pool's pages]; those used once and free again */
    int32_t n_fresh;                       /* nodes from here on were never used */
    struct runs runs;
    int32_t *tokens, *pages;   /* [units][page_size], [units] */
    struct radix_node **slots; /* [n_slots] hash table of children, chained */
    uint32_t n_slots;
    int32_t n_nodes;
    struct radix_node **heap; /* [pool's pages] */
    int32_t n_heap;
    int32_t n_pages, n_held; /* pages in the tree; of them in held nodes */
    uint64_t now, version;
    size_t root_bytes;
};

static int32_t *label(const struct radix *r, const struct radix_node *x) {
    return r->tokens + (size_t)x->run * (size_t)r->page_size;
}

static int32_t *pages_of(const struct radix *r, const struct radix_node *x) { return r->pages + x->run; }

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
    while (x &&
           (x->key != key || x->parent != parent || memcmp(label(r, x), tokens, (size_t)r->page_size * sizeof *tokens)))
        x = x->next_in_slot;
    return x;
}

static void table_link(struct radix *r, struct radix_node *x) {
    struct radix_node **slot = &r->slots[x->key & (r->n_slots - 1)];
    x->next_in_slot = *slot;
    *slot = x;
}

static void attach(struct radix *r, struct radix_node *x, struct radix_node *parent) {
    x->parent = parent;
    x->key = page_key(r, parent, label(r, x));
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

static struct radix_node *node_new(struct radix *r, int32_t run, int32_t n_pages) {
    struct radix_node *x = r->free_nodes;
    if (x)
        r->free_nodes = x->parent;
    else
        x = &r->nodes[r->n_fresh++];
    *x = (struct radix_node){.run = run, .n_pages = n_pages, .heap_at = -1, .used = r->now};
    return x;
}

static void node_free(struct radix *r, struct radix_node *x) {
    x->parent = r->free_nodes;
    r->free_nodes = x;
}

struct radix *radix_new(int32_t page_size, struct pool *pool) {
    struct radix *r = mem_zalloc(1, sizeof *r);
    size_t n = (size_t)pool->n_pages;
    int32_t most = 1;
    while (2 * most * page_size <= LABEL_TOKENS) most *= 2;
    r->page_size = page_size;
    r->pool = pool;
    r->common.heap_at = -1;
    runs_init(&r->runs, pool->n_pages, most);
    r->nodes = mem_zalloc(n, sizeof *r->nodes); /* pages of it that are never touched take no memory */
    r->tokens = mem_array(n * (size_t)page_size, sizeof *r->tokens);
    r->pages = mem_array(n, sizeof *r->pages);
    r->heap = mem_array(n, sizeof *r->heap);
    for (r->n_slots = 16; r->n_slots < n;) r->n_slots *= 2;
    r->slots = mem_zalloc(r->n_slots, sizeof *r->slots);
    return r;
}

void radix_free(struct radix *r) {
    if (!r) return;
    for (int32_t i = 0; i < ROOT_BUCKETS; i++)
        for (struct salted *x = r->roots[i], *next; x; x = next) {
            next = x->next;
            free(x);
        }
    runs_release(&r->runs);
    free(r->nodes);
    free(r->tokens);
    free(r->pages);
    free(r->slots);
    free(r->heap);
    free(r);
}

/* ---- roots ---- */

static uint32_t salt_hash(const struct radix *r, const char *salt) { /* the tree's address makes it hard to foresee */
    uint64_t h = (uint64_t)(uintptr_t)r * 0x9e3779b97f4a7c15u;
    for (; *salt; salt++) h = (h ^ (unsigned char)*salt) * 0xff51afd7ed558ccdu, h ^= h >> 29;
    return (uint32_t)(h ^ h >> 32);
}

static struct salted *find_salted(const struct radix *r, const char *salt, uint32_t hash) {
    struct salted *x = r->roots[hash % ROOT_BUCKETS];
    while (x && (x->hash != hash || strcmp(x->salt, salt))) x = x->next;
    return x;
}

struct radix_node *radix_root_find(struct radix *r, const char *salt) {
    if (!salt || !*salt) return &r->common;
    struct salted *x = find_salted(r, salt, salt_hash(r, salt));
    return x ? &x->node : NULL;
}

static size_t salted_bytes(const struct salted *x) { return sizeof *x + strlen(x->salt) + 1; }

struct radix_node *radix_root(struct radix *r, const char *salt) {
    struct radix_node *node = radix_root_find(r, salt);
    if (node) return node;
    size_t n = strlen(salt) + 1;
    struct salted *x = mem_alloc(sizeof *x + n);
    uint32_t hash = salt_hash(r, salt);
    struct salted **bucket = &r->roots[hash % ROOT_BUCKETS];
    *x = (struct salted){.node = {.heap_at = -1}, .next = *bucket, .hash = hash};
    memcpy(x->salt, salt, n);
    *bucket = x;
    r->root_bytes += salted_bytes(x);
    return &x->node;
}

static bool is_salted(const struct radix *r, const struct radix_node *x) { return !x->n_pages && x != &r->common; }

/* A salted root without nodes and locks is forgotten, so that salts cannot pile up. */
static void drop_empty_root(struct radix *r, struct radix_node *root) {
    if (root->n_children || root->locks) return;
    struct salted *x = (struct salted *)root, **at = &r->roots[x->hash % ROOT_BUCKETS];
    while (*at != x) at = &(*at)->next;
    *at = x->next;
    r->root_bytes -= salted_bytes(x);
    free(x);
}

/* ---- matching ---- */

/* How many whole pages of x's label equal tokens[0..n). */
static int32_t common_pages(const struct radix *r, const struct radix_node *x, const int32_t *tokens, int32_t n) {
    int32_t whole = n / r->page_size, i = 0;
    if (whole > x->n_pages) whole = x->n_pages;
    size_t page = (size_t)r->page_size * sizeof *tokens;
    const int32_t *mine = label(r, x);
    if (!memcmp(mine, tokens, (size_t)whole * page)) return whole;
    while (!memcmp((const char *)mine + (size_t)i * page, (const char *)tokens + (size_t)i * page, page)) i++;
    return i;
}

struct radix_hit radix_match(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n,
                             int32_t *pages) {
    struct radix_hit hit = {.node = root};
    struct radix_node *x = root;
    int32_t at = 0;
    r->now++;
    while (n - at >= r->page_size && (x = child(r, x, tokens + at))) {
        int32_t m = common_pages(r, x, tokens + at, n - at);
        memcpy(pages + hit.n_pages, pages_of(r, x), (size_t)m * sizeof *pages);
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
        r->version++;
        heap_settle(r, x);
    }
}

static void let_go(struct radix *r, struct radix_node *x) {
    for (; x && --x->held == 0; x = x->parent) {
        r->n_held -= x->n_pages;
        r->version++;
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
    if (is_salted(r, x)) drop_empty_root(r, x);
}

/* ---- inserting ---- */

/* Make the first m pages of x's label a node of their own, above x. Locks stay with the lower part. */
static void split(struct radix *r, struct radix_node *x, int32_t m) {
    struct radix_node *parent = x->parent, *upper = node_new(r, x->run, m);
    upper->used = x->used;
    detach(r, x);
    attach(r, upper, parent);
    x->run += m;
    x->n_pages -= m;
    attach(r, x, upper);
    upper->held = x->held > 0;
    heap_settle(r, upper);
}

/* The caller's copy of a page that the tree has: rewritten, and given back when it was the caller's own. */
static void adopt(struct radix *r, const struct radix_node *x, int32_t m, int32_t at, int32_t n_shared, int32_t *row,
                  int32_t *first_changed) {
    for (int32_t i = 0; i < m; i++) {
        int32_t mine = row[at + i], theirs = pages_of(r, x)[i];
        if (mine == theirs) continue;
        if (at + i < n_shared) BUG("shared page %d of a sequence is page %d of the cache", mine, theirs);
        pool_give(r->pool, mine);
        row[at + i] = theirs;
        if (at + i < *first_changed) *first_changed = at + i;
    }
}

/* A new leaf below x of the first of n pages; as many as one label holds. */
static struct radix_node *grow(struct radix *r, struct radix_node *x, const int32_t *tokens, const int32_t *pages,
                               int32_t n) {
    int32_t run = runs_take(&r->runs, &n);
    if (run < 0)
        BUG("prefix cache: no room for a label, with %d pages of %d in the tree", r->n_pages, r->pool->n_pages);
    struct radix_node *leaf = node_new(r, run, n);
    memcpy(label(r, leaf), tokens, (size_t)n * (size_t)r->page_size * sizeof *tokens);
    memcpy(pages_of(r, leaf), pages, (size_t)n * sizeof *pages);
    attach(r, leaf, x);
    r->n_pages += n;
    r->version++;
    heap_settle(r, x);
    return leaf;
}

struct radix_node *radix_insert(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n_pages,
                                int32_t n_shared, int32_t *row, int32_t *first_changed) {
    struct radix_node *x = root, *next;
    size_t page = (size_t)r->page_size;
    int32_t at = 0;
    r->now++;
    *first_changed = n_pages;
    while (at < n_pages && (next = child(r, x, tokens + (size_t)at * page))) {
        int32_t m = common_pages(r, next, tokens + (size_t)at * page, (n_pages - at) * r->page_size);
        adopt(r, next, m, at, n_shared, row, first_changed);
        at += m;
        if (m < next->n_pages && at < n_pages) {
            split(r, next, m);
            next = next->parent;
        }
        x = next;
        x->used = r->now;
    }
    if (at < n_shared) BUG("the cache lost %d pages of a running sequence", n_shared - at);
    while (at < n_pages) {
        x = grow(r, x, tokens + (size_t)at * page, row + at, n_pages - at);
        at += x->n_pages;
    }
    radix_lock(r, x);
    return x;
}

/* ---- eviction ---- */

/* Give up the last n pages of an evictable leaf. */
static void trim(struct radix *r, struct radix_node *x, int32_t n) {
    const int32_t *pages = pages_of(r, x);
    for (int32_t i = 1; i <= n; i++) pool_give(r->pool, pages[x->n_pages - i]);
    x->n_pages -= n;
    r->n_pages -= n;
    r->version++;
    runs_give(&r->runs, x->run + x->n_pages, n);
}

int32_t radix_evict(struct radix *r, int32_t n) {
    int32_t done = 0;
    while (done < n && r->n_heap > 0) {
        struct radix_node *x = r->heap[0], *parent = x->parent;
        int32_t take = n - done < x->n_pages ? n - done : x->n_pages;
        done += take;
        if (take < x->n_pages) {
            trim(r, x, take);
            break;
        }
        heap_drop(r, x);
        detach(r, x); /* finds x by its label: before it is gone */
        trim(r, x, take);
        node_free(r, x);
        heap_settle(r, parent);
        if (is_salted(r, parent)) drop_empty_root(r, parent);
    }
    return done;
}

int32_t radix_pages(const struct radix *r) { return r->n_pages; }

uint64_t radix_version(const struct radix *r) { return r->version; }

int32_t radix_evictable(const struct radix *r) { return r->n_pages - r->n_held; }

size_t radix_bytes(const struct radix *r) {
    size_t page = (size_t)(r->page_size + 1) * sizeof *r->tokens,
           run = sizeof *r->runs.order + 2 * sizeof *r->runs.next;
    return sizeof *r + r->root_bytes + (size_t)r->n_pages * page +
           (size_t)r->n_nodes * (sizeof *r->nodes + sizeof *r->heap) + r->n_slots * sizeof *r->slots +
           (size_t)r->runs.n * run;
}

/* ---- checking ---- */

void radix_expect_lock(struct radix_node *x) { x->seen_locks++; }

static void check_node(const struct radix *r, struct radix_node *x) {
    if (x->seen_children != x->n_children || x->held != x->seen_held + (x->locks > 0))
        BUG("prefix cache: a node with %d children has %d, held %d by %d children and %d locks", x->seen_children,
            x->n_children, x->held, x->seen_held, x->locks);
    if (x->locks != x->seen_locks) BUG("prefix cache: a node has %d locks, of %d sequences", x->locks, x->seen_locks);
    bool leaf = x->n_pages > 0 && !x->n_children && !x->held;
    if (leaf != (x->heap_at >= 0) || (leaf && (x->heap_at >= r->n_heap || r->heap[x->heap_at] != x)))
        BUG("prefix cache: an evictable leaf is not in the heap, or another node is");
    if (x->n_pages && child(r, x->parent, label(r, x)) != x)
        BUG("prefix cache: a node cannot be found from its parent");
    x->seen_children = x->seen_held = x->seen_locks = 0; /* for the next time */
}

static void see_node(struct radix *r, struct radix_node *x, uint8_t *owners) {
    if (!x->parent) BUG("prefix cache: a node hangs nowhere");
    x->parent->seen_children++;
    x->parent->seen_held += x->held > 0;
    for (int32_t p = 0; p < x->n_pages; p++) owners[pages_of(r, x)[p]]++;
}

void radix_check(struct radix *r, uint8_t *owners) {
    int32_t pages = 0, held = 0, nodes = 0, leaves = 0;
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i]; x; x = x->next_in_slot, nodes++) {
            see_node(r, x, owners);
            pages += x->n_pages;
            if (x->held) held += x->n_pages;
            leaves += x->heap_at >= 0;
        }
    check_node(r, &r->common);
    for (int32_t i = 0; i < ROOT_BUCKETS; i++)
        for (struct salted *x = r->roots[i]; x; x = x->next) {
            if (!x->node.n_children && !x->node.locks) BUG("prefix cache: the root of a salt stays without use");
            check_node(r, &x->node);
        }
    for (uint32_t i = 0; i < r->n_slots; i++)
        for (struct radix_node *x = r->slots[i]; x; x = x->next_in_slot) check_node(r, x);
    for (int32_t i = 1; i < r->n_heap; i++)
        if (r->heap[(i - 1) / 2]->used > r->heap[i]->used) BUG("prefix cache: the heap is out of order");
    if (pages != r->n_pages || held != r->n_held || nodes != r->n_nodes || leaves != r->n_heap)
        BUG("prefix cache: %d pages, %d held, %d nodes, %d evictable leaves; counted %d, %d, %d, %d", r->n_pages,
            r->n_held, r->n_nodes, r->n_heap, pages, held, nodes, leaves);
    if (pages + r->runs.n_free != r->runs.n)
        BUG("prefix cache: %d pages and %d free places of %d", pages, r->runs.n_free, r->runs.n);
}
