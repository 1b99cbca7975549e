/* test_dev_ops.c: every operator of every instruction set of this machine against the oracle, and the law of arithmetic:
 * the same bits alone and with strangers, in chunks of any size, on one thread and on several. */
#include "dev_rig.h"

static struct dev_shape small_shape(void) {
    return (struct dev_shape){.n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 8, .hidden = 8, .ffn = 8, .vocab = 8,
                              .max_len = 16, .page_size = 16, .n_pages = 2, .kv_dtype = DT_F32,
                              .limits = {.max_tokens = 80, .max_seqs = 8, .max_pages = 4096}};
}

/* ---- row operators: in, out buffers, T rows ---- */

/* Run a program on T poked rows and read T rows of `out`. */
static void run_rows(const char *isa, int32_t threads, const struct dev_shape *s, const struct op *ops, int32_t n_ops, int32_t T,
                     enum buf_id in, const float *x, size_t x_width, enum buf_id out, float *y, size_t y_width) {
    struct rig r;
    rig_open(&r, isa, threads, s, ops, n_ops);
    int32_t *tokens = mem_zalloc((size_t)T, sizeof *tokens);
    for (int32_t at = 0, slot = 0; at < T; slot++) { /* any cut of the rows into sequences will do */
        int32_t n = T - at < 16 ? T - at : 16;
        rig_seq(&r, slot, 0, n, tokens, false);
        at += n;
    }
    assert_int_equal(dev_cpu.poke(r.d, in, x, (size_t)T * x_width), 0);
    rig_run(&r);
    assert_int_equal(dev_cpu.peek(r.d, out, y, (size_t)T * y_width), 0);
    free(tokens);
    rig_close(&r);
}

struct lin_case {
    int32_t k, slices, n[3];
    enum dtype t[3];
    int32_t pad;
    bool bias;
};

static void linear_one(const struct lin_case *c) {
    enum { T = 71 };
    struct dev_shape s = small_shape();
    struct op op = {.kind = OP_LINEAR, .layer = -1, .in = BUF_X, .out = BUF_GU, .k_slices = c->slices};
    int32_t n = 0;
    bool bf16 = false;
    for (int i = 0; i < 3 && c->n[i]; i++) {
        op.w[i] = rnd_weight(c->n[i], c->k, c->k + c->pad, c->t[i]);
        if (c->bias && i != 1) op.bias[i] = rnd_weight(1, c->n[i], c->n[i], c->t[i]);
        n += c->n[i];
        bf16 |= c->t[i] == DT_BF16;
    }
    s.hidden = c->k;
    s.ffn = (n + 1) / 2;
    size_t K = (size_t)c->k, N = 2 * (size_t)s.ffn;
    float *x = rnd_floats(T * K), *want = mem_zalloc(T * N, 4), *all = mem_zalloc(T * N, 4), *got = mem_zalloc(T * N, 4);
    run_rows("ref", 1, &s, &op, 1, T, BUF_X, x, K, BUF_GU, want, N);
    for (int i = 0; i < N_ISAS; i++) {
        if (!isa_here(all_isas[i])) continue;
        char what[160];
        snprintf(what, sizeof what, "linear %s K %d N %d %d %d slices %d %s", all_isas[i], c->k, c->n[0], c->n[1], c->n[2], c->slices,
                 dtype_name(c->t[0]));
        run_rows(all_isas[i], 1, &s, &op, 1, T, BUF_X, x, K, BUF_GU, all, N);
        for (size_t t = 0; t < T; t++) assert_close(what, all + t * N, want + t * N, (size_t)n, bf16 ? 1e-2 : 1e-5);
        static const int32_t rows[] = {1, 2, 3, 4, 5, 8, 9, 16, 17, 70};
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            size_t from = (size_t)rnd_n(T - rows[k] + 1);
            run_rows(all_isas[i], 1 + (int32_t)(k & 1), &s, &op, 1, rows[k], BUF_X, x + from * K, K, BUF_GU, got, N);
            for (int32_t t = 0; t < rows[k]; t++)
                assert_same_bits(what, got + (size_t)t * N, all + (from + (size_t)t) * N, (size_t)n);
        }
    }
    for (int i = 0; i < 3; i++) {
        free((void *)(uintptr_t)op.w[i].data);
        free((void *)(uintptr_t)op.bias[i].data);
    }
    free(x), free(want), free(all), free(got);
}

