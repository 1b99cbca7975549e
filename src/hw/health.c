/* health.c: see health.h. A struct gpu_health belongs to the thread that opened it; it starts no thread: reports wait in the driver until
 * they are asked for. It never fails for want of an answer. */
#include "hw/health.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { XIDS_MAX = 4, REPORT_WAIT_MS = 200, REPORTS_MAX = 64 };

struct gpu_health {
    struct nvml nvml;
    nv_device device;
    void *set; /* of events; NULL: not supported here */
    char bus[32];
    struct gpu_state first; /* when it was opened */
    unsigned long long xid[XIDS_MAX];
    int n_xids, n_double_bit; /* different Xids; reports of memory errors */
};

/* ---- words ---- */

static const struct {
    unsigned number;
    const char *meaning;
} xids[] = {
    {13, "a kernel did something illegal: most often a bug of a kernel, sometimes a bad GPU; `minisgl selftest --device cuda` tells"},
    {31, "a kernel used memory that is not its own: most often a bug of a kernel; `minisgl selftest --device cuda` tells"},
    {32, "commands came spoilt to the GPU: look at the PCIe slot and risers, and update the driver"},
    {38, "the driver's firmware failed: update the driver"},
    {43, "the GPU ended this program's work after an error of the program; the GPU itself is well"},
    {45, "the driver ended this program's work after another error, or because the program was killed: look for what came before"},
    {48, "memory lost two bits of a word, which cannot be corrected: reset the GPU (nvidia-smi -r); if it comes again, have it replaced"},
    {61, "a controller inside the GPU stopped: reset the GPU, and update the driver"},
    {62, "a controller inside the GPU halted: reset the GPU, and update the driver; if it comes again, have it replaced"},
    {63, "a bad row of memory was put down for replacement by a spare one: reset the GPU when it is idle"},
    {64, "a bad row of memory could not be put down for replacement: reset the GPU; if it comes again, have it replaced"},
    {69, "a kernel gave the GPU an order that it does not know: update the driver"},
    {74, "an NVLink failed: look at `nvidia-smi nvlink -e` and the bridges or the switch, then reset the GPUs"},
    {79, "the GPU is gone from the bus: restart the machine; look at power, cooling and how the card sits"},
    {92, "many memory errors were corrected: the GPU goes on, but watch it; reset it when it is idle"},
    {94, "memory was lost, of this program alone: start it again, and reset the GPU when it is idle"},
    {95, "memory was lost, and not only of one program: reset the GPU before it is used again"},
    {109, "the GPU did not change to other work in time: reset the GPU, and update the driver"},
    {119, "the GPU's system processor did not answer the driver: reset the GPU or restart the machine, and update the driver"},
    {120, "the GPU's system processor failed: reset the GPU or restart the machine, and update the driver"},
    {140, "memory was lost and the GPU could not recover by itself: reset it; if it comes again, have it replaced"},
    {154, "the driver asks for a reset or a restart before the GPU is used again: `nvidia-smi -q` says which"},
};

const char *gpu_xid_meaning(unsigned long long number) {
    for (size_t i = 0; i < sizeof xids / sizeof *xids; i++)
        if (xids[i].number == number) return xids[i].meaning;
    return "NVIDIA's list of Xid errors tells what it means";
}

static void add(char *text, size_t n, const char *between, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void add(char *text, size_t n, const char *between, const char *fmt, ...) {
    size_t at = strlen(text);
    if (at) at += (size_t)snprintf(text + at, n - at, "%s", between);
    if (at >= n) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text + at, n - at, fmt, ap);
    va_end(ap);
}

void gpu_slowed_names(unsigned long long slowed, bool grave, char *text, size_t n) {
    static const struct {
        unsigned bit;
        bool grave;
        const char *name;
    } names[] = {{0x02, false, "a clock that was set"},      {0x04, false, "the power limit"},
                 {0x08, true, "its own protection"},         {0x10, false, "keeping step with other GPUs"},
                 {0x20, true, "heat (by the driver)"},       {0x40, true, "heat (by the hardware)"},
                 {0x80, true, "a failing power supply"}};
    text[0] = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (slowed & names[i].bit && (names[i].grave || !grave)) add(text, n, ", ", "%s", names[i].name);
}

/* ---- the state ---- */

static unsigned long long errors(const struct nvml *v, nv_device d, int kind) {
    unsigned long long n = 0;
    return v->memory_errors && v->memory_errors(d, kind, NV_SINCE_LOAD, &n) == NV_OK ? n : 0;
}

