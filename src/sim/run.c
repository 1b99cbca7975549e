/* run.c: see run.h. One thread owns all; the clock is a number. Refuses requests that can never fit, and counts them.
 */
#include "sim/run.h"

#include "base/mem.h"
#include "flow/mail.h"

#include <stdlib.h>
#include <string.h>

enum { STOP_TOKEN = 0, SECOND = 1000000000 };
static const double LASTS_MOST = 1e9; /* seconds: the clock counts ns in 64 bits */

/* A request between its arrival and its last token. */
struct job {
    struct request r;
    uint64_t arrived, last; /* of its last token; 0: none yet */
    int32_t *tokens;        /* the prompt, then room for the answer */
};

struct times { /* in microseconds */
    uint32_t *us;
    size_t n, cap;
};

struct sim {
    const struct sim_args *a;
    struct sim_report *out;
    struct sched *sched;
    struct stats stats;
    struct outbox box;
    struct batch *batch[2];
    struct result result;
    int32_t *by_slot;       /* the request in the trace */
    int32_t *high;          /* of each request: positions computed so far, or found in the cache; -1: no step yet */
    uint64_t now, ends[2];  /* of the steps under way */
    uint64_t free_at, busy; /* the device is free from then on */
    int32_t next;           /* request to arrive */
    int under_way;
    unsigned turn;
    struct times ttft, itl;
    uint64_t noted; /* the moment up to which the gauges were added up */
    double running_sum, queued_sum, used_sum;
    uint64_t moment_ns; /* length of one of out->moment */
};

static const int32_t stops[] = {STOP_TOKEN};

