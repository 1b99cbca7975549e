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

/* FNV-1a's way over words of 8 bytes (then 4): all parts are multiples of 4. */
static uint64_t mix(uint64_t h, const void *p, size_t n) {
    const unsigned char *s = p;
    size_t i = 0;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        h = (h ^ w) * 1099511628211u;
        h ^= h >> 32;
    }
    for (uint32_t w; i + 4 <= n; i += 4) {
        memcpy(&w, s + i, 4);
        h = (h ^ w) * 1099511628211u;
    }
    return h;
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
