/* seq.h: the scheduler's own structures, shared by its files only (sched.c the life of a sequence, plan.c the next
 * step, share.c pages and the prefix cache, check.c the invariants). */
#ifndef MINISGL_SCHED_SEQ_H
#define MINISGL_SCHED_SEQ_H
#include "kv/pool.h"
#include "kv/radix.h"
#include "sched/estimate.h"
#include "sched/sched.h"

enum seq_state { SEQ_WAITING, SEQ_RUNNING };

struct seq { /* what each step looks at comes first: two cache lines */
    struct seq *prev, *next; /* in the waiting queue, or in the running list (oldest admission first) */
    struct request *req;     /* NULL once its finish was published: it belongs to the front end again */
    int32_t slot;            /* while running */
    int32_t n_given;         /* tokens the host feeds: the prompt, and after a retraction what was generated before it */
    int32_t n_done;          /* positions whose keys and values are computed or planned */
    int32_t n_out;           /* generated tokens known; published by sched_flush */
    int32_t max_out;         /* tokens it may generate: the request's max_tokens */
    int32_t n_sampling;      /* samples planned and not committed */
    int32_t in_flight;       /* planned and not committed steps that hold this sequence */
    int32_t n_kv;            /* positions whose keys and values a committed step computed */
    int32_t n_pages;         /* of the slot's row of pages */
    int32_t n_shared;        /* of them, the first ones, the prefix cache's; the rest is the sequence's own */
    int32_t dirty_from;      /* the device does not know the row from here on */
    int32_t n_whole;         /* pages of the prompt and the longest answer; while running */
    enum seq_state state;
    enum finish finish; /* not FINISH_NONE: leaving */
    bool retract;       /* to be put back once in no step */
    bool news;          /* in the list for sched_flush */
    struct seq *next_news;
    int32_t n_cached; /* prompt tokens that the prefix cache had at admission */
    int32_t passed;   /* times that a younger request was admitted before this one */
    uint64_t tried;   /* the plan in which its prompt had its turn */
    struct {          /* while waiting: what the cache had of it when it was last asked */
        int32_t n_pages, n_unheld;
        uint64_t version; /* of the cache, and 1; 0: never asked */
    } peek;
    struct radix_node *root, *node; /* while running, with a cache: the salt's root; the locked end of the shared part */
    uint64_t admitted;              /* when it left the queue for the first time; 0: not yet */
};

struct seq_list {
    struct seq *first, *last;
    int32_t n;
};

/* What the running sequences are going to need, at some times from now (counted in tokens of each); see policy.c. */
enum { HORIZONS = 22 };
struct odds { /* that answers of a bucket's length are still there at each horizon */
    uint32_t as_of; /* answers learned by then, and 1; 0: never made */
    float alive[HORIZONS];
};
struct outlook {
    bool known;                           /* made in this plan */
    double mean[HORIZONS], var[HORIZONS]; /* pages held then */
    struct outlook_group { /* room to make it: sequences of like length, that may live to the same horizon */
        int32_t n;
        double own, own2; /* pages that end with them (shared ones stay in the cache), and their squares */
    } group[LENGTH_BUCKETS][HORIZONS + 1];
};

/* A step that was planned and not committed. */
struct flight {
    uint64_t at;
    struct step_shape shape;
};

struct sched {
    struct sched_args a;
    struct pool pool;
    struct radix *radix;      /* NULL: no prefix cache */
    int32_t *tokens;          /* [max_len] room to lay out a sequence's tokens */
    int32_t *match;           /* [row_pages] room for a match that is only looked at */
    int32_t max_page_changes; /* of one batch */
    struct seq_list waiting, running;
    struct seq *peek_next; /* a waiting one; NULL: the first */
    struct seq *news, *spare; /* spare: finished ones, to be used again; by next */
    struct seq **by_slot;     /* [max_running] */
    struct seq **begun;       /* [max_running] running ones whose prompts are not wholly planned, in order of admission */
    int32_t n_begun;
    int32_t *free_slots, n_free_slots;
    int32_t *pages; /* [max_running][row_pages] */
    int32_t row_pages;
    uint64_t n_generated; /* since the last sched_gauges */
    uint64_t step, n_plans, now, last_commit, next_deadline;
    struct flight flight[2];
    int n_flight;
    struct lengths lengths;
    struct odds odds[LENGTH_BUCKETS];
    struct outlook outlook;
    int64_t pages_whole, pages_rows; /* of the running ones: pages of prompts and longest answers; pages in their rows */
    struct pace pace;
    struct step_shape shape; /* of the step being planned */
    int32_t room_tokens;     /* prompt tokens that it may still take, */
    double room_ns;          /* and time for them; */
    double step_ns;          /* how long it may get */
    bool look_for_cancelled;
    bool retracted; /* in this step: nobody is admitted then, it would be put back at once */
};

static inline int32_t pages_for(const struct sched *s, int32_t n_tokens) {
    return (n_tokens + s->a.page_size - 1) / s->a.page_size;
}
static inline int32_t *page_row(const struct sched *s, int32_t slot) {
    return s->pages + (size_t)slot * (size_t)s->row_pages;
}
static inline int32_t token_at(const struct seq *q, int32_t p) {
    return p < q->req->n_prompt ? q->req->prompt[p] : q->req->out_tokens[p - q->req->n_prompt];
}

/* sched.c */
void seq_list_add(struct seq_list *l, struct seq *q, bool front);
void seq_list_drop(struct seq_list *l, struct seq *q);
void seq_waiting_drop(struct sched *s, struct seq *q);
void seq_finish(struct sched *s, struct seq *q, enum finish why);
void seq_settle(struct sched *s, struct seq *q); /* let go of slot and pages if it may; q may be gone after it */
void seq_begun_drop(struct sched *s, const struct seq *q); /* its prompt is planned, or it leaves */

void sched_gauges(struct sched *s); /* publish the numbers of now to the stats */

/* share.c */
int32_t share_available(const struct sched *s);   /* pages that can be had: free ones, and what the cache can give up */
int32_t share_take_page(struct sched *s);         /* -1: none */
void share_begin(struct sched *s, struct seq *q); /* start with what the cache has of q's tokens */
void share_computed(struct sched *s, struct seq *q); /* give the cache what q has computed */
void share_end(struct sched *s, struct seq *q);      /* give back q's own pages, unlock the cache's */
/* Ask the cache what it has of a waiting sequence, into q->peek: pages, and how many of them nobody holds now. */
void share_peek(struct sched *s, struct seq *q);
/* Some of those that wait, in turn, once a step: policies rank by it, and what somebody waits for is not the least
 * recently used. */
void share_peek_some(struct sched *s);

/* policy.c */
bool policy_prefill_first(const struct sched *s);
bool policy_ranks(const struct sched *s);                    /* needs to know what the cache has of waiting requests */
struct seq *policy_next(struct sched *s);                    /* the waiting sequence to admit now; NULL: none may be */
void policy_pass_over(struct sched *s, const struct seq *q); /* it is: those before it must wait for it */
void policy_admitted(struct sched *s, const struct seq *q);  /* it was, and its first chunk is planned */
struct seq *policy_begun(struct sched *s); /* whose prompt goes on, of those that had no turn in this step; NULL: none */
bool policy_overtakes(const struct sched *s); /* may a waiting request be admitted while another's prompt could go on? */
bool policy_before(const struct sched *s, const struct seq *waiting, const struct seq *begun); /* is it to be? */

#endif
