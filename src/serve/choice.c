/* choice.c: see choice.h. A choice's state belongs to one thread. It refuses nothing: its fields were validated. */
#include "serve/choice.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>

enum { TEXT_MAX = 1 << 30 };

static uint64_t next_id(void) {
    static atomic_uint_fast64_t last; /* only to tell requests apart in logs */
    return atomic_fetch_add(&last, 1) + 1;
}

static void set_stop_ids(struct choice *c) {
    const struct params *p = c->par;
    int n = 0;
    for (int i = 0; i < p->n_stop_ids; i++) c->stop_ids[n++] = p->stop_ids[i];
    for (int i = 0; i < c->front->n_eos && !p->ignore_eos && n < STOP_IDS_MAX; i++) c->stop_ids[n++] = c->front->eos[i];
    c->req.stop_ids = c->stop_ids;
    c->req.n_stop_ids = n;
}

/* Below this a division by the temperature only makes infinities; the most likely token is the limit. */
static float temperature_of(const struct params *p) { return p->temperature < 1e-4 ? 0 : (float)p->temperature; }

void choice_init(struct choice *c, const struct choice_args *a) {
    const struct params *p = a->par;
    *c = (struct choice){.front = a->front, .par = p, .index = a->index, .stop_at = STOP_NONE};
    buf_init(&c->text, TEXT_MAX);
    if (!a->max_tokens) {
        c->done = true;
        c->finish = FINISH_LENGTH;
        return;
    }
    c->out = words_out_new(a->front->words, p);
    c->req = (struct request){
        .id = next_id(),
        .prompt = a->prompt,
        .n_prompt = a->n_prompt,
        .max_tokens = a->max_tokens,
        .cache_salt = p->cache_salt,
        .sampling = {.temperature = temperature_of(p),
                     .top_p = p->top_p < 1e-6 ? 1e-6f : (float)p->top_p,
                     .min_p = (float)p->min_p,
                     .top_k = (int32_t)p->top_k,
                     .seed = a->seed,
                     .n_logprobs = (int32_t)p->logprobs},
        .owner = c,
    };
    set_stop_ids(c);
    c->req.out_tokens = mem_array((size_t)a->max_tokens, sizeof *c->req.out_tokens);
    if (p->logprobs >= 0) c->req.out_logprobs = mem_array((size_t)a->max_tokens, sizeof *c->req.out_logprobs);
}

void choice_release(struct choice *c) {
    if (c->in_flight)
        BUG("a choice is released while the scheduler has its request %llu", (unsigned long long)c->req.id);
    words_out_free(c->out);
    buf_release(&c->text);
    free(c->req.out_tokens);
    free(c->req.out_logprobs);
}

bool choice_submit(struct choice *c, struct outbox *box) {
    c->req.arrival = clock_ns();
    if (c->done) return true;
    c->req.outbox = box;
    if (c->front->timeout_s > 0) c->req.deadline = c->req.arrival + (uint64_t)c->front->timeout_s * 1000000000u;
    c->in_flight = true; /* before the push: news may come at once */
    if (inbox_push(c->front->inbox, &c->req)) return true;
    c->in_flight = false;
    return false;
}

static void end(struct choice *c, enum finish finish, int stop_at) {
    c->done = true;
    c->finish = finish;
    c->stop_at = stop_at;
}

static bool is_eos(const struct choice *c, int32_t id) {
    for (int i = 0; i < c->front->n_eos; i++)
        if (c->front->eos[i] == id) return true;
    return false;
}

/* The stop token itself is text only when it was asked for. */
static bool shows(const struct choice *c, const struct news *n, int32_t i) {
    return n->finish != FINISH_STOP || i < n->n_out - 1 || c->par->include_stop_str;
}

static void add_tokens(struct choice *c, const struct news *n) {
    while (c->n_counted < n->n_out && !c->done) {
        int32_t i = c->n_counted++;
        if (!shows(c, n, i)) continue;
        int hit = words_out_push(c->out, c->req.out_tokens[i], &c->text);
        if (hit >= 0) end(c, FINISH_STOP, hit);
    }
}

static void finish(struct choice *c, enum finish how) {
    int hit = words_out_end(c->out, &c->text);
    if (hit >= 0)
        end(c, FINISH_STOP, hit);
    else if (how == FINISH_STOP)
        end(c, how, is_eos(c, c->req.stop_id) ? STOP_NONE : STOP_BY_ID);
    else
        end(c, how, STOP_NONE);
}

void choice_news(struct choice *c, const struct news *n) {
    bool was_done = c->done;
    if (n->n_cached > c->n_cached) c->n_cached = n->n_cached;
    if (!c->done) add_tokens(c, n);
    if (!c->done && n->finish != FINISH_NONE) finish(c, n->finish);
    if (n->finish != FINISH_NONE)
        c->in_flight = false;
    else if (c->done && !was_done)
        inbox_cancel(c->front->inbox, &c->req);
}

void choice_cancel(struct choice *c) {
    if (!c->done) {
        end(c, FINISH_ABORT, STOP_NONE);
        if (c->in_flight) inbox_cancel(c->front->inbox, &c->req);
    }
}
