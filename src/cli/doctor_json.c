/* doctor_json.c: the report of `minisgl doctor --json`, on standard output. Sizes are bytes; what is not known is null.
 * No state. */
#include "cli/doctor.h"

#include "version.h"

#include <jansson.h>
#include <stdio.h>

static json_t *size(size_t n) { return json_integer((json_int_t)n); }

/* Names of folders and processes may be no UTF-8. */
static json_t *words(const char *s) {
    json_t *j = json_string(s);
    if (j) return j;
    char plain[512];
    snprintf(plain, sizeof plain, "%s", s);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    return json_string(plain);
}

static json_t *text(const char *s) { return s[0] ? words(s) : json_null(); }
static json_t *positive(double x) { return x > 0 ? json_real(x) : json_null(); }
static json_t *count(int n) { return n > 0 ? json_integer(n) : json_null(); }

static json_t *cuda_version(int v) { return v ? json_sprintf("%d.%d", v / 1000, v % 1000 / 10) : json_null(); }

static json_t *process(const struct gpu_process *p) {
    return json_pack("{s:I, s:o, s:o}", "pid", (json_int_t)p->pid, "name", text(p->name), "memory",
                     p->memory ? size(p->memory) : json_null());
}

static json_t *gpu(const struct gpu *g) {
    json_t *processes = json_array();
    for (int i = 0; i < g->n_listed; i++)
        json_array_append_new(processes, process(&g->process[i]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:b, s:i, s:o, s:o}", "name", text(g->name), "uuid",
                     text(g->uuid), "bus", text(g->bus), "memory", size(g->memory), "free", size(g->free),
                     "compute_capability", g->major ? json_sprintf("%d.%d", g->major, g->minor) : json_null(),
                     "pcie_generation", count(g->pcie_generation), "pcie_width", count(g->pcie_width), "nvlinks",
                     g->n_links, "mig", (int)g->mig, "n_processes", g->n_processes, "processes", processes, "trouble",
                     text(g->trouble));
}

static json_t *topology(const struct gpus *g) {
    json_t *rows = json_array();
    for (int i = 0; i < g->n; i++) {
        json_t *row = json_array();
        for (int j = 0; j < g->n; j++) {
            const struct gpu_path *p = &g->path[i * g->n + j];
            json_array_append_new(row,
                                  json_pack("{s:s, s:b}", "way", gpu_way_name(p->way), "peer_access", (int)p->peer));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *libraries(const struct doctor *d) {
    json_t *list = json_array();
    for (int i = 0; i < d->n_libraries; i++) {
        const struct dev_library *l = &d->library[i];
        json_array_append_new(list, json_pack("{s:s, s:b, s:o, s:o, s:o}", "name", l->name, "found", (int)l->found, "version", text(l->version),
                                              "path", text(l->path), "why", text(l->why)));
    }
    return list;
}

static json_t *gpus(const struct doctor *d) {
    const struct gpus *g = &d->gpus;
    int built = d->cuda_built;
    json_t *list = json_array();
    for (int i = 0; i < g->n; i++) json_array_append_new(list, gpu(&g->gpu[i]));
    return json_pack("{s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "count", g->n, "why_none", text(g->why), "driver",
                     text(g->driver), "cuda_of_driver", cuda_version(g->cuda), "cuda_built_for", cuda_version(built),
                     "cuda_fits", built && g->cuda ? json_boolean(g->cuda >= built) : json_null(), "all_nvlink",
                     g->n > 1 ? json_boolean(gpus_all_nvlink(g, g->n)) : json_null(), "list", list, "topology",
                     topology(g), "libraries", libraries(d));
}

static json_t *cpu(const struct doctor *d) {
    const struct host_cpu *c = &d->host.cpu;
    json_t *nodes = json_array();
    for (int i = 0; i < d->host.n_nodes; i++) {
        const struct host_node *n = &d->host.node[i];
        json_array_append_new(nodes, json_pack("{s:i, s:s, s:o, s:o}", "id", n->id, "processors", n->cpus, "memory",
                                               size(n->memory), "free", size(n->free)));
    }
    return json_pack("{s:o, s:i, s:i, s:o, s:o, s:o, s:o, s:o}", "model", text(c->model), "online", c->online,
                     "allowed", c->allowed, "sockets", count(c->sockets), "threads_per_core",
                     count(c->threads_per_core), "quota", positive(c->quota), "kernels", text(d->isa), "numa", nodes);
}

static json_t *memory(const struct doctor *d) {
    const struct host_memory *m = &d->host.memory;
    json_t *measured = json_null();
    if (d->bandwidth.read > 0)
        measured = json_pack("{s:i, s:o, s:f, s:f}", "threads", d->bandwidth.threads, "bytes", size(d->bandwidth.bytes),
                             "read", d->bandwidth.read, "copy", d->bandwidth.copy);
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "total", size(m->total), "available", size(m->available),
                     "group_limit", m->group_limit ? size(m->group_limit) : json_null(), "group_used",
                     m->group_limit ? size(m->group_used) : json_null(), "left", size(m->left), "bandwidth", measured);
}

static json_t *degree(const struct doctor_degree *g) {
    json_t *j = json_pack("{s:i, s:b, s:b, s:o}", "tp", g->n_ranks, "divides", (int)g->divides, "fits", (int)g->fits,
                          "why", text(g->why));
    if (!g->divides) return j;
    json_object_set_new(j, "weights", size(g->fit.weights));
    json_object_set_new(j, "kv", size(g->fit.kv));
    json_object_set_new(j, "buffers", size(g->fit.buffers));
    json_object_set_new(j, "needed", size(g->needed));
    json_object_set_new(j, "had", size(g->had));
    json_object_set_new(j, "longest_sequence", size(g->longest));
    json_object_set_new(j, "tokens_per_second_at_most", positive(g->rate));
    return j;
}

static json_t *model(const struct doctor *d) {
    json_t *degrees = json_array();
    for (int i = 0; i < DOCTOR_DEGREES; i++) json_array_append_new(degrees, degree(&d->degree[i]));
    return json_pack("{s:o, s:s, s:i, s:s, s:s, s:i, s:s, s:o}", "name", words(d->o->model), "architecture",
                     d->config.arch->name, "layers", d->config.n_layers, "dtype", dtype_name(d->formats.dtype),
                     "kv_cache_dtype", dtype_name(d->formats.kv_dtype),
                     "longest_sequence", d->max_len, "ranks_on", d->on_gpu ? "gpu" : "cpu", "degrees", degrees);
}

static json_t *ranks(const struct doctor_ranks *r) {
    if (!(r->small > 0)) return json_null();
    return json_pack("{s:i, s:i, s:f, s:i, s:f}", "ranks", r->n, "small", DOCTOR_SMALL, "small_seconds", r->small,
                     "large", DOCTOR_LARGE, "large_seconds", r->large);
}

void doctor_json(const struct doctor *d) {
    json_t *advice = json_array();
    for (int i = 0; i < d->n_advice; i++) json_array_append_new(advice, words(d->advice[i]));
    json_t *mpi = json_pack("{s:b, s:o}", "found", d->mpirun[0] != 0, "version", text(d->mpirun));
    json_t *all = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version", MINISGL_VERSION, "device",
                            d->maker->name, "why_cpu", text(d->why_cpu), "gpus", gpus(d), "cpu", cpu(d), "memory",
                            memory(d), "all_reduce", ranks(&d->ranks), "mpi", mpi, "model", model(d), "advice", advice);
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
}
