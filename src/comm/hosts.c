/* hosts.c: see hosts.h. Each handle belongs to its rank's thread, the rest to the first rank's thread. */
#include "comm/hosts.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAG_TENSOR = 1, TAG_GATHER, TAG_ORDER, TAG_DATA, TAG_BEAT };
enum { ORDER_BEAT = 0xbea7, PIECE = 1 << 28 /* bytes of one message */ };

struct rank {
    struct comm comm; /* first: struct comm * is struct rank * */
    struct comm_hosts *h;
    int32_t local;
};

struct comm_hosts {
    struct mpi *mpi;
    struct comm_threads *threads;
    int32_t n_local;
    struct rank *ranks;
    char *other; /* what the process on the other side of a pair sent */
    size_t other_cap;
};

struct order {
    uint32_t kind, reserved;
    uint64_t n;
};

int32_t comm_hosts_local(const struct comm_hosts *h) { return h->n_local; }
int32_t comm_hosts_first(const struct comm_hosts *h) { return h->mpi->rank * h->n_local; }
struct comm *comm_hosts_rank(struct comm_hosts *h, int32_t local) { return &h->ranks[local].comm; }
struct comm_threads *comm_hosts_threads(struct comm_hosts *h) { return h->threads; }

/* "step 12, the sum after attention of layer 3" */
static const char *place(const struct comm *c, char text[128]) {
    if (c->layer >= 0) snprintf(text, 128, "step %llu, %s of layer %d", (unsigned long long)c->step, c->what, c->layer);
    else snprintf(text, 128, "step %llu, %s", (unsigned long long)c->step, c->what);
    return text;
}

/* Both ways with one peer, in pieces that MPI takes. */
static int swap(struct comm_hosts *h, int peer, const char *mine, char *theirs, size_t n, const char *what, struct err *e) {
    for (size_t at = 0; at < n; at += PIECE) {
        size_t k = n - at < PIECE ? n - at : PIECE;
        struct mpi_message send = {peer, TAG_TENSOR, (void *)(uintptr_t)(mine + at), k}, receive = {peer, TAG_TENSOR, theirs + at, k};
        if (mpi_exchange(h->mpi, &send, 1, &receive, 1, what, e)) return -1;
    }
    return 0;
}

static void add_f32(void *to, const void *from, size_t n) {
    float *a = to;
    const float *b = from;
    for (size_t i = 0; i < n; i++) a[i] += b[i];
}

static void add_u64(void *to, const void *from, size_t n) {
    uint64_t *a = to;
    const uint64_t *b = from;
    for (size_t i = 0; i < n; i++) a[i] += b[i];
}

/* The processes' sums of buf, which the ranks of each have added up. */
static int sum_processes(struct rank *r, void *buf, size_t n, size_t size, void (*add)(void *, const void *, size_t), struct err *e) {
    struct comm_hosts *h = r->h;
    char what[128];
    if (h->other_cap < n * size) {
        h->other = mem_grow(h->other, n, size);
        h->other_cap = n * size;
    }
    for (int d = 1; d < h->mpi->size; d *= 2) {
        if (swap(h, h->mpi->rank ^ d, buf, h->other, n * size, place(&r->comm, what), e)) return -1;
        add(buf, h->other, n);
    }
    return 0;
}

static struct comm *within(struct rank *r) {
    struct comm *c = comm_threads_rank(r->h->threads, r->local);
    comm_at(c, r->comm.step, r->comm.what, r->comm.layer);
    c->runner = r->comm.runner;
    return c;
}

/* The first rank failed between processes: those who wait for it must hear why. */
static int give_up(struct rank *r, struct err *e) {
    comm_threads_fail(r->h->threads, r->comm.rank, e->text);
    return -1;
}

/* Everyone gets the first rank's n bytes at buf. */
static int spread(struct rank *r, struct comm *c, void *buf, size_t n, struct err *e) {
    void *all[COMM_MAX_RANKS];
    char here = 0, done[COMM_MAX_RANKS];
    if (comm_gather(c, &buf, all, sizeof buf, e)) return -1;
    if (r->local) memcpy(buf, all[0], n);
    return comm_gather(c, &here, done, 1, e); /* nobody changes it before all have it */
}

static int sum(struct comm *comm, void *buf, size_t n, size_t size, void (*add)(void *, const void *, size_t), struct err *e) {
    struct rank *r = (struct rank *)comm;
    struct comm *c = within(r);
    int rc = size == sizeof(float) ? comm_sum_f32(c, buf, n, e) : comm_sum_u64(c, buf, n, e);
    if (rc) return -1;
    if (!r->local && sum_processes(r, buf, n, size, add, e)) return give_up(r, e);
    return r->h->n_local > 1 ? spread(r, c, buf, n * size, e) : 0;
}

static int hosts_sum_f32(struct comm *c, float *buf, size_t n, struct err *e) { return sum(c, buf, n, sizeof *buf, add_f32, e); }
static int hosts_sum_u64(struct comm *c, uint64_t *buf, size_t n, struct err *e) { return sum(c, buf, n, sizeof *buf, add_u64, e); }

