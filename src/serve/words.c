/* words.c: see words.h. Nothing here changes after it was made, but what one thread owns (words_tmp, words_out). */
#include "serve/words.h"

#include "base/mem.h"
#include "serve/messages.h"
#include "text/detok.h"

#include <stdlib.h>
#include <string.h>

struct words {
    const struct tokenizer *tokenizer;
    size_t longest;
};

struct words_tmp {
    struct token_scratch *scratch;
};

struct words *words_new(const struct tokenizer *tokenizer) {
    struct words *w = mem_zalloc(1, sizeof *w);
    *w = (struct words){.tokenizer = tokenizer, .longest = tokenizer_longest_token_bytes(tokenizer)};
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

bool words_has_template(const struct words *w) {
    (void)w;
    return true;
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

int words_chat(const struct words *w, struct words_tmp *t, const struct params *p, size_t max_ids, struct ids *out,
               struct api_err *e) {
    struct message_rules rules = {.max_messages = max_ids, .max_bytes = SIZE_MAX, .developer = true};
    if (!size_mul(max_ids, w->longest, &rules.max_bytes)) rules.max_bytes = SIZE_MAX;
    json_t *m = messages_read(p->messages, &rules, e);
    if (!m) return -1;
    struct buf b;
    buf_init(&b, (size_t)1 << 30);
    for (size_t i = 0; i < json_array_size(m); i++) {
        json_t *c = json_object_get(json_array_get(m, i), "content");
        buf_add(&b, json_string_value(c), json_string_length(c));
    }
    struct text_piece piece = {buf_str(&b), b.len, false};
    int rc = encode(w, t, &(struct encode_args){&piece, 1, 0, max_ids}, "messages", out, e);
    buf_release(&b);
    json_decref(m);
    return rc;
}

/* ---- to text ---- */

void words_token(const struct words *w, int32_t id, struct buf *out) {
    if (tokenizer_is_special(w->tokenizer, id)) tokenizer_token_name(w->tokenizer, id, out);
    else tokenizer_token_bytes(w->tokenizer, id, out);
}

void words_decode(const struct words *w, const int32_t *ids, size_t n, struct buf *out) {
    tokenizer_decode(w->tokenizer, ids, n, false, out);
}

/* A stop string and how much of it the text ends in (Knuth, Morris, Pratt). */
struct stop_scan {
    const struct stop_text *stop;
    size_t at;
    uint16_t back[STOP_BYTES_MAX + 1]; /* [n]: the longest proper border of the first n bytes */
};

struct words_out {
    struct detok detok;
    const struct params *par;
    struct buf fresh; /* decoded, not scanned */
    struct buf held;  /* scanned, and maybe the start of a stop string */
    int n_scans;
    struct stop_scan *scans;
};

static void scan_init(struct stop_scan *s, const struct stop_text *stop) {
    s->stop = stop;
    s->at = 0;
    s->back[0] = s->back[1] = 0;
    for (size_t i = 1, k = 0; i < stop->n; i++) {
        while (k && stop->s[i] != stop->s[k]) k = s->back[k];
        if (stop->s[i] == stop->s[k]) k++;
        s->back[i + 1] = (uint16_t)k;
    }
}

/* True when the string is complete with this byte. */
static bool scan_byte(struct stop_scan *s, char c) {
    while (s->at && s->stop->s[s->at] != c) s->at = s->back[s->at];
    if (s->stop->s[s->at] == c) s->at++;
    return s->at == s->stop->n;
}

struct words_out *words_out_new(const struct words *w, const struct params *p) {
    struct words_out *o = mem_zalloc(1, sizeof *o);
    detok_init(&o->detok, w->tokenizer, p->skip_special_tokens);
    o->par = p;
    buf_init(&o->fresh, (size_t)1 << 30);
    buf_init(&o->held, (size_t)1 << 30);
    o->n_scans = p->n_stop;
    if (p->n_stop) o->scans = mem_array((size_t)p->n_stop, sizeof *o->scans);
    for (int i = 0; i < p->n_stop; i++) scan_init(&o->scans[i], &p->stop[i]);
    return o;
}

void words_out_free(struct words_out *o) {
    if (!o) return;
    detok_release(&o->detok);
    buf_release(&o->fresh);
    buf_release(&o->held);
    free(o->scans);
    free(o);
}

/* One byte into every scan. Of strings that are complete at the same byte the longest counts: it began first. */
static int scan_all(struct words_out *o, char c, size_t *most) {
    int hit = -1;
    *most = 0;
    for (int i = 0; i < o->n_scans; i++) {
        struct stop_scan *s = &o->scans[i];
        if (scan_byte(s, c) && (hit < 0 || s->stop->n > o->scans[hit].stop->n)) hit = i;
        if (s->at > *most) *most = s->at;
    }
    return hit;
}

/* Move fresh text through the scans to `text`; what may begin a stop string stays in held. */
static int flow(struct words_out *o, struct buf *text) {
    size_t keep = 0;
    int hit = -1;
    if (!o->n_scans) {
        buf_add(text, buf_str(&o->fresh), o->fresh.len);
        buf_reset(&o->fresh);
        return -1;
    }
    for (size_t i = 0; i < o->fresh.len && hit < 0; i++) {
        hit = scan_all(o, o->fresh.data[i], &keep);
        buf_addc(&o->held, o->fresh.data[i]);
    }
    if (o->fresh.len) {
        if (hit >= 0) keep = o->par->include_stop_str ? 0 : o->scans[hit].stop->n;
        buf_add(text, o->held.data, o->held.len - keep);
        memmove(o->held.data, o->held.data + o->held.len - keep, keep);
        o->held.len = keep;
    }
    buf_reset(&o->fresh);
    return hit;
}

int words_out_push(struct words_out *o, int32_t id, struct buf *text) {
    detok_push(&o->detok, id, &o->fresh);
    return flow(o, text);
}

int words_out_end(struct words_out *o, struct buf *text) {
    detok_finish(&o->detok, &o->fresh);
    int hit = flow(o, text);
    if (hit < 0) buf_add(text, buf_str(&o->held), o->held.len);
    return hit;
}
