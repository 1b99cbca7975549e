/* engine.h: launch and collect: batches in, results out, on every rank.
 *
 * The engine owns the step program and the devices. Rank 0 runs in the caller's thread (the scheduler's). All calls
 * come from that thread. After an error the machine is broken: end the process. */
#ifndef MINISGL_ENGINE_ENGINE_H
#define MINISGL_ENGINE_ENGINE_H
#include "base/err.h"
#include "dev/dev.h"
#include "model/config.h"
#include "model/weights.h"

struct engine_args {
    const struct config *config;     /* outlives the engine */
    const struct weights *weights;   /* rank 0's; outlives the engine */
    const struct dev_maker *maker;
    struct dev_args dev;             /* threads and instruction set of a rank */
    struct batch_limits limits;
    int32_t max_len, page_size, n_pages;
    enum dtype kv_dtype;
};

struct engine;

int engine_open(struct engine **out, const struct engine_args *args, struct err *e);
void engine_close(struct engine *g);
bool engine_async(const struct engine *g); /* launch returns before the step is done: overlap scheduling pays */
const char *engine_describe(const struct engine *g); /* for the log; lives as long as the engine */

/* Start a step; b stays unchanged until its result was collected. At most two are under way. */
int engine_launch(struct engine *g, const struct batch *b, struct err *e);
/* Wait for the oldest step under way. *r's rows stay valid until the next call. */
int engine_collect(struct engine *g, const struct result **r, struct err *e);

#endif
