/* jinja_format.c: "%s" % value and "{}".format(value), after Python's rules. State belongs to the rendering thread. */
#include "text/jinja_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)

struct spec {         /* of one field, both styles */
    struct str *fill; /* NULL: a space */
    char align;       /* < > ^ = or 0 */
    char sign;        /* + - space or 0 */
    bool alt, zero;
    char group;               /* , _ or 0 */
    int64_t width, precision; /* precision -1: none */
    char type;
};

/* ---- numbers ---- */

static void group_digits(struct sb *b, const char *digits, size_t n, char sep, size_t every) {
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % every == 0) sb_raw(b, &sep, 1, true);
        sb_raw(b, digits + i, 1, true);
    }
}

/* Put sign, prefix and digits together with padding. text has no sign; `whole` leading digits can be grouped. */
static void put_number(struct rt *rt, struct sb *b, const struct spec *f, bool minus, const char *prefix,
                       const char *text, size_t whole, size_t every) {
    char sign[2] = {minus ? '-' : f->sign == '+' || f->sign == ' ' ? f->sign : 0, 0};
    size_t n = strlen(text), fixed = strlen(sign) + strlen(prefix) + (n - whole);
    size_t width = f->width > 0 ? (size_t)f->width : 0, digits = whole;
    bool zero_pad = f->align == '=' || (f->align == 0 && f->zero);
    bool fill_zero = zero_pad && f->zero && (!f->fill || str_is(f->fill, "0"));
    if (width > JINJA_MAX_OUTPUT / 4) jx_fail(&rt->x, JINJA_LIMIT, "a field of %zu characters is refused", width);
    if (f->group && fill_zero) /* zeros are grouped too: as many as the width asks for */
        while (fixed + digits + (digits - 1) / every < width) digits++;
    size_t grouped = digits + (f->group && digits ? (digits - 1) / every : 0);
    struct sb body;
    sb_init(&body, &rt->x);
    char *all = jx_alloc(&rt->x, digits + 1);
    memset(all, '0', digits - whole);
    memcpy(all + digits - whole, text, whole);
    if (f->group)
        group_digits(&body, all, digits, f->group, every);
    else
        sb_raw(&body, all, digits, true);
    sb_raw(&body, text + whole, n - whole, true);
    size_t total = strlen(sign) + strlen(prefix) + grouped + (n - whole), pad = width > total ? width - total : 0;
    struct str *fill = f->fill ? f->fill : str_z(&rt->x, zero_pad && f->zero ? "0" : " ");
    char align = f->align ? f->align : f->zero ? '=' : '>';
    size_t left = align == '<' ? 0 : align == '^' ? pad / 2 : align == '=' ? 0 : pad;
    sb_pad(b, fill, left);
    sb_z(b, sign, true);
    sb_z(b, prefix, true);
    if (align == '=') sb_pad(b, fill, pad);
    sb_str(b, sb_take(&body));
    if (align == '<' || align == '^') sb_pad(b, fill, pad - left);
}

static void int_text(uint64_t u, int base, bool upper, char out[72]) {
    char tmp[72];
    int n = 0;
    do tmp[n++] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[u % (unsigned)base];
    while (u /= (unsigned)base);
    for (int i = 0; i < n; i++) out[i] = tmp[n - 1 - i];
    out[n] = 0;
}

static void put_int(struct rt *rt, struct sb *b, struct spec *f, int64_t i) {
    char text[72];
    int base = f->type == 'x' || f->type == 'X' ? 16 : f->type == 'o' ? 8 : f->type == 'b' ? 2 : 10;
    const char *prefix = !f->alt || base == 10 ? ""
                         : base == 16          ? (f->type == 'X' ? "0X" : "0x")
                         : base == 8           ? "0o"
                                               : "0b";
    int_text(i < 0 ? 0 - (uint64_t)i : (uint64_t)i, base, f->type == 'X', text);
    put_number(rt, b, f, i < 0, prefix, text, strlen(text), base == 10 ? 3 : 4);
}

/* Without a type Python formats as with g, but a number keeps looking like a float: "3.0", and the exponent comes one
 * digit earlier. */
