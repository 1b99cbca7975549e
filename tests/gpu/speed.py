"""Fast: whole models with dummy weights and the kernels of one step, each with its share of what the card could do (bench/roofline.py)."""
import csv
import json
import random
import re
import sys

from tools import ROOT, Failure, Skip, check, gpu_name, tokens_per_second, which

sys.path.insert(0, str(ROOT / "bench"))
import roofline  # noqa: E402

# What a large copy and a large bf16 product reach on the card: bytes and operations a second.
CARDS = {"H100": (3.0e12, 798e12), "H200": (4.3e12, 790e12)}


def card():
    name = gpu_name() or ""
    for key, value in CARDS.items():
        if key in name:
            return key, roofline.Gpu(*value)
    raise Skip(f"no ceilings are known for {name or 'this machine'}; see CARDS in tests/gpu/speed.py")


def requests(n, n_in, n_out, vocab=10000):
    r = random.Random(n * 1000003 + n_in)
    return [{"prompt": [r.randrange(vocab) for _ in range(n_in)], "max_tokens": n_out, "temperature": 0, "ignore_eos": True} for _ in range(n)]


def offline_mix():
    prompts, answers = roofline.mix()
    return [{"prompt": p, "max_tokens": n, "temperature": 0.6, "ignore_eos": True} for p, n in zip(prompts, answers)]


def speed(ctx, model, asked, *options, times=2):
    """The best of a few runs, tokens a second."""
    return max(tokens_per_second(ctx.generate(ROOT / "models/Qwen" / model, asked, "--dummy-weight", "--cache-type", "naive", *options, timeout=200)[1])
               for _ in range(times))


def add_speed(model, times):
    @check(f"speed of {model}")
    def speeds(ctx):
        key, gpu = card()
        shape = roofline.Shape(f"models/Qwen/{model}")
        mix, limit = speed(ctx, model, offline_mix(), times=times), roofline.offline(shape, gpu)
        one = speed(ctx, model, requests(1, 128, 512), times=times)
        one_limit = 512 / (roofline.prefill(shape, gpu, [128]) + sum(roofline.decode_step(shape, gpu, [128 + i]) for i in range(1, 512)))
        many = speed(ctx, model, requests(64, 1024, 256), times=times)
        many_limit = 64 * 256 / (roofline.prefill(shape, gpu, [1024] * 64) + sum(roofline.decode_step(shape, gpu, [1024 + i] * 64) for i in range(1, 256)))
        for name, got, most in (("offline mix", mix, limit), ("one stream, 128 in, 512 out", one, one_limit), ("64 streams, 1,024 in, 256 out", many, many_limit)):
            ctx.say(f"| {key} | {model} | {name} | {got:,.0f} tok/s | {got / most:.2f} of {most:,.0f} |")
            ctx.results[f"{model}, {name}"] = {"tok_s": got, "limit": most}
        return f"offline mix {mix:,.0f} tok/s, {mix / limit:.2f} of the roofline; one stream {one:,.0f}, {one / one_limit:.2f}"


for a_model, runs in (("Qwen3-0.6B", 3), ("Qwen3-14B", 1)):
    add_speed(a_model, runs)


# ---- the kernels of one decode step ----

def steps_of(text):
    """ncu's rows, cut into steps at the kernel that begins one: lists of (name, us)."""
    steps, unit = [], {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3}
    for row in csv.DictReader(line for line in text.splitlines() if line.startswith('"')):
        name = re.sub(r"\(.*|void |minisgl::|<unnamed>::|\(anonymous namespace\)::", "", row["Kernel Name"])
        if "begin_kernel" in name:
            steps.append([])
        if steps:
            steps[-1].append((name, float(row["Metric Value"].replace(",", "")) * unit.get(row["Metric Unit"], 1)))
    return steps[:-1]  # the last is not complete


GROUPS = [("attention", r"fi_kernel|fa_kernel|combine"), ("products", r"nvjet|gemm|splitK|cublas|cutlass|gemv|linear"), ("rope and KV store", r"rope"),
          ("norm", r"norm"), ("silu", r"silu"), ("sampling", r"scan_kernel|pick_kernel|sample|sort")]


def tell_step(ctx, step, shape, gpu, context, key):
    total = sum(us for _, us in step)
    floor = roofline.decode_step(shape, gpu, context) * 1e6
    sums = {}
    for name, us in step:
        group = next((g for g, pattern in GROUPS if re.search(pattern, name)), "the rest")
        n, all_us, names = sums.get(group, (0, 0.0, {}))
        names[name[:46]] = names.get(name[:46], 0) + us
        sums[group] = (n + 1, all_us + us, names)
    limit = {"attention": sum(context) * shape.kv_token / gpu.bytes_s * 1e6, "products": roofline.products(shape, gpu, len(context), len(context)) * 1e6}
    for group, (n, us, names) in sorted(sums.items(), key=lambda x: -x[1][1]):
        most = f"; {limit[group] / us:.2f} of the limit" if group in limit else ""
        ctx.say(f"| {key} | {len(context)} x {context[0]} | {group} | {n} kernels, {us:.0f} us, {us / n:.2f} each{most} | {max(names, key=names.get)} |")
    ctx.results[f"kernels {len(context)} x {context[0]}"] = {"us": total, "floor_us": floor, "groups": {g: s[:2] for g, s in sums.items()}}
    return f"{len(context)} x {context[0]}: {len(step)} kernels, {total:.0f} us, {floor / total:.2f} of the limit"


def profile(ctx, n, n_in):
    """One decode step in the middle of an answer, under ncu: enqueued kernel by kernel, since a graph's kernels are the same."""
    ncu = which("ncu")
    if not ncu or ctx.device == "cpu":
        raise Skip("ncu is not here")
    text = "".join(json.dumps(q) + "\n" for q in requests(n, n_in, 160))
    layers = roofline.Shape("models/Qwen/Qwen3-0.6B").layers
    skip = (n * n_in // 2048 + 20) * layers * 10
    command = [ncu, "--clock-control", "none", "--cache-control", "none", "--csv", "--metrics", "gpu__time_duration.sum", "--launch-skip", str(skip),
               "--launch-count", str(layers * 36)]
    r = ctx.run("generate", "--model", ROOT / "models/Qwen/Qwen3-0.6B", "--dummy-weight", "--device", "cuda", "--cache-type", "naive", "--graph", "0",
                prefix=command, stdin=text, timeout=150, code=None)
    steps = steps_of(r.stdout)
    if not steps:
        raise Failure("ncu gave no whole step: " + (r.stdout + r.stderr).strip().splitlines()[-1][:200])
    decodes = [s for s in steps if not any("fa_kernel" in name for name, _ in s)]
    if not decodes:
        raise Failure("ncu saw no step of decodes alone")
    return min(decodes, key=lambda s: sum(us for _, us in s))


@check("kernels of a decode step of Qwen3-0.6B")
def kernels(ctx):
    key, gpu = card()
    shape = roofline.Shape("models/Qwen/Qwen3-0.6B")
    return "; ".join(tell_step(ctx, profile(ctx, n, n_in), shape, gpu, [n_in + 16] * n, key) for n, n_in in ((1, 256), (64, 1024)))
