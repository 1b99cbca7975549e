/* buf.h: a growing run of bytes with a hard cap.
 *
 * data is always NUL-terminated behind len once anything was added (data == NULL only when nothing was).
 * An addition that would pass max is dropped whole, sets `over`, and returns -1; later additions too.
 * So a caller may add many times and look at `over` once. */
#ifndef MINISGL_BASE_BUF_H
#define MINISGL_BASE_BUF_H
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data;
    size_t len, cap, max;
    bool over;
};

void buf_init(struct buf *b, size_t max); /* no allocation */
void buf_release(struct buf *b);
void buf_reset(struct buf *b);            /* empty, memory kept, `over` cleared */
int buf_add(struct buf *b, const void *p, size_t n);
int buf_addc(struct buf *b, char c);
int buf_adds(struct buf *b, const char *s);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int buf_room(struct buf *b, size_t n);    /* make data + len writable for n more bytes */
char *buf_take(struct buf *b, size_t *n); /* the bytes (NUL-terminated, free() them); b is empty after */
const char *buf_str(const struct buf *b); /* "" when empty; lives until the next change */
int buf_add_json(struct buf *b, const char *s, size_t n); /* a quoted JSON string; invalid UTF-8 becomes U+FFFD */

#endif
