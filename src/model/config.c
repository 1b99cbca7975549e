/* config.c: config.json and generation_config.json to a struct config. Runs once at start, in the main thread.
 *
 * Refuses what it cannot compute exactly: unknown architectures and rope types, quantized weights, other
 * activations, partial rotation, soft caps, scaled residuals; and every size that is not sane by itself or with its
 * neighbours. Fields that do not touch the forward pass are ignored. */
#include "model/config.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "model/fields.h"
#include "model/rope_fields.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFIG_BYTES_MAX = 16 << 20,
    LAYERS_MAX = 1000,
    HIDDEN_MAX = 1 << 17,
    FFN_MAX = 1 << 20,
    HEADS_MAX = 1 << 12,
    HEAD_DIM_MAX = 1 << 10,
    VOCAB_MAX = 1 << 22,
    EXPERTS_MAX = 1 << 12,
    POSITION_MAX = 1 << 28
};

/* ---- architecture ---- */

static const struct arch *arch_of(struct fields *f) {
    const json_t *list = fields_array(f, "architectures");
    const char *type = fields_string(f, "model_type", NULL);
    if (f->bad) return NULL;
    const struct arch *a = NULL;
    const char *first = NULL;
    for (size_t i = 0; i < json_array_size(list) && !a; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) {
            fields_complain(f, "architectures must be an array of strings");
            return NULL;
        }
        if (!first) first = name;
        a = arch_find(name);
    }
    if (!a && !first && type) a = arch_find_type(type);
    if (!a) {
        fields_complain(f, "the architecture %.100s is not supported; supported are %s",
                        first  ? first
                        : type ? type
                               : "is missing and so",
                        arch_names());
        return NULL;
    }
    if (type && strcmp(type, a->model_type)) {
        fields_complain(f, "architectures says %s, whose model_type is %s, but model_type says %.100s", a->name,
                        a->model_type, type);
        return NULL;
    }
    return a;
}

/* ---- settings that would change the computation ---- */

/* Fields of other models that alter the forward pass: present and on means that we would compute something else. */
static void refuse_unknown_computation(struct fields *f) {
    static const char *const names[] = {"attn_logit_softcapping",
                                        "final_logit_softcapping",
                                        "attention_multiplier",
                                        "residual_multiplier",
                                        "embedding_multiplier",
                                        "logits_scaling",
                                        "logit_scale",
                                        "query_pre_attn_scalar",
                                        "scale_emb",
                                        "scale_depth",
                                        "dim_model_base",
                                        "attention_chunk_size",
                                        "no_rope_layers",
                                        "use_qk_norm",
                                        "qk_layernorm",
                                        "clip_qkv",
                                        "use_mrope",
                                        "alibi",
                                        "n_shared_experts",
                                        "shared_expert_intermediate_size",
                                        "kv_lora_rank",
                                        "q_lora_rank",
                                        "parallel_residual",
                                        "use_parallel_residual",
                                        "cross_attention_layers",
                                        "num_nextn_predict_layers"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = fields_get(f, names[i]);
        char found[96];
        bool off = !v || json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0) ||
                   (json_is_array(v) && json_array_size(v) == 0);
        if (!off)
            fields_complain(f, "%s (%s) changes the computation in a way that is not implemented", names[i],
                            fields_show(v, found));
    }
}

static void refuse_quantized(struct fields *f) {
    static const char *const names[] = {"quantization_config", "compression_config", "quantization"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const json_t *v = fields_get(f, names[i]);
        if (!v) continue;
        const char *method = json_string_value(json_object_get(v, "quant_method"));
        fields_complain(f,
                        "%s: weights quantized by the method %.60s are not supported; use a checkpoint in float32, "
                        "float16 or bfloat16",
                        names[i], method ? method : "(unnamed)");
    }
}

static void read_activation(struct fields *f) {
    const char *act = fields_string(f, "hidden_act", "silu");
    if (strcmp(act, "silu") && strcmp(act, "swish"))
        fields_complain(f, "the activation hidden_act \"%.60s\" is not supported; supported is silu", act);
}

/* ---- sizes ---- */

