/* jinja_method.c: the methods of strings, lists, dicts and the rest. What would change a value is known by name and
 * refused, as the immutable sandbox does. State belongs to the rendering thread. */
#include "text/jinja_int.h"

#include <math.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)
#define METHOD(name) static struct val name(struct rt *rt, struct val self, struct val *a, struct call *c)
#define UNUSED (void)rt, (void)self, (void)a, (void)c

typedef struct val method_fn(struct rt *rt, struct val self, struct val *a, struct call *c);

static bool given(struct val v) { return v.t != V_MISSING && v.t != V_NONE; }

static struct str *need_str(struct rt *rt, struct val v) {
    if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
    if (v.t != V_STR) FAIL("must be str, not %s", type_name(v));
    return v.s;
}

static struct val plain(struct str *s) { return v_str(s); }

/* What is put into escaped text is made text, whatever it is, and escaped first; elsewhere it must be text. */
static struct str *fitting(struct rt *rt, const struct str *into, struct val v) {
    struct str *s = into->markup ? to_str(rt, v) : need_str(rt, v);
    if (!into->markup || s->markup) return s;
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = true;
    escape_into(&b, s);
    return sb_take(&b);
}

/* ---- str: case and classes ---- */

METHOD(s_upper) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_UPPER));
}
METHOD(s_lower) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_LOWER));
}
METHOD(s_title) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_TITLE));
}
METHOD(s_capitalize) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_CAPITALIZE));
}
METHOD(s_swapcase) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_SWAP));
}
METHOD(s_casefold) {
    UNUSED;
    return plain(u_case(&rt->x, self.s, U_FOLD));
}

static struct val all_are(struct rt *rt, const struct str *s, bool (*is)(uint32_t), bool empty) {
    jx_charge(&rt->x, s->n / 16);
    for (size_t i = 0, w; i < s->n; i += w)
        if (!is(u_get(s->p + i, s->n - i, &w))) return v_bool(false);
    return v_bool(s->n ? true : empty);
}
static bool is_ascii(uint32_t c) { return c < 0x80; }
METHOD(s_isalnum) {
    UNUSED;
    return all_are(rt, self.s, u_alnum, false);
}
METHOD(s_isalpha) {
    UNUSED;
    return all_are(rt, self.s, u_alpha, false);
}
METHOD(s_isascii) {
    UNUSED;
    return all_are(rt, self.s, is_ascii, true);
}
METHOD(s_isdecimal) {
    UNUSED;
    return all_are(rt, self.s, u_decimal, false);
}
METHOD(s_isdigit) {
    UNUSED;
    return all_are(rt, self.s, u_digit, false);
}
METHOD(s_isnumeric) {
    UNUSED;
    return all_are(rt, self.s, u_numeric, false);
}
METHOD(s_isprintable) {
    UNUSED;
    return all_are(rt, self.s, u_printable, true);
}
METHOD(s_isspace) {
    UNUSED;
    return all_are(rt, self.s, u_space, false);
}
METHOD(s_islower) {
    UNUSED;
    return v_bool(test_call(rt, test_find(str_z(&rt->x, "lower")), self, c));
}
METHOD(s_isupper) {
    UNUSED;
    return v_bool(test_call(rt, test_find(str_z(&rt->x, "upper")), self, c));
}

METHOD(s_isidentifier) {
    UNUSED;
    for (size_t i = 0, w; i < self.s->n; i += w) {
        uint32_t ch = u_get(self.s->p + i, self.s->n - i, &w);
        if (i == 0 ? !u_id_start(ch) : !u_word(ch)) return v_bool(false);
    }
    return v_bool(self.s->n > 0);
}

METHOD(s_istitle) {
    UNUSED;
    bool previous = false, any = false;
    for (size_t i = 0, w; i < self.s->n; i += w) {
        uint32_t ch = u_get(self.s->p + i, self.s->n - i, &w);
        bool up = u_upper(ch) || u_title(ch), low = u_lower(ch);
        if ((up && previous) || (low && !previous)) return v_bool(false);
        previous = up || low;
        any = any || previous;
    }
    return v_bool(any);
}

/* ---- str: cutting and padding ---- */

