/* gpu.c: see gpu.h. State lives for one call of gpus_read. */
#include "hw/gpu.h"

#include "base/mem.h"
#include "hw/nvml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- one GPU ---- */

static void name_process(struct gpu_process *p) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/comm", p->pid);
    FILE *f = fopen(path, "re");
    if (f && !fgets(p->name, sizeof p->name, f)) p->name[0] = 0;
    if (f) fclose(f);
    p->name[strcspn(p->name, "\n")] = 0;
}

static void read_processes(const struct nvml *v, nv_device d, struct gpu *g) {
    struct nv_process list[64];
    unsigned n = sizeof list / sizeof *list;
    int rc = v->processes ? v->processes(d, &n, list) : NV_NOT_FOUND;
    if (rc == NV_TOO_SMALL) g->n_processes = (int)n; /* more than anybody would read: told by number */
    if (rc != NV_OK) return;
    for (unsigned i = 0; i < n && i < sizeof list / sizeof *list; i++) {
        if (list[i].pid == (unsigned)getpid()) continue;
        if (g->n_listed < GPU_PROCESSES_MAX) {
            struct gpu_process *p = &g->process[g->n_listed++];
            p->pid = list[i].pid;
            p->memory = list[i].memory == ~0ull ? 0 : (size_t)list[i].memory;
            name_process(p);
        }
        g->n_processes++;
    }
}

static void read_links(const struct nvml *v, nv_device d, struct gpu *g) {
    for (unsigned l = 0; v->link_state && l < GPU_LINKS_MAX; l++) {
        int up = 0;
        if (v->link_state(d, l, &up) == NV_OK && up) g->n_links++;
    }
}

static void read_gpu(const struct nvml *v, nv_device d, struct gpu *g) {
    struct nv_memory m = {0};
    struct nv_pci pci = {0};
    unsigned now = 0, later = 0, x = 0;
    int rc = v->name(d, g->name, sizeof g->name);
    if (rc == NV_OK) rc = v->memory(d, &m);
    if (rc != NV_OK) {
        const char *says = v->error(rc);
        snprintf(g->trouble, sizeof g->trouble, "the driver cannot read it: %.80s", says ? says : "no reason");
    }
    g->memory = (size_t)m.total;
    g->free = (size_t)m.free;
    if (v->uuid && v->uuid(d, g->uuid, sizeof g->uuid) != NV_OK) g->uuid[0] = 0;
    if (v->pci && v->pci(d, &pci) == NV_OK) snprintf(g->bus, sizeof g->bus, "%.31s", pci.bus_id);
    if (v->capability && v->capability(d, &g->major, &g->minor) != NV_OK) g->major = g->minor = 0;
    if (v->pcie_generation && v->pcie_generation(d, &x) == NV_OK) g->pcie_generation = (int)x;
    if (v->pcie_width && v->pcie_width(d, &x) == NV_OK) g->pcie_width = (int)x;
    gpu_state_read(&g->state, v, d);
    g->mig = v->mig && v->mig(d, &now, &later) == NV_OK && now;
    read_links(v, d, g);
    read_processes(v, d, g);
}

/* ---- between GPUs ---- */

/* A link's other end is this GPU, or a switch: GPUs with links to switches all reach each other. */
static bool linked_to(const struct nvml *v, nv_device d, const struct gpu *to) {
    for (unsigned l = 0; v->link_state && v->link_remote && l < GPU_LINKS_MAX; l++) {
        int up = 0, kind = NV_REMOTE_GPU;
        struct nv_pci other = {0};
        if (v->link_state(d, l, &up) != NV_OK || !up) continue;
        if (v->link_kind && v->link_kind(d, l, &kind) == NV_OK && kind == NV_REMOTE_SWITCH) return to->n_links > 0;
        if (v->link_remote(d, l, &other) == NV_OK && to->bus[0] && !strcasecmp(other.bus_id, to->bus)) return true;
    }
    return false;
}

static enum gpu_way way_of(int ancestor) {
    switch (ancestor) {
    case 0: return GPU_BOARD;
    case 10: return GPU_SWITCH;
    case 20: return GPU_SWITCHES;
    case 30: return GPU_BRIDGE;
    case 40: return GPU_NODE;
    case 50: return GPU_SYSTEM;
    default: return GPU_UNKNOWN;
    }
}

