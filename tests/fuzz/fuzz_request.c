/* fuzz_request.c: any bytes as a request body, on each route. What passes the field table keeps its promises: every
 * number in its range, counts within their caps. */
#include "serve/fields.h"
#include "serve/json_in.h"
#include "serve/messages.h"

#include <math.h>
#include <stdlib.h>

enum { VOCAB = 1000, CONTEXT = 4096 };

static void check(const struct params *p) {
    if (!(p->temperature >= 0 && p->temperature <= 2) || !(p->top_p > 0 && p->top_p <= 1) || !(p->min_p >= 0 && p->min_p <= 1))
        abort();
    if (p->n < 1 || p->n > N_MAX || p->top_k < 0 || p->top_k > VOCAB || p->logprobs < -1 || p->logprobs > 20) abort();
    if (p->max_tokens < -1 || p->max_tokens > CONTEXT || p->n_stop > STOPS_MAX || p->n_stop_ids > STOP_TOKENS_MAX) abort();
    for (int i = 0; i < p->n_stop; i++)
        if (p->stop[i].n < 1 || p->stop[i].n > STOP_BYTES_MAX) abort();
    for (int i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] < 0 || p->stop_ids[i] >= VOCAB) abort();
}

static void read_messages(const json_t *messages) {
    const struct message_rules rules = {.max_messages = CONTEXT, .max_bytes = 65536, .developer = true};
    struct api_err e = {0};
    json_t *m = messages ? messages_read(messages, &rules, &e) : NULL;
    if (messages && !m && e.status != 400) abort();
    for (size_t i = 0; i < json_array_size(m); i++)
        if (!json_is_string(json_object_get(json_array_get(m, i), "content"))) abort();
    json_decref(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const names[] = {"m", NULL};
    static const enum route routes[] = {ROUTE_CHAT, ROUTE_COMPLETIONS, ROUTE_GENERATE};
    const struct field_env env = {.n_vocab = VOCAB, .max_model_len = CONTEXT, .names = names, .temperature = 1, .top_p = 1};
    struct api_err e = {0};
    json_t *body = json_read((const char *)data, n, &e);
    if (!body) {
        if (e.status != 400 || !e.text[0]) abort();
        return 0;
    }
    for (int i = 0; i < 3; i++) {
        struct params p;
        e = (struct api_err){0};
        if (fields_read(body, routes[i], &env, &p, &e)) {
            if (e.status < 400 || e.status > 499 || !e.text[0]) abort();
        } else {
            check(&p);
            read_messages(p.messages);
        }
        params_release(&p);
    }
    json_decref(body);
    return 0;
}
