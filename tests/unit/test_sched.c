/* test_sched.c: the scheduler against a device that is a function: the next token is a hash of all tokens before
 * it, computed from what the batches really said (slots, pages, fed-back samples). Every request must get the tokens
 * that it gets alone, whatever the pool, the chunks, the aborts, deadlines, broken rows, cache flushes and the overlap,
 * and nobody is passed over too often; sched_check after every step. MINISGL_TEST_LONG=1: 10 million steps. */
/* clang-format off: cmocka.h needs the others first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/mem.h"
#include "flow/mail.h"
#include "sched/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOCAB = 97, MAX_LEN = 120, MAX_RUNNING = 9, EOS = 5 };

static uint64_t rng_state;
static uint32_t rng(uint32_t n) {
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng_state >> 33) % n;
}

/* ---- the model: a hash of the sequence ---- */

static int32_t next_token(const int32_t *tokens, int32_t n, uint64_t seed) {
    uint64_t h = seed * 31 + 7;
    for (int32_t i = 0; i < n; i++) h = (h ^ (uint64_t)tokens[i]) * 1099511628211u;
    return (int32_t)((h >> 20) % VOCAB);
}

/* ---- the device: page tables by slot, tokens in pages ---- */

struct fake {
    int32_t page_size;
    int32_t *kv; /* [n_pages][page_size] token whose "keys" lie there */
    int32_t table[MAX_RUNNING][MAX_LEN + 1];
    int32_t last[MAX_RUNNING];
    uint64_t seed[MAX_RUNNING];
    int32_t poison[MAX_RUNNING]; /* a row that ends at this position has no valid number */
    bool bad[MAX_RUNNING];       /* it had: what the slot wrote since is marked, and nobody else may read it */
    int32_t salt[MAX_RUNNING];   /* what a slot writes is marked with its salt, and may be read only by the same */
};

static void run(struct fake *f, const struct batch *b, struct result *r) {
    assert_int_equal(batch_check(b), 0);
    for (int32_t i = 0; i < b->n_slots; i++) {
        const struct batch_slot *s = &batch_slots(b)[i];
        f->seed[s->slot] = s->sampling.seed;
        f->salt[s->slot] = s->sampling.top_k;
        f->poison[s->slot] = (int32_t)s->sampling.min_p;
        f->bad[s->slot] = false;
    }
    for (int32_t i = 0; i < b->n_pages; i++) {
        struct batch_page p = batch_pages(b)[i];
        assert_true(p.page > 0);
        f->table[p.slot][p.index] = p.page;
    }
    int32_t rows = 0, total = 0;
    for (int32_t i = 0; i < b->n_seqs; i++) {
        struct batch_seq q = batch_seqs(b)[i];
        f->bad[q.slot] |= q.row >= 0 && q.pos + q.n_tokens == f->poison[q.slot];
        int32_t mark = f->bad[q.slot] ? 3 : f->salt[q.slot];
        total += q.n_tokens;
        for (int32_t j = 0; j < q.n_tokens; j++) {
            int32_t p = q.pos + j, token = q.token_at < 0 ? f->last[q.slot] : batch_tokens(b)[q.token_at + j];
            f->kv[f->table[q.slot][p / f->page_size] * f->page_size + p % f->page_size] = token * 4 + mark;
        }
        if (q.row < 0) continue;
        assert_int_equal(q.row, rows++);
        int32_t seen[MAX_LEN], n = q.pos + q.n_tokens;
        for (int32_t p = 0; p < n; p++) {
            seen[p] = f->kv[f->table[q.slot][p / f->page_size] * f->page_size + p % f->page_size];
            if (!f->bad[q.slot]) assert_int_equal(seen[p] % 4, f->salt[q.slot]);
            seen[p] /= 4;
        }
        int32_t token = next_token(seen, n, f->seed[q.slot]);
        f->last[q.slot] = token;
        r->rows[q.row] =
            (struct result_row){.slot = q.slot, .n_tokens = 1, .tokens = {token}, .bad = f->bad[q.slot]};
    }
    assert_int_equal(rows, b->n_rows);
    assert_int_equal(total, b->n_tokens);
}

