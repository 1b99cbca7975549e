/* test_simulate.c: traces in each format and what is refused; tokens of equal blocks; the cost model's shape; and the
 * real scheduler under the virtual clock: every token counted, and what the policies are for. */
/* clang-format off: cmocka.h needs the others first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include "base/mem.h"
#include "hub/find.h"
#include "sim/plot.h"
#include "sim/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void parse(struct trace *t, const char *text) {
    struct err e = {0};
    if (trace_parse(t, text, strlen(text), INT32_MAX, &e)) fail_msg("%s", e.text);
}

/* ---- traces ---- */

static void mooncake(void **state) {
    (void)state;
    struct trace t;
    parse(&t, "{\"timestamp\": 500, \"input_length\": 1000, \"output_length\": 5, \"hash_ids\": [1, 2]}\n"
              "{\"timestamp\": 3000, \"input_length\": 1030, \"output_length\": 0, \"hash_ids\": [1, 2, 9]}\r\n\n"
              "{\"timestamp\": 1500, \"input_length\": 513, \"output_length\": 7, \"hash_ids\": [1, 3]}");
    assert_string_equal(t.format, "mooncake");
    assert_int_equal(t.n, 3);
    assert_true(t.req[0].at == 0 && t.req[1].at == 1 && t.req[2].at == 2.5); /* in order, from the first on */
    assert_int_equal(t.req[1].n_prompt, 513);
    assert_int_equal(t.req[2].n_out, 1); /* an answer has a token at least */
    int32_t a[1000], b[513], c[1030];
    trace_tokens(&t, 0, a);
    trace_tokens(&t, 1, b);
    trace_tokens(&t, 2, c);
    assert_memory_equal(a, b, 512 * sizeof *a);
    assert_int_not_equal(a[512], b[512]);
    assert_memory_equal(a, c, sizeof a);
    for (int i = 0; i < 1000; i++) assert_true(a[i] > 0);
    /* 0 of 1000, 512 of 513, 1000 of 1030 are known; in whole pages of 16: 0, 512, 992. */
    assert_true(trace_best_hit(&t, 16) == (512.0 + 992) / (1000 + 513 + 1030));
    trace_release(&t);
}

static void bailian_and_azure(void **state) {
    (void)state;
    struct trace t;
    parse(&t, "{\"chat_id\": 1, \"parent_chat_id\": -1, \"timestamp\": 61.25, \"input_length\": 33, \"output_length\": "
              "4, \"type\": \"text\", "
              "\"turn\": 1, \"hash_ids\": [7, 8, 9]}\n"
              "{\"chat_id\": 2, \"parent_chat_id\": 1, \"timestamp\": 62.25, \"input_length\": 49, \"output_length\": "
              "4, \"type\": \"text\", "
              "\"turn\": 2, \"hash_ids\": [7, 8, 10, 11]}\n");
    assert_string_equal(t.format, "qwen-bailian");
    assert_true(t.req[1].at == 1);
    int32_t a[33], b[49];
    trace_tokens(&t, 0, a);
    trace_tokens(&t, 1, b);
    assert_memory_equal(a, b, 32 * sizeof *a);
    assert_int_not_equal(a[32], b[32]);
    trace_release(&t);
    parse(&t, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-02-28 23:59:59.5000000,374,44\r\n2023-03-01 "
              "00:00:00.7500000,374,9\r\n");
    assert_string_equal(t.format, "azure");
    assert_int_equal(t.n, 2);
    assert_true(t.req[1].at == 1.25);
    int32_t c[374], d[374];
    trace_tokens(&t, 0, c);
    trace_tokens(&t, 1, d);
    assert_memory_not_equal(c, d, 16 * sizeof *c); /* nothing is known to be shared */
    assert_true(trace_best_hit(&t, 16) == 0);
    trace_release(&t);
}

