/* routes.c: which paths there are, who may call them, and the small answers. Owned by the I/O thread. Everything but
 * /health needs the key when there is one; what is decided by the head is decided before the body is read. */
#include "serve/serve_int.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

enum { M_GET = 1 << HTTP_GET | 1 << HTTP_HEAD, M_POST = 1 << HTTP_POST, M_ALL = M_GET | M_POST | 1 << HTTP_OPTIONS };

struct path {
    const char *path;
    unsigned methods;
    bool open;                                              /* without a key */
    bool prefix;                                            /* and everything below it */
    bool needs_model;                                       /* 503 until serve_ready and while draining */
    enum route route;                                       /* an API call; 0: start() or small() answers */
    void (*start)(struct serve *s, struct http_conn *conn); /* answers later */
    const char *type;                                       /* of small's answer; NULL: JSON */
    int (*small)(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e);
};

static const struct front *front_of(struct serve *s) { return atomic_load_explicit(&s->front, memory_order_acquire); }

/* ---- small answers: fill b, or *e ---- */

static int get_root(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    (void)s, (void)h, (void)e;
    return buf_adds(b, "{\"name\":\"minisgl\",\"api\":[\"/v1/chat/completions\",\"/v1/completions\",\"/v1/models\","
                       "\"/generate\",\"/flush_cache\",\"/health\",\"/metrics\",\"/version\"]}");
}

static int get_version(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    (void)h, (void)e;
    buf_adds(b, "{\"version\":");
    buf_add_json(b, s->args.version, strlen(s->args.version));
    return buf_addc(b, '}');
}

static int get_alive(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    (void)s, (void)h, (void)e;
    return buf_adds(b, "{\"status\":\"ok\"}");
}

static void add_model(struct buf *b, const struct front *f, const char *name) {
    buf_adds(b, "{\"id\":");
    buf_add_json(b, name, strlen(name));
    buf_addf(b, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"minisgl\",\"root\":");
    buf_add_json(b, f->env.names[0], strlen(f->env.names[0]));
    buf_addf(b, ",\"parent\":null,\"max_model_len\":%d}", f->env.max_model_len);
}

static int get_models(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    (void)h, (void)e;
    const struct front *f = front_of(s);
    buf_adds(b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; f->env.names[i]; i++) {
        if (i) buf_addc(b, ',');
        add_model(b, f, f->env.names[i]);
    }
    return buf_adds(b, "]}");
}

static int hex(char c) {
    const char *all = "0123456789abcdef", *at = c ? strchr(all, c | 32) : NULL;
    if (c >= '0' && c <= '9') return c - '0';
    return at && (c | 32) >= 'a' ? (int)(at - all) : -1;
}

/* A model's name may hold slashes, plain or as %2F. */
static size_t decode(const char *p, size_t n, char *out, size_t max) {
    size_t k = 0;
    for (size_t i = 0; i < n && k < max; i++) {
        bool coded = p[i] == '%' && i + 2 < n && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0;
        out[k++] = coded ? (char)(hex(p[i + 1]) * 16 + hex(p[i + 2])) : p[i];
        if (coded) i += 2;
    }
    return k;
}

static int get_model(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    const struct front *f = front_of(s);
    char name[512];
    size_t skip = strlen("/v1/models/"), n = decode(h->path.p + skip, h->path.n - skip, name, sizeof name);
    for (int i = 0; f->env.names[i]; i++) {
        if (strlen(f->env.names[i]) != n || memcmp(f->env.names[i], name, n)) continue;
        add_model(b, f, f->env.names[i]);
        return 0;
    }
    return api_fail_code(e, 404, "model_not_found", "model", "no model of this name is served here; it is '%s'",
                         f->env.names[0]);
}

static void add_replies(struct serve *s, struct buf *b);

