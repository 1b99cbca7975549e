/* ceilings.h: what this machine can do at most, measured now: memory read bandwidth and arithmetic peaks. Sources of
 * the shares that the benches print. Best of several runs, because others may be using the machine. */
#ifndef MINISGL_BENCH_CEILINGS_H
#define MINISGL_BENCH_CEILINGS_H
#include "base/clock.h"
#include "base/mem.h"
#include "dev/cpu/pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct ceilings {
    double read_gbs, fma_avx2, fma_avx512, dot_bf16; /* GB/s, GFLOP/s; 0: not on this machine */
};

enum { CEIL_BYTES = 768 << 20, CEIL_ITERATIONS = 4000000 };

#if defined(__x86_64__)
#include <immintrin.h>

typedef double peak_fn(long n);

/* 12 chains of multiply-add: more than latency times width on every core so far. */
#define PEAK(name, isa, vec, zero, step)                                                                               \
    __attribute__((target(isa))) static double name(long n) {                                                          \
        vec a[12];                                                                                                     \
        for (int i = 0; i < 12; i++) a[i] = zero();                                                                    \
        vec x = zero(), y = zero();                                                                                    \
        for (long k = 0; k < n; k++) {                                                                                 \
            __asm__ volatile("" : "+x"(x), "+x"(y));                                                                   \
            a[0] = step(a[0], x, y), a[1] = step(a[1], x, y), a[2] = step(a[2], x, y), a[3] = step(a[3], x, y);        \
            a[4] = step(a[4], x, y), a[5] = step(a[5], x, y), a[6] = step(a[6], x, y), a[7] = step(a[7], x, y);        \
            a[8] = step(a[8], x, y), a[9] = step(a[9], x, y), a[10] = step(a[10], x, y), a[11] = step(a[11], x, y);    \
        }                                                                                                              \
        float out = 0;                                                                                                 \
        for (int i = 0; i < 12; i++) out += ((const float *)&a[i])[0];                                                 \
        return (double)out;                                                                                            \
    }
#define FMA256(a, x, y) _mm256_fmadd_ps(x, y, a)
#define FMA512(a, x, y) _mm512_fmadd_ps(x, y, a)
#define DOT512(a, x, y) _mm512_dpbf16_ps(a, (__m512bh)(x), (__m512bh)(y))
PEAK(peak_fma256, "avx2,fma", __m256, _mm256_setzero_ps, FMA256)
PEAK(peak_fma512, "avx512f", __m512, _mm512_setzero_ps, FMA512)
PEAK(peak_dot512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps, DOT512)
#else
typedef double peak_fn(long n);
#endif

struct ceil_job {
    peak_fn *fn;
    const char *buf;
    size_t bytes;
    int n;
    double sink[POOL_MAX_THREADS];
};

static inline void ceil_peak_piece(void *arg, int32_t piece, int32_t thread) {
    (void)thread;
    struct ceil_job *j = arg;
    j->sink[piece] = j->fn(CEIL_ITERATIONS);
}

typedef uint64_t ceil_vec __attribute__((vector_size(32)));

static inline void ceil_read_piece(void *arg, int32_t piece, int32_t thread) {
    (void)thread;
    struct ceil_job *j = arg;
    size_t part = j->bytes / (size_t)j->n & ~(size_t)4095;
    const ceil_vec *p = (const ceil_vec *)(const void *)(j->buf + (size_t)piece * part);
    ceil_vec a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i < part / 32; i += 8) {
        a ^= p[i] ^ p[i + 1];
        b ^= p[i + 2] ^ p[i + 3];
        c ^= p[i + 4] ^ p[i + 5];
        d ^= p[i + 6] ^ p[i + 7];
    }
    a ^= b ^ c ^ d;
    j->sink[piece] = (double)(a[0] ^ a[1] ^ a[2] ^ a[3]);
}

/* One pass over `bytes` at `buf`, in seconds. */
static inline double ceil_read(struct pool *pool, const char *buf, size_t bytes) {
    struct ceil_job j = {.buf = buf, .bytes = bytes, .n = pool_threads(pool)};
    uint64_t t = clock_ns();
    pool_run(pool, ceil_read_piece, &j, j.n);
    return (double)(clock_ns() - t) * 1e-9;
}

static inline double ceil_best(struct pool *pool, pool_fn *fn, struct ceil_job *j) {
    double best = 1e30;
    for (int r = 0; r < 5; r++) {
        uint64_t t = clock_ns();
        pool_run(pool, fn, j, j->n);
        double s = (double)(clock_ns() - t) * 1e-9;
        if (s < best) best = s;
    }
    return best;
}

static inline void ceilings_measure(struct ceilings *c, struct pool *pool) {
    struct ceil_job j = {.n = pool_threads(pool)};
    memset(c, 0, sizeof *c);
    char *buf = mem_aligned(2 << 20, CEIL_BYTES);
    madvise(buf, CEIL_BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; i < (size_t)CEIL_BYTES / 8; i++) ((uint64_t *)(void *)buf)[i] = i * 0x9e3779b97f4a7c15u | 1;
    double best = 1e30;
    for (int r = 0; r < 5; r++) {
        double s = ceil_read(pool, buf, CEIL_BYTES);
        if (s < best) best = s;
    }
    c->read_gbs = (double)CEIL_BYTES / best * 1e-9;
    free(buf);
#if defined(__x86_64__)
    double n = 12.0 * CEIL_ITERATIONS * j.n * 1e-9;
    j.fn = peak_fma256;
    if (__builtin_cpu_supports("avx2")) c->fma_avx2 = 16 * n / ceil_best(pool, ceil_peak_piece, &j);
    j.fn = peak_fma512;
    if (__builtin_cpu_supports("avx512f")) c->fma_avx512 = 32 * n / ceil_best(pool, ceil_peak_piece, &j);
    j.fn = peak_dot512;
    if (__builtin_cpu_supports("avx512bf16")) c->dot_bf16 = 64 * n / ceil_best(pool, ceil_peak_piece, &j);
#endif
    printf("ceilings, %d threads: read %.1f GB/s; f32 FMA %.0f (AVX2) and %.0f (AVX-512) GFLOP/s; bf16 dot %.0f GFLOP/s\n",
           j.n, c->read_gbs, c->fma_avx2, c->fma_avx512, c->dot_bf16);
}

#endif
