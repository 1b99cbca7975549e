/* sched.c: first come, first served; decodes first, then prefill chunks, in one batch; pages taken as needed, the
 * youngest sequence put back when they run out. State belongs to the scheduler thread. Refuses nothing at run time: what does not
 * fit was refused at the front door, and pressure only makes requests wait. */
#include "sched/sched.h"

#include "base/err.h"
#include "base/mem.h"
#include "flow/mail.h"
#include "kv/pool.h"
#include "kv/radix.h"

#include <stdlib.h>
#include <string.h>

enum seq_state { SEQ_WAITING, SEQ_RUNNING };

struct seq {
    struct request *req;     /* NULL once its finish was published: it belongs to the front end again */
    enum seq_state state;
    struct seq *prev, *next; /* in the waiting queue, or in the running list (oldest admission first) */
    int32_t slot;            /* while running */
    int32_t n_given;         /* tokens the host feeds: the prompt, and after a retraction what was generated before it */
    int32_t n_done;          /* positions whose keys and values are computed or planned */
    int32_t n_out;           /* generated tokens known; published by sched_flush */
    int32_t n_sampling;      /* samples planned and not committed */
    int32_t in_flight;       /* planned and not committed steps that hold this sequence */
    int32_t n_kv;            /* positions whose keys and values a committed step computed */
    int32_t n_pages;         /* of the slot's row of pages */
    int32_t n_shared;        /* of them, the first ones, the prefix cache's; the rest is the sequence's own */
    int32_t dirty_from;      /* the device does not know the row from here on */
    int32_t n_cached;        /* prompt tokens that the prefix cache had at admission */
    struct radix_node *root, *node; /* while running, with a cache: the salt's root; the locked end of the shared part */
    enum finish finish;      /* not FINISH_NONE: leaving */
    bool retract;            /* to be put back once in no step */
    bool news;               /* in the list for sched_flush */
    struct seq *next_news;
};

struct list {
    struct seq *first, *last;
    int32_t n;
};

struct sched {
    struct sched_args a;
    struct pool pool;
    struct radix *radix;     /* NULL: no prefix cache */
    int32_t *tokens;         /* [max_len] room to lay out a sequence's tokens */
    int32_t max_page_changes; /* of one batch */
    struct list waiting, running;
    struct seq *news;
    struct seq **by_slot;    /* [max_running] */
    int32_t *free_slots, n_free_slots;
    int32_t *pages;          /* [max_running][row_pages] */
    int32_t row_pages;
    uint64_t step;
    bool retracted;          /* in this step: nobody is admitted then, it would be put back at once */
};

/* ---- small things ---- */

static void list_add(struct list *l, struct seq *q, bool front) {
    q->prev = front ? NULL : l->last;
    q->next = front ? l->first : NULL;
    *(q->prev ? &q->prev->next : &l->first) = q;
    *(q->next ? &q->next->prev : &l->last) = q;
    l->n++;
}

static void list_drop(struct list *l, struct seq *q) {
    *(q->prev ? &q->prev->next : &l->first) = q->next;
    *(q->next ? &q->next->prev : &l->last) = q->prev;
    q->prev = q->next = NULL;
    l->n--;
}

static int32_t pages_for(const struct sched *s, int32_t n_tokens) {
    return (n_tokens + s->a.page_size - 1) / s->a.page_size;
}

static void tell(struct sched *s, struct seq *q) {
    if (q->news) return;
    q->news = true;
    q->next_news = s->news;
    s->news = q;
}

static int32_t *page_row(const struct sched *s, int32_t slot) { return s->pages + (size_t)slot * s->row_pages; }

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
    s->row_pages = pages_for(s, args->max_len);
    if (args->max_prefill < 1 || args->max_running < 1 || args->n_pages - 1 < s->row_pages)
        BUG("scheduler of %d slots, %d tokens a step, %d pages for sequences of %d", args->max_running,
            args->max_prefill, args->n_pages, s->row_pages);
    pool_init(&s->pool, args->n_pages);
    if (args->radix) s->radix = radix_new(args->page_size, &s->pool);
    s->tokens = mem_array((size_t)args->max_len, sizeof *s->tokens);
    s->max_page_changes = sched_limits(args).max_pages;
    size_t n = (size_t)args->max_running;
    s->by_slot = mem_zalloc(n, sizeof *s->by_slot);
    s->free_slots = mem_array(n, sizeof *s->free_slots);
    s->pages = mem_array(n * (size_t)s->row_pages, sizeof *s->pages);
    for (int32_t i = 0; i < args->max_running; i++) s->free_slots[s->n_free_slots++] = args->max_running - 1 - i;
    if (args->stats) args->stats->pages_total = args->n_pages - 1;
    return s;
}

