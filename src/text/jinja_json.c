/* jinja_json.c: JSON to values and back. Strings of a json_t are borrowed; tojson writes what Python's json.dumps
 * does. State belongs to the rendering thread. */
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)

/* ---- from JSON ---- */

static struct val import_string(struct rt *rt, const char *p, size_t n, bool trusted) {
    struct str *s = str_new(&rt->x, p, n, trusted ? TRUSTED : UNTRUSTED);
    const char *const *w = rt->args->words;
    if (!trusted && w && n < 32)
        for (; *w; w++)
            if (str_is(s, *w)) s->trust = TRUSTED;
    return v_str(s);
}

struct val from_json(struct rt *rt, json_t *j, bool trusted, int depth) {
    size_t i;
    json_t *item;
    jx_enter(&rt->x);
    struct val v = v_none();
    switch (json_typeof(j)) {
    case JSON_NULL: break;
    case JSON_TRUE: v = v_bool(true); break;
    case JSON_FALSE: v = v_bool(false); break;
    case JSON_INTEGER: v = v_int(json_integer_value(j)); break;
    case JSON_REAL: v = v_float(json_real_value(j)); break;
    case JSON_STRING: v = import_string(rt, json_string_value(j), json_string_length(j), trusted); break;
    case JSON_ARRAY: {
        struct val *list = jx_array(&rt->x, json_array_size(j), sizeof *list);
        json_array_foreach(j, i, item) list[i] = from_json(rt, item, trusted, depth + 1);
        v = v_list(&rt->x, list, json_array_size(j), false);
        break;
    }
    case JSON_OBJECT: {
        struct dict *d = dict_new(&rt->x);
        d->cap = json_object_size(j);
        d->e = jx_array(&rt->x, d->cap, sizeof *d->e);
        for (void *at = json_object_iter(j); at; at = json_object_iter_next(j, at)) {
            const char *key = json_object_iter_key(at);
            dict_append(&rt->x, d, import_string(rt, key, json_object_iter_key_len(at), trusted),
                        from_json(rt, json_object_iter_value(at), trusted, depth + 1));
        }
        v = (struct val){.t = V_DICT, .d = d};
        break;
    }
    }
    jx_leave(&rt->x);
    return v;
}

/* ---- to JSON ---- */

struct writer {
    struct rt *rt;
    struct sb b;
    bool ascii, sort, trusted;
    bool pretty;
    const struct str *indent;
    const struct str *comma, *colon;
};

static void out(struct writer *w, const char *p, size_t n) { sb_raw(&w->b, p, n, true); }
static void out_z(struct writer *w, const char *z) { out(w, z, strlen(z)); }

static void escape_cp(struct writer *w, uint32_t c) {
    char text[16];
    if (c >= 0x10000) {
        c -= 0x10000;
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (c >> 10), 0xDC00 + (c & 0x3FF));
    } else {
        snprintf(text, sizeof text, "\\u%04x", c);
    }
    out_z(w, text);
}

