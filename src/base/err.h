/* err.h: how trouble is told.
 *
 * Four kinds of trouble, four treatments:
 *   bad input (request, file, flag)   a function returns -1 and fills a struct err of kind ERR_INPUT;
 *                                     it ends as a 4xx or as exit code 2
 *   pressure (no page, queue full)    a normal return value, never an err
 *   a broken machine (disk, memory)   ERR_MACHINE: exit code 1
 *   our own bug                       BUG(): prints the place and the state, exit code 70
 * Library code never calls exit(); BUG() and an exhausted heap (mem.h) are the two exceptions. */
#ifndef MINISGL_BASE_ERR_H
#define MINISGL_BASE_ERR_H

enum err_kind { ERR_NONE = 0, ERR_MACHINE = 1, ERR_INPUT = 2 };

struct err {
    enum err_kind kind;
    char text[1000]; /* one sentence: what was expected, what was found, what to do; no newline */
};

/* Fill *e (which may be NULL) and return -1, so that `return err_input(e, ...)` is the usual way out. */
int err_input(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int err_machine(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Put words in front of the sentence ("config.json: "); keeps the kind; returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define BUG(...) err_bug(__FILE__, __LINE__, __VA_ARGS__)
_Noreturn void err_bug(const char *file, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