static void free_list(struct list *l) {
    for (struct seq *q = l->first, *next; q; q = next) {
        next = q->next;
        free(q);
    }
}

void sched_free(struct sched *s) {
    if (!s) return;
    free_list(&s->waiting);
    free_list(&s->running);
    radix_free(s->radix);
    pool_release(&s->pool);
    free(s->tokens);
    free(s->by_slot);
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
    struct seq *q = mem_zalloc(1, sizeof *q);
    q->req = r;
    q->slot = -1;
    q->n_given = r->n_prompt;
    r->sched = q;
    list_add(&s->waiting, q, false);
}

/* ---- the prefix cache ---- */

static int32_t token_at(const struct seq *q, int32_t p) {
    return p < q->req->n_prompt ? q->req->prompt[p] : q->req->out_tokens[p - q->req->n_prompt];
}

/* Lay the first n tokens of q into s->tokens. */
static const int32_t *tokens_of(struct sched *s, const struct seq *q, int32_t n) {
    int32_t n_prompt = q->req->n_prompt < n ? q->req->n_prompt : n;
    memcpy(s->tokens, q->req->prompt, (size_t)n_prompt * sizeof *s->tokens);
    if (n > n_prompt) memcpy(s->tokens + n_prompt, q->req->out_tokens, (size_t)(n - n_prompt) * sizeof *s->tokens);
    return s->tokens;
}

/* Give the cache what q has computed so far: whole pages of known tokens. Where the cache has the same tokens already,
 * q goes on with the cache's pages; the device hears of it before q's next step, and no step that is under way
 * is disturbed, since what is freed here is written by later steps only. */
static void share(struct sched *s, struct seq *q) {
    if (!s->radix) return;
    int32_t known = q->req->n_prompt + q->n_out, n = (q->n_kv < known ? q->n_kv : known) / s->a.page_size, changed;
    if (n <= q->n_shared) return;
    struct radix_node *node = radix_insert(s->radix, q->root, tokens_of(s, q, n * s->a.page_size), n, q->n_shared,
                                           page_row(s, q->slot), &changed);
    radix_unlock(s->radix, q->node);
    q->node = node;
    q->n_shared = n;
    if (changed < q->dirty_from) q->dirty_from = changed;
}

/* Begin with what the cache has of q's tokens; at least the last one is computed anew, for its logits. */
static void begin_with_cached(struct sched *s, struct seq *q) {
    q->n_shared = q->dirty_from = 0;
    if (!s->radix) return;
    q->root = radix_root(s->radix, q->req->cache_salt);
    q->n_shared = q->n_pages = radix_match(s->radix, q->root, tokens_of(s, q, q->n_given), q->n_given - 1,
                                           page_row(s, q->slot), &q->node);
    radix_lock(s->radix, q->node);
    q->n_done = q->n_kv = q->n_shared * s->a.page_size;
    if (!q->n_out) q->n_cached = q->n_done;
    if (s->a.stats) atomic_fetch_add_explicit(&s->a.stats->cached_tokens, (uint64_t)q->n_done, memory_order_relaxed);
}

/* Pages that can be had: free ones, and what the cache can give up. */
static int32_t available(const struct sched *s) {
    return s->pool.n_free + (s->radix ? radix_evictable(s->radix) : 0);
}

static int32_t take_page(struct sched *s) {
    if (!s->pool.n_free && s->radix) radix_evict(s->radix, 1);
    return pool_take(&s->pool);
}

/* ---- leaving ---- */

static void free_slot(struct sched *s, struct seq *q) {
    int32_t *row = page_row(s, q->slot);
    for (int32_t i = q->n_shared; i < q->n_pages; i++) pool_give(&s->pool, row[i]);
    if (s->radix) radix_unlock(s->radix, q->node);
    q->n_pages = q->n_shared = 0;
    q->node = q->root = NULL;
    s->by_slot[q->slot] = NULL;
    s->free_slots[s->n_free_slots++] = q->slot;
    q->slot = -1;
    list_drop(&s->running, q);
}

