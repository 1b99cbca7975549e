/* normalize.h: the normalizers of a tokenizer: what is done to a text before it is cut into words.
 *
 * A text may carry a mask, one byte a byte: 1 where the text is trusted (see tokenizer.h). It is kept in step. */
#ifndef MINISGL_TEXT_NORMALIZE_H
#define MINISGL_TEXT_NORMALIZE_H
#include "base/buf.h"
#include "base/err.h"
#include "text/pattern.h"

#include <stdint.h>

enum norm_kind { NORM_FORM, NORM_LOWERCASE, NORM_PREPEND, NORM_REPLACE, NORM_STRIP };
struct norm_step {
    enum norm_kind kind;
    unsigned form; /* NORM_FORM: UC_NFC, UC_NFKC, UC_NFD or UC_NFKD */
    char *text;    /* NORM_PREPEND, NORM_REPLACE: what to put there; owned */
    size_t text_n;
    struct pattern *pattern; /* NORM_REPLACE; owned */
    bool left, right;        /* NORM_STRIP */
};
enum { NORM_STEPS = 16 };

/* A text with its mask (NULL: all trusted, or trust plays no part). */
struct masked {
    const char *s;
    const uint8_t *mask;
    size_t n;
};
struct norm_scratch {
    struct buf text[2], mask[2]; /* each step writes to the other one */
    struct buf tmp;
    int32_t *cps; /* code points of the stretch being normalised */
    size_t cps_cap;
};
void norm_scratch_init(struct norm_scratch *s);
void norm_scratch_release(struct norm_scratch *s);

void norm_release(struct norm_step *step, size_t n);
/* The result lives in `in` or in *s until the next call. Linear time. -1: a replacing expression gave up. */
int normalize(const struct norm_step *step, size_t n, struct norm_scratch *s, struct masked in, struct masked *out,
              struct err *e);

#endif
