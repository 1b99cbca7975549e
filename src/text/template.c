/* template.c: finds a checkpoint's chat template and its special tokens, and renders conversations with it.
 *
 * State: a struct chat_template, never written after opening. Does not fall back to a template of its own: a model
 * without one is told so. */
#include "text/template.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 64 << 20, MAX_TOKENS = 64, FIXED_VARS = 4 };

struct chat_template {
    struct jinja *plain, *tools; /* tools NULL: the plain one serves both */
    json_t *tokens;              /* name: string */
};

static const char *const role_words[] = {"system",   "user",        "assistant",   "tool",    "developer",
                                         "function", "model",       "environment", "ipython", "context",
                                         "document", "observation", NULL};

/* ---- the folder's files ---- */

static int read_json(const char *dir, const char *name, json_t **out, struct err *e) { /* *out NULL: no such file */
    char *path = path_join(dir, name), *text = NULL;
    size_t n;
    int rc = 0;
    json_error_t je;
    *out = NULL;
    if (!file_given(path)) goto out;
    rc = file_read(path, MAX_CONFIG, &text, &n, e);
    if (rc != 0) goto out;
    *out = json_loadb(text, n, JSON_ALLOW_NUL, &je);
    if (!*out || !json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        rc = err_input(e, "%s: expected a JSON object: %s (line %d)", path, je.text, je.line);
    }
out:
    free(text);
    free(path);
    return rc;
}

static int compile(const char *what, const char *source, size_t n, struct jinja **out, struct err *e) {
    *out = jinja_compile(source, n, e);
    return *out ? 0 : err_prefix(e, "%s: ", what);
}

static int compile_file(const char *path, struct jinja **out, struct err *e) {
    char *text;
    size_t n;
    if (file_read(path, JINJA_MAX_SOURCE, &text, &n, e) != 0) return -1;
    int rc = compile(path, text, n, out, e);
    free(text);
    return rc;
}

static int compile_if_there(const char *dir, const char *name, struct jinja **out, struct err *e) {
    char *path = path_join(dir, name);
    int rc = file_given(path) ? compile_file(path, out, e) : 0;
    free(path);
    return rc;
}

static int compile_json(const char *what, json_t *j, struct jinja **out, struct err *e) {
    return compile(what, json_string_value(j), json_string_length(j), out, e);
}

static int from_config(struct chat_template *t, json_t *config, struct err *e) {
    json_t *c = json_object_get(config, "chat_template"), *item;
    size_t i;
    if (json_is_string(c)) return compile_json("chat_template", c, &t->plain, e);
    json_array_foreach(c, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        json_t *source = json_object_get(item, "template");
        if (!name || !json_is_string(source))
            return err_input(e, "tokenizer_config.json: an entry of chat_template needs a name and a template");
        struct jinja **to = strcmp(name, "default") == 0 ? &t->plain : strcmp(name, "tool_use") == 0 ? &t->tools : NULL;
        if (to && !*to && compile_json(name, source, to, e) != 0) return -1;
    }
    return 0;
}

static void add_tokens(json_t *tokens, json_t *config) { /* what is there already stays */
    const char *key;
    json_t *v;
    json_object_foreach(config, key, v) {
        size_t n = strlen(key);
        if (n < 6 || strcmp(key + n - 6, "_token") != 0 || json_object_get(tokens, key)) continue;
        if (json_is_object(v)) v = json_object_get(v, "content");
        if (json_is_string(v) && json_object_size(tokens) < MAX_TOKENS) json_object_set(tokens, key, v);
    }
}

static int open_dir(struct chat_template *t, const char *dir, bool want_template, struct err *e) {
    json_t *config = NULL, *map = NULL, *old = NULL;
    int rc = -1;
    if (read_json(dir, "tokenizer_config.json", &config, e) != 0) goto out;
    if (read_json(dir, "special_tokens_map.json", &map, e) != 0) goto out;
    if (config) add_tokens(t->tokens, config);
    if (map) add_tokens(t->tokens, map);
    rc = 0;
    if (!want_template) goto out;
    rc = compile_if_there(dir, "chat_template.jinja", &t->plain, e);
    if (rc == 0 && t->plain) rc = compile_if_there(dir, "additional_chat_templates/tool_use.jinja", &t->tools, e);
    if (rc != 0 || t->plain) goto out;
    rc = read_json(dir, "chat_template.json", &old, e);
    if (rc == 0 && old) rc = from_config(t, old, e);
    if (rc == 0 && !t->plain && config) rc = from_config(t, config, e);
out:
    json_decref(config);
    json_decref(map);
    json_decref(old);
    return rc;
}

struct chat_template *chat_template_open(const char *dir, const char *file, struct err *e) {
    struct chat_template *t = mem_zalloc(1, sizeof *t);
    t->tokens = json_object();
    if (dir && open_dir(t, dir, !file, e) != 0) goto fail;
    if (file && compile_file(file, &t->plain, e) != 0) goto fail;
    return t;
fail:
    chat_template_free(t);
    return NULL;
}