/* ---- requests ---- */

struct job {
    struct request r;
    int32_t prompt[MAX_LEN], out[MAX_LEN], want[MAX_LEN], n_want;
    bool done, admitted;
    int32_t passed; /* younger requests that were admitted before it */
};

static const int32_t stops[] = {EOS};

/* sampling carries what the device shall know of a slot: top_k its salt, min_p its poison, temperature its request. */
static struct job *new_job(struct outbox *box, uint64_t id, uint64_t now) {
    struct job *j = mem_zalloc(1, sizeof *j);
    int32_t n = 1 + (int32_t)rng(60), seq[2 * MAX_LEN];
    /* Few different beginnings, so that prefixes are shared; one salt of three keeps apart what must not meet. */
    uint32_t family = rng(4), own_from = rng(60);
    for (int32_t i = 0; i < n; i++)
        seq[i] = j->prompt[i] =
            i < (int32_t)own_from ? (int32_t)((family * 31 + (uint32_t)i * 7) % VOCAB) : (int32_t)rng(VOCAB);
    static const char *const salts[] = {NULL, "a", "b"};
    uint32_t salt = rng(3);
    j->r = (struct request){.id = id,
                            .prompt = j->prompt,
                            .n_prompt = n,
                            .max_tokens = 1 + (int32_t)rng((uint32_t)(MAX_LEN - n)),
                            .stop_ids = stops,
                            .n_stop_ids = 1,
                            .outbox = box,
                            .owner = j,
                            .out_tokens = j->out,
                            .cache_salt = salts[salt]};
    j->r.sampling.top_k = (int32_t)salt;
    j->r.sampling.seed = rng(3);
    j->r.sampling.temperature = (float)id;
    if (rng(30) == 0) j->r.sampling.min_p = (float)(n + (int32_t)rng(20));
    if (rng(20) == 0) j->r.deadline = now + 1000 * rng(150);
    j->r.sampling.n_logprobs = -1;
    while (j->n_want < j->r.max_tokens) {
        int32_t t = next_token(seq, n, j->r.sampling.seed);
        seq[n++] = j->want[j->n_want++] = t;
        if (t == EOS) break;
    }
    return j;
}

/* The answer ends where the device gave no valid number, if the job gets that far. */
static int32_t good_tokens(const struct job *j) {
    int32_t n = (int32_t)j->r.sampling.min_p - j->r.n_prompt;
    return j->r.sampling.min_p > 0 && n < j->n_want ? n : j->n_want;
}

static void check_finish(const struct job *j, const struct news *news, uint64_t now) {
    int32_t good = good_tokens(j);
    switch (news->finish) {
    case FINISH_ABORT: assert_true(j->r.cancelled); break;
    case FINISH_TIMEOUT: assert_true(j->r.deadline && j->r.deadline <= now); break;
    case FINISH_ERROR:
        assert_true(good < j->n_want);
        assert_int_equal(news->n_out, good);
        break;
    default:
        assert_int_equal(good, j->n_want);
        assert_int_equal(news->n_out, j->n_want);
        assert_int_equal(news->finish, j->want[j->n_want - 1] == EOS ? FINISH_STOP : FINISH_LENGTH);
    }
}

/* Who was given a slot for the first time, and who waited longer? */
static void note_admissions(const struct batch *b, struct job **live, uint64_t now) {
    for (int32_t i = 0; i < b->n_slots; i++) {
        int32_t id = (int32_t)batch_slots(b)[i].sampling.temperature;
        if (!live[id] || live[id]->admitted) continue;
        live[id]->admitted = true;
        for (int32_t k = 0; k < id; k++) {
            struct job *j = live[k];
            bool leaving = j && (j->r.cancelled || (j->r.deadline && j->r.deadline <= now));
            if (j && !j->admitted && !leaving) assert_true(++j->passed <= SCHED_PASSED_MOST);
        }
    }
}

