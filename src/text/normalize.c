/* normalize.c: see normalize.h. Steps are constant; a scratch belongs to one thread.
 *
 * Unicode normal forms: decomposition and composition data are utf8proc's, minus the characters that the reference's
 * older normaliser does not know (UC_OPAQUE). Only stretches that need work are touched: a stretch reaches from the
 * last character that is certainly left alone to the next such one. Marks are put in order by counting, so that a
 * million of them in a row take linear time. */
#include "text/normalize.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Where a step writes. */
struct sink {
    struct buf *text, *mask; /* mask NULL: none is kept */
};

void norm_scratch_init(struct norm_scratch *s) {
    *s = (struct norm_scratch){0};
    for (int i = 0; i < 2; i++) {
        buf_init(&s->text[i], SIZE_MAX / 4);
        buf_init(&s->mask[i], SIZE_MAX / 4);
    }
    buf_init(&s->tmp, SIZE_MAX / 4);
}

void norm_scratch_release(struct norm_scratch *s) {
    for (int i = 0; i < 2; i++) {
        buf_release(&s->text[i]);
        buf_release(&s->mask[i]);
    }
    buf_release(&s->tmp);
    free(s->cps);
}

void norm_release(struct norm_step *step, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(step[i].text);
        pattern_free(step[i].pattern);
    }
}

static void put_same(struct sink k, struct masked in, size_t from, size_t to) {
    buf_add(k.text, in.s + from, to - from);
    if (k.mask) buf_add(k.mask, in.mask + from, to - from);
}

static bool all_trusted(struct masked in, size_t from, size_t to) { return !memchr(in.mask + from, 0, to - from); }

static void put_mask(struct sink k, size_t n, bool trusted) {
    if (!k.mask || buf_room(k.mask, n)) return;
    memset(k.mask->data + k.mask->len, trusted, n);
    k.mask->len += n;
}

/* New text in place of in[from, to): trusted only if all of that was. */
static void put_new(struct sink k, struct masked in, size_t from, size_t to, const char *s, size_t n) {
    buf_add(k.text, s, n);
    if (k.mask) put_mask(k, n, all_trusted(in, from, to));
}

/* ---- normal forms ---- */

static void cps_room(struct norm_scratch *s, size_t n) {
    if (s->cps_cap >= n) return;
    s->cps_cap = n + s->cps_cap / 2 + 256;
    s->cps = mem_grow(s->cps, s->cps_cap, sizeof *s->cps);
}

static int combining(int32_t c) { return utf8proc_get_property(c)->combining_class; }

static void sort_few(int32_t *c, size_t n) {
    for (size_t i = 1; i < n; i++) {
        int32_t x = c[i];
        size_t k = i;
        for (; k && combining(c[k - 1]) > combining(x); k--) c[k] = c[k - 1];
        c[k] = x;
    }
}

static void sort_many(int32_t *c, size_t n) {
    size_t count[257] = {0};
    int32_t *copy = mem_array(n, sizeof *copy);
    memcpy(copy, c, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) count[combining(c[i]) + 1]++;
    for (int i = 0; i < 256; i++) count[i + 1] += count[i];
    for (size_t i = 0; i < n; i++) c[count[combining(copy[i])]++] = copy[i];
    free(copy);
}

/* Canonical order: every run of marks sorted by class, stably. */
static void reorder(int32_t *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!combining(c[i])) continue;
        size_t end = i + 1;
        while (end < n && combining(c[end])) end++;
        if (end - i < 32)
            sort_few(c + i, end - i);
        else
            sort_many(c + i, end - i);
        i = end;
    }
}