static void linear_agrees(void **state) {
    (void)state;
    static const struct lin_case cases[] = {
        {64, 1, {64}, {DT_BF16}, 0, false},
        {96, 1, {40, 8, 8}, {DT_BF16, DT_BF16, DT_BF16}, 0, true},
        {33, 1, {17}, {DT_BF16}, 0, true},
        {1, 1, {1}, {DT_BF16}, 0, false},
        {7, 1, {3, 5}, {DT_BF16, DT_BF16}, 3, false},
        {256, 8, {130}, {DT_BF16}, 0, true},
        {264, 8, {70}, {DT_BF16}, 5, false}, /* odd slices */
        {328, 4, {33}, {DT_BF16}, 1, false},
        {24, 2, {100}, {DT_F32}, 0, true},
        {515, 1, {66, 2, 31}, {DT_BF16, DT_F32, DT_F16}, 2, true},
        {301, 1, {77}, {DT_F32}, 0, false},
        {304, 8, {48}, {DT_F32}, 0, false},
        {19, 1, {20, 20}, {DT_F16, DT_F16}, 1, true},
        {560, 8, {64}, {DT_F16}, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) linear_one(&cases[i]);
}

/* Slices that another rank would hold: two halves with 4 slices each, added, are the whole with 8. */
static void slices_add_up_to_the_whole(void **state) {
    (void)state;
    enum { K = 176, N = 50, T = 9 };
    struct dev_shape s = small_shape();
    s.hidden = K;
    s.ffn = N / 2;
    struct op op = {.kind = OP_LINEAR, .layer = -1, .in = BUF_X, .out = BUF_GU, .k_slices = 8, .w = {rnd_weight(N, K, K, DT_BF16)}};
    float *x = rnd_floats(T * K), half[T * K / 2], whole[T * N], part[2][T * N];
    for (int i = 0; i < N_ISAS; i++) {
        if (!isa_here(all_isas[i])) continue;
        run_rows(all_isas[i], 2, &s, &op, 1, T, BUF_X, x, K, BUF_GU, whole, N);
        struct dev_shape sh = s;
        struct op oh = op;
        sh.hidden = K / 2;
        oh.k_slices = 4;
        oh.w[0].k = K / 2;
        for (int rank = 0; rank < 2; rank++) {
            oh.w[0].data = (const uint16_t *)op.w[0].data + rank * K / 2;
            for (int t = 0; t < T; t++) memcpy(half + t * K / 2, x + t * K + rank * K / 2, K / 2 * 4);
            run_rows(all_isas[i], 2, &sh, &oh, 1, T, BUF_X, half, K / 2, BUF_GU, part[rank], N);
        }
        for (int k = 0; k < T * N; k++) part[0][k] += part[1][k];
        assert_same_bits(all_isas[i], part[0], whole, T * N);
    }
    free((void *)(uintptr_t)op.w[0].data);
    free(x);
}

static void norm_agrees(void **state) {
    (void)state;
    static const int32_t widths[] = {1, 8, 15, 64, 100, 1024};
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        enum { T = 20 };
        size_t E = (size_t)widths[k];
        struct dev_shape s = small_shape();
        s.hidden = widths[k];
        struct view w = rnd_weight(1, widths[k], widths[k], DT_BF16);
        struct op op = {.kind = OP_NORM, .layer = -1, .in = BUF_H, .out = BUF_X, .eps = 1e-6f, .w = {w}};
        float *x = rnd_floats(T * E), *want = mem_zalloc(T * E, 4), *got = mem_zalloc(T * E, 4), *one = mem_zalloc(E, 4);
        run_rows("ref", 1, &s, &op, 1, T, BUF_H, x, E, BUF_X, want, E);
        for (int i = 0; i < N_ISAS; i++) {
            if (!isa_here(all_isas[i])) continue;
            run_rows(all_isas[i], 2, &s, &op, 1, T, BUF_H, x, E, BUF_X, got, E);
            assert_close("norm", got, want, T * E, 1e-5);
            run_rows(all_isas[i], 1, &s, &op, 1, 1, BUF_H, x + 7 * E, E, BUF_X, one, E);
            assert_same_bits("norm", one, got + 7 * E, E);
        }
        free((void *)(uintptr_t)w.data);
        free(x), free(want), free(got), free(one);
    }
}

/* The residual is updated in place: two norms in a row, the second adds the first's output. */
static void norm_adds_to_the_residual(void **state) {
    (void)state;
    struct dev_shape s = small_shape();
    s.hidden = 40;
    struct view w = rnd_weight(1, 40, 40, DT_F32);
    struct op ops[2] = {{.kind = OP_NORM, .layer = -1, .in = BUF_H, .out = BUF_Y, .eps = 1e-5f, .w = {w}},
                        {.kind = OP_NORM, .layer = -1, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-5f, .w = {w}}};
    float *x = rnd_floats(40), y[40], h[40];
    for (int i = 0; i < N_ISAS; i++) {
        if (!isa_here(all_isas[i])) continue;
        run_rows(all_isas[i], 1, &s, ops, 2, 1, BUF_H, x, 40, BUF_Y, y, 40);
        run_rows(all_isas[i], 1, &s, ops, 2, 1, BUF_H, x, 40, BUF_H, h, 40);
        for (int k = 0; k < 40; k++) y[k] += x[k];
        assert_same_bits("residual", h, y, 40);
    }
    free((void *)(uintptr_t)w.data);
    free(x);
}

