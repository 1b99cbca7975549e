/* jinja_filter.c: the filters on sequences, mappings and numbers, and how filters get their arguments.
 *
 * Filters that Jinja writes as generators return an iterator which works when it is asked (iter_filter_next).
 * State belongs to the rendering thread. */
#include "text/jinja_int.h"

#include <math.h>
#include <stdlib.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)
enum { MAX_ARGS = 8 };

/* ---- arguments ---- */

static size_t name_index(const char *names, const struct str *name) { /* SIZE_MAX: not there */
    for (size_t i = 0; *names; i++) {
        size_t n = strcspn(names, "|");
        if (n == name->n && memcmp(names, name->p, n) == 0) return i;
        names += n + (names[n] == '|');
    }
    return SIZE_MAX;
}

static size_t name_count(const char *names) {
    size_t n = *names != 0;
    for (; *names; names++) n += *names == '|';
    return n;
}

void bind_args(struct rt *rt, const char *what, const char *names, size_t need, struct call *c, struct val *out) {
    size_t n = name_count(names);
    for (size_t i = 0; i < n; i++) out[i] = v_missing();
    if (c->n > n) FAIL("%s takes at most %zu argument(s), %zu were given", what, n, c->n);
    for (size_t i = 0; i < c->n; i++) out[i] = c->pos[i];
    for (size_t i = 0; i < c->nkw; i++) {
        size_t at = name_index(names, c->kw[i]);
        if (at == SIZE_MAX) FAIL("%s got an unexpected keyword argument %s", what, cstr_repr(rt, v_str(c->kw[i])));
        if (out[at].t != V_MISSING)
            FAIL("%s got multiple values for argument %s", what, cstr_repr(rt, v_str(c->kw[i])));
        out[at] = c->kwv[i];
    }
    for (size_t i = 0; i < need; i++)
        if (out[i].t == V_MISSING) FAIL("%s is missing a required argument", what);
}

static bool given(struct val v) { return v.t != V_MISSING && v.t != V_NONE; }
static bool flag(struct rt *rt, struct val v) { return v.t != V_MISSING && truthy(rt, v); }

/* ---- attribute paths: "a.b.0" ---- */

static struct val path_part(struct rt *rt, struct val item, const struct str *path, size_t from, size_t n) {
    struct str *part = str_sub(&rt->x, path, from, n);
    int64_t i;
    bool digits = n > 0;
    for (size_t k = 0; k < n; k++) digits = digits && part->p[k] >= '0' && part->p[k] <= '9';
    if (digits && parse_int(rt, part, 10, &i)) return get_item(rt, item, v_int(i));
    return get_item(rt, item, v_str(part));
}

static struct val attr_path(struct rt *rt, struct val item, struct val path, struct val dflt) {
    if (!given(path)) return item;
    if (path.t != V_STR) {
        item = get_item(rt, item, path);
        return given(dflt) && item.t == V_UNDEF ? dflt : item;
    }
    for (size_t from = 0; from <= path.s->n;) {
        const char *dot = memchr(path.s->p + from, '.', path.s->n - from);
        size_t end = dot ? (size_t)(dot - path.s->p) : path.s->n;
        item = path_part(rt, item, path.s, from, end - from);
        if (given(dflt) && item.t == V_UNDEF) item = dflt;
        from = end + 1;
    }
    return item;
}

static struct val fold(struct rt *rt, struct val v, bool case_sensitive) {
    return v.t == V_STR && !case_sensitive ? v_str(u_case(&rt->x, v.s, U_LOWER)) : v;
}

