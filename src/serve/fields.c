/* fields.c: see fields.h. No state but constant tables. */
#include "serve/fields.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    F_BOOL,
    F_INT,     /* ilo..ihi */
    F_REAL,    /* lo..hi, finite */
    F_OWN,     /* read() does it */
    F_ANY,     /* kept as it is for a later stage, which checks it */
    F_NEUTRAL, /* not offered: only the value that changes nothing is accepted */
    F_IGNORED  /* accepted, without effect */
};
enum neutral { NEUTRAL_NULL, NEUTRAL_NUMBER, NEUTRAL_FALSE, NEUTRAL_EMPTY };

struct field;
struct reading {
    const struct field *f;
    const json_t *v;
    const struct field_env *env;
    struct params *p;
    struct api_err *e;
};

struct field {
    const char *name;
    unsigned routes;
    enum kind kind;
    enum neutral neutral;
    bool lo_open, has;
    int64_t ilo, ihi;
    double lo, hi;
    size_t at, has_at; /* where in struct params */
    int (*read)(const struct reading *r);
    const char *takes, *fallback, *doc; /* for people; takes: F_OWN, F_ANY */
};

enum { CHAT = ROUTE_CHAT, TEXT = ROUTE_COMPLETIONS, GEN = ROUTE_GENERATE, ALL = CHAT | TEXT | GEN };

static int read_stop(const struct reading *r);
static int read_stop_ids(const struct reading *r);
static int read_stream_options(const struct reading *r);
static int read_model(const struct reading *r);
static int read_kwargs(const struct reading *r);
static int read_response_format(const struct reading *r);
static int read_modalities(const struct reading *r);
static int read_effort(const struct reading *r);
static int read_salt(const struct reading *r);

#define AT(m) .at = offsetof(struct params, m)
#define HAS(m) .has = true, .has_at = offsetof(struct params, m)
#define BOOL(name_, routes_, m, ...)                                                                                   \
    { .name = name_, .routes = routes_, .kind = F_BOOL, AT(m), __VA_ARGS__ }
#define INT(name_, routes_, m, lo_, hi_, ...)                                                                          \
    { .name = name_, .routes = routes_, .kind = F_INT, AT(m), .ilo = lo_, .ihi = hi_, __VA_ARGS__ }
#define REAL(name_, routes_, m, lo_, hi_, ...)                                                                         \
    { .name = name_, .routes = routes_, .kind = F_REAL, AT(m), .lo = lo_, .hi = hi_, __VA_ARGS__ }
#define OWN(name_, routes_, fn_, ...)                                                                                  \
    { .name = name_, .routes = routes_, .kind = F_OWN, .read = fn_, __VA_ARGS__ }
#define ANY(name_, routes_, m, ...)                                                                                    \
    { .name = name_, .routes = routes_, .kind = F_ANY, AT(m), __VA_ARGS__ }
#define NO(name_, routes_, neutral_, ...)                                                                              \
    { .name = name_, .routes = routes_, .kind = F_NEUTRAL, .neutral = neutral_, __VA_ARGS__ }
#define IGNORED(name_, ...)                                                                                            \
    { .name = name_, .routes = ALL, .kind = F_IGNORED, __VA_ARGS__ }

