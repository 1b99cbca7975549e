/* front.c: see front.h. */
#include "cli/front.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "serve/words.h"

#include <stdlib.h>
#include <string.h>

/* The name of a folder: its last part, or ORG/NAME where it is a snapshot in a hub's cache. Its place on this machine is
 * nobody's business. */
static char *name_of_folder(const char *dir) {
    char *real = realpath(dir, NULL);
    if (!real) return mem_strdup(dir);
    char *last = strrchr(real, '/'), *hub = strstr(real, "/models--"), *end = hub ? strchr(hub + 1, '/') : NULL;
    char *name = mem_strdup(last && last[1] ? last + 1 : real);
    if (end && !strncmp(end, "/snapshots/", 11) && end + 10 == last) {
        free(name);
        name = mem_strndup(hub + 9, (size_t)(end - hub) - 9);
        char *dash = strstr(name, "--");
        if (dash) {
            *dash = '/';
            memmove(dash + 1, dash + 2, strlen(dash + 2) + 1);
        }
    }
    free(real);
    return name;
}

static char *name_of(const struct options *o) {
    if (o->served_model_name) return mem_strdup(o->served_model_name);
    bool folder = strcmp(o->model, "builtin") && dir_exists(o->model);
    return folder ? name_of_folder(o->model) : mem_strdup(o->model);
}

/* The model's own wishes that no request can have here either; better said once than dropped without a word. */
static void tell_unused(const struct config *c) {
    if (c->gen.repetition_penalty > 0 && c->gen.repetition_penalty != 1)
        log_warning("generation_config.json asks for repetition_penalty %g, which this version does not have",
                    (double)c->gen.repetition_penalty);
    if (c->gen.max_new_tokens > 0)
        log_debug("generation_config.json's max_new_tokens %d is not used: a chat without max_tokens may fill the context",
                  c->gen.max_new_tokens);
}

void cli_front_init(struct cli_front *f, struct app *app, const struct options *o) {
    const struct config *c = &app->config;
    tell_unused(c);
    f->words = words_new(app->tokenizer, app->chat_template);
    f->names[0] = f->name = name_of(o);
    f->names[1] = NULL;
    f->front = (struct front){
        .inbox = &app->inbox,
        .words = f->words,
        .env = {.n_vocab = c->vocab,
                .max_model_len = app->room.max_len,
                .names = f->names,
                .alias = o->model,
                .temperature = c->gen.temperature >= 0 ? c->gen.temperature : 1,
                .top_p = c->gen.top_p > 0 ? c->gen.top_p : 1,
                .top_k = c->gen.top_k <= 0        ? 0
                         : c->gen.top_k > c->vocab ? c->vocab
                                                   : c->gen.top_k,
                .min_p = c->gen.min_p > 0 ? c->gen.min_p : 0},
        .eos = c->eos,
        .n_eos = c->n_eos,
        .timeout_s = o->request_timeout > 0 ? (int)o->request_timeout : 0,
    };
}

void cli_front_release(struct cli_front *f) {
    words_free(f->words);
    free(f->name);
}
