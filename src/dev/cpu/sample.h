/* sample.h: a row of logits to one token, the same on every route: alone or in a batch, any thread, any number of ranks.
 *
 * temperature below SAMPLE_GREEDY: the lowest id among the largest logits. Else, with z = logit / temperature and
 * tokens ordered by (logit descending, id ascending), which settles every tie:
 *   top_k   the first k in that order;
 *   top_p   weights w = floor(2^40 exp(z - z_max)), integers, so that sums do not depend on their order; the shortest prefix of the
 *           kept tokens whose weight reaches ceil(top_p * sum of the kept tokens' weights);
 *   min_p   those with exp(z - z_max) >= min_p;
 *   sample  the largest z + g, ties to the lower id, with Gumbel noise g = -log(-log((h + 0.5) / 2^32)) and h = gumbel_bits of
 *           a key made of (seed, position of the new token) and the token id. The noise lies within [-3.14, 22.9], so
 *           a token more than 27.7 below z_max can not win and is left out from the start.
 * Nothing sorts the vocabulary: top_k and top_p are radix selections on the bits of the logit. Ranks exchange for a row: its largest
 * logit, the best noisy logit, for top_k and top_p three histograms of 2,048 integers each, and wanted log-probabilities;
 * never the logits. The sum behind a log-probability goes over eighths of the vocabulary (rounded up) in tree order. */
#ifndef MINISGL_DEV_CPU_SAMPLE_H
#define MINISGL_DEV_CPU_SAMPLE_H
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"
#include "dev/cpu/pool.h"
#include "dev/sample_rules.h"

double gumbel_noise(uint32_t h);

/* One row to sample. */
struct sample_row {
    const float *logits; /* [n_ids]: this rank's share */
    const struct sampling *how;
    int32_t position;      /* of the token to come */
    struct result_row *to; /* filled, except its slot */
};

/* Ids first .. first + n_ids - 1 of n_total are this rank's. */
struct sampler_args {
    const struct cpu_ops *ops;
    struct pool *pool;
    struct comm *comm; /* NULL: this rank has the whole vocabulary */
    int32_t first, n_ids, n_total, max_rows;
};

struct sampler; /* belongs to the rank thread; its pool works on it within a call */
struct sampler *sampler_new(const struct sampler_args *a);
void sampler_free(struct sampler *s);
size_t sampler_bytes(int32_t n_ids, int32_t max_rows);

/* Sample n rows; every rank calls with the same rows in the same order and comes to the same tokens. -1: another rank failed. */
int sampler_run(struct sampler *s, const struct sample_row *rows, int32_t n, struct err *e);

#endif
