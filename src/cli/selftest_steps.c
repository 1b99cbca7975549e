/* selftest_steps.c: random requests through scheduler, loop and engine for many steps (probe.h): lengths, sampling, shared beginnings, cancels and arrivals
 * are drawn from --seed; chunks and decodes share steps, pages are so few that requests are put back, slots are taken again and again.
 *
 * First on one rank, until so many steps are done; with --tp the same requests then on all ranks, and every answer is compared; at last a sample of the
 * requests on the CPU, with room for all. The main thread feeds; a thread of its own runs the loop, as in the server. */
#include "cli/probe.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "loop.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT_MAX = 500, ANSWER_MAX = 64, RUNNING = 24, PREFILL = 192, PAGE = 8, BEGINNINGS = 4, SAMPLE_MOST = 200, SAMPLE_EVERY = 16 };

struct ask {
    struct request r;
    int32_t *tokens; /* prompt, then answer */
    int32_t cancel_at; /* when so many tokens are there; 0: never */
};

struct run {
    const struct probe *p;
    struct ask **asks;
    size_t n, cap;
    int32_t max_len;
    struct engine *engine;
    struct loop loop;
    struct sched *sched;
    struct inbox inbox;
    struct outbox outbox;
    struct stats stats;
    struct err *e;
};

/* ---- requests ---- */

static struct sampling any_sampling(struct dice *d) {
    struct sampling s = {.top_p = 1, .seed = roll(d), .n_logprobs = roll(d) % 4 ? 0 : roll_to(d, 0, LOGPROBS_MAX)};
    if (roll(d) % 4) s.temperature = 0.1f * (float)roll_to(d, 1, 15);
    if (roll(d) % 3 == 0) s.top_k = roll_to(d, 1, roll(d) % 4 ? 50 : 1500);
    if (roll(d) % 3 == 0) s.top_p = 0.05f * (float)roll_to(d, 6, 20);
    if (roll(d) % 6 == 0) s.min_p = 0.02f * (float)roll_to(d, 0, 5);
    return s;
}

static int32_t any_length(struct dice *d, int32_t most) {
    uint32_t kind = roll(d) % 10;
    int32_t n = kind < 4 ? roll_to(d, 1, 16) : kind < 8 ? roll_to(d, 17, 150) : roll_to(d, 151, PROMPT_MAX);
    return n < most ? n : most;
}

/* The i-th request, the same whoever runs it. */
static struct ask *ask_new(const struct run *t, uint64_t i) {
    struct dice d = dice_of((uint64_t)t->p->options->seed, i + 1), same = dice_of((uint64_t)t->p->options->seed, roll(&d) % BEGINNINGS + (UINT64_C(1) << 40));
    struct ask *a = mem_zalloc(1, sizeof *a);
    int32_t V = t->p->config.vocab, answer = roll_to(&d, 1, ANSWER_MAX);
    if (answer > t->max_len / 2) answer = t->max_len / 2;
    int32_t n = any_length(&d, t->max_len - answer), shared = roll(&d) % 2 ? roll_to(&d, 0, n) : 0;
    a->tokens = mem_array((size_t)(n + answer), sizeof *a->tokens);
    for (int32_t k = 0; k < n; k++) a->tokens[k] = k < shared ? roll_to(&same, 0, V - 1) : roll_to(&d, 0, V - 1);
    a->r = (struct request){.id = i, .prompt = a->tokens, .n_prompt = n, .max_tokens = answer, .sampling = any_sampling(&d), .out_tokens = a->tokens + n,
                            .out_logprobs = mem_zalloc((size_t)answer, sizeof *a->r.out_logprobs), .owner = a};
    if (roll(&d) % 32 == 0) a->cancel_at = roll_to(&d, 1, answer);
    return a;
}

static void add_ask(struct run *t, struct ask *a) {
    if (t->n == t->cap) t->asks = mem_grow(t->asks, t->cap = t->cap * 2 + 256, sizeof *t->asks);
    t->asks[t->n++] = a;
}

static void free_asks(struct run *t) {
    for (size_t i = 0; i < t->n; i++) {
        free(t->asks[i]->tokens);
        free(t->asks[i]->r.out_logprobs);
        free(t->asks[i]);
    }
    free(t->asks);
    t->asks = NULL;
    t->n = t->cap = 0;
}

/* ---- one engine ---- */

static void *loop_thread(void *arg) {
    struct err e;
    if (!loop_run(arg, &e)) return NULL;
    log_error("%s", e.text);
    _exit(1);
}

