/* pool.h: the page pool: which KV pages are free. Page 0 is the dummy page and is never given out.
 * Integers only; the device owns the memory. One thread (the scheduler's). */
#ifndef MINISGL_KV_POOL_H
#define MINISGL_KV_POOL_H
#include <stdint.h>

struct pool {
    int32_t *stack; /* [n_pages - 1] free pages, the next one to give on top */
    uint8_t *taken; /* [n_pages] 1 while a page is given out: a page freed twice is a BUG() */
    int32_t n_free, n_pages;
};

void pool_init(struct pool *p, int32_t n_pages); /* n_pages >= 2, the dummy included */
void pool_release(struct pool *p);
int32_t pool_take(struct pool *p); /* a page, or -1 when none is free */
void pool_give(struct pool *p, int32_t page);

#endif
