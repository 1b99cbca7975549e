/* exchange_test.c: the test of a communicator, one rank's part: sums, sums with the norm behind them, and gathers of many sizes, one by one, in replayed
 * graphs and at random, every number checked on the GPU; and what is said when a rank does not come. Runs in the rank's thread. All memory
 * is there, and all kernels are loaded, before the first exchange: ranks may share a GPU, where both would wait for what waits for them. */
#include "dev/cuda/exchange.h"
#include "dev/cuda/exchange_test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "comm/comm.h"
#include "dev/cpu/half.h"

#include <math.h>
#include <stdlib.h>

enum { SUM_BYTES = 8 << 20, GATHER_BYTES = 1 << 20, ROWS = 512, WIDTH_MAX = 8192, TIME_BYTES = 1024 << (COMM_TEST_SIZES - 1) };

struct pinned {
    unsigned long long wrong[2];
    uint32_t seed;
    int32_t n_rows;
};

struct test {
    const struct dev_args *args;
    struct dev_comm_test *t;
    struct err *e;
    const struct gpu_comm_maker *maker;
    struct gpu_comm *g;
    int32_t gpu, rank, n;
    cudaStream_t stream;
    char *block, *buf, *mine, *all; /* block: of the communicator or cudaMalloc's; holds buf, mine and all */
    bool own_block;
    float *h, *weight, *bias;       /* [ROWS * WIDTH_MAX], [WIDTH_MAX] */
    char *x;
    uint32_t *seed;
    int32_t *n_rows;
    unsigned long long *wrong;              /* [2] */
    struct pinned *pinned; /* a copy to or from other memory would hold the driver while it waits, and other ranks with it */
    char *host;                             /* pinned, as large as h */
};

static const enum gpu_number types[] = {GPU_F32, GPU_BF16, GPU_F16};
static const char *const type_names[] = {"float32", "bfloat16", "float16"};
static size_t size_of(enum gpu_number t) { return t == GPU_F32 ? 4 : 2; }
static enum dtype dtype_of(enum gpu_number t) { return t == GPU_F32 ? DT_F32 : t == GPU_BF16 ? DT_BF16 : DT_F16; }

static int ok(struct test *x, int rc, const char *what) {
    if (!rc) return 0;
    return err_machine(x->e, "CUDA, rank %d on GPU %d, test of %s: %s: %s", x->rank, x->gpu, x->maker->name, what, cudaGetErrorString((cudaError_t)rc));
}

/* All ranks are here. */
static int barrier(struct test *x, const char *what) {
    char here = 1, all[COMM_MAX_RANKS];
    if (x->args->comm) comm_at(x->args->comm, 0, what, -1);
    return comm_gather(x->args->comm, &here, all, 1, x->e);
}

/* All that is enqueued is done; nobody is waited for longer than the timeout. */
static int settle(struct test *x, struct err *e) {
    uint64_t start = clock_ns();
    cudaError_t rc;
    while ((rc = cudaStreamQuery(x->stream)) == cudaErrorNotReady)
        if (x->maker->must_look(x->g) && x->maker->check(x->g, 0, clock_ns() - start + 1, e)) return -1;
    if (rc) return err_machine(e, "CUDA, rank %d on GPU %d, test of %s: %s", x->rank, x->gpu, x->maker->name, cudaGetErrorString(rc));
    return x->maker->check(x->g, 0, 0, e);
}

/* ---- one exchange, its numbers made before and checked after ---- */

static struct made made_of(struct test *x, void *p, size_t n, enum gpu_number type) {
    bool exact = x->maker == &gpu_comm_p2p || x->n == 1;
    float bits = type == GPU_F32 ? 0x1p-23f : type == GPU_BF16 ? 0x1p-8f : 0x1p-11f;
    return (struct made){.p = p, .n = n, .type = type, .n_ranks = x->n, .who = x->rank, .seed = x->seed, .wrong = x->wrong,
                         .tolerance = exact ? 0 : bits * 2 * (float)(x->n * x->n)};
}

static int do_sum(struct test *x, size_t n, enum gpu_number type) {
    struct made m = made_of(x, x->buf, n, type);
    return ok(x, made_next(x->seed, x->stream), "a kernel") || ok(x, made_fill(&m, x->stream), "a kernel") ||
           x->maker->sum(x->g, x->buf, n, type, x->stream, x->e) || ok(x, made_check_sum(&m, x->stream), "a kernel");
}

