"""Right: operators, logits, texts on every route, ranks, random steps, ranks that go wrong, the sanitizer."""
import json
import os
import pathlib
import re
import time

from tools import ROOT, Failure, Skip, check, equal, ids, need, which


def questions():
    with open(ROOT / "tests/model/questions.jsonl", encoding="utf-8") as f:
        return [{"messages": [{"role": "user", "content": json.loads(line)["question"]}], "temperature": 0, "max_tokens": 96} for line in f]


@check("operators against the oracle", quick=True)
def operators(ctx):
    cases = 0
    for options in ([], ["--attn", "fa"]) if ctx.device == "cuda" else ([],):
        r = ctx.run("selftest", "--device", ctx.device, *options, timeout=300)
        cases += sum(int(n) for n in re.findall(r"(\d+) cases", r.stdout))
        need("everything is within its bound" in r.stdout, r.stdout[-300:])
    return f"{cases} cases within their bounds" + (", decodes by fi and by fa" if ctx.device == "cuda" else "")


@check("exchanges of ranks, sharing this GPU", quick=True)
def exchanges(ctx):
    if ctx.device != "cuda":
        raise Skip("ranks on the CPU exchange in other ways: tests/unit/test_comm.c")
    cases = 0
    for ranks in (2, 4, 8):
        r = ctx.run("selftest", "--device", "cuda", "--gpu-comm", "p2p", "--devices", ",".join("0" * ranks), timeout=200)
        cases += sum(int(n) for n in re.findall(r"(\d+) cases", r.stdout))
        need("everything is within its bound" in r.stdout, f"{ranks} ranks: " + r.stdout[-300:])
    return f"p2p with 2, 4 and 8 ranks: {cases} cases; every number right, and a rank that does not come is named"


# ---- log-probabilities at every position ----

SHAPES = ("llama", "mistral", "qwen2", "qwen3", "qwen3moe")  # tests/gpu/configs


def models(ctx):
    """(name, folder, quick): small models of every architecture."""
    for name in SHAPES:
        yield name, ctx.fixture(name), True
        yield name + " float32", ctx.fixture(name, "float32"), name in ("llama", "qwen3moe")
    yield "qwen3 float16", ctx.fixture("qwen3", "float16"), False
    yield "built-in model", ROOT / "models/builtin", True
    data = pathlib.Path(os.environ.get("MINISGL_TEST_DATA") or ROOT / "../shared/data") / "stories260k"
    for name, folder in (("stories260k", data), ("stories260k bf16", data / "bf16")):
        if (folder / "config.json").exists():
            yield name, folder, name == "stories260k"
    for folder in sorted((ROOT / "tests/model/fixtures").iterdir()):
        if (folder / "config.json").exists():
            yield "fixture " + folder.name, folder, False


def compare_logits(ctx, folder, *options):
    """What minisgl selftest --model says: a line, and whether it holds."""
    r = ctx.run("selftest", "--device", ctx.device, "--model", folder, *options, timeout=300, code=None)
    rows = re.findall(r"^(token by token|chunks and single tokens) +(\d+) +(\S+) +(\S+) +(\S+) +(\S+) +(\S+) % +(\S+) % +(ok|FAILED)", r.stdout, re.M)
    if not rows:
        raise Failure((r.stderr or r.stdout).strip().splitlines()[-1][:300])
    column = re.search(r" (P9\S+) ", r.stdout.split("positions")[-1]).group(1)
    parts = [f"{'decodes' if row[0][0] == 't' else 'chunks'}: {column} {row[3]} largest {row[4]} same top {row[6]} % (near {row[7]})" for row in rows]
    return f"{rows[0][1]} positions, bound {rows[0][5]}: " + "; ".join(parts), r.returncode == 0 and all(row[8] == "ok" for row in rows)


