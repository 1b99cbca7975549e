/* tune.c: which way of computing each matrix product of a program is fastest here (`minisgl tune`). Each shape is tried at the numbers of rows
 * that linear_rows knows, every candidate is compared with the plain kernel, and timed as it will run: from a captured graph, after a
 * kernel that writes its input, with weights that come from memory, not from a cache. All memory is its own and is gone when it returns.
 * Runs on the rank thread; the device has no program loaded. */
#include "base/mem.h"
#include "dev/cpu/half.h"
#include "dev/cuda/cuda.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    COPIES_MAX = 64,    /* of a weight, that are used in turn */
    WEIGHT_BYTES = 512 << 20, /* of all of them, at least: many times the second-level cache */
    CHAIN_MAX = 32,
    FIRST_REPEATS = 2,
    REPEATS = 7,
    FINALISTS = 4,
    WAYS_MAX = 160,
    PROPOSALS = 32,
    CHECK_ROWS = 16
};
static const double CHAIN_US = 400; /* about how long a chain of products should take */
static const double WORTH = 0.985;  /* of the first choice's time */

struct tuner {
    struct dev *d;
    const struct dev_tune *what;
    struct lintab_gpu gpu;
    char *weights, *x, *x0, *y, *ref, *zeros;
    size_t weight_bytes;
    float *differ;
    cudaEvent_t from, to;
    struct dop op;
    struct linear_args a;
    size_t step;      /* bytes from one copy of the weight to the next */
    int32_t copies;
    int32_t chain;    /* products in a graph */
    double feed_us;   /* of the kernel between them */
};

/* ---- the shapes of the program ---- */

struct product {
    struct lintab_shape s;
    int32_t max_rows;
};

static int32_t rows_of_op(const struct dev_shape *s, const struct op *o) {
    return o->out == BUF_LOGITS ? s->limits.max_seqs : s->limits.max_tokens;
}

static void add_product(struct product *all, int32_t *n, struct product p) {
    for (int32_t i = 0; i < *n; i++) {
        if (memcmp(&all[i].s, &p.s, sizeof p.s)) continue;
        if (all[i].max_rows < p.max_rows) all[i].max_rows = p.max_rows;
        return;
    }
    all[(*n)++] = p;
}

static int32_t find_products(const struct dev *d, const struct dev_tune *w, struct product *out) {
    int32_t n = 0;
    for (int32_t i = 0; i < w->prog->n_ops; i++) {
        const struct op *o = &w->prog->ops[i];
        if (o->kind != OP_LINEAR && o->kind != OP_MOE) continue;
        struct product p = {.max_rows = o->kind == OP_MOE ? 4096 : rows_of_op(w->shape, o)};
        memset(&p.s, 0, sizeof p.s); /* compared as bytes */
        enum dtype y = o->kind == OP_MOE ? DT_F32 : buf_dtype(d, o->out);
        p.s.k = o->w[0].k, p.s.x = (enum lintab_type)d->act, p.s.y = (enum lintab_type)y;
        for (int v = 0; v < (o->kind == OP_MOE ? 1 : 3); v++) {
            p.s.n += o->w[v].data ? o->w[v].n : 0;
            p.s.bias |= o->kind == OP_LINEAR && o->bias[v].data;
        }
        add_product(out, &n, p);
    }
    return n;
}

/* ---- memory ---- */

static int get(struct tuner *t, char **p, size_t bytes, struct err *e) {
    return cuda_ok(t->d, cudaMalloc((void **)p, bytes + 256), "memory to tune with", e);
}

/* Numbers that look like normed activations and trained weights, the same block again and again. */
static int fill(struct tuner *t, char *p, size_t bytes, float scale, struct err *e) {
    enum { BLOCK = 1 << 20 };
    size_t size = dtype_size(t->d->act), block = BLOCK * size;
    char *host = mem_array(BLOCK, size);
    uint32_t s = 12345;
    for (size_t i = 0; i < BLOCK; i++) {
        s = s * 1664525u + 1013904223u;
        store_any(host, t->d->act, i, ((float)(s >> 8) * 0x1p-23f - 1) * scale);
    }
    cudaError_t rc = cudaSuccess;
    for (size_t at = 0; at < bytes && !rc; at += block)
        rc = cudaMemcpyAsync(p + at, host, bytes - at < block ? bytes - at : block, cudaMemcpyHostToDevice, t->d->stream);
    if (!rc) rc = cudaStreamSynchronize(t->d->stream);
    free(host);
    return cuda_ok(t->d, rc, "filling memory", e);
}

