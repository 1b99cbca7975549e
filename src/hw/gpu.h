/* gpu.h: the GPUs of this machine, as the driver's management library (NVML) tells of them.
 *
 * The library is opened when asked for and closed again: a machine without it has no GPU, which is a normal answer
 * and comes with a sentence that says why. Nothing here starts a CUDA context. Source: NVIDIA's NVML API reference;
 * only functions that every driver since R515 has are needed, and each of the others may be absent. */
#ifndef MINISGL_HW_GPU_H
#define MINISGL_HW_GPU_H
#include "base/err.h"
#include "hw/health.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPU_PROCESSES_MAX = 16, GPU_LINKS_MAX = 18 };

struct gpu_process {
    unsigned pid;
    size_t memory; /* bytes on the GPU; 0: the driver does not tell (in a container) */
    char name[64]; /* empty: in another container */
};

struct gpu {
    char name[96], uuid[96], bus[32]; /* bus: "00000000:17:00.0" */
    size_t memory, free;              /* bytes */
    int major, minor;                 /* compute capability; 0.0: not told */
    int pcie_generation, pcie_width;  /* the most that card and slot can; 0: not told */
    int n_links;                      /* NVLinks that are up */
    struct gpu_state state;
    bool mig;                         /* cut into instances: tensor parallelism needs whole GPUs */
    int n_processes, n_listed;        /* others on this GPU; the first of them are listed */
    struct gpu_process process[GPU_PROCESSES_MAX];
    char trouble[128]; /* what the driver could not tell of it; empty: all well */
};

/* How two GPUs reach each other, from the nearest on. */
enum gpu_way {
    GPU_SELF,
    GPU_NVLINK,
    GPU_BOARD,
    GPU_SWITCH,
    GPU_SWITCHES,
    GPU_BRIDGE,
    GPU_NODE,
    GPU_SYSTEM,
    GPU_UNKNOWN
};

struct gpu_path {
    enum gpu_way way;
    bool peer; /* each may read the other's memory */
};

struct gpus {
    int n;
    struct gpu *gpu;       /* [n] */
    struct gpu_path *path; /* [n][n] */
    char driver[96];       /* "580.159.04"; empty: not told */
    int cuda;              /* newest CUDA that the driver runs: 1000 * major + 10 * minor; 0: not told */
    char why[256];         /* n == 0: a sentence */
};

void gpus_read(struct gpus *g);
void gpus_release(struct gpus *g);
/* That each of n ranks of this machine can have a GPU of its own; -1: *e names how many there are. */
int gpus_enough(const struct gpus *g, int n, struct err *e);
/* CUDA ordinals parted by commas, 1 to `max` of them. -1: that is not what the text is. */
int gpus_named(const char *text, int32_t *ordinals, int32_t max, int32_t *n);

const char *gpu_way_name(enum gpu_way way); /* short, for a table: "NVLink", "PCIe switch" */
/* Every pair of the first n reaches each other over NVLink. */
bool gpus_all_nvlink(const struct gpus *g, int n);

#endif