/* Decompose, order and perhaps compose in[from, to). */
static void put_stretch(struct norm_scratch *s, struct sink k, struct masked in, size_t from, size_t to,
                        unsigned form) {
    enum { LONGEST = 32 }; /* code points one character may become */
    utf8proc_option_t opt = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE;
    if (form == UC_NFKC || form == UC_NFKD) opt |= UTF8PROC_COMPAT;
    size_t n = 0, w;
    for (size_t i = from; i < to; i += w) {
        cps_room(s, n + LONGEST);
        int boundary = 0;
        uint32_t c = uc_get(in.s + i, &w);
        utf8proc_ssize_t r = utf8proc_decompose_char((utf8proc_int32_t)c, s->cps + n, LONGEST, opt, &boundary);
        if (r > 0 && r <= LONGEST) n += (size_t)r;
    }
    reorder(s->cps, n);
    if (form == UC_NFC || form == UC_NFKC) {
        utf8proc_ssize_t r = utf8proc_normalize_utf32(s->cps, (utf8proc_ssize_t)n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        if (r >= 0) n = (size_t)r;
    }
    bool trusted = !k.mask || all_trusted(in, from, to);
    for (size_t i = 0; i < n; i++) {
        char u[4];
        w = utf8_put((uint32_t)s->cps[i], u);
        buf_add(k.text, u, w);
        put_mask(k, w, trusted);
    }
}

/* The first character at or after i that may change or join its predecessor; n when there is none. *before is the
 * start of the character before it (or i). */
static size_t unsettled(struct masked in, size_t i, unsigned form, size_t *before) {
    size_t w;
    for (*before = i; i < in.n; i += w) {
        if ((unsigned char)in.s[i] < 0x80) {
            w = uc_ascii_run(in.s + i, in.n - i);
            *before = i + w - 1;
            continue;
        }
        unsigned bits = uc_norm(uc_get(in.s + i, &w));
        if (bits & form) return i;
        *before = bits & UC_OPAQUE ? i + w : i; /* nothing joins an opaque one */
    }
    return in.n;
}

static size_t settled(struct masked in, size_t i, unsigned form) {
    size_t w;
    for (; i < in.n; i += w)
        if ((unsigned char)in.s[i] < 0x80 || !(uc_norm(uc_get(in.s + i, &w)) & form)) return i;
    return in.n;
}

static bool put_form(struct norm_scratch *s, struct sink k, struct masked in, unsigned form) {
    size_t from, done = 0, at = unsettled(in, 0, form, &from);
    if (at == in.n) return false;
    while (at < in.n) {
        size_t end = settled(in, at, form);
        put_same(k, in, done, from);
        put_stretch(s, k, in, from, end, form);
        done = end;
        at = unsettled(in, end, form, &from);
    }
    put_same(k, in, done, in.n);
    return true;
}

/* ---- the others ---- */

static void put_lowercase(struct sink k, struct masked in) {
    for (size_t i = 0, w; i < in.n; i += w) {
        uint32_t c = uc_get(in.s + i, &w);
        char u[8];
        size_t n = utf8_put(uc_lower(c), u);
        if (c == 0x130) n += utf8_put(0x307, u + n);
        put_new(k, in, i, i + w, u, n);
    }
}

static int put_replaced(struct norm_scratch *s, struct sink k, struct masked in, const struct norm_step *step,
                        struct err *e) {
    struct pattern_iter it;
    size_t from = 0, end;
    bool match;
    int r;
    pattern_start(&it, step->pattern, in.s, in.n, &s->tmp);
    for (; (r = pattern_next(&it, &end, &match, e)) > 0; from = end) {
        if (match)
            put_new(k, in, from, end, step->text, step->text_n);
        else
            put_same(k, in, from, end);
    }
    return r;
}

static void put_stripped(struct sink k, struct masked in, const struct norm_step *step) {
    size_t a = 0, b = in.n, w;
    while (step->left && a < b && uc_class(uc_get(in.s + a, &w)) & UC_SPACE) a += w;
    while (step->right && a < b) {
        size_t p = uc_before(in.s, b);
        if (!(uc_class(uc_get(in.s + p, &w)) & UC_SPACE)) break;
        b = p;
    }
    put_same(k, in, a, b);
}

/* 1: the text was written to k; 0: nothing to do. */
static int apply(const struct norm_step *step, struct norm_scratch *s, struct sink k, struct masked in, struct err *e) {
    switch (step->kind) {
    case NORM_FORM: return put_form(s, k, in, step->form);
    case NORM_LOWERCASE: return put_lowercase(k, in), 1;
    case NORM_REPLACE: return put_replaced(s, k, in, step, e) ? -1 : 1;
    case NORM_STRIP: return put_stripped(k, in, step), 1;
    case NORM_PREPEND:
        buf_add(k.text, step->text, step->text_n);
        put_mask(k, step->text_n, true);
        put_same(k, in, 0, in.n);
        return 1;
    }
    return 0;
}

int normalize(const struct norm_step *step, size_t n, struct norm_scratch *s, struct masked in, struct masked *out,
              struct err *e) {
    int turn = 0;
    for (size_t i = 0; i < n && in.n; i++) {
        struct sink k = {&s->text[turn], in.mask ? &s->mask[turn] : NULL};
        buf_reset(k.text);
        if (k.mask) buf_reset(k.mask);
        int r = apply(&step[i], s, k, in, e);
        if (r < 0) return -1;
        if (!r) continue;
        in = (struct masked){buf_str(k.text), k.mask ? (const uint8_t *)buf_str(k.mask) : NULL, k.text->len};
        turn ^= 1;
    }
    *out = in;
    return 0;
}
