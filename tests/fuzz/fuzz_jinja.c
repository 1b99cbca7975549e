/* fuzz_jinja.c: any text as a template, and what follows a NUL byte as its variables (JSON). What is rendered is UTF-8,
 * its pieces cover it without gaps and meet between characters, and no text of an untrusted variable is trusted. */
#include "base/utf8.h"
#include "text/jinja.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char standard[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xa9 "
    "\x7f\xe6\x97\xa5\"},{\"role\":\"assistant\",\"content\":null,"
    "\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,true]}}}]}],\"tools\":null,\"n\":7,"
    "\"s\":\"a,b <c> %s {0}\",\"l\":[3,1,2],\"d\":{\"a\":1,\"b\":\"\x7f\"},\"f\":-0.5}";

static void check(const struct jinja_out *o) {
    size_t at = 0;
    if (!utf8_valid(buf_str(&o->text), o->text.len)) abort();
    for (size_t i = 0; i < o->npieces; i++) {
        const struct jinja_piece *p = &o->pieces[i];
        if (p->offset != at || p->length == 0 || !utf8_valid(o->text.data + at, p->length)) abort();
        if (i && p->trusted == p[-1].trusted) abort();
        at += p->length;
    }
    if (at != o->text.len) abort();
}

/* The standard variables alone have DEL in them: it must not come out trusted unless the template itself has it. */
static void check_trust(const struct jinja_out *o, const uint8_t *source, size_t n) {
    static const char *const makers[] = {"\x7f", "177", "7f", "7F", "127"};
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++)
        if (memmem(source, n, makers[i], strlen(makers[i]))) return;
    for (size_t i = 0; i < o->npieces; i++)
        if (o->pieces[i].trusted && memchr(o->text.data + o->pieces[i].offset, 0x7f, o->pieces[i].length)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct tm now = {.tm_year = 126, .tm_mday = 15};
    const uint8_t *nul = memchr(data, 0, size);
    size_t n = nul ? (size_t)(nul - data) : size;
    struct err e;
    struct jinja *t = jinja_compile((const char *)data, n, &e);
    if (!t) return 0;
    json_t *vars = nul ? json_loadb((const char *)nul + 1, size - n - 1, JSON_ALLOW_NUL, NULL) : NULL, *v;
    bool own = json_is_object(vars) && json_object_size(vars) < 100;
    if (!own) json_decref(vars), vars = json_loadb(standard, strlen(standard), 0, NULL);
    struct jinja_var list[100];
    const char *key;
    struct jinja_args a = {.vars = list, .now = &now, .max_steps = 100000, .max_memory = 64 << 20};
    json_object_foreach(vars, key, v) list[a.nvars++] = (struct jinja_var){key, v, false};
    struct jinja_out out;
    jinja_out_init(&out);
    if (jinja_render(t, &a, &out, &e) == 0) {
        check(&out);
        if (!own) check_trust(&out, data, n);
    } else if (out.fault == JINJA_OK || e.kind != ERR_INPUT || !e.text[0]) {
        if (out.fault != JINJA_RAISED) abort();
    }
    jinja_out_release(&out);
    json_decref(vars);
    jinja_free(t);
    return 0;
}
