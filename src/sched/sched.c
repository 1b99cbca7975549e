/* sched.c: the life of a sequence: added, committed, put back, finished, told. State belongs to the scheduler thread.
 * Refuses nothing at run time: what does not fit was refused at the front door, and pressure only makes requests wait.
 */
#include "base/err.h"
#include "base/mem.h"
#include "flow/mail.h"
#include "sched/seq.h"

#include <stdlib.h>
#include <string.h>

/* ---- small things ---- */

void seq_list_add(struct seq_list *l, struct seq *q, bool front) {
    q->prev = front ? NULL : l->last;
    q->next = front ? l->first : NULL;
    *(q->prev ? &q->prev->next : &l->first) = q;
    *(q->next ? &q->next->prev : &l->last) = q;
    l->n++;
}

void seq_list_drop(struct seq_list *l, struct seq *q) {
    *(q->prev ? &q->prev->next : &l->first) = q->next;
    *(q->next ? &q->next->prev : &l->last) = q->prev;
    q->prev = q->next = NULL;
    l->n--;
}

void seq_waiting_drop(struct sched *s, struct seq *q) {
    if (s->peek_next == q) s->peek_next = q->next;
    seq_list_drop(&s->waiting, q);
}

static void tell(struct sched *s, struct seq *q) {
    if (q->news) return;
    q->news = true;
    q->next_news = s->news;
    s->news = q;
}

struct batch_limits sched_limits(const struct sched_args *a) {
    int32_t row = (a->max_len + a->page_size - 1) / a->page_size;
    return (struct batch_limits){
        .max_tokens = a->max_prefill + a->max_running,
        .max_seqs = a->max_running,
        .max_pages = row + a->max_running + a->max_prefill / a->page_size + 1,
    };
}

struct sched *sched_new(const struct sched_args *args) {
    struct sched *s = mem_zalloc(1, sizeof *s);
    s->a = *args;
    if (!(s->a.prompt_weight > 0)) s->a.prompt_weight = SCHED_PROMPT_WEIGHT;
    s->row_pages = pages_for(s, args->max_len);
    if (args->max_prefill < 1 || args->max_running < 1 || args->n_pages - 1 < s->row_pages)
        BUG("scheduler of %d slots, %d tokens a step, %d pages for sequences of %d", args->max_running,
            args->max_prefill, args->n_pages, s->row_pages);
    pool_init(&s->pool, args->n_pages);
    if (args->radix) s->radix = radix_new(args->page_size, &s->pool);
    s->next_deadline = UINT64_MAX;
    s->match = mem_array((size_t)s->row_pages, sizeof *s->match);
    s->tokens = mem_array((size_t)args->max_len, sizeof *s->tokens);
    s->max_page_changes = sched_limits(args).max_pages;
    size_t n = (size_t)args->max_running;
    s->by_slot = mem_zalloc(n, sizeof *s->by_slot);
    s->begun = mem_zalloc(n, sizeof *s->begun);
    s->free_slots = mem_array(n, sizeof *s->free_slots);
    s->pages = mem_array(n * (size_t)s->row_pages, sizeof *s->pages);
    for (int32_t i = 0; i < args->max_running; i++) s->free_slots[s->n_free_slots++] = args->max_running - 1 - i;
    if (args->stats) {
        args->stats->pages_total = args->n_pages - 1;
        args->stats->page_size = args->page_size;
    }
    return s;
}

static void free_list(struct seq *q) {
    for (struct seq *next; q; q = next) {
        next = q->next;
        free(q);
    }
}

/* Sequences that have ended and left every list but that of the news. */
static void free_untold(struct seq *q) {
    for (struct seq *next; q; q = next) {
        next = q->next_news;
        if (q->finish != FINISH_NONE && q->slot < 0) free(q);
    }
}

static struct seq *seq_new(struct sched *s) {
    struct seq *q = s->spare;
    if (q)
        s->spare = q->next;
    else
        q = mem_alloc(sizeof *q);
    *q = (struct seq){.slot = -1};
    return q;
}

static void seq_free(struct sched *s, struct seq *q) {
    q->next = s->spare;
    s->spare = q;
}