static int take_news(struct outbox *box, struct job **live, uint64_t now) {
    struct news list[8];
    int n, finished = 0;
    while ((n = outbox_take(box, list, 8, false)) > 0)
        for (int i = 0; i < n; i++) {
            struct job *j = list[i].req->owner;
            assert_false(j->done);
            assert_memory_equal(j->out, j->want, (size_t)list[i].n_out * sizeof(int32_t));
            if (list[i].finish == FINISH_NONE) continue;
            check_finish(j, &list[i], now);
            j->done = true;
            finished++;
            live[j->r.id] = NULL;
            free(j);
        }
    return finished;
}

struct setting {
    int32_t page_size, n_pages, max_prefill;
    bool overlap, radix;
};

/* Returns the steps it took. */
static int64_t play(struct setting set, int n_requests, uint64_t seed, struct stats *all) {
    rng_state = seed;
    struct stats stats = {0};
    struct sched_args a = {.max_running = MAX_RUNNING,
                           .max_prefill = set.max_prefill,
                           .max_len = MAX_LEN,
                           .page_size = set.page_size,
                           .n_pages = set.n_pages,
                           .radix = set.radix,
                           .stats = &stats,
                           .policy = (int32_t)(seed % 3),
                           .margin_percent = 3,
                           .target_itl = seed % 2 ? 5000 : 0};
    struct sched *s = sched_new(&a);
    struct batch_limits lim = sched_limits(&a);
    struct batch *b[2] = {batch_init(mem_aligned(64, batch_size(&lim)), &lim),
                          batch_init(mem_aligned(64, batch_size(&lim)), &lim)};
    struct result res[2] = {{.rows = mem_zalloc(MAX_RUNNING, sizeof(struct result_row))},
                            {.rows = mem_zalloc(MAX_RUNNING, sizeof(struct result_row))}};
    struct fake f = {.page_size = set.page_size,
                     .kv = mem_zalloc((size_t)(set.n_pages * set.page_size), sizeof(int32_t))};
    struct outbox box;
    assert_int_equal(outbox_init(&box), 0);
    struct job *live[512] = {0};
    uint64_t clock = 1;
    int made = 0, finished = 0, under_way = 0, turn = 0;
    int64_t step = 0;
    for (; finished < n_requests; step++) {
        assert_true(step < 200000);
        while (made < n_requests && rng(3) == 0) {
            struct job *j = new_job(&box, (uint64_t)made, clock);
            live[made++] = j;
            sched_add(s, &j->r);
        }
        if (rng(20) == 0 && made) { /* somebody hangs up */
            struct job *j = live[rng((uint32_t)made)];
            if (j) j->r.cancelled = true;
            sched_look_for_cancelled(s);
        }
        if (rng(100) == 0) sched_flush_cache(s);
        bool planned = sched_plan(s, b[turn], clock += 1000);
        sched_check(s);
        if (planned) {
            assert_true(b[turn]->n_tokens <= lim.max_tokens && b[turn]->n_pages <= lim.max_pages);
            note_admissions(b[turn], live, clock);
            run(&f, b[turn], &res[turn]);
            under_way++;
            turn ^= 1;
        }
        if (under_way && (under_way > 1 || !planned || !set.overlap)) {
            int oldest = under_way & 1 ? turn ^ 1 : turn;
            sched_commit(s, b[oldest], &res[oldest], clock += 1000);
            under_way--;
            sched_check(s);
        }
        sched_flush(s);
        finished += take_news(&box, live, clock);
    }
    if (under_way) sched_commit(s, b[turn ^ 1], &res[turn ^ 1], clock);
    sched_flush(s);
    assert_true(sched_idle(s));
    sched_check(s);
    all->retracted += stats.retracted;
    all->cached_tokens += stats.cached_tokens;
    all->finished_abort += stats.finished_abort;
    all->finished_timeout += stats.finished_timeout;
    all->finished_error += stats.finished_error;
    outbox_release(&box);
    sched_free(s);
    free(f.kv);
    for (int i = 0; i < 2; i++) free(b[i]), free(res[i].rows);
    return step;
}

