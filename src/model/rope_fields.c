/* rope_fields.c: see rope_fields.h. Refuses rope types that rope.c cannot compute, one set of parameters per layer
 * type, partial rotation, and numbers that would make an angle infinite or no number. */
#include "model/rope_fields.h"

#include <string.h>

enum { ORIGINAL_MAX = 1 << 28 };
static const double RATIO_MIN = 1e-6, FACTOR_MAX = 1e6, THETA_MAX = 1e30; /* float32 holds all that follows from them */

static const struct {
    const char *name;
    enum rope_kind kind;
} kinds[] = {{"default", ROPE_DEFAULT},
             {"linear", ROPE_LINEAR},
             {"dynamic", ROPE_DYNAMIC},
             {"llama3", ROPE_LLAMA3},
             {"yarn", ROPE_YARN}};

static enum rope_kind kind_of(struct fields *f) {
    const char *name = fields_string(f, "rope_type", NULL);
    if (!name) name = fields_string(f, "type", "default");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i].name, name)) return kinds[i].kind;
    fields_complain(
        f, "the rope type \"%.60s\" is not supported; supported are default, linear, dynamic, llama3 and yarn", name);
    return ROPE_DEFAULT;
}

static double positive(struct fields *f, const char *key, double fallback, double max) {
    double x = fields_number(f, key, fallback, 0, max);
    if (!f->bad && fields_get(f, key) && x <= 0) fields_complain(f, "%s must be greater than 0, found %g", key, x);
    if (!f->bad && fields_get(f, key) && x < RATIO_MIN)
        fields_complain(f, "%s must be at least %g, found %g", key, RATIO_MIN, x);
    return x;
}

static double required(struct fields *f, const char *key, double max) {
    if (!fields_get(f, key)) fields_complain(f, "%s is missing, and this rope type needs it", key);
    return positive(f, key, 1, max);
}

static void read_llama3(struct rope_config *r, struct fields *f) {
    r->factor = required(f, "factor", FACTOR_MAX);
    r->low_freq_factor = required(f, "low_freq_factor", FACTOR_MAX);
    r->high_freq_factor = required(f, "high_freq_factor", FACTOR_MAX);
    if (!f->bad && (float)r->high_freq_factor <= (float)r->low_freq_factor)
        fields_complain(f, "high_freq_factor (%g) must be greater than low_freq_factor (%g)", r->high_freq_factor,
                        r->low_freq_factor);
}

static void read_yarn(struct rope_config *r, struct fields *f, int32_t max_position) {
    double ratio = (double)max_position / r->original_max;
    r->factor = positive(f, "factor", ratio > RATIO_MIN ? ratio : RATIO_MIN, FACTOR_MAX);
    r->attention_factor = positive(f, "attention_factor", -1, FACTOR_MAX);
    /* 0 counts as absent in all four, as the reference reads them */
    r->beta_fast = fields_number(f, "beta_fast", 0, 0, FACTOR_MAX);
    r->beta_slow = fields_number(f, "beta_slow", 0, 0, FACTOR_MAX);
    r->mscale = fields_number(f, "mscale", 0, 0, FACTOR_MAX);
    r->mscale_all_dim = fields_number(f, "mscale_all_dim", 0, 0, FACTOR_MAX);
    if (r->beta_fast == 0) r->beta_fast = 32;
    if (r->beta_slow == 0) r->beta_slow = 1;
    r->truncate = fields_bool(f, "truncate", true);
    if (!f->bad && r->theta <= 1) fields_complain(f, "rope_theta (%g) must be greater than 1 for yarn", r->theta);
}

static void refuse_partial(struct fields *f) {
    if (fields_number(f, "partial_rotary_factor", 1, 0, 1) != 1)
        fields_complain(f, "partial_rotary_factor other than 1 (part of a head is not rotated) is not supported");
    static const char *const per_layer[] = {"full_attention", "sliding_attention"};
    for (int i = 0; i < 2; i++)
        if (fields_get(f, per_layer[i]))
            fields_complain(f, "one set of rope parameters per layer type is not supported");
}

/* The rotated length after scaling; beyond int32 is cut, the engine's own limits are far below. */
static int32_t scaled_length(double n) { return n >= ORIGINAL_MAX ? ORIGINAL_MAX : n < 1 ? 1 : (int32_t)n; }

static void read_kind(struct rope_config *r, struct fields *top, struct fields *f, int32_t *max_position) {
    int32_t original = fields_int(f, "original_max_position_embeddings", *max_position, 1, ORIGINAL_MAX);
    /* a field beside the rope parameters has priority over the one inside them */
    r->original_max = fields_int(top, "original_max_position_embeddings", original, 1, ORIGINAL_MAX);
    switch (r->kind) {
    case ROPE_DEFAULT: break;
    case ROPE_LINEAR:
        r->factor = required(f, "factor", FACTOR_MAX);
        *max_position = scaled_length(*max_position * r->factor);
        break;
    case ROPE_DYNAMIC:
        r->factor = required(f, "factor", FACTOR_MAX);
        if (!f->bad && r->factor < 1) fields_complain(f, "factor must be at least 1 for dynamic, found %g", r->factor);
        r->original_max = *max_position; /* this kind scales from max_position_embeddings */
        *max_position = scaled_length(*max_position * r->factor);
        break;
    case ROPE_LLAMA3: read_llama3(r, f); break;
    case ROPE_YARN:
        read_yarn(r, f, *max_position);
        *max_position = scaled_length(r->original_max * r->factor);
        break;
    }
}

void rope_fields_read(struct rope_config *r, struct fields *f, int32_t head_dim, int32_t *max_position) {
    const json_t *scaling = fields_object(f, "rope_scaling"), *params = fields_object(f, "rope_parameters");
    bool old = json_object_size(scaling) > 0;
    struct fields in = {.obj = old ? scaling : params,
                        .e = f->e,
                        .bad = f->bad,
                        .where = old ? "config.json, rope_scaling" : "config.json, rope_parameters"};
    *r = (struct rope_config){.factor = 1, .attention_factor = -1, .truncate = true};
    double theta = positive(f, "rope_theta", 10000, THETA_MAX);
    r->theta = positive(&in, "rope_theta", theta, THETA_MAX);
    r->kind = kind_of(&in);
    refuse_partial(f);
    refuse_partial(&in);
    if (!in.bad) read_kind(r, f, &in, max_position);
    if (!in.bad && r->kind == ROPE_DYNAMIC && head_dim == 2)
        fields_complain(&in, "the rope type dynamic needs a head dimension of more than 2");
    f->bad = f->bad || in.bad;
}
