/* test_sched_life.c: stories of single requests, told step by step: who is first, who waits how long, what a step may
 * cost, what is freed when, what is computed in vain. */
/* clang-format off: cmocka.h needs the others first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/mem.h"
#include "flow/mail.h"
#include "sched/seq.h"

#include <stdlib.h>
#include <string.h>

enum { N = 64, ROOM = 4096, EOS = 7, MS = 1000000 };

/* A scheduler with its device: the next token is its position, or what the story wants. */
struct stage {
    struct sched *s;
    struct outbox box;
    struct batch *batch[2];
    struct result result[2];
    int under_way;
    unsigned turn;
    bool overlap;
    uint64_t clock, step_ns; /* of a step; 0: by its work */
    int32_t eos_at;          /* position whose sample is EOS; 0: none */
    struct request req[N];
    int32_t tokens[N][ROOM];
    int32_t table[N][ROOM]; /* the device's page tables, by slot */
    int owner[N];           /* of slots */
    int sampled[N];         /* rows computed for a request */
    int finished;
    struct stats stats;
};

static struct stage *open_stage(struct sched_args a) {
    struct stage *g = mem_zalloc(1, sizeof *g);
    a.stats = &g->stats;
    struct batch_limits lim = sched_limits(&a);
    g->s = sched_new(&a);
    g->clock = 1;
    g->step_ns = MS;
    assert_int_equal(outbox_init(&g->box), 0);
    for (int i = 0; i < 2; i++) {
        g->batch[i] = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
        g->result[i].rows = mem_zalloc((size_t)lim.max_seqs, sizeof(struct result_row));
    }
    return g;
}

static void close_stage(struct stage *g) {
    sched_free(g->s);
    outbox_release(&g->box);
    for (int i = 0; i < 2; i++) free(g->batch[i]), free(g->result[i].rows);
    free(g);
}

/* Prompts begin alike in `same` tokens. */
static struct request *add(struct stage *g, int i, int32_t n_prompt, int32_t max_tokens, int32_t same) {
    static const int32_t stops[] = {EOS};
    int32_t *t = g->tokens[i];
    for (int32_t k = 0; k < n_prompt; k++) t[k] = k < same ? 100 + k : 10000 * (i + 1) + k;
    g->req[i] = (struct request){.id = (uint64_t)i,
                                 .prompt = t,
                                 .n_prompt = n_prompt,
                                 .max_tokens = max_tokens,
                                 .stop_ids = stops,
                                 .n_stop_ids = 1,
                                 .outbox = &g->box,
                                 .out_tokens = t + n_prompt};
    g->req[i].sampling.n_logprobs = -1;
    g->req[i].sampling.seed = (uint64_t)i;
    sched_add(g->s, &g->req[i]);
    return &g->req[i];
}

static void apply(struct stage *g, const struct batch *b) {
    for (int32_t i = 0; i < b->n_slots; i++)
        g->owner[batch_slots(b)[i].slot] = (int)batch_slots(b)[i].sampling.seed;
    for (int32_t i = 0; i < b->n_pages; i++) {
        struct batch_page p = batch_pages(b)[i];
        g->table[p.slot][p.index] = p.page;
    }
    for (int32_t i = 0; i < b->n_seqs; i++) { /* the device knows each page that the step reads or writes */
        struct batch_seq e = batch_seqs(b)[i];
        int32_t pages = pages_for(g->s, e.pos + e.n_tokens);
        assert_memory_equal(g->table[e.slot], page_row(g->s, e.slot), (size_t)pages * sizeof(int32_t));
    }
}

static void compute(struct stage *g, const struct batch *b, struct result *r) {
    for (int32_t i = 0; i < b->n_seqs; i++) {
        struct batch_seq e = batch_seqs(b)[i];
        if (e.row < 0) continue;
        int32_t pos = e.pos + e.n_tokens;
        g->sampled[g->owner[e.slot]]++;
        r->rows[e.row] =
            (struct result_row){.slot = e.slot, .n_tokens = 1, .tokens = {g->eos_at && pos >= g->eos_at ? EOS : pos}};
    }
}

static uint64_t time_of(const struct stage *g, const struct batch *b) {
    if (g->step_ns) return g->step_ns;
    uint64_t ns = MS, product = (uint64_t)b->n_tokens * 20000; /* of few tokens: the time to read the weights */
    for (int32_t i = 0; i < b->n_seqs; i++) {
        struct batch_seq e = batch_seqs(b)[i];
        ns += (uint64_t)(e.pos + e.n_tokens) * 100 + (uint64_t)e.n_tokens * (uint64_t)e.pos * 5;
    }
    return ns + (product > 3 * MS ? product : 3 * MS);
}

