/* batch.c: laying out, sealing and checking a batch. No state. */
#include "flow/batch.h"

#include <string.h>

static size_t up64(size_t n) { return (n + 63) & ~(size_t)63; }

static size_t lay_out(struct batch *b, const struct batch_limits *lim) {
    size_t at = up64(sizeof *b);
    size_t seqs = at;
    at = up64(at + (size_t)lim->max_seqs * sizeof(struct batch_seq));
    size_t slots = at;
    at = up64(at + (size_t)lim->max_seqs * sizeof(struct batch_slot));
    size_t pages = at;
    at = up64(at + (size_t)lim->max_pages * sizeof(struct batch_page));
    size_t tokens = at;
    at = up64(at + (size_t)lim->max_tokens * sizeof(int32_t));
    if (b) {
        b->seqs_at = (uint32_t)seqs;
        b->slots_at = (uint32_t)slots;
        b->pages_at = (uint32_t)pages;
        b->tokens_at = (uint32_t)tokens;
        b->size = (uint32_t)at;
    }
    return at;
}

size_t batch_size(const struct batch_limits *lim) { return lay_out(NULL, lim); }

struct batch *batch_init(void *mem, const struct batch_limits *lim) {
    struct batch *b = mem;
    memset(b, 0, lay_out(NULL, lim));
    b->abi = BATCH_ABI;
    lay_out(b, lim);
    return b;
}

void batch_reset(struct batch *b, uint64_t step) {
    b->step = step;
    b->n_seqs = b->n_tokens = b->n_rows = b->n_slots = b->n_pages = b->n_given = 0;
    b->checksum = 0;
}

static uint64_t mix_word(uint64_t h, uint64_t w) {
    h = (h ^ w) * 1099511628211u;
    return h ^ h >> 32;
}

/* FNV-1a's way over words of 8 bytes (then 4): all parts are multiples of 4. Four at a time, each with its own chain:
 * one multiplication waits for the one before it. */
static uint64_t mix(uint64_t h, const void *p, size_t n) {
    enum { LANES = 4 };
    const unsigned char *s = p;
    size_t i = 0;
    uint64_t lane[LANES] = {h, h + 1, h + 2, h + 3}, w[LANES];
    for (; i + sizeof w <= n; i += sizeof w) {
        memcpy(w, s + i, sizeof w);
        for (int k = 0; k < LANES; k++) lane[k] = mix_word(lane[k], w[k]);
    }
    for (int k = 1; k < LANES; k++) lane[0] = mix_word(lane[0], lane[k]);
    for (; i + 4 <= n; i += 4) {
        uint32_t half;
        memcpy(&half, s + i, 4);
        lane[0] = mix_word(lane[0], half);
    }
    return lane[0];
}

static uint32_t checksum(const struct batch *b) {
    uint64_t h = mix(14695981039346656037u, &b->step, sizeof *b - offsetof(struct batch, step));
    h = mix(h, batch_seqs(b), (size_t)b->n_seqs * sizeof(struct batch_seq));
    h = mix(h, batch_slots(b), (size_t)b->n_slots * sizeof(struct batch_slot));
    h = mix(h, batch_pages(b), (size_t)b->n_pages * sizeof(struct batch_page));
    h = mix(h, batch_tokens(b), (size_t)b->n_given * sizeof(int32_t));
    return (uint32_t)(h ^ h >> 32);
}

void batch_seal(struct batch *b) { b->checksum = checksum(b); }

int batch_check(const struct batch *b) { return b->abi == BATCH_ABI && b->checksum == checksum(b) ? 0 : -1; }

/* ---- for another process: the header, then the arrays one behind the other ---- */

struct run {
    void *at;
    size_t n;
};

static void runs_of(const struct batch *b, struct run r[4]) {
    r[0] = (struct run){batch_seqs(b), (size_t)b->n_seqs * sizeof(struct batch_seq)};
    r[1] = (struct run){batch_slots(b), (size_t)b->n_slots * sizeof(struct batch_slot)};
    r[2] = (struct run){batch_pages(b), (size_t)b->n_pages * sizeof(struct batch_page)};
    r[3] = (struct run){batch_tokens(b), (size_t)b->n_given * sizeof(int32_t)};
}

size_t batch_pack(const struct batch *b, void *out) {
    struct run r[4];
    char *to = out;
    memcpy(to, b, sizeof *b);
    to += sizeof *b;
    runs_of(b, r);
    for (int i = 0; i < 4; i++) {
        memcpy(to, r[i].at, r[i].n);
        to += r[i].n;
    }
    return (size_t)(to - (char *)out);
}

/* The arrays lie where `to` has them and the counts fit between. */
static int same_limits(const struct batch *to, const struct batch *h) {
    if (h->abi != BATCH_ABI || h->seqs_at != to->seqs_at || h->slots_at != to->slots_at || h->pages_at != to->pages_at ||
        h->tokens_at != to->tokens_at || h->size != to->size)
        return 0;
    if (h->n_seqs < 0 || h->n_slots < 0 || h->n_pages < 0 || h->n_given < 0) return 0;
    return (size_t)h->n_seqs * sizeof(struct batch_seq) <= h->slots_at - h->seqs_at &&
           (size_t)h->n_slots * sizeof(struct batch_slot) <= h->pages_at - h->slots_at &&
           (size_t)h->n_pages * sizeof(struct batch_page) <= h->tokens_at - h->pages_at &&
           (size_t)h->n_given * sizeof(int32_t) <= h->size - h->tokens_at;
}

int batch_unpack(struct batch *to, const void *packed, size_t n) {
    struct batch h;
    struct run r[4];
    const char *from = (const char *)packed + sizeof h;
    if (n < sizeof h) return -1;
    memcpy(&h, packed, sizeof h);
    if (!same_limits(to, &h)) return -1;
    *to = h;
    runs_of(to, r);
    size_t want = sizeof h;
    for (int i = 0; i < 4; i++) want += r[i].n;
    if (n != want) return -1;
    for (int i = 0; i < 4; i++) {
        memcpy(r[i].at, from, r[i].n);
        from += r[i].n;
    }
    return batch_check(to);
}
