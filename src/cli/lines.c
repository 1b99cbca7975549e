/* lines.c: see lines.h. Main thread only. */
#include "cli/lines.h"

#include "cli/cli.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

int lines_answer(int (*answer)(void *ctx, const char *line, size_t n), void *ctx) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool refused = false;
    while ((n = getline(&line, &cap, stdin)) >= 0) {
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        refused |= answer(ctx, line, (size_t)n) != 0;
    }
    free(line);
    struct err e;
    if (!ferror(stdin) && !fflush(stdout) && !ferror(stdout)) return refused;
    err_machine(&e, "reading standard input or writing standard output failed");
    return cli_fail(&e);
}
