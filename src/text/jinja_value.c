/* jinja_value.c: values as Python has them: lists, dicts, iterators, equality, order, str() and repr().
 *
 * State belongs to the rendering thread. Values never change, except namespaces, cyclers, joiners and iterators. */
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>

void vec_add(struct jx *x, struct vec *a, struct val v) {
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 8;
        struct val *p = jx_array(x, cap, sizeof *p);
        if (a->n) memcpy(p, a->v, a->n * sizeof *p);
        a->v = p;
        a->cap = cap;
    }
    a->v[a->n++] = v;
}

struct val v_list(struct jx *x, struct val *v, size_t n, bool tuple) {
    struct list *l = NEW(x, struct list);
    l->v = v ? v : jx_alloc(x, 0);
    l->n = n;
    return (struct val){.t = tuple ? V_TUPLE : V_LIST, .l = l};
}

struct val v_pair(struct jx *x, struct val a, struct val b) {
    struct val *v = jx_array(x, 2, sizeof *v);
    v[0] = a;
    v[1] = b;
    return v_list(x, v, 2, true);
}

struct val list_slice(struct jx *x, struct val l, size_t from, size_t n) {
    return v_list(x, l.l->v + from, n, l.t == V_TUPLE);
}

struct val list_concat(struct jx *x, struct val va, struct val vb) {
    struct list *a = va.l, *b = vb.l, *r = NEW(x, struct list);
    jx_charge(x, b->n / 8);
    struct list_store *st = a->store;
    r->n = a->n + b->n;
    if (!st || a->v + a->n != st->base + st->used || st->cap - st->used < b->n) {
        jx_charge(x, a->n / 8);
        st = NEW(x, struct list_store);
        st->cap = r->n * 2 + 4;
        st->base = jx_array(x, st->cap, sizeof *st->base);
        if (a->n) memcpy(st->base, a->v, a->n * sizeof *a->v);
        st->used = a->n;
        r->v = st->base;
    } else {
        r->v = a->v;
    }
    if (b->n) memcpy(st->base + st->used, b->v, b->n * sizeof *b->v);
    st->used += b->n;
    r->store = st;
    return (struct val){.t = va.t, .l = r};
}

/* ---- undefined ---- */

static struct val v_undef(struct jx *x, enum undef_kind kind, const char *hint, const char *obj, struct val name) {
    struct undef *u = NEW(x, struct undef);
    *u = (struct undef){kind, hint, obj, name};
    return (struct val){.t = V_UNDEF, .u = u};
}

struct val v_undef_name(struct jx *x, struct str *name) {
    return v_undef(x, UNDEF_NAME, NULL, NULL, v_str(name));
}
struct val v_undef_hint(struct jx *x, const char *hint) {
    return v_undef(x, UNDEF_HINT, hint, NULL, v_none());
}
struct val v_undef_attr(struct jx *x, struct val obj, struct val name, bool unsafe) {
    return v_undef(x, unsafe ? UNDEF_UNSAFE : UNDEF_ATTR, NULL, type_name(obj), name);
}

void fail_undef(struct jx *x, const struct undef *u) {
    struct rt *rt = (struct rt *)x; /* undefined values exist only while rendering */
    const char *name = cstr_repr(rt, u->name);
    bool none = u->obj && strcmp(u->obj, "NoneType") == 0;
    switch (u->kind) {
    case UNDEF_NAME: jx_fail(x, JINJA_RUNTIME, "%s is undefined", name);
    case UNDEF_HINT: jx_fail(x, JINJA_RUNTIME, "%s", u->hint);
    case UNDEF_UNSAFE: jx_fail(x, JINJA_RUNTIME, "access to attribute %s of '%s' object is unsafe.", name, u->obj);
    case UNDEF_ATTR:
        if (u->name.t != V_STR)
            jx_fail(x, JINJA_RUNTIME, "%s%s has no element %s", none ? "None" : u->obj, none ? "" : " object", name);
        jx_fail(x, JINJA_RUNTIME, "'%s%s' has no attribute %s", none ? "None" : u->obj, none ? "" : " object", name);
    }
    jx_fail(x, JINJA_RUNTIME, "undefined value");
}

