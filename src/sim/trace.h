/* trace.h: requests to simulate: from a file of real ones, or made up.
 *
 * Formats, told apart by their first line:
 *   Mooncake       JSON lines {"timestamp": ms, "input_length", "output_length", "hash_ids"}; an id stands for 512
 * tokens Qwen-Bailian   JSON lines with "chat_id"; timestamps in seconds, an id stands for 16 tokens Azure          CSV
 * TIMESTAMP,ContextTokens,GeneratedTokens; nothing is known of shared beginnings Prompts are given by block ids: equal
 * ids make equal tokens, so beginnings are shared as they were in the real trace. */
#ifndef MINISGL_SIM_TRACE_H
#define MINISGL_SIM_TRACE_H
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct trace_request {
    double at; /* seconds from the start */
    int32_t n_prompt, n_out;
    int32_t n_ids; /* blocks of the prompt that have an id; the rest is like no other request's */
    size_t ids_at;
};

struct trace {
    const char *format;
    struct trace_request *req; /* [n] in order of time */
    int64_t *ids;
    int32_t n, block; /* tokens of one block */
    size_t n_ids;
};

enum { TRACE_LENGTH_MAX = 1 << 24 };

/* From the text of a file: at most `limit` requests. On success trace_release when done. */
int trace_parse(struct trace *t, const char *text, size_t n, int32_t limit, struct err *e);

struct trace_synthetic {
    int32_t n;
    double rate;             /* requests a second; they come independently of each other */
    int32_t n_prompt, n_out; /* means; lengths are spread exponentially, up to eight times the mean */
    double shared;           /* share of each prompt that begins as all others do */
    uint64_t seed;
};
void trace_make(struct trace *t, const struct trace_synthetic *how);

void trace_release(struct trace *t);

/* The tokens of request i's prompt, each 1 or greater: [n_prompt]. */
void trace_tokens(const struct trace *t, int32_t i, int32_t *tokens);

/* Share of all prompt tokens that a cache without end, which learns a prompt when it arrives, would have; of whole
 * pages. */
double trace_best_hit(const struct trace *t, int32_t page_size);

#endif
