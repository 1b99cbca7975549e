/* test_config.c: config.json and generation_config.json: what is read, and what is refused with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/file.h"
#include "model/config.h"
#include "model_data.h"

#include <jansson.h>
#include <math.h>

static const char base[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"vocab_size\":100,\"hidden_size\":64,"
    "\"intermediate_size\":96,\"num_hidden_layers\":4,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
    "\"rms_norm_eps\":1e-5,\"max_position_embeddings\":2048,\"hidden_act\":\"silu\"}";

/* The base config with another architecture and fields; a field set to "-" is removed. */
static char *patched(const char *arch, const char *type, const char *patch) {
    json_t *j = json_loads(base, 0, NULL), *p = json_loads(patch, 0, NULL);
    if (!p) fail_msg("the test's own patch is no JSON: %s", patch);
    const char *key;
    json_t *v;
    if (arch) {
        json_object_set_new(j, "architectures", json_pack("[s]", arch));
        json_object_set_new(j, "model_type", json_string(type));
    }
    json_object_foreach(p, key, v) {
        if (json_is_string(v) && !strcmp(json_string_value(v), "-"))
            json_object_del(j, key);
        else
            json_object_set(j, key, v);
    }
    char *text = json_dumps(j, 0);
    json_decref(j);
    json_decref(p);
    return text;
}

static int parse(struct config *c, const char *arch, const char *type, const char *patch, const char *gen,
                 struct err *e) {
    char *text = patched(arch, type, patch);
    int rc = config_parse(c, text, strlen(text), gen, gen ? strlen(gen) : 0, e);
    free(text);
    return rc;
}

static struct config good(const char *arch, const char *type, const char *patch, const char *gen) {
    struct config c;
    struct err e = {0};
    if (parse(&c, arch, type, patch, gen, &e)) fail_msg("%s refused: %s", patch, e.text);
    return c;
}

#define LLAMA NULL, NULL
#define QWEN2 "Qwen2ForCausalLM", "qwen2"
#define QWEN3 "Qwen3ForCausalLM", "qwen3"
#define MOE "Qwen3MoeForCausalLM", "qwen3_moe"
#define MISTRAL "MistralForCausalLM", "mistral"

