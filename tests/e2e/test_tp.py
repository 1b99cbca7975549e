"""Tensor parallelism over CPU ranks, as users run it: the log, the same answers, wrong requests, and ranks that go wrong."""
import concurrent.futures
import json
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "minisgl"
FAULTS = ROOT / "build" / "minisgl-faults"


def run(*args, program=PROGRAM, stdin=None, timeout=120):
    return subprocess.run([program, *map(str, args)], cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=timeout)


REQUESTS = "".join(json.dumps(r) + "\n" for r in [
    {"messages": [{"role": "user", "content": "How do I use four GPUs?"}], "temperature": 0, "logprobs": 3},
    {"messages": [{"role": "user", "content": "Which port is it?"}], "temperature": 0.8, "seed": 7, "max_tokens": 30},
    {"messages": [{"role": "user", "content": "How do I save memory?"}], "temperature": 1, "top_p": 0.9, "seed": 1, "max_tokens": 30},
    {"prompt": "minisgl --tp", "temperature": 1, "top_k": 5, "min_p": 0.05, "seed": 3, "max_tokens": 30, "logprobs": 1},
])


def test_answers_are_the_same_bytes_for_every_degree():
    one = run("generate", stdin=REQUESTS)
    assert one.returncode == 0, one.stderr
    assert len(one.stdout.splitlines()) == 4
    for tp in (2, 4, 8):
        split = run("generate", "--tp", tp, "--max-prefill-length", 16, stdin=REQUESTS)
        assert split.returncode == 0, split.stderr
        assert split.stdout == one.stdout


def test_the_log_to_the_letter(start):
    server = start("--tp", 4)
    log = "".join(server.log)
    wanted = ["INFO: Initializing tensor parallelism with 4 CPU ranks\n", *[f"INFO: Rank {i}/4 ready\n" for i in range(4)],
              f"INFO: API server is ready to serve on 127.0.0.1:{server.port}\n"]
    at = 0
    for line in wanted:
        assert line in log[at:], log
        at = log.index(line, at) + len(line)
    assert re.search(r"each holds [\d.]+ GB of weights, up to [\d.]+ GB of KV cache and [\d.]+ GB of buffers", log)
    assert re.search(r"phases: .* [\d.]+ s, loading [\d.]+ s, opening the ranks [\d.]+ s", log)
    r = server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Which port?"}]})
    assert r.status_code == 200 and "1919" in r.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("options, says", [
    (["--tp", 3], "--tp 3: the model can be split over 1, 2, 4 or 8 ranks"),
    (["--tp", 16], "--tp 16: the model can be split over 1, 2, 4 or 8 ranks"),
    (["--tp", 8, "--model", "tests/model/fixtures/llama"], "attention heads (4) cannot be split evenly over 8 ranks"),
    (["--tp", 2, "--model", "Qwen/Qwen3-32B", "--dummy-weight", "--memory-ratio", 0.01], "the model does not fit: each rank needs"),
    (["--comm-timeout", 0], "--comm-timeout"),
    (["--tp", 4, "--threads", 3], "--threads 3 is less than a thread for each of the 4 ranks"),
])
def test_wrong_requests(options, says):
    r = run("generate", *options, "hello")
    assert r.returncode == 2 and says in r.stderr, r.stderr


def test_the_timeout_has_nccls_name_too():
    r = subprocess.run([PROGRAM, "generate", "hi"], cwd=ROOT, env={"NCCL_TIMEOUT": "x"}, capture_output=True, text=True)
    assert r.returncode == 2 and "NCCL_TIMEOUT" in r.stderr
    r = subprocess.run([PROGRAM, "generate", "--tp", "2", "hi"], cwd=ROOT, env={"NCCL_TIMEOUT": "1800"}, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


def test_faults_are_for_tests_only():
    assert "fault" in run("generate", "--fault", "1:3:hang", "hi").stderr
    assert run("generate", "--fault", "1:3:hang", "hi").returncode == 2


@pytest.mark.parametrize("fault, says, most", [
    ("1:3:hang", "rank 1 did not come to step 3, the comparison of batches, within 2 s", 12),
    ("0:3:hang", "rank 0 did not come to step 3", 12),
    ("3:1:hang", "rank 3 did not come to step 1", 12),
    ("1:3:stall", "rank 1 did not come to step 3", 12),
    ("1:3:exit", "rank 1 ended in step 3", 2),
    ("0:2:exit", "rank 0 ended in step 2", 2),
    ("2:3:differ", "rank 2 runs step 3 with a batch of checksum", 2),
    ("0:3:differ", "runs step 3 with a batch of checksum", 2),
])
def test_a_rank_that_goes_wrong_ends_all(fault, says, most):
    start = time.monotonic()
    r = run("generate", "--tp", 4, "--comm-timeout", 2, "--fault", fault, "How do I use four GPUs?", program=FAULTS, timeout=60)
    assert r.returncode == 1 and says in r.stderr, r.stderr
    assert r.stderr.count("ERROR") == 1, r.stderr
    # A dead rank is noticed at once, a hanging one after the timeout; the rest is starting and a busy machine.
    assert time.monotonic() - start < most + 20


@pytest.mark.parametrize("options, says", [
    (["--fault", "0:40:exit"], "rank 0 ended in step 40"),
    (["--tp", 2, "--fault", "1:40:exit"], "rank 1 ended in step 40"),
    (["--tp", 2, "--fault", "1:40:hang", "--comm-timeout", 1], "rank 1 did not come to step 40"),
])
def test_clients_of_a_server_that_breaks_are_told(start, options, says):
    server = start(*options, program=FAULTS)
    body = {"prompt": "The server", "max_tokens": 400, "ignore_eos": True}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        whole = [pool.submit(server.post, "/v1/completions", body) for _ in range(3)]
        streams = [pool.submit(server.post, "/v1/completions", {**body, "stream": True}) for _ in range(3)]
        for r in (f.result() for f in whole):
            assert r.status_code == 503 and says in r.json()["error"]["message"], r.text
        for r in (f.result() for f in streams):  # some have begun by then
            assert says in r.text and (r.status_code == 503 or r.text.startswith("data: {")), r.text
    assert server.process.wait(5) == 1
    log = "".join(server.log)
    assert log.count("ERROR") == 1 and says in log, log
