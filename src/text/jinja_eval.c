/* jinja_eval.c: expressions. State belongs to the rendering thread. Every step is counted; recursion is bounded by
 * the tree's depth and by the count of calls. */
#include "text/jinja_int.h"

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)

void escape_into(struct sb *b, const struct str *s) {
    size_t from = 0;
    for (size_t i = 0; i < s->n; i++) {
        const char *e;
        switch (s->p[i]) {
        case '&': e = "&amp;"; break;
        case '<': e = "&lt;"; break;
        case '>': e = "&gt;"; break;
        case '\'': e = "&#39;"; break;
        case '"': e = "&#34;"; break;
        default: continue;
        }
        sb_sub(b, s, from, i - from);
        sb_z(b, e, true);
        from = i + 1;
    }
    sb_sub(b, s, from, s->n - from);
}

/* ---- names ---- */

static struct act *act_up(struct act *a, int hops) {
    while (hops-- > 0) a = a->up;
    return a;
}

void enter_scope(struct rt *rt, struct act *a, const struct scope *s) {
    for (size_t i = 0; i < s->n; i++) {
        const struct sym *y = &s->syms[i];
        if (y->load == LOAD_PARAM) continue;
        struct val *slot = &a->slots[y->slot];
        *slot = v_missing();
        if (y->load == LOAD_ALIAS) *slot = act_up(a, y->hops)->slots[y->from];
        if (y->load != LOAD_RESOLVE) continue;
        struct val *v = dict_get(rt, rt->context, v_str(y->name));
        if (v) *slot = *v;
    }
}

static size_t unpack(struct rt *rt, struct val v, size_t want, struct vec *items) {
    if (!iterable(v)) FAIL("cannot unpack non-iterable %s object", type_name(v));
    *items = (struct vec){0};
    if (v.t == V_LIST || v.t == V_TUPLE) {
        *items = iter_all(rt, v);
        return items->n;
    }
    struct iter *it = val_iter(rt, v);
    struct val item;
    while (items->n <= want && iter_next(rt, it, &item)) vec_add(&rt->x, items, item);
    return items->n;
}

void assign(struct rt *rt, struct act *a, struct node *target, struct val v) {
    if (target->t == N_NAME) {
        act_up(a, target->hops)->slots[target->slot] = v;
        return;
    }
    if (target->t == N_NSREF) {
        struct val ns = act_up(a, target->hops)->slots[target->slot];
        if (ns.t != V_NS) FAIL("cannot assign attribute on non-namespace object");
        dict_set(rt, ns.d, v_str(target->attr), v);
        return;
    }
    struct vec items;
    size_t n = unpack(rt, v, target->list.n, &items);
    if (n > target->list.n) FAIL("too many values to unpack (expected %zu)", target->list.n);
    if (n < target->list.n) FAIL("not enough values to unpack (expected %zu, got %zu)", target->list.n, n);
    for (size_t i = 0; i < n; i++) assign(rt, a, target->list.v[i], items.v[i]);
}

/* ---- attributes and items ---- */

static bool dunder(const struct str *s) { /* attributes that every Python object has */
    static const char *const names[] = {
        "__class__",   "__init__",   "__doc__",           "__str__",          "__repr__",   "__hash__",
        "__eq__",      "__ne__",     "__new__",           "__dir__",          "__reduce__", "__getattribute__",
        "__setattr__", "__sizeof__", "__init_subclass__", "__subclasshook__", "__format__"};
    if (s->n < 6 || s->p[0] != '_') return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_is(s, names[i])) return true;
    return false;
}

static bool macro_attr(struct rt *rt, struct macro *m, const struct str *name, struct val *out) {
    struct node *n = m->node;
    if (str_is(name, "name"))
        *out = m->name ? v_str(m->name) : v_none();
    else if (str_is(name, "catch_kwargs"))
        *out = v_bool(n->kwargs_slot >= 0);
    else if (str_is(name, "catch_varargs"))
        *out = v_bool(n->varargs_slot >= 0);
    else if (str_is(name, "caller"))
        *out = v_bool(n->caller_slot >= 0);
    else if (str_is(name, "explicit_caller"))
        *out = v_bool(n->explicit_caller);
    else if (str_is(name, "arguments")) {
        struct val *v = jx_array(&rt->x, n->list.n, sizeof *v);
        for (size_t i = 0; i < n->list.n; i++) v[i] = v_str(n->list.v[i]->name);
        *out = v_list(&rt->x, v, n->list.n, true);
    } else
        return false;
    return true;
}