void sched_free(struct sched *s) {
    if (!s) return;
    free_untold(s->news);
    free_list(s->waiting.first);
    free_list(s->running.first);
    free_list(s->spare);
    radix_free(s->radix);
    pool_release(&s->pool);
    free(s->tokens);
    free(s->match);
    free(s->by_slot);
    free(s->begun);
    free(s->free_slots);
    free(s->pages);
    free(s);
}

int32_t sched_count(const struct sched *s) { return s->waiting.n + s->running.n; }

bool sched_idle(const struct sched *s) { return sched_count(s) == 0 && !s->news; }

void sched_add(struct sched *s, struct request *r) {
    if (r->n_prompt < 1 || r->max_tokens < 1 || r->n_prompt > s->a.max_len - r->max_tokens)
        BUG("request %llu: %d prompt tokens and %d to make do not fit %d", (unsigned long long)r->id, r->n_prompt,
            r->max_tokens, s->a.max_len);
    struct seq *q = seq_new(s);
    q->req = r;
    q->n_given = r->n_prompt;
    q->max_out = r->max_tokens;
    if (r->deadline && r->deadline < s->next_deadline) s->next_deadline = r->deadline;
    seq_list_add(&s->waiting, q, false);
}

/* ---- leaving ---- */

void seq_begun_drop(struct sched *s, const struct seq *q) {
    int32_t i = 0;
    while (i < s->n_begun && s->begun[i] != q) i++;
    if (i == s->n_begun) return;
    memmove(s->begun + i, s->begun + i + 1, (size_t)(--s->n_begun - i) * sizeof *s->begun);
}

static void free_slot(struct sched *s, struct seq *q) {
    share_end(s, q);
    seq_begun_drop(s, q);
    s->pages_whole -= q->n_whole;
    s->by_slot[q->slot] = NULL;
    s->free_slots[s->n_free_slots++] = q->slot;
    q->slot = -1;
    seq_list_drop(&s->running, q);
}

