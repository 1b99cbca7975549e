/* buf.c: see buf.h. A buf has one owner at a time; no locks. */
#include "base/buf.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b, size_t max) { *b = (struct buf){.max = max}; }

void buf_release(struct buf *b) {
    free(b->data);
    *b = (struct buf){.max = b->max};
}

void buf_reset(struct buf *b) {
    b->len = 0;
    b->over = false;
    if (b->data) b->data[0] = 0;
}

int buf_room(struct buf *b, size_t n) {
    if (b->over || n > b->max || b->len > b->max - n) {
        b->over = true;
        return -1;
    }
    size_t need = b->len + n + 1;
    if (need <= b->cap) return 0;
    size_t cap = b->cap < 32 ? 64 : b->cap + b->cap / 2;
    if (cap < need) cap = need;
    b->data = mem_grow(b->data, cap, 1);
    b->cap = cap;
    return 0;
}

int buf_add(struct buf *b, const void *p, size_t n) {
    if (buf_room(b, n)) return -1;
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int buf_addc(struct buf *b, char c) { return buf_add(b, &c, 1); }

int buf_adds(struct buf *b, const char *s) { return buf_add(b, s, strlen(s)); }

int buf_addf(struct buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || buf_room(b, (size_t)n)) return -1;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return 0;
}

char *buf_take(struct buf *b, size_t *n) {
    if (n) *n = b->len;
    char *p = b->data ? b->data : mem_strndup("", 0);
    *b = (struct buf){.max = b->max};
    return p;
}

const char *buf_str(const struct buf *b) { return b->data ? b->data : ""; }

static int add_escape(struct buf *b, unsigned char c) {
    switch (c) {
    case '"': return buf_add(b, "\\\"", 2);
    case '\\': return buf_add(b, "\\\\", 2);
    case '\n': return buf_add(b, "\\n", 2);
    case '\r': return buf_add(b, "\\r", 2);
    case '\t': return buf_add(b, "\\t", 2);
    default: return buf_addf(b, "\\u%04x", c);
    }
}

int buf_add_json(struct buf *b, const char *s, size_t n) {
    buf_addc(b, '"');
    size_t from = 0, i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)s[i];
        size_t w = 1;
        uint32_t cp;
        bool plain = c >= 0x20 && c != '"' && c != '\\' && c < 0x7f;
        bool valid = plain || (c >= 0x80 && (w = utf8_get(s + i, n - i, &cp)) > 0);
        if (valid) {
            i += w;
            continue;
        }
        buf_add(b, s + from, i - from);
        if (c >= 0x80) buf_adds(b, "\xef\xbf\xbd");
        else add_escape(b, c);
        from = ++i;
    }
    buf_add(b, s + from, n - from);
    return buf_addc(b, '"');
}
