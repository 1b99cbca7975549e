/* result.h: the third noun: what one step produced, from a device back to the scheduler. One entry a row of the
 * batch, in row order. A row may hold several tokens (forced tokens, speculation); plain sampling makes one. */
#ifndef MINISGL_FLOW_RESULT_H
#define MINISGL_FLOW_RESULT_H
#include "flow/sampling.h"

#include <stdint.h>

enum { RESULT_TOKENS = 1 };

struct result_row {
    int32_t slot;
    int32_t n_tokens;
    int32_t tokens[RESULT_TOKENS];
    int32_t bad; /* the logits held a NaN or infinity: the request must end with an error, its pages not be kept */
    struct token_logprobs logprobs; /* valid when the slot's sampling.n_logprobs >= 0 */
};

struct result {
    uint64_t step;
    int32_t n_rows;
    struct result_row *rows; /* [max_seqs] */
};

#endif
