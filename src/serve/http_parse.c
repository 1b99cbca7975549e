/* http_parse.c: see http_parse.h. No state of its own; refuses whatever RFC 9112 lets a server refuse. */
#include "serve/http_parse.h"

#include <string.h>
#include <strings.h>

static int fault(struct http_fault *f, int status, const char *text) {
    *f = (struct http_fault){status, text};
    return -1;
}

/* ---- the head's end ---- */

static int check_byte(unsigned char c, unsigned char before, struct http_fault *f) {
    if (c == '\n') return before == '\r' ? 0 : fault(f, 400, "lines must end in CR LF, a bare LF was found");
    if (before == '\r') return fault(f, 400, "lines must end in CR LF, a bare CR was found");
    if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
        return fault(f, 400, "the request's head contains a control byte (is this TLS on a plain HTTP port?)");
    return 0;
}

static int check_sizes(const struct http_scan *s, size_t n, struct http_fault *f) {
    if (n - s->line > HTTP_MAX_LINE)
        return s->lines ? fault(f, 431, "a header is longer than 8 KiB")
                        : fault(f, 414, "the request line is longer than 8 KiB");
    if (n > HTTP_MAX_HEAD) return fault(f, 431, "the headers are longer than 32 KiB");
    if (s->lines > HTTP_MAX_HEADERS + 1) return fault(f, 431, "there are more than 100 headers");
    return 0;
}

ptrdiff_t http_head_end(struct http_scan *s, const char *data, size_t n, struct http_fault *f) {
    for (; s->at < n; s->at++) {
        if (check_byte((unsigned char)data[s->at], s->at > s->line ? (unsigned char)data[s->at - 1] : 0, f)) return -1;
        if (data[s->at] == '\n') {
            bool empty = s->at - s->line == 1;
            if (empty && !s->lines) return fault(f, 400, "an empty line came before the request");
            if (empty) return (ptrdiff_t)s->at + 1;
            s->line = s->at + 1;
            s->lines++;
        }
        if (check_sizes(s, s->at + 1, f)) return -1;
    }
    return 0;
}

/* ---- its parts ---- */

static bool is_token(unsigned char c) {
    if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) return true;
    return c && strchr("!#$%&'*+-.^_`|~", c);
}

static bool all_token(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_token((unsigned char)p[i])) return false;
    return n > 0;
}

bool http_str_is(const struct http_str *s, const char *word) {
    return s->n == strlen(word) && !strncasecmp(s->p, word, s->n);
}

static enum http_method method_of(const char *p, size_t n) {
    static const struct {
        const char *name;
        enum http_method method;
    } known[] = {{"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"POST", HTTP_POST}, {"OPTIONS", HTTP_OPTIONS}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == n && !memcmp(known[i].name, p, n)) return known[i].method;
    return HTTP_OTHER;
}

/* /path?query, or http://host/path?query; `*` (OPTIONS) is a path that no route has. */
static int parse_target(const char *p, size_t n, struct http_head *h, struct http_fault *f) {
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] < 0x21 || (unsigned char)p[i] > 0x7e)
            return fault(f, 400, "the request target contains a byte outside printable ASCII");
    if (n >= 7 && !strncasecmp(p, "http://", 7)) {
        const char *slash = memchr(p + 7, '/', n - 7);
        if (!slash) return fault(f, 400, "the request target has no path");
        n -= (size_t)(slash - p);
        p = slash;
    }
    if (!n || (p[0] != '/' && !(n == 1 && p[0] == '*')))
        return fault(f, 400, "the request target must be a path that starts with /");
    const char *q = memchr(p, '?', n);
    h->path = (struct http_str){p, q ? (size_t)(q - p) : n};
    h->query = q ? (struct http_str){q + 1, n - h->path.n - 1} : (struct http_str){p + n, 0};
    return 0;
}

static int parse_version(const char *p, size_t n, struct http_head *h, struct http_fault *f) {
    if (n != 8 || memcmp(p, "HTTP/", 5) || p[6] != '.' || p[5] < '0' || p[5] > '9' || p[7] < '0' || p[7] > '9')
        return fault(f, 400, "the request line must end in HTTP/1.1");
    if (p[5] != '1' || p[7] > '1') return fault(f, 505, "this server speaks HTTP/1.1 only");
    h->minor = p[7] - '0';
    return 0;
}