static void bad_traces(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "no requests"},
        {"\n\n", "no requests"},
        {"hello", "line 1: expected a JSON object"},
        {"[1]", "line 1: expected a JSON object"},
        {"{}", "line 1: expected a time"},
        {"{\"timestamp\":-1,\"input_length\":5,\"output_length\":5}", "line 1: expected a time"},
        {"{\"timestamp\":0,\"input_length\":0,\"output_length\":5}", "line 1: expected lengths"},
        {"{\"timestamp\":0,\"input_length\":1e300,\"output_length\":5}", "line 1: expected lengths"},
        {"{\"timestamp\":0,\"input_length\":5,\"output_length\":-5}", "line 1: expected lengths"},
        {"{\"timestamp\":0,\"input_length\":\"5\",\"output_length\":5}", "line 1: expected lengths"},
        {"{\"timestamp\":0,\"input_length\":5,\"output_length\":5,\"hash_ids\":7}", "hash_ids is not a list"},
        {"{\"timestamp\":0,\"input_length\":5,\"output_length\":5,\"hash_ids\":[\"x\"]}",
         "hash_ids holds something else"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,1,2\n", "line 2: expected DATE TIME"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 01:01:01,1,2\n", "line 2: expected DATE TIME"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 01:01:01,1,2,3\n", "line 2: expected DATE TIME"},
        {"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 01:01:01,nan,2\n", "line 2: expected lengths"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct trace t;
        struct err e = {0};
        assert_int_equal(trace_parse(&t, bad[i].text, strlen(bad[i].text), INT32_MAX, &e), -1);
        assert_int_equal(e.kind, ERR_INPUT);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s: '%s' is not in '%s'", bad[i].text, bad[i].says, e.text);
    }
}

/* ---- cost ---- */

static const struct hub_settings no_hub = {.hf_cache = "/nonexistent", .offline = true};

static void cost_of(struct cost *c, const char *model, const char *gpu, int32_t n) {
    struct err e = {0};
    struct config m;
    char *dir = model_find(model, HUB_CONFIG, &no_hub, NULL, &e);
    if (!dir || config_open(&m, dir, &e) || cost_init(c, &m, gpu_find(gpu), n, &e)) fail_msg("%s", e.text);
    free(dir);
    config_release(&m);
}

static void costs(void **state) {
    (void)state;
    struct cost one, four, moe, small;
    cost_of(&one, "Qwen/Qwen3-32B", "h200", 1);
    cost_of(&four, "Qwen/Qwen3-32B", "h200", 4);
    cost_of(&moe, "Qwen/Qwen3-30B-A3B", "h200", 1);
    cost_of(&small, "Qwen/Qwen3-0.6B", "h100", 1);
    assert_true(one.weights > 65.4e9 && one.weights < 65.6e9); /* 32.76 G parameters */
    assert_true(four.weights == one.weights / 4);
    assert_true(one.kv == 64 * 2 * 8 * 128 * 2 && four.kv == one.kv / 4);
    assert_true(moe.weights > 60.9e9 && moe.weights < 61.2e9); /* 30.5 G, of which 3.3 G a token */
    assert_true(cost_pages(&four, 0.9, 16) > 4 * cost_pages(&one, 0.9, 16));
    struct work decode = {.n_tokens = 1, .n_rows = 1, .kv_read = 512},
                chunk = {.n_tokens = 8192, .n_rows = 1, .kv_read = 8192, .pairs = 8192.0 * 4096};
    assert_true(cost_step(&one, &decode) > 15000000 && cost_step(&one, &decode) < 20000000); /* measured: 16-19 ms */
    assert_true(cost_step(&four, &decode) < cost_step(&one, &decode) / 2);
    assert_true(cost_step(&moe, &decode) < cost_step(&one, &decode) / 5);
    assert_true(cost_step(&small, &decode) < 1500000);
    assert_true(cost_step(&one, &chunk) > 20 * cost_step(&one, &decode));
    struct work longer = decode;
    longer.kv_read = 100000;
    assert_true(cost_step(&one, &longer) > cost_step(&one, &decode));
    assert_null(gpu_find("h300"));
    struct config m;
    struct err e = {0};
    char *dir = model_find("Qwen/Qwen3-32B", HUB_CONFIG, &no_hub, NULL, &e);
    assert_int_equal(config_open(&m, dir, &e), 0);
    assert_int_equal(cost_init(&four, &m, gpu_find("h200"), 3, &e), -1);
    config_release(&m);
    free(dir);
}

/* ---- runs ---- */

static void run(struct sim_report *r, const struct trace *t, const char *policy, int32_t n_pages, bool radix,
                bool overlap) {
    struct cost c;
    struct err e = {0};
    cost_of(&c, "Qwen/Qwen3-32B", "h200", 4);
    struct sim_args a = {.sched = {.max_running = 512,
                                   .max_prefill = 8192,
                                   .max_len = 16384,
                                   .page_size = 16,
                                   .n_pages = n_pages,
                                   .policy = sched_policy(policy),
                                   .margin_percent = SCHED_MARGIN_PERCENT,
                                   .target_itl = 50000000,
                                   .radix = radix},
                         .cost = &c,
                         .trace = t,
                         .max_tokens = 1024,
                         .overlap = overlap,
                         .host = 50000};
    assert_int_equal(sim_run(&a, r, &e), 0);
}

