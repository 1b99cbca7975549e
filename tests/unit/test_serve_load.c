/* test_serve_load.c: many clients, slow ones, ones that leave, full queues, keys, start and end. */
#include "serve_rig.h"

#include <sys/resource.h>

#define C "/v1/completions"
#define ENDLESS "{\"prompt\":\"endless \",\"max_tokens\":4000,\"stream\":true}"

static void post(int fd, const char *path, const char *body) { rig_send_post(fd, path, body, strlen(body)); }

/* Read until something of the stream has come. */
static void wait_for_stream(int fd, struct answer *a) {
    while (!a->raw.data || !strstr(a->raw.data, "data: ")) assert_true(answer_more(a, fd));
}

static void reset(int fd) { /* close with RST */
    struct linger l = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

/* ---- many at once ---- */

struct client {
    struct rig *rig;
    int i;
    bool right;
};

/* The text of a completions stream. */
static void stream_text(const struct answer *a, struct buf *text) {
    for (const char *p = buf_str(&a->body); (p = strstr(p, "data: {")); p++) {
        json_t *j = json_loads(p + 6, JSON_DISABLE_EOF_CHECK, NULL);
        const char *s = json_string_value(json_object_get(json_array_get(json_object_get(j, "choices"), 0), "text"));
        if (s) buf_adds(text, s);
        json_decref(j);
    }
}

static void *client_run(void *arg) {
    struct client *c = arg;
    c->right = true;
    for (int round = 0; round < 3 && c->right; round++) {
        char body[200], word[32];
        struct answer a;
        struct buf text;
        int fd = rig_connect(c->rig), n = snprintf(word, sizeof word, "client %d.%d; ", c->i, round), made = 300 + c->i;
        snprintf(body, sizeof body, "{\"prompt\":\"%s\",\"max_tokens\":%d,\"stream\":%s}", word, made,
                 round == 1 ? "false" : "true");
        answer_init(&a);
        buf_init(&text, 1 << 20);
        post(fd, C, body);
        answer_read(&a, fd, false);
        if (round == 1) {
            json_t *j = json_loads(buf_str(&a.body), 0, NULL);
            buf_adds(&text,
                     json_string_value(json_object_get(json_array_get(json_object_get(j, "choices"), 0), "text")));
            json_decref(j);
        } else
            stream_text(&a, &text);
        c->right = a.status == 200 && text.len == (size_t)made;
        for (size_t i = 0; i < text.len && c->right; i++) c->right = text.data[i] == word[i % (size_t)n];
        buf_release(&text);
        answer_release(&a);
        close(fd);
    }
    return NULL;
}

static void sixty_four_streams(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct client c[64];
    pthread_t t[64];
    for (int i = 0; i < 64; i++) {
        c[i] = (struct client){g, i, false};
        pthread_create(&t[i], NULL, client_run, &c[i]);
    }
    for (int i = 0; i < 64; i++) {
        pthread_join(t[i], NULL);
        assert_true(c[i].right);
    }
    assert_true(rig_settle(g, 0));
    rig_close(g);
}

/* ---- clients that leave ---- */

static void clients_that_leave(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    g->step_us = 2000;
    for (int how = 0; how < 3; how++) { /* close, reset, half-close */
        for (int stage = 0; stage < 7; stage++) {
            struct answer a;
            int fd = rig_connect(g), before = g->cancelled;
            answer_init(&a);
            g->hold = stage == 3 || stage == 4;
            switch (stage) {
            case 0: break; /* said nothing */
            case 1: rig_send(fd, "POST /v1/comp", 13); break;
            case 2:
                rig_send(fd,
                         "POST " C
                         " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
                         91);
                break;
            case 3: post(fd, C, ENDLESS); break; /* before the first token */
            case 4: post(fd, C, "{\"prompt\":[\"a\",\"b\"],\"n\":3,\"max_tokens\":4000}"); break;
            case 5: /* while it streams */
                post(fd, C, ENDLESS);
                wait_for_stream(fd, &a);
                break;
            case 6: /* with the next request behind it */
                post(fd, C, ENDLESS);
                wait_for_stream(fd, &a);
                post(fd, C, ENDLESS);
                break;
            }
            if (stage >= 3)
                assert_true(rig_settle(g, stage == 4 ? 6 : 1));
            else
                usleep(2000);
            if (how == 0)
                close(fd);
            else if (how == 1)
                reset(fd);
            else
                shutdown(fd, SHUT_WR);
            assert_true(rig_settle(g, 0));
            if (stage >= 3) assert_int_equal(g->cancelled - before, stage == 4 ? 6 : 1);
            g->hold = false;
            if (how == 2) {
                while (answer_more(&a, fd)) {
                } /* the server closes its side too */
                close(fd);
            }
            answer_release(&a);
            rig_probe(g);
        }
    }
    rig_close(g);
}

/* A body large enough for a text thread, whose client is gone before it was looked at. */
static void clients_that_leave_large_bodies(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct buf b;
    buf_init(&b, 1 << 24);
    buf_adds(&b, "{\"max_tokens\":1,\"x\":\"");
    for (int i = 0; i < 100000; i++) buf_addc(&b, 'x');
    buf_adds(&b, "\",\"prompt\":\"large\"}");
    for (int i = 0; i < 50; i++) {
        int fd = rig_connect(g);
        rig_send_post(fd, C, b.data, b.len);
        if (i % 2)
            reset(fd);
        else
            close(fd);
    }
    struct answer a;
    rig_call(g, C, b.data, b.len, &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(a.body.data, "\"text\":\"l\""));
    answer_release(&a);
    buf_release(&b);
    assert_true(rig_settle(g, 0));
    rig_close(g);
}

/* ---- clients that are slow ---- */

#define SLOW(s) slow(g, s, sizeof s - 1)
static int slow(struct rig *g, const char *first, size_t n) {
    bool closed;
    int status = rig_raw(g, first, n, &closed); /* sends no more, and waits */
    assert_true(closed);
    return status;
}

#define HEAD "POST " C " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"

static void slow_requests(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){.limits = {.head_s = 1, .gap_s = 1, .body_s = 2, .idle_s = 1}});
    assert_int_equal(SLOW("GET / HTTP/1.1\r\nHo"), 408);
    assert_int_equal(SLOW(HEAD "Content-Length: 9\r\n\r\n{"), 408);
    assert_int_equal(SLOW(HEAD "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"), 408);
    int fd = rig_connect(g); /* a byte now and then does not help for ever */
    struct answer a;
    answer_init(&a);
    rig_send(fd, HEAD "Content-Length: 99\r\n\r\n", strlen(HEAD) + 22);
    for (int i = 0; i < 10; i++) {
        rig_send(fd, " ", 1);
        usleep(300000);
    }
    answer_read(&a, fd, false);
    assert_int_equal(a.status, 408);
    close(fd);
    answer_release(&a);
    answer_init(&a);
    fd = rig_connect(g); /* between requests: closed without a word */
    rig_send(fd, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n", 33);
    answer_read(&a, fd, false);
    assert_int_equal(a.status, 200);
    answer_read(&a, fd, false);
    assert_true(a.closed);
    assert_int_equal(a.status, 0);
    answer_release(&a);
    close(fd);
    rig_probe(g);
    rig_close(g);
}