void gpu_state_read(struct gpu_state *s, const struct nvml *v, nv_device d) {
    unsigned x = 0, corrected = 0, uncorrected = 0, pending = 0, failed = 0;
    *s = (struct gpu_state){.degrees = -1, .mhz = -1};
    if (v->temperature && v->temperature(d, NV_SENSOR_GPU, &x) == NV_OK) s->degrees = (int)x;
    if (v->clock && v->clock(d, NV_CLOCK_SM, &x) == NV_OK) s->mhz = (int)x;
    if (v->slowed && v->slowed(d, &s->slowed) != NV_OK) s->slowed = 0;
    s->corrected = errors(v, d, NV_CORRECTED);
    s->uncorrected = errors(v, d, NV_UNCORRECTED);
    if (v->remapped && v->remapped(d, &corrected, &uncorrected, &pending, &failed) == NV_OK) {
        s->rows_pending = pending != 0;
        s->rows_failed = failed != 0;
    }
}

/* ---- watching ---- */

static void watch(struct gpu_health *h) {
    const struct nvml *v = &h->nvml;
    if (!v->set_new || !v->set_free || !v->watch || !v->next || v->set_new(&h->set) != NV_OK) {
        h->set = NULL;
        return;
    }
    if (v->watch(h->device, NV_EVENT_XID | NV_EVENT_DOUBLE_BIT, h->set) == NV_OK) return;
    v->set_free(h->set);
    h->set = NULL;
}

struct gpu_health *gpu_health_open(const char *bus) {
    char why[256];
    struct gpu_health *h = mem_zalloc(1, sizeof *h);
    if (!nvml_open(&h->nvml, why, sizeof why)) {
        free(h);
        return NULL;
    }
    if (!h->nvml.by_bus || h->nvml.by_bus(bus, &h->device) != NV_OK) {
        nvml_close(&h->nvml);
        free(h);
        return NULL;
    }
    snprintf(h->bus, sizeof h->bus, "%s", bus);
    gpu_state_read(&h->first, &h->nvml, h->device);
    watch(h);
    return h;
}

void gpu_health_close(struct gpu_health *h) {
    if (!h) return;
    if (h->set) h->nvml.set_free(h->set);
    nvml_close(&h->nvml);
    free(h);
}

static void note(struct gpu_health *h, const struct nv_event *ev) {
    if (ev->type == NV_EVENT_DOUBLE_BIT) h->n_double_bit++;
    if (ev->type != NV_EVENT_XID) return;
    for (int i = 0; i < h->n_xids; i++)
        if (h->xid[i] == ev->data) return;
    if (h->n_xids < XIDS_MAX) h->xid[h->n_xids++] = ev->data;
}

static void take_reports(struct gpu_health *h) {
    struct nv_event ev;
    for (int i = 0; h->set && i < REPORTS_MAX; i++) {
        if (h->nvml.next(h->set, &ev, i || h->n_xids ? 0 : REPORT_WAIT_MS) != NV_OK) return;
        note(h, &ev);
    }
}

static void add_memory(const struct gpu_health *h, const struct gpu_state *s, char *text, size_t n) {
    unsigned long long lost = s->uncorrected - h->first.uncorrected, mended = s->corrected - h->first.corrected;
    if (s->uncorrected > h->first.uncorrected) add(text, n, "; ", "%llu uncorrectable memory error%s since the start", lost, lost > 1 ? "s" : "");
    else if (h->n_double_bit) add(text, n, "; ", "an uncorrectable memory error since the start");
    if (s->corrected > h->first.corrected) add(text, n, "; ", "%llu memory error%s corrected since the start", mended, mended > 1 ? "s" : "");
    if (s->rows_failed) add(text, n, "; ", "bad rows of memory could not be replaced: have the GPU replaced");
    else if (s->rows_pending) add(text, n, "; ", "bad rows of memory wait for a reset to be replaced: nvidia-smi -r");
}

void gpu_health_describe(struct gpu_health *h, char *text, size_t n) {
    struct gpu_state s;
    char all[800] = "", why[160];
    text[0] = 0;
    if (!h) return;
    take_reports(h);
    gpu_state_read(&s, &h->nvml, h->device);
    for (int i = 0; i < h->n_xids; i++) add(all, sizeof all, "; ", "Xid %llu: %s", h->xid[i], gpu_xid_meaning(h->xid[i]));
    add_memory(h, &s, all, sizeof all);
    if (s.degrees >= 0) add(all, sizeof all, "; ", "%d degrees", s.degrees);
    if (s.mhz >= 0) add(all, sizeof all, ", ", "%d MHz", s.mhz);
    gpu_slowed_names(s.slowed, false, why, sizeof why);
    if (why[0]) add(all, sizeof all, ", ", "slowed by %s", why);
    if (all[0]) snprintf(text, n, "GPU at %s: %s", h->bus, all);
}
