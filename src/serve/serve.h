/* serve.h: the HTTP server: OpenAI's routes over an inbox and an outbox.
 *
 *   s = serve_open(&args, &e)     the port is bound: "in use" is known before a model is loaded
 *   serve_listen(s, &e)           clients can connect: once it is known that the model can be served
 *   serve_run(s)                  the I/O thread; until serve_ready it answers 503
 *   serve_ready(s, &front)        any thread, once the scheduler runs
 *   serve_stop(s)                 a signal handler: first drain, the second time end at once
 *   serve_close(s)                after serve_run has returned AND the scheduler thread has ended
 *
 * Threads: one I/O thread owns every connection and every call; text threads parse, render and tokenize large bodies,
 * so that streams do not stutter meanwhile. Answers go into the scheduler's hands as requests (flow/request.h) and
 * nothing else. SIGPIPE is ignored in the process from serve_open on.
 *
 * While draining new calls get 503, running ones finish; then serve_run returns. After the second serve_stop it returns
 * at once, and what was running is cancelled.
 *
 * serve_fail(s, why) is for the end of a broken machine, from any thread: every client that waits, and every call that
 * still comes, gets 503 with the sentence. */
#ifndef MINISGL_SERVE_SERVE_H
#define MINISGL_SERVE_SERVE_H
#include "base/err.h"
#include "flow/stats.h"
#include "serve/front.h"

/* 0 in a member: the default in brackets. */
struct serve_limits {
    size_t body;     /* bytes of one request body [32 MiB] */
    size_t bodies;   /* bytes of all bodies being received or waiting for a text thread [256 MiB] */
    size_t unsent;   /* bytes of one stream its client may lag behind [4 MiB] */
    int connections; /* [4096] */
    int max_waiting; /* requests that wait for their first token; above: 429 [1024] */
    int head_s;      /* for a request's head to arrive [10] */
    int idle_s;      /* for a kept connection between requests [75] */
    int gap_s;       /* between two pieces of a body [30] */
    int body_s;      /* for a whole body [300] */
    int write_s;     /* for a client to take something of what waits for it [30] */
};

struct serve_args {
    const char *host;          /* an address or a name of this machine */
    int port;                  /* 0: any free one, see serve_port */
    const char *api_key;       /* NULL: everyone may call */
    const char *version;       /* for /version */
    int text_threads;          /* 0: 1 */
    int log_every_s;           /* a line with throughput, when something happened; 0: 10; below 0: never */
    const struct stats *stats; /* what the scheduler publishes; NULL: no log line */
    struct serve_limits limits;
};

struct serve *serve_open(const struct serve_args *args, struct err *e);
int serve_listen(struct serve *s, struct err *e); /* before serve_run */
void serve_ready(struct serve *s, const struct front *front); /* *front must outlive s */
void serve_run(struct serve *s);
void serve_stop(struct serve *s); /* async-signal-safe */
void serve_fail(struct serve *s, const char *why); /* once; returns when that is sent, or after 2 s; then end the process */
void serve_close(struct serve *s);
int serve_port(const struct serve *s);

#endif