static void refuses_each_with_its_name(void **state) {
    (void)state;
    static const struct {
        const char *arch, *type, *patch, *says;
    } bad[] = {
        {LLAMA, "{\"architectures\":[\"GPT2LMHeadModel\"]}",
         "GPT2LMHeadModel is not supported; supported are LlamaForCausalLM, Qwen2"},
        {LLAMA, "{\"architectures\":\"-\",\"model_type\":\"gpt2\"}", "gpt2 is not supported"},
        {LLAMA, "{\"architectures\":\"-\",\"model_type\":\"-\"}", "is missing"},
        {LLAMA, "{\"architectures\":[]  ,\"model_type\":\"-\"}", "is missing"},
        {LLAMA, "{\"architectures\":\"LlamaForCausalLM\"}", "architectures must be an array"},
        {LLAMA, "{\"architectures\":[7]}", "architectures must be an array of strings"},
        {LLAMA, "{\"model_type\":\"mistral\"}", "model_type says mistral"},
        {LLAMA, "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", "quantized by the method gptq"},
        {LLAMA, "{\"quantization_config\":{}}", "quantization_config"},
        {LLAMA, "{\"hidden_act\":\"gelu\"}", "hidden_act \"gelu\""},
        {LLAMA, "{\"hidden_act\":3}", "hidden_act must be a string"},
        {LLAMA, "{\"partial_rotary_factor\":0.5}", "partial_rotary_factor"},
        {LLAMA, "{\"rope_parameters\":{\"rope_type\":\"default\",\"partial_rotary_factor\":0.25}}",
         "partial_rotary_factor"},
        {LLAMA, "{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}", "per layer type"},
        {LLAMA, "{\"attn_logit_softcapping\":30.0}", "attn_logit_softcapping"},
        {LLAMA, "{\"final_logit_softcapping\":30.0}", "final_logit_softcapping"},
        {LLAMA, "{\"residual_multiplier\":0.22}", "residual_multiplier"},
        {LLAMA, "{\"no_rope_layers\":[1,1,1,0]}", "no_rope_layers"},
        {LLAMA, "{\"num_experts\":8}", "num_experts"},
        {LLAMA, "{\"num_local_experts\":8}", "no experts"},
        {MISTRAL, "{\"attention_bias\":true}", "MistralForCausalLM has no attention biases"},
        {QWEN3, "{\"mlp_bias\":true}", "mlp_bias"},
        {LLAMA, "{\"attention_bias\":1}", "attention_bias must be true or false"},
        {LLAMA, "{\"num_hidden_layers\":0}", "num_hidden_layers must be an integer from 1 to 1000, found the number 0"},
        {LLAMA, "{\"num_hidden_layers\":-1}", "num_hidden_layers"},
        {LLAMA, "{\"num_hidden_layers\":1000000000}", "num_hidden_layers"},
        {LLAMA, "{\"num_hidden_layers\":4.0}", "num_hidden_layers"},
        {LLAMA, "{\"num_hidden_layers\":true}", "num_hidden_layers"},
        {LLAMA, "{\"num_hidden_layers\":\"4\"}", "num_hidden_layers"},
        {LLAMA, "{\"num_hidden_layers\":\"-\"}", "num_hidden_layers must be an integer from 1 to 1000, found nothing"},
        {LLAMA, "{\"num_attention_heads\":0}", "num_attention_heads"},
        {LLAMA, "{\"num_attention_heads\":-8}", "num_attention_heads"},
        {LLAMA, "{\"num_key_value_heads\":0}", "num_key_value_heads"},
        {LLAMA, "{\"num_key_value_heads\":3}", "num_attention_heads (8) must be a multiple of num_key_value_heads (3)"},
        {LLAMA, "{\"num_key_value_heads\":16}", "must be a multiple"},
        {LLAMA, "{\"hidden_size\":0}", "hidden_size"},
        {LLAMA, "{\"hidden_size\":60}", "hidden_size (60) must be a multiple of num_attention_heads (8)"},
        {LLAMA, "{\"hidden_size\":9223372036854775807}", "hidden_size"},
        {LLAMA, "{\"hidden_size\":131073}", "hidden_size"},
        {LLAMA, "{\"head_dim\":0}", "head_dim must be an integer from 1"},
        {LLAMA, "{\"head_dim\":-4}", "head_dim"},
        {LLAMA, "{\"head_dim\":7}", "must be even"},
        {LLAMA, "{\"head_dim\":2048}", "head_dim"},
        {LLAMA, "{\"hidden_size\":8}", "must be even"},
        {LLAMA, "{\"hidden_size\":131072,\"num_attention_heads\":8,\"num_key_value_heads\":8}", "head dimension"},
        {LLAMA, "{\"intermediate_size\":0}", "intermediate_size"},
        {LLAMA, "{\"intermediate_size\":\"-\"}", "intermediate_size"},
        {LLAMA, "{\"vocab_size\":0}", "vocab_size"},
        {LLAMA, "{\"vocab_size\":4194305}", "vocab_size"},
        {LLAMA, "{\"max_position_embeddings\":0}", "max_position_embeddings"},
        {LLAMA, "{\"max_position_embeddings\":-5}", "max_position_embeddings"},
        {LLAMA, "{\"rms_norm_eps\":-1e-5}", "rms_norm_eps"},
        {LLAMA, "{\"rms_norm_eps\":\"NaN\"}", "rms_norm_eps must be a number"},
        {LLAMA, "{\"rope_theta\":0}", "rope_theta must be greater than 0"},
        {LLAMA, "{\"rope_theta\":-10000.0}", "rope_theta"},
        {LLAMA, "{\"rope_theta\":\"inf\"}", "rope_theta"},
        {LLAMA, "{\"rope_theta\":1e300}", "rope_theta"},
        {LLAMA, "{\"rope_scaling\":\"linear\"}", "rope_scaling must be an object"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}",
         "the rope type \"longrope\" is not supported; supported are default, linear"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"mrope\",\"type\":\"default\"}}", "\"mrope\""},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\"}}", "factor is missing"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "factor must be greater than 0"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":1e-300}}", "factor must be at least 1e-06"},
        {LLAMA, "{\"rope_theta\":1e-300}", "rope_theta must be at least 1e-06"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":\"2\"}}", "factor must be a number"},
        {LLAMA, "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":0.5}}", "factor must be at least 1"},
        {LLAMA, "{\"head_dim\":2,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", "dynamic needs"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"high_freq_factor\":4}}",
         "low_freq_factor is missing"},
        {LLAMA,
         "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"high_freq_factor\":4,\"low_freq_factor\":4}}",
         "high_freq_factor (4) must be greater"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"attention_factor\":-1}}", "attention_factor"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_embeddings\":0}}",
         "original_max"},
        {LLAMA, "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4,\"truncate\":1}}", "truncate"},
        {LLAMA, "{\"rope_theta\":1,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}",
         "rope_theta (1) must be greater than 1"},
        {LLAMA, "{\"torch_dtype\":\"float64\"}", "dtype float64"},
        {LLAMA, "{\"dtype\":\"float8_e4m3fn\"}", "dtype float8_e4m3fn"},
        {LLAMA, "{\"tie_word_embeddings\":\"yes\"}", "tie_word_embeddings"},
        {LLAMA, "{\"eos_token_id\":\"</s>\"}", "eos_token_id"},
        {LLAMA, "{\"eos_token_id\":[1,null]}", "eos_token_id"},
        {QWEN2, "{\"use_sliding_window\":true,\"sliding_window\":0}", "sliding_window"},
        {QWEN2, "{\"use_sliding_window\":true,\"sliding_window\":8,\"layer_types\":[\"full_attention\"]}",
         "each of the 4 layers"},
        {QWEN2,
         "{\"use_sliding_window\":true,\"sliding_window\":8,\"layer_types\":[\"full_attention\",\"chunked_attention\","
         "\"full_attention\",\"full_attention\"]}",
         "layer_types[1] is chunked_attention"},
        {QWEN2, "{\"layer_types\":[\"full_attention\",\"sliding_attention\",\"full_attention\",\"full_attention\"]}",
         "no sliding window is on"},
        {MISTRAL, "{\"sliding_window\":-1}", "sliding_window"},
        {MOE, "{\"num_experts\":4,\"num_experts_per_tok\":5}", "num_experts_per_tok (5) is more than num_experts (4)"},
        {MOE, "{\"num_experts\":-1}", "num_experts"},
        {MOE, "{\"decoder_sparse_step\":0}", "decoder_sparse_step"},
        {MOE, "{\"moe_intermediate_size\":0}", "moe_intermediate_size"},
        {MOE, "{\"mlp_only_layers\":[\"a\"]}", "mlp_only_layers"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c;
        struct err e = {0};
        if (!parse(&c, bad[i].arch, bad[i].type, bad[i].patch, NULL, &e)) fail_msg("accepted %s", bad[i].patch);
        if (!strstr(e.text, bad[i].says))
            fail_msg("%s is refused with '%s', not with '%s'", bad[i].patch, e.text, bad[i].says);
        assert_int_equal(e.kind, ERR_INPUT);
    }
}

