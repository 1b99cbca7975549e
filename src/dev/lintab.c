/* lintab.c: see lintab.h. No state. Refuses what it does not know, by line; numbers are bounded, so that a bad file can pick a slow way at worst:
 * whoever runs a way asks first whether it can be run. */
#include "dev/lintab.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {"f32", "bf16", "f16"};
static const char *const kind_names[] = {"lt", "own", "gemv"};
static const int kind_counts[] = {LT_COUNT, OWN_COUNT, 0};
enum { N_KINDS = 3, SIZE_MAX_N = 1 << 28, PARTS_MAX = 1000, LINE_BYTES = 400 };

/* ---- order ---- */

static int by_number(int64_t a, int64_t b) { return (a > b) - (a < b); }

static int compare_shape(const struct lintab_shape *a, const struct lintab_shape *b) {
    int c = by_number(a->n, b->n);
    if (!c) c = by_number(a->k, b->k);
    if (!c) c = by_number(a->x, b->x);
    if (!c) c = by_number(a->y, b->y);
    return c ? c : by_number(a->bias, b->bias);
}

static int compare_rows(const void *x, const void *y) {
    const struct lintab_row *a = x, *b = y;
    int c = by_number(a->part, b->part);
    if (!c) c = compare_shape(&a->shape, &b->shape);
    return c ? c : by_number(a->rows, b->rows);
}

/* Where a row like this is, or belongs. */
static int32_t place_of(const struct lintab *t, const struct lintab_row *r) {
    int32_t from = 0, to = t->n_rows;
    while (from < to) {
        int32_t mid = from + (to - from) / 2;
        if (compare_rows(&t->rows[mid], r) < 0) from = mid + 1;
        else to = mid;
    }
    return from;
}

/* ---- reading ---- */

struct words {
    char *at;
};

static char *word(struct words *w) {
    char *from = w->at + strspn(w->at, " \t");
    size_t n = strcspn(from, " \t");
    if (!n) return NULL;
    w->at = from + n;
    if (*w->at) *w->at++ = 0;
    return from;
}

static int number(struct words *w, int32_t *out) {
    char *text = word(w), *end;
    long v = text ? strtol(text, &end, 10) : -1;
    if (!text || end == text || *end || v < 0 || v > SIZE_MAX_N) return -1;
    *out = (int32_t)v;
    return 0;
}

static int real(struct words *w, float *out) {
    char *text = word(w), *end;
    float v = text ? strtof(text, &end) : -1;
    if (!text || end == text || *end || !(v >= 0) || v > 1e9f) return -1;
    *out = v;
    return 0;
}

static int name_of(struct words *w, const char *const *names, int n) {
    const char *text = word(w);
    for (int i = 0; text && i < n; i++)
        if (!strcmp(text, names[i])) return i;
    return -1;
}

static int read_gpu(struct lintab *t, struct words *w) {
    struct lintab_gpu g = {0};
    if (number(w, &g.sms) || number(w, &g.capability) || number(w, &g.version) || t->n_parts == PARTS_MAX) return -1;
    w->at += strspn(w->at, " \t");
    if (!*w->at || strlen(w->at) >= sizeof g.name) return -1;
    memcpy(g.name, w->at, strlen(w->at) + 1);
    t->parts = mem_grow(t->parts, (size_t)t->n_parts + 1, sizeof *t->parts);
    t->parts[t->n_parts++] = g;
    return 0;
}

static int read_row(struct lintab *t, struct words *w) {
    struct lintab_row r = {.part = t->n_parts - 1};
    int32_t bias;
    if (!t->n_parts || number(w, &r.shape.n) || number(w, &r.shape.k)) return -1;
    int x = name_of(w, type_names, 3), y = name_of(w, type_names, 3);
    if (x < 0 || y < 0 || number(w, &bias) || bias > 1 || number(w, &r.rows)) return -1;
    int kind = name_of(w, kind_names, N_KINDS);
    if (kind < 0) return -1;
    for (int i = 0; i < kind_counts[kind]; i++)
        if (number(w, &r.way.v[i])) return -1;
    if (real(w, &r.us) || real(w, &r.first_us) || word(w)) return -1;
    r.shape.x = (enum lintab_type)x, r.shape.y = (enum lintab_type)y, r.shape.bias = bias;
    r.way.kind = (enum lintab_kind)kind;
    if (t->n_rows == t->cap_rows) t->rows = mem_grow(t->rows, (size_t)(t->cap_rows = 2 * t->cap_rows + 256), sizeof *t->rows);
    t->rows[t->n_rows++] = r;
    return 0;
}

