/* cpu.c: the CPU device measured: this machine's ceilings, every operator in the shapes of Qwen3-0.6B, and the whole model's
 * decode and prefill, each with its share of the ceiling. Random bf16 weights.
 *
 *   build/bench/ops/cpu [THREADS [ISA [all|model|ops|attention|read|mixed [SEQUENCES]]]]
 *
 * mixed: steps of decodes and a piece of a prompt, as a busy server has them. SEQUENCES: only the decode of so many (1, 4, 8, 16, 32), or 124 or 512: only that prefill. Best of several runs, and the median
 * beside it: what is between them is what others did on the machine. For the whole model also the processor time of a step, divided
 * by the threads: what the wall clock would say were nobody else there. */
#include "ceilings.h"

#include "dev/cpu/half.h"
#include "dev/dev.h"
#include "flow/batch.h"

#include <math.h>

enum { E = 1024, H = 16, K = 8, D = 128, F = 3072, V = 151936, LAYERS = 28, PAGE = 16, MAX_T = 512, MAX_S = 32, MAX_LEN = 8704 };

struct bench {
    struct ceilings c;
    struct pool *pool; /* for the ceilings */
    int32_t threads;
    const char *isa;
    bool dot;
    double flops; /* the ceiling that bf16 LINEARs of this ISA are held against */
    struct dev *d;
    struct dev_shape shape;
    struct batch *b;
    struct result result;
    float inv[D / 2];
    char *weights;
    size_t used;
};

enum { WEIGHT_BYTES = 1300 << 20 };

static struct view weight(struct bench *b, int32_t n, int32_t k) {
    struct view v = {b->weights + b->used, DT_BF16, n, k, k};
    b->used += ((size_t)n * (size_t)k * 2 + 63) & ~(size_t)63;
    if (b->used > (size_t)WEIGHT_BYTES) b->used = 0;
    return v;
}

static void weights_fill(struct bench *b) {
    b->weights = mem_aligned(2 << 20, WEIGHT_BYTES);
    madvise(b->weights, WEIGHT_BYTES, MADV_HUGEPAGE);
    uint32_t x = 1;
    uint16_t *w = (uint16_t *)(void *)b->weights;
    for (size_t i = 0; i < (size_t)WEIGHT_BYTES / 2; i++) {
        x = x * 1664525u + 1013904223u;
        w[i] = f32_to_bf16((float)(int32_t)x * 0x1p-31f * 0.03f);
    }
}

