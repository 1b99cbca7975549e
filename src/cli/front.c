/* front.c: see front.h. */
#include "cli/front.h"

#include "serve/words.h"

void cli_front_init(struct cli_front *f, struct app *app, const struct options *o) {
    const struct config *c = &app->config;
    f->words = words_new(app->tokenizer, app->chat_template);
    f->names[0] = o->served_model_name ? o->served_model_name : o->model;
    f->names[1] = NULL;
    f->front = (struct front){
        .inbox = &app->inbox,
        .words = f->words,
        .env = {.n_vocab = c->vocab,
                .max_model_len = app->max_len,
                .names = f->names,
                .temperature = c->gen.temperature >= 0 ? c->gen.temperature : 1,
                .top_p = c->gen.top_p > 0 ? c->gen.top_p : 1,
                .top_k = c->gen.top_k > 0 ? c->gen.top_k : 0},
        .eos = c->eos,
        .n_eos = c->n_eos,
        .timeout_s = o->request_timeout > 0 ? (int)o->request_timeout : 0,
    };
}

void cli_front_release(struct cli_front *f) { words_free(f->words); }
