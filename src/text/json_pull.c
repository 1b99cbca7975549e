/* json_pull.c: see json_pull.h. A reader belongs to one thread. Refuses depth over 64 and everything RFC 8259 does. */
#include "text/json_pull.h"

#include "base/utf8.h"
#include "text/unicode.h"

#include <string.h>

enum { DEPTH = 64 };

void pull_init(struct json_pull *j, const char *s, size_t n, struct err *e) {
    *j = (struct json_pull){.start = s, .p = s, .end = s + n, .e = e};
    buf_init(&j->tmp[0], n);
    buf_init(&j->tmp[1], n);
}

void pull_release(struct json_pull *j) {
    buf_release(&j->tmp[0]);
    buf_release(&j->tmp[1]);
}

int pull_fail(struct json_pull *j, const char *what) {
    if (!j->failed) err_input(j->e, "byte %zu: %s", (size_t)(j->p - j->start), what);
    j->failed = true;
    j->p = j->end; /* and so every later call fails too */
    return -1;
}

int pull_peek(struct json_pull *j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\t' || *j->p == '\r')) j->p++;
    return j->p < j->end ? (unsigned char)*j->p : -1;
}

int pull_enter(struct json_pull *j, char open) {
    if (pull_peek(j) != open) return pull_fail(j, open == '{' ? "an object was expected" : "an array was expected");
    if (++j->depth > DEPTH) return pull_fail(j, "nested too deeply (64 levels are accepted)");
    j->p++;
    return 0;
}

int pull_more(struct json_pull *j, char close, bool *first) {
    int c = pull_peek(j);
    if (c == close) {
        j->p++;
        j->depth--;
        return 0;
    }
    if (*first) {
        *first = false;
        return c < 0 ? pull_fail(j, "the text ends too early") : 1;
    }
    if (c != ',') return pull_fail(j, c < 0 ? "the text ends too early" : "a comma was expected");
    j->p++;
    return 1;
}

static int hex4(const char *p, uint32_t *v) {
    *v = 0;
    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)p[i], low = c | 0x20;
        if (c >= '0' && c <= '9')
            *v = *v << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            *v = *v << 4 | (low - 'a' + 10);
        else
            return -1;
    }
    return 0;
}

static int escape_u(struct json_pull *j, struct buf *b) {
    uint32_t c, d;
    if (j->end - j->p < 4 || hex4(j->p, &c)) return pull_fail(j, "four hexadecimal digits were expected");
    j->p += 4;
    if (c >= 0xd800 && c <= 0xdbff && j->end - j->p >= 6 && j->p[0] == '\\' && j->p[1] == 'u' && !hex4(j->p + 2, &d) &&
        d >= 0xdc00 && d <= 0xdfff) {
        c = 0x10000 + ((c - 0xd800) << 10) + (d - 0xdc00);
        j->p += 6;
    }
    char u[4];
    size_t w = utf8_put(c, u);
    if (!w) return pull_fail(j, "a lone surrogate");
    buf_add(b, u, w);
    return 0;
}

static int escape(struct json_pull *j, struct buf *b) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->end - j->p < 2) return pull_fail(j, "the text ends inside a string");
    char c = j->p[1];
    const char *at = c ? strchr(from, c) : NULL;
    if (!at && c != 'u') return pull_fail(j, "an unknown escape in a string");
    j->p += 2;
    if (!at) return escape_u(j, b);
    return buf_addc(b, to[at - from]);
}

/* From j->p to the closing quote, through a buffer: the slow way, for strings with escapes. */
static int escaped_string(struct json_pull *j, const char *from, const char **s, size_t *n) {
    struct buf *b = &j->tmp[j->turn ^= 1];
    buf_reset(b);
    buf_add(b, from, (size_t)(j->p - from));
    for (;;) {
        const char *q = j->p;
        while (q < j->end && *q != '"' && *q != '\\' && (unsigned char)*q >= 0x20) q++;
        buf_add(b, j->p, (size_t)(q - j->p));
        j->p = q;
        if (q == j->end) return pull_fail(j, "the text ends inside a string");
        if (*q == '"') break;
        if (*q != '\\') return pull_fail(j, "a control character in a string");
        if (escape(j, b)) return -1;
    }
    *s = buf_str(b);
    *n = b->len;
    return 0;
}

