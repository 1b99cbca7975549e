/* job.h: one API call: its fields, its prompts, and a choice for each prompt and each of n.
 *
 * job_prepare may run in any thread (it renders and tokenizes); everything else belongs to the thread that takes
 * the outbox. */
#ifndef MINISGL_SERVE_JOB_H
#define MINISGL_SERVE_JOB_H
#include "serve/choice.h"

enum { PROMPTS_MAX = 1024, CHOICES_MAX = 1024 };

struct prompt {
    struct ids ids;
    char *text; /* for echo; NULL otherwise */
    size_t text_n;
};

struct job {
    const struct front *front;
    void *owner; /* the front end's own */
    struct params par;
    char id[48]; /* "chatcmpl-...": not guessable */
    int64_t created;
    struct prompt *prompts;
    int n_prompts;
    struct choice *choices; /* [n_prompts * n], choice i belongs to prompt i / n */
    int n_choices;
    struct buf head; /* the writer's: what every chunk begins with */
};

void job_init(struct job *j, const struct front *front);
void job_release(struct job *j); /* no choice in flight */

/* Read the body (a JSON object) of a call to this route. 0, or -1 and *e. */
int job_prepare(struct job *j, struct words_tmp *tmp, enum route route, json_t *body, struct api_err *e);

/* Hand all choices to the scheduler. False: it takes no more requests; what went before was cancelled. */
bool job_submit(struct job *j, struct outbox *box);
void job_cancel(struct job *j);
bool job_in_flight(const struct job *j); /* the scheduler has something of it */
bool job_done(const struct job *j);      /* every choice is complete */
/* The first choice that ended by an error of the server's side, as an error; false when there is none. */
bool job_error(const struct job *j, struct api_err *e);

#endif
