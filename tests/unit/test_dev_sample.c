/* test_dev_sample.c: the sampler against a naive twin (sort everything), and its frequencies against the exact distribution. */
#include "dev_rig.h"

#include "dev/cpu/sample.h"

enum { V = 3000 };

static struct result_row run(const struct cpu_ops *ops, const float *x, int32_t n, struct sampling how, int32_t position) {
    struct result_row r = {0};
    struct pool *pool;
    struct err e;
    assert_int_equal(pool_new(&pool, 1, &e), 0);
    struct sampler *s = sampler_new(&(struct sampler_args){.ops = ops, .pool = pool, .n_ids = n, .n_total = n, .max_rows = 1});
    assert_int_equal(sampler_run(s, &(struct sample_row){x, &how, position, &r}, 1, &e), 0);
    sampler_free(s);
    pool_free(pool);
    return r;
}

/* ---- the twin ---- */

static const float *sort_by;

static int by_logit(const void *a, const void *b) {
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sort_by[i] != sort_by[j]) return sort_by[i] > sort_by[j] ? -1 : 1;
    return i - j;
}

/* What may be sampled, most likely first, by sample.h's definition; how many. exps: what the kernels answer for exp. */
static int32_t twin_set(const struct cpu_ops *ops, const float *x, int32_t n, const struct sampling *how, int32_t *ids) {
    static float e[V], sorted[V];
    for (int32_t i = 0; i < n; i++) ids[i] = i;
    sort_by = x;
    qsort(ids, (size_t)n, sizeof *ids, by_logit);
    for (int32_t i = 0; i < n; i++) sorted[i] = x[ids[i]];
    float scale = (float)(1 / (double)how->temperature);
    ops->exp_scaled(e, sorted, n, sorted[0], scale);
    int32_t m = 0;
    while (m < n && (sorted[m] - sorted[0]) * scale >= SAMPLE_FLOOR) m++;
    if (how->top_k > 0 && how->top_k < m) m = how->top_k;
    if (how->top_p < 1) {
        uint64_t sum = 0, got = 0;
        for (int32_t i = 0; i < m; i++) sum += (uint64_t)((double)e[i] * 0x1p40);
        uint64_t need = (uint64_t)ceil((double)how->top_p * (double)sum);
        int32_t k = 0;
        do got += (uint64_t)((double)e[k++] * 0x1p40);
        while (got < need && k < m);
        m = k;
    }
    while (how->min_p > 0 && e[m - 1] < how->min_p) m--;
    return m;
}

static int32_t twin(const struct cpu_ops *ops, const float *x, int32_t n, const struct sampling *how, int32_t position) {
    static int32_t ids[V];
    int32_t m = twin_set(ops, x, n, how, ids), best = -1;
    double most = 0;
    uint64_t key = gumbel_key(how->seed, position);
    for (int32_t i = 0; i < m; i++) {
        double max = (double)x[ids[0]], z = ((double)x[ids[i]] - max) / (double)how->temperature;
        double score = z + gumbel_noise(gumbel_bits(key, (uint32_t)ids[i]));
        if (best < 0 || score > most || (score == most && ids[i] < best)) most = score, best = ids[i];
    }
    return best;
}

static void logits(float *x, int32_t n, int kind) {
    for (int32_t i = 0; i < n; i++) {
        x[i] = (rnd_f() + rnd_f() + rnd_f()) * 6;
        if (kind == 1) x[i] = floorf(x[i]);        /* many ties */
        if (kind == 2) x[i] *= 1e-3f;              /* flat */
        if (kind == 3) x[i] = 0;                   /* all the same */
        if (kind == 4 && i % 50) x[i] -= 60;       /* few matter */
        if (kind == 5) x[i] = i & 1 ? -0.0f : 0.0f; /* the same to every comparison */
    }
}

static void agrees_with_the_twin(void **state) {
    (void)state;
    static const struct sampling ways[] = {
        {.temperature = 1, .top_p = 1},
        {.temperature = 0.6f, .top_p = 0.95f},
        {.temperature = 0.6f, .top_p = 0.95f, .top_k = 20},
        {.temperature = 2, .top_p = 1, .top_k = 1},
        {.temperature = 1, .top_p = 1, .top_k = 50},
        {.temperature = 1, .top_p = 0.01f},
        {.temperature = 1, .top_p = 0.5f, .top_k = 1000, .min_p = 0.02f},
        {.temperature = 0.01f, .top_p = 1},
        {.temperature = 1.5f, .top_p = 1, .min_p = 0.1f},
        {.temperature = 1, .top_p = 0.999f, .top_k = V + 5},
    };
    static float x[V];
    for (int k = -1; k < N_ISAS; k++) {
        const char *isa = k < 0 ? "ref" : all_isas[k];
        if (!isa_here(isa)) continue;
        const struct cpu_ops *ops = cpu_ops_find(isa, NULL);
        for (int round = 0; round < 120; round++) {
            int32_t n = round % 3 ? V - rnd_n(100) : 1 + rnd_n(40);
            logits(x, n, round % 6);
            for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                struct sampling how = ways[w];
                how.seed = (uint64_t)round * 77;
                how.n_logprobs = -1;
                struct result_row r = run(ops, x, n, how, round);
                assert_false(r.bad);
                assert_int_equal(r.tokens[0], twin(ops, x, n, &how, round));
            }
        }
    }
}

static void greedy_takes_the_lowest_of_the_largest(void **state) {
    (void)state;
    static float x[V];
    for (int k = -1; k < N_ISAS; k++) {
        const char *isa = k < 0 ? "ref" : all_isas[k];
        if (!isa_here(isa)) continue;
        const struct cpu_ops *ops = cpu_ops_find(isa, NULL);
        for (int round = 0; round < 200; round++) {
            int32_t n = 1 + rnd_n(V), want = 0;
            logits(x, n, round % 6);
            for (int32_t i = 1; i < n; i++)
                if (x[i] > x[want]) want = i;
            struct result_row r = run(ops, x, n, (struct sampling){.top_p = 1, .n_logprobs = -1}, 0);
            assert_int_equal(r.tokens[0], want);
        }
    }
}