int pull_string(struct json_pull *j, const char **s, size_t *n) {
    if (pull_peek(j) != '"') return pull_fail(j, "a string was expected");
    const char *from = ++j->p, *q = from;
    unsigned char all = 0;
    while (q < j->end && *q != '"' && *q != '\\' && (unsigned char)*q >= 0x20) all |= (unsigned char)*q++;
    j->p = q;
    if (q == j->end) return pull_fail(j, "the text ends inside a string");
    *s = from;
    *n = (size_t)(q - from);
    if (*q != '"') {
        if (escaped_string(j, from, s, n)) return -1;
        all = 0x80;
    }
    if (all & 0x80 && !uc_valid(*s, *n)) return pull_fail(j, "a string that is not valid UTF-8");
    j->p++;
    return 0;
}

int pull_key(struct json_pull *j, const char **s, size_t *n) {
    if (pull_string(j, s, n)) return -1;
    if (pull_peek(j) != ':') return pull_fail(j, "a colon was expected");
    j->p++;
    return 0;
}

static bool digit(const struct json_pull *j) { return j->p < j->end && *j->p >= '0' && *j->p <= '9'; }

int pull_uint(struct json_pull *j, uint32_t *v) {
    uint64_t x = 0;
    pull_peek(j);
    if (!digit(j)) return pull_fail(j, "an integer of 0 or more was expected");
    const char *from = j->p;
    for (; digit(j); j->p++) {
        x = x * 10 + (uint64_t)(*j->p - '0');
        if (x > UINT32_MAX) return pull_fail(j, "an integer too large");
    }
    if (j->p < j->end && strchr(".eE", *j->p) && *j->p) return pull_fail(j, "an integer was expected, not a fraction");
    if (*from == '0' && j->p - from > 1) return pull_fail(j, "a number with a leading zero");
    *v = (uint32_t)x;
    return 0;
}

static int number(struct json_pull *j) {
    if (*j->p == '-') j->p++;
    if (!digit(j)) return pull_fail(j, "a value was expected");
    if (*j->p++ == '0' && digit(j)) return pull_fail(j, "a number with a leading zero");
    while (digit(j)) j->p++;
    if (j->p < j->end && *j->p == '.') {
        j->p++;
        if (!digit(j)) return pull_fail(j, "a digit was expected");
        while (digit(j)) j->p++;
    }
    if (j->p < j->end && (*j->p | 0x20) == 'e') {
        j->p++;
        if (j->p < j->end && (*j->p == '+' || *j->p == '-')) j->p++;
        if (!digit(j)) return pull_fail(j, "a digit was expected");
        while (digit(j)) j->p++;
    }
    return 0;
}

static int word(struct json_pull *j, const char *w) {
    size_t n = strlen(w);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, w, n)) return pull_fail(j, "a value was expected");
    j->p += n;
    return 0;
}

static int skip(struct json_pull *j); /* recursion is bounded by DEPTH */

static int skip_members(struct json_pull *j, char open, char close) {
    const char *s;
    size_t n;
    bool first = true;
    int r;
    if (pull_enter(j, open)) return -1;
    while ((r = pull_more(j, close, &first)) > 0) {
        if (open == '{' && pull_key(j, &s, &n)) return -1;
        if (skip(j)) return -1;
    }
    return r;
}

static int skip(struct json_pull *j) {
    const char *s;
    size_t n;
    switch (pull_peek(j)) {
    case '{': return skip_members(j, '{', '}');
    case '[': return skip_members(j, '[', ']');
    case '"': return pull_string(j, &s, &n);
    case 't': return word(j, "true");
    case 'f': return word(j, "false");
    case 'n': return word(j, "null");
    case -1: return pull_fail(j, "the text ends too early");
    default: return number(j);
    }
}

int pull_span(struct json_pull *j, const char **s, size_t *n) {
    pull_peek(j);
    *s = j->p;
    if (skip(j)) return -1;
    *n = (size_t)(j->p - *s);
    return 0;
}

int pull_end(struct json_pull *j) { return pull_peek(j) < 0 ? 0 : pull_fail(j, "more text behind the end"); }