static void commit(struct stage *g) {
    int oldest = (int)((g->turn + (unsigned)g->under_way) & 1);
    g->clock += time_of(g, g->batch[oldest]);
    sched_commit(g->s, g->batch[oldest], &g->result[oldest], g->clock);
    g->under_way--;
    sched_check(g->s);
}

static void flush(struct stage *g) {
    struct news list[N];
    sched_flush(g->s);
    int n = outbox_take(&g->box, list, N, false);
    for (int i = 0; i < n; i++) g->finished += list[i].finish != FINISH_NONE;
}

/* As loop.c does it. The batch that was planned, or NULL. */
static const struct batch *step(struct stage *g) {
    struct batch *b = g->batch[g->turn & 1];
    struct result *r = &g->result[g->turn & 1];
    bool planned = sched_plan(g->s, b, g->clock);
    sched_check(g->s);
    if (planned) {
        apply(g, b);
        compute(g, b, r);
        g->under_way++;
        g->turn++;
    }
    if (g->under_way && (g->under_way > 1 || !planned || !g->overlap)) commit(g);
    flush(g);
    return planned ? b : NULL;
}

static void run_out(struct stage *g) {
    for (int i = 0; !sched_idle(g->s) || g->under_way; i++) {
        assert_true(i < 100000);
        step(g);
    }
}

static const struct sched_args usual = {.max_running = 8,
                                        .max_prefill = 64,
                                        .max_len = 1000,
                                        .page_size = 4,
                                        .n_pages = 1000,
                                        .margin_percent = SCHED_MARGIN_PERCENT,
                                        .radix = true};

/* ---- ends ---- */

/* Its finish lies in the news and in no other list; the leak sanitizer sees when it is forgotten. */
static void ended_while_waiting_and_never_told(void **state) {
    (void)state;
    struct stage *g = open_stage(usual);
    add(g, 0, 10, 5, 0)->cancelled = true;
    add(g, 1, 10, 5, 0)->deadline = 1;
    add(g, 2, 10, 5, 0);
    sched_look_for_cancelled(g->s);
    g->s->next_deadline = 1;
    assert_true(sched_plan(g->s, g->batch[0], g->clock));
    assert_int_equal(sched_count(g->s), 1);
    close_stage(g); /* with a third one running */
    g = open_stage(usual);
    add(g, 0, 10, 1, 0);
    assert_true(sched_plan(g->s, g->batch[0], g->clock));
    compute(g, g->batch[0], &g->result[0]);
    sched_commit(g->s, g->batch[0], &g->result[0], g->clock); /* ended, its slot is free, and nobody knows */
    assert_int_equal(sched_count(g->s), 0);
    close_stage(g);
}

/* A deadline at every stage: queued, in a chunk, decoding, put back, with a step under way. */
static void deadlines(void **state) {
    (void)state;
    for (int at = 0; at < 60; at++)
        for (int overlap = 0; overlap < 2; overlap++) {
            struct sched_args a = usual;
            a.max_running = 2, a.max_prefill = 8, a.n_pages = 26, a.max_len = 100;
            struct stage *g = open_stage(a);
            g->overlap = overlap;
            for (int i = 0; i < 3; i++) add(g, i, 40, 50, 0)->deadline = 1 + (uint64_t)at * MS;
            g->s->next_deadline = 1 + (uint64_t)at * MS;
            for (int i = 0; i < 3 * at + 8; i++) step(g);
            assert_int_equal(g->finished, 3);
            assert_true(sched_idle(g->s) && !g->under_way);
            for (int i = 0; i < 3; i++) {
                bool whole = g->req[i].n_out == 50;
                assert_int_equal(g->req[i].finish, whole ? FINISH_LENGTH : FINISH_TIMEOUT);
                assert_true(g->req[i].n_out <= at);
            }
            close_stage(g);
        }
}

/* With overlap the step after an end may be planned already: one sample in vain, none when the end can be counted, and
 * it is neither told nor counted. Who cancels when it sees a token (a stop string) causes two at most here: a front end
 * that takes a step longer makes it three. */
static void computed_in_vain(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct stage *g = open_stage(usual);
        g->overlap = overlap;
        add(g, 0, 10, 30, 0);
        run_out(g);
        assert_int_equal(g->sampled[0], 30);
        g->eos_at = 25;
        add(g, 1, 10, 100, 0);
        run_out(g);
        assert_int_equal(g->req[1].finish, FINISH_STOP);
        assert_int_equal(g->req[1].n_out, 16);
        assert_true(g->sampled[1] <= 16 + overlap);
        g->eos_at = 0;
        struct request *r = add(g, 2, 10, 100, 0);
        int seen = 0;
        while (!(seen = r->n_out) || seen < 5) step(g);
        r->cancelled = true;
        sched_look_for_cancelled(g->s);
        run_out(g);
        assert_int_equal(r->finish, FINISH_ABORT);
        assert_int_equal(r->n_out, seen);
        assert_true(g->sampled[2] <= seen + 2 * overlap);
        assert_int_equal(g->stats.generated_tokens, 30 + 16 + seen);
        close_stage(g);
    }
}

