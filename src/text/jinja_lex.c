/* jinja_lex.c: a template's text to tokens, whitespace control included.
 *
 * The delimiters are fixed ({{ }}, {% %}, {# #}); trim_blocks and lstrip_blocks are on; line statements are off.
 * State: the arena of the compilation. One pass, linear time. */
#include "base/utf8.h"
#include "text/jinja_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct lexer {
    struct jx *x;
    const char *p; /* source, newlines normalised */
    size_t n, at;
    int line;
    bool line_start; /* the last token ended with a newline, or there was none */
    struct token *tok;
    size_t ntok, cap;
    char stack[JINJA_MAX_NESTING]; /* brackets to be closed */
    int nstack;
};

void jinja_syntax(struct jx *x, int line, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    x->line = line;
    jx_fail(x, JINJA_SYNTAX, "%s", text);
}

static struct token *add(struct lexer *l, enum tok t) {
    if (l->ntok == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct token *p = jx_array(l->x, cap, sizeof *p);
        if (l->ntok) memcpy(p, l->tok, l->ntok * sizeof *p);
        l->tok = p;
        l->cap = cap;
    }
    struct token *k = &l->tok[l->ntok++];
    memset(k, 0, sizeof *k);
    k->t = t;
    k->line = l->line;
    return k;
}

static bool looking(const struct lexer *l, size_t at, const char *z) {
    size_t n = strlen(z);
    return l->n - at >= n && memcmp(l->p + at, z, n) == 0;
}

static void advance(struct lexer *l, size_t to) { /* counts lines, remembers whether a newline came last */
    for (size_t i = l->at; i < to; i++) l->line += l->p[i] == '\n';
    if (to > l->at) l->line_start = l->p[to - 1] == '\n';
    l->at = to;
}

static size_t skip_space(const struct lexer *l, size_t at) {
    size_t w;
    while (at < l->n && u_space(u_get(l->p + at, l->n - at, &w))) at += w;
    return at;
}

static size_t rstrip(const char *p, size_t n) {
    while (n > 0) {
        size_t i = n - 1, w;
        while (i > 0 && ((unsigned char)p[i] & 0xC0) == 0x80) i--;
        if (!u_space(u_get(p + i, n - i, &w))) break;
        n = i;
    }
    return n;
}

/* The text before a tag that starts at `end`: what is left of it under the tag's sign. */
static void data(struct lexer *l, size_t end, char sign, bool variable) {
    const char *p = l->p + l->at;
    size_t n = end - l->at;
    if (sign == '-') {
        n = rstrip(p, n);
    } else if (sign != '+' && !variable) {
        const char *nl = n ? memrchr(p, '\n', n) : NULL;
        size_t from = nl ? (size_t)(nl - p) + 1 : 0;
        if ((from > 0 || l->line_start) && rstrip(p + from, n - from) == 0) n = from;
    }
    if (n > 0) add(l, T_DATA)->s = str_new(l->x, p, n, TRUSTED);
    advance(l, end);
}

/* The end of a {% tag %} or comment whose close ("%}", "#}") is at `at`: how much whitespace goes with it. */
static size_t close_tag(const struct lexer *l, size_t at) {
    if (l->p[at] == '+') return at + 3;
    if (l->p[at] == '-') return skip_space(l, at + 3);
    at += 2;
    return at < l->n && l->p[at] == '\n' ? at + 1 : at;
}

static bool at_close(const struct lexer *l, size_t at, const char *close) {
    if (at < l->n && (l->p[at] == '-' || l->p[at] == '+')) at++;
    return looking(l, at, close);
}

static void comment(struct lexer *l) {
    size_t at = l->at;
    if (at == l->n) return; /* as Jinja: an opening that ends the template is no error */
    while (at < l->n && !at_close(l, at, "#}")) at++;
    if (at == l->n) jinja_syntax(l->x, l->line, "Missing end of comment tag");
    advance(l, close_tag(l, at));
}

/* Is there {% raw %} at `at`? Its end, else 0. */
static size_t raw_begin(const struct lexer *l, size_t at) {
    at += 2;
    if (at < l->n && (l->p[at] == '-' || l->p[at] == '+')) at++;
    at = skip_space(l, at);
    if (!looking(l, at, "raw")) return 0;
    at = skip_space(l, at + 3);
    if (looking(l, at, "-%}")) return skip_space(l, at + 3);
    return looking(l, at, "%}") ? at + 2 : 0;
}

static void raw(struct lexer *l) {
    if (l->at == l->n) return;
    for (size_t at = l->at; at < l->n; at++) {
        if (l->p[at] != '{' || !looking(l, at, "{%")) continue;
        size_t e = at + 2;
        char sign = e < l->n ? l->p[e] : 0;
        if (sign == '-' || sign == '+') e++;
        e = skip_space(l, e);
        if (!looking(l, e, "endraw")) continue;
        e = skip_space(l, e + 6);
        if (!at_close(l, e, "%}")) continue;
        data(l, at, sign, false);
        advance(l, close_tag(l, e));
        return;
    }
    jinja_syntax(l->x, l->line, "Missing end of raw directive");
}

