/* reply.c: see reply.h. It belongs to the thread that owns the job. */
#include "serve/reply.h"

#include "base/utf8.h"

#include <math.h>
#include <string.h>

static const char *model_of(const struct job *j) { return j->par.model ? j->par.model : j->front->env.names[0]; }

static void add_z(struct buf *b, const char *s) { buf_add_json(b, s, strlen(s)); }

/* ---- log-probabilities ---- */

/* JSON has no infinity; OpenAI's own floor stands for it. */
static void add_logprob(struct buf *b, float x) {
    if (isfinite(x))
        buf_addf(b, "%.7g", (double)x);
    else
        buf_adds(b, "-9999.0");
}

/* A token's text; when its bytes are no whole characters, their values, so that different tokens stay different. */
static void add_token_text(struct buf *b, const char *p, size_t n) {
    if (utf8_valid(p, n)) {
        buf_add_json(b, p, n);
        return;
    }
    buf_adds(b, "\"bytes:");
    for (size_t i = 0; i < n; i++) buf_addf(b, "\\\\x%02x", (unsigned char)p[i]);
    buf_addc(b, '"');
}

static void add_token(struct buf *b, const struct job *j, int32_t id) {
    struct buf t;
    buf_init(&t, 1 << 20);
    words_token(j->front->words, id, &t);
    add_token_text(b, buf_str(&t), t.len);
    buf_release(&t);
}

static void add_chat_token(struct buf *b, const struct job *j, int32_t id, float logprob) {
    struct buf t;
    buf_init(&t, 1 << 20);
    words_token(j->front->words, id, &t);
    buf_adds(b, "{\"token\":");
    add_token_text(b, buf_str(&t), t.len);
    buf_adds(b, ",\"bytes\":[");
    for (size_t i = 0; i < t.len; i++) buf_addf(b, i ? ",%d" : "%d", (unsigned char)t.data[i]);
    buf_adds(b, "],\"logprob\":");
    add_logprob(b, logprob);
    buf_release(&t);
}

static int top_of(const struct job *j, const struct token_logprobs *l) {
    return l->n < j->par.logprobs ? l->n : (int)j->par.logprobs;
}

static void add_chat_logprobs(struct buf *b, const struct job *j, struct choice *c) {
    buf_adds(b, "{\"content\":[");
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        const struct token_logprobs *l = &c->req.out_logprobs[i];
        if (i > c->n_told) buf_addc(b, ',');
        add_chat_token(b, j, c->req.out_tokens[i], l->chosen);
        buf_adds(b, ",\"top_logprobs\":[");
        for (int k = 0; k < top_of(j, l); k++) {
            if (k) buf_addc(b, ',');
            add_chat_token(b, j, l->top[k].id, l->top[k].logprob);
            buf_addc(b, '}');
        }
        buf_adds(b, "]}");
    }
    buf_adds(b, "],\"refusal\":null}");
}

static size_t token_chars(const struct job *j, int32_t id) {
    struct buf t;
    size_t n = 0;
    buf_init(&t, 1 << 20);
    words_token(j->front->words, id, &t);
    for (size_t i = 0; i < t.len; i++) n += ((unsigned char)t.data[i] & 0xc0) != 0x80;
    buf_release(&t);
    return n;
}

/* {"token": logprob, ...}: the most likely ones, and the chosen one where it is not among them. */
static void add_top_map(struct buf *b, const struct job *j, int32_t id, const struct token_logprobs *l) {
    bool seen = false;
    buf_addc(b, '{');
    for (int k = 0; k < top_of(j, l); k++) {
        if (k) buf_addc(b, ',');
        seen |= l->top[k].id == id;
        add_token(b, j, l->top[k].id);
        buf_addc(b, ':');
        add_logprob(b, l->top[k].logprob);
    }
    if (!seen) {
        if (top_of(j, l)) buf_addc(b, ',');
        add_token(b, j, id);
        buf_addc(b, ':');
        add_logprob(b, l->chosen);
    }
    buf_addc(b, '}');
}

static void add_text_logprobs(struct buf *b, const struct job *j, struct choice *c) {
    const int32_t *ids = c->req.out_tokens;
    buf_adds(b, "{\"text_offset\":[");
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        buf_addf(b, i > c->n_told ? ",%zu" : "%zu", c->told_chars);
        c->told_chars += token_chars(j, ids[i]);
    }
    buf_adds(b, "],\"token_logprobs\":[");
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        if (i > c->n_told) buf_addc(b, ',');
        add_logprob(b, c->req.out_logprobs[i].chosen);
    }
    buf_adds(b, "],\"tokens\":[");
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        if (i > c->n_told) buf_addc(b, ',');
        add_token(b, j, ids[i]);
    }
    buf_adds(b, "],\"top_logprobs\":[");
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        if (i > c->n_told) buf_addc(b, ',');
        add_top_map(b, j, ids[i], &c->req.out_logprobs[i]);
    }
    buf_adds(b, "]}");
}

