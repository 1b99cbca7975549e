/* touch.c: see touch.h. A thread of its own, which sleeps unless memory in use has come near what it touched; it shares only the
 * atomic words. It refuses to work while a step runs, or within QUIET_NS of one, but for the piece it has begun. */
#include "dev/cpu/touch.h"

#include "base/futex.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static const uint64_t QUIET_NS = 20000000;
static const size_t PIECE = 2 << 20, SYSTEM_PAGE = 4096;

struct touch {
    struct touch_args a;
    struct touch_area *areas;
    pthread_t thread;
    _Atomic size_t used;    /* bytes of each part */
    _Atomic uint32_t news;  /* counts what wakes the thread; its futex */
    _Atomic uint32_t steps; /* begun and ended; odd: one runs */
    _Atomic bool stop;
};

/* False when this kernel cannot, or has no memory for it. */
static bool populate(char *at, size_t bytes) {
    uintptr_t from = (uintptr_t)at / SYSTEM_PAGE * SYSTEM_PAGE;
    return !bytes || !madvise((void *)from, (uintptr_t)at + bytes - from, MADV_POPULATE_WRITE);
}

/* Where the thread is: first through the areas, then piece by piece through all parts. */
struct place {
    int area;
    size_t part, offset;
};

static bool is_due(const struct touch *t, const struct place *p) {
    if (p->area < t->a.n_areas) return true;
    return p->offset < t->a.part_bytes && p->offset < atomic_load(&t->used) + t->a.ahead;
}

static bool touch_next(const struct touch *t, struct place *p) {
    bool parts = p->area >= t->a.n_areas;
    size_t all = parts ? t->a.part_bytes : t->areas[p->area].bytes, n = all - p->offset < PIECE ? all - p->offset : PIECE;
    char *at = (parts ? t->a.parts_at + p->part * t->a.part_bytes : t->areas[p->area].at) + p->offset;
    if (parts && ++p->part < t->a.parts) return populate(at, n);
    p->part = 0;
    p->offset += n;
    if (!parts && p->offset == all) {
        p->area++;
        p->offset = 0;
    }
    return populate(at, n);
}

/* Once nothing has run for a while. */
static bool quiet(struct touch *t, uint32_t *steps) {
    *steps = atomic_load(&t->steps);
    uint32_t news = atomic_load(&t->news);
    if (atomic_load(&t->stop)) return false;
    futex_wait(&t->news, news, QUIET_NS);
    return !(*steps & 1) && atomic_load(&t->steps) == *steps;
}

static void *touch_main(void *arg) {
    struct touch *t = arg;
    struct place p = {0};
    while (!atomic_load(&t->stop)) {
        uint32_t news = atomic_load(&t->news), steps;
        if (!is_due(t, &p)) {
            if (!atomic_load(&t->stop)) futex_wait(&t->news, news, 0);
            continue;
        }
        if (!quiet(t, &steps)) continue;
        while (is_due(t, &p) && atomic_load(&t->steps) == steps && !atomic_load(&t->stop))
            if (!touch_next(t, &p)) return NULL;
    }
    return NULL;
}

static void wake(struct touch *t) {
    atomic_fetch_add(&t->news, 1);
    futex_wake(&t->news, 1);
}

struct touch *touch_new(const struct touch_args *a) {
    struct touch *t = mem_zalloc(1, sizeof *t);
    t->a = *a;
    t->areas = mem_array((size_t)a->n_areas, sizeof *t->areas);
    for (size_t i = 0; i < (size_t)a->n_areas; i++) t->areas[i] = a->areas[i];
    if (!pthread_create(&t->thread, NULL, touch_main, t)) return t;
    free(t->areas);
    free(t);
    return NULL;
}

void touch_free(struct touch *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    wake(t);
    pthread_join(t->thread, NULL);
    free(t->areas);
    free(t);
}

void touch_step(struct touch *t) {
    if (t) atomic_fetch_add(&t->steps, 1);
}

void touch_used(struct touch *t, size_t bytes) {
    if (!t || bytes <= atomic_load(&t->used)) return;
    atomic_store(&t->used, bytes);
    wake(t);
}
