/* tokenizer.c: how fast one thread loads a tokenizer and encodes text.
 *
 *   build/bench/text/tokenizer DIR TEXT...
 *
 * For each TEXT (a file): MB/s on the whole of it as one string, and calls/s and MB/s on its lines joined to about 200
 * bytes. The best of several rounds each; bench/text/run adds the reference. */
#include "text/tokenizer.h"
#include "base/clock.h"
#include "base/file.h"
#include "text/detok.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 5, PIECE = 200 };

struct bench {
    const struct tokenizer *t;
    struct token_scratch *s;
    struct ids ids;
};

static void encode(struct bench *b, const char *s, size_t n) {
    struct text_piece p = {s, n, true};
    struct err e;
    if (tokenizer_encode(b->t, b->s, &(struct encode_args){&p, 1, TOK_PARSE_SPECIAL, 0}, &b->ids, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
}

static double whole(struct bench *b, const char *s, size_t n) {
    double best = 1e9;
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t start = clock_ns();
        b->ids.n = 0;
        encode(b, s, n);
        double t = (double)(clock_ns() - start) * 1e-9;
        if (t < best) best = t;
    }
    return best;
}

/* The end of the piece that starts at i: the first end of a line at or after PIECE bytes. */
static size_t piece_end(const char *s, size_t n, size_t i) {
    if (n - i <= PIECE) return n;
    const char *nl = memchr(s + i + PIECE, '\n', n - i - PIECE);
    return nl ? (size_t)(nl - s) + 1 : n;
}

static double pieces(struct bench *b, const char *s, size_t n, size_t *calls) {
    double best = 1e9;
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t start = clock_ns();
        *calls = 0;
        for (size_t i = 0, end; i < n; i = end, ++*calls) {
            b->ids.n = 0;
            end = piece_end(s, n, i);
            encode(b, s + i, end - i);
        }
        double t = (double)(clock_ns() - start) * 1e-9;
        if (t < best) best = t;
    }
    return best;
}

static double decode(struct bench *b, size_t *bytes) {
    struct buf out;
    buf_init(&out, 1 << 28);
    uint64_t start = clock_ns();
    tokenizer_decode(b->t, b->ids.v, b->ids.n, false, &out);
    double t = (double)(clock_ns() - start) * 1e-9;
    *bytes = out.len;
    buf_release(&out);
    return t;
}

static void one_text(struct bench *b, const char *path) {
    struct err e;
    char *s;
    size_t n, calls, bytes;
    if (file_read(path, 1 << 28, &s, &n, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    double t = whole(b, s, n), mb = (double)n * 1e-6;
    printf("whole %s: %zu bytes %zu ids %.1f MB/s\n", path, n, b->ids.n, mb / t);
    t = decode(b, &bytes);
    printf("decode %s: %.1f MB/s %.1f M tokens/s\n", path, (double)bytes * 1e-6 / t, (double)b->ids.n * 1e-6 / t);
    t = pieces(b, s, n, &calls);
    printf("pieces %s: %zu bytes each %.0f calls/s %.1f MB/s\n", path, n / calls, (double)calls / t, mb / t);
    free(s);
}

int main(int argc, char **argv) {
    struct err e;
    double best = 1e9;
    struct tokenizer *t = NULL;
    if (argc < 3) return fprintf(stderr, "usage: tokenizer DIR TEXT...\n"), 2;
    for (int r = 0; r < ROUNDS; r++) {
        tokenizer_close(t);
        uint64_t start = clock_ns();
        t = tokenizer_open(argv[1], &e);
        if (!t) return fprintf(stderr, "%s\n", e.text), 2;
        double s = (double)(clock_ns() - start) * 1e-9;
        if (s < best) best = s;
    }
    printf("load %s: %.3f s\n", argv[1], best);
    struct bench b = {.t = t, .s = token_scratch_new(t)};
    for (int i = 2; i < argc; i++) one_text(&b, argv[i]);
    ids_release(&b.ids);
    token_scratch_free(b.s);
    tokenizer_close(t);
    return 0;
}
