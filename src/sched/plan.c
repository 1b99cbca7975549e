/* plan.c: one step: decodes, then chunks of prompts that were begun, then newly admitted ones. Scheduler thread.
 * Pressure is no error here: no page means evict, wait, or put back the youngest. */
#include "base/err.h"
#include "sched/seq.h"

#include <math.h>
#include <string.h>

/* A step's length (step_ns): its share of target_itl at most, since forecasts err; at least so many times that of its
 * decodes. */
static const double AIM = 0.97, LEAST_STEP = 2;
/* Another prompt's piece in a step is worth while with so many tokens, or such a share of the step. */
enum { PIECE = 64 };
static const double PIECE_SHARE = 0.2;

/* Let q's row cover n_tokens; false, and nothing is taken, when there are not that many pages or the batch cannot
 * carry the news. */
static bool take_pages(struct sched *s, struct seq *q, int32_t n_tokens, const struct batch *b) {
    int32_t want = pages_for(s, n_tokens), *row = page_row(s, q->slot);
    if (want - q->n_pages > share_available(s)) return false;
    int32_t news = (want > q->n_pages ? want : q->n_pages) - q->dirty_from;
    if (b->n_pages + news > s->max_page_changes) return false;
    if (want > q->n_pages) s->pages_rows += want - q->n_pages;
    while (q->n_pages < want) row[q->n_pages++] = share_take_page(s);
    return true;
}

/* Somebody is on the way out and only waits for the step that holds it: its pages come with that step's commit. */
static bool room_to_come(const struct sched *s) {
    const struct seq *q = s->running.last;
    while (q && !(q->in_flight && (q->retract || q->finish != FINISH_NONE))) q = q->prev;
    return q != NULL;
}

/* Make room for q by putting back the youngest sequences; false when it must wait (or was itself put back). */
static bool make_room(struct sched *s, struct seq *q, int32_t n_tokens, const struct batch *b) {
    while (!take_pages(s, q, n_tokens, b)) {
        if (room_to_come(s)) return false; /* or each sequence that lacks a page in this step would cost one its place */
        struct seq *victim = s->running.last;
        while (victim && (victim->finish != FINISH_NONE || victim->retract)) victim = victim->prev;
        if (!victim) return false;
        victim->retract = true;
        bool self = victim == q, gone_now = victim->in_flight == 0;
        seq_settle(s, victim);
        if (self || !gone_now) return false;
    }
    return true;
}

static void add_entry(struct sched *s, struct seq *q, int32_t n_tokens, struct batch *b) {
    for (; q->dirty_from < q->n_pages; q->dirty_from++)
        batch_pages(b)[b->n_pages++] =
            (struct batch_page){.slot = q->slot, .index = q->dirty_from, .page = page_row(s, q->slot)[q->dirty_from]};
    struct batch_seq *e = &batch_seqs(b)[b->n_seqs++];
    *e = (struct batch_seq){.slot = q->slot, .pos = q->n_done, .n_tokens = n_tokens, .token_at = -1, .row = -1};
    if (q->n_done < q->n_given) {
        e->token_at = b->n_given;
        int32_t *to = batch_tokens(b) + b->n_given, left = q->req->n_prompt - q->n_done,
                i = left < n_tokens ? left : n_tokens;
        if (i > 0) memcpy(to, q->req->prompt + q->n_done, (size_t)i * sizeof *to);
        for (i = i > 0 ? i : 0; i < n_tokens; i++) to[i] = token_at(q, q->n_done + i);
        b->n_given += n_tokens;
    }
    q->n_done += n_tokens;
    q->in_flight++;
    b->n_tokens += n_tokens;
    if (q->n_done >= q->n_given) {
        e->row = b->n_rows++;
        q->n_sampling++;
    }
}

static bool stays(const struct seq *q) { return q->finish == FINISH_NONE && !q->retract; }

static bool wants_decode(const struct seq *q) {
    return stays(q) && q->n_done >= q->n_given && q->n_out + q->n_sampling < q->max_out;
}

