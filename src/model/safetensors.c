/* safetensors.c: one file's bytes to checked tensors. Called at start by one thread; keeps no state.
 *
 * The header is read by yajl event by event: it may have 100 MB, and a tree of it would take many times that. Refuses
 * every deviation from the format (see safetensors.h); nothing is handed out before the whole header has been checked.
 * Source: the format's README, github.com/huggingface/safetensors. */
#include "model/safetensors.h"

#include "base/mem.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

enum { HEADER_MAX = 100000000, DIMS_MAX = 8, PIECE = 1 << 16 };

static const struct {
    const char *name;
    size_t bits;
} dtypes[] = {{"BOOL", 8}, {"U8", 8},      {"I8", 8},      {"F8_E5M2", 8},     {"F8_E4M3", 8},     {"F8_E8M0", 8},
              {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
              {"U16", 16}, {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
              {"I64", 64}, {"U64", 64},    {"F64", 64},    {"C64", 64}};

/* Where in the header we are: {"name": {"dtype": .., "shape": [..], "data_offsets": [..]}, "__metadata__": {..}} */
enum place {
    P_START,
    P_TOP,
    P_NAMED,
    P_TENSOR,
    P_DTYPE,
    P_SHAPE,
    P_IN_SHAPE,
    P_OFFSETS,
    P_IN_OFFSETS,
    P_META_NAMED,
    P_META,
    P_META_VALUE,
    P_END
};

struct entry {
    struct tensor t;
    size_t begin, end;
    int n_offsets;
    bool has_dtype, has_shape;
    size_t bits;
};

struct parse {
    const char *file;
    struct err *e;
    enum place place;
    struct entry *v; /* v[n - 1] is being read */
    size_t n, cap;
    bool meta;
};

static const char *name_of(const struct parse *p) { return p->v[p->n - 1].t.name; }

/* ---- the header's events; 0 stops the parser after err_input has said why ---- */

#define STOP(p, ...) (err_input((p)->e, __VA_ARGS__), 0)

static int unexpected(struct parse *p, const char *what) {
    if (p->place == P_DTYPE || p->place == P_SHAPE || p->place == P_IN_SHAPE || p->place == P_OFFSETS ||
        p->place == P_IN_OFFSETS)
        return STOP(p, "%s: the header's entry for tensor %.200s has %s where %s belongs", p->file, name_of(p), what,
                    p->place == P_DTYPE ? "a dtype string" : "an array of sizes");
    if (p->place == P_META_VALUE || p->place == P_META_NAMED)
        return STOP(p, "%s: the header's __metadata__ must hold strings only, found %s", p->file, what);
    return STOP(p, "%s: the header must be an object of tensors, found %s", p->file, what);
}

static void add_entry(struct parse *p, const char *s, size_t n) {
    if (p->n == p->cap) p->v = mem_grow(p->v, p->cap = p->cap ? p->cap * 2 : 64, sizeof *p->v);
    p->v[p->n++] = (struct entry){.t = {.name = mem_strndup(s, n), .file = p->file}};
}

static int tensor_key(struct parse *p, const char *s, size_t n) {
    struct entry *v = &p->v[p->n - 1];
    if (n == 5 && !memcmp(s, "dtype", 5) && !v->has_dtype)
        p->place = P_DTYPE;
    else if (n == 5 && !memcmp(s, "shape", 5) && !v->has_shape)
        p->place = P_SHAPE;
    else if (n == 12 && !memcmp(s, "data_offsets", 12) && !v->n_offsets)
        p->place = P_OFFSETS;
    else
        return STOP(p, "%s: the header's entry for tensor %.200s has an unknown or repeated field %.*s", p->file,
                    v->t.name, (int)(n < 60 ? n : 60), s);
    return 1;
}

static int on_key(void *arg, const unsigned char *key, size_t n) {
    struct parse *p = arg;
    const char *s = (const char *)key;
    if (memchr(s, 0, n)) return STOP(p, "%s: a name in the header contains a NUL byte", p->file);
    if (p->place == P_TENSOR) return tensor_key(p, s, n);
    if (p->place == P_META) {
        p->place = P_META_VALUE;
        return 1;
    }
    if (n == 12 && !memcmp(s, "__metadata__", 12)) {
        if (p->meta) return STOP(p, "%s: the header has __metadata__ twice", p->file);
        p->meta = true;
        p->place = P_META_NAMED;
        return 1;
    }
    add_entry(p, s, n);
    p->place = P_NAMED;
    return 1;
}

static int on_map(void *arg) {
    struct parse *p = arg;
    if (p->place == P_START)
        p->place = P_TOP;
    else if (p->place == P_NAMED)
        p->place = P_TENSOR;
    else if (p->place == P_META_NAMED)
        p->place = P_META;
    else
        return unexpected(p, "an object");
    return 1;
}

static int on_map_end(void *arg) {
    struct parse *p = arg;
    if (p->place == P_TENSOR) {
        const struct entry *v = &p->v[p->n - 1];
        if (!v->has_dtype || !v->has_shape || v->n_offsets != 2)
            return STOP(p, "%s: the header's entry for tensor %.200s needs a dtype, a shape and two data_offsets",
                        p->file, v->t.name);
    }
    p->place = p->place == P_TOP ? P_END : P_TOP;
    return 1;
}

static int on_array(void *arg) {
    struct parse *p = arg;
    if (p->place == P_SHAPE)
        p->place = P_IN_SHAPE;
    else if (p->place == P_OFFSETS)
        p->place = P_IN_OFFSETS;
    else
        return unexpected(p, "an array");
    return 1;
}

static int on_array_end(void *arg) {
    struct parse *p = arg;
    if (p->place == P_IN_SHAPE) p->v[p->n - 1].has_shape = true;
    p->place = P_TENSOR;
    return 1;
}

static int on_number(void *arg, const char *s, size_t n) {
    struct parse *p = arg;
    struct entry *v = p->n ? &p->v[p->n - 1] : NULL;
    if (p->place != P_IN_SHAPE && p->place != P_IN_OFFSETS) return unexpected(p, "a number");
    int64_t x = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9' || __builtin_mul_overflow(x, 10, &x) || __builtin_add_overflow(x, s[i] - '0', &x))
            return STOP(p, "%s: tensor %.200s has %.*s where a size belongs", p->file, v->t.name,
                        (int)(n < 60 ? n : 60), s);
    if (p->place == P_IN_SHAPE) {
        if (v->t.n_dims == DIMS_MAX)
            return STOP(p, "%s: tensor %.200s has more than %d dimensions", p->file, v->t.name, DIMS_MAX);
        v->t.dims[v->t.n_dims++] = x;
        return 1;
    }
    if (v->n_offsets == 2) return STOP(p, "%s: tensor %.200s has more than two data_offsets", p->file, v->t.name);
    *(v->n_offsets++ ? &v->end : &v->begin) = (size_t)x;
    return 1;
}

static int on_string(void *arg, const unsigned char *s, size_t n) {
    struct parse *p = arg;
    if (p->place == P_META_VALUE) {
        p->place = P_META;
        return 1;
    }
    if (p->place != P_DTYPE) return unexpected(p, "a string");
    struct entry *v = &p->v[p->n - 1];
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (n != strlen(dtypes[i].name) || memcmp(s, dtypes[i].name, n)) continue;
        v->t.dtype = dtypes[i].name;
        v->bits = dtypes[i].bits;
        v->has_dtype = true;
        p->place = P_TENSOR;
        return 1;
    }
    return STOP(p, "%s: tensor %.200s has the unknown dtype %.*s", p->file, v->t.name, (int)(n < 60 ? n : 60),
                (const char *)s);
}

static int on_null(void *arg) { return unexpected(arg, "null"); }
static int on_bool(void *arg, int b) { return unexpected(arg, b ? "true" : "false"); }

/* ---- whole header ---- */

/* In pieces, so that yajl's own message need not carry the whole header. */
static int read_header(struct parse *p, const char *json, size_t n) {
    static const yajl_callbacks on = {.yajl_null = on_null,
                                      .yajl_boolean = on_bool,
                                      .yajl_number = on_number,
                                      .yajl_string = on_string,
                                      .yajl_start_map = on_map,
                                      .yajl_map_key = on_key,
                                      .yajl_end_map = on_map_end,
                                      .yajl_start_array = on_array,
                                      .yajl_end_array = on_array_end};
    yajl_handle h = yajl_alloc(&on, NULL, p);
    yajl_status s = yajl_status_ok;
    for (size_t at = 0; at < n && s == yajl_status_ok; at += PIECE)
        s = yajl_parse(h, (const unsigned char *)json + at, n - at < PIECE ? n - at : PIECE);
    if (s == yajl_status_ok) s = yajl_complete_parse(h);
    int rc = 0;
    if (s == yajl_status_error) {
        unsigned char *text = yajl_get_error(h, 0, NULL, 0);
        size_t len = strcspn((char *)text, "\n");
        rc = err_input(p->e, "%s: the header is not valid JSON: %.*s", p->file, (int)(len < 200 ? len : 200),
                       (char *)text);
        yajl_free_error(h, text);
    } else if (s != yajl_status_ok)
        rc = -1; /* an event has said why */
    else if (p->place != P_END)
        rc = err_input(p->e, "%s: the header ends before its object does", p->file);
    yajl_free(h);
    return rc;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct entry *)a)->t.name, ((const struct entry *)b)->t.name);
}