static int open_memory(struct tuner *t, const struct product *p, int32_t n, struct err *e) {
    size_t w = WEIGHT_BYTES, x = 0, y = 0, widest = 0, size = dtype_size(t->d->act);
    for (int32_t i = 0; i < n; i++) {
        size_t k = (size_t)up8(p[i].s.k), rows = (size_t)linear_rows(p[i].max_rows) + 8, nn = (size_t)up8(p[i].s.n);
        if (2 * nn * k * size > w) w = 2 * nn * k * size;
        if (nn > widest) widest = nn;
        if (rows * k * size > x) x = rows * k * size;
        if (rows * nn * dtype_size((enum dtype)p[i].s.y) > y) y = rows * nn * dtype_size((enum dtype)p[i].s.y);
    }
    t->weight_bytes = w;
    char *workspace = NULL;
    if (get(t, &t->weights, w, e) || get(t, &t->x, x, e) || get(t, &t->x0, x, e) || get(t, &t->y, y, e) || get(t, &t->ref, y, e) ||
        get(t, (char **)&t->differ, 8, e) || get(t, &t->zeros, widest * 4, e) ||
        get(t, &workspace, WORKSPACE_BYTES, e))
        return -1;
    t->d->workspace = workspace;
    if (cuda_ok(t->d, cudaMemsetAsync(t->zeros, 0, widest * 4, t->d->stream), "clearing memory", e)) return -1;
    if (fill(t, t->weights, w, 0.05f, e) || fill(t, t->x0, x, 1, e) || fill(t, t->x, x, 1, e)) return -1;
    return cuda_ok(t->d, cudaEventCreate(&t->from), "an event", e) || cuda_ok(t->d, cudaEventCreate(&t->to), "an event", e);
}

static void close_memory(struct tuner *t) {
    void *all[] = {t->weights, t->x, t->x0, t->y, t->ref, t->zeros, t->differ, t->d->workspace};
    cudaStreamSynchronize(t->d->stream);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) cudaFree(all[i]);
    if (t->from) cudaEventDestroy(t->from);
    if (t->to) cudaEventDestroy(t->to);
    t->d->workspace = NULL;
}

/* ---- one candidate ---- */

struct candidate {
    struct lintab_way way;
    struct algo algo;
    double us;
};

static int enqueue_chain(struct tuner *t, const struct algo *c, int32_t n, struct err *e) {
    for (int32_t i = 0; i < n; i++) {
        struct linear_args a = t->a;
        struct dop op = t->op;
        a.op = &op;
        op.w.p = t->weights + (size_t)(i % t->copies) * t->step;
        k_feed(t->x, t->x0, (int64_t)t->a.rows * t->a.ldx * (int64_t)dtype_size(t->d->act), t->d->stream);
        if (c && linear_with(t->d, &a, c, e)) return -1;
    }
    return 0;
}

/* A graph of the chain; NULL: the library refuses it. */
static cudaGraphExec_t record(struct tuner *t, const struct algo *c) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    if (cudaStreamBeginCapture(t->d->stream, cudaStreamCaptureModeThreadLocal)) return NULL;
    int bad = enqueue_chain(t, c, t->chain, NULL);
    if (cudaStreamEndCapture(t->d->stream, &graph) || bad || cudaGraphInstantiate(&exec, graph, 0)) exec = NULL;
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    return exec;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* One run, milliseconds; INFINITY: it failed. */
static float run_once(struct tuner *t, cudaGraphExec_t exec) {
    float ms = INFINITY;
    cudaEventRecord(t->from, t->d->stream);
    cudaError_t rc = cudaGraphLaunch(exec, t->d->stream);
    cudaEventRecord(t->to, t->d->stream);
    if (!rc) rc = cudaEventSynchronize(t->to);
    if (!rc) rc = cudaEventElapsedTime(&ms, t->from, t->to);
    return rc ? INFINITY : ms;
}

