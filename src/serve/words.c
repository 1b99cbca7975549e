/* words.c: byte stand-in until the tokenizer is there. */
#include "serve/words.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "serve/messages.h"
#include <stdlib.h>
#include <string.h>
struct words_tmp { int x; };
struct words_tmp *words_tmp_new(const struct words *w) { (void)w; return mem_zalloc(1, sizeof(struct words_tmp)); }
void words_tmp_free(struct words_tmp *t) { free(t); }
size_t words_longest(const struct words *w) { (void)w; return 16; }
bool words_has_template(const struct words *w) { (void)w; return true; }
int words_encode(const struct words *w, struct words_tmp *t, const char *s, size_t n, bool add_special,
                 struct words_ids *out, struct api_err *e) {
    (void)w, (void)t, (void)add_special, (void)e;
    out->v = mem_array(n, 4); out->n = n;
    for (size_t i = 0; i < n; i++) out->v[i] = (unsigned char)s[i];
    return 0;
}
int words_chat(const struct words *w, struct words_tmp *t, const struct params *p, struct words_ids *out, struct api_err *e) {
    struct message_rules r = {4096, 65536, true};
    json_t *m = messages_read(p->messages, &r, e);
    if (!m) return -1;
    struct buf b; buf_init(&b, 1 << 30);
    for (size_t i = 0; i < json_array_size(m); i++) {
        json_t *c = json_object_get(json_array_get(m, i), "content");
        buf_add(&b, json_string_value(c), json_string_length(c));
    }
    int rc = words_encode(w, t, buf_str(&b), b.len, false, out, e);
    buf_release(&b); json_decref(m);
    return rc;
}
void words_token(const struct words *w, int32_t id, struct buf *out) { (void)w; buf_addc(out, (char)id); }
struct words_out { const struct params *p; char hold[2048]; size_t n; };
struct words_out *words_out_new(const struct words *w, const struct params *p) { (void)w; struct words_out *o = mem_zalloc(1, sizeof *o); o->p = p; return o; }
void words_out_free(struct words_out *o) { free(o); }
int words_out_push(struct words_out *o, int32_t id, bool free_run, struct buf *text) {
    (void)free_run;
    o->hold[o->n++] = (char)id;
    for (int i = 0; i < o->p->n_stop; i++) {
        const struct stop_text *s = &o->p->stop[i];
        if (o->n >= s->n && !memcmp(o->hold + o->n - s->n, s->s, s->n)) { buf_add(text, o->hold, o->n - s->n); return i; }
    }
    if (o->n > 1000 || (!o->p->n_stop && utf8_valid(o->hold, o->n))) { buf_add(text, o->hold, o->n); o->n = 0; }
    return -1;
}
int words_out_end(struct words_out *o, struct buf *text) { buf_add(text, o->hold, o->n); o->n = 0; return -1; }
