#!/usr/bin/env python3
"""Make the small reference models in tests/model/fixtures, with transformers and torch (not needed to run the tests).

    python3 tests/model/make_fixtures.py OUT_DIR

Each folder is a checkpoint with random weights for one architecture or one setting of it, and
    tokens.json         the input ids
    logits/             a checkpoint of one tensor, "logits", float32 [T, V]: transformers' answer at every position, float32, eager attention
fixtures/rope.json holds inverse frequencies and scale of many rotary settings, for rope_init.

The config.json files are written by hand below, in the spellings that published checkpoints use, and loaded back by
transformers: so the reference also decides how they are read. The rope type "dynamic" is run token by token with a
cache, where position p is rotated for a sequence of length p + 1, whatever the chunks.
"""
import json
import os
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
import transformers

BASE = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32"}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 16, "rope_theta": 1000000,
         "rms_norm_eps": 1e-6, "attention_bias": False}
MOE = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "head_dim": 16, "rms_norm_eps": 1e-6,
       "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1,
       "mlp_only_layers": [], "norm_topk_prob": True}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}

MODELS = {
    "llama": LLAMA,
    "llama-tied": {**LLAMA, "tie_word_embeddings": True, "num_key_value_heads": 1},
    "llama-mha-bias": {**LLAMA, "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    "llama-head-dim": {**LLAMA, "head_dim": 16},
    "llama-rope-llama3": {**LLAMA, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}},
    "llama-rope-linear": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.5}},
    "llama-rope-dynamic": {**LLAMA, "max_position_embeddings": 24, "rope_scaling": {"type": "dynamic", "factor": 4.0}},
    "llama-rope-yarn": {**LLAMA, "head_dim": 16, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                        "original_max_position_embeddings": 32}},
    "qwen2": QWEN2,
    "qwen2-window": {**QWEN2, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 12,
                     "max_window_layers": 1},
    "qwen2-window-off": {**QWEN2, "use_sliding_window": False, "sliding_window": 12, "max_window_layers": 0,
                         "tie_word_embeddings": True},
    "qwen2-layer-types": {**QWEN2, "num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 9,
                          "max_window_layers": 28,
                          "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "qwen3": QWEN3,
    "qwen3-yarn-mscale-bf16": {**QWEN3, "tie_word_embeddings": True, "attention_bias": True, "torch_dtype": "bfloat16",
                               "rope_theta": None,
                               "rope_parameters": {"rope_type": "yarn", "rope_theta": 500000.0, "factor": 8.0,
                                                   "original_max_position_embeddings": 16, "mscale": 0.7,
                                                   "mscale_all_dim": 0.3, "beta_fast": 8, "beta_slow": 2,
                                                   "truncate": False}},
    "qwen3-f16-shards": {**QWEN3, "torch_dtype": "float16"},
    "qwen3moe": MOE,
    "qwen3moe-raw-topk": {**MOE, "norm_topk_prob": False, "num_experts_per_tok": 3},
    "qwen3moe-sparse": {**MOE, "num_hidden_layers": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3],
                        "use_sliding_window": True, "sliding_window": 10, "torch_dtype": "bfloat16"},
    "mistral-window": {**MISTRAL, "sliding_window": 14},
    "mistral-full": {**MISTRAL, "sliding_window": None, "head_dim": 16},
}