static struct val multi_path(struct rt *rt, struct val item, struct val path, bool case_sensitive) { /* "a,b": a list */
    struct vec keys = {0};
    if (path.t != V_STR) {
        vec_add(&rt->x, &keys, fold(rt, attr_path(rt, item, path, v_none()), case_sensitive));
        return v_list(&rt->x, keys.v, keys.n, false);
    }
    for (size_t from = 0; from <= path.s->n;) {
        const char *comma = memchr(path.s->p + from, ',', path.s->n - from);
        size_t end = comma ? (size_t)(comma - path.s->p) : path.s->n;
        struct val part = v_str(str_sub(&rt->x, path.s, from, end - from));
        vec_add(&rt->x, &keys, fold(rt, attr_path(rt, item, part, v_none()), case_sensitive));
        from = end + 1;
    }
    return v_list(&rt->x, keys.v, keys.n, false);
}

/* ---- sorting: a merge sort, stable, which asks "is b < a" as Python does ---- */

struct keyed {
    struct val key, item;
};

static bool before(struct rt *rt, struct val a, struct val b) {
    int c = val_order(rt, a, b, "<");
    return c < 0;
}

static void merge_sort(struct rt *rt, struct keyed *v, struct keyed *tmp, size_t n, bool reverse) {
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, o = 0;
    merge_sort(rt, v, tmp, h, reverse);
    merge_sort(rt, v + h, tmp, n - h, reverse);
    while (i < h && j < n) {
        bool second = reverse ? before(rt, v[i].key, v[j].key) : before(rt, v[j].key, v[i].key);
        tmp[o++] = second ? v[j++] : v[i++];
    }
    while (i < h) tmp[o++] = v[i++];
    memcpy(v, tmp, o * sizeof *v);
}

static void sort_keyed(struct rt *rt, struct keyed *v, size_t n, bool reverse) {
    struct keyed *tmp = jx_array(&rt->x, n, sizeof *tmp);
    merge_sort(rt, v, tmp, n, reverse);
}

static struct val items_of(struct rt *rt, struct keyed *k, size_t n) {
    struct val *v = jx_array(&rt->x, n, sizeof *v);
    for (size_t i = 0; i < n; i++) v[i] = k[i].item;
    return v_list(&rt->x, v, n, false);
}

static struct val f_sort(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    struct vec v = iter_all(rt, in);
    struct keyed *k = jx_array(&rt->x, v.n, sizeof *k);
    for (size_t i = 0; i < v.n; i++) k[i] = (struct keyed){multi_path(rt, v.v[i], a[2], flag(rt, a[1])), v.v[i]};
    sort_keyed(rt, k, v.n, int_flag(rt, a[0]));
    return items_of(rt, k, v.n);
}

static struct dict *need_dict(struct rt *rt, struct val v, const char *what) {
    if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
    if (v.t != V_DICT) FAIL("%s needs a mapping, not %s", what, type_name(v));
    return v.d;
}

static struct val f_dictsort(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    bool by_value = false;
    if (a[1].t != V_MISSING) {
        by_value = a[1].t == V_STR && str_is(a[1].s, "value");
        if (!by_value && !(a[1].t == V_STR && str_is(a[1].s, "key")))
            FAIL("You can only sort by either \"key\" or \"value\"");
    }
    struct dict *d = need_dict(rt, in, "dictsort");
    struct keyed *k = jx_array(&rt->x, d->n, sizeof *k);
    for (size_t i = 0; i < d->n; i++)
        k[i] = (struct keyed){fold(rt, by_value ? d->e[i].v : d->e[i].k, flag(rt, a[0])),
                              v_pair(&rt->x, d->e[i].k, d->e[i].v)};
    sort_keyed(rt, k, d->n, int_flag(rt, a[2]));
    return items_of(rt, k, d->n);
}

static struct val f_groupby(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    bool cs = flag(rt, a[2]);
    struct vec v = iter_all(rt, in), out = {0};
    struct keyed *k = jx_array(&rt->x, v.n, sizeof *k);
    for (size_t i = 0; i < v.n; i++) k[i] = (struct keyed){fold(rt, attr_path(rt, v.v[i], a[0], a[1]), cs), v.v[i]};
    sort_keyed(rt, k, v.n, false);
    for (size_t i = 0, j; i < v.n; i = j) {
        for (j = i + 1; j < v.n && val_eq(rt, k[i].key, k[j].key); j++) continue;
        struct val grouper = cs ? k[i].key : attr_path(rt, k[i].item, a[0], a[1]);
        struct val group = v_pair(&rt->x, grouper, items_of(rt, k + i, j - i));
        group.l->group = true;
        vec_add(&rt->x, &out, group);
    }
    return v_list(&rt->x, out.v, out.n, false);
}