/* ---- dicts ---- */

bool hashable(struct val v) {
    if (v.t == V_LIST || v.t == V_DICT || v.t == V_SLICE) return false;
    if (v.t == V_VIEW) return v.view->kind == 'v';
    if (v.t == V_TUPLE)
        for (size_t i = 0; i < v.l->n; i++)
            if (!hashable(v.l->v[i])) return false;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

static uint64_t hash(struct rt *rt, struct val v) {
    uint64_t h = rt->seed;
    double f;
    switch (v.t) {
    case V_STR:
        for (size_t i = 0; i < v.s->n; i += 8) {
            uint64_t w = 0;
            memcpy(&w, v.s->p + i, v.s->n - i < 8 ? v.s->n - i : 8);
            h = mix(h, w);
        }
        return mix(h, v.s->n);
    case V_BOOL: return mix(h, v.b);
    case V_INT: return mix(h, (uint64_t)v.i);
    case V_FLOAT:
        f = v.f;
        if (f >= -9e18 && f <= 9e18 && f == floor(f)) return mix(h, (uint64_t)(int64_t)f);
        memcpy(&h, &f, sizeof h);
        return mix(rt->seed, h);
    case V_TUPLE:
        jx_enter(&rt->x);
        for (size_t i = 0; i < v.l->n; i++) h = mix(h, hash(rt, v.l->v[i]));
        jx_leave(&rt->x);
        return h;
    default: return mix(h, v.t);
    }
}

struct dict *dict_new(struct jx *x) {
    return NEW(x, struct dict);
}

static void dict_index(struct rt *rt, struct dict *d) {
    size_t n = 16;
    while (n < d->n * 2) n *= 2;
    d->idx = memset(jx_array(&rt->x, n, sizeof *d->idx), 0, n * sizeof *d->idx);
    d->nidx = n;
    for (size_t i = 0; i < d->n; i++) {
        d->e[i].h = hash(rt, d->e[i].k);
        size_t at = d->e[i].h & (n - 1);
        while (d->idx[at]) at = (at + 1) & (n - 1);
        d->idx[at] = (uint32_t)i + 1;
    }
}

static bool key_eq(struct rt *rt, struct val a, struct val b) {
    if (a.t == V_STR && b.t == V_STR) return str_eq(a.s, b.s);
    if (a.t == V_STR || b.t == V_STR) return false;
    return val_same(a, b) || val_eq(rt, a, b);
}

struct val *dict_get(struct rt *rt, struct dict *d, struct val k) {
    if (!hashable(k)) jx_fail(&rt->x, JINJA_RUNTIME, "unhashable type: '%s'", type_name(k));
    if (d->n <= 8) {
        for (size_t i = 0; i < d->n; i++)
            if (key_eq(rt, d->e[i].k, k)) return &d->e[i].v;
        return NULL;
    }
    if (!d->idx || d->nidx < d->n * 2) dict_index(rt, d);
    uint64_t h = hash(rt, k);
    for (size_t at = h & (d->nidx - 1); d->idx[at]; at = (at + 1) & (d->nidx - 1)) {
        struct dent *e = &d->e[d->idx[at] - 1];
        if (e->h == h && key_eq(rt, e->k, k)) return &e->v;
    }
    return NULL;
}

struct val *dict_find(struct dict *d, const struct str *name) { /* small dicts of names only */
    for (size_t i = 0; i < d->n; i++)
        if (d->e[i].k.t == V_STR && str_eq(d->e[i].k.s, name)) return &d->e[i].v;
    return NULL;
}

void dict_append(struct jx *x, struct dict *d, struct val k, struct val v) {
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct dent *e = jx_array(x, cap, sizeof *e);
        if (d->n) memcpy(e, d->e, d->n * sizeof *e);
        d->e = e;
        d->cap = cap;
    }
    d->e[d->n++] = (struct dent){k, v, 0};
}

