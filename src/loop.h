/* loop.h: the scheduler thread: the only place that sees both the scheduler and the engine.
 *
 * One step is five calls in this order (loop_step): drain the inbox, plan, launch, commit, flush. With overlap the
 * commit is of the step before, whose work is done while this one was planned and is running; without it, of this one.
 * It wants a device whose launch returns at once (dev/dev.h): then a step's results leave as soon as it is done. Where
 * launch does the work itself they would wait for the step after, so there the program leaves overlap off. */
#ifndef MINISGL_LOOP_H
#define MINISGL_LOOP_H
#include "base/err.h"
#include "engine/engine.h"
#include "flow/mail.h"
#include "sched/sched.h"

struct loop {
    struct inbox *inbox;
    struct sched *sched;
    struct engine *engine;
    struct batch *batch[2]; /* used in turn */
    int under_way;          /* steps launched and not committed */
    unsigned turn;          /* the next batch to plan into */
    bool overlap;
    struct outbox *flush_for; /* who asked to flush the cache in this step; NULL: nobody */
    uint64_t flushes;         /* and what to answer */
};

void loop_init(struct loop *l, struct inbox *inbox, struct sched *sched, struct engine *engine,
               const struct batch_limits *limits, bool overlap);
void loop_release(struct loop *l);

/* Run until the inbox drains and every request is answered: 0. -1: the machine is broken, end the process. */
int loop_run(struct loop *l, struct err *e);

#endif