static int get_metrics(struct serve *s, const struct http_head *h, struct buf *b, struct api_err *e) {
    (void)h;
    const struct front *f = front_of(s);
    if (!f) return api_fail(e, 503, NULL, "the model is being loaded; try again in a moment");
    metrics_write(b, &s->metrics, &(struct metrics_args){s->args.stats, f->env.names[0], f->env.max_model_len});
    add_replies(s, b);
    return 0;
}

static const struct path paths[N_PATHS] = {
    {.path = "/v1/chat/completions", .methods = M_POST, .needs_model = true, .route = ROUTE_CHAT},
    {.path = "/v1/completions", .methods = M_POST, .needs_model = true, .route = ROUTE_COMPLETIONS},
    {.path = "/generate", .methods = M_POST, .needs_model = true, .route = ROUTE_GENERATE},
    {.path = "/flush_cache", .methods = 1 << HTTP_POST, .needs_model = true, .start = call_start_flush},
    {.path = "/v1/models", .methods = M_GET, .needs_model = true, .small = get_models},
    {.path = "/v1/models/", .methods = M_GET, .needs_model = true, .prefix = true, .small = get_model},
    {.path = "/health", .methods = M_GET, .open = true, .needs_model = true, .small = get_alive},
    {.path = "/metrics", .methods = M_GET, .type = METRICS_TYPE, .small = get_metrics},
    {.path = "/version", .methods = M_GET, .small = get_version},
    {.path = "/v1", .methods = M_ALL, .small = get_alive},
    {.path = "/", .methods = M_GET, .small = get_root},
};

static const struct path *find(const struct http_str *p) {
    for (size_t i = 0; i < N_PATHS; i++) {
        size_t n = strlen(paths[i].path);
        if (p->n < n || memcmp(p->p, paths[i].path, n)) continue;
        if (p->n == n ? !paths[i].prefix : paths[i].prefix) return &paths[i];
    }
    return NULL;
}

/* ---- replies counted ---- */

void route_replied(void *serve, const struct http_head *h, int status) {
    struct serve *s = serve;
    const struct path *p = find(&h->path);
    s->replies[p ? p - paths : N_PATHS][h->method][status / 100]++;
}

static void add_replies(struct serve *s, struct buf *b) {
    static const char *const methods[] = {"GET", "HEAD", "POST", "OPTIONS", "other"};
    buf_adds(
        b,
        "# HELP http_requests_total Replies by path, method and kind of status.\n# TYPE http_requests_total counter\n");
    for (int p = 0; p <= N_PATHS; p++)
        for (int m = 0; m <= HTTP_OTHER; m++)
            for (int k = 1; k < 6; k++)
                if (s->replies[p][m][k])
                    buf_addf(b, "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%dxx\"} %llu\n",
                             p < N_PATHS ? paths[p].path : "none", methods[m], k,
                             (unsigned long long)s->replies[p][m][k]);
}

/* ---- what the head decides ---- */

/* Both sides are hashed, so that neither a common beginning nor the length shows in the time taken. */
static bool key_fits(const struct serve *s, const struct http_head *h) {
    const struct http_str *v = http_header(h, "authorization");
    unsigned char want[SHA256_DIGEST_LENGTH], got[SHA256_DIGEST_LENGTH];
    if (!v || v->n < 7 || strncasecmp(v->p, "Bearer ", 7)) return false;
    SHA256((const unsigned char *)s->api_key, strlen(s->api_key), want);
    SHA256((const unsigned char *)v->p + 7, v->n - 7, got);
    return !CRYPTO_memcmp(want, got, sizeof want);
}

static void add_allow(char *out, size_t n, unsigned methods) {
    static const char *const names[] = {"GET", "HEAD", "POST", "OPTIONS"};
    size_t at = (size_t)snprintf(out, n, "Allow: ");
    for (unsigned i = 0; i < 4; i++)
        if (methods >> i & 1) at += (size_t)snprintf(out + at, n - at, "%s%s", at > 7 ? ", " : "", names[i]);
    snprintf(out + at, n - at, "\r\n");
}

