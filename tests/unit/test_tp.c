/* test_tp.c: tensor parallelism gives the same bytes as one rank, for every architecture and every number of ranks that divides it: greedy
 * and seeded tokens and their log-probabilities, chunked, cached, retracted. */
#include "engine_rig.h"

#include "base/file.h"

#include <stdatomic.h>
#include <unistd.h>

enum { N_REQ = 12, MOST = 24, PROMPT = 50, RANKS = 8 };

struct requests {
    struct request r[N_REQ];
    int32_t prompt[N_REQ][PROMPT], out[N_REQ][MOST];
    struct token_logprobs probs[N_REQ][MOST];
};

static struct requests *make_requests(const struct config *c) {
    struct requests *b = mem_zalloc(1, sizeof *b);
    uint32_t h = 99;
    for (int i = 0; i < N_REQ; i++) {
        int n = 1 + i * 13 % PROMPT;
        for (int k = 0; k < n; k++) {
            h = h * 1664525u + 1013904223u;
            b->prompt[i][k] = k < 20 && i % 2 ? (k * 5 + 3) % c->vocab : (int32_t)(h >> 8) % c->vocab;
        }
        b->r[i] = (struct request){.id = (uint64_t)i, .prompt = b->prompt[i], .n_prompt = n, .max_tokens = 4 + i * 5 % (MOST - 4),
                                   .out_tokens = b->out[i], .out_logprobs = b->probs[i]};
        b->r[i].sampling = (struct sampling){.temperature = i % 3 ? 0.7f : 0, .top_p = i % 4 ? 1 : 0.8f, .top_k = i % 5 ? 0 : 9,
                                             .min_p = i % 6 == 1 ? 0.3f : 0, .seed = (uint64_t)i, .n_logprobs = i % 7};
    }
    return b;
}

static void compare(const struct requests *a, const struct requests *b, const char *model, int ranks, const char *route) {
    for (int i = 0; i < N_REQ; i++) {
        if (a->r[i].n_out != b->r[i].n_out || memcmp(a->out[i], b->out[i], sizeof a->out[i]))
            fail_msg("%s, %d ranks, %s: the tokens of request %d differ", model, ranks, route, i);
        for (int k = 0; k < a->r[i].n_out; k++) {
            const struct token_logprobs *p = &a->probs[i][k], *q = &b->probs[i][k];
            if (p->n != q->n || memcmp(&p->chosen, &q->chosen, sizeof p->chosen) || memcmp(p->top, q->top, (size_t)p->n * sizeof *p->top))
                fail_msg("%s, %d ranks, %s: the log-probabilities of request %d differ at %d", model, ranks, route, i, k);
        }
    }
}

static const struct {
    const char *name;
    struct setting s;
} routes[] = {
    {"alone", {NULL, 1, 512, 16, 40, 1, false, false, 0}},
    {"chunks of 7, cached", {NULL, 1, 7, 4, 200, 8, true, false, 0}},
    {"two threads a rank, overlapped", {NULL, 2, 64, 16, 100, 12, true, true, 0}},
    {"retracted", {NULL, 1, 33, 5, 40, 12, true, false, 0}},
};
enum { N_ROUTES = sizeof routes / sizeof *routes };

/* All numbers of ranks against one, on one instruction set. w[k]: the weights of 1 << k ranks. */
static int check(const char *model, const struct config *c, struct weights w[4][RANKS], const char *isa) {
    int seen = 0;
    struct requests *want = make_requests(c);
    struct setting one = {isa, 1, 512, 16, 60, 12, false, false, 1};
    bool here = run_all(c, w[0], &one, want->r, N_REQ);
    for (int k = 1; k < 4 && here; k++)
        for (int i = k == 3 ? N_ROUTES - 1 : 0; i < N_ROUTES && w[k][0].n_layers; i++, seen++) { /* 8 threads on few cores are slow */
            struct requests *got = make_requests(c);
            struct setting s = routes[i].s;
            s.isa = isa;
            s.n_ranks = 1 << k;
            run_all(c, w[k], &s, got->r, N_REQ);
            compare(want, got, model, 1 << k, routes[i].name);
            free(got);
        }
    free(want);
    return seen;
}

static void release(struct weights w[4][RANKS]) {
    for (int k = 0; k < 4; k++)
        for (int r = 0; r < 1 << k; r++) weights_release(&w[k][r]);
}

static const char *const names[] = {"llama",          "llama-mha-bias", "llama-tied", "qwen2",   "qwen3",
                                    "mistral-window", "qwen3moe",       "qwen3moe-sparse", "qwen3-f16-shards", "qwen3-yarn-mscale-bf16"};

