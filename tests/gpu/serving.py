"""Serving the shapes of real models with dummy weights, and checkpoints of their size from disk."""
import http.client
import json
import re
import shutil
import subprocess
import threading
import time

from tools import HERE, ROOT, Server, Skip, check, gpu_name, need, which


def chat(port, words=12, n_out=16):
    """One streamed chat: (text, pieces, usage, ms to the first)."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = {"messages": [{"role": "user", "content": "word " * words}], "max_tokens": n_out, "temperature": 0.7, "seed": 1, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}
    start, first, pieces, usage, done = time.monotonic(), None, 0, None, False
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    need(r.status == 200, f"status {r.status}: {r.read(300)!r}" if r.status != 200 else "")
    text = ""
    for line in r:
        line = line.decode().strip()
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done = True
            break
        event = json.loads(line[6:])
        need("error" not in event, f"an error in the stream: {line[:200]}")
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            if "content" in choice["delta"] and choice["delta"]["content"] is not None and "role" not in choice["delta"]:
                first = first or (time.monotonic() - start) * 1000
                pieces += 1
                text += choice["delta"]["content"]
    c.close()
    need(done, "the stream has no [DONE]")
    need(usage and usage["completion_tokens"] == n_out, f"expected {n_out} tokens, usage says {usage}")
    return text, pieces, usage, first


def first_token_ms(port, n_in=128):
    """From the request to the first token of a prompt of ids, over HTTP."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = {"prompt": [(i * 7919 + int(time.monotonic() * 1e6)) % 1000 for i in range(n_in)], "max_tokens": 2, "temperature": 0, "ignore_eos": True, "stream": True}
    start = time.monotonic()
    c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    for line in r:
        if line.startswith(b"data: {"):
            ms = (time.monotonic() - start) * 1000
            r.read()
            c.close()
            return ms
    c.close()
    need(False, "no token came")


def serve_one(ctx, model, *options, timeout=150):
    """Start, one streamed chat, drain. (server, first token of the chat in ms)"""
    s = Server(ctx, "--model", model, *options, timeout=timeout)
    try:
        _, _, _, first = chat(s.port)
    except BaseException:
        s.process.kill()
        raise
    code = s.stop()
    need(code == 0, f"exit code {code} after SIGTERM: {' '.join(s.log[-2:])[:200]}")
    need(any("Finishing what is running" in line for line in s.log) and "bye" in s.log[-1], "SIGTERM did not drain: " + s.log[-1])
    return s, first


def gpu_gb():
    name = gpu_name()
    return int(name.split(",")[1].split()[0]) / 1024 if name else 0


SHAPES = [("Qwen3-0.6B", 1.2, True), ("Qwen3-8B", 16.4, False), ("Qwen3-14B", 29.5, False), ("Qwen3-30B-A3B", 61, False), ("Qwen3-32B", 65.6, False)]


def add_shape(name, gb, quick):
    @check(f"serve {name} with dummy weights", quick=quick)
    def serve_shape(ctx):
        if ctx.device == "cuda" and gpu_gb() < gb + 6:
            raise Skip(f"needs {gb + 6:.0f} GB of GPU memory")
        if ctx.device == "cpu" and gb > 2:
            raise Skip("too large for a trial on the CPU")
        few = ["--max-prefill-length", "2048", "--max-running-requests", "64", "--memory-ratio", "0.97"] if gb > 40 else []
        s, first = serve_one(ctx, f"models/Qwen/{name}", "--dummy-weight", "--chat-template", HERE / "chat.jinja", *few)
        ctx.results[f"serve {name}"] = {"ready_s": s.seconds, "first_ms": first}
        return f"ready after {s.seconds:.2f} s, first token of a chat {first:.0f} ms, 16 tokens, drained, exit 0"


for shape in SHAPES:
    add_shape(*shape)


@check("a model that does not fit", quick=True)
def too_large(ctx):
    """Refused before it loads, with options that make it fit; the share of memory that it names is tried."""
    model = ["--model", ROOT / "models/Qwen" / ("Qwen3-8B" if ctx.device == "cuda" else "Qwen3-0.6B"), "--dummy-weight", "--device", ctx.device]
    start = time.monotonic()
    r = ctx.run("generate", *model, "--memory-ratio", "0.02", "--raw", "hi", code=2)
    seconds = time.monotonic() - start
    said = re.search(r"does not fit: .*? needs ([\d.]+) GB .*fit, each alone: (.*)", r.stderr)
    need(said, r.stderr[-300:])
    ratio = re.search(r"--memory-ratio ([\d.]+)$", said.group(2))
    need(ratio and seconds < 5, f"after {seconds:.1f} s: {said.group(2)[:200]}")
    ctx.say(said.group(0)[:300])
    body = json.dumps({"prompt": [1, 2, 3], "max_tokens": 2, "ignore_eos": True}) + "\n"
    ctx.run("generate", *model, "--memory-ratio", ratio.group(1), stdin=body, timeout=200)
    return f"refused after {seconds:.1f} s; with --memory-ratio {ratio.group(1)}, as it advises, it runs"


# ---- checkpoints from disk ----

