/* selftest.c: `minisgl selftest`: is this device right? The main thread is the rank thread. */
#include "base/err.h"
#include "cli/cli.h"
#include "dev/open.h"
#include "dev/selftest.h"
#include "hw/host.h"

#include <stdio.h>

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
    struct host host;
    host_read(&host, "");
    int32_t threads = o.threads > 0 ? (int32_t)o.threads : host.cpu.allowed > 0 ? host.cpu.allowed : 1;
    struct dev_args args = {.n_ranks = 1, .n_threads = threads, .graph_max = -1};
    int failed = dev_selftest(maker, &args, stdout, &e);
    if (failed < 0) return cli_fail(&e);
    if (failed) printf("%d cases are over the bound: do not use this device\n", failed);
    else printf("everything is within its bound\n");
    return failed ? 1 : 0;
}
