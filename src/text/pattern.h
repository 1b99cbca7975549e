/* pattern.h: what a pre-tokenizer splits at: a regular expression, a string, or a kind of character.
 *
 * The regular expressions of GPT-2, Llama 3, Qwen 2/3 and their relatives are matched by hand-written code over our own
 * Unicode tables, exactly and in linear time. Any other goes to PCRE2, if every construct in it means the same there as
 * in the reference's engine (Oniguruma); otherwise it is refused by name. Characters newer than PCRE2's Unicode are
 * shown to it as older ones of the same category.
 *
 * A pattern is constant once made and shared by threads. */
#ifndef MINISGL_TEXT_PATTERN_H
#define MINISGL_TEXT_PATTERN_H
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct pattern;
enum pattern_class { PATTERN_NUMERIC, PATTERN_SPACE, PATTERN_PUNCT, PATTERN_WORDS };
/* PATTERN_WORDS: \w+|[^\w\s]+ */

struct pattern *pattern_regex(const char *regex, size_t n, struct err *e);
struct pattern *pattern_string(const char *s, size_t n); /* n > 0 */
struct pattern *pattern_class(enum pattern_class c);
struct pattern *pattern_gpt2(void); /* the expression built into ByteLevel */
void pattern_free(struct pattern *p);
bool pattern_shortens(const struct pattern *p, size_t n); /* whether n bytes in place of a match may be fewer */

/* A walk over one text: pieces that match and pieces between matches, in order, covering it. */
struct pattern_iter {
    const struct pattern *p;
    const char *s;
    size_t n, at;          /* at: the start of the next piece */
    size_t m_start, m_end; /* the match found but not yet handed out */
    bool held;
    const char *subject; /* what PCRE2 sees in place of s */
};
/* *tmp may be used for the subject until the walk is over. */
void pattern_start(struct pattern_iter *it, const struct pattern *p, const char *s, size_t n, struct buf *tmp);
/* The next piece: 1, its end in *end and whether it matches in *match (it starts where the last one ended);
 * 0 at the end of the text; -1 when PCRE2 gave up (too much backtracking), e filled. */
int pattern_next(struct pattern_iter *it, size_t *end, bool *match, struct err *e);

/* For patterns made by hand, which match everywhere: the end of the piece that starts at s[0]; n > 0. */
typedef size_t pattern_scan(const char *s, size_t n);
pattern_scan *pattern_scanner(const struct pattern *p); /* NULL for the others */

#endif
