/* serve_int.h: what the files of the HTTP front end share. Everything belongs to the I/O thread unless it says
 * otherwise. */
#ifndef MINISGL_SERVE_SERVE_INT_H
#define MINISGL_SERVE_SERVE_INT_H
#include "serve/http.h"
#include "serve/job.h"
#include "serve/metrics.h"
#include "serve/serve.h"

#include <pthread.h>
#include <stdatomic.h>

/* One call of an API route. Between pool_push and its return the text thread owns job, body and err. */
struct call {
    struct job job;
    struct serve *serve;
    struct call *next, **at;
    struct http_conn *conn; /* NULL: the client is gone, or has its whole answer */
    enum route route;       /* 0: no API call, but a client that waits for the cache to be flushed */
    uint64_t flush;         /* its number (flow/mail.h) */
    char *body;
    size_t body_n;
    struct api_err err; /* status != 0: refused while it was prepared */
    bool in_pool, begun, touched;
    struct call *next_touched, *next_pool;
};

/* What became of serve_fail. FAIL_ASKED: `broken` is written. */
enum failing { FAIL_NOT, FAIL_ASKED, FAIL_TOLD };

/* Text threads. */
struct pool {
    struct serve *serve;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct call *first, **last; /* to be prepared */
    struct call *done;          /* prepared, for the I/O thread */
    bool quit;
    int done_fd; /* readable when done is not empty */
    int n_threads;
    pthread_t *threads;
};
int pool_open(struct pool *p, struct serve *s, int n_threads);
void pool_close(struct pool *p); /* waits for the threads; calls still inside stay in the lists */
void pool_push(struct pool *p, struct call *c);
struct call *pool_take_done(struct pool *p); /* linked by next_pool */

enum { N_PATHS = 11 }; /* of routes.c */

struct serve {
    struct serve_args args;
    struct serve_limits lim;
    char *api_key;
    struct event_base *base;
    struct http_server *http;
    _Atomic(const struct front *) front; /* NULL until serve_ready */
    struct outbox box;
    struct pool pool;
    struct words_tmp *tmp; /* the I/O thread's, made when first needed */
    struct event *on_news, *on_prepared, *on_stop, *tick, *drain_tick;
    int stop_fd;
    int stops; /* serve_stop calls seen */
    char broken[1000];        /* serve_fail's sentence */
    _Atomic uint32_t failing; /* enum failing */
    bool told_all;
    struct call *calls;
    int waiting;       /* calls being prepared and choices without a token */
    int flushing;      /* calls that wait for the cache to be flushed */
    size_t pool_bytes; /* bodies in the pool */
    struct buf out;    /* being written; empty between uses */
    uint64_t seen_steps, seen_prompt, seen_cached, seen_made;
    uint64_t seen_at;
    struct metrics metrics;
    uint64_t replies[N_PATHS + 1][HTTP_OTHER + 1]
                    [6]; /* by path (the last: no known one), method, hundreds of the status */
};

/* calls.c */
void call_start(struct serve *s, struct http_conn *conn, enum route route, struct buf *body);
void call_start_flush(struct serve *s, struct http_conn *conn);
void call_prepare(struct call *c, struct words_tmp *tmp); /* any thread: body to job */
void calls_prepared(struct serve *s);                     /* the pool has finished some */
void calls_news(struct serve *s);                         /* the outbox has news */
void call_gone(void *serve, void *call);
void calls_abandon(struct serve *s); /* cancel all */
void calls_fail(struct serve *s);    /* serve_fail: answer all */
/* 503 and why, when the server takes no more calls: it is broken, or shuts down. */
int serve_refuses(struct serve *s, struct api_err *e);
void calls_free(struct serve *s);    /* the scheduler has ended */

/* routes.c */
int route_head(void *serve, struct http_conn *conn, const struct http_head *h);
void route_request(void *serve, struct http_conn *conn, const struct http_head *h, struct buf *body);
void route_fault(void *serve, const struct http_fault *f, struct buf *body);
void route_replied(void *serve, const struct http_head *h, int status);
void route_refuse(struct http_conn *conn, const struct api_err *e);

#endif
