/* p2p.c: the communicator `p2p`: ranks of one process that read each other's GPU memory. The host side: the memory, the pointers that
 * ranks hand over once, the look at trouble. Belongs to the rank thread. Several ranks on one GPU are a test mode. It refuses ranks
 * of several processes, and GPUs that cannot read each other's memory. */
#include "dev/cuda/p2p.h"

#include "base/mem.h"
#include "comm/comm.h"

#include <stdlib.h>

struct gpu_comm {
    struct gpu_comm_args args;
    struct p2p_view view;
    char *own; /* this rank's block; behind it view.piece and view.gave_up */
};

static int32_t n_ranks(const struct gpu_comm_args *a) { return a->control ? a->control->n_ranks : 1; }

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
        return err_input(e, "GPU %d cannot read the memory of GPU %d, which --gpu-comm p2p needs; use --gpu-comm nccl, or others with --devices",
                           g->args.device, device);
    cudaError_t rc = cudaDeviceEnablePeerAccess(device, 0);
    if (rc == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();
        rc = cudaSuccess;
    }
    return ok(g, rc, "peer access", e);
}

/* The most ranks that share a GPU. */
static int32_t sharers(const struct hello *all, int32_t n) {
    int32_t most = 1;
    for (int32_t i = 0; i < n; i++) {
        int32_t same = 0;
        for (int32_t k = 0; k < n; k++) same += all[k].device == all[i].device;
        if (same > most) most = same;
    }
    return most;
}

/* The gather is also where ranks wait until all have their memory: nobody allocates later while another's kernel waits. */
static int introduce(struct gpu_comm *g, struct err *e) {
    struct hello mine = {g->own, g->args.device}, all[P2P_RANKS];
    if (g->args.control) comm_at(g->args.control, 0, "the exchange of GPU memory", -1);
    if (comm_gather(g->args.control, &mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 0; i < g->view.n; i++) {
        g->view.block[i] = all[i].block;
        if (reach(g, all[i].device, e)) return -1;
    }
    int32_t room = P2P_GPU_BLOCKS / sharers(all, g->view.n);
    g->view.blocks = room < P2P_BLOCKS ? room : P2P_BLOCKS;
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
    int32_t n = n_ranks(args);
    if (n > P2P_RANKS) return err_input(e, "expected up to %d ranks on GPUs, found %d", P2P_RANKS, n);
    if (c && strcmp(c->ops->name, "threads"))
        return err_input(e, "--gpu-comm p2p is for the ranks of one process: start one with --tp %d, or use --gpu-comm nccl", n);
    struct gpu_comm *g = mem_zalloc(1, sizeof *g);
    g->args = *args;
    g->view.rank = c ? c->rank : 0;
    g->view.n = n;
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
    if (bytes % P2P_UNIT) return err_input(e, "expected a sum over a multiple of %d bytes, found %zu numbers of type %d", P2P_UNIT, n, (int)type);
    return n && g->view.n > 1 ? ok(g, p2p_sum(&g->view, buf, bytes / P2P_UNIT, type, stream), "a sum", e) : 0;
}

static int p2p_sum_norm_run(struct gpu_comm *g, const struct gpu_sum_norm *a, void *stream, struct err *e) {
    if (a->rows < 1 || g->view.n < 2) return 1;
    int rc = p2p_sum_norm(&g->view, a, stream);
    return rc < 0 ? 1 : ok(g, rc, "a sum with a norm", e);
}

static int p2p_gather_run(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e) {
    if (bytes % P2P_UNIT) return err_input(e, "expected to gather a multiple of %d bytes, found %zu", P2P_UNIT, bytes);
    if (g->view.n < 2) return ok(g, cudaMemcpyAsync(all, mine, bytes, cudaMemcpyDeviceToDevice, stream), "a gather", e);
    return bytes ? ok(g, p2p_gather(&g->view, mine, all, bytes / P2P_UNIT, stream), "a gather", e) : 0;
}

/* The kernels look at the time themselves. */
static int p2p_check(struct gpu_comm *g, uint64_t step, uint64_t waited_ns, struct err *e) {
    uint32_t absent = *(volatile uint32_t *)g->view.absent;
    (void)waited_ns;
    if (!absent) return 0;
    return err_machine(e, "rank %u did not come to an exchange on the GPU in step %llu or the one after it within %.0f s, where rank %d waits for it; its "
                          "GPU hangs or is shared with others. Restart; where a step really takes so long, give a higher --comm-timeout",
                       absent - 1, (unsigned long long)step, (double)g->args.timeout_ns / 1e9, g->view.rank);
}

static int p2p_symmetric(struct gpu_comm *g, size_t bytes, void **out, struct err *e) {
    (void)g, (void)bytes, (void)e;
    *out = NULL;
    return 0;
}

static bool p2p_must_look(const struct gpu_comm *g) {
    (void)g;
    return false;
}

static const char *p2p_describe(const struct gpu_comm *g) {
    (void)g;
    return "p2p";
}

const struct gpu_comm_maker gpu_comm_p2p = {
    .name = "p2p",
    .open = p2p_open,
    .close = p2p_close,
    .describe = p2p_describe,
    .symmetric = p2p_symmetric,
    .sum = p2p_sum_run,
    .sum_norm = p2p_sum_norm_run,
    .gather = p2p_gather_run,
    .check = p2p_check,
    .must_look = p2p_must_look,
};