def logits_of(ctx, wanted, options=(), note=""):
    bad, n = [], 0
    for name, folder, quick in models(ctx):
        if (quick or not ctx.quick) and wanted(name):
            line, ok = compare_logits(ctx, folder, *options)
            ctx.say(f"{name + note:32s} {'' if ok else 'FAILED '}{line}")
            n += 1
            bad += [] if ok else [name]
    need(not bad, f"over the bound: {', '.join(bad)}")
    return f"{n} models within their bounds"


@check("log-probabilities on 1 rank", quick=True)
def logits(ctx):
    return logits_of(ctx, lambda name: True)


@check("log-probabilities with attention fa and no graphs")
def logits_fa(ctx):
    return logits_of(ctx, lambda name: not name.startswith("fixture"), ["--attn", "fa", "--graph", "0"])


@check("log-probabilities on 2 ranks", quick=True)
def logits_two(ctx):
    return logits_of(ctx, lambda name: not name.startswith("fixture"), ctx.ranks(2))


@check("log-probabilities on 4 ranks")
def logits_four(ctx):
    return logits_of(ctx, lambda name: not name.startswith("fixture"), ctx.ranks(4))


def need_cudnn(ctx):
    """Skips where cuDNN is not to be had."""
    if ctx.device != "cuda":
        raise Skip("cuDNN is for GPUs")
    r = ctx.run("generate", "--model", ROOT / "models/builtin", "--device", "cuda", "--attn", "cudnn", "hi", code=None)
    if r.returncode and re.search(r"libcudnn\S* is not found|cuDNN is older", r.stderr):
        raise Skip(r.stderr.strip().splitlines()[-1][:150])
    need(r.returncode == 0, r.stderr[-300:])


@check("log-probabilities with prompts by cuDNN")
def logits_cudnn(ctx):
    need_cudnn(ctx)
    return logits_of(ctx, lambda name: name in SHAPES or name in ("qwen3 float16", "built-in model"), ["--attn", "cudnn", "--graph", "0"])


# ---- random requests for many steps ----

def random_steps(ctx, folder, steps, ranks, seed=1):
    start = time.monotonic()
    r = ctx.run("selftest", "--device", ctx.device, "--model", folder, "--steps", steps, "--seed", seed, *ctx.ranks(ranks), timeout=560, code=None)
    for line in r.stdout.splitlines():
        if "steps" in line or "against" in line:
            ctx.say(line[:330])
    need(r.returncode == 0, (r.stderr + r.stdout).strip().splitlines()[-1][:200])
    return f"{steps} steps in {time.monotonic() - start:.0f} s"


@check("300 random steps on 1 and 2 ranks", quick=True)
def steps_quick(ctx):
    random_steps(ctx, ROOT / "models/builtin", 300, 2)
    return random_steps(ctx, ctx.fixture("qwen3moe", "float32"), 300, 2)


def add_steps(ranks):
    @check(f"10000 random steps on {ranks} rank{'s' * (ranks > 1)}")
    def steps_long(ctx):
        return random_steps(ctx, ctx.fixture("llama", "float32"), 10000, ranks)


for degree in (1, 2, 4):
    add_steps(degree)


@check("3000 random steps of experts on 4 ranks")
def steps_experts(ctx):
    return random_steps(ctx, ctx.fixture("qwen3moe"), 3000, 4)


# ---- greedy texts of the built-in model ----

ROUTES = [  # name, options, quick
    ("default", [], True),
    ("one request at a time", ["--max-running-requests", "1"], False),
    ("chunks of 32, no overlap", ["--max-prefill-length", "32", "--overlap", "off"], True),
    ("no graphs", ["--graph", "0"], True),
    ("no graphs, no overlap", ["--graph", "0", "--overlap", "off"], False),
    ("attention fa", ["--attn", "fa"], True),
    ("attention fa,fi", ["--attn", "fa,fi"], False),
    ("40 pages: put back", ["--num-pages", "40"], True),
    ("40 pages, chunks of 16, fa", ["--num-pages", "40", "--max-prefill-length", "16", "--attn", "fa"], False),
    ("no prefix cache", ["--cache-type", "naive"], False),
    ("pages of 1", ["--page-size", "1"], False),
    ("2 ranks", 2, True),
    ("2 ranks, no graphs, chunks of 32", [2, "--graph", "0", "--max-prefill-length", "32"], False),
    ("4 ranks", 4, False),
]


