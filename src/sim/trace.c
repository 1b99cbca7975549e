/* trace.c: see trace.h. No state. Refuses lines longer than 4 MiB, lengths and times out of range, and unknown formats.
 */
#include "sim/trace.h"

#include "base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 4 << 20, IDS_MAX = 1 << 20 };

/* ---- one growing list ---- */

struct reader {
    struct trace *t;
    size_t cap_req, cap_ids;
    double scale; /* seconds of one unit of a time stamp */
    struct err *e;
    long line;
};

static void add_request(struct reader *r, struct trace_request q) {
    struct trace *t = r->t;
    if ((size_t)t->n == r->cap_req) {
        r->cap_req = r->cap_req ? 2 * r->cap_req : 1024;
        t->req = mem_grow(t->req, r->cap_req, sizeof *t->req);
    }
    t->req[t->n++] = q;
}

static void add_id(struct reader *r, int64_t id) {
    struct trace *t = r->t;
    if (t->n_ids == r->cap_ids) {
        r->cap_ids = r->cap_ids ? 2 * r->cap_ids : 4096;
        t->ids = mem_grow(t->ids, r->cap_ids, sizeof *t->ids);
    }
    t->ids[t->n_ids++] = id;
}

static int check_request(struct reader *r, double at, double n_prompt, double n_out) {
    if (!(at >= 0 && at < 1e12)) return err_input(r->e, "line %ld: expected a time from 0 on, found %g", r->line, at);
    if (!(n_prompt >= 1 && n_prompt <= TRACE_LENGTH_MAX) || !(n_out >= 0 && n_out <= TRACE_LENGTH_MAX))
        return err_input(r->e, "line %ld: expected lengths of prompt and answer from 1 to %d, found %g and %g", r->line,
                         TRACE_LENGTH_MAX, n_prompt, n_out);
    return 0;
}

/* ---- JSON lines ---- */

static int json_ids(struct reader *r, const json_t *list, struct trace_request *q) {
    size_t most = ((size_t)q->n_prompt + (size_t)r->t->block - 1) / (size_t)r->t->block;
    if (list && !json_is_array(list)) return err_input(r->e, "line %ld: hash_ids is not a list", r->line);
    for (size_t i = 0; i < json_array_size(list) && i < most && i < IDS_MAX; i++, q->n_ids++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id))
            return err_input(r->e, "line %ld: hash_ids holds something else than whole numbers", r->line);
        add_id(r, json_integer_value(id));
    }
    return 0;
}

static double json_at(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int json_line(struct reader *r, const char *s, size_t n) {
    json_error_t why;
    json_t *o = json_loadb(s, n, JSON_REJECT_DUPLICATES, &why);
    int rc = -1;
    if (!o || !json_is_object(o)) {
        err_input(r->e, "line %ld: expected a JSON object%s%s", r->line, o ? "" : ": ", o ? "" : why.text);
        goto out;
    }
    if (!r->t->n && json_object_get(o, "chat_id")) {
        r->t->format = "qwen-bailian";
        r->t->block = 16;
        r->scale = 1;
    }
    double at = json_at(o, "timestamp") * r->scale, n_prompt = json_at(o, "input_length"),
           n_out = json_at(o, "output_length");
    if (check_request(r, at, n_prompt, n_out)) goto out;
    struct trace_request q = {
        .at = at, .n_prompt = (int32_t)n_prompt, .n_out = n_out < 1 ? 1 : (int32_t)n_out, .ids_at = r->t->n_ids};
    if (json_ids(r, json_object_get(o, "hash_ids"), &q)) goto out;
    add_request(r, q);
    rc = 0;
out:
    json_decref(o);
    return rc;
}

/* ---- CSV ---- */

static double days_from(int y, int m, int d) { /* of the Gregorian calendar, from any fixed day */
    if (m < 3) y--, m += 12;
    return 365.0 * y + y / 4 - y / 100 + y / 400 + (153 * (m - 3) + 2) / 5 + d;
}

static int csv_line(struct reader *r, const char *s, size_t n) {
    char line[128];
    int year, month, day, hour, minute, end = 0;
    double second, n_prompt, n_out;
    if (n >= sizeof line) return err_input(r->e, "line %ld: longer than a line of this trace can be", r->line);
    memcpy(line, s, n);
    line[n] = 0;
    if (sscanf(line, "%4d-%2d-%2d %2d:%2d:%lf,%lf,%lf%n", &year, &month, &day, &hour, &minute, &second, &n_prompt,
               &n_out, &end) != 8 ||
        line[end] || year < 0 || month < 1 || month > 12)
        return err_input(r->e, "line %ld: expected DATE TIME,tokens,tokens, found '%.60s'", r->line, line);
    double at = days_from(year, month, day) * 86400 + hour * 3600.0 + minute * 60.0 + second;
    if (check_request(r, at, n_prompt, n_out)) return -1;
    add_request(
        r, (struct trace_request){.at = at, .n_prompt = (int32_t)n_prompt, .n_out = n_out < 1 ? 1 : (int32_t)n_out});
    return 0;
}

/* ---- the file ---- */

static int by_time(const void *a, const void *b) {
    const struct trace_request *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->ids_at < y->ids_at ? -1 : x->ids_at > y->ids_at;
}

static void sort(struct trace *t) {
    bool sorted = true;
    for (int32_t i = 1; i < t->n && sorted; i++) sorted = t->req[i - 1].at <= t->req[i].at;
    if (!sorted) qsort(t->req, (size_t)t->n, sizeof *t->req, by_time);
    double from = t->n ? t->req[0].at : 0;
    for (int32_t i = 0; i < t->n; i++) t->req[i].at -= from;
}

int trace_parse(struct trace *t, const char *text, size_t n, int32_t limit, struct err *e) {
    static const char csv_head[] = "TIMESTAMP,ContextTokens,GeneratedTokens";
    *t = (struct trace){.format = "mooncake", .block = 512};
    struct reader r = {.t = t, .scale = 1e-3, .e = e};
    bool csv = n >= sizeof csv_head - 1 && !memcmp(text, csv_head, sizeof csv_head - 1);
    if (csv) t->format = "azure";
    for (const char *s = text, *end = text + n, *next; s < end && t->n < limit; s = next) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        next = stop ? stop + 1 : end;
        size_t len = (size_t)((stop ? stop : end) - s);
        if (len && s[len - 1] == '\r') len--;
        if (++r.line == 1 && csv) continue;
        if (!len) continue;
        int rc = len > LINE_MAX_BYTES ? err_input(e, "line %ld is longer than %d bytes", r.line, LINE_MAX_BYTES)
                 : csv                ? csv_line(&r, s, len)
                                      : json_line(&r, s, len);
        if (rc) {
            trace_release(t);
            return -1;
        }
    }
    if (!t->n)
        return err_input(e, "no requests; expected JSON lines (Mooncake, Qwen-Bailian) or Azure's CSV with its header");
    sort(t);
    return 0;
}

