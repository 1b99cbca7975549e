/* api_err.c: see api_err.h. No state. Messages hold the client's own words and our limits, never anything of others. */
#include "serve/api_err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int fill(struct api_err *e, int status, const char *code, const char *param, const char *fmt, va_list ap) {
    e->status = status;
    e->code = code;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    return -1;
}

int api_fail(struct api_err *e, int status, const char *param, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(e, status, NULL, param, fmt, ap);
    va_end(ap);
    return -1;
}

int api_fail_code(struct api_err *e, int status, const char *code, const char *param, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(e, status, code, param, fmt, ap);
    va_end(ap);
    return -1;
}

static const char *type_of(int status) {
    if (status == 401) return "authentication_error";
    if (status == 429) return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static void add_or_null(struct buf *b, const char *s) {
    if (s && s[0])
        buf_add_json(b, s, strlen(s));
    else
        buf_adds(b, "null");
}

void api_err_json(struct buf *b, const struct api_err *e) {
    buf_adds(b, "{\"error\":{\"message\":");
    buf_add_json(b, e->text, strlen(e->text));
    buf_addf(b, ",\"type\":\"%s\",\"param\":", type_of(e->status));
    add_or_null(b, e->param);
    buf_adds(b, ",\"code\":");
    add_or_null(b, e->code);
    buf_adds(b, "}}");
}
