/* test_sched_faults.c: do the checks check? One thing of a healthy scheduler is damaged in a child process, and the
 * child must end as a bug ends (exit code 70). The structures are reached through the scheduler's own header and the
 * cache's source. */
/* clang-format off: cmocka.h needs the others first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "flow/mail.h"
#include "kv/radix.c"
#include "sched/seq.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { P = 4, N = 6, PROMPT = 22, RUNNING = 4 };

/* Four sequences run (two steps after their prompts), two wait; the cache has the beginning that all share, their own
 * parts, and what two finished ones left. */
struct scene {
    struct sched *s;
    struct outbox box;
    struct request req[N + 2];
    int32_t tokens[N + 2][2 * PROMPT];
};

static void step(struct scene *c, struct batch *b, struct result *res) {
    if (!sched_plan(c->s, b, 0)) return;
    for (int32_t i = 0; i < b->n_rows; i++) res->rows[i].tokens[0] = 1000 + i;
    sched_commit(c->s, b, res, 0);
    sched_flush(c->s);
    struct news list[N + 2];
    outbox_take(&c->box, list, N + 2, false);
}

static void add(struct scene *c, int i, int32_t max_tokens) {
    for (int32_t k = 0; k < PROMPT; k++) c->tokens[i][k] = k < 9 ? k : 100 * i + k;
    c->req[i] = (struct request){.id = (uint64_t)i,
                                 .prompt = c->tokens[i],
                                 .n_prompt = PROMPT,
                                 .max_tokens = max_tokens,
                                 .outbox = &c->box,
                                 .out_tokens = c->tokens[i] + PROMPT};
    c->req[i].sampling.n_logprobs = -1;
    sched_add(c->s, &c->req[i]);
}

static struct scene *make(void) {
    struct scene *c = mem_zalloc(1, sizeof *c);
    struct sched_args a = {.max_running = RUNNING,
                           .max_prefill = 200,
                           .max_len = 2 * PROMPT,
                           .page_size = P,
                           .n_pages = 120,
                           .radix = true};
    struct batch_limits lim = sched_limits(&a);
    struct batch *b = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    struct result res = {.rows = mem_zalloc(RUNNING, sizeof *res.rows)};
    c->s = sched_new(&a);
    assert_int_equal(outbox_init(&c->box), 0);
    for (int i = 0; i < 2; i++) add(c, N + i, 1);
    for (int i = 0; i < 3; i++) step(c, b, &res);
    for (int i = 0; i < N; i++) add(c, i, 15);
    for (int i = 0; i < 3; i++) step(c, b, &res);
    assert_int_equal(c->s->running.n, RUNNING);
    assert_int_equal(c->s->waiting.n, N - RUNNING);
    free(b);
    free(res.rows);
    return c;
}

/* ---- the faults ---- */

static struct seq *first(const struct scene *c) { return c->s->running.first; }
static int32_t *row_of(const struct scene *c, const struct seq *q) { return page_row(c->s, q->slot); }

static struct radix_node *any_node(const struct scene *c) {
    for (uint32_t i = 0; i < c->s->radix->n_slots; i++)
        if (c->s->radix->slots[i]) return c->s->radix->slots[i];
    return NULL;
}

