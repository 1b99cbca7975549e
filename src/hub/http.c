/* http.c: see http.h. One thread owns a client. Refuses to leave https for http on the way, and answers larger than
 * asked for. */
#include "hub/http.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hub/listing.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    TRIES = 6,
    TRIES_TO_REACH = 3,
    FIRST_WAIT_MS = 500,
    WAIT_MAX_S = 300,
    CONNECT_S = 10,
    COMPLAINT_MAX = 1 << 16,
    MOVES_MAX = 5,
    TELL_MS = 2000
};

/* ---- the client ---- */

/* Where Hugging Face's own tools keep the token after a log-in. */
static char *token_of_file(const struct hub_settings *s) {
    char *base = NULL, *path, *text = NULL;
    size_t n;
    if (s->source != HUB_HUGGINGFACE) return NULL;
    if (s->hf_home)
        base = s->hf_home[0] == '~' && s->home ? path_join(s->home, s->hf_home + 1) : mem_strdup(s->hf_home);
    else if (s->cache_home)
        base = path_join(s->cache_home, "huggingface");
    else if (s->home)
        base = path_join(s->home, ".cache/huggingface");
    if (!base) return NULL;
    path = path_join(base, "token");
    if (!file_read(path, 4096, &text, &n, NULL)) text[strcspn(text, " \r\n")] = 0;
    if (text && !*text) free(text), text = NULL;
    free(path);
    free(base);
    return text;
}

/* The host and port of an address, without a user's name and password: it is shown. */
static const char *host_of(const char *url, size_t *n) {
    const char *host = strstr(url, "://");
    if (!host) return NULL;
    *n = strcspn(host += 3, "/?#");
    const char *at = memrchr(host, '@', *n);
    if (at) *n -= (size_t)(at + 1 - host), host = at + 1;
    return host;
}

static int set_endpoint(struct hub_client *c, struct err *e) {
    const char *url = c->s->endpoint;
    bool plain = strncasecmp(url, "http://", 7) == 0, tls = strncasecmp(url, "https://", 8) == 0;
    if (!plain && !tls && strstr(url, "://"))
        return err_input(e, "the hub's address %.200s must begin with https:// or http://", url);
    struct buf b;
    buf_init(&b, 2000);
    if (!plain && !tls) buf_adds(&b, "https://");
    buf_adds(&b, url);
    while (b.len && b.data[b.len - 1] == '/') b.data[--b.len] = 0;
    if (b.over) {
        buf_release(&b);
        return err_input(e, "the hub's address is longer than a thousand bytes");
    }
    c->endpoint = buf_take(&b, NULL);
    size_t n;
    const char *host = host_of(c->endpoint, &n);
    c->host = mem_strndup(host, n);
    if (plain && c->token && strncmp(c->host, "127.", 4) && strncmp(c->host, "localhost", 9))
        log_warning("the token goes to %s without encryption, since its address begins with http://", c->host);
    return 0;
}

static void add_header(struct hub_client *c, const char *fmt, const char *value) {
    struct buf b;
    buf_init(&b, 8192);
    buf_addf(&b, fmt, value);
    c->headers = curl_slist_append(c->headers, buf_str(&b));
    buf_release(&b);
}