static struct val strip(struct rt *rt, struct val self, struct val *a, bool left, bool right) {
    return plain(str_strip(&rt->x, self.s, given(a[0]) ? need_str(rt, a[0]) : NULL, left, right));
}
METHOD(s_strip) {
    UNUSED;
    return strip(rt, self, a, true, true);
}
METHOD(s_lstrip) {
    UNUSED;
    return strip(rt, self, a, true, false);
}
METHOD(s_rstrip) {
    UNUSED;
    return strip(rt, self, a, false, true);
}

static struct val split(struct rt *rt, struct val self, struct val *a, bool right) {
    struct str *sep = given(a[0]) ? need_str(rt, a[0]) : NULL;
    int64_t max = a[1].t == V_MISSING ? -1 : need_int(rt, a[1]);
    if (sep && sep->n == 0) FAIL("empty separator");
    struct vec v = str_split(&rt->x, self.s, sep, max, right);
    return v_list(&rt->x, v.v, v.n, false);
}
METHOD(s_split) {
    UNUSED;
    return split(rt, self, a, false);
}
METHOD(s_rsplit) {
    UNUSED;
    return split(rt, self, a, true);
}

METHOD(s_splitlines) {
    UNUSED;
    struct vec v = str_splitlines(&rt->x, self.s, int_flag(rt, a[0]));
    return v_list(&rt->x, v.v, v.n, false);
}

static struct val partition(struct rt *rt, struct val self, struct val arg, bool last) {
    struct str *s = self.s, *sep = need_str(rt, arg);
    if (sep->n == 0) FAIL("empty separator");
    ptrdiff_t at = str_find(s, sep, 0, s->n, last);
    struct val *v = jx_array(&rt->x, 3, sizeof *v);
    size_t i = (size_t)at;
    if (at < 0) {
        v[0] = v[1] = v[2] = v_str(str_sub(&rt->x, s, 0, 0));
        v[last ? 2 : 0] = self;
    } else {
        v[0] = v_str(str_sub(&rt->x, s, 0, i));
        v[1] = v_str(str_sub(&rt->x, s, i, sep->n));
        v[2] = v_str(str_sub(&rt->x, s, i + sep->n, s->n - i - sep->n));
    }
    return v_list(&rt->x, v, 3, true);
}
METHOD(s_partition) {
    UNUSED;
    return partition(rt, self, a[0], false);
}
METHOD(s_rpartition) {
    UNUSED;
    return partition(rt, self, a[0], true);
}

METHOD(s_removeprefix) {
    UNUSED;
    struct str *s = self.s, *p = need_str(rt, a[0]);
    bool has = p->n && s->n >= p->n && memcmp(s->p, p->p, p->n) == 0;
    return has ? v_str(str_sub(&rt->x, s, p->n, s->n - p->n)) : self;
}
METHOD(s_removesuffix) {
    UNUSED;
    struct str *s = self.s, *p = need_str(rt, a[0]);
    bool has = p->n && s->n >= p->n && memcmp(s->p + s->n - p->n, p->p, p->n) == 0;
    return has ? v_str(str_sub(&rt->x, s, 0, s->n - p->n)) : self;
}

static struct val justify(struct rt *rt, struct val self, struct val *a, int side) {
    struct str *fill = a[1].t == V_MISSING ? str_z(&rt->x, " ") : fitting(rt, self.s, a[1]);
    if (str_chars(fill) != 1) FAIL("The fill character must be exactly one character long");
    return plain(str_justify(&rt->x, self.s, need_int(rt, a[0]), fill, side));
}
METHOD(s_ljust) {
    UNUSED;
    return justify(rt, self, a, -1);
}
METHOD(s_rjust) {
    UNUSED;
    return justify(rt, self, a, 1);
}
METHOD(s_center) {
    UNUSED;
    return justify(rt, self, a, 0);
}

METHOD(s_zfill) {
    UNUSED;
    struct str *s = self.s;
    int64_t width = need_int(rt, a[0]), n = (int64_t)str_chars(s);
    if (width <= n) return self;
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = s->markup;
    size_t sign = s->n && (s->p[0] == '-' || s->p[0] == '+');
    sb_sub(&b, s, 0, sign);
    sb_pad(&b, str_z(&rt->x, "0"), (size_t)(width - n));
    sb_sub(&b, s, sign, s->n - sign);
    return v_str(sb_take(&b));
}