static int by_offset(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
}

static int tensor_bytes(const struct entry *v, size_t *bytes) {
    size_t bits = v->bits;
    bool zero = false, over = false;
    for (int32_t i = 0; i < v->t.n_dims; i++) zero = zero || v->t.dims[i] == 0;
    for (int32_t i = 0; i < v->t.n_dims && !zero; i++) over = over || !size_mul(bits, (size_t)v->t.dims[i], &bits);
    if (over || (!zero && bits % 8)) return -1;
    *bytes = zero ? 0 : bits / 8;
    return 0;
}

/* Every byte of the data belongs to exactly one tensor. */
static int check_layout(struct parse *p, const char *data, size_t n) {
    size_t at = 0;
    for (size_t i = 1; i < p->n; i++)
        if (!strcmp(p->v[i - 1].t.name, p->v[i].t.name))
            return err_input(p->e, "%s: the header names tensor %.200s twice", p->file, p->v[i].t.name);
    if (p->n) qsort(p->v, p->n, sizeof *p->v, by_offset);
    for (size_t i = 0; i < p->n; i++) {
        struct entry *v = &p->v[i];
        if (tensor_bytes(v, &v->t.bytes))
            return err_input(p->e, "%s: the shape of tensor %.200s is impossible for %s", p->file, v->t.name,
                             v->t.dtype);
        if (v->end < v->begin || v->end - v->begin != v->t.bytes)
            return err_input(p->e, "%s: tensor %.200s needs %zu bytes for its shape, and its offsets are %zu to %zu",
                             p->file, v->t.name, v->t.bytes, v->begin, v->end);
        if (v->begin != at)
            return err_input(p->e,
                             "%s: the data of tensor %.200s begins at %zu and must begin at %zu, where the one "
                             "before it ends",
                             p->file, v->t.name, v->begin, at);
        at = v->end;
        if (at > n) break; /* told below, for the whole file */
        v->t.data = data + v->begin;
    }
    if (at != n)
        return err_input(p->e, "%s: the header describes %s%zu bytes of tensors and the file has %zu; it is %s",
                         p->file, at > n ? "at least " : "", at, n, at > n ? "truncated" : "too long");
    return 0;
}

