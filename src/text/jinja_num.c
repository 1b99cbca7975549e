/* jinja_num.c: numbers and operators as Python has them, on 64-bit integers and doubles.
 *
 * No state. Overflow, division by zero and results that Python would make complex are errors. */
#include "text/jinja_int.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FAIL(...) jx_fail(&rt->x, JINJA_RUNTIME, __VA_ARGS__)

/* ---- text ---- */

static int shortest(double f, char out[40]) { /* the fewest digits that read back as f, as d.ddde+xx; the exponent */
    int p = fabs(f) < DBL_MIN ? 1 : 15; /* with 15 digits a shorter form shows as trailing zeros, normal numbers only */
    for (; p <= 17; p++) {
        snprintf(out, 40, "%.*e", p - 1, f);
        if (p == 17 || strtod(out, NULL) == f) break;
    }
    char *e = strchr(out, 'e');
    int exponent = (int)strtol(e + 1, NULL, 10);
    while (e[-1] == '0' && strchr(out, '.') && e - 1 > strchr(out, '.')) e--;
    if (e[-1] == '.') e--;
    *e = 0;
    return exponent;
}

void float_repr(double f, char out[40]) {
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    char mant[40], digits[24];
    int e = shortest(f, mant), n = 0;
    if (e < -4 || e >= 16) {
        n = (int)strlen(mant);
        memcpy(out, mant, (size_t)n);
        snprintf(out + n, (size_t)(40 - n), "e%c%02d", e < 0 ? '-' : '+', abs(e));
        return;
    }
    for (char *p = mant; *p; p++)
        if (*p >= '0' && *p <= '9') digits[n++] = *p;
    char *o = out;
    if (mant[0] == '-') *o++ = '-';
    int point = e + 1; /* digits before the point */
    if (point <= 0) {
        *o++ = '0', *o++ = '.';
        for (int i = point; i < 0; i++) *o++ = '0';
        for (int i = 0; i < n; i++) *o++ = digits[i];
    } else {
        for (int i = 0; i < point; i++) *o++ = i < n ? digits[i] : '0';
        *o++ = '.';
        for (int i = point; i < n; i++) *o++ = digits[i];
        if (point >= n) *o++ = '0';
    }
    *o = 0;
}

void float_fixed(struct sb *b, double f, char kind, int precision, bool alt) {
    char text[512], fmt[8] = {'%', alt ? '#' : '.', alt ? '.' : '*', alt ? '*' : kind, alt ? kind : 0, 0};
    if (isnan(f) || isinf(f)) {
        bool up = kind < 'a';
        sb_z(b, isnan(f) ? (up ? "NAN" : "nan") : f > 0 ? (up ? "INF" : "inf") : (up ? "-INF" : "-inf"), true);
        return;
    }
    if (precision > 150) jx_fail(b->x, JINJA_LIMIT, "a number with %d decimals is refused (at most 150)", precision);
    snprintf(text, sizeof text, fmt, precision, f);
    sb_z(b, text, true);
}

static size_t strip_space(const struct str *s, size_t *n) {
    size_t i = 0, end = s->n, w;
    while (i < end && u_space(u_get(s->p + i, end - i, &w))) i += w;
    while (end > i) {
        size_t j = end - 1;
        while (j > i && ((unsigned char)s->p[j] & 0xC0) == 0x80) j--;
        if (!u_space(u_get(s->p + j, end - j, &w))) break;
        end = j;
    }
    *n = end - i;
    return i;
}

/* Copy the number's characters without "_", which may only stand between digits. False: not so. */
static bool plain_digits(const char *p, size_t n, char *out, size_t room) {
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '_') {
            if (i == 0 || i + 1 == n || p[i - 1] < '0' || p[i + 1] < '0' || p[i - 1] == '_' || p[i + 1] == '_')
                return false;
            continue;
        }
        if (o + 1 >= room || (unsigned char)p[i] >= 0x80 || p[i] == 0) return false;
        out[o++] = p[i];
    }
    out[o] = 0;
    return o > 0;
}

