/* batch.h: the second noun: one step's work, from the scheduler to every rank's device.
 *
 * A batch is a ragged list of (sequence, new tokens): a decode is a sequence with one new token, a prefill chunk
 * one with many, and both may share a step. It is one contiguous block without pointers: one copy brings it to a GPU, one broadcast to
 * another host. It carries changes only: page tables, sampling parameters and last samples live on the device
 * by slot; a step brings new slots and new pages. Lengths are in the entries (pos + n_tokens).
 *
 * Layout: struct batch, then the arrays at the offsets that batch_size() computed from the limits. */
#ifndef MINISGL_FLOW_BATCH_H
#define MINISGL_FLOW_BATCH_H
#include "flow/sampling.h"

#include <stddef.h>
#include <stdint.h>

enum { BATCH_ABI = 1 };

/* Capacities, fixed at start. */
struct batch_limits {
    int32_t max_tokens; /* new tokens of one step */
    int32_t max_seqs;   /* sequences of one step; slots are 0..max_seqs-1 */
    int32_t max_pages;  /* page-table changes of one step */
};

/* One sequence of the step. Its new tokens are at positions pos .. pos + n_tokens - 1 and attend to everything
 * from position 0 on. Entries are ordered: decodes first, then chunks; row order is the order of logits. */
struct batch_seq {
    int32_t slot;
    int32_t pos;      /* tokens of this slot already in the KV cache */
    int32_t n_tokens; /* >= 1 */
    int32_t token_at; /* index of the first new token in tokens; -1: the one new token is the slot's last sample */
    int32_t row;      /* index among the rows that want logits of their last token, or -1 */
};

/* A slot taken at the start of this step: what the device keeps for it. */
struct batch_slot {
    int32_t slot;
    int32_t reserved; /* 0 */
    struct sampling sampling;
};

/* Page table change: slot's page number `index` (positions index * P ...) is `page`. Applied before the step runs. */
struct batch_page {
    int32_t slot, index, page;
};

struct batch {
    uint32_t abi;
    uint32_t checksum; /* of everything behind this field that is in use: batch_seal, batch_check */
    uint64_t step;
    int32_t n_seqs, n_tokens, n_rows, n_slots, n_pages;
    int32_t n_given; /* entries used in tokens: n_tokens less the fed-back ones */
    uint32_t seqs_at, slots_at, pages_at, tokens_at; /* byte offsets from the start of this struct */
    uint32_t size;                                   /* bytes of the whole block */
};

size_t batch_size(const struct batch_limits *lim);
/* Lay an empty batch into mem (batch_size bytes, 64-byte aligned). */
struct batch *batch_init(void *mem, const struct batch_limits *lim);
void batch_reset(struct batch *b, uint64_t step); /* empty; offsets stay */
void batch_seal(struct batch *b);                 /* compute the checksum when it is complete */
int batch_check(const struct batch *b);           /* 0 when abi and checksum fit */

/* For another process: what is in use, without gaps, into out (b->size bytes are enough); how many bytes. */
size_t batch_pack(const struct batch *b, void *out);
/* The other way; to was laid out by batch_init. -1: the bytes are not a batch of the same limits. */
int batch_unpack(struct batch *to, const void *packed, size_t n);

static inline struct batch_seq *batch_seqs(const struct batch *b) {
    return (struct batch_seq *)((char *)b + b->seqs_at);
}
static inline struct batch_slot *batch_slots(const struct batch *b) {
    return (struct batch_slot *)((char *)b + b->slots_at);
}
static inline struct batch_page *batch_pages(const struct batch *b) {
    return (struct batch_page *)((char *)b + b->pages_at);
}
static inline int32_t *batch_tokens(const struct batch *b) { return (int32_t *)((char *)b + b->tokens_at); }

#endif
