/* request.h: the first of the three nouns that travel: what a client asked for, and what it got so far.
 *
 *   front end (serve, cli)  --inbox-->  scheduler thread  --outbox-->  front end
 *
 * The front end makes a request, fills the upper part, and pushes it into the inbox; from then on it may only
 * call request_cancel(). The scheduler appends to out_tokens and lets the outbox carry the news. When the front end has
 * taken news with a finish other than FINISH_NONE, the scheduler has forgotten the request and it may be freed. */
#ifndef MINISGL_FLOW_REQUEST_H
#define MINISGL_FLOW_REQUEST_H
#include "flow/sampling.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { STOP_IDS_MAX = 128 + 32 };

enum finish {
    FINISH_NONE,
    FINISH_STOP,   /* a stop token id or EOS; stop_id tells which. Stop strings are the front end's: it cancels */
    FINISH_LENGTH, /* max_tokens or the context length */
    FINISH_ABORT,  /* cancelled */
    FINISH_TIMEOUT, /* its deadline passed */
    FINISH_ERROR   /* the model computed no valid number for the next token */
};

struct outbox;

struct request {
    /* Filled by the front end; constant from inbox_push on. */
    uint64_t id;             /* for logs; unique in the process */
    const int32_t *prompt;   /* [n_prompt], 0 <= id < vocab; owned by the front end */
    int32_t n_prompt;        /* >= 1 */
    int32_t max_tokens;      /* >= 1; n_prompt + max_tokens <= context length */
    const int32_t *stop_ids; /* [n_stop_ids], EOS ids included unless ignored; at most STOP_IDS_MAX */
    int32_t n_stop_ids;
    uint64_t arrival;        /* clock_ns() when it was handed over; only the front end looks at it */
    uint64_t deadline;       /* clock_ns() by which it must have finished; 0: none */
    const char *cache_salt;  /* NULL: none. Prefixes are shared only among requests with the same salt */
    struct sampling sampling;
    struct outbox *outbox;   /* where news goes */
    void *owner;             /* the front end's own; never touched by anyone else */

    /* Written by the scheduler thread under the outbox's lock; read by the front end through outbox_take. */
    int32_t *out_tokens;                 /* [max_tokens], memory of the front end */
    struct token_logprobs *out_logprobs; /* [max_tokens] or NULL when n_logprobs < 0 */
    int32_t n_out;                       /* how many are valid */
    enum finish finish;
    int32_t stop_id;       /* the id that ended it, with FINISH_STOP; it is the last of out_tokens */
    int32_t n_cached;      /* prompt tokens found in the prefix cache */
    uint64_t admitted;     /* the clock when it left the queue for the first time; 0: not yet */
    bool in_outbox;
    struct request *next_out;

    /* Cancelling: the only word a front end has after inbox_push. */
    atomic_bool cancelled;

    /* The scheduler's. */
    struct request *next_in;
};

#endif