static void silu_agrees(void **state) {
    (void)state;
    enum { T = 3 };
    static const int32_t widths[] = {1, 13, 256};
    for (size_t k = 0; k < sizeof widths / sizeof *widths; k++) {
        size_t F = (size_t)widths[k];
        struct dev_shape s = small_shape();
        s.ffn = widths[k];
        struct op op = {.kind = OP_SILU_MUL, .layer = -1, .in = BUF_GU, .out = BUF_FF};
        float *x = rnd_floats(T * 2 * F), *want = mem_zalloc(T * F, 4), *got = mem_zalloc(T * F, 4);
        for (size_t i = 0; i < T * 2 * F; i++) x[i] *= 30;
        x[0] = -200; /* exp overflows there */
        run_rows("ref", 1, &s, &op, 1, T, BUF_GU, x, 2 * F, BUF_FF, want, F);
        for (int i = 0; i < N_ISAS; i++) {
            if (!isa_here(all_isas[i])) continue;
            run_rows(all_isas[i], 1, &s, &op, 1, T, BUF_GU, x, 2 * F, BUF_FF, got, F);
            assert_close("silu", got, want, T * F, 1e-5);
        }
        free(x), free(want), free(got);
    }
}

static void moe_agrees(void **state) {
    (void)state;
    enum { E = 40, F = 24, X = 7, T = 50, SLOTS = 3 };
    for (int variant = 0; variant < 4; variant++) {
        enum dtype t = variant & 1 ? DT_BF16 : DT_F32;
        struct dev_shape s = small_shape();
        s.hidden = E;
        s.ffn = F;
        struct view experts[3 * X], router = rnd_weight(X, E, E, t);
        for (int e = 0; e < X; e++) {
            experts[3 * e] = rnd_weight(F, E, E, t);
            experts[3 * e + 1] = rnd_weight(F, E, E, t);
            experts[3 * e + 2] = rnd_weight(E, F, F, t);
        }
        struct op op = {.kind = OP_MOE, .layer = 0, .in = BUF_X, .out = BUF_Y, .w = {router}, .experts = experts, .n_experts = X,
                        .top_k = SLOTS, .norm_topk = variant & 2, .k_slices = 8};
        float *x = rnd_floats(T * E), want[T * E], got[T * E], one[E];
        run_rows("ref", 1, &s, &op, 1, T, BUF_X, x, E, BUF_Y, want, E);
        for (int i = 0; i < N_ISAS; i++) {
            if (!isa_here(all_isas[i])) continue;
            run_rows(all_isas[i], 2, &s, &op, 1, T, BUF_X, x, E, BUF_Y, got, E);
            assert_close("experts", got, want, T * E, t == DT_BF16 ? 1e-2 : 1e-5);
            for (int k = 0; k < T; k += 11) {
                run_rows(all_isas[i], 1, &s, &op, 1, 1, BUF_X, x + k * E, E, BUF_Y, one, E);
                assert_same_bits("experts", one, got + k * E, E);
            }
        }
        for (int e = 0; e < 3 * X; e++) free((void *)(uintptr_t)experts[e].data);
        free((void *)(uintptr_t)router.data);
        free(x);
    }
}

/* The oracle itself, by hand: one expert of two, weights that say which. */
static void moe_oracle_is_right(void **state) {
    (void)state;
    static const float one[] = {1}, two[] = {2}, route[] = {1, -1};
    struct view experts[6];
    for (int e = 0; e < 2; e++)
        for (int i = 0; i < 3; i++) experts[3 * e + i] = (struct view){e ? two : one, DT_F32, 1, 1, 1};
    struct dev_shape s = small_shape();
    s.hidden = s.ffn = 1;
    struct op op = {.kind = OP_MOE, .in = BUF_X, .out = BUF_Y, .w = {{route, DT_F32, 2, 1, 1}}, .experts = experts, .n_experts = 2, .top_k = 1};
    float x[2] = {1, -1}, y[2];
    run_rows("ref", 1, &s, &op, 1, 2, BUF_X, x, 1, BUF_Y, y, 1);
    double p = 1 / (1 + exp(-2.0)), silu1 = 1 / (1 + exp(-1.0)), silu2 = -2 / (1 + exp(2.0));
    assert_float_equal(y[0], p * silu1, 1e-6);
    assert_float_equal(y[1], p * silu2 * -2 * 2, 1e-6);
}

/* ---- attention ---- */

struct att_case {
    int32_t heads, kv_heads, d, page, window;
    enum dtype kv;
    bool norms;
};

enum { ATT_SEQS = 3, ATT_LEN = 210 };

