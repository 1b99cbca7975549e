#!/usr/bin/env python3
"""Trains the built-in model on one GPU in a few minutes and writes a Hugging Face folder.

    train.py --out DIR --exclude tests/model/questions.jsonl [--texts FILE.txt ...] [--minutes 30]

Needs PyTorch and the `tokenizers` package. Everything is seeded (the data exactly; a GPU's sums vary in the last bits).
The loss counts answers fully and questions a little; public-domain texts given with --texts teach some English first.
"""
import argparse
import json
import math
import multiprocessing
import os
import random
import struct
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Tokenizer

import data
import facts
import tokenizer as tok

HERE = os.path.dirname(os.path.abspath(__file__))
CONTEXT = 1024
SHAPE = dict(vocab=2560, hidden=256, heads=8, head_dim=32, ffn=704, layers=6)
EPS, THETA = 1e-6, 10000.0

# ---- the model: Qwen3, written out; names as in the checkpoint ----


class RMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS)
        return (self.weight * y).to(x.dtype)


def rope(n, dim, device):
    freq = 1.0 / THETA ** (torch.arange(0, dim, 2, device=device).float() / dim)
    angle = torch.outer(torch.arange(n, device=device).float(), freq)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


def attend(q, k, v, drop):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
    w = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    w = w.masked_fill(torch.ones(w.shape[-2:], dtype=torch.bool, device=w.device).triu(1), float("-inf"))
    return w.softmax(-1) @ v


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        e = s["heads"] * s["head_dim"]
        self.heads, self.head_dim = s["heads"], s["head_dim"]
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(s["hidden"], e, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(e, s["hidden"], bias=False)
        self.q_norm, self.k_norm = RMSNorm(s["head_dim"]), RMSNorm(s["head_dim"])

    def forward(self, x, cos, sin, drop):
        split = lambda y: y.view(*x.shape[:2], self.heads, self.head_dim)
        q = rotate(self.q_norm(split(self.q_proj(x))).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(split(self.k_proj(x))).transpose(1, 2), cos, sin)
        y = attend(q, k, split(self.v_proj(x)).transpose(1, 2), drop)
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class MLP(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(s["hidden"], s["ffn"], bias=False) for _ in range(2))
        self.down_proj = nn.Linear(s["ffn"], s["hidden"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s, drop):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(s["hidden"]), RMSNorm(s["hidden"])
        self.self_attn, self.mlp = Attention(s), MLP(s)
        self.drop = drop

    def forward(self, x, cos, sin):
        p = self.drop if self.training else 0.0
        x = x + F.dropout(self.self_attn(self.input_layernorm(x), cos, sin, p), p)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), p)


class Body(nn.Module):
    def __init__(self, s, drop):
        super().__init__()
        self.embed_tokens = nn.Embedding(s["vocab"], s["hidden"])
        self.layers = nn.ModuleList(Layer(s, drop) for _ in range(s["layers"]))
        self.norm = RMSNorm(s["hidden"])


class Model(nn.Module):
    def __init__(self, s, drop=0.1):
        super().__init__()
        self.model = Body(s, drop)
        self.head_dim, self.drop = s["head_dim"], drop
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 / math.sqrt(2 * s["layers"]) if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
                nn.init.normal_(p, std=scale)

    def forward(self, ids):
        cos, sin = rope(ids.shape[1], self.head_dim, ids.device)
        x = self.model.embed_tokens(ids)
        x = F.dropout(x, self.drop if self.training else 0.0)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)


# ---- data ----

QUESTION_LOSS = 0.1  # weight of question tokens in the loss


