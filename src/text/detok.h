/* detok.h: text from tokens that arrive one by one.
 *
 * A push appends what has become final: whole characters only, nothing twice. All that was pushed and finished together
 * equals tokenizer_decode of all the ids. Amortised O(bytes of the token). One owner, no locks.
 *
 * Held back: the bytes of an unfinished character (at most 3) and, for models with byte tokens (<0x0A>), a run of those
 * until another token ends it, because one bad byte turns the whole run into U+FFFD, one a byte. */
#ifndef MINISGL_TEXT_DETOK_H
#define MINISGL_TEXT_DETOK_H
#include "base/buf.h"
#include "text/tokenizer.h"

struct detok {
    const struct tokenizer *t;
    bool skip_special;
    bool begun;            /* some token was pushed (and not skipped) */
    bool bad;              /* the run of byte tokens is no UTF-8 */
    size_t strip;          /* characters that may still be stripped at the start */
    unsigned char tail[4]; /* an unfinished character */
    size_t n_tail;
    struct buf run; /* byte tokens held back; the last n_tail of them are also in tail */
};

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special); /* no allocation */
void detok_release(struct detok *d);
void detok_reset(struct detok *d);
void detok_push(struct detok *d, int32_t id, struct buf *out);
/* No more tokens: append what is held back, an unfinished character as U+FFFD. Then as after detok_reset. */
void detok_finish(struct detok *d, struct buf *out);

#endif
