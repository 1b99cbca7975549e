/* test_loop.c: the order of the five calls, with and without overlap, over an engine that only keeps the books: what is
 * launched before what is committed, when results leave, how the cache is flushed, how the loop ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "loop.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 4096, CONTEXT = 512 };

/* ---- the engine ---- */

struct engine {
    struct result result;
    struct {
        int32_t slot[64];
        int32_t n_rows;
    } step[MAX_STEPS];
    int launched, collected;
    int most_ahead; /* steps launched and not collected, at most */
    void (*at_launch)(struct engine *g, int step);
    void (*at_collect)(struct engine *g, int step);
    void *of_test;
};

int engine_launch(struct engine *g, const struct batch *b, struct err *e) {
    (void)e;
    int s = g->launched++;
    g->step[s].n_rows = b->n_rows;
    for (int i = 0; i < b->n_seqs; i++)
        if (batch_seqs(b)[i].row >= 0) g->step[s].slot[batch_seqs(b)[i].row] = batch_seqs(b)[i].slot;
    if (g->launched - g->collected > g->most_ahead) g->most_ahead = g->launched - g->collected;
    if (g->at_launch) g->at_launch(g, s);
    return 0;
}

int engine_collect(struct engine *g, const struct result **r, struct err *e) {
    (void)e;
    int s = g->collected++;
    if (g->at_collect) g->at_collect(g, s);
    g->result.n_rows = g->step[s].n_rows;
    for (int i = 0; i < g->result.n_rows; i++)
        g->result.rows[i] = (struct result_row){.slot = g->step[s].slot[i], .n_tokens = 1, .tokens = {7 + s}};
    *r = &g->result;
    return 0;
}

bool engine_wants_beat(const struct engine *g) {
    (void)g;
    return false;
}

int engine_beat(struct engine *g, struct err *e) {
    (void)g, (void)e;
    fail_msg("nobody waits for a beat");
    return -1;
}

/* ---- everything around it ---- */

struct rig {
    struct inbox inbox;
    struct outbox box;
    struct sched *sched;
    struct loop loop;
    struct engine engine;
    struct stats stats;
    struct request req[8];
    int32_t prompt[CONTEXT], out[8][CONTEXT];
    int n_req;
};

static struct rig *rig_new(bool overlap) {
    struct rig *t = calloc(1, sizeof *t);
    struct sched_args a = {.max_running = 8,
                           .max_prefill = 64,
                           .max_len = CONTEXT,
                           .page_size = 4,
                           .n_pages = 1024,
                           .policy = sched_policy("fcfs"),
                           .radix = true,
                           .stats = &t->stats};
    struct batch_limits lim = sched_limits(&a);
    inbox_init(&t->inbox);
    assert_int_equal(outbox_init(&t->box), 0);
    t->sched = sched_new(&a);
    t->engine.result.rows = calloc((size_t)lim.max_seqs, sizeof *t->engine.result.rows);
    t->engine.of_test = t;
    loop_init(&t->loop, &t->inbox, t->sched, &t->engine, &lim, overlap);
    for (int i = 0; i < CONTEXT; i++) t->prompt[i] = i;
    return t;
}

static struct request *ask(struct rig *t, int32_t n_prompt, int32_t max_tokens) {
    struct request *r = &t->req[t->n_req];
    *r = (struct request){.id = (uint64_t)t->n_req,
                          .prompt = t->prompt,
                          .n_prompt = n_prompt,
                          .max_tokens = max_tokens,
                          .outbox = &t->box,
                          .out_tokens = t->out[t->n_req]};
    t->n_req++;
    assert_true(inbox_push(&t->inbox, r));
    return r;
}

static void run(struct rig *t) {
    struct err e;
    inbox_drain_begin(&t->inbox);
    assert_int_equal(loop_run(&t->loop, &e), 0);
    assert_int_equal(t->engine.launched, t->engine.collected);
    assert_int_equal(sched_count(t->sched), 0);
    sched_check(t->sched);
}

static void rig_free(struct rig *t) {
    loop_release(&t->loop);
    sched_free(t->sched);
    inbox_release(&t->inbox);
    outbox_release(&t->box);
    free(t->engine.result.rows);
    free(t);
}

/* ---- tests ---- */

/* One prompt step and nine decodes. What step s - 2 (without overlap s - 1) made has left when s is launched: nothing
 * waits for a launch. */