static void add_plain_logprobs(struct buf *b, const struct job *j, const struct choice *c) {
    buf_addc(b, '[');
    for (int32_t i = c->n_told; i < c->n_counted; i++) {
        const struct token_logprobs *l = &c->req.out_logprobs[i];
        buf_addf(b, "%s{\"token_id\":%d,\"logprob\":", i > c->n_told ? "," : "", c->req.out_tokens[i]);
        add_logprob(b, l->chosen);
        buf_adds(b, ",\"top\":[");
        for (int k = 0; k < top_of(j, l); k++) {
            buf_addf(b, "%s{\"id\":%d,\"logprob\":", k ? "," : "", l->top[k].id);
            add_logprob(b, l->top[k].logprob);
            buf_addc(b, '}');
        }
        buf_adds(b, "]}");
    }
    buf_addc(b, ']');
}

/* What has not been told of c's tokens; marks it told. */
static void add_logprobs(struct buf *b, const struct job *j, struct choice *c) {
    if (j->par.logprobs < 0 || c->n_told == c->n_counted)
        buf_adds(b, "null");
    else if (j->par.route == ROUTE_CHAT)
        add_chat_logprobs(b, j, c);
    else if (j->par.route == ROUTE_COMPLETIONS)
        add_text_logprobs(b, j, c);
    else
        add_plain_logprobs(b, j, c);
}

static void add_ids(struct buf *b, const struct choice *c) {
    buf_addc(b, '[');
    for (int32_t i = c->n_told; i < c->n_counted; i++) buf_addf(b, i > c->n_told ? ",%d" : "%d", c->req.out_tokens[i]);
    buf_addc(b, ']');
}

/* ---- parts ---- */

/* "finish_reason":...,"stop_reason":... */
static void add_finish(struct buf *b, const struct choice *c) {
    buf_addf(b, "\"finish_reason\":\"%s\",\"stop_reason\":", c->finish == FINISH_STOP ? "stop" : "length");
    if (c->finish != FINISH_STOP || c->stop_at == STOP_NONE)
        buf_adds(b, "null");
    else if (c->stop_at == STOP_BY_ID)
        buf_addf(b, "%d", c->req.stop_id);
    else
        buf_add_json(b, c->par->stop[c->stop_at].s, c->par->stop[c->stop_at].n);
}

static void add_usage(struct buf *b, const struct job *j) {
    int64_t prompt = 0, made = 0, cached = 0;
    for (int i = 0; i < j->n_choices; i++) {
        made += j->choices[i].n_counted;
        if (i % j->par.n) continue;
        prompt += j->choices[i].req.n_prompt;
        cached += j->choices[i].n_cached;
    }
    for (int i = 0; i < j->n_prompts && !prompt; i++) prompt += (int64_t)j->prompts[i].ids.n; /* echo alone */
    buf_addf(b,
             "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
             "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
             (long long)prompt, (long long)made, (long long)(prompt + made), (long long)cached);
}

static void add_start(struct buf *b, const struct job *j, const char *object) {
    buf_addf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", j->id, object, (long long)j->created);
    add_z(b, model_of(j));
    buf_adds(b, ",\"choices\":[");
}

/* The prompt, where it is echoed, and the text. */
static void add_text(struct buf *b, const struct job *j, const struct choice *c, bool with_prompt) {
    if (!with_prompt || !j->par.echo) {
        buf_add_json(b, buf_str(&c->text), c->text.len);
        return;
    }
    const struct prompt *p = &j->prompts[c->index / j->par.n];
    struct buf all;
    buf_init(&all, 1 << 30);
    buf_add(&all, p->text, p->text_n);
    buf_add(&all, buf_str(&c->text), c->text.len);
    buf_add_json(b, buf_str(&all), all.len);
    buf_release(&all);
}

/* ---- whole answers ---- */

static void add_choice(struct buf *b, struct job *j, struct choice *c) {
    buf_addf(b, "{\"index\":%d,", c->index);
    if (j->par.route == ROUTE_CHAT) {
        buf_adds(b, "\"message\":{\"role\":\"assistant\",\"content\":");
        add_text(b, j, c, false);
        buf_adds(b, ",\"refusal\":null},\"logprobs\":");
    } else {
        buf_adds(b, "\"text\":");
        add_text(b, j, c, true);
        buf_adds(b, ",\"logprobs\":");
    }
    add_logprobs(b, j, c);
    buf_addc(b, ',');
    add_finish(b, c);
    buf_addc(b, '}');
}

static void add_plain(struct buf *b, struct job *j, struct choice *c) {
    buf_adds(b, "{\"text\":");
    add_text(b, j, c, false);
    buf_adds(b, ",\"token_ids\":");
    add_ids(b, c);
    buf_addc(b, ',');
    add_finish(b, c);
    if (j->par.logprobs >= 0) {
        buf_adds(b, ",\"logprobs\":");
        add_logprobs(b, j, c);
    }
    buf_adds(b, ",\"usage\":");
    add_usage(b, j);
    buf_addc(b, '}');
}

