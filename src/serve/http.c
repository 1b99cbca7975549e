/* http.c: see http.h. One thread owns the server and all its connections. It trusts no byte of a client, never waits
 * for one, and keeps a bounded number of bytes for each. */
#include "serve/http.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_AHEAD = 64 << 10,    /* bytes of input kept unread; more than that behind an unanswered request is no client */
    PIPELINE_OUT = 256 << 10, /* no further pipelined request is looked at while this much waits to be sent */
    LINGER_S = 2,             /* after the last reply: time to read on, so that a reset does not overtake the reply */
    ACCEPT_PAUSE_MS = 100,    /* when no descriptor is left */
    BACKLOG = 1024
};

enum state {
    ST_HEAD, /* waiting for a head, or in it */
    ST_BODY,
    ST_BUSY,   /* a reply is owed */
    ST_FLUSH,  /* the last reply is being sent */
    ST_LINGER, /* sent; reading on until the client closes */
    ST_DOOMED  /* to be freed by the timer, from the loop */
};

struct http_conn {
    struct http_server *server;
    struct http_conn *next, **at;
    struct bufferevent *bev;
    struct event *timer;
    enum state state;
    bool fresh;     /* no reply sent yet */
    bool looping;   /* conn_work is at it */
    bool eof;       /* the client closed its side; its answer is still being sent */
    bool tell_gone; /* a reply was owed when it was doomed */
    void *owner;
    struct http_scan scan;
    struct http_head head;
    char *head_bytes; /* what the slices of head point into */
    struct http_chunks chunks;
    struct buf body;
    size_t reserved; /* bytes of the server's share for bodies */
    time_t body_end;
};

struct http_server {
    struct event_base *base;
    int fd; /* bound; the listener's, once there is one */
    struct evconnlistener *listener; /* NULL before http_listen */
    struct event *pause;
    struct http_limits lim;
    struct http_ops ops;
    struct http_conn *conns;
    int n_conns;
    size_t bodies;
    bool draining;
    int port;
    char address[300];
};

static void conn_work(struct http_conn *c);

/* ---- a connection's life ---- */

static time_t now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

static void arm(struct http_conn *c, long seconds) {
    struct timeval tv = {.tv_sec = seconds};
    evtimer_add(c->timer, &tv);
}

static void give_body_back(struct http_conn *c) {
    c->server->bodies -= c->reserved;
    c->reserved = 0;
    buf_release(&c->body);
}

static void conn_free(struct http_conn *c) {
    struct http_server *s = c->server;
    *c->at = c->next;
    if (c->next) c->next->at = c->at;
    s->n_conns--;
    give_body_back(c);
    event_free(c->timer);
    bufferevent_free(c->bev);
    free(c->head_bytes);
    void *owner = c->tell_gone ? c->owner : NULL;
    free(c);
    if (owner) s->ops.gone(s->ops.ctx, owner);
}

/* Free it from the loop, soon: the caller may be in the middle of using it. */
static void doom(struct http_conn *c) {
    if (c->state == ST_DOOMED) return;
    c->tell_gone = c->state == ST_BUSY;
    c->state = ST_DOOMED;
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    arm(c, 0);
}

static struct evbuffer *output(struct http_conn *c) { return bufferevent_get_output(c->bev); }

/* ---- replies ---- */

static const char *reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
    }
}

static void add_head(struct http_conn *c, int status, const char *type, const char *extra) {
    c->server->ops.replied(c->server->ops.ctx, &c->head, status);
    char date[64];
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    evbuffer_add_printf(output(c), "HTTP/1.1 %d %s\r\nServer: minisgl\r\nDate: %s\r\nContent-Type: %s\r\n%s", status,
                        reason(status), date, type, extra ? extra : "");
}

/* The reply is wholly in the output: on to the next request, or to the end. */
static void reply_done(struct http_conn *c) {
    give_body_back(c);
    c->owner = NULL;
    if (c->server->draining) c->head.keep_alive = false;
    c->scan = (struct http_scan){0};
    if (!c->head.keep_alive) {
        c->state = ST_FLUSH;
        evtimer_del(c->timer);
        return;
    }
    c->state = ST_HEAD;
    c->fresh = false;
    arm(c, c->server->lim.idle_s);
    if (!c->looping) conn_work(c);
}

