/* jinja_strops.c: splitting, stripping, replacing: what Python's str methods and Jinja's filters share. Every piece
 * keeps the provenance of its bytes. No state. */
#include "text/jinja_int.h"

static bool in_set(const struct str *set, const char *c, size_t w) {
    for (size_t i = 0, k; i < set->n; i += k) {
        u_get(set->p + i, set->n - i, &k);
        if (k == w && memcmp(set->p + i, c, w) == 0) return true;
    }
    return false;
}

static bool stripped(const struct str *chars, const char *p, size_t n, size_t *w) {
    uint32_t c = u_get(p, n, w);
    return chars ? in_set(chars, p, *w) : u_space(c);
}

static size_t char_before(const struct str *s, size_t end) {
    size_t i = end - 1;
    while (i > 0 && ((unsigned char)s->p[i] & 0xC0) == 0x80) i--;
    return i;
}

struct str *str_strip(struct jx *x, struct str *s, const struct str *chars, bool left, bool right) {
    size_t from = 0, end = s->n, w;
    while (left && from < end && stripped(chars, s->p + from, end - from, &w)) from += w;
    while (right && end > from) {
        size_t i = char_before(s, end);
        if (!stripped(chars, s->p + i, end - i, &w)) break;
        end = i;
    }
    jx_charge(x, (s->n - (end - from)) * (chars ? chars->n + 1 : 1) / 64);
    return from == 0 && end == s->n ? s : str_sub(x, s, from, end - from);
}

ptrdiff_t str_find(const struct str *s, const struct str *part, size_t from, size_t to, bool last) {
    if (from > to || part->n > to - from) return -1;
    if (part->n == 0) return (ptrdiff_t)(last ? to : from);
    if (!last) {
        const char *p = memmem(s->p + from, to - from, part->p, part->n);
        return p ? p - s->p : -1;
    }
    for (size_t i = to - part->n + 1; i-- > from;)
        if (s->p[i] == part->p[0] && memcmp(s->p + i, part->p, part->n) == 0) return (ptrdiff_t)i;
    return -1;
}

static void replace_between(struct sb *b, struct str *s, struct str *to, int64_t count) { /* from is "" */
    for (size_t i = 0, w = 0; i <= s->n; i += w) {
        if (count != 0) sb_str(b, to), count--;
        if (i == s->n) break;
        u_get(s->p + i, s->n - i, &w);
        sb_sub(b, s, i, w);
    }
}

struct str *str_replace(struct jx *x, struct str *s, struct str *from, struct str *to, int64_t count) {
    struct sb b;
    jx_charge(x, s->n / 64);
    if (count == 0 || (from->n > s->n)) return s;
    if (from->n && str_find(s, from, 0, s->n, false) < 0) return s;
    sb_init(&b, x);
    b.markup = s->markup;
    if (from->n == 0) {
        replace_between(&b, s, to, count);
        return sb_take(&b);
    }
    size_t at = 0;
    for (ptrdiff_t hit; count != 0 && (hit = str_find(s, from, at, s->n, false)) >= 0; count--) {
        jx_charge(x, 1);
        sb_sub(&b, s, at, (size_t)hit - at);
        sb_str(&b, to);
        at = (size_t)hit + from->n;
    }
    sb_sub(&b, s, at, s->n - at);
    return sb_take(&b);
}