/* The medians of some runs, in turns, so that a GPU that becomes slower is so for all. Microseconds a product; INFINITY: it cannot be run. */
static void race(struct tuner *t, struct candidate *all, int n, int repeats) {
    float ms[FINALISTS + 1][REPEATS];
    cudaGraphExec_t exec[FINALISTS + 1];
    for (int i = 0; i < n; i++) {
        exec[i] = record(t, &all[i].algo);
        all[i].us = INFINITY;
        if (exec[i]) run_once(t, exec[i]);
    }
    for (int r = 0; r < repeats; r++)
        for (int i = 0; i < n; i++) ms[i][r] = exec[i] ? run_once(t, exec[i]) : INFINITY;
    for (int i = 0; i < n; i++) {
        if (!exec[i]) continue;
        cudaGraphExecDestroy(exec[i]);
        qsort(ms[i], (size_t)repeats, sizeof *ms[i], by_value);
        all[i].us = (double)ms[i][repeats / 2] * 1e3 / t->chain;
    }
}

static double timed(struct tuner *t, const struct algo *c, int repeats) {
    struct candidate one = {.us = INFINITY};
    if (c) {
        one.algo = *c;
        race(t, &one, 1, repeats);
        return one.us;
    }
    float ms[REPEATS];
    cudaGraphExec_t exec = record(t, NULL);
    for (int i = -1; exec && i < repeats; i++) ms[i < 0 ? 0 : i] = run_once(t, exec);
    if (!exec) return 0;
    cudaGraphExecDestroy(exec);
    qsort(ms, (size_t)repeats, sizeof *ms, by_value);
    return (double)ms[repeats / 2] * 1e3 / t->chain;
}

/* Does it compute what the plain kernel does? The first rows and the last ones are looked at. */
static int right(struct tuner *t, const struct algo *c, bool *is, struct err *e) {
    struct dev *d = t->d;
    int32_t rows = t->a.rows, n = rows < CHECK_ROWS ? rows : CHECK_ROWS;
    size_t size = dtype_size(t->a.y_dtype), y_row = (size_t)t->a.ldy * size;
    float found[2] = {0};
    const bool wide = t->a.y_dtype == DT_F32;
    cudaMemsetAsync(t->y, 0xff, (size_t)rows * y_row, d->stream);
    cudaMemsetAsync(t->differ, 0, 8, d->stream);
    *is = !linear_with(d, &t->a, c, NULL);
    for (int part = 0; part < 2 && *is; part++) {
        int32_t at = part ? rows - n : 0;
        k_differ((struct differ_args){.y = t->y + (size_t)at * y_row, .ref = t->ref + (size_t)at * y_row, .t = t->a.y_dtype, .ld = t->a.ldy,
                                      .rows = n, .n = t->op.w.n, .out = t->differ}, d->stream);
    }
    cudaError_t rc = cudaMemcpyAsync(found, t->differ, 8, cudaMemcpyDeviceToHost, d->stream);
    if (!rc) rc = cudaStreamSynchronize(d->stream);
    if (!rc) rc = cudaGetLastError();
    *is = *is && found[0] <= (wide ? 1e-4f : 1e-2f) * found[1];
    return cuda_ok(d, rc, "a candidate", e);
}

/* What the plain kernel makes of the first rows and the last. */
static void make_reference(struct tuner *t) {
    int32_t rows = t->a.rows, n = rows < CHECK_ROWS ? rows : CHECK_ROWS;
    for (int part = 0; part < 2; part++) {
        int64_t at = part ? rows - n : 0;
        struct linear_args a = t->a;
        a.x = t->x + (size_t)(at * a.ldx) * dtype_size(t->d->act);
        a.y = t->ref + (size_t)(at * a.ldy) * dtype_size(a.y_dtype);
        a.rows = n;
        linear_with(t->d, &a, &(struct algo){.way = WAY_PLAIN}, NULL);
    }
}

