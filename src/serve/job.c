/* job.c: see job.h. It bounds what one call may cost (prompts, choices, tokens) before it costs anything. */
#include "serve/job.h"

#include "base/err.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { LOGPROBS_TOTAL_MAX = 1 << 22, GENERATE_DEFAULT = 128, COMPLETIONS_DEFAULT = 16 };

void job_init(struct job *j, const struct front *front) {
    *j = (struct job){.front = front};
    buf_init(&j->head, 4096);
}

void job_release(struct job *j) {
    for (int i = 0; i < j->n_choices; i++) choice_release(&j->choices[i]);
    free(j->choices);
    for (int i = 0; i < j->n_prompts; i++) {
        ids_release(&j->prompts[i].ids);
        free(j->prompts[i].text);
    }
    free(j->prompts);
    params_release(&j->par);
    buf_release(&j->head);
}

static void random_bytes(void *p, size_t n) {
    if (getrandom(p, n, 0) != (ssize_t)n) BUG("getrandom gave no bytes");
}

static void make_id(struct job *j) {
    unsigned char r[16];
    random_bytes(r, sizeof r);
    char *at = j->id + snprintf(j->id, sizeof j->id, "%s-", j->par.route == ROUTE_CHAT ? "chatcmpl" : "cmpl");
    for (size_t i = 0; i < sizeof r; i++) at += snprintf(at, 3, "%02x", r[i]);
    j->created = time(NULL);
}

/* ---- prompts ---- */

static int too_long(const struct job *j, struct api_err *e, const char *what) {
    return api_fail_code(e, 400, "context_length_exceeded", what,
                         "the prompt is longer than the model's context of %d tokens; shorten it",
                         j->front->env.max_model_len);
}

static int check_id(const struct job *j, const json_t *v, const char *param, struct api_err *e) {
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < j->front->env.n_vocab) return 0;
    return api_fail(e, 400, param, "a prompt of token ids must hold integers from 0 to %d only",
                    j->front->env.n_vocab - 1);
}

static int prompt_of_ids(struct job *j, const json_t *list, const char *param, struct api_err *e) {
    size_t n = json_array_size(list);
    if (n >= (size_t)j->front->env.max_model_len) return too_long(j, e, param);
    struct prompt *p = &j->prompts[j->n_prompts++];
    ids_room(&p->ids, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (check_id(j, v, param, e)) return -1;
        ids_add(&p->ids, (int32_t)json_integer_value(v));
    }
    if (!j->par.echo) return 0;
    struct buf text;
    buf_init(&text, 1 << 30);
    words_decode(j->front->words, p->ids.v, n, &text);
    p->text = buf_take(&text, &p->text_n);
    return 0;
}

static int prompt_of_text(struct job *j, struct words_tmp *tmp, const json_t *v, struct api_err *e) {
    const char *s = json_string_value(v);
    size_t n = json_string_length(v), most;
    if (size_mul((size_t)j->front->env.max_model_len, words_longest(j->front->words), &most) && n > most)
        return too_long(j, e, "prompt");
    struct prompt *p = &j->prompts[j->n_prompts++];
    if (j->par.echo) {
        p->text = mem_alloc(n + 1);
        memcpy(p->text, s, n + 1);
        p->text_n = n;
    }
    struct words_text x = {s, n, (size_t)j->front->env.max_model_len, j->par.add_special};
    return words_encode(j->front->words, tmp, &x, &p->ids, e);
}

static int one_prompt(struct job *j, struct words_tmp *tmp, const json_t *v, struct api_err *e) {
    if (json_is_string(v)) return prompt_of_text(j, tmp, v, e);
    if (json_is_array(v)) return prompt_of_ids(j, v, "prompt", e);
    return api_fail(e, 400, "prompt", "prompt must be a string, a list of token ids, or a list of one kind of these");
}

static int prompts_of_list(struct job *j, struct words_tmp *tmp, const json_t *list, struct api_err *e) {
    size_t n = json_array_size(list);
    json_type kind = json_typeof(json_array_get(list, 0));
    if (n > PROMPTS_MAX)
        return api_fail(e, 400, "prompt", "there must be at most %d prompts, found %zu", PROMPTS_MAX, n);
    j->prompts = mem_zalloc(n, sizeof *j->prompts);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (json_typeof(v) != kind) return api_fail(e, 400, "prompt", "the prompts of a list must be of one kind");
        if (one_prompt(j, tmp, v, e)) return -1;
    }
    return 0;
}

static int read_prompts(struct job *j, struct words_tmp *tmp, const json_t *v, struct api_err *e) {
    const json_t *first = json_array_get(v, 0);
    if (json_is_array(v) && !first) return api_fail(e, 400, "prompt", "prompt must not be an empty list");
    if (json_is_string(first) || json_is_array(first)) {
        if (j->par.route == ROUTE_COMPLETIONS) return prompts_of_list(j, tmp, v, e);
        return api_fail(e, 400, "prompt", "this route takes one prompt at a time");
    }
    j->prompts = mem_zalloc(1, sizeof *j->prompts);
    return one_prompt(j, tmp, v, e);
}

static int read_chat(struct job *j, struct words_tmp *tmp, struct api_err *e) {
    j->prompts = mem_zalloc(1, sizeof *j->prompts);
    j->n_prompts = 1;
    size_t max = (size_t)j->front->env.max_model_len;
    return words_chat(j->front->words, tmp, &j->par, max, &j->prompts[0].ids, e);
}

