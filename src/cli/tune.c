/* tune.c: `minisgl tune`: how to compute a model's matrix products on this GPU, measured, into a table that runs read. The main thread is the
 * rank thread. Standard output: one JSON object a product and number of rows, and a last one that says how it ended. */
#include "base/clock.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "dev/open.h"
#include "model/config.h"
#include "model/decoder.h"
#include "model_dir.h"
#include "products.h"

#include <stdlib.h>
#include <string.h>

struct tune {
    struct lintab table;
    int32_t found;
    double us, first_us; /* sums */
};

static void take(void *arg, const struct lintab_gpu *gpu, const struct lintab_row *r) {
    static const char *const names[] = {"cublaslt", "own", "gemv"};
    struct tune *t = arg;
    lintab_put(&t->table, gpu, r);
    t->found++;
    printf("{\"n\":%d,\"k\":%d,\"rows\":%d,\"bias\":%s,\"way\":\"%s\",\"us\":%.2f,\"cublaslt_us\":%.2f,\"own_us\":%.2f,\"gemv_us\":%.2f,\"first_choice_us\":%.2f}\n", r->shape.n, r->shape.k, r->rows,
           r->shape.bias ? "true" : "false", names[r->way.kind], (double)r->us, (double)r->library_us, (double)r->own_us, (double)r->gemv_us, (double)r->first_us);
    fflush(stdout);
    if (r->first_us > 0) t->us += (double)r->us, t->first_us += (double)r->first_us;
}

static int tune_model(struct tune *t, const struct dev_maker *maker, struct dev *dev, const struct config *c, const struct options *o, struct err *e) {
    struct shard shard = {.n_ranks = (int32_t)o->tp};
    struct weights w;
    struct decoder d;
    struct dev_shape shape;
    if (weights_shapes(&w, c, shard, e)) return -1;
    decoder_init(&d, c, &w, shard);
    decoder_shape(&shape, c, &d, shard);
    shape.limits.max_seqs = (int32_t)o->max_running;
    shape.limits.max_tokens = (o->max_prefill > 0 ? (int32_t)o->max_prefill : 8192) + shape.limits.max_seqs;
    int rc = maker->tune(dev, &(struct dev_tune){.shape = &shape, .prog = &(struct dev_program){d.ops, d.n_ops}, .found = take, .arg = t}, e);
    decoder_release(&d);
    weights_release(&w);
    return rc;
}

static int open_gpu(const struct dev_maker **maker, struct dev **dev, struct err *e) {
    char why[600];
    if (dev_choose(maker, "cuda", why, sizeof why, e)) return -1;
    if (!(*maker)->tune) return err_input(e, "this device has nothing to tune");
    return (*maker)->open(dev, &(struct dev_args){.n_ranks = 1, .n_threads = 1}, e);
}

static int run(const struct options *o, const char *path, struct err *e) {
    const struct dev_maker *maker;
    struct dev *dev = NULL;
    struct config c;
    struct tune t = {0};
    uint64_t start = clock_ns();
    char *dir = model_dir(o, HUB_CONFIG, e);
    int rc = !dir || config_open(&c, dir, e) ? -1 : 0;
    free(dir);
    if (rc) return -1;
    rc = products_read(&t.table, path, false, e);
    if (!rc) rc = open_gpu(&maker, &dev, e);
    if (!rc) rc = tune_model(&t, maker, dev, &c, o, e);
    if (!rc) rc = products_write(&t.table, path, e);
    if (dev) maker->close(dev);
    if (!rc)
        printf("{\"table\":\"%s\",\"products\":%d,\"seconds\":%.1f,\"share_of_first_choices\":%.3f}\n", path, t.found, (double)(clock_ns() - start) / 1e9,
               t.first_us > 0 ? t.us / t.first_us : 1);
    lintab_release(&t.table);
    config_release(&c);
    return rc;
}

int cmd_tune(int argc, char **argv) {
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_TUNE, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_TUNE);
    cli_begin(&o);
    char *path = o.out ? mem_strdup(o.out) : products_path(&o);
    int rc = path ? run(&o, path, &e) : err_input(&e, "there is no home folder to keep the table in; name a file with --out");
    free(path);
    return rc ? cli_fail(&e) : 0;
}