static void read_sizes(struct config *c, struct fields *f) {
    c->n_layers = fields_int_required(f, "num_hidden_layers", 1, LAYERS_MAX);
    c->hidden = fields_int_required(f, "hidden_size", 1, HIDDEN_MAX);
    c->n_heads = fields_int_required(f, "num_attention_heads", 1, HEADS_MAX);
    c->ffn = fields_int_required(f, "intermediate_size", 1, FFN_MAX);
    c->vocab = fields_int_required(f, "vocab_size", 1, VOCAB_MAX);
    c->max_position = fields_int(f, "max_position_embeddings", c->arch->max_position, 1, POSITION_MAX);
    /* The classes read null as "as many as heads" and a missing field as their own default. */
    bool kv_null = f->obj && json_is_null(json_object_get(f->obj, "num_key_value_heads"));
    int32_t kv_default = kv_null || !c->arch->kv_heads ? c->n_heads : c->arch->kv_heads;
    c->n_kv_heads = fields_int(f, "num_key_value_heads", kv_default, 1, HEADS_MAX);
    if (!f->bad && c->n_heads % c->n_kv_heads)
        fields_complain(f, "num_attention_heads (%d) must be a multiple of num_key_value_heads (%d)", c->n_heads,
                        c->n_kv_heads);
    c->head_dim = fields_get(f, "head_dim") ? fields_int_required(f, "head_dim", 1, HEAD_DIM_MAX) : c->arch->head_dim;
    if (!f->bad && !c->head_dim) {
        if (c->hidden % c->n_heads)
            fields_complain(
                f, "hidden_size (%d) must be a multiple of num_attention_heads (%d) where head_dim is not given",
                c->hidden, c->n_heads);
        c->head_dim = c->hidden / c->n_heads;
    }
    if (!f->bad && (c->head_dim % 2 || c->head_dim < 2 || c->head_dim > HEAD_DIM_MAX))
        fields_complain(f, "the head dimension must be even and from 2 to %d for rotary embeddings, found %d",
                        HEAD_DIM_MAX, c->head_dim);
    c->rms_eps = (float)fields_number(f, "rms_norm_eps", 1e-6, 0, 1);
}

static void read_flags(struct config *c, struct fields *f) {
    const struct arch *a = c->arch;
    /* false is the default of every class in the table */
    c->tied = fields_bool(f, "tie_word_embeddings", false);
    bool attention_bias = fields_bool(f, "attention_bias", false), mlp_bias = fields_bool(f, "mlp_bias", false);
    /* Qwen2 has q, k, v biases and no o bias whatever this field says. */
    if (attention_bias && !a->attention_bias && !a->qkv_bias)
        fields_complain(f, "attention_bias is true, and %s has no attention biases", a->name);
    if (mlp_bias && !a->mlp_bias) fields_complain(f, "mlp_bias is true, and %s has no such biases", a->name);
    c->o_bias = attention_bias && a->attention_bias;
    c->qkv_bias = a->qkv_bias || c->o_bias;
    c->mlp_bias = mlp_bias;
    c->qk_norm = a->qk_norm;
}

static void read_dtype(struct config *c, struct fields *f) {
    const char *name = fields_string(f, "dtype", NULL);
    if (!name) name = fields_string(f, "torch_dtype", "bfloat16");
    if (!strcmp(name, "float32"))
        c->dtype = DT_F32;
    else if (!strcmp(name, "float16"))
        c->dtype = DT_F16;
    else if (!strcmp(name, "bfloat16") || !strcmp(name, "auto"))
        c->dtype = DT_BF16;
    else
        fields_complain(f, "the dtype %.60s is not supported; supported are float32, float16 and bfloat16", name);
}

/* ---- sliding window ---- */

static void window_by_types(struct config *c, struct fields *f, const json_t *types, int32_t window) {
    if (json_array_size(types) != (size_t)c->n_layers) {
        fields_complain(f, "layer_types must name each of the %d layers, found %zu names", c->n_layers,
                        json_array_size(types));
        return;
    }
    for (int32_t i = 0; i < c->n_layers && !f->bad; i++) {
        const char *t = json_string_value(json_array_get(types, (size_t)i));
        if (t && !strcmp(t, "full_attention")) continue;
        if (!t || strcmp(t, "sliding_attention"))
            fields_complain(f, "layer_types[%d] is %.60s; supported are full_attention and sliding_attention", i,
                            t ? t : "not a string");
        else if (!window)
            fields_complain(f,
                            "layer_types[%d] is sliding_attention, but no sliding window is on (use_sliding_window, "
                            "sliding_window)",
                            i);
        else
            c->window[i] = window;
    }
}