static void refuses_what_is_no_object(void **state) {
    (void)state;
    static const char *const texts[] = {"",
                                        "[]",
                                        "null",
                                        "7",
                                        "\"x\"",
                                        "{",
                                        "{\"a\":NaN}",
                                        "{\"a\":Infinity}",
                                        "{\"a\":1e999}",
                                        "{\"a\":99999999999999999999}",
                                        "{} {}",
                                        "\xef\xbb\xbf{}",
                                        "{\"a\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct config c;
        struct err e = {0};
        assert_int_equal(config_parse(&c, texts[i], strlen(texts[i]), NULL, 0, &e), -1);
        assert_non_null(strstr(e.text, "config.json"));
        e.text[0] = 0;
        assert_int_equal(config_parse(&c, base, strlen(base), texts[i], strlen(texts[i]), &e), -1);
        assert_non_null(strstr(e.text, "generation_config.json"));
    }
    char deep[100000];
    memset(deep, '[', sizeof deep);
    struct config c;
    assert_int_equal(config_parse(&c, deep, sizeof deep, NULL, 0, NULL), -1);
}

static void refuses_bad_generation_settings(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {{"{\"temperature\":-1}", "temperature"},
               {"{\"temperature\":\"hot\"}", "temperature"},
               {"{\"top_p\":1.5}", "top_p"},
               {"{\"min_p\":-0.5}", "min_p"},
               {"{\"top_k\":0.5}", "top_k"},
               {"{\"repetition_penalty\":0}", "repetition_penalty"},
               {"{\"max_new_tokens\":0}", "max_new_tokens"},
               {"{\"do_sample\":\"no\"}", "do_sample"},
               {"{\"eos_token_id\":{}}", "eos_token_id"},
               {"{\"eos_token_id\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,"
                "31,32]}",
                "more than 32"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c;
        struct err e = {0};
        assert_int_equal(config_parse(&c, base, strlen(base), bad[i].text, strlen(bad[i].text), &e), -1);
        assert_non_null(strstr(e.text, "generation_config.json"));
        assert_non_null(strstr(e.text, bad[i].says));
    }
}

static void defaults_are_the_architectures(void **state) {
    (void)state;
    struct config c =
        good(LLAMA, "{\"num_key_value_heads\":\"-\",\"rms_norm_eps\":\"-\",\"max_position_embeddings\":\"-\"}", NULL);
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 8);
    assert_int_equal(c.max_position, 2048);
    assert_true(fabsf(c.rms_eps - 1e-6f) < 1e-12f);
    assert_true(c.rope.theta == 10000 && c.rope.kind == ROPE_DEFAULT);
    assert_int_equal(c.dtype, DT_BF16);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 2);
    assert_false(c.tied || c.qkv_bias || c.o_bias || c.mlp_bias || c.qk_norm);
    assert_true(c.gen.temperature < 0 && c.gen.top_p < 0 && c.gen.top_k < 0);
    config_release(&c);
    c = good(QWEN3, "{\"num_attention_heads\":32,\"num_key_value_heads\":\"-\"}", NULL);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.n_kv_heads, 32);
    assert_int_equal(c.n_eos, 0);
    assert_int_equal(c.bos, -1);
    assert_true(c.qk_norm);
    config_release(&c);
    c = good(QWEN2, "{\"num_key_value_heads\":null,\"hidden_act\":\"-\",\"attention_bias\":true}", NULL);
    assert_int_equal(c.n_kv_heads, 8);
    assert_true(c.qkv_bias && !c.o_bias);
    config_release(&c);
    c = good(LLAMA, "{\"architectures\":null}", NULL);
    assert_string_equal(c.arch->name, "LlamaForCausalLM");
    config_release(&c);
    c = good(LLAMA,
             "{\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,\"torch_dtype\":\"float16\","
             "\"dtype\":\"float32\"}",
             NULL);
    assert_true(c.qkv_bias && c.o_bias && c.mlp_bias && c.tied);
    assert_int_equal(c.dtype, DT_F32);
    config_release(&c);
}

