/* dummy.c: see dummy.h. Tables are constant after dummy_init, so any number of threads may fill. The sum of integers
 * makes the values the same on every machine. Source of the mixer: splitmix64 (Steele, Lea, Flood 2014). */
#include "model/dummy.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE = 1 << 16, BLOCK = 1024 };

static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static uint16_t to_bf16(float x) {
    uint32_t u = bits_of(x);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Round to nearest even; for finite |x| < 65504, all that is needed here. */
static uint16_t to_f16(float x) {
    uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, e = u >> 23 & 0xff, m = (u & 0x7fffff) | 0x800000;
    if (e < 102) return (uint16_t)sign; /* below half the smallest subnormal */
    uint32_t shift = e < 113 ? 126 - e : 13, half = 1u << (shift - 1);
    uint32_t r = (m + half - 1 + (m >> shift & 1)) >> shift;
    if (e < 113) return (uint16_t)(sign | r);
    return (uint16_t)(sign | (((e - 112) << 10) + r - 0x400));
}

static void store(enum dtype t, void *to, size_t i, float x) {
    if (t == DT_F32)
        ((float *)to)[i] = x;
    else
        ((uint16_t *)to)[i] = t == DT_BF16 ? to_bf16(x) : to_f16(x);
}

/* Twelve 16-bit uniform numbers have variance 1 in units of 65536. */
static float draw(uint64_t seed, uint64_t i) {
    int32_t sum = 0;
    for (uint64_t k = 0; k < 3; k++)
        for (uint64_t u = mix(seed ^ mix(3 * i + k)), j = 0; j < 4; j++, u >>= 16) sum += (int32_t)(u & 0xffff);
    return (float)(sum - 6 * 65535) * (0.02f / 65536);
}

void dummy_init(struct dummy *d, uint64_t seed, enum dtype dtype) {
    *d = (struct dummy){.seed = mix(seed),
                        .dtype = dtype,
                        .table = mem_array(TABLE + BLOCK, dtype_size(dtype)),
                        .ones = mem_array(BLOCK, dtype_size(dtype))};
    for (size_t i = 0; i < TABLE + BLOCK; i++) store(dtype, d->table, i, draw(d->seed, i));
    for (size_t i = 0; i < BLOCK; i++) store(dtype, d->ones, i, 1);
}

void dummy_release(struct dummy *d) {
    free(d->table);
    free(d->ones);
    *d = (struct dummy){0};
}

uint64_t dummy_key(const struct dummy *d, const char *name) {
    uint64_t h = d->seed;
    for (; *name; name++) h = mix(h ^ (unsigned char)*name);
    return h;
}

void dummy_fill(const struct dummy *d, uint64_t key, size_t from, size_t n, void *to) {
    const size_t size = dtype_size(d->dtype);
    while (n) {
        size_t at = from % BLOCK, take = BLOCK - at < n ? BLOCK - at : n;
        size_t window = (size_t)(mix(key ^ from / BLOCK) % TABLE);
        memcpy(to, (const char *)d->table + (window + at) * size, take * size);
        to = (char *)to + take * size;
        from += take;
        n -= take;
    }
}

void dummy_ones(const struct dummy *d, size_t n, void *to) {
    const size_t size = dtype_size(d->dtype);
    for (size_t take; n; n -= take, to = (char *)to + take * size) {
        take = n < BLOCK ? n : BLOCK;
        memcpy(to, d->ones, take * size);
    }
}