/* ---- inside a tag ---- */

static bool digit(const struct lexer *l, size_t at) { return at < l->n && l->p[at] >= '0' && l->p[at] <= '9'; }

static size_t digits(const struct lexer *l, size_t at) { /* (\d+_)*\d+ */
    size_t end = at;
    while (digit(l, end)) {
        while (digit(l, end)) end++;
        if (end < l->n && l->p[end] == '_' && digit(l, end + 1))
            end++;
        else
            break;
    }
    return end;
}

static size_t exponent(const struct lexer *l, size_t at) { /* the end of e[+-]digits, or 0 */
    if (at >= l->n || (l->p[at] | 0x20) != 'e') return 0;
    at++;
    if (at < l->n && (l->p[at] == '+' || l->p[at] == '-')) at++;
    size_t end = digits(l, at);
    return end > at ? end : 0;
}

static bool lex_float(struct lexer *l) {
    if (l->at > 0 && l->p[l->at - 1] == '.') return false;
    size_t whole = digits(l, l->at), end = 0, e;
    if (whole == l->at) return false;
    if (whole < l->n && l->p[whole] == '.' && digit(l, whole + 1)) {
        end = digits(l, whole + 1);
        if ((e = exponent(l, end))) end = e;
    } else {
        end = exponent(l, whole);
    }
    if (!end) return false;
    char z[400];
    size_t n = 0;
    for (size_t i = l->at; i < end && n + 1 < sizeof z; i++)
        if (l->p[i] != '_') z[n++] = l->p[i];
    z[n] = 0;
    add(l, T_FLOAT)->v = v_float(strtod(z, NULL));
    advance(l, end);
    return true;
}

static int digit_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

static size_t based(const struct lexer *l, size_t at, int base) { /* (_?digit)* */
    for (;;) {
        size_t i = at < l->n && l->p[at] == '_' ? at + 1 : at;
        if (i >= l->n || digit_value(l->p[i]) >= base) return at;
        at = i + 1;
    }
}

static bool lex_int(struct lexer *l) {
    if (!digit(l, l->at)) return false;
    size_t start = l->at, end;
    int base = 10;
    if (l->p[start] == '0') {
        char k = start + 1 < l->n ? l->p[start + 1] | 0x20 : 0;
        base = k == 'x' ? 16 : k == 'o' ? 8 : k == 'b' ? 2 : 1; /* base 1: only zeros */
        end = base > 1 ? based(l, start + 2, base) : start + 2;
        if (end == start + 2) {
            base = 10;
            end = based(l, start + 1, 1);
        } else {
            start += 2;
        }
    } else {
        end = based(l, start + 1, 10);
    }
    uint64_t v = 0;
    for (size_t i = start; i < end; i++) {
        if (l->p[i] == '_') continue;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)digit_value(l->p[i]), &v) || v > INT64_MAX)
            jinja_syntax(l->x, l->line, "an integer beyond 64 bits");
    }
    add(l, T_INT)->v = v_int((int64_t)v);
    advance(l, end);
    return true;
}

static bool lex_name(struct lexer *l) {
    size_t end = l->at, w;
    bool bad = false;
    while (end < l->n) {
        uint32_t c = u_get(l->p + end, l->n - end, &w);
        if (!u_word(c)) break;
        if (end == l->at && !u_id_start(c)) bad = true;
        end += w;
    }
    if (end == l->at) return false;
    if (bad) jinja_syntax(l->x, l->line, "Invalid character in identifier");
    add(l, T_NAME)->s = str_new(l->x, l->p + l->at, end - l->at, TRUSTED);
    advance(l, end);
    return true;
}

static void hex_escape(struct lexer *l, struct sb *b, size_t *at, size_t end, int n) {
    uint32_t c = 0;
    for (int i = 0; i < n; i++) {
        int d = *at + (size_t)i < end ? digit_value(l->p[*at + (size_t)i]) : 99;
        if (d >= 16) jinja_syntax(l->x, l->line, "truncated escape in a string");
        c = c * 16 + (uint32_t)d;
    }
    *at += (size_t)n;
    if (c > 0x10FFFF) jinja_syntax(l->x, l->line, "illegal Unicode character in a string");
    if (c >= 0xD800 && c < 0xE000) jinja_syntax(l->x, l->line, "a surrogate in a string is no character");
    sb_cp(b, c, true);
}

/* Python meets a character beyond ASCII behind a backslash in its escaped form, and takes the backslash for it. */
static void wide_escape(struct lexer *l, struct sb *b, size_t *at) {
    char text[16];
    size_t w;
    uint32_t c = u_get(l->p + *at, l->n - *at, &w);
    snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    sb_z(b, text, true);
    *at += w;
}

