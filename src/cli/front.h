/* front.h: a running model as its front ends see it. */
#ifndef MINISGL_CLI_FRONT_H
#define MINISGL_CLI_FRONT_H
#include "app.h"
#include "serve/front.h"

struct cli_front {
    struct front front;
    struct words *words;
    char *name;           /* the served one */
    const char *names[2]; /* NULL-terminated */
};

/* Everything borrowed from app and o, which must outlive it. */
void cli_front_init(struct cli_front *f, struct app *app, const struct options *o);
void cli_front_release(struct cli_front *f);

#endif
