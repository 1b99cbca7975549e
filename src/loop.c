/* loop.c: see loop.h. Everything here belongs to the scheduler thread; it sleeps only in inbox_take, when there is
 * nothing to compute. */
#include "loop.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdlib.h>

void loop_init(struct loop *l, struct inbox *inbox, struct sched *sched, struct engine *engine,
               const struct batch_limits *limits, bool overlap) {
    *l = (struct loop){.inbox = inbox, .sched = sched, .engine = engine, .overlap = overlap};
    for (int i = 0; i < 2; i++) l->batch[i] = batch_init(mem_aligned(64, batch_size(limits)), limits);
}

void loop_release(struct loop *l) {
    for (int i = 0; i < 2; i++) free(l->batch[i]);
}

/* Returns false when the inbox is closed and all work is done. */
static bool inbox_drain(struct loop *l) {
    bool idle = l->under_way == 0 && sched_idle(l->sched);
    struct inbox_news news;
    inbox_take(l->inbox, idle, &news);
    struct request *r = news.requests;
    bool any = r != NULL;
    while (r) {
        struct request *next = r->next_in;
        sched_add(l->sched, r);
        r = next;
    }
    if (news.cancelled) sched_look_for_cancelled(l->sched);
    if (news.flush_for) {
        l->flush_for = news.flush_for;
        l->flushes = news.flushes;
    }
    return any || !idle || !news.draining || news.flush_for;
}

static int commit_oldest(struct loop *l, struct err *e) {
    const struct batch *b = l->batch[(l->turn + (unsigned)l->under_way) & 1];
    const struct result *r;
    if (engine_collect(l->engine, &r, e)) return -1;
    sched_commit(l->sched, b, r, clock_ns());
    l->under_way--;
    return 0;
}

/* At the end of the step, not where it was asked for: now every request that had ended or was cancelled by then has let
 * go of its pages, since the step that still held it is committed. */
static void flush_cache(struct loop *l) {
    if (!l->flush_for) return;
    sched_flush_cache(l->sched);
    outbox_flushed(l->flush_for, l->flushes);
    l->flush_for = NULL;
}

static int loop_step(struct loop *l, struct err *e) {
    struct batch *b = l->batch[l->turn & 1];
    bool planned = sched_plan(l->sched, b, clock_ns());
    if (planned) {
        if (engine_launch(l->engine, b, e)) return -1;
        l->under_way++;
        l->turn++;
    }
    bool wait_for_it = l->under_way > 1 || !planned || !l->overlap;
    if (l->under_way && wait_for_it && commit_oldest(l, e)) return -1;
    sched_flush(l->sched);
    flush_cache(l);
    return 0;
}

/* With other processes: they hear from this one while there is nothing to do. */
static int beat_while_idle(struct loop *l, struct err *e) {
    if (!engine_wants_beat(l->engine) || l->under_way || !sched_idle(l->sched)) return 0;
    while (!inbox_wait(l->inbox, ENGINE_BEAT_NS))
        if (engine_beat(l->engine, e)) return -1;
    return 0;
}

int loop_run(struct loop *l, struct err *e) {
    for (;;) {
        if (beat_while_idle(l, e)) return -1;
        if (!inbox_drain(l)) return 0;
        if (loop_step(l, e)) return -1;
    }
}
