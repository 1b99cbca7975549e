/* arch.c: the architectures as rows of data. Constant; any thread. What a row cannot say, we do not run.
 * The defaults are those of the configuration classes in transformers, which apply when config.json leaves a field out.
 */
#include "model/config.h"

#include <string.h>

static const struct arch archs[] = {
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .attention_bias = true,
     .mlp_bias = true,
     .max_position = 2048,
     .bos = 1,
     .eos = 2},
    {.name = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .qkv_bias = true,
     .window = WINDOW_FLAG_LAYERS,
     .kv_heads = 32,
     .max_position = 32768,
     .bos = -1,
     .eos = -1},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .qk_norm = true,
     .attention_bias = true,
     .window = WINDOW_FLAG_LAYERS,
     .head_dim = 128,
     .kv_heads = 32,
     .max_position = 32768,
     .bos = -1,
     .eos = -1},
    {.name = "Qwen3MoeForCausalLM",
     .model_type = "qwen3_moe",
     .qk_norm = true,
     .attention_bias = true,
     .moe = true,
     .window = WINDOW_FLAG_ALL,
     .kv_heads = 4,
     .max_position = 32768,
     .bos = -1,
     .eos = -1},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .window = WINDOW_PRESENCE,
     .kv_heads = 8,
     .max_position = 131072,
     .bos = 1,
     .eos = 2},
};

const struct arch *arch_find(const char *name) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].name, name)) return &archs[i];
    return NULL;
}

const struct arch *arch_find_type(const char *model_type) {
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].model_type, model_type)) return &archs[i];
    return NULL;
}

const char *arch_names(void) {
    return "LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM, MistralForCausalLM";
}
