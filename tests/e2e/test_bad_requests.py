"""Bad requests to the real program: its memory does not grow with them; pairs of parameters; prompts at the edges."""

import concurrent.futures
import http.client
import itertools
import json
import os
import socket

import pytest


def resident(s):
    """KiB of the server's memory."""
    with open(f"/proc/{s.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


class Caller:
    """A kept connection, as plain as can be."""

    def __init__(self, s):
        self.connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)

    def __call__(self, path, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        r = self.connection.getresponse()
        return r.status, r.read()


def raw(s, data):
    """What comes back for bytes on a connection of their own."""
    with socket.create_connection(("127.0.0.1", s.port)) as c:
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        got = b""
        while piece := c.recv(65536):
            got += piece
        return got


C, CHAT, GEN = "/v1/completions", "/v1/chat/completions", "/generate"
SAY = [{"role": "user", "content": "hi"}]
BAD = [
    # C: JSON
    (C, b"{"),
    (C, b"null"),
    (C, b'{"prompt":"\xff"}'),
    (C, b'{"x":' + b"[" * 5000),
    (C, b'{"prompt":"a","prompt":"b"}'),
    (C, b'{"prompt":"' + b"\\u0000" * 2000 + b'","temperature":9}'),
    # D: parameters
    (C, {"prompt": "a", "n": 5000000}),
    (C, {"prompt": "a", "temperature": 1e300}),
    (C, {"prompt": "a", "logprobs": 10**9}),
    (C, {"prompt": "a", "stop": ["x" * 1000] * 5}),
    (C, {"prompt": "a", "stop_token_ids": [10**9]}),
    (C, {"prompt": "a", "max_tokens": 10**12}),
    (C, {"prompt": "a", "logit_bias": {"9" * 50: 1}}),
    (C, {"prompt": "a", "cache_salt": "x" * 1000}),
    (C, {"prompt": "a", "model": "y" * 5000}),
    # E: prompts
    (C, {"prompt": ""}),
    (C, {"prompt": [[-1]]}),
    (C, {"prompt": list(range(3000))}),
    (C, {"prompt": "word " * 3000}),
    (C, {"prompt": ["a", 5]}),
    (C, {"prompt": ["a"] * 1100}),
    (GEN, {"prompt_token_ids": [2560]}),
    # C21, F: messages and templates
    (CHAT, {"messages": []}),
    (CHAT, {"messages": [{"role": "nobody", "content": "x"}] * 100}),
    (CHAT, {"messages": SAY, "chat_template": "{{ x }}"}),
    (CHAT, {"messages": SAY, "chat_template_kwargs": {"messages": 1}}),
    (CHAT, {"messages": [{"role": "user", "content": "word " * 3000}]}),
    (CHAT, {"messages": SAY, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    (CHAT, {"messages": SAY, "response_format": {"type": "json_object"}}),
    ("/nowhere", {"x": 1}),
]
FRAMES = [  # A
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    b"POST /generate HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
    b"POST /generate HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{",
    b"GET /v1/models HTTP/1.1\r\nHost: t\r\nX: " + b"x: y\r\nz" * 200 + b"\r\n\r\n",
]


@pytest.mark.skipif("san" in os.environ.get("MINISGL_TEST_PROGRAM", ""), reason="a sanitizer's own memory grows")
def test_memory_does_not_grow_with_bad_requests(start):
    """Less than 1 MiB for 1,000 of any kind, after one round that warms up; descriptors return; the good answer stays the same."""
    s = start()
    call = Caller(s)
    good = {"prompt": "The server", "max_tokens": 12, "temperature": 0}
    first = json.loads(call(C, good)[1])["choices"]

    def bodies(times):
        for path, body in BAD:
            for _ in range(times):
                status, text = call(path, body)
                assert status in (400, 404), (path, body, status)
                assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}

    def frames(times):
        for data in FRAMES:
            for _ in range(times):
                assert raw(s, data)[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 431 ", b"HTTP/1.1 408 ", b"")

    bodies(40)
    frames(20)
    fds = len(os.listdir(f"/proc/{s.process.pid}/fd"))
    for kind, many in (bodies, len(BAD)), (frames, len(FRAMES)):
        times = -(-1000 // many)
        before = resident(s)
        for _ in range(3):
            kind(times)
        grown = (resident(s) - before) * 1000 / (3 * times * many)
        print(f"{kind.__name__}: {grown:.0f} KiB for 1,000")
        assert grown < 1024
    assert json.loads(call(C, good)[1])["choices"] == first
    assert len(os.listdir(f"/proc/{s.process.pid}/fd")) <= fds + 1
    assert s.process.poll() is None


# Every two of these in one request, with what else they need.
VALUES = {
    "stream": [True],
    "n": [3],
    "logprobs": [0, 20],
    "echo": [True],
    "max_tokens": [0, 1, 9],
    "temperature": [0, 1e-9, 0.7, 2],
    "top_k": [-1, 1, 2560],
    "top_p": [1e-9, 0.5, 1],
    "min_p": [0, 1],
    "seed": [0, -(2**63)],
    "stop": ["e", ["a", "b", "c", "\n"]],
    "stop_token_ids": [[0, 2559], []],
    "ignore_eos": [True],
    "include_stop_str_in_output": [True],
    "skip_special_tokens": [False],
    "add_special_tokens": [False],
    "cache_salt": ["tenant"],
    "best_of": [1, 3],
    "stream_options": [{"include_usage": True}],
    "presence_penalty": [0],
    "min_tokens": [0],
    "response_format": [{"type": "text"}],
}


def allowed(fields):
    """Whether the rules of docs/api.md allow it."""
    if fields.get("max_tokens") == 0 and not fields.get("echo"):
        return False
    if "stream_options" in fields and not fields.get("stream"):
        return False
    if "best_of" in fields and fields["best_of"] != fields.get("n", 1):
        return False
    return not ("logprobs" in fields and fields.get("echo"))


def test_all_pairs_of_parameters(server):
    settings = [(k, v) for k, values in VALUES.items() for v in values]
    asks = [dict(pair) for pair in itertools.combinations(settings, 2) if pair[0][0] != pair[1][0]]
    assert len(asks) > 600

    def ask(part):
        call, failed = Caller(server), []
        for fields in part:
            status, text = call(C, {"prompt": "The server", "max_tokens": 4, **fields})
            right = 200 if allowed(fields) else 400
            if status != right or (status == 200) != (b'"error"' not in text):
                failed.append((fields, status, text[:300]))
        return failed

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        failed = sum(pool.map(ask, [asks[i::8] for i in range(8)]), [])
    assert not failed, failed[:5]


def test_prompts_at_the_edges(server):
    call = Caller(server)
    for prompt in (
        "<|im_end|>",
        "<|im_start|><|im_end|>",
        " ",
        "\n",
        "\u0000",
        "\u202e",
        "e\u0301" * 20,
        "\U0001f469\u200d\U0001f469" * 10,
    ):
        status, text = call(C, {"prompt": prompt, "max_tokens": 3})
        assert status == 200, (prompt, text)
    # a mebibyte of one character: refused by its length, or by its tokens, never cut
    for one in ("A", " ", "\n", "1", "中", "\U0001f600", "\u0301", "'s"):
        for path, body in (
            (C, {"prompt": one * (2**20 // len(one.encode()))}),
            (CHAT, {"messages": [{"role": "user", "content": one * (2**20 // len(one.encode()))}]}),
        ):
            status, text = call(path, body)
            assert status == 400 and json.loads(text)["error"]["code"] == "context_length_exceeded", (one, text[:300])
    assert call(C, {"prompt": "The server", "max_tokens": 1})[0] == 200
