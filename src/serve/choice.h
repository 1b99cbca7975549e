/* choice.h: one answer in the making: a request to the scheduler and the text that comes of it.
 *
 * Made of validated fields by job.h; shared by HTTP and the command line. A choice belongs to the thread that takes its
 * outbox; what the scheduler writes is read only up to what outbox_take told. */
#ifndef MINISGL_SERVE_CHOICE_H
#define MINISGL_SERVE_CHOICE_H
#include "base/buf.h"
#include "serve/front.h"
#include "serve/words.h"

enum { STOP_NONE = -1, STOP_BY_ID = -2 };

struct choice {
    struct request req;
    const struct front *front;
    const struct params *par;
    void *job;
    int index;
    bool in_flight;     /* the scheduler has req; its memory must stay */
    bool queued;        /* in flight, and no news of a token yet */
    bool done;          /* the text is complete; news that still comes only ends in_flight */
    enum finish finish; /* once done */
    int stop_at;        /* with FINISH_STOP: number of the stop string, STOP_BY_ID, or STOP_NONE (end of text) */
    int32_t n_counted;  /* tokens of the answer so far */
    int32_t n_cached;   /* prompt tokens that came from the prefix cache */
    int32_t n_told;     /* of these, tokens a writer has told about (log-probabilities, ids) */
    size_t told_chars;  /* characters of these tokens (text_offset of the older log-probability form) */
    bool told_start;    /* a stream has sent its first chunk */
    bool told_end;      /* ... and its last */
    uint64_t admitted, first_at,
        last_at;      /* metrics.h: clock_ns() of leaving the queue, of the first and the last token */
    bool end_counted; /* ... and its end was */
    struct words_out *out;
    struct buf text; /* not taken by a writer yet; buf_reset when it is */
    int32_t stop_ids[STOP_IDS_MAX];
};

struct choice_args {
    const struct front *front;
    const struct params *par;
    const int32_t *prompt;        /* must outlive the choice */
    int32_t n_prompt, max_tokens; /* max_tokens 0: done at once (echo alone) */
    uint64_t seed;
    int index;
};
void choice_init(struct choice *c, const struct choice_args *a);
void choice_release(struct choice *c); /* not in flight */
/* Hand it to the scheduler. False: the inbox takes no more (nothing happened). */
bool choice_submit(struct choice *c, struct outbox *box);
/* Take in news of c->req: extends text, sets done, and cancels the request when a stop string ended the text. */
void choice_news(struct choice *c, const struct news *n);
/* Nobody wants the answer any more. */
void choice_cancel(struct choice *c);

#endif