/* ---- one value out of many ---- */

static struct val extreme(struct rt *rt, struct val in, struct val *a, bool max) {
    struct iter *it = val_iter(rt, in);
    struct val best, v, key;
    if (!iter_next(rt, it, &best)) return v_undef_hint(&rt->x, "No aggregated item, sequence was empty.");
    bool cs = flag(rt, a[0]);
    key = fold(rt, attr_path(rt, best, a[1], v_none()), cs);
    while (iter_next(rt, it, &v)) {
        struct val k = fold(rt, attr_path(rt, v, a[1], v_none()), cs);
        int o = val_order(rt, k, key, max ? ">" : "<");
        if (o == 2 || (max ? o <= 0 : o >= 0)) continue;
        best = v;
        key = k;
    }
    return best;
}
static struct val f_min(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    return extreme(rt, in, a, false);
}
static struct val f_max(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    return extreme(rt, in, a, true);
}

static struct val f_sum(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    struct iter *it = val_iter(rt, in);
    struct val total = a[1].t == V_MISSING ? v_int(0) : a[1], v;
    if (total.t == V_STR) FAIL("sum() can't sum strings [use ''.join(seq) instead]");
    while (iter_next(rt, it, &v)) total = binary(rt, OP_ADD, total, attr_path(rt, v, a[0], v_none()));
    return total;
}

static struct val f_first(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    struct val v;
    return iter_next(rt, val_iter(rt, in), &v) ? v : v_undef_hint(&rt->x, "No first item, sequence was empty.");
}

static struct val f_last(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    int64_t n;
    if (in.t == V_ITER || in.t == V_NS || !val_len(rt, in, &n) || in.t == V_LOOP)
        FAIL("'%s' object is not reversible", type_name(in));
    if (n == 0) return v_undef_hint(&rt->x, "No last item, sequence was empty.");
    if (in.t == V_STR) return get_item(rt, in, v_int(-1));
    struct val v = v_none();
    iter_next(rt, v_iter(rt, IT_REV, in).it, &v);
    return v;
}

static struct val f_length(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    int64_t n;
    if (!val_len(rt, in, &n)) FAIL("object of type '%s' has no len()", type_name(in));
    return v_int(n);
}

static struct val f_list(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    struct vec v = iter_all(rt, in);
    return v_list(&rt->x, v.v, v.n, false);
}

static struct val f_reverse(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    struct val step[3] = {v_missing(), v_missing(), v_int(-1)};
    if (in.t == V_STR) return get_slice(rt, in, step);
    if (in.t == V_ITER) {
        struct vec v = iter_all(rt, in);
        return get_slice(rt, v_list(&rt->x, v.v, v.n, false), step);
    }
    if (in.t == V_UNDEF) return v_iter(rt, IT_EMPTY, in);
    if (!iterable(in) || in.t == V_LOOP) FAIL("argument must be iterable");
    return v_iter(rt, IT_REV, in);
}

static struct val f_default(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    if (in.t == V_UNDEF || (flag(rt, a[1]) && !truthy(rt, in))) return a[0].t == V_MISSING ? v_z(&rt->x, "") : a[0];
    return in;
}

static struct val f_attr(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    struct val v;
    if (a[0].t != V_STR) FAIL("attribute name must be string, not '%s'", type_name(a[0]));
    if (in.t == V_UNDEF) return get_attr(rt, in, a[0].s);
    return get_known_attr(rt, in, a[0].s, &v) ? v : v_undef_attr(&rt->x, in, a[0], false);
}

