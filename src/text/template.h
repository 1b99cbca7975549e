/* template.h: a model's chat template: where it is found, and how a conversation becomes a prompt.
 *
 * A template is immutable after it was opened; any thread may render it. */
#ifndef MINISGL_TEXT_TEMPLATE_H
#define MINISGL_TEXT_TEMPLATE_H
#include "text/jinja.h"

struct chat_template;

/* Open the template of the checkpoint folder dir, or the one in `file` when that is not NULL; dir may be NULL then.
 *
 * Looked for in dir, the first that is there: chat_template.jinja (with additional_chat_templates/tool_use.jinja for
 * requests with tools), chat_template.json, "chat_template" of tokenizer_config.json: a string, or a list of
 * {"name", "template"} of which "default" is used, and "tool_use" when the request has tools.
 * bos_token, eos_token and every other "..._token" come from tokenizer_config.json and special_tokens_map.json of
 * dir: strings, or objects with "content".
 *
 * A folder without any template is no error here: chat_template_found() says so, and rendering then fails with a
 * sentence for the client. NULL and *e only for a file that cannot be read or a template that is not one. */
struct chat_template *chat_template_open(const char *dir, const char *file, struct err *e);
void chat_template_free(struct chat_template *t);
bool chat_template_found(const struct chat_template *t);

/* True when the template mentions the variable: `tools`, `enable_thinking`, ... */
bool chat_template_mentions(const struct chat_template *t, const char *name);

struct chat_args {
    json_t *messages; /* an array; borrowed, as all here */
    json_t *tools;    /* an array or NULL */
    json_t *kwargs;   /* chat_template_kwargs: an object or NULL. Its names become variables, and win over tokens and
                         add_generation_prompt; messages, tools, chat_template and tokenize are refused */
    bool add_generation_prompt;
    bool continue_final_message; /* cut the prompt behind the last message's content; not with the one above */
    const struct tm *now;        /* for strftime_now; NULL: the local time */
};

/* The prompt and its pieces in *out (jinja_out_init before, jinja_out_release after). What comes from messages, tools
 * and kwargs is untrusted, except that the usual role names are trusted as words (a template may build
 * "<|" + role + "|>"). 0, or -1 and *e of kind ERR_INPUT; out->fault tells which kind of trouble: JINJA_RAISED holds
 * the template's own message for the user. */
int chat_template_render(const struct chat_template *t, const struct chat_args *args, struct jinja_out *out,
                         struct err *e);

#endif