void dict_set(struct rt *rt, struct dict *d, struct val k, struct val v) {
    struct val *p = dict_get(rt, d, k);
    if (p) {
        *p = v;
        return;
    }
    dict_append(&rt->x, d, k, v);
    if (!d->idx) return;
    if (d->nidx < d->n * 2) {
        d->idx = NULL;
        return;
    }
    struct dent *e = &d->e[d->n - 1];
    e->h = hash(rt, k);
    size_t at = e->h & (d->nidx - 1);
    while (d->idx[at]) at = (at + 1) & (d->nidx - 1);
    d->idx[at] = (uint32_t)d->n;
}

/* ---- kinds ---- */

static const char *iter_name(const struct iter *it) {
    if (it->kind != IT_REV) return "generator";
    enum vtype t = it->src.t;
    return t == V_LIST    ? "list_reverseiterator"
           : t == V_DICT  ? "dict_reversekeyiterator"
           : t == V_RANGE ? "range_iterator"
                          : "reversed";
}

const char *type_name(struct val v) {
    switch (v.t) {
    case V_MISSING: return "missing";
    case V_UNDEF: return "Undefined";
    case V_NONE: return "NoneType";
    case V_BOOL: return "bool";
    case V_INT: return "int";
    case V_FLOAT: return "float";
    case V_STR: return v.s->markup ? "markupsafe.Markup" : "str";
    case V_LIST: return "list";
    case V_TUPLE: return "tuple";
    case V_DICT: return "dict";
    case V_RANGE: return "range";
    case V_NS: return "jinja2.utils.Namespace";
    case V_ITER: return iter_name(v.it);
    case V_VIEW: return v.view->kind == 'k' ? "dict_keys" : v.view->kind == 'v' ? "dict_values" : "dict_items";
    case V_FUNC: return "function";
    case V_METHOD: return "builtin_function_or_method";
    case V_MACRO: return "jinja2.runtime.Macro";
    case V_LOOP: return "jinja2.runtime.LoopContext";
    case V_CYCLER: return "jinja2.utils.Cycler";
    case V_JOINER: return "jinja2.utils.Joiner";
    case V_SLICE: return "slice";
    }
    return "object";
}

bool is_num(struct val v) { return v.t == V_INT || v.t == V_FLOAT || v.t == V_BOOL; }

bool as_int(struct val v, int64_t *i) {
    if (v.t == V_INT)
        *i = v.i;
    else if (v.t == V_BOOL)
        *i = v.b;
    else
        return false;
    return true;
}

double as_double(struct val v) { return v.t == V_FLOAT ? v.f : v.t == V_BOOL ? v.b : (double)v.i; }

int64_t need_int(struct rt *rt, struct val v) {
    int64_t i;
    if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
    if (!as_int(v, &i)) jx_fail(&rt->x, JINJA_RUNTIME, "'%s' object cannot be interpreted as an integer", type_name(v));
    return i;
}

bool int_flag(struct rt *rt, struct val v) {
    int64_t i = v.t == V_MISSING ? 0 : need_int(rt, v);
    if (i != (int32_t)i) jx_fail(&rt->x, JINJA_RUNTIME, "an integer of more than 32 bits is no flag");
    return i != 0;
}

bool truthy(struct rt *rt, struct val v) {
    int64_t n;
    switch (v.t) {
    case V_UNDEF:
    case V_NONE:
    case V_MISSING: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    default: return val_len(rt, v, &n) ? n != 0 : true;
    }
}

bool val_len(struct rt *rt, struct val v, int64_t *n) {
    switch (v.t) {
    case V_UNDEF: *n = 0; return true;
    case V_STR: *n = (int64_t)str_chars(v.s); return true;
    case V_LIST:
    case V_TUPLE: *n = (int64_t)v.l->n; return true;
    case V_DICT: *n = (int64_t)v.d->n; return true;
    case V_RANGE: *n = (int64_t)v.r->n; return true;
    case V_VIEW: *n = (int64_t)v.view->d->n; return true;
    case V_LOOP: *n = loop_length(rt, v.loop); return true;
    default: return false;
    }
}