int hub_client_open(struct hub_client *c, const struct hub_settings *s, const char *name, const char *revision,
                    struct err *e) {
    *c = (struct hub_client){.s = s, .name = name, .revision = revision};
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) return err_machine(e, "libcurl cannot be started");
    c->token = s->token ? mem_strdup(s->token) : token_of_file(s);
    if (c->token && c->token[strspn(c->token, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/=")])
        return err_input(
            e, "the hub's token has characters that no token has; is HF_TOKEN or the token file what it should be?");
    if (set_endpoint(c, e)) return -1;
    if (c->token) add_header(c, "Authorization: Bearer %s", c->token);
    if (c->token && s->source == HUB_MODELSCOPE) add_header(c, "Cookie: m_session_id=%s", c->token);
    return 0;
}

void hub_client_close(struct hub_client *c) {
    curl_slist_free_all(c->headers);
    free(c->endpoint);
    free(c->host);
    free(c->token);
    *c = (struct hub_client){0};
    curl_global_cleanup();
}

/* ---- headers ---- */

static bool header_is(const char *line, size_t n, const char *name, const char **value, size_t *len) {
    size_t w = strlen(name);
    if (n <= w || line[w] != ':' || strncasecmp(line, name, w)) return false;
    const char *p = line + w + 1, *end = line + n;
    while (p < end && isspace((unsigned char)*p)) p++;
    while (end > p && isspace((unsigned char)end[-1])) end--;
    *value = p;
    *len = (size_t)(end - p);
    return true;
}

static void copy(char *out, size_t room, const char *s, size_t n) {
    if (n >= room) n = room - 1;
    memcpy(out, s, n);
    out[n] = 0;
}

/* W/"abc" and "abc" are abc. One that is too long is none. */
static void copy_etag(char out[HUB_SUM_MAX + 1], const char *s, size_t n) {
    if (n > 2 && s[0] == 'W' && s[1] == '/') s += 2, n -= 2;
    if (n > 1 && s[0] == '"' && s[n - 1] == '"') s++, n -= 2;
    if (n <= HUB_SUM_MAX) copy(out, HUB_SUM_MAX + 1, s, n);
}

static size_t number(const char *s, size_t n) {
    size_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)s[i]) || v > (SIZE_MAX - 9) / 10) return SIZE_MAX;
        v = v * 10 + (size_t)(s[i] - '0');
    }
    return n ? v : SIZE_MAX;
}

/* "bytes 5-9/10" or, with status 416, "bytes * /10" without the blank. */
static void read_range(struct hub_answer *a, const char *s, size_t n) {
    const char *end = s + n, *slash = memchr(s, '/', n);
    if (n < 6 || strncasecmp(s, "bytes ", 6) || !slash) return;
    const char *dash = memchr(s + 6, '-', (size_t)(slash - s - 6));
    if (dash) a->range_start = number(s + 6, (size_t)(dash - s - 6));
    a->range_total = number(slash + 1, (size_t)(end - slash - 1));
}

static size_t on_header(char *line, size_t size, size_t n, void *arg) {
    struct hub_answer *a = arg;
    const char *v;
    size_t w;
    n *= size;
    if (n > 5 && !strncasecmp(line, "HTTP/", 5)) {
        a->etag[0] = 0;
        a->length = a->range_start = a->range_total = SIZE_MAX;
    } else if (header_is(line, n, "etag", &v, &w))
        copy_etag(a->etag, v, w);
    else if (header_is(line, n, "x-linked-etag", &v, &w))
        copy_etag(a->linked_etag, v, w);
    else if (header_is(line, n, "x-linked-size", &v, &w))
        a->linked_size = number(v, w);
    else if (header_is(line, n, "content-length", &v, &w))
        a->length = number(v, w);
    else if (header_is(line, n, "content-range", &v, &w))
        read_range(a, v, w);
    else if (header_is(line, n, "x-repo-commit", &v, &w))
        copy(a->commit, sizeof a->commit, v, w);
    else if (header_is(line, n, "x-error-code", &v, &w))
        copy(a->code, sizeof a->code, v, w);
    else if (header_is(line, n, "x-error-message", &v, &w))
        copy(a->message, sizeof a->message, v, w);
    return n;
}