/* ---- the same prefix at the same time ---- */

static void loser_goes_on_with_the_winners_pages(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct stage *g = open_stage(usual);
        g->overlap = overlap;
        add(g, 0, 23, 20, 23);
        add(g, 1, 23, 20, 23);
        const struct batch *b = step(g);
        assert_int_equal(b->n_seqs, 2);
        struct seq *x = g->s->running.first, *y = x->next;
        int32_t old[5], n = 23 / 4;
        if (overlap) { /* nothing committed yet: each has its own */
            assert_int_equal(x->n_shared + y->n_shared, 0);
            memcpy(old, page_row(g->s, y->slot), sizeof old);
            for (int32_t i = 0; i < n; i++) assert_int_not_equal(old[i], page_row(g->s, x->slot)[i]);
            step(g);
        } else {
            memcpy(old, g->table[y->slot], sizeof old);
        }
        assert_int_equal(x->n_shared, n);
        assert_int_equal(y->n_shared, n);
        assert_memory_equal(page_row(g->s, x->slot), page_row(g->s, y->slot), (size_t)n * sizeof(int32_t));
        for (int32_t i = 0; i < n; i++) assert_false(g->s->pool.taken[old[i]]);
        assert_int_equal(y->dirty_from, 0);
        b = step(g); /* apply() sees that the device is told before it reads or writes, */
        int told = 0;
        for (int32_t i = 0; i < b->n_pages; i++) told += batch_pages(b)[i].slot == y->slot && batch_pages(b)[i].index < n;
        assert_int_equal(told, n);
        int32_t slot = y->slot;
        add(g, 2, 60, 5, 0); /* and who gets the pages that were given back does no harm */
        run_out(g);
        for (int32_t i = 0; i < n; i++) assert_int_not_equal(g->table[slot][i], old[i]);
        close_stage(g);
    }
}

/* ---- who goes first, and who waits how long ---- */

/* A short prompt behind a long one does not wait for all of it. */
static void no_waiting_behind_a_long_prompt(void **state) {
    (void)state;
    struct sched_args a = usual;
    struct stage *g = open_stage(a);
    add(g, 0, 900, 5, 0); /* 15 steps' work */
    step(g);
    struct request *r = add(g, 1, 20, 5, 0);
    for (int i = 0; i < 3 && !r->n_out; i++) step(g);
    assert_true(r->n_out > 0);
    assert_int_equal(g->req[0].n_out, 0);
    run_out(g);
    close_stage(g);
}

/* Short prompts without end: the long one still gets a step in four, and is passed over 8 times before it begins. */
static void a_long_prompt_is_not_starved(void **state) {
    (void)state;
    for (int begun = 0; begun < 2; begun++) {
        struct sched_args a = usual;
        a.max_running = 32;
        struct stage *g = open_stage(a);
        if (!begun) add(g, 1, 60, 1, 0); /* the first step is full */
        add(g, 0, 900, 1, 0);
        if (!begun) add(g, 2, 60, 1, 0);
        int next = 3, steps = 0;
        for (; !g->req[0].n_out; steps++) {
            assert_true(steps < 4 * (900 / 64 + 2) + 16);
            for (int k = 0; k < 2; k++, next++)
                if (next >= N || g->req[next % N].finish || next < N) {
                    int i = 3 + (next - 3) % (N - 3);
                    if (g->req[i].n_prompt && !g->req[i].finish) continue;
                    g->sampled[i] = 0;
                    add(g, i, 60, 1, 0);
                }
            step(g);
        }
        assert_true(steps > 900 / 64 + 4); /* it was overtaken */
        run_out(g);
        close_stage(g);
    }
}

/* What is in the cache costs nothing: the longer prompt of which most is known goes first. */
static void cached_prompts_are_cheap(void **state) {
    (void)state;
    struct stage *g = open_stage(usual);
    add(g, 0, 400, 1, 400);
    run_out(g);
    add(g, 1, 600, 1, 0);
    step(g);
    add(g, 2, 300, 1, 0);
    struct request *r = add(g, 3, 420, 1, 400);
    while (!r->n_out) step(g);
    assert_true(r->n_cached == 400);
    assert_int_equal(g->req[2].n_out, 0);
    run_out(g);
    close_stage(g);
}

/* What somebody waits for is not evicted before what nobody waits for. */
static void waited_for_stays_cached(void **state) {
    (void)state;
    struct sched_args a = usual;
    a.max_running = 1, a.n_pages = 300, a.max_prefill = 1000;
    struct stage *g = open_stage(a);
    add(g, 0, 400, 1, 400); /* 100 pages of 299 */
    run_out(g);
    add(g, 1, 900, 1, 400); /* would go on with them, but is dear: */
    for (int i = 0; i < 6; i++) add(g, 2 + i, 300, 1, 0); /* 450 other pages pass through before */
    run_out(g);
    assert_int_equal(g->req[1].n_cached, 400);
    close_stage(g);
}

