/* messages.c: see messages.h. No state. It refuses unknown roles and everything that is not text. */
#include "serve/messages.h"

#include "base/buf.h"
#include "serve/json_in.h"

#include <string.h>

struct reader {
    const struct message_rules *rules;
    size_t bytes, i; /* content so far; the message at work */
    struct api_err *e;
};

#define REFUSE(r, fmt, ...) api_fail((r)->e, 400, "messages", "messages[%zu]: " fmt, (r)->i, ##__VA_ARGS__)

static int role_of(struct reader *r, const json_t *m, const char **role) {
    static const char *const known[] = {"system", "developer", "user", "assistant", "tool"};
    const json_t *v = json_object_get(m, "role");
    if (!json_is_string(v)) return REFUSE(r, "role must be a string");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i], json_string_value(v)) && strlen(known[i]) == json_string_length(v)) {
            *role = known[i];
            return 0;
        }
    return REFUSE(r, "role must be system, developer, user, assistant or tool");
}

static int add_part(struct reader *r, const json_t *part, struct buf *text) {
    const json_t *type = json_object_get(part, "type"), *s = json_object_get(part, "text");
    if (json_is_string(type) && strcmp(json_string_value(type), "text"))
        return REFUSE(r, "content parts must be of type text; images, audio and files are not supported");
    if (!json_is_string(type) || !json_is_string(s))
        return REFUSE(r, "a content part must be {\"type\": \"text\", \"text\": \"...\"}");
    if (text->len) buf_addc(text, '\n');
    return buf_add(text, json_string_value(s), json_string_length(s));
}

static json_t *joined(struct reader *r, const json_t *parts) {
    struct buf text;
    json_t *out = NULL;
    buf_init(&text, 1 << 30);
    for (size_t i = 0; i < json_array_size(parts); i++)
        if (add_part(r, json_array_get(parts, i), &text)) goto out;
    out = json_stringn_nocheck(buf_str(&text), text.len);
out:
    buf_release(&text);
    return out;
}

static json_t *content_of(struct reader *r, const json_t *m, const char *role) {
    json_t *v = json_object_get(m, "content");
    if (json_is_string(v)) return json_incref(v);
    if (json_is_array(v) && json_array_size(v)) return joined(r, v);
    bool called = !strcmp(role, "assistant") && json_array_size(json_object_get(m, "tool_calls"));
    if ((!v || json_is_null(v)) && called) return json_string("");
    REFUSE(r, "content must be a string or a list of text parts");
    return NULL;
}

/* Templates print arguments as JSON, so a string that holds an object is given as the object. */
static json_t *plain_call(struct reader *r, const json_t *call) {
    json_t *f = json_object_get(call, "function"), *args = json_object_get(f, "arguments");
    if (!json_is_string(json_object_get(f, "name"))) {
        REFUSE(r, "each of tool_calls must have a function with a name");
        return NULL;
    }
    json_t *copy = json_copy((json_t *)call), *fcopy = json_copy(f);
    struct api_err none;
    json_t *parsed = json_is_string(args) ? json_read(json_string_value(args), json_string_length(args), &none) : NULL;
    if (parsed) json_object_set_new(fcopy, "arguments", parsed);
    json_object_set_new(copy, "function", fcopy);
    return copy;
}

static int add_calls(struct reader *r, const json_t *m, json_t *out) {
    const json_t *calls = json_object_get(m, "tool_calls");
    if (!calls || json_is_null(calls)) return 0;
    if (!json_is_array(calls)) return REFUSE(r, "tool_calls must be a list");
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = plain_call(r, json_array_get(calls, i));
        if (!call) {
            json_decref(list);
            return -1;
        }
        json_array_append_new(list, call);
    }
    return json_object_set_new(out, "tool_calls", list);
}

static json_t *read_message(struct reader *r, const json_t *m) {
    const char *role = NULL;
    if (!json_is_object(m)) {
        REFUSE(r, "a message must be an object");
        return NULL;
    }
    if (role_of(r, m, &role)) return NULL;
    if (!strcmp(role, "tool") && !json_is_string(json_object_get(m, "tool_call_id"))) {
        REFUSE(r, "a message of role tool must have a tool_call_id");
        return NULL;
    }
    json_t *content = content_of(r, m, role);
    if (!content) return NULL;
    r->bytes += json_string_length(content);
    json_t *out = json_copy((json_t *)m);
    json_object_set_new(out, "content", content);
    if (!strcmp(role, "developer") && !r->rules->developer) json_object_set_new(out, "role", json_string("system"));
    if (!add_calls(r, m, out)) return out;
    json_decref(out);
    return NULL;
}

json_t *messages_read(const json_t *messages, const struct message_rules *rules, struct api_err *e) {
    struct reader r = {.rules = rules, .e = e};
    size_t n = json_array_size(messages);
    if (!json_is_array(messages) || !n) {
        api_fail(e, 400, "messages", "messages must be a list with at least one message");
        return NULL;
    }
    json_t *out = json_array();
    for (; r.i < n && n <= rules->max_messages && r.bytes <= rules->max_bytes; r.i++) {
        json_t *m = read_message(&r, json_array_get(messages, r.i));
        if (!m) goto fail;
        json_array_append_new(out, m);
    }
    if (n <= rules->max_messages && r.bytes <= rules->max_bytes) return out;
    api_fail_code(e, 400, "context_length_exceeded", "messages",
                  "the messages are longer than the model's context of %zu tokens; shorten them", rules->max_messages);
fail:
    json_decref(out);
    return NULL;
}
