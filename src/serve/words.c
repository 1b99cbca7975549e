/* words.c: see words.h. Nothing here changes after it was made, but what one thread owns (words_tmp, words_out). */
#include "serve/words.h"

#include "base/err.h"
#include "base/mem.h"
#include "serve/messages.h"
#include "text/detok.h"
#include "text/stop.h"
#include "text/template.h"

#include <stdlib.h>
#include <string.h>

struct words {
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template;
    size_t longest;
};

struct words_tmp {
    struct token_scratch *scratch;
};

struct words *words_new(const struct tokenizer *tokenizer, const struct chat_template *chat_template) {
    struct words *w = mem_zalloc(1, sizeof *w);
    *w = (struct words){
        .tokenizer = tokenizer, .chat_template = chat_template, .longest = tokenizer_longest_token_bytes(tokenizer)};
    return w;
}

void words_free(struct words *w) { free(w); }

struct words_tmp *words_tmp_new(const struct words *w) {
    struct words_tmp *t = mem_zalloc(1, sizeof *t);
    t->scratch = token_scratch_new(w->tokenizer);
    return t;
}

void words_tmp_free(struct words_tmp *t) {
    if (!t) return;
    token_scratch_free(t->scratch);
    free(t);
}

size_t words_longest(const struct words *w) { return w->longest; }

/* ---- to tokens ---- */

static int encode(const struct words *w, struct words_tmp *t, const struct encode_args *a, const char *param,
                  struct ids *out, struct api_err *e) {
    struct err why;
    int rc = tokenizer_encode(w->tokenizer, t->scratch, a, out, &why);
    if (rc < 0) return api_fail(e, 400, param, "%s", why.text);
    if (rc == ENCODE_TOO_LONG)
        return api_fail_code(e, 400, "context_length_exceeded", param,
                             "the prompt has more tokens than the model's context of %zu; shorten it", a->max_ids);
    return 0;
}

int words_encode(const struct words *w, struct words_tmp *t, const struct words_text *x, struct ids *out,
                 struct api_err *e) {
    struct text_piece piece = {x->s, x->n, true};
    struct encode_args a = {&piece, 1, TOK_PARSE_SPECIAL | (x->add_special ? TOK_ADD_SPECIAL : 0), x->max_ids};
    return encode(w, t, &a, "prompt", out, e);
}

/* chat_template_kwargs, and reasoning_effort as the variable that templates know it by. */
static json_t *template_variables(const struct params *p) {
    json_t *vars = p->kwargs ? json_copy(p->kwargs) : json_object();
    if (p->reasoning_effort && !json_object_get(vars, "reasoning_effort"))
        json_object_set(vars, "reasoning_effort", p->reasoning_effort);
    return vars;
}

static int render(const struct words *w, const struct params *p, json_t *messages, struct jinja_out *out,
                  struct api_err *e) {
    struct err why;
    json_t *vars = template_variables(p);
    struct chat_args a = {.messages = messages,
                          .tools = p->tools,
                          .kwargs = vars,
                          .add_generation_prompt = p->add_generation_prompt,
                          .continue_final_message = p->continue_final};
    int rc = chat_template_render(w->chat_template, &a, out, &why);
    json_decref(vars);
    return rc ? api_fail(e, 400, "messages", "%s", why.text) : 0;
}

/* The prompt as the template made it. Special tokens count only where the template wrote them. */
static int encode_rendered(const struct words *w, struct words_tmp *t, const struct jinja_out *r,
                           const struct encode_args *how, struct ids *out, struct api_err *e) {
    struct text_piece *pieces = mem_array(r->npieces, sizeof *pieces);
    for (size_t i = 0; i < r->npieces; i++)
        pieces[i] = (struct text_piece){r->text.data + r->pieces[i].offset, r->pieces[i].length, r->pieces[i].trusted};
    struct encode_args a = {pieces, r->npieces, how->flags, how->max_ids};
    int rc = encode(w, t, &a, "messages", out, e);
    free(pieces);
    return rc;
}

int words_chat(const struct words *w, struct words_tmp *t, const struct params *p, size_t max_ids, struct ids *out,
               struct api_err *e) {
    struct message_rules rules = {.max_messages = max_ids,
                                  .max_bytes = SIZE_MAX,
                                  .developer = chat_template_mentions(w->chat_template, "developer")};
    if (!size_mul(max_ids, w->longest, &rules.max_bytes)) rules.max_bytes = SIZE_MAX;
    json_t *m = messages_read(p->messages, &rules, e);
    if (!m) return -1;
    struct jinja_out rendered;
    jinja_out_init(&rendered);
    int rc = render(w, p, m, &rendered, e);
    unsigned flags = TOK_PARSE_SPECIAL | (p->has_add_special && p->add_special ? TOK_ADD_SPECIAL : 0);
    if (!rc) rc = encode_rendered(w, t, &rendered, &(struct encode_args){.flags = flags, .max_ids = max_ids}, out, e);
    jinja_out_release(&rendered);
    json_decref(m);
    return rc;
}

bool words_has_template(const struct words *w) { return chat_template_found(w->chat_template); }

/* ---- to text ---- */

void words_token(const struct words *w, int32_t id, struct buf *out) {
    if (tokenizer_is_special(w->tokenizer, id))
        tokenizer_token_name(w->tokenizer, id, out);
    else
        tokenizer_token_bytes(w->tokenizer, id, out);
}

void words_decode(const struct words *w, const int32_t *ids, size_t n, struct buf *out) {
    tokenizer_decode(w->tokenizer, ids, n, false, out);
}

struct words_out {
    struct detok detok;
    struct buf fresh; /* decoded, not scanned for stop strings */
    struct stop_set *stops;
    struct stop stop;
};

struct words_out *words_out_new(const struct words *w, const struct params *p) {
    struct words_out *o = mem_zalloc(1, sizeof *o);
    struct stop_string strings[STOPS_MAX];
    struct err e;
    detok_init(&o->detok, w->tokenizer, p->skip_special_tokens);
    buf_init(&o->fresh, (size_t)1 << 30);
    for (int i = 0; i < p->n_stop; i++) strings[i] = (struct stop_string){p->stop[i].s, p->stop[i].n};
    o->stops = stop_set_new(strings, (size_t)p->n_stop, &e);
    if (!o->stops) BUG("stop strings that passed the field table: %s", e.text);
    stop_init(&o->stop, o->stops, p->include_stop_str);
    return o;
}

void words_out_free(struct words_out *o) {
    if (!o) return;
    detok_release(&o->detok);
    buf_release(&o->fresh);
    stop_release(&o->stop);
    stop_set_free(o->stops);
    free(o);
}

static int flow(struct words_out *o, struct buf *text) {
    bool hit = stop_push(&o->stop, buf_str(&o->fresh), o->fresh.len, text);
    buf_reset(&o->fresh);
    return hit ? o->stop.matched : -1;
}

int words_out_push(struct words_out *o, int32_t id, struct buf *text) {
    detok_push(&o->detok, id, &o->fresh);
    return flow(o, text);
}

int words_out_end(struct words_out *o, struct buf *text) {
    detok_finish(&o->detok, &o->fresh);
    int hit = flow(o, text);
    if (hit < 0) stop_finish(&o->stop, text);
    return hit;
}