def encode_chat(plain, dropped, turns, system, r):
    """ids and loss weights of one conversation; `dropped` splits words at random (BPE dropout), in some questions."""
    start, end = plain.token_to_id("<|im_start|>"), plain.token_to_id("<|im_end|>")
    newline = plain.encode("\n").ids
    ids, weight = [], []

    def add(part, w):
        ids.extend(part)
        weight.extend([w] * len(part))

    def message(role, text, w, t):
        add([start], 0.0)
        add(plain.encode(role + "\n").ids, 0.0)
        add(t.encode(text).ids, w)
        add([end], w)
        add(newline, 0.0)

    if system:
        message("system", system, QUESTION_LOSS, plain)
    for question, answer in turns:
        message("user", question, QUESTION_LOSS, dropped if r.random() < 0.25 else plain)
        message("assistant", answer, 1.0, plain)
    return ids, weight


def with_dropout(path, p):
    t = json.load(open(path, encoding="utf-8"))
    t["model"]["dropout"] = p
    return Tokenizer.from_str(json.dumps(t))


def shard(job):
    """(ids [n, length], weights, lengths fit) for one worker: rows of exactly `length` tokens, padded with <|endoftext|>."""
    seed, rows, length, turns, options, exclude, path = job
    r = random.Random(seed)
    maker = data.Maker(facts.read_table(options), exclude)
    plain, dropped = Tokenizer.from_file(path), with_dropout(path, 0.12)
    pad = plain.token_to_id("<|endoftext|>")
    ids = np.full((rows, length), pad, np.int16)
    weights = np.zeros((rows, length), np.float16)
    n = 0
    while n < rows:
        system = maker.system(r) if r.random() < 0.12 else None
        if turns == 1:
            q, a, _ = maker.pair(r)
            chat = [(q, a)]
        else:
            chat = maker.chat(r, r.randint(2, turns))
        i, w = encode_chat(plain, dropped, chat, system, r)
        if turns == 1 and len(i) > length:
            continue
        i, w = i[:length], w[:length]
        ids[n, :len(i)], weights[n, :len(w)] = i, w
        n += 1
    return ids, weights


