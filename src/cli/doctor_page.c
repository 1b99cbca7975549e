/* doctor_page.c: the report of `minisgl doctor` for people, on standard output. No state. */
#include "cli/doctor.h"

#include "version.h"

#include <stdio.h>
#include <string.h>

static double gb(size_t n) { return (double)n / 1e9; }

static void print_gpu(int i, const struct gpu *g) {
    if (g->trouble[0]) {
        printf("  %d  %s\n", i, g->trouble);
        return;
    }
    printf("  %d  %s  %s  %.1f GB, %.1f GB free", i, g->name, g->uuid, gb(g->memory), gb(g->free));
    if (g->major) printf(", compute capability %d.%d", g->major, g->minor);
    if (g->n_links) printf(", %d NVLinks", g->n_links);
    if (g->pcie_width) printf(", PCIe %d x%d", g->pcie_generation, g->pcie_width);
    printf("%s\n", g->mig ? ", MIG" : "");
    for (int p = 0; p < g->n_listed; p++) {
        printf("       process %u %s", g->process[p].pid, g->process[p].name);
        if (g->process[p].memory) printf(" %.2f GB", gb(g->process[p].memory));
        printf("\n");
    }
    if (g->n_processes > g->n_listed) printf("       and %d more\n", g->n_processes - g->n_listed);
}

static void print_topology(const struct gpus *g) {
    printf("  %-4s", "");
    for (int j = 0; j < g->n; j++) printf(" %-14d", j);
    printf("\n");
    for (int i = 0; i < g->n; i++) {
        printf("  %-4d", i);
        for (int j = 0; j < g->n; j++) printf(" %-14s", gpu_way_name(g->path[i * g->n + j].way));
        printf("\n");
    }
}

static void print_library(const struct dev_library *l) {
    bool nccl = !strcmp(l->name, "NCCL");
    if (l->found) printf("  %s %s: %s\n", l->name, l->version, l->path);
    else printf("  no %s: %s; %s\n", l->name, l->why, nccl ? "several GPUs exchange by p2p only, in one process" : "--attention-backend cudnn is refused");
}

static void print_gpus(const struct doctor *d) {
    const struct gpus *g = &d->gpus;
    int built = d->cuda_built;
    printf("GPUs\n");
    if (!g->n) {
        printf("  none: %s\n  everything runs on the CPU\n", g->why);
        return;
    }
    printf("  driver %s", g->driver[0] ? g->driver : "(not told)");
    if (g->cuda) printf(", runs CUDA up to %d.%d", g->cuda / 1000, g->cuda % 1000 / 10);
    if (built) printf("; built for CUDA %d.%d", built / 1000, built % 1000 / 10);
    printf("\n");
    for (int i = 0; i < g->n; i++) print_gpu(i, &g->gpu[i]);
    if (g->n > 1) print_topology(g);
    for (int i = 0; i < d->n_libraries; i++) print_library(&d->library[i]);
}

static void print_host(const struct doctor *d) {
    const struct host_cpu *c = &d->host.cpu;
    const struct host_memory *m = &d->host.memory;
    printf("\nCPU\n  %s, %d processors", c->model[0] ? c->model : "processor", c->online);
    if (c->allowed != c->online) printf(", %d for this process", c->allowed);
    if (c->sockets > 1) printf(", %d sockets", c->sockets);
    if (c->threads_per_core > 1) printf(", %d threads a core", c->threads_per_core);
    if (c->quota > 0) printf(", time of %.2g processors", c->quota);
    printf("; kernels: %s\n", d->isa);
    printf("  memory: %.1f GB, %.1f GB available", gb(m->total), gb(m->available));
    if (m->group_limit) printf(", control group: %.1f GB, %.1f GB used", gb(m->group_limit), gb(m->group_used));
    printf("\n");
    for (int i = 0; i < d->host.n_nodes && d->host.n_nodes > 1; i++)
        printf("  node %d: processors %s, %.1f GB, %.1f GB free\n", d->host.node[i].id, d->host.node[i].cpus,
               gb(d->host.node[i].memory), gb(d->host.node[i].free));
    if (d->bandwidth.read > 0)
        printf("  bandwidth: read %.1f GB/s, copy %.1f GB/s, measured with %d threads\n", d->bandwidth.read / 1e9,
               d->bandwidth.copy / 1e9, d->bandwidth.threads);
    if (d->ranks.small > 0)
        printf("  all-reduce between %d ranks: %d KiB in %.1f us, %d MiB in %.2f ms (%.1f GB/s)\n", d->ranks.n,
               DOCTOR_SMALL >> 10, d->ranks.small * 1e6, DOCTOR_LARGE >> 20, d->ranks.large * 1e3,
               DOCTOR_LARGE / d->ranks.large / 1e9);
}

static void print_mpi(const struct doctor *d) {
    printf("\nMPI\n  %s\n", d->mpirun[0]
                                ? d->mpirun
                                : "no mpirun: it is needed only to split a model over several hosts (apt-get install "
                                  "openmpi-bin libopenmpi-dev)");
}

static void print_degree(const struct doctor *d, const struct doctor_degree *g) {
    printf("  --tp %d ", g->n_ranks);
    if (!g->divides) {
        printf("  no: %s\n", g->why);
        return;
    }
    printf(" %9.3f %9.3f %9.3f %9.3f %9.3f GB  ", gb(g->fit.weights), gb(g->fit.kv), gb(g->fit.buffers), gb(g->needed),
           gb(g->had));
    if (d->on_gpu && g->n_ranks > d->gpus.n)
        printf("no: there %s %d GPU%s", d->gpus.n == 1 ? "is" : "are", d->gpus.n, d->gpus.n == 1 ? "" : "s");
    else if (g->fits)
        printf("fits");
    else if (g->longest)
        printf("with --max-seq-len-override %zu", g->longest);
    else
        printf("no: %.2f GB more are needed", gb(g->needed - g->had));
    if (g->rate > 0) printf("; at most %.3g tokens/s a stream", g->rate);
    printf("\n");
}

static void print_model(const struct doctor *d) {
    bool other = d->formats.kv_dtype != d->formats.dtype;
    printf("\nModel %s\n  %s, %d layers, %s%s%s, sequences up to %d tokens\n", d->o->model, d->config.arch->name, d->config.n_layers,
           dtype_name(d->formats.dtype), other ? ", KV cache " : "", other ? dtype_name(d->formats.kv_dtype) : "", d->max_len);
    printf("  a rank on %s:\n  %-8s %9s %9s %9s %9s %9s\n", d->on_gpu ? "a GPU" : "the CPU", "", "weights", "KV",
           "buffers", "needed", "had");
    for (int i = 0; i < DOCTOR_DEGREES; i++) print_degree(d, &d->degree[i]);
    printf("  KV: the cache of one sequence of full length. Had: --memory-ratio %g of what is free.\n",
           d->o->memory_ratio);
}

void doctor_page(const struct doctor *d) {
    printf("minisgl " MINISGL_VERSION "\n\n");
    print_gpus(d);
    print_host(d);
    print_mpi(d);
    print_model(d);
    if (d->n_advice) printf("\nTo know\n");
    for (int i = 0; i < d->n_advice; i++) printf("  * %s\n", d->advice[i]);
}