/* Feed the sequences in chunks of `chunk` (the first sequence of `alone` only), collect ATT rows by (sequence, position). */
static void att_run(const char *isa, int32_t threads, const struct att_case *c, const struct op *ops, const struct rope *rope,
                    const int32_t *len, float *const *qkv, int32_t chunk, int alone, float *const *out) {
    struct dev_shape s = small_shape();
    s.n_heads = c->heads, s.n_kv_heads = c->kv_heads, s.head_dim = c->d, s.page_size = c->page, s.kv_dtype = c->kv;
    s.max_len = ATT_LEN;
    s.rope = *rope;
    int32_t per_seq = (ATT_LEN + c->page - 1) / c->page;
    s.n_pages = 1 + ATT_SEQS * per_seq;
    s.limits.max_tokens = ATT_SEQS * ATT_LEN;
    struct rig r;
    rig_open(&r, isa, threads, &s, ops, 2);
    size_t width = (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->d, ow = (size_t)c->heads * (size_t)c->d;
    float *x = mem_array((size_t)s.limits.max_tokens * width, 4), *y = mem_array((size_t)s.limits.max_tokens * ow, 4);
    static const int32_t tokens[ATT_LEN];
    int32_t pos[ATT_SEQS] = {0};
    for (int i = 0; i < ATT_SEQS; i++) rig_pages(&r, i, 1 + i, ATT_SEQS, per_seq);
    for (;;) {
        int32_t n[ATT_SEQS], rows = 0;
        for (int i = 0; i < ATT_SEQS; i++) {
            n[i] = alone >= 0 && i != alone ? 0 : len[i] - pos[i];
            if (chunk > 0 && n[i] > chunk + (alone < 0 ? i : 0)) n[i] = chunk + (alone < 0 ? i : 0); /* ragged */
            if (!n[i]) continue;
            memcpy(x + (size_t)rows * width, qkv[i] + (size_t)pos[i] * width, (size_t)n[i] * width * 4);
            rig_seq(&r, i, pos[i], n[i], tokens, false);
            rows += n[i];
        }
        if (!rows) break;
        dev_cpu.poke(r.d, BUF_QKV, x, (size_t)rows * width);
        rig_run(&r);
        dev_cpu.peek(r.d, BUF_ATT, y, (size_t)rows * ow);
        for (int i = 0, at = 0; i < ATT_SEQS; at += n[i], pos[i] += n[i], i++)
            if (n[i]) memcpy(out[i] + (size_t)pos[i] * ow, y + (size_t)at * ow, (size_t)n[i] * ow * 4);
    }
    free(x), free(y);
    rig_close(&r);
}

static void attention_one(const struct att_case *c) {
    float inv[HEAD_DIM_MAX / 2];
    struct rope rope = {.dim = c->d, .inv_freq = inv, .scale = 1.25f};
    for (int i = 0; i < c->d / 2; i++) inv[i] = (float)pow(10000, -2.0 * i / c->d);
    struct op ops[2] = {{.kind = OP_ROPE_KV, .in = BUF_QKV, .eps = 1e-6f},
                        {.kind = OP_ATTENTION, .out = BUF_ATT, .window = c->window, .scale = 1 / sqrtf((float)c->d)}};
    struct view norms[2] = {rnd_weight(1, c->d, c->d, DT_F32), rnd_weight(1, c->d, c->d, DT_BF16)};
    if (c->norms) ops[0].w[0] = norms[0], ops[0].w[1] = norms[1];
    static const int32_t len[ATT_SEQS] = {ATT_LEN, 65, 1};
    size_t width = (size_t)(c->heads + 2 * c->kv_heads) * (size_t)c->d, ow = (size_t)c->heads * (size_t)c->d;
    float *qkv[ATT_SEQS], *want[ATT_SEQS], *all[ATT_SEQS], *got[ATT_SEQS];
    for (int i = 0; i < ATT_SEQS; i++) {
        qkv[i] = rnd_floats((size_t)len[i] * width);
        for (size_t k = 0; k < (size_t)len[i] * width; k++) qkv[i][k] *= 3;
        want[i] = mem_zalloc((size_t)len[i] * ow, 4);
        all[i] = mem_zalloc((size_t)len[i] * ow, 4);
        got[i] = mem_zalloc((size_t)len[i] * ow, 4);
    }
    att_run("ref", 1, c, ops, &rope, len, qkv, 0, -1, want);
    for (int k = 0; k < N_ISAS; k++) {
        if (!isa_here(all_isas[k])) continue;
        char what[160];
        snprintf(what, sizeof what, "attention %s heads %d/%d D %d page %d window %d %s", all_isas[k], c->heads, c->kv_heads, c->d,
                 c->page, c->window, dtype_name(c->kv));
        att_run(all_isas[k], 2, c, ops, &rope, len, qkv, 0, -1, all);
        for (int i = 0; i < ATT_SEQS; i++)
            assert_close(what, all[i], want[i], (size_t)len[i] * ow, c->kv == DT_F32 ? 1e-5 : 1e-2);
        static const struct { int32_t chunk, alone, threads; } routes[] = {{1, -1, 1}, {7, -1, 2}, {64, -1, 1}, {1, 0, 2}, {0, 0, 1}, {50, 1, 1}};
        for (size_t t = 0; t < sizeof routes / sizeof *routes; t++) {
            att_run(all_isas[k], routes[t].threads, c, ops, &rope, len, qkv, routes[t].chunk, routes[t].alone, got);
            for (int i = 0; i < ATT_SEQS; i++)
                if (routes[t].alone < 0 || routes[t].alone == i) assert_same_bits(what, got[i], all[i], (size_t)len[i] * ow);
        }
    }
    for (int i = 0; i < ATT_SEQS; i++) free(qkv[i]), free(want[i]), free(all[i]), free(got[i]);
    for (int i = 0; i < 2; i++) free((void *)(uintptr_t)norms[i].data);
}

static void attention_agrees(void **state) {
    (void)state;
    static const struct att_case cases[] = {
        {4, 2, 64, 16, 0, DT_BF16, true},  {2, 2, 8, 1, 0, DT_F32, false},   {16, 1, 80, 3, 0, DT_BF16, false},
        {3, 1, 96, 64, 0, DT_F16, true},   {2, 1, 128, 256, 0, DT_BF16, true}, {5, 5, 256, 16, 0, DT_F32, false},
        {4, 2, 64, 16, 1, DT_F32, false},  {4, 1, 64, 5, 64, DT_BF16, false}, {2, 1, 128, 16, 100, DT_F32, true},
        {34, 2, 8, 16, 33, DT_F32, false}, {2, 1, 10, 7, 0, DT_F16, false},   {4, 2, 64, 16, 0, DT_FP8_E4M3, true},
        {6, 1, 80, 3, 70, DT_FP8_E4M3, false}, {2, 1, 10, 7, 0, DT_FP8_E4M3, false}, {3, 1, 128, 16, 0, DT_FP8_E4M3, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) attention_one(&cases[i]);
}

/* Rotary embedding by hand: the oracle with and without the dynamic base. */
static void rope_oracle_is_right(void **state) {
    (void)state;
    enum { D = 8, POS = 40 };
    float inv[D / 2];
    for (int i = 0; i < D / 2; i++) inv[i] = (float)pow(100, -2.0 * i / D);
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        struct dev_shape s = small_shape();
        s.max_len = 64, s.n_pages = 8;
        s.rope = (struct rope){.dim = D, .inv_freq = inv, .scale = 0.5f, .dynamic_max = dynamic ? 32 : 0, .dynamic_theta = 100,
                               .dynamic_factor = 2};
        struct op op = {.kind = OP_ROPE_KV, .in = BUF_QKV};
        struct rig r;
        rig_open(&r, "ref", 1, &s, &op, 1);
        rig_pages(&r, 0, 1, 1, 4);
        int32_t token = 0;
        rig_seq(&r, 0, POS, 1, &token, false);
        float x[3 * D], y[3 * D];
        for (int i = 0; i < 3 * D; i++) x[i] = rnd_f();
        dev_cpu.poke(r.d, BUF_QKV, x, 3 * D);
        rig_run(&r);
        dev_cpu.peek(r.d, BUF_QKV, y, 3 * D);
        double base = dynamic ? 100 * pow(2 * (POS + 1.0) / 32 - 1, (double)D / (D - 2)) : 100;
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < D / 2; i++) {
                double a = POS * pow(base, -2.0 * i / D);
                double u = (double)x[h * D + i], v = (double)x[h * D + i + D / 2];
                assert_float_equal(y[h * D + i], 0.5 * (u * cos(a) - v * sin(a)), 1e-5);
                assert_float_equal(y[h * D + i + D / 2], 0.5 * (v * cos(a) + u * sin(a)), 1e-5);
            }
        assert_memory_equal(x + 2 * D, y + 2 * D, D * sizeof(float));
        rig_close(&r);
    }
}

