/* dummy.h: the numbers of dummy weights, as a pure function of (seed, tensor name, element of the whole tensor).
 *
 * A table of 65536 + 1024 values is drawn once per seed: sums of twelve uniform numbers, scaled to a standard deviation
 * of 0.02. Each 1024 elements of a tensor are a window of it, at a place that hashes from seed, name and block. So a
 * row's elements differ, ranks that hold parts of a tensor agree, and filling is as fast as copying. */
#ifndef MINISGL_MODEL_DUMMY_H
#define MINISGL_MODEL_DUMMY_H
#include "dev/dev.h"

#include <stddef.h>
#include <stdint.h>

struct dummy {
    uint64_t seed;
    enum dtype dtype;
    void *table, *ones; /* in dtype */
};

void dummy_init(struct dummy *d, uint64_t seed, enum dtype dtype);
void dummy_release(struct dummy *d);
uint64_t dummy_key(const struct dummy *d, const char *name); /* what dummy_fill wants of a tensor */
/* Write elements [from, from + n) of the tensor with this key to `to` (in the dtype). */
void dummy_fill(const struct dummy *d, uint64_t key, size_t from, size_t n, void *to);
/* n ones in the dtype: norms. */
void dummy_ones(const struct dummy *d, size_t n, void *to);

#endif