/* tight: pages for three of the longest sequences, so that requests are put back. */
static int open_all(struct run *t, int32_t n_ranks, enum probe_on on, bool tight) {
    int32_t longest = (t->max_len + PAGE - 1) / PAGE;
    struct sched_args sa = {.max_running = RUNNING, .max_prefill = PREFILL, .max_len = t->max_len, .page_size = PAGE,
                            .n_pages = 1 + longest * (tight ? 3 : RUNNING), .radix = tight, .stats = &t->stats};
    struct probe_sizes s = {.limits = sched_limits(&sa), .max_len = sa.max_len, .page_size = PAGE, .n_pages = sa.n_pages};
    t->stats = (struct stats){0};
    if (outbox_init(&t->outbox)) return err_machine(t->e, "no event descriptor is left");
    if (probe_engine(&t->engine, t->p, &s, n_ranks, on, t->e)) return -1;
    inbox_init(&t->inbox);
    t->sched = sched_new(&sa);
    bool overlap = engine_async(t->engine) && strcmp(t->p->options->overlap, "off");
    loop_init(&t->loop, &t->inbox, t->sched, t->engine, &s.limits, overlap);
    return 0;
}

static void close_all(struct run *t) {
    sched_check(t->sched);
    loop_release(&t->loop);
    sched_free(t->sched);
    engine_close(t->engine);
    inbox_release(&t->inbox);
    outbox_release(&t->outbox);
}

/* ---- feeding ---- */

/* Take news; how many requests have ended, -1: nothing came for so long that something hangs. */
static int take_news(struct run *t) {
    struct news list[64];
    int64_t wait_ms = (t->p->options->comm_timeout + 60) * 1000;
    struct pollfd fd = {.fd = t->outbox.event_fd, .events = POLLIN};
    int ended = 0;
    if (poll(&fd, 1, wait_ms > INT32_MAX ? -1 : (int)wait_ms) == 0) return err_machine(t->e, "no step ended in %lld s: the device hangs", (long long)wait_ms / 1000);
    for (int n = outbox_take(&t->outbox, list, 64, false); n-- > 0;) {
        struct ask *a = list[n].req->owner;
        ended += list[n].finish != FINISH_NONE;
        if (list[n].finish == FINISH_NONE && a->cancel_at && list[n].n_out >= a->cancel_at && !atomic_load(&a->r.cancelled)) inbox_cancel(&t->inbox, &a->r);
    }
    return ended;
}

static void push(struct run *t, struct ask *a) {
    a->r.outbox = &t->outbox;
    inbox_push(&t->inbox, &a->r);
}

/* n_steps: make requests up to there. Else run the `given` first of the seed. Between one request and more than can run are under way. */
static int feed(struct run *t, uint64_t n_steps, size_t given) {
    struct dice d = dice_of((uint64_t)t->p->options->seed, UINT64_C(1) << 41);
    for (int32_t under_way = 0;;) {
        bool more = given ? t->n < given : atomic_load(&t->stats.steps) < n_steps;
        int32_t wanted = roll(&d) % 8 ? roll_to(&d, 1, RUNNING) : roll_to(&d, 1, 2 * RUNNING);
        for (; more && under_way < wanted && (!given || t->n < given); under_way++) {
            add_ask(t, ask_new(t, t->n));
            push(t, t->asks[t->n - 1]);
        }
        if (!under_way) return 0;
        int ended = take_news(t);
        if (ended < 0) return -1;
        under_way -= ended;
    }
}

static int run_some(struct run *t, int32_t n_ranks, uint64_t n_steps, size_t given, FILE *out) {
    pthread_t thread;
    uint64_t start = clock_ns();
    if (open_all(t, n_ranks, PROBE_TESTED, true)) return -1;
    if (pthread_create(&thread, NULL, loop_thread, &t->loop)) return err_machine(t->e, "no thread can be started");
    int bad = feed(t, n_steps, given);
    if (bad) return -1; /* the thread hangs: the process ends */
    inbox_drain_begin(&t->inbox);
    pthread_join(thread, NULL);
    fprintf(out, "%d rank%s: %llu steps, %zu requests, %llu prompt tokens computed, %llu taken from the cache, %llu generated, %llu times put back; %.1f s; %s\n",
            n_ranks, n_ranks > 1 ? "s" : "", (unsigned long long)atomic_load(&t->stats.steps), t->n, (unsigned long long)atomic_load(&t->stats.prompt_tokens),
            (unsigned long long)atomic_load(&t->stats.cached_tokens), (unsigned long long)atomic_load(&t->stats.generated_tokens),
            (unsigned long long)atomic_load(&t->stats.retracted), (double)(clock_ns() - start) / 1e9, engine_describe(t->engine));
    fflush(out);
    close_all(t);
    return 0;
}

