/* fields.c: see fields.h. No state of its own; the caller's thread. Refuses text that is not one JSON object, and
 * numbers of the wrong kind: 64.0 is no layer count, true is no number. */
#include "model/fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int fields_parse(json_t **root, const char *text, size_t n, const char *where, struct err *e) {
    json_error_t je;
    json_t *j = json_loadb(text, n, 0, &je);
    if (!j) return err_input(e, "%s is not valid JSON: line %d, column %d: %.200s", where, je.line, je.column, je.text);
    if (!json_is_object(j)) {
        char found[96];
        fields_show(j, found);
        json_decref(j);
        return err_input(e, "%s must hold a JSON object, found %s", where, found);
    }
    *root = j;
    return 0;
}

void fields_complain(struct fields *f, const char *fmt, ...) {
    if (f->bad) return;
    f->bad = true;
    char text[sizeof f->e->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_input(f->e, "%s: %s", f->where, text);
}

const char *fields_show(const json_t *v, char out[96]) {
    const size_t n = 96;
    switch (v ? (int)json_typeof(v) : -1) {
    case JSON_STRING: snprintf(out, n, "the string \"%.60s\"", json_string_value(v)); break;
    case JSON_INTEGER: snprintf(out, n, "the number %lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: snprintf(out, n, "the number %g", json_real_value(v)); break;
    case JSON_TRUE: snprintf(out, n, "true"); break;
    case JSON_FALSE: snprintf(out, n, "false"); break;
    case JSON_ARRAY: snprintf(out, n, "an array of %zu", json_array_size(v)); break;
    case JSON_OBJECT: snprintf(out, n, "an object"); break;
    default: snprintf(out, n, "nothing"); break;
    }
    return out;
}

const json_t *fields_get(const struct fields *f, const char *key) {
    const json_t *v = f->obj ? json_object_get(f->obj, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

static int32_t int_of(struct fields *f, const char *key, const json_t *v, int32_t fallback, int32_t min, int32_t max) {
    char found[96];
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        fields_complain(f, "%s must be an integer from %d to %d, found %s", key, min, max, fields_show(v, found));
        return fallback;
    }
    return (int32_t)json_integer_value(v);
}

int32_t fields_int(struct fields *f, const char *key, int32_t fallback, int32_t min, int32_t max) {
    const json_t *v = fields_get(f, key);
    return v ? int_of(f, key, v, fallback, min, max) : fallback;
}

int32_t fields_int_required(struct fields *f, const char *key, int32_t min, int32_t max) {
    return int_of(f, key, fields_get(f, key), min, min, max);
}

bool fields_bool(struct fields *f, const char *key, bool fallback) {
    const json_t *v = fields_get(f, key);
    char found[96];
    if (v && !json_is_boolean(v)) {
        fields_complain(f, "%s must be true or false, found %s", key, fields_show(v, found));
        return fallback;
    }
    return v ? json_is_true(v) : fallback;
}

double fields_number(struct fields *f, const char *key, double fallback, double min, double max) {
    const json_t *v = fields_get(f, key);
    char found[96];
    if (!v) return fallback;
    double x = json_is_number(v) ? json_number_value(v) : NAN;
    if (!(x >= min && x <= max)) {
        fields_complain(f, "%s must be a number from %g to %g, found %s", key, min, max, fields_show(v, found));
        return fallback;
    }
    return x;
}

/* A value that must have one JSON type; NULL when absent or after a complaint. */
static const json_t *typed(struct fields *f, const char *key, json_type type, const char *noun) {
    const json_t *v = fields_get(f, key);
    char found[96];
    if (v && json_typeof(v) != type) {
        fields_complain(f, "%s must be %s, found %s", key, noun, fields_show(v, found));
        return NULL;
    }
    return v;
}

const char *fields_string(struct fields *f, const char *key, const char *fallback) {
    const json_t *v = typed(f, key, JSON_STRING, "a string");
    return v ? json_string_value(v) : fallback;
}

const json_t *fields_object(struct fields *f, const char *key) { return typed(f, key, JSON_OBJECT, "an object"); }

const json_t *fields_array(struct fields *f, const char *key) { return typed(f, key, JSON_ARRAY, "an array"); }