bool val_same(struct val a, struct val b) {
    if (a.t != b.t) return false;
    switch (a.t) {
    case V_NONE: return true;
    case V_BOOL: return a.b == b.b;
    case V_INT: return a.i == b.i && a.i >= -5 && a.i <= 256; /* CPython keeps one object for each of these */
    case V_STR: return a.s == b.s || (a.s->n == 0 && b.s->n == 0);
    case V_TUPLE: return a.l == b.l || (a.l->n == 0 && b.l->n == 0);
    case V_FUNC: return a.func == b.func;
    case V_FLOAT:
    case V_METHOD: return false;
    default: return a.d == b.d;
    }
}

static int num_order(struct val a, struct val b) { /* 2: NaN */
    if (a.t != V_FLOAT && b.t != V_FLOAT) {
        int64_t i = a.t == V_BOOL ? a.b : a.i, j = b.t == V_BOOL ? b.b : b.i;
        return (i > j) - (i < j);
    }
    /* long double holds every int64 exactly on the machines we run on, so this compares as Python does */
    long double f = a.t == V_FLOAT ? (long double)a.f : a.t == V_BOOL ? a.b : (long double)a.i;
    long double g = b.t == V_FLOAT ? (long double)b.f : b.t == V_BOOL ? b.b : (long double)b.i;
    if (f != f || g != g) return 2;
    return (f > g) - (f < g);
}

static bool dict_eq(struct rt *rt, struct dict *a, struct dict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        struct val *p = dict_get(rt, b, a->e[i].k);
        if (!p || !(val_same(*p, a->e[i].v) || val_eq(rt, *p, a->e[i].v))) return false;
    }
    return true;
}

static bool range_eq(const struct range *a, const struct range *b) {
    if (a->n != b->n) return false;
    if (a->n == 0) return true;
    return a->start == b->start && (a->n == 1 || a->step == b->step);
}

static bool compound_eq(struct rt *rt, struct val a, struct val b) {
    if (a.t == V_DICT) return dict_eq(rt, a.d, b.d);
    if (a.t == V_VIEW && a.view->kind != 'v' && a.view->kind == b.view->kind) {
        if (a.view->kind == 'i') return dict_eq(rt, a.view->d, b.view->d);
        if (a.view->d->n != b.view->d->n) return false;
        for (size_t i = 0; i < a.view->d->n; i++)
            if (!dict_get(rt, b.view->d, a.view->d->e[i].k)) return false;
        return true;
    }
    if (a.t != V_LIST && a.t != V_TUPLE) return val_same(a, b);
    if (a.l->n != b.l->n) return false;
    for (size_t i = 0; i < a.l->n; i++)
        if (!val_same(a.l->v[i], b.l->v[i]) && !val_eq(rt, a.l->v[i], b.l->v[i])) return false;
    return true;
}

bool val_eq(struct rt *rt, struct val a, struct val b) {
    jx_charge(&rt->x, 1);
    if (is_num(a) && is_num(b)) return num_order(a, b) == 0;
    if (a.t != b.t) return false;
    if (a.t == V_STR) {
        jx_charge(&rt->x, a.s->n / 256);
        return str_eq(a.s, b.s);
    }
    if (a.t == V_UNDEF) return true;
    if (a.t == V_RANGE) return range_eq(a.r, b.r);
    jx_enter(&rt->x);
    bool eq = compound_eq(rt, a, b);
    jx_leave(&rt->x);
    return eq;
}

