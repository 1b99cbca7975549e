/* engine.c: see engine.h. Rank 0's state belongs to the scheduler thread, every other rank's to its own thread. Rank 0 posts orders (launch
 * this batch, collect the oldest) that the others carry out in turn, so that an asynchronous device never waits for its rank's
 * thread. They meet in three words a rank: orders posted to it, steps it has collected, and its state. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/futex.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "comm/hosts.h"
#include "model/decoder.h"
#include "model/slots.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLEEP_NS = 50000000, ORDERS = 8 /* at most two launches and two collects are not carried out, and a stop */ };

enum order_kind { ORDER_LAUNCH, ORDER_COLLECT, ORDER_STOP };
struct order {
    enum order_kind kind;
    const struct batch *batch; /* LAUNCH */
};

enum rank_state { RANK_STARTING, RANK_OPEN, RANK_FAILED };

struct rank {
    struct engine *g;
    int32_t id, local; /* of all ranks; within this process */
    struct decoder decoder;
    struct dev *dev;
    struct dev_shape shape;
    struct result result;
    struct err err;
    pthread_t thread; /* ranks but 0 */
    bool started;
    _Alignas(64) _Atomic uint32_t posted; /* orders; futex of the rank's thread */
    _Alignas(64) _Atomic uint32_t done;   /* steps collected; futex of rank 0 */
    _Atomic uint32_t state;               /* enum rank_state; futex of rank 0 */
};

struct engine {
    struct engine_args args;
    struct comm_threads *comm; /* of this process's ranks; NULL at one rank */
    int32_t n_local;           /* ranks of this process */
    char *packed;              /* a batch for, or from, another process */
    struct rank *ranks;
    struct order orders[ORDERS]; /* the last ones posted, used in turn */
    uint32_t n_posted, n_collected;
};

static struct shard shard_of(const struct rank *r) { return (struct shard){.rank = r->id, .n_ranks = r->g->args.n_ranks}; }

struct search {
    const void *data;
    char *name;
    size_t n;
};

static int same_data(void *arg, const struct slot *slot) {
    struct search *s = arg;
    if (slot->view->data != s->data) return 0;
    snprintf(s->name, s->n, "%s", slot->name);
    return 1;
}

static void weight_name(const void *arg, const void *data, char *name, size_t n) {
    const struct rank *r = arg;
    struct weights w = r->g->args.weights[r->local];
    struct search s = {data, name, n};
    snprintf(name, n, "a weight");
    slots_walk(&w, r->g->args.config, same_data, &s);
}

static int rank_load(struct rank *r, struct err *e) {
    const struct engine_args *a = &r->g->args;
    decoder_init(&r->decoder, a->config, &a->weights[r->local], shard_of(r));
    decoder_shape(&r->shape, a->config, &r->decoder, shard_of(r));
    r->shape.max_len = a->max_len;
    r->shape.page_size = a->page_size;
    r->shape.n_pages = a->n_pages;
    r->shape.kv_dtype = a->kv_dtype;
    r->shape.dtype = a->dtype;
    r->shape.convert = a->convert;
    r->shape.weight_name = weight_name;
    r->shape.weight_arg = r;
    r->shape.limits = a->limits;
    struct dev_program prog = {.ops = r->decoder.ops, .n_ops = r->decoder.n_ops};
    r->result.rows = mem_zalloc((size_t)a->limits.max_seqs, sizeof *r->result.rows);
    return a->maker->load(r->dev, &r->shape, &prog, e);
}

static struct comm *rank_comm(const struct rank *r) {
    if (r->g->args.hosts) return comm_hosts_rank(r->g->args.hosts, r->local);
    return r->g->comm ? comm_threads_rank(r->g->comm, r->local) : NULL;
}

static int rank_open(struct rank *r, struct err *e) {
    struct dev_args dev = r->g->args.dev;
    dev.rank = r->id;
    dev.n_ranks = r->g->args.n_ranks;
    dev.local = r->local;
    dev.comm = rank_comm(r);
    dev.comm_timeout_ns = r->g->args.comm_timeout_ns;
    return r->g->args.maker->open(&r->dev, &dev, e) || rank_load(r, e) ? -1 : 0;
}

