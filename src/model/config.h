/* config.h: what a checkpoint folder says about its model, checked.
 *
 * Architectures are rows of data (arch.c); ONE decoder runs them all. A setting that changes the computation and
 * that we do not implement is refused by name; settings that do not touch the computation are ignored. */
#ifndef MINISGL_MODEL_CONFIG_H
#define MINISGL_MODEL_CONFIG_H
#include "base/err.h"
#include "dev/dev.h"

#include <stdbool.h>
#include <stdint.h>

enum { CONFIG_EOS_MAX = 32 };

/* How a config turns the sliding window on. */
enum window_rule {
    WINDOW_NEVER,       /* Llama: a sliding_window field means nothing */
    WINDOW_PRESENCE,    /* Mistral: all layers when sliding_window is a number; 4096 when the field is absent, off when
                           null */
    WINDOW_FLAG_LAYERS, /* Qwen2, Qwen3: use_sliding_window, and then layer_types, else the layers from
                           max_window_layers on */
    WINDOW_FLAG_ALL     /* Qwen3-MoE: use_sliding_window, then all layers */
};

/* What distinguishes one architecture from another. */
struct arch {
    const char *name; /* "Qwen3ForCausalLM", as in config.json's architectures */
    const char *model_type;
    bool qkv_bias;       /* q, k, v have biases whatever the config says (Qwen2) */
    bool attention_bias; /* the config's attention_bias (q, k, v, o) is obeyed */
    bool mlp_bias;       /* the config's mlp_bias is obeyed */
    bool qk_norm;        /* RMS norm on each q and k head (Qwen3) */
    bool moe;            /* has experts (Qwen3-MoE) */
    enum window_rule window;
    /* Defaults for fields that config.json leaves out. */
    int32_t head_dim;               /* 0: hidden / heads */
    int32_t kv_heads;               /* 0: as many as heads */
    int32_t max_position, bos, eos; /* ids: -1 for none */
};
const struct arch *arch_find(const char *name);            /* NULL when unknown */
const struct arch *arch_find_type(const char *model_type); /* NULL when unknown */
const char *arch_names(void);                              /* for messages: "LlamaForCausalLM, Qwen2ForCausalLM, ..." */

enum rope_kind { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };

struct rope_config {
    enum rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double attention_factor;                  /* yarn; < 0: from factor, mscale, mscale_all_dim */
    double beta_fast, beta_slow, mscale, mscale_all_dim;
    bool truncate;        /* yarn, default true */
    int32_t original_max; /* original_max_position_embeddings; dynamic: max_position_embeddings */
};

struct config {
    const struct arch *arch;
    int32_t n_layers, hidden, n_heads, n_kv_heads, head_dim, ffn, vocab;
    int32_t max_position; /* positions the model was made for (after the rope scaling, as transformers and vLLM derive
                             it) */
    float rms_eps;
    bool tied; /* lm_head is embed_tokens */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    int32_t *window; /* [n_layers]: sliding window per layer, 0 = full attention; owned by the config */
    int32_t n_experts, experts_per_token, moe_ffn; /* 0 for dense models */
    bool norm_topk;
    bool *layer_moe; /* [n_layers]: this layer has experts (decoder_sparse_step, mlp_only_layers) */
    struct rope_config rope;
    enum dtype dtype;                   /* of the checkpoint: torch_dtype / dtype; bf16 when absent */
    int32_t eos[CONFIG_EOS_MAX], n_eos; /* generation_config first, else config */
    int32_t bos;                        /* -1: none */
    struct { /* sampling defaults from generation_config; < 0: not given (do_sample false: temperature 0) */
        float temperature, top_p, min_p, repetition_penalty;
        int32_t top_k, max_new_tokens;
    } gen;
};

/* Read DIR/config.json and, when there, DIR/generation_config.json. On success config_release when done. */
int config_open(struct config *c, const char *dir, struct err *e);
/* The same from text (tests, fuzzing); generation may be NULL. */
int config_parse(struct config *c, const char *json, size_t n, const char *generation, size_t n_generation,
                 struct err *e);
void config_release(struct config *c);

/* Inverse frequencies and attention factor: fills r; r->inv_freq is allocated, config's rope_release frees it.
 * Source: transformers' modeling_rope_utils (default, linear, dynamic, llama3, yarn). */
void rope_init(struct rope *r, const struct config *c);
void rope_release(struct rope *r);

#endif
