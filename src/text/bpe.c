/* bpe.c: see bpe.h. struct bpe is constant after bpe_build; a scratch has one thread. */
#include "text/bpe.h"

#include "base/utf8.h"
#include "text/unicode.h"

#include <stdio.h>

enum {
    KEY_BYTES = 24,
    KEY_IDS = 8,
    CACHE_SLOTS = 1 << 15, /* words longer than that are not remembered */
    SHORT = 40,            /* symbols up to which a scan beats a heap */
    KEEP = 1 << 16         /* symbols of room kept between words */
};
static const uint32_t NONE = UINT32_MAX;

struct word {
    uint64_t key[KEY_BYTES / 8];
    uint8_t len, n, part; /* len 0: free. part: merged as a part of a word, where ignore_merges has no say */
    int32_t ids[KEY_IDS];
};
struct symbol {
    uint32_t id, prev, next; /* NONE at the ends; id NONE: merged away */
    uint32_t rank;           /* of the pair that starts here */
};
struct bpe_scratch {
    struct word *cache; /* [CACHE_SLOTS] */
    struct ids first;   /* the symbols a word starts as */
    struct symbol *sym;
    uint64_t *heap; /* rank << 32 | position */
    size_t sym_cap, heap_n, heap_cap;
};

struct bpe_scratch *bpe_scratch_new(void) {
    struct bpe_scratch *s = mem_zalloc(1, sizeof *s);
    s->cache = mem_zalloc(CACHE_SLOTS, sizeof *s->cache);
    return s;
}

void bpe_scratch_free(struct bpe_scratch *s) {
    if (!s) return;
    free(s->cache);
    free(s->sym);
    free(s->heap);
    ids_release(&s->first);
    free(s);
}

/* ---- building ---- */

void bpe_init(struct bpe *b, bool byte_level) {
    *b = (struct bpe){.unk = -1};
    vocab_init(&b->vocab, byte_level);
}

void bpe_release(struct bpe *b) {
    vocab_release(&b->vocab);
    free(b->merge);
    free(b->char_id);
    *b = (struct bpe){0};
}

static size_t merge_home(const struct bpe *b, uint32_t left, uint32_t right) {
    return (size_t)((((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u) >> b->merge_shift);
}

static void merges_build(struct bpe *b, const struct bpe_rule *rule, size_t n) {
    unsigned bits = 4;
    while (((size_t)1 << bits) * 2 < n * 3) bits++;
    b->merge_mask = ((size_t)1 << bits) - 1;
    b->merge_shift = 64 - bits;
    b->merge = mem_array(b->merge_mask + 1, sizeof *b->merge);
    memset(b->merge, 0xff, (b->merge_mask + 1) * sizeof *b->merge);
    for (size_t i = 0; i < n; i++) {
        size_t j = merge_home(b, rule[i].a, rule[i].b);
        while (b->merge[j].a != NONE && (b->merge[j].a != rule[i].a || b->merge[j].b != rule[i].b))
            j = (j + 1) & b->merge_mask;
        b->merge[j] = (struct bpe_merge){rule[i].a, rule[i].b, (uint32_t)i, rule[i].id};
    }
}

static void joins_build(struct bpe *b, const struct bpe_rule *rule, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct vocab_token *t = &b->vocab.tok[rule[i].id];
        const unsigned char *s = (const unsigned char *)b->vocab.pool + t->off;
        for (size_t k = 1; k < t->len; k++) b->can_join[s[k - 1] * 4 + s[k] / 64] |= 1ull << s[k] % 64;
    }
}

static void bytes_build(struct bpe *b) {
    b->all_bytes = true;
    for (int i = 0; i < 256; i++) {
        char s[8] = {(char)i};
        int n = b->vocab.byte_level ? 1 : snprintf(s, sizeof s, "<0x%02X>", i);
        b->byte_id[i] = vocab_find_bytes(&b->vocab, s, (size_t)n);
        if (b->byte_id[i] < 0) b->all_bytes = false;
    }
}

static void chars_build(struct bpe *b) {
    b->char_id = mem_array(65536, sizeof *b->char_id);
    for (uint32_t c = 0; c < 65536; c++) {
        char u[4];
        size_t w = utf8_put(c, u);
        b->char_id[c] = w ? vocab_find_bytes(&b->vocab, u, w) : -1;
    }
}

void bpe_build(struct bpe *b, const struct bpe_rule *rule, size_t n) {
    merges_build(b, rule, n);
    joins_build(b, rule, n);
    bytes_build(b);
    if (!b->vocab.byte_level) chars_build(b);
}

/* ---- merging ---- */

static const struct bpe_merge *merge_find(const struct bpe *b, uint32_t left, uint32_t right) {
    for (size_t j = merge_home(b, left, right);; j = (j + 1) & b->merge_mask) {
        const struct bpe_merge *m = &b->merge[j];
        if (m->a == left && m->b == right) return m;
        if (m->a == NONE) return NULL;
    }
}

/* Few symbols: look at all pairs each time. */
static void merge_short(const struct bpe *b, const int32_t *first, size_t n, struct ids *out) {
    uint32_t id[SHORT], rank[SHORT], made[SHORT];
    for (size_t i = 0; i < n; i++) id[i] = (uint32_t)first[i];
    for (size_t i = 0; i + 1 < n; i++) {
        const struct bpe_merge *m = merge_find(b, id[i], id[i + 1]);
        rank[i] = m ? m->rank : NONE;
        made[i] = m ? m->id : 0;
    }
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at]) at = i;
        if (rank[at] == NONE) break;
        id[at] = made[at];
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        memmove(rank + at, rank + at + 1, (n - 1 - at) * sizeof *rank);
        memmove(made + at, made + at + 1, (n - 1 - at) * sizeof *made);
        for (size_t i = at ? at - 1 : 0; i <= at && i + 1 < n; i++) {
            const struct bpe_merge *m = merge_find(b, id[i], id[i + 1]);
            rank[i] = m ? m->rank : NONE;
            made[i] = m ? m->id : 0;
        }
    }
    for (size_t i = 0; i < n; i++) out->v[out->n++] = (int32_t)id[i];
}

