"""docs/distributed.md: every command on it runs as printed, with the words in the log that it shows. `python -m minisgl` is the package in
python/, `minisgl` the program; models come from the tests' own hub, tiny ones under the well-known names."""
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import PROGRAM, ROOT
from hub_server import Hub, tiny_model

PAGE = (ROOT / "docs" / "distributed.md").read_text()
MODELS = ("Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.1-405B-Instruct", "Qwen/Qwen3-32B")
SERVES = "python -m minisgl "


def commands():
    """All of ```sh blocks and of tables, in order, once each."""
    blocks = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines() if line.strip()]
    tables = re.findall(r"^\|.*\| `(python .*?)` \|$", PAGE, re.M)
    return list(dict.fromkeys(blocks + tables))


# What the page must show, whatever else it does.
WANTED = ['python -m minisgl --model "meta-llama/Llama-3.1-8B-Instruct" --tp 2', 'python -m minisgl --model "Qwen/Qwen3-32B" --tp 4',
          'python -m minisgl --model "meta-llama/Llama-3.1-405B-Instruct" --tp 8',
          *['python -m minisgl --model "meta-llama/Llama-3.1-70B-Instruct" --tp 4' + more for more in
            (" --port 30000", " --attn fa,fi", " --max-prefill-length 2048", " --cuda-graph-max-bs 256", " --page-size 16",
             " --model-source modelscope")],
          'NCCL_TIMEOUT=1800 python -m minisgl --model "meta-llama/Llama-3.1-70B-Instruct" --tp 4']


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The environment of a user: a hub that has the models, an empty cache, python and minisgl on the PATH."""
    base = tmp_path_factory.mktemp("page")
    (base / "bin").mkdir()
    (base / "bin" / "python").symlink_to(sys.executable)
    (base / "bin" / "minisgl").symlink_to(PROGRAM)
    with Hub() as hub:
        for name in MODELS:
            folder = tiny_model(name, base / name.replace("/", "-"))
            hub.add(name, {p.name: p.read_bytes() for p in folder.iterdir()})
        env = hub.env(base / "cache", PATH=f"{base / 'bin'}:{os.environ['PATH']}", PYTHONPATH=str(ROOT / "python"), PYTHONDONTWRITEBYTECODE="1")
        env.pop("LOG_LEVEL", None)
        yield env


def wait_for_port(port):
    """Printed commands use well-known ports: another program on this machine may hold one for a while."""
    for _ in range(60):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("0.0.0.0", port))
                return
            except OSError:
                time.sleep(1)
    pytest.skip(f"another program listens on port {port}, which the printed command uses")


def read_until(process, words, seconds):
    """The log up to the line with these words, or up to its end."""
    log, end, stream = b"", time.monotonic() + seconds, process.stderr.fileno()
    while words not in log and time.monotonic() < end:
        if select.select([stream], [], [], 0.5)[0]:
            more = os.read(stream, 65536)
            if not more:
                break
            log += more
    return log.decode()


def expected(n, port):
    """The page's log, for this degree and port, on this machine."""
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    first, *ranks, last = block.splitlines()
    assert [r.replace("/4", "/N") for r in ranks] == [f"INFO: Rank {i}/N ready" for i in range(4)]
    return [first.replace("4 GPUs", f"{n} CPU ranks"), *[f"INFO: Rank {i}/{n} ready" for i in range(n)], last.replace(":1919", f":{port}")]


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def need_mpi():
    if not shutil.which("mpirun") or not (ROOT / "build/minisgl_mpi.so").exists():
        pytest.skip("no mpirun, or built without MPI: several processes are not tested")


def first_process(mpirun):
    """The process of MPI rank 0 that this mpirun started."""
    for p in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int((p / "stat").read_text().rsplit(")", 1)[1].split()[1]) == mpirun and b"\0OMPI_COMM_WORLD_RANK=0\0" in (p / "environ").read_bytes():
                return int(p.name)
        except OSError:
            pass
    raise AssertionError("mpirun has no process of rank 0")


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("mpirun ")])
def test_several_processes_start_as_printed(command, world):
    """But for the hosts, which are this one twice, and its network."""
    need_mpi()
    here = command.replace("--host node1,node2", "--host localhost:2").replace("10.0.0.0/24", "lo")
    process, log, port = serve(here, {**world, **AS_ROOT})
    n = int(re.search(r"--tp (\d)", command).group(1))
    os.kill(first_process(process.pid), signal.SIGTERM)
    rest = process.stderr.read().decode()
    assert process.wait(60) == 0, log + rest
    assert [line for line in log.splitlines() if line in expected(n, port)] == expected(n, port), log


def test_the_page_has_the_commands():
    assert set(WANTED) <= set(commands())


def serve(command, world):
    port = int((re.findall(r"--port (\d+)", command) or [1919])[0])
    wait_for_port(port)
    process = subprocess.Popen(["sh", "-c", f"exec env {command}" if command[0].isupper() else f"exec {command}"], env=world, cwd=ROOT,
                               stderr=subprocess.PIPE)
    log = read_until(process, b"ready to serve on 0.0.0.0:%d" % port, 90)
    return process, log, port


