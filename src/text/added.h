/* added.h: added tokens: strings found in a text before anything else is done to it, such as <|im_start|>.
 *
 * A set finds the leftmost longest of its tokens, as the reference does. A tokenizer has two: one for the text as
 * given, one for the normalised text. Constant once built. Time: linear in the text times the longest token, in
 * practice one look a byte, since few bytes start a token. */
#ifndef MINISGL_TEXT_ADDED_H
#define MINISGL_TEXT_ADDED_H
#include "text/normalize.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADDED_MAX_BYTES = 1024 }; /* of one token */

struct added_token {
    int32_t id;
    bool special, normalized, lstrip, rstrip, single_word;
    char *content; /* owned */
    size_t n;
};

struct added_set;
struct added_set *added_set_new(void);
void added_set_free(struct added_set *s);
/* `t` must outlive the set; `s` is what is looked for (the content, perhaps normalised). The first of two equal
 * strings wins. */
void added_set_add(struct added_set *s, const struct added_token *t, const char *str, size_t n);
bool added_set_empty(const struct added_set *s);

/* A walk over a text: stretches without a token and tokens, in order. */
struct added_iter {
    const struct added_set *set;
    struct masked text;
    bool special; /* special tokens count, where all their bytes are trusted */
    size_t scan;  /* where the search goes on */
    size_t done;  /* everything before was handed out */
    const struct added_token *held;
    size_t held_start, held_end;
};
/* The next stretch: 1, with its place and its token (NULL: ordinary text); 0 at the end. A stretch may be empty. */
int added_next(struct added_iter *it, size_t *start, size_t *end, const struct added_token **t);

#endif
