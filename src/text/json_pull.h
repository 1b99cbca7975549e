/* json_pull.h: read a large JSON text from front to back without building a tree.
 *
 * For tokenizer.json (17 MB, 400,000 strings), where a tree costs 0.3 s. Strict RFC 8259: valid UTF-8, no lone
 * surrogates, no trailing commas, depth at most 64. The text must outlive the reader. After the first error every
 * call returns -1; the sentence in *e names the byte. */
#ifndef MINISGL_TEXT_JSON_PULL_H
#define MINISGL_TEXT_JSON_PULL_H
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_pull {
    const char *start, *p, *end;
    struct buf tmp[2]; /* unescaped strings, used in turn */
    unsigned turn;
    int depth;
    bool failed;
    struct err *e;
};

void pull_init(struct json_pull *j, const char *s, size_t n, struct err *e);
void pull_release(struct json_pull *j);

int pull_peek(struct json_pull *j);             /* the first byte of the next value or sign; -1 at the end */
int pull_enter(struct json_pull *j, char open); /* '{' or '[' must come */
/* Before each member: 1 when one follows, 0 when the closing sign was read. *first starts as true. */
int pull_more(struct json_pull *j, char close, bool *first);
/* A string; valid until the second next string is read. */
int pull_string(struct json_pull *j, const char **s, size_t *n);
int pull_key(struct json_pull *j, const char **s, size_t *n);  /* a string and its colon */
int pull_uint(struct json_pull *j, uint32_t *v);               /* an integer 0 .. 2^32-1 */
int pull_span(struct json_pull *j, const char **s, size_t *n); /* any value, checked, as its own text */
int pull_end(struct json_pull *j);                             /* nothing but white space may follow */
int pull_fail(struct json_pull *j, const char *what);          /* fill *e with "byte N: what"; -1 */

#endif