static void nothing(struct scene *c) { (void)c; }
static void page_of_two_sequences(struct scene *c) {
    struct seq *a = first(c), *b = a->next;
    row_of(c, a)[a->n_pages - 1] = row_of(c, b)[b->n_pages - 1];
}
static void page_of_sequence_and_cache(struct scene *c) {
    struct seq *a = first(c);
    row_of(c, a)[a->n_pages - 1] = row_of(c, a)[0];
}
static void page_of_two_nodes(struct scene *c) {
    struct radix *r = c->s->radix;
    struct radix_node *x = first(c)->node, *y = first(c)->next->node;
    pages_of(r, x)[0] = pages_of(r, y)[0];
}
static void page_leaked(struct scene *c) { pool_take(&c->s->pool); }
static void page_freed_in_use(struct scene *c) {
    struct seq *a = first(c);
    pool_give(&c->s->pool, row_of(c, a)[a->n_pages - 1]);
}
static void page_freed_twice(struct scene *c) {
    int32_t page = pool_take(&c->s->pool);
    pool_give(&c->s->pool, page);
    pool_give(&c->s->pool, page);
}
static void dummy_page_given(struct scene *c) { row_of(c, first(c))[first(c)->n_pages - 1] = 0; }
static void page_out_of_range(struct scene *c) { row_of(c, first(c))[first(c)->n_pages - 1] = 120; }
static void lock_lost(struct scene *c) { radix_unlock(c->s->radix, first(c)->node); }
static void lock_extra(struct scene *c) { radix_lock(c->s->radix, first(c)->node); }
static void lock_on_another(struct scene *c) {
    radix_unlock(c->s->radix, first(c)->node);
    radix_lock(c->s->radix, first(c)->next->node);
}
static void unlocked_twice(struct scene *c) {
    struct radix_node *x = first(c)->node;
    for (int i = 0; i < RUNNING + 1; i++) radix_unlock(c->s->radix, x);
}
static void shared_page_not_in_cache(struct scene *c) { row_of(c, first(c))[0] = pool_take(&c->s->pool); }
static void more_shared_than_there_are(struct scene *c) { first(c)->n_shared = first(c)->n_pages + 1; }
static void slot_of_another(struct scene *c) { c->s->by_slot[first(c)->slot] = first(c)->next; }
static void slot_lost(struct scene *c) { c->s->n_free_slots--; }
static void computed_beyond_pages(struct scene *c) { first(c)->n_kv = first(c)->n_done = first(c)->n_pages * P + 1; }
static void computed_beyond_planned(struct scene *c) { first(c)->n_kv = first(c)->n_done + 1; }
static void in_fewer_steps_than_none(struct scene *c) { first(c)->in_flight = -1; }
static void finished_but_kept(struct scene *c) { first(c)->finish = FINISH_STOP; }
static void passed_over_too_often(struct scene *c) { c->s->waiting.first->passed = SCHED_PASSED_MOST + 1; }
static void prompt_not_among_begun(struct scene *c) { first(c)->n_given = first(c)->n_done + 1; }
static void begun_is_none(struct scene *c) { c->s->begun[c->s->n_begun++] = first(c); }
static void rows_miscounted(struct scene *c) { c->s->pages_rows++; }
static void whole_miscounted(struct scene *c) { c->s->pages_whole--; }
static void heap_out_of_order(struct scene *c) { c->s->radix->heap[0]->used = UINT64_MAX; }
static void leaf_not_in_heap(struct scene *c) { heap_drop(c->s->radix, c->s->radix->heap[0]); }
static void held_node_in_heap(struct scene *c) { first(c)->node->heap_at = 0; }
static void child_of_another(struct scene *c) { label(c->s->radix, any_node(c))[0] ^= 1; }
static void wrong_parent(struct scene *c) { first(c)->node->parent = &c->s->radix->common; }
static void children_miscounted(struct scene *c) { first(c)->node->parent->n_children++; }
static void held_miscounted(struct scene *c) { first(c)->node->held++; }
static void held_pages_miscounted(struct scene *c) { c->s->radix->n_held--; }
static void cached_pages_miscounted(struct scene *c) { c->s->radix->n_pages++; }
static void nodes_miscounted(struct scene *c) { c->s->radix->n_nodes--; }
static void room_for_labels_lost(struct scene *c) {
    int32_t n = 1;
    runs_take(&c->s->radix->runs, &n);
}
static void salt_stays(struct scene *c) { radix_root(c->s->radix, "nobody's"); }

#define FAULT(f)                                                                                                       \
    { #f, f }
static const struct {
    const char *name;
    void (*damage)(struct scene *c);
} faults[] = {
    FAULT(page_of_two_sequences),
    FAULT(page_of_sequence_and_cache),
    FAULT(page_of_two_nodes),
    FAULT(page_leaked),
    FAULT(page_freed_in_use),
    FAULT(page_freed_twice),
    FAULT(dummy_page_given),
    FAULT(page_out_of_range),
    FAULT(lock_lost),
    FAULT(lock_extra),
    FAULT(lock_on_another),
    FAULT(unlocked_twice),
    FAULT(shared_page_not_in_cache),
    FAULT(more_shared_than_there_are),
    FAULT(slot_of_another),
    FAULT(slot_lost),
    FAULT(computed_beyond_pages),
    FAULT(computed_beyond_planned),
    FAULT(in_fewer_steps_than_none),
    FAULT(finished_but_kept),
    FAULT(passed_over_too_often),
    FAULT(prompt_not_among_begun),
    FAULT(begun_is_none),
    FAULT(rows_miscounted),
    FAULT(whole_miscounted),
    FAULT(heap_out_of_order),
    FAULT(leaf_not_in_heap),
    FAULT(held_node_in_heap),
    FAULT(child_of_another),
    FAULT(wrong_parent),
    FAULT(children_miscounted),
    FAULT(held_miscounted),
    FAULT(held_pages_miscounted),
    FAULT(cached_pages_miscounted),
    FAULT(nodes_miscounted),
    FAULT(room_for_labels_lost),
    FAULT(salt_stays),
};

/* The exit code of a child that damages the scene and checks it; 0 when nothing was noticed. */
static int outcome(struct scene *c, void (*damage)(struct scene *c)) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(99);
        damage(c);
        sched_check(c->s);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static void every_fault_is_noticed(void **state) {
    (void)state;
    struct scene *c = make();
    assert_int_equal(outcome(c, nothing), 0);
    int missed = 0;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        int code = outcome(c, faults[i].damage);
        if (code == 70) continue;
        print_error("%s: the child ended with %d\n", faults[i].name, code);
        missed++;
    }
    assert_int_equal(missed, 0);
    sched_check(c->s);
    for (int i = 0; i < N; i++) c->req[i].cancelled = true;
    sched_look_for_cancelled(c->s);
    struct batch_limits lim = sched_limits(&c->s->a);
    struct batch *b = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    assert_false(sched_plan(c->s, b, 0));
    sched_flush(c->s);
    free(b);
    sched_free(c->s);
    outbox_release(&c->box);
    free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_fault_is_noticed)};
    return cmocka_run_group_tests_name("sched faults", tests, NULL, NULL);
}
