#!/usr/bin/env python3
"""The least time that a GPU needs for what the benchmarks ask: no measurement, an upper bound of tokens a second.

    bench/roofline.py [--model models/Qwen/Qwen3-0.6B] [--bytes 4.3e12] [--flops 790e12] [--attention-flops 500e12]

The offline mix: 256 requests with prompts and answers of 100 to 1,024 tokens, Python's random with seed 0 (as in Mini-SGLang's benchmark/offline). All prompts
first, in chunks of 16,384; then steps of all that run. Each product takes the longer of its bytes (bf16 weights, read once a step) and its operations; decodes' attention
the bytes of their keys and values. Nothing else costs anything. Dense models only. --bytes and --flops: what a copy and a large matrix product reach
(H200 4.3e12 and 790e12, H100 3.0e12 and 798e12)."""
import argparse
import json
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Shape:
    def __init__(self, folder):
        c = json.loads((ROOT / folder / "config.json").read_text())
        head = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        self.layers, self.heads, self.kv = c["num_hidden_layers"], c["num_attention_heads"] * head, c["num_key_value_heads"] * head
        E, F = c["hidden_size"], c["intermediate_size"]
        self.products = [(E, self.heads + 2 * self.kv), (self.heads, E), (E, 2 * F), (F, E)]
        self.lm_head = (E, c["vocab_size"])
        self.weights = 2 * (self.layers * sum(k * n for k, n in self.products) + E * c["vocab_size"])
        self.kv_token = self.layers * 2 * self.kv * 2  # bytes


class Gpu:
    def __init__(self, bytes_s, flops, attention_flops=500e12):
        self.bytes_s, self.flops, self.attention_flops = bytes_s, flops, attention_flops

    def product(self, rows, k, n):
        return max(2 * k * n / self.bytes_s, 2 * rows * k * n / self.flops)


def products(shape, gpu, rows, logits_rows):
    return shape.layers * sum(gpu.product(rows, k, n) for k, n in shape.products) + gpu.product(logits_rows, *shape.lm_head)


def decode_step(shape, gpu, context):
    """Seconds of a step of one token for each of these context lengths."""
    tokens = sum(context)
    attention = max(tokens * shape.kv_token / gpu.bytes_s, 4 * shape.heads * tokens * shape.layers / gpu.attention_flops)
    return products(shape, gpu, len(context), len(context)) + attention


def mix(seed=0):
    """The requests' (prompt ids, answer lengths)."""
    r = random.Random(seed)
    prompts = [[r.randint(0, 10000) for _ in range(r.randint(100, 1024))] for _ in range(256)]
    return prompts, [r.randint(100, 1024) for _ in range(256)]


def prefill(shape, gpu, lengths, budget=16384):
    seconds, waiting = 0.0, [[n, 0] for n in lengths]
    while waiting:
        room, tokens, done, pairs = budget, 0, 0, 0.0
        while waiting and room:
            n, at = waiting[0]
            take = min(room, n - at)
            pairs += ((at + take) ** 2 - at ** 2) / 2
            room, tokens, waiting[0][1] = room - take, tokens + take, at + take
            if at + take == n:
                waiting.pop(0)
                done += 1
        seconds += products(shape, gpu, tokens, max(done, 1)) + 4 * shape.heads * pairs * shape.layers / gpu.attention_flops
    return seconds


def offline(shape, gpu):
    """Tokens a second of the offline mix."""
    prompts, answers = mix()
    seconds, left, context = prefill(shape, gpu, [len(p) for p in prompts]), [n - 1 for n in answers], [len(p) + 1 for p in prompts]
    while any(left):
        live = [i for i, n in enumerate(left) if n]
        seconds += decode_step(shape, gpu, [context[i] for i in live])
        for i in live:
            left[i], context[i] = left[i] - 1, context[i] + 1
    return sum(answers) / seconds


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="models/Qwen/Qwen3-0.6B")
    p.add_argument("--bytes", type=float, default=4.3e12)
    p.add_argument("--flops", type=float, default=790e12)
    p.add_argument("--attention-flops", type=float, default=500e12)
    a = p.parse_args()
    shape, gpu = Shape(a.model), Gpu(a.bytes, a.flops, a.attention_flops)
    print(f"{a.model}: {shape.weights / 1e9:.2f} GB of weights a step, {shape.kv_token} bytes of KV cache a token")
    print(f"offline mix                       {offline(shape, gpu):9.0f} tok/s")
    for n, context in ((1, 384), (1, 8192), (64, 1100), (256, 700)):
        step = decode_step(shape, gpu, [context] * n)
        print(f"{n:3d} streams, context {context:5d}         {n / step:9.0f} tok/s   a step {step * 1e6:7.0f} us")


if __name__ == "__main__":
    main()
