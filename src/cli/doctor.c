/* doctor.c: `minisgl doctor`: what this machine has and what of a model fits on it. The main thread. It loads no
 * weights and downloads at most the model's config; it refuses only a model that it cannot find or read. */
#include "cli/doctor.h"

#include "cli/cli.h"
#include "model_dir.h"
#include "sched/sched.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

static struct batch_limits limits_of(const struct options *o, bool on_gpu, int32_t max_len) {
    int32_t pages = (max_len + (int32_t)o->page_size - 1) / (int32_t)o->page_size + 1;
    int32_t prefill = o->max_prefill > 0 ? (int32_t)o->max_prefill : on_gpu ? 8192 : 512;
    struct sched_args a = {.max_running = (int32_t)o->max_running,
                           .page_size = (int32_t)o->page_size,
                           .max_prefill = prefill,
                           .max_len = max_len,
                           .n_pages = pages};
    if (a.max_running > pages - 1) a.max_running = pages - 1;
    return sched_limits(&a);
}

/* Bytes that --memory-ratio lets a rank take: of the fullest GPU, or of its share of the machine's memory. */
static size_t memory_of_rank(const struct doctor *d, int32_t n_ranks) {
    size_t least = d->host.memory.left / (size_t)n_ranks;
    if (d->on_gpu) least = d->gpus.gpu[0].free;
    for (int i = 1; d->on_gpu && i < d->gpus.n && i < n_ranks; i++)
        if (d->gpus.gpu[i].free < least) least = d->gpus.gpu[i].free;
    return (size_t)(d->o->memory_ratio * (double)least);
}

static void count_degree(const struct doctor *d, struct doctor_degree *g) {
    struct err e;
    int threads = d->host.cpu.allowed / g->n_ranks;
    struct fit_args a = {.config = &d->config,
                         .n_ranks = g->n_ranks,
                         .maker = d->maker,
                         .dev = {.n_threads = threads > 1 ? threads : 1, .graph_max = -1},
                         .limits = limits_of(d->o, d->on_gpu, d->max_len),
                         .max_len = d->max_len,
                         .page_size = (int32_t)d->o->page_size,
                         .dtype = d->formats.dtype,
                         .kv_dtype = d->formats.kv_dtype};
    g->divides = !fit_count(&g->fit, &a, &e);
    if (!g->divides) {
        snprintf(g->why, sizeof g->why, "%.255s", e.text);
        return;
    }
    g->needed = g->fit.weights + g->fit.kv + g->fit.buffers;
    g->had = memory_of_rank(d, g->n_ranks);
    g->longest = fit_longest(&g->fit, g->had, a.page_size);
    if (g->longest > (size_t)d->max_len) g->longest = (size_t)d->max_len;
    g->fits = g->needed <= g->had && (!d->on_gpu || g->n_ranks <= d->gpus.n);
    if (!d->on_gpu) g->rate = d->bandwidth.read / ((double)g->fit.weights * g->n_ranks);
}

static int read_model(struct doctor *d, struct err *e) {
    char *dir = model_dir(d->o, HUB_CONFIG, e);
    if (!dir) return -1;
    int rc = config_open(&d->config, dir, e);
    free(dir);
    if (rc) return -1;
    if (formats_choose(&d->formats, d->o, &d->config, d->on_gpu, e)) {
        config_release(&d->config);
        return -1;
    }
    if (d->o->max_seq_len > d->config.max_position) {
        err_input(e, "--max-seq-len-override %lld: the model was made for %d positions", (long long)d->o->max_seq_len,
                  d->config.max_position);
        config_release(&d->config);
        return -1;
    }
    d->max_len = d->o->max_seq_len > 0 ? (int32_t)d->o->max_seq_len : d->config.max_position;
    return 0;
}

/* ---- the machine ---- */

/* Larger than any cache, and no burden on a small machine. */
static size_t measure_bytes(const struct host *h) {
    size_t some = (size_t)512 << 20, part = h->memory.left / 8;
    return part < some ? part : some;
}

static void read_isa(struct doctor *d) {
    struct dev *dev;
    struct err e;
    if (dev_cpu.open(&dev, &(struct dev_args){.n_ranks = 1, .n_threads = 1}, &e)) return;
    sscanf(dev_cpu.describe(dev), "cpu %31[^,]", d->isa); /* "cpu avx2, 1 thread" */
    dev_cpu.close(dev);
}

static void find_device(struct doctor *d) {
    struct err e;
    gpus_read(&d->gpus);
    d->on_gpu = d->gpus.n > 0;
    dev_choose(&d->maker, "auto", d->why_cpu, sizeof d->why_cpu, &e);
}

static void read_machine(struct doctor *d) {
    struct err e;
    host_read(&d->host, "");
    d->cuda_built = dev_cuda_built();
    if (d->gpus.n) d->n_libraries = dev_cuda_libraries(d->library);
    read_isa(d);
    if (!host_command_line("mpirun", "--version", d->mpirun, sizeof d->mpirun)) d->mpirun[0] = 0;
    size_t bytes = measure_bytes(&d->host);
    if (bytes >= (size_t)1 << 20) bandwidth_measure(&d->bandwidth, d->host.cpu.allowed, bytes, 0.4, &e);
    int ranks = 1;
    while (ranks < 8 && ranks * 2 <= d->host.cpu.allowed) ranks *= 2;
    if (ranks > 1) doctor_measure_ranks(&d->ranks, ranks);
}

int cmd_doctor(int argc, char **argv) {
    struct options o;
    struct err e;
    if (options_parse(&o, CMD_DOCTOR, argc, argv, &e)) return cli_fail(&e);
    if (o.help) return cli_help(CMD_DOCTOR);
    cli_begin(&o);
    static struct doctor d; /* a few KiB of tables */
    d.o = &o;
    find_device(&d);
    if (read_model(&d, &e)) return cli_fail(&e);
    read_machine(&d);
    for (int i = 0; i < DOCTOR_DEGREES; i++) {
        d.degree[i].n_ranks = 1 << i;
        count_degree(&d, &d.degree[i]);
    }
    doctor_advise(&d);
    if (o.json)
        doctor_json(&d);
    else
        doctor_page(&d);
    gpus_release(&d.gpus);
    config_release(&d.config);
    return 0;
}
