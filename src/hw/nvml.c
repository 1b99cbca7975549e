/* nvml.c: see nvml.h. The library is loaded for one struct nvml and let go with it; no other state. */
#include "hw/nvml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct nvml, field)
static const struct {
    const char *name;
    size_t at;
    bool needed;
} functions[] = {
    {"nvmlInit_v2", AT(init), true},
    {"nvmlShutdown", AT(shutdown), true},
    {"nvmlErrorString", AT(error), true},
    {"nvmlDeviceGetCount_v2", AT(count), true},
    {"nvmlDeviceGetHandleByIndex_v2", AT(handle), true},
    {"nvmlDeviceGetName", AT(name), true},
    {"nvmlDeviceGetMemoryInfo", AT(memory), true},
    {"nvmlSystemGetDriverVersion", AT(driver), false},
    {"nvmlSystemGetCudaDriverVersion_v2", AT(cuda), false},
    {"nvmlDeviceGetUUID", AT(uuid), false},
    {"nvmlDeviceGetPciInfo_v3", AT(pci), false},
    {"nvmlDeviceGetCudaComputeCapability", AT(capability), false},
    {"nvmlDeviceGetMaxPcieLinkGeneration", AT(pcie_generation), false},
    {"nvmlDeviceGetMaxPcieLinkWidth", AT(pcie_width), false},
    {"nvmlDeviceGetMigMode", AT(mig), false},
    {"nvmlDeviceGetComputeRunningProcesses_v3", AT(processes), false},
    {"nvmlDeviceGetNvLinkState", AT(link_state), false},
    {"nvmlDeviceGetNvLinkRemotePciInfo_v2", AT(link_remote), false},
    {"nvmlDeviceGetNvLinkRemoteDeviceType", AT(link_kind), false},
    {"nvmlDeviceGetTopologyCommonAncestor", AT(ancestor), false},
    {"nvmlDeviceGetP2PStatus", AT(p2p), false},
    {"nvmlDeviceGetHandleByPciBusId_v2", AT(by_bus), false},
    {"nvmlDeviceGetTemperature", AT(temperature), false},
    {"nvmlDeviceGetClockInfo", AT(clock), false},
    {"nvmlDeviceGetCurrentClocksThrottleReasons", AT(slowed), false},
    {"nvmlDeviceGetTotalEccErrors", AT(memory_errors), false},
    {"nvmlDeviceGetRemappedRows", AT(remapped), false},
    {"nvmlEventSetCreate", AT(set_new), false},
    {"nvmlEventSetFree", AT(set_free), false},
    {"nvmlDeviceRegisterEvents", AT(watch), false},
    {"nvmlEventSetWait_v2", AT(next), false},
};

static bool resolve(struct nvml *v, char *why, size_t n) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *f = dlsym(v->library, functions[i].name);
        if (!f && functions[i].needed) {
            snprintf(why, n, "libnvidia-ml.so.1 has no %s: the NVIDIA driver is too old; install R515 or newer",
                     functions[i].name);
            return false;
        }
        memcpy((char *)v + functions[i].at, &f, sizeof f); /* C has no cast from data to function */
    }
    return true;
}

void nvml_why(const struct nvml *v, int rc, char *why, size_t n) {
    const char *says = v->error(rc);
    const char *hint = rc == NV_DRIVER_NOT_LOADED ? "load the driver (modprobe nvidia), or give the container the GPUs"
                       : rc == NV_MISMATCH        ? "the driver was updated and not reloaded: restart the machine"
                                                  : "try `nvidia-smi`, which asks the same library";
    snprintf(why, n, "the NVIDIA driver's library does not start: %.100s; %s", says ? says : "no reason", hint);
}

bool nvml_open(struct nvml *v, char *why, size_t n) {
    *v = (struct nvml){.library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)};
    if (!v->library) {
        snprintf(why, n, "no NVIDIA driver is installed (libnvidia-ml.so.1 is not found)");
        return false;
    }
    if (resolve(v, why, n)) {
        int rc = v->init();
        if (rc == NV_OK) return true;
        nvml_why(v, rc, why, n);
    }
    dlclose(v->library);
    return false;
}

void nvml_close(struct nvml *v) {
    v->shutdown();
    dlclose(v->library);
}