static void sift_down(uint64_t *h, size_t n, size_t i) {
    uint64_t x = h[i];
    for (;;) {
        size_t c = 4 * i + 1, best = c, end = c + 4 < n ? c + 4 : n;
        if (c >= n) break;
        for (size_t k = c + 1; k < end; k++)
            if (h[k] < h[best]) best = k;
        if (h[best] >= x) break;
        h[i] = h[best];
        i = best;
    }
    h[i] = x;
}

static void heap_push(struct bpe_scratch *s, uint64_t x) {
    if (s->heap_n == s->heap_cap) {
        s->heap_cap += s->heap_cap / 2 + 64;
        s->heap = mem_grow(s->heap, s->heap_cap, sizeof *s->heap);
    }
    size_t i = s->heap_n++;
    for (; i && s->heap[(i - 1) / 4] > x; i = (i - 1) / 4) s->heap[i] = s->heap[(i - 1) / 4];
    s->heap[i] = x;
}

/* The rank of the pair that starts at position i, noted there and on the heap. */
static void pair_note(const struct bpe *b, struct bpe_scratch *s, uint32_t i) {
    struct symbol *a = &s->sym[i];
    const struct bpe_merge *m = a->next == NONE ? NULL : merge_find(b, a->id, s->sym[a->next].id);
    a->rank = m ? m->rank : NONE;
    if (m) heap_push(s, (uint64_t)m->rank << 32 | i);
}

static void long_start(const struct bpe *b, struct bpe_scratch *s, const int32_t *first, size_t n) {
    if (s->sym_cap < n) {
        free(s->sym);
        s->sym = mem_array(n, sizeof *s->sym);
        s->sym_cap = n;
    }
    if (s->heap_cap < n) {
        free(s->heap);
        s->heap = mem_array(n, sizeof *s->heap);
        s->heap_cap = n;
    }
    s->heap_n = 0;
    for (size_t i = 0; i < n; i++) {
        struct symbol *a = &s->sym[i];
        *a = (struct symbol){(uint32_t)first[i], (uint32_t)i - 1, i + 1 < n ? (uint32_t)i + 1 : NONE, NONE};
        const struct bpe_merge *m = i + 1 < n ? merge_find(b, a->id, (uint32_t)first[i + 1]) : NULL;
        if (!m) continue;
        a->rank = m->rank;
        s->heap[s->heap_n++] = (uint64_t)m->rank << 32 | i;
    }
    for (size_t i = s->heap_n / 4 + 1; i-- > 0;)
        if (i < s->heap_n) sift_down(s->heap, s->heap_n, i);
}