CUDNN_ROUTES = [  # without graphs, whose steps are fa's
    ("cudnn", ["--attn", "cudnn", "--graph", "0"], True), ("cudnn,fa, chunks of 64", ["--attn", "cudnn,fa", "--graph", "0", "--max-prefill-length", "64"], True),
    ("cudnn on 2 ranks", [2, "--attn", "cudnn", "--graph", "0"], True), ("cudnn and graphs", ["--attn", "cudnn"], True)]


def texts_by(ctx, routes):
    asked, model = questions(), ROOT / "models/builtin"
    want, _ = ctx.generate(model, asked, device="cpu", timeout=300)
    different, worst = [], 0
    for name, options, quick in routes:
        if ctx.quick and not quick:
            continue
        if isinstance(options, int):
            options = [options]
        n = options[0] if options and isinstance(options[0], int) else 1
        got, log = ctx.generate(model, asked, *ctx.ranks(n), *(o for o in options if isinstance(o, str)))
        same = equal(want, got)
        back = re.search(r"(\d+) requests were put back", log)
        ctx.say(f"{name:34s} {same} of {len(asked)} equal" + (f", {back.group(1)} put back" if back else ""))
        if same < len(asked):
            first = [(i, next((j for j, (x, y) in enumerate(zip(a or [], b or [])) if x != y), -1))
                     for i, (a, b) in enumerate(zip(ids(want), ids(got))) if a != b]
            different.append(name)
            ctx.say(f"    first differences (request, token): {first[:8]}")
            worst = max(worst, len(asked) - same)
    need(worst <= len(asked) // 20, f"more than one text in 20 differs: {', '.join(different)}")
    return "all equal on every route" if not different else f"not all equal: {', '.join(different)}"


@check("greedy texts equal the CPU's", quick=True)
def texts(ctx):
    return texts_by(ctx, ROUTES)


@check("greedy texts with prompts by cuDNN")
def texts_cudnn(ctx):
    need_cudnn(ctx)
    return texts_by(ctx, CUDNN_ROUTES)


# ---- ranks that go wrong ----

FAULTS = [  # what, options, what is said, seconds; stall: behind the comparison of batches, so that on a GPU the others' kernels wait
    ("1:3:hang", [], "rank 1 did not come to step 3", 5), ("0:3:hang", [], "rank 0 did not come to step 3", 5),
    ("1:3:exit", [], "rank 1 ended in step 3", 1), ("0:2:exit", [], "rank 0 ended in step 2", 1),
    ("1:3:differ", [], "runs step 3 with a batch of checksum", 1), ("1:3:stall", [], "rank 1 did not", 6),
    ("1:3:stall", ["--overlap", "off"], "rank 1 did not come to", 6), ("0:4:stall", [], "rank 0 did not come to", 10)]


@check("a rank that goes wrong ends all", quick=True)
def faults(ctx):
    if not ctx.faults.exists():
        raise Skip(f"{ctx.faults} is not built (make build/minisgl-faults)")
    options = [*ctx.ranks(2), "--comm-timeout", "3"]
    start = time.monotonic()
    ctx.generate(ROOT / "models/builtin", questions()[:4], *options, program=ctx.faults)
    usual, slowest = time.monotonic() - start, 0
    for fault, more, says, most in FAULTS:
        start = time.monotonic()
        _, log = ctx.generate(ROOT / "models/builtin", questions()[:4], *options, *more, "--fault", fault, program=ctx.faults, timeout=60, code=1)
        seconds = time.monotonic() - start - usual
        slowest = max(slowest, seconds)
        said = " ".join(line for line in log.splitlines() if "ERROR" in line)
        ctx.say(f"{' '.join([fault, *more]):24s} {seconds:4.1f} s  {said[:150]}")
        need(says in said, f"--fault {fault}: expected '{says}', found: {said[:200]}")
        need(seconds < most + 2, f"--fault {fault}: ended {seconds:.1f} s after what a good run takes")
    return f"{len(FAULTS)} faults; the slowest end {slowest:.1f} s later than a good run (timeout 3 s)"


# ---- compute-sanitizer ----

VENDOR = re.compile(r"nvjet_|cublas|cutlass|splitKreduce|gemm|sm\d+_xmma|ncclDev|ncclKernel", re.I)


def findings(text, tool):
    """(errors of ours, kernels of NVIDIA's libraries that were named) in compute-sanitizer's output. A library's kernel that goes out of bounds was
    called wrongly: that is ours. Calls that NCCL tries and gives up on are its own."""
    ours, theirs = [], set()
    blocks = re.split(r"\n(?=========\s*$|========= (?:Error|Warning|Invalid|Uninitialized|Barrier|Program hit|Race|Potential))", text, flags=re.M)
    for block in blocks:
        if not re.search(r"========= (Error|Warning|Invalid|Uninitialized|Barrier error|Program hit|Race|Potential)", block):
            continue
        kernel = re.search(r"\bat (?:void )?([\w:<>~]+)[^\n]*\+0x", block)
        name = (kernel.group(1) if kernel else block.strip().splitlines()[0])[:120]
        caller = re.search(r"Host Frame:.*", block)
        tried = "Program hit" in block and caller and "libnccl.so" in caller.group(0)
        if tried or (tool != "memcheck" and VENDOR.search(name)):
            theirs.add(name)
        else:
            ours.append(name)
    return ours, theirs


def add_sanitizer(tool, args, what):
    """args: of selftest; "@NAME" is a fixture in float16 (the kernels of bfloat16, answers that part less), "@NAME:1" one of a single layer (racecheck is slow)."""
    @check(f"compute-sanitizer {tool} of {what}")
    def sanitizer(ctx):
        program = which("compute-sanitizer")
        if not program or ctx.device == "cpu":
            raise Skip("compute-sanitizer is not here")
        split = [a[1:].split(":") if a.startswith("@") else a for a in args]
        given = [a if isinstance(a, str) else ctx.fixture(a[0], "float16", int(a[1]) if a[1:] else None) for a in split]
        r = ctx.run("selftest", "--device", "cuda", *given, prefix=[program, "--tool", tool, "--print-limit", "20"], timeout=500, code=None)
        ours, theirs = findings(r.stdout + r.stderr, tool)
        need("ERROR SUMMARY" in r.stdout + r.stderr or "RACECHECK SUMMARY" in r.stdout + r.stderr, "no summary: " + (r.stdout + r.stderr)[-200:])
        summary = re.findall(r"=========.*SUMMARY.*", r.stdout + r.stderr)[-1]
        for kernel in sorted(theirs):
            ctx.say(f"of NVIDIA's library, left out: {kernel}")
        need(not ours, f"{len(ours)} findings, first in {ours[0] if ours else ''}; {summary}")
        need(r.returncode == 0, "selftest itself: " + r.stdout.strip().splitlines()[-1][:200])
        return summary.strip("= ")


STEPS = ["--model", "@llama", "--steps", "30"]  # and until all are answered
MOE = ["--model", "@qwen3moe", "--steps", "20"]
for a_tool in ("memcheck", "synccheck", "racecheck"):
    add_sanitizer(a_tool, [], "operators")
for a_tool in ("memcheck", "synccheck", "initcheck"):
    add_sanitizer(a_tool, STEPS, "random steps")
add_sanitizer("racecheck", ["--model", "@llama:1", "--steps", "3", "--graph", "0"], "random steps")
add_sanitizer("memcheck", MOE, "random steps of experts")
add_sanitizer("racecheck", ["--model", "@qwen3moe:1", "--steps", "3", "--graph", "0"], "random steps of experts")
add_sanitizer("memcheck", [*STEPS, "--tp", "2", "--devices", "0,0"], "random steps on 2 ranks")
