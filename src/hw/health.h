/* health.h: how one GPU fares: what its driver says of heat, clocks and memory, and the errors (Xid) that the driver reports while the
 * GPU is watched. For the message when something broke, and for `minisgl doctor`. Source: NVIDIA's NVML API reference and its list of
 * Xid errors. What the driver does not tell (in a container, of a part of a GPU) is left out. */
#ifndef MINISGL_HW_HEALTH_H
#define MINISGL_HW_HEALTH_H
#include "hw/nvml.h"

struct gpu_state {
    int degrees, mhz;                          /* -1: not told */
    unsigned long long slowed;                 /* why the clock is lower than it could be: NVML's bits */
    unsigned long long corrected, uncorrected; /* memory errors since the driver was loaded, or the GPU reset */
    bool rows_pending, rows_failed;            /* rows of memory to be replaced by spare ones at the next reset; none was left */
};
void gpu_state_read(struct gpu_state *s, const struct nvml *v, nv_device d);
/* "heat, power limit" into text; "" when it runs as fast as it may. grave: heat or the power supply, not an ordinary limit. */
void gpu_slowed_names(unsigned long long slowed, bool grave, char *text, size_t n);
/* What Xid error `number` means and what to do about it. Never NULL. */
const char *gpu_xid_meaning(unsigned long long number);

struct gpu_health;
/* Watch the GPU at this address ("0000:17:00.0") from now on. NULL where the driver does not tell anything. */
struct gpu_health *gpu_health_open(const char *bus);
void gpu_health_close(struct gpu_health *h); /* NULL does nothing */
/* The GPU's state in one line; "" when there is nothing to tell, as with NULL. Waits at most 0.2 s for a report of the driver's, which
 * may come a little after the error that it explains. */
void gpu_health_describe(struct gpu_health *h, char *text, size_t n);

#endif