static int read_input(struct job *j, struct words_tmp *tmp, struct api_err *e) {
    struct params *p = &j->par;
    int forms = !!p->messages + !!p->prompt + !!p->prompt_ids;
    if (p->route == ROUTE_CHAT && !forms) return api_fail(e, 400, "messages", "messages is missing");
    if (p->route == ROUTE_COMPLETIONS && !forms) return api_fail(e, 400, "prompt", "prompt is missing");
    if (forms != 1)
        return api_fail(e, 400, "prompt", "exactly one of prompt, prompt_token_ids and messages must be given");
    if (p->messages) return read_chat(j, tmp, e);
    if (p->prompt) return read_prompts(j, tmp, p->prompt, e);
    if (!json_is_array(p->prompt_ids))
        return api_fail(e, 400, "prompt_token_ids", "prompt_token_ids must be a list of token ids");
    j->prompts = mem_zalloc(1, sizeof *j->prompts);
    return prompt_of_ids(j, p->prompt_ids, "prompt_token_ids", e);
}

/* ---- how much may be generated ---- */

static int64_t wanted(const struct params *p, int64_t left) {
    if (p->max_tokens >= 0) return p->max_tokens;
    if (p->messages) return left;
    int64_t usual = p->route == ROUTE_COMPLETIONS ? COMPLETIONS_DEFAULT : GENERATE_DEFAULT;
    return usual < left ? usual : left;
}

/* The prompt's room in the context; *max_tokens is what may be generated behind it. */
static int measure(const struct job *j, const struct prompt *pr, int32_t *max_tokens, struct api_err *e) {
    const char *param = j->par.messages ? "messages" : "prompt";
    int64_t context = j->front->env.max_model_len, n = (int64_t)pr->ids.n;
    if (!n) return api_fail(e, 400, param, "the prompt is empty: it has no tokens");
    int64_t want = wanted(&j->par, context - n);
    if (n + (want > 0 || j->par.max_tokens < 0 ? 1 : 0) > context)
        return api_fail_code(
            e, 400, "context_length_exceeded", param,
            "the prompt has %lld tokens; the model's context is %lld, and one must be left for the answer",
            (long long)n, (long long)context);
    if (n + want > context)
        return api_fail_code(
            e, 400, "context_length_exceeded", "max_tokens",
            "the prompt has %lld tokens and max_tokens is %lld; together they must not pass the model's "
            "context of %lld",
            (long long)n, (long long)want, (long long)context);
    *max_tokens = (int32_t)want;
    return 0;
}

static int make_choices(struct job *j, struct api_err *e) {
    int64_t n = j->par.n, all = n * j->n_prompts, tokens = 0;
    int most = j->front->max_choices ? j->front->max_choices : CHOICES_MAX;
    if (all > most)
        return api_fail(e, 400, "n", "prompts times n must be at most %d, found %lld", most, (long long)all);
    int32_t *max_tokens = mem_array((size_t)j->n_prompts, sizeof *max_tokens);
    int bad = 0;
    for (int i = 0; i < j->n_prompts && !bad; i++) {
        bad = measure(j, &j->prompts[i], &max_tokens[i], e);
        tokens += bad ? 0 : n * max_tokens[i];
    }
    if (!bad && j->par.logprobs >= 0 && tokens * (1 + j->par.logprobs) > LOGPROBS_TOTAL_MAX)
        bad = api_fail(e, 400, "logprobs",
                       "up to %lld tokens with %lld log-probabilities each are too many (%d in all); "
                       "lower max_tokens or n",
                       (long long)tokens, (long long)j->par.logprobs + 1, LOGPROBS_TOTAL_MAX);
    uint64_t seed = (uint64_t)j->par.seed;
    if (!j->par.has_seed) random_bytes(&seed, sizeof seed);
    if (!bad) j->choices = mem_array((size_t)all, sizeof *j->choices);
    for (int i = 0; i < all && !bad; i++) {
        const struct prompt *p = &j->prompts[i / n];
        choice_init(&j->choices[i], &(struct choice_args){j->front, &j->par, p->ids.v, (int32_t)p->ids.n,
                                                          max_tokens[i / n], seed + (uint64_t)(i % n), i});
        j->choices[i].job = j;
        j->n_choices++;
    }
    free(max_tokens);
    return bad;
}

int job_prepare(struct job *j, struct words_tmp *tmp, enum route route, json_t *body, struct api_err *e) {
    struct params *p = &j->par;
    if (fields_read(body, route, &j->front->env, p, e) || read_input(j, tmp, e) || make_choices(j, e)) return -1;
    p->prompt = p->prompt_ids = p->messages = p->tools = p->tool_choice = p->kwargs = p->reasoning_effort = NULL;
    make_id(j);
    return 0;
}

/* ---- its choices ---- */

bool job_submit(struct job *j, struct outbox *box) {
    for (int i = 0; i < j->n_choices; i++) {
        if (choice_submit(&j->choices[i], box)) continue;
        job_cancel(j);
        return false;
    }
    return true;
}

void job_cancel(struct job *j) {
    for (int i = 0; i < j->n_choices; i++) choice_cancel(&j->choices[i]);
}

bool job_in_flight(const struct job *j) {
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].in_flight) return true;
    return false;
}

bool job_done(const struct job *j) {
    for (int i = 0; i < j->n_choices; i++)
        if (!j->choices[i].done) return false;
    return true;
}

bool job_error(const struct job *j, struct api_err *e) {
    for (int i = 0; i < j->n_choices; i++) {
        if (!j->choices[i].done) continue;
        switch (j->choices[i].finish) {
        case FINISH_ERROR: api_fail(e, 500, NULL, "the model computed no valid number for the next token"); return true;
        case FINISH_TIMEOUT:
            api_fail(e, 503, NULL, "the answer was not complete within this server's time limit");
            return true;
        case FINISH_ABORT: api_fail(e, 503, NULL, "the server stopped before the answer was complete"); return true;
        default: break;
        }
    }
    return false;
}
