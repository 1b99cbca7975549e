/* words.h: the model's words as a front end needs them: text or messages to tokens, tokens to text.
 *
 * struct words is constant and shared by threads; struct words_tmp and struct words_out belong to one. */
#ifndef MINISGL_SERVE_WORDS_H
#define MINISGL_SERVE_WORDS_H
#include "base/buf.h"
#include "serve/api_err.h"
#include "serve/fields.h"
#include "text/ids.h"
#include "text/tokenizer.h"

struct chat_template;
struct words;
struct words_tmp;

/* Both are borrowed and must outlive it. */
struct words *words_new(const struct tokenizer *tokenizer, const struct chat_template *chat_template);
void words_free(struct words *w);

struct words_tmp *words_tmp_new(const struct words *w);
void words_tmp_free(struct words_tmp *t);

bool words_has_template(const struct words *w);
/* A text of more than k times this many bytes has more than k tokens; SIZE_MAX: no such bound. */
size_t words_longest(const struct words *w);

/* n bytes of valid UTF-8 to at most max_ids tokens (more: context_length_exceeded). Special tokens spelled in the text
 * become those tokens: it is the caller's own prompt. */
struct words_text {
    const char *s;
    size_t n, max_ids;
    bool add_special;
};
int words_encode(const struct words *w, struct words_tmp *t, const struct words_text *x, struct ids *out,
                 struct api_err *e);
/* The messages of p through the chat template to tokens. Special tokens spelled in messages are ordinary text. */
int words_chat(const struct words *w, struct words_tmp *t, const struct params *p, size_t max_ids, struct ids *out,
               struct api_err *e);

/* The bytes one token stands for (they may be part of a character), special tokens by their name. */
void words_token(const struct words *w, int32_t id, struct buf *out);
void words_decode(const struct words *w, const int32_t *ids, size_t n, struct buf *out);

/* Text of tokens as they come: whole characters only, cut before the first stop string (or behind it). */
struct words_out;
struct words_out *words_out_new(const struct words *w, const struct params *p); /* p must outlive it */
void words_out_free(struct words_out *o);
/* Add a token; appends what is certain of the text. Returns the number of the stop string that is complete now (the
 * text ends there), or -1. */
int words_out_push(struct words_out *o, int32_t id, struct buf *text);
/* The end came without a stop string: append what was held back. Same return: the very end may complete one. */
int words_out_end(struct words_out *o, struct buf *text);

#endif