static void plan_decode(struct sched *s, struct seq *q, struct batch *b) {
    s->shape.n_decodes++;
    s->shape.read += q->n_done;
    add_entry(s, q, 1, b);
}

static void plan_decodes(struct sched *s, struct batch *b) {
    for (struct seq *q = s->running.first, *next; q; q = next) {
        next = q->next;
        if (!wants_decode(q)) continue;
        if (make_room(s, q, q->n_done + 1, b)) plan_decode(s, q, b);
        if (next && next->state == SEQ_WAITING) break; /* put back, and so was everything younger */
    }
}

/* ---- prompts ---- */

/* How long a step with decodes may get, at most target_itl. Each step has a fixed cost, which long steps spread over
 * more prompt tokens: the m prompts to be computed gain by it, and the k running streams lose. m * fixed / t + k / c * t
 * is least at the square root of c * fixed * m / k. */
static double step_ns(const struct sched *s, double decodes) {
    double target = AIM * (double)s->a.target_itl, m = s->waiting.n + s->n_begun, k = s->shape.n_decodes;
    if (decodes <= 0) return target;
    double t = sqrt(s->a.prompt_weight * target * s->pace.of[PACE_FIXED] * m / k);
    return fmin(target, fmax(t, LEAST_STEP * decodes));
}

/* Decodes always run; when they alone fill the step, one prompt token still goes along, so that prompts never starve. */
static void make_room_for_prompts(struct sched *s) {
    s->room_tokens = s->a.max_prefill - s->shape.n_decodes;
    if (s->room_tokens < 1) s->room_tokens = 1;
    s->room_ns = INFINITY;
    if (!s->shape.n_decodes || !s->a.target_itl) return;
    int32_t most = pace_most(&s->pace);
    if (s->room_tokens > most) s->room_tokens = most;
    double decodes = pace_decodes(&s->pace, s->shape.read);
    s->step_ns = step_ns(s, decodes);
    s->room_ns = s->step_ns - decodes;
}

/* Prompt tokens from position pos on that this step may still take: pieces of less than PACE_LEAST only at a prompt's
 * end, but one such piece even where decodes leave no time. */
static int32_t chunk_room(const struct sched *s, int32_t pos, int32_t left) {
    int32_t n = s->room_tokens;
    if (!isinf(s->room_ns)) {
        int32_t fit = pace_fit(&s->pace, pos, s->room_ns);
        n = (int32_t)fmin(fit, (pace_most_pairs(&s->pace) - s->shape.pairs) / (pos + 1));
    }
    if (n < left) n -= n % PACE_LEAST;
    if (n < PACE_LEAST && !s->shape.n_prompt) n = PACE_LEAST;
    if (n > s->room_tokens) n = s->room_tokens;
    return n < left ? n : left;
}

static bool has_room(const struct sched *s) {
    if (s->room_tokens <= 0) return false;
    if (!s->shape.n_prompt || isinf(s->room_ns)) return true;
    int32_t fit = pace_fit(&s->pace, 0, s->room_ns);
    return fit >= PIECE || (fit >= PACE_LEAST && s->room_ns >= PIECE_SHARE * s->step_ns);
}

static void plan_chunk(struct sched *s, struct seq *q, struct batch *b) {
    int32_t pos = q->n_done, n = chunk_room(s, pos, q->n_given - pos);
    int64_t page_room = ((int64_t)q->n_pages + share_available(s)) * s->a.page_size - pos;
    if (n > page_room) n = (int32_t)page_room;
    q->tried = s->n_plans;
    if (n <= 0 || !take_pages(s, q, pos + n, b)) return;
    add_entry(s, q, n, b);
    s->room_tokens -= n;
    s->room_ns -= pace_prompt(&s->pace, pos, n);
    s->shape.n_prompt += n;
    s->shape.pairs += pace_pairs(pos, n);
    if (q->n_done == q->n_given) seq_begun_drop(s, q);
}