static struct val f_join(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    struct str *d = a[0].t == V_MISSING ? str_z(&rt->x, "") : to_str(rt, a[0]);
    struct iter *it = val_iter(rt, in);
    struct vec parts = {0};
    struct val v;
    bool markup = false;
    while (iter_next(rt, it, &v)) {
        if (given(a[1])) v = attr_path(rt, v, a[1], v_none());
        markup |= rt->autoescape && v.t == V_STR && v.s->markup;
        vec_add(&rt->x, &parts, v_str(to_str(rt, v)));
    }
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = rt->autoescape && (markup || d->markup);
    for (size_t i = 0; i < parts.n; i++) {
        if (i && b.markup && !d->markup)
            escape_into(&b, d);
        else if (i)
            sb_str(&b, d);
        if (b.markup && !parts.v[i].s->markup)
            escape_into(&b, parts.v[i].s);
        else
            sb_str(&b, parts.v[i].s);
    }
    return v_str(sb_take(&b));
}

/* ---- generators ---- */

static struct val lazy(struct rt *rt, enum iter_kind kind, struct val in, struct call *c) {
    struct val v = v_iter(rt, kind, in);
    v.it->args = c;
    return v;
}

static struct val f_map(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a;
    return lazy(rt, IT_MAP, in, c);
}
static struct val f_select(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a;
    return lazy(rt, IT_SELECT, in, c);
}
static struct val f_reject(struct rt *rt, struct val in, struct val *a, struct call *c) {
    struct val v = f_select(rt, in, a, c);
    v.it->negate = true;
    return v;
}
static struct val f_selectattr(struct rt *rt, struct val in, struct val *a, struct call *c) {
    struct val v = f_select(rt, in, a, c);
    v.it->attr = true;
    return v;
}
static struct val f_rejectattr(struct rt *rt, struct val in, struct val *a, struct call *c) {
    struct val v = f_selectattr(rt, in, a, c);
    v.it->negate = true;
    return v;
}
static struct val f_items(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a;
    return lazy(rt, IT_ITEMS, in, c);
}

static struct val bound(struct rt *rt, enum iter_kind kind, struct val in, struct val *a, size_t n) {
    struct call *c = NEW(&rt->x, struct call);
    c->n = n;
    c->pos = jx_array(&rt->x, n, sizeof *c->pos);
    memcpy(c->pos, a, n * sizeof *a);
    return lazy(rt, kind, in, c);
}
static struct val f_unique(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    return bound(rt, IT_UNIQUE, in, a, 2);
}
static struct val f_batch(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    return bound(rt, IT_BATCH, in, a, 2);
}
static struct val f_slice(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    return bound(rt, IT_SLICE, in, a, 2);
}

static struct call rest_of(struct call *c, size_t skip) {
    return (struct call){.pos = c->pos + skip, .n = c->n - skip, .kw = c->kw, .kwv = c->kwv, .nkw = c->nkw};
}

static int by_name(struct rt *rt, struct val name, bool filter) {
    if (name.t != V_STR) FAIL("No %s named %s.", filter ? "filter" : "test", cstr_repr(rt, name));
    int id = filter ? filter_find(name.s) : test_find(name.s);
    if (id < 0) FAIL("No %s named %s.", filter ? "filter" : "test", cstr_repr(rt, name));
    return id;
}

static bool map_by_attribute(struct rt *rt, struct call *c,
                             struct val a[2]) { /* map(attribute='x'), not map('filter') */
    bool has = false;
    for (size_t i = 0; i < c->nkw; i++) has |= str_is(c->kw[i], "attribute");
    if (c->n) return false;
    if (!has) FAIL("map requires a filter argument");
    bind_args(rt, "map", "attribute|default", 1, c, a);
    return true;
}

static struct val map_one(struct rt *rt, struct call *c, struct val item) {
    struct val a[2];
    if (map_by_attribute(rt, c, a)) return attr_path(rt, item, a[0], a[1]);
    int id = by_name(rt, c->pos[0], true);
    struct call *rest = NEW(&rt->x, struct call);
    *rest = rest_of(c, 1);
    return filter_call(rt, id, item, rest);
}