static void device_load(struct bench *b, const struct op *ops, int32_t n) {
    struct err e = {0};
    if (!b->d && dev_cpu.open(&b->d, &(struct dev_args){.n_ranks = 1, .n_threads = b->threads, .isa = b->isa}, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(2);
    }
    if (dev_cpu.load(b->d, &b->shape, &(struct dev_program){ops, n}, &e)) {
        fprintf(stderr, "%s\n", e.text);
        exit(2);
    }
}

static void add_seq(struct bench *b, int32_t slot, int32_t pos, int32_t n, bool row) {
    struct batch *to = b->b;
    for (int32_t i = 0; i < n; i++) batch_tokens(to)[to->n_given + i] = (slot * 7919 + i * 31 + (int32_t)to->step) % V;
    batch_seqs(to)[to->n_seqs++] = (struct batch_seq){slot, pos, n, to->n_given, row ? to->n_rows++ : -1};
    to->n_given += n;
    to->n_tokens += n;
}

/* Its time in seconds. */
static double run_batch(struct bench *b) {
    struct err e = {0};
    batch_seal(b->b);
    uint64_t t = clock_ns();
    if (dev_cpu.launch(b->d, b->b, &e)) exit(1);
    double s = (double)(clock_ns() - t) * 1e-9;
    dev_cpu.collect(b->d, &b->result, &e);
    return s;
}

/* One step of `seqs` sequences with `n` new tokens each at `pos`; its time in seconds. */
static double step(struct bench *b, int32_t seqs, int32_t n, int32_t pos, bool rows) {
    static uint64_t number;
    batch_reset(b->b, ++number);
    for (int32_t s = 0; s < seqs; s++) add_seq(b, s, pos, n, rows);
    if (!pos) /* the page tables for every length */
        for (int32_t s = 0; s < seqs; s++)
            for (int32_t i = 0; i < MAX_LEN / PAGE; i++)
                batch_pages(b->b)[b->b->n_pages++] = (struct batch_page){s, i, 1 + (i * seqs + s) % (b->shape.n_pages - 1)};
    return run_batch(b);
}

/* A step of a busy server: `seqs` decodes at `pos` and a prompt's first n tokens; seconds. */
static double mixed_step(struct bench *b, int32_t seqs, int32_t pos, int32_t n) {
    static uint64_t number = 1u << 30;
    batch_reset(b->b, ++number);
    for (int32_t s = 0; s < seqs; s++) add_seq(b, s, pos, 1, true);
    if (n && seqs < MAX_S) add_seq(b, seqs, 0, n, true);
    return run_batch(b);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct timing {
    double best, median, cpu; /* seconds; cpu: least processor time over threads */
};

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static struct timing repeat(struct bench *b, int32_t seqs, int32_t n, int32_t pos, bool rows, int runs) {
    double t[64], cpu = 1e9;
    if (pos) step(b, seqs, 1, 0, false);
    step(b, seqs, n, pos, rows);
    for (int i = 0; i < runs; i++) {
        double from = cpu_seconds();
        t[i] = step(b, seqs, n, pos, rows);
        double used = (cpu_seconds() - from) / b->threads;
        if (used < cpu) cpu = used;
    }
    qsort(t, (size_t)runs, sizeof *t, by_value);
    return (struct timing){t[0], t[runs / 2], cpu};
}

/* ---- single operators: the same operator on as many different weights as fit, so that caches do not help ---- */

static void bench_linear(struct bench *b, const char *name, int32_t n, int32_t k, enum buf_id in, enum buf_id out, int32_t slices) {
    enum { MOST = 64 };
    struct op ops[MOST];
    int count = (int)((double)WEIGHT_BYTES / (2.0 * n * k));
    if (count > 24) count = 24;
    b->used = 0;
    for (int i = 0; i < count; i++)
        ops[i] = (struct op){.kind = OP_LINEAR, .layer = -1, .in = in, .out = out, .k_slices = slices, .w = {weight(b, n, k)}};
    device_load(b, ops, count);
    static const int32_t rows[] = {1, 2, 4, 8, 16, 32, 512};
    printf("%-22s", name);
    double share[15];
    for (int i = 0; i < 15; i++) { /* of a plain read of the same weights, in turn */
        double read_s = ceil_read(b->pool, b->weights, b->used);
        share[i] = read_s / (out == BUF_LOGITS ? step(b, 1, 1, 0, true) : step(b, 1, 1, 0, false));
    }
    qsort(share, 15, sizeof *share, by_value);
    printf("  M1 %.2f of read in turn;", share[7]);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (out == BUF_LOGITS && rows[i] > MAX_S) continue;
        struct timing t = out == BUF_LOGITS ? repeat(b, rows[i], 1, 0, true, 5) : repeat(b, 1, rows[i], 0, true, 7);
        double s = t.best / count, bytes = 2.0 * n * k, flop = 2.0 * n * k * rows[i];
        printf("  M%d %.0f us", rows[i], s * 1e6);
        if (rows[i] <= 8)
            printf(" %.1f GB/s %.2f", bytes / s * 1e-9, bytes / s * 1e-9 / b->c.read_gbs);
        else
            printf(" %.0f GF %.2f", flop / s * 1e-9, flop / s * 1e-9 / b->flops);
    }
    printf("\n");
}

static void bench_attention(struct bench *b) {
    struct op ops[2] = {{.kind = OP_ROPE_KV, .in = BUF_QKV, .eps = 1e-6f}, {.kind = OP_ATTENTION, .in = BUF_QKV, .out = BUF_ATT, .scale = 0.088f}};
    device_load(b, ops + 1, 1);
    static const struct { int32_t seqs, n, pos; } shapes[] = {{1, 1, 1023}, {1, 1, 8191}, {16, 1, 128}, {16, 1, 511}, {16, 1, 2047},
                                                              {1, 512, 0}, {1, 512, 1536}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct timing t = repeat(b, shapes[i].seqs, shapes[i].n, shapes[i].pos, false, 15);
        double len = shapes[i].pos + shapes[i].n, bytes = shapes[i].seqs * len * 2 * K * D * 2;
        double flop = 4.0 * shapes[i].seqs * H * D * shapes[i].n * (shapes[i].pos + (shapes[i].n + 1) / 2.0);
        printf("attention %2d x %3d at %4d: %8.1f us (processor %8.1f)", shapes[i].seqs, shapes[i].n, shapes[i].pos, t.best * 1e6,
               t.cpu * 1e6);
        if (shapes[i].n == 1)
            printf("  %.1f GB/s, %.2f of read\n", bytes / t.best * 1e-9, bytes / t.best * 1e-9 / b->c.read_gbs);
        else
            printf("  %.0f GFLOP/s, %.2f of f32 FMA\n", flop / t.best * 1e-9, flop / t.best * 1e-9 / b->c.fma_avx2);
    }
    device_load(b, ops, 1);
    printf("rope + KV store, T 1: %.1f us, T 512: %.1f us\n", repeat(b, 1, 1, 0, false, 30).best * 1e6, repeat(b, 1, 512, 0, false, 15).best * 1e6);
}

static void bench_small(struct bench *b) {
    b->used = 0;
    struct op norm = {.kind = OP_NORM, .layer = -1, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {weight(b, 1, E)}};
    struct op silu = {.kind = OP_SILU_MUL, .layer = -1, .in = BUF_GU, .out = BUF_FF};
    device_load(b, &norm, 1);
    printf("norm, T 1: %.2f us, T 512: %.1f us\n", repeat(b, 1, 1, 0, false, 30).best * 1e6, repeat(b, 1, 512, 0, false, 15).best * 1e6);
    device_load(b, &silu, 1);
    printf("silu*mul, T 1: %.2f us, T 512: %.1f us\n", repeat(b, 1, 1, 0, false, 30).best * 1e6, repeat(b, 1, 512, 0, false, 15).best * 1e6);
}

static void bench_sample(struct bench *b) {
    struct op op = {.kind = OP_SAMPLE, .layer = -1};
    device_load(b, &op, 1);
    float *x = mem_array((size_t)V * MAX_S, sizeof *x);
    uint32_t u = 1;
    for (size_t i = 0; i < (size_t)V * MAX_S; i++) {
        float z = 0;
        for (int k = 0; k < 4; k++) u = u * 1664525u + 1013904223u, z += (float)(int32_t)u * 0x1p-31f;
        x[i] = z * 2.6f; /* deviation 3 */
    }
    dev_cpu.poke(b->d, BUF_LOGITS, x, (size_t)V * MAX_S);
    static const struct sampling how[] = {{.temperature = 0, .top_p = 1, .n_logprobs = -1},
                                          {.temperature = 0.6f, .top_p = 1, .n_logprobs = -1},
                                          {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20, .n_logprobs = -1},
                                          {.temperature = 1, .top_p = 0.95f, .n_logprobs = -1},
                                          {.temperature = 0, .top_p = 1, .n_logprobs = 5}};
    static const char *const names[] = {"greedy", "temperature", "top-k 20, top-p 0.95", "top-p 0.95", "5 logprobs"};
    for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
        for (int32_t rows = 1; rows <= 16; rows *= 16) {
            batch_reset(b->b, 1);
            for (int32_t s = 0; s < rows; s++) {
                struct batch_slot *slot = &batch_slots(b->b)[b->b->n_slots++];
                slot->slot = s;
                slot->sampling = how[i];
            }
            batch_seal(b->b);
            struct err e;
            dev_cpu.launch(b->d, b->b, &e);
            dev_cpu.collect(b->d, &b->result, &e);
            printf("sample, %-21s R %2d: %.0f us\n", names[i], rows, repeat(b, rows, 1, 0, true, 15).best * 1e6);
        }
    }
    free(x);
}

