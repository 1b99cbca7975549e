/* generate.c: see generate.h. One thread owns the outbox and all jobs; the scheduler runs beside it. */
#include "cli/generate.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/job.h"
#include "serve/json_in.h"
#include "serve/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 64 << 20, NEWS_AT_ONCE = 256 };

struct line {
    struct job job;
    struct api_err err; /* status != 0: it was refused or failed */
};

struct run {
    const struct generate_args *args;
    struct outbox box;
    struct words_tmp *tmp;
    struct line **lines; /* [n] in input order; NULL once written */
    size_t n, cap, written;
    int64_t n_tokens, n_bad;
};

/* ---- requests ---- */

static struct line *start(struct run *r, json_t *body, const struct api_err *bad) {
    struct line *l = mem_zalloc(1, sizeof *l);
    job_init(&l->job, r->args->front);
    l->job.owner = l;
    if (bad)
        l->err = *bad;
    else if (job_prepare(&l->job, r->tmp, ROUTE_GENERATE, body, &l->err))
        return l;
    else if (l->job.par.stream)
        api_fail(&l->err, 400, "stream", "stream has no meaning here; leave it out");
    else if (!job_submit(&l->job, &r->box))
        api_fail(&l->err, 503, NULL, "the scheduler has ended");
    return l;
}

static void add_line(struct run *r, struct line *l) {
    if (r->n == r->cap) r->lines = mem_grow(r->lines, r->cap = r->cap * 2 + 64, sizeof *r->lines);
    r->lines[r->n++] = l;
}

static void read_line(struct run *r, const char *text, size_t n) {
    struct api_err bad = {0};
    json_t *body = NULL;
    if (n > LINE_MAX_BYTES)
        api_fail(&bad, 413, NULL, "a line must have at most %d bytes", LINE_MAX_BYTES);
    else
        body = json_read(text, n, &bad);
    add_line(r, start(r, body, bad.status ? &bad : NULL));
    json_decref(body);
}

static bool is_blank(const char *s, size_t n) { return strspn(s, " \t\r\n") >= n; }

static int read_lines(struct run *r, struct err *e) {
    char *text = NULL;
    size_t cap = 0;
    ssize_t n;
    while (errno = 0, (n = getline(&text, &cap, r->args->in)) >= 0)
        if (!is_blank(text, (size_t)n)) read_line(r, text, (size_t)n);
    int why = ferror(r->args->in) ? errno : 0;
    free(text);
    return why ? err_machine(e, "reading the input failed: %s", strerror(why)) : 0;
}

/* ---- answers ---- */

static void free_line(struct line *l) {
    job_release(&l->job);
    free(l);
}

static int take_news(struct run *r) {
    struct news list[NEWS_AT_ONCE];
    int n = outbox_take(&r->box, list, NEWS_AT_ONCE, true);
    for (int i = 0; i < n; i++) {
        struct choice *c = list[i].req->owner;
        choice_news(c, &list[i]);
    }
    return n;
}

static void write_line(struct run *r, struct line *l) {
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    if (!l->err.status) job_error(&l->job, &l->err);
    if (l->err.status)
        api_err_json(&b, &l->err);
    else
        reply_whole(&b, &l->job);
    r->n_bad += l->err.status != 0;
    for (int i = 0; i < l->job.n_choices; i++) r->n_tokens += l->job.choices[i].n_counted;
    buf_addc(&b, '\n');
    fwrite(buf_str(&b), 1, b.len, r->args->out);
    buf_release(&b);
}

/* Write the lines that are complete, up to the first that is not. */
static void write_ready(struct run *r) {
    for (; r->written < r->n; r->written++) {
        struct line *l = r->lines[r->written];
        if (!l->err.status && !job_done(&l->job)) break;
        if (job_in_flight(&l->job)) break; /* a stop string ended it; its last news is on the way */
        write_line(r, l);
        free_line(l);
        r->lines[r->written] = NULL;
    }
    fflush(r->args->out);
}

static int answer_lines(struct run *r, struct err *e) {
    uint64_t from = clock_ns();
    int bad = read_lines(r, e);
    for (write_ready(r); r->written < r->n; write_ready(r)) take_news(r);
    double s = (double)(clock_ns() - from) / 1e9;
    log_info("%zu requests, %lld tokens generated in %.2f s (%.1f tokens/s)", r->n, (long long)r->n_tokens, s,
             (double)r->n_tokens / (s > 0 ? s : 1));
    if (bad) return 1;
    if (ferror(r->args->out)) {
        err_machine(e, "writing the output failed");
        return 1;
    }
    return r->n_bad ? 2 : 0;
}

/* ---- one prompt ---- */

static json_t *prompt_body(const struct generate_args *a) {
    json_t *text = json_string(a->prompt); /* NULL when it is no UTF-8 */
    if (!text) return NULL;
    json_t *body = a->raw || !words_has_template(a->front->words)
                       ? json_pack("{s:o}", "prompt", text)
                       : json_pack("{s:[{s:s,s:o}]}", "messages", "role", "user", "content", text);
    return body;
}

static void write_text(struct choice *c, FILE *out) {
    fwrite(buf_str(&c->text), 1, c->text.len, out);
    fflush(out);
    buf_reset(&c->text);
}

static int answer_prompt(struct run *r, struct err *e) {
    json_t *body = prompt_body(r->args);
    if (!body) {
        err_input(e, "the prompt must be valid UTF-8");
        return 2;
    }
    struct line *l = start(r, body, NULL);
    json_decref(body);
    while (!l->err.status && (!job_done(&l->job) || job_in_flight(&l->job))) {
        take_news(r);
        write_text(&l->job.choices[0], r->args->out);
    }
    if (!l->err.status) fputc('\n', r->args->out);
    if (!l->err.status) job_error(&l->job, &l->err);
    int bad = l->err.status ? 2 : 0;
    if (bad) err_input(e, "%s", l->err.text);
    free_line(l);
    return bad;
}

int generate_run(const struct generate_args *a, struct err *e) {
    struct run r = {.args = a};
    if (outbox_init(&r.box)) {
        err_machine(e, "no event descriptor is left: %s", strerror(errno));
        return 1;
    }
    r.tmp = words_tmp_new(a->front->words);
    int code = a->prompt ? answer_prompt(&r, e) : answer_lines(&r, e);
    words_tmp_free(r.tmp);
    outbox_release(&r.box);
    free(r.lines);
    return code;
}