void trace_release(struct trace *t) {
    free(t->req);
    free(t->ids);
    *t = (struct trace){0};
}

/* ---- made up ---- */

static uint64_t mix(uint64_t x) { /* splitmix64's last step */
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static double uniform(uint64_t *state) { /* in (0, 1] */
    *state += 0x9e3779b97f4a7c15u;
    return (double)((mix(*state) >> 11) + 1) * 0x1p-53;
}

static int32_t spread(uint64_t *state, int32_t mean) {
    double x = -log(uniform(state)) * mean;
    if (x > 8.0 * mean) x = 8.0 * mean;
    return x < 1 ? 1 : x > TRACE_LENGTH_MAX ? TRACE_LENGTH_MAX : (int32_t)x;
}

void trace_make(struct trace *t, const struct trace_synthetic *how) {
    *t = (struct trace){.format = "synthetic", .block = 16};
    struct reader r = {.t = t};
    uint64_t state = how->seed;
    double at = 0;
    for (int32_t i = 0; i < how->n; i++) {
        struct trace_request q = {.at = at,
                                  .n_prompt = spread(&state, how->n_prompt),
                                  .n_out = spread(&state, how->n_out),
                                  .ids_at = t->n_ids};
        q.n_ids = (int32_t)(q.n_prompt * how->shared / t->block);
        for (int32_t b = 0; b < q.n_ids; b++) add_id(&r, b);
        add_request(&r, q);
        at += -log(uniform(&state)) / how->rate;
    }
}

/* ---- what is in them ---- */

/* A block without an id of its own is named after its request. */
static uint64_t block_name(const struct trace *t, int32_t i, int32_t b) {
    const struct trace_request *q = &t->req[i];
    if (b < q->n_ids) return mix((uint64_t)t->ids[q->ids_at + (size_t)b] * 2 + 1);
    return mix(((uint64_t)i << 32 | (uint32_t)b) * 2);
}

void trace_tokens(const struct trace *t, int32_t i, int32_t *tokens) {
    int32_t n = t->req[i].n_prompt;
    for (int32_t p = 0, b = 0; p < n; b++) {
        uint64_t x = block_name(t, i, b);
        for (int32_t end = n - p < t->block ? n : p + t->block; p < end; p++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            tokens[p] = (int32_t)(x >> 33 & 0x3fffffff) + 1;
        }
    }
}

/* Chains of blocks that were seen, and how long: an open table. */
struct seen {
    uint64_t chain; /* 0: empty */
    int32_t n;
};

static struct seen *look_up(struct seen *table, size_t mask, uint64_t chain) {
    size_t at = (size_t)chain & mask;
    while (table[at].chain && table[at].chain != chain) at = (at + 1) & mask;
    return &table[at];
}

double trace_best_hit(const struct trace *t, int32_t page_size) {
    size_t size = 1024;
    while (size < 2 * t->n_ids + 2) size *= 2;
    struct seen *table = mem_zalloc(size, sizeof *table);
    double hit = 0, all = 0;
    for (int32_t i = 0; i < t->n; i++) {
        const struct trace_request *q = &t->req[i];
        int32_t n_hit = 0, p = 0;
        bool whole = true;
        uint64_t chain = 1;
        for (int32_t b = 0; b < q->n_ids; b++, p += t->block) {
            int32_t n = q->n_prompt - p < t->block ? q->n_prompt - p : t->block;
            chain = mix(chain ^ block_name(t, i, b)) | 1;
            struct seen *x = look_up(table, size - 1, chain);
            if (whole) n_hit += n < x->n ? n : x->n;
            whole = whole && x->n >= n;
            x->chain = chain;
            if (n > x->n) x->n = n;
        }
        if (n_hit > q->n_prompt - 1) n_hit = q->n_prompt - 1;
        hit += n_hit / page_size * page_size;
        all += q->n_prompt;
    }
    free(table);
    return all > 0 ? hit / all : 0;
}