/* chi-square of 40,000 samples against softmax; the bound is the 99.99 % point, the seeds are fixed. */
static void frequencies_are_the_distribution(void **state) {
    (void)state;
    enum { N = 20, RUNS = 40000 };
    float x[N];
    double p[N], sum = 0;
    for (int i = 0; i < N; i++) x[i] = rnd_f() * 2;
    for (int i = 0; i < N; i++) sum += p[i] = exp((double)x[i] / 0.8);
    for (int by_seed = 0; by_seed < 2; by_seed++) {
        int count[N] = {0};
        for (int k = 0; k < RUNS; k++) {
            struct sampling how = {.temperature = 0.8f, .top_p = 1, .n_logprobs = -1, .seed = by_seed ? (uint64_t)k : 42};
            count[run(&cpu_ops_generic, x, N, how, by_seed ? 7 : k).tokens[0]]++;
        }
        double chi = 0;
        for (int i = 0; i < N; i++) {
            double want = RUNS * p[i] / sum;
            chi += (count[i] - want) * (count[i] - want) / want;
        }
        if (!(chi < 50.8)) fail_msg("chi-square of %d degrees: %g", N - 1, chi);
    }
}

/* Neighbouring positions are independent: pairs of two fair tokens. */
static void neighbours_are_independent(void **state) {
    (void)state;
    enum { RUNS = 40000 };
    float x[2] = {0, 0};
    int count[4] = {0};
    struct sampling how = {.temperature = 1, .top_p = 1, .n_logprobs = -1, .seed = 5};
    for (int k = 0; k < RUNS; k++) {
        int a = run(&cpu_ops_generic, x, 2, how, 2 * k).tokens[0], b = run(&cpu_ops_generic, x, 2, how, 2 * k + 1).tokens[0];
        count[2 * a + b]++;
    }
    double chi = 0;
    for (int i = 0; i < 4; i++) chi += (count[i] - RUNS / 4.0) * (count[i] - RUNS / 4.0) / (RUNS / 4.0);
    if (!(chi < 21.1)) fail_msg("chi-square of 3 degrees: %g", chi);
}

static void the_bound_holds(void **state) {
    (void)state;
    double most = -1e9, least = 1e9;
    for (uint64_t k = 0; k < 2000000; k++) {
        uint32_t h = k < 1000 ? (uint32_t)k : k < 2000 ? ~(uint32_t)(k - 1000) : rnd();
        double g = gumbel_noise(h);
        if (!(g <= (double)gumbel_bound(h))) fail_msg("bits %08x: noise %g over its bound %g", h, g, (double)gumbel_bound(h));
        most = g > most ? g : most;
        least = g < least ? g : least;
    }
    assert_true(most < 22.9 && least > -3.15);
}

static void logprobs_are_those_of_the_untempered_distribution(void **state) {
    (void)state;
    static float x[V];
    static int32_t ids[V];
    for (int k = -1; k < N_ISAS; k++) {
        const char *isa = k < 0 ? "ref" : all_isas[k];
        if (!isa_here(isa)) continue;
        const struct cpu_ops *ops = cpu_ops_find(isa, NULL);
        for (int round = 0; round < 60; round++) {
            int32_t n = round % 3 ? V : 3 + rnd_n(30), want = rnd_n(LOGPROBS_MAX + 1);
            logits(x, n, round % 6);
            struct sampling how = {.temperature = 1, .top_p = 1, .seed = (uint64_t)round, .n_logprobs = want};
            struct result_row r = run(ops, x, n, how, 1);
            double sum = 0;
            for (int32_t i = 0; i < n; i++) sum += exp((double)x[i]);
            assert_float_equal(r.logprobs.chosen, (double)x[r.tokens[0]] - log(sum), 2e-5);
            for (int32_t i = 0; i < n; i++) ids[i] = i;
            sort_by = x;
            qsort(ids, (size_t)n, sizeof *ids, by_logit);
            assert_int_equal(r.logprobs.n, want < n ? want : n);
            for (int32_t i = 0; i < r.logprobs.n; i++) {
                assert_int_equal(r.logprobs.top[i].id, ids[i]);
                assert_float_equal(r.logprobs.top[i].logprob, (double)x[ids[i]] - log(sum), 2e-5);
            }
        }
    }
}

static void not_a_number_is_bad(void **state) {
    (void)state;
    static float x[V];
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = -1; k < N_ISAS; k++) {
        const char *isa = k < 0 ? "ref" : all_isas[k];
        if (!isa_here(isa)) continue;
        for (int round = 0; round < 90; round++) {
            int32_t n = 1 + rnd_n(V);
            logits(x, n, 0);
            x[round < 3 ? 0 : rnd_n(n)] = bad[round % 3];
            struct result_row r = run(cpu_ops_find(isa, NULL), x, n, (struct sampling){.temperature = (float)(round & 1), .top_p = 0.9f, .n_logprobs = 2}, 0);
            assert_true(r.bad);
            assert_int_equal(r.tokens[0], 0);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_the_twin),
        cmocka_unit_test(greedy_takes_the_lowest_of_the_largest),
        cmocka_unit_test(frequencies_are_the_distribution),
        cmocka_unit_test(neighbours_are_independent),
        cmocka_unit_test(the_bound_holds),
        cmocka_unit_test(logprobs_are_those_of_the_untempered_distribution),
        cmocka_unit_test(not_a_number_is_bad),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
