"""tests/gpu/run where there is no GPU: it skips and says why; and what it reads from other tools is read rightly."""
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/gpu"), str(ROOT / "bench")]
import right     # noqa: E402
import roofline  # noqa: E402
import speed     # noqa: E402


def run(*args):
    return subprocess.run([ROOT / "tests/gpu/run", *args], capture_output=True, text=True, timeout=300)


def test_no_gpu_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin" if not pathlib.Path("/usr/bin/nvidia-smi").exists() else str(pathlib.Path(sys.executable).parent))
    r = run("--quick")
    assert r.returncode == 0 and r.stdout.startswith("skipped, the checks of the CUDA backend: "), r.stdout + r.stderr
    assert r.stdout.count("\n") == 1


def test_checks_fail_where_something_is_wrong(tmp_path):
    """A program that cannot even start: the check fails, the exit code says so."""
    (tmp_path / "minisgl").symlink_to("/bin/false")
    r = run("--device", "cpu", "--build", str(tmp_path), "--only", "operators")
    assert r.returncode == 1 and "FAIL" in r.stdout and "0 passed, 1 failed" in r.stdout


def test_a_check_passes_on_the_cpu():
    r = run("--device", "cpu", "--only", "greedy texts", "--quick")
    assert r.returncode == 0 and "1 passed, 0 failed" in r.stdout, r.stdout


MEMCHECK = """========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at fi_kernel<128>(tabs, att_args)+0x150 in att.cu:33
=========     by thread (0,0,0) in block (0,0,0)
=========
========= Error: Race reported between Write access at nvjet_sm90_tst_64x8_64x16_1x1_v_bz_TNT+0x2110
=========     and Read access at nvjet_sm90_tst_64x8_64x16_1x1_v_bz_TNT+0x2340 [128 hazards]
=========
========= ERROR SUMMARY: 2 errors
"""


def test_findings_of_the_sanitizer():
    ours, theirs = right.findings(MEMCHECK, "racecheck")
    assert len(ours) == 1 and "fi_kernel" in ours[0]
    assert len(theirs) == 1 and "nvjet_sm90" in theirs.pop()
    assert len(right.findings(MEMCHECK, "memcheck")[0]) == 2
    for where, mine in (("libnccl.so.2", 0), ("minisgl_cuda.so", 1)):  # a call that fails: NCCL's own tries are not ours
        text = f"""========= COMPUTE-SANITIZER
========= Program hit cudaErrorNoKernelImageForDevice (error 209) on CUDA API call to cudaFuncGetAttributes.
=========     Saved host backtrace up to driver entry point at error
=========         Host Frame: first(int, int) in a.cc:52 [0x6d9d3] in {where}
=========         Host Frame:  [0x3ec94] in minisgl_cuda.so
=========
========= ERROR SUMMARY: 1 error
"""
        assert len(right.findings(text, "memcheck")[0]) == mine
    assert right.findings("========= COMPUTE-SANITIZER\n========= ERROR SUMMARY: 0 errors\n", "memcheck") == ([], set())


NCU = '''==PROF== Connected
"ID","Kernel Name","Metric Unit","Metric Value"
"0","void norm_kernel<(dtype)1>(tabs, norm_args)","ns","4,000"
"1","begin_kernel(tabs, step_dims)","ns","2,000"
"2","void fi_kernel<128, 8>(tabs, att_args)","us","100.5"
"3","begin_kernel(tabs, step_dims)","ns","2,500"
'''


def test_steps_of_a_profile():
    assert speed.steps_of(NCU) == [[("begin_kernel", 2.0), ("fi_kernel<128, 8>", 100.5)]]


@pytest.mark.parametrize("model, limit", [("Qwen3-0.6B", 36117), ("Qwen3-14B", 8059)])
def test_roofline(model, limit):
    prompts, answers = roofline.mix()
    assert (len(prompts), sum(map(len, prompts)), sum(answers)) == (256, 142827, 133966)
    assert round(roofline.offline(roofline.Shape(f"models/Qwen/{model}"), roofline.Gpu(4.3e12, 790e12))) == limit