static int parse_request_line(const char *p, size_t n, struct http_head *h, struct http_fault *f) {
    const char *a = memchr(p, ' ', n);
    const char *b = a ? memchr(a + 1, ' ', n - (size_t)(a + 1 - p)) : NULL;
    if (!b || !all_token(p, (size_t)(a - p))) return fault(f, 400, "the request line must be: METHOD /path HTTP/1.1");
    h->method = method_of(p, (size_t)(a - p));
    if (parse_version(b + 1, n - (size_t)(b + 1 - p), h, f)) return -1;
    return parse_target(a + 1, (size_t)(b - a - 1), h, f);
}

static int parse_header(const char *p, size_t n, struct http_head *h, struct http_fault *f) {
    if (p[0] == ' ' || p[0] == '\t') return fault(f, 400, "a header is folded over two lines");
    const char *colon = memchr(p, ':', n);
    if (!colon || !all_token(p, (size_t)(colon - p)))
        return fault(f, 400, "a header must be: name, colon, value, without a space before the colon");
    if (h->n_headers == HTTP_MAX_HEADERS) return fault(f, 431, "there are more than 100 headers");
    const char *v = colon + 1, *end = p + n;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (end[-1] == ' ' || end[-1] == '\t')) end--;
    h->headers[h->n_headers++] = (struct http_header){{p, (size_t)(colon - p)}, {v, (size_t)(end - v)}};
    return 0;
}

/* ---- what the headers mean for the framing ---- */

static int parse_length(const struct http_str *v, int64_t *out, struct http_fault *f) {
    int64_t x = 0;
    bool bad = !v->n || v->n > 18 || (v->n > 1 && v->p[0] == '0');
    for (size_t i = 0; i < v->n && !bad; i++) {
        bad = v->p[i] < '0' || v->p[i] > '9';
        x = x * 10 + (v->p[i] - '0');
    }
    if (bad) return fault(f, 400, "Content-Length must be one number in plain digits");
    *out = x;
    return 0;
}

/* Words of a comma-separated list, for Connection. */
static bool list_has(const struct http_str *v, const char *word) {
    const char *p = v->p, *end = v->p + v->n;
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end;
        struct http_str w = {p, (size_t)(stop - p)};
        while (w.n && (*w.p == ' ' || *w.p == '\t')) w.p++, w.n--;
        while (w.n && (w.p[w.n - 1] == ' ' || w.p[w.n - 1] == '\t')) w.n--;
        if (http_str_is(&w, word)) return true;
        p = stop + 1;
    }
    return false;
}

static int apply_header(const struct http_header *x, struct http_head *h, int *hosts, struct http_fault *f) {
    if (http_str_is(&x->name, "host")) {
        if (++*hosts > 1) return fault(f, 400, "there are two Host headers");
        if (memchr(x->value.p, ' ', x->value.n)) return fault(f, 400, "the Host header contains a space");
    } else if (http_str_is(&x->name, "content-length")) {
        if (h->length >= 0) return fault(f, 400, "there are two Content-Length headers");
        return parse_length(&x->value, &h->length, f);
    } else if (http_str_is(&x->name, "transfer-encoding")) {
        if (h->chunked || !http_str_is(&x->value, "chunked"))
            return fault(f, 400, "Transfer-Encoding must be: chunked");
        h->chunked = true;
    } else if (http_str_is(&x->name, "expect")) {
        if (!http_str_is(&x->value, "100-continue")) return fault(f, 417, "Expect must be: 100-continue");
        h->expect_continue = true;
    } else if (http_str_is(&x->name, "connection")) {
        if (list_has(&x->value, "close"))
            h->keep_alive = false;
        else if (!h->minor && list_has(&x->value, "keep-alive"))
            h->keep_alive = true;
    }
    return 0;
}

static int apply_headers(struct http_head *h, struct http_fault *f) {
    int hosts = 0;
    h->length = -1;
    h->keep_alive = h->minor == 1;
    for (int i = 0; i < h->n_headers; i++)
        if (apply_header(&h->headers[i], h, &hosts, f)) return -1;
    if (h->minor == 1 && !hosts) return fault(f, 400, "the Host header is missing");
    if (h->chunked && h->length >= 0)
        return fault(f, 400, "Content-Length and Transfer-Encoding must not come together");
    if (h->chunked && !h->minor) return fault(f, 400, "Transfer-Encoding needs HTTP/1.1");
    if (!h->minor) h->expect_continue = false;
    return 0;
}

