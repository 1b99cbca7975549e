/* doctor_advice.c: what `minisgl doctor` makes of what it found: one sentence for each thing that is wrong or could be
 * better. No state. */
#include "cli/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void say(struct doctor *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct doctor *d, const char *fmt, ...) {
    if (d->n_advice == DOCTOR_ADVICE_MAX) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->advice[d->n_advice++], sizeof d->advice[0], fmt, ap);
    va_end(ap);
}

static void about_cuda(struct doctor *d) {
    int built = d->cuda_built, driver = d->gpus.cuda;
    if (d->why_cpu[0]) say(d, "this program computes on the CPU and leaves the GPUs alone: %.300s", d->why_cpu);
    if (driver && driver < built)
        say(d,
            "the driver %s runs CUDA up to %d.%d and this program was built for %d.%d: update the driver, or build "
            "with "
            "an older toolkit",
            d->gpus.driver, driver / 1000, driver % 1000 / 10, built / 1000, built % 1000 / 10);
}

static void about_state(struct doctor *d, int i) {
    const struct gpu_state *s = &d->gpus.gpu[i].state;
    char why[160];
    gpu_slowed_names(s->slowed, true, why, sizeof why);
    if (why[0]) say(d, "GPU %d is slowed by %s, at %d degrees: look at its power and cooling", i, why, s->degrees);
    if (s->rows_failed) say(d, "GPU %d: bad rows of its memory could not be replaced: have the GPU replaced", i);
    else if (s->rows_pending) say(d, "GPU %d: bad rows of its memory wait for a reset to be replaced: `nvidia-smi -r -i %d`", i, i);
    else if (s->uncorrected)
        say(d, "GPU %d: %llu uncorrectable memory error%s since the driver was loaded: reset it (`nvidia-smi -r -i %d`) and see whether more come", i,
            s->uncorrected, s->uncorrected > 1 ? "s" : "", i);
}

static void about_gpu(struct doctor *d, int i) {
    const struct gpu *g = &d->gpus.gpu[i], *first = &d->gpus.gpu[0];
    if (g->trouble[0]) {
        say(d, "GPU %d: %s; look at `nvidia-smi` and the kernel's log (dmesg)", i, g->trouble);
        return;
    }
    if (g->mig)
        say(d, "GPU %d is cut into instances (MIG): tensor parallelism needs whole GPUs; `nvidia-smi -i %d -mig 0`", i,
            i);
    about_state(d, i);
    if (g->n_processes)
        say(d, "GPU %d: %d other process%s use%s %.2f GB of it; end %s, or choose other GPUs with CUDA_VISIBLE_DEVICES",
            i, g->n_processes, g->n_processes > 1 ? "es" : "", g->n_processes > 1 ? "" : "s",
            (double)(g->memory - g->free) / 1e9, g->n_processes > 1 ? "them" : "it");
    if (strcmp(g->name, first->name) && !first->trouble[0])
        say(d,
            "GPU %d is a %s and GPU 0 a %s: every rank takes as much memory and time as the weakest; choose equal ones "
            "with "
            "CUDA_VISIBLE_DEVICES",
            i, g->name, first->name);
}

static void about_gpus(struct doctor *d) {
    about_cuda(d);
    bool peers = true;
    for (int i = 0; i < d->gpus.n; i++) about_gpu(d, i);
    for (int i = 0; i < d->gpus.n * d->gpus.n; i++) peers &= d->gpus.path[i].peer;
    if (d->gpus.n > 1 && !gpus_all_nvlink(&d->gpus, d->gpus.n))
        say(d, "not all GPUs are linked by NVLink: tensor parallelism works over PCIe, but slower; expect most of it "
               "at --tp 2, and "
               "choose linked GPUs with CUDA_VISIBLE_DEVICES where there are some");
    if (d->gpus.n > 1 && !peers)
        say(d, "not every GPU may read every other's memory (peer access): data goes through the host; look at IOMMU "
               "and ACS settings");
}

static void about_host(struct doctor *d) {
    const struct host_cpu *c = &d->host.cpu;
    const struct host_memory *m = &d->host.memory;
    if (c->quota > 0 && c->quota < c->allowed)
        say(d,
            "the control group allows %.2g processors' worth of time on %d processors: threads will be stopped in the "
            "middle of "
            "a step; give --threads %d",
            c->quota, c->allowed, c->quota >= 1 ? (int)c->quota : 1);
    if (m->group_limit && m->left < m->available)
        say(d,
            "the control group allows %.2f GB of memory, of which %.2f GB are left; the machine has %.2f GB available",
            (double)m->group_limit / 1e9, (double)m->left / 1e9, (double)m->available / 1e9);
}

static void about_model(struct doctor *d) {
    for (int i = 0; i < DOCTOR_DEGREES; i++)
        if (d->degree[i].fits) return;
    size_t longest = 0;
    int at = 0;
    for (int i = 0; i < DOCTOR_DEGREES; i++)
        if (d->degree[i].divides && (!d->on_gpu || d->degree[i].n_ranks <= d->gpus.n) &&
            d->degree[i].longest > longest) {
            longest = d->degree[i].longest;
            at = d->degree[i].n_ranks;
        }
    if (longest)
        say(d, "%s does not fit with sequences of %d tokens: give --tp %d --max-seq-len-override %zu", d->o->model,
            d->max_len, at, longest);
    else
        say(d, "%s does not fit on this machine: its weights alone are too large for every degree that divides it",
            d->o->model);
}

void doctor_advise(struct doctor *d) {
    if (d->gpus.n) about_gpus(d);
    about_host(d);
    about_model(d);
}
