/* reply.h: answers as JSON: OpenAI's shapes for the two OpenAI routes, a plain one for /generate and the command line.
 *
 * Text is appended to a buf; no tree is built. Log-probabilities have one entry a generated token (the stop token
 * included), so that their number is usage.completion_tokens. */
#ifndef MINISGL_SERVE_REPLY_H
#define MINISGL_SERVE_REPLY_H
#include "serve/job.h"

/* The whole answer of a job that is done. */
void reply_whole(struct buf *b, struct job *j);

/* Server-sent events: everything that is new in choice c, as few events as possible. */
void reply_events(struct buf *b, struct job *j, struct choice *c);
/* All choices are done and told: the usage if it was asked for, and the end mark. */
void reply_end(struct buf *b, const struct job *j);
/* Something failed after the stream began: the last event. */
void reply_failure(struct buf *b, const struct api_err *e);

#endif