static struct gpu_path path_of(const struct nvml *v, nv_device a, nv_device b, const struct gpu *to) {
    struct gpu_path p = {.way = GPU_UNKNOWN};
    int ancestor, status;
    p.peer = v->p2p && v->p2p(a, b, NV_P2P_READ, &status) == NV_OK && status == 0;
    bool nvlink = v->p2p && v->p2p(a, b, NV_P2P_NVLINK, &status) == NV_OK && status == 0;
    if (nvlink || linked_to(v, a, to))
        p.way = GPU_NVLINK;
    else if (v->ancestor && v->ancestor(a, b, &ancestor) == NV_OK)
        p.way = way_of(ancestor);
    return p;
}

static void read_paths(const struct nvml *v, const nv_device *d, struct gpus *g) {
    for (int i = 0; i < g->n; i++)
        for (int j = 0; j < g->n; j++)
            g->path[i * g->n + j] = i == j ? (struct gpu_path){GPU_SELF, true} : path_of(v, d[i], d[j], &g->gpu[j]);
}

static void read_all(const struct nvml *v, struct gpus *g) {
    unsigned n = 0;
    if (v->driver && v->driver(g->driver, sizeof g->driver) != NV_OK) g->driver[0] = 0;
    if (v->cuda && v->cuda(&g->cuda) != NV_OK) g->cuda = 0;
    int rc = v->count(&n);
    if (rc != NV_OK || !n) {
        if (rc != NV_OK)
            nvml_why(v, rc, g->why, sizeof g->why);
        else
            snprintf(g->why, sizeof g->why,
                     "the NVIDIA driver finds no GPU; in a container, give it the GPUs (--gpus all)");
        return;
    }
    nv_device *d = mem_zalloc(n, sizeof *d);
    g->n = (int)n;
    g->gpu = mem_zalloc(n, sizeof *g->gpu);
    g->path = mem_zalloc((size_t)n * n, sizeof *g->path);
    for (unsigned i = 0; i < n; i++) {
        rc = v->handle(i, &d[i]);
        if (rc == NV_OK)
            read_gpu(v, d[i], &g->gpu[i]);
        else
            snprintf(g->gpu[i].trouble, sizeof g->gpu[i].trouble, "the driver does not open it: %.80s", v->error(rc));
    }
    read_paths(v, d, g);
    free(d);
}

void gpus_read(struct gpus *g) {
    struct nvml v;
    *g = (struct gpus){0};
    if (!nvml_open(&v, g->why, sizeof g->why)) return;
    read_all(&v, g);
    nvml_close(&v);
}

void gpus_release(struct gpus *g) {
    free(g->gpu);
    free(g->path);
    *g = (struct gpus){0};
}

/* ---- words ---- */

const char *gpu_way_name(enum gpu_way way) {
    static const char *const names[] = {"-",           "NVLink",    "board",          "PCIe switch", "PCIe switches",
                                        "host bridge", "NUMA node", "across sockets", "unknown"};
    return names[way];
}

bool gpus_all_nvlink(const struct gpus *g, int n) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (i != j && g->path[i * g->n + j].way != GPU_NVLINK) return false;
    return true;
}

int gpus_enough(const struct gpus *g, int n, struct err *e) {
    if (g->n >= n) return 0;
    return err_input(e, "%d ranks need %d GPUs and this machine has %d (`nvidia-smi --list-gpus` lists them): give a --tp of at most %d, start "
                        "one process a host with mpirun, or compute on the processor with --device cpu",
                     n, n, g->n, g->n >= 8 ? 8 : g->n >= 4 ? 4 : g->n >= 2 ? 2 : 1);
}

int gpus_named(const char *text, int32_t *ordinals, int32_t max, int32_t *n) {
    char *end = (char *)(uintptr_t)text;
    for (*n = 0; *n < max; end++) {
        long v = *end >= '0' && *end <= '9' ? strtol(end, &end, 10) : -1;
        if (v < 0 || v > 255) return -1;
        ordinals[(*n)++] = (int32_t)v;
        if (!*end) return 0;
        if (*end != ',') return -1;
    }
    return -1;
}
