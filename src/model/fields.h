/* fields.h: reading checked fields of a JSON object, for config.json and its kin.
 *
 * A reader keeps the first complaint and answers defaults after it, so a caller reads everything in a row and looks
 * once. `null` counts as absent everywhere, as the files' own tools treat it. Sentences name the file and the field. */
#ifndef MINISGL_MODEL_FIELDS_H
#define MINISGL_MODEL_FIELDS_H
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct fields {
    const json_t *obj;  /* NULL: every field is absent */
    const char *where;  /* "config.json" or "config.json, rope_scaling" */
    struct err *e;
    bool bad;           /* e is filled */
};

/* Parse text as one JSON object; the caller gives *root back with json_decref. */
int fields_parse(json_t **root, const char *text, size_t n, const char *where, struct err *e);

const json_t *fields_get(const struct fields *f, const char *key); /* NULL when absent or null */
int32_t fields_int(struct fields *f, const char *key, int32_t fallback, int32_t min, int32_t max);
int32_t fields_int_required(struct fields *f, const char *key, int32_t min, int32_t max);
bool fields_bool(struct fields *f, const char *key, bool fallback);
/* finite; min and max are allowed */
double fields_number(struct fields *f, const char *key, double fallback, double min, double max);
const char *fields_string(struct fields *f, const char *key, const char *fallback); /* lives as long as the object */
const json_t *fields_object(struct fields *f, const char *key);
const json_t *fields_array(struct fields *f, const char *key);

/* Add a complaint of the caller's own (only the first is kept). */
void fields_complain(struct fields *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "the string \"x\"", "the number -3", "an array", ...: what was found, cut to a length fit for a sentence. */
const char *fields_show(const json_t *v, char out[96]);

#endif
