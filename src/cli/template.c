/* template.c: `minisgl template --model DIR [--chat-template FILE]`: JSON lines in, JSON lines out.
 *
 *   {"messages":[...], "tools":[...], "add_generation_prompt":true, "continue_final_message":false,
 *    "chat_template_kwargs":{...}, "now":"2026-01-15 09:30:00"}      -> {"prompt":"..."}
 *   {"template":"...", "variables":{...}, "now":...}                 -> {"prompt":"..."}, any template, without a model
 *   anything else, and what the template refuses                     -> {"error":"..."}, and the program goes on, to
 *                                                                          end with exit code 1
 *
 * Only "messages" or "template" is needed. "now" fixes the time that strftime_now() shows. With "pieces":true the
 * answer has {"pieces":[[offset, length, trusted],...]} too, in bytes. Main thread only. */
#include "text/template.h"
#include "cli/cli.h"
#include "cli/lines.h"
#include "model_dir.h"
#include "opt.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ANSWER = 1 << 30, MAX_VARS = 1000 };

struct work {
    struct chat_template *t;
    struct jinja_out out;
    struct buf answer;
};

static int read_now(const json_t *j, struct tm *tm, bool *has, struct err *e) {
    json_t *now = json_object_get(j, "now");
    *has = now != NULL;
    if (!now) return 0;
    memset(tm, 0, sizeof *tm);
    tm->tm_isdst = -1;
    const char *end = json_is_string(now) ? strptime(json_string_value(now), "%Y-%m-%d %H:%M:%S", tm) : NULL;
    return end && !*end ? 0 : err_input(e, "\"now\" must look like \"2026-01-15 09:30:00\"");
}

static int render_source(struct work *w, json_t *j, const struct tm *now, struct err *e) {
    json_t *source = json_object_get(j, "template"), *vars = json_object_get(j, "variables"), *v;
    const char *key;
    size_t n = 0;
    if (!json_is_string(source)) return err_input(e, "\"template\" must be a string");
    if (json_object_size(vars) > MAX_VARS) return err_input(e, "more than %d variables", MAX_VARS);
    struct jinja *t = jinja_compile(json_string_value(source), json_string_length(source), e);
    if (!t) return -1;
    struct jinja_var *list = calloc(json_object_size(vars) + 1, sizeof *list);
    json_object_foreach(vars, key, v) list[n++] = (struct jinja_var){key, v, false};
    struct jinja_args args = {.vars = list, .nvars = n, .now = now};
    int rc = jinja_render(t, &args, &w->out, e);
    free(list);
    jinja_free(t);
    return rc;
}

static int render_chat(struct work *w, json_t *j, const struct tm *now, struct err *e) {
    json_t *gen = json_object_get(j, "add_generation_prompt"), *tools = json_object_get(j, "tools");
    json_t *kwargs = json_object_get(j, "chat_template_kwargs");
    struct chat_args a = {.messages = json_object_get(j, "messages"),
                          .tools = json_is_null(tools) ? NULL : tools,
                          .kwargs = json_is_null(kwargs) ? NULL : kwargs,
                          .continue_final_message = json_is_true(json_object_get(j, "continue_final_message")),
                          .now = now};
    if (gen && !json_is_boolean(gen)) return err_input(e, "add_generation_prompt must be true or false");
    if (a.tools && !json_is_array(a.tools)) return err_input(e, "tools must be an array");
    a.add_generation_prompt = gen ? json_is_true(gen) : !a.continue_final_message;
    if (!w->t) return err_input(e, "\"messages\" needs a template: --model DIR or --chat-template FILE");
    return chat_template_render(w->t, &a, &w->out, e);
}

static void put_prompt(struct work *w, bool pieces) {
    buf_adds(&w->answer, "{\"prompt\":");
    buf_add_json(&w->answer, buf_str(&w->out.text), w->out.text.len);
    if (pieces) {
        buf_adds(&w->answer, ",\"pieces\":[");
        for (size_t i = 0; i < w->out.npieces; i++)
            buf_addf(&w->answer, "%s[%zu,%zu,%s]", i ? "," : "", w->out.pieces[i].offset, w->out.pieces[i].length,
                     w->out.pieces[i].trusted ? "true" : "false");
        buf_addc(&w->answer, ']');
    }
    buf_addc(&w->answer, '}');
}

static int answer_line(void *ctx, const char *line, size_t n) {
    struct work *w = ctx;
    struct err e;
    struct tm now;
    bool has;
    json_error_t je;
    int rc = -1;
    buf_reset(&w->answer);
    json_t *j = json_loadb(line, n, JSON_ALLOW_NUL, &je);
    if (!j)
        err_input(&e, "not JSON: %s", je.text);
    else if (!json_is_object(j))
        err_input(&e, "a JSON object was expected");
    else if (read_now(j, &now, &has, &e) == 0)
        rc = json_object_get(j, "template") ? render_source(w, j, has ? &now : NULL, &e)
                                            : render_chat(w, j, has ? &now : NULL, &e);
    if (rc == 0) put_prompt(w, json_is_true(json_object_get(j, "pieces")));
    json_decref(j);
    if (rc == 0 && w->answer.over) rc = err_input(&e, "the answer is larger than %d bytes", MAX_ANSWER);
    if (rc) {
        buf_reset(&w->answer);
        buf_adds(&w->answer, "{\"error\":");
        buf_add_json(&w->answer, e.text, strlen(e.text));
        buf_addc(&w->answer, '}');
    }
    buf_addc(&w->answer, '\n');
    fwrite(buf_str(&w->answer), 1, w->answer.len, stdout);
    return rc;
}

static struct chat_template *open_template(const struct options *o, struct err *e) {
    char *dir = model_dir(o, HUB_TEXT, e);
    if (!dir) return NULL;
    struct chat_template *t = chat_template_open(dir, o->chat_template, e);
    free(dir);
    return t;
}

int cmd_template(int argc, char **argv) {
    struct options o;
    struct err e;
    struct work w = {0};
    if (options_parse(&o, CMD_TEMPLATE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) {
        options_help(stdout, CMD_TEMPLATE, "minisgl template --model DIR [--chat-template FILE]");
        return 0;
    }
    cli_begin(&o);
    w.t = open_template(&o, &e);
    if (!w.t) return cli_fail(&e);
    jinja_out_init(&w.out);
    buf_init(&w.answer, MAX_ANSWER);
    int rc = lines_answer(answer_line, &w);
    buf_release(&w.answer);
    jinja_out_release(&w.out);
    chat_template_free(w.t);
    return rc;
}
