/* jinja_str.c: the arena of a compilation or a render, and strings with provenance.
 *
 * State belongs to the thread that compiles or renders. Nothing here is freed one by one: an arena goes as a whole.
 * Strings never change once made, so that slices share memory. */
#include "base/mem.h"
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
};

enum { CHUNK = 64 << 10, CHUNK_HEAD = 16 };
_Static_assert(sizeof(struct arena_chunk) <= CHUNK_HEAD, "chunk head");

static void *alloc_chunk(struct jx *x, size_t n) {
    size_t size = n > CHUNK / 4 ? n : CHUNK;
    if (size > x->max || x->used > x->max - size)
        jx_fail(x, JINJA_LIMIT, "the template needs more than %zu MiB of memory", x->max >> 20);
    struct arena_chunk *c = mem_alloc(CHUNK_HEAD + size);
    x->used += size;
    c->next = x->chunks;
    c->size = size;
    x->chunks = c;
    char *p = (char *)c + CHUNK_HEAD;
    if (size == n) return p; /* a large one of its own; the current chunk stays in use */
    x->at = p + n;
    x->end = p + size;
    return p;
}

void *jx_alloc(struct jx *x, size_t n) {
    static _Alignas(16) char nothing[16]; /* what an allocation of no bytes points to: never read, never written */
    if (n > (size_t)1 << 40) jx_fail(x, JINJA_LIMIT, "the template asks for too much memory at once");
    n = (n + 15) & ~(size_t)15;
    if (n > (size_t)(x->end - x->at) || n == 0) return n ? alloc_chunk(x, n) : nothing;
    void *p = x->at;
    x->at += n;
    return p;
}

void *jx_zalloc(struct jx *x, size_t n) { return memset(jx_alloc(x, n), 0, n); }

void *jx_array(struct jx *x, size_t n, size_t size) {
    size_t bytes;
    if (!size_mul(n, size, &bytes)) jx_fail(x, JINJA_LIMIT, "the template asks for too much memory at once");
    return jx_alloc(x, bytes);
}

void jx_release(struct jx *x) {
    for (struct arena_chunk *c = x->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    x->chunks = NULL;
    x->at = x->end = NULL;
    x->used = 0;
}

void jx_fail(struct jx *x, enum jinja_fault fault, const char *fmt, ...) {
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++) /* an err has no newline, and raise_exception may have any text */
        if ((unsigned char)*p < ' ') *p = ' ';
    x->fault = fault;
    if (fault == JINJA_RAISED || x->line == 0)
        err_input(x->err, "%s", text);
    else
        err_input(x->err, "line %d: %s", x->line, text);
    longjmp(x->out, 1);
}

void jx_charge(struct jx *x, size_t steps) {
    if ((int64_t)steps > x->steps) jx_fail(x, JINJA_LIMIT, "the template runs for too long");
    x->steps -= (int64_t)steps;
}

void jx_enter(struct jx *x) {
    if (++x->depth > JINJA_MAX_DEPTH)
        jx_fail(x, JINJA_LIMIT, "the template nests too deeply (%d levels)", JINJA_MAX_DEPTH);
}

/* ---- strings ---- */

struct str *str_new(struct jx *x, const char *p, size_t n, int trust) {
    struct str *s = NEW(x, struct str);
    s->p = p;
    s->n = n;
    s->chars = SIZE_MAX;
    s->trust = (uint8_t)trust;
    return s;
}

struct str *str_copy(struct jx *x, const char *p, size_t n, int trust) {
    char *q = jx_alloc(x, n);
    if (n) memcpy(q, p, n);
    return str_new(x, q, n, trust);
}

struct str *str_z(struct jx *x, const char *literal) {
    return str_new(x, literal, strlen(literal), TRUSTED);
}

static size_t run_at(const struct str *s, size_t off) { /* the run that holds byte off */
    size_t lo = 0, hi = s->nruns - 1;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->runs[mid].end > off)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

struct str *str_sub(struct jx *x, const struct str *s, size_t off, size_t n) {
    struct str *r = str_new(x, s->p + off, n, s->trust);
    r->markup = s->markup;
    if (s->chars == s->n) r->chars = n;
    if (s->trust != MIXED) return r;
    if (n == 0) {
        r->trust = TRUSTED;
        return r;
    }
    size_t first = run_at(s, off), last = run_at(s, off + n - 1);
    if (first == last) {
        r->trust = s->runs[first].trusted;
        return r;
    }
    struct run *runs = jx_array(x, last - first + 1, sizeof *runs);
    for (size_t i = first; i <= last; i++)
        runs[i - first] = (struct run){i == last ? n : s->runs[i].end - off, s->runs[i].trusted};
    r->runs = runs;
    r->nruns = last - first + 1;
    return r;
}