static void open_config(struct config *c, const char *name, char **dir) {
    struct err e;
    *dir = path_join("tests/model/fixtures", name);
    if (config_open(c, *dir, &e)) fail_msg("%s", e.text);
}

/* The fixtures have 4 heads: 2 and 4 ranks. */
static void checkpoints(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct config c;
        struct checkpoint *ck;
        struct weights w[4][RANKS] = {0};
        struct err e;
        char *dir;
        open_config(&c, names[i], &dir);
        if (checkpoint_open(&ck, dir, &e)) fail_msg("%s", e.text);
        for (int k = 0; k < 3; k++)
            for (int r = 0; r < 1 << k; r++)
                if (weights_bind(&w[k][r], &c, ck, (struct shard){r, 1 << k}, &e)) fail_msg("%s: %s", names[i], e.text);
        assert_int_equal(check(names[i], &c, w, NULL), 2 * N_ROUTES);
        release(w);
        checkpoint_close(ck);
        config_release(&c);
        free(dir);
    }
}

/* Eight heads: 2, 4 and 8 ranks; KV heads copied; a vocabulary that no number of ranks divides; weights in bf16, which has its own kernels. */
static void eight_ranks(void **state) {
    (void)state;
    static const char *const isas[] = {NULL, "generic", "avx2"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct config c;
        struct weights w[4][RANKS] = {0};
        struct err e;
        char *dir;
        open_config(&c, names[i], &dir);
        c.n_heads = 8;
        c.n_kv_heads = i % 3 == 0 ? 8 : i % 3 == 1 ? 2 : 4;
        c.vocab = 101;
        if (i % 2) c.dtype = DT_BF16;
        for (int k = 0; k < 4; k++)
            for (int r = 0; r < 1 << k; r++)
                if (weights_dummy(&w[k][r], &c, (struct shard){r, 1 << k}, 3, 1, &e)) fail_msg("%s: %s", names[i], e.text);
        int seen = check(names[i], &c, w, isas[i % 3]);
        if (!isas[i % 3]) assert_int_equal(seen, 2 * N_ROUTES + 1);
        release(w);
        config_release(&c);
        free(dir);
    }
}

/* ---- rank 0 hangs when its step is launched ---- */

static atomic_int told;
static char why[1000];

static void tell(void *arg, const struct err *e) {
    (void)arg;
    snprintf(why, sizeof why, "%s", e->text);
    atomic_store(&told, 1);
}

static void a_step_that_nobody_collects(void **state) {
    (void)state;
    struct config c;
    struct weights w[2] = {0};
    struct engine *g;
    struct err e;
    char *dir;
    open_config(&c, "llama", &dir);
    for (int r = 0; r < 2; r++)
        if (weights_dummy(&w[r], &c, (struct shard){r, 2}, 3, 1, &e)) fail_msg("%s", e.text);
    struct batch_limits lim = {.max_tokens = 4, .max_seqs = 1, .max_pages = 1};
    struct engine_args a = {.config = &c, .weights = w, .n_ranks = 2, .maker = &dev_cpu, .limits = lim, .dev = {.n_threads = 1}, .max_len = 16,
                            .page_size = 16, .n_pages = 2, .kv_dtype = c.dtype, .comm_timeout_ns = 1000000000, .broken = tell};
    if (engine_open(&g, &a, &e)) fail_msg("%s", e.text);
    struct batch *b = batch_init(mem_aligned(64, batch_size(&lim)), &lim);
    batch_reset(b, 1);
    batch_slots(b)[b->n_slots++] = (struct batch_slot){.sampling = {.top_p = 1, .n_logprobs = -1}};
    batch_pages(b)[b->n_pages++] = (struct batch_page){0, 0, 1};
    batch_seqs(b)[b->n_seqs++] = (struct batch_seq){0, 0, 1, 0, b->n_rows++};
    batch_tokens(b)[b->n_given++] = 1;
    b->n_tokens = 1;
    batch_seal(b);
    if (engine_launch(g, b, &e)) fail_msg("%s", e.text);
    for (int i = 0; i < 600 && !atomic_load(&told); i++) usleep(50000);
    assert_int_equal(atomic_load(&told), 1);
    assert_non_null(strstr(why, "rank 0 did not come to collect a step within 1 s"));
    engine_close(g);
    free(b);
    for (int r = 0; r < 2; r++) weights_release(&w[r]);
    config_release(&c);
    free(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(checkpoints), cmocka_unit_test(eight_ranks), cmocka_unit_test(a_step_that_nobody_collects)};
    return cmocka_run_group_tests_name("tp", tests, NULL, NULL);
}