static bool selected(struct rt *rt, struct iter *it, struct val item) {
    struct call *c = it->args, *rest = NEW(&rt->x, struct call);
    size_t skip = it->attr;
    if (it->attr) {
        item = attr_path(rt, item, c->pos[0], v_none());
    }
    bool yes;
    if (c->n <= skip) {
        yes = truthy(rt, item);
    } else {
        int id = by_name(rt, c->pos[skip], false);
        *rest = rest_of(c, skip + 1);
        yes = test_call(rt, id, item, rest);
    }
    return yes != it->negate;
}

static bool unique_next(struct rt *rt, struct iter *it, struct val *out) {
    while (iter_next(rt, it->from, out)) {
        struct val key = fold(rt, attr_path(rt, *out, it->args->pos[1], v_none()), flag(rt, it->args->pos[0]));
        if (dict_get(rt, it->seen, key)) continue;
        dict_set(rt, it->seen, key, v_none());
        return true;
    }
    return false;
}

static bool batch_next(struct rt *rt, struct iter *it, struct val *out) {
    struct vec row = {0};
    struct val v, want = it->args->pos[0], filler = it->args->pos[1];
    if (it->parts) vec_add(&rt->x, &row, it->parts->v[0]); /* the element that ended the row before */
    it->parts = NULL;
    while (iter_next(rt, it->from, &v)) {
        if (is_num(want) && as_double(want) == (double)row.n) {
            struct val *held = jx_array(&rt->x, 1, sizeof *held);
            *held = v;
            it->parts = v_list(&rt->x, held, 1, false).l;
            *out = v_list(&rt->x, row.v, row.n, false);
            return true;
        }
        vec_add(&rt->x, &row, v);
    }
    if (row.n == 0) return false;
    if (given(filler)) {
        int64_t n = need_int(rt, want);
        if (n > JINJA_MAX_RANGE) jx_fail(&rt->x, JINJA_LIMIT, "a batch of %lld is refused", (long long)n);
        while ((int64_t)row.n < n) vec_add(&rt->x, &row, filler);
    }
    *out = v_list(&rt->x, row.v, row.n, false);
    return true;
}

static bool slice_next(struct rt *rt, struct iter *it, struct val *out) {
    int64_t slices = need_int(rt, it->args->pos[0]);
    struct val filler = it->args->pos[1];
    if (!it->parts) {
        struct vec v = iter_all(rt, it->src);
        it->parts = v_list(&rt->x, v.v, v.n, false).l;
        if (slices == 0) FAIL("integer division or modulo by zero");
    }
    if ((int64_t)it->at >= slices) return false;
    int64_t n = (int64_t)it->parts->n, per = n / slices, extra = n % slices, i = (int64_t)it->at++;
    int64_t start = i * per + (i < extra ? i : extra), end = start + per + (i < extra);
    struct val all = {.t = V_LIST, .l = it->parts};
    *out = list_slice(&rt->x, all, (size_t)start, (size_t)(end - start));
    if (given(filler) && i >= extra) {
        struct val *v = jx_array(&rt->x, 1, sizeof *v);
        *v = filler;
        *out = list_concat(&rt->x, *out, v_list(&rt->x, v, 1, false));
    }
    return true;
}

static void start(struct rt *rt, struct iter *it) {
    it->started = true;
    if (it->kind == IT_ITEMS) {
        struct view *w = NEW(&rt->x, struct view);
        if (it->src.t != V_UNDEF && it->src.t != V_DICT) FAIL("Can only get item pairs from a mapping.");
        *w = (struct view){it->src.d, 'i'};
        it->from = it->src.t == V_UNDEF ? val_iter(rt, it->src) : val_iter(rt, (struct val){.t = V_VIEW, .view = w});
        return;
    }
    bool skip_false = it->kind == IT_MAP || it->kind == IT_SELECT;
    if (skip_false && !truthy(rt, it->src)) {
        it->from = v_iter(rt, IT_EMPTY, it->src).it;
        return;
    }
    struct val a[2];
    if (it->kind == IT_MAP) map_by_attribute(rt, it->args, a); /* fails for wrong arguments, also without elements */
    if (it->attr && it->args->n == 0) FAIL("Missing parameter for attribute name");
    it->seen = dict_new(&rt->x);
    if (it->kind != IT_SLICE) it->from = val_iter(rt, it->src);
}

