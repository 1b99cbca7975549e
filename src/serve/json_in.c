/* json_in.c: see json_in.h. No state. */
#include "serve/json_in.h"

#include <string.h>

struct scan {
    int depth;
    size_t values;
    const char *key; /* the last string that began at depth 1: the field that is being read */
    size_t key_n;
};

/* The position behind the string that starts at p[i] (a quote); n when it does not end. */
static size_t skip_string(const char *p, size_t i, size_t n) {
    for (i++; i < n && p[i] != '"'; i++)
        if (p[i] == '\\') i++;
    return i < n ? i + 1 : n;
}

/* Count what is outside strings. The scan need not understand JSON: the parser refuses what is none. */
static int scan_to(struct scan *s, const char *p, size_t n, struct api_err *e) {
    bool name_next = false;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)p[i];
        if (c == '"') {
            size_t end = skip_string(p, i, n);
            if (s->depth == 1 && name_next) s->key = p + i + 1, s->key_n = end - i < 2 ? 0 : end - i - 2;
            name_next = false;
            i = end;
            continue;
        }
        if (c == '{' || c == '[') {
            if (++s->depth > JSON_MAX_DEPTH)
                return api_fail(e, 400, NULL, "the body is nested deeper than %d levels", JSON_MAX_DEPTH);
            name_next = c == '{';
        } else if (c == '}' || c == ']') {
            s->depth--;
        } else if (c == ',') {
            name_next = true;
        } else if (!c) {
            return api_fail(e, 400, NULL, "the body contains a NUL byte");
        }
        if ((c == ',' || c == '[' || c == '{') && ++s->values > JSON_MAX_VALUES)
            return api_fail(e, 400, NULL, "the body has more than %d JSON values", JSON_MAX_VALUES);
        i++;
    }
    return 0;
}

/* Which field the parser stopped in. */
static void name_field(const char *p, size_t n, int position, struct api_err *e) {
    struct scan s = {0};
    struct api_err none;
    if (position <= 0 || (size_t)position > n || scan_to(&s, p, (size_t)position, &none)) return;
    if (!s.key || !s.key_n || s.key_n >= sizeof e->param || (size_t)(s.key - p) + s.key_n > (size_t)position) return;
    memcpy(e->param, s.key, s.key_n);
    e->param[s.key_n] = 0;
}

json_t *json_read(const char *p, size_t n, struct api_err *e) {
    struct scan s = {0};
    if (!n) {
        api_fail(e, 400, NULL, "the body is empty; it must be a JSON object");
        return NULL;
    }
    if (scan_to(&s, p, n, e)) return NULL;
    json_error_t why;
    json_t *j = json_loadb(p, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    if (!j) {
        api_fail(e, 400, NULL, "the body is not valid JSON: %s (byte %d)", why.text, why.position);
        if (json_error_code(&why) == json_error_numeric_overflow) name_field(p, n, why.position, e);
        return NULL;
    }
    if (json_is_object(j)) return j;
    json_decref(j);
    api_fail(e, 400, NULL, "the body must be a JSON object");
    return NULL;
}
