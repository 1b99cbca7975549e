/* health.c: the GPU's state in one line, from NVML, which is opened when it is wanted (it comes with the driver, not with the
 * toolkit, and no header of it is needed to build). Called when something broke, and at start. No state. */
#include "dev/cuda/cuda.h"

#include <dlfcn.h>
#include <stdio.h>

struct nvml {
    void *lib;
    int (*init)(void);
    int (*shutdown)(void);
    int (*handle)(const char *bus, void **device);
    int (*temperature)(void *device, int sensor, unsigned *t);
    int (*clock)(void *device, int type, unsigned *mhz);
    int (*ecc)(void *device, int type, int counter, unsigned long long *n);
    int (*reasons)(void *device, unsigned long long *bits);
};

static void load(void *to, void *lib, const char *name) { *(void **)to = dlsym(lib, name); }

static int nvml_open(struct nvml *n) {
    n->lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->lib) return -1;
    load(&n->init, n->lib, "nvmlInit_v2");
    load(&n->shutdown, n->lib, "nvmlShutdown");
    load(&n->handle, n->lib, "nvmlDeviceGetHandleByPciBusId_v2");
    load(&n->temperature, n->lib, "nvmlDeviceGetTemperature");
    load(&n->clock, n->lib, "nvmlDeviceGetClockInfo");
    load(&n->ecc, n->lib, "nvmlDeviceGetTotalEccErrors");
    load(&n->reasons, n->lib, "nvmlDeviceGetCurrentClocksThrottleReasons");
    if (n->init && n->shutdown && n->handle && n->init() == 0) return 0;
    dlclose(n->lib);
    return -1;
}

void health_describe(int32_t gpu, char *text, size_t size) {
    enum { GPU_SENSOR = 0, SM_CLOCK = 1, UNCORRECTED = 1, SINCE_BOOT = 0 };
    struct nvml n;
    char bus[32];
    void *dev;
    text[0] = 0;
    if (cudaDeviceGetPCIBusId(bus, sizeof bus, gpu) || nvml_open(&n)) return;
    if (n.handle(bus, &dev) == 0) {
        unsigned t = 0, mhz = 0;
        unsigned long long ecc = 0, why = 0;
        if (n.temperature) n.temperature(dev, GPU_SENSOR, &t);
        if (n.clock) n.clock(dev, SM_CLOCK, &mhz);
        if (n.ecc) n.ecc(dev, UNCORRECTED, SINCE_BOOT, &ecc);
        if (n.reasons) n.reasons(dev, &why);
        snprintf(text, size, "GPU %d at %s: %u degrees, %u MHz, %llu uncorrected memory errors since boot, throttle bits %#llx", gpu, bus, t,
                 mhz, ecc, why);
    }
    n.shutdown();
    dlclose(n.lib);
}