/* Many symbols: a linked list and a heap of (rank, position). An entry counts only while the pair at its position still
 * has its rank; each rank belongs to one pair, so nothing else need be remembered. */
static void merge_long(const struct bpe *b, struct bpe_scratch *s, const int32_t *first, size_t n, struct ids *out) {
    long_start(b, s, first, n);
    while (s->heap_n) {
        uint64_t top = s->heap[0];
        s->heap[0] = s->heap[--s->heap_n];
        if (s->heap_n) sift_down(s->heap, s->heap_n, 0);
        uint32_t i = (uint32_t)top;
        struct symbol *a = &s->sym[i];
        if (a->rank != (uint32_t)(top >> 32)) continue;
        struct symbol *r = &s->sym[a->next];
        a->id = merge_find(b, a->id, r->id)->id;
        a->next = r->next;
        r->id = r->rank = NONE;
        if (a->next != NONE) s->sym[a->next].prev = i;
        pair_note(b, s, i);
        if (a->prev != NONE) pair_note(b, s, a->prev);
    }
    for (uint32_t i = 0; i != NONE; i = s->sym[i].next) out->v[out->n++] = (int32_t)s->sym[i].id;
    if (s->sym_cap > KEEP || s->heap_cap > KEEP) {
        free(s->sym);
        free(s->heap);
        s->sym = NULL;
        s->heap = NULL;
        s->sym_cap = s->heap_cap = 0;
    }
}

/* ---- from text to symbols ---- */

static int32_t char_find(const struct bpe *b, const char *p, size_t *w) {
    uint32_t c = uc_get(p, w);
    return c < 65536 ? b->char_id[c] : vocab_find_bytes(&b->vocab, p, *w);
}

static bool add_byte_tokens(const struct bpe *b, const char *p, size_t w, struct ids *to) {
    for (size_t i = 0; i < w; i++)
        if (b->byte_id[(unsigned char)p[i]] < 0) return false;
    for (size_t i = 0; i < w; i++) ids_add(to, b->byte_id[(unsigned char)p[i]]);
    return true;
}

/* The reference holds an unknown character back until a known one follows, so byte tokens may overtake it; without an
 * unknown token the character vanishes. Both are kept. */
static int symbols(const struct bpe *b, const char *p, size_t n, struct ids *to, struct err *e) {
    bool pending = false;
    for (size_t i = 0, w; i < n; i += w) {
        w = 1;
        int32_t id = b->vocab.byte_level ? b->byte_id[(unsigned char)p[i]] : char_find(b, p + i, &w);
        if (id >= 0) {
            if (pending) ids_add(to, b->unk);
            pending = false;
            ids_add(to, id);
            continue;
        }
        if (b->byte_fallback && add_byte_tokens(b, p + i, w, to)) continue;
        if (!b->has_unk) continue;
        if (b->unk < 0)
            return err_input(e,
                             "the text has a character that this tokenizer does not know, and its unknown token is not "
                             "in the vocabulary");
        if (pending && !b->fuse_unk) ids_add(to, b->unk);
        pending = true;
    }
    if (pending) ids_add(to, b->unk);
    return 0;
}

static int merge_part(const struct bpe *b, struct bpe_scratch *s, const char *p, size_t n, struct ids *out,
                      struct err *e) {
    s->first.n = 0;
    if (symbols(b, p, n, &s->first, e)) return -1;
    ids_room(out, s->first.n);
    if (s->first.n <= SHORT)
        merge_short(b, s->first.v, s->first.n, out);
    else
        merge_long(b, s, s->first.v, s->first.n, out);
    if (s->first.cap > KEEP) ids_release(&s->first);
    return 0;
}

/* ---- words remembered ---- */

static inline uint64_t low_bytes(uint64_t x, size_t n) { return n >= 8 ? x : x & ((1ull << 8 * n) - 1); }

static inline void key_load(uint64_t k[3], const char *p, size_t n, size_t slack) {
    if (n + slack >= KEY_BYTES)
        memcpy(k, p, KEY_BYTES);
    else
        memcpy(k, p, n);
    k[0] = low_bytes(k[0], n);
    k[1] = n > 8 ? low_bytes(k[1], n - 8) : 0;
    k[2] = n > 16 ? low_bytes(k[2], n - 16) : 0;
}

