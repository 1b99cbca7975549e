"""`minisgl simulate` on the real traces: the same figures each time, and over-commitment that pays."""
import json
import lzma
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("MINISGL_TEST_DATA") or ROOT.parent / "shared" / "data") / "traces"
AZURE, MOONCAKE = "azure-conv-2023.csv", "mooncake-conversation.jsonl"


def simulate(*args):
    run = subprocess.run([ROOT / "build" / "minisgl", "simulate", "--model", "Qwen/Qwen3-32B", *map(str, args)],
                         capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout


def unpack(name, to):
    if not (DATA / f"{name}.xz").exists():
        pytest.skip(f"{DATA / name}.xz is not there")
    path = to / name
    path.write_bytes(lzma.open(DATA / f"{name}.xz").read())
    return path


@pytest.mark.parametrize("pages", [2000, 4000, 8000])
def test_over_commitment(tmp_path, pages):
    args = ["--gpus", 8, "--trace", unpack(AZURE, tmp_path), "--rate-scale", 12, "--requests", 6000, "--num-pages", pages,
            "--max-seq-len-override", 16384, "--target-itl", 200, "--max-running-requests", 2048, "--json"]
    ours, classic = (json.loads(simulate(*args, "--schedule-policy", p)) for p in ("fcfs", "classic"))
    assert ours["requests"] == classic["requests"] == 6000
    assert ours["running_mean"] >= 1.5 * classic["running_mean"]
    assert ours["computed_twice"] <= 0.02 * ours["computed_tokens"]
    assert classic["retracted"] == 0


def test_cache_that_holds_all(tmp_path):
    args = ["--gpus", 4, "--trace", unpack(MOONCAKE, tmp_path), "--rate-scale", 0.4, "--requests", 1500, "--num-pages", 2000000,
            "--max-seq-len-override", 131072, "--json"]
    first, again = simulate(*args), simulate(*args)
    assert first == again
    r = json.loads(first)
    assert r["endless_cache_hit"] > 0.2 and r["cache_hit"] >= r["endless_cache_hit"] - 0.02


@pytest.mark.parametrize("trace, load, longest", [(AZURE, 3.5, 16384), (MOONCAKE, 0.5, 131072)])
def test_near_saturation(tmp_path, trace, load, longest):
    """Streams beside long prompts: half of classic's P90 between tokens, for as many tokens and no later first ones."""
    args = ["--gpus", 4, "--trace", unpack(trace, tmp_path), "--rate-scale", load, "--max-seq-len-override", longest, "--json"]
    ours, classic = (json.loads(simulate(*args, "--schedule-policy", p)) for p in ("fcfs", "classic"))
    assert ours["itl_seconds"]["p90"] <= classic["itl_seconds"]["p90"] / 2
    assert ours["itl_seconds"]["p99"] <= 0.050  # --target-itl
    assert ours["output_tokens_per_second"] >= 0.98 * classic["output_tokens_per_second"]
    assert ours["ttft_seconds"]["p90"] <= 1.1 * classic["ttft_seconds"]["p90"]


def test_page_and_picture(tmp_path):
    page = simulate("--gpus", 4, "--requests", 50, "--plot", tmp_path / "plot.svg")
    assert "between tokens" in page and "made-up requests: 50 requests" in page
    assert (tmp_path / "plot.svg").read_text().endswith("</svg>\n")


@pytest.mark.parametrize("args, says", [
    (["--gpus", "3"], "--gpus"), (["--model", "meta-llama/Llama-3.1-70B", "--gpus", "1"], "use more GPUs"), (["--gpu", "b200"], "--gpu"),
    (["--gpus", "4", "--trace", "/nowhere"], "/nowhere"), (["--gpus", "4", "--trace", __file__], "line 1"),
    (["--gpus", "4", "--requests", "3", "--plot", "/nowhere/x.svg"], "/nowhere/x.svg"), (["--tp", "4"], "--tp")])
def test_wrong_requests(args, says):
    run = subprocess.run([ROOT / "build" / "minisgl", "simulate", "--model", "Qwen/Qwen3-32B", *args], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and says in run.stderr and run.stderr.count("\n") == 1, run.stderr