CURL *hub_easy(struct hub_client *c, const char *url, struct hub_answer *a) {
    CURL *h = curl_easy_init();
    if (!h) BUG("curl_easy_init");
    *a = (struct hub_answer){
        .length = SIZE_MAX, .linked_size = SIZE_MAX, .range_start = SIZE_MAX, .range_total = SIZE_MAX};
    curl_easy_setopt(h, CURLOPT_URL, url);
    curl_easy_setopt(h, CURLOPT_USERAGENT, c->s->agent);
    curl_easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(h, CURLOPT_MAXREDIRS, 5L);
    bool tls = strncasecmp(c->endpoint, "https", 5) == 0;
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS_STR, tls ? "https" : "http,https");
#else
    curl_easy_setopt(h, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(h, CURLOPT_REDIR_PROTOCOLS, (long)(tls ? CURLPROTO_HTTPS : CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    /* with HTTP/2 all files would share one connection, and its one window */
    curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)(c->s->timeout < CONNECT_S ? c->s->timeout : CONNECT_S));
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, (long)c->s->timeout);
    if (c->s->proxy) curl_easy_setopt(h, CURLOPT_PROXY, c->s->proxy);
    if (c->s->ca_file) curl_easy_setopt(h, CURLOPT_CAINFO, c->s->ca_file);
    curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(h, CURLOPT_HEADERDATA, a);
    return h;
}

void hub_answer_finish(CURL *easy, struct hub_answer *a) {
    char *url = NULL;
    curl_off_t wait = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &a->status);
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &wait);
    curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    a->retry_after = wait > 0 ? (int64_t)wait : 0;
    size_t n;
    const char *host = url ? host_of(url, &n) : NULL;
    if (host) copy(a->host, sizeof a->host, host, n);
}

/* ---- trouble ---- */

static bool passing(CURLcode rc) {
    switch (rc) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2:
    case CURLE_WEIRD_SERVER_REPLY: return true;
    default: return false;
    }
}

static bool own_host(const struct hub_client *c, const struct hub_answer *a) { return !strcmp(a->host, c->host); }

int64_t hub_retry_wait(struct hub_client *c, struct hub_retry *r, CURLcode rc, const struct hub_answer *a) {
    bool again,
        reachable = rc != CURLE_COULDNT_RESOLVE_HOST && rc != CURLE_COULDNT_CONNECT && rc != CURLE_OPERATION_TIMEDOUT;
    if (!rc) c->reached = true;
    if (rc)
        again = passing(rc);
    else
        again = a->status == 408 || a->status == 429 || a->status >= 500 || (a->status >= 400 && !own_host(c, a));
    r->tries++;
    if (!again || r->tries >= (reachable || c->reached ? TRIES : TRIES_TO_REACH)) return -1;
    if (!rc && a->retry_after) return a->retry_after <= WAIT_MAX_S ? a->retry_after * 1000 : -1;
    return (int64_t)FIRST_WAIT_MS << (r->tries - 1);
}

static const char *token_name(const struct hub_client *c) {
    return c->s->source == HUB_HUGGINGFACE ? "HF_TOKEN" : "MODELSCOPE_API_TOKEN";
}

static int refused(const struct hub_client *c, const struct hub_answer *a, const char *says, struct err *e) {
    const char *token = token_name(c);
    bool gated = !strcmp(a->code, "GatedRepo");
    if (!strcmp(a->code, "RevisionNotFound"))
        return err_input(e, "%s has no revision %s on %s; --revision takes a branch, a tag or a commit", c->name,
                         c->revision, c->host);
    if (gated && c->token)
        return err_input(e,
                         "%s is gated, and the account of the token (%s) has no access to it: open %s/%s, accept its "
                         "terms, and wait "
                         "until access is granted",
                         c->name, token, c->endpoint, c->name);
    if (gated)
        return err_input(e, "%s is gated: open %s/%s, accept its terms, then set %s to a token of that account",
                         c->name, c->endpoint, c->name, token);
    if (a->status == 401 && c->token && strcmp(a->code, "RepoNotFound"))
        return err_input(e, "%s does not accept the token for %s (401%s%s); %s should hold a valid one, or none",
                         c->host, c->name, *says ? ": " : "", says, token);
    if (a->status == 403)
        return err_input(e, "%s forbids access to %s (403%s%s); %s must belong to an account that may read it", c->host,
                         c->name, *says ? ": " : "", says, token);
    return err_input(e, "%s is neither a folder here nor a model on %s (%ld%s%s): check the spelling%s%s%s", c->name,
                     c->host, a->status, *says ? ": " : "", says, c->token ? "" : "; a private model needs ",
                     c->token ? "" : token, c->token ? ", and that the token may read it" : "");
}