/* ---- a whole small model ---- */

enum { ME = 48, MH = 4, MK = 2, MD = 16, MF = 80, MV = 300, M_LAYERS = 2, M_OPS = 3 + 9 * M_LAYERS + 2, M_LEN = 100, M_SEQS = 5 };

struct model {
    struct op ops[M_OPS];
    struct dev_shape shape;
    float inv[MD / 2];
    int32_t n_ops;
    void *owned[200];
    int n_owned;
};

static struct view own(struct model *m, int32_t n, int32_t k) {
    struct view v = rnd_weight(n, k, k, DT_BF16);
    m->owned[m->n_owned++] = (void *)(uintptr_t)v.data;
    return v;
}

static void model_init(struct model *m) {
    *m = (struct model){.shape = small_shape()};
    m->shape.n_layers = M_LAYERS, m->shape.n_heads = MH, m->shape.n_kv_heads = MK, m->shape.head_dim = MD, m->shape.hidden = ME;
    m->shape.ffn = MF, m->shape.vocab = MV, m->shape.max_len = M_LEN + 50, m->shape.page_size = 16, m->shape.n_pages = 100;
    m->shape.kv_dtype = DT_BF16;
    m->shape.limits = (struct batch_limits){.max_tokens = M_LEN * M_SEQS, .max_seqs = M_SEQS, .max_pages = 200};
    for (int i = 0; i < MD / 2; i++) m->inv[i] = (float)pow(10000, -2.0 * i / MD);
    m->shape.rope = (struct rope){.dim = MD, .inv_freq = m->inv, .scale = 1};
    struct op *o = m->ops;
    *o++ = (struct op){.kind = OP_EMBED, .layer = -1, .out = BUF_H, .w = {own(m, MV, ME)}};
    for (int l = 0; l < M_LAYERS; l++) {
        *o++ = (struct op){.kind = OP_NORM, .layer = l, .in = BUF_H, .in2 = l ? BUF_Y : BUF_NONE, .out = BUF_X, .eps = 1e-6f, .w = {own(m, 1, ME)}};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_X, .out = BUF_QKV,
                           .w = {own(m, MH * MD, ME), own(m, MK * MD, ME), own(m, MK * MD, ME)}};
        *o++ = (struct op){.kind = OP_ROPE_KV, .layer = l, .in = BUF_QKV, .eps = 1e-6f, .w = {own(m, 1, MD), own(m, 1, MD)}};
        *o++ = (struct op){.kind = OP_ATTENTION, .layer = l, .in = BUF_QKV, .out = BUF_ATT, .scale = 0.25f};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_ATT, .out = BUF_Y, .k_slices = 8, .w = {own(m, ME, MH * MD)}};
        *o++ = (struct op){.kind = OP_NORM, .layer = l, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {own(m, 1, ME)}};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_X, .out = BUF_GU, .w = {own(m, MF, ME), own(m, MF, ME)}};
        *o++ = (struct op){.kind = OP_SILU_MUL, .layer = l, .in = BUF_GU, .out = BUF_FF};
        *o++ = (struct op){.kind = OP_LINEAR, .layer = l, .in = BUF_FF, .out = BUF_Y, .k_slices = 8, .w = {own(m, ME, MF)}};
    }
    *o++ = (struct op){.kind = OP_NORM, .layer = -1, .in = BUF_H, .in2 = BUF_Y, .out = BUF_X, .eps = 1e-6f, .w = {own(m, 1, ME)}};
    *o++ = (struct op){.kind = OP_ROWS, .layer = -1, .in = BUF_X, .out = BUF_ROWS};
    *o++ = (struct op){.kind = OP_LINEAR, .layer = -1, .in = BUF_ROWS, .out = BUF_LOGITS, .w = {own(m, MV, ME)}};
    *o++ = (struct op){.kind = OP_SAMPLE, .layer = -1};
    m->n_ops = (int32_t)(o - m->ops);
}

