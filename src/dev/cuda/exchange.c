/* exchange.c: which communicator GPU ranks get, and the communicator `auto`, which has both. Belongs to the rank thread. All ranks come to the
 * same decisions, since what each of them sees is gathered first. */
#include "dev/cuda/exchange.h"

#include "base/mem.h"
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>

/* Bytes of an exchange up to which p2p has it where NCCL is there too. 2 ranks: measured on two H100s with NVLink (18 links), NCCL 2.28.9. 4 and 8:
 * not measured on our kernels, but where vLLM (0.11, all_reduce_utils.py:
 * NCCL_SYMM_MEM_ALL_REDUCE_CONFIG and CUSTOM_ALL_REDUCE_MAX_SIZES, GPUs of compute capability 9.0) finds its own peer kernels no longer faster than NCCL.
 * `build/bench/ops/comm_gpu I,J,...` measures both on the GPUs named, and prints the row for this table. */
static const struct {
    int32_t ranks;
    size_t p2p_up_to;
} who[] = {{2, 1u << 20}, {4, 512u << 10}, {8, 128u << 10}};

static size_t p2p_limit(int32_t n) {
    for (size_t i = 0; i < sizeof who / sizeof *who; i++)
        if (n <= who[i].ranks) return who[i].p2p_up_to;
    return 0;
}

struct part {
    const struct gpu_comm_maker *maker; /* NULL: not to be had */
    struct gpu_comm *g;
};

struct gpu_comm {
    struct part p2p, nccl;
    size_t limit; /* bytes up to which p2p has an exchange */
    char describe[200];
};

/* ---- what there is ---- */

struct seen {
    char gpu[16];
    int32_t device;
    bool peers, nccl;
};

static int look(const struct gpu_comm_args *a, struct seen *mine, char *why, size_t n, struct err *e) {
    struct cudaDeviceProp p;
    cudaError_t rc = cudaGetDeviceProperties(&p, a->device);
    if (rc) return err_machine(e, "GPU %d does not tell its properties: %s", a->device, cudaGetErrorString(rc));
    *mine = (struct seen){.device = a->device, .nccl = nccl_found(why, n)};
    memcpy(mine->gpu, p.uuid.bytes, sizeof mine->gpu);
    return 0;
}

/* Can this rank's GPU read all others'? */
static bool reads_all(int32_t device, const struct seen *all, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        int can = 0;
        if (all[i].device == device) continue;
        if (cudaDeviceCanAccessPeer(&can, device, all[i].device) || !can) return false;
    }
    return true;
}

static bool shared(const struct seen *all, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < i; k++)
            if (!memcmp(all[i].gpu, all[k].gpu, sizeof all[i].gpu)) return true;
    return false;
}

