/* p2p.c: the communicator `p2p`: ranks of one process that read each other's GPU memory. The host side: the memory, the pointers that
 * ranks hand over once, the look at trouble. Belongs to the rank thread. Several ranks on one GPU are a test mode. It refuses ranks
 * of several processes, GPUs that cannot read each other's memory, and sums of integers. */
#include "dev/cuda/p2p.h"

#include "base/mem.h"
#include "comm/comm.h"

#include <stdlib.h>

struct gpu_comm {
    struct gpu_comm_args args;
    struct p2p_view view;
    char *own; /* this rank's block; behind it view.piece and view.gave_up */
};

struct hello {
    char *block;
    int32_t device;
};

static int ok(const struct gpu_comm *g, int rc, const char *what, struct err *e) {
    if (!rc) return 0;
    return err_machine(e, "CUDA, rank %d on GPU %d: %s: %s", g->view.rank, g->args.device, what, cudaGetErrorString((cudaError_t)rc));
}

static int allocate(struct gpu_comm *g, struct err *e) {
    size_t bytes = P2P_BYTES + (P2P_BLOCKS + 1) * sizeof(uint32_t);
    if (ok(g, cudaMalloc((void **)&g->own, bytes), "memory for exchange", e)) return -1;
    g->view.piece = (uint32_t *)(void *)(g->own + P2P_BYTES);
    g->view.gave_up = g->view.piece + P2P_BLOCKS;
    if (ok(g, cudaMemset(g->own, 0, bytes), "clearing memory for exchange", e)) return -1;
    if (ok(g, cudaHostAlloc((void **)&g->view.absent, sizeof *g->view.absent, cudaHostAllocPortable), "pinned memory", e)) return -1;
    *g->view.absent = 0;
    return ok(g, p2p_load(), "loading kernels", e) || ok(g, cudaDeviceSynchronize(), "clearing memory for exchange", e) ? -1 : 0;
}

static int reach(const struct gpu_comm *g, int32_t device, struct err *e) {
    int can = 0;
    if (device == g->args.device) return 0;
    if (ok(g, cudaDeviceCanAccessPeer(&can, g->args.device, device), "asking for peer access", e)) return -1;
    if (!can)
        return err_machine(e, "GPU %d cannot read the memory of GPU %d, which --tp needs here; choose others with --devices, or fewer with --tp",
                           g->args.device, device);
    cudaError_t rc = cudaDeviceEnablePeerAccess(device, 0);
    if (rc == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
        rc = cudaSuccess;
    }
    return ok(g, rc, "peer access", e);
}

/* The gather is also where ranks wait until all have their memory: nobody allocates later while another's kernel waits. */
static int introduce(struct gpu_comm *g, struct err *e) {
    struct hello mine = {g->own, g->args.device}, all[P2P_RANKS];
    comm_at(g->args.control, 0, "the exchange of GPU memory", -1);
    if (comm_gather(g->args.control, &mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 0; i < g->view.n; i++) {
        g->view.block[i] = all[i].block;
        if (reach(g, all[i].device, e)) return -1;
    }
    return 0;
}

static void p2p_close(struct gpu_comm *g) {
    if (!g) return;
    if (g->own) cudaFree(g->own);
    if (g->view.absent) cudaFreeHost(g->view.absent);
    free(g);
}

static int p2p_open(struct gpu_comm **out, const struct gpu_comm_args *args, struct err *e) {
    const struct comm *c = args->control;
    if (c->n_ranks > P2P_RANKS) return err_input(e, "expected up to %d ranks on GPUs, found %d", P2P_RANKS, c->n_ranks);
    if (strcmp(c->ops->name, "threads"))
        return err_input(e, "this version runs GPU ranks in one process only; start one process with --tp %d, or compute with --device cpu",
                         c->n_ranks);
    struct gpu_comm *g = mem_zalloc(1, sizeof *g);
    g->args = *args;
    g->view.rank = c->rank;
    g->view.n = c->n_ranks;
    g->view.timeout_ns = args->timeout_ns;
    if (allocate(g, e) || introduce(g, e)) {
        p2p_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

static int p2p_sum_run(struct gpu_comm *g, void *buf, size_t n, enum gpu_number type, void *stream, struct err *e) {
    size_t bytes = n * (type == GPU_F32 ? 4 : 2);
    if (type == GPU_U64 || bytes % P2P_UNIT)
        return err_input(e, "expected a sum of floats over a multiple of %d bytes, found %zu numbers of type %d", P2P_UNIT, n, (int)type);
    return n ? ok(g, p2p_sum(&g->view, buf, bytes / P2P_UNIT, type, stream), "a sum", e) : 0;
}

static int p2p_gather_run(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e) {
    if (bytes % P2P_UNIT) return err_input(e, "expected to gather a multiple of %d bytes, found %zu", P2P_UNIT, bytes);
    return bytes ? ok(g, p2p_gather(&g->view, mine, all, bytes / P2P_UNIT, stream), "a gather", e) : 0;
}

static int p2p_check(struct gpu_comm *g, uint64_t step, struct err *e) {
    uint32_t absent = *(volatile uint32_t *)g->view.absent;
    if (!absent) return 0;
    return err_machine(e, "rank %u did not come to an exchange on the GPU in step %llu or the one after it within %.0f s, where rank %d waits for it; its "
                          "GPU hangs or is shared with others. Restart; where a step really takes so long, give a higher --comm-timeout",
                       absent - 1, (unsigned long long)step, (double)g->args.timeout_ns / 1e9, g->view.rank);
}

const struct gpu_comm_maker gpu_comm_p2p = {
    .name = "p2p",
    .open = p2p_open,
    .close = p2p_close,
    .sum = p2p_sum_run,
    .gather = p2p_gather_run,
    .check = p2p_check,
};