void http_reply(struct http_conn *c, const struct http_reply *r) {
    if (c->state == ST_DOOMED) return;
    /* A body that was not read cannot be skipped cheaply: the connection ends. */
    bool unread = c->state == ST_BODY || (c->state == ST_HEAD && (c->head.chunked || c->head.length > 0));
    if (r->close || unread || c->server->draining) c->head.keep_alive = false;
    add_head(c, r->status, r->type, r->extra);
    evbuffer_add_printf(output(c), "Content-Length: %zu\r\nConnection: %s\r\n\r\n", r->n,
                        c->head.keep_alive ? "keep-alive" : "close");
    if (c->head.method != HTTP_HEAD) evbuffer_add(output(c), r->body, r->n);
    reply_done(c);
}

void http_stream_begin(struct http_conn *c, const char *type, const char *extra) {
    if (c->state == ST_DOOMED) return;
    if (c->server->draining || c->head.minor == 0) c->head.keep_alive = false;
    add_head(c, 200, type, extra);
    evbuffer_add_printf(output(c), "%sConnection: %s\r\n\r\n", c->head.minor ? "Transfer-Encoding: chunked\r\n" : "",
                        c->head.keep_alive ? "keep-alive" : "close");
}

void http_stream_add(struct http_conn *c, const char *p, size_t n) {
    if (c->state == ST_DOOMED || !n) return;
    if (evbuffer_get_length(output(c)) >
        c->server->lim.unsent) { /* what came before was not taken; a burst is no lag */
        doom(c);
        return;
    }
    if (c->head.minor) evbuffer_add_printf(output(c), "%zx\r\n", n);
    evbuffer_add(output(c), p, n);
    if (c->head.minor) evbuffer_add(output(c), "\r\n", 2);
}

void http_stream_end(struct http_conn *c) {
    if (c->state == ST_DOOMED) return;
    if (c->head.minor) evbuffer_add(output(c), "0\r\n\r\n", 5);
    reply_done(c);
}

void http_set_owner(struct http_conn *c, void *owner) { c->owner = owner; }

static void refuse(struct http_conn *c, const struct http_fault *f) {
    struct buf body;
    buf_init(&body, 4096);
    c->server->ops.fault(c->server->ops.ctx, f, &body);
    http_reply(
        c, &(struct http_reply){
               .status = f->status, .type = "application/json", .body = buf_str(&body), .n = body.len, .close = true});
    buf_release(&body);
}

/* ---- reading requests ---- */

static void request_complete(struct http_conn *c) {
    c->state = ST_BUSY;
    evtimer_del(c->timer);
    c->server->ops.request(c->server->ops.ctx, c, &c->head, &c->body);
    give_body_back(c);
}

/* Claim this much of the memory for bodies in all. */
static int reserve(struct http_conn *c, size_t want, struct http_fault *f) {
    struct http_server *s = c->server;
    if (want <= c->reserved) return 0;
    if (want - c->reserved > s->lim.bodies - s->bodies) {
        *f = (struct http_fault){503, "too many large requests are being received; try again in a moment"};
        return -1;
    }
    s->bodies += want - c->reserved;
    c->reserved = want;
    return 0;
}

static int claim_body(struct http_conn *c, struct http_fault *f) {
    if (c->head.length > 0 && (uint64_t)c->head.length > c->server->lim.body) {
        *f = (struct http_fault){413, "the body is longer than this server accepts"};
        return -1;
    }
    return reserve(c, c->head.length > 0 ? (size_t)c->head.length : 0, f);
}

static void body_progress(struct http_conn *c) {
    long left = (long)(c->body_end - now_s());
    arm(c, left < c->server->lim.gap_s ? (left > 0 ? left : 0) : c->server->lim.gap_s);
}

static void start_body(struct http_conn *c) {
    struct http_fault f;
    if (!c->head.chunked && c->head.length <= 0) {
        request_complete(c);
        return;
    }
    if (claim_body(c, &f)) {
        refuse(c, &f);
        return;
    }
    buf_init(&c->body, c->server->lim.body);
    c->body_end = now_s() + c->server->lim.body_s;
    c->chunks = (struct http_chunks){0};
    c->state = ST_BODY;
    if (c->head.expect_continue) evbuffer_add_printf(output(c), "HTTP/1.1 100 Continue\r\n\r\n");
    body_progress(c);
}

/* What is known of a request that cannot be read; enough to answer it. */
static void broken_head(struct http_conn *c, const struct http_fault *f) {
    c->head = (struct http_head){.method = HTTP_OTHER, .minor = 1, .length = -1};
    refuse(c, f);
}