static struct str *general(struct rt *rt, struct str *s, double d, int precision) {
    char text[220], *mark;
    struct sb b;
    if (memchr(s->p, 'e', s->n) || memchr(s->p, '.', s->n)) return s;
    int e = (int)s->n - 1; /* only digits: their number tells the exponent */
    sb_init(&b, &rt->x);
    if (e < precision - 1) {
        sb_str(&b, s);
        sb_z(&b, ".0", true);
        return sb_take(&b);
    }
    snprintf(text, sizeof text, "%.*e", precision - 1, d);
    mark = strchr(text, 'e');
    size_t n = (size_t)(mark - text);
    while (memchr(text, '.', n) && (text[n - 1] == '0' || text[n - 1] == '.')) n--;
    sb_raw(&b, text, n, true);
    sb_z(&b, mark, true);
    return sb_take(&b);
}

static void put_float(struct rt *rt, struct sb *b, struct spec *f, double d) {
    char kind = f->type, r[40];
    struct sb t;
    sb_init(&t, &rt->x);
    if (kind == '%') d *= 100, kind = 'f';
    if (kind == 0 || kind == 'n') kind = 'g';
    int precision = f->precision < 0 ? 6 : f->precision > 1000 ? 1000 : (int)f->precision;
    if (f->type == 0 && f->precision < 0) {
        float_repr(fabs(d), r);
        sb_z(&t, r, true);
    } else {
        if ((kind | 0x20) == 'g' && precision == 0) precision = 1;
        float_fixed(&t, fabs(d), kind, precision, f->alt); /* refuses a precision above 150 */
    }
    if (f->type == 0 && f->precision >= 0 && isfinite(d)) {
        struct str *g = general(rt, sb_take(&t), fabs(d), precision);
        sb_init(&t, &rt->x);
        sb_str(&t, g);
    }
    if (f->type == '%') sb_z(&t, "%", true);
    char *text = jx_alloc(&rt->x, t.n + 1);
    memcpy(text, t.p, t.n);
    text[t.n] = 0;
    put_number(rt, b, f, signbit(d) && !isnan(d), "", text, strspn(text, "0123456789"), 3);
}

static void put_text(struct rt *rt, struct sb *b, const struct spec *f, struct str *s, char dflt) {
    if (f->precision >= 0 && (size_t)f->precision < str_chars(s))
        s = str_sub(&rt->x, s, 0, str_offset(s, (size_t)f->precision));
    char align = f->align ? f->align : dflt;
    struct str *fill = f->fill ? f->fill : str_z(&rt->x, f->zero ? "0" : " ");
    int64_t n = (int64_t)str_chars(s), pad = f->width > n ? f->width - n : 0;
    int64_t left = align == '<' ? 0 : align == '^' ? pad / 2 : pad;
    sb_pad(b, fill, (size_t)left);
    sb_str(b, s);
    sb_pad(b, fill, (size_t)(pad - left));
}

/* Into escaped text goes escaped text. */
static struct str *escaped(struct rt *rt, const struct str *into, struct str *s) {
    if (!into->markup || s->markup) return s;
    struct sb b;
    sb_init(&b, &rt->x);
    escape_into(&b, s);
    return sb_take(&b);
}

/* ---- "%" ---- */

struct percent {
    struct rt *rt;
    struct str *fmt;
    size_t at;
    struct val args;
    bool single, mapping; /* one value, not a tuple; it can be subscripted */
    size_t used;
};

static struct val next_arg(struct percent *p) {
    struct rt *rt = p->rt;
    if (p->single) {
        if (p->used++) FAIL("not enough arguments for format string");
        return p->args;
    }
    if (p->used >= p->args.l->n) FAIL("not enough arguments for format string");
    return p->args.l->v[p->used++];
}

static char peek(struct percent *p) {
    struct rt *rt = p->rt;
    if (p->at >= p->fmt->n) FAIL("incomplete format");
    return p->fmt->p[p->at];
}

