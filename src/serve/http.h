/* http.h: an HTTP/1.1 server for one thread: connections, limits, time-outs, replies, streams.
 *
 * Sockets and events are libevent's (bufferevents); reading the protocol is ours (http_parse.h), because libevent's
 * evhttp forgives what must be refused, and stops reading while a reply is owed, so that it does not see a client
 * leave. Here reading never stops: a client that closes its sending side or the connection while a reply is owed is
 * gone, and gone() is called within the same turn of the loop. (A client that half-closes and still wants its reply
 * does not exist among HTTP clients; a FIN is the only sign of one that went away.)
 *
 * Everything here belongs to the thread that runs the event base. No function calls back into its caller:
 * a connection that must be dropped is dropped from the loop. */
#ifndef MINISGL_SERVE_HTTP_H
#define MINISGL_SERVE_HTTP_H
#include "base/err.h"
#include "serve/http_parse.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

struct http_limits {
    size_t body;     /* bytes of one body; above: 413 */
    size_t bodies;   /* bytes of all bodies being received; above: 503 */
    size_t unsent;   /* bytes of a stream that its client has not taken; above: the connection is dropped */
    int connections; /* above: 503 and close */
    int head_s;      /* from its first byte a head must be complete within; else 408 */
    int idle_s;      /* a kept connection may be silent for */
    int gap_s;       /* a body may pause for; else 408 */
    int body_s;      /* a body must be complete within; else 408 */
    int write_s;     /* a client that takes nothing of what is waiting is dropped after */
};

struct http_conn;
struct http_server;

struct http_ops {
    void *ctx;
    /* The head is there. Either return 0 (the body is read, then request() is called), or reply and return -1. */
    int (*head)(void *ctx, struct http_conn *c, const struct http_head *h);
    /* The request is complete; the reply may come now or later. What is in body may be taken with buf_take. */
    void (*request)(void *ctx, struct http_conn *c, const struct http_head *h, struct buf *body);
    /* The client left while a reply was owed to it; c is invalid afterwards. `owner` is what http_set_owner gave. */
    void (*gone)(void *ctx, void *owner);
    /* A request that could not be read gets this reply: fill *type and body. */
    void (*fault)(void *ctx, const struct http_fault *f, struct buf *body);
    /* A reply begins. h is empty when the head could not be read. */
    void (*replied)(void *ctx, const struct http_head *h, int status);
};

/* Bind; nobody can connect before http_listen. host: an address or a name; port 0: any. NULL and a sentence in *e. */
struct http_server *http_open(struct event_base *base, const char *host, int port, const struct http_limits *lim,
                              const struct http_ops *ops, struct err *e);
int http_listen(struct http_server *s, struct err *e);
void http_close(struct http_server *s); /* drops all connections without calling gone() */
int http_port(const struct http_server *s);
const char *http_address(const struct http_server *s); /* "host:port" for people */
int http_connections(const struct http_server *s);
int http_unsent(const struct http_server *s); /* connections with a reply owed or not wholly sent */
void http_drain(struct http_server *s);       /* every reply from now on closes its connection; idle ones close */

void http_set_owner(struct http_conn *c, void *owner);

/* A whole reply. `extra` is "" or header lines, each with CR LF. */
struct http_reply {
    int status;
    const char *type; /* Content-Type */
    const char *extra;
    const char *body;
    size_t n;
    bool close; /* afterwards */
};
void http_reply(struct http_conn *c, const struct http_reply *r);

/* A reply in pieces (chunked; to an HTTP/1.0 client until the connection closes). */
void http_stream_begin(struct http_conn *c, const char *type, const char *extra);
void http_stream_add(struct http_conn *c, const char *p, size_t n); /* n > 0 */
void http_stream_end(struct http_conn *c);

#endif