bool iter_filter_next(struct rt *rt, struct iter *it, struct val *out) {
    if (!it->started) start(rt, it);
    switch (it->kind) {
    case IT_MAP:
        if (!iter_next(rt, it->from, out)) return false;
        *out = map_one(rt, it->args, *out);
        return true;
    case IT_SELECT:
        while (iter_next(rt, it->from, out))
            if (selected(rt, it, *out)) return true;
        return false;
    case IT_UNIQUE: return unique_next(rt, it, out);
    case IT_BATCH: return batch_next(rt, it, out);
    case IT_SLICE: return slice_next(rt, it, out);
    default: return iter_next(rt, it->from, out);
    }
}

/* ---- numbers ---- */

static struct val f_abs(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)a, (void)c;
    int64_t i;
    if (in.t == V_FLOAT) return v_float(fabs(in.f));
    if (in.t == V_UNDEF || !as_int(in, &i)) FAIL("bad operand type for abs(): '%s'", type_name(in));
    return i < 0 ? negate(rt, v_int(i), true) : v_int(i);
}

static bool float_to_int(struct rt *rt, double f, int64_t *i) {
    if (isnan(f) || isinf(f)) return false;
    if (fabs(f) >= 9.2233720368547758e18) FAIL("an integer beyond 64 bits");
    *i = (int64_t)f;
    return true;
}

static struct val f_int(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    struct val dflt = a[0].t == V_MISSING ? v_int(0) : a[0];
    int64_t i, base = 10;
    double f;
    if (in.t == V_UNDEF) fail_undef(&rt->x, in.u);
    if (in.t == V_STR) {
        if (a[1].t != V_MISSING && !as_int(a[1], &base)) base = -1;
        if (base >= 0 && base <= 36 && parse_int(rt, in.s, (int)base, &i)) return v_int(i);
        return parse_float(&rt->x, in.s, &f) && float_to_int(rt, f, &i) ? v_int(i) : dflt;
    }
    if (as_int(in, &i)) return v_int(i);
    if (in.t == V_FLOAT && isinf(in.f)) FAIL("cannot convert float infinity to integer");
    return in.t == V_FLOAT && float_to_int(rt, in.f, &i) ? v_int(i) : dflt;
}

static struct val f_float(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    double f;
    if (in.t == V_UNDEF) fail_undef(&rt->x, in.u);
    if (is_num(in)) return v_float(as_double(in));
    if (in.t == V_STR && parse_float(&rt->x, in.s, &f)) return v_float(f);
    return a[0].t == V_MISSING ? v_float(0) : a[0];
}

static struct val round_int(struct rt *rt, int64_t i, int64_t precision) { /* to tens, hundreds: half to even */
    if (precision >= 0) return v_int(i);
    if (precision < -18) return v_int(0);
    int64_t p = 1;
    for (int64_t k = precision; k < 0; k++) p *= 10;
    int64_t rem = ((i % p) + p) % p, down = i - rem;
    bool up = rem > p / 2 || (rem == p / 2 && (down / p) % 2 != 0);
    int64_t r;
    if (__builtin_add_overflow(down, up ? p : 0, &r)) FAIL("an integer beyond 64 bits");
    return v_int(r);
}