int val_order(struct rt *rt, struct val a, struct val b, const char *op) {
    jx_charge(&rt->x, 1);
    if (is_num(a) && is_num(b)) return num_order(a, b);
    if (a.t == V_STR && b.t == V_STR) {
        jx_charge(&rt->x, a.s->n / 256);
        return str_cmp(a.s, b.s);
    }
    if (a.t == V_UNDEF) fail_undef(&rt->x, a.u);
    if (b.t == V_UNDEF) fail_undef(&rt->x, b.u);
    if (a.t == b.t && (a.t == V_LIST || a.t == V_TUPLE)) {
        for (size_t i = 0; i < a.l->n && i < b.l->n; i++) {
            struct val p = a.l->v[i], q = b.l->v[i];
            if (val_same(p, q) || val_eq(rt, p, q)) continue;
            jx_enter(&rt->x);
            int c = val_order(rt, p, q, op);
            jx_leave(&rt->x);
            return c;
        }
        return (a.l->n > b.l->n) - (a.l->n < b.l->n);
    }
    jx_fail(&rt->x, JINJA_RUNTIME, "'%s' not supported between instances of '%s' and '%s'", op, type_name(a),
            type_name(b));
}

/* ---- str() and repr() ---- */

static void repr_str(struct sb *b, const struct str *s) {
    bool single = memchr(s->p, '\'', s->n) != NULL, dbl = memchr(s->p, '"', s->n) != NULL;
    char quote = single && !dbl ? '"' : '\'', esc[16];
    if (s->markup) sb_z(b, "Markup(", true);
    sb_raw(b, &quote, 1, true);
    for (size_t i = 0, w; i < s->n; i += w) {
        uint32_t c = u_get(s->p + i, s->n - i, &w);
        if (c == (unsigned char)quote || c == '\\') {
            sb_z(b, "\\", true);
            sb_sub(b, s, i, w);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            sb_z(b, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", true);
        } else if (c < 0x80 ? c >= ' ' && c != 0x7F : u_printable(c)) {
            sb_sub(b, s, i, w);
        } else {
            snprintf(esc, sizeof esc, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
            sb_z(b, esc, true);
        }
    }
    sb_raw(b, &quote, 1, true);
    if (s->markup) sb_z(b, ")", true);
}

static void repr_items(struct rt *rt, struct sb *b, struct val *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (i) sb_z(b, ", ", true);
        val_repr(rt, b, v[i]);
    }
}

static void repr_dict(struct rt *rt, struct sb *b, struct dict *d) {
    sb_z(b, "{", true);
    for (size_t i = 0; i < d->n; i++) {
        if (i) sb_z(b, ", ", true);
        val_repr(rt, b, d->e[i].k);
        sb_z(b, ": ", true);
        val_repr(rt, b, d->e[i].v);
    }
    sb_z(b, "}", true);
}

static void repr_view(struct rt *rt, struct sb *b, struct view *w) {
    sb_z(b, w->kind == 'k' ? "dict_keys([" : w->kind == 'v' ? "dict_values([" : "dict_items([", true);
    for (size_t i = 0; i < w->d->n; i++) {
        struct dent *e = &w->d->e[i];
        if (i) sb_z(b, ", ", true);
        val_repr(rt, b, w->kind == 'k' ? e->k : w->kind == 'v' ? e->v : v_pair(&rt->x, e->k, e->v));
    }
    sb_z(b, "])", true);
}

/* Python's text of these is where they lie in its memory; a prompt with that in it is a mistake. Four are classes. */
static void repr_address(struct rt *rt, struct sb *b, struct val v) {
    static const char *const classes[][2] = {{"dict", "dict"},
                                             {"namespace", "jinja2.utils.Namespace"},
                                             {"cycler", "jinja2.utils.Cycler"},
                                             {"joiner", "jinja2.utils.Joiner"}};
    char text[96];
    for (size_t i = 0; v.t == V_FUNC && i < sizeof classes / sizeof *classes; i++) {
        if (strcmp(classes[i][0], global_name(v.func))) continue;
        snprintf(text, sizeof text, "<class '%s'>", classes[i][1]);
        sb_z(b, text, true);
        return;
    }
    if (!rt->in_message)
        jx_fail(&rt->x, JINJA_RUNTIME, "the text of a %s would be a memory address: it is refused", type_name(v));
    snprintf(text, sizeof text, "<%s object>", type_name(v));
    sb_z(b, text, true);
}

static void repr_object(struct rt *rt, struct sb *b, struct val v) {
    char text[96];
    switch (v.t) {
    case V_RANGE:
        if (v.r->step == 1)
            snprintf(text, sizeof text, "range(%lld, %lld)", (long long)v.r->start, (long long)v.r->stop);
        else
            snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)v.r->start, (long long)v.r->stop,
                     (long long)v.r->step);
        sb_z(b, text, true);
        return;
    case V_NS:
        sb_z(b, "<Namespace ", true);
        repr_dict(rt, b, v.d);
        sb_z(b, ">", true);
        return;
    case V_MACRO:
        sb_z(b, "<Macro ", true);
        if (v.macro->name)
            repr_str(b, v.macro->name);
        else
            sb_z(b, "anonymous", true);
        sb_z(b, ">", true);
        return;
    case V_LOOP: {
        int64_t n = 0;
        val_len(rt, v, &n);
        snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1, (long long)n);
        sb_z(b, text, true);
        return;
    }
    case V_VIEW: repr_view(rt, b, v.view); return;
    default: repr_address(rt, b, v);
    }
}

