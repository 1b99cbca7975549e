/* utf8.h: strict UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF). */
#ifndef MINISGL_BASE_UTF8_H
#define MINISGL_BASE_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The width (1-4) of the character at s, its code point in *cp; 0 when none is whole and valid there. */
size_t utf8_get(const char *s, size_t n, uint32_t *cp);
size_t utf8_put(uint32_t cp, char out[4]); /* the width written; 0 for a surrogate or above U+10FFFF */
bool utf8_valid(const char *s, size_t n);

#endif