static void admit(struct sched *s, struct seq *q, struct batch *b) {
    policy_pass_over(s, q);
    seq_waiting_drop(s, q);
    q->state = SEQ_RUNNING;
    q->slot = s->free_slots[--s->n_free_slots];
    s->by_slot[q->slot] = q;
    s->begun[s->n_begun++] = q;
    q->n_whole = pages_for(s, q->req->n_prompt + q->max_out);
    s->pages_whole += q->n_whole;
    seq_list_add(&s->running, q, false);
    batch_slots(b)[b->n_slots++] = (struct batch_slot){.slot = q->slot, .sampling = q->req->sampling};
    share_begin(s, q);
    if (!q->admitted) q->admitted = s->now ? s->now : 1;
    plan_chunk(s, q, b);
    policy_admitted(s, q);
}

static void plan_prompts(struct sched *s, struct batch *b) {
    make_room_for_prompts(s);
    while (has_room(s)) {
        struct seq *q = policy_begun(s), *w = NULL;
        bool closed = s->retracted && b->n_seqs; /* who was put back would be admitted at once */
        if (!closed && (!q || policy_overtakes(s))) w = policy_next(s);
        if (w && (!q || policy_before(s, w, q)))
            admit(s, w, b);
        else if (q)
            plan_chunk(s, q, b);
        else
            break;
    }
}

/* Chunks alone, and no page for any of them: the youngest must give way to the oldest. */
static void break_deadlock(struct sched *s, struct batch *b) {
    struct seq *q = s->running.first;
    while (q && !(stays(q) && !q->in_flight)) q = q->next;
    if (q && q->n_done < q->n_given && make_room(s, q, q->n_done + 1, b)) plan_chunk(s, q, b);
}

/* ---- who is gone before the step ---- */

static bool expired(const struct sched *s, const struct request *r) { return r->deadline && r->deadline <= s->now; }

static void drop_from(struct sched *s, struct seq_list *l) {
    for (struct seq *q = l->first, *next; q; q = next) {
        next = q->next;
        if (q->finish != FINISH_NONE) continue;
        if (atomic_load_explicit(&q->req->cancelled, memory_order_relaxed))
            seq_finish(s, q, FINISH_ABORT);
        else if (expired(s, q->req))
            seq_finish(s, q, FINISH_TIMEOUT);
        else if (q->req->deadline && q->req->deadline < s->next_deadline)
            s->next_deadline = q->req->deadline;
    }
}

static void drop_cancelled(struct sched *s) {
    if (!s->look_for_cancelled && s->now < s->next_deadline) return;
    s->look_for_cancelled = false;
    s->next_deadline = UINT64_MAX;
    drop_from(s, &s->waiting);
    drop_from(s, &s->running);
}

/* ---- the step ---- */

static void note_flight(struct sched *s, const struct batch *b) {
    s->flight[s->n_flight++] = (struct flight){.at = s->now, .shape = s->shape};
    struct stats *st = s->a.stats;
    if (!st) return;
    atomic_fetch_add_explicit(&st->steps, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&st->prompt_tokens, (uint64_t)b->n_given, memory_order_relaxed);
    histo_add(&st->step_tokens, &stats_tokens, (uint64_t)b->n_tokens, 1);
}

bool sched_plan(struct sched *s, struct batch *b, uint64_t now) {
    if (s->n_flight == 2) BUG("a third step is planned before the first is committed");
    s->now = now;
    s->n_plans++;
    batch_reset(b, s->step + 1);
    drop_cancelled(s);
    s->retracted = s->outlook.known = false;
    s->shape = (struct step_shape){0};
    if (policy_ranks(s)) share_peek_some(s);
    bool prompts_first = policy_prefill_first(s);
    if (!prompts_first) plan_decodes(s, b);
    plan_prompts(s, b);
    if (prompts_first && !b->n_seqs) plan_decodes(s, b);
    if (!b->n_seqs) break_deadlock(s, b);
    sched_gauges(s);
    if (!b->n_seqs) return false;
    s->step++;
    note_flight(s, b);
    batch_seal(b);
    return true;
}
