/* mem.c: allocation that cannot fail. No state. */
#include "base/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Noreturn void out_of_memory(size_t n) {
    fprintf(stderr, "ERROR: out of memory: the system refused %zu more bytes\n", n);
    _exit(1);
}

static size_t product(size_t n, size_t size) {
    size_t all;
    if (!size_mul(n, size, &all)) out_of_memory(SIZE_MAX);
    return all;
}

void *mem_alloc(size_t n) {
    void *p = malloc(n ? n : 1);
    if (!p) out_of_memory(n);
    return p;
}

void *mem_zalloc(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) out_of_memory(product(n, size));
    return p;
}

void *mem_array(size_t n, size_t size) { return mem_alloc(product(n, size)); }

void *mem_grow(void *p, size_t n, size_t size) {
    size_t all = product(n, size);
    void *q = realloc(p, all ? all : 1);
    if (!q) out_of_memory(all);
    return q;
}

void *mem_aligned(size_t align, size_t n) {
    void *p = NULL;
    if (posix_memalign(&p, align, n ? n : 1)) out_of_memory(n);
    return p;
}

char *mem_strdup(const char *s) { return s ? mem_strndup(s, strlen(s)) : NULL; }

char *mem_strndup(const char *s, size_t n) {
    char *p = mem_alloc(n + 1);
    if (n) memcpy(p, s, n);
    p[n] = 0;
    return p;
}
