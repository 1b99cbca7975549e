/* gpu.h: the communicator of GPU ranks: what the GPU backend uses for tensors. It runs on the rank's stream; control (start-up, handing
 * over handles, comparing batches, deadlines) goes through comm/comm.h on the host.
 *
 * Makers live in the GPU backend's shared object: `nccl` (one or several hosts) and `p2p` (our own all-reduce over peer memory, ranks of one
 * host; with several ranks on one GPU as a test mode). Every rank makes the same calls in the same order. All calls but open
 * and close only enqueue: they return before the work is done, take no host value from the device, and may be captured
 * in a graph; a captured call is replayed as often as the graph is launched.
 *
 * Symmetric memory: buffers that take part in a collective come from `symmetric`, which every rank calls with the same size in the same
 * order. So each rank knows where the others' buffers are (p2p: peer pointers; nccl: a window registered once), and a
 * collective names its own buffer only. */
#ifndef MINISGL_COMM_GPU_H
#define MINISGL_COMM_GPU_H
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

enum gpu_number { GPU_F32, GPU_BF16, GPU_F16, GPU_U64 };

/* How one is opened. */
struct gpu_comm_args {
    struct comm *control;     /* the ranks' host communicator; outlives this */
    int32_t device;           /* CUDA ordinal; several ranks may name the same one (p2p only) */
    size_t symmetric_bytes;   /* all that `symmetric` will be asked for */
    int32_t max_rows, width;  /* largest sum_norm: rows [max_rows, width] */
    uint64_t timeout_ns;      /* how long a kernel waits for a peer before it gives up and marks the rank */
};

/* sum, then residual and norm, in one pass: h[row] += sum over ranks of y[row] (+ bias); x[row] = h[row] / rms(h[row], eps) * weight.
 * Every rank ends with the same h and x. */
struct gpu_sum_norm {
    void *y;             /* [rows, width], symmetric; holds garbage afterwards */
    void *h, *x;         /* [rows, width] */
    const void *weight;  /* [width] */
    const void *bias;    /* [width] or NULL */
    enum gpu_number y_type, h_type, x_type, weight_type;
    int32_t rows, width; /* rows: the capacity of the launch; the kernel reads the real count from n_rows where that is not NULL */
    const int32_t *n_rows;
    float eps;
};

struct gpu_comm; /* the maker's own */

struct gpu_comm_maker {
    const char *name; /* "nccl", "p2p" */
    int (*open)(struct gpu_comm **out, const struct gpu_comm_args *args, struct err *e);
    void (*close)(struct gpu_comm *g);
    /* Device memory, 256-byte aligned; NULL when symmetric_bytes are used up. The call itself is NULL where the maker stages what it
     * exchanges (p2p): then any device memory, aligned to 16 bytes, will do. */
    void *(*symmetric)(struct gpu_comm *g, size_t bytes);
    /* buf[n] (symmetric) becomes the sum over the ranks. stream: a cudaStream_t. */
    int (*sum)(struct gpu_comm *g, void *buf, size_t n, enum gpu_number type, void *stream, struct err *e);
    /* NULL where the maker has none: then sum and a norm of one's own. */
    int (*sum_norm)(struct gpu_comm *g, const struct gpu_sum_norm *a, void *stream, struct err *e);
    /* all [n_ranks][bytes] (symmetric) becomes everyone's `mine`. */
    int (*gather)(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e);
    /* The host's look at trouble, cheap, between steps: -1 names the rank that did not come, and the step. */
    int (*check)(struct gpu_comm *g, uint64_t step, struct err *e);
};

#endif
