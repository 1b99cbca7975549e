/* graph.c: captured steps. A step is two graphs, one of the operators over tokens and one of those over rows (LM head, sampling), each
 * for the next larger of a fixed list of sizes; so any mix of decodes and chunks up to the largest size runs from the same few graphs.
 * They take nothing from the host but the step block, and the last sample is fed back on the device. All are captured by load, as are, for
 * good and never to be run, steps of the sizes that will run without a graph: afterwards no kernel is loaded and no product is
 * chosen. Runs on the rank thread. */
#include "base/clock.h"
#include "dev/cuda/cuda.h"

enum { MIXED_MAX = 1024, MIXED_A_DECODE = 4 }; /* a mixed step has up to so many tokens for each decode of the largest batch */

/* ---- sizes: close together where a step is short; those of mixed steps as coarse as the tiles of a product ---- */

static int32_t after(enum graph_kind kind, int32_t n) {
    if (kind == GRAPH_MIXED) return n < 16 ? n + 8 : n < 32 ? n + 16 : n < 128 ? n + 32 : n < 512 ? n + 64 : n + 128;
    return n < 4 ? n + 1 : n < 8 ? 8 : n < 64 ? n + 8 : n < 256 ? n + 16 : n + 64;
}

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

static int32_t largest(const struct dev *d, const struct batch_limits *l, enum graph_kind kind) {
    int32_t n = d->args.graph_max < 0 ? 256 : d->args.graph_max;
    if (kind == GRAPH_MIXED) return n >= MIXED_MAX / MIXED_A_DECODE ? least(MIXED_MAX, l->max_tokens) : least(n * MIXED_A_DECODE, l->max_tokens);
    return least(n, least(l->max_seqs, l->max_tokens));
}

static int32_t first(enum graph_kind kind, int32_t max) { return least(kind == GRAPH_MIXED ? 8 : 1, max); }

/* The last is the largest itself; 0: no more. */
static int32_t next(enum graph_kind kind, int32_t n, int32_t max) { return n >= max ? 0 : least(after(kind, n), max); }

const struct graph *graph_find(const struct dev *d, enum graph_kind kind, int32_t size) {
    for (int32_t i = 0; i < d->n_graphs; i++)
        if (d->graphs[i].kind == kind && d->graphs[i].size >= size) return &d->graphs[i];
    return NULL;
}

/* Kernels of a step, rounded up: what a layer of any kind comes to, libraries' second kernels and exchanges included. */
size_t graphs_bytes(const struct dev *d, const struct dev_shape *s) {
    enum { NODE_BYTES = 4096, LAYER = 12, LAYER_OF_EXPERTS = 20, AROUND = 16 };
    size_t layers = (size_t)s->n_layers * (s->n_experts ? LAYER_OF_EXPERTS : LAYER), nodes = 0;
    for (int kind = 0; kind < GRAPH_KINDS; kind++) {
        int32_t max = largest(d, &s->limits, (enum graph_kind)kind);
        for (int32_t n = first((enum graph_kind)kind, max); n; n = next((enum graph_kind)kind, n, max))
            nodes += AROUND + (kind == GRAPH_ROWS ? 0 : layers);
    }
    return nodes * NODE_BYTES;
}

/* ---- capture ---- */

/* What a step of this size is enqueued for. Blocks of `fi` take items in turn, so the launch is for as many as there can be; so do those of
 * `fa`, whose launch is for some chunks that fill their tiles. */
static struct run run_for(struct dev *d, enum graph_kind kind, int32_t n) {
    enum { ANY = 1 << 16, CHUNKS = 8 };
    const struct dev_shape *s = &d->shape;
    bool fa = d->args.decode_fa;
    int32_t seqs = least(n, s->limits.max_seqs), tiles = n * (s->n_heads / s->n_kv_heads) / fa_rows(s->head_dim) + CHUNKS;
    struct run r = {.d = d, .n = {n, seqs, seqs}, .n_fi = fa ? 0 : ANY, .n_fa = fa ? n : kind == GRAPH_MIXED ? tiles : 0};
    return r;
}

