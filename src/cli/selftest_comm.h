/* selftest_comm.h: the part of `minisgl selftest` that tests what GPU ranks exchange by (dev/comm_test.h). */
#ifndef MINISGL_CLI_SELFTEST_COMM_H
#define MINISGL_CLI_SELFTEST_COMM_H
#include "dev/dev.h"
#include "opt.h"

/* n GPUs named by --devices: every communicator with a rank on each of them. One: with one rank, and p2p with two that share it.
 * Returns how many cases failed; -1: *e. */
int selftest_comms(const struct options *o, const struct dev_maker *m, const int32_t *gpus, int32_t n, struct err *e);

#endif