static void count(struct sched *s, enum finish f) {
    struct stats *st = s->a.stats;
    if (!st) return;
    atomic_uint_fast64_t *c = f == FINISH_STOP     ? &st->finished_stop
                              : f == FINISH_LENGTH ? &st->finished_length
                              : f == FINISH_ABORT  ? &st->finished_abort
                                                   : &st->finished_error;
    atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

static void put_back(struct sched *s, struct seq *q) {
    share(s, q);
    free_slot(s, q);
    q->state = SEQ_WAITING;
    q->retract = false;
    q->n_given = q->req->n_prompt + q->n_out;
    q->n_done = q->n_kv = 0;
    s->retracted = true;
    list_add(&s->waiting, q, true);
    if (s->a.stats) atomic_fetch_add_explicit(&s->a.stats->retracted, 1, memory_order_relaxed);
}

/* The one place where a running sequence lets go of its slot and pages. q may be gone after it. */
static void settle(struct sched *s, struct seq *q) {
    if (q->in_flight > 0) return;
    if (q->finish != FINISH_NONE) {
        free_slot(s, q);
        if (!q->req) free(q); /* else sched_flush still has to tell */
    } else if (q->retract) {
        put_back(s, q);
    }
}

static void finish(struct sched *s, struct seq *q, enum finish why) {
    q->finish = why;
    count(s, why);
    tell(s, q);
    if (q->state == SEQ_WAITING) {
        list_drop(&s->waiting, q);
        return;
    }
    if (why != FINISH_ERROR) share(s, q);
    settle(s, q);
}

static void drop_cancelled(struct sched *s, struct list *l) {
    for (struct seq *q = l->first, *next; q; q = next) {
        next = q->next;
        if (q->finish == FINISH_NONE && atomic_load_explicit(&q->req->cancelled, memory_order_relaxed))
            finish(s, q, FINISH_ABORT);
    }
}

/* ---- planning ---- */

/* Let q's row cover n_tokens; false, and nothing is taken, when there are not that many pages or the batch cannot
 * carry the news. */
static bool take_pages(struct sched *s, struct seq *q, int32_t n_tokens, const struct batch *b) {
    int32_t want = pages_for(s, n_tokens), *row = page_row(s, q->slot);
    if (want - q->n_pages > available(s)) return false;
    int32_t news = (want > q->n_pages ? want : q->n_pages) - q->dirty_from;
    if (b->n_pages + news > s->max_page_changes) return false;
    while (q->n_pages < want) row[q->n_pages++] = take_page(s);
    return true;
}

/* Make room for q by putting back the youngest sequences; false when it must wait (or was itself put back). */
static bool make_room(struct sched *s, struct seq *q, int32_t n_tokens, struct batch *b) {
    while (!take_pages(s, q, n_tokens, b)) {
        struct seq *victim = s->running.last;
        while (victim && (victim->finish != FINISH_NONE || victim->retract)) victim = victim->prev;
        if (!victim) return false;
        victim->retract = true;
        bool self = victim == q, gone_now = victim->in_flight == 0;
        settle(s, victim);
        if (self || !gone_now) return false;
    }
    return true;
}

static void add_entry(struct sched *s, struct seq *q, int32_t n_tokens, struct batch *b) {
    for (; q->dirty_from < q->n_pages; q->dirty_from++)
        batch_pages(b)[b->n_pages++] = (struct batch_page){
            .slot = q->slot, .index = q->dirty_from, .page = page_row(s, q->slot)[q->dirty_from]};
    struct batch_seq *e = &batch_seqs(b)[b->n_seqs++];
    *e = (struct batch_seq){.slot = q->slot, .pos = q->n_done, .n_tokens = n_tokens, .token_at = -1, .row = -1};
    if (q->n_done < q->n_given) {
        e->token_at = b->n_given;
        int32_t *to = batch_tokens(b) + b->n_given;
        for (int32_t i = 0; i < n_tokens; i++) to[i] = token_at(q, q->n_done + i);
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

static bool wants_decode(const struct seq *q) {
    return q->finish == FINISH_NONE && !q->retract && q->n_done >= q->n_given &&
           q->n_out + q->n_sampling < q->req->max_tokens;
}

static void plan_decodes(struct sched *s, struct batch *b) {
    for (struct seq *q = s->running.first, *next; q; q = next) {
        next = q->next;
        if (!wants_decode(q)) continue;
        if (make_room(s, q, q->n_done + 1, b)) add_entry(s, q, 1, b);
        if (next && next->state == SEQ_WAITING) break; /* put back, and so was everything younger */
    }
}

/* What is left of the step's token budget. Decodes always run; when they alone fill it, one prompt token still
 * goes along, so that prompts never starve. */
static int32_t chunk_room(const struct sched *s, const struct batch *b) {
    int32_t chunks = b->n_given, room = s->a.max_prefill - b->n_tokens;
    return room > 0 ? room : chunks == 0 ? 1 : 0;
}

static void plan_chunk(struct sched *s, struct seq *q, struct batch *b) {
    int32_t n = q->n_given - q->n_done, room = chunk_room(s, b);
    if (n > room) n = room;
    int32_t page_room = (q->n_pages + available(s)) * s->a.page_size - q->n_done;
    if (n > page_room) n = page_room;
    if (n > 0 && take_pages(s, q, q->n_done + n, b)) add_entry(s, q, n, b);
}

static void plan_chunks(struct sched *s, struct batch *b) {
    for (struct seq *q = s->running.first; q && chunk_room(s, b) > 0; q = q->next)
        if (q->finish == FINISH_NONE && !q->retract && q->n_done < q->n_given) plan_chunk(s, q, b);
}

static bool may_admit(const struct sched *s, const struct seq *q, const struct batch *b) {
    if (!s->n_free_slots || chunk_room(s, b) <= 0) return false;
    /* Room for the whole prompt, and a page for each running sequence to grow into. */
    return !s->running.n || pages_for(s, q->n_given + 1) + s->running.n <= available(s);
}

static void admit(struct sched *s, struct batch *b) {
    struct seq *q;
    while ((q = s->waiting.first) && may_admit(s, q, b)) {
        list_drop(&s->waiting, q);
        q->state = SEQ_RUNNING;
        q->slot = s->free_slots[--s->n_free_slots];
        s->by_slot[q->slot] = q;
        list_add(&s->running, q, false);
        batch_slots(b)[b->n_slots++] = (struct batch_slot){.slot = q->slot, .sampling = q->req->sampling};
        begin_with_cached(s, q);
        plan_chunk(s, q, b);
    }
}

static void publish_stats(struct sched *s, const struct batch *b) {
    struct stats *st = s->a.stats;
    if (!st) return;
    atomic_store_explicit(&st->running, s->running.n, memory_order_relaxed);
    atomic_store_explicit(&st->waiting, s->waiting.n, memory_order_relaxed);
    atomic_store_explicit(&st->pages_used, s->a.n_pages - 1 - available(s), memory_order_relaxed);
    if (b && b->n_seqs) {
        atomic_fetch_add_explicit(&st->steps, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&st->prompt_tokens, (uint64_t)b->n_given, memory_order_relaxed);
    }
}

/* A chunk that found no page at all while nothing decodes: the youngest must give way. */
static void break_deadlock(struct sched *s, struct batch *b) {
    struct seq *q = s->running.first;
    while (q && (q->finish != FINISH_NONE || q->retract || q->in_flight)) q = q->next;
    if (q && q->n_done < q->n_given && make_room(s, q, q->n_done + 1, b)) plan_chunk(s, q, b);
}

bool sched_plan(struct sched *s, struct batch *b) {
    batch_reset(b, ++s->step);
    drop_cancelled(s, &s->waiting);
    drop_cancelled(s, &s->running);
    s->retracted = false;
    plan_decodes(s, b);
    plan_chunks(s, b);
    if (!s->retracted || !b->n_seqs) admit(s, b);
    if (!b->n_seqs) break_deadlock(s, b);
    publish_stats(s, b);
    if (!b->n_seqs) s->step--;
    else batch_seal(b);
    return b->n_seqs > 0;
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
        finish(s, q, FINISH_ERROR);
        return;
    }
    int32_t id = row->tokens[0];
    r->out_tokens[q->n_out] = id;
    if (r->out_logprobs) r->out_logprobs[q->n_out] = row->logprobs;
    q->n_out++;
    tell(s, q);
    if (s->a.stats) atomic_fetch_add_explicit(&s->a.stats->generated_tokens, 1, memory_order_relaxed);
    if (is_stop(r, id)) finish(s, q, FINISH_STOP);
    else if (q->n_out >= r->max_tokens) finish(s, q, FINISH_LENGTH);
    else settle(s, q);
}

void sched_commit(struct sched *s, const struct batch *b, const struct result *res) {
    for (int32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *e = &batch_seqs(b)[i];
        struct seq *q = s->by_slot[e->slot];
        if (!q) BUG("step %llu: slot %d belongs to nobody", (unsigned long long)b->step, e->slot);
        q->in_flight--;
        bool was_prompt = q->n_kv < q->n_given;
        if (e->pos + e->n_tokens > q->n_kv) q->n_kv = e->pos + e->n_tokens;
        if (was_prompt && q->n_kv >= q->n_given && q->finish == FINISH_NONE) share(s, q);
        if (e->row >= 0) q->n_sampling--;
        if (e->row >= 0 && q->finish == FINISH_NONE) take_token(s, q, &res->rows[e->row]); /* may settle it */
        else settle(s, q);
    }
    publish_stats(s, NULL);
}

/* ---- telling ---- */

static void publish(struct seq *q) {
    struct request *r = q->req;
    r->n_out = q->n_out;
    r->n_cached = q->n_cached;
    r->finish = q->finish;
    if (q->finish == FINISH_STOP) r->stop_id = r->out_tokens[q->n_out - 1];
    if (q->finish == FINISH_ERROR) {
        r->error_status = 500;
        memcpy(r->error, "the model computed no valid number for the next token",
               sizeof "the model computed no valid number for the next token");
    }
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
        if (q->slot < 0) free(q); /* else settle frees it, when the step that still holds it is committed */
    }
    if (box) outbox_unlock(box);
    s->news = NULL;
}

/* ---- checking ---- */

static int32_t check_row(const struct sched *s, const struct seq *q, uint8_t *owners) {
    if (s->by_slot[q->slot] != q) BUG("slot %d is not its sequence's", q->slot);
    if (q->finish != FINISH_NONE && !q->in_flight) BUG("slot %d is kept by a finished sequence", q->slot);
    if (q->in_flight < 0 || q->n_sampling < 0 || q->n_kv > q->n_done || q->n_done > q->n_pages * s->a.page_size ||
        q->n_shared > q->n_pages)
        BUG("slot %d: in flight %d, sampling %d, computed %d, planned %d, %d pages, %d shared", q->slot, q->in_flight,
            q->n_sampling, q->n_kv, q->n_done, q->n_pages, q->n_shared);
    const int32_t *row = page_row(s, q->slot);
    for (int32_t i = 0; i < q->n_pages; i++) {
        if (row[i] <= 0 || row[i] >= s->a.n_pages) BUG("slot %d has page %d", q->slot, row[i]);
        if (i < q->n_shared && !(owners[row[i]] & 1)) BUG("page %d is shared, but not in the cache", row[i]);
        if (i >= q->n_shared && owners[row[i]]) BUG("page %d has two owners", row[i]);
        if (i >= q->n_shared) owners[row[i]] = 2;
    }
    return q->n_pages - q->n_shared;
}

void sched_check(struct sched *s) {
    int32_t held = 0, slots = 0, cached = s->radix ? radix_pages(s->radix) : 0;
    uint8_t *owners = mem_zalloc((size_t)s->a.n_pages, 1); /* 1: the cache, 2: a sequence */
    if (s->radix) radix_check(s->radix, owners);
    for (int32_t i = 0; i < s->a.n_pages; i++)
        if (owners[i] > 1) BUG("page %d lies under two nodes of the cache", i);
    for (const struct seq *q = s->running.first; q; q = q->next, slots++) held += check_row(s, q, owners);
    for (int32_t i = 1; i < s->a.n_pages; i++)
        if ((owners[i] != 0) != (s->pool.taken[i] != 0)) BUG("page %d: taken %d, owner %d", i, s->pool.taken[i], owners[i]);
    free(owners);
    if (held + cached + s->pool.n_free != s->a.n_pages - 1)
        BUG("pages: %d held + %d cached + %d free != %d", held, cached, s->pool.n_free, s->a.n_pages - 1);
    if (slots + s->n_free_slots != s->a.max_running || slots != s->running.n)
        BUG("slots: %d used + %d free != %d", slots, s->n_free_slots, s->a.max_running);
}
