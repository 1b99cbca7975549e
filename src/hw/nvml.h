/* nvml.h: the driver's management library, opened when asked for: the few functions of its public interface that are used here, declared
 * from its documentation so that no header of NVIDIA's is needed to build. Functions that are not `needed` in nvml.c's table may be NULL. */
#ifndef MINISGL_HW_NVML_H
#define MINISGL_HW_NVML_H
#include <stdbool.h>
#include <stddef.h>

typedef void *nv_device; /* an opaque handle */
enum { NV_OK = 0, NV_NOT_FOUND = 6, NV_TOO_SMALL = 7, NV_DRIVER_NOT_LOADED = 9, NV_MISMATCH = 18 };
enum { NV_SENSOR_GPU = 0, NV_CLOCK_SM = 1, NV_CORRECTED = 0, NV_UNCORRECTED = 1, NV_SINCE_LOAD = 0, NV_EVENT_DOUBLE_BIT = 2, NV_EVENT_XID = 8 };
enum { NV_REMOTE_GPU = 0, NV_REMOTE_SWITCH = 2, NV_P2P_READ = 0, NV_P2P_NVLINK = 2 };

struct nv_memory {
    unsigned long long total, free, used;
};
struct nv_pci {
    char bus_legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct nv_process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};
struct nv_event {
    nv_device device;
    unsigned long long type, data; /* data: the number of an Xid */
    unsigned gpu_instance, compute_instance;
};

struct nvml {
    void *library;
    int (*init)(void), (*shutdown)(void);
    const char *(*error)(int);
    int (*driver)(char *, unsigned), (*cuda)(int *), (*count)(unsigned *), (*handle)(unsigned, nv_device *);
    int (*name)(nv_device, char *, unsigned), (*uuid)(nv_device, char *, unsigned);
    int (*memory)(nv_device, struct nv_memory *), (*pci)(nv_device, struct nv_pci *);
    int (*capability)(nv_device, int *, int *);
    int (*pcie_generation)(nv_device, unsigned *), (*pcie_width)(nv_device, unsigned *);
    int (*mig)(nv_device, unsigned *, unsigned *);
    int (*processes)(nv_device, unsigned *, struct nv_process *);
    int (*link_state)(nv_device, unsigned, int *);
    int (*link_remote)(nv_device, unsigned, struct nv_pci *);
    int (*link_kind)(nv_device, unsigned, int *);
    int (*ancestor)(nv_device, nv_device, int *);
    int (*p2p)(nv_device, nv_device, int, int *);
    int (*by_bus)(const char *, nv_device *);
    int (*temperature)(nv_device, int, unsigned *);
    int (*clock)(nv_device, int, unsigned *);
    int (*slowed)(nv_device, unsigned long long *);
    int (*memory_errors)(nv_device, int, int, unsigned long long *);
    int (*remapped)(nv_device, unsigned *, unsigned *, unsigned *, unsigned *);
    int (*set_new)(void **), (*set_free)(void *);
    int (*watch)(nv_device, unsigned long long, void *);
    int (*next)(void *, struct nv_event *, unsigned);
};

/* False, and a sentence, where there is no driver, or one that does not start. Each open counts: close as often. */
bool nvml_open(struct nvml *v, char *why, size_t n);
void nvml_close(struct nvml *v);
/* The sentence for what a function returned. */
void nvml_why(const struct nvml *v, int rc, char *why, size_t n);

#endif
