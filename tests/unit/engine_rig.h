/* engine_rig.h: requests through scheduler, loop and engine on a setting, as the server runs them but without text. */
#ifndef MINISGL_TESTS_ENGINE_RIG_H
#define MINISGL_TESTS_ENGINE_RIG_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "loop.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct setting {
    const char *isa;
    int threads, max_prefill, page_size, n_pages, max_running;
    bool radix, overlap;
    int n_ranks; /* 0: 1 */
};

static inline void *run_loop(void *arg) {
    struct err e;
    if (loop_run(arg, &e)) fprintf(stderr, "%s\n", e.text), abort();
    return NULL;
}

/* Run requests to their end on one setting; w: the weights of each rank. False: the machine lacks the instruction set. */
static inline bool run_all(const struct config *c, const struct weights *w, const struct setting *s, struct request *r, int n) {
    struct sched_args sa = {.max_running = s->max_running, .max_prefill = s->max_prefill, .max_len = c->max_position,
                            .page_size = s->page_size, .n_pages = s->n_pages, .radix = s->radix};
    struct engine_args ea = {.config = c, .weights = w, .n_ranks = s->n_ranks ? s->n_ranks : 1, .maker = &dev_cpu, .limits = sched_limits(&sa),
                             .dev = {.n_threads = s->threads, .isa = s->isa}, .max_len = sa.max_len,
                             .page_size = sa.page_size, .n_pages = sa.n_pages, .kv_dtype = c->dtype, .comm_timeout_ns = 3600000000000u, .comm_spin_ns = 20000};
    struct engine *engine;
    struct err e;
    if (engine_open(&engine, &ea, &e)) {
        printf("skipped: %s\n", e.text);
        return false;
    }
    struct inbox in;
    struct outbox out;
    struct loop loop;
    inbox_init(&in);
    assert_int_equal(outbox_init(&out), 0);
    struct sched *sched = sched_new(&sa);
    loop_init(&loop, &in, sched, engine, &ea.limits, s->overlap);
    for (int i = 0; i < n; i++) {
        r[i].outbox = &out;
        inbox_push(&in, &r[i]);
    }
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, run_loop, &loop), 0);
    struct news list[16];
    for (int left = n; left > 0;)
        for (int k = outbox_take(&out, list, 16, true); k-- > 0;) left -= list[k].finish != FINISH_NONE;
    inbox_drain_begin(&in);
    pthread_join(t, NULL);
    sched_check(sched);
    loop_release(&loop);
    sched_free(sched);
    engine_close(engine);
    outbox_release(&out);
    inbox_release(&in);
    return true;
}

#endif
