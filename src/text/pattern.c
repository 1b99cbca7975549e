/* pattern.c: see pattern.h. A pattern is constant; an iterator belongs to one thread. Refuses expressions that could
 * mean something else in PCRE2 than in Oniguruma, and expressions that match the empty string. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pattern.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "text/pattern_known.h"
#include "text/unicode.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_LIMIT = 20 * 1000 * 1000, HEAP_LIMIT_KB = 256 * 1024 };

struct pattern {
    enum { BY_SCAN, BY_PCRE, BY_STRING, BY_CLASS, BY_WORDS } how;
    pattern_scan *scan;
    pcre2_code *code;
    char *string;
    size_t string_n;
    unsigned class_bit, norm_bit; /* BY_CLASS: a bit of uc_class or of uc_norm */
};

static struct pattern *make(struct pattern p) {
    struct pattern *q = mem_alloc(sizeof *q);
    *q = p;
    return q;
}

struct pattern *pattern_gpt2(void) {
    return make((struct pattern){.how = BY_SCAN, .scan = pattern_scan_gpt2});
}

struct pattern *pattern_string(const char *s, size_t n) {
    return make((struct pattern){.how = BY_STRING, .string = mem_strndup(s, n), .string_n = n});
}

struct pattern *pattern_class(enum pattern_class c) {
    switch (c) {
    case PATTERN_NUMERIC: return make((struct pattern){.how = BY_CLASS, .norm_bit = UC_NUMERIC});
    case PATTERN_SPACE: return make((struct pattern){.how = BY_CLASS, .class_bit = UC_SPACE});
    case PATTERN_PUNCT: return make((struct pattern){.how = BY_CLASS, .class_bit = UC_PUNCT});
    default: return make((struct pattern){.how = BY_WORDS});
    }
}

void pattern_free(struct pattern *p) {
    if (!p) return;
    pcre2_code_free(p->code);
    free(p->string);
    free(p);
}

bool pattern_shortens(const struct pattern *p, size_t n) { return p->how != BY_STRING || p->string_n > n; }

pattern_scan *pattern_scanner(const struct pattern *p) { return p->scan; }

/* ---- which expressions mean the same in both engines ---- */

/* The length of an escape that does, 0 for others. */
static size_t safe_escape(const char *r, size_t n) {
    static const char *const props[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",
                                        "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po",
                                        "S",  "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Han"};
    if (n < 2) return 0;
    unsigned char c = (unsigned char)r[1];
    if (strchr("sSdDrnt", c) && c) return 2;
    if (c > 32 && c < 127 && !strchr("0123456789", c) && ((c | 0x20u) < 'a' || (c | 0x20u) > 'z') && c != '<' &&
        c != '>')
        return 2;
    if ((c != 'p' && c != 'P') || n < 4 || r[2] != '{') return 0;
    const char *close = memchr(r, '}', n);
    if (!close) return 0;
    size_t len = (size_t)(close - r) - 3;
    for (size_t i = 0; i < sizeof props / sizeof *props; i++)
        if (strlen(props[i]) == len && !memcmp(props[i], r + 3, len)) return len + 4;
    return 0;
}

static size_t safe_class(const char *r, size_t n) {
    size_t i = 1, w;
    if (i < n && r[i] == '^') i++;
    if (i < n && r[i] == ']') return 0;
    while (i < n && r[i] != ']') {
        if (r[i] == '[' || (r[i] == '&' && i + 1 < n && r[i + 1] == '&')) return 0;
        w = r[i] == '\\' ? safe_escape(r + i, n - i) : 1;
        if (!w) return 0;
        i += w;
    }
    return i < n ? i + 1 : 0;
}

/* (?i:...) only around letters whose case folding has one form in both engines. */
static size_t safe_fold(const char *r, size_t n) {
    const char *close = memchr(r, ')', n);
    if (!close) return 0;
    for (const char *p = r + 4; p < close; p++)
        if (!strchr("'strevmld|[]", *p) || (p[0] == 's' && (p[1] == 's' || p[1] == 't'))) return 0;
    return (size_t)(close - r) + 1;
}

static size_t safe_group(const char *r, size_t n) {
    if (n < 2 || r[1] != '?') return n < 2 || r[1] == '*' ? 0 : 1;
    if (n < 4) return 0;
    if (r[2] == ':' || r[2] == '!' || r[2] == '=' || r[2] == '>') return 3;
    if (r[2] == '<' && (r[3] == '!' || r[3] == '=')) return 4;
    return r[2] == 'i' && r[3] == ':' ? safe_fold(r, n) : 0;
}

static size_t safe_repeat(const char *r, size_t n) {
    const char *close = memchr(r, '}', n);
    if (n < 3 || !close || r[1] < '0' || r[1] > '9') return 0;
    size_t len = (size_t)(close - r) + 1;
    for (size_t i = 1; i + 1 < len; i++)
        if ((r[i] < '0' || r[i] > '9') && r[i] != ',') return 0;
    return len < n && (r[len] == '+' || r[len] == '?') ? 0 : len;
}

/* The offset of the first construct that is not known to be safe; n when all are. */
static size_t unsafe_at(const char *r, size_t n) {
    for (size_t i = 0, w; i < n; i += w) {
        switch (r[i]) {
        case '\\': w = safe_escape(r + i, n - i); break;
        case '[': w = safe_class(r + i, n - i); break;
        case '(': w = safe_group(r + i, n - i); break;
        case '{': w = safe_repeat(r + i, n - i); break;
        case '^':
        case '$':
        case '.':
        case '\0': w = 0; break;
        default: w = 1;
        }
        if (!w) return i;
    }
    return n;
}

