/* exchange.h: which communicator GPU ranks get. */
#ifndef MINISGL_DEV_CUDA_EXCHANGE_H
#define MINISGL_DEV_CUDA_EXCHANGE_H
#include "dev/cuda/p2p.h"

extern const struct gpu_comm_maker gpu_comm_nccl;
/* p2p where all ranks are in one process and their GPUs read each other's memory, nccl where it is found and each rank has a GPU of its own;
 * where both are, each exchange goes to the one that is faster at its size (exchange.c has the table). */
extern const struct gpu_comm_maker gpu_comm_auto;

/* name: "p2p", "nccl"; NULL or "auto". */
const struct gpu_comm_maker *gpu_comm_by_name(const char *name);

/* Is libnccl.so.2 here, and new enough? Else why not. */
bool nccl_found(char *why, size_t n);

/* exchange_test.c: tests the communicator of this name, or times it, together with the other ranks; dev.h's comm_test. */
struct dev_args;
struct dev_comm_test;
int exchange_test(const struct dev_args *args, struct dev_comm_test *t, struct err *e);

#endif