bool parse_float(struct jx *x, const struct str *s, double *f) {
    size_t n, at = strip_space(s, &n);
    char *z = jx_alloc(x, n + 1), *end;
    if (!plain_digits(s->p + at, n, z, n + 1)) return false;
    const char *p = z + (*z == '+' || *z == '-');
    if (strcasecmp(p, "inf") == 0 || strcasecmp(p, "infinity") == 0 || strcasecmp(p, "nan") == 0) {
        *f = strtod(z, NULL);
        return true;
    }
    for (const char *q = p; *q; q++)
        if (!strchr("0123456789.eE+-", *q)) return false;
    if (*p == '+' || *p == '-') return false;
    *f = strtod(z, &end);
    return *end == 0 && end != z;
}

bool parse_int(struct rt *rt, const struct str *s, int base, int64_t *out) {
    size_t n, at = strip_space(s, &n);
    if (base != 0 && (base < 2 || base > 36)) return false;
    const char *p = s->p + at, *end = p + n;
    bool minus = p < end && *p == '-', digit = false, under = false;
    if (p < end && (*p == '-' || *p == '+')) p++;
    int prefix = end - p >= 2 && *p == '0' ? p[1] | 0x20 : 0;
    int pbase = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 0;
    if (pbase && (base == 0 || base == pbase)) {
        base = pbase;
        p += 2;
        if (p < end && *p == '_') p++;
    } else if (base == 0) {
        base = 10;
        for (const char *q = p; p < end && *p == '0' && q < end; q++) /* "007" has no meaning, "000" has */
            if (*q != '0' && *q != '_') return false;
    }
    uint64_t v = 0;
    bool over = false;
    for (; p < end; p++) {
        int c = *p, d = c >= '0' && c <= '9'                     ? c - '0'
                        : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                                 : 99;
        if (c == '_' && digit && !under) {
            under = true;
            continue;
        }
        if (d >= base) return false;
        digit = true;
        under = false;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)d, &v)) over = true;
    }
    if (!digit || under) return false;
    if (over || v > (uint64_t)INT64_MAX + minus) FAIL("an integer beyond 64 bits");
    *out = minus ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

double round_half_even(double f, int64_t digits) { /* Python's round(f, digits): correct on the decimal digits */
    char text[400];
    if (!isfinite(f) || digits > 323 || f == 0) return f;
    if (digits < -308) return copysign(0.0, f);
    if (digits >= 0) {
        if (digits > 20 && fabs(f) > 1e10) return f;
        char big[700];
        snprintf(big, sizeof big, "%.*f", (int)digits, f); /* the C library rounds the exact value half to even */
        return strtod(big, NULL);
    }
    snprintf(text, sizeof text, "%.0f", f); /* exact: what follows rounds an integer to 10^-digits */
    long double p = powl(10.0L, (long double)-digits), q = (long double)f / p, r = rintl(q);
    snprintf(text, sizeof text, "%.0Lfe%lld", r, (long long)-digits);
    return strtod(text, NULL);
}

/* ---- operators ---- */

static _Noreturn void unsupported(struct rt *rt, const char *op, struct val a, struct val b) {
    if (a.t == V_UNDEF) fail_undef(&rt->x, a.u);
    if (b.t == V_UNDEF) fail_undef(&rt->x, b.u);
    FAIL("unsupported operand type(s) for %s: '%s' and '%s'", op, type_name(a), type_name(b));
}

static const char *op_text(enum op op) {
    static const char *const text[] = {
        "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in"};
    return text[op];
}

static int64_t floor_div(struct rt *rt, int64_t a, int64_t b, int64_t *mod) {
    if (b == 0) FAIL("integer division or modulo by zero");
    if (b == -1) {
        if (a == INT64_MIN) FAIL("an integer beyond 64 bits");
        *mod = 0;
        return -a;
    }
    int64_t q = a / b, r = a % b;
    if (r && (r < 0) != (b < 0)) q--, r += b;
    *mod = r;
    return q;
}

