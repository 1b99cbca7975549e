/* lines.h: the loop of the subcommands that answer standard input line by line. */
#ifndef MINISGL_CLI_LINES_H
#define MINISGL_CLI_LINES_H
#include <stddef.h>

/* Call answer with every line of standard input, without its line end; answer writes to standard output, and returns 0, or -1 when it refused
 * the line. Exit code 0; 1 when a line was refused, after the last line, or after a sentence when reading or writing failed. */
int lines_answer(int (*answer)(void *ctx, const char *line, size_t n), void *ctx);

#endif