static bool number_attr(struct val v, const struct str *name, struct val *out) {
    bool real = str_is(name, "real"), imag = str_is(name, "imag");
    int64_t i;
    if (v.t == V_FLOAT)
        *out = real ? v : v_float(0);
    else if (as_int(v, &i))
        *out = v_int(real || str_is(name, "numerator") ? i : imag ? 0 : 1);
    return real || imag || (v.t != V_FLOAT && (str_is(name, "numerator") || str_is(name, "denominator")));
}

static bool range_attr(const struct range *r, const struct str *name, struct val *out) {
    if (str_is(name, "start"))
        *out = v_int(r->start);
    else if (str_is(name, "stop"))
        *out = v_int(r->stop);
    else if (str_is(name, "step"))
        *out = v_int(r->step);
    else
        return false;
    return true;
}

static bool object_attr(struct rt *rt, struct val obj, struct str *name, struct val *out) {
    struct val *p;
    switch (obj.t) {
    case V_NS:
        p = dict_get(rt, obj.d, v_str(name));
        if (p) *out = *p;
        return p != NULL;
    case V_LOOP: return loop_attr(rt, obj.loop, name, out);
    case V_MACRO: return macro_attr(rt, obj.macro, name, out);
    case V_RANGE: return range_attr(obj.r, name, out);
    case V_INT:
    case V_BOOL:
    case V_FLOAT: return number_attr(obj, name, out);
    case V_TUPLE:
        if (!obj.l->group || (!str_is(name, "grouper") && !str_is(name, "list"))) return false;
        *out = obj.l->v[str_is(name, "list")];
        return true;
    case V_CYCLER:
        if (str_is(name, "current"))
            *out = obj.cycler->v[obj.cycler->pos];
        else if (str_is(name, "pos"))
            *out = v_int((int64_t)obj.cycler->pos);
        else if (str_is(name, "items"))
            *out = v_list(&rt->x, obj.cycler->v, obj.cycler->n, true);
        else
            return false;
        return true;
    case V_JOINER:
        if (str_is(name, "sep"))
            *out = obj.joiner->sep;
        else if (str_is(name, "used"))
            *out = v_bool(obj.joiner->used);
        else
            return false;
        return true;
    default: return false;
    }
}

bool get_known_attr(struct rt *rt, struct val obj, struct str *name, struct val *out) {
    bool unsafe = false;
    if (object_attr(rt, obj, name, out)) {
        unsafe = name->n > 0 && name->p[0] == '_';
    } else if (obj.t == V_NS) {
        return false;
    } else {
        int id = method_find(obj, name, &unsafe);
        if (id >= 0)
            *out = v_method(rt, obj, id);
        else if (dunder(name))
            unsafe = true;
        else if (!unsafe)
            return false;
    }
    if (unsafe) *out = v_undef_attr(&rt->x, obj, v_str(name), true);
    return true;
}

static bool index_item(struct rt *rt, struct val obj, int64_t i, struct val *out) {
    int64_t n = 0;
    if (obj.t != V_STR && obj.t != V_LIST && obj.t != V_TUPLE && obj.t != V_RANGE) return false;
    val_len(rt, obj, &n);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return false;
    if (obj.t == V_STR) {
        size_t from = str_offset(obj.s, (size_t)i), w;
        jx_charge(&rt->x, from / 64);
        u_get(obj.s->p + from, obj.s->n - from, &w);
        *out = v_str(str_sub(&rt->x, obj.s, from, w));
    } else if (obj.t == V_RANGE) {
        *out = v_int(obj.r->start + i * obj.r->step);
    } else {
        *out = obj.l->v[i];
    }
    return true;
}

static bool subscript(struct rt *rt, struct val obj, struct val key, struct val *out) { /* obj[key]; false: no such */
    int64_t i;
    if (obj.t == V_DICT) {
        struct val *p = hashable(key) ? dict_get(rt, obj.d, key) : NULL;
        if (p) *out = *p;
        return p != NULL;
    }
    if (key.t == V_SLICE && obj.t != V_NS && obj.t != V_LOOP) {
        *out = get_slice(rt, obj, key.slice);
        return true;
    }
    return as_int(key, &i) && index_item(rt, obj, i, out);
}

struct val get_attr(struct rt *rt, struct val obj, struct str *name) {
    struct val v;
    if (obj.t == V_UNDEF && !dunder(name)) fail_undef(&rt->x, obj.u);
    if (get_known_attr(rt, obj, name, &v) || subscript(rt, obj, v_str(name), &v)) return v;
    return v_undef_attr(&rt->x, obj, v_str(name), false);
}

