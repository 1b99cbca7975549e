/* fuzz_http.c: any bytes as a request's head and chunked body. What is accepted keeps the strict rules, and it does not
 * matter in which pieces the bytes arrive. */
#include "serve/http_parse.h"

#include <stdlib.h>
#include <string.h>

static void check_head(const struct http_head *h) {
    if (h->n_headers < 0 || h->n_headers > HTTP_MAX_HEADERS || h->length < -1 || (h->chunked && h->length >= 0))
        abort();
    if (h->minor < 0 || h->minor > 1 || !h->path.n) abort();
    for (int i = 0; i < h->n_headers; i++)
        for (size_t k = 0; k < h->headers[i].value.n; k++) {
            unsigned char c = (unsigned char)h->headers[i].value.p[k];
            if ((c < 0x20 && c != '\t') || c == 0x7f) abort();
        }
}

static void feed(const char *p, size_t n, size_t step, struct buf *body, ptrdiff_t *used, int *status) {
    struct http_chunks c = {0};
    struct http_fault f = {0};
    *used = 0;
    *status = 0;
    for (size_t at = 0; at < n && !c.done && !*status; at += step) {
        ptrdiff_t r = http_chunks_feed(&c, p + at, n - at < step ? n - at : step, 4096, body, &f);
        if (r < 0)
            *status = f.status ? f.status : -1;
        else
            *used += r;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *text = (const char *)data;
    struct http_scan whole = {0}, slow = {0};
    struct http_fault f = {0}, g = {0};
    struct http_head h;
    ptrdiff_t end = http_head_end(&whole, text, n, &f), piece = 0;
    for (size_t i = 1; i <= n && piece == 0; i++) piece = http_head_end(&slow, text, i, &g);
    if ((end > 0) != (piece > 0) || (end > 0 && end != piece)) abort();
    if (end > 0 && http_head_parse(text, (size_t)end, &h, &f) == 0) check_head(&h);
    if (end > 0) text += end, n -= (size_t)end;
    struct buf a, b;
    ptrdiff_t used_a, used_b;
    int status_a, status_b;
    buf_init(&a, 1 << 20);
    buf_init(&b, 1 << 20);
    feed(text, n, n ? n : 1, &a, &used_a, &status_a);
    feed(text, n, 1, &b, &used_b, &status_b);
    if (status_a != status_b) abort();
    if (!status_a && (used_a != used_b || a.len != b.len || memcmp(buf_str(&a), buf_str(&b), a.len))) abort();
    buf_release(&a);
    buf_release(&b);
    return 0;
}
