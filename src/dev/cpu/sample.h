/* sample.h: one row of logits to one token, the same on every route: alone or in a batch, any thread.
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
 * Nothing sorts the vocabulary: top_k and top_p are radix selections on the bits of the logit. */
#ifndef MINISGL_DEV_CPU_SAMPLE_H
#define MINISGL_DEV_CPU_SAMPLE_H
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"

#define SAMPLE_GREEDY 1e-5f
#define SAMPLE_FLOOR (-27.7f)

/* Counter-based random bits: two rounds of a 32-bit mixer (multipliers by C. Wellons' hash-prospector) around a 64-bit key. */
static inline uint32_t gumbel_bits(uint64_t key, uint32_t id) {
    uint32_t x = id + (uint32_t)key;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    x ^= x >> 16 ^ (uint32_t)(key >> 32);
    x = (x ^ x >> 16) * 0x21f0aaadu;
    x = (x ^ x >> 15) * 0xd35a2d97u;
    return x ^ x >> 15;
}

/* A cheap number that the noise of these bits does not exceed. With q = 1 - u, noise = -log(-log(1 - q)) <= -log(q), and log2 of
 * a float is at least its exponent plus its mantissa's fraction, which is what its bits say. */
static inline float gumbel_bound(uint32_t h) {
    float q = (float)(int32_t)(~h >> 1); /* q * 2^31, rounded down, then to a float */
    return (158.0f - (float)(int32_t)bits_of_f32(q) * 0x1p-23f) * 0.69314718f + 1e-3f;
}

double gumbel_noise(uint32_t h);
uint64_t gumbel_key(uint64_t seed, int32_t position);

struct sampler; /* scratch for one thread */
struct sampler *sampler_new(int32_t vocab);
void sampler_free(struct sampler *s);
size_t sampler_bytes(int32_t vocab);

/* Fills r except its slot. position: of the token to come. */
void sample_row(struct sampler *s, const struct cpu_ops *ops, const float *logits, int32_t vocab, const struct sampling *how,
                int32_t position, struct result_row *r);

#endif
