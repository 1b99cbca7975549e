"""A server for a test module: build/minisgl on a free port, ended with SIGTERM, which must drain and exit 0."""
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# MINISGL_TEST_PROGRAM: another build, such as build/tsan/minisgl.
PROGRAM = pathlib.Path(os.environ.get("MINISGL_TEST_PROGRAM") or ROOT / "build" / "minisgl").resolve()


os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the real hub


class Server:
    def __init__(self, *options, program=PROGRAM):
        self.log = []
        self.process = subprocess.Popen([program, "--host", "127.0.0.1", "--port", "0", *map(str, options)], cwd=ROOT,
                                        stderr=subprocess.PIPE, text=True)
        self.port = None
        self._ready = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        assert self._ready.wait(60), "".join(self.log)
        self.url = f"http://127.0.0.1:{self.port}"

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            if m := re.search(r"API server is ready to serve on \S+:(\d+)", line):
                self.port = int(m.group(1))
                self._ready.set()
        self._ready.set()

    def post(self, path, body, **more):
        return httpx.post(self.url + path, json=body, timeout=60, **more)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture(scope="session")
def server():
    """The built-in model."""
    s = Server()
    yield s
    assert s.stop() == 0, "".join(s.log)


@pytest.fixture
def start():
    """Start servers with options of one's own; all are stopped at the end."""
    running = []

    def make(*options, **more):
        running.append(Server(*options, **more))
        return running[-1]

    yield make
    for s in running:
        if s.process.poll() is None:
            s.process.kill()
            s.process.wait()
