/* test_stories.c: a real trained model (stories260k) through scheduler, engine and device: the reference's tokens and
 * log-probabilities, and the same tokens on every route: alone, with strangers, chunked, cached, retracted, overlapped,
 * with one thread or two, on every instruction set that this machine has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "engine_rig.h"
#include "reference.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

struct model {
    struct config config;
    struct checkpoint *checkpoint;
    struct weights weights;
};

static bool open_model(struct model *m, const char *name) {
    char *dir = reference(name);
    if (!dir) return false;
    struct err e;
    if (config_open(&m->config, dir, &e) || checkpoint_open(&m->checkpoint, dir, &e) ||
        weights_bind(&m->weights, &m->config, m->checkpoint, (struct shard){.n_ranks = 1}, &e))
        fail_msg("%s", e.text);
    free(dir);
    return true;
}

static void close_model(struct model *m) {
    weights_release(&m->weights);
    checkpoint_close(m->checkpoint);
    config_release(&m->config);
}

static int32_t *ints(const json_t *a, int *n) {
    *n = (int)json_array_size(a);
    int32_t *p = mem_array((size_t)*n, sizeof *p);
    for (int i = 0; i < *n; i++) p[i] = (int32_t)json_integer_value(json_array_get(a, (size_t)i));
    return p;
}

static const char *const isas[] = {"ref", "generic", "avx2", "avx512", "avx512bf16"};
enum { N_ISAS = sizeof isas / sizeof *isas };

/* Greedy ids and the chosen tokens' log-probabilities against the float64 reference. */
static void match_reference(const char *folder, const char *key, double bound) {
    struct model m;
    if (!open_model(&m, folder)) skip();
    char *file = reference("stories260k/expected.json");
    json_t *all = json_load_file(file, 0, NULL), *x = json_object_get(all, key);
    free(file);
    assert_non_null(x);
    int n_prompt, n;
    int32_t *prompt = ints(json_object_get(x, "prompt_ids"), &n_prompt), *want = ints(json_object_get(x, "greedy_ids"), &n);
    const json_t *lp = json_object_get(x, "greedy_logprobs");
    for (int i = 0; i < N_ISAS; i++) {
        int32_t *got = mem_zalloc((size_t)n, sizeof *got);
        struct token_logprobs *probs = mem_zalloc((size_t)n, sizeof *probs);
        struct request r = {.prompt = prompt, .n_prompt = n_prompt, .max_tokens = n, .out_tokens = got, .out_logprobs = probs};
        r.sampling.n_logprobs = 1;
        struct setting s = {isas[i], 2, 64, 16, 64, 4, true, false, 1};
        if (run_all(&m.config, &m.weights, &s, &r, 1)) {
            assert_int_equal(r.n_out, n);
            int same = 0;
            while (same < n && got[same] == want[same]) same++;
            /* In bf16 a near tie may turn; what comes before it must agree. */
            if (same < n && (bound < 1e-3 || same < 60)) fail_msg("%s: token %d differs", isas[i], same);
            for (int k = 0; k < same; k++) {
                double d = fabs(json_number_value(json_array_get(lp, (size_t)k)) - (double)probs[k].chosen);
                if (d > bound) fail_msg("%s, token %d: log-probability off by %g", isas[i], k, d);
            }
        }
        free(got), free(probs);
    }
    free(prompt), free(want);
    json_decref(all);
    close_model(&m);
}

static void the_reference_in_f32(void **state) {
    (void)state;
    match_reference("stories260k", "f32", 1e-4);
}

static void the_reference_in_bf16(void **state) {
    (void)state;
    match_reference("stories260k/bf16", "bf16_weights", 0.05);
}

/* ---- the same answer on every route ---- */

enum { N_REQ = 24, MOST = 90 };

struct batch_of {
    struct request r[N_REQ];
    int32_t prompt[N_REQ][200], out[N_REQ][MOST];
};

static struct batch_of *make_requests(void) {
    struct batch_of *b = mem_zalloc(1, sizeof *b);
    uint32_t h = 12345;
    for (int i = 0; i < N_REQ; i++) {
        int n = 1 + i * 7 % 150;
        for (int k = 0; k < n; k++) {
            h = h * 1664525u + 1013904223u;
            b->prompt[i][k] = k < 40 && i % 2 ? (k * 5 + 3) % 500 : (int32_t)(h >> 16) % 500; /* half of them begin alike */
        }
        b->r[i] = (struct request){.id = (uint64_t)i, .prompt = b->prompt[i], .n_prompt = n,
                                   .max_tokens = 5 + i * 11 % (MOST - 5), .out_tokens = b->out[i]};
        b->r[i].sampling = (struct sampling){.temperature = i % 3 ? 0.8f : 0, .top_p = i % 4 ? 1 : 0.9f, .top_k = i % 5 ? 0 : 20,
                                             .seed = (uint64_t)i, .n_logprobs = -1};
    }
    return b;
}

static void compare(const struct batch_of *a, const struct batch_of *b, const char *route) {
    for (int i = 0; i < N_REQ; i++)
        if (a->r[i].n_out != b->r[i].n_out || memcmp(a->out[i], b->out[i], (size_t)a->r[i].n_out * 4))
            fail_msg("request %d differs: %s", i, route);
}

static void every_route(const char *folder) {
    struct model m;
    if (!open_model(&m, folder)) skip();
    static const struct {
        const char *name;
        struct setting s;
    } routes[] = {
        {"batched", {NULL, 2, 512, 16, 400, 32, false, false, 1}},
        {"one thread", {NULL, 1, 512, 16, 400, 32, false, false, 1}},
        {"chunks of 1", {NULL, 2, 1, 16, 400, 32, false, false, 1}},
        {"chunks of 7", {NULL, 2, 7, 1, 3000, 5, true, false, 1}},
        {"chunks of 64, cached", {NULL, 1, 64, 64, 40, 3, true, false, 1}},
        {"retracted", {NULL, 2, 64, 16, 33, 16, true, false, 1}},
        {"retracted, naive, overlapped", {NULL, 2, 64, 3, 172, 16, false, true, 1}},
        {"cached, overlapped", {NULL, 2, 100, 5, 150, 16, true, true, 1}},
    };
    for (int i = 0; i < N_ISAS; i++) {
        struct batch_of *alone = make_requests();
        struct setting one = {isas[i], 2, 512, 16, 40, 1, false, false, 1};
        if (!run_all(&m.config, &m.weights, &one, alone->r, N_REQ)) {
            free(alone);
            continue;
        }
        for (size_t k = 0; k < sizeof routes / sizeof *routes; k++) {
            struct batch_of *b = make_requests();
            struct setting s = routes[k].s;
            s.isa = isas[i];
            run_all(&m.config, &m.weights, &s, b->r, N_REQ);
            compare(alone, b, routes[k].name);
            free(b);
        }
        free(alone);
    }
    close_model(&m);
}

static void same_answer_on_every_route_f32(void **state) {
    (void)state;
    every_route("stories260k");
}

static void same_answer_on_every_route_bf16(void **state) {
    (void)state;
    every_route("stories260k/bf16");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_in_f32),
        cmocka_unit_test(the_reference_in_bf16),
        cmocka_unit_test(same_answer_on_every_route_f32),
        cmocka_unit_test(same_answer_on_every_route_bf16),
    };
    return cmocka_run_group_tests_name("stories", tests, NULL, NULL);
}
