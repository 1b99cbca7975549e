/* serve_rig.h: a whole HTTP server over a scheduler that echoes, for the tests of serve. A raw-socket client beside it.
 *
 * The fake scheduler answers each request with its own prompt, one token a step, over and over. */
#ifndef MINISGL_TESTS_SERVE_RIG_H
#define MINISGL_TESTS_SERVE_RIG_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/log.h"
#include "serve/serve.h"
#include "serve/words.h"
#include "text/template.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-function" /* not every test needs every helper */

enum { RIG_CONTEXT = 4096, RIG_VOCAB = 260, RIG_EOS = 4 }; /* byte 4 in a prompt ends the echo */

struct rig {
    struct inbox inbox;
    struct front front;
    struct tokenizer *tokenizer;
    struct chat_template *chat_template;
    struct words *words;
    struct serve *serve;
    pthread_t scheduler, io;
    atomic_int live;      /* requests the scheduler has */
    atomic_int step_us;   /* pause between steps */
    atomic_bool hold;     /* no tokens while set */
    atomic_int fail;      /* the next request ends so (enum finish) */
    atomic_int cancelled; /* requests that ended by a cancel */
    int port;
};

/* ---- the scheduler ---- */

static void rig_logprobs(struct request *r, int32_t i) {
    struct token_logprobs *l = &r->out_logprobs[i];
    l->chosen = -0.5f;
    l->n = r->sampling.n_logprobs;
    for (int k = 0; k < l->n; k++) l->top[k] = (struct logprob){(r->out_tokens[i] + k) % 256, -0.5f - (float)k};
}

static bool rig_is_stop(const struct request *r, int32_t id) {
    for (int i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] == id) return true;
    return false;
}

static void rig_step(struct rig *g, struct request *r) {
    int fail = atomic_exchange(&g->fail, 0);
    if (atomic_load(&r->cancelled)) {
        r->finish = FINISH_ABORT;
        g->cancelled++;
    } else if (fail) {
        r->finish = (enum finish)fail;
    } else if (!g->hold) {
        int32_t i = r->n_out, id = r->prompt[i % r->n_prompt];
        r->out_tokens[i] = id;
        if (r->out_logprobs) rig_logprobs(r, i);
        r->n_cached = r->n_prompt / 2;
        r->n_out++;
        if (rig_is_stop(r, id))
            r->finish = FINISH_STOP, r->stop_id = id;
        else if (r->n_out == r->max_tokens)
            r->finish = FINISH_LENGTH;
    } else
        return;
    outbox_post(r->outbox, r);
}

static void *rig_schedule(void *arg) {
    struct rig *g = arg;
    struct request *all[4096];
    int n = 0;
    struct inbox_news news = {0};
    while (!news.draining || n) {
        inbox_take(&g->inbox, !n, &news);
        if (news.flush_for && !g->hold) outbox_flushed(news.flush_for, news.flushes);
        for (struct request *r = news.requests, *next; r; r = next) {
            next = r->next_in;
            if (n == 4096) abort();
            all[n++] = r;
        }
        g->live = n;
        for (int i = 0; i < n;) {
            struct outbox *box = all[i]->outbox;
            outbox_lock(box);
            rig_step(g, all[i]);
            bool over = all[i]->finish != FINISH_NONE;
            if (over)
                all[i] = all[--n];
            else
                i++;
            g->live = n;
            outbox_unlock(box);
        }
        if (g->step_us || g->hold) usleep(g->step_us ? (unsigned)g->step_us : 200);
    }
    return NULL;
}

static void *rig_io(void *arg) {
    serve_run(arg);
    return NULL;
}

/* ---- start and end ---- */

static const char *const rig_names[] = {"echo", "org/echo-2", NULL};
static const int32_t rig_eos[] = {RIG_EOS};

/* A chat template that is nothing but the messages' text, so that prompts are what the tests wrote. */
static struct chat_template *rig_template(void) {
    char path[] = "/tmp/minisgl-rig-XXXXXX";
    const char *text = "{% for m in messages %}{{ m.content }}{% endfor %}";
    struct err e;
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) abort();
    close(fd);
    struct chat_template *t = chat_template_open(NULL, path, &e);
    unlink(path);
    if (!t) abort();
    return t;
}