static void model_release(struct model *m) {
    while (m->n_owned) free(m->owned[--m->n_owned]);
}

/* Generate n_out tokens for the sequences of `set` (bits); prompts in chunks of `chunk`. */
static void model_generate(const struct model *m, const char *isa, int32_t threads, unsigned set, int32_t chunk,
                           int32_t prompts[M_SEQS][M_LEN], const int32_t *len, int32_t n_out, struct result_row out[M_SEQS][50]) {
    struct rig r;
    rig_open(&r, isa, threads, &m->shape, m->ops, m->n_ops);
    int32_t pos[M_SEQS] = {0}, made[M_SEQS] = {0};
    for (int32_t i = 0; i < M_SEQS; i++) {
        rig_pages(&r, i, 1 + i, M_SEQS, 10);
        struct batch_slot *slot = &batch_slots(r.b)[r.b->n_slots++];
        slot->slot = i;
        slot->sampling = (struct sampling){.temperature = i & 1 ? 0.8f : 0, .top_p = i == 3 ? 0.9f : 1, .seed = (uint64_t)i, .n_logprobs = 3};
    }
    for (;;) {
        int32_t rows[M_SEQS], n_rows = 0, any = 0;
        for (int32_t i = 0; i < M_SEQS; i++) {
            if (!(set >> i & 1) || made[i] == n_out) continue;
            int32_t left = len[i] - pos[i], n = left > chunk ? chunk : left;
            bool last = n >= left;
            if (last) rows[n_rows++] = i;
            any = 1;
            if (left > 0) {
                rig_seq(&r, i, pos[i], n, prompts[i] + pos[i], last);
                pos[i] += n;
            } else
                rig_seq(&r, i, pos[i]++, 1, NULL, true);
        }
        if (!any) break;
        rig_run(&r);
        assert_int_equal(r.result.n_rows, n_rows);
        for (int32_t i = 0; i < n_rows; i++) out[rows[i]][made[rows[i]]++] = r.result.rows[i];
    }
    rig_close(&r);
}