static struct val f_round(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)c;
    bool ceiling = a[1].t == V_STR && str_is(a[1].s, "ceil"), down = a[1].t == V_STR && str_is(a[1].s, "floor");
    if (a[1].t != V_MISSING && !ceiling && !down && !(a[1].t == V_STR && str_is(a[1].s, "common")))
        FAIL("method must be common, ceil or floor");
    int64_t i;
    if (!is_num(in)) FAIL("type %s doesn't define __round__ method", type_name(in));
    if (!ceiling && !down) {
        if (a[0].t == V_NONE && in.t == V_FLOAT) {
            double f = round_half_even(in.f, 0);
            if (!float_to_int(rt, f, &i)) FAIL("cannot convert float to integer");
            return v_int(i);
        }
        int64_t precision = !given(a[0]) ? 0 : need_int(rt, a[0]);
        return as_int(in, &i) ? round_int(rt, i, precision) : v_float(round_half_even(in.f, precision));
    }
    struct val scale = binary(rt, OP_POW, v_int(10), a[0].t == V_MISSING ? v_int(0) : a[0]);
    struct val v = binary(rt, OP_MUL, in, scale);
    if (v.t == V_FLOAT && !float_to_int(rt, ceiling ? ceil(v.f) : floor(v.f), &i))
        FAIL("cannot convert float to integer");
    return binary(rt, OP_DIV, v.t == V_FLOAT ? v_int(i) : v, scale);
}

static struct val f_refused(struct rt *rt, struct val in, struct val *a, struct call *c) {
    (void)in, (void)a, (void)c;
    FAIL("the filters random, urlize and pprint are not supported");
}

static const struct filter filters[] = {
    {"abs", f_abs, "", 0},
    {"attr", f_attr, "name", 1},
    {"batch", f_batch, "linecount|fill_with", 1},
    {"count", f_length, "", 0},
    {"d", f_default, "default_value|boolean", 0},
    {"default", f_default, "default_value|boolean", 0},
    {"dictsort", f_dictsort, "case_sensitive|by|reverse", 0},
    {"first", f_first, "", 0},
    {"float", f_float, "default", 0},
    {"groupby", f_groupby, "attribute|default|case_sensitive", 1},
    {"int", f_int, "default|base", 0},
    {"items", f_items, "", 0},
    {"join", f_join, "d|attribute", 0},
    {"last", f_last, "", 0},
    {"length", f_length, "", 0},
    {"list", f_list, "", 0},
    {"map", f_map, NULL, 0},
    {"max", f_max, "case_sensitive|attribute", 0},
    {"min", f_min, "case_sensitive|attribute", 0},
    {"pprint", f_refused, NULL, 0},
    {"random", f_refused, NULL, 0},
    {"reject", f_reject, NULL, 0},
    {"rejectattr", f_rejectattr, NULL, 0},
    {"reverse", f_reverse, "", 0},
    {"round", f_round, "precision|method", 0},
    {"select", f_select, NULL, 0},
    {"selectattr", f_selectattr, NULL, 0},
    {"slice", f_slice, "slices|fill_with", 1},
    {"sort", f_sort, "reverse|case_sensitive|attribute", 0},
    {"sum", f_sum, "attribute|start", 0},
    {"unique", f_unique, "case_sensitive|attribute", 0},
    {"urlize", f_refused, NULL, 0},
};
enum { NFILTERS = sizeof filters / sizeof *filters };

int filter_find(const struct str *name) {
    for (int i = 0; i < NFILTERS; i++)
        if (str_is(name, filters[i].name)) return i;
    for (size_t i = 0; i < nstr_filters; i++)
        if (str_is(name, str_filters[i].name)) return NFILTERS + (int)i;
    return -1;
}

struct val filter_call(struct rt *rt, int id, struct val in, struct call *c) {
    const struct filter *f = id < NFILTERS ? &filters[id] : &str_filters[id - NFILTERS];
    struct val a[MAX_ARGS] = {0};
    jx_charge(&rt->x, 1);
    jx_enter(&rt->x);
    if (f->names) bind_args(rt, f->name, f->names, f->need, c, a);
    struct val v = f->fn(rt, in, a, c);
    jx_leave(&rt->x);
    return v;
}