static struct rig *rig_open_unready(const struct serve_args *base) {
    struct rig *g = calloc(1, sizeof *g);
    struct serve_args a = *base;
    struct err e;
    log_set_style(&(struct log_style){.lowest = LOG_ERROR});
    inbox_init(&g->inbox);
    g->tokenizer = tokenizer_bytes(RIG_VOCAB);
    g->chat_template = rig_template();
    g->words = words_new(g->tokenizer, g->chat_template);
    g->front = (struct front){.inbox = &g->inbox,
                              .words = g->words,
                              .env = {.n_vocab = RIG_VOCAB,
                                      .max_model_len = RIG_CONTEXT,
                                      .names = rig_names,
                                      .alias = "/models/echo",
                                      .temperature = 1,
                                      .top_p = 1},
                              .eos = rig_eos,
                              .n_eos = 1};
    if (!a.host) a.host = "127.0.0.1";
    a.version = "test";
    g->serve = serve_open(&a, &e);
    if (!g->serve || serve_listen(g->serve, &e)) {
        print_error("%s\n", e.text);
        abort();
    }
    g->port = serve_port(g->serve);
    pthread_create(&g->scheduler, NULL, rig_schedule, g);
    pthread_create(&g->io, NULL, rig_io, g->serve);
    return g;
}

static struct rig *rig_open(const struct serve_args *base) {
    struct rig *g = rig_open_unready(base);
    serve_ready(g->serve, &g->front);
    return g;
}

/* Wait for serve_run to return, end the scheduler, free everything. */
static void rig_finish(struct rig *g) {
    pthread_join(g->io, NULL);
    inbox_drain_begin(&g->inbox);
    pthread_join(g->scheduler, NULL);
    serve_close(g->serve);
    inbox_release(&g->inbox);
    words_free(g->words);
    chat_template_free(g->chat_template);
    tokenizer_close(g->tokenizer);
    free(g);
}

static void rig_close(struct rig *g) {
    serve_stop(g->serve);
    rig_finish(g);
}

/* Wait (at most 10 s) until the scheduler has n requests. */
static bool rig_settle(struct rig *g, int n) {
    for (int i = 0; i < 10000 && g->live != n; i++) usleep(1000);
    return g->live == n;
}

/* ---- a client ---- */

static int rig_connect(const struct rig *g) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)g->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval tv = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void rig_send(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return; /* the server may refuse before it has read everything */
        p += k;
        n -= (size_t)k;
    }
}

/* An answer as it was received: status 0 when the connection ended before one. */
struct answer {
    int status;
    bool closed, chunked;
    struct buf raw;  /* everything that was read and not used yet */
    struct buf head; /* with the empty line */
    struct buf body;
};

static void answer_init(struct answer *a) {
    *a = (struct answer){0};
    buf_init(&a->raw, 1 << 30);
    buf_init(&a->head, 1 << 20);
    buf_init(&a->body, 1 << 30);
}

static void answer_release(struct answer *a) {
    buf_release(&a->raw);
    buf_release(&a->head);
    buf_release(&a->body);
}

static bool answer_more(struct answer *a, int fd) {
    char tmp[65536];
    ssize_t n;
    do n = recv(fd, tmp, sizeof tmp, 0);
    while (n < 0 && errno == EINTR); /* a test that was stopped (SIGSTOP) and goes on */
    if (n <= 0) {
        a->closed = true;
        return false;
    }
    buf_add(&a->raw, tmp, (size_t)n);
    return true;
}

static void answer_use(struct answer *a, size_t n) {
    memmove(a->raw.data, a->raw.data + n, a->raw.len - n);
    a->raw.len -= n;
    a->raw.data[a->raw.len] = 0;
}

static const char *answer_header(const struct answer *a, const char *name, char *out, size_t n) {
    for (const char *p = strstr(buf_str(&a->head), "\r\n"); p && p[2] != '\r'; p = strstr(p + 2, "\r\n")) {
        if (strncasecmp(p + 2, name, strlen(name)) || p[2 + strlen(name)] != ':') continue;
        const char *v = p + 2 + strlen(name) + 1, *end = strstr(v, "\r\n");
        while (*v == ' ') v++;
        snprintf(out, n, "%.*s", (int)(end - v), v);
        return out;
    }
    return NULL;
}

