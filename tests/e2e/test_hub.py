"""Models from a hub: what is downloaded, where it lies, what is said when something goes wrong, and that nothing partial is ever taken
for whole. The hub is hub_server.py; no test leaves this machine."""
import concurrent.futures
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import pty
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from conftest import PROGRAM
from hub_server import Fault, Hub, git_sum, tiny_model

NAME = "meta-llama/Llama-3.1-8B-Instruct"
DASHED = "models--meta-llama--Llama-3.1-8B-Instruct"
JUNK = {"README.md": b"# hi", "pytorch_model.bin": b"x" * 5000, "model.gguf": b"y" * 5000, "consolidated.safetensors": b"z" * 5000,
        "original/params.json": b"{}", "onnx/model.onnx": b"o" * 100, ".gitattributes": b"*", "tf_model.h5": b"h" * 100,
        "vocab.json": b"{}", "merges.txt": b"a b"}
TEXT = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny Llama in five files, with what else repositories hold."""
    folder = tiny_model(NAME, tmp_path_factory.mktemp("tiny"))
    return {**{p.name: p.read_bytes() for p in folder.iterdir()}, **JUNK}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The same in one file."""
    folder = tiny_model(NAME, tmp_path_factory.mktemp("single"), shard_bytes=10**9)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def hub(files):
    with Hub() as h:
        h.commit = h.add(NAME, files)
        yield h


class Ran:
    def __init__(self, r):
        self.code, self.out, self.log = r.returncode, r.stdout, r.stderr
        self.errors = [line for line in r.stderr.splitlines() if line.startswith("ERROR: ")]
        self.error = self.errors[0] if self.errors else ""


def command(*args, name=NAME):
    args = list(args)
    sub = args.pop(0) if args and not str(args[0]).startswith("--") else "generate"
    return [PROGRAM, sub, "--model", name, *map(str, args), *(["--raw", "hello"] if sub == "generate" else [])]


def run(hub, cache, *args, name=NAME, cwd=None, timeout=120, **env):
    r = subprocess.run(command(*args, name=name), env=hub.env(cache, **env), input='"x"\n', capture_output=True, text=True, timeout=timeout,
                       cwd=cwd)
    return Ran(r)


def good(r):
    assert r.code == 0 and not r.errors, r.log
    assert r.out
    return r


def bad(r, code, *words):
    assert r.code == code, r.log
    assert len(r.errors) == 1, r.log
    for word in words:
        assert re.search(word, r.error), f"{word!r} is not in {r.error!r}"
    return r


def snapshot(cache, commit):
    return pathlib.Path(cache) / "hf" / "hub" / DASHED / "snapshots" / commit


def blobs(cache):
    return pathlib.Path(cache) / "hf" / "hub" / DASHED / "blobs"


def weight_names(files):
    return {f for f in files if re.fullmatch(r"model-.*\.safetensors", f)}


def at_once(files, folder, cases):
    """Faults make the program wait: run all cases, (function, *arguments), side by side, each with a hub of its own."""
    def one(i, case):
        with Hub() as h:
            h.commit = h.add(NAME, files)
            case[0](h, files, folder / str(i), *case[1:])

    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        for case, result in [(c, pool.submit(one, i, c)) for i, c in enumerate(cases)]:
            try:
                result.result()
            except AssertionError as e:
                raise AssertionError(f"{case}: {e}") from e


# ---- what is downloaded, and where to ----

def test_only_what_is_needed_in_the_layout_of_the_hubs_tools(hub, files, tmp_path):
    first = good(run(hub, tmp_path))
    wanted = TEXT | weight_names(files) | {"model.safetensors.index.json"}
    assert len(weight_names(files)) > 4
    folder = snapshot(tmp_path, hub.commit)
    assert {p.name for p in folder.iterdir()} == wanted
    for p in folder.iterdir():
        large = p.name.endswith(".safetensors")
        sum_ = hashlib.sha256(files[p.name]).hexdigest() if large else git_sum(files[p.name])
        assert os.readlink(p) == f"../../blobs/{sum_}" and p.read_bytes() == files[p.name]
    assert {p.name for p in blobs(tmp_path).iterdir()} == {os.readlink(p).split("/")[-1] for p in folder.iterdir()}
    root = folder.parents[1]
    assert (root / "refs" / "main").read_text() == hub.commit
    tree = json.loads((root / "trees" / f"{hub.commit}.json").read_text())
    assert tree["format_version"] == 1 and set(tree["files"]) == set(files)
    assert not hub.asked("bin|gguf|consolidated|original|onnx|vocab|merges|README", method="any")
    # the second time nothing is asked, with the network or without
    hub.requests.clear()
    assert good(run(hub, tmp_path)).out == first.out == good(run(hub, tmp_path, "--offline")).out
    assert good(run(hub, tmp_path, HF_HUB_OFFLINE="1")).out == first.out
    assert not hub.requests