static int header_size(const char *data, size_t len, const char *file, size_t *n, struct err *e) {
    static const char lfs[] = "version https://git-lfs";
    if (len >= sizeof lfs - 1 && !memcmp(data, lfs, sizeof lfs - 1))
        return err_input(e, "%s is a Git LFS pointer and not the weights; fetch the file itself (git lfs pull)", file);
    if (len < 8) return err_input(e, "%s has %zu bytes and is no safetensors file", file, len);
    uint64_t x = 0;
    for (int i = 7; i >= 0; i--) x = x << 8 | (unsigned char)data[i];
    if (x > HEADER_MAX)
        return err_input(e, "%s is no safetensors file: its header would have %llu bytes; at most %d are allowed", file,
                         (unsigned long long)x, HEADER_MAX);
    if (x > len - 8)
        return err_input(e, "%s is truncated: it has %zu bytes and its header alone needs %llu", file, len,
                         (unsigned long long)x + 8);
    if (x < 2 || data[8] != '{') return err_input(e, "%s: the header must begin with {", file);
    *n = (size_t)x;
    return 0;
}

int safetensors_parse(const char *data, size_t len, const char *file,
                      int (*each)(void *arg, const struct tensor *t, struct err *e), void *arg, struct err *e) {
    size_t n = 0;
    if (header_size(data, len, file, &n, e)) return -1;
    struct parse p = {.file = file, .e = e};
    int rc = read_header(&p, data + 8, n);
    if (p.n) qsort(p.v, p.n, sizeof *p.v, by_name);
    if (!rc) rc = check_layout(&p, data + 8 + n, len - 8 - n);
    for (size_t i = 0; i < p.n && !rc; i++) rc = each(arg, &p.v[i].t, e);
    for (size_t i = 0; i < p.n; i++) free((char *)p.v[i].t.name);
    free(p.v);
    return rc;
}
