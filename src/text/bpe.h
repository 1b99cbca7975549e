/* bpe.h: byte pair encoding of one word, with merges of arbitrary order.
 *
 * The rules are those of the reference (Sennrich et al. 2016 with ranks): a word becomes one symbol a byte (byte-level
 * models) or a character (the others: unknown characters become byte tokens or the unknown token); then the pair of
 * lowest rank, the leftmost of several, is replaced until none is left.
 *
 * struct bpe is constant once built and shared by threads; struct bpe_scratch belongs to one thread. Time is
 * O(n log n) in the word, stack constant. Words are first cut where no token can reach across (see can_join), which
 * changes no result and makes a text without spaces linear in practice. */
#ifndef MINISGL_TEXT_BPE_H
#define MINISGL_TEXT_BPE_H
#include "base/err.h"
#include "text/ids.h"
#include "text/vocab.h"

struct bpe_merge {
    uint32_t a, b; /* a == UINT32_MAX: free slot */
    uint32_t rank, id;
};

struct bpe {
    struct vocab vocab;
    struct bpe_merge *merge; /* [merge_mask + 1], open addressing */
    size_t merge_mask;
    unsigned merge_shift;
    bool byte_fallback, ignore_merges, fuse_unk;
    bool has_unk;            /* an unknown token is named ... */
    int32_t unk;             /* ... and this is its id; -1 if the vocabulary lacks it */
    int32_t byte_id[256];    /* byte-level: the token of a byte; otherwise that of <0xNN>; -1 none */
    bool all_bytes;          /* byte_id has no hole */
    int32_t *char_id;        /* not byte-level: [65536] the token of a character, -1 none */
    uint64_t can_join[1024]; /* bit p * 256 + q: in some token, byte q follows byte p */
};

/* A parsed merge, before the table is made. */
struct bpe_rule {
    uint32_t a, b, id;
};

void bpe_init(struct bpe *b, bool byte_level);
void bpe_release(struct bpe *b);
/* After the vocabulary is filled: build everything else. A pair named twice has its last rank, as in the reference. */
void bpe_build(struct bpe *b, const struct bpe_rule *rule, size_t n);

struct bpe_scratch;
/* The scratch remembers words (2 MB), so it serves one model only. */
struct bpe_scratch *bpe_scratch_new(void);
void bpe_scratch_free(struct bpe_scratch *s);

struct bpe_text {
    const char *s; /* valid UTF-8 */
    size_t n;      /* > 0, < 2^31 */
    size_t slack;  /* bytes behind it that may be read, though they do not belong to it */
};
/* Append the tokens of a word. -1 and *e: an unknown character, and no token for such. */
int bpe_word(const struct bpe *b, struct bpe_scratch *s, struct bpe_text word, struct ids *out, struct err *e);

#endif