static struct val int_pow(struct rt *rt, int64_t a, int64_t e) {
    if (e < 0) {
        if (a == 0) FAIL("0.0 cannot be raised to a negative power");
        return v_float(pow((double)a, (double)e));
    }
    int64_t r = 1;
    bool over = false;
    if (a == 0 || a == 1) return v_int(e ? a : 1);
    if (a == -1) return v_int(e & 1 ? -1 : 1);
    if (e > 63) FAIL("an integer beyond 64 bits");
    while (e--) over |= __builtin_mul_overflow(r, a, &r);
    if (over) FAIL("an integer beyond 64 bits");
    return v_int(r);
}

static struct val int_op(struct rt *rt, enum op op, int64_t a, int64_t b) {
    int64_t r = 0, m;
    bool over = false;
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV:
        if (b == 0) FAIL("division by zero");
        return v_float((double)((long double)a / (long double)b));
    case OP_FLOORDIV: return v_int(floor_div(rt, a, b, &m));
    case OP_MOD: floor_div(rt, a, b, &m); return v_int(m);
    default: return int_pow(rt, a, b);
    }
    if (over) FAIL("an integer beyond 64 bits");
    return v_int(r);
}

static double float_mod(double a, double b, double *div) {
    double m = fmod(a, b), d = (a - m) / b;
    if (m != 0) {
        if ((b < 0) != (m < 0)) m += b, d -= 1;
    } else {
        m = copysign(0.0, b);
    }
    if (d != 0) {
        double fl = floor(d);
        if (d - fl > 0.5) fl += 1;
        *div = fl;
    } else {
        *div = copysign(0.0, a / b);
    }
    return m;
}

