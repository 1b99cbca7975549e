/* json_in.h: a request body as JSON, strictly: an object, at most 64 deep and a million values, no name twice,
 * valid UTF-8, no lone surrogates, numbers that fit 64 bits or a double. Depth and count are looked at first, by a scan
 * without recursion; only then is a tree built. Strings may contain NUL ("\u0000"); who reads one decides. */
#ifndef MINISGL_SERVE_JSON_IN_H
#define MINISGL_SERVE_JSON_IN_H
#include "serve/api_err.h"

#include <jansson.h>
#include <stddef.h>

enum { JSON_MAX_DEPTH = 64, JSON_MAX_VALUES = 1000000 };

/* The object (json_decref it), or NULL and *e (status 400; param names the field a bad number stands in). */
json_t *json_read(const char *p, size_t n, struct api_err *e);

#endif
