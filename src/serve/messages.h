/* messages.h: the messages of a chat request, checked and made plain for a chat template. */
#ifndef MINISGL_SERVE_MESSAGES_H
#define MINISGL_SERVE_MESSAGES_H
#include "serve/api_err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct message_rules {
    size_t max_messages, max_bytes; /* of all content together; more cannot fit the model's context */
    bool developer;                 /* the template knows the role; otherwise it is given as `system` */
};

/* A new list (json_decref it): every content a string (text parts joined by newlines, as Transformers' and vLLM's
 * string format does; "" for an assistant that only called tools), arguments of tool calls as objects where they are.
 * Other members are kept. NULL and *e when something is wrong. */
json_t *messages_read(const json_t *messages, const struct message_rules *rules, struct api_err *e);

#endif