METHOD(s_expandtabs) {
    UNUSED;
    struct str *s = self.s, *space = str_z(&rt->x, " ");
    int64_t tab = a[0].t == V_MISSING ? 8 : need_int(rt, a[0]), column = 0;
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = s->markup;
    for (size_t i = 0, w; i < s->n; i += w) {
        uint32_t ch = u_get(s->p + i, s->n - i, &w);
        if (ch == '\t') {
            int64_t pad = tab > 0 ? tab - column % tab : 0;
            sb_pad(&b, space, (size_t)pad);
            column += pad;
            continue;
        }
        sb_sub(&b, s, i, w);
        column = ch == '\n' || ch == '\r' ? 0 : column + 1;
    }
    return v_str(sb_take(&b));
}

METHOD(s_replace) {
    UNUSED;
    int64_t count = a[2].t == V_MISSING ? -1 : need_int(rt, a[2]);
    return plain(str_replace(&rt->x, self.s, need_str(rt, a[0]), fitting(rt, self.s, a[1]), count));
}

METHOD(s_join) {
    UNUSED;
    struct vec v = {0};
    struct iter *it = val_iter(rt, a[0]);
    struct val item;
    while (iter_next(rt, it, &item)) {
        if (self.s->markup) item = v_str(fitting(rt, self.s, item));
        if (item.t != V_STR) FAIL("sequence item %zu: expected str instance, %s found", v.n, type_name(item));
        vec_add(&rt->x, &v, item);
    }
    struct str *s = str_join(&rt->x, self.s, v);
    s->markup = self.s->markup;
    return v_str(s);
}

METHOD(s_format) {
    (void)a;
    return v_str(format_braces(rt, self.s, c));
}
METHOD(s_format_map) {
    UNUSED;
    struct call with = {0};
    if (a[0].t != V_DICT) FAIL("format_map() needs a mapping, not %s", type_name(a[0]));
    struct dict *d = a[0].d;
    with.kw = jx_array(&rt->x, d->n, sizeof *with.kw);
    with.kwv = jx_array(&rt->x, d->n, sizeof *with.kwv);
    for (size_t i = 0; i < d->n; i++) {
        if (d->e[i].k.t != V_STR) continue;
        with.kw[with.nkw] = d->e[i].k.s;
        with.kwv[with.nkw++] = d->e[i].v;
    }
    return v_str(format_braces(rt, self.s, &with));
}

METHOD(refused) {
    UNUSED;
    FAIL("this method is not supported in templates");
}

/* ---- str: looking ---- */

/* The bytes of s[start:end]; false when start lies behind the end. */
static bool window(struct rt *rt, const struct str *s, const struct val *a, size_t *from, size_t *to) {
    int64_t n = (int64_t)str_chars(s), start = given(a[0]) ? need_int(rt, a[0]) : 0,
            end = given(a[1]) ? need_int(rt, a[1]) : n;
    if (start < 0) start = start < -n ? 0 : start + n;
    if (end < 0) end = end < -n ? 0 : end + n;
    if (end > n) end = n;
    if (start > n || start > end) return false;
    *from = str_offset(s, (size_t)start);
    *to = str_offset(s, (size_t)end);
    return true;
}

static int64_t find(struct rt *rt, struct val self, struct val *a, bool last) {
    size_t from, to;
    struct str *part = need_str(rt, a[0]);
    jx_charge(&rt->x, self.s->n / 64);
    if (!window(rt, self.s, a + 1, &from, &to)) return -1;
    ptrdiff_t at = str_find(self.s, part, from, to, last);
    if (at < 0) return -1;
    struct str head = {.p = self.s->p, .n = (size_t)at, .chars = SIZE_MAX};
    return (int64_t)str_chars(&head);
}
METHOD(s_find) {
    UNUSED;
    return v_int(find(rt, self, a, false));
}
METHOD(s_rfind) {
    UNUSED;
    return v_int(find(rt, self, a, true));
}
static struct val found(struct rt *rt, int64_t i) {
    if (i < 0) FAIL("substring not found");
    return v_int(i);
}
METHOD(s_index) {
    UNUSED;
    return found(rt, find(rt, self, a, false));
}
METHOD(s_rindex) {
    UNUSED;
    return found(rt, find(rt, self, a, true));
}

METHOD(s_count) {
    UNUSED;
    size_t from, to;
    int64_t n = 0;
    struct str *part = need_str(rt, a[0]);
    jx_charge(&rt->x, self.s->n / 32);
    if (!window(rt, self.s, a + 1, &from, &to)) return v_int(0);
    if (part->n == 0) {
        struct str w = {.p = self.s->p + from, .n = to - from, .chars = SIZE_MAX};
        return v_int((int64_t)str_chars(&w) + 1);
    }
    for (ptrdiff_t at; (at = str_find(self.s, part, from, to, false)) >= 0; n++) from = (size_t)at + part->n;
    return v_int(n);
}

