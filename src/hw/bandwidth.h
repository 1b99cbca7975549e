/* bandwidth.h: how fast this machine's memory is, measured: what bounds the decoding of tokens on a CPU. */
#ifndef MINISGL_HW_BANDWIDTH_H
#define MINISGL_HW_BANDWIDTH_H
#include "base/err.h"

#include <stddef.h>

struct bandwidth {
    int threads;
    size_t bytes;      /* of the buffers, all threads together; larger than any cache when memory allows */
    double read, copy; /* bytes a second; copy counts what is read and what is written */
};

/* Take `bytes` in all, shared by n_threads threads, for about `seconds` in all; the best of several rounds. */
int bandwidth_measure(struct bandwidth *b, int n_threads, size_t bytes, double seconds, struct err *e);

#endif
