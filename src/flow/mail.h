/* mail.h: how requests reach the scheduler thread and how news comes back. Two boxes, both taken whole:
 * the receiver gets everything that lies there at once and is woken once. */
#ifndef MINISGL_FLOW_MAIL_H
#define MINISGL_FLOW_MAIL_H
#include "flow/request.h"

#include <pthread.h>

/* ---- inbox: many senders, one receiver (the scheduler thread) ---- */

struct outbox;

struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct request *first, **last; /* new requests in order of arrival */
    bool news;                     /* something to look at: a request, a cancel, a drain */
    bool cancelled;                /* since the last take */
    uint64_t flushes;              /* asked for since the start */
    struct outbox *flush_for;      /* who asked since the last take; NULL: nobody */
    bool draining;                 /* no more requests are coming; the scheduler ends when it is idle */
    int n_waiting;                 /* requests lying here */
};

void inbox_init(struct inbox *in);
void inbox_release(struct inbox *in);
/* Hand a request over. Any thread. Returns false (nothing happened) when the inbox is draining. */
bool inbox_push(struct inbox *in, struct request *r);
/* Set r->cancelled and wake the scheduler; its slot is free within one step. Any thread; r must not be finished
 * in the front end's eyes. */
void inbox_cancel(struct inbox *in, struct request *r);
void inbox_drain_begin(struct inbox *in);
/* Ask the scheduler to drop the prefix cache but what running requests hold. Any thread. Returns a number; when it has
 * been done, outbox_flushes(out) is that or more. All who ask must have the same outbox. */
uint64_t inbox_flush_cache(struct inbox *in, struct outbox *out);

/* The scheduler's: take everything. With wait, sleep until there is news, or the inbox is draining. */
struct inbox_news {
    struct request *requests; /* linked by next_in; NULL: none */
    bool draining;            /* the inbox is closed for more */
    bool cancelled;           /* some request's `cancelled` was set */
    struct outbox *flush_for; /* not NULL: flush the cache, then outbox_flushed(flush_for, flushes) */
    uint64_t flushes;
};
void inbox_take(struct inbox *in, bool wait, struct inbox_news *news);

/* Sleep until there is news or ns have passed. True: news. */
bool inbox_wait(struct inbox *in, uint64_t ns);

/* ---- outbox: one sender (the scheduler thread), one receiver (an I/O thread, or a CLI) ---- */

struct outbox {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct request *first, **last; /* requests with news, each at most once */
    uint64_t flushes;              /* as many flushes of the cache are done */
    int event_fd;                  /* readable when there is news */
};

/* What outbox_take copies of a request under the lock. Everything in out_tokens[0..n_out) is stable. */
struct news {
    struct request *req;
    int32_t n_out;
    int32_t n_cached;   /* of the prompt, as known by now */
    uint64_t admitted;  /* as in the request */
    enum finish finish; /* not FINISH_NONE: the last news of this request, it belongs to the front end again */
};

int outbox_init(struct outbox *out); /* -1 when no eventfd can be had */
void outbox_release(struct outbox *out);
/* The receiver's: up to max pieces of news into list; returns how many. With wait, sleeps until there is one.
 * Call again until it returns less than max. */
int outbox_take(struct outbox *out, struct news *list, int max, bool wait);
uint64_t outbox_flushes(struct outbox *out);
/* The scheduler's: the cache was flushed; wakes the receiver. */
void outbox_flushed(struct outbox *out, uint64_t flushes);
/* The scheduler's: lock once a step, change requests and post them, unlock (wakes the receiver if anything was posted).
 */
void outbox_lock(struct outbox *out);
void outbox_post(struct outbox *out, struct request *r);
void outbox_unlock(struct outbox *out);

#endif