/* clang-format off */
static const struct field table[] = {
    OWN("model", ALL, read_model, .takes = "string", .fallback = "the served model",
        .doc = "A served name (see /v1/models), what --model was given, or \"default\"."),
    ANY("messages", CHAT | GEN, messages, .takes = "list of messages", .doc = "The conversation; content is a string or a list of text parts."),
    ANY("prompt", TEXT | GEN, prompt, .takes = "string, list of token ids, or (completions) a list of those",
        .doc = "The text to continue. At most 1024 prompts."),
    NO("prompt", CHAT, NEUTRAL_NULL, .doc = "A field of completions."),
    NO("messages", TEXT, NEUTRAL_NULL, .doc = "A field of chat."),
    ANY("prompt_token_ids", GEN, prompt_ids, .takes = "list of token ids", .doc = "The tokens to continue."),
    BOOL("stream", ALL, stream, .fallback = "false", .doc = "Send the text as it comes, as server-sent events."),
    OWN("stream_options", ALL, read_stream_options, .takes = "object", .doc = "include_usage: a last event carries the usage; continuous_usage_stats with it: every event, as it is by then. Only with stream."),
    INT("max_tokens", ALL, max_tokens, 0, INT32_MAX, .fallback = "chat: to the end of the context; completions: 16; generate: 128 for a prompt",
        .doc = "How many tokens to generate at most. 0 only with echo."),
    INT("max_completion_tokens", ALL, max_completion_tokens, 1, INT32_MAX, .doc = "The newer name of max_tokens; it wins when both are given."),
    NO("min_tokens", ALL, NEUTRAL_NUMBER, .lo = 0, .doc = "Not offered yet."),
    REAL("temperature", ALL, temperature, 0, 2, .fallback = "the model's, else 1", .doc = "0 (or below 0.0001): always the most likely token."),
    REAL("top_p", ALL, top_p, 0, 1, .lo_open = true, .fallback = "the model's, else 1", .doc = "Sample from the most likely tokens that together have this probability."),
    INT("top_k", ALL, top_k, -1, INT32_MAX, .fallback = "the model's, else off", .doc = "Sample from that many most likely tokens; 0 or -1: off; at most the vocabulary."),
    REAL("min_p", ALL, min_p, 0, 1, .fallback = "0", .doc = "Drop tokens less likely than this share of the most likely one."),
    INT("seed", ALL, seed, INT64_MIN, INT64_MAX, HAS(has_seed), .fallback = "random", .doc = "Same seed, same prompt, same parameters: same tokens. Choice i uses seed + i."),
    INT("n", CHAT | TEXT, n, 1, N_MAX, .fallback = "1", .doc = "How many choices for each prompt."),
    INT("n", GEN, n, 1, 1, .fallback = "1", .doc = "One choice only."),
    OWN("stop", ALL, read_stop, .takes = "string or list of at most 4 strings of 1 to 1024 bytes", .doc = "The text ends before any of these."),
    OWN("stop_token_ids", ALL, read_stop_ids, .takes = "list of at most 128 token ids", .doc = "The text ends before any of these tokens."),
    BOOL("include_stop_str_in_output", ALL, include_stop_str, .fallback = "false", .doc = "Keep the stop string at the end of the text."),
    BOOL("ignore_eos", ALL, ignore_eos, .fallback = "false", .doc = "Go on after the model's end-of-text tokens."),
    BOOL("skip_special_tokens", ALL, skip_special_tokens, .fallback = "true", .doc = "Leave special tokens out of the text."),
    BOOL("add_special_tokens", ALL, add_special, HAS(has_add_special), .fallback = "true for a prompt, false for messages",
         .doc = "Put the tokenizer's own start token in front of the prompt."),
    BOOL("echo", TEXT, echo, .fallback = "false", .doc = "Put the prompt in front of the text. Not together with logprobs."),
    NO("echo", CHAT | GEN, NEUTRAL_FALSE, .doc = "A field of completions."),
    BOOL("logprobs", CHAT, chat_logprobs, .fallback = "false", .doc = "Give the log-probability of each token, under the model's own distribution."),
    INT("top_logprobs", CHAT, top_logprobs, 0, 20, .doc = "And those of that many most likely tokens. Needs logprobs: true."),
    NO("top_logprobs", TEXT | GEN, NEUTRAL_NULL, .doc = "Here logprobs is that number."),
    INT("logprobs", TEXT | GEN, logprobs, 0, 20, .doc = "Give the log-probability of each token and of that many most likely ones."),
    BOOL("add_generation_prompt", CHAT | GEN, add_generation_prompt, HAS(has_add_generation_prompt), .fallback = "true",
         .doc = "End the prompt with the header of the assistant's turn."),
    BOOL("continue_final_message", CHAT | GEN, continue_final, .fallback = "false", .doc = "Go on with the last message instead of answering it."),
    OWN("chat_template_kwargs", CHAT | GEN, read_kwargs, .takes = "object of at most 32 scalar values", .doc = "Variables for the model's chat template (enable_thinking)."),
    OWN("reasoning_effort", CHAT | GEN, read_effort, .takes = "string", .doc = "Given to the chat template under this name."),
    OWN("cache_salt", ALL, read_salt, .takes = "string of 1 to 256 bytes", .doc = "Prefixes are shared only among requests with the same salt."),
    ANY("tools", CHAT | GEN, tools, .takes = "list", .doc = "Given to the chat template. Only with tool_choice \"none\": calls are not read out of the text yet."),
    ANY("tool_choice", CHAT | GEN, tool_choice, .takes = "\"none\"", .doc = "See tools."),
    INT("best_of", ALL, best_of, 1, N_MAX, .doc = "Only the same as n."),
    OWN("response_format", ALL, read_response_format, .takes = "{\"type\": \"text\"}", .doc = "Only text is offered."),
    OWN("modalities", CHAT, read_modalities, .takes = "[\"text\"]", .doc = "Only text is offered."),
    NO("presence_penalty", ALL, NEUTRAL_NUMBER, .lo = 0, .doc = "Not offered yet."),
    NO("frequency_penalty", ALL, NEUTRAL_NUMBER, .lo = 0, .doc = "Not offered yet."),
    NO("repetition_penalty", ALL, NEUTRAL_NUMBER, .lo = 1, .doc = "Not offered yet."),
    NO("length_penalty", ALL, NEUTRAL_NUMBER, .lo = 1, .doc = "Not offered."),
    NO("logit_bias", ALL, NEUTRAL_EMPTY, .doc = "Not offered yet."),
    NO("bad_words", ALL, NEUTRAL_EMPTY, .doc = "Not offered yet."),
    NO("allowed_token_ids", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("suffix", ALL, NEUTRAL_EMPTY, .doc = "Not offered."),
    NO("prompt_logprobs", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("use_beam_search", ALL, NEUTRAL_FALSE, .doc = "Not offered."),
    NO("truncate_prompt_tokens", ALL, NEUTRAL_NULL, .doc = "Prompts are never cut."),
    NO("functions", CHAT, NEUTRAL_EMPTY, .doc = "Not offered; the older form of tools."),
    NO("function_call", CHAT, NEUTRAL_NULL, .doc = "Not offered; the older form of tool_choice."),
    NO("audio", CHAT, NEUTRAL_NULL, .doc = "Only text is offered."),
    NO("prediction", CHAT, NEUTRAL_NULL, .doc = "Not offered."),
    NO("web_search_options", CHAT, NEUTRAL_NULL, .doc = "Not offered: this server makes no connections of its own."),
    NO("documents", CHAT, NEUTRAL_EMPTY, .doc = "Not offered."),
    NO("chat_template", ALL, NEUTRAL_NULL, .doc = "The template is the operator's choice."),
    NO("guided_json", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("guided_regex", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("guided_choice", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("guided_grammar", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("structured_outputs", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("json_schema", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("regex", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("ebnf", ALL, NEUTRAL_NULL, .doc = "Not offered yet."),
    NO("lora_path", ALL, NEUTRAL_NULL, .doc = "Not offered."),
    NO("sampling_params", GEN, NEUTRAL_EMPTY, .doc = "Put the fields beside the prompt."),
    IGNORED("user", .doc = "Accepted, without effect."),
    IGNORED("metadata", .doc = "Accepted, without effect."),
    IGNORED("store", .doc = "Accepted, without effect: nothing is stored."),
    IGNORED("service_tier", .doc = "Accepted, without effect."),
    IGNORED("parallel_tool_calls", .doc = "Accepted, without effect."),
};
/* clang-format on */
enum { N_FIELDS = sizeof table / sizeof table[0] };

/* ---- one field ---- */

/* What was found, in a few words, for the end of a sentence. */
static const char *found(const json_t *v, char *tmp, size_t n) {
    switch (json_typeof(v)) {
    case JSON_NULL: return "null";
    case JSON_TRUE: return "true";
    case JSON_FALSE: return "false";
    case JSON_INTEGER: snprintf(tmp, n, "%lld", (long long)json_integer_value(v)); return tmp;
    case JSON_REAL: snprintf(tmp, n, "%.17g", json_real_value(v)); return tmp;
    case JSON_STRING: return json_string_length(v) ? "a string" : "an empty string";
    case JSON_ARRAY: return json_array_size(v) ? "a list" : "an empty list";
    default: return "an object";
    }
}

static int wrong(const struct reading *r, const char *want) {
    char tmp[40];
    return api_fail(r->e, 400, r->f->name, "%s must be %s, found %s", r->f->name, want, found(r->v, tmp, sizeof tmp));
}

static void *member(const struct reading *r, size_t at) { return (char *)r->p + at; }

static int read_int(const struct reading *r) {
    char want[96];
    int64_t x = json_integer_value(r->v);
    if (r->f->ilo == INT64_MIN)
        snprintf(want, sizeof want, "an integer of 64 bits");
    else if (r->f->ihi == INT32_MAX)
        snprintf(want, sizeof want, "an integer not below %lld", (long long)r->f->ilo);
    else
        snprintf(want, sizeof want, "an integer from %lld to %lld", (long long)r->f->ilo, (long long)r->f->ihi);
    if (!json_is_integer(r->v) || x < r->f->ilo || x > r->f->ihi) return wrong(r, want);
    *(int64_t *)member(r, r->f->at) = x;
    return 0;
}

static int read_real(const struct reading *r) {
    char want[96];
    double x = json_is_number(r->v) ? json_number_value(r->v) : NAN;
    snprintf(want, sizeof want, "a number %s %g and at most %g", r->f->lo_open ? "above" : "not below", r->f->lo,
             r->f->hi);
    if (!isfinite(x) || x < r->f->lo || (r->f->lo_open && x <= r->f->lo) || x > r->f->hi) return wrong(r, want);
    *(double *)member(r, r->f->at) = x;
    return 0;
}

static int read_bool(const struct reading *r) {
    if (!json_is_boolean(r->v)) return wrong(r, "true or false");
    *(bool *)member(r, r->f->at) = json_is_true(r->v);
    return 0;
}

static bool is_empty(const json_t *v) {
    return (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v)) ||
           (json_is_string(v) && !json_string_length(v));
}

static int read_neutral(const struct reading *r) {
    char want[64];
    switch (r->f->neutral) {
    case NEUTRAL_NUMBER:
        snprintf(want, sizeof want, "%g (other values are not supported)", r->f->lo);
        return json_is_number(r->v) && json_number_value(r->v) == r->f->lo ? 0 : wrong(r, want);
    case NEUTRAL_FALSE: return json_is_false(r->v) ? 0 : wrong(r, "false (it is not supported)");
    case NEUTRAL_EMPTY: return is_empty(r->v) ? 0 : wrong(r, "empty or absent (it is not supported)");
    default: return wrong(r, "absent (it is not supported)");
    }
}

static int read_field(const struct reading *r) {
    if (r->f->has) *(bool *)member(r, r->f->has_at) = true;
    switch (r->f->kind) {
    case F_BOOL: return read_bool(r);
    case F_INT: return read_int(r);
    case F_REAL: return read_real(r);
    case F_OWN: return r->f->read(r);
    case F_ANY: *(const json_t **)member(r, r->f->at) = r->v; return 0;
    case F_NEUTRAL: return read_neutral(r);
    default: return 0;
    }
}

/* ---- fields with a shape of their own ---- */

static int add_stop(const struct reading *r, const json_t *v) {
    size_t n = json_string_length(v);
    if (!json_is_string(v) || !n || n > STOP_BYTES_MAX)
        return api_fail(r->e, 400, "stop", "each stop string must have 1 to %d bytes", STOP_BYTES_MAX);
    struct stop_text *t = &r->p->stop[r->p->n_stop++];
    t->s = mem_strndup(json_string_value(v), n);
    memcpy(t->s, json_string_value(v), n); /* it may contain NUL */
    t->n = n;
    return 0;
}

static int read_stop(const struct reading *r) {
    if (json_is_string(r->v)) return add_stop(r, r->v);
    if (!json_is_array(r->v)) return wrong(r, "a string or a list of strings");
    if (json_array_size(r->v) > STOPS_MAX)
        return api_fail(r->e, 400, "stop", "stop must have at most %d strings, found %zu", STOPS_MAX,
                        json_array_size(r->v));
    for (size_t i = 0; i < json_array_size(r->v); i++)
        if (add_stop(r, json_array_get(r->v, i))) return -1;
    return 0;
}

static int read_stop_ids(const struct reading *r) {
    if (!json_is_array(r->v)) return wrong(r, "a list of token ids");
    if (json_array_size(r->v) > STOP_TOKENS_MAX)
        return api_fail(r->e, 400, "stop_token_ids", "stop_token_ids must have at most %d ids, found %zu",
                        STOP_TOKENS_MAX, json_array_size(r->v));
    for (size_t i = 0; i < json_array_size(r->v); i++) {
        const json_t *v = json_array_get(r->v, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= r->env->n_vocab)
            return api_fail(r->e, 400, "stop_token_ids", "each of stop_token_ids must be an integer from 0 to %d",
                            r->env->n_vocab - 1);
        r->p->stop_ids[r->p->n_stop_ids++] = (int32_t)json_integer_value(v);
    }
    return 0;
}

static int read_stream_options(const struct reading *r) {
    if (!json_is_object(r->v)) return wrong(r, "an object");
    static const char *const names[] = {"include_usage", "continuous_usage_stats"};
    bool *const to[] = {&r->p->include_usage, &r->p->continuous_usage};
    for (int i = 0; i < 2; i++) {
        const json_t *u = json_object_get(r->v, names[i]);
        if (u && !json_is_null(u) && !json_is_boolean(u))
            return api_fail(r->e, 400, "stream_options", "stream_options.%s must be true or false", names[i]);
        *to[i] = json_is_true(u);
    }
    r->p->has_stream_options = true;
    return 0;
}

static int read_model(const struct reading *r) {
    if (!json_is_string(r->v)) return wrong(r, "a string");
    const char *s = json_string_value(r->v);
    size_t n = json_string_length(r->v);
    if (n == 7 && !memcmp(s, "default", 7)) return 0;
    for (const char *const *name = r->env->names; *name; name++) {
        if (strlen(*name) != n || memcmp(*name, s, n)) continue;
        r->p->model = *name;
        return 0;
    }
    if (r->env->alias && strlen(r->env->alias) == n && !memcmp(r->env->alias, s, n)) return 0;
    return api_fail_code(r->e, 404, "model_not_found", "model", "the model '%.*s' is not served here; it is '%s'",
                         n > 200 ? 200 : (int)n, s, r->env->names[0]);
}

static bool kwarg_is_reserved(const char *name) {
    static const char *const reserved[] = {
        "chat_template",         "tokenize", "messages", "tools", "documents", "conversation", "add_generation_prompt",
        "continue_final_message"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (!strcmp(reserved[i], name)) return true;
    return false;
}

static int read_kwargs(const struct reading *r) {
    if (!json_is_object(r->v)) return wrong(r, "an object");
    if (json_object_size(r->v) > KWARGS_MAX)
        return api_fail(r->e, 400, "chat_template_kwargs", "chat_template_kwargs must have at most %d names",
                        KWARGS_MAX);
    for (void *i = json_object_iter((json_t *)r->v); i; i = json_object_iter_next((json_t *)r->v, i)) {
        const char *name = json_object_iter_key(i);
        const json_t *v = json_object_iter_value(i);
        if (kwarg_is_reserved(name))
            return api_fail(r->e, 400, "chat_template_kwargs", "chat_template_kwargs must not set '%s'", name);
        if (strlen(name) > 64 || json_is_object(v) || json_is_array(v) || json_string_length(v) > 4096)
            return api_fail(r->e, 400, "chat_template_kwargs",
                            "values of chat_template_kwargs must be true, false, numbers or short strings");
    }
    r->p->kwargs = (json_t *)r->v;
    return 0;
}

static int read_effort(const struct reading *r) {
    if (!json_is_string(r->v) || json_string_length(r->v) > 32) return wrong(r, "a short string");
    r->p->reasoning_effort = (json_t *)r->v;
    return 0;
}

static int read_salt(const struct reading *r) {
    const char *s = json_string_value(r->v);
    size_t n = json_string_length(r->v);
    if (!n || n > SALT_MAX || strlen(s) != n) return wrong(r, "a string of 1 to 256 bytes without NUL");
    r->p->cache_salt = mem_strdup(s);
    return 0;
}

static int read_response_format(const struct reading *r) {
    const json_t *type = json_object_get(r->v, "type");
    if (json_is_string(type) && !strcmp(json_string_value(type), "text")) return 0;
    return api_fail(r->e, 400, "response_format",
                    "response_format must be {\"type\": \"text\"}; others are not supported");
}

static int read_modalities(const struct reading *r) {
    const json_t *one = json_array_get(r->v, 0);
    if (json_array_size(r->v) == 1 && json_is_string(one) && !strcmp(json_string_value(one), "text")) return 0;
    return api_fail(r->e, 400, "modalities", "modalities must be [\"text\"]");
}

/* ---- all of them ---- */

static void set_defaults(struct params *p, enum route route, const struct field_env *env) {
    *p = (struct params){.route = route,
                         .skip_special_tokens = true,
                         .add_generation_prompt = true,
                         .add_special = true,
                         .top_logprobs = -1,
                         .logprobs = -1,
                         .n = 1,
                         .best_of = -1,
                         .max_tokens = -1,
                         .max_completion_tokens = -1,
                         .temperature = env->temperature,
                         .top_p = env->top_p,
                         .top_k = env->top_k,
                         .min_p = env->min_p};
}

static int check_tools(const struct params *p, struct api_err *e) {
    const json_t *c = p->tool_choice;
    bool none = json_is_string(c) && !strcmp(json_string_value(c), "none");
    bool tools = p->tools && !(json_is_array(p->tools) && !json_array_size(p->tools));
    if (p->tools && !json_is_array(p->tools)) return api_fail(e, 400, "tools", "tools must be a list");
    if (c && !none && !(json_is_string(c) && !strcmp(json_string_value(c), "auto")))
        return api_fail(e, 400, "tool_choice", "tool calls are not supported yet; tool_choice must be \"none\"");
    if (tools && !none)
        return api_fail(e, 400, "tools",
                        "tool calls are not supported yet; leave tools out or set tool_choice to \"none\"");
    return 0;
}

static int check_pairs(struct params *p, const struct field_env *env, struct api_err *e) {
    if (p->has_stream_options && !p->stream)
        return api_fail(e, 400, "stream_options", "stream_options is allowed only with stream: true");
    if (p->top_logprobs >= 0 && !p->chat_logprobs)
        return api_fail(e, 400, "top_logprobs", "top_logprobs needs logprobs: true");
    if (p->chat_logprobs) p->logprobs = p->top_logprobs > 0 ? p->top_logprobs : 0;
    if (p->max_completion_tokens >= 0) p->max_tokens = p->max_completion_tokens;
    if (!p->max_tokens && !p->echo)
        return api_fail(e, 400, "max_tokens", "max_tokens must be at least 1 (0 is for echo alone)");
    if (p->echo && p->logprobs >= 0)
        return api_fail(e, 400, "logprobs", "logprobs of the prompt are not supported: leave out echo or logprobs");
    if (p->best_of >= 0 && p->best_of != p->n)
        return api_fail(e, 400, "best_of", "best_of is not supported: leave it out or set it to n");
    if (p->top_k > env->n_vocab)
        return api_fail(e, 400, "top_k", "top_k must be at most the vocabulary, %d", env->n_vocab);
    if (p->top_k < 0) p->top_k = 0;
    if (p->continue_final && p->has_add_generation_prompt && p->add_generation_prompt)
        return api_fail(e, 400, "continue_final_message",
                        "continue_final_message and add_generation_prompt exclude each other");
    if (p->continue_final) p->add_generation_prompt = false;
    return check_tools(p, e);
}

int fields_read(json_t *body, enum route route, const struct field_env *env, struct params *p, struct api_err *e) {
    set_defaults(p, route, env);
    for (size_t i = 0; i < N_FIELDS; i++) {
        if (!(table[i].routes & route)) continue;
        const json_t *v = json_object_get(body, table[i].name);
        if (!v || json_is_null(v)) continue;
        if (read_field(&(struct reading){&table[i], v, env, p, e})) return -1;
    }
    return check_pairs(p, env, e);
}

void params_release(struct params *p) {
    for (int i = 0; i < p->n_stop; i++) free(p->stop[i].s);
    free(p->cache_salt);
    p->n_stop = 0;
    p->cache_salt = NULL;
}

/* ---- documentation ---- */

static void add_takes(struct buf *b, const struct field *f) {
    switch (f->kind) {
    case F_BOOL: buf_adds(b, "true, false"); break;
    case F_INT:
        if (f->ilo == INT64_MIN)
            buf_adds(b, "integer");
        else if (f->ihi == INT32_MAX)
            buf_addf(b, "integer, %lld or more", (long long)f->ilo);
        else
            buf_addf(b, "integer, %lld to %lld", (long long)f->ilo, (long long)f->ihi);
        break;
    case F_REAL: buf_addf(b, "number, %s%g to %g", f->lo_open ? "above " : "", f->lo, f->hi); break;
    case F_NEUTRAL:
        if (f->neutral == NEUTRAL_NUMBER)
            buf_addf(b, "only %g", f->lo);
        else
            buf_adds(b, f->neutral == NEUTRAL_FALSE   ? "only false"
                        : f->neutral == NEUTRAL_EMPTY ? "only empty"
                                                      : "refused");
        break;
    case F_IGNORED: buf_adds(b, "anything"); break;
    default: buf_adds(b, f->takes); break;
    }
}

void fields_markdown(struct buf *b) {
    buf_adds(b, "| field | routes | takes | when absent | what it does |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < N_FIELDS; i++) {
        const struct field *f = &table[i];
        buf_addf(b, "| `%s` | ", f->name);
        if (f->routes == ALL)
            buf_adds(b, "all");
        else
            buf_addf(b, "%s%s%s", f->routes & CHAT ? "chat " : "", f->routes & TEXT ? "completions " : "",
                     f->routes & GEN ? "generate" : "");
        buf_adds(b, " | ");
        add_takes(b, f);
        buf_addf(b, " | %s | %s |\n", f->fallback ? f->fallback : "", f->doc);
    }
}