static void read_window(struct config *c, struct fields *f) {
    const enum window_rule rule = c->arch->window;
    if (rule == WINDOW_NEVER) return;
    bool null = f->obj && json_is_null(json_object_get(f->obj, "sliding_window"));
    int32_t window = fields_int(f, "sliding_window", null ? 0 : 4096, 1, POSITION_MAX);
    if (rule != WINDOW_PRESENCE && !fields_bool(f, "use_sliding_window", false)) window = 0;
    if (f->bad) return;
    if (rule == WINDOW_FLAG_LAYERS) {
        const json_t *types = fields_array(f, "layer_types");
        int32_t from = fields_int(f, "max_window_layers", 28, INT32_MIN, INT32_MAX);
        if (types)
            window_by_types(c, f, types, window);
        else
            for (int32_t i = from < 0 ? 0 : from; i < c->n_layers; i++) c->window[i] = window;
        return;
    }
    for (int32_t i = 0; i < c->n_layers; i++) c->window[i] = window;
}

/* ---- experts ---- */

static void read_experts(struct config *c, struct fields *f) {
    if (!c->arch->moe) {
        if (fields_get(f, "num_experts") || fields_get(f, "num_local_experts"))
            fields_complain(f, "num_experts is given, and %s has no experts", c->arch->name);
        return;
    }
    const char *key = fields_get(f, "num_local_experts") ? "num_local_experts" : "num_experts";
    int32_t step = fields_int(f, "decoder_sparse_step", 1, 1, INT32_MAX);
    c->n_experts = fields_int(f, key, 128, 0, EXPERTS_MAX);
    c->experts_per_token = fields_int(f, "num_experts_per_tok", 8, 1, EXPERTS_MAX);
    c->moe_ffn = fields_int(f, "moe_intermediate_size", 768, 1, FFN_MAX);
    c->norm_topk = fields_bool(f, "norm_topk_prob", false);
    if (!f->bad && c->n_experts && c->experts_per_token > c->n_experts)
        fields_complain(f, "num_experts_per_tok (%d) is more than %s (%d)", c->experts_per_token, key, c->n_experts);
    if (f->bad) return;
    for (int32_t i = 0; i < c->n_layers; i++) c->layer_moe[i] = c->n_experts > 0 && (i + 1) % step == 0;
    const json_t *dense = fields_array(f, "mlp_only_layers");
    for (size_t k = 0; k < json_array_size(dense); k++) {
        const json_t *v = json_array_get(dense, k);
        if (!json_is_integer(v)) fields_complain(f, "mlp_only_layers must be an array of layer numbers");
        json_int_t i = json_integer_value(v);
        if (i >= 0 && i < c->n_layers) c->layer_moe[i] = false; /* numbers of no layer mean nothing */
    }
}

/* ---- token ids and sampling defaults ---- */

/* Ids outside the vocabulary can never be sampled and are left out (some files say -1 for "none"). */
static void add_eos(struct config *c, struct fields *f, const json_t *v) {
    if (!json_is_integer(v)) {
        fields_complain(f, "eos_token_id must be an integer or an array of integers");
        return;
    }
    json_int_t id = json_integer_value(v);
    if (id < 0 || id >= c->vocab) return;
    if (c->n_eos == CONFIG_EOS_MAX)
        fields_complain(f, "eos_token_id has more than %d ids", CONFIG_EOS_MAX);
    else
        c->eos[c->n_eos++] = (int32_t)id;
}

/* True when the field is there. */
static bool read_eos(struct config *c, struct fields *f) {
    const json_t *v = fields_get(f, "eos_token_id");
    if (!v) return false;
    if (!json_is_array(v))
        add_eos(c, f, v);
    else
        for (size_t i = 0; i < json_array_size(v) && !f->bad; i++) add_eos(c, f, json_array_get(v, i));
    return true;
}

