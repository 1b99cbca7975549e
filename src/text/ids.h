/* ids.h: a growing run of token ids. One owner; no locks. */
#ifndef MINISGL_TEXT_IDS_H
#define MINISGL_TEXT_IDS_H
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct ids {
    int32_t *v;
    size_t n, cap;
};

static inline void ids_release(struct ids *a) {
    free(a->v);
    *a = (struct ids){0};
}
static inline void ids_room(struct ids *a, size_t more) {
    if (a->cap - a->n >= more) return;
    a->cap = a->n + more + a->cap / 2 + 64;
    a->v = (int32_t *)mem_grow(a->v, a->cap, sizeof *a->v);
}
static inline void ids_add(struct ids *a, int32_t id) {
    if (a->n == a->cap) ids_room(a, 1);
    a->v[a->n++] = id;
}

#endif
