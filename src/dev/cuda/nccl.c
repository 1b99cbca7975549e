/* nccl.c: the communicator `nccl`: NVIDIA's library, opened when it is wanted and not linked, so that machines without it lose nothing. Belongs
 * to the rank thread; a thread of its own starts the library, because that may hang. The ranks may lie in several processes and on several
 * hosts. It refuses ranks that share a GPU, and libraries before 2.19.
 *
 * Declared here are the few functions that are used, as nccl.h of 2.18 and later has them. The library reads its own environment (NCCL_DEBUG=INFO
 * tells what it does); this program sets none of it. */
#include "dev/cuda/exchange.h"

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { OLDEST = 21900, START_S = 120 /* beyond the timeout: many GPUs and hosts take long to meet */ };
enum { NCCL_HALF = 6, NCCL_FLOAT = 7, NCCL_BF16 = 9, NCCL_BYTES = 1, NCCL_SUM = 0, NCCL_WINDOW_SYMMETRIC = 1 };

struct unique {
    char bytes[128];
};

/* Each returns 0 or an error number of the library. */
struct library {
    int (*get_version)(int *version);
    int (*get_unique_id)(struct unique *id);
    int (*init_rank)(void **comm, int n, struct unique id, int rank);
    int (*abort)(void *comm);
    int (*async_error)(void *comm, int *error);
    const char *(*error_string)(int error);
    int (*all_reduce)(const void *from, void *to, size_t n, int type, int op, void *comm, cudaStream_t stream);
    int (*all_gather)(const void *from, void *to, size_t n, int type, void *comm, cudaStream_t stream);
    int (*mem_alloc)(void **p, size_t n);
    int (*mem_free)(void *p);
    int (*window_register)(void *comm, void *p, size_t n, void **window, int flags); /* 2.27; else NULL */
    int (*window_deregister)(void *comm, void *window);
    int version;
};

struct gpu_comm {
    struct gpu_comm_args args;
    struct library lib;
    int32_t rank, n;
    void *comm, *window;
    char *block; /* what `symmetric` gave */
    size_t block_bytes;
    bool library_memory; /* block is the library's, not cudaMalloc's */
    char describe[80];
};

/* ---- the library ---- */

static int find(void *so, struct library *l, char *why, size_t n) {
    const struct {
        const char *name;
        void *at;
    } wanted[] = {
        {"ncclGetVersion", &l->get_version},      {"ncclGetUniqueId", &l->get_unique_id},
        {"ncclCommInitRank", &l->init_rank},      {"ncclCommAbort", &l->abort},
        {"ncclCommGetAsyncError", &l->async_error}, {"ncclGetErrorString", &l->error_string},
        {"ncclAllReduce", &l->all_reduce},        {"ncclAllGather", &l->all_gather},
        {"ncclMemAlloc", &l->mem_alloc},          {"ncclMemFree", &l->mem_free},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *f = dlsym(so, wanted[i].name);
        memcpy(wanted[i].at, &f, sizeof f);
        if (f) continue;
        snprintf(why, n, "libnccl.so.2 has no %s: expected NCCL 2.19 or later", wanted[i].name);
        return -1;
    }
    void *f = dlsym(so, "ncclCommWindowRegister"), *g = dlsym(so, "ncclCommWindowDeregister");
    if (f && g) memcpy(&l->window_register, &f, sizeof f), memcpy(&l->window_deregister, &g, sizeof g);
    return 0;
}

static int open_library(struct library *l, char *why, size_t n) {
    void *so = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL); /* kept until the process ends: it has threads of its own */
    *l = (struct library){0};
    if (!so) {
        snprintf(why, n, "%s", dlerror());
        return -1;
    }
    if (find(so, l, why, n)) return -1;
    if (!l->get_version(&l->version) && l->version >= OLDEST) return 0;
    snprintf(why, n, "libnccl.so.2 has version %d: expected NCCL 2.19 (%d) or later", l->version, OLDEST);
    return -1;
}