static void rank_close(struct rank *r) {
    if (r->dev) r->g->args.maker->close(r->dev);
    decoder_release(&r->decoder);
    free(r->result.rows);
}

/* ---- faults, for tests ---- */

static int launch_other_batch(struct rank *r, const struct batch *b, struct err *e) {
    struct batch *other = mem_aligned(64, b->size);
    memcpy(other, b, b->size);
    batch_seqs(other)[0].pos++;
    batch_seal(other);
    int rc = r->g->args.maker->launch(r->dev, other, e);
    free(other);
    return rc;
}

static int rank_launch(struct rank *r, const struct batch *b, struct err *e) {
    const struct fault *f = &r->g->args.fault;
    if (f->kind == FAULT_NONE || f->rank != r->id || f->step != b->step) return r->g->args.maker->launch(r->dev, b, e);
    if (f->kind == FAULT_DIFFER) return launch_other_batch(r, b, e);
    if (f->kind == FAULT_EXIT) return err_machine(e, "rank %d ended in step %llu, before the comparison of batches", r->id, (unsigned long long)b->step);
    if (f->kind == FAULT_STALL && comm_same_batch(rank_comm(r), b->step, b->checksum, e)) return -1;
    for (;;) sleep(3600);
}

/* ---- the other ranks' threads ---- */

static void rank_fail(struct rank *r) {
    comm_threads_fail(r->g->comm, r->local, r->err.text);
    atomic_store(&r->state, RANK_FAILED);
    futex_wake(&r->state, 1);
    atomic_fetch_add(&r->done, 0x40000000); /* rank 0 may wait for it */
    futex_wake(&r->done, 1);
}

static void spin(const struct engine *g, _Atomic uint32_t *word, uint32_t value) {
    if (!g->args.comm_spin_ns) return;
    for (uint64_t end = clock_ns() + g->args.comm_spin_ns; clock_ns() < end;)
        for (int i = 0; i < 32; i++) {
            if (atomic_load_explicit(word, memory_order_acquire) != value) return;
            cpu_relax();
        }
}

static int carry_out(struct rank *r, const struct order *o) {
    if (o->kind == ORDER_LAUNCH) return rank_launch(r, o->batch, &r->err);
    if (r->g->args.maker->collect(r->dev, &r->result, &r->err)) return -1;
    atomic_fetch_add(&r->done, 1);
    futex_wake(&r->done, 1);
    return 0;
}

/* Wait for order n. While a step is launched and not collected the next order is near, or rank 0 hangs and cannot say so. */
static int await_order(struct rank *r, uint32_t n, bool busy) {
    struct engine *g = r->g;
    uint64_t start = clock_ns();
    spin(g, &r->posted, n);
    while (atomic_load(&r->posted) == n) {
        futex_wait(&r->posted, n, busy ? SLEEP_NS : 0);
        if (busy && clock_ns() - start > g->args.comm_timeout_ns)
            return err_machine(&r->err, "rank 0 did not come to collect a step within %.0f s after it was launched; its thread hangs. Restart",
                               (double)g->args.comm_timeout_ns / 1e9);
    }
    return 0;
}

static void *rank_main(void *arg) {
    struct rank *r = arg;
    struct engine *g = r->g;
    char name[16];
    snprintf(name, sizeof name, "rank %d", r->id);
    pthread_setname_np(pthread_self(), name);
    log_set_rank(r->id);
    if (rank_open(r, &r->err)) {
        rank_fail(r);
        return NULL;
    }
    atomic_store(&r->state, RANK_OPEN);
    futex_wake(&r->state, 1);
    for (uint32_t n = 0, launched = 0;; n++) {
        bool late = await_order(r, n, launched > 0);
        const struct order *o = &g->orders[n % ORDERS];
        if (!late && o->kind == ORDER_STOP) return NULL;
        if (!late) launched = o->kind == ORDER_LAUNCH ? launched + 1 : launched - 1;
        if (late || carry_out(r, o)) {
            rank_fail(r);
            if (g->args.broken) g->args.broken(g->args.broken_arg, &r->err);
            return NULL;
        }
    }
}

