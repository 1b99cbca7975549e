"""What the checks share: running the program, reading its answers, a server, and the table of results."""
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
CHECKS = []


class Failure(Exception):
    """A check that did not hold; its text goes into the table."""


class Skip(Exception):
    """A check that cannot be made here; its text says why."""


def check(name, quick=False):
    """Register a check. Its function gets the context and returns a line for the table."""
    def add(function):
        CHECKS.append((name, quick, function))
        return function
    return add


def need(condition, text):
    if not condition:
        raise Failure(text)


class Context:
    """program: the build under test; device: cuda, or cpu to try these scripts where there is no GPU."""

    def __init__(self, build, device, quick):
        self.program, self.faults = build / "minisgl", build / "minisgl-faults"
        self.device, self.quick = device, quick
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="minisgl-gpu-"))
        self.lines = []  # what a check has to say beside its line in the table
        self.results = {}  # figures by name, for --json

    def say(self, line):
        self.lines.append(line)

    def ranks(self, n):
        """Options for n ranks on the first GPU."""
        if n == 1:
            return []
        return ["--tp", str(n), "--comm-timeout", "20"] + (["--devices", ",".join(["0"] * n)] if self.device == "cuda" else [])

    def run(self, *args, program=None, stdin=None, timeout=120, code=0, prefix=()):
        """Run a subcommand to its end. Exit code other than expected: Failure with the last line of its log. code None: any."""
        command = [*prefix, program or self.program, *map(str, args)]
        try:
            r = subprocess.run(list(map(str, command)), cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"`{' '.join(map(str, args[:6]))} ...` was not done after {timeout} s")
        if code is not None and r.returncode != code:
            last = [line for line in (r.stderr + r.stdout).splitlines() if "ERROR" in line or "FAILED" in line] or (r.stderr or r.stdout).splitlines()[-2:]
            raise Failure(f"exit code {r.returncode} of `{' '.join(map(str, args[:8]))}`: {' '.join(last[:2])[:300]}")
        return r

    def generate(self, model, requests, *options, device=None, timeout=120, program=None, code=0):
        """The answers (dicts) to requests, and the log."""
        text = "".join(json.dumps(q) + "\n" for q in requests)
        r = self.run("generate", "--model", model, "--device", device or self.device, *options, stdin=text, timeout=timeout, program=program, code=code)
        return [json.loads(line) for line in r.stdout.splitlines()], r.stderr

    def fixture(self, config, dtype="bfloat16", layers=None):
        """A checkpoint of random weights for tests/gpu/configs/CONFIG.json; layers: so many of them."""
        name = f"{config}-{dtype}" + (f"-{layers}" if layers else "")
        source, out = self.tmp / f"config-{name}", self.tmp / name
        if not out.exists():
            source.mkdir(exist_ok=True)
            shape = json.loads((HERE / "configs" / f"{config}.json").read_text())
            shape["num_hidden_layers"] = layers or shape["num_hidden_layers"]
            (source / "config.json").write_text(json.dumps({**shape, "torch_dtype": dtype}))
            self.run("dummy", "--model", source, "--out", out)
        return out


def ids(answers):
    return [a.get("token_ids") for a in answers]


def equal(a, b):
    return sum(x == y and x is not None for x, y in zip(ids(a), ids(b)))


def tokens_per_second(log):
    m = re.search(r"\(([\d.]+) tokens/s\)", log)
    if not m:
        raise Failure("the log has no tokens/s: " + log[-200:])
    return float(m.group(1))


class Server:
    """minisgl serve on a free port; leaves by SIGTERM, which must drain and exit 0."""

    def __init__(self, ctx, *options, timeout=120, env=None):
        self.start, self.log = time.monotonic(), []
        self.process = subprocess.Popen([str(ctx.program), "serve", "--host", "127.0.0.1", "--port", "0", "--device", ctx.device, *map(str, options)],
                                        cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
        self.port, self.ready = None, threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self.ready.wait(timeout) or self.port is None:
            self.process.kill()
            self.process.wait()
            raise Failure("the server did not start: " + " ".join([line.strip() for line in self.log if "ERROR" in line] or self.log[-2:])[:400])
        self.seconds = time.monotonic() - self.start

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            if m := re.search(r"ready to serve on \S+:(\d+)", line):
                self.port = int(m.group(1))
                self.ready.set()
        self.ready.set()

    def logged(self, pattern):
        m = re.search(pattern, "".join(self.log))
        return m.group(1) if m else None

    def stop(self, timeout=30):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def gpu_name():
    try:
        r = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return r.stdout.splitlines()[0].strip() if r.returncode == 0 and r.stdout.strip() else None


def which(name):
    for folder in os.environ.get("PATH", "").split(":") + ["/usr/local/cuda/bin"]:
        path = pathlib.Path(folder) / name
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None