void reply_whole(struct buf *b, struct job *j) {
    if (j->par.route == ROUTE_GENERATE) {
        add_plain(b, j, &j->choices[0]);
        return;
    }
    add_start(b, j, j->par.route == ROUTE_CHAT ? "chat.completion" : "text_completion");
    for (int i = 0; i < j->n_choices; i++) {
        if (i) buf_addc(b, ',');
        add_choice(b, j, &j->choices[i]);
    }
    buf_adds(b, "],\"usage\":");
    add_usage(b, j);
    buf_addc(b, '}');
}

/* ---- streams ---- */

static void event_start(struct buf *b, struct job *j, const struct choice *c) {
    if (!j->head.len) {
        buf_adds(&j->head, "data: ");
        add_start(&j->head, j, j->par.route == ROUTE_CHAT ? "chat.completion.chunk" : "text_completion");
        buf_adds(&j->head, "{\"index\":");
    }
    buf_add(b, j->head.data, j->head.len);
    buf_addf(b, "%d,", c->index);
}

static void event_end(struct buf *b, const struct job *j) {
    buf_adds(b, j->par.include_usage ? "}],\"usage\":" : "}]");
    if (j->par.include_usage && j->par.continuous_usage)
        add_usage(b, j);
    else if (j->par.include_usage)
        buf_adds(b, "null");
    buf_adds(b, "}\n\n");
}

static void add_delta(struct buf *b, struct job *j, struct choice *c) {
    event_start(b, j, c);
    if (j->par.route == ROUTE_CHAT) {
        buf_adds(b, "\"delta\":{\"content\":");
        add_text(b, j, c, false);
        buf_adds(b, "},\"logprobs\":");
    } else {
        buf_adds(b, "\"text\":");
        add_text(b, j, c, !c->told_start);
        buf_adds(b, ",\"logprobs\":");
    }
    add_logprobs(b, j, c);
    buf_adds(b, ",\"finish_reason\":null");
    event_end(b, j);
    c->n_told = c->n_counted;
    c->told_start = true;
    buf_reset(&c->text);
}

static void add_role(struct buf *b, struct job *j, struct choice *c) {
    event_start(b, j, c);
    buf_adds(b, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null");
    event_end(b, j);
    c->told_start = true;
}

static void add_last(struct buf *b, struct job *j, struct choice *c) {
    event_start(b, j, c);
    buf_adds(b, j->par.route == ROUTE_CHAT ? "\"delta\":{}," : "\"text\":\"\",");
    buf_adds(b, "\"logprobs\":null,");
    add_finish(b, c);
    event_end(b, j);
    c->told_end = true;
}

static void plain_event(struct buf *b, struct job *j, struct choice *c) {
    bool untold = c->n_told < c->n_counted && (j->par.logprobs >= 0 || c->text.len || c->done);
    if (!untold && !c->text.len && !c->done) return;
    buf_adds(b, "data: {\"text\":");
    add_text(b, j, c, false);
    buf_adds(b, ",\"token_ids\":");
    add_ids(b, c);
    if (j->par.logprobs >= 0 && untold) {
        buf_adds(b, ",\"logprobs\":");
        add_logprobs(b, j, c);
    }
    if (c->done) {
        buf_addc(b, ',');
        add_finish(b, c);
        buf_adds(b, ",\"usage\":");
        add_usage(b, j);
        c->told_end = true;
    }
    buf_adds(b, "}\n\n");
    c->n_told = c->n_counted;
    buf_reset(&c->text);
}

void reply_events(struct buf *b, struct job *j, struct choice *c) {
    if (c->told_end) return;
    if (j->par.route == ROUTE_GENERATE) {
        plain_event(b, j, c);
        return;
    }
    if (j->par.route == ROUTE_CHAT && !c->told_start) add_role(b, j, c);
    bool untold = j->par.logprobs >= 0 && c->done && c->n_told < c->n_counted;
    bool echo = j->par.echo && !c->told_start;
    if (c->text.len || untold || echo) add_delta(b, j, c);
    if (c->done) add_last(b, j, c);
}

void reply_end(struct buf *b, const struct job *j) {
    if (j->par.include_usage && j->par.route != ROUTE_GENERATE) {
        buf_adds(b, "data: ");
        add_start(b, j, j->par.route == ROUTE_CHAT ? "chat.completion.chunk" : "text_completion");
        buf_adds(b, "],\"usage\":");
        add_usage(b, j);
        buf_adds(b, "}\n\n");
    }
    buf_adds(b, "data: [DONE]\n\n");
}

void reply_failure(struct buf *b, const struct api_err *e) {
    buf_adds(b, "data: ");
    api_err_json(b, e);
    buf_adds(b, "\n\n");
}
