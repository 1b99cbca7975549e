/* pattern_known.c: see pattern_known.h. No state.
 *
 * Each function returns the end of the match at s[0]. The alternatives of an expression are tried in its order and the
 * longest run is taken first, as a backtracking engine would; every character starts some match. Each run of text is
 * looked at a bounded number of times, so a walk over a text is linear. */
#include "text/pattern_known.h"

#include "text/unicode.h"

#include <string.h>

/* What the expressions tell apart. */
enum kind { OTHER, LETTER, NUMBER, SPACE, NEWLINE };

/* clang-format off */
#define L LETTER
#define N NUMBER
static const uint8_t ascii_kind[128] = {
    ['\t'] = SPACE, ['\n'] = NEWLINE, ['\v'] = SPACE, ['\f'] = SPACE, ['\r'] = NEWLINE, [' '] = SPACE,
    ['0'] = N, N, N, N, N, N, N, N, N, N,
    ['A'] = L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    ['a'] = L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
};
#undef L
#undef N
/* clang-format on */

/* Whether marks count as letters. */
enum marks { MARKS_OTHER, MARKS_LETTERS };

static inline enum kind kind_at(const char *s, size_t *w, enum marks marks) {
    unsigned char c = (unsigned char)*s;
    if (c < 0x80) return *w = 1, ascii_kind[c];
    unsigned cls = uc_class(uc_get(s, w));
    if (uc_is_letter(cls)) return LETTER;
    if (uc_is_number(cls)) return NUMBER;
    if (marks == MARKS_LETTERS && uc_is_mark(cls)) return LETTER;
    return cls & UC_SPACE ? SPACE : OTHER;
}

static inline size_t run(const char *s, size_t n, size_t i, enum kind k, enum marks marks) {
    size_t w;
    while (i < n && kind_at(s + i, &w, marks) == k) i += w;
    return i;
}

static inline size_t newlines(const char *s, size_t n, size_t i) {
    while (i < n && (s[i] == '\n' || s[i] == '\r')) i++;
    return i;
}

/* 's|'t|'re|'ve|'m|'ll|'d; fold is 0x20 where case does not matter, and then U+017F is an s. 0: none here. */
static inline size_t contraction(const char *s, size_t n, unsigned fold) {
    if (n < 2 || s[0] != '\'') return 0;
    unsigned c = (unsigned char)s[1] | fold;
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    if (n < 3) return 0;
    unsigned d = (unsigned char)s[2] | fold;
    if (((c == 'r' || c == 'v') && d == 'e') || (c == 'l' && d == 'l')) return 3;
    return fold && !memcmp(s + 1, "\xc5\xbf", 2) ? 3 : 0;
}

/* \s+(?!\S)|\s+ : all the white space at the end of the text, else all but its last character, else that one. */
static inline size_t spaces(const char *s, size_t n, size_t end) {
    if (end == n) return end;
    size_t last = uc_before(s, end);
    return last ? last : end;
}

size_t pattern_scan_gpt2(const char *s, size_t n) {
    size_t w, w1, i = contraction(s, n, 0);
    if (i) return i;
    enum kind k = kind_at(s, &w, MARKS_OTHER);
    if (*s == ' ' && n > 1) {
        enum kind k1 = kind_at(s + 1, &w1, MARKS_OTHER);
        if (k1 < SPACE) return run(s, n, 1 + w1, k1, MARKS_OTHER);
    }
    if (k < SPACE) return run(s, n, w, k, MARKS_OTHER);
    while (i < n && kind_at(s + i, &w, MARKS_OTHER) >= SPACE) i += w;
    return spaces(s, n, i);
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last newline of the white space, if it has one. */
static inline size_t white(const char *s, size_t n) {
    size_t i = 0, w, line = 0;
    for (enum kind k; i < n && (k = kind_at(s + i, &w, MARKS_OTHER)) >= SPACE; i += w)
        if (k == NEWLINE) line = i + w;
    return line ? line : spaces(s, n, i);
}

/* (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static inline size_t scan(const char *s, size_t n, unsigned digits, enum marks marks) {
    size_t w, w1 = 0, i;
    enum kind k = kind_at(s, &w, marks), k1 = NEWLINE;
    if (k == LETTER) return run(s, n, w, LETTER, marks);
    if (k == NUMBER) {
        for (i = w; --digits && i < n && kind_at(s + i, &w, marks) == NUMBER;) i += w;
        return i;
    }
    if (k == NEWLINE) return white(s, n);
    if ((i = contraction(s, n, 0x20))) return i;
    if (w < n) k1 = kind_at(s + w, &w1, marks);
    if (k1 == LETTER && w < n) return run(s, n, w + w1, LETTER, marks);
    if (k == OTHER) return newlines(s, n, run(s, n, w, OTHER, marks));
    if (k1 == OTHER && *s == ' ' && w < n) return newlines(s, n, run(s, n, w + w1, OTHER, marks));
    return white(s, n);
}

static size_t scan_llama3(const char *s, size_t n) { return scan(s, n, 3, MARKS_OTHER); }
static size_t scan_qwen2(const char *s, size_t n) { return scan(s, n, 1, MARKS_OTHER); }
static size_t scan_qwen35(const char *s, size_t n) { return scan(s, n, 1, MARKS_LETTERS); }

#define GPT2_TAIL "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define FOLDED "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?"
#define SPACE_TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

pattern_scan *pattern_known(const char *regex, size_t n) {
    static const struct {
        const char *regex;
        pattern_scan *scan;
    } known[] = {
        {"'s|'t|'re|'ve|'m|'ll|'d" GPT2_TAIL, pattern_scan_gpt2},
        {"'(?:[sdmt]|ll|ve|re)" GPT2_TAIL, pattern_scan_gpt2},
        {FOLDED "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACE_TAIL, scan_llama3},
        {FOLDED "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" SPACE_TAIL, scan_qwen2},
        {FOLDED "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SPACE_TAIL, scan_qwen35},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].regex) == n && !memcmp(regex, known[i].regex, n)) return known[i].scan;
    return NULL;
}