static struct val float_op(struct rt *rt, enum op op, double a, double b) {
    double d, m;
    switch (op) {
    case OP_ADD: return v_float(a + b);
    case OP_SUB: return v_float(a - b);
    case OP_MUL: return v_float(a * b);
    case OP_DIV:
        if (b == 0) FAIL("float division by zero");
        return v_float(a / b);
    case OP_FLOORDIV:
    case OP_MOD:
        if (b == 0) FAIL("float floor division or modulo by zero");
        m = float_mod(a, b, &d);
        return v_float(op == OP_MOD ? m : d);
    default:
        if (a == 0 && b < 0) FAIL("0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(b) && b != floor(b)) FAIL("a negative number to a fractional power");
        d = pow(a, b);
        if (isinf(d) && isfinite(a) && isfinite(b)) FAIL("Numerical result out of range");
        return v_float(d);
    }
}

static struct val repeat(struct rt *rt, struct val seq, int64_t times) {
    if (times < 0) times = 0;
    if (seq.t == V_STR) {
        struct sb b;
        sb_init(&b, &rt->x);
        b.markup = seq.s->markup;
        sb_pad(&b, seq.s, (size_t)times);
        return v_str(sb_take(&b));
    }
    size_t n = seq.l->n;
    if (n && (uint64_t)times > JINJA_MAX_OUTPUT / sizeof(struct val) / n)
        jx_fail(&rt->x, JINJA_LIMIT, "a list of %zu elements times %lld is refused", n, (long long)times);
    jx_charge(&rt->x, n * (size_t)times / 8);
    struct val *v = jx_array(&rt->x, n * (size_t)times, sizeof *v);
    for (size_t i = 0; i < n * (size_t)times; i++) v[i] = seq.l->v[i % n];
    return v_list(&rt->x, v, n * (size_t)times, seq.t == V_TUPLE);
}

static struct val str_add(struct rt *rt, struct str *a, struct str *b) {
    struct sb sb;
    sb_init(&sb, &rt->x);
    sb.markup = a->markup || b->markup;
    if (sb.markup && !a->markup)
        escape_into(&sb, a);
    else
        sb_str(&sb, a);
    if (sb.markup && !b->markup)
        escape_into(&sb, b);
    else
        sb_str(&sb, b);
    return v_str(sb_take(&sb));
}

static bool repeatable(struct val v) { return v.t == V_STR || v.t == V_LIST || v.t == V_TUPLE; }

struct val binary(struct rt *rt, enum op op, struct val a, struct val b) {
    int64_t i, j;
    if (is_num(a) && is_num(b)) {
        if (as_int(a, &i) && as_int(b, &j)) return int_op(rt, op, i, j);
        return float_op(rt, op, as_double(a), as_double(b));
    }
    if (op == OP_ADD && a.t == V_STR && b.t == V_STR) return str_add(rt, a.s, b.s);
    if (op == OP_ADD && a.t == b.t && (a.t == V_LIST || a.t == V_TUPLE)) return list_concat(&rt->x, a, b);
    if (op == OP_MUL && repeatable(a) && as_int(b, &i)) return repeat(rt, a, i);
    if (op == OP_MUL && repeatable(b) && as_int(a, &i)) return repeat(rt, b, i);
    if (op == OP_MOD && a.t == V_STR) return v_str(format_percent(rt, a.s, b));
    if (op == OP_SUB && a.t == V_VIEW && b.t == V_VIEW) FAIL("set operations on dict views are not supported");
    unsupported(rt, op_text(op), a, b);
}

struct val negate(struct rt *rt, struct val v, bool minus) {
    int64_t i;
    if (v.t == V_UNDEF) fail_undef(&rt->x, v.u);
    if (v.t == V_FLOAT) return v_float(minus ? -v.f : v.f);
    if (!as_int(v, &i)) FAIL("bad operand type for unary %s: '%s'", minus ? "-" : "+", type_name(v));
    if (minus && i == INT64_MIN) FAIL("an integer beyond 64 bits");
    return v_int(minus ? -i : i);
}

bool compare(struct rt *rt, enum op op, struct val a, struct val b) {
    if (op == OP_EQ) return val_eq(rt, a, b);
    if (op == OP_NE) return !val_eq(rt, a, b);
    if (op == OP_IN) return contains(rt, b, a);
    if (op == OP_NOTIN) return !contains(rt, b, a);
    int c = val_order(rt, a, b, op_text(op));
    if (c == 2) return false;
    return op == OP_LT ? c < 0 : op == OP_LE ? c <= 0 : op == OP_GT ? c > 0 : c >= 0;
}

static bool in_view(struct rt *rt, struct view *w, struct val item) {
    if (w->kind == 'k') return dict_get(rt, w->d, item) != NULL;
    if (w->kind == 'i') {
        if (item.t != V_TUPLE || item.l->n != 2) return false;
        struct val *v = dict_get(rt, w->d, item.l->v[0]);
        return v && val_eq(rt, *v, item.l->v[1]);
    }
    for (size_t i = 0; i < w->d->n; i++)
        if (val_same(w->d->e[i].v, item) || val_eq(rt, w->d->e[i].v, item)) return true;
    return false;
}

static bool in_range(struct rt *rt, const struct range *r, struct val item) {
    for (size_t i = 0; i < r->n; i++)
        if (val_eq(rt, v_int(r->start + (int64_t)i * r->step), item)) return true;
    return false;
}

bool contains(struct rt *rt, struct val seq, struct val item) {
    struct val v;
    switch (seq.t) {
    case V_STR:
        if (item.t == V_UNDEF) FAIL("'in <string>' requires string as left operand, not Undefined");
        if (item.t != V_STR) FAIL("'in <string>' requires string as left operand, not %s", type_name(item));
        jx_charge(&rt->x, seq.s->n / 64);
        return item.s->n == 0 || memmem(seq.s->p, seq.s->n, item.s->p, item.s->n) != NULL;
    case V_DICT: return dict_get(rt, seq.d, item) != NULL;
    case V_VIEW: return in_view(rt, seq.view, item);
    case V_RANGE: return in_range(rt, seq.r, item);
    default: break;
    }
    if (!iterable(seq)) FAIL("argument of type '%s' is not iterable", type_name(seq));
    struct iter *it = val_iter(rt, seq);
    while (iter_next(rt, it, &v))
        if (val_same(v, item) || val_eq(rt, v, item)) return true;
    return false;
}