static struct val named_arg(struct percent *p) { /* %(name)s, brackets nest */
    struct rt *rt = p->rt;
    size_t from = ++p->at;
    int depth = 1;
    if (!p->mapping) FAIL("format requires a mapping");
    for (; p->at < p->fmt->n && depth > 0; p->at++) depth += (p->fmt->p[p->at] == '(') - (p->fmt->p[p->at] == ')');
    if (depth > 0) FAIL("incomplete format key");
    struct val key = v_str(str_sub(&rt->x, p->fmt, from, p->at - 1 - from));
    if (p->args.t != V_DICT) FAIL("%s indices must be integers or slices, not str", type_name(p->args));
    struct val *v = dict_get(rt, p->args.d, key);
    if (!v) FAIL("key %s is not in the mapping", cstr_repr(rt, key));
    return *v;
}

static int64_t percent_number(struct percent *p) { /* digits or * */
    struct rt *rt = p->rt;
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        struct val v = next_arg(p);
        if (v.t != V_INT && v.t != V_BOOL) FAIL("* wants int");
        return need_int(rt, v);
    }
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        n = n * 10 + (peek(p) - '0');
        if (n > INT32_MAX) FAIL("width or precision too big");
    }
    return n;
}

static void percent_flags(struct percent *p, struct spec *f) {
    for (;; p->at++) {
        switch (peek(p)) {
        case '-': f->align = '<'; continue;
        case '+': f->sign = '+'; continue;
        case ' ': f->sign = f->sign == '+' ? '+' : ' '; continue;
        case '#': f->alt = true; continue;
        case '0': f->zero = true; continue;
        default: return;
        }
    }
}

static void percent_char(struct rt *rt, struct sb *b, struct spec *f, struct val v) {
    struct sb one;
    int64_t i;
    sb_init(&one, &rt->x);
    if (v.t == V_STR && str_chars(v.s) == 1) {
        sb_str(&one, v.s);
    } else if (as_int(v, &i)) {
        if (i < 0 || i > 0x10FFFF) FAIL("%%c arg not in range(0x110000)");
        sb_cp(&one, (uint32_t)i, false); /* the number may be anybody's */
    } else {
        FAIL("%%c requires int or char");
    }
    f->zero = false;
    f->precision = -1;
    put_text(rt, b, f, sb_take(&one), '>');
}

static void percent_int(struct rt *rt, struct sb *b, struct spec *f, struct val v) {
    int64_t i;
    bool decimal = f->type == 'd' || f->type == 'i' || f->type == 'u';
    if (v.t == V_FLOAT && decimal) {
        if (!isfinite(v.f) || fabs(v.f) >= 9.2e18)
            FAIL("a number without an integer of 64 bits: beyond 64 bits, infinite or NaN");
        i = (int64_t)v.f;
    } else if (v.t == V_UNDEF || !as_int(v, &i)) {
        FAIL("%%%c format: a real number is required, not %s", f->type, type_name(v));
    }
    char text[72], *digits;
    int base = decimal ? 10 : f->type == 'o' ? 8 : 16;
    int_text(i < 0 ? 0 - (uint64_t)i : (uint64_t)i, base, f->type == 'X', text);
    size_t n = strlen(text), want = f->precision > (int64_t)n ? (size_t)f->precision : n;
    if (want > 10000) jx_fail(&rt->x, JINJA_LIMIT, "a number of %zu digits is refused", want);
    digits = jx_alloc(&rt->x, want + 1);
    memset(digits, '0', want - n);
    memcpy(digits + want - n, text, n + 1);
    const char *prefix = !f->alt || base == 10 ? "" : base == 8 ? "0o" : f->type == 'X' ? "0X" : "0x";
    put_number(rt, b, f, i < 0, prefix, digits, want, 3);
}

static void percent_one(struct percent *p, struct sb *b, struct spec *f, struct val v) {
    struct rt *rt = p->rt;
    if (f->align == '<') f->zero = false;
    switch (f->type) {
    case 's':
    case 'r':
    case 'a':
        f->zero = false;
        put_text(rt, b, f, escaped(rt, p->fmt, f->type == 's' ? to_str(rt, v) : to_repr(rt, v)), '>');
        break;
    case 'c': percent_char(rt, b, f, v); break;
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X': percent_int(rt, b, f, v); break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
        if (!is_num(v)) FAIL("must be real number, not %s", type_name(v));
        if (f->precision < 0) f->precision = 6;
        put_float(rt, b, f, as_double(v));
        break;
    default: FAIL("unsupported format character '%c'", f->type >= ' ' && f->type < 127 ? f->type : '?');
    }
}