static void a_slow_reader_is_dropped(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){.limits = {.unsent = 64 << 10}});
    int fd = rig_connect(g), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    g->step_us = 2000; /* slow enough for the I/O thread to send each step by itself, under a sanitizer too */
    struct answer a;
    answer_init(&a);
    post(fd, C, "{\"prompt\":\"s\",\"max_tokens\":4000,\"n\":128,\"stream\":true}");
    for (int i = 0; i < 20; i++) rig_probe(g); /* the others have their answers meanwhile */
    assert_true(rig_settle(g, 0));
    assert_true(g->cancelled > 0);
    while (answer_more(&a, fd)) {
    }
    answer_release(&a);
    close(fd);
    rig_probe(g);
    rig_close(g);
}

static void too_many_connections(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){.limits = {.connections = 5}});
    int fds[5];
    for (int i = 0; i < 5; i++) {
        struct answer a;
        answer_init(&a);
        fds[i] = rig_connect(g);
        rig_send(fds[i], "GET /health HTTP/1.1\r\nHost: t\r\n\r\n", 33);
        answer_read(&a, fds[i], false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
    }
    int fd = rig_connect(g);
    struct answer a;
    answer_init(&a);
    answer_read(&a, fd, false);
    assert_int_equal(a.status, 503);
    answer_release(&a);
    close(fd);
    for (int i = 0; i < 5; i++) close(fds[i]);
    usleep(50000);
    rig_probe(g);
    rig_close(g);
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* With no descriptor left the waiting connection must not make the server spin. */
static void no_descriptor_left(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct rlimit old, low;
    int probe = dup(0), fds[8];
    close(probe);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = (rlim_t)probe + 12; /* each connection takes two: ours and the server's */
    setrlimit(RLIMIT_NOFILE, &low);
    for (int i = 0; i < 8; i++) fds[i] = rig_connect(g); /* the last ones wait in the kernel */
    double before = cpu_seconds();
    usleep(500000);
    double used = cpu_seconds() - before;
    setrlimit(RLIMIT_NOFILE, &old);
    for (int i = 0; i < 8; i++)
        if (fds[i] >= 0) close(fds[i]);
    usleep(200000);
    rig_probe(g);
    rig_close(g);
    assert_true(used < 0.2);
}

/* ---- queue, key, start, end ---- */

static void a_full_queue(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){.limits = {.max_waiting = 4}});
    g->hold = true;
    int fds[4];
    char v[64];
    for (int i = 0; i < 4; i++) {
        fds[i] = rig_connect(g);
        post(fds[i], C, "{\"prompt\":\"q\",\"max_tokens\":3}");
    }
    assert_true(rig_settle(g, 4));
    for (int stream = 0; stream < 2; stream++) {
        struct answer a;
        const char *body = stream ? "{\"prompt\":\"q\",\"stream\":true}" : "{\"prompt\":\"q\"}";
        rig_call(g, C, body, strlen(body), &a);
        assert_int_equal(a.status, 429);
        assert_string_equal(answer_header(&a, "retry-after", v, sizeof v), "1");
        assert_non_null(strstr(a.body.data, "queue_full"));
        answer_release(&a);
    }
    g->hold = false;
    for (int i = 0; i < 4; i++) {
        struct answer a;
        answer_init(&a);
        answer_read(&a, fds[i], false);
        assert_int_equal(a.status, 200);
        answer_release(&a);
        close(fds[i]);
    }
    struct answer a; /* one request of more choices than that alone is no overload */
    rig_call(g, C, "{\"prompt\":\"q\",\"n\":6}", 20, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    rig_close(g);
}