static int do_gather(struct test *x, size_t n) {
    struct made m = made_of(x, x->mine, n, GPU_F32), all = m;
    all.p = x->all;
    all.tolerance = 0;
    return ok(x, made_next(x->seed, x->stream), "a kernel") || ok(x, made_fill(&m, x->stream), "a kernel") ||
           x->maker->gather(x->g, x->mine, x->all, n * 4, x->stream, x->e) || ok(x, made_check_gather(&all, x->stream), "a kernel");
}

static struct gpu_sum_norm norm_of(struct test *x, int32_t rows, int32_t width, enum gpu_number type, bool bias) {
    return (struct gpu_sum_norm){.y = x->buf, .h = x->h, .x = x->x, .weight = x->weight, .bias = bias ? x->bias : NULL, .ldy = width,
                                 .ldh = width, .ldx = width, .type = type, .rows = rows, .width = width, .eps = 1e-6f};
}

/* 1: not in this shape. */
static int do_norm(struct test *x, int32_t rows, int32_t width, enum gpu_number type) {
    size_t n = (size_t)rows * (size_t)width;
    struct made y = made_of(x, x->buf, n, type), h = made_of(x, x->h, n, GPU_F32), after = h;
    struct gpu_sum_norm a = norm_of(x, rows, width, type, false);
    h.who = MADE_RESIDUAL;
    after.type = type;
    if (ok(x, made_next(x->seed, x->stream), "a kernel") || ok(x, made_fill(&y, x->stream), "a kernel") || ok(x, made_fill(&h, x->stream), "a kernel"))
        return -1;
    int rc = x->maker->sum_norm(x->g, &a, x->stream, x->e);
    return rc ? rc : ok(x, made_check_residual(&after, x->stream), "a kernel");
}

/* ---- a line of the report ---- */

static void say(struct test *x, const char *what, int cases, const char *verdict) {
    if (!x->t->out) return;
    fprintf(x->t->out, "%-5s %d rank%s  %-44s %6d cases  %s\n", x->maker->name, x->n, x->n > 1 ? "s" : " ", what, cases, verdict);
    fflush(x->t->out);
}

/* What all checks since the last line found. */
static int verdict(struct test *x, const char *what, int cases) {
    cudaError_t rc = cudaMemcpyAsync(x->pinned->wrong, x->wrong, 16, cudaMemcpyDeviceToHost, x->stream);
    if (!rc) rc = cudaMemsetAsync(x->wrong, 0, 16, x->stream);
    if (ok(x, rc, "reading results") || settle(x, x->e)) return -1;
    char text[80] = "ok";
    if (x->pinned->wrong[0]) {
        snprintf(text, sizeof text, "FAILED: %llu numbers, one at %llu", x->pinned->wrong[0], x->pinned->wrong[1] - 1);
        x->t->failed++;
    }
    say(x, what, cases, text);
    return 0;
}

/* ---- the tests ---- */

static int test_sums(struct test *x) {
    static const size_t bytes[] = {0, 16, 48, 16 * 255, 8192, 8192 + 16, 32768, 32768 + 16, 131072 - 16, 262144 - 16, 262144, 524288, 524288 + 48,
                                   48 * 32768 + 16, 2 * 48 * 32768 + 32, SUM_BYTES};
    char what[64];
    for (int t = 0; t < 3; t++) {
        int cases = 0;
        for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++, cases++)
            if (do_sum(x, bytes[i] / size_of(types[t]), types[t])) return -1;
        snprintf(what, sizeof what, "sums of %s, 0 to %d MB", type_names[t], SUM_BYTES >> 20);
        if (verdict(x, what, cases)) return -1;
    }
    return 0;
}

static int test_gathers(struct test *x) {
    static const size_t bytes[] = {0, 16, 48, 4096 + 16, 65536, 524288 + 16, GATHER_BYTES};
    int cases = 0;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++, cases++)
        if (do_gather(x, bytes[i] / 4)) return -1;
    return verdict(x, "gathers, 0 to 1 MB a rank", cases);
}

/* The slow way, on the host: h to the bit, x within its rounding. Returns how many numbers are wrong. */
struct norm_case {
    int32_t rows, real, width;
    enum gpu_number type;
    bool bias;
};

static float sum_of_ranks(int32_t n, uint32_t i, uint32_t seed, enum gpu_number type) {
    float v[8];
    for (int32_t r = 0; r < n; r++) v[r] = made_number((uint32_t)r, i, seed);
    char room[4];
    for (int32_t r = 0; r < n; r++) store_any(room, dtype_of(type), 0, v[r]), v[r] = load_any(room, dtype_of(type), 0);
    for (int32_t w = n / 2; w; w /= 2)
        for (int32_t k = 0; k < w; k++) v[k] = v[2 * k] + v[2 * k + 1];
    store_any(room, dtype_of(type), 0, v[0]);
    return load_any(room, dtype_of(type), 0);
}

