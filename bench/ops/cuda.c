/* cuda.c: operators of the CUDA device, timed through dev.h: a program of one operator over several layers (so that no weight or page is
 * still in a cache), many steps, the host's clock around them. Prints one line a shape: microseconds an operator, GB/s of the bytes it
 * must move, TFLOP/s. Usage: build/bench/ops/cuda [att|fp8|cudnn|lin|sample [TABLE]]; TABLE: of matrix products, as `minisgl tune` writes it.
 * Looks for minisgl_cuda.so beside itself. */
#include "base/clock.h"
#include "base/mem.h"
#include "dev/cpu/half.h"
#include "dev/open.h"
#include "products.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 4, STEPS = 30, DECODES_MAX = 256 };

static uint64_t state = 1;
static uint32_t rnd(void) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t x = state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)((x ^ x >> 27) >> 32);
}

static const struct dev_maker *maker;
static struct dev *dev;
static struct err e;

static void check(int bad) {
    if (!bad) return;
    fprintf(stderr, "%s\n", e.text);
    exit(1);
}

struct rig {
    struct dev_shape s;
    struct batch *b[2];
    struct result r;
    uint64_t step;
};

static void rig_init(struct rig *g, const struct dev_shape *s, const struct op *ops, int n) {
    *g = (struct rig){.s = *s};
    check(maker->load(dev, s, &(struct dev_program){ops, n}, &e));
    for (int i = 0; i < 2; i++) g->b[i] = batch_init(mem_aligned(64, batch_size(&s->limits)), &s->limits);
    g->r.rows = mem_zalloc((size_t)s->limits.max_seqs, sizeof *g->r.rows);
}

static void rig_release(struct rig *g) {
    for (int i = 0; i < 2; i++) free(g->b[i]);
    free(g->r.rows);
}

/* A step of `seqs` sequences with n new tokens each at pos. */
static void fill(struct rig *g, struct batch *b, int seqs, int n, int pos, bool rows) {
    batch_reset(b, ++g->step);
    for (int i = 0; i < seqs; i++)
        batch_seqs(b)[b->n_seqs++] = (struct batch_seq){i, pos, n, 0, rows ? b->n_rows++ : -1};
    b->n_tokens = seqs * n;
    b->n_given = n;
    memset(batch_tokens(b), 0, (size_t)n * 4);
}

static void once(struct rig *g) {
    batch_seal(g->b[0]);
    check(maker->launch(dev, g->b[0], &e) || maker->collect(dev, &g->r, &e));
}

/* Microseconds an operator, two steps under way. */
static double timed(struct rig *g, int seqs, int n, int pos, bool rows, int ops) {
    for (int i = 0; i < 2; i++) fill(g, g->b[i], seqs, n, pos, rows), batch_seal(g->b[i]);
    for (int i = 0; i < 3; i++) once(g);
    uint64_t from = clock_ns();
    for (int i = 0; i < STEPS; i++) {
        check(maker->launch(dev, g->b[i & 1], &e));
        if (i) check(maker->collect(dev, &g->r, &e));
    }
    check(maker->collect(dev, &g->r, &e));
    return (double)(clock_ns() - from) / 1e3 / STEPS / ops;
}

static void random_rows(enum buf_id b, size_t rows, size_t width) {
    float *x = mem_array(rows * width, 4);
    for (size_t i = 0; i < rows * width; i++) x[i] = (float)(int32_t)rnd() * 0x1p-31f;
    if (maker->poke(dev, b, x, rows * width)) fprintf(stderr, "a buffer is smaller than it should be\n");
    free(x);
}

struct att {
    int H, K, D, seqs, len, chunk; /* heads, those of K and V, their size; the cache gets `len` tokens a sequence, in chunks */
    enum dtype kv;
};

static void att_init(struct rig *g, const struct att *a, struct op ops[2 * LAYERS]) {
    static float inv[128];
    for (int i = 0; i < a->D / 2; i++) inv[i] = powf(1e6f, -2.0f * (float)i / (float)a->D);
    int pages = (a->len + 1 + 15) / 16;
    struct dev_shape s = {.n_layers = LAYERS, .n_heads = a->H, .n_kv_heads = a->K, .head_dim = a->D, .hidden = 8, .ffn = 8, .vocab = 8,
                          .max_len = a->len + 16, .page_size = 16, .n_pages = a->seqs * pages + 1, .dtype = DT_BF16, .convert = true, .kv_dtype = a->kv,
                          .limits = {.max_tokens = 8192, .max_seqs = a->seqs, .max_pages = a->seqs * pages + 1},
                          .rope = {.dim = a->D, .inv_freq = inv, .scale = 1}};
    for (int l = 0; l < LAYERS; l++) {
        ops[2 * l] = (struct op){.kind = OP_ROPE_KV, .layer = l, .in = BUF_QKV, .out = BUF_QKV, .eps = 1e-6f};
        ops[2 * l + 1] = (struct op){.kind = OP_ATTENTION, .layer = l, .in = BUF_QKV, .out = BUF_ATT, .scale = 1 / sqrtf((float)a->D)};
    }
    rig_init(g, &s, ops, 2 * LAYERS);
    random_rows(BUF_QKV, 8192, (size_t)(a->H + 2 * a->K) * (size_t)a->D);
    for (int done = 0; done < a->seqs; done++) /* one sequence a step, whole chunks: fills the cache with what is no zero */
        for (int at = 0; at < a->len; at += a->chunk) {
            struct batch *b = g->b[0];
            int n = a->len - at < a->chunk ? a->len - at : a->chunk;
            fill(g, b, 1, n, at, false);
            batch_seqs(b)[0].slot = done;
            for (int p = 0; done == 0 && at == 0 && p < a->seqs * pages; p++)
                batch_pages(b)[b->n_pages++] = (struct batch_page){p % a->seqs, p / a->seqs, 1 + p};
            once(g);
        }
}