def test_one_file_of_weights(single, tmp_path):
    with Hub() as hub:
        hub.add(NAME, {**single, "model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"old"})
        good(run(hub, tmp_path))
        assert len(hub.asked(r"model.*safetensors", "cdn")) == 1


def test_text_alone_downloads_no_weights_and_is_completed_later(hub, tmp_path):
    good(run(hub, tmp_path, "tokenize"))
    assert {p.name for p in snapshot(tmp_path, hub.commit).iterdir()} == TEXT and not hub.asked("safetensors", method="any")
    bad(run(hub, tmp_path, "--offline"), 2, "model.safetensors")
    hub.requests.clear()
    good(run(hub, tmp_path))
    assert not hub.asked("tokenizer")
    good(run(hub, tmp_path, "--offline"))


def test_names_revisions_and_folders(hub, files, tmp_path):
    other = hub.add(NAME, {**files, "generation_config.json": b'{"temperature": 0.5}'}, revision="v2/rc1")
    good(run(hub, tmp_path, "--revision", "v2/rc1"))
    root = snapshot(tmp_path, other).parents[1]
    assert (root / "refs" / "v2" / "rc1").read_text() == other and not (root / "refs" / "main").exists()
    bad(run(hub, tmp_path, "--offline"), 2, "revision main")
    good(run(hub, tmp_path, "--offline", "--revision", other))
    hub.requests.clear()
    good(run(hub, tmp_path, "--revision", hub.commit))  # only the one file that differs
    assert len(hub.asked("resolve")) == 1
    for wrong in ("../x", "/etc", "a..b", "x//y", "-"):
        bad(run(hub, tmp_path, "--revision", wrong), 2, "--revision")
    for wrong in ("../x/y", "a/b/c", "./x", "/no/such", "-a/b", "a--b/c", "a b/c", "a/..", ".a/b"):
        hub.requests.clear()
        bad(run(hub, tmp_path, name=wrong), 2, "folder")
        assert not hub.requests


def test_a_folder_wins(hub, tmp_path):
    (tmp_path / NAME).mkdir(parents=True)
    bad(run(hub, tmp_path, cwd=tmp_path), 2, "config.json")
    bad(run(hub, tmp_path, "--revision", "main", cwd=tmp_path), 2, "--revision", "folder wins")
    bad(run(hub, tmp_path, "--revision", "main", name="builtin"), 2, "--revision", "built-in")
    assert not hub.requests


def test_shapes_beside_the_program_need_no_hub(hub, tmp_path):
    for args in (("dummy", "--out", tmp_path / "d"), ("simulate", "--requests", 1, "--gpus", 8)):
        if args[0] == "simulate":
            assert run(hub, tmp_path, *args, name="Qwen/Qwen3-0.6B").code == 0
    assert not hub.requests
    bad(run(hub, tmp_path, "--offline", name="Qwen/Qwen3-0.6B"), 2, "--dummy-weight")


def test_a_moved_model_is_followed(hub, tmp_path):
    hub.add("old/name", {}, moved=NAME)
    good(run(hub, tmp_path, name="old/name"))
    hub.blobs = False
    good(run(hub, tmp_path / "b", name="old/name"))


def test_a_mirror_without_sums_in_its_listing(hub, files, tmp_path):
    hub.blobs = False
    good(run(hub, tmp_path))
    assert hub.asked("safetensors", "hub", "HEAD")
    assert {p.name for p in blobs(tmp_path).iterdir()} >= {hashlib.sha256(files[f]).hexdigest() for f in weight_names(files)}
    good(run(hub, tmp_path, "--offline"))


def test_a_model_that_cannot_be_run_is_refused_before_its_weights(hub, files, tmp_path):
    config = json.loads(files["config.json"])
    config["architectures"] = ["GPTOddForCausalLM"]
    hub.add("some/odd", {**files, "config.json": json.dumps(config).encode()})
    bad(run(hub, tmp_path, name="some/odd"), 2, "GPTOddForCausalLM")
    assert not hub.asked("model-0", method="any")


def test_repositories_without_what_is_needed(hub, files, tmp_path):
    hub.add("some/bin", {k: v for k, v in files.items() if "safetensors" not in k})
    bad(run(hub, tmp_path, name="some/bin"), 2, "no weights", "GGUF")
    hub.add("some/data", {"README.md": b""})
    bad(run(hub, tmp_path, name="some/data"), 2, "config.json")
    index = json.loads(files["model.safetensors.index.json"])
    for wrong in ("../../../etc/passwd", "model-99999-of-00005.safetensors", ".."):
        index["weight_map"]["x"] = wrong
        hub.add("some/index", {**files, "model.safetensors.index.json": json.dumps(index).encode()})
        bad(run(hub, tmp_path, name="some/index"), 2, re.escape(wrong))
    assert not hub.asked("model-0", method="any")


# ---- tokens ----

def test_the_token_goes_to_the_hub_alone(hub, tmp_path):
    hub.token = "hf_secret"
    hub.models[NAME]["gated"] = "granted"
    good(run(hub, tmp_path, HF_TOKEN="hf_secret", LOG_LEVEL="DEBUG"))
    for server, _, _, headers in hub.requests:
        assert (headers.get("Authorization") == "Bearer hf_secret") == (server == "hub")
    (tmp_path / "b" / "hf").mkdir(parents=True)
    (tmp_path / "b" / "hf" / "token").write_text("hf_secret\n")
    assert "hf_secret" not in good(run(hub, tmp_path / "b", LOG_LEVEL="DEBUG")).log


@pytest.mark.parametrize("traits, token, words", [
    ({"gated": True}, None, ["gated", "accept its terms", "set HF_TOKEN"]),
    ({"gated": True}, "hf_secret", ["gated", "has no access"]),
    ({"private": True}, None, ["does not|neither", "HF_TOKEN"]),
    ({"private": True}, "hf_wrong", ["does not accept the token", "HF_TOKEN"]),
])
def test_refusals(hub, tmp_path, traits, token, words):
    hub.token = "hf_secret"
    hub.models[NAME].update(traits)
    r = bad(run(hub, tmp_path, **({"HF_TOKEN": token} if token else {})), 2, NAME, *words)
    assert not token or token not in r.log
    assert len(hub.requests) == 1  # asking again is of no use


def test_unknown_models_and_revisions(hub, tmp_path):
    bad(run(hub, tmp_path, name="nobody/nothing"), 2, "nobody/nothing", "neither a folder here nor", "spelling")
    bad(run(hub, tmp_path, name="nobody/nothing", HF_TOKEN="x"), 2, "401|404")
    bad(run(hub, tmp_path, "--revision", "v9"), 2, "no revision v9")
    bad(run(hub, tmp_path, HF_TOKEN="two words"), 2, "HF_TOKEN")
    bad(run(hub, tmp_path, "--offline", name="nobody/nothing"), 2, "not in .*models--nobody--nothing", "HF_HUB_OFFLINE")
    assert not list((tmp_path / "hf").rglob("*")) if (tmp_path / "hf").exists() else True


def test_flags_of_the_environment(hub, tmp_path):
    bad(run(hub, tmp_path, HF_HUB_OFFLINE="maybe"), 2, "HF_HUB_OFFLINE", "maybe")
    bad(run(hub, tmp_path, TRANSFORMERS_OFFLINE="TRUE"), 2, "forbids")
    good(run(hub, tmp_path, HF_HUB_OFFLINE="0"))


# ---- a hub that is unwell ----

LISTING_FAULTS = [
    (dict(status=500, times=2), 0, []),
    (dict(status=503, times=1, headers={"Retry-After": "1"}), 0, []),
    (dict(status=429, times=1, headers={"Retry-After": "2"}), 0, ["waiting 2.0 s: .*too many requests"]),
    (dict(status=429, times=-1, headers={"Retry-After": "3600"}), 1, ["too many requests", "3600 s", "HF_TOKEN"]),
    (dict(status=500, times=-1), 1, ["out of order", "500", "6 tries"]),
    (dict(status=418, times=-1), 1, ["418", "not in its protocol"]),
    (dict(status=200, times=-1, body=b"<html>log in</html>"), 1, ["not JSON"]),
    (dict(status=200, times=-1, body=b"[]"), 1, ["not an object"]),
    (dict(status=200, times=-1, body=b'{"siblings": []}'), 1, ["no commit"]),
    (dict(status=200, times=-1, body=b'{"sha": "' + b"a" * 40 + b'"}'), 1, ["no files"]),
    (dict(status=200, times=-1, body=b'{"sha": "../../../../x", "siblings": []}'), 1, ["no commit"]),
    (dict(status=302, times=-1, headers={"Location": "/api/models/x"}), 1, ["circles|neither"]),
    (dict(status=302, times=-1, headers={"Location": "file:///etc/passwd"}), 1, ["not https|address"]),
    (dict(cut=20, times=2), 0, []),
    (dict(stall=True, times=1), 0, []),
]


def listing_fault(hub, files, tmp_path, fault, code, words):
    if fault.get("headers", {}).get("Location") == "/api/models/x":
        fault["path"] = "/api/models/"
    hub.fault(Fault(**{"path": "/revision/", **fault}))
    r = run(hub, tmp_path, "--hub-timeout", 2)
    assert r.code == code, r.log
    if code:
        assert len(r.errors) == 1
        assert not list((tmp_path / "hf").rglob("snapshots"))
    for word in words:
        assert re.search(word, r.log), r.log


def test_hosts_that_cannot_be_reached(hub, tmp_path):
    with socket.socket() as s:  # nobody listens here
        s.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{s.getsockname()[1]}"
        bad(run(hub, tmp_path, HF_ENDPOINT=closed), 1, "no connection", "127.0.0.1")
    bad(run(hub, tmp_path, HF_ENDPOINT="http://no.such.host.invalid"), 1, "no.such.host.invalid", "online")
    bad(run(hub, tmp_path, HF_ENDPOINT="ftp://127.0.0.1"), 2, "https")
    bad(run(hub, tmp_path, "--proxy", "http://no.such.proxy.invalid:1"), 1, "proxy")


# ---- files that come wrong ----

def check_all(hub, files, cache):
    for name in weight_names(files):
        assert (snapshot(cache, hub.commit) / name).read_bytes() == files[name]
    assert not list((cache / "hf").rglob("*.incomplete"))


SECOND = r"model-00002"


PASSING = [
    (dict(cut=100_000), []),
    (dict(cut=0, times=3), []),
    (dict(status=200, body=b"<html>log in here</html>"), []),
    (dict(short=50_000), []),
    (dict(flip=True), ["wrong checksum"]),
    (dict(stall=True), []),
    (dict(status=500, times=2), []),
    (dict(status=403, times=1), []),        # an address that has run out; the next try gets a new one
    (dict(status=503, headers={"Retry-After": "1"}), []),
]


def test_faults_that_pass(files, tmp_path):
    at_once(files, tmp_path, [(passing_fault, *case) for case in PASSING] + [(a_bad_line,)])


def a_bad_line(hub, files, tmp_path):
    """Cut again and again: as long as something comes there is no end of tries."""
    hub.fault(Fault("model-00001", server="cdn", cut=70_000, times=-1))
    good(run(hub, tmp_path))
    assert [x[3].get("Range") for x in hub.asked("model-00001", "cdn")] == [None, *(f"bytes={i * 70_000}-" for i in range(1, 10))]


def passing_fault(hub, files, tmp_path, fault, words):
    hub.fault(Fault(**{"path": SECOND, "server": "cdn", **fault}))
    r = good(run(hub, tmp_path, "--hub-timeout", 2))
    check_all(hub, files, tmp_path)
    for word in words:
        assert re.search(word, r.log), r.log
    ranges = [x[3].get("Range") for x in hub.asked(SECOND, "cdn")]
    assert len(ranges) >= 2
    if "cut" in fault and fault["cut"]:
        assert ranges == [None, "bytes=100000-"]
    if "short" in fault:
        assert ranges == [None, None]  # the size in its header was another file's
    if "flip" in fault:
        assert ranges == [None, None]


STAYING = [
    (dict(cut=0), ["broke", "6 tries"], 0),
    (dict(flip=True), ["wrong checksum", "nothing of it is kept"], None),
    (dict(extra=b"more"), ["listing", "in its place"], 0),
    (dict(short=1000), ["1000 bytes", "listing"], 0),
    (dict(status=404), ["404"], 0),
    (dict(status=500), ["out of order", "500"], 0),
]


def test_faults_that_stay_and_faults_of_the_listing(files, tmp_path):
    at_once(files, tmp_path, [(staying_fault, *case) for case in STAYING] + [(listing_fault, *case) for case in LISTING_FAULTS])


def staying_fault(hub, files, tmp_path, fault, words, kept):
    """Nothing of it is in the snapshot, and another start without the fault makes it whole."""
    hub.fault(Fault(**{"path": SECOND, "server": "cdn", "times": -1, **fault}))
    bad(run(hub, tmp_path), 1, "model-00002", *words)
    assert not snapshot(tmp_path, hub.commit).exists()
    name = next(f for f in files if re.match(SECOND, f))
    part = blobs(tmp_path) / f"{hashlib.sha256(files[name]).hexdigest()}.incomplete"
    assert (part.stat().st_size if part.exists() else None) == kept
    bad(run(hub, tmp_path, "--offline"), 2, "forbids")
    hub.faults.clear()
    hub.requests.clear()
    good(run(hub, tmp_path))
    check_all(hub, files, tmp_path)
    assert not hub.asked("tokenizer")


def test_a_small_file_is_checked_too(hub, tmp_path):
    hub.fault(Fault("tokenizer.json", flip=True, times=-1))
    bad(run(hub, tmp_path), 1, "tokenizer.json", "wrong checksum")


def test_a_file_that_the_listing_has_and_the_hub_has_not(hub, tmp_path):
    hub.fault(Fault("resolve/.*tokenizer.json", status=404, headers={"X-Error-Code": "EntryNotFound"}, times=-1))
    bad(run(hub, tmp_path), 2, "404")


@pytest.mark.parametrize("kind", ["right", "wrong", "too long", "whole", "no range"])
def test_partial_files_of_earlier(hub, files, tmp_path, kind):
    """Also of other tools: what is there is used when its checksum turns out right."""
    name = next(f for f in files if re.match(SECOND, f))
    data = files[name]
    blobs(tmp_path).mkdir(parents=True)
    part = blobs(tmp_path) / f"{hashlib.sha256(data).hexdigest()}.incomplete"
    part.write_bytes({"right": data[:70_000], "wrong": b"?" * 70_000, "too long": data + b"!", "whole": data, "no range": data[:70_000]}[kind])
    if kind == "no range":
        hub.fault(Fault(SECOND, server="cdn", no_range=True))
    good(run(hub, tmp_path))
    check_all(hub, files, tmp_path)
    ranges = [x[3].get("Range") for x in hub.asked(SECOND, "cdn")]
    assert ranges == {"right": ["bytes=70000-"], "wrong": ["bytes=70000-", None], "too long": [None], "whole": [], "no range": ["bytes=70000-"]}[kind]


def test_a_blob_that_shrank_is_noticed(hub, files, tmp_path):
    good(run(hub, tmp_path))
    name = next(f for f in files if re.match(SECOND, f))
    blob = blobs(tmp_path) / hashlib.sha256(files[name]).hexdigest()
    blob.write_bytes(files[name][:-1])
    bad(run(hub, tmp_path, "--offline"), 2, "model-00002")
    good(run(hub, tmp_path))
    check_all(hub, files, tmp_path)
    blob.unlink()
    bad(run(hub, tmp_path, "--offline"), 2, "model-00002")


@contextlib.contextmanager
def started(hub, cache, *args, **env):
    p = subprocess.Popen(command(*args), env=hub.env(cache, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield p
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
        p.stderr.close()


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while not (got := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return got


def test_killed_in_the_middle(hub, files, tmp_path):
    """SIGKILL with two files whole and one half: nothing is visible, and the next start downloads the rest alone."""
    gate = threading.Event()
    hub.fault(Fault(SECOND, server="cdn", gate=gate))
    name = next(f for f in files if re.match(SECOND, f))
    part = blobs(tmp_path) / f"{hashlib.sha256(files[name]).hexdigest()}.incomplete"
    others = [blobs(tmp_path) / hashlib.sha256(files[f]).hexdigest() for f in weight_names(files) - {name}]
    with started(hub, tmp_path) as p:
        wait_for(lambda: all(o.exists() for o in others) and part.exists() and part.stat().st_size >= len(files[name]) // 2)
        p.send_signal(signal.SIGKILL)
        p.wait()
    gate.set()
    assert not snapshot(tmp_path, hub.commit).exists()
    bad(run(hub, tmp_path, "--offline"), 2, "forbids")
    hub.requests.clear()
    good(run(hub, tmp_path))
    assert [(x[2].split("?")[0].split("/")[-1], x[3].get("Range")) for x in hub.asked("", "cdn")] == [(name, f"bytes={len(files[name]) // 2}-")]
    check_all(hub, files, tmp_path)


def test_two_processes_share_one_download(hub, files, tmp_path):
    hub.fault(Fault("model-", server="cdn", rate=500_000, times=-1))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda _: run(hub, tmp_path), range(2))
    assert good(a).out == good(b).out
    assert len(hub.asked("", "cdn")) == len(weight_names(files))
    assert len(hub.asked("resolve/.*tokenizer.json")) == 1
    assert "another process downloads" in a.log + b.log
    check_all(hub, files, tmp_path)


def test_the_other_process_dies(hub, files, tmp_path):
    """Its lock goes with it; the one that waited goes on from what it left."""
    gate = threading.Event()
    hub.fault(Fault(SECOND, server="cdn", gate=gate))
    with started(hub, tmp_path) as first:
        wait_for(lambda: len(hub.asked(SECOND, "cdn")) == 1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            second = pool.submit(run, hub, tmp_path)
            time.sleep(1)
            assert not second.done()
            first.send_signal(signal.SIGKILL)
            first.wait()
            gate.set()
            good(second.result())
    assert [x[3].get("Range") for x in hub.asked(SECOND, "cdn")][1].startswith("bytes=")
    check_all(hub, files, tmp_path)


def whole_files(cache, files, source):
    """Every file that has its own name is whole; those of the snapshot that can be seen."""
    if source == "modelscope":
        seen = [p for p in scope_folder(cache).glob("*") if p.suffix != ".incomplete"]
        assert all(p.read_bytes() == files[p.name] for p in seen)
        return {p.name for p in seen}
    for p in blobs(cache).glob("*"):
        data = p.read_bytes()
        assert p.suffix == ".incomplete" or p.name in (hashlib.sha256(data).hexdigest(), git_sum(data))
    return {p.name for p in (blobs(cache).parent / "snapshots").glob("*/*")}


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_killed_again_and_again(hub, files, tmp_path, source):
    """At any moment: what has a name is whole, config.json is there only when all is, and nothing comes twice but what was on its way."""
    moments, args, ended = random.Random(5), ("--model-source", source), None
    hub.fault(Fault("model-0", server="cdn", rate=900_000, times=-1))
    for kills in range(60):
        with started(hub, tmp_path, *args) as p:
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = p.wait(moments.uniform(0.02, 0.4 + kills / 20))
                assert ended == 0, p.stderr.read()
                break
        names = whole_files(tmp_path, files, source)
        assert "config.json" not in names or weight_names(files) <= names
    assert ended == 0 and kills, kills
    check = good(run(hub, tmp_path, *args, "--offline"))
    assert check.out == good(run(hub, tmp_path / "once", *args)).out


# ---- the disk ----

def in_a_small_disk(tmp_path, size, script):
    """Run a shell script with a disk of so many kB at tmp_path/small, where this machine lets us; else None."""
    (tmp_path / "small").mkdir()
    mount = f"mount -t tmpfs -o size={size}k none {tmp_path}/small"
    probe = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True)
    if probe.returncode:
        return None
    return subprocess.run(["unshare", "-rm", "sh", "-c", f"{mount} && {script}"], capture_output=True, text=True, timeout=60)


def test_a_full_disk(hub, files, tmp_path):
    run_it = " ".join(map(str, command("--log-level", "info")))
    env = f"HF_ENDPOINT={hub.url} HF_HUB_OFFLINE=0 HF_HUB_CACHE={tmp_path}/small"
    r = in_a_small_disk(tmp_path, 1000, f"{env} {run_it}")
    if r is None:
        pytest.skip("this machine lets nobody mount a small disk (unshare -rm)")
    bad(Ran(r), 1, "needs 1.97 MB more and the disk of .*small has", "make room")
    assert not hub.asked("", "cdn")
    # room enough when it was looked, taken by somebody else meanwhile
    hub.fault(Fault("model-", server="cdn", rate=300_000, times=-1))
    script = (f"{env} {run_it} & p=$!; sleep 0.7; head -c 100000000 /dev/zero > {tmp_path}/small/other; wait $p; "
              f"rc=$?; find {tmp_path}/small -name '*.incomplete' | wc -l; find {tmp_path}/small -path '*snapshots*' | wc -l; exit $rc")
    shutil.rmtree(tmp_path / "small")
    r = in_a_small_disk(tmp_path, 40000, script)
    bad(Ran(r), 1, "disk is full", "what came is kept")
    incomplete, linked = map(int, r.stdout.split()[-2:])
    assert incomplete >= 1 and linked == 0


def test_a_cache_that_cannot_be_made(hub, tmp_path):
    (tmp_path / "file").write_text("")
    bad(run(hub, tmp_path, HF_HUB_CACHE=str(tmp_path / "file" / "hub")), 1, "cannot be made", "HF_HUB_CACHE")
    r = subprocess.run(command(), env={"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url}, capture_output=True, text=True)
    bad(Ran(r), 2, "HOME")


# ---- the other tools of Hugging Face ----

def library(code, hub, cache, **env):
    """Run Python code with huggingface_hub, whose settings are read when it is imported."""
    import sys
    return subprocess.run([sys.executable, "-c", code], env=hub.env(cache, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", **env),
                          capture_output=True, text=True, timeout=60)


@pytest.fixture
def huggingface_hub():
    return pytest.importorskip("huggingface_hub", reason="the Python package huggingface_hub is not here: its cache is not compared with ours")


def test_what_huggingface_hub_downloaded_is_found(huggingface_hub, hub, files, tmp_path):
    one = library(f"import huggingface_hub as h; print(h.hf_hub_download('{NAME}', 'config.json'))", hub, tmp_path)
    assert one.returncode == 0, one.stderr
    bad(run(hub, tmp_path, "--offline"), 2, "tokenizer.json")
    all_ = library(f"import huggingface_hub as h; print(h.snapshot_download('{NAME}', ignore_patterns=['*.bin', '*.gguf']))", hub, tmp_path)
    assert all_.returncode == 0, all_.stderr
    hub.requests.clear()
    good(run(hub, tmp_path))
    good(run(hub, tmp_path, "--offline"))
    assert not hub.requests
    # a link of it that is gone makes it partial
    (snapshot(tmp_path, hub.commit) / "tokenizer_config.json").unlink()
    trees = list(snapshot(tmp_path, hub.commit).parents[1].glob("trees/*.json"))
    if trees:
        bad(run(hub, tmp_path, "--offline"), 2, "tokenizer_config.json")


def test_what_we_downloaded_huggingface_hub_finds(huggingface_hub, hub, files, tmp_path):
    good(run(hub, tmp_path))
    hub.requests.clear()
    code = (f"import huggingface_hub as h; print(h.snapshot_download('{NAME}', local_files_only=True, allow_patterns=['model*safetensors', 'c*.json'])); "
            f"print(h.hf_hub_download('{NAME}', 'tokenizer.json', local_files_only=True)); print(len(list(h.scan_cache_dir().repos)), "
            "h.scan_cache_dir().warnings)")
    r = library(code, hub, tmp_path)
    assert r.returncode == 0, r.stderr
    assert r.stdout.splitlines() == [str(snapshot(tmp_path, hub.commit)), str(snapshot(tmp_path, hub.commit) / "tokenizer.json"), "1 []"]
    assert not hub.requests
    # and with the network it fetches nothing that is here
    r = library(f"import huggingface_hub as h; h.snapshot_download('{NAME}', allow_patterns=['*.safetensors', '*.json'])", hub, tmp_path)
    assert r.returncode == 0, r.stderr
    assert {x[2].split("/")[-1].split("?")[0] for x in hub.asked("")} & set(files) <= {"vocab.json", "consolidated.safetensors"}


def test_a_download_of_huggingface_hub_is_waited_for(huggingface_hub, hub, files, tmp_path):
    gate = threading.Event()
    hub.fault(Fault(SECOND, server="cdn", gate=gate))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(library, f"import huggingface_hub as h; h.snapshot_download('{NAME}', allow_patterns=['*.safetensors', '*.json'])", hub,
                             tmp_path)
        wait_for(lambda: hub.asked(SECOND, "cdn"))
        ours = pool.submit(run, hub, tmp_path)
        time.sleep(1.5)
        assert not ours.done()
        gate.set()
        assert "another process downloads model-00002" in good(ours.result()).log
        assert theirs.result().returncode == 0
    assert len(hub.asked(SECOND, "cdn")) == 1


# ---- ModelScope ----

SCOPE = ("--model-source", "modelscope")


def scope_folder(cache):
    return pathlib.Path(cache) / "ms" / "models" / NAME.replace("/", "--") / "snapshots" / "master"


def test_modelscope(hub, files, tmp_path):
    first = good(run(hub, tmp_path, *SCOPE))
    folder = scope_folder(tmp_path)
    assert {p.name for p in folder.iterdir()} == TEXT | weight_names(files) | {"model.safetensors.index.json"}
    assert all(p.read_bytes() == files[p.name] and not p.is_symlink() for p in folder.iterdir())
    assert all(x[2].startswith("/api/v1/models/") for x in hub.asked("", "hub"))
    hub.requests.clear()
    assert good(run(hub, tmp_path, *SCOPE)).out == first.out
    good(run(hub, tmp_path, *SCOPE, "--offline"))
    assert not hub.requests
    # a file of another version, and one that is missing: both are noticed when the hub is asked
    second = next(f for f in files if re.match(SECOND, f))
    (folder / second).write_bytes(b"?" * len(files[second]))
    (folder / "tokenizer.json").unlink()
    bad(run(hub, tmp_path, *SCOPE, "--offline"), 2, "tokenizer.json")
    good(run(hub, tmp_path, *SCOPE))
    assert (folder / second).read_bytes() == files[second]
    assert len(hub.asked("", "cdn")) == 1


def test_modelscope_faults(hub, files, tmp_path):
    bad(run(hub, tmp_path, *SCOPE, name="nobody/nothing"), 2, "nobody/nothing", "Model not found")
    bad(run(hub, tmp_path, *SCOPE, name="gpt2"), 2, "ORG/NAME")
    hub.token = "ms-1"
    hub.models[NAME]["gated"] = True
    bad(run(hub, tmp_path, *SCOPE), 2, "access denied", "MODELSCOPE_API_TOKEN")
    good(run(hub, tmp_path / "x", *SCOPE, MODELSCOPE_API_TOKEN="ms-1"))
    assert not any("ms-1" in str(x[3]) for x in hub.asked("", "cdn"))
    hub.models[NAME]["gated"] = False
    hub.fault(Fault(SECOND, server="cdn", flip=True, times=-1))
    bad(run(hub, tmp_path, *SCOPE), 1, "wrong checksum")
    assert not (scope_folder(tmp_path) / "config.json").exists()
    bad(run(hub, tmp_path, *SCOPE, "--offline"), 2, "lacks config.json")
    hub.faults.clear()
    hub.fault(Fault(SECOND, server="cdn", cut=100_000))
    good(run(hub, tmp_path, *SCOPE))
    assert hub.asked(SECOND, "cdn")[-1][3].get("Range") == "bytes=100000-"


def test_modelscope_hub_and_we_find_each_others_files(hub, files, tmp_path):
    pytest.importorskip("modelscope_hub", reason="the Python package modelscope_hub is not here: its cache is not compared with ours")
    code = f"from modelscope_hub.compat.snapshot_download import snapshot_download as s; print(s('{NAME}', allow_patterns=['*.json', 'model-*']))"
    r = library(code, hub, tmp_path / "theirs")
    assert r.returncode == 0 and r.stdout.strip() == str(scope_folder(tmp_path / "theirs")), r.stderr
    hub.requests.clear()
    good(run(hub, tmp_path / "theirs", *SCOPE))
    assert not hub.requests
    good(run(hub, tmp_path / "ours", *SCOPE))
    hub.requests.clear()
    assert library(code, hub, tmp_path / "ours").returncode == 0
    assert {x[2].split("FilePath=")[1] for x in hub.asked("FilePath=")} == {"vocab.json", "original%2Fparams.json"}
    # what one left half the other goes on with
    hub.fault(Fault(SECOND, server="cdn", cut=90_000, times=-1))
    assert library(code, hub, tmp_path / "half", MODELSCOPE_DOWNLOAD_MAX_RETRIES="0").returncode == 1
    hub.faults.clear()
    hub.requests.clear()
    good(run(hub, tmp_path / "half", *SCOPE))
    assert hub.asked(SECOND, "cdn")[0][3].get("Range", "").startswith("bytes=")


@pytest.mark.parametrize("where", ["models/meta-llama/Llama-3___1-8B-Instruct", "hub/models/meta-llama/Llama-3___1-8B-Instruct",
                                   "models/meta-llama--Llama-3.1-8B-Instruct/snapshots/main"])
def test_modelscope_folders_of_other_tools(hub, files, tmp_path, where):
    folder = tmp_path / "ms" / where
    folder.mkdir(parents=True)
    for f in TEXT | weight_names(files) | {"model.safetensors.index.json"}:
        (folder / f).write_bytes(files[f])
    good(run(hub, tmp_path, *SCOPE))
    assert not hub.requests
    bad(run(hub, tmp_path, *SCOPE, "--offline", "--revision", "v1"), 2, "forbids")


def test_modelscope_domain(hub, tmp_path):
    env = hub.env(tmp_path)
    env["MODELSCOPE_DOMAIN"] = env.pop("MODELSCOPE_ENDPOINT")
    r = subprocess.run(command(*SCOPE), env=env, capture_output=True, text=True, timeout=60)
    good(Ran(r))


# ---- ways to the hub ----

class _Proxy(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.seen.append(self.path)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("proxy-connection", "host")}

        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *args):
                return None

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Stay)
        try:
            answer = opener.open(urllib.request.Request(self.path, headers=headers), timeout=20)
        except urllib.error.HTTPError as e:
            answer = e
        body = answer.read()
        self.send_response(answer.status)
        for k, v in answer.headers.items():
            if k.lower() not in ("connection", "transfer-encoding"):
                self.send_header(k, v)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def proxy():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    server.seen = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_proxies(hub, proxy, tmp_path):
    good(run(hub, tmp_path / "a", http_proxy=proxy.url))
    assert len(proxy.seen) == len(hub.requests) > 5
    good(run(hub, tmp_path / "b", "--proxy", proxy.url))
    assert len(proxy.seen) == len(hub.requests)
    n = len(proxy.seen)
    good(run(hub, tmp_path / "c", http_proxy=proxy.url, no_proxy="127.0.0.1,127.0.0.2"))
    assert len(proxy.seen) == n


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / "key", "-out", folder / "cert", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return folder / "cert", folder / "key"


def test_tls(certificate, files, tmp_path):
    with Hub(tls=certificate) as hub:
        hub.add(NAME, files)
        bad(run(hub, tmp_path), 1, "certificate of localhost", "ca-certificates", "SSL_CERT_FILE")
        assert not hub.requests
        bad(run(hub, tmp_path, SSL_CERT_FILE="/nonexistent"), 1, "certificate|/nonexistent")
        good(run(hub, tmp_path, SSL_CERT_FILE=str(certificate[0])))
        bad(run(hub, tmp_path, "--hf-endpoint", hub.url.replace("localhost", "127.0.0.1"), "--ca-file", certificate[0], name="other/x"), 1, "certificate")
        # from https nobody may lead us to http
        hub.cdn_url = hub.cdn_url.replace("https", "http")
        bad(run(hub, tmp_path / "b", SSL_CERT_FILE=str(certificate[0])), 1, "not https")


# ---- what is shown ----

def test_log_lines_elsewhere(hub, tmp_path):
    log = good(run(hub, tmp_path)).log
    assert "\r" not in log and "\033" not in log
    assert re.search(r"INFO: looking for \S+ on 127.0.0.1:\d+\n", log)
    assert re.search(r"INFO: downloaded \S+: 10 files, 2\.\d+ MB came in [\d.]+ s, [\d.]+ [kM]B/s\n", log)
    assert "INFO: found" in good(run(hub, tmp_path)).log


def test_bars_on_a_terminal(hub, files, tmp_path):
    hub.fault(Fault("model-", server="cdn", rate=400_000, times=-1))
    master, slave = pty.openpty()
    p = subprocess.Popen(command(), env=hub.env(tmp_path), stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b""
    while True:
        ready, _, _ = select.select([master], [], [], 60)
        try:
            piece = os.read(master, 65536) if ready else b""
        except OSError:  # the other end is closed
            piece = b""
        if not piece:
            break
        shown += piece
    assert p.wait(60) == 0 and p.stdout.read()
    os.close(master)
    p.stdout.close()
    text = shown.decode()
    assert re.search(r"model-00001-of-\d+\.saf\S* +\d+ %  [\d.]+ .B of 655 kB  [\d.]+ .B/s  [\d.]+ s left", text)
    assert re.search(r"\n\d of \d+ files +\d+ %  [\d.]+ .B of 2\.\d+ MB  [\d.]+ .B/s  [\d.]+ s left", text)
    assert max(len(line) for line in re.split(r"\033\[\d*[A-Z]|[\r\n]", text) if "%" in line) <= 80
    assert any(line.startswith("INFO: looking for") for line in screen(text)) and not any("%" in line for line in screen(text))


def screen(text):
    """What a terminal shows in the end: enough of one to follow the bars."""
    lines, row, column = [""], 0, 0
    for m in re.finditer(r"\033\[(\d*)([A-Z])|(\r)|(\n)|([^\033\r\n]+)", text):
        if m[2] == "A":
            row -= int(m[1] or 1)
            assert row >= 0
        elif m[2] == "K":
            lines[row] = lines[row][:column]
        elif m[2] == "J":
            lines[row] = lines[row][:column]
            del lines[row + 1:]
        elif m[3]:
            column = 0
        elif m[4]:
            row += 1
            if row == len(lines):
                lines.append("")
        else:
            lines[row] = lines[row][:column] + m[5] + lines[row][column + len(m[5]):]
            column += len(m[5])
    return lines
