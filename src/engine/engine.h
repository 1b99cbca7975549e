/* engine.h: launch and collect: batches in, results out, on every rank.
 *
 * The engine owns the step programs, the devices and the threads of all ranks but rank 0, which runs in the caller's thread (the
 * scheduler's); all calls come from that thread. Only rank 0's results are handed out: all ranks compute the same tokens.
 * A batch is handed to the other ranks by pointer, to other processes by message. After an error the machine is broken: end the process. */
#ifndef MINISGL_ENGINE_ENGINE_H
#define MINISGL_ENGINE_ENGINE_H
#include "base/err.h"
#include "dev/dev.h"
#include "model/config.h"
#include "model/weights.h"

/* For tests of what happens then: at `step` the rank hangs, ends, gets another batch than the others, or hangs behind the comparison of batches (on
 * a GPU the others' kernels then wait for it). */
enum fault_kind { FAULT_NONE, FAULT_HANG, FAULT_EXIT, FAULT_DIFFER, FAULT_STALL };
struct fault {
    enum fault_kind kind;
    int32_t rank;
    uint64_t step;
};

struct engine_args {
    const struct config *config;     /* outlives the engine */
    const struct weights *weights;   /* of this process's ranks, bound with shard {rank, n_ranks}; outlive the engine */
    int32_t n_ranks;                 /* 1, 2, 4 or 8, in all processes */
    struct comm_hosts *hosts;        /* NULL: all ranks are in this process */
    const struct dev_maker *maker;
    struct dev_args dev;             /* threads and instruction set of each rank; rank and comm are the engine's to fill */
    struct batch_limits limits;
    int32_t max_len, page_size, n_pages;
    enum dtype dtype, kv_dtype;      /* of weights, of the KV cache */
    bool convert;                    /* dev_shape's: weights are brought to dtype */
    uint64_t comm_timeout_ns;        /* how long a rank waits for another; only with several */
    uint64_t comm_spin_ns;           /* how long it does so without sleeping: 0 where cores are short */
    struct fault fault;
    /* A rank other than 0 cannot go on (called from its thread; rank 0 may hang and never hear of it): end the process. Only with several ranks. */
    void (*broken)(void *arg, const struct err *e);
    void *broken_arg;
};

struct engine;

int engine_open(struct engine **out, const struct engine_args *args, struct err *e);
void engine_close(struct engine *g);
bool engine_async(const struct engine *g); /* launch returns before the step is done: overlap scheduling pays */
const char *engine_describe(const struct engine *g); /* of rank 0's device, for the log; lives as long as the engine */

const char *engine_chosen(const struct engine *g);   /* what it chose at load, one line; "": nothing to tell */

/* What one of this process's devices has loaded. */
struct dev_loaded engine_loaded(const struct engine *g, int32_t rank);

/* The ranks of this process. */
int32_t engine_first(const struct engine *g);
int32_t engine_local(const struct engine *g);

/* Start a step; b stays unchanged until its result was collected. At most two are under way. */
int engine_launch(struct engine *g, const struct batch *b, struct err *e);
/* Wait for the oldest step under way. *r's rows stay valid until the next call. */
int engine_collect(struct engine *g, const struct result **r, struct err *e);

/* For tests, when no step is under way: the logits of the first `rows` rows of the last step, [rows, V], the ranks' shares side by side. All
 * ranks must be in this process. */
int engine_logits(struct engine *g, float *logits, int32_t rows, struct err *e);

/* Several processes. Process 0 calls engine_beat about every ENGINE_BEAT_NS while it has no work: the others are alive,
 * and know that it is. */
enum { ENGINE_BEAT_NS = 500000000 };
bool engine_wants_beat(const struct engine *g);
int engine_beat(struct engine *g, struct err *e);
/* The other processes call this instead of launch and collect: carry out what process 0 launches, until it closes its engine (0). */
int engine_follow(struct engine *g, struct err *e);

#endif