static void every_token_is_counted(void **state) {
    (void)state;
    static struct sim_report r, slow;
    struct trace t;
    trace_make(&t,
               &(struct trace_synthetic){.n = 300, .rate = 5, .n_prompt = 600, .n_out = 100, .shared = 0.5, .seed = 1});
    uint64_t n_out = 0, n_prompt = 0;
    for (int32_t i = 0; i < t.n; i++) n_out += (uint64_t)t.req[i].n_out, n_prompt += (uint64_t)t.req[i].n_prompt;
    run(&r, &t, "fcfs", 60000, true, true);
    assert_int_equal(r.n_requests, 300);
    assert_int_equal(r.output_tokens, n_out);
    assert_int_equal(r.prompt_tokens, n_prompt);
    /* Each position but the last token's is computed once, or was in the cache; and what came after an end. */
    assert_int_equal(r.computed, n_prompt + n_out - 300 - r.cached_tokens + r.dropped + r.twice);
    assert_int_equal(r.twice, 0);
    assert_true(r.dropped > 0 && r.dropped <= 300);
    assert_true(r.best_hit > 0.4 && r.best_hit < 0.5);
    assert_true((double)r.cached_tokens / (double)r.prompt_tokens > r.best_hit - 0.02); /* the pool holds it all */
    assert_true(r.ttft.p50 > 0 && r.ttft.p50 <= r.ttft.p90 && r.ttft.p90 <= r.ttft.p99 && r.ttft.p99 <= r.ttft.max);
    assert_true(r.itl.p50 > 0.004 && r.itl.p99 < 0.1);
    run(&slow, &t, "fcfs", 60000, true, false);
    assert_int_equal(slow.output_tokens, n_out);
    assert_int_equal(slow.dropped, 0); /* without overlap nothing is planned behind an end */
    assert_true(slow.itl.p50 > r.itl.p50);
    run(&slow, &t, "fcfs", 60000, false, true);
    assert_int_equal(slow.cached_tokens, 0);
    assert_true(slow.computed > r.computed);
    trace_release(&t);
}

/* More requests than the pool has room for: over-commitment against reservation, mixed steps against prompts first. */
static void what_the_policies_are_for(void **state) {
    (void)state;
    static struct sim_report ours, classic;
    struct trace t;
    trace_make(&t, &(struct trace_synthetic){.n = 3000, .rate = 50, .n_prompt = 1000, .n_out = 210, .seed = 2});
    static const int32_t pools[] = {2500, 5000, 10000};
    for (int i = 0; i < 3; i++) {
        run(&ours, &t, "fcfs", pools[i], false, true);
        run(&classic, &t, "classic", pools[i], false, true);
        assert_int_equal(ours.output_tokens, classic.output_tokens);
        assert_int_equal(classic.retracted, 0);
        assert_true(ours.running_mean >= 1.5 * classic.running_mean);
        assert_true((double)ours.twice <= 0.02 * (double)ours.computed);
        assert_true(ours.itl.p99 < classic.itl.p99);
        if (!ours.retracted) assert_true(ours.itl.max < classic.itl.max / 2); /* who is put back stands still */
    }
    trace_release(&t);
}

static void a_picture(void **state) {
    (void)state;
    static struct sim_report r;
    struct trace t;
    trace_make(&t, &(struct trace_synthetic){.n = 2000, .rate = 5, .n_prompt = 200, .n_out = 50, .seed = 3});
    run(&r, &t, "lpm", 60000, true, true);
    trace_release(&t);
    assert_true(r.n_moments > SIM_MOMENTS / 2 && r.n_moments <= SIM_MOMENTS); /* longer than 64 s: made coarser */
    for (int32_t i = 1; i < r.n_moments; i++) assert_true(r.moment[i].at > r.moment[i - 1].at);
    assert_true(r.moment[r.n_moments - 1].at <= r.seconds);
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    plot_svg(f, &r, 60000, "a < b & c");
    fclose(f);
    assert_non_null(strstr(text, "a &lt; b &amp; c"));
    assert_non_null(strstr(text, "</svg>"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mooncake),
        cmocka_unit_test(bailian_and_azure),
        cmocka_unit_test(bad_traces),
        cmocka_unit_test(costs),
        cmocka_unit_test(every_token_is_counted),
        cmocka_unit_test(what_the_policies_are_for),
        cmocka_unit_test(a_picture),
    };
    return cmocka_run_group_tests_name("simulate", tests, NULL, NULL);
}
