/* comm_test.h: the test of GPU ranks' communicators (comm/gpu.h): starts the ranks as threads of this process, each of which runs the backend's
 * comm_test (dev/dev.h). Also how they are timed. */
#ifndef MINISGL_DEV_COMM_TEST_H
#define MINISGL_DEV_COMM_TEST_H
#include "dev/dev.h"

struct comm_test_args {
    const struct dev_maker *maker; /* one with comm_test */
    const char *name;              /* "p2p", "nccl", "auto" */
    const int32_t *gpus;           /* [n_ranks] */
    int32_t n_ranks;               /* 1, 2, 4 or 8 */
    int32_t rounds;                /* of random exchanges */
    int32_t timeout_s;             /* of a wait for another rank */
    bool absent, time;             /* as in struct dev_comm_test */
    bool no_windows;
};

/* Prints a line a test. Returns how many failed; -1: *e. us (with `time`): [COMM_TEST_SIZES], else NULL. */
int dev_comm_test(const struct comm_test_args *a, FILE *out, double *us, struct err *e);

#endif
