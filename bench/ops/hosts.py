#!/usr/bin/env python3
"""What a second process costs: minisgl generate on the same cores as one process with two threads, as two ranks of one process,
and as two processes over loopback MPI. Qwen3-0.6B's shape with random weights; tokens/s of whole offline batches.

    bench/ops/hosts.py [--runs 3]

Each round runs the three in turn; the best of each counts. Needs mpirun and build/minisgl_mpi.so."""
import argparse
import json
import os
import re
import subprocess

ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
MODEL = ["generate", "--model", "Qwen/Qwen3-0.6B", "--dummy-weight", "--num-pages", "2000"]
WAYS = {"one process, two threads": ["build/minisgl", *MODEL, "--threads", "2"],
        "one process, two ranks": ["build/minisgl", *MODEL, "--tp", "2", "--threads", "2"],
        "two processes over MPI": ["mpirun", "--bind-to", "core", "-np", "2", "build/minisgl", *MODEL, "--tp", "2", "--threads", "1"]}


def batch(streams, n_in, n_out):
    ids = lambda s: [(s * 7919 + i * 31) % 50000 for i in range(n_in)]
    return "".join(json.dumps({"prompt_token_ids": ids(s), "max_tokens": n_out, "ignore_eos": True, "temperature": 0}) + "\n" for s in range(streams))


def rate(command, lines):
    r = subprocess.run(command, input=lines, env=ENV, capture_output=True, text=True, timeout=300)
    m = re.search(r"requests, (\d+) tokens generated in ([\d.]+) s", r.stderr)
    assert r.returncode == 0 and m, r.stderr
    return float(m.group(2))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--runs", type=int, default=3)
    runs = p.parse_args().runs
    for name, work, tokens in (("decode of 1 stream", batch(1, 8, 48), 48), ("decode of 8 streams", batch(8, 8, 24), 192),
                               ("prefill of 512", batch(1, 512, 1), 512)):
        best = {way: min(rate(command, work) for _ in range(1)) for way, command in WAYS.items()}
        for _ in range(runs - 1):
            for way, command in WAYS.items():
                best[way] = min(best[way], rate(command, work))
        first = best["one process, two threads"]
        for way, s in best.items():
            print(f"{name:20} {way:26} {tokens / s:8.1f} tok/s, {first / s:.3f} of one process")


if __name__ == "__main__":
    main()
