"""The same 500 requests with shared beginnings, some of whose clients leave, in a pool so small that requests are put back hundreds
of times: every text is byte for byte what the request gets when it runs alone. For both caches, page sizes 1, 16 and 64, overlap
on and off; a few of these settings in the short run, all twelve with MINISGL_TEST_LONG=1."""

import asyncio
import itertools
import json
import os
import random
import shutil
import subprocess

import pytest
from conftest import PROGRAM, ROOT
from test_metrics import wait_for

LONG = bool(os.environ.get("MINISGL_TEST_LONG"))
ALL = list(itertools.product(("radix", "naive"), (1, 16, 64), ("on", "off")))
SHORT = [("radix", 1, "on"), ("radix", 16, "off"), ("naive", 16, "on"), ("naive", 64, "off")]
CONTEXT, POOL, AT_ONCE = 320, 1024, 64  # tokens of the longest sequence, and of the KV cache; clients


def requests():
    r = random.Random(20)
    topics = [
        "the option table",
        "four GPUs",
        "the port",
        "memory",
        "the prefix cache",
        "page size",
        "streams",
        "templates",
    ]
    heads = [
        f"You are a help desk. Answer about {t} only, and be short. The user has read the manual twice. "
        * (1 + 2 * (i % 2))
        for i, t in enumerate(topics)
    ]
    for _ in range(500):
        ask = {
            "prompt": f"{r.choice(heads)}Question {r.randrange(60)}: what does {r.choice(topics)} do with {r.choice(topics)}?",
            "max_tokens": r.randint(2, 5) if r.random() < 0.1 else r.randint(80, 150),
            "ignore_eos": True,
            "logprobs": 1,
        }
        ask.update({"temperature": 0} if r.random() < 0.5 else {"temperature": 1.0, "seed": r.randrange(1000)})
        yield ask


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The built-in model's words with a body of a few random weights: quick, and its log-probabilities tell any difference."""
    model = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(ROOT / "models" / "builtin", model, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((model / "config.json").read_text())
    config.update(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        max_window_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=False,
    )
    (model / "config.json").write_text(json.dumps(config))
    return ["--model", model, "--dummy-weight"]


def run_alone(options):
    """(request, text, token ids, log-probabilities): one at a time, nothing shared, in a pool that holds all."""
    asks = list(requests())
    out = subprocess.run(
        [
            PROGRAM,
            "generate",
            *options,
            "--max-running-requests",
            "1",
            "--cache-type",
            "naive",
            "--threads",
            "1",
            "--max-seq-len-override",
            str(CONTEXT),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        input="".join(json.dumps(a) + "\n" for a in asks),
    ).stdout
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == len(asks)
    return [(a, x["text"], x["token_ids"], x["logprobs"]) for a, x in zip(asks, answers)]


@pytest.fixture(scope="module")
def small_alone(small):
    return run_alone(small)


@pytest.fixture(scope="module")
def builtin_alone():
    return run_alone(["--model", "builtin"])


async def answer(port, ask, leave_after):
    """Stream an answer; leave (None: never) after so many events. (text, token ids, log-probabilities, whether it ended)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps({**ask, "stream": True}).encode()
        writer.write(
            b"POST /generate HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        if leave_after == 0:
            await asyncio.sleep(0.02)
            return "", [], [], False
        text, ids, logprobs, events = "", [], [], 0
        assert (await reader.readline()).split()[1] == b"200"
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            assert "error" not in event, event
            text += event["text"]
            ids += event["token_ids"]
            logprobs += event.get("logprobs", [])
            events += 1
            if "finish_reason" in event:
                assert event["finish_reason"] == "length"
                return text, ids, logprobs, True
            if events == leave_after:
                return text, ids, logprobs, False
        raise AssertionError("the stream ended without an end")
    finally:
        writer.transport.abort()


async def all_answers(port, alone, seed):
    r, gate = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def one(ask, leave_after):
        async with gate:
            return await answer(port, ask, leave_after)

    leaves = [r.choice((0, 0, 1, 2, 5, 9)) if r.random() < 0.2 else None for _ in alone]
    return await asyncio.gather(*(one(ask, leave) for (ask, *_), leave in zip(alone, leaves)))


def mislead(s):
    """Thousands of answers of one token: the scheduler learns that answers are short, and admits too many of the long ones."""
    for _ in range(16):
        assert s.post("/v1/completions", {"prompt": "a", "n": 128, "max_tokens": 1}).status_code == 200


def check(s, alone, cache, page):
    mislead(s)
    answers = asyncio.run(all_answers(s.port, alone, page))
    n_left = 0
    for (ask, text, ids, logprobs), (got, got_ids, got_logprobs, ended) in zip(alone, answers):
        n_left += not ended
        if ended:
            assert (got, got_ids, got_logprobs) == (text, ids, logprobs), ask
        else:
            assert (
                text.startswith(got)
                and ids[: len(got_ids)] == got_ids
                and logprobs[: len(got_logprobs)] == got_logprobs
            ), ask
    m = wait_for(s, lambda m: m("vllm:num_requests_running") == m("vllm:num_requests_waiting") == 0)
    aborts, put_back = m("vllm:request_success_total", finished_reason="abort"), m("vllm:num_preemptions_total")
    print(
        f"{n_left} clients left, {aborts:.0f} requests ended by it, {put_back:.0f} put back, "
        f"{m('minisgl:computed_prompt_tokens_total'):.0f} prompt tokens computed in {m('vllm:iteration_tokens_total_count'):.0f} steps"
    )
    # A short answer may be complete before its client's leaving is seen.
    assert 40 < aborts <= n_left
    assert put_back >= 100
    assert (m("vllm:prefix_cache_hits_total") > 0) == (cache == "radix")
    assert m("vllm:kv_cache_usage_perc") == 0
    assert s.stop() == 0


def serve(start, options, cache, page, overlap):
    return start(
        *options,
        "--served-model-name",
        "builtin",
        "--cache-type",
        cache,
        "--page-size",
        page,
        "--overlap",
        overlap,
        "--num-pages",
        POOL // page + 1,
        "--max-seq-len-override",
        CONTEXT,
        "--max-running-requests",
        32,
        "--max-prefill-length",
        96,
    )


@pytest.mark.parametrize("cache, page, overlap", ALL if LONG else SHORT)
def test_texts_are_those_of_requests_alone(start, small, small_alone, cache, page, overlap):
    check(serve(start, small, cache, page, overlap), small_alone, cache, page)


@pytest.mark.skipif(not LONG, reason="takes minutes; set MINISGL_TEST_LONG=1 (./test --long)")
@pytest.mark.parametrize("cache, page, overlap", ALL)
def test_the_builtin_model_too(start, builtin_alone, cache, page, overlap):
    check(serve(start, ["--model", "builtin"], cache, page, overlap), builtin_alone, cache, page)