struct val get_item(struct rt *rt, struct val obj, struct val key) {
    struct val v;
    if (obj.t == V_UNDEF) fail_undef(&rt->x, obj.u);
    if (subscript(rt, obj, key, &v)) return v;
    if (key.t == V_STR && get_known_attr(rt, obj, key.s, &v)) return v;
    return v_undef_attr(&rt->x, obj, key, false);
}

static int64_t slice_index(struct rt *rt, struct val v, int64_t missing) {
    int64_t i;
    if (v.t == V_MISSING || v.t == V_NONE) return missing;
    if (v.t == V_UNDEF) FAIL("slice indices must be integers or None or have an __index__ method");
    if (!as_int(v, &i)) FAIL("slice indices must be integers or None or have an __index__ method");
    return i;
}

static int64_t clamp(int64_t i, int64_t n, bool back) {
    if (i < 0)
        i = i < -n ? (back ? -1 : 0) : i + n;
    else if (i >= n)
        i = back ? n - 1 : n;
    return i;
}

static struct val slice_str(struct rt *rt, struct str *s, int64_t start, int64_t step, int64_t count) {
    if (step == 1) {
        size_t from = str_offset(s, (size_t)start);
        struct str rest = {.p = s->p + from, .n = s->n - from, .chars = s->chars == s->n ? s->n - from : SIZE_MAX};
        return v_str(str_sub(&rt->x, s, from, str_offset(&rest, (size_t)count)));
    }
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = s->markup;
    jx_charge(&rt->x, s->n / 16);
    if (str_chars(s) == s->n) {
        for (int64_t i = 0; i < count; i++) sb_sub(&b, s, (size_t)(start + i * step), 1);
        return v_str(sb_take(&b));
    }
    size_t n = str_chars(s), at = 0, *offs = jx_array(&rt->x, n + 1, sizeof *offs);
    for (size_t i = 0; i < s->n; i++)
        if (((unsigned char)s->p[i] & 0xC0) != 0x80) offs[at++] = i;
    offs[at] = s->n;
    for (int64_t i = 0; i < count; i++) {
        size_t k = (size_t)(start + i * step);
        sb_sub(&b, s, offs[k], offs[k + 1] - offs[k]);
    }
    return v_str(sb_take(&b));
}

struct val get_slice(struct rt *rt, struct val obj, const struct val *sl) {
    int64_t n = 0, step, start, stop, count = 0;
    if (obj.t == V_UNDEF) fail_undef(&rt->x, obj.u);
    if (obj.t == V_DICT) FAIL("unhashable type: 'slice'");
    if (obj.t != V_STR && obj.t != V_LIST && obj.t != V_TUPLE && obj.t != V_RANGE)
        FAIL("'%s' object is not subscriptable", type_name(obj));
    val_len(rt, obj, &n);
    step = slice_index(rt, sl[2], 1);
    if (step == 0) FAIL("slice step cannot be zero");
    if (step < -INT64_MAX) step = -INT64_MAX;
    start = clamp(slice_index(rt, sl[0], step > 0 ? 0 : n - 1), n, step < 0);
    stop =
        sl[1].t == V_MISSING || sl[1].t == V_NONE ? (step > 0 ? n : -1) : clamp(slice_index(rt, sl[1], 0), n, step < 0);
    if (step > 0 && stop > start) count = (stop - start - 1) / step + 1;
    if (step < 0 && start > stop) count = (start - stop - 1) / -step + 1;
    if (obj.t == V_RANGE) {
        struct range *r = NEW(&rt->x, struct range);
        r->start = obj.r->start + start * obj.r->step;
        r->stop =
            (int64_t)((uint64_t)obj.r->start + (uint64_t)stop * (uint64_t)obj.r->step); /* one step past the end */
        if (__builtin_mul_overflow(obj.r->step, step, &r->step)) FAIL("an integer beyond 64 bits");
        r->n = (size_t)count;
        return (struct val){.t = V_RANGE, .r = r};
    }
    if (count == 0) start = 0, step = 1;
    if (obj.t == V_STR) return slice_str(rt, obj.s, start, step, count);
    if (step == 1) return list_slice(&rt->x, obj, (size_t)start, (size_t)count);
    jx_charge(&rt->x, (size_t)count / 8);
    struct val *v = jx_array(&rt->x, (size_t)count, sizeof *v);
    for (int64_t i = 0; i < count; i++) v[i] = obj.l->v[start + i * step];
    return v_list(&rt->x, v, (size_t)count, obj.t == V_TUPLE);
}

/* ---- calls ---- */

