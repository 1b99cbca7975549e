/* jinja_filter_str.c: the filters on text. State belongs to the rendering thread. */
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)
#define FILTER(name) static struct val name(struct rt *rt, struct val in, struct val *a, struct call *c)
#define UNUSED (void)rt, (void)in, (void)a, (void)c

static bool given(struct val v) { return v.t != V_MISSING && v.t != V_NONE; }
static bool flag(struct rt *rt, struct val v) { return v.t != V_MISSING && truthy(rt, v); }

static struct str *need_str(struct rt *rt, struct val v, const char *what) {
    if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
    if (v.t != V_STR) FAIL("%s must be str, not %s", what, type_name(v));
    return v.s;
}

FILTER(f_upper) {
    UNUSED;
    return v_str(u_case(&rt->x, to_str(rt, in), U_UPPER));
}
FILTER(f_lower) {
    UNUSED;
    return v_str(u_case(&rt->x, to_str(rt, in), U_LOWER));
}
FILTER(f_capitalize) {
    UNUSED;
    return v_str(u_case(&rt->x, to_str(rt, in), U_CAPITALIZE));
}
FILTER(f_string) {
    UNUSED;
    return v_str(to_str(rt, in));
}

FILTER(f_title) { /* words begin behind dashes, spaces and opening brackets */
    UNUSED;
    struct str *s = to_str(rt, in);
    struct sb b;
    sb_init(&b, &rt->x);
    size_t from = 0, w;
    for (size_t i = 0; i < s->n; i = from) {
        uint32_t ch = u_get(s->p + i, s->n - i, &w);
        if (ch == '-' || u_space(ch) || (ch < 0x80 && ch && strchr("({[<", (int)ch))) {
            sb_sub(&b, s, i, w);
            from = i + w;
            continue;
        }
        size_t end = i + w, k;
        while (end < s->n) {
            ch = u_get(s->p + end, s->n - end, &k);
            if (ch == '-' || u_space(ch) || (ch < 0x80 && ch && strchr("({[<", (int)ch))) break;
            end += k;
        }
        sb_str(&b, u_case(&rt->x, str_sub(&rt->x, s, i, w), U_UPPER));
        sb_str(&b, u_case(&rt->x, str_sub(&rt->x, s, i + w, end - i - w), U_LOWER));
        from = end;
    }
    return v_str(sb_take(&b));
}

FILTER(f_trim) {
    UNUSED;
    struct str *s = to_str(rt, in);
    return v_str(str_strip(&rt->x, s, given(a[0]) ? need_str(rt, a[0], "strip arg") : NULL, true, true));
}

FILTER(f_center) {
    UNUSED;
    int64_t width = a[0].t == V_MISSING ? 80 : need_int(rt, a[0]);
    return v_str(str_justify(&rt->x, to_str(rt, in), width, str_z(&rt->x, " "), 0));
}

static struct val marked(struct rt *rt, struct val v, bool markup) {
    struct str *s = NEW(&rt->x, struct str), *from = to_str(rt, v);
    *s = *from;
    s->markup = markup;
    return v_str(s);
}

FILTER(f_replace) {
    UNUSED;
    struct str *s = marked(rt, in, false).s;
    int64_t count = given(a[2]) ? need_int(rt, a[2]) : -1;
    return v_str(str_replace(&rt->x, s, to_str(rt, a[0]), to_str(rt, a[1]), count));
}

FILTER(f_escape) {
    UNUSED;
    if (in.t == V_STR && in.s->markup) return in;
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = true;
    escape_into(&b, to_str(rt, in));
    return v_str(sb_take(&b));
}

FILTER(f_safe) {
    UNUSED;
    return marked(rt, in, true);
}
FILTER(f_forceescape) {
    UNUSED;
    return f_escape(rt, marked(rt, in, false), a, c);
}

FILTER(f_format) {
    (void)a;
    struct val args;
    if (c->n && c->nkw) FAIL("can't handle positional and keyword arguments at the same time");
    if (c->nkw) {
        struct dict *d = dict_new(&rt->x);
        for (size_t i = 0; i < c->nkw; i++) dict_set(rt, d, v_str(c->kw[i]), c->kwv[i]);
        args = (struct val){.t = V_DICT, .d = d};
    } else {
        args = v_list(&rt->x, c->pos, c->n, true);
    }
    return v_str(format_percent(rt, to_str(rt, in), args));
}

