/* stats.c: the bounds of the histograms in stats.h. Constants; any thread. */
#include "flow/stats.h"

#define US(x) ((uint64_t)(x)*1000)

/* 0.1 ms to 10 s: a decode on a large GPU to a long chunk on a small machine. */
const struct histo_scale stats_times = {
    .n = 16,
    .bound = {US(100), US(250), US(500), US(1000), US(2500), US(5000), US(10000), US(25000), US(50000), US(100000),
              US(250000), US(500000), US(1000000), US(2500000), US(5000000), US(10000000)},
};

const struct histo_scale stats_tokens = {.n = 13,
                                         .bound = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}};
