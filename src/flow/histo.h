/* histo.h: a histogram that one thread fills and any thread reads, without a lock: a relaxed load and store each for a
 * bucket and for the sum. A reader may see a value in one and not yet in the other; it never sees one twice, and the
 * number of values is always the sum of the buckets it read.
 *
 * Values are whole numbers (nanoseconds, tokens); what a bucket holds is up to its bound, the bound included. */
#ifndef MINISGL_FLOW_HISTO_H
#define MINISGL_FLOW_HISTO_H
#include <stdatomic.h>
#include <stdint.h>

enum { HISTO_BOUNDS = 32 };

struct histo_scale {
    int n;
    uint64_t bound[HISTO_BOUNDS]; /* ascending; values above the last one have a bucket of their own */
};

struct histo {
    atomic_uint_fast64_t count[HISTO_BOUNDS + 1]; /* not cumulative */
    atomic_uint_fast64_t sum;
};

static inline void histo_bump(atomic_uint_fast64_t *at, uint64_t by) { /* its one writer's */
    atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + by, memory_order_relaxed);
}

/* `times` values of v each. */
static inline void histo_add(struct histo *h, const struct histo_scale *s, uint64_t v, uint64_t times) {
    int from = 0, to = s->n;
    while (from < to) {
        int mid = (from + to) / 2;
        if (v <= s->bound[mid])
            to = mid;
        else
            from = mid + 1;
    }
    histo_bump(&h->count[from], times);
    histo_bump(&h->sum, v * times);
}

#endif