/* ---- the whole model ---- */

static int32_t model(struct bench *b, struct op *ops) {
    struct op *o = ops;
    b->used = 0;
    struct view embed = weight(b, V, E), none = {0};
    *o++ = (struct op){.kind = OP_EMBED, .layer = -1, .out = BUF_H, .w = {embed}};
    for (int l = 0; l < LAYERS; l++) {
        struct view n1 = weight(b, 1, E), n2 = weight(b, 1, E), qn = weight(b, 1, D), kn = weight(b, 1, D);
        struct view q = weight(b, H * D, E), k = weight(b, K * D, E), v = weight(b, K * D, E), out = weight(b, E, H * D);
        struct view gate = weight(b, F, E), up = weight(b, F, E), down = weight(b, E, F);
        *o++ = (struct op){.kind = OP_NORM, .layer = l, .in = BUF_H, .in2 = l ? BUF_Y : BUF_NONE, .out = BUF_X, .eps = 1e-6f, .w = {n1}};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_X, .out = BUF_QKV, .k_slices = 1, .w = {q, k, v}};
        *o++ = (struct op){.kind = OP_ROPE_KV, .layer = l, .in = BUF_QKV, .eps = 1e-6f, .w = {qn, kn}};
        *o++ = (struct op){.kind = OP_ATTENTION, .layer = l, .in = BUF_QKV, .out = BUF_ATT, .scale = 0.088f};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_ATT, .out = BUF_Y, .k_slices = 8, .w = {out}};
        *o++ = (struct op){.kind = OP_NORM, .layer = l, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {n2}};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_X, .out = BUF_GU, .k_slices = 1, .w = {gate, up, none}};
        *o++ = (struct op){.kind = OP_SILU_MUL, .layer = l, .in = BUF_GU, .out = BUF_FF};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_FF, .out = BUF_Y, .k_slices = 8, .w = {down}};
    }
    *o++ = (struct op){.kind = OP_NORM, .layer = -1, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {weight(b, 1, E)}};
    *o++ = (struct op){.kind = OP_ROWS, .layer = -1, .in = BUF_X, .out = BUF_ROWS};
    *o++ = (struct op){.kind = OP_LINEAR, .layer = -1, .in = BUF_ROWS, .out = BUF_LOGITS, .k_slices = 1, .w = {embed}};
    *o++ = (struct op){.kind = OP_SAMPLE, .layer = -1};
    return (int32_t)(o - ops);
}