int http_head_parse(const char *data, size_t n, struct http_head *h, struct http_fault *f) {
    h->n_headers = 0;
    h->chunked = h->expect_continue = false;
    size_t at = 0;
    for (int line = 0; at + 2 < n; line++) {
        const char *p = data + at, *cr = memchr(p, '\r', n - at);
        if (!cr) return fault(f, 400, "the request's head does not end");
        size_t len = (size_t)(cr - p);
        if (!len) return fault(f, 400, "an empty line stands inside the request's head");
        if (line ? parse_header(p, len, h, f) : parse_request_line(p, len, h, f)) return -1;
        at += len + 2;
    }
    return apply_headers(h, f);
}

const struct http_str *http_header(const struct http_head *h, const char *name) {
    const struct http_str *found = NULL;
    for (int i = 0; i < h->n_headers; i++) {
        if (!http_str_is(&h->headers[i].name, name)) continue;
        if (found) return NULL;
        found = &h->headers[i].value;
    }
    return found;
}

/* ---- chunked bodies ---- */

enum { CH_SIZE, CH_EXT, CH_SIZE_LF, CH_DATA, CH_DATA_CR, CH_DATA_LF, CH_TRAILER, CH_TRAILER_LF, CH_END_LF };

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int feed_size(struct http_chunks *c, unsigned char b, struct http_fault *f) {
    int d = hex_digit(b);
    if (++c->line > HTTP_MAX_CHUNK_LINE) return fault(f, 400, "a chunk's extensions are longer than 256 bytes");
    if (c->state == CH_SIZE && d >= 0) {
        if (++c->digits > 15) return fault(f, 400, "a chunk's size is too large");
        c->left = c->left * 16 + (unsigned)d;
        return 0;
    }
    if (!c->digits) return fault(f, 400, "a chunk must start with its size in hexadecimal");
    if (b == '\r')
        c->state = CH_SIZE_LF;
    else if (b == ';' || b == ' ' || b == '\t' || (c->state == CH_EXT && b >= 0x20 && b != 0x7f))
        c->state = CH_EXT;
    else
        return fault(f, 400, "a chunk's size is followed by something that is no extension");
    return 0;
}

static int end_size(struct http_chunks *c, size_t max, const struct buf *body, struct http_fault *f) {
    if (c->left > max || body->len > max - (size_t)c->left)
        return fault(f, 413, "the body is longer than this server accepts");
    c->state = c->left ? CH_DATA : CH_TRAILER;
    c->line = 0;
    c->digits = 0;
    return 0;
}

/* Trailers are read and thrown away. c->line counts the bytes of the current one. */
static int feed_trailer(struct http_chunks *c, unsigned char b, struct http_fault *f) {
    if (++c->trailer > HTTP_MAX_TRAILER) return fault(f, 431, "the trailers are longer than 8 KiB");
    if (b == '\r')
        c->state = c->line ? CH_TRAILER_LF : CH_END_LF;
    else if ((b < 0x20 && b != '\t') || b == 0x7f)
        return fault(f, 400, "a trailer contains a control byte");
    else
        c->line++;
    return 0;
}

static int feed_lf(struct http_chunks *c, unsigned char b, size_t max, const struct buf *body, struct http_fault *f) {
    if (b != '\n') return fault(f, 400, "a line of the chunked body does not end in CR LF");
    switch (c->state) {
    case CH_SIZE_LF: return end_size(c, max, body, f);
    case CH_DATA_LF: c->state = CH_SIZE; break;
    case CH_TRAILER_LF: c->state = CH_TRAILER; break;
    default: c->done = true; break;
    }
    c->line = 0;
    return 0;
}

ptrdiff_t http_chunks_feed(struct http_chunks *c, const char *data, size_t n, size_t max, struct buf *body,
                           struct http_fault *f) {
    size_t i = 0;
    while (i < n && !c->done) {
        unsigned char b = (unsigned char)data[i];
        int bad = 0;
        switch (c->state) {
        case CH_SIZE:
        case CH_EXT: bad = feed_size(c, b, f); break;
        case CH_DATA: {
            size_t take = n - i < c->left ? n - i : (size_t)c->left;
            if (buf_add(body, data + i, take)) return fault(f, 413, "the body is longer than this server accepts");
            i += take;
            c->left -= take;
            if (!c->left) c->state = CH_DATA_CR;
            continue;
        }
        case CH_DATA_CR:
            if (b != '\r')
                bad = fault(f, 400, "a chunk is longer than its size says");
            else
                c->state = CH_DATA_LF;
            break;
        case CH_TRAILER: bad = feed_trailer(c, b, f); break;
        default: bad = feed_lf(c, b, max, body, f); break;
        }
        if (bad) return -1;
        i++;
    }
    return (ptrdiff_t)i;
}