static int check_row(struct test *x, const struct norm_case *c, int32_t row, const float *h, const char *out) {
    double sum = 0;
    int wrong = 0;
    bool in = row < c->real;
    enum dtype dt = dtype_of(c->type);
    char room[4];
    for (int32_t i = 0; i < c->width; i++) {
        uint32_t at = (uint32_t)(row * c->width + i);
        float y = sum_of_ranks(x->n, at, x->pinned->seed, c->type);
        if (c->bias) store_any(room, dt, 0, y + made_number(MADE_BIAS, (uint32_t)i, 0)), y = load_any(room, dt, 0);
        float want = made_number(MADE_RESIDUAL, at, x->pinned->seed) + (in ? y : 0);
        wrong += h[at] != want;
        sum += (double)want * want;
    }
    if (!in) return wrong;
    double r = 1 / sqrt(sum / c->width + 1e-6), bound = c->type == GPU_F32 ? 1e-5 : c->type == GPU_F16 ? 1e-3 : 8e-3;
    for (int32_t i = 0; i < c->width; i++) {
        uint32_t at = (uint32_t)(row * c->width + i);
        double want = h[at] * r * (double)made_number(MADE_WEIGHT, (uint32_t)i, 0);
        wrong += !(fabs((double)load_any(out, dt, at) - want) <= bound * (fabs(want) + 1e-3));
    }
    return wrong;
}

static int norm_case(struct test *x, const struct norm_case *c, int *wrong) {
    size_t n = (size_t)c->rows * (size_t)c->width;
    struct made y = made_of(x, x->buf, n, c->type), h = made_of(x, x->h, n, GPU_F32);
    struct gpu_sum_norm a = norm_of(x, c->rows, c->width, c->type, c->bias);
    h.who = MADE_RESIDUAL;
    a.n_rows = c->real < c->rows ? x->n_rows : NULL;
    x->pinned->n_rows = c->real;
    cudaError_t rc = cudaMemcpyAsync(x->n_rows, &x->pinned->n_rows, sizeof c->real, cudaMemcpyHostToDevice, x->stream);
    if (ok(x, rc, "a copy") || ok(x, made_next(x->seed, x->stream), "a kernel") || ok(x, made_fill(&y, x->stream), "a kernel") ||
        ok(x, made_fill(&h, x->stream), "a kernel"))
        return -1;
    int taken = x->maker->sum_norm(x->g, &a, x->stream, x->e);
    if (taken) return taken < 0 ? -1 : 0;
    float *host = (float *)(void *)x->host;
    char *out = x->host + (size_t)ROWS * WIDTH_MAX * 4;
    rc = cudaMemcpyAsync(host, x->h, n * 4, cudaMemcpyDeviceToHost, x->stream);
    if (!rc) rc = cudaMemcpyAsync(out, x->x, n * size_of(c->type), cudaMemcpyDeviceToHost, x->stream);
    if (!rc) rc = cudaMemcpyAsync(&x->pinned->seed, x->seed, sizeof x->pinned->seed, cudaMemcpyDeviceToHost, x->stream);
    if (ok(x, rc, "reading results") || settle(x, x->e)) return -1;
    for (int32_t row = 0; row < c->rows; row += c->rows > 40 && row > 3 && row < c->rows - 3 ? 7 : 1) *wrong += check_row(x, c, row, host, out);
    return 0;
}

static int test_norms(struct test *x) {
    static const int32_t shape[][3] = {{1, 1, 128}, {1, 1, 4096}, {3, 2, 8}, {16, 16, 1024}, {17, 11, 2880}, {96, 96, 1024}, {200, 33, 4096},
                                       {64, 64, 8192}, {512, 512, 512}};
    int wrong = 0, cases = 0;
    char text[80] = "ok";
    if (!x->maker->sum_norm || x->n == 1) return 0;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int t = 0; t < 3; t++, cases++) {
            struct norm_case c = {shape[i][0], shape[i][1], shape[i][2], types[t], (i + (size_t)t) % 2};
            if (norm_case(x, &c, &wrong)) return -1;
        }
    if (wrong) {
        snprintf(text, sizeof text, "FAILED: %d numbers", wrong);
        x->t->failed++;
    }
    say(x, "sums with residual, bias and norm", cases, text);
    return 0;
}

