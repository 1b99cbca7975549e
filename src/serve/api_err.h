/* api_err.h: how a request is refused: an HTTP status and OpenAI's error object. */
#ifndef MINISGL_SERVE_API_ERR_H
#define MINISGL_SERVE_API_ERR_H
#include "base/buf.h"

struct api_err {
    int status;       /* 0: none */
    const char *code; /* a word for programs ("context_length_exceeded"), or NULL */
    char param[64];   /* the field that is wrong, or "" */
    char text[1000];  /* one sentence: expected, found, what to do */
};

/* Fill *e and return -1. param may be NULL. */
int api_fail(struct api_err *e, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with a code. */
int api_fail_code(struct api_err *e, int status, const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* {"error":{"message":...,"type":...,"param":...,"code":...}} */
void api_err_json(struct buf *b, const struct api_err *e);

#endif