static int unwell(const struct hub_client *c, const struct hub_answer *a, const char *what, const char *says,
                  struct err *e) {
    char wait[60] = "a while";
    if (a->retry_after) snprintf(wait, sizeof wait, "%lld s", (long long)a->retry_after);
    if (a->status == 429)
        return err_machine(e, "%s has had too many requests (429 for %s): try again in %s%s%s", a->host, what, wait,
                           c->token ? "" : "; with a token the limits are higher: ", c->token ? "" : token_name(c));
    if (a->status >= 500)
        return err_machine(e, "%s is out of order: it answered %ld for %s, also after %d tries%s%s; try again later",
                           a->host, a->status, what, TRIES, *says ? ": " : "", says);
    return err_machine(e, "%s answered %ld for %s%s%s, which is not in its protocol; is it a %s hub?", a->host,
                       a->status, what, *says ? ": " : "", says,
                       c->s->source == HUB_HUGGINGFACE ? "Hugging Face" : "ModelScope");
}

static int unreachable(const struct hub_client *c, CURLcode rc, const struct hub_answer *a, const char *what,
                       struct err *e) {
    const char *host = *a->host ? a->host : c->host;
    if (rc == CURLE_OPERATION_TIMEDOUT && !c->reached) rc = CURLE_COULDNT_CONNECT;
    switch (rc) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return err_machine(
            e,
            "the host %s of %s is not known: is this machine online? (HF_ENDPOINT or MODELSCOPE_ENDPOINT names another "
            "hub, HTTPS_PROXY a proxy; without a network give --model a folder)",
            host, what);
    case CURLE_COULDNT_RESOLVE_PROXY:
        return err_machine(e, "the proxy's host is not known; is HTTPS_PROXY or --proxy right?");
    case CURLE_COULDNT_CONNECT:
        return err_machine(
            e, "no connection to %s for %s: it refuses or does not answer; is a proxy needed (HTTPS_PROXY)?", host,
            what);
    case CURLE_OPERATION_TIMEDOUT:
        return err_machine(e,
                           "%s sent nothing of %s for %d s, also after %d tries; what came is kept, and the next start "
                           "goes on from it",
                           host, what, c->s->timeout, TRIES);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return err_machine(e,
                           "the certificate of %s cannot be trusted (%s): install the package ca-certificates, or name "
                           "the certificates "
                           "of your network with SSL_CERT_FILE",
                           host, curl_easy_strerror(rc));
    case CURLE_TOO_MANY_REDIRECTS: return err_machine(e, "%s redirects %s in circles", host, what);
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_machine(e, "%s redirects %s to an address that is not https", host, what);
    default:
        return err_machine(e,
                           "the connection to %s for %s broke (%s), also after %d tries; what came is kept, and the "
                           "next start goes on "
                           "from it",
                           host, what, curl_easy_strerror(rc), TRIES);
    }
}

int hub_failure(const struct hub_client *c, CURLcode rc, const struct hub_answer *a, const char *what,
                const struct buf *body, struct err *e) {
    char says[200] = "";
    if (rc) return unreachable(c, rc, a, what, e);
    if (*a->message)
        memcpy(says, a->message, sizeof says);
    else if (body && body->len)
        listing_complaint(body->data, body->len, says);
    if (own_host(c, a) && (a->status == 401 || a->status == 403 || a->status == 404)) return refused(c, a, says, e);
    return unwell(c, a, what, says, e);
}

/* ---- small answers ---- */

static size_t on_text(char *p, size_t size, size_t n, void *arg) {
    struct buf *b = arg;
    return buf_add(b, p, size * n) ? 0 : size * n;
}

