/* runs.h: runs of neighbouring units out of a fixed number of units: a buddy allocator over integers, so that variable
 * lengths can be laid down without the heap. Any part of a run may be given back by itself.
 *
 * Free units form blocks of a power of two, aligned to their size; two free halves of a block become one. One thread.
 */
#ifndef MINISGL_KV_RUNS_H
#define MINISGL_KV_RUNS_H
#include <stdint.h>

enum { RUNS_ORDERS = 12 };

struct runs {
    int32_t n, n_free, most; /* units; free ones; the longest run (a power of two) */
    int8_t *order;           /* [n] of the free block that begins there; -1 */
    int32_t *next, *prev;    /* [n] its neighbours in the list of its order; -1 */
    int32_t first[RUNS_ORDERS];
};

void runs_init(struct runs *r, int32_t n, int32_t most); /* most <= 2^(RUNS_ORDERS - 1) */
void runs_release(struct runs *r);

/* The first unit of a run of *n units; where so long a run is not free, or longer than `most`, *n is made smaller. -1
 * only when no unit is free. */
int32_t runs_take(struct runs *r, int32_t *n);
void runs_give(struct runs *r, int32_t at, int32_t n);

#endif
