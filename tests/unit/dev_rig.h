/* dev_rig.h: what the tests of the CPU device share: random data, opening a device, building batches, running a program. */
#ifndef MINISGL_TESTS_DEV_RIG_H
#define MINISGL_TESTS_DEV_RIG_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "dev/cpu/half.h"
#include "dev/cpu/ops.h"
#include "dev/dev.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state = 1;

static inline uint32_t rnd(void) {
    rng_state += 0x9e3779b97f4a7c15u;
    uint64_t x = rng_state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(x >> 32);
}
static inline float rnd_f(void) { return (float)(int32_t)rnd() * 0x1p-31f; } /* [-1, 1) */
static inline int32_t rnd_n(int32_t n) { return (int32_t)(rnd() % (uint32_t)n); }

static inline float *rnd_floats(size_t n) {
    float *p = mem_array(n, sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = rnd_f();
    return p;
}

/* A random weight [n, k] with a row stride of ld; the gap between rows is NaN, so that reading it shows. */
static inline struct view rnd_weight(int32_t n, int32_t k, int32_t ld, enum dtype t) {
    void *p = mem_alloc((size_t)n * (size_t)ld * dtype_size(t));
    for (size_t i = 0; i < (size_t)n * (size_t)ld; i++)
        store_any(p, t, i, i % (size_t)ld < (size_t)k ? rnd_f() : NAN);
    return (struct view){p, t, n, k, ld};
}

static const char *const all_isas[] = {"generic", "avx2", "avx512", "avx512bf16"};
enum { N_ISAS = 4 };

/* Is it here? Says so once a test when not. */
static inline bool isa_here(const char *isa) {
    struct err e;
    if (cpu_ops_find(isa, &e)) return true;
    print_message("skipped for %s: this processor does not have it\n", isa);
    return false;
}

struct rig {
    struct dev *d;
    struct dev_shape shape;
    void *mem;
    struct batch *b;
    struct result result;
};

static inline void rig_open(struct rig *r, const char *isa, int32_t threads, const struct dev_shape *shape, const struct op *ops,
                            int32_t n_ops) {
    struct err e = {0};
    *r = (struct rig){.shape = *shape};
    if (dev_cpu.open(&r->d, &(struct dev_args){.n_ranks = 1, .n_threads = threads, .isa = isa}, &e) ||
        dev_cpu.load(r->d, shape, &(struct dev_program){ops, n_ops}, &e))
        fail_msg("%s", e.text);
    r->mem = mem_aligned(64, batch_size(&shape->limits));
    r->b = batch_init(r->mem, &shape->limits);
    r->result.rows = mem_zalloc((size_t)shape->limits.max_seqs, sizeof *r->result.rows);
    batch_reset(r->b, 1);
}

static inline void rig_close(struct rig *r) {
    dev_cpu.close(r->d);
    free(r->mem);
    free(r->result.rows);
}

/* Give slot the pages base, base + stride, ... for its whole length. */
static inline void rig_pages(struct rig *r, int32_t slot, int32_t base, int32_t stride, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        batch_pages(r->b)[r->b->n_pages++] = (struct batch_page){slot, i, base + i * stride};
}

static inline void rig_seq(struct rig *r, int32_t slot, int32_t pos, int32_t n, const int32_t *tokens, bool row) {
    struct batch *b = r->b;
    batch_seqs(b)[b->n_seqs++] = (struct batch_seq){slot, pos, n, tokens ? b->n_given : -1, row ? b->n_rows++ : -1};
    b->n_tokens += n;
    if (!tokens) return;
    memcpy(batch_tokens(b) + b->n_given, tokens, (size_t)n * sizeof *tokens);
    b->n_given += n;
}

static inline void rig_run(struct rig *r) {
    struct err e = {0};
    batch_seal(r->b);
    if (dev_cpu.launch(r->d, r->b, &e) || dev_cpu.collect(r->d, &r->result, &e)) fail_msg("%s", e.text);
    assert_int_equal(r->result.step, r->b->step);
    batch_reset(r->b, r->b->step + 1);
}

/* |a - b| / |b|, and a sentence when it is over the bound. */
static inline void assert_close(const char *what, const float *a, const float *b, size_t n, double bound) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        s += (double)b[i] * (double)b[i];
    }
    double error = sqrt(d / (s > 0 ? s : 1));
    if (!(error <= bound)) fail_msg("%s: relative error %g, expected at most %g", what, error, bound);
}

static inline void assert_same_bits(const char *what, const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bits_of_f32(a[i]) != bits_of_f32(b[i])) fail_msg("%s: element %zu of %zu: %.9g is not %.9g", what, i, n, (double)a[i], (double)b[i]);
}

#endif