static void add_time(struct times *t, uint64_t ns) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 1 << 16;
        t->us = mem_grow(t->us, t->cap, sizeof *t->us);
    }
    uint64_t us = (ns + 500) / 1000;
    t->us[t->n++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static struct percentiles percentiles(struct times *t) {
    struct percentiles p = {0};
    if (!t->n) return p;
    qsort(t->us, t->n, sizeof *t->us, by_size);
    double sum = 0;
    for (size_t i = 0; i < t->n; i++) sum += t->us[i];
    p.p50 = t->us[(t->n - 1) * 50 / 100] * 1e-6;
    p.p90 = t->us[(t->n - 1) * 90 / 100] * 1e-6;
    p.p99 = t->us[(t->n - 1) * 99 / 100] * 1e-6;
    p.max = t->us[t->n - 1] * 1e-6;
    p.mean = sum / (double)t->n * 1e-6;
    return p;
}

/* ---- what goes on over time ---- */

/* Halve the resolution when the list is full. */
static void coarser(struct sim *s) {
    struct sim_moment *m = s->out->moment;
    for (int32_t i = 0; i < SIM_MOMENTS / 2; i++) {
        const struct sim_moment *a = &m[2 * i], *b = a + 1;
        m[i] = (struct sim_moment){a->at, (a->running + b->running) / 2, (a->queued + b->queued) / 2,
                                   (a->used + b->used) / 2, (a->cached + b->cached) / 2};
    }
    memset(m + SIM_MOMENTS / 2, 0, SIM_MOMENTS / 2 * sizeof *m);
    s->out->n_moments = SIM_MOMENTS / 2;
    s->moment_ns *= 2;
}

/* The gauges were what they are since s->noted. */
static void note(struct sim *s, uint64_t until) {
    int running = s->stats.running, queued = s->stats.waiting, used = s->stats.pages_used,
        cached = s->stats.pages_cached;
    struct sim_report *out = s->out;
    if (running > out->running_max) out->running_max = running;
    if (queued > out->queued_max) out->queued_max = queued;
    s->running_sum += (double)running * (double)(until - s->noted);
    s->queued_sum += (double)queued * (double)(until - s->noted);
    s->used_sum += (double)used * (double)(until - s->noted);
    while (s->noted < until) {
        uint64_t i = s->noted / s->moment_ns;
        if (i >= SIM_MOMENTS) {
            coarser(s);
            continue;
        }
        uint64_t end = (i + 1) * s->moment_ns < until ? (i + 1) * s->moment_ns : until;
        double share = (double)(end - s->noted) / (double)s->moment_ns;
        struct sim_moment *m = &out->moment[i];
        m->at = (double)i * (double)s->moment_ns / SECOND;
        m->running += running * share;
        m->queued += queued * share;
        m->used += used * share;
        m->cached += cached * share;
        out->n_moments = (int32_t)i + 1;
        s->noted = end;
    }
}

static void advance(struct sim *s, uint64_t to) {
    if (to <= s->now) return;
    note(s, to);
    s->now = to;
}

/* ---- requests ---- */

static uint64_t arrival(const struct sim *s, int32_t i) { return (uint64_t)(s->a->trace->req[i].at * SECOND); }

static void add_job(struct sim *s, int32_t i) {
    const struct trace_request *t = &s->a->trace->req[i];
    int32_t max_tokens = s->a->max_tokens > t->n_out ? s->a->max_tokens : t->n_out, max_len = s->a->sched.max_len;
    if (t->n_prompt > max_len - max_tokens) max_tokens = max_len - t->n_prompt;
    if (max_tokens < t->n_out) {
        s->out->n_refused++;
        return;
    }
    struct job *j = mem_zalloc(1, sizeof *j);
    j->tokens = mem_array((size_t)t->n_prompt + (size_t)max_tokens, sizeof *j->tokens);
    trace_tokens(s->a->trace, i, j->tokens);
    j->arrived = arrival(s, i);
    j->r = (struct request){.id = (uint64_t)i,
                            .prompt = j->tokens,
                            .n_prompt = t->n_prompt,
                            .max_tokens = max_tokens,
                            .stop_ids = stops,
                            .n_stop_ids = 1,
                            .outbox = &s->box,
                            .owner = j,
                            .out_tokens = j->tokens + t->n_prompt};
    j->r.sampling.n_logprobs = -1;
    j->r.sampling.seed = (uint64_t)i; /* comes back in the batch, with the slot */
    s->out->n_requests++;
    s->out->prompt_tokens += (uint64_t)t->n_prompt;
    s->out->output_tokens += (uint64_t)t->n_out;
    sched_add(s->sched, &j->r);
}

static void add_arrived(struct sim *s) {
    while (s->next < s->a->trace->n && arrival(s, s->next) <= s->now) add_job(s, s->next++);
}

static void take_news(struct sim *s) {
    struct news list[64];
    int n;
    do {
        n = outbox_take(&s->box, list, 64, false);
        for (int i = 0; i < n; i++) {
            struct job *j = list[i].req->owner;
            add_time(j->last ? &s->itl : &s->ttft, s->now - (j->last ? j->last : j->arrived));
            j->last = s->now;
            if (list[i].finish == FINISH_NONE) continue;
            s->out->cached_tokens += (uint64_t)j->r.n_cached;
            free(j->tokens);
            free(j);
        }
    } while (n == 64);
}

/* ---- the device ---- */

/* The device knows requests by their place in the trace: one may be gone while a step that was planned before still
 * holds it. */
static const struct trace_request *in_slot(const struct sim *s, int32_t slot) {
    return &s->a->trace->req[s->by_slot[slot]];
}

static void count(struct sim *s, const struct batch_seq *q) {
    const struct trace_request *t = in_slot(s, q->slot);
    int32_t end = q->pos + q->n_tokens, most = t->n_prompt + t->n_out - 1, *high = &s->high[s->by_slot[q->slot]];
    s->out->computed += (uint64_t)q->n_tokens;
    if (*high > q->pos) s->out->twice += (uint64_t)((end < *high ? end : *high) - q->pos);
    if (end > most) s->out->dropped += (uint64_t)(end - most);
    if (end > *high) *high = end;
}

static struct work work_of(struct sim *s, const struct batch *b) {
    struct work w = {.n_tokens = b->n_tokens, .n_rows = b->n_rows};
    for (int32_t i = 0; i < b->n_slots; i++)
        s->by_slot[batch_slots(b)[i].slot] = (int32_t)batch_slots(b)[i].sampling.seed;
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &batch_seqs(b)[i];
        w.kv_read += q->pos + q->n_tokens;
        if (q->n_tokens > 1) w.pairs += (double)q->n_tokens * (q->pos + 0.5 * q->n_tokens);
        count(s, q);
    }
    return w;
}