static bool affix(struct rt *rt, struct val self, struct val *a, struct val part, bool end) {
    size_t from, to;
    if (part.t != V_STR)
        FAIL("%s first arg must be str or a tuple of str, not %s", end ? "endswith" : "startswith", type_name(part));
    if (!window(rt, self.s, a + 1, &from, &to) || part.s->n > to - from) return false;
    return memcmp(self.s->p + (end ? to - part.s->n : from), part.s->p, part.s->n) == 0;
}
static struct val affixes(struct rt *rt, struct val self, struct val *a, bool end) {
    if (a[0].t != V_TUPLE) return v_bool(affix(rt, self, a, a[0], end));
    for (size_t i = 0; i < a[0].l->n; i++)
        if (affix(rt, self, a, a[0].l->v[i], end)) return v_bool(true);
    return v_bool(false);
}
METHOD(s_startswith) {
    UNUSED;
    return affixes(rt, self, a, false);
}
METHOD(s_endswith) {
    UNUSED;
    return affixes(rt, self, a, true);
}

/* ---- the others ---- */

METHOD(l_index) {
    UNUSED;
    struct iter *it = val_iter(rt, self);
    struct val v;
    int64_t n = 0, start = a[1].t == V_MISSING ? 0 : need_int(rt, a[1]), end = INT64_MAX;
    val_len(rt, self, &n);
    if (a[2].t != V_MISSING) end = need_int(rt, a[2]);
    if (start < 0) start = start < -n ? 0 : start + n;
    if (end < 0) end += n;
    for (int64_t i = 0; iter_next(rt, it, &v); i++)
        if (i >= start && i < end && (val_same(v, a[0]) || val_eq(rt, v, a[0]))) return v_int(i);
    FAIL("%s is not in %s", cstr_repr(rt, a[0]), type_name(self));
}
METHOD(l_count) {
    UNUSED;
    struct iter *it = val_iter(rt, self);
    struct val v;
    int64_t n = 0;
    while (iter_next(rt, it, &v)) n += val_same(v, a[0]) || val_eq(rt, v, a[0]);
    return v_int(n);
}
METHOD(x_copy) {
    UNUSED;
    if (self.t != V_DICT) return v_list(&rt->x, self.l->v, self.l->n, false);
    struct dict *d = dict_new(&rt->x);
    for (size_t i = 0; i < self.d->n; i++) dict_append(&rt->x, d, self.d->e[i].k, self.d->e[i].v);
    return (struct val){.t = V_DICT, .d = d};
}

METHOD(d_get) {
    UNUSED;
    struct val *v = dict_get(rt, self.d, a[0]);
    return v ? *v : a[1].t == V_MISSING ? v_none() : a[1];
}
static struct val view(struct rt *rt, struct val self, char kind) {
    struct view *w = NEW(&rt->x, struct view);
    *w = (struct view){self.d, kind};
    return (struct val){.t = V_VIEW, .view = w};
}
METHOD(d_items) {
    UNUSED;
    return view(rt, self, 'i');
}
METHOD(d_keys) {
    UNUSED;
    return view(rt, self, 'k');
}
METHOD(d_values) {
    UNUSED;
    return view(rt, self, 'v');
}
METHOD(d_fromkeys) {
    UNUSED;
    struct dict *d = dict_new(&rt->x);
    struct iter *it = val_iter(rt, a[0]);
    struct val k;
    while (iter_next(rt, it, &k)) dict_set(rt, d, k, a[1].t == V_MISSING ? v_none() : a[1]);
    return (struct val){.t = V_DICT, .d = d};
}

METHOD(i_bit_length) {
    UNUSED;
    int64_t i = need_int(rt, self);
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    return v_int(u ? 64 - __builtin_clzll(u) : 0);
}
METHOD(i_bit_count) {
    UNUSED;
    int64_t i = need_int(rt, self);
    return v_int(__builtin_popcountll(i < 0 ? 0 - (uint64_t)i : (uint64_t)i));
}
METHOD(n_self) {
    UNUSED;
    return self.t == V_BOOL ? v_int(self.b) : self;
}
METHOD(f_is_integer) {
    UNUSED;
    return v_bool(isfinite(self.f) && self.f == floor(self.f));
}

