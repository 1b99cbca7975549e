"""A model split over several processes that mpirun starts, as over hosts: the same bytes, and an end with a sentence when one dies, stops
or is cut off. Two hosts are two network namespaces joined by a virtual cable, where this machine lets us make them."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "minisgl"
pytestmark = pytest.mark.skipif(not shutil.which("mpirun") or not (ROOT / "build/minisgl_mpi.so").exists(),
                                reason="no mpirun, or built without MPI: several processes are not tested")
ENV = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
REQUESTS = "".join(json.dumps(r) + "\n" for r in [
    {"messages": [{"role": "user", "content": "How do I use four GPUs?"}], "temperature": 0, "logprobs": 3},
    {"messages": [{"role": "user", "content": "Which port is it?"}], "temperature": 0.8, "top_p": 0.9, "seed": 7, "max_tokens": 30},
])


def mpirun(n, *args, before=()):
    return ["mpirun", "--oversubscribe", *before, "-np", str(n), str(PROGRAM), *map(str, args)]


@pytest.fixture(scope="module")
def alone():
    return subprocess.run([PROGRAM, "generate"], cwd=ROOT, input=REQUESTS, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("processes, tp", [(2, 2), (2, 4), (4, 4)])
def test_the_same_bytes_from_several_processes(alone, processes, tp):
    r = subprocess.run(mpirun(processes, "generate", "--tp", tp), cwd=ROOT, env=ENV, input=REQUESTS, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    assert r.stdout == alone
    for i in range(tp):
        assert f"Rank {i}/{tp} ready" in r.stderr


def test_processes_that_do_not_divide_the_ranks():
    r = subprocess.run(mpirun(2, "generate", "--tp", 1, "hi"), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=60)
    assert r.returncode != 0 and "mpirun started 2 processes for --tp 1" in r.stderr


def minisgl_children(pid):
    """The program's processes below mpirun's, in order of their MPI rank."""
    found = {}
    for p in pathlib.Path("/proc").iterdir():
        if not p.name.isdigit():
            continue
        try:
            if (p / "cmdline").read_bytes().split(b"\0")[0] != str(PROGRAM).encode():
                continue
            env = (p / "environ").read_bytes().split(b"\0")
            stat = (p / "stat").read_text()
        except OSError:
            continue
        rank = [e for e in env if e.startswith(b"OMPI_COMM_WORLD_RANK=")]
        if rank and belongs(int(p.name), pid):
            found[int(rank[0].split(b"=")[1])] = int(p.name)
    return [found[r] for r in sorted(found)]


def belongs(pid, ancestor):
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


class Run:
    """A server in two processes."""

    def __init__(self, *args, before=(), url_host="127.0.0.1", wrap=()):
        self.process = subprocess.Popen([*wrap, *mpirun(2, "--tp", 2, "--host", url_host, "--port", 0, "--comm-timeout", 2, *args,
                                                        before=before)],
                                        cwd=ROOT, env=ENV, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if m := re.search(r"ready to serve on \S+:(\d+)", line):
                self.url = f"http://{url_host}:{m.group(1)}"
                break
        else:
            raise AssertionError("".join(self.log))
        self.pids = minisgl_children(self.process.pid)
        assert len(self.pids) == 2

    def end(self):
        """All output until mpirun ends; nothing may be left of the run."""
        rest = self.process.communicate(timeout=30)[1]
        for pid in self.pids:
            for _ in range(100):
                if not pathlib.Path(f"/proc/{pid}").exists():
                    break
                time.sleep(0.05)
            else:
                raise AssertionError(f"process {pid} is left")
        return "".join(self.log) + rest


QUESTION = {"messages": [{"role": "user", "content": "Which port?"}], "temperature": 0}


def test_a_server_of_two_processes_answers_and_drains():
    run = Run()
    for _ in range(2):
        r = httpx.post(run.url + "/v1/chat/completions", json=QUESTION, timeout=30)
        assert "1919" in r.json()["choices"][0]["message"]["content"]
        time.sleep(1.2)  # idle: signs of life
    os.kill(run.pids[0], signal.SIGTERM)
    log = run.end()
    assert run.process.returncode == 0, log
    assert "ERROR" not in log


@pytest.mark.parametrize("who", [0, 1])
def test_a_process_that_is_killed_ends_the_run(who):
    run = Run()
    start = time.monotonic()
    os.kill(run.pids[who], signal.SIGKILL)
    log = run.end()
    assert run.process.returncode != 0
    assert time.monotonic() - start < 15
    assert not list(pathlib.Path("/dev/shm").glob("minisgl*"))


@pytest.mark.parametrize("who, says", [(0, "process 0 sent nothing within 2 s"), (1, "process 1 sent nothing within 2 s")])
def test_a_process_that_stops_ends_the_run(who, says):
    run = Run()
    os.kill(run.pids[who], signal.SIGSTOP)
    start = time.monotonic()
    log = run.end()
    assert run.process.returncode != 0
    assert says in log, log
    assert time.monotonic() - start < 25


# ---- two hosts ----

def ip(*args, ok=True):
    r = subprocess.run(["ip", *args], capture_output=True, text=True)
    if ok and r.returncode:
        pytest.skip(f"no network namespaces can be made here (ip {' '.join(args)}: {r.stderr.strip()}): two hosts are not tested")


def end_all(*namespaces):
    for ns in namespaces:
        for pid in subprocess.run(["ip", "netns", "pids", ns], capture_output=True, text=True).stdout.split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.fixture
def two_hosts(tmp_path):
    """Namespaces a and b, joined by a cable; what mpirun needs to start processes in both. (name of a, end of the cable, mpirun's options)"""
    if not shutil.which("ip"):
        pytest.skip("no ip command: two hosts are not tested")
    tag = str(os.getpid() % 10000)
    a, b, va, vb = "msA" + tag, "msB" + tag, "msva" + tag, "msvb" + tag
    ip("netns", "add", a)
    ip("netns", "add", b)
    try:
        ip("link", "add", va, "type", "veth", "peer", "name", vb)
        for ns, v, addr in ((a, va, "10.98.0.1/24"), (b, vb, "10.98.0.2/24")):
            ip("link", "set", v, "netns", ns)
            ip("-n", ns, "addr", "add", addr, "dev", v)
            ip("-n", ns, "link", "set", v, "up")
            ip("-n", ns, "link", "set", "lo", "up")
        agent = tmp_path / "agent"
        agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {b} /bin/sh -c "$*"\n')
        agent.chmod(0o755)
        net = "10.98.0.0/24"
        yield a, va, ("--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", net,
                      "--mca", "oob_tcp_if_include", net, "--host", "10.98.0.1:1,10.98.0.2:1"), (a, b)
    finally:
        for ns in (a, b):
            end_all(ns)
            ip("netns", "del", ns, ok=False)


def test_two_hosts_give_the_same_bytes(alone, two_hosts):
    a, _, options, _ = two_hosts
    r = subprocess.run(["ip", "netns", "exec", a, *mpirun(2, "generate", "--tp", 2, before=options)], cwd=ROOT, env=ENV, input=REQUESTS,
                       capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stderr
    assert r.stdout == alone


@pytest.mark.parametrize("busy", [False, True])
def test_a_pulled_cable_ends_both_hosts(two_hosts, busy):
    a, cable, options, both = two_hosts
    run = Run("--api-key", "k", before=options, url_host="10.98.0.1", wrap=("ip", "netns", "exec", a))
    client = None
    if busy:
        body = json.dumps({"prompt": "minisgl", "max_tokens": 900, "ignore_eos": True, "stream": True})
        client = subprocess.Popen(["ip", "netns", "exec", a, "curl", "-sN", run.url + "/v1/completions", "-H", "Authorization: Bearer k", "-H",
                                   "Content-Type: application/json", "-d", body], stdout=subprocess.PIPE, text=True)
        assert client.stdout.readline()  # it streams
    ip("-n", a, "link", "set", cable, "down")
    start = time.monotonic()
    while any(pathlib.Path(f"/proc/{pid}").exists() and "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in run.pids):
        assert time.monotonic() - start < 20, "a process is left"
        time.sleep(0.1)
    end_all(*both)  # mpirun itself may wait for its daemon on the other host, longer than we do
    log = "".join(run.log) + run.process.communicate(timeout=20)[1]
    assert "process 1 " in log and "within 2 s" in log, log
    if client:
        client.kill()
