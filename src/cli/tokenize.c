/* tokenize.c: `minisgl tokenize --model DIR [--special] [--decode]`: JSON lines in, JSON lines out.
 *
 *   "text"              -> {"ids":[...]}    --special adds what the tokenizer adds around a text (a token for the
 *                                           beginning); special tokens spelled in the text always become those tokens
 *   [1,2] {"ids":[1,2]} -> {"text":"..."}   with --decode; --special then leaves special tokens out of the text
 *   anything else       -> {"error":"..."}  and the program goes on, to end with exit code 1
 *
 * Main thread only. A folder with nothing but the tokenizer's files is enough. */
#include "base/buf.h"
#include "cli/cli.h"
#include "cli/lines.h"
#include "model_dir.h"
#include "opt.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OUT = 1 << 30 };

struct work {
    const struct options *o;
    struct tokenizer *t;
    struct token_scratch *scratch;
    struct ids ids;
    struct buf out, text;
};

static int encode_line(struct work *w, const json_t *j, struct err *e) {
    if (!json_is_string(j)) return err_input(e, "a JSON string was expected");
    struct text_piece piece = {json_string_value(j), json_string_length(j), true};
    struct encode_args a = {&piece, 1, TOK_PARSE_SPECIAL | (w->o->special ? TOK_ADD_SPECIAL : 0), 0};
    w->ids.n = 0;
    if (tokenizer_encode(w->t, w->scratch, &a, &w->ids, e)) return -1;
    buf_adds(&w->out, "{\"ids\":[");
    for (size_t i = 0; i < w->ids.n; i++) buf_addf(&w->out, i ? ",%d" : "%d", w->ids.v[i]);
    return buf_adds(&w->out, "]}");
}

static int decode_line(struct work *w, const json_t *j, struct err *e) {
    const json_t *list = json_is_object(j) ? json_object_get(j, "ids") : j;
    if (!json_is_array(list)) return err_input(e, "a JSON array of token ids, or an object with \"ids\", was expected");
    w->ids.n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || (size_t)id >= tokenizer_n_vocab(w->t))
            return err_input(e, "ids[%zu] is not an integer from 0 to %zu", i, tokenizer_n_vocab(w->t) - 1);
        ids_add(&w->ids, (int32_t)id);
    }
    buf_reset(&w->text);
    tokenizer_decode(w->t, w->ids.v, w->ids.n, w->o->special, &w->text);
    buf_adds(&w->out, "{\"text\":");
    buf_add_json(&w->out, buf_str(&w->text), w->text.len);
    return buf_adds(&w->out, "}");
}

static int answer_line(void *ctx, const char *line, size_t n) {
    struct work *w = ctx;
    struct err e;
    json_error_t je;
    int rc = -1;
    buf_reset(&w->out);
    json_t *j = json_loadb(line, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!j)
        err_input(&e, "not JSON: %s", je.text);
    else
        rc = w->o->decode ? decode_line(w, j, &e) : encode_line(w, j, &e);
    json_decref(j);
    if (rc && w->out.over) err_input(&e, "the answer is larger than %d bytes", MAX_OUT);
    if (rc) {
        buf_reset(&w->out);
        buf_adds(&w->out, "{\"error\":");
        buf_add_json(&w->out, e.text, strlen(e.text));
        buf_addc(&w->out, '}');
    }
    buf_addc(&w->out, '\n');
    fwrite(buf_str(&w->out), 1, w->out.len, stdout);
    return rc;
}

int cmd_tokenize(int argc, char **argv) {
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_TOKENIZE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_TOKENIZE);
    cli_begin(&o);
    char *dir = model_dir(&o, HUB_TEXT, &e);
    if (!dir) return cli_fail(&e);
    struct work w = {.o = &o, .t = tokenizer_open(dir, &e)};
    free(dir);
    if (!w.t) return cli_fail(&e);
    w.scratch = token_scratch_new(w.t);
    buf_init(&w.out, MAX_OUT);
    buf_init(&w.text, MAX_OUT);
    int rc = lines_answer(answer_line, &w);
    buf_release(&w.out);
    buf_release(&w.text);
    ids_release(&w.ids);
    token_scratch_free(w.scratch);
    tokenizer_close(w.t);
    return rc;
}
