/* mpi.h: messages between the processes of one run that mpirun started, one process a host.
 *
 * MPI lies in a shared object of its own, minisgl_mpi.so, beside the program or in ../lib/minisgl from there, so that
 * the program needs no MPI where nobody asks for one: mpi_open opens it, and only under mpirun. It is refused when its
 * ABI number or build id (of this header and err.h) is not the program's.
 *
 * MPI's own blocking calls spin for ever when the other side is dead or stopped. Here everything is started, then
 * tested until it is done or the deadline is past: first spinning for spin_ns, then with short sleeps. One thread at a
 * time may call (whichever). After a failed call messages may still be under way, and their slots are not free: end the
 * run with mpi_abort. */
#ifndef MINISGL_COMM_MPI_H
#define MINISGL_COMM_MPI_H
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MPI_PLUGIN_ABI = 1,
    MPI_SLOTS = 128,          /* messages that may be under way at once */
    MPI_TAG_MAX = 32767,      /* every MPI has these tags: 0..32767 */
    MPI_MESSAGE_MAX = 1 << 30 /* bytes of one message */
};

/* ---- what the shared object exports, by minisgl_mpi() ---- */

struct mpi_plugin {
    uint32_t abi;
    const char *build_id;
    /* Join the run. It waits for the other processes to start; mpirun ends the run when one of them does not. */
    int (*open)(int *rank, int *size, struct err *e);
    /* Leave it; waits for the others to leave too. */
    void (*close)(void);
    const char *(*describe)(void); /* "Open MPI v4.1.4", after open */
    /* Start a message; slot is 0..MPI_SLOTS-1 and free. Memory must stay until it is done. A received message is
     * exactly n bytes long, or the test of its slot fails. */
    int (*send)(int to, int tag, const void *data, size_t n, int slot, struct err *e);
    int (*receive)(int from, int tag, void *data, size_t n, int slot, struct err *e);
    /* Move things on; *done: the message of this slot has ended, and the slot is free again. */
    int (*test)(int slot, bool *done, struct err *e);
    /* End all processes of the run, this one included, with this exit code. Does not return. */
    void (*abort)(int code);
};

typedef const struct mpi_plugin *mpi_plugin_fn(void); /* of the symbol "minisgl_mpi" */

/* ---- mpi.c ---- */

struct mpi {
    const struct mpi_plugin *plugin;
    int rank, size; /* of processes */
    uint64_t timeout_ns, spin_ns;
};

/* A message for mpi_exchange. n == 0: none. */
struct mpi_message {
    int peer, tag;
    void *data; /* read when sending */
    size_t n;
};

/* Open the shared object and join the run. folder: where the shared object lies; NULL: as said above. */
int mpi_open(struct mpi *m, const char *folder, uint64_t timeout_ns, uint64_t spin_ns, struct err *e);
void mpi_close(struct mpi *m);
const char *mpi_describe(const struct mpi *m);
_Noreturn void mpi_abort(struct mpi *m, int code);

/* Send and receive all of these and wait until all are done; receives are started first, so that processes may exchange
 * in both directions. At most MPI_SLOTS in all. `what` is for the sentence: "step 12, sum of layer 3". -1 after the
 * timeout: *e names the process that did not come, or did not take what was sent. */
int mpi_exchange(struct mpi *m, const struct mpi_message *send, int n_send, const struct mpi_message *receive,
                 int n_receive, const char *what, struct err *e);
int mpi_send(struct mpi *m, int to, int tag, const void *data, size_t n, const char *what, struct err *e);
int mpi_receive(struct mpi *m, int from, int tag, void *data, size_t n, const char *what, struct err *e);

/* For a thread that waits for work: receive a message of process `from` without a deadline, asleep between looks
 * (idle_ns a sleep) once spin_ns are over, until *stop is set by another thread or a signal (then 1). */
int mpi_wait_for(struct mpi *m, int from, int tag, void *data, size_t n, uint64_t idle_ns, const volatile bool *stop,
                 struct err *e);

#endif