FILTER(f_indent) {
    UNUSED;
    struct str *s = need_str(rt, in, "indent's input"), *by;
    if (a[0].t == V_STR) {
        by = a[0].s;
    } else {
        struct sb w;
        sb_init(&w, &rt->x);
        int64_t n = a[0].t == V_MISSING ? 4 : need_int(rt, a[0]);
        sb_pad(&w, str_z(&rt->x, " "), n > 0 ? (size_t)n : 0);
        by = sb_take(&w);
    }
    struct sb b;
    sb_init(&b, &rt->x);
    sb_str(&b, s);
    sb_z(&b, "\n", true);
    struct vec lines = str_splitlines(&rt->x, sb_take(&b), false);
    sb_init(&b, &rt->x);
    b.markup = s->markup;
    bool blank = flag(rt, a[2]);
    if (flag(rt, a[1])) sb_str(&b, by);
    for (size_t i = 0; i < lines.n; i++) {
        if (i) sb_z(&b, "\n", true);
        if (i && (blank || lines.v[i].s->n)) sb_str(&b, by);
        sb_str(&b, lines.v[i].s);
    }
    return v_str(sb_take(&b));
}

FILTER(f_truncate) {
    UNUSED;
    int64_t length = a[0].t == V_MISSING ? 255 : need_int(rt, a[0]), leeway = given(a[3]) ? need_int(rt, a[3]) : 5, n;
    struct str *end = a[2].t == V_MISSING ? str_z(&rt->x, "...") : need_str(rt, a[2], "truncate's end");
    int64_t ends = (int64_t)str_chars(end);
    if (length < ends) FAIL("expected length >= %lld, got %lld", (long long)ends, (long long)length);
    if (leeway < 0) FAIL("expected leeway >= 0, got %lld", (long long)leeway);
    if (!val_len(rt, in, &n)) FAIL("object of type '%s' has no len()", type_name(in));
    if (n <= length || n - length <= leeway) return in;
    struct str *s = need_str(rt, in, "truncate's input");
    s = str_sub(&rt->x, s, 0, str_offset(s, (size_t)(length - ends)));
    if (!flag(rt, a[1])) {
        struct vec parts = str_split(&rt->x, s, str_z(&rt->x, " "), 1, true);
        s = parts.v[0].s;
    }
    return binary(rt, OP_ADD, v_str(s), v_str(end));
}

FILTER(f_wordcount) {
    UNUSED;
    struct str *s = to_str(rt, in);
    int64_t n = 0;
    bool inside = false;
    jx_charge(&rt->x, s->n / 16);
    for (size_t i = 0, w; i < s->n; i += w) {
        bool word = u_word(u_get(s->p + i, s->n - i, &w));
        n += word && !inside;
        inside = word;
    }
    return v_int(n);
}

FILTER(f_wordwrap) {
    UNUSED;
    struct str *s = need_str(rt, in, "wordwrap's input");
    struct str *sep = given(a[2]) ? need_str(rt, a[2], "wordwrap's wrapstring") : str_z(&rt->x, "\n");
    int64_t width = a[0].t == V_MISSING ? 79 : need_int(rt, a[0]);
    bool break_long = a[1].t == V_MISSING || truthy(rt, a[1]), hyphens = a[3].t == V_MISSING || truthy(rt, a[3]);
    struct vec lines = str_splitlines(&rt->x, s, false);
    for (size_t i = 0; i < lines.n; i++)
        lines.v[i] = v_str(str_wrap(rt, lines.v[i].s, width, break_long, sep, hyphens));
    return v_str(str_join(&rt->x, sep, lines));
}

