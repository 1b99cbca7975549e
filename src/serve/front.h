/* front.h: what every front end (HTTP, command line) is given: the way to the scheduler, the model's words, its limits.
 * Constant while requests run; shared by threads. */
#ifndef MINISGL_SERVE_FRONT_H
#define MINISGL_SERVE_FRONT_H
#include "flow/mail.h"
#include "serve/fields.h"

struct words;

enum { FRONT_EOS_MAX = 32 };

struct front {
    struct inbox *inbox;
    const struct words *words; /* tokenizer and chat template */
    struct field_env env;      /* names, vocabulary width, context, sampling defaults */
    const int32_t *eos;        /* ids that end a text */
    int n_eos;                 /* at most FRONT_EOS_MAX */
    int timeout_s;             /* a request must finish within, waiting included; 0: no limit */
    int max_choices;           /* prompts x n of one request; 0: 1024 */
};

#endif