int lintab_read(struct lintab *t, const char *text, size_t n, struct err *e) {
    char line[LINE_BYTES];
    int number_of_line = 0;
    *t = (struct lintab){0};
    if (n > LINTAB_BYTES_MAX) return err_input(e, "expected a table of at most %d bytes, found %zu", LINTAB_BYTES_MAX, n);
    for (const char *end; n; n -= (size_t)(end - text), text = end) {
        const char *stop = memchr(text, '\n', n);
        size_t len = stop ? (size_t)(stop - text) : n;
        end = text + len + (stop != NULL);
        number_of_line++;
        if (len >= sizeof line || memchr(text, 0, len)) return err_input(e, "line %d: expected at most %d characters of text", number_of_line, LINE_BYTES - 1);
        memcpy(line, text, len);
        while (len && (line[len - 1] == '\r' || line[len - 1] == ' ')) len--;
        line[len] = 0;
        struct words w = {line + strspn(line, " \t")};
        if (!*w.at || *w.at == '#') continue;
        bool gpu = !strncmp(w.at, "gpu ", 4);
        if (gpu) w.at += 4;
        if (gpu ? read_gpu(t, &w) : read_row(t, &w))
            return err_input(e, "line %d: expected a gpu line, or below one a product with its way and two times; `minisgl tune` writes such files", number_of_line);
    }
    if (t->n_rows) qsort(t->rows, (size_t)t->n_rows, sizeof *t->rows, compare_rows);
    return 0;
}

void lintab_release(struct lintab *t) {
    free(t->parts);
    free(t->rows);
    *t = (struct lintab){0};
}

/* ---- merging and writing ---- */

static bool same_gpu(const struct lintab_gpu *a, const struct lintab_gpu *b) {
    return a->sms == b->sms && a->capability == b->capability && a->version == b->version && !strcmp(a->name, b->name);
}

static int32_t part_of(struct lintab *t, const struct lintab_gpu *gpu) {
    for (int32_t i = 0; i < t->n_parts; i++)
        if (same_gpu(&t->parts[i], gpu)) return i;
    t->parts = mem_grow(t->parts, (size_t)t->n_parts + 1, sizeof *t->parts);
    t->parts[t->n_parts] = *gpu;
    return t->n_parts++;
}

void lintab_put(struct lintab *t, const struct lintab_gpu *gpu, const struct lintab_row *row) {
    struct lintab_row r = *row;
    r.part = part_of(t, gpu);
    int32_t at = place_of(t, &r);
    if (at == t->n_rows || compare_rows(&t->rows[at], &r)) {
        if (t->n_rows == t->cap_rows) t->rows = mem_grow(t->rows, (size_t)(t->cap_rows = 2 * t->cap_rows + 256), sizeof *t->rows);
        memmove(t->rows + at + 1, t->rows + at, (size_t)(t->n_rows - at) * sizeof *t->rows);
        t->n_rows++;
    }
    t->rows[at] = r;
}

void lintab_write(const struct lintab *t, FILE *to) {
    fprintf(to, "# How matrix products are computed, as `minisgl tune` found it; src/dev/lintab.h tells what the columns are.\n"
                "# n k x y bias rows way... us us-of-the-first-choice\n");
    for (int32_t p = 0, i = 0; p < t->n_parts; p++) {
        const struct lintab_gpu *g = &t->parts[p];
        fprintf(to, "gpu %d %d %d %s\n", g->sms, g->capability, g->version, g->name);
        for (; i < t->n_rows && t->rows[i].part == p; i++) {
            const struct lintab_row *r = &t->rows[i];
            fprintf(to, "%d %d %s %s %d %d %s", r->shape.n, r->shape.k, type_names[r->shape.x], type_names[r->shape.y], r->shape.bias, r->rows,
                    kind_names[r->way.kind]);
            for (int v = 0; v < kind_counts[r->way.kind]; v++) fprintf(to, " %d", r->way.v[v]);
            fprintf(to, " %.2f %.2f\n", (double)r->us, (double)r->first_us);
        }
    }
}

/* ---- looking up ---- */

int32_t lintab_part(const struct lintab *t, const struct lintab_gpu *gpu) {
    int32_t found = -1;
    for (int32_t i = 0; i < t->n_parts; i++) {
        const struct lintab_gpu *p = &t->parts[i];
        if (p->sms != gpu->sms || p->capability != gpu->capability || p->version / 100 != gpu->version / 100) continue;
        if (!strcmp(p->name, gpu->name)) return i;
        if (found < 0) found = i;
    }
    return found;
}

const struct lintab_row *lintab_find(const struct lintab *t, int32_t part, const struct lintab_shape *shape, int32_t rows) {
    if (part < 0) return NULL;
    struct lintab_row like = {.part = part, .shape = *shape, .rows = rows};
    int32_t at = place_of(t, &like);
    if (at == t->n_rows) return NULL;
    const struct lintab_row *r = &t->rows[at];
    return r->part == part && !compare_shape(&r->shape, shape) && r->rows <= 2 * rows ? r : NULL;
}
