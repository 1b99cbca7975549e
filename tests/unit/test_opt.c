/* test_opt.c: the command line: spellings, ranges, refusals, defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "opt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct options o;
static struct err e;

static int parse(unsigned command, const char *line) {
    static char copy[512];
    char *argv[32] = {"minisgl"};
    int argc = 1;
    strcpy(copy, line);
    for (char *p = strtok(copy, " "); p; p = strtok(NULL, " ")) argv[argc++] = p;
    e = (struct err){0};
    return options_parse(&o, command, argc, argv, &e);
}

static void defaults_are_mini_sglangs(void **state) {
    (void)state;
    assert_int_equal(parse(CMD_SERVE, ""), 0);
    assert_int_equal(o.port, 1919);
    assert_string_equal(o.host, "0.0.0.0");
    assert_int_equal(o.max_running, 256);
    assert_true(o.memory_ratio == 0.9);
    assert_int_equal(o.max_prefill, -1);
    assert_null(o.api_key);
}

static void every_spelling_means_the_same(void **state) {
    (void)state;
    const char *lines[] = {"--max-model-len 77", "--max-seq-len-override=77", "--max-seq 77", "--context-length=77"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(parse(CMD_SERVE, lines[i]), 0);
        assert_int_equal(o.max_seq_len, 77);
    }
    const char *mem[] = {"--mem 0.5", "--gpu-memory-utilization 0.5", "--mem-fraction-static=0.5", "--memory-ratio 0.5"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(parse(CMD_GENERATE, mem[i]), 0);
        assert_true(o.memory_ratio == 0.5);
    }
    assert_int_equal(parse(CMD_SERVE, "--cache naive --tp 1"), 0);
    assert_int_equal(parse(CMD_GENERATE, "hello --raw"), 0);
    assert_string_equal(o.positional, "hello");
    assert_int_equal(parse(CMD_GENERATE, "-- --raw"), 0);
    assert_string_equal(o.positional, "--raw");
}

static void a_models_tilde_is_the_home_folder(void **state) {
    (void)state;
    setenv("HOME", "/home/some", 1);
    assert_int_equal(parse(CMD_SERVE, "--model=~/models/a"), 0);
    assert_string_equal(o.model, "/home/some/models/a");
    assert_int_equal(parse(CMD_TOKENIZE, "--model a/~/b"), 0);
    assert_string_equal(o.model, "a/~/b");
}

static void number_formats_have_their_peers_names(void **state) {
    (void)state;
    static const char *const names[][2] = {{"half", "float16"}, {"float16", "float16"}, {"f16", "float16"}, {"bf16", "bfloat16"}, {"BFloat16", "bfloat16"},
                                           {"float", "float32"}, {"float32", "float32"}, {"auto", "auto"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char line[80];
        snprintf(line, sizeof line, "--dtype %s --kv-cache-dtype=%s", names[i][0], names[i][0]);
        assert_int_equal(parse(CMD_SERVE, line), 0);
        assert_string_equal(o.dtype, names[i][1]);
        assert_string_equal(o.kv_dtype, names[i][1]);
    }
    assert_int_equal(parse(CMD_DOCTOR, "--kv-cache-dtype fp8"), 0);
    assert_string_equal(o.kv_dtype, "fp8_e4m3");
    assert_string_equal(o.dtype, "auto");
    assert_int_equal(parse(CMD_GENERATE, "--kv FP8_E4M3"), 0);
    assert_string_equal(o.kv_dtype, "fp8_e4m3");
}

static void wrong_ones_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"--port 70000", "70000"},      {"--port x", "whole number"},    {"--port", "needs a value"},
        {"--port 1e999", "1e999"},      {"--port 0x50", "0x50"},         {"--port nan", "nan"},
        {"--page-size 0", "from 1"},    {"--nonsense", "--nonsense"},    {"--max 5", "could be"},
        {"--dtype int8", "float16"},    {"--dummy-weight=1", "no value"}, {"stray", "stray"},
        {"-x", "-x"},                   {"--decode", "subcommand"},      {"--max-running-requests 1.5", "1.5"},
        {"--kv-cache-dtype fp8_e5m2", "fp8_e4m3"}, {"--kv-cache-dtype int8", "fp8_e4m3"}, {"--dtype fp8", "bfloat16"},
        {"--dtype fp8_e5m2", "bfloat16"},
        {"--model=", "empty"},          {"--tp x", "whole number"},      {"--shell", "later version"},
        {"--cache both", "radix"},      {"--attn fa,fb", "fa,fi"},       {"--cuda-graph-max-bs -1", "from 0"},
        {"--model-source elsewhere", "modelscope"},
        {"--mem-fraction-static 2", "--mem-fraction-static: expected"}, {"--mem 2", "--memory-ratio: expected"},
        {"--max-body-bytes 1", "to 1073741824"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(CMD_SERVE, bad[i].line), -1);
        assert_int_equal(e.kind, ERR_INPUT);
        if (!strstr(e.text, bad[i].says)) fail_msg("%s: %s", bad[i].line, e.text);
    }
}

static void what_was_given_is_known(void **state) {
    (void)state;
    assert_int_equal(parse(CMD_SIMULATE, "--rate 4 --seed=0"), 0);
    assert_true(options_given(&o, "rate") && options_given(&o, "seed"));
    assert_false(options_given(&o, "input-length") || options_given(&o, "rate-scale"));
    assert_int_equal(parse(CMD_SIMULATE, ""), 0);
    assert_false(options_given(&o, "rate") || options_given(&o, "seed"));
}

static void environment_is_checked_like_the_command_line(void **state) {
    (void)state;
    setenv("LOG_LEVEL", "debug", 1);
    assert_int_equal(parse(CMD_SERVE, ""), 0);
    assert_string_equal(o.log_level, "DEBUG");
    assert_int_equal(parse(CMD_SERVE, "--log-level error"), 0);
    assert_string_equal(o.log_level, "ERROR");
    setenv("LOG_LEVEL", "loud", 1);
    assert_int_equal(parse(CMD_SERVE, ""), -1);
    assert_non_null(strstr(e.text, "LOG_LEVEL"));
    unsetenv("LOG_LEVEL");
    static const struct {
        const char *value;
        bool right, on;
    } flags[] = {{"1", true, true},   {"true", true, true}, {"YES", true, true}, {"0", true, false},
                 {"False", true, false}, {"", true, false},    {"2", false, false}, {"maybe", false, false}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        setenv("MINISGL_DISABLE_OVERLAP_SCHEDULING", flags[i].value, 1);
        assert_int_equal(options_parse(&o, CMD_SERVE, 1, (char *[]){"minisgl"}, &e) == 0, flags[i].right);
        if (flags[i].right) assert_int_equal(o.disable_overlap, flags[i].on);
        else assert_non_null(strstr(e.text, "MINISGL_DISABLE_OVERLAP_SCHEDULING: expected 1 or 0"));
    }
    unsetenv("MINISGL_DISABLE_OVERLAP_SCHEDULING");
}

static void what_only_gpus_honour_is_accepted_and_remembered(void **state) {
    (void)state;
    assert_int_equal(parse(CMD_SERVE, "--attn fa,fi --graph 256 --moe fused --disable-pynccl --attn fi --gpu-comm nccl --gpu-comm p2p"), 0);
    assert_int_equal(o.n_gpu_only, 5);
    assert_string_equal(o.gpu_only[0], "attention-backend");
    assert_string_equal(o.gpu_only[1], "cuda-graph-max-bs");
    assert_string_equal(o.attention, "fi");
    assert_int_equal(o.cuda_graph_max_bs, 256);
    assert_int_equal(parse(CMD_SERVE, ""), 0);
    assert_int_equal(o.n_gpu_only, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_mini_sglangs),
        cmocka_unit_test(every_spelling_means_the_same),
        cmocka_unit_test(a_models_tilde_is_the_home_folder),
        cmocka_unit_test(number_formats_have_their_peers_names),
        cmocka_unit_test(wrong_ones_are_named),
        cmocka_unit_test(what_only_gpus_honour_is_accepted_and_remembered),
        cmocka_unit_test(what_was_given_is_known),
        cmocka_unit_test(environment_is_checked_like_the_command_line),
    };
    return cmocka_run_group_tests_name("opt", tests, NULL, NULL);
}
