/* lines.h: the loop of the subcommands that answer standard input line by line. */
#ifndef MINISGL_CLI_LINES_H
#define MINISGL_CLI_LINES_H
#include <stddef.h>

/* Call answer with every line of standard input, without its line end; answer writes to standard output. Exit code 0,
 * or 1 after a sentence when reading or writing failed. */
int lines_answer(void (*answer)(void *ctx, const char *line, size_t n), void *ctx);

#endif
