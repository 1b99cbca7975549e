/* mpi_plugin.c: minisgl_mpi.so: the few calls of MPI that the program uses, behind a table (mpi.h). One thread at a
 * time calls; the slots are all its state. Nothing here waits but open and close. */
#include "comm/mpi.h"

#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct {
    MPI_Request request;
    bool used, receives;
    int peer;
    size_t n;
} slots[MPI_SLOTS];

static char described[160];

static int fail(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct err *e, const char *fmt, ...) {
    va_list ap;
    if (!e) return -1;
    e->kind = ERR_MACHINE;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    for (char *p = e->text; *p; p++)
        if (*p == '\n') *p = ' ';
    return -1;
}

static int fail_with(struct err *e, const char *what, int peer, int rc) {
    char says[MPI_MAX_ERROR_STRING] = "";
    int n;
    MPI_Error_string(rc, says, &n);
    return fail(e, "MPI: %s process %d failed: %s", what, peer, says);
}

static void describe_library(void) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    MPI_Get_library_version(version, &n);
    version[strcspn(version, ",\n")] = 0;
    snprintf(described, sizeof described, "%.150s", version);
}

static int plugin_open(int *rank, int *size, struct err *e) {
    int level = MPI_THREAD_SINGLE, rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level);
    if (rc != MPI_SUCCESS) return fail(e, "MPI does not start (error %d); try `mpirun -np 2 hostname`", rc);
    if (level < MPI_THREAD_SERIALIZED)
        return fail(e, "MPI was built for one thread only (level %d); install one with MPI_THREAD_SERIALIZED", level);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, rank);
    MPI_Comm_size(MPI_COMM_WORLD, size);
    describe_library();
    return 0;
}

static void plugin_close(void) { MPI_Finalize(); }
static const char *plugin_describe(void) { return described; }

static int take(int slot, int peer, size_t n, struct err *e) {
    if (slot < 0 || slot >= MPI_SLOTS || slots[slot].used) return fail(e, "MPI: slot %d is not free", slot);
    if (n > MPI_MESSAGE_MAX)
        return fail(e, "MPI: expected a message of at most %d bytes, found %zu", MPI_MESSAGE_MAX, n);
    slots[slot].used = true;
    slots[slot].peer = peer;
    slots[slot].n = n;
    return 0;
}

static int plugin_send(int to, int tag, const void *data, size_t n, int slot, struct err *e) {
    if (take(slot, to, n, e)) return -1;
    slots[slot].receives = false;
    int rc = MPI_Isend(data, (int)n, MPI_BYTE, to, tag, MPI_COMM_WORLD, &slots[slot].request);
    return rc == MPI_SUCCESS ? 0 : fail_with(e, "sending to", to, rc);
}

static int plugin_receive(int from, int tag, void *data, size_t n, int slot, struct err *e) {
    if (take(slot, from, n, e)) return -1;
    slots[slot].receives = true;
    int rc = MPI_Irecv(data, (int)n, MPI_BYTE, from, tag, MPI_COMM_WORLD, &slots[slot].request);
    return rc == MPI_SUCCESS ? 0 : fail_with(e, "receiving from", from, rc);
}

static int plugin_test(int slot, bool *done, struct err *e) {
    MPI_Status status;
    int ended = 0, got = 0, rc = MPI_Test(&slots[slot].request, &ended, &status);
    *done = ended;
    if (rc != MPI_SUCCESS)
        return fail_with(e, slots[slot].receives ? "receiving from" : "sending to", slots[slot].peer, rc);
    if (!ended) return 0;
    slots[slot].used = false;
    if (!slots[slot].receives) return 0;
    MPI_Get_count(&status, MPI_BYTE, &got);
    if ((size_t)got == slots[slot].n) return 0;
    return fail(e, "MPI: expected %zu bytes from process %d, found %d: the processes are not at the same place",
                slots[slot].n, slots[slot].peer, got);
}

static void plugin_abort(int code) { MPI_Abort(MPI_COMM_WORLD, code); }

static const struct mpi_plugin plugin = {
    .abi = MPI_PLUGIN_ABI,
    .build_id = MINISGL_BUILD_ID,
    .open = plugin_open,
    .close = plugin_close,
    .describe = plugin_describe,
    .send = plugin_send,
    .receive = plugin_receive,
    .test = plugin_test,
    .abort = plugin_abort,
};

mpi_plugin_fn minisgl_mpi;
const struct mpi_plugin *minisgl_mpi(void) { return &plugin; }
