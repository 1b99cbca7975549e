/* calls.c: API calls from body to last byte. Owned by the I/O thread (call_prepare runs in any). A call lives until its
 * answer is sent or its client is gone, and the scheduler has none of its requests any more. */
#include "serve/serve_int.h"

#include "base/clock.h"
#include "base/mem.h"
#include "serve/json_in.h"
#include "serve/reply.h"

#include <stdlib.h>

enum { INLINE_MAX = 8 << 10, NEWS_AT_ONCE = 256 };

static void call_free(struct call *c) {
    if (!c->route) c->serve->flushing--;
    *c->at = c->next;
    if (c->next) c->next->at = c->at;
    job_release(&c->job);
    free(c->body);
    free(c);
}

/* Its client has its answer, or nobody to give it to is left. */
static void let_go(struct call *c) {
    if (c->conn) http_set_owner(c->conn, NULL);
    c->conn = NULL;
}

static void free_if_over(struct call *c) {
    if (!c->conn && !c->in_pool && !job_in_flight(&c->job)) call_free(c);
}

static void refuse(struct call *c, const struct api_err *e) {
    struct http_conn *conn = c->conn;
    let_go(c);
    if (conn) route_refuse(conn, e);
}

/* ---- the answer ---- */

/* Nobody wants the rest. */
static void cancel(struct call *c) {
    job_cancel(&c->job);
    metrics_ends(&c->serve->metrics, &c->job, clock_ns());
}

static void fail(struct call *c, const struct api_err *e) {
    cancel(c);
    if (!c->begun) {
        refuse(c, e);
        return;
    }
    struct buf *b = &c->serve->out;
    reply_failure(b, e);
    struct http_conn *conn = c->conn;
    let_go(c);
    http_stream_add(conn, b->data, b->len);
    http_stream_end(conn);
    buf_reset(b);
}

static void stream(struct call *c) {
    struct buf *b = &c->serve->out;
    char extra[160];
    snprintf(extra, sizeof extra, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\nX-Request-Id: %s\r\n",
             c->job.id);
    if (!c->begun) http_stream_begin(c->conn, "text/event-stream; charset=utf-8", extra);
    c->begun = true;
    for (int i = 0; i < c->job.n_choices; i++)
        if (c->job.choices[i].n_counted || c->job.choices[i].done) reply_events(b, &c->job, &c->job.choices[i]);
    bool done = job_done(&c->job);
    if (done) reply_end(b, &c->job);
    struct http_conn *conn = c->conn;
    if (done) let_go(c);
    if (b->len) http_stream_add(conn, b->data, b->len);
    if (done) http_stream_end(conn);
    buf_reset(b);
}

static void answer(struct call *c) {
    struct buf *b = &c->serve->out;
    char extra[80];
    snprintf(extra, sizeof extra, "X-Request-Id: %s\r\n", c->job.id);
    reply_whole(b, &c->job);
    struct http_conn *conn = c->conn;
    let_go(c);
    if (b->over) {
        struct api_err e;
        api_fail(&e, 500, NULL, "the answer is too long to be sent as a whole; use stream: true");
        route_refuse(conn, &e);
    } else
        http_reply(conn,
                   &(struct http_reply){
                       .status = 200, .type = "application/json", .extra = extra, .body = buf_str(b), .n = b->len});
    if (b->cap > 1 << 20) buf_release(b);
    buf_reset(b);
}

static void progress(struct call *c) {
    struct api_err e;
    if (c->conn && job_error(&c->job, &e))
        fail(c, &e);
    else if (c->conn && c->job.par.stream)
        stream(c);
    else if (c->conn && job_done(&c->job))
        answer(c);
    free_if_over(c);
}

/* ---- from the body to the scheduler ---- */

void call_prepare(struct call *c, struct words_tmp *tmp) {
    json_t *body = json_read(c->body, c->body_n, &c->err);
    if (body) job_prepare(&c->job, tmp, c->route, body, &c->err);
    json_decref(body);
    free(c->body);
    c->body = NULL;
}

static void submit(struct call *c) {
    struct serve *s = c->serve;
    struct api_err e = {0};
    int n = c->job.n_choices;
    if (!serve_refuses(s, &e) && s->waiting && s->waiting + n > s->lim.max_waiting)
        api_fail_code(&e, 429, "queue_full", NULL, "too many requests are waiting; try again in a moment");
    else if (!e.status && !job_submit(&c->job, &s->box))
        api_fail(&e, 503, NULL, "the server is shutting down");
    if (e.status) {
        refuse(c, &e);
        free_if_over(c);
        return;
    }
    for (int i = 0; i < n; i++) {
        c->job.choices[i].queued = c->job.choices[i].in_flight;
        s->waiting += c->job.choices[i].queued;
    }
    metrics_submitted(&s->metrics, &c->job);
    metrics_ends(&s->metrics, &c->job, clock_ns()); /* of those that wanted no token */
    if (job_done(&c->job)) progress(c);
}

static void prepared(struct call *c) {
    c->serve->waiting--;
    if (!c->conn)
        call_free(c);
    else if (c->err.status) {
        refuse(c, &c->err);
        call_free(c);
    } else
        submit(c);
}