static inline struct word *cache_slot(struct bpe_scratch *s, const uint64_t k[3], size_t n, bool part) {
    uint64_t h = hash_mix(k[0] ^ 0x9e3779b97f4a7c15u, k[1] ^ (n * 2 + part + 0xe7037ed1a0b428dbu));
    h = hash_mix(h ^ k[2], 0x8ebc6af09c88c6e3u);
    return &s->cache[h % CACHE_SLOTS];
}

static inline bool cache_hit(const struct word *c, const uint64_t k[3], size_t n, bool part) {
    return c->len == n && c->part == part && c->key[0] == k[0] && c->key[1] == k[1] && c->key[2] == k[2];
}

static void cache_put(struct word *c, const uint64_t k[3], size_t n, bool part, const int32_t *ids, size_t n_ids) {
    if (n_ids > KEY_IDS) return;
    memcpy(c->key, k, sizeof c->key);
    memcpy(c->ids, ids, n_ids * sizeof *ids);
    c->len = (uint8_t)n;
    c->n = (uint8_t)n_ids;
    c->part = part;
}

/* Where the part that starts at w ends: before the first character no token could tie to its predecessor. Both must be
 * known characters, for byte tokens and unknown ones follow other rules. */
static size_t part_end(const struct bpe *b, const char *w, size_t n) {
    const unsigned char *p = (const unsigned char *)w;
    for (size_t i = 1; i < n; i++) {
        if (b->can_join[p[i - 1] * 4 + p[i] / 64] >> p[i] % 64 & 1) continue;
        if (b->vocab.byte_level) return i;
        size_t wide;
        if ((p[i] & 0xc0) != 0x80 && char_find(b, w + i, &wide) >= 0 && char_find(b, w + uc_before(w, i), &wide) >= 0)
            return i;
    }
    return n;
}

static int part_remembered(const struct bpe *b, struct bpe_scratch *s, struct bpe_text t, struct ids *out,
                           struct err *e) {
    uint64_t k[3];
    key_load(k, t.s, t.n, t.slack);
    struct word *c = cache_slot(s, k, t.n, true);
    if (cache_hit(c, k, t.n, true)) {
        ids_room(out, KEY_IDS);
        memcpy(out->v + out->n, c->ids, sizeof c->ids);
        out->n += c->n;
        return 0;
    }
    size_t from = out->n;
    if (merge_part(b, s, t.s, t.n, out, e)) return -1;
    cache_put(c, k, t.n, true, out->v + from, out->n - from);
    return 0;
}

static int long_word(const struct bpe *b, struct bpe_scratch *s, struct bpe_text t, struct ids *out, struct err *e) {
    if (b->vocab.byte_level && !b->all_bytes) return merge_part(b, s, t.s, t.n, out, e);
    while (t.n) {
        struct bpe_text p = {t.s, part_end(b, t.s, t.n), 0};
        p.slack = t.n - p.n + t.slack;
        int rc = p.n <= KEY_BYTES ? part_remembered(b, s, p, out, e) : merge_part(b, s, p.s, p.n, out, e);
        if (rc) return rc;
        t.s += p.n;
        t.n -= p.n;
    }
    return 0;
}

/* With ignore_merges a word that is a token is that token, whatever the merges would make of it. */
static int whole_word(const struct bpe *b, struct bpe_scratch *s, struct bpe_text t, struct ids *out, struct err *e) {
    if (b->ignore_merges && t.n <= b->vocab.longest) {
        int32_t id = vocab_find_bytes(&b->vocab, t.s, t.n);
        if (id >= 0) return ids_add(out, id), 0;
    }
    return t.n <= KEY_BYTES ? merge_part(b, s, t.s, t.n, out, e) : long_word(b, s, t, out, e);
}

int bpe_word(const struct bpe *b, struct bpe_scratch *s, struct bpe_text t, struct ids *out, struct err *e) {
    if (t.n > KEY_BYTES) return whole_word(b, s, t, out, e);
    uint64_t k[3];
    key_load(k, t.s, t.n, t.slack);
    struct word *c = cache_slot(s, k, t.n, false);
    ids_room(out, KEY_IDS);
    if (cache_hit(c, k, t.n, false)) {
        memcpy(out->v + out->n, c->ids, sizeof c->ids);
        out->n += c->n;
        return 0;
    }
    size_t from = out->n;
    if (whole_word(b, s, t, out, e)) return -1;
    cache_put(c, k, t.n, false, out->v + from, out->n - from);
    return 0;
}