METHOD(loop_cycle) {
    UNUSED;
    if (c->nkw) FAIL("cycle() takes no keyword arguments");
    if (c->n == 0) FAIL("no items for cycling given");
    return c->pos[(size_t)self.loop->index0 % c->n];
}
METHOD(loop_changed) {
    UNUSED;
    if (c->nkw) FAIL("changed() takes no keyword arguments");
    struct val now = v_list(&rt->x, c->pos, c->n, true);
    if (self.loop->has_changed && val_eq(rt, self.loop->changed, now)) return v_bool(false);
    self.loop->has_changed = true;
    self.loop->changed = now;
    return v_bool(true);
}
METHOD(cycler_next) {
    UNUSED;
    struct cycler *y = self.cycler;
    struct val v = y->v[y->pos];
    y->pos = (y->pos + 1) % y->n;
    return v;
}
METHOD(cycler_reset) {
    UNUSED;
    self.cycler->pos = 0;
    return v_none();
}

#define UNSAFE NULL
/* names: as in bind_args(); a leading '/' means that none may be given by keyword; NULL: the call as it is */
static const struct {
    enum vtype t;
    const char *name;
    method_fn *fn;
    const char *names;
    size_t need;
} methods[] = {
    {V_STR, "capitalize", s_capitalize, "/", 0},
    {V_STR, "casefold", s_casefold, "/", 0},
    {V_STR, "center", s_center, "/width|fill", 1},
    {V_STR, "count", s_count, "/sub|start|end", 1},
    {V_STR, "encode", refused, NULL, 0},
    {V_STR, "endswith", s_endswith, "/suffix|start|end", 1},
    {V_STR, "expandtabs", s_expandtabs, "tabsize", 0},
    {V_STR, "find", s_find, "/sub|start|end", 1},
    {V_STR, "format", s_format, NULL, 0},
    {V_STR, "format_map", s_format_map, "/mapping", 1},
    {V_STR, "index", s_index, "/sub|start|end", 1},
    {V_STR, "isalnum", s_isalnum, "/", 0},
    {V_STR, "isalpha", s_isalpha, "/", 0},
    {V_STR, "isascii", s_isascii, "/", 0},
    {V_STR, "isdecimal", s_isdecimal, "/", 0},
    {V_STR, "isdigit", s_isdigit, "/", 0},
    {V_STR, "isidentifier", s_isidentifier, "/", 0},
    {V_STR, "islower", s_islower, "/", 0},
    {V_STR, "isnumeric", s_isnumeric, "/", 0},
    {V_STR, "isprintable", s_isprintable, "/", 0},
    {V_STR, "isspace", s_isspace, "/", 0},
    {V_STR, "istitle", s_istitle, "/", 0},
    {V_STR, "isupper", s_isupper, "/", 0},
    {V_STR, "join", s_join, "/iterable", 1},
    {V_STR, "ljust", s_ljust, "/width|fill", 1},
    {V_STR, "lower", s_lower, "/", 0},
    {V_STR, "lstrip", s_lstrip, "/chars", 0},
    {V_STR, "maketrans", refused, NULL, 0},
    {V_STR, "partition", s_partition, "/sep", 1},
    {V_STR, "removeprefix", s_removeprefix, "/prefix", 1},
    {V_STR, "removesuffix", s_removesuffix, "/suffix", 1},
    {V_STR, "replace", s_replace, "/old|new|count", 2},
    {V_STR, "rfind", s_rfind, "/sub|start|end", 1},
    {V_STR, "rindex", s_rindex, "/sub|start|end", 1},
    {V_STR, "rjust", s_rjust, "/width|fill", 1},
    {V_STR, "rpartition", s_rpartition, "/sep", 1},
    {V_STR, "rsplit", s_rsplit, "sep|maxsplit", 0},
    {V_STR, "rstrip", s_rstrip, "/chars", 0},
    {V_STR, "split", s_split, "sep|maxsplit", 0},
    {V_STR, "splitlines", s_splitlines, "keepends", 0},
    {V_STR, "startswith", s_startswith, "/prefix|start|end", 1},
    {V_STR, "strip", s_strip, "/chars", 0},
    {V_STR, "swapcase", s_swapcase, "/", 0},
    {V_STR, "title", s_title, "/", 0},
    {V_STR, "translate", refused, NULL, 0},
    {V_STR, "upper", s_upper, "/", 0},
    {V_STR, "zfill", s_zfill, "/width", 1},
    {V_LIST, "index", l_index, "/value|start|stop", 1},
    {V_LIST, "count", l_count, "/value", 1},
    {V_LIST, "copy", x_copy, "/", 0},
    {V_LIST, "append", UNSAFE, NULL, 0},
    {V_LIST, "clear", UNSAFE, NULL, 0},
    {V_LIST, "pop", UNSAFE, NULL, 0},
    {V_LIST, "reverse", UNSAFE, NULL, 0},
    {V_LIST, "insert", UNSAFE, NULL, 0},
    {V_LIST, "sort", UNSAFE, NULL, 0},
    {V_LIST, "extend", UNSAFE, NULL, 0},
    {V_LIST, "remove", UNSAFE, NULL, 0},
    {V_TUPLE, "index", l_index, "/value|start|stop", 1},
    {V_TUPLE, "count", l_count, "/value", 1},
    {V_RANGE, "index", l_index, "/value", 1},
    {V_RANGE, "count", l_count, "/value", 1},
    {V_DICT, "get", d_get, "/key|default", 1},
    {V_DICT, "items", d_items, "/", 0},
    {V_DICT, "keys", d_keys, "/", 0},
    {V_DICT, "values", d_values, "/", 0},
    {V_DICT, "copy", x_copy, "/", 0},
    {V_DICT, "fromkeys", d_fromkeys, "/iterable|value", 1},
    {V_DICT, "clear", UNSAFE, NULL, 0},
    {V_DICT, "pop", UNSAFE, NULL, 0},
    {V_DICT, "popitem", UNSAFE, NULL, 0},
    {V_DICT, "setdefault", UNSAFE, NULL, 0},
    {V_DICT, "update", UNSAFE, NULL, 0},
    {V_VIEW, "mapping", refused, NULL, 0},
    {V_VIEW, "isdisjoint", refused, NULL, 0},
    {V_INT, "bit_length", i_bit_length, "/", 0},
    {V_INT, "bit_count", i_bit_count, "/", 0},
    {V_INT, "conjugate", n_self, "/", 0},
    {V_INT, "as_integer_ratio", refused, NULL, 0},
    {V_INT, "to_bytes", refused, NULL, 0},
    {V_INT, "from_bytes", refused, NULL, 0},
    {V_FLOAT, "is_integer", f_is_integer, "/", 0},
    {V_FLOAT, "conjugate", n_self, "/", 0},
    {V_FLOAT, "as_integer_ratio", refused, NULL, 0},
    {V_FLOAT, "hex", refused, NULL, 0},
    {V_FLOAT, "fromhex", refused, NULL, 0},
    {V_ITER, "send", refused, NULL, 0},
    {V_ITER, "throw", refused, NULL, 0},
    {V_ITER, "close", refused, NULL, 0},
    {V_LOOP, "cycle", loop_cycle, NULL, 0},
    {V_LOOP, "changed", loop_changed, NULL, 0},
    {V_CYCLER, "next", cycler_next, "/", 0},
    {V_CYCLER, "reset", cycler_reset, "/", 0},
};
enum { NMETHODS = sizeof methods / sizeof *methods };

int method_find(struct val self, const struct str *name, bool *unsafe) {
    enum vtype t = self.t == V_BOOL ? V_INT : self.t;
    for (int i = 0; i < NMETHODS; i++) {
        if (methods[i].t != t || !str_is(name, methods[i].name)) continue;
        if (methods[i].fn) return i;
        *unsafe = true;
        return -1;
    }
    return -1;
}

struct val v_method(struct rt *rt, struct val self, int id) {
    struct method *m = NEW(&rt->x, struct method);
    *m = (struct method){self, id};
    return (struct val){.t = V_METHOD, .m = m};
}

struct val method_call(struct rt *rt, struct method *m, struct call *c) {
    struct val a[4] = {0}; /* V_MISSING; a function that serves two types may look at more than one of them names */
    const char *names = methods[m->id].names, *name = methods[m->id].name;
    if (names && *names == '/') {
        if (c->nkw) FAIL("%s() takes no keyword arguments", name);
        names++;
    }
    if (names) bind_args(rt, name, names, methods[m->id].need, c, a);
    return methods[m->id].fn(rt, m->self, a, c);
}
