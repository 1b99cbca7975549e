/* generate.h: answers without a server: JSON lines in, JSON lines out, or one prompt from the command line.
 *
 * A line of input is an object with the fields of POST /generate (serve/fields.h): prompt, prompt_token_ids or
 * messages, and any of the sampling fields. A line of output is that route's answer, in input order; a line that is
 * refused gives {"error": ...} in its place. All lines are one batch: they run together as far as the model's memory
 * allows. */
#ifndef MINISGL_CLI_GENERATE_H
#define MINISGL_CLI_GENERATE_H
#include "base/err.h"
#include "serve/front.h"

#include <stdio.h>

struct generate_args {
    const struct front *front; /* its scheduler runs in another thread */
    FILE *in, *out;            /* in: only for JSON lines */
    const char *prompt;        /* NULL: JSON lines from `in`. Otherwise the answer is plain text, written as it comes */
    bool raw;                  /* the prompt goes to the model as it is, not as a user's message of a chat */
};

/* The exit code: 0; 2 when a line was refused or failed (with a prompt: *e says why); 1 when the machine is
 * broken (*e). */
int generate_run(const struct generate_args *a, struct err *e);

#endif