static int record(const struct run *r, int (*half)(const struct run *, struct err *), cudaGraph_t *graph, struct err *e) {
    struct dev *d = r->d;
    *graph = NULL;
    if (cuda_ok(d, cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal), "begin capture", e)) return -1;
    int bad = half(r, e);
    cudaError_t rc = cudaStreamEndCapture(d->stream, graph);
    return bad ? -1 : cuda_ok(d, rc, "capture", e);
}

static int capture(struct dev *d, enum graph_kind kind, int32_t n, struct err *e) {
    struct run r = run_for(d, kind, n);
    cudaGraph_t graph;
    struct graph *g = &d->graphs[d->n_graphs];
    if (d->n_graphs == GRAPHS_MAX) BUG("more than %d graphs", GRAPHS_MAX);
    int bad = record(&r, kind == GRAPH_ROWS ? step_rows : step_tokens, &graph, e);
    if (!bad) bad = cuda_ok(d, cudaGraphInstantiate(&g->exec, graph, 0), "making a graph", e);
    if (!bad) bad = cuda_ok(d, cudaGraphUpload(g->exec, d->stream), "loading a graph", e);
    if (graph) cudaGraphDestroy(graph);
    if (bad) return -1;
    g->kind = kind;
    g->size = n;
    d->n_graphs++;
    return 0;
}

/* Whatever sampling may need beyond a graph. */
static int finish(const struct run *r, struct err *e) {
    r->d->warming = true;
    int bad = sampling_finish(r->d, r->n.rows, 0, e);
    r->d->warming = false;
    return bad;
}

/* Products of every number of rows that no graph will have, chosen and loaded by recording what is never run. Later would be too late:
 * memory may be full then, and to load a kernel may wait for all that runs on the GPU, and so for a kernel that waits for this rank. */
static int load_rest(struct dev *d, struct err *e) {
    const struct batch_limits *l = &d->shape.limits;
    int32_t tokens = largest(d, l, GRAPH_MIXED), rows = largest(d, l, GRAPH_ROWS);
    cudaGraph_t graph;
    for (int32_t n = tokens + 1; n <= l->max_tokens; n = linear_rows(n) + 1) {
        struct run r = run_for(d, GRAPH_MIXED, n);
        int bad = record(&r, step_tokens, &graph, e);
        if (graph) cudaGraphDestroy(graph);
        if (bad) return -1;
    }
    for (int32_t n = rows + 1; n <= l->max_seqs; n = linear_rows(n) + 1) {
        struct run r = run_for(d, GRAPH_ROWS, n);
        int bad = record(&r, step_rows, &graph, e);
        if (graph) cudaGraphDestroy(graph);
        if (bad) return -1;
    }
    for (int32_t n = 1, last = 0; n != last; last = n, n = least(2 * n, l->max_seqs)) {
        struct run r = run_for(d, GRAPH_ROWS, n);
        int bad = record(&r, finish, &graph, e);
        if (graph) cudaGraphDestroy(graph);
        if (bad) return -1;
    }
    return 0;
}

int graphs_make(struct dev *d, struct err *e) {
    size_t before = 0, after_all = 0, total;
    uint64_t start = clock_ns();
    if (load_rest(d, e)) return -1;
    if (cuda_ok(d, cudaMemGetInfo(&before, &total), "asking for free memory", e)) return -1;
    for (int kind = 0; kind < GRAPH_KINDS; kind++) {
        int32_t max = largest(d, &d->shape.limits, (enum graph_kind)kind);
        for (int32_t n = first((enum graph_kind)kind, max); n; n = next((enum graph_kind)kind, n, max))
            if (capture(d, (enum graph_kind)kind, n, e)) return -1;
    }
    if (cuda_ok(d, cudaStreamSynchronize(d->stream), "loading graphs", e)) return -1;
    if (cuda_ok(d, cudaMemGetInfo(&after_all, &total), "asking for free memory", e)) return -1;
    d->graphs_taken = before > after_all ? before - after_all : 0;
    d->graphs_s = (double)(clock_ns() - start) / 1e9;
    return 0;
}

void graphs_release(struct dev *d) {
    for (int32_t i = 0; i < d->n_graphs; i++) cudaGraphExecDestroy(d->graphs[i].exec);
    d->n_graphs = 0;
}