void val_repr(struct rt *rt, struct sb *b, struct val v) {
    char text[40];
    jx_charge(&rt->x, 1);
    jx_enter(&rt->x);
    switch (v.t) {
    case V_UNDEF: sb_z(b, "Undefined", true); break;
    case V_NONE: sb_z(b, "None", true); break;
    case V_BOOL: sb_z(b, v.b ? "True" : "False", true); break;
    case V_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        sb_z(b, text, true);
        break;
    case V_FLOAT:
        float_repr(v.f, text);
        sb_z(b, text, true);
        break;
    case V_STR: repr_str(b, v.s); break;
    case V_LIST:
        sb_z(b, "[", true);
        repr_items(rt, b, v.l->v, v.l->n);
        sb_z(b, "]", true);
        break;
    case V_TUPLE:
        sb_z(b, "(", true);
        repr_items(rt, b, v.l->v, v.l->n);
        sb_z(b, v.l->n == 1 ? ",)" : ")", true);
        break;
    case V_DICT: repr_dict(rt, b, v.d); break;
    case V_SLICE:
        sb_z(b, "slice(", true);
        for (int i = 0; i < 3; i++) {
            if (i) sb_z(b, ", ", true);
            val_repr(rt, b, v.slice[i].t == V_MISSING ? v_none() : v.slice[i]);
        }
        sb_z(b, ")", true);
        break;
    default: repr_object(rt, b, v);
    }
    jx_leave(&rt->x);
}

void val_str(struct rt *rt, struct sb *b, struct val v) {
    if (v.t == V_STR)
        sb_str(b, v.s);
    else if (v.t != V_UNDEF)
        val_repr(rt, b, v);
}

struct str *to_str(struct rt *rt, struct val v) {
    if (v.t == V_STR) return v.s;
    struct sb b;
    sb_init(&b, &rt->x);
    val_str(rt, &b, v);
    return sb_take(&b);
}

struct str *to_repr(struct rt *rt, struct val v) {
    struct sb b;
    sb_init(&b, &rt->x);
    val_repr(rt, &b, v);
    return sb_take(&b);
}

const char *cstr_repr(struct rt *rt, struct val v) {
    if (v.t == V_STR && v.s->n > 200) v = v_str(str_sub(&rt->x, v.s, 0, str_offset(v.s, 60)));
    rt->in_message = true;
    struct str *s = to_repr(rt, v);
    rt->in_message = false;
    size_t n = s->n < 300 ? s->n : 300;
    char *z = jx_alloc(&rt->x, n + 1);
    memcpy(z, s->p, n);
    z[n] = 0;
    return z;
}

/* ---- iterators ---- */

