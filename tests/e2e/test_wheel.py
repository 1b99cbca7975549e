"""`pip install .` in a fresh environment, without the network: `python -m minisgl` and `minisgl` are the program."""
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import PROGRAM, ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    base = tmp_path_factory.mktemp("wheel")
    r = subprocess.run([sys.executable, "-m", "venv", base / "venv"], capture_output=True, text=True)
    if r.returncode or not (base / "venv/bin/pip").exists():
        pytest.skip("python -m venv makes no environment with pip here (Debian: apt-get install python3-venv)")
    if PROGRAM != ROOT / "build" / "minisgl":
        pytest.skip("the wheel carries build/minisgl; another build is tested")
    r = subprocess.run([base / "venv/bin/pip", "install", "--no-index", "--disable-pip-version-check", "."], cwd=ROOT, capture_output=True,
                       text=True, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr
    return base / "venv/bin"


def test_python_m_minisgl_is_the_program(installed, tmp_path):
    for command in ([installed / "python", "-m", "minisgl"], [installed / "minisgl"]):
        r = subprocess.run([*command, "--version"], cwd=tmp_path, capture_output=True, text=True)
        assert (r.returncode, r.stderr) == (0, "") and re.fullmatch(r"minisgl \d+\.\d+\.\d+\n", r.stdout)
        r = subprocess.run([*command, "generate", "Which port does the server use?", "--log-level", "error"], cwd=tmp_path, capture_output=True, text=True)
        assert r.returncode == 0 and "1919" in r.stdout, r.stderr
        r = subprocess.run([*command, "--port", "70000"], cwd=tmp_path, capture_output=True, text=True)
        assert r.returncode == 2 and "70000" in r.stderr
        r = subprocess.run([*command, "doctor", "--json", "--model", "Qwen/Qwen3-32B"], cwd=tmp_path, capture_output=True, text=True)
        assert r.returncode == 0 and json.loads(r.stdout)["model"]["layers"] == 64, r.stderr


def test_signals_reach_the_program(installed, tmp_path):
    process = subprocess.Popen([installed / "python", "-m", "minisgl", "--port", "0", "--host", "127.0.0.1"], cwd=tmp_path,
                               stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "ready to serve" in line:
            break
    assert os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) == "minisgl"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_from_the_source_tree_without_installing(tmp_path):
    if PROGRAM != ROOT / "build" / "minisgl":
        pytest.skip("another build is tested")
    r = subprocess.run([sys.executable, "-m", "minisgl", "version"], cwd=tmp_path, capture_output=True, text=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    assert r.returncode == 0 and r.stdout.startswith("minisgl ")