size_t str_chars(const struct str *cs) {
    struct str *s = (struct str *)cs; /* the count is a cache; constants of a template are counted when compiled */
    if (s->chars != SIZE_MAX) return s->chars;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) n += ((unsigned char)s->p[i] & 0xC0) != 0x80;
    s->chars = n;
    return n;
}

size_t str_offset(const struct str *s, size_t index) {
    if (str_chars(s) == s->n) return index;
    size_t i = 0;
    for (; i < s->n; i++) {
        if (((unsigned char)s->p[i] & 0xC0) == 0x80) continue;
        if (index-- == 0) break;
    }
    return i;
}

bool str_is(const struct str *s, const char *z) { return s->n == strlen(z) && memcmp(s->p, z, s->n) == 0; }

bool str_eq(const struct str *a, const struct str *b) {
    return a->n == b->n && (a->p == b->p || a->n == 0 || memcmp(a->p, b->p, a->n) == 0);
}

int str_cmp(const struct str *a, const struct str *b) { /* UTF-8 sorts as its code points do */
    size_t n = a->n < b->n ? a->n : b->n;
    int c = n ? memcmp(a->p, b->p, n) : 0;
    return c ? (c > 0) - (c < 0) : (a->n > b->n) - (a->n < b->n);
}

/* ---- building ---- */

void sb_init(struct sb *b, struct jx *x) {
    memset(b, 0, sizeof *b);
    b->x = x;
}

static void sb_room(struct sb *b, size_t n) {
    if (n > JINJA_MAX_OUTPUT || b->n > JINJA_MAX_OUTPUT - n)
        jx_fail(b->x, JINJA_LIMIT, "the template makes more than %d MiB of text", JINJA_MAX_OUTPUT >> 20);
    jx_charge(b->x, n / 64);
    if (b->n + n <= b->cap) return;
    size_t cap = b->cap ? b->cap * 2 : 64;
    while (cap < b->n + n) cap *= 2;
    char *p = jx_alloc(b->x, cap);
    if (b->n) memcpy(p, b->p, b->n);
    b->p = p;
    b->cap = cap;
}

static void sb_mark(struct sb *b, size_t end, bool trusted) {
    if (b->nruns && b->runs[b->nruns - 1].trusted == trusted) {
        b->runs[b->nruns - 1].end = end;
        return;
    }
    if (b->nruns == b->capruns) {
        size_t cap = b->capruns ? b->capruns * 2 : 4;
        struct run *r = jx_array(b->x, cap, sizeof *r);
        if (b->nruns) memcpy(r, b->runs, b->nruns * sizeof *r);
        b->runs = r;
        b->capruns = cap;
    }
    b->runs[b->nruns++] = (struct run){end, trusted};
}

void sb_raw(struct sb *b, const char *p, size_t n, bool trusted) {
    if (n == 0) return;
    sb_room(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
    sb_mark(b, b->n, trusted);
}

void sb_z(struct sb *b, const char *z, bool trusted) { sb_raw(b, z, strlen(z), trusted); }

void sb_sub(struct sb *b, const struct str *s, size_t off, size_t n) {
    if (s->trust != MIXED || n == 0) {
        sb_raw(b, s->p + off, n, s->trust == TRUSTED);
        return;
    }
    for (size_t i = run_at(s, off), at = off; at < off + n; i++) {
        size_t end = s->runs[i].end < off + n ? s->runs[i].end : off + n;
        sb_raw(b, s->p + at, end - at, s->runs[i].trusted);
        at = end;
    }
}

void sb_str(struct sb *b, const struct str *s) { sb_sub(b, s, 0, s->n); }

void sb_cp(struct sb *b, uint32_t cp, bool trusted) {
    char c[4];
    size_t n = utf8_put(cp, c);
    if (n)
        sb_raw(b, c, n, trusted);
    else
        sb_raw(b, "\xEF\xBF\xBD", 3, trusted);
}

void sb_pad(struct sb *b, const struct str *fill, size_t times) {
    if (fill->n == 0) return;
    if (times > JINJA_MAX_OUTPUT / fill->n)
        jx_fail(b->x, JINJA_LIMIT, "the template makes more than %d MiB of text", JINJA_MAX_OUTPUT >> 20);
    for (size_t i = 0; i < times; i++) sb_str(b, fill);
    jx_charge(b->x, times / 8);
}

struct str *sb_take(struct sb *b) {
    struct str *s = str_new(b->x, b->p ? b->p : "", b->n, b->nruns == 0 || b->runs[0].trusted ? TRUSTED : UNTRUSTED);
    if (b->nruns > 1) {
        s->trust = MIXED;
        s->runs = b->runs;
        s->nruns = b->nruns;
    }
    s->markup = b->markup;
    return s;
}
