/* mpi.c: opens the MPI plug-in and waits with deadlines; see mpi.h. Whoever holds a struct mpi lets one thread at a
 * time call. The handle of the shared object is kept by the loader alone: MPI's own threads may be in it until the
 * process ends. */
#include "comm/mpi.h"

#include "base/clock.h"
#include "base/file.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef MINISGL_BUILD_ID
#define MINISGL_BUILD_ID "source"
#endif

/* ---- opening ---- */

/* The path of minisgl_mpi.so, malloc'd; NULL: *e says where it was looked for. */
static char *find_plugin(const char *folder, struct err *e) {
    char *path = folder ? path_join(folder, "minisgl_mpi.so") : program_library("minisgl_mpi.so");
    if (path && file_exists(path)) return path;
    free(path);
    err_input(e,
              "several processes need MPI, and minisgl_mpi.so is not in %.200s: install it (apt-get install openmpi-bin libopenmpi-dev) and "
              "build again (make)",
              folder ? folder : "the program's folder or ../lib/minisgl from there");
    return NULL;
}

static const struct mpi_plugin *load(const char *path, struct err *e) {
    /* Global: MPI opens parts of its own that look for its symbols. */
    void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    mpi_plugin_fn *get = NULL;
    if (lib) *(void **)&get = dlsym(lib, "minisgl_mpi");
    if (!get) {
        const char *says = dlerror();
        err_machine(e, "%s: %.600s", path, says ? says : "no MPI plug-in");
        return NULL;
    }
    const struct mpi_plugin *p = get();
    if (p->abi == MPI_PLUGIN_ABI && !strcmp(p->build_id, MINISGL_BUILD_ID)) return p;
    err_machine(e,
                "%s was built from other sources (ABI %u, build %s) than this program (ABI %u, build %s): rebuild both",
                path, p->abi, p->build_id, (unsigned)MPI_PLUGIN_ABI, MINISGL_BUILD_ID);
    return NULL;
}

int mpi_open(struct mpi *m, const char *folder, uint64_t timeout_ns, uint64_t spin_ns, struct err *e) {
    *m = (struct mpi){.timeout_ns = timeout_ns, .spin_ns = spin_ns};
    char *path = find_plugin(folder, e);
    const struct mpi_plugin *p = path ? load(path, e) : NULL;
    free(path);
    if (!p || p->open(&m->rank, &m->size, e)) return -1;
    m->plugin = p;
    return 0;
}

void mpi_close(struct mpi *m) {
    if (m->plugin) m->plugin->close();
    m->plugin = NULL;
}

const char *mpi_describe(const struct mpi *m) { return m->plugin->describe(); }

void mpi_abort(struct mpi *m, int code) {
    if (m->plugin) m->plugin->abort(code);
    _exit(code);
}

/* ---- waiting ---- */

enum { NAP_LEAST_NS = 20000, NAP_MOST_NS = 1000000 };

static void nap(uint64_t ns) { nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL); }

/* How long to sleep after waiting so long in vain: not at all, then a little, then longer. */
static uint64_t nap_after(const struct mpi *m, uint64_t waited) {
    if (waited < m->spin_ns) return 0;
    uint64_t some = waited / 8;
    return some < NAP_LEAST_NS ? NAP_LEAST_NS : some > NAP_MOST_NS ? NAP_MOST_NS : some;
}

static int late(const struct mpi *m, const struct mpi_message *x, bool receives, const char *what, struct err *e) {
    double s = (double)m->timeout_ns / 1e9;
    if (receives)
        return err_machine(e, "process %d sent nothing within %g s (%s): it is dead, stopped or cut off", x->peer, s,
                           what);
    return err_machine(e, "process %d did not take what was sent within %g s (%s): it is dead, stopped or cut off",
                       x->peer, s, what);
}

/* Messages under way: the receives are in the first slots, the sends behind them. */
struct flight {
    const struct mpi_message *receive, *send;
    int n_receive, n_send;
    bool done[MPI_SLOTS];
};

static const struct mpi_message *message_of(const struct flight *f, int slot) {
    return slot < f->n_receive ? &f->receive[slot] : &f->send[slot - f->n_receive];
}

static int start_all(struct mpi *m, struct flight *f, struct err *e) {
    for (int i = 0; i < f->n_receive + f->n_send; i++) {
        const struct mpi_message *x = message_of(f, i);
        f->done[i] = !x->n;
        if (f->done[i]) continue;
        int rc = i < f->n_receive ? m->plugin->receive(x->peer, x->tag, x->data, x->n, i, e)
                                  : m->plugin->send(x->peer, x->tag, x->data, x->n, i, e);
        if (rc) return -1;
    }
    return 0;
}

/* The first slot that is not done, or -1 when all are; -2: *e. */
static int test_all(struct mpi *m, struct flight *f, struct err *e) {
    int first = -1;
    for (int i = 0; i < f->n_receive + f->n_send; i++) {
        if (!f->done[i] && m->plugin->test(i, &f->done[i], e)) return -2;
        if (!f->done[i] && first < 0) first = i;
    }
    return first;
}

int mpi_exchange(struct mpi *m, const struct mpi_message *send, int n_send, const struct mpi_message *receive,
                 int n_receive, const char *what, struct err *e) {
    struct flight f = {.receive = receive, .send = send, .n_receive = n_receive, .n_send = n_send};
    if (n_send + n_receive > MPI_SLOTS) BUG("%d messages at once", n_send + n_receive);
    if (start_all(m, &f, e)) return err_prefix(e, "%s: ", what);
    uint64_t start = clock_ns();
    for (;;) {
        int first = test_all(m, &f, e);
        if (first == -1) return 0;
        if (first == -2) return err_prefix(e, "%s: ", what);
        uint64_t waited = clock_ns() - start, ns = nap_after(m, waited);
        if (waited > m->timeout_ns) return late(m, message_of(&f, first), first < n_receive, what, e);
        if (ns) nap(ns);
    }
}

int mpi_send(struct mpi *m, int to, int tag, const void *data, size_t n, const char *what, struct err *e) {
    struct mpi_message x = {.peer = to, .tag = tag, .data = (void *)(uintptr_t)data, .n = n};
    return mpi_exchange(m, &x, 1, NULL, 0, what, e);
}

int mpi_receive(struct mpi *m, int from, int tag, void *data, size_t n, const char *what, struct err *e) {
    struct mpi_message x = {.peer = from, .tag = tag, .data = data, .n = n};
    return mpi_exchange(m, NULL, 0, &x, 1, what, e);
}

int mpi_wait_for(struct mpi *m, int from, int tag, void *data, size_t n, uint64_t idle_ns, const volatile bool *stop,
                 struct err *e) {
    if (m->plugin->receive(from, tag, data, n, 0, e)) return -1;
    uint64_t start = clock_ns();
    for (bool done = false;;) {
        if (m->plugin->test(0, &done, e)) return -1;
        if (done) return 0;
        if (*stop) return 1;
        if (clock_ns() - start > m->spin_ns) nap(idle_ns);
    }
}