void chat_template_free(struct chat_template *t) {
    if (!t) return;
    jinja_free(t->plain);
    jinja_free(t->tools);
    json_decref(t->tokens);
    free(t);
}

bool chat_template_found(const struct chat_template *t) { return t->plain || t->tools; }

bool chat_template_mentions(const struct chat_template *t, const char *name) {
    return (t->plain && jinja_mentions(t->plain, name)) || (t->tools && jinja_mentions(t->tools, name));
}

/* ---- rendering ---- */

static int check_kwargs(json_t *kwargs, struct err *e) {
    static const char *const reserved[] = {"messages", "tools", "chat_template", "tokenize"};
    if (!kwargs) return 0;
    if (!json_is_object(kwargs)) return err_input(e, "chat_template_kwargs must be an object");
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (json_object_get(kwargs, reserved[i]))
            return err_input(e, "chat_template_kwargs may not set \"%s\"", reserved[i]);
    return 0;
}

static const char *last_content(json_t *messages, size_t *n) { /* of the last message; NULL: it has no text */
    json_t *m = json_array_get(messages, json_array_size(messages) - 1), *c = json_object_get(m, "content"), *part;
    size_t i;
    json_t *text = json_is_string(c) ? c : NULL;
    if (json_is_array(c)) json_array_foreach(c, i, part) {
            json_t *s = json_object_get(part, "text");
            if (json_is_string(s)) text = s;
        }
    if (!text) return NULL;
    *n = json_string_length(text);
    return json_string_value(text);
}

static void cut(struct jinja_out *out, size_t n) {
    out->text.len = n;
    out->text.data[n] = 0;
    while (out->npieces && out->pieces[out->npieces - 1].offset >= n) out->npieces--;
    if (out->npieces) out->pieces[out->npieces - 1].length = n - out->pieces[out->npieces - 1].offset;
}

static bool space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* As transformers: find the last message's stripped text from the end, keep its trailing space when the template did.
 */
static int cut_at_content(json_t *messages, struct jinja_out *out, struct err *e) {
    size_t n = 0, from = 0;
    const char *text = last_content(messages, &n);
    if (!text) return err_input(e, "continue_final_message needs a last message with text");
    while (from < n && space(text[from])) from++;
    size_t end = n;
    while (end > from && space(text[end - 1])) end--;
    size_t len = end - from, full = n - from;
    const char *p = buf_str(&out->text);
    for (size_t i = out->text.len + 1; i-- > 0;) {
        if (out->text.len - i < len || memcmp(p + i, text + from, len) != 0) continue;
        cut(out, out->text.len - i >= full && memcmp(p + i, text + from, full) == 0 ? i + full : i + len);
        return 0;
    }
    return err_input(e,
                     "continue_final_message: the chat template changes the last message, so it cannot be continued");
}

static size_t gather(const struct chat_template *t, const struct chat_args *a, json_t *none, struct jinja_var *vars) {
    size_t n = 0;
    const char *key;
    json_t *v;
    vars[n++] = (struct jinja_var){"messages", a->messages, false};
    vars[n++] = (struct jinja_var){"tools", a->tools ? a->tools : none, false};
    vars[n++] = (struct jinja_var){"documents", none, false};
    vars[n++] =
        (struct jinja_var){"add_generation_prompt", a->add_generation_prompt ? json_true() : json_false(), true};
    json_object_foreach(t->tokens, key, v) vars[n++] = (struct jinja_var){key, v, true};
    if (a->kwargs) json_object_foreach(a->kwargs, key, v) vars[n++] = (struct jinja_var){key, v, false};
    return n;
}

int chat_template_render(const struct chat_template *t, const struct chat_args *a, struct jinja_out *out,
                         struct err *e) {
    out->fault = JINJA_RUNTIME;
    bool tools = json_array_size(a->tools) > 0;
    const struct jinja *j = (tools && t->tools) || !t->plain ? t->tools : t->plain;
    if (!j) return err_input(e, "the model has no chat template; use /v1/completions or --chat-template");
    if (check_kwargs(a->kwargs, e) != 0) return -1;
    if (!json_is_array(a->messages)) return err_input(e, "messages must be an array");
    if (a->continue_final_message && a->add_generation_prompt)
        return err_input(e, "continue_final_message and add_generation_prompt exclude each other");
    struct jinja_var *vars = mem_array(FIXED_VARS + MAX_TOKENS + json_object_size(a->kwargs), sizeof *vars);
    struct jinja_args args = {
        .vars = vars, .nvars = gather(t, a, json_null(), vars), .words = role_words, .now = a->now};
    int rc = jinja_render(j, &args, out, e);
    free(vars);
    if (rc != 0) return out->fault == JINJA_RAISED ? -1 : err_prefix(e, "chat template: ");
    return a->continue_final_message ? cut_at_content(a->messages, out, e) : 0;
}