static void post(struct engine *g, struct order order) {
    g->orders[g->n_posted++ % ORDERS] = order;
    for (int32_t i = 1; i < g->n_local; i++) {
        atomic_fetch_add(&g->ranks[i].posted, 1);
        futex_wake(&g->ranks[i].posted, 1);
    }
}

/* A rank has done the step that rank 0 has just collected when it is out of the last exchange, which is soon. */
static int wait_for(struct rank *r, uint32_t n, struct err *e) {
    struct engine *g = r->g;
    uint64_t start = clock_ns();
    for (;;) {
        uint32_t done = atomic_load(&r->done);
        if (atomic_load(&r->state) == RANK_FAILED) {
            *e = r->err;
            return -1;
        }
        if ((int32_t)(done - n) >= 0) return 0;
        if (clock_ns() - start > g->args.comm_timeout_ns)
            return err_machine(e, "rank %d did not finish its step within %.0f s after rank 0 did; its thread or its machine hangs. Restart", r->id,
                               (double)g->args.comm_timeout_ns / 1e9);
        spin(g, &r->done, done);
        if (atomic_load(&r->done) == done) futex_wait(&r->done, done, SLEEP_NS);
    }
}

/* ---- life ---- */

/* Process 0 of several: it tells the others what to do. */
static bool leads(const struct engine *g) { return g->args.hosts && comm_hosts_first(g->args.hosts) == 0; }

static int start_others(struct engine *g, struct err *e) {
    for (int32_t i = 1; i < g->n_local; i++) {
        struct rank *r = &g->ranks[i];
        if (pthread_create(&r->thread, NULL, rank_main, r)) return err_machine(e, "the system refused the thread of rank %d of %d", r->id, g->args.n_ranks);
        r->started = true;
    }
    return 0;
}

static int wait_open(struct engine *g, struct err *e) {
    for (int32_t i = 1; i < g->n_local; i++) {
        struct rank *r = &g->ranks[i];
        while (atomic_load(&r->state) == RANK_STARTING) futex_wait(&r->state, RANK_STARTING, 0);
        if (atomic_load(&r->state) == RANK_FAILED) {
            *e = r->err;
            return -1;
        }
    }
    return 0;
}

static int open_ranks(struct engine *g, struct err *e) {
    const struct engine_args *a = &g->args;
    int32_t first = a->hosts ? comm_hosts_first(a->hosts) : 0;
    g->n_local = a->hosts ? comm_hosts_local(a->hosts) : a->n_ranks;
    if (a->hosts) g->comm = comm_hosts_threads(a->hosts);
    else if (a->n_ranks > 1 && comm_threads_new(&g->comm, a->n_ranks, a->comm_timeout_ns, a->comm_spin_ns, e)) return -1;
    g->ranks = mem_aligned(64, (size_t)g->n_local * sizeof *g->ranks);
    memset(g->ranks, 0, (size_t)g->n_local * sizeof *g->ranks);
    for (int32_t i = 0; i < g->n_local; i++) g->ranks[i] = (struct rank){.g = g, .id = first + i, .local = i};
    if (start_others(g, e)) return -1;
    if (!rank_open(&g->ranks[0], e)) return wait_open(g, e);
    if (g->comm) comm_threads_fail(g->comm, 0, e->text);
    return -1;
}

