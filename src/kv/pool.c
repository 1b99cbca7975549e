/* pool.c: see pool.h. Owned by the scheduler thread. */
#include "kv/pool.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>

void pool_init(struct pool *p, int32_t n_pages) {
    *p = (struct pool){.n_pages = n_pages, .n_free = n_pages - 1};
    p->stack = mem_array((size_t)n_pages, sizeof *p->stack);
    p->taken = mem_zalloc((size_t)n_pages, 1);
    for (int32_t i = 0; i < p->n_free; i++) p->stack[i] = n_pages - 1 - i;
}

void pool_release(struct pool *p) {
    free(p->stack);
    free(p->taken);
    *p = (struct pool){0};
}

int32_t pool_take(struct pool *p) {
    if (p->n_free == 0) return -1;
    int32_t page = p->stack[--p->n_free];
    p->taken[page] = 1;
    return page;
}

void pool_give(struct pool *p, int32_t page) {
    if (page <= 0 || page >= p->n_pages || !p->taken[page])
        BUG("page %d given back, but it is not out (of %d pages, %d free)", page, p->n_pages, p->n_free);
    p->taken[page] = 0;
    p->stack[p->n_free++] = page;
}
