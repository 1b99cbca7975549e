/* unicode.h: the properties of code points that tokenizing needs, as the reference tokenizer sees them.
 *
 * Constant tables, made by tools/make-unicode.py, which asks the reference about every code point. They mix several
 * versions of Unicode, because the reference does: regular expressions know 16, the normaliser knows 9. */
#ifndef MINISGL_TEXT_UNICODE_H
#define MINISGL_TEXT_UNICODE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The general category is the low five bits of a class. */
enum uc_category {
    UC_CN,
    UC_LU,
    UC_LL,
    UC_LT,
    UC_LM,
    UC_LO,
    UC_MN,
    UC_MC,
    UC_ME,
    UC_ND,
    UC_NL,
    UC_NO,
    UC_PC,
    UC_PD,
    UC_PS,
    UC_PE,
    UC_PI,
    UC_PF,
    UC_PO,
    UC_SM,
    UC_SC,
    UC_SK,
    UC_SO,
    UC_ZS,
    UC_ZL,
    UC_ZP,
    UC_CC,
    UC_CF,
    UC_CO
};
enum { UC_CATEGORY = 0x1f, UC_SPACE = 0x20, UC_WORD = 0x40, UC_PUNCT = 0x80 };

/* Bits of uc_norm: a character without the bit of a form is left alone by it and never joins what precedes it. */
enum { UC_NFC = 1, UC_NFKC = 2, UC_NFD = 4, UC_NFKD = 8, UC_OPAQUE = 16, UC_NUMERIC = 32 };
/* UC_OPAQUE: newer than the reference's normaliser, which treats it as an unassigned code point. */

extern const uint8_t uc_class_block[][64], uc_norm_block[][64];
extern const uint16_t uc_class_index[], uc_norm_index[];

static inline unsigned uc_class(uint32_t c) { return uc_class_block[uc_class_index[c >> 6]][c & 63]; }
static inline unsigned uc_norm(uint32_t c) { return uc_norm_block[uc_norm_index[c >> 6]][c & 63]; }

static inline bool uc_is_letter(unsigned cls) { return (cls & UC_CATEGORY) - UC_LU <= UC_LO - UC_LU; }
static inline bool uc_is_mark(unsigned cls) { return (cls & UC_CATEGORY) - UC_MN <= UC_ME - UC_MN; }
static inline bool uc_is_number(unsigned cls) { return (cls & UC_CATEGORY) - UC_ND <= UC_NO - UC_ND; }

struct uc_lower_run {
    uint32_t first, last;
    uint8_t step; /* 1 or 2 */
    int32_t delta;
};
extern const size_t uc_lower_n;
extern const struct uc_lower_run uc_lower_runs[];
/* The lower case of c (one code point; U+0130 alone has two: the caller adds U+0307). */
uint32_t uc_lower(uint32_t c);

/* Characters that PCRE2 10.42 (Unicode 14) sees otherwise than the reference, each run with an older character of the
 * same category and UTF-8 width. */
struct uc_newer_run {
    uint32_t first, last, older;
};
extern const size_t uc_newer_n;
extern const struct uc_newer_run uc_newer_runs[];
uint32_t uc_older(uint32_t c); /* the stand-in, or c itself */

/* Decode one character of text known to be valid UTF-8; *w is its width. */
static inline uint32_t uc_get(const char *s, size_t *w) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *w = 1, p[0];
    if (p[0] < 0xe0) return *w = 2, (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    if (p[0] < 0xf0) return *w = 3, (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    return *w = 4, (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
}

/* How many bytes at s are ASCII. */
size_t uc_ascii_run(const char *s, size_t n);
/* Whether s is valid UTF-8: as utf8_valid, fast on ASCII. */
bool uc_valid(const char *s, size_t n);
/* The start of the character that ends before s + i. */
static inline size_t uc_before(const char *s, size_t i) {
    do i--;
    while (i && ((unsigned char)s[i] & 0xc0) == 0x80);
    return i;
}

#endif