static void windows_are(const char *arch, const char *type, const char *patch, int32_t a, int32_t b, int32_t c3,
                        int32_t d) {
    struct config c = good(arch, type, patch, NULL);
    const int32_t want[4] = {a, b, c3, d};
    for (int i = 0; i < 4; i++)
        if (c.window[i] != want[i])
            fail_msg("%s %s: layer %d has the window %d, not %d", arch ? arch : "Llama", patch, i, c.window[i],
                     want[i]);
    config_release(&c);
}

static void sliding_windows(void **state) {
    (void)state;
    windows_are(LLAMA, "{\"sliding_window\":5}", 0, 0, 0, 0);
    windows_are(MISTRAL, "{\"sliding_window\":5}", 5, 5, 5, 5);
    windows_are(MISTRAL, "{\"sliding_window\":null}", 0, 0, 0, 0);
    windows_are(MISTRAL, "{}", 4096, 4096, 4096, 4096);
    windows_are(QWEN2, "{\"sliding_window\":5,\"max_window_layers\":0}", 0, 0, 0, 0);
    windows_are(QWEN2, "{\"use_sliding_window\":true,\"sliding_window\":5,\"max_window_layers\":3}", 0, 0, 0, 5);
    windows_are(QWEN3, "{\"use_sliding_window\":true,\"sliding_window\":5,\"max_window_layers\":0}", 5, 5, 5, 5);
    windows_are(QWEN3, "{\"use_sliding_window\":true,\"sliding_window\":5}", 0, 0, 0, 0);
    windows_are(QWEN3, "{\"use_sliding_window\":true,\"sliding_window\":null,\"max_window_layers\":0}", 0, 0, 0, 0);
    windows_are(QWEN2, "{\"use_sliding_window\":true,\"max_window_layers\":2}", 0, 0, 4096, 4096);
    windows_are(QWEN3,
                "{\"use_sliding_window\":true,\"sliding_window\":9,\"max_window_layers\":0,\"layer_types\":[\"sliding_"
                "attention\","
                "\"full_attention\",\"sliding_attention\",\"full_attention\"]}",
                9, 0, 9, 0);
    windows_are(MOE, "{\"use_sliding_window\":true,\"sliding_window\":7,\"max_window_layers\":3}", 7, 7, 7, 7);
    windows_are(MOE, "{\"sliding_window\":7}", 0, 0, 0, 0);
}