static void answer_chunks(struct answer *a, int fd) {
    for (;;) {
        char *line;
        while (!a->raw.data || !(line = strstr(a->raw.data, "\r\n")))
            if (!answer_more(a, fd)) return;
        size_t n = strtoul(a->raw.data, NULL, 16), skip = (size_t)(line - a->raw.data) + 2;
        while (a->raw.len < skip + n + 2)
            if (!answer_more(a, fd)) return;
        buf_add(&a->body, a->raw.data + skip, n);
        answer_use(a, skip + n + 2);
        if (!n) return;
    }
}

/* Read one answer; call again on the same connection for the next. head_only: the answer to a HEAD request. */
static void answer_read(struct answer *a, int fd, bool head_only) {
    char v[64], *end = NULL;
    a->status = 0;
    buf_reset(&a->head);
    buf_reset(&a->body);
    do {
        while (!a->raw.data || !(end = strstr(a->raw.data, "\r\n\r\n")))
            if (!answer_more(a, fd)) return;
        buf_reset(&a->head);
        buf_add(&a->head, a->raw.data, (size_t)(end - a->raw.data) + 4);
        answer_use(a, a->head.len);
        a->status = atoi(a->head.data + 9);
    } while (a->status == 100);
    a->chunked = answer_header(a, "transfer-encoding", v, sizeof v) != NULL;
    if (a->chunked)
        answer_chunks(a, fd);
    else if (answer_header(a, "content-length", v, sizeof v) && !head_only) {
        size_t n = strtoul(v, NULL, 10);
        while (a->raw.len < n)
            if (!answer_more(a, fd)) return;
        buf_add(&a->body, buf_str(&a->raw), n);
        if (n) answer_use(a, n);
    } else if (!head_only) {
        while (answer_more(a, fd)) {
        }
        buf_add(&a->body, buf_str(&a->raw), a->raw.len);
    }
}

static void rig_send_post(int fd, const char *path, const char *body, size_t n) {
    char head[256];
    int k = snprintf(head, sizeof head,
                     "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n",
                     path, n);
    rig_send(fd, head, (size_t)k);
    rig_send(fd, body, n);
}

/* One call on a connection of its own. */
static void rig_call(struct rig *g, const char *path, const char *body, size_t n, struct answer *a) {
    int fd = rig_connect(g);
    assert_true(fd >= 0);
    answer_init(a);
    rig_send_post(fd, path, body, n);
    answer_read(a, fd, false);
    close(fd);
}

/* The status of a raw request; *closed tells whether the server ended the connection. */
static int rig_raw(struct rig *g, const char *p, size_t n, bool *closed) {
    struct answer a;
    int fd = rig_connect(g);
    assert_true(fd >= 0);
    answer_init(&a);
    rig_send(fd, p, n);
    answer_read(&a, fd, !strncmp(p, "HEAD ", 5));
    if (a.status >= 400) {
        json_t *j = json_loadb(buf_str(&a.body), a.body.len, 0, NULL);
        json_t *e = json_object_get(j, "error");
        assert_true(json_is_string(json_object_get(e, "message")));
        assert_true(json_is_string(json_object_get(e, "type")));
        assert_non_null(json_object_get(e, "param"));
        assert_non_null(json_object_get(e, "code"));
        json_decref(j);
    }
    if (closed) {
        while (!a.closed && answer_more(&a, fd)) {
        }
        *closed = a.closed;
    }
    int status = a.status;
    answer_release(&a);
    close(fd);
    return status;
}

/* The server is alive and right: the probe of every bad-input test. */
static void rig_probe(struct rig *g) {
    static const char body[] = "{\"prompt\": \"probe\", \"max_tokens\": 10, \"temperature\": 0}";
    struct answer a;
    rig_call(g, "/v1/completions", body, sizeof body - 1, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(buf_str(&a.body), "\"text\":\"probeprobe\""));
    assert_non_null(strstr(buf_str(&a.body), "\"finish_reason\":\"length\""));
    answer_release(&a);
}

#endif