static void quote_into(struct sb *b, const struct str *s, bool query) {
    for (size_t i = 0; i < s->n; i++) {
        unsigned char ch = (unsigned char)s->p[i];
        bool safe = (ch | 0x20) >= 'a' && (ch | 0x20) <= 'z';
        safe = safe || (ch >= '0' && ch <= '9') || (ch && strchr("_.-~", ch)) || (ch == '/' && !query);
        char hex[8];
        snprintf(hex, sizeof hex, "%%%02X", ch);
        if (safe)
            sb_sub(b, s, i, 1);
        else if (ch == ' ' && query)
            sb_z(b, "+", true);
        else
            sb_z(b, hex, s->trust == TRUSTED);
    }
}

FILTER(f_urlencode) {
    UNUSED;
    struct sb b;
    sb_init(&b, &rt->x);
    if (in.t == V_STR || !iterable(in)) {
        quote_into(&b, to_str(rt, in), false);
        return v_str(sb_take(&b));
    }
    if (in.t == V_DICT) {
        struct view *w = NEW(&rt->x, struct view);
        *w = (struct view){in.d, 'i'};
        in = (struct val){.t = V_VIEW, .view = w};
    }
    struct iter *it = val_iter(rt, in);
    struct val pair;
    for (bool first = true; iter_next(rt, it, &pair); first = false) {
        struct vec kv = iter_all(rt, pair);
        if (kv.n != 2) FAIL("cannot unpack %zu values into a key and a value", kv.n);
        if (!first) sb_z(&b, "&", true);
        quote_into(&b, to_str(rt, kv.v[0]), true);
        sb_z(&b, "=", true);
        quote_into(&b, to_str(rt, kv.v[1]), true);
    }
    return v_str(sb_take(&b));
}

FILTER(f_xmlattr) {
    UNUSED;
    struct sb b;
    bool any = false, space = a[0].t == V_MISSING || truthy(rt, a[0]);
    if (in.t == V_UNDEF) fail_undef(&rt->x, in.u);
    if (in.t != V_DICT) FAIL("xmlattr needs a mapping, not %s", type_name(in));
    sb_init(&b, &rt->x);
    for (size_t i = 0; i < in.d->n; i++) {
        struct val k = in.d->e[i].k, v = in.d->e[i].v;
        if (v.t == V_NONE || v.t == V_UNDEF) continue;
        struct str *key = need_str(rt, k, "an attribute name");
        for (size_t j = 0; j < key->n; j++)
            if (strchr(" \t\n\r\f\v/>=", key->p[j]) && key->p[j])
                FAIL("Invalid character in attribute name: %s", cstr_repr(rt, k));
        if (any || space) sb_z(&b, " ", true);
        any = true;
        sb_str(&b, f_escape(rt, k, a, c).s);
        sb_z(&b, "=\"", true);
        sb_str(&b, f_escape(rt, v, a, c).s);
        sb_z(&b, "\"", true);
    }
    b.markup = rt->autoescape;
    return v_str(sb_take(&b));
}

static uint32_t entity(const char *p, size_t n) { /* the character an HTML entity's name stands for; 0: unknown */
    static const struct {
        const char *name;
        uint32_t c;
    } names[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}, {"nbsp", 0xA0}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (n == strlen(names[i].name) && memcmp(p, names[i].name, n) == 0) return names[i].c;
    if (n < 2 || p[0] != '#') return 0;
    bool hex = (p[1] | 0x20) == 'x';
    uint32_t c = 0;
    for (size_t i = hex ? 2 : 1; i < n; i++) {
        int d = p[i] >= '0' && p[i] <= '9'                            ? p[i] - '0'
                : hex && (p[i] | 0x20) >= 'a' && (p[i] | 0x20) <= 'f' ? (p[i] | 0x20) - 'a' + 10
                                                                      : 99;
        if (d == 99 || c > 0x10FFFF) return 0;
        c = c * (hex ? 16 : 10) + (uint32_t)d;
    }
    return c;
}

static struct str *without_tags(struct jx *x, struct str *s) {
    static const struct str open = {.p = "<", .n = 1}, comment = {.p = "<!--", .n = 4}, end = {.p = ">", .n = 1},
                            comment_end = {.p = "-->", .n = 3};
    struct sb b;
    sb_init(&b, x);
    size_t at = 0;
    for (;;) {
        ptrdiff_t from = str_find(s, &open, at, s->n, false), to;
        if (from < 0) break;
        bool is_comment =
            str_find(s, &comment, (size_t)from, s->n < (size_t)from + 4 ? s->n : (size_t)from + 4, false) >= 0;
        const struct str *e = is_comment ? &comment_end : &end;
        to = str_find(s, e, (size_t)from + (is_comment ? 4 : 0), s->n, false);
        if (to < 0) break;
        sb_sub(&b, s, at, (size_t)from - at);
        at = (size_t)to + e->n;
    }
    sb_sub(&b, s, at, s->n - at);
    return sb_take(&b);
}