/* ---- what a step may cost ---- */

/* Streams beside prompts of growing dearness: after the first steps none waits longer than it was promised. */
static void steps_keep_the_target(void **state) {
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        struct sched_args a = usual;
        a.max_len = 4000, a.n_pages = 8000, a.max_prefill = 2048, a.target_itl = 20 * MS;
        struct stage *g = open_stage(a);
        g->overlap = overlap;
        g->step_ns = 0;
        add(g, 0, 100, 2000, 0);
        for (int i = 0; i < 40; i++) step(g);
        uint64_t longest = 0, mixed = 0;
        for (int i = 1; i < N; i++) {
            bool small = i % 20 > 8; /* whose prompts cost next to nothing, and do not tell what long ones do */
            add(g, i, small ? 30 : i % 3 ? 3000 : 500, 3, 0);
            for (int k = 0; k < (small ? 4 : 20); k++) {
                const struct batch *b = step(g);
                if (!b || b->n_given < 32 || i < 3) continue;
                uint64_t ns = time_of(g, b);
                longest = ns > longest ? ns : longest;
                mixed++;
            }
        }
        assert_true(mixed > 60);
        assert_true(longest <= 23 * MS);
        assert_true(longest > 10 * MS);
        close_stage(g);
    }
}

static void learn(struct pace *p, struct step_shape s, double faster) {
    double ns = 3e6 + 60.0 * (double)s.read + 20000.0 * s.n_prompt + 2.0 * s.pairs;
    pace_learn(p, &s, (uint64_t)(ns / faster));
}

static void pace_of_known_steps(void **state) {
    (void)state;
    struct pace p = {0};
    assert_int_equal(pace_most(&p), PACE_UNKNOWN);
    for (int i = 0; i < 400; i++) {
        struct step_shape s = {.n_decodes = 20, .read = 50000 + 300 * (i % 50)};
        if (i % 3) s.n_prompt = 300 + 37 * (i % 11), s.pairs = pace_pairs(1000 * (i % 23), s.n_prompt);
        learn(&p, s, 1);
    }
    for (int i = 0; i < 100000; i++) /* a long silence of prompts changes nothing of what is known of them */
        learn(&p, (struct step_shape){.n_decodes = 20, .read = 50000 + i % 10000}, 1);
    double decodes = pace_decodes(&p, 60000), prompt = pace_prompt(&p, 5000, 500);
    assert_true(decodes > 0.97 * 6.6e6 && decodes < 1.03 * 6.6e6);
    assert_true(prompt > 0.97 * (1e7 + 2 * 500 * 5250.0) && prompt < 1.03 * (1e7 + 2 * 500 * 5250.0));
    int32_t n = pace_fit(&p, 5000, prompt);
    assert_true(n >= 499 && n <= 501);
    assert_int_equal(pace_fit(&p, 5000, 0), 0);
    assert_int_equal(pace_fit(&p, 5000, -1e9), 0);
}

/* A device that becomes ten times faster while each step is foreseen to be over the target by its decodes alone: no
 * vicious circle of least chunks that tell nothing. */
static void pace_finds_out_of_a_wrong_guess(void **state) {
    (void)state;
    struct pace p = {0};
    for (int i = 0; i < 100; i++) learn(&p, (struct step_shape){.n_decodes = 20, .read = 800000}, 1);
    int32_t n = 0;
    for (int i = 0; i < 100; i++) {
        n = pace_fit(&p, 0, 40e6 - pace_decodes(&p, 800000));
        n = n < PACE_LEAST ? PACE_LEAST : n > 2048 ? 2048 : n;
        learn(&p, (struct step_shape){.n_decodes = 20, .read = 800000, .n_prompt = n, .pairs = pace_pairs(0, n)}, 10);
    }
    assert_int_equal(n, 2048);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ended_while_waiting_and_never_told),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(computed_in_vain),
        cmocka_unit_test(loser_goes_on_with_the_winners_pages),
        cmocka_unit_test(no_waiting_behind_a_long_prompt),
        cmocka_unit_test(a_long_prompt_is_not_starved),
        cmocka_unit_test(cached_prompts_are_cheap),
        cmocka_unit_test(waited_for_stays_cached),
        cmocka_unit_test(steps_keep_the_target),
        cmocka_unit_test(pace_of_known_steps),
        cmocka_unit_test(pace_finds_out_of_a_wrong_guess),
    };
    return cmocka_run_group_tests_name("sched life", tests, NULL, NULL);
}
