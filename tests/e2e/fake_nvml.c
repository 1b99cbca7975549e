/* fake_nvml.c: a libnvidia-ml.so.1 for tests: GPUs as the environment tells, by the public interface of NVML.
 * FAKE_GPUS: how many; FAKE_LINKS: NVLinks of each (to switches); FAKE_ERROR: what nvmlInit_v2 returns; FAKE_BROKEN: the GPU
 * that answers with an error; FAKE_CUDA: as 12040; FAKE_MIG, FAKE_ODD: the GPU that is cut, or of another name; FAKE_BUSY:
 * processes on GPU 0; FAKE_P2P: 0 for no peer access; FAKE_SLOWED: bits of throttling; FAKE_LOST, FAKE_MENDED: memory errors, and so many
 * more each time they are asked for; FAKE_ROWS: 1 pending, 2 failed; FAKE_XIDS: "79 48", reports that wait, "ecc" among them a memory error;
 * FAKE_EVENTS: 0 when not supported. Compiled with -DOLD it lacks what old drivers lack. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct gpu *device;
static int number(const char *name, int otherwise) {
    const char *s = getenv(name);
    return s ? atoi(s) : otherwise;
}
static int index_of(device d) { return (int)((size_t)d - 1); }
static int broken(device d) { return index_of(d) == number("FAKE_BROKEN", -1); }

int nvmlInit_v2(void) { return number("FAKE_ERROR", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int rc) { return rc == 9 ? "Driver Not Loaded" : rc == 15 ? "GPU is lost" : "Unknown Error"; }
int nvmlDeviceGetCount_v2(unsigned *n) { return *n = (unsigned)number("FAKE_GPUS", 0), 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *d) { return *d = (device)(size_t)(i + 1), 0; }
int nvmlDeviceGetName(device d, char *s, unsigned n) {
    snprintf(s, n, index_of(d) == number("FAKE_ODD", -1) ? "NVIDIA L4" : "NVIDIA H100 80GB HBM3");
    return broken(d) ? 15 : 0;
}
int nvmlDeviceGetMemoryInfo(device d, unsigned long long *m) {
    m[0] = 80ull << 30, m[2] = index_of(d) == 0 && number("FAKE_BUSY", 0) ? 70ull << 30 : 1ull << 30;
    m[1] = m[0] - m[2];
    return 0;
}
#ifndef OLD
int nvmlSystemGetDriverVersion(char *s, unsigned n) { return snprintf(s, n, "580.159.04"), 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { return *v = number("FAKE_CUDA", 13000), 0; }
int nvmlDeviceGetUUID(device d, char *s, unsigned n) { return snprintf(s, n, "GPU-00000000-0000-0000-0000-%012d", index_of(d)), 0; }
int nvmlDeviceGetPciInfo_v3(device d, void *p) { return snprintf((char *)p + 36, 32, "00000000:%02X:00.0", index_of(d) + 16), 0; }
int nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) { return (void)d, *major = 9, *minor = 0, 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(device d, unsigned *x) { return (void)d, *x = 5, 0; }
int nvmlDeviceGetMaxPcieLinkWidth(device d, unsigned *x) { return (void)d, *x = 16, 0; }
int nvmlDeviceGetMigMode(device d, unsigned *now, unsigned *later) {
    return *now = *later = index_of(d) == number("FAKE_MIG", -1), 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *n, void *list) {
    struct {
        unsigned pid;
        unsigned long long memory;
        unsigned a, b;
    } *p = list;
    unsigned have = index_of(d) == 0 ? (unsigned)number("FAKE_BUSY", 0) : 0;
    if (have > *n) return *n = have, 7;
    for (unsigned i = 0; i < have; i++) p[i].pid = i + 1, p[i].memory = 1ull << 30, p[i].a = p[i].b = ~0u;
    return *n = have, 0;
}
int nvmlDeviceGetNvLinkState(device d, unsigned link, int *up) {
    (void)d;
    if (!number("FAKE_LINKS", 0)) return 3; /* not supported */
    return *up = (int)link < number("FAKE_LINKS", 0), 0;
}
int nvmlDeviceGetNvLinkRemoteDeviceType(device d, unsigned link, int *kind) { return (void)d, (void)link, *kind = 2, 0; }
int nvmlDeviceGetNvLinkRemotePciInfo_v2(device d, unsigned link, void *p) { return (void)d, (void)link, (void)p, 3; }
int nvmlDeviceGetTopologyCommonAncestor(device a, device b, int *level) {
    return *level = index_of(a) / 4 == index_of(b) / 4 ? 40 : 50, 0;
}
int nvmlDeviceGetP2PStatus(device a, device b, int what, int *status) {
    (void)a, (void)b;
    return *status = what == 2 ? !number("FAKE_LINKS", 0) : !number("FAKE_P2P", 1), 0;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, device *d) {
    return *d = (device)(size_t)(strtoul(strchr(bus, ':') + 1, NULL, 16) - 16 + 1), 0;
}
int nvmlDeviceGetTemperature(device d, int sensor, unsigned *t) { return (void)d, (void)sensor, *t = 61, 0; }
int nvmlDeviceGetClockInfo(device d, int kind, unsigned *mhz) { return (void)d, *mhz = kind == 1 ? 1980 : 0, 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(device d, unsigned long long *bits) {
    return (void)d, *bits = (unsigned long long)number("FAKE_SLOWED", 0), 0;
}
int nvmlDeviceGetTotalEccErrors(device d, int kind, int counter, unsigned long long *n) {
    static int asked[2];
    (void)d;
    if (counter != 0) return 2;
    return *n = (unsigned long long)(number(kind ? "FAKE_LOST" : "FAKE_MENDED", 0) * ++asked[kind]), 0;
}
int nvmlDeviceGetRemappedRows(device d, unsigned *a, unsigned *b, unsigned *pending, unsigned *failed) {
    (void)d;
    return *a = *b = 0, *pending = number("FAKE_ROWS", 0) == 1, *failed = number("FAKE_ROWS", 0) == 2, 0;
}
int nvmlEventSetCreate(void **set) { return number("FAKE_EVENTS", 1) ? (*set = malloc(1), 0) : 3; }
int nvmlEventSetFree(void *set) { return free(set), 0; }
int nvmlDeviceRegisterEvents(device d, unsigned long long what, void *set) { return (void)d, (void)set, what == (8 | 2) ? 0 : 2; }
int nvmlEventSetWait_v2(void *set, void *event, unsigned ms) {
    static int taken;
    struct {
        device d;
        unsigned long long type, data;
        unsigned a, b;
    } *ev = event;
    const char *s = getenv("FAKE_XIDS");
    (void)set, (void)ms;
    for (int i = 0; s && *s; i++) {
        size_t n = strcspn(s, " ");
        if (i == taken) {
            taken++;
            return ev->type = *s == 'e' ? 2 : 8, ev->data = (unsigned long long)atoi(s), 0;
        }
        s += n + (s[n] == ' ');
    }
    return 10; /* nothing came in time */
}
#endif