static void time_chunks(struct rig *g, const struct att *a, const char *how) {
    double us = timed(g, a->seqs, a->len, 0, false, LAYERS), flop = 4.0 * a->H * a->D * (double)a->len * a->len / 2 * a->seqs;
    printf("rope + attention%s, %s, chunks %2d x %5d  H %2d K %d D %d: %8.1f us  %6.1f TFLOP/s\n", how, dtype_name(a->kv), a->seqs, a->len, a->H, a->K, a->D,
           us, flop / us / 1e6);
}

static void attention(int H, int K, int seqs, int len, int chunk, enum dtype kv) {
    struct att a = {H, K, 128, seqs, len, chunk, kv};
    struct op ops[2 * LAYERS];
    struct rig g;
    att_init(&g, &a, ops);
    if (len <= 8192 && seqs * len <= 8192) time_chunks(&g, &a, "");
    double us = timed(&g, seqs, 1, len, false, LAYERS), bytes = (double)seqs * (len + 1) * 2.0 * K * a.D * (double)dtype_size(kv);
    printf("rope + attention, %s, decode %3d x %5d H %2d K %d D %d: %8.1f us  %6.0f GB/s\n", dtype_name(kv), seqs, len, H, K, a.D, us, bytes / us / 1e3);
    rig_release(&g);
}

static const struct dev_args usual = {.n_ranks = 1, .n_threads = 4, .graph_max = DECODES_MAX};

/* Prompts of 8,192 tokens in all by `fa` and by cuDNN, the devices in turn. */
static void prompts(void) {
    static const struct att shapes[] = {{40, 8, 128, 1, 8192, 8192, DT_BF16}, {40, 8, 128, 4, 2048, 2048, DT_BF16}, {40, 8, 128, 16, 512, 512, DT_BF16},
                                        {16, 8, 128, 1, 8192, 8192, DT_BF16}, {16, 8, 128, 4, 2048, 2048, DT_BF16}, {16, 8, 128, 16, 512, 512, DT_BF16}};
    struct dev *own = dev, *with;
    struct dev_args args = usual;
    args.prefill_cudnn = true;
    if (maker->open(&with, &args, &e)) {
        printf("attention by cuDNN: left out: %s\n", e.text);
        return;
    }
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        struct op ops[2 * LAYERS];
        struct rig g;
        dev = i % 2 ? with : own;
        att_init(&g, &shapes[i / 2], ops);
        time_chunks(&g, &shapes[i / 2], i % 2 ? " by cudnn" : " by fa");
        rig_release(&g);
    }
    dev = own;
    maker->close(with);
}

/* What a GPU can do, by its name: bytes and operations a second that large copies and products reach. */
static void ceilings(double *gbs, double *tflops) {
    *gbs = strstr(maker->describe(dev), "H200") ? 4300 : 3000;
    *tflops = 790;
}

enum { PRODUCTS = 64 };

/* A step with `count` products, from a graph where it can be: embedding, products, sampling. */
static void product_rig(struct rig *g, struct op *ops, int n, int k, int count) {
    static const uint16_t table[8 * 65536];
    struct dev_shape s = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .hidden = k, .ffn = (n + 1) / 2, .vocab = 8, .max_len = 16384,
                          .page_size = 16, .n_pages = 2, .kv_dtype = DT_BF16, .limits = {.max_tokens = 8192, .max_seqs = DECODES_MAX, .max_pages = 1}};
    ops[0] = (struct op){.kind = OP_EMBED, .out = BUF_H, .w = {{table, DT_BF16, 8, k, k}}};
    ops[count + 1] = (struct op){.kind = OP_SAMPLE, .in = BUF_LOGITS};
    rig_init(g, &s, ops, count + 2);
    random_rows(BUF_X, 8192, (size_t)k);
}