static void a_model_answers_the_same_on_every_route(void **state) {
    (void)state;
    enum { N_OUT = 30 };
    struct model m;
    model_init(&m);
    static int32_t prompts[M_SEQS][M_LEN];
    static const int32_t len[M_SEQS] = {M_LEN, 1, 17, 64, 33};
    static struct result_row want[M_SEQS][50], got[M_SEQS][50];
    for (int i = 0; i < M_SEQS; i++)
        for (int k = 0; k < M_LEN; k++) prompts[i][k] = rnd_n(MV);
    for (int k = -1; k < N_ISAS; k++) {
        const char *isa = k < 0 ? "ref" : all_isas[k];
        if (!isa_here(isa)) continue;
        model_generate(&m, isa, 2, 31, M_LEN, prompts, len, N_OUT, want);
        static const struct { unsigned set; int32_t chunk, threads; } routes[] = {{31, 7, 1}, {31, 1, 3}, {1, M_LEN, 1}, {2, M_LEN, 2},
                                                                                  {4, 64, 1}, {8, 1, 1},     {16, 7, 2}};
        for (size_t t = 0; t < sizeof routes / sizeof *routes; t++) {
            model_generate(&m, isa, routes[t].threads, routes[t].set, routes[t].chunk, prompts, len, N_OUT, got);
            for (int i = 0; i < M_SEQS; i++)
                for (int n = 0; routes[t].set >> i & 1 && n < N_OUT; n++) {
                    assert_int_equal(got[i][n].tokens[0], want[i][n].tokens[0]);
                    assert_false(got[i][n].bad);
                    assert_memory_equal(&got[i][n].logprobs.chosen, &want[i][n].logprobs.chosen, 4);
                    assert_int_equal(got[i][n].logprobs.n, 3);
                    assert_memory_equal(got[i][n].logprobs.top, want[i][n].logprobs.top, 3 * sizeof(struct logprob));
                }
        }
    }
    model_release(&m);
}

/* ---- what is refused ---- */

static void bad_arguments_are_sentences(void **state) {
    (void)state;
    struct err e = {0};
    struct dev *d;
    assert_int_equal(dev_cpu.open(&d, &(struct dev_args){.n_ranks = 1, .n_threads = 1, .isa = "sse9"}, &e), -1);
    assert_non_null(strstr(e.text, "sse9"));
    assert_int_equal(dev_cpu.open(&d, &(struct dev_args){.n_ranks = 1, .n_threads = 0}, &e), -1);
    assert_non_null(strstr(e.text, "threads"));
    assert_int_equal(dev_cpu.open(&d, &(struct dev_args){.n_ranks = 1, .n_threads = 1}, &e), 0);
    assert_non_null(strstr(dev_cpu.describe(d), "1 thread"));
    struct dev_shape s = small_shape();
    static const float w[64];
    struct op op = {.kind = OP_LINEAR, .in = BUF_X, .out = BUF_GU, .k_slices = 8, .w = {{w, DT_F32, 4, 7, 7}}};
    assert_int_equal(dev_cpu.load(d, &s, &(struct dev_program){&op, 1}, &e), -1);
    assert_non_null(strstr(e.text, "slices"));
    op.w[0] = (struct view){w, DT_F32, 1, 9, 9};
    op.k_slices = 1;
    assert_int_equal(dev_cpu.load(d, &s, &(struct dev_program){&op, 1}, &e), -1);
    s.n_heads = 3, s.n_kv_heads = 2;
    assert_int_equal(dev_cpu.load(d, &s, &(struct dev_program){NULL, 0}, &e), -1);
    assert_int_equal(dev_cpu.poke(d, BUF_X, w, 1), -1);
    dev_cpu.close(d);
}

static void halves_round_to_nearest_even(void **state) {
    (void)state;
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* half way: to even */
    assert_int_equal(f32_to_bf16(1.01171875f), 0x3f82);
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)h);
        if (!isnan(f)) assert_int_equal(f32_to_f16(f), h);
        if (!isnan(b)) assert_int_equal(f32_to_bf16(b), h);
    }
    assert_int_equal(f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(0x1p-25f), 0);
    assert_int_equal(f32_to_f16(0x1.8p-25f), 1);
    for (int i = 0; i < N_ISAS; i++) {
        if (!isa_here(all_isas[i])) continue;
        const struct cpu_ops *ops = cpu_ops_find(all_isas[i], NULL);
        float x[40], y[40];
        uint16_t h[40];
        for (int k = 0; k < 40; k++) x[k] = k == 3 ? NAN : k == 5 ? INFINITY : rnd_f() * exp2f((float)rnd_n(60) - 30);
        for (enum dtype t = DT_BF16; t <= DT_F16; t++) {
            ops->store(h, x, t, 40);
            for (int k = 0; k < 40; k++)
                if (k != 3) assert_int_equal(h[k], t == DT_BF16 ? f32_to_bf16(x[k]) : f32_to_f16(x[k]));
            ops->load(y, h, t, 40);
            for (int k = 0; k < 40; k++)
                if (k != 3) assert_true(y[k] == load_any(h, t, (size_t)k));
            assert_true(isnan(y[3]));
        }
    }
}

