/* metrics.h: what GET /metrics tells: counted by the I/O thread as answers are made, and written as Prometheus text
 * together with what the scheduler publishes (flow/stats.h).
 *
 * Names, labels and bucket bounds are those that vLLM's dashboards query; where a figure is none of vLLM's its name
 * begins with minisgl:. Everything of a request is counted here rather than by the scheduler, because only here its
 * true end is known (a stop string, a client that left), and because times then are what clients see. All of it belongs
 * to the I/O thread, which also writes it out, so nothing is locked. */
#ifndef MINISGL_SERVE_METRICS_H
#define MINISGL_SERVE_METRICS_H
#include "base/buf.h"
#include "flow/stats.h"
#include "serve/job.h"

enum metrics_time {
    TIME_FIRST_TOKEN,
    TIME_INTER_TOKEN,
    TIME_PER_TOKEN,
    TIME_WHOLE,
    TIME_QUEUE,
    TIME_INFERENCE,
    TIME_PREFILL,
    TIME_DECODE,
    N_TIMES
};
enum metrics_size { SIZE_PROMPT, SIZE_GENERATION, SIZE_MAX_TOKENS, SIZE_N, N_SIZES };

struct metrics {
    uint64_t prompt_tokens, cached_tokens, generation_tokens;
    uint64_t ended[FINISH_ERROR + 1]; /* requests, by how they ended */
    struct histo time[N_TIMES], size[N_SIZES];
};

/* The job's choices were handed to the scheduler. */
void metrics_submitted(struct metrics *m, const struct job *j);
/* News of a choice was taken in at `now`; before it n_counted was `before`. */
void metrics_news(struct metrics *m, struct choice *c, const struct news *n, int32_t before, uint64_t now);
/* Choices of the job may have ended. */
void metrics_ends(struct metrics *m, struct job *j, uint64_t now);

/* Everything as text. st may be NULL: nobody publishes. model: the served name, any bytes. */
struct metrics_args {
    const struct stats *stats;
    const char *model;
    int32_t max_len;
};
void metrics_write(struct buf *b, const struct metrics *m, const struct metrics_args *a);
/* A label's value with its escapes, in quotes. */
void metrics_label(struct buf *b, const char *s);

/* Prometheus's text format. */
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