static void launch(struct sim *s, const struct batch *b) {
    struct work w = work_of(s, b);
    uint64_t ns = cost_step(s->a->cost, &w), ready = s->now + s->a->host;
    uint64_t from = s->free_at > ready ? s->free_at : ready;
    s->ends[s->turn++ & 1] = s->free_at = from + ns;
    s->busy += ns;
    s->under_way++;
}

/* The tokens are a function of request and place; the last one of an answer is the stop token. */
static void commit_oldest(struct sim *s) {
    unsigned at = (s->turn + (unsigned)s->under_way) & 1;
    const struct batch *b = s->batch[at];
    advance(s, s->ends[at]);
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &batch_seqs(b)[i];
        if (q->row < 0) continue;
        const struct trace_request *t = in_slot(s, q->slot);
        int32_t n_out = q->pos + q->n_tokens - t->n_prompt + 1;
        int32_t token =
            n_out == t->n_out ? STOP_TOKEN : (int32_t)(1 + ((int64_t)s->by_slot[q->slot] * 7919 + n_out) % 100003);
        s->result.rows[q->row] = (struct result_row){.slot = q->slot, .n_tokens = 1, .tokens = {token}};
    }
    sched_commit(s->sched, b, &s->result, s->now);
    s->under_way--;
}

static void step(struct sim *s) {
    struct batch *b = s->batch[s->turn & 1];
    bool planned = sched_plan(s->sched, b, s->now);
    if (planned) launch(s, b);
    if (s->under_way && (s->under_way > 1 || !planned || !s->a->overlap)) commit_oldest(s);
    sched_flush(s->sched);
    take_news(s);
}

/* ---- the whole ---- */

static void summary(struct sim *s) {
    struct sim_report *out = s->out;
    double ns = s->now ? (double)s->now : 1;
    out->seconds = ns / SECOND;
    out->busy = (double)s->busy / ns;
    out->steps = s->stats.steps;
    out->retracted = s->stats.retracted;
    out->running_mean = s->running_sum / ns;
    out->queued_mean = s->queued_sum / ns;
    out->used_mean = s->used_sum / ns / (s->a->sched.n_pages - 1);
    out->ttft = percentiles(&s->ttft);
    out->itl = percentiles(&s->itl);
    out->best_hit = trace_best_hit(s->a->trace, s->a->sched.page_size);
}

int sim_run(const struct sim_args *a, struct sim_report *out, struct err *e) {
    struct sim s = {.a = a, .out = out, .moment_ns = SECOND / 16};
    struct sched_args args = a->sched;
    args.stats = &s.stats;
    *out = (struct sim_report){0};
    double last = a->trace->req[a->trace->n - 1].at;
    if (last > LASTS_MOST)
        return err_input(e, "at this load the last request comes after %g seconds, of at most %g; is the time stamp's unit right?",
                         last, LASTS_MOST);
    if (outbox_init(&s.box)) return err_machine(e, "no event descriptor can be had; raise the limit of open files");
    struct batch_limits lim = sched_limits(&args);
    for (int i = 0; i < 2; i++) s.batch[i] = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    s.result.rows = mem_zalloc((size_t)lim.max_seqs, sizeof *s.result.rows);
    s.by_slot = mem_zalloc((size_t)lim.max_seqs, sizeof *s.by_slot);
    s.high = mem_array((size_t)a->trace->n, sizeof *s.high);
    for (int32_t i = 0; i < a->trace->n; i++) s.high[i] = -1;
    s.sched = sched_new(&args);
    while (s.next < a->trace->n || !sched_idle(s.sched) || s.under_way) {
        if (!s.under_way && sched_idle(s.sched)) advance(&s, arrival(&s, s.next));
        add_arrived(&s);
        step(&s);
    }
    summary(&s);
    sched_free(s.sched);
    outbox_release(&s.box);
    for (int i = 0; i < 2; i++) free(s.batch[i]);
    free(s.result.rows);
    free(s.by_slot);
    free(s.high);
    free(s.ttft.us);
    free(s.itl.us);
    return 0;
}