/* True when something was used up and another look is worth while. */
static bool read_head(struct http_conn *c, struct evbuffer *in) {
    size_t n = evbuffer_get_length(in);
    if (n > HTTP_MAX_HEAD + HTTP_MAX_LINE) n = HTTP_MAX_HEAD + HTTP_MAX_LINE;
    if (!n) return false;
    if (!c->scan.at) arm(c, c->server->lim.head_s);
    struct http_fault f;
    const char *p = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
    ptrdiff_t len = http_head_end(&c->scan, p, n, &f);
    if (!len) return false;
    if (len < 0) {
        broken_head(c, &f);
        return true;
    }
    free(c->head_bytes);
    c->head_bytes = mem_strndup(p, (size_t)len);
    evbuffer_drain(in, (size_t)len);
    if (http_head_parse(c->head_bytes, (size_t)len, &c->head, &f)) {
        broken_head(c, &f);
        return true;
    }
    if (!c->server->ops.head(c->server->ops.ctx, c, &c->head)) start_body(c);
    return true;
}

static void take_chunked(struct http_conn *c, struct evbuffer *in) {
    struct http_fault f;
    struct evbuffer_iovec v;
    while (!c->chunks.done && evbuffer_peek(in, -1, NULL, &v, 1) > 0 && v.iov_len) {
        ptrdiff_t used = http_chunks_feed(&c->chunks, v.iov_base, v.iov_len, c->server->lim.body, &c->body, &f);
        if (used < 0 || reserve(c, c->body.len, &f)) {
            refuse(c, &f);
            return;
        }
        evbuffer_drain(in, (size_t)used);
    }
    if (c->chunks.done) request_complete(c);
}

static void take_plain(struct http_conn *c, struct evbuffer *in) {
    size_t want = (size_t)c->head.length - c->body.len, have = evbuffer_get_length(in);
    size_t n = have < want ? have : want;
    if (n && !buf_room(&c->body, n)) {
        evbuffer_remove(in, c->body.data + c->body.len, n);
        c->body.len += n;
        c->body.data[c->body.len] = 0;
    }
    if (c->body.len == (size_t)c->head.length) request_complete(c);
}

static bool read_body(struct http_conn *c, struct evbuffer *in) {
    if (!evbuffer_get_length(in)) return false;
    body_progress(c);
    if (c->head.chunked)
        take_chunked(c, in);
    else
        take_plain(c, in);
    return c->state != ST_BODY;
}

/* Use what has been received, as far as possible. */
static void conn_work(struct http_conn *c) {
    struct evbuffer *in = bufferevent_get_input(c->bev);
    c->looping = true;
    for (bool more = true; more;) {
        switch (c->state) {
        case ST_HEAD: more = evbuffer_get_length(output(c)) < PIPELINE_OUT && read_head(c, in); break;
        case ST_BODY: more = read_body(c, in); break;
        case ST_BUSY:
            more = false;
            if (evbuffer_get_length(in) >= READ_AHEAD) doom(c);
            break;
        default:
            more = false;
            evbuffer_drain(in, evbuffer_get_length(in));
            break;
        }
    }
    c->looping = false;
}

/* ---- events ---- */

static void linger(struct http_conn *c) {
    c->state = ST_LINGER;
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
    arm(c, LINGER_S);
}

static void on_read(struct bufferevent *bev, void *arg) {
    (void)bev;
    conn_work(arg);
}

