/* http.h: requests to a hub through libcurl: what all of them have in common, what their answers say, when to try
 * again, and the sentence for each thing that goes wrong.
 *
 * The token goes to the hub's own host only: libcurl drops it when it is redirected to another. */
#ifndef MINISGL_HUB_HTTP_H
#define MINISGL_HUB_HTTP_H
#include "base/buf.h"
#include "base/err.h"
#include "hub/hub.h"

#include <curl/curl.h>
#include <stdint.h>

struct hub_client {
    const struct hub_settings *s;
    const char *name, *revision; /* the model's, for sentences */
    char *endpoint;              /* without a slash at the end */
    char *host;                  /* of the endpoint, with port */
    char *token;                 /* NULL: none */
    struct curl_slist *headers;
    bool reached; /* some answer came: the machine is online */
};

/* What the headers of an answer say; those of a redirection before it count where the last answer is silent. */
struct hub_answer {
    long status;
    char etag[HUB_SUM_MAX + 1], linked_etag[HUB_SUM_MAX + 1];
    size_t length, linked_size;      /* SIZE_MAX: not told */
    size_t range_start, range_total; /* SIZE_MAX: not told */
    char commit[41];
    char code[64], message[200]; /* X-Error-Code, X-Error-Message */
    int64_t retry_after;         /* seconds; 0: not told */
    char host[300];              /* who answered at last */
};

struct hub_retry {
    int tries;
};

int hub_client_open(struct hub_client *c, const struct hub_settings *s, const char *name, const char *revision,
                    struct err *e);
void hub_client_close(struct hub_client *c);

/* A handle for one URL with everything but where the body goes; headers are noted in *a. */
CURL *hub_easy(struct hub_client *c, const char *url, struct hub_answer *a);
/* After a transfer: the rest of *a. */
void hub_answer_finish(CURL *easy, struct hub_answer *a);

/* Milliseconds to wait before the next try; -1: trying again is of no use, or was tried often enough. rc is the
 * transfer's. */
int64_t hub_retry_wait(struct hub_client *c, struct hub_retry *r, CURLcode rc, const struct hub_answer *a);
/* What went wrong, in a sentence; body is the answer's, for what the hub itself says. Gives -1. */
int hub_failure(const struct hub_client *c, CURLcode rc, const struct hub_answer *a, const char *what,
                const struct buf *body, struct err *e);

/* A text of at most max bytes, with retries; redirections are followed. */
int hub_get(struct hub_client *c, const char *url, const char *what, size_t max, struct buf *out, struct err *e);
/* The size and checksum of a file whose listing has none, by HEAD. */
int hub_head(struct hub_client *c, const char *url, const char *what, struct hub_file *f, struct err *e);

char *hub_escape(const char *s); /* percent-encoded, slashes too; the caller frees it */

#endif