static bool is_json(const struct http_head *h) {
    const struct http_str *v = http_header(h, "content-type");
    size_t n = strlen("application/json");
    if (!v || v->n < n || strncasecmp(v->p, "application/json", n)) return false;
    return v->n == n || v->p[n] == ';' || v->p[n] == ' ' || v->p[n] == '\t';
}

static int check_body(const struct serve *s, const struct http_head *h, struct api_err *e) {
    const struct http_str *coding = http_header(h, "content-encoding");
    if (!is_json(h)) return api_fail(e, 415, NULL, "the body must be JSON with Content-Type: application/json");
    if (coding && !http_str_is(coding, "identity"))
        return api_fail(e, 415, NULL, "a compressed body is not accepted; leave out Content-Encoding");
    if (!h->chunked && h->length < 0) return api_fail(e, 411, NULL, "Content-Length is missing");
    if (h->length > 0 && (uint64_t)h->length > s->lim.body)
        return api_fail(e, 413, NULL, "the body has %lld bytes; at most %zu are accepted", (long long)h->length,
                        s->lim.body);
    if (s->waiting >= s->lim.max_waiting)
        return api_fail_code(e, 429, "queue_full", NULL, "too many requests are waiting; try again in a moment");
    return 0;
}

static int check_head(struct serve *s, const struct http_head *h, struct api_err *e, char *allow, size_t n) {
    const struct path *p = find(&h->path);
    if (s->api_key && !(p && p->open) && !key_fits(s, h))
        return api_fail_code(e, 401, "invalid_api_key", NULL, "this server needs a key: Authorization: Bearer KEY");
    if (!p) return api_fail(e, 404, NULL, "there is no such path here");
    if (!(p->methods >> h->method & 1)) {
        add_allow(allow, n, p->methods);
        return api_fail(e, 405, NULL, "this path does not take that method");
    }
    if (p->needs_model && serve_refuses(s, e)) return -1;
    if (p->needs_model && !front_of(s))
        return api_fail(e, 503, NULL, "the model is being loaded; try again in a moment");
    return p->route ? check_body(s, h, e) : 0;
}

static void send_error(struct http_conn *conn, const struct api_err *e, const char *extra) {
    struct buf b;
    buf_init(&b, 16384);
    api_err_json(&b, e);
    http_reply(conn,
               &(struct http_reply){
                   .status = e->status, .type = "application/json", .extra = extra, .body = buf_str(&b), .n = b.len});
    buf_release(&b);
}

void route_refuse(struct http_conn *conn, const struct api_err *e) {
    bool later = e->status == 429 || e->status == 503;
    send_error(conn, e, e->status == 401 ? "WWW-Authenticate: Bearer\r\n" : later ? "Retry-After: 1\r\n" : "");
}

int route_head(void *serve, struct http_conn *conn, const struct http_head *h) {
    struct api_err e;
    char allow[80] = "";
    if (!check_head(serve, h, &e, allow, sizeof allow)) return 0;
    if (allow[0])
        send_error(conn, &e, allow);
    else
        route_refuse(conn, &e);
    return -1;
}

void route_request(void *serve, struct http_conn *conn, const struct http_head *h, struct buf *body) {
    struct serve *s = serve;
    const struct path *p = find(&h->path);
    if (p->route) {
        call_start(s, conn, p->route, body);
        return;
    }
    if (p->start) {
        p->start(s, conn);
        return;
    }
    struct buf b;
    struct api_err e;
    buf_init(&b, 1 << 20);
    if (p->small(s, h, &b, &e))
        route_refuse(conn, &e);
    else
        http_reply(conn,
                   &(struct http_reply){
                       .status = 200, .type = p->type ? p->type : "application/json", .body = buf_str(&b), .n = b.len});
    buf_release(&b);
}

void route_fault(void *serve, const struct http_fault *f, struct buf *body) {
    (void)serve;
    struct api_err e;
    api_fail(&e, f->status, NULL, "%s", f->text);
    api_err_json(body, &e);
}