static void read_ids(struct config *c, struct fields *f, struct fields *g) {
    const json_t *bos = fields_get(f, "bos_token_id");
    /* a list of bos ids (never seen in these architectures) has no single meaning: treated as none */
    c->bos = !bos ? c->arch->bos
             : json_is_integer(bos) && json_integer_value(bos) >= 0 && json_integer_value(bos) < c->vocab
                 ? (int32_t)json_integer_value(bos)
                 : -1;
    if (c->bos >= c->vocab) c->bos = -1;
    if (read_eos(c, g) || read_eos(c, f)) return;
    bool null = f->obj && json_is_null(json_object_get(f->obj, "eos_token_id"));
    if (!null && c->arch->eos >= 0 && c->arch->eos < c->vocab) c->eos[c->n_eos++] = c->arch->eos;
}

static void read_generation(struct config *c, struct fields *g) {
    c->gen.temperature = (float)fields_number(g, "temperature", -1, 0, FLT_MAX);
    c->gen.top_p = (float)fields_number(g, "top_p", -1, 0, 1);
    c->gen.min_p = (float)fields_number(g, "min_p", -1, 0, 1);
    c->gen.repetition_penalty = (float)fields_number(g, "repetition_penalty", -1, FLT_MIN, FLT_MAX);
    c->gen.top_k = fields_int(g, "top_k", -1, -1, INT32_MAX);
    c->gen.max_new_tokens = fields_int(g, "max_new_tokens", -1, 1, INT32_MAX);
    if (!fields_bool(g, "do_sample", true)) c->gen.temperature = 0;
}

/* ---- the whole ---- */

static void read_config(struct config *c, struct fields *f, struct fields *g) {
    c->arch = arch_of(f);
    if (!c->arch) return;
    refuse_quantized(f);
    refuse_unknown_computation(f);
    read_activation(f);
    read_sizes(c, f);
    if (f->bad) return;
    c->window = mem_zalloc((size_t)c->n_layers, sizeof *c->window);
    c->layer_moe = mem_zalloc((size_t)c->n_layers, sizeof *c->layer_moe);
    read_flags(c, f);
    read_dtype(c, f);
    read_window(c, f);
    read_experts(c, f);
    rope_fields_read(&c->rope, f, c->head_dim, &c->max_position);
    read_ids(c, f, g);
    read_generation(c, g);
}

int config_parse(struct config *c, const char *json, size_t n, const char *generation, size_t n_generation,
                 struct err *e) {
    json_t *root = NULL, *gen = NULL;
    int rc = -1;
    struct err own;
    if (!e) e = &own;
    *c = (struct config){.bos = -1};
    if (fields_parse(&root, json, n, "config.json", e)) goto out;
    if (generation && fields_parse(&gen, generation, n_generation, "generation_config.json", e)) goto out;
    struct fields f = {.obj = root, .where = "config.json", .e = e};
    struct fields g = {.obj = gen, .where = "generation_config.json", .e = e};
    read_config(c, &f, &g);
    if (!f.bad && !g.bad) rc = 0;
out:
    json_decref(gen);
    json_decref(root);
    if (rc) config_release(c);
    return rc;
}

int config_open(struct config *c, const char *dir, struct err *e) {
    char *path = path_join(dir, "config.json"), *gen_path = path_join(dir, "generation_config.json");
    char *text = NULL, *gen = NULL;
    size_t n = 0, n_gen = 0;
    int rc = -1;
    *c = (struct config){.bos = -1};
    if (file_read(path, CONFIG_BYTES_MAX, &text, &n, e)) goto out;
    if (file_given(gen_path) && file_read(gen_path, CONFIG_BYTES_MAX, &gen, &n_gen, e)) goto out;
    rc = config_parse(c, text, n, gen, n_gen, e);
    if (rc) err_prefix(e, "%s: ", dir);
out:
    free(gen);
    free(text);
    free(gen_path);
    free(path);
    return rc;
}

void config_release(struct config *c) {
    free(c->window);
    free(c->layer_moe);
    *c = (struct config){.bos = -1};
}
