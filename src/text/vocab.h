/* vocab.h: the strings of a model's tokens and their ids.
 *
 * Two alphabets exist. A byte-level model's file writes each byte as a printable character (a space is U+0120); such
 * strings are turned back into the bytes they stand for when they are added, and marked MAPPED, so that text is looked
 * up as it is. A string with a character outside that alphabet stays as it is written and is marked RAW: no text can
 * ever become it, but merges and look-ups by name still find it. Without the byte alphabet every string is MAPPED,
 * unchanged.
 *
 * Filled by one thread, then read by any. Strings live in one pool; look-up is one probe into open addressing. */
#ifndef MINISGL_TEXT_VOCAB_H
#define MINISGL_TEXT_VOCAB_H
#include "base/buf.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VOCAB_MAX_ID = (1 << 22) - 1, VOCAB_MAX_TOKEN = 65535 };
enum vocab_kind { VOCAB_NONE, VOCAB_MAPPED, VOCAB_RAW };

struct vocab_token {
    uint32_t off;
    uint16_t len;
    uint8_t kind; /* VOCAB_NONE: no token has this id */
};
struct vocab_slot {
    uint32_t hash;
    int32_t id; /* -1: free */
};
struct vocab {
    bool byte_level;
    char *pool;
    size_t pool_len, pool_cap;
    struct vocab_token *tok; /* [n_ids] by id */
    size_t n_ids, tok_cap;   /* n_ids: the largest id + 1 */
    size_t n;                /* tokens */
    size_t longest;          /* bytes of the longest MAPPED token */
    struct vocab_slot *slot; /* [mask + 1] */
    size_t mask;
};
struct vocab_key {
    const char *s;
    size_t n;
    uint8_t kind;
};

void vocab_init(struct vocab *v, bool byte_level);
void vocab_release(struct vocab *v);

/* The key of a string as a file writes it; tmp holds translated bytes and must have room for n. */
struct vocab_key vocab_key(const struct vocab *v, const char *text, size_t n, char *tmp);
/* 0; -1 the string is there already, -2 the id is taken, -3 too long or id too large. */
int vocab_add(struct vocab *v, struct vocab_key k, uint32_t id);
int32_t vocab_find(const struct vocab *v, struct vocab_key k); /* -1: none */
/* The id of the token that stands for these bytes of text. */
static inline int32_t vocab_find_bytes(const struct vocab *v, const char *s, size_t n) {
    return vocab_find(v, (struct vocab_key){s, n, VOCAB_MAPPED});
}
static inline bool vocab_has(const struct vocab *v, size_t id) {
    return id < v->n_ids && v->tok[id].kind != VOCAB_NONE;
}
static inline const char *vocab_bytes(const struct vocab *v, size_t id) { return v->pool + v->tok[id].off; }
/* Append the token's string as the file writes it. */
void vocab_text(const struct vocab *v, size_t id, struct buf *out);

/* The byte alphabet: the byte a character stands for, or -1; and the character of a byte (one or two bytes wide, but
 * out has room for four). */
int byte_alphabet_get(uint32_t c);
size_t byte_alphabet_put(unsigned char b, char out[4]);

static inline uint64_t hash_mix(uint64_t a, uint64_t b) {
    __uint128_t r = (__uint128_t)a * b;
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}
uint64_t hash_bytes(const char *s, size_t n);

#endif