static int hosts_gather(struct comm *comm, const void *mine, void *all, size_t bytes, struct err *e) {
    struct rank *r = (struct rank *)comm;
    struct comm *c = within(r);
    size_t block = bytes * (size_t)r->h->n_local;
    char *own = (char *)all + block * (size_t)r->h->mpi->rank, what[128];
    if (comm_gather(c, mine, own, bytes, e)) return -1;
    if (!r->local && comm_hosts_gather(r->h, own, all, block, place(comm, what), e)) return give_up(r, e);
    return r->h->n_local > 1 ? spread(r, c, all, block * (size_t)r->h->mpi->size, e) : 0;
}

static const struct comm_ops hosts_ops = {"mpi", hosts_sum_f32, hosts_sum_u64, hosts_gather};

/* ---- between processes ---- */

/* mine may be this process's part of all. */
int comm_hosts_gather(struct comm_hosts *h, const void *mine, void *all, size_t bytes, const char *what, struct err *e) {
    struct mpi_message send[COMM_MAX_RANKS], receive[COMM_MAX_RANKS];
    int n = 0;
    for (int p = 0; p < h->mpi->size; p++) {
        char *to = (char *)all + (size_t)p * bytes;
        if (p == h->mpi->rank) {
            if (to != mine) memcpy(to, mine, bytes);
            continue;
        }
        send[n] = (struct mpi_message){p, TAG_GATHER, (void *)(uintptr_t)mine, bytes};
        receive[n++] = (struct mpi_message){p, TAG_GATHER, to, bytes};
    }
    return mpi_exchange(h->mpi, send, n, receive, n, what, e);
}

static int to_all(struct comm_hosts *h, int tag, const void *data, size_t n, const char *what, struct err *e) {
    struct mpi_message send[COMM_MAX_RANKS];
    for (int p = 1; p < h->mpi->size; p++) send[p - 1] = (struct mpi_message){p, tag, (void *)(uintptr_t)data, n};
    return mpi_exchange(h->mpi, send, h->mpi->size - 1, NULL, 0, what, e);
}

int comm_hosts_order(struct comm_hosts *h, uint32_t kind, const void *data, size_t n, struct err *e) {
    struct order o = {.kind = kind, .n = n};
    if (to_all(h, TAG_ORDER, &o, sizeof o, "handing over a batch", e)) return -1;
    return n ? to_all(h, TAG_DATA, data, n, "handing over a batch", e) : 0;
}

int comm_hosts_take(struct comm_hosts *h, uint32_t *kind, void *data, size_t cap, size_t *n, struct err *e) {
    struct order o;
    for (;;) {
        if (mpi_receive(h->mpi, 0, TAG_ORDER, &o, sizeof o, "waiting for work", e)) return -1;
        if (o.kind != ORDER_BEAT) break;
        if (mpi_send(h->mpi, 0, TAG_BEAT, &o, sizeof o, "a sign of life", e)) return -1;
    }
    if (o.n > cap) return err_machine(e, "process 0 sent %llu bytes, expected at most %zu: the processes run different versions or settings",
                                      (unsigned long long)o.n, cap);
    *kind = o.kind;
    *n = (size_t)o.n;
    return o.n ? mpi_receive(h->mpi, 0, TAG_DATA, data, *n, "taking over a batch", e) : 0;
}

int comm_hosts_beat(struct comm_hosts *h, struct err *e) {
    struct order o = {.kind = ORDER_BEAT}, back[COMM_MAX_RANKS];
    struct mpi_message receive[COMM_MAX_RANKS];
    if (to_all(h, TAG_ORDER, &o, sizeof o, "a sign of life", e)) return -1;
    for (int p = 1; p < h->mpi->size; p++) receive[p - 1] = (struct mpi_message){p, TAG_BEAT, &back[p], sizeof *back};
    return mpi_exchange(h->mpi, NULL, 0, receive, h->mpi->size - 1, "a sign of life", e);
}

/* ---- life ---- */

int comm_hosts_new(struct comm_hosts **out, struct mpi *mpi, int32_t n_ranks, uint64_t timeout_ns, uint64_t spin_ns, struct err *e) {
    int32_t procs = mpi->size;
    if (procs < 1 || (procs & (procs - 1)) || n_ranks % procs || n_ranks > COMM_MAX_RANKS)
        return err_input(e, "mpirun started %d processes for --tp %d: expected 1, 2, 4, ... that divide it", procs, n_ranks);
    struct comm_hosts *h = mem_zalloc(1, sizeof *h);
    h->mpi = mpi;
    h->n_local = n_ranks / procs;
    /* Those who wait for the first rank while it waits for another process let it speak first. */
    if (comm_threads_new(&h->threads, h->n_local, timeout_ns + timeout_ns / 4 + 1000000000, spin_ns, e)) {
        free(h);
        return -1;
    }
    comm_threads_number_from(h->threads, mpi->rank * h->n_local);
    h->ranks = mem_zalloc((size_t)h->n_local, sizeof *h->ranks);
    for (int32_t i = 0; i < h->n_local; i++)
        h->ranks[i] = (struct rank){.comm = {.ops = &hosts_ops, .rank = mpi->rank * h->n_local + i, .n_ranks = n_ranks, .what = "start", .layer = -1},
                                    .h = h, .local = i};
    *out = h;
    return 0;
}

void comm_hosts_free(struct comm_hosts *h) {
    if (!h) return;
    comm_threads_free(h->threads);
    free(h->ranks);
    free(h->other);
    free(h);
}