/* A code by the format's formula; 448 is the largest. */
static double e4m3_value(int code) {
    int exp = code >> 3 & 15, man = code & 7;
    double x = exp ? ldexp(1 + man / 8.0, exp - 7) : ldexp(man / 8.0, -6);
    if ((code & 0x7f) == 0x7f) return (double)NAN;
    return code & 0x80 ? -x : x;
}

static void fp8_codes_have_the_values_of_the_formula(void **state) {
    (void)state;
    uint8_t codes[256];
    for (int i = 0; i < 256; i++) {
        double want = e4m3_value(i);
        float got = e4m3_to_f32((uint8_t)i);
        codes[i] = (uint8_t)i;
        if (isnan(want)) assert_true(isnan(got));
        else assert_true((double)got == want && !signbit(got) == !signbit(want));
        assert_int_equal(isnan(want) ? f32_to_e4m3(got) & 0x7f : f32_to_e4m3(got), isnan(want) ? 0x7f : i);
    }
    for (int k = 0; k < N_ISAS; k++) {
        if (!isa_here(all_isas[k])) continue;
        float y[256];
        uint8_t back[256];
        cpu_ops_find(all_isas[k], NULL)->load(y, codes, DT_FP8_E4M3, 256);
        for (int i = 0; i < 256; i++) assert_true(isnan(e4m3_value(i)) ? isnan(y[i]) : (double)y[i] == e4m3_value(i) && !signbit(y[i]) == !(i >> 7));
        cpu_ops_find(all_isas[k], NULL)->store(back, y, DT_FP8_E4M3, 256);
        for (int i = 0; i < 256; i++)
            if (!isnan(y[i])) assert_int_equal(back[i], i);
    }
}

/* Between two neighbours: the nearer; in the middle the even code; one float more or less than the middle, the nearer again. */
static void fp8_rounds_to_nearest_even_and_saturates(void **state) {
    (void)state;
    for (int i = 0; i < 0x7e; i++) {
        double mid = (e4m3_value(i) + e4m3_value(i + 1)) / 2;
        float m = (float)mid; /* exact */
        assert_true((double)m == mid);
        assert_int_equal(f32_to_e4m3(m), i & 1 ? i + 1 : i);
        assert_int_equal(f32_to_e4m3(nextafterf(m, 0)), i);
        assert_int_equal(f32_to_e4m3(nextafterf(m, INFINITY)), i + 1);
        assert_int_equal(f32_to_e4m3(-m), 0x80 | (i & 1 ? i + 1 : i));
    }
    static const float large[] = {448, 449, 464, 480, 1e6f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        assert_int_equal(f32_to_e4m3(large[i]), 0x7e);
        assert_int_equal(f32_to_e4m3(-large[i]), 0xfe);
    }
    assert_int_equal(f32_to_e4m3(0), 0);
    assert_int_equal(f32_to_e4m3(-0.0f), 0x80);
    assert_int_equal(f32_to_e4m3(1e-40f), 0);
    assert_int_equal(f32_to_e4m3(NAN) & 0x7f, 0x7f);
    for (int i = 0; i < 20000; i++) { /* any number: no code is nearer */
        float x = rnd_f() * exp2f((float)rnd_n(24) - 14);
        double error = fabs(e4m3_value(f32_to_e4m3(x)) - (double)x);
        for (int c = 0; c < 256; c++)
            if (fabs(e4m3_value(c) - (double)x) < error) fail_msg("%g became code %d, code %d is nearer", (double)x, f32_to_e4m3(x), c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(fp8_codes_have_the_values_of_the_formula),
        cmocka_unit_test(fp8_rounds_to_nearest_even_and_saturates),
        cmocka_unit_test(linear_agrees),
        cmocka_unit_test(slices_add_up_to_the_whole),
        cmocka_unit_test(norm_agrees),
        cmocka_unit_test(norm_adds_to_the_residual),
        cmocka_unit_test(silu_agrees),
        cmocka_unit_test(moe_agrees),
        cmocka_unit_test(moe_oracle_is_right),
        cmocka_unit_test(rope_oracle_is_right),
        cmocka_unit_test(attention_agrees),
        cmocka_unit_test(a_model_answers_the_same_on_every_route),
        cmocka_unit_test(bad_arguments_are_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