def text_rows(paths, tokenizer, keep, length):
    """Public-domain texts as rows of tokens; lines that share wording with the test questions are left out."""
    parts = []
    for path in paths:
        lines = [line for line in open(path, encoding="utf-8").read().split("\n") if not keep.hit(line)]
        parts.append(np.array(tokenizer.encode("\n".join(lines)).ids, np.int16))
    flat = np.concatenate(parts)
    return flat[:len(flat) // length * length].reshape(-1, length)


# ---- training ----


def loss_of(model, ids, weight, smoothing):
    logits = model(ids[:, :-1]).float()
    each = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none", label_smoothing=smoothing)
    w = weight[:, 1:].reshape(-1)
    return (each * w).sum() / w.sum()


@torch.no_grad()
def generate(model, tokenizer, questions, device, limit=90):
    """Greedy answers, all at once, without a KV cache: slow but obvious."""
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    rows = [tokenizer.encode(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n").ids for q in questions]
    at = torch.tensor([len(x) for x in rows], device=device)
    ids = torch.full((len(rows), max(len(x) for x in rows) + limit), pad, device=device)
    for i, row in enumerate(rows):
        ids[i, :len(row)] = torch.tensor(row, device=device)
    done = torch.zeros(len(rows), dtype=torch.bool, device=device)
    every = torch.arange(len(rows), device=device)
    for _ in range(limit):
        width = int(at.max())
        next_id = model(ids[:, :width])[every, at - 1].argmax(-1)
        ids[every, at] = torch.where(done, pad, next_id)
        done |= (next_id == end) | (next_id == pad)
        at = torch.where(done, at, at + 1)
        if bool(done.all()):
            break
    out = []
    for i, row in enumerate(rows):
        answer = ids[i, len(row):].tolist()
        cut = next((j for j, x in enumerate(answer) if x in (end, pad)), len(answer))
        out.append(tokenizer.decode(answer[:cut]))
    return out


def right(answer, expect):
    return any(e.lower() in answer.lower() for e in expect)


def read_questions(path):
    items = [json.loads(line) for line in open(path, encoding="utf-8")]
    return [x.get("question") or x["q"] for x in items], [x.get("expect") or x["a"] for x in items]


def score(model, tokenizer, path, device):
    questions, expect = read_questions(path)
    model.eval()
    got = generate(model, tokenizer, questions, device)
    model.train()
    good = [right(a, e) for a, e in zip(got, expect)]
    return sum(good), len(good), [(q, e, a) for q, e, a, ok in zip(questions, expect, got, good) if not ok]


def write_safetensors(path, tensors):
    """bf16, in order of name."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        t = tensors[name].detach().to("cpu", torch.bfloat16).contiguous()
        blob = t.view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_folder(folder, tensors, s):
    end, pad = s["vocab"] - 1, s["vocab"] - 3
    config = {"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": None,
              "eos_token_id": [end, pad], "pad_token_id": pad, "head_dim": s["head_dim"], "hidden_act": "silu", "hidden_size": s["hidden"],
              "initializer_range": 0.02, "intermediate_size": s["ffn"], "max_position_embeddings": CONTEXT,
              "max_window_layers": s["layers"], "model_type": "qwen3", "num_attention_heads": s["heads"],
              "num_hidden_layers": s["layers"], "num_key_value_heads": s["heads"], "rms_norm_eps": EPS, "rope_scaling": None,
              "rope_theta": THETA, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
              "use_cache": True, "use_sliding_window": False, "vocab_size": s["vocab"]}
    generation = {"do_sample": False, "eos_token_id": [end, pad], "pad_token_id": pad, "max_new_tokens": 128}
    for name, value in (("config.json", config), ("generation_config.json", generation)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)


class Pool:
    """Rows on the GPU, given out in random order."""

    def __init__(self, parts, device, seed):
        self.ids = torch.from_numpy(np.concatenate([p[0] for p in parts])).to(device)
        self.weights = torch.from_numpy(np.concatenate([p[1] for p in parts])).to(device)
        self.random = torch.Generator(device=device)
        self.random.manual_seed(seed)

    def batch(self, n):
        at = torch.randint(len(self.ids), (n,), device=self.ids.device, generator=self.random)
        return self.ids[at].long(), self.weights[at].float()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--options", default=os.path.join(HERE, "options.json"))
    p.add_argument("--exclude", action="append", default=[])
    p.add_argument("--texts", nargs="*", default=[])
    p.add_argument("--steps", type=int, default=6200)
    p.add_argument("--minutes", type=float, default=30, help="the schedule is shortened to end by then")
    p.add_argument("--batch", type=int, default=192)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--drop", type=float, default=0.15)
    p.add_argument("--smoothing", type=float, default=0.05)
    p.add_argument("--decay", type=float, default=0.1)
    p.add_argument("--rows", type=int, default=1200000, help="single-turn conversations made")
    p.add_argument("--workers", type=int, default=7, help="processes that make data; the data depends on their number")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--ffn", type=int, default=704)
    p.add_argument("--layers", type=int, default=6)
    a = p.parse_args()
    began = time.time()
    s = dict(SHAPE, hidden=a.hidden, ffn=a.ffn, layers=a.layers)
    torch.manual_seed(a.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    say = lambda *x: print(f"[{time.time() - began:6.1f}]", *x, flush=True)
    keep = data.Filter(a.exclude)

    path = os.path.join(a.out, "tokenizer.json")
    if not os.path.exists(path):
        maker = data.Maker(facts.read_table(a.options), a.exclude)
        r = random.Random(a.seed)
        corpus = [x for q, ans, _ in (maker.pair(r) for _ in range(120000)) for x in (q, ans)]
        for name in a.texts:
            corpus += [x for x in open(name, encoding="utf-8").read().split("\n")[::4] if not keep.hit(x)]
        tok.train(corpus, s["vocab"], a.out, CONTEXT)
        say("tokenizer trained")
    tokenizer = Tokenizer.from_file(path)

    job = lambda seed, rows, length, turns: (seed, rows, length, turns, a.options, a.exclude, path)
    n = a.rows // a.workers
    jobs = [job(1000 + i, n, 72, 1) for i in range(a.workers)] + [job(4000 + i, n // 5, 104, 1) for i in range(a.workers)]
    jobs += [job(2000 + i, max(n // 20, 8), 384, 4) for i in range(a.workers)] + [job(3000 + i, max(n // 160, 4), CONTEXT, 14) for i in range(a.workers)]
    with multiprocessing.get_context("spawn").Pool(a.workers) as workers:
        parts = workers.map(shard, jobs, chunksize=1)
    w = a.workers
    pools = [(Pool(parts[:w], device, 1), a.batch), (Pool(parts[w:2 * w], device, 2), a.batch * 2 // 3),
             (Pool(parts[2 * w:3 * w], device, 3), a.batch // 4), (Pool(parts[3 * w:], device, 4), max(a.batch // 12, 2))]
    say("rows", [len(x.ids) for x, _ in pools])
    if a.texts:
        texts = text_rows(a.texts, tokenizer, keep, 256)
        text_pool = Pool([(texts, np.ones(texts.shape, np.float16))], device, 5)
        say("text rows", len(texts))

    model = Model(s, a.drop).to(device)
    say("parameters", sum(x.numel() for x in model.parameters()))
    matrices = [x for x in model.parameters() if x.dim() == 2]
    rest = [x for x in model.parameters() if x.dim() != 2]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": a.decay}, {"params": rest, "weight_decay": 0.0}], lr=a.lr,
                            betas=(0.9, 0.98), **({"fused": True} if device == "cuda" else {}))
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    budget, done, step = a.minutes * 60, 0.0, 0
    while done < 1.0:
        # the schedule follows whichever runs out first: steps or time
        warm = min(1.0, (step + 1) / 300)
        done = max(step / a.steps, (time.time() - began) / budget)
        lr = a.lr * warm * max(0.02, min(1.0, (1.0 - done) / 0.6))
        for g in opt.param_groups:
            g["lr"] = lr
        if a.texts and done < 0.7 and step % 6 == 5:
            ids, weight = text_pool.batch(a.batch // 2)
        else:
            pool, size = pools[3 if step % 20 == 13 else 2 if step % 10 == 7 else 1 if step % 6 == 2 else 0]
            ids, weight = pool.batch(size)
        with torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(model, ids, weight, a.smoothing)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        rate = 0.999 if step > 1000 else 0.9
        if step % 4 == 0:
            with torch.no_grad():
                mine = model.state_dict()
                torch._foreach_lerp_([average[k] for k in average], [mine[k] for k in average], 4 * (1 - rate)) \
                    if hasattr(torch, "_foreach_lerp_") else [average[k].lerp_(mine[k], 4 * (1 - rate)) for k in average]
        if step % 1000 == 0 or (step < 1000 and step % 200 == 0):
            good, total, _ = score(model, tokenizer, os.path.join(HERE, "dev.jsonl"), device)
            say(f"step {step} loss {loss.item():.4f} lr {lr:.2e} dev {good}/{total}")
        step += 1
    mine = {k: v.clone() for k, v in model.state_dict().items()}
    best = None
    for name, weights in (("last", mine), ("average", average)):
        model.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in weights.items()})
        good, total, wrong = score(model, tokenizer, os.path.join(HERE, "dev.jsonl"), device)
        say(f"{name}: dev {good}/{total}")
        if best is None or good >= best[0]:
            best = (good, weights, wrong)
    write_folder(a.out, best[1], s)
    model.load_state_dict({k: v.to(torch.bfloat16).float() for k, v in best[1].items()})
    for q, e, answer in best[2]:
        say(f"WRONG {q!r} wants {e[0]!r}: {answer!r}")
    for path in a.exclude:  # only the score: nobody who writes training text may see these questions or the answers
        good, total, _ = score(model, tokenizer, path, device)
        say(f"{os.path.basename(path)}: {good}/{total}")
    say(f"steps {step}")


if __name__ == "__main__":
    main()
