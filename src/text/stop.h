/* stop.h: stop strings, looked for in text as it streams out.
 *
 * A set is made once for a request (and shared by its choices); a struct stop is the state of one stream. What is
 * handed on is safe: no stop string has begun in it. What is held back is the longest end of the text that may still
 * grow into a stop string, never more. When a string is complete, the text ends before it (or behind it, on wish). If
 * several could match, the one that is complete first counts; of those complete at the same byte, the one that starts
 * first.
 *
 * Aho and Corasick's automaton over bytes: linear in the text, whatever the strings. One owner; no locks. */
#ifndef MINISGL_TEXT_STOP_H
#define MINISGL_TEXT_STOP_H
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STOP_MAX = 16, STOP_MAX_BYTES = 1024 };

struct stop_set;
struct stop_string {
    const char *s;
    size_t n;
};
/* NULL and *e when there are more than STOP_MAX strings, or one is empty or longer than STOP_MAX_BYTES. n may be 0. */
struct stop_set *stop_set_new(const struct stop_string *str, size_t n, struct err *e);
void stop_set_free(struct stop_set *set);

struct stop {
    const struct stop_set *set;
    bool include; /* the stop string stays in the text */
    int matched;  /* the index of the string found; -1: none so far */
    uint32_t state;
    struct buf held;
};
void stop_init(struct stop *s, const struct stop_set *set, bool include); /* no allocation */
void stop_release(struct stop *s);
/* Take new text; append what is safe to *out. True when a stop string is complete: *out has the last of the text then
 * (s->matched says which), and later text is dropped. */
bool stop_push(struct stop *s, const char *text, size_t n, struct buf *out);
/* The stream ended without a match: append what was held back. */
void stop_finish(struct stop *s, struct buf *out);

#endif