bool nccl_found(char *why, size_t n) {
    struct library l;
    return !open_library(&l, why, n);
}

static int ok(const struct gpu_comm *g, int rc, const char *what, struct err *e) {
    if (!rc) return 0;
    return err_machine(e, "NCCL, rank %d on GPU %d: %s: %s; NCCL_DEBUG=INFO in the environment shows more, --gpu-comm p2p does without NCCL "
                          "where all ranks are in one process", g->rank, g->args.device, what, g->lib.error_string(rc));
}

static int cuda(const struct gpu_comm *g, cudaError_t rc, const char *what, struct err *e) {
    if (!rc) return 0;
    return err_machine(e, "CUDA, rank %d on GPU %d: %s: %s", g->rank, g->args.device, what, cudaGetErrorString(rc));
}

/* ---- start ---- */

struct hello {
    struct unique id; /* rank 0's counts */
    char gpu[16];
    int64_t version;
};

static int compare(const struct gpu_comm *g, const struct hello *all, struct err *e) {
    for (int32_t i = 0; i < g->n; i++) {
        if (all[i].version != all[0].version)
            return err_input(e, "rank %d has NCCL %lld, rank 0 has %lld: install the same on every host", i, (long long)all[i].version,
                             (long long)all[0].version);
        for (int32_t k = 0; k < i; k++)
            if (!memcmp(all[i].gpu, all[k].gpu, sizeof all[i].gpu))
                return err_input(e, "ranks %d and %d compute on one GPU, and NCCL needs a GPU for each: name others with --devices, or take "
                                    "--gpu-comm p2p, the test mode", k, i);
    }
    return 0;
}

/* The library has no deadline for its start, so a thread of its own does it; when that hangs, it and this are given up. */
struct start {
    struct library lib;
    struct unique id;
    int32_t device, rank, n;
    void *comm;
    int rc;
};

static void *start_main(void *arg) {
    struct start *s = arg;
    s->rc = cudaSetDevice(s->device) ? 1 : s->lib.init_rank(&s->comm, s->n, s->id, s->rank);
    return NULL;
}