static void linear(int n, int k) {
    static const int rows[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 8192};
    enum { N = sizeof rows / sizeof *rows };
    struct op ops[PRODUCTS + 2];
    uint16_t *w[PRODUCTS];
    const size_t all = (size_t)n * (size_t)k;
    const int copies = 100000000 / all < PRODUCTS ? (int)(100000000 / all) + 1 : PRODUCTS; /* too many for a cache to hold */
    double base[N], gbs, tflops;
    struct rig g;
    ceilings(&gbs, &tflops);
    for (int l = 0; l < copies; l++) {
        w[l] = mem_array(all, 2);
        for (size_t i = 0; i < all; i++) w[l][i] = l ? w[0][i] : (uint16_t)(0x3c00 | (rnd() & 0x81ff));
    }
    for (int count = 0; count <= PRODUCTS; count += PRODUCTS) {
        for (int l = 0; l < count; l++)
            ops[l + 1] = (struct op){.kind = OP_LINEAR, .in = BUF_X, .out = BUF_GU, .k_slices = 1, .w = {{w[l % copies], DT_BF16, n, k, k}}};
        product_rig(&g, ops, n, k, count);
        for (int i = 0; i < N; i++) {
            int r = rows[i], seqs = r <= DECODES_MAX ? r : 1;
            double us = timed(&g, seqs, r / seqs, 0, true, 1), bytes = 2.0 * n * k + 2.0 * r * (n + k), flop = 2.0 * r * n * k;
            if (!count) base[i] = us;
            if (!count) continue;
            us = (us - base[i]) / count;
            double floor = bytes / gbs / 1e3 > flop / tflops / 1e6 ? bytes / gbs / 1e3 : flop / tflops / 1e6;
            printf("linear %6d x %5d, %4d rows: %8.2f us  %6.0f GB/s  %6.1f TFLOP/s  %3.0f %% of the roofline\n", n, k, r, us, bytes / us / 1e3,
                   flop / us / 1e6, 100 * floor / us);
        }
        rig_release(&g);
    }
    for (int l = 0; l < copies; l++) free(w[l]);
}

static void sampling(int vocab, int rows, struct sampling how, const char *name) {
    struct dev_shape s = {.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .hidden = 8, .ffn = 8, .vocab = vocab, .max_len = 64,
                          .page_size = 16, .n_pages = 2, .kv_dtype = DT_BF16, .limits = {.max_tokens = rows, .max_seqs = rows, .max_pages = 1}};
    struct op op[2] = {{.kind = OP_SAMPLE, .in = BUF_LOGITS}, {.kind = OP_SAMPLE, .in = BUF_LOGITS}};
    struct rig g;
    rig_init(&g, &s, op, 2);
    random_rows(BUF_LOGITS, (size_t)rows, (size_t)vocab);
    fill(&g, g.b[0], rows, 1, 0, true);
    for (int i = 0; i < rows; i++) {
        how.seed = rnd();
        batch_slots(g.b[0])[g.b[0]->n_slots++] = (struct batch_slot){.slot = i, .sampling = how};
    }
    once(&g);
    double us = timed(&g, rows, 1, 0, true, 2);
    printf("sampling %3d x %d %-22s %8.1f us  %6.0f GB/s\n", rows, vocab, name, us, 4.0 * rows * vocab / us / 1e3);
    rig_release(&g);
}

static bool want(int argc, char **argv, const char *part) { return argc < 2 || !strcmp(argv[1], part); }

int main(int argc, char **argv) {
    char why[600];
    static struct lintab products;
    if (argc > 2) check(products_read(&products, argv[2], true, &e));
    check(dev_choose(&maker, "cuda", why, sizeof why, &e));
    struct dev_args args = usual;
    args.products = &products;
    check(maker->open(&dev, &args, &e));
    printf("%s\n", maker->describe(dev));
    static const enum dtype caches[] = {DT_BF16, DT_FP8_E4M3};
    for (int i = 0; i < 2; i++) {
        if (!want(argc, argv, i ? "fp8" : "att")) continue;
        attention(16, 8, 64, 1024, 1024, caches[i]);
        attention(16, 8, 256, 600, 600, caches[i]);
        attention(40, 8, 64, 1024, 1024, caches[i]);
        attention(40, 8, 8, 16384, 8192, caches[i]);
        attention(16, 8, 8, 1024, 1024, caches[i]);
        attention(16, 8, 1, 512, 512, caches[i]);
        attention(40, 8, 1, 32768, 8192, caches[i]);
        attention(40, 8, 16, 512, 512, caches[i]);
        attention(40, 8, 4, 2048, 2048, caches[i]);
        attention(40, 8, 1, 8192, 8192, caches[i]);
    }
    if (want(argc, argv, "cudnn")) prompts();
    if (want(argc, argv, "lin")) {
        linear(4096, 1024), linear(1024, 2048), linear(6144, 1024), linear(1024, 3072);
        linear(7168, 5120), linear(34816, 5120), linear(5120, 17408);
    }
    if (want(argc, argv, "sample")) {
        struct sampling how = {.top_p = 1, .n_logprobs = -1};
        sampling(151936, 256, how, "greedy"), sampling(151936, 1, how, "greedy");
        how.temperature = 0.6f;
        sampling(151936, 256, how, "temperature"), sampling(151936, 1, how, "temperature");
        how.top_k = 20, how.top_p = 0.95f;
        sampling(151936, 256, how, "top_k 20 top_p 0.95"), sampling(151936, 1, how, "top_k 20 top_p 0.95");
    }
    maker->close(dev);
    return 0;
}