static void write_string(struct writer *w, const struct str *s) {
    static const char of[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    size_t from = 0;
    w->trusted = w->trusted && s->trust == TRUSTED;
    out(w, "\"", 1);
    for (size_t i = 0; i < s->n;) {
        unsigned char ch = (unsigned char)s->p[i];
        size_t k = 1;
        if (ch >= 0x20 && ch != '"' && ch != '\\' && (ch < 0x7F || !w->ascii)) {
            i++;
            continue;
        }
        out(w, s->p + from, i - from);
        const char *at = ch && ch < 0x80 ? strchr(of, ch) : NULL;
        if (at) {
            out(w, "\\", 1);
            out(w, to + (at - of), 1);
        } else {
            escape_cp(w, u_get(s->p + i, s->n - i, &k));
        }
        i += k;
        from = i;
    }
    out(w, s->p + from, s->n - from);
    out(w, "\"", 1);
}

static void newline(struct writer *w, int level) {
    out(w, "\n", 1);
    for (int i = 0; i < level; i++) out(w, w->indent->p, w->indent->n);
}

static void write_number(struct writer *w, struct val v) {
    char text[40];
    if (v.t == V_INT)
        snprintf(text, sizeof text, "%lld", (long long)v.i);
    else if (isnan(v.f) || isinf(v.f))
        strcpy(text, isnan(v.f) ? "NaN" : v.f > 0 ? "Infinity" : "-Infinity");
    else
        float_repr(v.f, text);
    out_z(w, text);
}

static void write_key(struct writer *w, struct val k) {
    struct rt *rt = w->rt;
    if (k.t == V_STR) {
        write_string(w, k.s);
        return;
    }
    out(w, "\"", 1);
    if (k.t == V_INT || k.t == V_FLOAT)
        write_number(w, k);
    else if (k.t == V_BOOL)
        out_z(w, k.b ? "true" : "false");
    else if (k.t == V_NONE)
        out_z(w, "null");
    else
        FAIL("keys must be str, int, float, bool or None, not %s", type_name(k));
    out(w, "\"", 1);
}

static void sort_entries(struct rt *rt, struct dent *e, struct dent *tmp, size_t n) {
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, o = 0;
    sort_entries(rt, e, tmp, h);
    sort_entries(rt, e + h, tmp, n - h);
    while (i < h && j < n) tmp[o++] = val_order(rt, e[j].k, e[i].k, "<") < 0 ? e[j++] : e[i++];
    while (i < h) tmp[o++] = e[i++];
    memcpy(e, tmp, o * sizeof *e);
}

static void write_value(struct writer *w, struct val v, int level);

static void write_dict(struct writer *w, struct dict *d, int level) {
    struct dent *e = d->e;
    if (d->n == 0) {
        out(w, "{}", 2);
        return;
    }
    if (w->sort) {
        struct dent *tmp = jx_array(&w->rt->x, d->n, sizeof *tmp);
        e = jx_array(&w->rt->x, d->n, sizeof *e);
        memcpy(e, d->e, d->n * sizeof *e);
        sort_entries(w->rt, e, tmp, d->n);
    }
    out(w, "{", 1);
    for (size_t i = 0; i < d->n; i++) {
        if (i) out(w, w->comma->p, w->comma->n);
        if (w->pretty) newline(w, level + 1);
        write_key(w, e[i].k);
        out(w, w->colon->p, w->colon->n);
        write_value(w, e[i].v, level + 1);
    }
    if (w->pretty) newline(w, level);
    out(w, "}", 1);
}

static void write_list(struct writer *w, struct list *l, int level) {
    if (l->n == 0) {
        out(w, "[]", 2);
        return;
    }
    out(w, "[", 1);
    for (size_t i = 0; i < l->n; i++) {
        if (i) out(w, w->comma->p, w->comma->n);
        if (w->pretty) newline(w, level + 1);
        write_value(w, l->v[i], level + 1);
    }
    if (w->pretty) newline(w, level);
    out(w, "]", 1);
}

static void write_value(struct writer *w, struct val v, int level) {
    struct rt *rt = w->rt;
    jx_charge(&rt->x, 1);
    jx_enter(&rt->x);
    switch (v.t) {
    case V_NONE: out_z(w, "null"); break;
    case V_BOOL: out_z(w, v.b ? "true" : "false"); break;
    case V_INT:
    case V_FLOAT: write_number(w, v); break;
    case V_STR: write_string(w, v.s); break;
    case V_LIST:
    case V_TUPLE: write_list(w, v.l, level); break;
    case V_DICT: write_dict(w, v.d, level); break;
    default: FAIL("Object of type %s is not JSON serializable", type_name(v));
    }
    jx_leave(&rt->x);
}

static void set_separators(struct rt *rt, struct writer *w, struct val seps, bool used) {
    struct vec v = iter_all(rt, seps);
    if (v.n != 2) FAIL("separators needs two strings, got %zu", v.n);
    if (!used) return;
    if (v.v[0].t != V_STR || v.v[1].t != V_STR) FAIL("separators must be strings");
    w->comma = v.v[0].s;
    w->colon = v.v[1].s;
    w->trusted = w->comma->trust == TRUSTED && w->colon->trust == TRUSTED;
}

struct str *to_json(struct rt *rt, struct val v, bool ascii, struct val indent, struct val seps, bool sort) {
    struct writer w = {.rt = rt, .ascii = ascii, .sort = sort, .trusted = true};
    int64_t n;
    sb_init(&w.b, &rt->x);
    w.pretty = indent.t != V_MISSING && indent.t != V_NONE;
    w.indent = str_z(&rt->x, "");
    w.comma = str_z(&rt->x, w.pretty ? "," : ", ");
    w.colon = str_z(&rt->x, ": ");
    if (seps.t != V_MISSING && seps.t != V_NONE) set_separators(rt, &w, seps, v.t != V_STR);
    if (w.pretty && indent.t == V_STR) {
        w.indent = indent.s;
        w.trusted = w.trusted && indent.s->trust == TRUSTED;
    } else if (w.pretty) {
        struct sb b;
        sb_init(&b, &rt->x);
        n = need_int(rt, indent);
        sb_pad(&b, str_z(&rt->x, " "), n > 0 ? (size_t)n : 0);
        w.indent = sb_take(&b);
    }
    write_value(&w, v, 0);
    struct str *s = sb_take(&w.b);
    s->trust = w.trusted ? TRUSTED : UNTRUSTED; /* one mark for the whole text */
    return s;
}