static int start(struct gpu_comm *g, struct unique id, struct err *e) {
    struct start *s = mem_zalloc(1, sizeof *s);
    struct timespec until;
    pthread_t thread;
    *s = (struct start){.lib = g->lib, .id = id, .device = g->args.device, .rank = g->rank, .n = g->n};
    if (pthread_create(&thread, NULL, start_main, s)) {
        free(s);
        return err_machine(e, "rank %d: no thread can be started for NCCL", g->rank);
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += START_S + (time_t)(g->args.timeout_ns / 1000000000);
    if (pthread_timedjoin_np(thread, NULL, &until)) {
        pthread_detach(thread);
        return err_machine(e, "rank %d: NCCL did not start on GPU %d within %.0f s; NCCL_DEBUG=INFO in the environment shows where it waits. Ranks on "
                              "several hosts need a network that all reach (NCCL_SOCKET_IFNAME names it)",
                           g->rank, g->args.device, START_S + (double)g->args.timeout_ns / 1e9);
    }
    int rc = s->rc;
    g->comm = s->comm;
    free(s);
    return ok(g, rc, "start", e);
}

static int meet(struct gpu_comm *g, struct err *e) {
    struct cudaDeviceProp p;
    struct hello mine = {.version = g->lib.version}, all[COMM_MAX_RANKS];
    if (cuda(g, cudaGetDeviceProperties(&p, g->args.device), "asking for the GPU's properties", e)) return -1;
    memcpy(mine.gpu, p.uuid.bytes, sizeof mine.gpu);
    if (!g->rank && ok(g, g->lib.get_unique_id(&mine.id), "a name for the group of ranks", e)) return -1;
    if (g->args.control) comm_at(g->args.control, 0, "the start of NCCL", -1);
    if (comm_gather(g->args.control, &mine, all, sizeof mine, e) || compare(g, all, e)) return -1;
    return start(g, all[0].id, e);
}

static void drop_block(struct gpu_comm *g) {
    if (g->block && g->library_memory) g->lib.mem_free(g->block);
    else if (g->block) cudaFree(g->block);
    g->block = NULL;
    g->block_bytes = 0;
}

/* Abort, which asks nothing of the other ranks: all steps are collected, and they may be gone. */
static void nccl_close(struct gpu_comm *g) {
    if (!g) return;
    if (g->comm) g->lib.abort(g->comm);
    drop_block(g);
    free(g);
}

/* The kernels of the library are loaded, and its connections made, before a step is recorded. */
static int first_exchange(struct gpu_comm *g, struct err *e) {
    float *p = NULL;
    cudaStream_t stream = NULL;
    int bad = cuda(g, cudaMalloc((void **)&p, (size_t)(g->n + 1) * 256), "memory", e) ||
              cuda(g, cudaMemset(p, 0, (size_t)(g->n + 1) * 256), "memory", e) ||
              cuda(g, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream", e) ||
              ok(g, g->lib.all_reduce(p, p, 64, NCCL_FLOAT, NCCL_SUM, g->comm, stream), "the first sum", e) ||
              ok(g, g->lib.all_gather(p, p + 64, 256, NCCL_BYTES, g->comm, stream), "the first gather", e);
    uint64_t begun = clock_ns();
    while (!bad && cudaStreamQuery(stream) == cudaErrorNotReady) {
        uint64_t waited = clock_ns() - begun;
        bad = gpu_comm_nccl.check(g, 0, waited ? waited : 1, e);
        usleep(100);
    }
    if (!bad) bad = cuda(g, cudaStreamSynchronize(stream), "the first exchange", e);
    if (stream) cudaStreamDestroy(stream);
    if (p) cudaFree(p);
    return bad ? -1 : 0;
}

static int nccl_open(struct gpu_comm **out, const struct gpu_comm_args *args, struct err *e) {
    struct gpu_comm *g = mem_zalloc(1, sizeof *g);
    char why[400];
    g->args = *args;
    g->rank = args->control ? args->control->rank : 0;
    g->n = args->control ? args->control->n_ranks : 1;
    int bad = open_library(&g->lib, why, sizeof why);
    if (bad) err_input(e, "--gpu-comm nccl: NCCL is not to be had: %s; install it (libnccl2, or the package nvidia-nccl-cu12 or -cu13), with its folder "
                          "in LD_LIBRARY_PATH, or use --gpu-comm p2p", why);
    if (bad || meet(g, e) || first_exchange(g, e)) {
        nccl_close(g);
        return -1;
    }
    int v = g->lib.version;
    snprintf(g->describe, sizeof g->describe, "nccl %d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    *out = g;
    return 0;
}

static const char *nccl_describe(const struct gpu_comm *g) { return g->describe; }

/* ---- memory ---- */

/* Where the library's memory or a window is not to be had, ordinary memory does. All ranks come to the same decision. */
static int agree(struct gpu_comm *g, bool mine, bool *all_can, struct err *e) {
    char here = mine, all[COMM_MAX_RANKS];
    if (g->args.control) comm_at(g->args.control, 0, "the memory of NCCL", -1);
    if (comm_gather(g->args.control, &here, all, 1, e)) return -1;
    *all_can = true;
    for (int32_t i = 0; i < g->n; i++) *all_can = *all_can && all[i];
    return 0;
}

static int make_window(struct gpu_comm *g, struct err *e) {
    bool can = g->lib.window_register && !g->args.no_windows, all;
    void *p = NULL;
    if (can && (g->lib.mem_alloc(&p, g->block_bytes) || !p)) can = false;
    g->block = p;
    g->library_memory = p != NULL;
    if (agree(g, can, &all, e)) return -1;
    if (!all) {
        size_t n = g->block_bytes;
        drop_block(g);
        g->block_bytes = n;
        g->library_memory = false;
        cudaGetLastError();
        return cuda(g, cudaMalloc((void **)&g->block, n), "memory for exchange", e);
    }
    return ok(g, g->lib.window_register(g->comm, g->block, g->block_bytes, &g->window, NCCL_WINDOW_SYMMETRIC), "a symmetric window", e);
}

static int nccl_symmetric(struct gpu_comm *g, size_t bytes, void **out, struct err *e) {
    uint64_t mine = bytes, all[COMM_MAX_RANKS], most = 0;
    if (g->args.control) comm_at(g->args.control, 0, "the memory of NCCL", -1);
    if (comm_gather(g->args.control, &mine, all, sizeof mine, e)) return -1;
    for (int32_t i = 0; i < g->n; i++) most = all[i] > most ? all[i] : most;
    *out = g->block;
    if (g->block && g->block_bytes >= most) return 0;
    if (g->window && ok(g, g->lib.window_deregister(g->comm, g->window), "an old window", e)) return -1;
    g->window = NULL;
    drop_block(g);
    g->block_bytes = (most + 4095) & ~(uint64_t)4095;
    if (make_window(g, e)) return -1;
    size_t at = strlen(g->describe);
    if (!strchr(g->describe, ',')) snprintf(g->describe + at, sizeof g->describe - at, ", %s", g->window ? "symmetric windows" : "no windows");
    *out = g->block;
    return 0;
}

/* ---- exchanges ---- */

static int nccl_sum(struct gpu_comm *g, void *buf, size_t n, enum gpu_number type, void *stream, struct err *e) {
    int t = type == GPU_F32 ? NCCL_FLOAT : type == GPU_BF16 ? NCCL_BF16 : NCCL_HALF;
    return n ? ok(g, g->lib.all_reduce(buf, buf, n, t, NCCL_SUM, g->comm, stream), "a sum", e) : 0;
}

static int nccl_gather(struct gpu_comm *g, const void *mine, void *all, size_t bytes, void *stream, struct err *e) {
    return bytes ? ok(g, g->lib.all_gather(mine, all, bytes, NCCL_BYTES, g->comm, stream), "a gather", e) : 0;
}

/* After an abort the library's kernels end, and nothing waits for a rank that does not come. */
static int give_up(struct gpu_comm *g) {
    g->lib.abort(g->comm);
    g->comm = NULL;
    return -1;
}

static int nccl_check(struct gpu_comm *g, uint64_t step, uint64_t waited_ns, struct err *e) {
    int error = 0, rc = g->comm ? g->lib.async_error(g->comm, &error) : 0;
    if (rc || error) {
        err_machine(e, "NCCL, rank %d on GPU %d, step %llu: %s; a rank or its link is gone: the first line that begins with ERROR says which. "
                       "NCCL_DEBUG=INFO in the environment shows more; restart",
                    g->rank, g->args.device, (unsigned long long)step, g->lib.error_string(rc ? rc : error));
        return give_up(g);
    }
    if (waited_ns <= g->args.timeout_ns) return 0;
    err_machine(e, "rank %d waited %.0f s for step %llu on GPU %d, in which all %d ranks exchange by NCCL: the GPU of one of them, or a link, hangs or is "
                   "shared with others. Restart; where a step really takes so long, give a higher --comm-timeout",
                g->rank, (double)waited_ns / 1e9, (unsigned long long)step, g->args.device, g->n);
    return give_up(g);
}

static bool nccl_must_look(const struct gpu_comm *g) { return g->n > 1; }

const struct gpu_comm_maker gpu_comm_nccl = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .describe = nccl_describe,
    .symmetric = nccl_symmetric,
    .sum = nccl_sum,
    .gather = nccl_gather,
    .check = nccl_check,
    .must_look = nccl_must_look,
};