static int with_key(struct rig *g, const char *path, const char *header) {
    struct buf b;
    buf_init(&b, 4 << 20);
    buf_addf(&b, "GET %s HTTP/1.1\r\nHost: t\r\n%s\r\n", path, header);
    int status = rig_raw(g, b.data, b.len, NULL);
    buf_release(&b);
    return status;
}

static void keys(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){.api_key = "s3cret"});
    static const struct {
        const char *path, *header;
        int status;
    } rows[] = {
        {"/health", "", 200},
        {"/v1/models", "", 401},
        {"/v1/models", "Authorization: Bearer s3cret\r\n", 200},
        {"/v1/models", "Authorization: bearer s3cret\r\n", 200},
        {"/v1/models", "Authorization: Bearer s3cre\r\n", 401},
        {"/v1/models", "Authorization: Bearer s3crets\r\n", 401},
        {"/v1/models", "Authorization: Bearer \r\n", 401},
        {"/v1/models", "Authorization: s3cret\r\n", 401},
        {"/v1/models", "Authorization: Bearer s3cret\r\nAuthorization: Bearer s3cret\r\n", 401},
        {"/", "", 401},
        {"/v1", "", 401},
        {"/version", "", 401},
        {"/metrics", "", 401},
        {"/flush_cache", "", 401},
        {"/v1/chat/completions", "", 401},
        {"/v1/completions", "", 401},
        {"/generate", "", 401},
        {"/nowhere", "", 401},
        {"/health/", "", 401},
        {"//health", "", 401},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(with_key(g, rows[i].path, rows[i].header), rows[i].status);
    char long_key[8100];
    memset(long_key, 'k', sizeof long_key);
    memcpy(long_key, "Authorization: Bearer ", 22);
    memcpy(long_key + 8097, "\r\n", 3);
    assert_int_equal(with_key(g, "/v1/models", long_key), 401);
    struct answer a;
    rig_call(g, C, "{\"prompt\":\"q\"}", 14, &a);
    assert_int_equal(a.status, 401);
    answer_release(&a);
    rig_close(g);
}