static void on_written(struct bufferevent *bev, void *arg) {
    (void)bev;
    struct http_conn *c = arg;
    if (c->state == ST_FLUSH && c->eof)
        doom(c);
    else if (c->state == ST_FLUSH)
        linger(c);
    else if (c->state == ST_HEAD)
        conn_work(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
    struct http_conn *c = arg;
    (void)bev;
    bool unsent = evbuffer_get_length(output(c)) > 0;
    if ((what & BEV_EVENT_EOF) && unsent && (c->state == ST_HEAD || c->state == ST_FLUSH)) {
        c->state = ST_FLUSH; /* it asked, closed its side, and gets its answer; on_written ends it */
        c->eof = true;
        evtimer_del(c->timer);
        return;
    }
    doom(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    struct http_conn *c = arg;
    static const struct http_fault slow = {408, "the request did not arrive in time"};
    if (c->state == ST_HEAD && (c->scan.at || c->fresh))
        broken_head(c, &slow);
    else if (c->state == ST_BODY)
        refuse(c, &slow);
    else
        conn_free(c);
}

static void turn_away(int fd) {
    static const char body[] = "{\"error\":{\"message\":\"too many connections; try again in a moment\","
                               "\"type\":\"server_error\",\"param\":null,\"code\":null}}\n";
    char all[512];
    int n = snprintf(all, sizeof all,
                     "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof body - 1, body);
    if (send(fd, all, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) log_debug("a surplus client left by itself");
    shutdown(fd, SHUT_WR);
    close(fd);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg) {
    (void)l;
    (void)sa;
    (void)len;
    struct http_server *s = arg;
    if (s->n_conns >= s->lim.connections) {
        turn_away(fd);
        return;
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct http_conn *c = mem_zalloc(1, sizeof *c);
    *c = (struct http_conn){.server = s, .next = s->conns, .at = &s->conns, .fresh = true};
    c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    c->timer = evtimer_new(s->base, on_timer, c);
    if (!c->bev || !c->timer) BUG("libevent gave no bufferevent or timer");
    if (s->conns) s->conns->at = &c->next;
    s->conns = c;
    s->n_conns++;
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, READ_AHEAD);
    struct timeval out = {.tv_sec = s->lim.write_s};
    bufferevent_set_timeouts(c->bev, NULL, &out);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    arm(c, s->lim.head_s);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    struct http_server *s = arg;
    evconnlistener_enable(s->listener);
}

/* Usually no descriptor is left. The waiting client stays readable, so looking again at once would spin. */
static void on_accept_error(struct evconnlistener *l, void *arg) {
    struct http_server *s = arg;
    log_warning("accepting a connection failed (%s); trying again in a moment", strerror(errno));
    evconnlistener_disable(l);
    struct timeval tv = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
    evtimer_add(s->pause, &tv);
}

/* ---- the server ---- */

static int bind_to(const struct addrinfo *a) {
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!bind(fd, a->ai_addr, a->ai_addrlen)) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static int bind_any(const char *host, int port, struct err *e) {
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list = NULL;
    int bad = getaddrinfo(host, service, &hint, &list);
    if (bad) return err_input(e, "--host %s: expected an address of this machine (%s)", host, gai_strerror(bad));
    int fd = -1, why = 0;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        fd = bind_to(a);
        why = errno;
    }
    freeaddrinfo(list);
    if (fd >= 0) return fd;
    if (why == EADDRINUSE)
        return err_input(e, "%s:%d is in use by another program; stop it or choose another --port", host, port);
    if (why == EACCES) return err_input(e, "port %d needs more rights than this user has; choose one above 1023", port);
    return err_input(e, "cannot listen on %s:%d: %s", host, port, strerror(why));
}

static int port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n)) return 0;
    if (a.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

struct http_server *http_open(struct event_base *base, const char *host, int port, const struct http_limits *lim,
                              const struct http_ops *ops, struct err *e) {
    int fd = bind_any(host, port, e);
    if (fd < 0) return NULL;
    struct http_server *s = mem_zalloc(1, sizeof *s);
    s->base = base;
    s->lim = *lim;
    s->ops = *ops;
    s->fd = fd;
    s->port = port_of(fd);
    snprintf(s->address, sizeof s->address, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, s->port);
    s->pause = evtimer_new(base, on_pause_over, s);
    if (!s->pause) BUG("libevent gave no timer");
    return s;
}

int http_listen(struct http_server *s, struct err *e) {
    if (listen(s->fd, BACKLOG)) /* another program may have done so after http_open */
        return err_input(e, "cannot listen on %s: %s", s->address, strerror(errno));
    s->listener = evconnlistener_new(s->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, s->fd);
    if (!s->listener) BUG("libevent gave no listener");
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    return 0;
}

void http_close(struct http_server *s) {
    if (!s) return;
    while (s->conns) {
        s->conns->tell_gone = false;
        conn_free(s->conns);
    }
    event_free(s->pause);
    if (s->listener) evconnlistener_free(s->listener);
    else close(s->fd);
    free(s);
}

int http_port(const struct http_server *s) { return s->port; }
const char *http_address(const struct http_server *s) { return s->address; }
int http_connections(const struct http_server *s) { return s->n_conns; }

int http_unsent(const struct http_server *s) {
    int n = 0;
    for (struct http_conn *c = s->conns; c; c = c->next)
        n += c->state == ST_BUSY || c->state == ST_FLUSH || c->state == ST_LINGER || evbuffer_get_length(output(c)) > 0;
    return n;
}

void http_drain(struct http_server *s) {
    s->draining = true;
    for (struct http_conn *c = s->conns; c; c = c->next)
        if (c->state == ST_HEAD && !c->scan.at && !c->fresh && !evbuffer_get_length(output(c))) doom(c);
}
