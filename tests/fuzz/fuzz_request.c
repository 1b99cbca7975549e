/* fuzz_request.c: a request's body from bytes to a job with its choices, on all three routes. What passes must be
 * within the limits that the scheduler relies on. */
#include "serve/job.h"
#include "serve/json_in.h"
#include "text/template.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { VOCAB = 300, CONTEXT = 200 };

static struct front front;
static struct words_tmp *tmp;

static void start(void) {
    static const char *const names[] = {"m", NULL};
    static const int32_t eos[] = {4};
    struct tokenizer *t = tokenizer_bytes(VOCAB);
    struct err e;
    struct chat_template *c = chat_template_open(NULL, "tests/fuzz/chat.jinja", &e);
    if (!c) abort();
    struct words *w = words_new(t, c);
    front = (struct front){
        .words = w,
        .env = {.n_vocab = VOCAB, .max_model_len = CONTEXT, .names = names, .temperature = 1, .top_p = 1},
        .eos = eos,
        .n_eos = 1,
        .max_choices = 64};
    tmp = words_tmp_new(w);
}

static void check(const struct request *r) {
    if (!r->n_prompt && !r->out_tokens) return; /* echo alone */
    if (r->n_prompt < 1 || r->max_tokens < 1 || (int64_t)r->n_prompt + r->max_tokens > CONTEXT) abort();
    for (int i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= VOCAB) abort();
    for (int i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] < 0 || r->stop_ids[i] >= VOCAB) abort();
    const struct sampling *s = &r->sampling;
    if (!(s->temperature >= 0 && s->temperature <= 2) || !(s->top_p > 0 && s->top_p <= 1)) abort();
    if (!(s->min_p >= 0 && s->min_p <= 1) || s->top_k < 0 || s->top_k > VOCAB) abort();
    if (s->n_logprobs < -1 || s->n_logprobs > LOGPROBS_MAX || (s->n_logprobs >= 0) != !!r->out_logprobs) abort();
}

static void one(const char *p, size_t n, enum route route) {
    struct job j;
    struct api_err e = {0};
    job_init(&j, &front);
    json_t *body = json_read(p, n, &e);
    bool ok = body && !job_prepare(&j, tmp, route, body, &e);
    json_decref(body);
    if (ok == (e.status != 0) || (e.status && e.status != 400 && e.status != 404)) abort();
    for (int i = 0; ok && i < j.n_choices; i++) check(&j.choices[i].req);
    struct buf b;
    buf_init(&b, 1 << 16);
    if (!ok) api_err_json(&b, &e);
    json_t *back = ok ? NULL : json_loadb(buf_str(&b), b.len, 0, NULL);
    if (!ok && !back) abort();
    json_decref(back);
    buf_release(&b);
    job_release(&j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (!tmp) start();
    one((const char *)data, n, ROUTE_CHAT);
    one((const char *)data, n, ROUTE_COMPLETIONS);
    one((const char *)data, n, ROUTE_GENERATE);
    return 0;
}