static void left_in_time(struct engine *g, int step) {
    struct rig *t = g->of_test;
    int32_t done = step - (t->loop.overlap ? 1 : 0);
    assert_int_equal(t->req[0].n_out, done < 0 ? 0 : done);
}

static void next_is_under_way(struct engine *g, int step) {
    struct rig *t = g->of_test;
    bool last = step == 9;
    assert_int_equal(g->launched, t->loop.overlap && !last ? step + 2 : step + 1);
}

static void order_of_steps(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct rig *t = rig_new(overlap);
        struct request *r = ask(t, 10, 10);
        t->engine.at_launch = left_in_time;
        t->engine.at_collect = next_is_under_way;
        run(t);
        assert_int_equal(t->engine.launched, 10); /* an end by length is known before: no step in vain */
        assert_int_equal(t->engine.most_ahead, overlap ? 2 : 1);
        assert_int_equal(r->n_out, 10);
        assert_int_equal(r->finish, FINISH_LENGTH);
        for (int i = 0; i < 10; i++) assert_int_equal(r->out_tokens[i], 7 + i);
        assert_int_equal(t->stats.generated_tokens, 10);
        rig_free(t);
    }
}

/* An end that only the token tells costs one more step with overlap; its token is neither given nor counted. */
static void one_step_in_vain(void **state) {
    (void)state;
    static const int32_t stop = 7 + 4;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct rig *t = rig_new(overlap);
        struct request *r = ask(t, 10, 100);
        r->stop_ids = &stop;
        r->n_stop_ids = 1;
        run(t);
        assert_int_equal(t->engine.launched, 5 + overlap);
        assert_int_equal(r->n_out, 5);
        assert_int_equal(r->finish, FINISH_STOP);
        assert_int_equal(t->stats.generated_tokens, 5);
        rig_free(t);
    }
}

/* A flush asked for while a request runs and right behind its cancel: it is done in one step, and that request's pages
 * go too. */
static void cancel_and_flush(struct engine *g, int step) {
    struct rig *t = g->of_test;
    if (step != 5) return;
    assert_true(t->stats.pages_cached > 0);
    inbox_cancel(&t->inbox, &t->req[0]);
    assert_int_equal(inbox_flush_cache(&t->inbox, &t->box), 1);
    assert_int_equal(inbox_flush_cache(&t->inbox, &t->box), 2);
    assert_int_equal(outbox_flushes(&t->box), 0);
}

static void flush_behind_a_cancel(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct rig *t = rig_new(overlap);
        ask(t, 40, 100);
        t->engine.at_launch = cancel_and_flush;
        run(t);
        assert_int_equal(t->engine.launched, 6);
        assert_int_equal(t->req[0].finish, FINISH_ABORT);
        assert_int_equal(outbox_flushes(&t->box), 2);
        assert_int_equal(t->stats.pages_cached, 0);
        assert_int_equal(t->stats.pages_used, 0);
        rig_free(t);
    }
}

/* With another request beside it: what that one holds stays, and it is not disturbed. */
static void flush_beside_a_running_one(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct rig *t = rig_new(overlap);
        ask(t, 40, 100);
        struct request *r = ask(t, 24, 30);
        t->engine.at_launch = cancel_and_flush;
        run(t);
        assert_int_equal(outbox_flushes(&t->box), 2);
        assert_int_equal(r->n_out, 30);
        assert_int_equal(r->finish, FINISH_LENGTH);
        rig_free(t);
    }
}

/* The box is closed while a step is under way: the news of it is taken then, and the loop still ends. */
static void close_the_box(struct engine *g, int step) {
    struct rig *t = g->of_test;
    if (step == 5) inbox_drain_begin(&t->inbox);
}

static void ends_when_closed_late(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct rig *t = rig_new(overlap);
        struct err e;
        ask(t, 10, 10);
        t->engine.at_collect = close_the_box;
        assert_int_equal(loop_run(&t->loop, &e), 0);
        assert_false(inbox_push(&t->inbox, &t->req[1]));
        rig_free(t);
    }
    struct inbox in; /* the same, at the box itself */
    struct inbox_news news;
    inbox_init(&in);
    inbox_drain_begin(&in);
    inbox_take(&in, false, &news);
    assert_true(news.draining);
    inbox_take(&in, true, &news);
    assert_true(news.draining);
    inbox_release(&in);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_of_steps),        cmocka_unit_test(one_step_in_vain),
        cmocka_unit_test(flush_behind_a_cancel), cmocka_unit_test(flush_beside_a_running_one),
        cmocka_unit_test(ends_when_closed_late),
    };
    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
