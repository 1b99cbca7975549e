/* sample_rules.h: what all devices must do alike when they sample, so that they come to the same tokens: the noise, and who is left out. The rules
 * themselves are in dev/cpu/sample.h. C, and CUDA C++ on both sides. */
#ifndef MINISGL_DEV_SAMPLE_RULES_H
#define MINISGL_DEV_SAMPLE_RULES_H
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define SAMPLE_FN static __host__ __device__ __forceinline__
#else
#define SAMPLE_FN static inline
#endif

#define SAMPLE_GREEDY 1e-5f    /* a temperature below it is none */
#define SAMPLE_FLOOR (-27.7f) /* a token with a smaller logit / temperature, less the largest, can not win */

/* Counter-based random bits: two rounds of a 32-bit mixer (multipliers by C. Wellons' hash-prospector) around a 64-bit key. */
SAMPLE_FN uint32_t gumbel_bits(uint64_t key, uint32_t id) {
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
SAMPLE_FN float gumbel_bound(uint32_t h) {
    float q = (float)(int32_t)(~h >> 1); /* q * 2^31, rounded down, then to a float */
    int32_t bits;
    memcpy(&bits, &q, sizeof bits);
    return (158.0f - (float)bits * 0x1p-23f) * 0.69314718f + 1e-3f;
}

/* splitmix64's finalizer. */
SAMPLE_FN uint64_t mix64(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Mixed twice, so that neighbouring seeds and positions share nothing. */
SAMPLE_FN uint64_t gumbel_key(uint64_t seed, int32_t position) {
    return mix64(mix64(seed + 0x9e3779b97f4a7c15u) + (uint64_t)(uint32_t)position * 0xd1342543de82ef95u);
}

#undef SAMPLE_FN
#endif
