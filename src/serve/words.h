/* words.h: the model's words as a front end needs them: text or messages to tokens, tokens to text.
 *
 * struct words is constant and shared by threads; struct words_tmp and struct words_out belong to one. */
#ifndef MINISGL_SERVE_WORDS_H
#define MINISGL_SERVE_WORDS_H
#include "base/buf.h"
#include "serve/api_err.h"
#include "serve/fields.h"

#include <jansson.h>

struct words;
struct words_tmp;

struct words_tmp *words_tmp_new(const struct words *w);
void words_tmp_free(struct words_tmp *t);

struct words_ids { /* malloc'ed */
    int32_t *v;
    size_t n;
};

size_t words_longest(const struct words *w); /* bytes of the longest token: n tokens hold at most n times as many */
bool words_has_template(const struct words *w);

/* n bytes of valid UTF-8 to tokens. Special tokens in the text are found (it is the caller's own prompt). */
int words_encode(const struct words *w, struct words_tmp *t, const char *s, size_t n, bool add_special,
                 struct words_ids *out, struct api_err *e);
/* The messages of p through the chat template to tokens; in messages, special tokens are ordinary text. */
int words_chat(const struct words *w, struct words_tmp *t, const struct params *p, struct words_ids *out,
               struct api_err *e);

/* The bytes one token stands for (they may be part of a character), special tokens by their name. */
void words_token(const struct words *w, int32_t id, struct buf *out);

/* Text of tokens as they come: whole characters only, cut before the first stop string. */
struct words_out;
struct words_out *words_out_new(const struct words *w, const struct params *p);
void words_out_free(struct words_out *o);
/* Add a token; appends what is certain of the text. Returns the number of the stop string that is complete now (the text
 * ends there), or -1. With `free_run`, stop strings are not looked for. */
int words_out_push(struct words_out *o, int32_t id, bool free_run, struct buf *text);
/* The end came without a stop string: append what was held back. Same return: the very end may complete one. */
int words_out_end(struct words_out *o, struct buf *text);

#endif