/* A step's worth of exchanges, recorded once; every replay makes new numbers. */
static int record(struct test *x) {
    bool norm = x->maker->sum_norm && x->n > 1;
    return do_sum(x, 4096, GPU_BF16) || do_gather(x, 1024) || do_sum(x, 300000, GPU_BF16) || (norm && do_norm(x, 5, 1024, GPU_BF16) < 0) ||
           do_sum(x, 4, GPU_F32) || (norm && do_norm(x, 300, 2048, GPU_F16) < 0) || do_gather(x, 100000);
}

static int test_graph(struct test *x) {
    enum { REPLAYS = 300 };
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (barrier(x, "recording a graph") || ok(x, cudaStreamBeginCapture(x->stream, cudaStreamCaptureModeThreadLocal), "begin capture")) return -1;
    int bad = record(x);
    cudaError_t rc = cudaStreamEndCapture(x->stream, &graph);
    if (!bad) bad = ok(x, rc, "capture");
    if (!bad) bad = ok(x, cudaGraphInstantiate(&exec, graph, 0), "making a graph");
    if (!bad) bad = ok(x, cudaGraphUpload(exec, x->stream), "loading a graph") || ok(x, cudaStreamSynchronize(x->stream), "loading a graph");
    if (!bad) bad = barrier(x, "the graph of all ranks");
    for (int i = 0; !bad && i < REPLAYS; i++) {
        bad = ok(x, cudaGraphLaunch(exec, x->stream), "a graph");
        if (!bad && i % 16 == 15) bad = settle(x, x->e);
    }
    if (!bad) bad = verdict(x, "replays of a graph", REPLAYS);
    if (!bad) bad = barrier(x, "the end of replays");
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
    return bad ? -1 : 0;
}

/* A rank that is a thousand launches ahead waits in a launch, and holds up the ranks that share its GPU: the ones it waits for. */
enum { AHEAD = 64 };

/* The same dice on every rank. */
static uint32_t roll(uint64_t *dice) {
    *dice = *dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*dice >> 33);
}

static int test_random(struct test *x) {
    uint64_t dice = 7;
    bool norm = x->maker->sum_norm && x->n > 1;
    for (int i = 0; i < x->t->rounds; i++) {
        uint32_t kind = roll(&dice) % 4, scale = roll(&dice) % 18, units = roll(&dice) % (1u << scale) + 1; /* to 2 MB, mostly small */
        enum gpu_number type = types[roll(&dice) % 3];
        int32_t width = (int32_t)(64 << units % 6), rows = (int32_t)(units % 97) + 1, rc = 0;
        if (kind == 0 && norm) rc = do_norm(x, rows, width, type);
        else if (kind == 1) rc = do_gather(x, (units % (GATHER_BYTES / 16) + 1) * 4);
        else rc = do_sum(x, units * (16 / size_of(type)), type);
        if (rc < 0) return -1;
        if (i % AHEAD == AHEAD - 1 && settle(x, x->e)) return -1;
    }
    return x->t->rounds ? verdict(x, "random exchanges", x->t->rounds) : 0;
}

/* The last rank stays away: all others must say so, in time. After this the communicator is of no use. */
static int test_absent(struct test *x) {
    struct err said = {0};
    char text[120] = "ok: the rank is named", name[48];
    int bad = barrier(x, "the test of a rank that does not come");
    if (!bad && x->rank < x->n - 1) {
        bad = x->maker->sum(x->g, x->buf, 1024, GPU_F32, x->stream, x->e);
        uint64_t start = clock_ns();
        snprintf(name, sizeof name, "rank %d did not come", x->n - 1);
        bool told = !bad && settle(x, &said);
        double s = (double)(clock_ns() - start) / 1e9;
        bool named = told && (x->maker != &gpu_comm_p2p || strstr(said.text, name));
        if (!bad && (!named || s > 2 + (double)x->args->comm_timeout_ns / 1e9)) {
            snprintf(text, sizeof text, "FAILED: after %.1f s: %.80s", s, told ? said.text : "nothing was said");
            x->t->failed++;
        }
        if (!bad && x->t->out) say(x, "a rank that does not come", 1, text);
        if (named && x->t->out) fprintf(x->t->out, "      (%s)\n", said.text);
    }
    return bad || barrier(x, "the end of the test") ? -1 : 0;
}

/* ---- timing ---- */