@pytest.mark.parametrize("command", [c for c in commands() if SERVES in c and "mpirun" not in c and "--log-format json" not in c])
def test_servers_start_as_printed(command, world):
    process, log, port = serve(command, world)
    try:
        n = int(re.search(r"--tp (\d)", command).group(1))
        lines = [line for line in log.splitlines() if line in expected(n, port)]
        assert lines == expected(n, port), log
        for option, shown in (("--attn", "attention-backend"), ("--cuda-graph-max-bs", "cuda-graph-max-bs")):
            assert (f"INFO: --{shown} matters on GPUs only" in log) == (option in command), log
        (ask,) = [c for c in commands() if c.startswith("curl ")]
        if port == 1919 and shutil.which("curl"):
            answer = subprocess.run(["sh", "-c", ask], env=world, capture_output=True, text=True, timeout=60)
            assert '"choices"' in answer.stdout, answer.stdout + answer.stderr + log
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    if "modelscope" in command:
        assert any((pathlib.Path(world["MODELSCOPE_CACHE"])).rglob("*.safetensors"))


@pytest.mark.parametrize("command", [c for c in commands() if "--log-format json" in c])
def test_logs_for_programs(command, world):
    import json
    process, log, _ = serve(command, world)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"INFO", "DEBUG"} <= {x["level"] for x in lines}
    assert "Rank 3/4 ready" in [x["message"] for x in lines]


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("minisgl doctor")])
def test_doctor_as_printed(command, world):
    r = subprocess.run(["sh", "-c", command], env=world, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0 and "--tp 8" in r.stdout, r.stderr


def test_every_command_is_run_by_a_test():
    kinds = (SERVES, "minisgl doctor", "curl ", "mpirun ")
    assert [c for c in commands() if not any(k in c for k in kinds)] == []


# How each sentence of the page's last table comes about; in the order of the table.
TROUBLES = {
    "the model can be split over": ["--tp", "3"],
    "cannot be split evenly": ["--tp", "8", "--model", "tests/model/fixtures/llama"],
    "the model does not fit": ["--tp", "2", "--model", "Qwen/Qwen3-32B", "--dummy-weight", "--memory-ratio", "0.01"],
    "sequences are limited to that": ["--tp", "2", "--num-pages", "4"],
    "CUDA is not to be had here": ["--device", "cuda"],
    "did not come to step": ["--tp", "4", "--comm-timeout", "2", "--fault", "1:3:hang"],
    "ended in step": ["--tp", "4", "--fault", "1:3:exit"],
    "processes for --tp": ["--tp", "1"],
    "with a batch of checksum": ["--tp", "4", "--fault", "2:3:differ"],
}


def quoted():
    return re.findall(r"^\| `([^`]*)` \|.*\|.*\|$", PAGE.split("## When something goes wrong")[1], re.M)


def sounds_like(sentence, log):
    """Numbers may be others, and ... stands for anything."""
    pattern = re.sub(r"\d+", r"[\\d.]+", re.escape(sentence).replace(r"\.\.\.", ".*"))
    return re.search(pattern, log)


@pytest.mark.parametrize("part", TROUBLES)
def test_troubles_are_said_as_the_page_says(part):
    (sentence,) = [q for q in quoted() if part in q]
    faults = ROOT / "build" / "minisgl-faults"
    program = faults if "--fault" in TROUBLES[part] else PROGRAM
    if program == faults and not faults.exists():
        pytest.skip("build/minisgl-faults is not built (make build/minisgl-faults)")
    before = []
    if "processes" in part:
        need_mpi()
        before = ["mpirun", "--oversubscribe", "-np", "2"]
    r = subprocess.run([*before, program, "generate", *TROUBLES[part], "How do I use four GPUs?"], cwd=ROOT, capture_output=True, text=True,
                       timeout=60, env={**os.environ, **AS_ROOT})
    if part == "CUDA is not to be had here" and r.returncode == 0:
        pytest.skip("CUDA is to be had here")
    assert sounds_like(sentence, r.stderr), r.stderr
    assert r.returncode == (0 if "limited" in part else 1 if "--fault" in TROUBLES[part] else 2)


def test_a_port_in_use_is_said_as_the_page_says():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = subprocess.run([PROGRAM, "--host", "127.0.0.1", "--port", str(port)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (sentence,) = [q for q in quoted() if "is in use" in q]
    assert r.returncode in (1, 2) and sounds_like(sentence, r.stderr), r.stderr


NCCL = ("NCCL needs a GPU for each", "NCCL is not to be had", "waited 60 s for step")


def test_every_trouble_of_the_page_is_made_by_a_test():
    elsewhere = ("is in use", "minisgl_mpi.so is not in", "runs minisgl", "sent nothing within",
                 "an exchange on the GPU", "cannot read the memory of GPU", *NCCL)  # above, in test_hosts.py and test_mpi.c, or on GPUs
    assert [q for q in quoted() if not any(part in q for part in (*TROUBLES, *elsewhere))] == []


@pytest.mark.parametrize("part", ["minisgl_mpi.so is not in", "runs minisgl", "sent nothing within", "an exchange on the GPU",
                                  "cannot read the memory of GPU", *NCCL])
def test_other_quoted_sentences_stand_in_the_sources(part):
    (sentence,) = [q for q in quoted() if part in q]
    text = re.sub(r'"\s*"', "", "".join(p.read_text() for p in (ROOT / "src").rglob("*.c")))
    for words in re.split(r"\.\.\.|\d+", sentence):
        assert words.strip(" ,") in text, words