struct val v_iter(struct rt *rt, enum iter_kind kind, struct val src) {
    struct iter *it = NEW(&rt->x, struct iter);
    it->kind = kind;
    it->src = src;
    return (struct val){.t = V_ITER, .it = it};
}

bool iterable(struct val v) {
    switch (v.t) {
    case V_UNDEF:
    case V_STR:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_RANGE:
    case V_VIEW:
    case V_LOOP:
    case V_ITER: return true;
    default: return false;
    }
}

struct iter *val_iter(struct rt *rt, struct val v) {
    switch (v.t) {
    case V_ITER: return v.it;
    case V_UNDEF: return v_iter(rt, IT_EMPTY, v).it;
    case V_STR: return v_iter(rt, IT_STR, v).it;
    case V_LIST:
    case V_TUPLE: return v_iter(rt, IT_SEQ, v).it;
    case V_DICT:
    case V_VIEW: return v_iter(rt, IT_DICT, v).it;
    case V_RANGE: return v_iter(rt, IT_RANGE, v).it;
    default: jx_fail(&rt->x, JINJA_RUNTIME, "'%s' object is not iterable", type_name(v));
    }
}

static bool dict_next(struct rt *rt, struct iter *it, struct val *out) {
    struct dict *d = it->src.t == V_VIEW ? it->src.view->d : it->src.d;
    char kind = it->src.t == V_VIEW ? it->src.view->kind : 'k';
    if (it->at >= d->n) return false;
    struct dent *e = &d->e[it->at++];
    *out = kind == 'k' ? e->k : kind == 'v' ? e->v : v_pair(&rt->x, e->k, e->v);
    return true;
}

static bool rev_next(struct rt *rt, struct iter *it, struct val *out) {
    struct val v = it->src;
    int64_t n = 0;
    val_len(rt, v, &n);
    if ((int64_t)it->at >= n) return false;
    size_t i = (size_t)n - 1 - it->at++;
    if (v.t == V_RANGE)
        *out = v_int(v.r->start + (int64_t)i * v.r->step);
    else if (v.t == V_LIST || v.t == V_TUPLE)
        *out = v.l->v[i];
    else {
        struct iter at = {.kind = IT_DICT, .src = v, .at = i};
        return dict_next(rt, &at, out);
    }
    return true;
}

bool iter_next(struct rt *rt, struct iter *it, struct val *out) {
    size_t w;
    jx_charge(&rt->x, 1);
    if (it->done) return false;
    bool more = false;
    switch (it->kind) {
    case IT_EMPTY: break;
    case IT_SEQ:
        more = it->at < it->src.l->n;
        if (more) *out = it->src.l->v[it->at++];
        break;
    case IT_STR:
        more = it->at < it->src.s->n;
        if (!more) break;
        u_get(it->src.s->p + it->at, it->src.s->n - it->at, &w);
        struct str *c = str_sub(&rt->x, it->src.s, it->at, w);
        c->markup = false;
        *out = v_str(c);
        it->at += w;
        break;
    case IT_RANGE:
        more = it->at < it->src.r->n;
        if (more) *out = v_int(it->src.r->start + (int64_t)it->at++ * it->src.r->step);
        break;
    case IT_DICT: more = dict_next(rt, it, out); break;
    case IT_REV: more = rev_next(rt, it, out); break;
    case IT_FOR:
    default:
        jx_enter(&rt->x);
        more = it->kind == IT_FOR ? iter_for_next(rt, it, out) : iter_filter_next(rt, it, out);
        jx_leave(&rt->x);
    }
    if (!more) it->done = true;
    return more;
}

struct vec iter_all(struct rt *rt, struct val v) {
    struct vec a = {0};
    if (v.t == V_LIST || v.t == V_TUPLE) { /* shared, not copied: nobody writes to lists */
        a.v = v.l->v;
        a.n = a.cap = v.l->n;
        return a;
    }
    struct iter *it = val_iter(rt, v);
    struct val item;
    while (iter_next(rt, it, &item)) vec_add(&rt->x, &a, item);
    return a;
}