FILTER(f_striptags) {
    UNUSED;
    struct str *s = without_tags(&rt->x, to_str(rt, in));
    s = str_join(&rt->x, str_z(&rt->x, " "), str_split(&rt->x, s, NULL, -1, false));
    struct sb b;
    sb_init(&b, &rt->x);
    for (size_t i = 0; i < s->n;) {
        const char *semi = s->p[i] == '&' ? memchr(s->p + i, ';', s->n - i < 32 ? s->n - i : 32) : NULL;
        uint32_t ch = semi ? entity(s->p + i + 1, (size_t)(semi - s->p) - i - 1) : 0;
        if (ch)
            sb_cp(&b, ch, s->trust == TRUSTED);
        else
            sb_sub(&b, s, i, 1);
        i = ch ? (size_t)(semi - s->p) + 1 : i + 1;
    }
    return v_str(sb_take(&b));
}

FILTER(f_filesizeformat) {
    UNUSED;
    static const char *const units[] = {"k", "M", "G", "T", "P", "E", "Z", "Y"};
    double n, base = flag(rt, a[0]) ? 1024 : 1000, unit = base;
    char text[420];
    if (in.t == V_UNDEF) fail_undef(&rt->x, in.u);
    if (is_num(in))
        n = as_double(in);
    else if (in.t != V_STR || !parse_float(&rt->x, in.s, &n))
        FAIL("filesizeformat needs a number, not %s", cstr_repr(rt, in));
    if (isnan(n)) FAIL("cannot convert float NaN to integer");
    if (n == 1) return v_z(&rt->x, "1 Byte");
    if (n < base) {
        if (isinf(n)) FAIL("cannot convert float infinity to integer");
        snprintf(text, sizeof text, "%.0f Bytes", trunc(n) + 0.0); /* no "-0" */
    } else {
        int i = 0;
        for (unit = base * base; i < 7 && n >= unit; i++) unit *= base;
        snprintf(text, sizeof text, "%.1f %s%sB", base * n / unit, base == 1000 || i ? units[i] : "K",
                 base == 1024 ? "i" : "");
    }
    return v_str(str_copy(&rt->x, text, strlen(text), TRUSTED));
}

FILTER(f_tojson) {
    (void)c;
    return v_str(to_json(rt, in, flag(rt, a[0]), a[1], a[2], flag(rt, a[3])));
}

const struct filter str_filters[] = {
    {"capitalize", f_capitalize, "", 0},
    {"center", f_center, "width", 0},
    {"e", f_escape, "", 0},
    {"escape", f_escape, "", 0},
    {"filesizeformat", f_filesizeformat, "binary", 0},
    {"forceescape", f_forceescape, "", 0},
    {"format", f_format, NULL, 0},
    {"indent", f_indent, "width|first|blank", 0},
    {"lower", f_lower, "", 0},
    {"replace", f_replace, "old|new|count", 2},
    {"safe", f_safe, "", 0},
    {"string", f_string, "", 0},
    {"striptags", f_striptags, "", 0},
    {"title", f_title, "", 0},
    {"tojson", f_tojson, "ensure_ascii|indent|separators|sort_keys", 0},
    {"trim", f_trim, "chars", 0},
    {"truncate", f_truncate, "length|killwords|end|leeway", 0},
    {"upper", f_upper, "", 0},
    {"urlencode", f_urlencode, "", 0},
    {"wordcount", f_wordcount, "", 0},
    {"wordwrap", f_wordwrap, "width|break_long_words|wrapstring|break_on_hyphens", 0},
    {"xmlattr", f_xmlattr, "autospace", 0},
};
const size_t nstr_filters = sizeof str_filters / sizeof *str_filters;
