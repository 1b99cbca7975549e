/* selftest.c: `minisgl selftest`: is this device right? Its operators, and what GPU ranks exchange by; with --model, a model's log-probabilities; with --steps, random requests.
 * The main thread is rank 0's thread. */
#include "base/err.h"
#include "base/log.h"
#include "cli/cli.h"
#include "app.h"
#include "cli/probe.h"
#include "cli/selftest_comm.h"
#include "dev/open.h"
#include "dev/selftest.h"
#include "hw/gpu.h"

#include <stdio.h>
#include <string.h>

/* Options that this device leaves aside are named, as in a run. */
static int check_options(const struct options *o, const struct dev_maker *maker, struct err *e) {
    bool gpu = maker->memory != NULL;
    if (gpu && !strncmp(o->attention, "fi", 2)) return err_input(e, "--attention-backend %s: fi is for decodes only; use fa,fi or fa", o->attention);
    for (int i = 0; i < o->n_gpu_only && !gpu; i++) log_info("--%s matters on GPUs only: this test is of the CPU and goes on without it", o->gpu_only[i]);
    return 0;
}

/* Several GPUs named: communicators alone. */
static int test_operators(const struct options *o, const struct dev_maker *maker, struct err *e) {
    int32_t gpus[PROBE_RANKS] = {0}, n = 1;
    if (o->tp != 1) return err_input(e, "--tp %lld: operators are tested on one device; ranks go with --model, --steps or --devices", (long long)o->tp);
    if (o->devices && (gpus_named(o->devices, gpus, PROBE_RANKS, &n) || (n & (n - 1))))
        return err_input(e, "--devices %s: expected the CUDA ordinals of 1, 2, 4 or 8 GPUs, one a rank, parted by commas", o->devices);
    if (n > 1 && !maker->comm_test)
        return err_input(e, "--devices %s is for the test of what GPU ranks exchange by, and this would test the CPU: leave it out", o->devices);
    struct dev_args args = {.n_ranks = 1, .n_threads = probe_threads(o), .prefill_cudnn = dev_prefill_cudnn(o->attention), .decode_fa = dev_decode_fa(o->attention), .graph_max = (int32_t)o->cuda_graph_max_bs, .gpus = gpus};
    int failed = n > 1 ? 0 : dev_selftest(maker, &args, stdout, e);
    int more = failed < 0 || !maker->comm_test ? 0 : selftest_comms(o, maker, gpus, n, e);
    return failed < 0 || more < 0 ? -1 : failed + more;
}

static int test_model(const struct options *o, const struct dev_maker *maker, struct err *e) {
    struct probe p;
    if (probe_open(&p, o, maker, e)) return -1;
    int failed = o->test_steps > 0 ? selftest_steps(&p, (uint64_t)o->test_steps, stdout, e) : selftest_logits(&p, stdout, e);
    probe_release(&p);
    return failed;
}

int cmd_selftest(int argc, char **argv) {
    struct options o;
    struct err e;
    char why[600];
    const struct dev_maker *maker;
    if (options_parse(&o, CMD_SELFTEST, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_SELFTEST);
    cli_begin(&o);
    if (dev_choose(&maker, o.device, why, sizeof why, &e)) return cli_fail(&e);
    if (*why) fprintf(stderr, "testing the CPU: %s\n", why);
    if (check_options(&o, maker, &e)) return cli_fail(&e);
    bool model = options_given(&o, "model") || o.dummy_weight || o.test_steps > 0;
    int failed = model ? test_model(&o, maker, &e) : test_operators(&o, maker, &e);
    if (failed < 0) return cli_fail(&e);
    if (failed) printf("%d %s over the bound: do not use this device\n", failed, model ? "checks are" : "cases are");
    else printf("everything is within its bound\n");
    return failed ? 1 : 0;
}
