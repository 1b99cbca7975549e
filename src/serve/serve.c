/* serve.c: the HTTP front end's life. The I/O thread (serve_run) owns everything in struct serve but `front`, which is
 * published once, and `stop_fd`, which a signal handler writes to. */
#include "serve/serve_int.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { DRAIN_LOOK_MS = 20, DEFAULT_LOG_S = 10 };
static const uint64_t FAIL_NS = 2000000000;

/* ---- the log line ---- */

static double rate(uint64_t now, uint64_t *seen, double seconds) {
    double r = (double)(now - *seen) / seconds;
    *seen = now;
    return r;
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    struct serve *s = arg;
    const struct stats *st = s->args.stats;
    uint64_t steps = st->steps, at = clock_ns();
    if (steps == s->seen_steps) {
        s->seen_at = at;
        return;
    }
    double seconds = (double)(at - s->seen_at) / 1e9;
    int total = st->pages_total;
    uint64_t cached = st->cached_tokens, prompt = st->prompt_tokens;
    double hits = (double)(cached - s->seen_cached), fresh = (double)(prompt - s->seen_prompt);
    log_info(
        "%d running, %d waiting; %.1f tokens/s generated, %.1f tokens/s of prompts computed; KV cache %.1f%% used, "
        "%.1f%% of the prompts came from it",
        (int)st->running, (int)st->waiting, rate(st->generated_tokens, &s->seen_made, seconds),
        rate(prompt, &s->seen_prompt, seconds), total > 0 ? 100.0 * (int)st->pages_used / total : 0.0,
        hits + fresh > 0 ? 100 * hits / (hits + fresh) : 0.0);
    s->seen_cached = cached;
    s->seen_steps = steps;
    s->seen_at = at;
}

/* ---- events ---- */

static void on_news(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    calls_news(arg);
}

static void on_prepared(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    calls_prepared(arg);
}

/* While draining or failing: is everything answered and sent? */
static void on_drain_tick(evutil_socket_t fd, short what, void *arg) {
    (void)fd, (void)what;
    struct serve *s = arg;
    if (atomic_load(&s->failing) && !http_unsent(s->http)) {
        atomic_store(&s->failing, FAIL_TOLD);
        futex_wake(&s->failing, 1);
    } else if (!s->calls && !http_unsent(s->http))
        event_base_loopbreak(s->base);
}

static void start_draining(struct serve *s) {
    http_drain(s->http);
    struct timeval tv = {.tv_usec = DRAIN_LOOK_MS * 1000};
    event_add(s->drain_tick, &tv);
}

static void on_stop(evutil_socket_t fd, short what, void *arg) {
    (void)what;
    struct serve *s = arg;
    uint64_t n = 0;
    if (read(fd, &n, sizeof n) != (ssize_t)sizeof n) return;
    if (atomic_load(&s->failing) && !s->told_all) { /* also while draining already */
        s->told_all = true;
        s->stops = 1;
        calls_fail(s);
        start_draining(s);
        return;
    }
    bool first = !s->stops;
    s->stops += (int)(n > 2 ? 2 : n);
    if (s->stops > 1) {
        log_info("Stopping at once");
        event_base_loopbreak(s->base);
    } else if (first) {
        log_info("Finishing what is running; a second signal stops at once");
        start_draining(s);
    }
}

/* ---- life ---- */

static void set_limits(struct serve_limits *l) {
    if (!l->body) l->body = 32 << 20;
    if (!l->bodies) l->bodies = 256 << 20;
    if (!l->unsent) l->unsent = 4 << 20;
    if (!l->connections) l->connections = 4096;
    if (!l->max_waiting) l->max_waiting = 1024;
    if (!l->head_s) l->head_s = 10;
    if (!l->idle_s) l->idle_s = 75;
    if (!l->gap_s) l->gap_s = 30;
    if (!l->body_s) l->body_s = 300;
    if (!l->write_s) l->write_s = 30;
    if (l->bodies < l->body) l->bodies = l->body;
}

static struct http_limits http_limits_of(const struct serve_limits *l) {
    return (struct http_limits){.body = l->body,
                                .bodies = l->bodies,
                                .unsent = l->unsent,
                                .connections = l->connections,
                                .head_s = l->head_s,
                                .idle_s = l->idle_s,
                                .gap_s = l->gap_s,
                                .body_s = l->body_s,
                                .write_s = l->write_s};
}

