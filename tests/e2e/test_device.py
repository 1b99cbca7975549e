"""Which device the program takes where CUDA is not to be had, and what it says: one line why it computes on the CPU, an error for --device cuda. The
driver's library and the backend are made up."""
import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import PROGRAM, ROOT

BACKEND = """#include <stdio.h>
const struct { unsigned abi; const char *build_id; void *rest[32]; } maker = {1, "another"};
const void *minisgl_device(char *why, size_t n) { %s }
"""
CASES = [  # the driver's library, the backend, what is said
    (None, None, "no NVIDIA driver is installed"),
    ("int cuInit(unsigned f) { return f; }", None, "minisgl_cuda.so is not beside the program (`make cuda` builds it)"),
    ("int cuInit(unsigned f) { return f; }", "int something;", "minisgl_cuda.so is no device backend"),
    ("int cuInit(unsigned f) { return f; }", BACKEND % 'snprintf(why, n, "the GPU is asleep"); return NULL;', "the GPU is asleep"),
    ("int cuInit(unsigned f) { return f; }", BACKEND % "(void)why, (void)n; return &maker;", "minisgl_cuda.so was built from other sources (ABI 1, build another)"),
]


def library(path, source):
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=source, text=True, check=True)


@pytest.fixture
def answer(tmp_path):
    """Run a copy of the program, beside which a backend may lie."""
    def run(device, driver, backend):
        shutil.copy(PROGRAM, tmp_path / "minisgl")
        (tmp_path / "lib").mkdir(exist_ok=True)
        if driver:
            library(tmp_path / "lib" / "libcuda.so.1", driver)
        if backend:
            library(tmp_path / "minisgl_cuda.so", backend)
        path = f"{tmp_path}/lib:{os.environ.get('LD_LIBRARY_PATH', '')}"
        return subprocess.run([tmp_path / "minisgl", "generate", "--model", ROOT / "models/builtin", "--device", device, "hi"], capture_output=True, text=True,
                              timeout=60, env={**os.environ, "LD_LIBRARY_PATH": path})
    return run


@pytest.mark.parametrize("driver, backend, says", CASES)
def test_why_it_computes_on_the_cpu(answer, driver, backend, says):
    if not driver and any(pathlib.Path(f).exists() for f in ("/dev/nvidiactl", "/usr/lib/x86_64-linux-gnu/libcuda.so.1")):
        pytest.skip("a driver is installed here")
    r = answer("auto", driver, backend)
    lines = [line for line in r.stderr.splitlines() if "computing on the CPU: " in line]
    assert r.returncode == 0 and r.stdout.strip() and len(lines) == 1 and says in lines[0], r.stderr
    r = answer("cuda", driver, backend)
    errors = [line for line in r.stderr.splitlines() if line.startswith("ERROR: ")]
    assert r.returncode == 2 and not r.stdout and len(errors) == 1 and says in errors[0], r.stderr