static int choose(struct gpu_comm *g, const struct gpu_comm_args *a, struct err *e) {
    struct seen mine, all[COMM_MAX_RANKS];
    char why[400] = "another rank does not find it";
    int32_t n = a->control->n_ranks;
    bool one_process = !strcmp(a->control->ops->name, "threads"), peers = true, nccl = true;
    comm_at(a->control, 0, "the choice of a communicator", -1);
    if (look(a, &mine, why, sizeof why, e) || comm_gather(a->control, &mine, all, sizeof mine, e)) return -1;
    mine.peers = one_process && reads_all(a->device, all, n);
    if (comm_gather(a->control, &mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 0; i < n; i++) peers = peers && all[i].peers, nccl = nccl && all[i].nccl;
    bool test = shared(all, n);
    if (one_process && (peers || test)) g->p2p.maker = &gpu_comm_p2p;
    if (nccl && !test) g->nccl.maker = &gpu_comm_nccl;
    if (g->p2p.maker || g->nccl.maker) return 0;
    if (test) return err_input(e, "several processes compute on one GPU: name others with --devices, or start one process");
    return err_machine(e, "the ranks cannot exchange: %s, and NCCL is not to be had: %s; install it (libnccl2), choose other GPUs with --devices, or fewer with --tp",
                       one_process ? "their GPUs cannot read each other's memory" : "they are in several processes", why);
}

/* ---- both ---- */

static void auto_close(struct gpu_comm *g) {
    if (!g) return;
    if (g->nccl.g) g->nccl.maker->close(g->nccl.g);
    if (g->p2p.g) g->p2p.maker->close(g->p2p.g);
    free(g);
}

static int open_part(struct part *p, const struct gpu_comm_args *a, struct err *e) { return p->maker ? p->maker->open(&p->g, a, e) : 0; }

static int auto_open(struct gpu_comm **out, const struct gpu_comm_args *a, struct err *e) {
    struct gpu_comm *g = mem_zalloc(1, sizeof *g);
    int bad = 0;
    if (!a->control) g->p2p.maker = &gpu_comm_p2p;
    else bad = choose(g, a, e);
    if (bad || open_part(&g->p2p, a, e) || open_part(&g->nccl, a, e)) {
        auto_close(g);
        return -1;
    }
    g->limit = !g->p2p.g ? 0 : !g->nccl.g ? SIZE_MAX : p2p_limit(a->control->n_ranks);
    *out = g;
    return 0;
}

static const char *auto_describe(const struct gpu_comm *g) {
    char *to = (char *)(uintptr_t)g->describe;
    if (!g->p2p.g || !g->nccl.g) return g->p2p.g ? g->p2p.maker->describe(g->p2p.g) : g->nccl.maker->describe(g->nccl.g);
    snprintf(to, sizeof g->describe, "p2p up to %zu KiB, above %s", g->limit >> 10, g->nccl.maker->describe(g->nccl.g));
    return to;
}

static const struct part *by_size(const struct gpu_comm *g, size_t bytes) { return bytes <= g->limit ? &g->p2p : &g->nccl; }

/* p2p takes any memory. */
static int auto_symmetric(struct gpu_comm *g, size_t bytes, void **out, struct err *e) {
    const struct part *p = g->nccl.g ? &g->nccl : &g->p2p;
    return p->maker->symmetric(p->g, bytes, out, e);
}

static int auto_sum(struct gpu_comm *g, void *buf, size_t n, enum gpu_number type, void *stream, struct err *e) {
    const struct part *p = by_size(g, n * (type == GPU_F32 ? 4 : 2));
    return p->maker->sum(p->g, buf, n, type, stream, e);
}

static int auto_sum_norm(struct gpu_comm *g, const struct gpu_sum_norm *a, void *stream, struct err *e) {
    const struct part *p = by_size(g, (size_t)a->rows * (size_t)a->ldy * (a->type == GPU_F32 ? 4 : 2));
    return p->maker->sum_norm ? p->maker->sum_norm(p->g, a, stream, e) : 1;
}

static int auto_gather(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e) {
    const struct part *p = by_size(g, bytes);
    return p->maker->gather(p->g, mine, all, bytes, stream, e);
}

static int auto_check(struct gpu_comm *g, uint64_t step, uint64_t waited_ns, struct err *e) {
    if (g->p2p.g && g->p2p.maker->check(g->p2p.g, step, waited_ns, e)) return -1;
    return g->nccl.g ? g->nccl.maker->check(g->nccl.g, step, waited_ns, e) : 0;
}

static bool auto_must_look(const struct gpu_comm *g) { return g->nccl.g && g->nccl.maker->must_look(g->nccl.g); }

const struct gpu_comm_maker gpu_comm_auto = {
    .name = "auto",
    .open = auto_open,
    .close = auto_close,
    .describe = auto_describe,
    .symmetric = auto_symmetric,
    .sum = auto_sum,
    .sum_norm = auto_sum_norm,
    .gather = auto_gather,
    .check = auto_check,
    .must_look = auto_must_look,
};

const struct gpu_comm_maker *gpu_comm_by_name(const char *name) {
    if (!name || !strcmp(name, "auto")) return &gpu_comm_auto;
    return !strcmp(name, "nccl") ? &gpu_comm_nccl : &gpu_comm_p2p;
}
