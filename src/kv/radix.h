/* radix.h: the prefix cache: a radix tree over whole pages of tokens. Which pages hold the keys and values of
 * which token sequences; sequences that begin alike share pages.
 *
 *              root (one for each cache_salt)
 *             /    \
 *      [A A B]      [C]            an edge's label is one or more whole pages of tokens, kept in the node below it;
 *       /    \                     two children of a node differ in their first page, compared token by token:
 *     [D]    [E E]                 hashes only find candidates; a long label may be a chain of nodes
 *
 * Pages in the tree belong to the tree. A running sequence locks the deepest node of its prefix: a locked node is not
 * evicted, nor is any node above it (it has a child). Nodes that are locked nowhere in their subtree are evictable;
 * eviction takes pages from the end of the least recently used leaf.
 *
 *   match    walks down; changes nothing but times
 *   insert   puts a sequence's pages into the tree. Where the tree already holds the same tokens its own pages win: the
 *            caller's row is rewritten to them, and the caller's duplicates go back to the pool. Nodes are split here
 * only a split  makes a new upper node; the old node object stays the lower part, so locks on it stay right
 *
 * Integers only. One thread (the scheduler's). After the idea of SGLang's RadixAttention (Zheng et al., 2024). */
#ifndef MINISGL_KV_RADIX_H
#define MINISGL_KV_RADIX_H
#include "kv/pool.h"

#include <stddef.h>
#include <stdint.h>

struct radix;
struct radix_node;

/* Takes the memory for a tree of all the pool's pages at once; later only radix_root of a new salt allocates. */
struct radix *radix_new(int32_t page_size, struct pool *pool);
void radix_free(struct radix *r); /* gives no page back: the pool ends with it */

/* The root of a salt (any bytes; NULL or "": the common root). It stays until the salt's last node is evicted and no
 * lock is held; take it again for each request. */
struct radix_node *radix_root(struct radix *r, const char *salt);
struct radix_node *radix_root_find(struct radix *r, const char *salt); /* the same, but NULL when the salt has none */

/* The longest cached prefix of tokens[0..n): whole pages only; their numbers go to pages. */
struct radix_hit {
    struct radix_node *node; /* the one to lock; the root when nothing matches */
    int32_t n_pages;         /* matched */
    int32_t n_unheld;        /* of them, pages that could be evicted now */
};
struct radix_hit radix_match(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n,
                             int32_t *pages);

void radix_lock(struct radix *r, struct radix_node *node);
void radix_unlock(struct radix *r, struct radix_node *node);

/* tokens[0 .. n_pages * page_size) lie in row[0..n_pages), of which the first n_shared are the tree's already. All
 * become the tree's; row is rewritten where the tree has its own, from *first_changed on (n_pages when nothing
 * changed). Returns the deepest node, locked; unlock the one held before. */
struct radix_node *radix_insert(struct radix *r, struct radix_node *root, const int32_t *tokens, int32_t n_pages,
                                int32_t n_shared, int32_t *row, int32_t *first_changed);

/* Give up to n pages back to the pool, least recently used first; returns how many. */
int32_t radix_evict(struct radix *r, int32_t n);

int32_t radix_pages(const struct radix *r);     /* in the tree */
int32_t radix_evictable(const struct radix *r); /* of them, not locked */
uint64_t radix_version(const struct radix *r);  /* changes whenever pages come, go, or become held or evictable */
size_t radix_bytes(const struct radix *r);      /* memory that the tree as it is now uses */

/* Before radix_check: somebody holds a lock on the node. It demands exactly these locks. */
void radix_expect_lock(struct radix_node *node);
/* Every invariant (slow; tests): BUG() when one is broken. owners[page]++ for each page of the tree. */
void radix_check(struct radix *r, uint8_t *owners);

#endif