/* ---- all candidates of one product ---- */

static bool holds(const struct candidate *all, int32_t n, const struct lintab_way *way) {
    for (int32_t i = 0; i < n; i++)
        if (!memcmp(&all[i].way, way, sizeof *way)) return true;
    return false;
}

static int32_t add_way(struct tuner *t, struct candidate *all, int32_t n, const struct lintab_way *way) {
    if (n == WAYS_MAX || holds(all, n, way)) return n;
    all[n] = (struct candidate){.way = *way, .us = INFINITY};
    return n + linear_way(t->d, &t->a, way, &all[n].algo);
}

static int32_t add_ours(struct tuner *t, struct candidate *all, int32_t n) {
    n = add_way(t, all, n, &(struct lintab_way){.kind = LINTAB_GEMV});
    for (int32_t tile = 32; tile <= 128 && t->a.rows <= OWN_ROWS; tile *= 2)
        for (int32_t i = 0; i < 8; i++)
            n = add_way(t, all, n, &(struct lintab_way){.kind = LINTAB_OWN, .v = {[OWN_TILE] = tile, [OWN_SPLIT] = 1 << i / 2, [OWN_BLOCKS] = 1 + i % 2}});
    return n;
}

/* The library's proposals, the first of them first, and the best of them with other splits of k. */
static int32_t add_library(struct tuner *t, struct candidate *all, int32_t n) {
    struct lintab_way ways[PROPOSALS];
    static const int32_t splits[] = {2, 3, 4, 5, 6, 8};
    int32_t count = linear_proposals(t->d, &t->a, ways, PROPOSALS);
    for (int32_t i = 0; i < count; i++) n = add_way(t, all, n, &ways[i]);
    for (int32_t i = 0; i < count && i < 6 && t->a.rows <= 256; i++)
        for (size_t k = 0; k < sizeof splits / sizeof *splits; k++) {
            struct lintab_way w = ways[i];
            w.v[LT_SPLIT_K] = splits[k];
            if (!w.v[LT_REDUCTION]) w.v[LT_REDUCTION] = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
            n = add_way(t, all, n, &w);
        }
    return n;
}

static int by_time(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return (x->us > y->us) - (x->us < y->us);
}

/* How long a chain has to be, from the time of one product. */
static void set_chain(struct tuner *t, const struct algo *c) {
    k_feed(t->x, t->x0, 16, t->d->stream);
    t->chain = 2;
    double us = timed(t, c, 1);
    if (!isfinite(us)) us = CHAIN_US;
    t->chain = (int32_t)(CHAIN_US / us) + 1;
    if (t->chain > CHAIN_MAX) t->chain = CHAIN_MAX;
    if (t->chain < 2) t->chain = 2;
    t->feed_us = timed(t, NULL, 3);
}

/* Without the kernel between. */
static float net(const struct tuner *t, double us) { return us > t->feed_us + 0.01 ? (float)(us - t->feed_us) : 0.01f; }

static float best_of(const struct tuner *t, const struct candidate *all, int32_t n, enum lintab_kind kind) {
    double us = INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (all[i].way.kind == kind && all[i].us < us) us = all[i].us;
    return isfinite(us) ? net(t, us) : 0;
}

/* Compares and times all of them, fastest first; how many are right and can be run. */
static int32_t try_all(struct tuner *t, struct candidate *all, int32_t n, struct err *e) {
    int32_t good = 0;
    for (int32_t i = 0; i < n; i++) {
        bool is;
        if (right(t, &all[i].algo, &is, e)) return -1; /* loads its kernels too, which must not happen while a graph is recorded */
        if (!i) set_chain(t, &all[0].algo);
        if (!is) continue;
        all[good] = all[i];
        all[good].us = timed(t, &all[good].algo, FIRST_REPEATS);
        good += isfinite(all[good].us);
    }
    qsort(all, (size_t)good, sizeof *all, by_time);
    return good;
}