static void add_keyword(struct rt *rt, struct call *c, size_t *cap, struct str *name, struct val v) {
    for (size_t i = 0; i < c->nkw; i++)
        if (str_eq(c->kw[i], name)) FAIL("got multiple values for keyword argument %s", cstr_repr(rt, v_str(name)));
    if (c->nkw == *cap) {
        *cap = *cap ? *cap * 2 : 4;
        struct str **kw = jx_array(&rt->x, *cap, sizeof *kw);
        struct val *kwv = jx_array(&rt->x, *cap, sizeof *kwv);
        if (c->nkw) memcpy(kw, c->kw, c->nkw * sizeof *kw), memcpy(kwv, c->kwv, c->nkw * sizeof *kwv);
        c->kw = kw;
        c->kwv = kwv;
    }
    c->kw[c->nkw] = name;
    c->kwv[c->nkw++] = v;
}

static void spread_keywords(struct rt *rt, struct call *c, size_t *cap, struct val v) {
    if (v.t != V_DICT) FAIL("argument after ** must be a mapping, not %s", type_name(v));
    for (size_t i = 0; i < v.d->n; i++) {
        if (v.d->e[i].k.t != V_STR) FAIL("keywords must be strings");
        add_keyword(rt, c, cap, v.d->e[i].k.s, v.d->e[i].v);
    }
}

struct call *eval_call(struct rt *rt, struct act *a, struct node *n) {
    struct call *c = NEW(&rt->x, struct call);
    struct vec pos = {0};
    size_t cap = 0;
    if (n->list.n) {
        pos.cap = n->list.n;
        pos.v = jx_array(&rt->x, pos.cap, sizeof *pos.v);
    }
    for (size_t i = 0; i < n->list.n; i++) pos.v[pos.n++] = eval(rt, a, n->list.v[i]);
    if (n->dyn) {
        struct val dyn = eval(rt, a, n->dyn), item;
        if (!iterable(dyn)) FAIL("argument after * must be an iterable, not %s", type_name(dyn));
        struct iter *it = val_iter(rt, dyn);
        while (iter_next(rt, it, &item)) vec_add(&rt->x, &pos, item);
    }
    for (size_t i = 0; i < n->vals.n; i++) add_keyword(rt, c, &cap, n->kw[i], eval(rt, a, n->vals.v[i]));
    if (n->dynkw) spread_keywords(rt, c, &cap, eval(rt, a, n->dynkw));
    c->pos = pos.v ? pos.v : jx_alloc(&rt->x, 0);
    c->n = pos.n;
    return c;
}

struct val call_value(struct rt *rt, struct val f, struct call *c) {
    struct val v;
    if (++rt->calls > JINJA_MAX_CALLS)
        jx_fail(&rt->x, JINJA_LIMIT, "more than %d calls inside each other", JINJA_MAX_CALLS);
    jx_enter(&rt->x);
    switch (f.t) {
    case V_UNDEF: fail_undef(&rt->x, f.u);
    case V_FUNC: v = global_call(rt, f.func, c); break;
    case V_METHOD: v = method_call(rt, f.m, c); break;
    case V_MACRO: v = call_macro(rt, f.macro, c); break;
    case V_LOOP:
        if (c->n != 1 || c->nkw) FAIL("loop() takes one argument");
        v = call_loop(rt, f.loop, c->pos[0]);
        break;
    case V_JOINER:
        if (c->n || c->nkw) FAIL("a joiner takes no arguments");
        v = f.joiner->used ? f.joiner->sep : v_z(&rt->x, "");
        f.joiner->used = true;
        break;
    default: FAIL("'%s' object is not callable", type_name(f));
    }
    jx_leave(&rt->x);
    rt->calls--;
    return v;
}

/* ---- the tree ---- */

static struct val eval_dict(struct rt *rt, struct act *a, struct node *n) {
    struct dict *d = dict_new(&rt->x);
    for (size_t i = 0; i < n->list.n; i++) {
        struct val k = eval(rt, a, n->list.v[i]);
        dict_set(rt, d, k, eval(rt, a, n->vals.v[i]));
    }
    return (struct val){.t = V_DICT, .d = d};
}

static struct val eval_list(struct rt *rt, struct act *a, struct node *n) {
    struct val *v = jx_array(&rt->x, n->list.n, sizeof *v);
    for (size_t i = 0; i < n->list.n; i++) v[i] = eval(rt, a, n->list.v[i]);
    return v_list(&rt->x, v, n->list.n, n->t == N_TUPLE);
}