static void not_ready(void **state) {
    (void)state;
    struct rig *g = rig_open_unready(&(struct serve_args){0});
    struct answer a;
    assert_int_equal(with_key(g, "/health", ""), 503);
    assert_int_equal(with_key(g, "/v1/models", ""), 503);
    assert_int_equal(with_key(g, "/v1", ""), 200);
    rig_call(g, C, "{\"prompt\":\"q\"}", 14, &a);
    assert_int_equal(a.status, 503);
    answer_release(&a);
    serve_ready(g->serve, &g->front);
    assert_int_equal(with_key(g, "/health", ""), 200);
    rig_probe(g);
    rig_close(g);
}

static void drain(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct answer a[16], b;
    int fds[16];
    g->step_us = 500;
    for (int i = 0; i < 16; i++) {
        fds[i] = rig_connect(g);
        answer_init(&a[i]);
        post(fds[i], C,
             i % 2 ? "{\"prompt\":\"drain \",\"max_tokens\":600,\"stream\":true}"
                   : "{\"prompt\":\"drain \",\"max_tokens\":600}");
    }
    assert_true(rig_settle(g, 16));
    serve_stop(g->serve);
    usleep(20000);
    assert_int_equal(with_key(g, "/health", ""), 503);
    rig_call(g, C, "{\"prompt\":\"q\"}", 14, &b);
    assert_int_equal(b.status, 503);
    answer_release(&b);
    for (int i = 0; i < 16; i++) {
        answer_read(&a[i], fds[i], false);
        assert_int_equal(a[i].status, 200);
        struct buf text;
        buf_init(&text, 1 << 20);
        if (i % 2) stream_text(&a[i], &text);
        if (i % 2) assert_int_equal(text.len, 600);
        if (i % 2)
            assert_non_null(strstr(a[i].body.data, "data: [DONE]"));
        else
            assert_non_null(strstr(a[i].body.data, "\"finish_reason\":\"length\""));
        buf_release(&text);
        answer_release(&a[i]);
        close(fds[i]);
    }
    rig_finish(g);
}

