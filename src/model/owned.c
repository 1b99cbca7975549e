/* owned.c: see owned.h. A list of anonymous mappings; the owner's thread. */
#include "model/owned.h"

#include "base/mem.h"

#include <stdlib.h>
#include <sys/mman.h>

struct owned {
    struct owned *next;
    void *data;
    size_t n;
};

void *owned_add(struct weights *w, size_t n) {
    struct owned *o = mem_alloc(sizeof *o);
    *o = (struct owned){.next = w->owned, .n = n ? n : 1};
    o->data = mmap(NULL, o->n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (o->data == MAP_FAILED) {
        free(o);
        return NULL;
    }
    madvise(o->data, o->n, MADV_HUGEPAGE);
    w->owned = o;
    return o->data;
}

void owned_release(struct weights *w) {
    for (struct owned *o = w->owned, *next; o; o = next) {
        next = o->next;
        munmap(o->data, o->n);
        free(o);
    }
    w->owned = NULL;
}