static void percent_field(struct percent *p, struct sb *b) {
    struct spec f = {.precision = -1};
    struct val v = v_missing();
    p->at++;
    if (peek(p) == '(') v = named_arg(p);
    percent_flags(p, &f);
    f.width = percent_number(p);
    if (f.width < 0) f.align = '<', f.width = f.width > -INT32_MAX ? -f.width : 0;
    if (peek(p) == '.') {
        p->at++;
        f.precision = percent_number(p);
        if (f.precision < 0) f.precision = 0;
    }
    if (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L') p->at++;
    f.type = peek(p);
    p->at++;
    if (f.type == '%') {
        sb_z(b, "%", true);
        return;
    }
    if (v.t == V_MISSING)
        v = next_arg(p);
    else
        p->used = SIZE_MAX / 2;
    percent_one(p, b, &f, v);
}

struct str *format_percent(struct rt *rt, struct str *fmt, struct val args) {
    struct percent p = {.rt = rt, .fmt = fmt, .args = args, .single = args.t != V_TUPLE};
    p.mapping = args.t == V_DICT || args.t == V_LIST || args.t == V_RANGE || args.t == V_UNDEF;
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = fmt->markup;
    while (p.at < fmt->n) {
        const char *next = memchr(fmt->p + p.at, '%', fmt->n - p.at);
        size_t end = next ? (size_t)(next - fmt->p) : fmt->n;
        sb_sub(&b, fmt, p.at, end - p.at);
        p.at = end;
        jx_charge(&rt->x, 1);
        if (next) percent_field(&p, &b);
    }
    bool left = p.single ? p.used == 0 && !p.mapping : p.used < args.l->n;
    if (left) FAIL("not all arguments converted during string formatting");
    return sb_take(&b);
}

/* ---- "{}" ---- */

struct braces {
    struct rt *rt;
    struct call *c;
    size_t automatic; /* the next number for {} */
    bool manual, markup;
};

static bool align_char(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

static int64_t spec_number(struct rt *rt, const struct str *s, size_t *at) {
    int64_t n = 0;
    for (; *at < s->n && s->p[*at] >= '0' && s->p[*at] <= '9'; ++*at) {
        n = n * 10 + (s->p[*at] - '0');
        if (n > INT32_MAX) FAIL("Too many decimal digits in format string");
    }
    return n;
}

static struct spec parse_spec(struct rt *rt, struct str *s) {
    struct spec f = {.precision = -1};
    size_t at = 0, w = 0;
    if (s->n) u_get(s->p, s->n, &w);
    if (s->n > w && w && align_char(s->p[w])) {
        f.fill = str_sub(&rt->x, s, 0, w);
        f.align = s->p[w];
        at = w + 1;
    } else if (s->n && align_char(s->p[0])) {
        f.align = s->p[at++];
    }
    if (at < s->n && (s->p[at] == '+' || s->p[at] == '-' || s->p[at] == ' ')) f.sign = s->p[at++];
    if (at < s->n && s->p[at] == '#') f.alt = true, at++;
    if (at < s->n && s->p[at] == '0') {
        at++;
        if (!f.fill) f.zero = true;
    }
    f.width = spec_number(rt, s, &at);
    if (at < s->n && (s->p[at] == ',' || s->p[at] == '_')) f.group = s->p[at++];
    if (at < s->n && s->p[at] == '.') {
        size_t from = ++at;
        f.precision = spec_number(rt, s, &at);
        if (at == from) FAIL("Format specifier missing precision");
    }
    if (at < s->n) f.type = s->p[at++];
    if (at < s->n) FAIL("Invalid format specifier");
    return f;
}

static void format_str(struct rt *rt, struct sb *b, struct spec *f, struct str *s) {
    if (f->type && f->type != 's') FAIL("Unknown format code '%c' for object of type 'str'", f->type);
    if (f->sign) FAIL("Sign not allowed in string format specifier");
    if (f->alt) FAIL("Alternate form (#) not allowed in string format specifier");
    if (f->align == '=') FAIL("'=' alignment not allowed in string format specifier");
    if (f->group) FAIL("Cannot specify '%c' with 's'.", f->group);
    put_text(rt, b, f, s, '<');
}

static void format_int(struct rt *rt, struct sb *b, struct spec *f, int64_t i) {
    if (f->type && strchr("eEfFgG%", f->type)) {
        if (f->precision < 0) f->precision = 6;
        put_float(rt, b, f, (double)i);
        return;
    }
    if (f->type && !strchr("bcdoxXn", f->type)) FAIL("Unknown format code '%c' for object of type 'int'", f->type);
    if (f->precision >= 0) FAIL("Precision not allowed in integer format specifier");
    if (f->group && (f->type == 'n' || f->type == 'c' || (f->group == ',' && f->type && f->type != 'd')))
        FAIL("Cannot specify '%c' with '%c'.", f->group, f->type);
    if (f->type != 'c') {
        put_int(rt, b, f, i);
        return;
    }
    if (f->sign) FAIL("Sign not allowed with integer format specifier 'c'");
    if (f->alt) FAIL("Alternate form (#) not allowed with integer format specifier 'c'");
    if (i < 0 || i > 0x10FFFF) FAIL("%%c arg not in range(0x110000)");
    struct sb one;
    sb_init(&one, &rt->x);
    sb_cp(&one, (uint32_t)i, false); /* the number may be anybody's */
    put_text(rt, b, f, sb_take(&one), '<');
}

static void format_value(struct rt *rt, struct sb *b, struct val v, struct str *spec) {
    int64_t i;
    if (spec->n == 0) {
        val_str(rt, b, v);
        return;
    }
    if (v.t != V_STR && !is_num(v)) FAIL("unsupported format string passed to %s.__format__", type_name(v));
    struct spec f = parse_spec(rt, spec);
    if (v.t == V_STR) {
        format_str(rt, b, &f, v.s);
    } else if (as_int(v, &i)) {
        format_int(rt, b, &f, i);
    } else {
        if (f.type && !strchr("eEfFgGn%", f.type)) FAIL("Unknown format code '%c' for object of type 'float'", f.type);
        if (f.type && f.precision < 0) f.precision = 6;
        put_float(rt, b, &f, v.f);
    }
}

/* The argument a field starts with. `whole`: the field is nothing else; only such a field counts for the numbering, and
 * "{.a}" has no argument (Python's string.Formatter, which the sandbox uses, differs from str.format in this). */
static struct val first_of_field(struct braces *p, struct str *name, bool whole) {
    struct rt *rt = p->rt;
    bool digits = name->n > 0;
    int64_t i = 0;
    for (size_t k = 0; k < name->n; k++) digits = digits && name->p[k] >= '0' && name->p[k] <= '9';
    if ((name->n == 0 && whole) || digits) {
        if (whole && (name->n == 0 ? p->manual : p->automatic > 0))
            FAIL("cannot switch between manual and automatic field numbering");
        if (name->n == 0)
            i = (int64_t)p->automatic++;
        else if (parse_int(rt, name, 10, &i) && whole)
            p->manual = true;
        if ((uint64_t)i >= p->c->n) FAIL("Replacement index %lld out of range for positional args tuple", (long long)i);
        return p->c->pos[i];
    }
    for (size_t k = 0; k < p->c->nkw; k++)
        if (str_eq(p->c->kw[k], name)) return p->c->kwv[k];
    FAIL("the format names %s, which was not given", cstr_repr(rt, v_str(name)));
}

static struct val field(struct braces *p, struct str *s) { /* name.attr[key]... */
    struct rt *rt = p->rt;
    size_t at = 0, end;
    while (at < s->n && s->p[at] != '.' && s->p[at] != '[') at++;
    struct val v = first_of_field(p, str_sub(&rt->x, s, 0, at), at == s->n);
    while (at < s->n) {
        bool attr = s->p[at] == '.';
        if (!attr && s->p[at] != '[') FAIL("Only '.' or '[' may follow ']' in format field specifier");
        end = ++at;
        while (end < s->n && (attr ? s->p[end] != '.' && s->p[end] != '[' : s->p[end] != ']')) end++;
        if (!attr && end == s->n) FAIL("Missing ']' in format string");
        if (end == at) FAIL("Empty attribute in format string");
        struct str *part = str_sub(&rt->x, s, at, end - at);
        int64_t i;
        bool digits = true;
        for (size_t k = 0; k < part->n; k++) digits = digits && part->p[k] >= '0' && part->p[k] <= '9';
        if (attr)
            v = get_attr(rt, v, part);
        else
            v = get_item(rt, v, digits && parse_int(rt, part, 10, &i) ? v_int(i) : v_str(part));
        at = end + !attr;
    }
    return v;
}

static void format_into(struct braces *p, struct sb *b, struct str *fmt, int depth);

static size_t field_end(struct rt *rt, const struct str *s, size_t at) { /* the closing brace of the field at `at` */
    int depth = 1;
    bool bracket = false;
    for (; at < s->n; at++) {
        if (s->p[at] == '[' && depth == 1)
            bracket = true;
        else if (s->p[at] == ']')
            bracket = false;
        else if (bracket)
            continue;
        else if (s->p[at] == '{')
            depth++;
        else if (s->p[at] == '}' && --depth == 0)
            return at;
    }
    FAIL("expected '}' before end of string");
}

static void replacement(struct braces *p, struct sb *b, struct str *s, int depth) { /* name!conversion:spec */
    struct rt *rt = p->rt;
    size_t at = 0;
    bool bracket = false;
    for (; at < s->n && (bracket || (s->p[at] != '!' && s->p[at] != ':')); at++) {
        if (s->p[at] == '[')
            bracket = true;
        else if (s->p[at] == ']')
            bracket = false;
        else if (s->p[at] == '{' && !bracket)
            FAIL("unexpected '{' in field name");
    }
    struct val v = field(p, str_sub(&rt->x, s, 0, at));
    if (at < s->n && s->p[at] == '!') {
        char how = at + 1 < s->n ? s->p[at + 1] : 0;
        if (how != 's' && how != 'r' && how != 'a') FAIL("Unknown conversion specifier");
        v = v_str(how == 's' ? to_str(rt, v) : to_repr(rt, v));
        at += 2;
        if (at < s->n && s->p[at] != ':') FAIL("expected ':' after conversion specifier");
    }
    struct sb spec;
    sb_init(&spec, &rt->x);
    if (at < s->n) format_into(p, &spec, str_sub(&rt->x, s, at + 1, s->n - at - 1), depth + 1);
    struct str *how = sb_take(&spec);
    if (!p->markup) {
        format_value(rt, b, v, how);
        return;
    }
    struct sb one;
    sb_init(&one, &rt->x);
    if (v.t == V_STR && v.s->markup && how->n) FAIL("Unsupported format specification for Markup.");
    format_value(rt, &one, v, how);
    one.markup = v.t == V_STR && v.s->markup;
    sb_str(b, escaped(rt, &(struct str){.markup = true}, sb_take(&one)));
}

static void format_into(struct braces *p, struct sb *b, struct str *fmt, int depth) {
    struct rt *rt = p->rt;
    if (depth > 2) FAIL("Max string recursion exceeded");
    for (size_t at = 0; at < fmt->n;) {
        size_t end = at;
        while (end < fmt->n && fmt->p[end] != '{' && fmt->p[end] != '}') end++;
        sb_sub(b, fmt, at, end - at);
        at = end;
        if (at == fmt->n) return;
        jx_charge(&rt->x, 1);
        if (at + 1 < fmt->n && fmt->p[at + 1] == fmt->p[at]) {
            sb_sub(b, fmt, at, 1);
            at += 2;
            continue;
        }
        if (fmt->p[at] == '}') FAIL("Single '}' encountered in format string");
        if (at + 1 == fmt->n) FAIL("Single '{' encountered in format string");
        end = field_end(rt, fmt, at + 1);
        replacement(p, b, str_sub(&rt->x, fmt, at + 1, end - at - 1), depth);
        at = end + 1;
    }
}

struct str *format_braces(struct rt *rt, struct str *fmt, struct call *c) {
    struct braces p = {.rt = rt, .c = c, .markup = fmt->markup};
    struct sb b;
    sb_init(&b, &rt->x);
    b.markup = fmt->markup;
    format_into(&p, &b, fmt, 1);
    return sb_take(&b);
}