static void sleep_ms(int64_t ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* A file that lies elsewhere is described by the redirection itself; a model that was renamed is asked for under its
 * new name. */
static bool moved_here(const struct hub_client *c, const struct hub_answer *a, CURL *h, char **to) {
    char *url = NULL;
    size_t n;
    curl_easy_getinfo(h, CURLINFO_REDIRECT_URL, &url);
    const char *host = url && a->status >= 300 && a->status < 400 && !*a->linked_etag ? host_of(url, &n) : NULL;
    if (!host || n != strlen(c->host) || strncmp(host, c->host, n)) return false;
    free(*to);
    *to = mem_strdup(url);
    return true;
}

/* One request until it succeeds, or is of no use any more. */
static int ask(struct hub_client *c, const char *url, const char *what, bool head, struct hub_answer *a,
               struct buf *out, struct err *e) {
    struct hub_retry r = {0};
    char *to = NULL;
    int64_t wait = 0;
    for (int moves = 0; wait >= 0;) {
        CURL *h = hub_easy(c, to ? to : url, a);
        buf_reset(out);
        curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_text);
        curl_easy_setopt(h, CURLOPT_WRITEDATA, out);
        if (head) curl_easy_setopt(h, CURLOPT_NOBODY, 1L);
        if (head) curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
        CURLcode rc = curl_easy_perform(h);
        hub_answer_finish(h, a);
        bool moved = head && !rc && moves++ < MOVES_MAX && moved_here(c, a, h, &to), good = !rc && a->status < 400;
        curl_easy_cleanup(h);
        if (moved) continue;
        if (good) c->reached = true;
        if (good || out->over) break;
        wait = hub_retry_wait(c, &r, rc, a);
        hub_failure(c, rc, a, what, out, e);
        if (wait >= TELL_MS) log_warning("waiting %.1f s: %s", (double)wait / 1000, e->text);
        if (wait > 0) sleep_ms(wait);
    }
    free(to);
    if (out->over) return err_machine(e, "%s sends more than %zu bytes for %s", a->host, out->max, what);
    return wait < 0 ? -1 : 0;
}

int hub_get(struct hub_client *c, const char *url, const char *what, size_t max, struct buf *out, struct err *e) {
    struct hub_answer a;
    buf_init(out, max);
    if (ask(c, url, what, false, &a, out, e)) {
        buf_release(out);
        return -1;
    }
    return 0;
}

int hub_head(struct hub_client *c, const char *url, const char *what, struct hub_file *f, struct err *e) {
    struct hub_answer a;
    struct buf nothing;
    buf_init(&nothing, COMPLAINT_MAX);
    int rc = ask(c, url, what, true, &a, &nothing, e);
    buf_release(&nothing);
    if (rc) return -1;
    const char *sum = *a.linked_etag ? a.linked_etag : a.etag;
    size_t size = a.linked_size != SIZE_MAX ? a.linked_size : a.status < 300 ? a.length : SIZE_MAX;
    if (!hub_name_safe(sum))
        return err_machine(e, "%s gives no checksum (ETag) for %s; is it a Hugging Face hub?", a.host, what);
    copy(f->sum, sizeof f->sum, sum, strlen(sum));
    for (char *p = f->sum; *p && (hub_is_hex(f->sum, 40) || hub_is_hex(f->sum, 64)); p++)
        *p = (char)tolower((unsigned char)*p);
    f->kind = hub_is_hex(f->sum, 64) ? HUB_SUM_SHA256 : hub_is_hex(f->sum, 40) ? HUB_SUM_GIT : HUB_SUM_NONE;
    if (f->size == SIZE_MAX) f->size = size;
    if (f->kind == HUB_SUM_GIT && f->size == SIZE_MAX) f->kind = HUB_SUM_NONE; /* git's sum is of the size too */
    return 0;
}

char *hub_escape(const char *s) {
    struct buf b;
    buf_init(&b, 4096);
    buf_adds(&b, "");
    for (; *s; s++) {
        if (isalnum((unsigned char)*s) || strchr("-._~", *s))
            buf_addc(&b, *s);
        else
            buf_addf(&b, "%%%02X", (unsigned char)*s);
    }
    return buf_take(&b, NULL);
}