static void everybody_is_told_of_a_broken_machine(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct answer a;
    const char *why = "GPU 3 is gone";
    int fds[2];
    answer_init(&a);
    g->hold = true;
    for (int i = 0; i < 2; i++) fds[i] = rig_connect(g);
    post(fds[0], C, "{\"prompt\":\"a\",\"max_tokens\":600}");
    post(fds[1], C, "{\"prompt\":\"a\",\"max_tokens\":600,\"stream\":true}");
    assert_true(rig_settle(g, 2));
    serve_fail(g->serve, why);
    for (int i = 0; i < 2; i++) {
        answer_read(&a, fds[i], false);
        assert_int_equal(a.status, 503);
        assert_non_null(strstr(buf_str(&a.body), why));
        close(fds[i]);
    }
    static const char *const later[] = {"/health", "/v1/models"};
    for (int i = 0; i < 2; i++) {
        char head[100];
        int fd = rig_connect(g), n = snprintf(head, sizeof head, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", later[i]);
        rig_send(fd, head, (size_t)n);
        answer_read(&a, fd, false);
        assert_int_equal(a.status, 503);
        assert_non_null(strstr(buf_str(&a.body), why));
        close(fd);
    }
    answer_release(&a);
    g->hold = false;
    rig_close(g);
}

static void stop_at_once(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    int fd = rig_connect(g);
    g->step_us = 1000;
    post(fd, C, ENDLESS);
    assert_true(rig_settle(g, 1));
    serve_stop(g->serve);
    serve_stop(g->serve);
    rig_finish(g); /* returns long before 4000 steps are over: the request is cancelled */
    close(fd);
}

static void a_port_in_use(void **state) {
    (void)state;
    struct rig *g = rig_open(&(struct serve_args){0});
    struct err e;
    assert_null(serve_open(&(struct serve_args){.host = "127.0.0.1", .port = g->port}, &e));
    assert_non_null(strstr(e.text, "is in use"));
    assert_null(serve_open(&(struct serve_args){.host = "no.such.host.invalid", .port = 0}, &e));
    assert_non_null(strstr(e.text, "--host"));
    rig_close(g);
}

/* Between serve_open and serve_listen the model's files are examined: the port is taken, but nobody gets in. */
static void nobody_connects_before_serve_listen(void **state) {
    (void)state;
    struct err e;
    struct serve *s = serve_open(&(struct serve_args){.host = "127.0.0.1", .version = "test"}, &e);
    assert_non_null(s);
    struct rig g = {.port = serve_port(s)};
    assert_int_equal(rig_connect(&g), -1);
    assert_int_equal(serve_listen(s, &e), 0);
    int fd = rig_connect(&g);
    assert_true(fd >= 0);
    close(fd);
    serve_close(s);
}

static void a_port_taken_before_serve_listen(void **state) {
    (void)state;
    struct err e;
    struct serve *a = serve_open(&(struct serve_args){.host = "127.0.0.1", .version = "test"}, &e), *b;
    assert_non_null(a);
    b = serve_open(&(struct serve_args){.host = "127.0.0.1", .port = serve_port(a), .version = "test"}, &e);
    assert_non_null(b);
    assert_int_equal(serve_listen(a, &e), 0);
    assert_int_equal(serve_listen(b, &e), -1);
    assert_non_null(strstr(e.text, "cannot listen on 127.0.0.1:"));
    serve_close(b);
    serve_close(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixty_four_streams),
        cmocka_unit_test(clients_that_leave),
        cmocka_unit_test(clients_that_leave_large_bodies),
        cmocka_unit_test(slow_requests),
        cmocka_unit_test(a_slow_reader_is_dropped),
        cmocka_unit_test(too_many_connections),
        cmocka_unit_test(no_descriptor_left),
        cmocka_unit_test(a_full_queue),
        cmocka_unit_test(keys),
        cmocka_unit_test(not_ready),
        cmocka_unit_test(drain),
        cmocka_unit_test(everybody_is_told_of_a_broken_machine),
        cmocka_unit_test(stop_at_once),
        cmocka_unit_test(a_port_in_use),
        cmocka_unit_test(nobody_connects_before_serve_listen),
        cmocka_unit_test(a_port_taken_before_serve_listen),
    };
    return cmocka_run_group_tests_name("serve_load", tests, NULL, NULL);
}
