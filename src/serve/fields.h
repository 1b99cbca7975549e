/* fields.h: the fields of a request: one table that validates them, fills struct params, and documents itself.
 *
 * Every field is bounded by value, count and cost here, before anything else looks at it: a request that passes cannot
 * make later stages fail. null counts as absent. Unknown fields are ignored; a known field with a value that cannot be
 * honoured is refused. A new field is a new row (and a member of struct params). */
#ifndef MINISGL_SERVE_FIELDS_H
#define MINISGL_SERVE_FIELDS_H
#include "base/buf.h"
#include "serve/api_err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum route { ROUTE_CHAT = 1, ROUTE_COMPLETIONS = 2, ROUTE_GENERATE = 4 };

enum { STOPS_MAX = 4, STOP_BYTES_MAX = 1024, STOP_TOKENS_MAX = 128, N_MAX = 128, SALT_MAX = 256, KWARGS_MAX = 32 };

struct stop_text {
    char *s;
    size_t n;
};

struct params {
    enum route route;
    bool stream, include_usage, continuous_usage, has_stream_options;
    bool echo, ignore_eos, skip_special_tokens, include_stop_str, add_generation_prompt, continue_final, add_special;
    bool has_add_generation_prompt, has_add_special;
    bool chat_logprobs;
    int64_t top_logprobs; /* -1: absent */
    int64_t logprobs; /* what the engine is asked for: -1 none, else how many of the most likely; set for all routes */
    int64_t n, best_of;
    int64_t max_tokens, max_completion_tokens; /* -1: absent; after fields_read max_tokens is the one that counts */
    double temperature, top_p, min_p;
    int64_t top_k; /* 0: off */
    int64_t seed;
    bool has_seed;
    struct stop_text stop[STOPS_MAX]; /* owned: params_release */
    int n_stop;
    int32_t stop_ids[STOP_TOKENS_MAX];
    int n_stop_ids;
    char *cache_salt;  /* owned; NULL: none */
    const char *model; /* the served name that was asked for; NULL: none was named */
    /* Borrowed from the body; NULL when absent. job_prepare uses them and sets them to NULL. */
    json_t *prompt, *prompt_ids, *messages, *tools, *tool_choice, *kwargs, *reasoning_effort;
};

/* What the model and the operator say. */
struct field_env {
    int32_t n_vocab; /* width of the logits: every token id of a request is below it */
    int32_t max_model_len;
    const char *const *names;         /* served model names, NULL-terminated */
    const char *alias;                /* one more that is accepted and never shown; NULL: none */
    double temperature, top_p, min_p; /* defaults for requests that say nothing */
    int32_t top_k;
};

/* Read the fields of `body` that `route` knows. 0, or -1 and *e. params_release in both cases. */
int fields_read(json_t *body, enum route route, const struct field_env *env, struct params *p, struct api_err *e);
void params_release(struct params *p);

/* The table as Markdown, for the documentation. */
void fields_markdown(struct buf *b);

#endif
