/* dummy.c: `minisgl dummy`: write a checkpoint of random weights. The main thread; refuses a folder that is not empty.
 */
#include "cli/cli.h"
#include "model_dir.h"
#include "model/weights.h"
#include "opt.h"

#include <stdlib.h>

int cmd_dummy(int argc, char **argv) {
    struct options o;
    struct err e = {0};
    if (options_parse(&o, CMD_DUMMY, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_DUMMY);
    cli_begin(&o);
    if (!o.out) {
        err_input(&e, "--out is missing; it names the folder to write");
        return cli_fail(&e);
    }
    char *dir = model_dir(&o, HUB_CONFIG, &e);
    if (!dir) return cli_fail(&e);
    int rc = dummy_write(dir, o.out, (uint64_t)o.seed, (size_t)o.shard_bytes, &e);
    free(dir);
    return rc ? cli_fail(&e) : 0;
}
