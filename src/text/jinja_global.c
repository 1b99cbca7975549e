/* jinja_global.c: the functions every template can call. State belongs to the rendering thread. */
#include "text/jinja_int.h"

#include <time.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)
#define GLOBAL(name) static struct val name(struct rt *rt, struct call *c)

static uint64_t range_count(int64_t start, int64_t stop, int64_t step) {
    uint64_t span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
    uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 ? stop <= start : start <= stop) return 0;
    return (span - 1) / by + 1;
}

GLOBAL(g_range) {
    if (c->nkw) FAIL("range() takes no keyword arguments");
    if (c->n < 1 || c->n > 3) FAIL("range expected 1 to 3 arguments, got %zu", c->n);
    struct range *r = NEW(&rt->x, struct range);
    r->stop = need_int(rt, c->pos[c->n > 1]);
    if (c->n > 1) r->start = need_int(rt, c->pos[0]);
    r->step = c->n > 2 ? need_int(rt, c->pos[2]) : 1;
    if (r->step == 0) FAIL("range() arg 3 must not be zero");
    uint64_t n = range_count(r->start, r->stop, r->step);
    if (n > JINJA_MAX_RANGE)
        jx_fail(&rt->x, JINJA_LIMIT, "Range too big. The sandbox blocks ranges larger than %d.", JINJA_MAX_RANGE);
    r->n = (size_t)n;
    return (struct val){.t = V_RANGE, .r = r};
}

static void dict_fill(struct rt *rt, struct dict *d, struct call *c) {
    struct val pair;
    if (c->n && c->pos[0].t == V_UNDEF) fail_undef(&rt->x, c->pos[0].u);
    if (c->n > 1) FAIL("dict expected at most 1 argument, got %zu", c->n);
    if (c->n && c->pos[0].t == V_DICT) {
        struct dict *from = c->pos[0].d;
        for (size_t i = 0; i < from->n; i++) dict_set(rt, d, from->e[i].k, from->e[i].v);
    } else if (c->n) {
        struct iter *it = val_iter(rt, c->pos[0]);
        while (iter_next(rt, it, &pair)) {
            struct vec kv = iter_all(rt, pair);
            if (kv.n != 2) FAIL("dictionary update sequence element has length %zu; 2 is required", kv.n);
            dict_set(rt, d, kv.v[0], kv.v[1]);
        }
    }
    for (size_t i = 0; i < c->nkw; i++) dict_set(rt, d, v_str(c->kw[i]), c->kwv[i]);
}

GLOBAL(g_dict) {
    struct dict *d = dict_new(&rt->x);
    dict_fill(rt, d, c);
    return (struct val){.t = V_DICT, .d = d};
}

GLOBAL(g_namespace) {
    struct dict *d = dict_new(&rt->x);
    dict_fill(rt, d, c);
    return (struct val){.t = V_NS, .d = d};
}

GLOBAL(g_cycler) {
    if (c->nkw) FAIL("cycler() takes no keyword arguments");
    if (c->n == 0) FAIL("at least one item has to be provided");
    struct cycler *y = NEW(&rt->x, struct cycler);
    y->v = c->pos;
    y->n = c->n;
    return (struct val){.t = V_CYCLER, .cycler = y};
}

GLOBAL(g_joiner) {
    struct joiner *j = NEW(&rt->x, struct joiner);
    bind_args(rt, "joiner", "sep", 0, c, &j->sep);
    if (j->sep.t == V_MISSING) j->sep = v_z(&rt->x, ", ");
    return (struct val){.t = V_JOINER, .joiner = j};
}

GLOBAL(g_lipsum) {
    (void)c;
    FAIL("lipsum() is not supported");
}

GLOBAL(g_raise_exception) {
    struct val message;
    bind_args(rt, "raise_exception", "message", 1, c, &message);
    struct str *s = to_str(rt, message);
    jx_fail(&rt->x, JINJA_RAISED, "%.*s", (int)(s->n < 800 ? s->n : 800), s->p);
}

GLOBAL(g_strftime_now) {
    struct val format;
    char text[512], fmt[256];
    struct tm now;
    bind_args(rt, "strftime_now", "format", 1, c, &format);
    if (format.t != V_STR) FAIL("strftime() argument 1 must be str, not %s", type_name(format));
    if (format.s->n >= sizeof fmt || memchr(format.s->p, 0, format.s->n))
        FAIL("strftime_now: a format of this length is refused");
    memcpy(fmt, format.s->p, format.s->n);
    fmt[format.s->n] = 0;
    if (rt->args->now) {
        now = *rt->args->now;
    } else {
        time_t t = time(NULL);
        localtime_r(&t, &now);
    }
    size_t n = *fmt ? strftime(text, sizeof text, fmt, &now) : 0;
    return v_str(str_copy(&rt->x, text, n, format.s->trust == TRUSTED));
}

static const struct {
    const char *name;
    struct val (*fn)(struct rt *rt, struct call *c);
} globals[] = {
    {"range", g_range},
    {"dict", g_dict},
    {"namespace", g_namespace},
    {"cycler", g_cycler},
    {"joiner", g_joiner},
    {"lipsum", g_lipsum},
    {"raise_exception", g_raise_exception},
    {"strftime_now", g_strftime_now},
};
const size_t nglobals = sizeof globals / sizeof *globals;

const char *global_name(int id) { return globals[id].name; }
struct val global_call(struct rt *rt, int id, struct call *c) {
    return globals[id].fn(rt, c);
}