static struct val eval_concat(struct rt *rt, struct act *a, struct node *n) {
    struct val *v = jx_array(&rt->x, n->list.n, sizeof *v);
    struct sb b;
    sb_init(&b, &rt->x);
    for (size_t i = 0; i < n->list.n; i++) {
        v[i] = eval(rt, a, n->list.v[i]);
        b.markup |= rt->autoescape && v[i].t == V_STR && v[i].s->markup;
    }
    for (size_t i = 0; i < n->list.n; i++) {
        if (b.markup && !(v[i].t == V_STR && v[i].s->markup))
            escape_into(&b, to_str(rt, v[i]));
        else
            val_str(rt, &b, v[i]);
    }
    return v_str(sb_take(&b));
}

static struct val eval_compare(struct rt *rt, struct act *a, struct node *n) {
    struct val left = eval(rt, a, n->a);
    for (size_t i = 0; i < n->vals.n; i++) {
        struct val right = eval(rt, a, n->vals.v[i]);
        if (!compare(rt, n->ops[i], left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static struct val eval_slice(struct rt *rt, struct act *a, struct node *n) {
    struct val *v = jx_array(&rt->x, 3, sizeof *v);
    v[0] = n->a ? eval(rt, a, n->a) : v_missing();
    v[1] = n->b ? eval(rt, a, n->b) : v_missing();
    v[2] = n->c ? eval(rt, a, n->c) : v_missing();
    return (struct val){.t = V_SLICE, .slice = v};
}

static struct val eval_item(struct rt *rt, struct act *a, struct node *n) {
    struct val obj = eval(rt, a, n->a), key = eval(rt, a, n->b);
    return n->b->t == N_SLICE ? get_slice(rt, obj, key.slice) : get_item(rt, obj, key);
}

static struct val eval_cond(struct rt *rt, struct act *a, struct node *n) {
    if (truthy(rt, eval(rt, a, n->a))) return eval(rt, a, n->b);
    if (n->c) return eval(rt, a, n->c);
    return v_undef_hint(&rt->x, "the inline if-expression evaluated to false and no else section was defined.");
}

static struct val eval_filter(struct rt *rt, struct act *a, struct node *n) {
    if (n->id < 0)
        FAIL("No %s named '%.*s' found.", n->t == N_FILTER ? "filter" : "test",
             (int)(n->name->n < 60 ? n->name->n : 60), n->name->p);
    struct val in = eval(rt, a, n->a);
    struct call *c = eval_call(rt, a, n);
    return n->t == N_FILTER ? filter_call(rt, n->id, in, c) : v_bool(test_call(rt, n->id, in, c));
}

static struct val eval_node(struct rt *rt, struct act *a, struct node *n) {
    struct val v;
    switch (n->t) {
    case N_CONST: return n->v;
    case N_NAME: v = act_up(a, n->hops)->slots[n->slot]; return v.t == V_MISSING ? v_undef_name(&rt->x, n->name) : v;
    case N_TUPLE:
    case N_LIST: return eval_list(rt, a, n);
    case N_DICT: return eval_dict(rt, a, n);
    case N_COND: return eval_cond(rt, a, n);
    case N_OR: v = eval(rt, a, n->a); return truthy(rt, v) ? v : eval(rt, a, n->b);
    case N_AND: v = eval(rt, a, n->a); return truthy(rt, v) ? eval(rt, a, n->b) : v;
    case N_NOT: return v_bool(!truthy(rt, eval(rt, a, n->a)));
    case N_NEG:
    case N_POS: return negate(rt, eval(rt, a, n->a), n->t == N_NEG);
    case N_COMPARE: return eval_compare(rt, a, n);
    case N_BIN: v = eval(rt, a, n->a); return binary(rt, n->op, v, eval(rt, a, n->b));
    case N_CONCAT: return eval_concat(rt, a, n);
    case N_ATTR: return get_attr(rt, eval(rt, a, n->a), n->name);
    case N_ITEM: return eval_item(rt, a, n);
    case N_SLICE: return eval_slice(rt, a, n);
    case N_CALL: v = eval(rt, a, n->a); return call_value(rt, v, eval_call(rt, a, n));
    case N_FILTER:
    case N_TEST: return eval_filter(rt, a, n);
    default: BUG("jinja: node %d is no expression", n->t);
    }
}

struct val eval(struct rt *rt, struct act *a, struct node *n) {
    jx_charge(&rt->x, 1);
    if (n->t == N_CONST) return n->v;
    jx_enter(&rt->x);
    struct val v = eval_node(rt, a, n);
    jx_leave(&rt->x);
    return v;
}
