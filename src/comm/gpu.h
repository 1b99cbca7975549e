/* gpu.h: the communicator of GPU ranks: what the GPU backend uses for tensors. It runs on the rank's stream; control (start-up, handing
 * over handles, comparing batches, deadlines) goes through comm/comm.h on the host.
 *
 * Makers live in the GPU backend's shared object: `p2p` (our own kernels over peer memory, ranks of one process; with several ranks on
 * one GPU as a test mode), `nccl` (NVIDIA's library, one or several hosts, one GPU a rank), and `auto`, which opens what there is and gives
 * each exchange to one of the two by its size. Every rank makes the same calls in the same order. All calls but open, symmetric and
 * close only enqueue: they return before the work is done, take no host value from the device, and may be captured
 * in a graph; a captured call is replayed as often as the graph is launched.
 *
 * Symmetric memory: what takes part in a collective lies in one block, which every rank asks for at the same time (nccl:
 * a window registered once; p2p stages what it exchanges and has no use for it). */
#ifndef MINISGL_COMM_GPU_H
#define MINISGL_COMM_GPU_H
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

enum gpu_number { GPU_F32, GPU_BF16, GPU_F16 };

/* How one is opened. */
struct gpu_comm_args {
    struct comm *control; /* the ranks' host communicator; outlives this. NULL: one rank */
    int32_t device;       /* CUDA ordinal; several ranks may name the same one (p2p only) */
    uint64_t timeout_ns;  /* how long a peer is waited for before the wait is given up and the rank named */
    bool no_windows;      /* nccl: ordinary memory, no window */
};

/* sum, then residual and norm, in one pass: h[row] += sum over ranks of y[row] (+ bias); x[row] = h[row] / rms(h[row], eps) * weight.
 * The sum is rounded to y's type, as is what the bias makes of it, so that h has the same bits as by `sum` and a norm of one's own.
 * Every rank ends with the same h and x. y and x have one type, h and the vectors are float32. Rows are `ld` numbers apart. */
struct gpu_sum_norm {
    void *y; /* holds garbage afterwards */
    float *h;
    void *x;
    const float *weight, *bias; /* [width]; bias may be NULL */
    int64_t ldy, ldh, ldx;
    enum gpu_number type;
    int32_t rows, width;   /* rows: the capacity of the launch; the kernel reads the real count from n_rows where that is not NULL */
    const int32_t *n_rows; /* on the device */
    float eps;
};

struct gpu_comm; /* the maker's own */

struct gpu_comm_maker {
    const char *name; /* "p2p", "nccl", "auto" */
    int (*open)(struct gpu_comm **out, const struct gpu_comm_args *args, struct err *e);
    void (*close)(struct gpu_comm *g);
    /* One line for the log: "p2p", "nccl 2.28.9, symmetric windows". Lives as long as g. */
    const char *(*describe)(const struct gpu_comm *g);
    /* Device memory for all that is exchanged, 256-byte aligned; belongs to g. Asked again, the former block is gone (or
     * given again, when it is large enough). *out NULL: any device memory, aligned to 16 bytes, will do. */
    int (*symmetric)(struct gpu_comm *g, size_t bytes, void **out, struct err *e);
    /* buf[n] becomes the sum over the ranks; n numbers are a multiple of 16 bytes. stream: a cudaStream_t. */
    int (*sum)(struct gpu_comm *g, void *buf, size_t n, enum gpu_number type, void *stream, struct err *e);
    /* 1: not in this shape (the same answer on every rank): then sum and a norm of one's own. NULL where the maker has none. */
    int (*sum_norm)(struct gpu_comm *g, const struct gpu_sum_norm *a, void *stream, struct err *e);
    /* all [n_ranks][bytes] becomes everyone's `mine`; a multiple of 16 bytes. */
    int (*gather)(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e);
    /* The host's look at trouble, cheap. waited_ns: how long the host has waited for this step by now; 0: it is done. -1: nothing on the
     * GPU waits any more, and *e names the rank and the step. */
    int (*check)(struct gpu_comm *g, uint64_t step, uint64_t waited_ns, struct err *e);
    /* Nothing on the GPU gives up a wait: the host must look with `check` while it waits for a step. */
    bool (*must_look)(const struct gpu_comm *g);
};

#endif