static pcre2_code *compile(const char *regex, size_t n, struct err *e) {
    int code;
    PCRE2_SIZE at;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)regex, n, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!c) {
        char why[200] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        err_input(e, "the regular expression \"%.*s\" does not compile: %s at byte %zu", (int)(n < 300 ? n : 300),
                  regex, why, (size_t)at);
        return NULL;
    }
    uint32_t empty = 0;
    pcre2_pattern_info(c, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty) {
        err_input(e, "the regular expression \"%.*s\" may match the empty string, which is not supported here",
                  (int)(n < 300 ? n : 300), regex);
        pcre2_code_free(c);
        return NULL;
    }
    pcre2_jit_compile(c, PCRE2_JIT_COMPLETE); /* without it matching is slower, not different */
    return c;
}

struct pattern *pattern_regex(const char *regex, size_t n, struct err *e) {
    pattern_scan *known = pattern_known(regex, n);
    if (known) return make((struct pattern){.how = BY_SCAN, .scan = known});
    size_t at = unsafe_at(regex, n);
    if (at < n || !n) {
        err_input(e, "the regular expression \"%.*s\" has at byte %zu a construct that is not supported here",
                  (int)(n < 300 ? n : 300), regex, at);
        return NULL;
    }
    pcre2_code *c = compile(regex, n, e);
    return c ? make((struct pattern){.how = BY_PCRE, .code = c}) : NULL;
}

/* ---- matching ---- */

/* A text with its newest characters replaced by older ones of the same category and width. */
static const char *stand_ins(const char *s, size_t n, struct buf *tmp) {
    bool copied = false;
    for (size_t i = 0, w; i < n; i += w) {
        if ((unsigned char)s[i] < 0x80) {
            w = uc_ascii_run(s + i, n - i);
            continue;
        }
        uint32_t c = uc_get(s + i, &w), d = uc_older(c);
        if (c == d) continue;
        if (!copied) {
            buf_reset(tmp);
            if (buf_add(tmp, s, n)) return s;
            copied = true;
        }
        utf8_put(d, tmp->data + i);
    }
    return copied ? tmp->data : s;
}

void pattern_start(struct pattern_iter *it, const struct pattern *p, const char *s, size_t n, struct buf *tmp) {
    *it = (struct pattern_iter){.p = p, .s = s, .n = n, .subject = s};
    if (p->how == BY_PCRE) it->subject = stand_ins(s, n, tmp);
}

static int find_pcre(struct pattern_iter *it, struct err *e) {
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    pcre2_match_context *mc = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(mc, MATCH_LIMIT);
    pcre2_set_heap_limit(mc, HEAP_LIMIT_KB);
    int rc = pcre2_match(it->p->code, (PCRE2_SPTR)it->subject, it->n, it->at, PCRE2_NO_UTF_CHECK, md, mc);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc =
            pcre2_match(it->p->code, (PCRE2_SPTR)it->subject, it->n, it->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, md, mc);
    if (rc >= 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(md);
        it->m_start = v[0];
        it->m_end = v[1];
    }
    pcre2_match_context_free(mc);
    pcre2_match_data_free(md);
    if (rc >= 0) return 1;
    if (rc == PCRE2_ERROR_NOMATCH) return 0;
    return err_input(e, "the pre-tokenizer's regular expression gave up on this text (PCRE2 error %d at byte %zu)", rc,
                     it->at);
}

static int find_string(struct pattern_iter *it) {
    const char *at = memmem(it->s + it->at, it->n - it->at, it->p->string, it->p->string_n);
    if (!at) return 0;
    it->m_start = (size_t)(at - it->s);
    it->m_end = it->m_start + it->p->string_n;
    return 1;
}

static int find_class(struct pattern_iter *it) {
    for (size_t i = it->at, w; i < it->n; i += w) {
        uint32_t c = uc_get(it->s + i, &w);
        if (!((uc_class(c) & it->p->class_bit) | (uc_norm(c) & it->p->norm_bit))) continue;
        it->m_start = i;
        it->m_end = i + w;
        return 1;
    }
    return 0;
}

static int find_word(struct pattern_iter *it) {
    size_t i = it->at, w = 0;
    unsigned cls = UC_SPACE;
    for (; i < it->n && (cls = uc_class(uc_get(it->s + i, &w))) & UC_SPACE; i += w) {
    }
    if (i == it->n) return 0;
    it->m_start = i;
    bool word = cls & UC_WORD;
    for (i += w; i < it->n; i += w) {
        cls = uc_class(uc_get(it->s + i, &w));
        if (cls & UC_SPACE || !!(cls & UC_WORD) != word) break;
    }
    it->m_end = i;
    return 1;
}

static int find(struct pattern_iter *it, struct err *e) {
    switch (it->p->how) {
    case BY_SCAN:
        it->m_start = it->at;
        it->m_end = it->at + it->p->scan(it->s + it->at, it->n - it->at);
        return 1;
    case BY_PCRE: return find_pcre(it, e);
    case BY_STRING: return find_string(it);
    case BY_CLASS: return find_class(it);
    default: return find_word(it);
    }
}

int pattern_next(struct pattern_iter *it, size_t *end, bool *match, struct err *e) {
    if (it->at == it->n) return 0;
    if (!it->held) {
        int r = find(it, e);
        if (r < 0) return -1;
        if (!r) it->m_start = it->m_end = it->n;
        it->held = true;
    }
    *match = it->at == it->m_start;
    *end = it->at = *match ? it->m_end : it->m_start;
    if (*match) it->held = false;
    return 1;
}