static struct call *call_new(struct serve *s, struct http_conn *conn, enum route route) {
    struct call *c = mem_zalloc(1, sizeof *c);
    job_init(&c->job, atomic_load_explicit(&s->front, memory_order_acquire));
    c->job.owner = c;
    c->serve = s;
    c->route = route;
    c->conn = conn;
    c->next = s->calls;
    c->at = &s->calls;
    if (s->calls) s->calls->at = &c->next;
    s->calls = c;
    http_set_owner(conn, c);
    return c;
}

void call_start(struct serve *s, struct http_conn *conn, enum route route, struct buf *body) {
    if (body->len > INLINE_MAX && body->len > s->lim.bodies - s->pool_bytes) {
        struct api_err e;
        api_fail(&e, 503, NULL, "too many large requests are waiting; try again in a moment");
        route_refuse(conn, &e);
        return;
    }
    struct call *c = call_new(s, conn, route);
    c->body = buf_take(body, &c->body_n);
    s->waiting++; /* its place in the queue, before any work is done for it */
    if (c->body_n <= INLINE_MAX) {
        if (!s->tmp) s->tmp = words_tmp_new(c->job.front->words);
        call_prepare(c, s->tmp);
        prepared(c);
        return;
    }
    c->in_pool = true;
    s->pool_bytes += c->body_n;
    pool_push(&s->pool, c);
}

void calls_prepared(struct serve *s) {
    for (struct call *c = pool_take_done(&s->pool), *next; c; c = next) {
        next = c->next_pool;
        c->in_pool = false;
        s->pool_bytes -= c->body_n;
        prepared(c);
    }
}

/* ---- the cache ---- */

/* Requests whose clients are gone or served are no reason to refuse: they let go of their pages in the step that
 * flushes. */
void call_start_flush(struct serve *s, struct http_conn *conn) {
    for (struct call *c = s->calls; c; c = c->next) {
        if (!c->route || !c->conn) continue;
        struct api_err e;
        api_fail_code(&e, 400, "requests_running", NULL,
                      "the cache is flushed only while no request runs or waits; try again then");
        route_refuse(conn, &e);
        return;
    }
    s->flushing++;
    struct call *c = call_new(s, conn, 0);
    c->flush = inbox_flush_cache(c->job.front->inbox, &s->box);
}

static void answer_flushes(struct serve *s) {
    static const char ok[] = "{\"status\":\"ok\"}";
    uint64_t done = outbox_flushes(&s->box);
    for (struct call *c = s->calls, *next; c; c = next) {
        next = c->next;
        if (c->route || !c->conn || c->flush > done) continue;
        struct http_conn *conn = c->conn;
        let_go(c);
        call_free(c);
        http_reply(conn,
                   &(struct http_reply){.status = 200, .type = "application/json", .body = ok, .n = sizeof ok - 1});
    }
}

/* ---- news ---- */

static void take_news(const struct news *n, uint64_t now, struct call **touched) {
    struct choice *ch = n->req->owner;
    struct call *c = ((struct job *)ch->job)->owner;
    if (ch->queued && (n->n_out || n->finish != FINISH_NONE)) {
        ch->queued = false;
        c->serve->waiting--;
    }
    int32_t before = ch->n_counted;
    choice_news(ch, n);
    metrics_news(&c->serve->metrics, ch, n, before, now);
    if (c->touched) return;
    c->touched = true;
    c->next_touched = *touched;
    *touched = c;
}

void calls_news(struct serve *s) {
    struct news list[NEWS_AT_ONCE];
    struct call *touched = NULL;
    uint64_t now;
    int n;
    do {
        n = outbox_take(&s->box, list, NEWS_AT_ONCE, false);
        now = clock_ns(); /* not before: nothing in the list is later */
        for (int i = 0; i < n; i++) take_news(&list[i], now, &touched);
    } while (n == NEWS_AT_ONCE);
    for (struct call *c = touched, *next; c; c = next) {
        next = c->next_touched;
        c->touched = false;
        metrics_ends(&s->metrics, &c->job, now);
        progress(c);
    }
    if (s->flushing) answer_flushes(s);
}

/* ---- ends ---- */

void call_gone(void *serve, void *call) {
    (void)serve;
    struct call *c = call;
    c->conn = NULL;         /* the connection is freed already */
    if (c->in_pool) return; /* the job is a text thread's; `prepared` will see */
    cancel(c);
    free_if_over(c);
}

/* The scheduler is gone: what it has it keeps, and the process ends. */
void calls_fail(struct serve *s) {
    struct api_err e;
    serve_refuses(s, &e);
    for (struct call *c = s->calls, *next; c; c = next) {
        next = c->next;
        if (c->conn && !c->in_pool) fail(c, &e); /* in the pool: refused when it comes out */
    }
}

void calls_abandon(struct serve *s) {
    for (struct call *c = s->calls; c; c = c->next)
        if (!c->in_pool) job_cancel(&c->job);
}

void calls_free(struct serve *s) {
    while (s->calls) {
        struct call *c = s->calls;
        for (int i = 0; i < c->job.n_choices; i++) c->job.choices[i].in_flight = false;
        call_free(c);
    }
}