static void escape(struct lexer *l, struct sb *b, size_t *at, size_t end) { /* *at is behind the backslash */
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->p[*at];
    const char *f = strchr(from, c);
    if (c && f) {
        sb_raw(b, to + (f - from), 1, true);
        ++*at;
    } else if (c == '\n') {
        ++*at;
    } else if (c >= '0' && c <= '7') {
        uint32_t v = 0;
        for (int i = 0; i < 3 && *at < end && l->p[*at] >= '0' && l->p[*at] <= '7'; i++)
            v = v * 8 + (uint32_t)(l->p[(*at)++] - '0');
        sb_cp(b, v, true);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        ++*at;
        hex_escape(l, b, at, end, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N') {
        jinja_syntax(l->x, l->line, "\\N{...} is not supported in strings");
    } else if ((unsigned char)c >= 0x80) {
        wide_escape(l, b, at);
    } else {
        sb_z(b, "\\", true);
    }
}

static bool lex_string(struct lexer *l) {
    char quote = l->p[l->at];
    if (quote != '\'' && quote != '"') return false;
    size_t end = l->at + 1;
    while (end < l->n && l->p[end] != quote) end += l->p[end] == '\\' ? 2 : 1;
    if (end >= l->n) return false;
    struct sb b;
    sb_init(&b, l->x);
    for (size_t i = l->at + 1; i < end;) {
        size_t j = i;
        while (j < end && l->p[j] != '\\') j++;
        sb_raw(&b, l->p + i, j - i, true);
        if (j == end) break;
        i = j + 1;
        escape(l, &b, &i, end);
    }
    struct str *s = sb_take(&b);
    str_chars(s); /* counted now: a constant is shared by threads */
    add(l, T_STRING)->s = s;
    advance(l, end + 1);
    return true;
}

static bool lex_op(struct lexer *l) {
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (!looking(l, l->at, ops[i])) continue;
        char c = *ops[i];
        if (c == '(' || c == '[' || c == '{') {
            if (l->nstack == JINJA_MAX_NESTING)
                jinja_syntax(l->x, l->line, "more than %d brackets are open", JINJA_MAX_NESTING);
            l->stack[l->nstack++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (l->nstack == 0) jinja_syntax(l->x, l->line, "unexpected '%c'", c);
            if (l->stack[--l->nstack] != c)
                jinja_syntax(l->x, l->line, "unexpected '%c', expected '%c'", c, l->stack[l->nstack]);
        }
        add(l, T_OP)->op = ops[i];
        advance(l, l->at + strlen(ops[i]));
        return true;
    }
    return false;
}

static void inside(struct lexer *l, bool variable) { /* to the end of the tag, or of the template */
    add(l, variable ? T_VAR_BEGIN : T_BLOCK_BEGIN);
    while (l->at < l->n) {
        size_t at = l->at;
        bool plus = l->p[at] == '+';
        if (l->nstack == 0 && at_close(l, at, variable ? "}}" : "%}") && !(variable && plus)) {
            add(l, variable ? T_VAR_END : T_BLOCK_END);
            if (!variable)
                advance(l, close_tag(l, at));
            else
                advance(l, l->p[at] == '-' ? skip_space(l, at + 3) : at + 2);
            return;
        }
        size_t space = skip_space(l, at);
        if (space > at) {
            advance(l, space);
            continue;
        }
        if (lex_float(l) || lex_int(l) || lex_name(l) || lex_string(l) || lex_op(l)) continue;
        jinja_syntax(l->x, l->line, "unexpected char at byte %zu", at);
    }
}

static bool root(struct lexer *l) { /* text up to the next tag, and the tag; false at the end */
    size_t at = l->at;
    for (; at + 1 < l->n; at++) {
        const char *brace = memchr(l->p + at, '{', l->n - 1 - at);
        if (!brace) break;
        at = (size_t)(brace - l->p);
        char k = l->p[at + 1];
        if (k != '{' && k != '%' && k != '#') continue;
        char sign = at + 2 < l->n ? l->p[at + 2] : 0;
        size_t rawend = k == '%' ? raw_begin(l, at) : 0;
        data(l, at, sign, k == '{');
        advance(l, rawend ? rawend : at + 2 + (sign == '-' || sign == '+'));
        if (rawend)
            raw(l);
        else if (k == '#')
            comment(l);
        else
            inside(l, k == '{');
        return true;
    }
    if (l->at < l->n) add(l, T_DATA)->s = str_new(l->x, l->p + l->at, l->n - l->at, TRUSTED);
    return false;
}

static void normalise(struct lexer *l, const char *source, size_t n) {
    char *p = jx_alloc(l->x, n + 1);
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            p[o++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else {
            p[o++] = source[i];
        }
    }
    if (o && p[o - 1] == '\n') o--; /* one newline at the end belongs to the editor */
    l->p = p;
    l->n = o;
}

struct token *jinja_lex(struct jx *x, const char *source, size_t n, size_t *count) {
    struct lexer l = {.x = x, .line = 1, .line_start = true};
    if (!utf8_valid(source, n)) jinja_syntax(x, 0, "the template is not UTF-8");
    normalise(&l, source, n);
    while (root(&l)) continue;
    add(&l, T_EOF);
    for (size_t i = 0; i < l.ntok; i++)
        if (l.tok[i].s) str_chars(l.tok[i].s);
    *count = l.ntok;
    return l.tok;
}