static void experts(void **state) {
    (void)state;
    struct config c =
        good(MOE,
             "{\"num_experts\":6,\"num_experts_per_tok\":2,\"moe_intermediate_size\":16,\"decoder_sparse_step\":2,"
             "\"mlp_only_layers\":[3,77,-1],\"norm_topk_prob\":true}",
             NULL);
    assert_int_equal(c.n_experts, 6);
    assert_int_equal(c.experts_per_token, 2);
    assert_int_equal(c.moe_ffn, 16);
    assert_true(c.norm_topk);
    assert_true(!c.layer_moe[0] && c.layer_moe[1] && !c.layer_moe[2] && !c.layer_moe[3]);
    config_release(&c);
    c = good(MOE, "{\"num_local_experts\":64}", NULL);
    assert_int_equal(c.n_experts, 64);
    assert_true(c.layer_moe[0] && !c.norm_topk);
    config_release(&c);
    c = good(MOE, "{\"num_experts\":0}", NULL);
    assert_false(c.layer_moe[0]);
    config_release(&c);
}

static void rope_spellings_and_lengths(void **state) {
    (void)state;
    struct config c = good(LLAMA, "{\"rope_theta\":5.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}", NULL);
    assert_true(c.rope.kind == ROPE_LINEAR && c.rope.theta == 5 && c.rope.factor == 2.5);
    assert_int_equal(c.max_position, 5120);
    config_release(&c);
    c = good(LLAMA, "{\"rope_theta\":5.0,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7}}", NULL);
    assert_true(c.rope.kind == ROPE_DEFAULT && c.rope.theta == 7);
    config_release(&c);
    /* the older name wins when it says anything, and rope_type wins over type */
    c = good(LLAMA,
             "{\"rope_scaling\":{\"rope_type\":\"dynamic\",\"type\":\"linear\",\"factor\":3},\"rope_parameters\":{"
             "\"rope_type\":\"default\"}}",
             NULL);
    assert_int_equal(c.rope.kind, ROPE_DYNAMIC);
    assert_int_equal(c.rope.original_max, 2048);
    assert_int_equal(c.max_position, 6144);
    config_release(&c);
    c = good(LLAMA,
             "{\"rope_scaling\":{},\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":4,\"original_max_position_"
             "embeddings\":512}}",
             NULL);
    assert_int_equal(c.rope.kind, ROPE_YARN);
    assert_int_equal(c.max_position, 2048);
    assert_true(c.rope.truncate && c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    config_release(&c);
    c = good(LLAMA,
             "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":null,\"original_max_position_embeddings\":512}}",
             NULL);
    assert_true(c.rope.factor == 4);
    config_release(&c);
    c = good(LLAMA,
             "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
             "\"original_max_position_embeddings\":256}}",
             NULL);
    assert_int_equal(c.max_position, 2048);
    assert_int_equal(c.rope.original_max, 256);
    config_release(&c);
}

static void end_tokens_and_sampling(void **state) {
    (void)state;
    struct config c = good(LLAMA, "{\"eos_token_id\":[5,6,-1,100]}", NULL);
    assert_int_equal(c.n_eos, 2);
    assert_int_equal(c.eos[1], 6);
    config_release(&c);
    c = good(LLAMA, "{\"eos_token_id\":5,\"bos_token_id\":null}",
             "{\"eos_token_id\":[7,8,9],\"temperature\":0.6,\"top_p\":0.9,\"top_k\":20,\"repetition_penalty\":1.05,"
             "\"do_sample\":true,"
             "\"max_new_tokens\":64,\"min_p\":0.1}");
    assert_int_equal(c.n_eos, 3);
    assert_int_equal(c.eos[0], 7);
    assert_true(c.gen.temperature == 0.6f && c.gen.top_p == 0.9f && c.gen.min_p == 0.1f &&
                c.gen.repetition_penalty == 1.05f);
    assert_int_equal(c.gen.top_k, 20);
    assert_int_equal(c.gen.max_new_tokens, 64);
    config_release(&c);
    c = good(LLAMA, "{\"eos_token_id\":null}", "{\"do_sample\":false,\"temperature\":0.6}");
    assert_int_equal(c.n_eos, 0);
    assert_true(c.gen.temperature == 0);
    config_release(&c);
}

/* Inverse frequencies of transformers for many settings: fixtures/rope.json. Its powf may differ in the last bit. */
static void rope_agrees_with_the_reference(void **state) {
    (void)state;
    char *text;
    size_t n, i;
    struct err e = {0};
    if (file_read("tests/model/fixtures/rope.json", 1 << 20, &text, &n, &e)) fail_msg("%s", e.text);
    json_t *all = json_loadb(text, n, 0, NULL), *one;
    assert_true(json_array_size(all) > 10);
    json_array_foreach(all, i, one) {
        struct config c;
        struct rope r;
        char *config = json_dumps(json_object_get(one, "config"), 0);
        if (config_parse(&c, config, strlen(config), NULL, 0, &e)) fail_msg("case %zu: %s", i, e.text);
        rope_init(&r, &c);
        const json_t *want = json_object_get(one, "inv_freq");
        double seq_len = json_number_value(json_object_get(one, "seq_len"));
        assert_int_equal(r.dim, 2 * json_array_size(want));
        float scale = (float)json_number_value(json_object_get(one, "scale"));
        if (fabsf(r.scale - scale) > 1e-7f * scale) fail_msg("case %zu: scale %g, not %g", i, r.scale, scale);
        for (size_t k = 0; k < json_array_size(want); k++) {
            float w = (float)json_number_value(json_array_get(want, k)), got = r.inv_freq[k];
            if (seq_len > 0) { /* the device's formula, from what rope_init gives it */
                float base_of = r.dynamic_theta *
                                powf(r.dynamic_factor * (float)seq_len / (float)r.dynamic_max - (r.dynamic_factor - 1),
                                     (float)r.dim / (float)(r.dim - 2));
                got = 1.0f / powf(base_of, (float)(2 * k) / (float)r.dim);
            }
            if (fabsf(got - w) > (seq_len > 0 ? 4e-6f : 3e-7f) * w)
                fail_msg("case %zu, pair %zu: %.9g, not %.9g", i, k, got, w);
        }
        rope_release(&r);
        config_release(&c);
        free(config);
    }
    json_decref(all);
    free(text);
}

static void known_shapes_are_read(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int32_t layers, hidden, heads, kv, ffn;
        bool tied;
    } shapes[] = {{"Qwen/Qwen3-0.6B", 28, 1024, 16, 8, 3072, true},
                  {"Qwen/Qwen3-1.7B", 28, 2048, 16, 8, 6144, true},
                  {"Qwen/Qwen3-4B", 36, 2560, 32, 8, 9728, true},
                  {"Qwen/Qwen3-8B", 36, 4096, 32, 8, 12288, false},
                  {"Qwen/Qwen3-14B", 40, 5120, 40, 8, 17408, false},
                  {"Qwen/Qwen3-32B", 64, 5120, 64, 8, 25600, false},
                  {"Qwen/Qwen3-30B-A3B", 48, 2048, 32, 4, 6144, false},
                  {"meta-llama/Llama-3.1-8B", 32, 4096, 32, 8, 14336, false},
                  {"meta-llama/Llama-3.1-8B-Instruct", 32, 4096, 32, 8, 14336, false},
                  {"meta-llama/Llama-3.1-70B", 80, 8192, 64, 8, 28672, false},
                  {"meta-llama/Llama-3.1-70B-Instruct", 80, 8192, 64, 8, 28672, false},
                  {"meta-llama/Llama-3.1-405B", 126, 16384, 128, 8, 53248, false},
                  {"meta-llama/Llama-3.1-405B-Instruct", 126, 16384, 128, 8, 53248, false}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct config c;
        struct err e = {0};
        char *dir = path_join("models", shapes[i].name);
        if (config_open(&c, dir, &e)) fail_msg("%s", e.text);
        assert_int_equal(c.n_layers, shapes[i].layers);
        assert_int_equal(c.hidden, shapes[i].hidden);
        assert_int_equal(c.n_heads, shapes[i].heads);
        assert_int_equal(c.n_kv_heads, shapes[i].kv);
        assert_int_equal(c.ffn, shapes[i].ffn);
        assert_int_equal(c.head_dim, 128);
        assert_int_equal(c.tied, shapes[i].tied);
        assert_int_equal(c.vocab, c.arch->qk_norm ? 151936 : 128256);
        assert_int_equal(c.dtype, DT_BF16);
        config_release(&c);
        free(dir);
    }
}

