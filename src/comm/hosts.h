/* hosts.h: the communicator of ranks in several processes (one a host) that mpirun started, and what the processes say to each other
 * beside: batches, a sign of life. Within a process the ranks are threads (comm_threads); between processes their first ranks'
 * threads exchange over MPI (comm/mpi.h).
 *
 * Process p has ranks p * n_local .. p * n_local + n_local - 1. Sums stay in tree order: the threads of a process add up their
 * subtree, then processes exchange with p ^ 1, p ^ 2, ...: both sides of a pair compute lower + upper, the same bits.
 * After start-up all calls into MPI come from the thread of the process's first rank. Nobody waits longer than the timeout. */
#ifndef MINISGL_COMM_HOSTS_H
#define MINISGL_COMM_HOSTS_H
#include "comm/comm.h"
#include "comm/mpi.h"

struct comm_hosts;

/* mpi: open, outlives this; its size, the number of processes, must be a power of two and divide n_ranks. */
int comm_hosts_new(struct comm_hosts **out, struct mpi *mpi, int32_t n_ranks, uint64_t timeout_ns, uint64_t spin_ns, struct err *e);
void comm_hosts_free(struct comm_hosts *h);

int32_t comm_hosts_local(const struct comm_hosts *h); /* ranks of this process */
int32_t comm_hosts_first(const struct comm_hosts *h); /* its first rank */
struct comm *comm_hosts_rank(struct comm_hosts *h, int32_t local);
struct comm_threads *comm_hosts_threads(struct comm_hosts *h); /* of this process's ranks, for comm_threads_fail */

/* all [processes][bytes] becomes everyone's `mine`; for start-up, by any one thread of each process. */
int comm_hosts_gather(struct comm_hosts *h, const void *mine, void *all, size_t bytes, const char *what, struct err *e);

/* From process 0 to all others: an order (a small number) with n bytes of data. */
int comm_hosts_order(struct comm_hosts *h, uint32_t kind, const void *data, size_t n, struct err *e);
/* The others': wait for the next order, its data into `data` [cap]. Signs of life are answered within. -1 also when process 0 gave no sign
 * within the timeout. */
int comm_hosts_take(struct comm_hosts *h, uint32_t *kind, void *data, size_t cap, size_t *n, struct err *e);
/* Process 0's, every now and then while it has no work, well within the timeout: tell the others, and hear from them, that all are there. */
int comm_hosts_beat(struct comm_hosts *h, struct err *e);

#endif