static int make_events(struct serve *s, struct err *e) {
    s->on_news = event_new(s->base, s->box.event_fd, EV_READ | EV_PERSIST, on_news, s);
    s->on_prepared = event_new(s->base, s->pool.done_fd, EV_READ | EV_PERSIST, on_prepared, s);
    s->on_stop = event_new(s->base, s->stop_fd, EV_READ | EV_PERSIST, on_stop, s);
    s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    s->drain_tick = event_new(s->base, -1, EV_PERSIST, on_drain_tick, s);
    if (!s->on_news || !s->on_prepared || !s->on_stop || !s->tick || !s->drain_tick)
        return err_machine(e, "the event library gave no event");
    event_add(s->on_news, NULL);
    event_add(s->on_prepared, NULL);
    event_add(s->on_stop, NULL);
    struct timeval tv = {.tv_sec = s->args.log_every_s ? s->args.log_every_s : DEFAULT_LOG_S};
    if (s->args.stats && tv.tv_sec > 0) event_add(s->tick, &tv);
    return 0;
}

static void drop_event(struct event *ev) {
    if (ev) event_free(ev);
}

struct serve *serve_open(const struct serve_args *args, struct err *e) {
    struct serve *s = mem_zalloc(1, sizeof *s);
    s->args = *args;
    s->lim = args->limits;
    set_limits(&s->lim);
    s->api_key = mem_strdup(args->api_key);
    s->seen_at = clock_ns();
    buf_init(&s->out, (size_t)1 << 30);
    signal(SIGPIPE, SIG_IGN);
    s->box.event_fd = s->stop_fd = -1;
    if (outbox_init(&s->box) || (s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
        !(s->base = event_base_new()) || pool_open(&s->pool, s, args->text_threads > 0 ? args->text_threads : 1)) {
        err_machine(e, "no event descriptor or thread is left for the HTTP server (%s)", strerror(errno));
        goto fail;
    }
    struct http_limits lim = http_limits_of(&s->lim);
    s->http = http_open(s->base, args->host, args->port, &lim,
                        &(struct http_ops){s, route_head, route_request, call_gone, route_fault, route_replied}, e);
    if (!s->http || make_events(s, e)) goto fail;
    return s;
fail:
    serve_close(s);
    return NULL;
}

int serve_listen(struct serve *s, struct err *e) { return http_listen(s->http, e); }

void serve_ready(struct serve *s, const struct front *front) {
    atomic_store_explicit(&s->front, front, memory_order_release);
    log_info("API server is ready to serve on %s", http_address(s->http));
}

void serve_run(struct serve *s) {
    event_base_dispatch(s->base);
    calls_abandon(s);
}

void serve_stop(struct serve *s) {
    uint64_t one = 1;
    int why = errno;
    if (write(s->stop_fd, &one, sizeof one) < 0) { /* full: it has been told often enough */
    }
    errno = why;
}

void serve_fail(struct serve *s, const char *why) {
    snprintf(s->broken, sizeof s->broken, "%s", why);
    atomic_store(&s->failing, FAIL_ASKED);
    serve_stop(s);
    for (uint64_t end = clock_ns() + FAIL_NS, now; (now = clock_ns()) < end && atomic_load(&s->failing) == FAIL_ASKED;)
        futex_wait(&s->failing, FAIL_ASKED, end - now);
}

int serve_refuses(struct serve *s, struct api_err *e) {
    if (atomic_load(&s->failing)) return api_fail(e, 503, NULL, "the machine broke and the server ends: %.900s", s->broken);
    return s->stops ? api_fail(e, 503, NULL, "the server is shutting down") : 0;
}

void serve_close(struct serve *s) {
    if (!s) return;
    pool_close(&s->pool);
    calls_free(s);
    http_close(s->http);
    drop_event(s->on_news);
    drop_event(s->on_prepared);
    drop_event(s->on_stop);
    drop_event(s->tick);
    drop_event(s->drain_tick);
    if (s->base) event_base_free(s->base);
    if (s->stop_fd >= 0) close(s->stop_fd);
    if (s->box.event_fd >= 0) outbox_release(&s->box);
    words_tmp_free(s->tmp);
    buf_release(&s->out);
    free(s->api_key);
    free(s);
}

int serve_port(const struct serve *s) { return http_port(s->http); }