/* Every SAMPLE_EVERY-th request of `from` (more where there are many), on the CPU. */
static int run_sample(struct run *t, const struct run *from) {
    pthread_t thread;
    size_t step = from->n / SAMPLE_MOST > SAMPLE_EVERY ? from->n / SAMPLE_MOST : from->n < 4 * SAMPLE_EVERY ? 1 : SAMPLE_EVERY;
    if (open_all(t, 1, PROBE_EXACT, false)) return -1;
    if (pthread_create(&thread, NULL, loop_thread, &t->loop)) return err_machine(t->e, "no thread can be started");
    for (size_t i = 0; i < from->n; i += step) {
        add_ask(t, ask_new(t, i));
        t->asks[t->n - 1]->cancel_at = 0;
        push(t, t->asks[t->n - 1]);
    }
    int ended = 0;
    for (size_t left = t->n; left && ended >= 0; left -= ended > 0 ? (size_t)ended : 0) ended = take_news(t);
    if (ended < 0) return -1;
    inbox_drain_begin(&t->inbox);
    pthread_join(thread, NULL);
    close_all(t);
    return 0;
}

/* ---- comparing ---- */

struct match {
    int64_t texts, equal, tokens, parted;
    struct spread diff;
};

/* Up to the first token that is not the same; a cancelled request may be shorter. */
static void compare_one(struct match *m, const struct request *got, const struct request *want) {
    int32_t n = got->n_out < want->n_out ? got->n_out : want->n_out, k = 0;
    for (; k < n && got->out_tokens[k] == want->out_tokens[k]; k++)
        spread_add(&m->diff, (double)got->out_logprobs[k].chosen - (double)want->out_logprobs[k].chosen);
    m->texts++;
    m->tokens += k;
    m->parted += k < n;
    m->equal += k == n && (got->finish == FINISH_ABORT || want->finish == FINISH_ABORT || got->n_out == want->n_out);
}

/* In float32 answers are equal, but where two ids are as good as alike; with rounded numbers one sample in fifty may fall the other way, and random prompts and
 * hot sampling bring ids whose log-probabilities are small and far off: four times the bound (a wrong page shows as whole nats). */
static int compare(const struct run *got, const struct run *want, const char *what, FILE *out) {
    struct match *m = mem_zalloc(1, sizeof *m);
    for (size_t i = 0, k = 0; i < want->n; i++) {
        for (; k < got->n && got->asks[k]->r.id < want->asks[i]->r.id;) k++;
        if (k < got->n && got->asks[k]->r.id == want->asks[i]->r.id) compare_one(m, &got->asks[k]->r, &want->asks[i]->r);
    }
    bool f32 = got->p->config.dtype == DT_F32;
    double parted = m->tokens ? (double)m->parted / (double)m->tokens : 1, p999 = spread_at(&m->diff, 0.999), bound = f32 ? got->p->bound : 4 * got->p->bound;
    bool ok = parted <= (f32 ? 2e-4 : 2e-2) && p999 <= bound && !m->diff.not_finite && m->texts;
    fprintf(out, "against %s: %lld of %lld answers equal; %lld of %lld tokens fell otherwise; log-probabilities before that: P50 %.1e, P99.9 %.1e (bound %.0e), "
                 "largest %.1e   %s\n", what, (long long)m->equal, (long long)m->texts, (long long)m->parted, (long long)m->tokens,
            spread_at(&m->diff, 0.5), p999, bound, m->diff.max, ok ? "ok" : "FAILED");
    fflush(out);
    free(m);
    return !ok;
}

int selftest_steps(const struct probe *p, uint64_t n_steps, FILE *out, struct err *e) {
    int32_t most = PROMPT_MAX + ANSWER_MAX, len = p->config.max_position < most ? p->config.max_position : most;
    struct run one = {.p = p, .max_len = len, .e = e}, all = one, cpu = one;
    if (len < 8) return err_input(e, "%s: sequences of %d tokens are too short for this test; expected at least 8", p->dir, len);
    int failed = run_some(&one, 1, n_steps, 0, out);
    if (!failed && p->n_ranks > 1) failed = run_some(&all, p->n_ranks, n_steps, one.n, out);
    if (!failed) failed = run_sample(&cpu, &one);
    if (!failed && p->n_ranks > 1) failed += compare(&all, &one, "one rank", out) + compare(&all, &cpu, "the CPU", out);
    else if (!failed) failed += compare(&one, &cpu, "the CPU", out);
    free_asks(&one);
    free_asks(&all);
    free_asks(&cpu);
    return failed;
}