BARS = {"Qwen3-0.6B": (2.5, 30), "Qwen3-14B": (8, None)}  # seconds to ready from warm files; ms to the first token of 128 (H100, H200)


def add_checkpoint(name, gb):
    @check(f"load {name} from its checkpoint")
    def load(ctx):
        if shutil.disk_usage(ctx.tmp).free < 1.1 * gb * 1e9:
            raise Skip(f"needs {1.1 * gb:.0f} GB of disk in {ctx.tmp}")
        if ctx.device == "cpu" and gb > 2:
            raise Skip("too large for a trial on the CPU")
        folder = ctx.tmp / name
        ctx.run("dummy", "--model", ROOT / "models/Qwen" / name, "--out", folder, timeout=400)
        shutil.copy(HERE / "chat.jinja", folder / "chat_template.jinja")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "models/builtin" / file, folder / file)
        try:
            return measure(ctx, name, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def measure(ctx, name, folder):
    ready, firsts = [], []
    for _ in range(3):
        s = Server(ctx, "--model", folder, "--chat-template", HERE / "chat.jinja")
        try:
            first_token_ms(s.port)
            firsts += [first_token_ms(s.port) for _ in range(5)]
        finally:
            code = s.stop()
        need(code == 0, f"exit code {code} after SIGTERM")
        ready.append(s.seconds)
    for line in s.log:
        if any(word in line for word in ("GB/s", "phases", "s after the start")):
            ctx.say(line.strip())
    first = sorted(firsts)[len(firsts) // 2]
    most, ms = BARS[name]
    ctx.results[f"load {name}"] = {"ready_s": ready, "first_ms": firsts}
    text = f"ready after {min(ready):.2f} to {max(ready):.2f} s (bar {most}), first token of 128: {first:.1f} ms" + (f" (bar {ms})" if ms else "")
    if ctx.device == "cuda" and any(card in gpu_name() for card in ("H100", "H200")):
        need(min(ready) <= most and (not ms or first <= ms), text)
    return text


for checkpoint in (("Qwen3-0.6B", 1.3), ("Qwen3-14B", 29.6)):
    add_checkpoint(*checkpoint)


# ---- a GPU that fails under a server ----

def trap_library(ctx):
    """trap.c, compiled; MINISGL_TRAP in its environment names the file that springs it."""
    cc, out = which("cc") or which("gcc"), ctx.tmp / "trap.so"
    if not cc:
        raise Skip("there is no C compiler here")
    subprocess.run([cc, "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "-pthread", HERE / "trap.c", "-o", out, "-ldl"], check=True)
    return out


def one_long_stream(port, ends):
    """A stream that the GPU will not finish: what came last, or how the connection broke."""
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = {"prompt": [5] * 20, "max_tokens": 4000, "temperature": 0.7, "ignore_eos": True, "stream": True}
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        ends.append(([line.decode() for line in c.getresponse() if line.startswith(b"data: ")] or [""])[-1].strip())
    except (OSError, http.client.HTTPException) as e:
        ends.append(type(e).__name__)


def break_gpu(ctx, *options):
    """A kernel traps while a stream runs: seconds until the process is gone, its error."""
    spring = ctx.tmp / f"spring-{len(options)}"
    spring.unlink(missing_ok=True)
    s = Server(ctx, "--model", ROOT / "models/Qwen/Qwen3-0.6B", "--dummy-weight", "--chat-template", HERE / "chat.jinja", *options,
               env={"LD_PRELOAD": str(trap_library(ctx)), "MINISGL_TRAP": str(spring)})
    ends = []
    try:
        chat(s.port)
        t = threading.Thread(target=one_long_stream, args=(s.port, ends))
        t.start()
        time.sleep(0.3)
        spring.touch()
        start = time.monotonic()
        code = s.process.wait(20)
        seconds = time.monotonic() - start
        t.join(20)
    finally:
        s.process.kill()
    time.sleep(0.2)
    error = " ".join(line.strip() for line in s.log if "ERROR" in line)
    need(any("trap: the kernel ended with" in line for line in s.log), "the trap was not sprung: " + " ".join(s.log[-2:])[:200])
    need(code == 1, f"exit code {code}; {error[:200]}")
    need(re.search(r"CUDA, rank \d on GPU \d, step \d+.*cudaError", error), "expected the operation, the rank and the step; found: " + error[:300])
    need(ends and "[DONE]" not in ends[0], f"the stream ended as if all were well: {ends}")
    ctx.say(f"{' '.join(map(str, options)) or '1 rank'}: {seconds:.2f} s; the stream's last: {ends[0][:80]}; {error[:420]}")
    return seconds


@check("a kernel that fails ends the server", quick=True)
def broken(ctx):
    if ctx.device != "cuda":
        raise Skip("on the CPU no kernel fails like that")
    slowest = max(break_gpu(ctx), break_gpu(ctx, *ctx.ranks(2), "--comm-timeout", "5"))
    need(slowest < 8, f"gone only after {slowest:.1f} s")
    return f"gone {slowest:.2f} s after the kernel trapped at the latest; the error names the operation, rank, step and GPU"