static void files_that_are_not_there(void **state) {
    (void)state;
    struct config c;
    struct err e = {0};
    assert_int_equal(config_open(&c, "/nonexistent", &e), -1);
    assert_non_null(strstr(e.text, "/nonexistent/config.json"));
    char *dir = model_dir_make();
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_int_equal(config_open(&c, dir, &e), -1);
    assert_non_null(strstr(e.text, "not a regular file"));
    rmdir(path);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(config_open(&c, dir, &e), -1);
    assert_non_null(strstr(e.text, "not a regular file"));
    unlink(path);
    model_file_write(dir, "config.json", base, strlen(base));
    model_file_write(dir, "generation_config.json", "[]", 2);
    assert_int_equal(config_open(&c, dir, &e), -1);
    assert_non_null(strstr(e.text, "generation_config.json"));
    model_dir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_each_with_its_name),
        cmocka_unit_test(refuses_what_is_no_object),
        cmocka_unit_test(refuses_bad_generation_settings),
        cmocka_unit_test(defaults_are_the_architectures),
        cmocka_unit_test(sliding_windows),
        cmocka_unit_test(experts),
        cmocka_unit_test(rope_spellings_and_lengths),
        cmocka_unit_test(end_tokens_and_sampling),
        cmocka_unit_test(rope_agrees_with_the_reference),
        cmocka_unit_test(known_shapes_are_read),
        cmocka_unit_test(files_that_are_not_there),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