static bool line_end(uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

struct vec str_splitlines(struct jx *x, struct str *s, bool keep) {
    struct vec v = {0};
    size_t from = 0;
    jx_charge(x, s->n / 32);
    for (size_t i = 0, w; i < s->n; i += w) {
        uint32_t c = u_get(s->p + i, s->n - i, &w);
        if (!line_end(c)) continue;
        size_t end = i + w + (c == '\r' && i + 1 < s->n && s->p[i + 1] == '\n');
        vec_add(x, &v, v_str(str_sub(x, s, from, (keep ? end : i) - from)));
        from = end;
        w = end - i;
    }
    if (from < s->n) vec_add(x, &v, v_str(str_sub(x, s, from, s->n - from)));
    return v;
}

static void reverse(struct vec *v) {
    for (size_t i = 0, j = v->n; i + 1 < j; i++) {
        struct val t = v->v[i];
        v->v[i] = v->v[--j];
        v->v[j] = t;
    }
}

static struct vec split_sep(struct jx *x, struct str *s, struct str *sep, int64_t max, bool right) {
    struct vec v = {0};
    size_t from = 0, to = s->n;
    for (ptrdiff_t hit; max != 0 && (hit = str_find(s, sep, from, to, right)) >= 0; max--) {
        jx_charge(x, 1);
        size_t h = (size_t)hit;
        if (right)
            vec_add(x, &v, v_str(str_sub(x, s, h + sep->n, to - h - sep->n))), to = h;
        else
            vec_add(x, &v, v_str(str_sub(x, s, from, h - from))), from = h + sep->n;
    }
    vec_add(x, &v, v_str(str_sub(x, s, from, to - from)));
    if (right) reverse(&v);
    return v;
}

static struct vec split_space(struct jx *x, struct str *s, int64_t max) {
    struct vec v = {0};
    struct str *rest = str_strip(x, s, NULL, true, false);
    while (rest->n > 0) {
        size_t i = max == 0 ? rest->n : 0, w; /* the rest keeps its space at the end */
        while (i < rest->n && !u_space(u_get(rest->p + i, rest->n - i, &w))) i += w;
        jx_charge(x, 1);
        vec_add(x, &v, v_str(str_sub(x, rest, 0, i)));
        rest = str_strip(x, str_sub(x, rest, i, rest->n - i), NULL, true, false);
        max--;
    }
    return v;
}

static struct vec rsplit_space(struct jx *x, struct str *s, int64_t max) {
    struct vec v = {0};
    struct str *rest = str_strip(x, s, NULL, false, true);
    while (rest->n > 0) {
        size_t i = rest->n, w;
        while (max != 0 && i > 0) {
            size_t k = char_before(rest, i);
            if (u_space(u_get(rest->p + k, rest->n - k, &w))) break;
            i = k;
        }
        if (max == 0) i = 0;
        jx_charge(x, 1);
        vec_add(x, &v, v_str(str_sub(x, rest, i, rest->n - i)));
        rest = str_strip(x, str_sub(x, rest, 0, i), NULL, false, true);
        max--;
    }
    reverse(&v);
    return v;
}

struct vec str_split(struct jx *x, struct str *s, struct str *sep, int64_t max, bool right) {
    jx_charge(x, s->n / 64);
    if (sep) return split_sep(x, s, sep, max, right);
    return right ? rsplit_space(x, s, max) : split_space(x, s, max);
}

struct str *str_justify(struct jx *x, struct str *s, int64_t width, struct str *fill, int side) {
    int64_t n = (int64_t)str_chars(s);
    if (width <= n) return s;
    int64_t pad = width - n, left = side < 0 ? 0 : side > 0 ? pad : pad / 2 + (pad & width & 1);
    struct sb b;
    sb_init(&b, x);
    b.markup = s->markup;
    sb_pad(&b, fill, (size_t)left);
    sb_str(&b, s);
    sb_pad(&b, fill, (size_t)(pad - left));
    return sb_take(&b);
}

struct str *str_join(struct jx *x, struct str *sep, struct vec parts) {
    struct sb b;
    sb_init(&b, x);
    for (size_t i = 0; i < parts.n; i++) {
        if (i) sb_str(&b, sep);
        sb_str(&b, parts.v[i].s);
    }
    return sb_take(&b);
}

/* ---- wrapping, after Python's textwrap: chunks (words, spaces, dashes), then lines filled with chunks ---- */

struct chars { /* a line as code points */
    uint32_t *c;
    size_t *off; /* byte offsets, n + 1 of them */
    size_t n;
};

static bool wrap_space(uint32_t c) { return c == ' ' || (c >= 9 && c <= 13); }
static bool letter(const struct chars *t, size_t i) { return i < t->n && u_word(t->c[i]) && !u_decimal(t->c[i]); }
static bool word_punct(uint32_t c) { return u_word(c) || (c < 0x80 && c && strchr("!\"'&.,?", (int)c)); }

static size_t dashes(const struct chars *t, size_t at) { /* the end of two or more dashes before a word, else 0 */
    size_t e = at;
    while (e < t->n && t->c[e] == '-') e++;
    return e - at >= 2 && e < t->n && u_word(t->c[e]) ? e : 0;
}

static bool hyphen(const struct chars *t, size_t e) { /* a hyphen at e between letters, where a word may be cut */
    if (e >= t->n || t->c[e] != '-') return false;
    bool before =
        e >= 2 && letter(t, e - 1) && (letter(t, e - 2) || (e >= 3 && t->c[e - 2] == '-' && letter(t, e - 3)));
    return before && letter(t, e + 1) && (letter(t, e + 2) || (e + 2 < t->n && t->c[e + 2] == '-' && letter(t, e + 3)));
}

static size_t chunk_end(const struct chars *t, size_t at, bool hyphens) {
    size_t e = at;
    if (wrap_space(t->c[at])) {
        while (e < t->n && wrap_space(t->c[e])) e++;
        return e;
    }
    if (hyphens && at > 0 && word_punct(t->c[at - 1]) && (e = dashes(t, at))) return e;
    for (e = at + 1; e < t->n && !wrap_space(t->c[e]); e++) {
        if (!hyphens) continue;
        if (hyphen(t, e)) return e + 1;
        if (word_punct(t->c[e - 1]) && dashes(t, e)) return e;
    }
    return e;
}

static struct chars chars_of(struct jx *x, const struct str *s) {
    struct chars t = {.n = str_chars(s)};
    t.c = jx_array(x, t.n + 1, sizeof *t.c);
    t.off = jx_array(x, t.n + 1, sizeof *t.off);
    size_t k = 0, w;
    for (size_t i = 0; i < s->n; i += w, k++) {
        t.c[k] = u_get(s->p + i, s->n - i, &w);
        t.off[k] = i;
    }
    t.off[k] = s->n;
    return t;
}

struct span { /* code points */
    size_t from, to;
};

static size_t span_len(struct span s) { return s.to - s.from; }
static bool blank(const struct chars *t, struct span s) {
    while (s.from < s.to && u_space(t->c[s.from])) s.from++;
    return s.from == s.to;
}

/* Where a chunk longer than a line is cut: `room` code points are left on the line. */
static size_t cut_long(const struct chars *t, struct span k, size_t room, bool hyphens) {
    bool other = false;
    if (!hyphens || span_len(k) <= room) return k.from + room < k.to ? k.from + room : k.to;
    for (size_t i = k.from + room; i > k.from + 1; i--) { /* the last hyphen that has something else before it */
        if (t->c[i - 1] != '-') continue;
        for (size_t j = k.from; j < i - 1; j++) other = other || t->c[j] != '-';
        return other ? i : k.from + room;
    }
    return k.from + room;
}

struct str *str_wrap(struct rt *rt, struct str *s, int64_t width, bool break_long, struct str *sep, bool hyphens) {
    struct chars t = chars_of(&rt->x, s);
    struct span *k = jx_array(&rt->x, t.n + 1, sizeof *k);
    struct vec lines = {0};
    size_t n = 0, at = 0;
    if (width <= 0) jx_fail(&rt->x, JINJA_RUNTIME, "invalid width %lld (must be > 0)", (long long)width);
    jx_charge(&rt->x, t.n / 4);
    for (size_t i = 0; i < t.n; i = k[n++].to) k[n] = (struct span){i, chunk_end(&t, i, hyphens)};
    while (at < n) {
        if (lines.n && blank(&t, k[at]) && ++at == n) break;
        struct span line = {k[at].from, k[at].from};
        struct span last = line; /* the line's last chunk, which is dropped when it is blank */
        while (at < n && k[at].to - line.from <= (size_t)width) last = k[at], line.to = k[at++].to;
        if (at < n && span_len(k[at]) > (size_t)width) {
            if (break_long) {
                size_t cut = cut_long(&t, k[at], (size_t)width - span_len(line), hyphens);
                last = (struct span){k[at].from, cut};
                line.to = k[at].from = cut;
            } else if (line.to == line.from) {
                last = k[at];
                line.to = k[at++].to;
            }
        }
        if (blank(&t, last)) line.to = last.from;
        if (line.to > line.from)
            vec_add(&rt->x, &lines, v_str(str_sub(&rt->x, s, t.off[line.from], t.off[line.to] - t.off[line.from])));
    }
    return str_join(&rt->x, sep, lines);
}
