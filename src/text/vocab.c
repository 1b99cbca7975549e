/* vocab.c: see vocab.h. Built by the loading thread, constant afterwards. Refuses a second string or id. */
#include "text/vocab.h"

#include "base/utf8.h"
#include "text/unicode.h"

#include <stdlib.h>

/* Printable Latin-1 stands for itself; the other 68 bytes follow U+0100 in order. */
static bool stands_for_itself(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

int byte_alphabet_get(uint32_t c) {
    if (c < 256) return stands_for_itself(c) ? (int)c : -1;
    uint32_t k = c - 256; /* the k-th of 0..32, 127..160, 173 */
    if (k <= 32) return (int)k;
    if (k <= 66) return (int)(k - 33 + 127);
    return k == 67 ? 173 : -1;
}

size_t byte_alphabet_put(unsigned char b, char out[4]) {
    uint32_t c = b;
    if (!stands_for_itself(b)) c = 256u + (b <= 32 ? b : b <= 160 ? b - 127u + 33 : 67u);
    return utf8_put(c, out);
}

uint64_t hash_bytes(const char *s, size_t n) {
    const uint64_t k0 = 0x9e3779b97f4a7c15u, k1 = 0xe7037ed1a0b428dbu;
    uint64_t h = n * k0, x;
    for (; n >= 8; n -= 8, s += 8) {
        memcpy(&x, s, 8);
        h = hash_mix(h ^ x, k1);
    }
    x = 0;
    for (size_t i = 0; i < n; i++) x |= (uint64_t)(unsigned char)s[i] << 8 * i;
    return hash_mix(h ^ x, k0 ^ k1);
}

static uint32_t hash_key(struct vocab_key k) { return (uint32_t)hash_bytes(k.s, k.n) + k.kind; }

static void slots_new(struct vocab *v, size_t n) {
    v->slot = mem_array(n, sizeof *v->slot);
    memset(v->slot, 0xff, n * sizeof *v->slot);
    v->mask = n - 1;
}

void vocab_init(struct vocab *v, bool byte_level) {
    *v = (struct vocab){.byte_level = byte_level};
    slots_new(v, 1024);
}

void vocab_release(struct vocab *v) {
    free(v->pool);
    free(v->tok);
    free(v->slot);
    *v = (struct vocab){0};
}

struct vocab_key vocab_key(const struct vocab *v, const char *text, size_t n, char *tmp) {
    if (!v->byte_level) return (struct vocab_key){text, n, VOCAB_MAPPED};
    size_t len = 0;
    for (size_t i = 0, w; i < n; i += w) {
        int b = byte_alphabet_get(uc_get(text + i, &w));
        if (b < 0) return (struct vocab_key){text, n, VOCAB_RAW};
        tmp[len++] = (char)b;
    }
    return (struct vocab_key){tmp, len, VOCAB_MAPPED};
}

static bool same(const struct vocab *v, int32_t id, struct vocab_key k) {
    const struct vocab_token *t = &v->tok[id];
    return t->len == k.n && t->kind == k.kind && !memcmp(v->pool + t->off, k.s, k.n);
}

/* The slot that holds k, or the free one where it belongs. */
static struct vocab_slot *find(const struct vocab *v, struct vocab_key k, uint32_t hash) {
    for (size_t i = hash & v->mask;; i = (i + 1) & v->mask) {
        struct vocab_slot *s = &v->slot[i];
        if (s->id < 0 || (s->hash == hash && same(v, s->id, k))) return s;
    }
}

int32_t vocab_find(const struct vocab *v, struct vocab_key k) {
    return k.n > VOCAB_MAX_TOKEN ? -1 : find(v, k, hash_key(k))->id;
}

static void grow_slots(struct vocab *v) {
    struct vocab_slot *old = v->slot;
    size_t n = v->mask + 1;
    slots_new(v, n * 4);
    for (size_t i = 0; i < n; i++) {
        if (old[i].id < 0) continue;
        size_t j = old[i].hash & v->mask;
        while (v->slot[j].id >= 0) j = (j + 1) & v->mask;
        v->slot[j] = old[i];
    }
    free(old);
}

static void grow_ids(struct vocab *v, size_t id) {
    if (id >= v->tok_cap) {
        size_t cap = id + 1 + id / 2 + 256;
        v->tok = mem_grow(v->tok, cap, sizeof *v->tok);
        v->tok_cap = cap;
    }
    if (id < v->n_ids) return;
    memset(v->tok + v->n_ids, 0, (id + 1 - v->n_ids) * sizeof *v->tok);
    v->n_ids = id + 1;
}

int vocab_add(struct vocab *v, struct vocab_key k, uint32_t id) {
    if (id > VOCAB_MAX_ID || k.n > VOCAB_MAX_TOKEN || v->pool_len > UINT32_MAX - VOCAB_MAX_TOKEN) return -3;
    if (vocab_has(v, id)) return -2;
    if (v->n * 2 >= v->mask) grow_slots(v);
    uint32_t hash = hash_key(k);
    struct vocab_slot *s = find(v, k, hash);
    if (s->id >= 0) return -1;
    grow_ids(v, id);
    if (v->pool_cap - v->pool_len < k.n) {
        v->pool_cap += v->pool_cap / 2 + k.n + 4096;
        v->pool = mem_grow(v->pool, v->pool_cap, 1);
    }
    if (k.n) memcpy(v->pool + v->pool_len, k.s, k.n);
    v->tok[id] = (struct vocab_token){.off = (uint32_t)v->pool_len, .len = (uint16_t)k.n, .kind = k.kind};
    *s = (struct vocab_slot){.hash = hash, .id = (int32_t)id};
    v->pool_len += k.n;
    v->n++;
    if (k.kind == VOCAB_MAPPED && k.n > v->longest) v->longest = k.n;
    return 0;
}

void vocab_text(const struct vocab *v, size_t id, struct buf *out) {
    const struct vocab_token *t = &v->tok[id];
    const char *s = v->pool + t->off;
    if (!v->byte_level || t->kind == VOCAB_RAW) {
        buf_add(out, s, t->len);
        return;
    }
    for (size_t i = 0; i < t->len; i++) {
        char u[4];
        buf_add(out, u, byte_alphabet_put((unsigned char)s[i], u));
    }
}
