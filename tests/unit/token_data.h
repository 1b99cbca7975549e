/* token_data.h: the reference tokenizers of the test data, unpacked on the fly. */
#ifndef MINISGL_TESTS_TOKEN_DATA_H
#define MINISGL_TESTS_TOKEN_DATA_H
#include "base/buf.h"
#include "reference.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

/* Whether the data is there; if not, a line says that the test skips. */
static inline bool token_data_there(void) {
    char *path = reference("tokenizers");
    free(path);
    return path;
}

/* Read the unpacked file; pclose it. */
static inline FILE *token_data_unxz(const char *name) {
    char cmd[1200], *path = reference(name);
    snprintf(cmd, sizeof cmd, "xz -dc '%s'", path ? path : "/dev/null");
    free(path);
    return popen(cmd, "r");
}

static inline char *token_data_read(const char *name, size_t *n) {
    struct buf b;
    char part[65536];
    size_t got;
    buf_init(&b, 1 << 28);
    FILE *f = token_data_unxz(name);
    while ((got = fread(part, 1, sizeof part, f)) > 0) buf_add(&b, part, got);
    if (pclose(f)) fprintf(stderr, "xz could not unpack %s\n", name);
    return buf_take(&b, n);
}

static inline char *token_data_json(const char *family, size_t *n) {
    char name[200];
    snprintf(name, sizeof name, "tokenizers/%s/tokenizer.json.xz", family);
    return token_data_read(name, n);
}

/* NULL, and a line that says so, when there is no data. */
static inline struct tokenizer *token_data_open(const char *family) {
    size_t n;
    if (!token_data_there()) return NULL;
    char *json = token_data_json(family, &n);
    struct err e;
    struct tokenizer *t = tokenizer_parse(json, n, &e);
    if (!t) fprintf(stderr, "%s: %s\n", family, e.text);
    free(json);
    return t;
}

#endif
