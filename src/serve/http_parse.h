/* http_parse.h: HTTP/1.x requests, strictly (RFC 9112). Pure functions on bytes: no socket, no allocation.
 *
 * What a lenient parser forgives is what two parsers read differently, and that is how requests are smuggled. So:
 * lines end in CRLF only; no control bytes, no folded headers, no space before a colon; one Host; one Content-Length
 * of plain digits; never Content-Length with Transfer-Encoding; `chunked` alone and once. Everything else is an
 * answer (400, 414, 417, 431, 505) and the end of the connection. */
#ifndef MINISGL_SERVE_HTTP_PARSE_H
#define MINISGL_SERVE_HTTP_PARSE_H
#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_MAX_LINE = 8192,      /* request line (414) or one header (431) */
    HTTP_MAX_HEAD = 32768,     /* all of it (431) */
    HTTP_MAX_HEADERS = 100,    /* (431) */
    HTTP_MAX_CHUNK_LINE = 256, /* a chunk's size with its extensions (400) */
    HTTP_MAX_TRAILER = 8192    /* (431) */
};

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_OPTIONS, HTTP_OTHER };

struct http_str { /* a slice of the head; not NUL-terminated */
    const char *p;
    size_t n;
};

struct http_header {
    struct http_str name, value;
};

struct http_head {
    enum http_method method;
    struct http_str path, query; /* as sent, not decoded; query is empty or what follows '?' */
    int minor;                   /* HTTP/1.minor: 0 or 1 */
    int64_t length;              /* Content-Length; -1: none */
    bool chunked, keep_alive, expect_continue;
    int n_headers;
    struct http_header headers[HTTP_MAX_HEADERS];
};

struct http_fault { /* status 0: none */
    int status;
    const char *text;
};

/* Where a growing head was looked at up to; zero before the first look. */
struct http_scan {
    size_t at, line;
    int lines;
};

/* Look for the end of the head in the first n bytes received. Returns its length with the empty line, 0 when more
 * bytes are needed, -1 when it is refused already (*f). Call again with the same bytes and more behind them. */
ptrdiff_t http_head_end(struct http_scan *s, const char *data, size_t n, struct http_fault *f);

/* Read a whole head (what http_head_end measured). 0, or -1 and *f. Slices point into data. */
int http_head_parse(const char *data, size_t n, struct http_head *h, struct http_fault *f);

/* The value of a header that comes once; NULL when it is absent or comes several times. */
const struct http_str *http_header(const struct http_head *h, const char *name);
bool http_str_is(const struct http_str *s, const char *word); /* ASCII letters in either case */

/* A chunked body on its way; zero before the first byte. */
struct http_chunks {
    int state;
    int digits;
    uint64_t left;
    size_t line, trailer;
    bool done;
};

/* Read some of a chunked body: appends its data to body (at most max bytes in all, else 413). Returns how many bytes
 * were used; fewer than n only when it is done. -1 and *f when it is malformed. */
ptrdiff_t http_chunks_feed(struct http_chunks *c, const char *data, size_t n, size_t max, struct buf *body,
                           struct http_fault *f);

#endif