static void every_route_gives_the_same_tokens(void **state) {
    (void)state;
    static const struct setting sets[] = {
        {1, 1 + MAX_LEN, 64, false, false}, {16, 1 + 8, 64, false, false},  {16, 1 + 12, 7, true, false},
        {1, 400, 1, true, false},           {7, 1 + 40, 1000, true, false}, {64, 1 + 4, 33, true, false},
        {16, 200, 64, false, false},        {3, 1 + 45, 64, true, false},   {1, 1 + MAX_LEN, 64, false, true},
        {16, 1 + 8, 64, false, true},       {16, 1 + 12, 7, true, true},    {1, 400, 1, true, true},
        {7, 1 + 40, 1000, true, true},      {64, 1 + 4, 33, true, true},    {16, 200, 64, false, true},
        {3, 1 + 45, 64, true, true},        {4, 300, 20, true, true},
    };
    struct stats all = {0};
    int64_t left = getenv("MINISGL_TEST_LONG") ? 10000000 : 200000;
    for (uint64_t seed = 1; left > 0; seed++)
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) left -= play(sets[i], 120, seed * 77 + i, &all);
    assert_true(all.retracted > 100); /* the small pools really ran out */
    assert_true(all.cached_tokens > 10000);
    assert_true(all.finished_abort > 50);
    assert_true(all.finished_timeout > 50);
    assert_true(all.finished_error > 50);
}

static void policies_by_name(void **state) {
    (void)state;
    static const char *const names[] = {"fcfs", "lpm", "classic"};
    for (int i = 0; i < 3; i++) assert_int_equal(sched_policy(names[i]), i);
    assert_int_equal(sched_policy("FCFS"), -1);
    assert_int_equal(sched_policy(""), -1);
}

static void cancelled_at_every_stage(void **state) {
    (void)state;
    struct sched_args a = {.max_running = 2, .max_prefill = 8, .max_len = MAX_LEN, .page_size = 4, .n_pages = 64};
    for (int at = 0; at < 12; at++) { /* queued, mid-chunk, decoding, with a step in flight */
        struct sched *s = sched_new(&a);
        struct batch_limits lim = sched_limits(&a);
        struct batch *b = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
        struct result res = {.rows = mem_zalloc(2, sizeof(struct result_row))};
        struct fake f = {.page_size = 4, .kv = mem_zalloc(64 * 4, sizeof(int32_t))};
        struct outbox box;
        assert_int_equal(outbox_init(&box), 0);
        int32_t prompt[40] = {0}, out[3][50];
        struct request r[3];
        for (int i = 0; i < 3; i++) {
            r[i] = (struct request){
                .prompt = prompt, .n_prompt = 40, .max_tokens = 50, .outbox = &box, .out_tokens = out[i]};
            r[i].sampling.n_logprobs = -1;
            sched_add(s, &r[i]);
        }
        bool in_flight = false;
        for (int step = 0; step < at; step++) {
            in_flight = sched_plan(s, b, 0);
            if (in_flight) run(&f, b, &res);
            if (step == at - 1 && at % 2) break; /* leave the last one uncommitted */
            sched_commit(s, b, &res, 0);
            in_flight = false;
            sched_flush(s);
        }
        for (int i = 0; i < 3; i++) r[i].cancelled = true;
        sched_look_for_cancelled(s);
        if (in_flight) {
            sched_commit(s, b, &res, 0);
            sched_flush(s);
        }
        assert_false(sched_plan(s, b, 0));
        sched_flush(s);
        assert_true(sched_idle(s));
        sched_check(s);
        struct news list[8];
        int n = outbox_take(&box, list, 8, false);
        assert_int_equal(n, 3);
        for (int i = 0; i < n; i++) assert_int_equal(list[i].finish, FINISH_ABORT);
        outbox_release(&box);
        sched_free(s);
        free(f.kv), free(b), free(res.rows);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_gives_the_same_tokens),
        cmocka_unit_test(cancelled_at_every_stage),
        cmocka_unit_test(policies_by_name),
    };
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