/* Decode of one sequence against plain reading of the same weights, turn by turn: what neighbours take of the memory's bandwidth
 * changes within seconds, so a ceiling from another moment says nothing. */
static void bench_read(struct bench *b, double bytes) {
    enum { ROUNDS = 40 };
    double step_s[ROUNDS], read_s[ROUNDS], ratio[ROUNDS];
    step(b, 1, 1, 0, false);
    step(b, 1, 1, 128, true);
    for (int i = 0; i < ROUNDS; i++) {
        read_s[i] = ceil_read(b->pool, b->weights, b->used) * bytes / (double)b->used;
        step_s[i] = step(b, 1, 1, 128, true);
        ratio[i] = read_s[i] / step_s[i];
    }
    qsort(step_s, ROUNDS, sizeof *step_s, by_value);
    qsort(read_s, ROUNDS, sizeof *read_s, by_value);
    qsort(ratio, ROUNDS, sizeof *ratio, by_value);
    printf("decode of  1 at 128 and a plain read of the same bytes in turn: best %.2f and %.2f ms (%.1f GB/s), %.2f of read; medians %.2f and %.2f; "
           "median of ratios %.2f\n", step_s[0] * 1e3, read_s[0] * 1e3, bytes / read_s[0] * 1e-9, read_s[0] / step_s[0], step_s[ROUNDS / 2] * 1e3,
           read_s[ROUNDS / 2] * 1e3, ratio[ROUNDS / 2]);
}

static void bench_model(struct bench *b, bool read_only, int32_t only) {
    static struct op ops[LAYERS * 9 + 8];
    device_load(b, ops, model(b, ops));
    double layer_weights = (double)LAYERS * (2.0 * E * H * D + 2.0 * E * K * D + 3.0 * E * F), all = layer_weights + (double)V * E;
    if (!only) bench_read(b, 2 * all + 128.0 * LAYERS * K * D * 4);
    if (read_only) return;
    static const int32_t seqs[] = {1, 4, 8, 16, 32};
    for (size_t i = 0; i < sizeof seqs / sizeof *seqs; i++) {
        if (only && seqs[i] != only) continue;
        struct timing t = repeat(b, seqs[i], 1, 128, true, 15);
        double bytes = 2 * all + seqs[i] * 128.0 * LAYERS * K * D * 4, flop = 2 * all * seqs[i];
        printf("decode of %2d at 128: %6.2f ms (median %6.2f, processor %6.2f), %6.1f tok/s; %.2f of read, %.2f of arithmetic\n", seqs[i], t.best * 1e3,
               t.median * 1e3, t.cpu * 1e3, seqs[i] / t.best, bytes / t.best * 1e-9 / b->c.read_gbs, flop / t.best * 1e-9 / b->flops);
    }
    static const int32_t prompts[] = {124, 512};
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        int32_t n = prompts[i];
        if (only && only != n) continue;
        struct timing t = repeat(b, 1, n, 0, true, 5);
        double flop = 2 * layer_weights * n + 2.0 * V * E + 4.0 * LAYERS * H * D * n * (n + 1) / 2.0;
        printf("prefill of %d: %.1f ms (median %.1f, processor %.1f), %.1f tok/s; %.2f of arithmetic\n", n, t.best * 1e3, t.median * 1e3, t.cpu * 1e3,
               n / t.best, flop / t.best * 1e-9 / b->flops);
    }
}

