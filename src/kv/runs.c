/* runs.c: see runs.h. Owned by the scheduler thread. */
#include "kv/runs.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static void link_block(struct runs *r, int32_t at, int order) {
    int32_t next = r->first[order];
    r->order[at] = (int8_t)order;
    r->next[at] = next;
    r->prev[at] = -1;
    if (next >= 0) r->prev[next] = at;
    r->first[order] = at;
}

static void unlink_block(struct runs *r, int32_t at) {
    int32_t next = r->next[at], prev = r->prev[at];
    if (next >= 0) r->prev[next] = prev;
    if (prev >= 0)
        r->next[prev] = next;
    else
        r->first[r->order[at]] = next;
    r->order[at] = -1;
}

/* A free block, together with its other half, its parent's other half, and so on. */
static void give_block(struct runs *r, int32_t at, int order) {
    while ((1 << order) < r->most) {
        int32_t other = at ^ (1 << order);
        if (other >= r->n || r->order[other] != order) break;
        unlink_block(r, other);
        at &= ~(1 << order);
        order++;
    }
    link_block(r, at, order);
}

void runs_give(struct runs *r, int32_t at, int32_t n) {
    r->n_free += n;
    while (n > 0) {
        int order = 0;
        while ((2 << order) <= n && (2 << order) <= r->most && !(at & ((2 << order) - 1))) order++;
        give_block(r, at, order);
        at += 1 << order;
        n -= 1 << order;
    }
}

void runs_init(struct runs *r, int32_t n, int32_t most) {
    *r = (struct runs){.n = n, .most = most};
    r->order = mem_alloc((size_t)n);
    memset(r->order, -1, (size_t)n);
    r->next = mem_array((size_t)n, sizeof *r->next);
    r->prev = mem_array((size_t)n, sizeof *r->prev);
    for (int i = 0; i < RUNS_ORDERS; i++) r->first[i] = -1;
    runs_give(r, 0, n);
}

void runs_release(struct runs *r) {
    free(r->order);
    free(r->next);
    free(r->prev);
    *r = (struct runs){0};
}

int32_t runs_take(struct runs *r, int32_t *n) {
    int want = 0;
    if (*n > r->most) *n = r->most;
    while ((1 << want) < *n) want++;
    int order = want;
    while (order < RUNS_ORDERS && r->first[order] < 0) order++;
    if (order == RUNS_ORDERS) { /* no block that holds them all: the longest there is */
        for (order = want; order >= 0 && r->first[order] < 0;) order--;
        if (order < 0) return -1;
        *n = 1 << order;
    }
    int32_t at = r->first[order];
    unlink_block(r, at);
    r->n_free -= 1 << order;
    runs_give(r, at + *n, (1 << order) - *n);
    return at;
}
