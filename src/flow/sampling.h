/* sampling.h: how a token is chosen and what is told of it: plain data that also lies in a device's memory, so this header
 * compiles as C and as CUDA C++. */
#ifndef MINISGL_FLOW_SAMPLING_H
#define MINISGL_FLOW_SAMPLING_H
#include <stdint.h>

enum { LOGPROBS_MAX = 20 };

/* How the next token is chosen, in this order: logits / temperature, top_k, top_p, min_p, then one sample by
 * Gumbel noise keyed by (seed, position, token id). temperature 0 is greedy: the lowest id among the largest logits. */
struct sampling {
    float temperature;
    float top_p;  /* (0, 1]; 1: off */
    float min_p;  /* [0, 1]; 0: off */
    int32_t top_k; /* 0: off */
    uint64_t seed;
    int32_t n_logprobs; /* -1: none wanted; else the chosen token's and the n most likely (0..LOGPROBS_MAX) */
    int32_t reserved;   /* 0: no padding, since batches are checksummed bytewise */
};

struct logprob {
    int32_t id;
    float logprob;
};

/* The log-probabilities of one generated token, under the untempered distribution (as OpenAI's). */
struct token_logprobs {
    float chosen;
    int32_t n;
    struct logprob top[LOGPROBS_MAX]; /* most likely first */
};

#endif
