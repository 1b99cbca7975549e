/* err.c: filling struct err. No state. */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void fill(struct err *e, enum err_kind kind, const char *fmt, va_list ap) {
    if (!e) return;
    e->kind = kind;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    for (char *p = e->text; *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';
}

int err_input(struct err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(e, ERR_INPUT, fmt, ap);
    va_end(ap);
    return -1;
}

int err_machine(struct err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(e, ERR_MACHINE, fmt, ap);
    va_end(ap);
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...) {
    if (!e) return -1;
    char head[sizeof e->text], tail[sizeof e->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, e->text, sizeof tail);
    size_t n = strlen(head);
    memcpy(e->text, head, n);
    snprintf(e->text + n, sizeof e->text - n, "%s", tail);
    return -1;
}

void err_bug(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "BUG at %s:%d: ", file, line);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nThis is an error of minisgl itself; please report it with the lines above.\n");
    fflush(stderr);
    _exit(70);
}
