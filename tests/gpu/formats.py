"""Number formats: --dtype and --kv-cache-dtype change texts hardly and log-probabilities a little; what float16 cannot hold is refused."""
import json
import shutil

from right import questions
from tools import ROOT, Skip, check, equal, need

BUILTIN = ROOT / "models/builtin"
CACHES = (["--kv-cache-dtype", "fp8"], ["--kv-cache-dtype", "fp8", "--attn", "fa"], ["--kv-cache-dtype", "float32"])
DTYPES = (["--dtype", "half"], ["--dtype", "float32"], ["--dtype", "half", "--kv-cache-dtype", "fp8"], ["--dtype", "float32", "--kv-cache-dtype", "fp8"],
          ["--dtype", "half", "--kv-cache-dtype", "bf16"])


def values(answer):
    return [t["logprob"] for t in answer["logprobs"]]


def differences(a, b):
    """Of the log-probabilities of all tokens up to the first that is another one."""
    for x, y in zip(a, b):
        for i, (p, q) in enumerate(zip(x["token_ids"], y["token_ids"])):
            if p != q:
                break
            yield abs(values(x)[i] - values(y)[i])


@check("number formats of weights and cache", quick=True)
def formats(ctx):
    asked = [{**q, "logprobs": 0} for q in questions()]
    first, _ = ctx.generate(BUILTIN, asked)
    worst = 0
    for options in CACHES + (DTYPES if ctx.device == "cuda" else ()):
        answers, _ = ctx.generate(BUILTIN, asked, *options)
        d, same = sorted(differences(first, answers)), equal(first, answers)
        worst = max(worst, d[-1])
        ctx.say(f"{' '.join(options):48s} {same} of {len(asked)} texts; log-probabilities differ by {sum(d) / len(d):.5f} in the mean, {d[-1]:.4f} at most")
        need(same >= 0.95 * len(asked) and d[-1] < 0.5, f"{' '.join(options)}: {same} of {len(asked)} texts, log-probabilities differ by {d[-1]:.3f}")
    return f"{len(asked)} questions; log-probabilities differ by {worst:.3f} at most"


@check("numbers that float16 cannot hold", quick=True)
def too_large(ctx):
    if ctx.device != "cuda":
        raise Skip("the CPU does not convert")
    model, name = ctx.tmp / "large", "model.layers.3.mlp.up_proj.weight"
    shutil.copytree(BUILTIN, model)
    file = model / "model.safetensors"
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    at = 8 + size + json.loads(data[8:8 + size])[name]["data_offsets"][0] + 2 * 12345
    data[at:at + 2] = b"\x80\x47"  # 65536 in bf16
    file.write_bytes(data)
    r = ctx.run("generate", "--model", model, "--device", "cuda", "--dtype", "half", "hi", code=2)
    need(name in r.stderr and "float16 cannot hold" in r.stderr, r.stderr[-300:])
    ctx.run("generate", "--model", model, "--device", "cuda", "hi")
    return "refused by the tensor's name"