int engine_open(struct engine **out, const struct engine_args *a, struct err *e) {
    if (a->maker->abi != DEV_ABI)
        return err_machine(e, "the %s backend speaks device ABI %u, this program %u: rebuild both", a->maker->name, a->maker->abi, DEV_ABI);
    struct engine *g = mem_zalloc(1, sizeof *g);
    g->args = *a;
    if (open_ranks(g, e)) {
        engine_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

void engine_close(struct engine *g) {
    if (!g) return;
    struct err ignored; /* they end anyway when this process does */
    if (leads(g)) comm_hosts_order(g->args.hosts, ORDER_STOP, NULL, 0, &ignored);
    if (g->ranks) post(g, (struct order){.kind = ORDER_STOP});
    for (int32_t i = 0; g->ranks && i < g->n_local; i++) {
        if (g->ranks[i].started) pthread_join(g->ranks[i].thread, NULL);
        rank_close(&g->ranks[i]);
    }
    free(g->ranks);
    free(g->packed);
    if (!g->args.hosts) comm_threads_free(g->comm);
    free(g);
}

bool engine_async(const struct engine *g) { return g->args.maker->async; }

const char *engine_describe(const struct engine *g) { return g->args.maker->describe(g->ranks[0].dev); }
const char *engine_chosen(const struct engine *g) { return g->args.maker->chosen ? g->args.maker->chosen(g->ranks[0].dev) : ""; }

struct dev_loaded engine_loaded(const struct engine *g, int32_t rank) {
    struct dev_loaded l;
    g->args.maker->loaded(g->ranks[rank].dev, &l);
    return l;
}

int32_t engine_first(const struct engine *g) { return g->ranks[0].id; }
int32_t engine_local(const struct engine *g) { return g->n_local; }

static int launch_here(struct engine *g, const struct batch *b, struct err *e) {
    post(g, (struct order){.kind = ORDER_LAUNCH, .batch = b});
    return rank_launch(&g->ranks[0], b, e);
}

static int collect_here(struct engine *g, struct err *e) {
    post(g, (struct order){.kind = ORDER_COLLECT});
    if (g->args.maker->collect(g->ranks[0].dev, &g->ranks[0].result, e)) return -1;
    g->n_collected++;
    for (int32_t i = 1; i < g->n_local; i++)
        if (wait_for(&g->ranks[i], g->n_collected, e)) return -1;
    return 0;
}

int engine_launch(struct engine *g, const struct batch *b, struct err *e) {
    if (leads(g)) {
        if (!g->packed) g->packed = mem_alloc(b->size);
        if (comm_hosts_order(g->args.hosts, ORDER_LAUNCH, g->packed, batch_pack(b, g->packed), e)) return -1;
    }
    return launch_here(g, b, e);
}

int engine_collect(struct engine *g, const struct result **r, struct err *e) {
    *r = &g->ranks[0].result;
    if (leads(g) && comm_hosts_order(g->args.hosts, ORDER_COLLECT, NULL, 0, e)) return -1;
    return collect_here(g, e);
}

int engine_logits(struct engine *g, float *logits, int32_t rows, struct err *e) {
    size_t V = (size_t)g->args.config->vocab;
    for (int32_t i = 0; i < g->n_local; i++) {
        const struct dev_shape *s = &g->ranks[i].shape;
        size_t n = (size_t)s->vocab;
        float *share = mem_array((size_t)rows * n, sizeof *share);
        int bad = g->args.maker->peek(g->ranks[i].dev, BUF_LOGITS, share, (size_t)rows * n);
        for (size_t r = 0; r < (size_t)rows && !bad; r++) memcpy(logits + r * V + (size_t)s->vocab_first, share + r * n, n * sizeof *share);
        free(share);
        if (bad) return err_machine(e, "the logits of rank %d cannot be read", g->ranks[i].id);
    }
    return 0;
}

/* ---- several processes ---- */

bool engine_wants_beat(const struct engine *g) { return leads(g); }
int engine_beat(struct engine *g, struct err *e) { return comm_hosts_beat(g->args.hosts, e); }

int engine_follow(struct engine *g, struct err *e) {
    size_t size = batch_size(&g->args.limits), n;
    struct batch *batch[2];
    uint32_t kind;
    int rc = -1;
    g->packed = mem_alloc(size);
    for (int i = 0; i < 2; i++) batch[i] = batch_init(mem_aligned(64, size), &g->args.limits);
    for (int turn = 0;;) {
        if (comm_hosts_take(g->args.hosts, &kind, g->packed, size, &n, e)) break;
        if (kind == ORDER_LAUNCH) {
            struct batch *b = batch[turn++ & 1];
            if (batch_unpack(b, g->packed, n)) {
                err_machine(e, "process 0 sent a batch that does not fit this process's settings or its checksum");
                break;
            }
            if (launch_here(g, b, e)) break;
        } else if (kind == ORDER_COLLECT) {
            if (collect_here(g, e)) break;
        } else {
            rc = 0;
            break;
        }
    }
    for (int i = 0; i < 2; i++) free(batch[i]);
    return rc;
}
