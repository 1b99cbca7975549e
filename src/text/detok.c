/* detok.c: see detok.h. A detok has one owner; no locks. */
#include "text/detok.h"

#include "base/utf8.h"
#include "text/tok_impl.h"
#include "text/unicode.h"

#include <string.h>

static const char REPLACEMENT[] = "\xef\xbf\xbd";

void detok_init(struct detok *d, const struct tokenizer *t, bool skip_special) {
    *d = (struct detok){.t = t, .skip_special = skip_special, .strip = t->dec.strip_n};
    buf_init(&d->run, SIZE_MAX / 4);
}

void detok_release(struct detok *d) { buf_release(&d->run); }

void detok_reset(struct detok *d) {
    buf_reset(&d->run);
    d->begun = d->bad = false;
    d->n_tail = 0;
    d->strip = d->t->dec.strip_n;
}

/* Everything goes out through here, for the characters stripped at the start of the text. */
static void emit(struct detok *d, const char *s, size_t n, struct buf *out) {
    size_t w = strlen(d->t->dec.strip);
    for (; d->strip && n; d->strip--, s += w, n -= w) {
        if (n >= w && !memcmp(s, d->t->dec.strip, w)) continue;
        d->strip = 0;
        break;
    }
    buf_add(out, s, n);
}

static void emit_bad(struct detok *d, size_t n, struct buf *out) {
    while (n--) emit(d, REPLACEMENT, 3, out);
}

/* Whether 1-3 bytes are the start of some character and not yet a whole one. */
static bool unfinished(const unsigned char *p, size_t n) {
    if (p[0] < 0xc2 || p[0] > 0xf4) return false;
    size_t want = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n >= want) return false;
    if (n < 2) return true;
    unsigned lo = p[0] == 0xe0   ? 0xa0
                  : p[0] == 0xf0 ? 0x90
                                 : 0x80,
             hi = p[0] == 0xed   ? 0x9f
                  : p[0] == 0xf4 ? 0x8f
                                 : 0xbf;
    if (p[1] < lo || p[1] > hi) return false;
    return n < 3 || (p[2] & 0xc0) == 0x80;
}

/* Add a byte to the tail: the width of the character it finishes, 0 while unfinished, -1 when no character starts so.
 */
static int tail_add(struct detok *d, unsigned char b) {
    uint32_t c;
    d->tail[d->n_tail++] = b;
    size_t w = utf8_get((const char *)d->tail, d->n_tail, &c);
    if (w) return (int)w;
    return unfinished(d->tail, d->n_tail) ? 0 : -1;
}

/* A byte-level stream: the longest starts of characters that come to nothing are one U+FFFD each. */
static void lossy_byte(struct detok *d, unsigned char b, struct buf *out) {
    size_t before = d->n_tail;
    int w = tail_add(d, b);
    if (!w) return;
    d->n_tail = 0;
    if (w > 0) {
        emit(d, (const char *)d->tail, (size_t)w, out);
        return;
    }
    emit(d, REPLACEMENT, 3, out);
    if (before) lossy_byte(d, b, out); /* once: the tail is empty now */
}

static void lossy(struct detok *d, const char *s, size_t n, struct buf *out) {
    if (!d->n_tail && uc_valid(s, n)) {
        emit(d, s, n, out);
        return;
    }
    for (size_t i = 0; i < n; i++) lossy_byte(d, (unsigned char)s[i], out);
}

static void run_add(struct detok *d, unsigned char b, struct buf *out) {
    buf_addc(&d->run, (char)b);
    if (!d->bad) {
        int w = tail_add(d, b);
        if (w > 0) d->n_tail = 0;
        d->bad = w < 0;
    }
    if (!d->bad) return;
    emit_bad(d, d->run.len, out); /* nothing can mend it */
    buf_reset(&d->run);
}

static void run_end(struct detok *d, struct buf *out) {
    if (d->n_tail)
        emit_bad(d, d->run.len, out);
    else
        emit(d, buf_str(&d->run), d->run.len, out);
    buf_reset(&d->run);
    d->n_tail = 0;
    d->bad = false;
}

static void metaspace(struct detok *d, const char *s, size_t n, struct buf *out) {
    size_t w = strlen(d->t->dec.space);
    for (size_t i = 0; i < n;) {
        if (n - i >= w && !memcmp(s + i, d->t->dec.space, w)) {
            if (d->begun || !d->t->dec.drop_prefix) buf_addc(out, ' ');
            i += w;
        } else {
            buf_addc(out, s[i++]);
        }
    }
}

void detok_push(struct detok *d, int32_t id, struct buf *out) {
    const struct tokenizer *t = d->t;
    if (id < 0 || (size_t)id >= t->n_vocab) return;
    const struct piece *p = &t->piece[id];
    if (p->kind == PIECE_NONE || (d->skip_special && p->skipped)) return;
    const char *s = t->text.data + p->off;
    switch (t->dec.kind) {
    case DECODE_BYTE_LEVEL: lossy(d, s, p->len, out); break;
    case DECODE_METASPACE: metaspace(d, s, p->len, out); break;
    case DECODE_JOIN:
        if (d->begun) buf_addc(out, ' ');
        buf_add(out, s, p->len);
        break;
    case DECODE_FUSE:
        if (p->kind == PIECE_BYTE) {
            run_add(d, (unsigned char)*s, out);
            break;
        }
        run_end(d, out);
        emit(d, s, p->len, out);
    }
    d->begun = true;
}

void detok_finish(struct detok *d, struct buf *out) {
    if (d->t->dec.kind == DECODE_FUSE)
        run_end(d, out);
    else if (d->n_tail)
        emit(d, REPLACEMENT, 3, out);
    detok_reset(d);
}

void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct buf *out) {
    struct detok d;
    detok_init(&d, t, skip_special);
    for (size_t i = 0; i < n; i++) detok_push(&d, ids[i], out);
    detok_finish(&d, out);
    detok_release(&d);
}
