/* selftest_comm.c: see selftest_comm.h. The main thread, which starts a thread for each rank. */
#include "cli/selftest_comm.h"

#include "dev/comm_test.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS = 10000, ROUNDS_ON_ONE = 300, TIMEOUT_S = 3 /* the test of an absent rank takes as long; --comm-timeout where a tool slows kernels down */ };

/* A communicator that is not to be had here is left out, unless it was asked for by name. */
static int test_one(const struct comm_test_args *a, bool asked, struct err *e) {
    int failed = dev_comm_test(a, stdout, NULL, e);
    if (failed >= 0 || asked || e->kind != ERR_INPUT) return failed;
    printf("%-5s %d rank%s  left out: %s\n", a->name, a->n_ranks, a->n_ranks > 1 ? "s" : " ", e->text);
    return 0;
}

int selftest_comms(const struct options *o, const struct dev_maker *m, const int32_t *gpus, int32_t n, struct err *e) {
    const struct {
        const char *name;
        int32_t ranks;
        bool run;
    } tests[] = {{"p2p", n, true}, {"nccl", n, true}, {"auto", n, n > 1}, {"p2p", 2, n == 1}};
    const int32_t twice[2] = {gpus[0], gpus[0]};
    bool asked = strcmp(o->gpu_comm, "auto") != 0;
    int failed = 0;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (!tests[i].run || (asked && strcmp(o->gpu_comm, tests[i].name) != 0)) continue;
        struct comm_test_args a = {.maker = m, .name = tests[i].name, .gpus = n == 1 ? twice : gpus, .n_ranks = tests[i].ranks,
                                   .rounds = n > 1 ? ROUNDS : ROUNDS_ON_ONE, .absent = true,
                                   .timeout_s = options_given(o, "comm-timeout") ? (int32_t)o->comm_timeout : TIMEOUT_S, .no_windows = o->disable_pynccl};
        int more = test_one(&a, asked, e);
        if (more < 0) return -1;
        failed += more;
    }
    return failed;
}
