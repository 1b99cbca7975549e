/* mem.h: memory that is there or ends the process (exit code 1): an exhausted heap is a broken machine.
 * Sizes from outside are multiplied with size_mul, which tells overflow. */
#ifndef MINISGL_BASE_MEM_H
#define MINISGL_BASE_MEM_H
#include <stdbool.h>
#include <stddef.h>

void *mem_alloc(size_t n);                        /* never NULL; n may be 0 */
void *mem_zalloc(size_t n, size_t size);          /* zeroed; the product is checked */
void *mem_array(size_t n, size_t size);           /* not zeroed; the product is checked */
void *mem_grow(void *p, size_t n, size_t size);   /* realloc to n elements; the product is checked */
void *mem_aligned(size_t align, size_t n);        /* free() releases it */
char *mem_strdup(const char *s);                  /* NULL stays NULL */
char *mem_strndup(const char *s, size_t n);
static inline bool size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool size_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }

#endif