static int time_sums(struct test *x) {
    enum { WARM = 5, RUNS = 40 };
    cudaEvent_t a = NULL, b = NULL;
    int bad = ok(x, cudaEventCreate(&a), "an event") || ok(x, cudaEventCreate(&b), "an event") || barrier(x, "the timing");
    for (int s = 0; !bad && s < COMM_TEST_SIZES; s++) {
        size_t n = (size_t)1024 << s;
        float ms = 0;
        for (int i = 0; !bad && i < WARM + RUNS; i++) {
            if (i == WARM) bad = ok(x, cudaEventRecord(a, x->stream), "an event");
            if (!bad) bad = x->maker->sum(x->g, x->buf, n / 2, GPU_BF16, x->stream, x->e);
        }
        if (!bad) bad = ok(x, cudaEventRecord(b, x->stream), "an event") || settle(x, x->e) || ok(x, cudaEventElapsedTime(&ms, a, b), "an event");
        x->t->us[s] = ms * 1e3 / RUNS;
    }
    if (a) cudaEventDestroy(a);
    if (b) cudaEventDestroy(b);
    return bad ? -1 : 0;
}

/* ---- life ---- */

static int open_memory(struct test *x) {
    size_t sum = x->t->time ? TIME_BYTES : SUM_BYTES, big = (size_t)ROWS * WIDTH_MAX * 4;
    if (sum < big) sum = big;
    size_t all = sum + GATHER_BYTES * (size_t)(1 + x->n);
    void *given = NULL;
    if (x->maker->symmetric(x->g, all, &given, x->e)) return -1;
    x->block = given;
    x->own_block = !given;
    if (!given && ok(x, cudaMalloc((void **)&x->block, all), "memory")) return -1;
    x->buf = x->block, x->mine = x->buf + sum, x->all = x->mine + GATHER_BYTES;
    if (ok(x, cudaMalloc((void **)&x->h, big), "memory") || ok(x, cudaMalloc((void **)&x->x, big), "memory") ||
        ok(x, cudaMalloc((void **)&x->weight, WIDTH_MAX * 4), "memory") || ok(x, cudaMalloc((void **)&x->bias, WIDTH_MAX * 4), "memory") ||
        ok(x, cudaMalloc((void **)&x->seed, 256), "memory") || ok(x, cudaHostAlloc((void **)&x->host, 2 * big, cudaHostAllocDefault), "memory") ||
        ok(x, cudaHostAlloc((void **)&x->pinned, sizeof *x->pinned, cudaHostAllocDefault), "memory") || ok(x, cudaMemset(x->seed, 0, 256), "memory"))
        return -1;
    x->n_rows = (int32_t *)x->seed + 4;
    x->wrong = (unsigned long long *)(void *)(x->seed + 8);
    struct made w = made_of(x, x->weight, WIDTH_MAX, GPU_F32), b = made_of(x, x->bias, WIDTH_MAX, GPU_F32);
    w.who = MADE_WEIGHT, b.who = MADE_BIAS;
    return ok(x, made_load(), "loading kernels") || ok(x, made_fill(&w, x->stream), "a kernel") || ok(x, made_fill(&b, x->stream), "a kernel") ||
           ok(x, cudaDeviceSynchronize(), "the first kernels");
}

static void close_all(struct test *x) {
    void *device[] = {x->own_block ? x->block : NULL, x->h, x->x, x->weight, x->bias, x->seed};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        if (device[i]) cudaFree(device[i]);
    if (x->host) cudaFreeHost(x->host);
    if (x->pinned) cudaFreeHost(x->pinned);
    if (x->g) x->maker->close(x->g);
    if (x->stream) cudaStreamDestroy(x->stream);
}

static int run(struct test *x) {
    if (x->t->time) return time_sums(x);
    if (test_sums(x) || test_gathers(x) || test_norms(x) || test_graph(x) || test_random(x)) return -1;
    return x->t->absent && x->n > 1 ? test_absent(x) : 0;
}

int exchange_test(const struct dev_args *args, struct dev_comm_test *t, struct err *e) {
    struct test x = {.args = args, .t = t, .e = e, .maker = gpu_comm_by_name(args->gpu_comm), .rank = args->rank, .n = args->n_ranks,
                     .gpu = args->gpus ? args->gpus[args->local] : args->local};
    struct gpu_comm_args a = {.control = args->comm, .device = x.gpu, .timeout_ns = args->comm_timeout_ns, .no_windows = args->no_windows};
    int bad = ok(&x, cudaSetDevice(x.gpu), "choosing the GPU") || ok(&x, cudaStreamCreateWithFlags(&x.stream, cudaStreamNonBlocking), "a stream") ||
              x.maker->open(&x.g, &a, e) || open_memory(&x) || barrier(&x, "the beginning of the test") || run(&x);
    if (!bad) bad = barrier(&x, "the end of the test"); /* nobody frees what another may still read */
    if (!bad && t->out && !t->time) fprintf(t->out, "      (%s)\n", x.maker->describe(x.g));
    if (!bad || !x.g) close_all(&x); /* else others may still read this rank's memory, and the process ends */
    return bad ? -1 : 0;
}