static void count(struct sched *s, enum finish f) {
    struct stats *st = s->a.stats;
    if (!st) return;
    atomic_uint_fast64_t *c = f == FINISH_STOP      ? &st->finished_stop
                              : f == FINISH_LENGTH  ? &st->finished_length
                              : f == FINISH_ABORT   ? &st->finished_abort
                              : f == FINISH_TIMEOUT ? &st->finished_timeout
                                                    : &st->finished_error;
    atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

static void put_back(struct sched *s, struct seq *q) {
    share_computed(s, q);
    free_slot(s, q);
    q->state = SEQ_WAITING;
    q->retract = false;
    q->n_given = q->req->n_prompt + q->n_out;
    q->n_done = q->n_kv = 0;
    q->peek.version = 0;
    s->retracted = true;
    seq_list_add(&s->waiting, q, true);
    if (s->a.stats) atomic_fetch_add_explicit(&s->a.stats->retracted, 1, memory_order_relaxed);
}

/* The one place where a running sequence lets go of its slot and pages. q may be gone after it. */
void seq_settle(struct sched *s, struct seq *q) {
    if (q->in_flight > 0) return;
    if (q->finish != FINISH_NONE) {
        free_slot(s, q);
        if (!q->req) seq_free(s, q); /* else sched_flush still has to tell */
    } else if (q->retract) {
        put_back(s, q);
    }
}

void seq_finish(struct sched *s, struct seq *q, enum finish why) {
    if (why == FINISH_STOP || why == FINISH_LENGTH) lengths_learn(&s->lengths, q->n_out);
    q->finish = why;
    count(s, why);
    tell(s, q);
    if (q->state == SEQ_WAITING) {
        seq_waiting_drop(s, q);
        return;
    }
    if (why != FINISH_ERROR) share_computed(s, q);
    seq_settle(s, q);
}

void sched_look_for_cancelled(struct sched *s) { s->look_for_cancelled = true; }

void sched_flush_cache(struct sched *s) {
    if (s->radix) radix_evict(s->radix, s->a.n_pages);
    sched_gauges(s);
}

void sched_gauges(struct sched *s) {
    struct stats *st = s->a.stats;
    if (!st) return;
    if (s->n_generated) atomic_fetch_add_explicit(&st->generated_tokens, s->n_generated, memory_order_relaxed);
    s->n_generated = 0;
    atomic_store_explicit(&st->running, s->running.n, memory_order_relaxed);
    atomic_store_explicit(&st->waiting, s->waiting.n, memory_order_relaxed);
    atomic_store_explicit(&st->pages_used, s->a.n_pages - 1 - share_available(s), memory_order_relaxed);
    atomic_store_explicit(&st->pages_cached, s->radix ? radix_pages(s->radix) : 0, memory_order_relaxed);
}

/* ---- committing ---- */

static bool is_stop(const struct request *r, int32_t id) {
    for (int32_t i = 0; i < r->n_stop_ids; i++)
        if (r->stop_ids[i] == id) return true;
    return false;
}

static void take_token(struct sched *s, struct seq *q, const struct result_row *row) {
    struct request *r = q->req;
    if (row->bad) {
        seq_finish(s, q, FINISH_ERROR);
        return;
    }
    int32_t id = row->tokens[0];
    r->out_tokens[q->n_out] = id;
    if (r->out_logprobs) r->out_logprobs[q->n_out] = row->logprobs;
    q->n_out++;
    tell(s, q);
    s->n_generated++;
    if (is_stop(r, id))
        seq_finish(s, q, FINISH_STOP);
    else if (q->n_out >= q->max_out)
        seq_finish(s, q, FINISH_LENGTH);
    else
        seq_settle(s, q);
}

static void learn_pace(struct sched *s, uint64_t now) {
    struct flight f = s->flight[0];
    if (s->n_flight < 1) BUG("a step is committed that was not planned");
    s->flight[0] = s->flight[1];
    s->n_flight--;
    uint64_t from = f.at > s->last_commit ? f.at : s->last_commit; /* the device was busy with the step before */
    pace_learn(&s->pace, &f.shape, now - from);
    if (s->a.stats) histo_add(&s->a.stats->step_time, &stats_times, now - from, 1);
    s->last_commit = now;
}

void sched_commit(struct sched *s, const struct batch *b, const struct result *res, uint64_t now) {
    learn_pace(s, now);
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *e = &batch_seqs(b)[i];
        struct seq *q = s->by_slot[e->slot];
        if (!q) BUG("step %llu: slot %d belongs to nobody", (unsigned long long)b->step, e->slot);
        q->in_flight--;
        const struct result_row *row = e->row >= 0 ? &res->rows[e->row] : NULL;
        bool was_prompt = q->n_kv < q->n_given, good = q->finish == FINISH_NONE && !(row && row->bad);
        if (e->pos + e->n_tokens > q->n_kv) q->n_kv = e->pos + e->n_tokens;
        if (was_prompt && q->n_kv >= q->n_given && good) share_computed(s, q);
        if (row) q->n_sampling--;
        if (row && q->finish == FINISH_NONE)
            take_token(s, q, row); /* may settle it */
        else
            seq_settle(s, q);
    }
    sched_gauges(s);
}

/* ---- telling ---- */

static void publish(struct seq *q) {
    struct request *r = q->req;
    r->n_out = q->n_out;
    r->n_cached = q->n_cached;
    r->admitted = q->admitted;
    r->finish = q->finish;
    if (q->finish == FINISH_STOP) r->stop_id = r->out_tokens[q->n_out - 1];
}

void sched_flush(struct sched *s) {
    struct outbox *box = NULL;
    for (struct seq *q = s->news, *next; q; q = next) {
        next = q->next_news;
        q->news = false;
        if (q->req->outbox != box) {
            if (box) outbox_unlock(box);
            box = q->req->outbox;
            outbox_lock(box);
        }
        publish(q);
        outbox_post(box, q->req);
        if (q->finish == FINISH_NONE) continue;
        q->req = NULL;
        if (q->slot < 0) seq_free(s, q); /* else settle frees it, when the step that still holds it is committed */
    }
    if (box) outbox_unlock(box);
    s->news = NULL;
}