static int tune_rows(struct tuner *t, struct lintab_shape *s, int32_t rows, struct err *e) {
    static struct candidate all[WAYS_MAX + 1];
    struct candidate final[FINALISTS + 1];
    t->a.rows = rows;
    make_reference(t);
    int32_t n = add_library(t, all, 0), n_final = 0, best = 0;
    bool has_first = n > 0;
    struct candidate first = all[0];
    n = add_ours(t, all, n);
    int32_t good = try_all(t, all, n, e);
    if (good <= 0) return good;
    has_first &= holds(all, good, &first.way);
    if (has_first) final[n_final++] = first;
    for (int32_t i = 0; i < good && i < FINALISTS; i++)
        if (!has_first || !holds(&all[i], 1, &first.way)) final[n_final++] = all[i];
    race(t, final, n_final, REPEATS);
    /* The first choice stays unless another is faster by more than noise. */
    for (int32_t i = 1; i < n_final; i++)
        if (final[i].us < final[best].us * (best == 0 && has_first ? WORTH : 1)) best = i;
    if (!isfinite(final[best].us)) return 0;
    struct lintab_row row = {.shape = *s, .rows = rows, .way = final[best].way, .us = net(t, final[best].us),
                             .first_us = has_first && isfinite(first.us = final[0].us) ? net(t, first.us) : 0,
                             .library_us = best_of(t, all, good, LINTAB_LT), .own_us = best_of(t, all, good, LINTAB_OWN),
                             .gemv_us = best_of(t, all, good, LINTAB_GEMV)};
    t->what->found(t->what->arg, &t->gpu, &row);
    return 0;
}

/* Rows from one up, to max and not beyond; above 1,024 only some, since the next larger one stands in. */
static int32_t next_rows(int32_t rows, int32_t max) {
    int32_t next = linear_rows(rows + 1);
    if (next > 1024) next = next <= 2048 ? (rows / 512 + 1) * 512 : (rows / 2048 + 1) * 2048;
    return rows < max && next > max ? max : next;
}

static int tune_product(struct tuner *t, struct product *p, struct err *e) {
    const size_t size = dtype_size(t->d->act);
    t->op = (struct dop){.w = {.p = t->weights, .dtype = t->d->act, .n = p->s.n, .k = p->s.k, .ld = up8(p->s.k)}};
    t->step = up256((size_t)p->s.n * (size_t)t->op.w.ld * size);
    t->copies = (int32_t)(t->weight_bytes / t->step);
    if (t->copies > COPIES_MAX) t->copies = COPIES_MAX;
    if (p->s.bias) t->op.bias = t->zeros, t->op.vector[0] = (float *)(void *)t->zeros;
    t->a = (struct linear_args){.op = &t->op, .x = t->x, .y = t->y, .ldx = t->op.w.ld, .ldy = up8(p->s.n), .y_dtype = (enum dtype)p->s.y};
    int bad = linear_describe(t->d, &t->op, t->a.y_dtype, e);
    int32_t max = linear_rows(p->max_rows);
    for (int32_t rows = 1; !bad && rows <= max; rows = next_rows(rows, max)) bad = tune_rows(t, &p->s, rows, e);
    linear_forget(&t->op);
    return bad;
}

int tune_products(struct dev *d, const struct dev_tune *what, struct err *e) {
    struct tuner t = {.d = d, .what = what, .gpu = linear_gpu(d)};
    struct product *all = mem_zalloc((size_t)what->prog->n_ops + 1, sizeof *all);
    if (d->loaded) BUG("a device with a program is not tuned");
    d->op_at = -1;
    for (int32_t i = what->prog->n_ops - 1; i >= 0; i--)
        if (what->prog->ops[i].kind == OP_LINEAR || what->prog->ops[i].kind == OP_MOE) d->act = what->prog->ops[i].w[0].dtype;
    int32_t n = find_products(d, what, all);
    int bad = cuda_ok(d, cudaSetDevice(d->gpu), "choosing the GPU", e) || open_memory(&t, all, n, e);
    for (int32_t i = 0; i < n && !bad; i++) bad = tune_product(&t, &all[i], e);
    close_memory(&t);
    free(all);
    return bad ? -1 : 0;
}