static void bench_mixed(struct bench *b, int32_t runs) {
    static struct op ops[LAYERS * 9 + 8];
    static const int32_t shapes[][2] = {{4, 172}, {12, 124}, {16, 32}, {16, 0}, {24, 32}, {31, 0}, {0, 124}, {0, 176}};
    device_load(b, ops, model(b, ops));
    step(b, MAX_S, 1, 0, false);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        double best = 1e9;
        for (int32_t k = 0; k < runs; k++) best = fmin(best, mixed_step(b, shapes[i][0], 140, shapes[i][1]));
        printf("%d decodes and %d of a prompt: %.1f ms\n", shapes[i][0], shapes[i][1], best * 1e3);
    }
}

int main(int argc, char **argv) {
    struct bench b = {.threads = argc > 1 ? atoi(argv[1]) : 2, .isa = argc > 2 ? argv[2] : "auto"};
    const char *what = argc > 3 ? argv[3] : "all";
    struct err e = {0};
    if (pool_new(&b.pool, b.threads, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    for (int i = 0; i < D / 2; i++) b.inv[i] = (float)pow(1e6, -2.0 * i / D);
    b.shape = (struct dev_shape){.n_layers = LAYERS, .n_heads = H, .n_kv_heads = K, .head_dim = D, .hidden = E, .ffn = F, .vocab = V,
                                 .max_len = MAX_LEN, .page_size = PAGE, .n_pages = 3000, .kv_dtype = DT_BF16,
                                 .limits = {MAX_T, MAX_S, 32768}, .rope = {D, b.inv, 1, 0, 0, 0}};
    b.b = batch_init(mem_aligned(64, batch_size(&b.shape.limits)), &b.shape.limits);
    b.result.rows = mem_zalloc(MAX_S, sizeof *b.result.rows);
    weights_fill(&b);
    device_load(&b, NULL, 0); /* before any work: threads may be bound while others are busy, and a new pool would take that for its cores */
    ceilings_measure(&b.c, b.pool);
    printf("device: %s\n", dev_cpu.describe(b.d));
    b.dot = strstr(dev_cpu.describe(b.d), "bf16") != NULL;
    b.flops = b.dot ? b.c.dot_bf16 : strstr(dev_cpu.describe(b.d), "avx512") ? b.c.fma_avx512 : b.c.fma_avx2;
    if (!strcmp(what, "all") || !strcmp(what, "attention")) bench_attention(&b);
    if (!strcmp(what, "all") || !strcmp(what, "ops")) {
        bench_linear(&b, "qkv [4096, 1024]", 4096, E, BUF_X, BUF_QKV, 1);
        bench_linear(&b, "o [1024, 2048] x8", E, H * D, BUF_ATT, BUF_Y, 8);
        bench_linear(&b, "gate up [6144, 1024]", 2 * F, E, BUF_X, BUF_GU, 1);
        bench_linear(&b, "down [1024, 3072] x8", E, F, BUF_FF, BUF_Y, 8);
        bench_linear(&b, "head [151936, 1024]", V, E, BUF_ROWS, BUF_LOGITS, 1);
        bench_small(&b);
        bench_sample(&b);
    }
    if (!strcmp(what, "all") || !strcmp(what, "model") || !strcmp(what, "read")) bench_model(&b, !strcmp(what, "read"), argc > 4 ? atoi(argv[4]) : 0);
    if (!strcmp(what, "mixed")) bench_mixed(&b, argc > 4 ? atoi(argv[4]) : 5);
    dev_cpu.close(b.d);
    pool_free(b.pool);
    free(b.b);
    free(b.result.rows);
    free(b.weights);
    return 0;
}