# Settings whose numbers are compared without a model: config fields, and the length for which they are asked.
ROPES = [
    {},
    {"rope_theta": 1000000},
    {"head_dim": 128, "rope_theta": 500000.0},
    {"head_dim": 128, "rope_theta": 500000.0, "max_position_embeddings": 131072,
     "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
    {"head_dim": 64, "rope_theta": 500000.0, "max_position_embeddings": 131072,
     "rope_scaling": {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
    {"head_dim": 128, "rope_scaling": {"type": "linear", "factor": 4}},
    {"head_dim": 128, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 250000.0}},
    {"head_dim": 128, "max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"head_dim": 128, "max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "seq_len": 3000},
    {"head_dim": 128, "max_position_embeddings": 2048, "rope_scaling": {"type": "dynamic", "factor": 2.0}, "seq_len": 8191},
    {"head_dim": 128, "rope_theta": 1000000.0, "max_position_embeddings": 40960,
     "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    {"head_dim": 128, "rope_theta": 1000000.0, "max_position_embeddings": 131072,
     "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768,
                      "attention_factor": 0.75}},
    {"head_dim": 64, "max_position_embeddings": 65536,
     "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 4096, "mscale": 1.0,
                      "mscale_all_dim": 1.0}},
    {"head_dim": 64, "max_position_embeddings": 65536,
     "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "mscale": 0.707,
                      "mscale_all_dim": 0.3, "beta_fast": 16, "beta_slow": 2, "truncate": False}},
    {"head_dim": 128, "max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 2.0}},
    {"head_dim": 8, "max_position_embeddings": 256,
     "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}},
    {"head_dim": 128, "max_position_embeddings": 131072, "original_max_position_embeddings": 16384,
     "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 4096}},
]


def clean(config):
    return {k: v for k, v in config.items() if not (k == "rope_theta" and v is None)}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@torch.no_grad()
def randomise(model, generator):
    """Weights large enough that attention, experts and logits are far from flat."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            p.copy_(1 + 0.3 * noise)
        elif name.endswith("bias"):
            p.copy_(0.4 * noise)
        elif "embed" in name:
            p.copy_(noise)
        else:
            p.copy_(noise * (1.6 / p.shape[-1] ** 0.5))


@torch.no_grad()
def logits_of(model, ids, one_by_one):
    if not one_by_one:
        return model(torch.tensor([ids]), use_cache=False).logits[0]
    rows, cache = [], None
    for t in ids:
        out = model(torch.tensor([[t]]), past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0, -1])
    return torch.stack(rows)


def make_model(name, extra, out):
    config = clean({**BASE, **extra})
    folder = os.path.join(out, name)
    os.makedirs(folder)
    path = os.path.join(folder, "config.json")
    text = json.dumps(config, indent=1) + "\n"
    open(path, "w").write(text)
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager").float()
    randomise(model, generator)
    model = model.to(getattr(torch, config["torch_dtype"]))
    model.save_pretrained(folder, max_shard_size="40KB" if "shards" in name else "1GB")
    gen = os.path.join(folder, "generation_config.json")
    if os.path.exists(gen):
        os.remove(gen)
    open(path, "w").write(text)
    model = load(folder)
    ids = torch.randint(0, config["vocab_size"], (56,), generator=generator).tolist()
    logits = logits_of(model, ids, "dynamic" in name).float().contiguous()
    json.dump(ids, open(os.path.join(folder, "tokens.json"), "w"))
    os.makedirs(os.path.join(folder, "logits"))
    save_file({"logits": logits}, os.path.join(folder, "logits", "model.safetensors"))
    p = torch.softmax(logits, -1).max(-1).values
    print(f"{name}: logits std {logits.std():.2f}, mean top probability {p.mean():.2f}, files {sorted(os.listdir(folder))}")


def rope_case(extra):
    extra = dict(extra)
    seq_len = extra.pop("seq_len", None)
    folder = "/tmp/rope-case"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    config = {**BASE, **LLAMA, **extra}
    if "rope_parameters" in extra:
        del config["rope_theta"]
    json.dump(config, open(folder + "/config.json", "w"))
    read = AutoConfig.from_pretrained(folder)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    emb = LlamaRotaryEmbedding(read)
    inv, scale = emb.inv_freq, emb.attention_scaling
    if seq_len:
        inv, scale = ROPE_INIT_FUNCTIONS[emb.rope_type](read, device="cpu", seq_len=seq_len)
    return {"config": config, "seq_len": seq_len or 0, "inv_freq": [float(x) for x in inv], "scale": float(scale)}


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    print("transformers", transformers.__version__, "torch", torch.__version__)
    torch.set_num_threads(4)
    for name, extra in MODELS.items():
        make_model(name, extra, out)
    json.dump([rope_case(r) for r in ROPES], open(os.path.join(out, "rope.json"), "w"), indent=0)


main()
