"""`minisgl doctor`: the shape of its JSON, the page, and what it makes of GPUs that a made-up driver library shows it."""
import json
import os
import shutil
import subprocess

import pytest
from conftest import PROGRAM, ROOT

TEXT, SIZE, REAL, BOOL = str, int, float, bool


def optional(shape):
    return ("optional", shape)


def each(shape):
    return ("each", shape)


GPU = {"name": optional(TEXT), "uuid": optional(TEXT), "bus": optional(TEXT), "memory": SIZE, "free": SIZE,
       "compute_capability": optional(TEXT), "pcie_generation": optional(SIZE), "pcie_width": optional(SIZE), "nvlinks": SIZE,
       "mig": BOOL, "n_processes": SIZE, "processes": each({"pid": SIZE, "name": optional(TEXT), "memory": optional(SIZE)}),
       "trouble": optional(TEXT)}
DEGREE = {"tp": SIZE, "divides": BOOL, "fits": BOOL, "why": optional(TEXT)}
COUNTED = {"weights": SIZE, "kv": SIZE, "buffers": SIZE, "needed": SIZE, "had": SIZE, "longest_sequence": SIZE,
           "tokens_per_second_at_most": optional(REAL)}
REPORT = {
    "version": TEXT,
    "gpus": {"count": SIZE, "why_none": optional(TEXT), "driver": optional(TEXT), "cuda_of_driver": optional(TEXT),
             "cuda_built_for": optional(TEXT), "cuda_fits": optional(BOOL), "all_nvlink": optional(BOOL), "list": each(GPU),
             "topology": each(each({"way": TEXT, "peer_access": BOOL})),
             "libraries": each({"name": TEXT, "found": BOOL, "version": optional(TEXT), "path": optional(TEXT), "why": optional(TEXT)})},
    "cpu": {"model": optional(TEXT), "online": SIZE, "allowed": SIZE, "sockets": optional(SIZE), "threads_per_core": optional(SIZE),
            "quota": optional(REAL), "kernels": TEXT,
            "numa": each({"id": SIZE, "processors": TEXT, "memory": SIZE, "free": SIZE})},
    "memory": {"total": SIZE, "available": SIZE, "group_limit": optional(SIZE), "group_used": optional(SIZE), "left": SIZE,
               "bandwidth": optional({"threads": SIZE, "bytes": SIZE, "read": REAL, "copy": REAL})},
    "device": TEXT, "why_cpu": optional(TEXT),
    "all_reduce": optional({"ranks": SIZE, "small": SIZE, "small_seconds": REAL, "large": SIZE, "large_seconds": REAL}),
    "mpi": {"found": BOOL, "version": optional(TEXT)},
    "model": {"name": TEXT, "architecture": TEXT, "layers": SIZE, "dtype": TEXT, "kv_cache_dtype": TEXT, "longest_sequence": SIZE, "ranks_on": TEXT,
              "degrees": each(lambda x: {**DEGREE, **(COUNTED if x["divides"] else {})})},
    "advice": each(TEXT),
}


def check(value, shape, at="report"):
    if callable(shape) and not isinstance(shape, type):
        shape = shape(value)
    if isinstance(shape, dict):
        assert isinstance(value, dict) and set(value) == set(shape), f"{at}: {sorted(set(value) ^ set(shape))}"
        for key in shape:
            check(value[key], shape[key], f"{at}.{key}")
    elif isinstance(shape, tuple) and shape[0] == "optional":
        if value is not None:
            check(value, shape[1], at)
    elif isinstance(shape, tuple):
        assert isinstance(value, list), at
        for i, v in enumerate(value):
            check(v, shape[1], f"{at}[{i}]")
    else:
        assert type(value) is shape, f"{at}: {value!r}"
        assert not isinstance(value, (int, float)) or value >= 0, f"{at}: {value}"


def doctor(*args, env={}):
    r = subprocess.run([PROGRAM, "doctor", *map(str, args)], capture_output=True, text=True, cwd=ROOT, timeout=60,
                       env={**os.environ, **{k: str(v) for k, v in env.items()}})
    assert r.returncode == 0, r.stderr
    return r.stdout


def report(*args, **more):
    j = json.loads(doctor("--json", *args, **more))
    check(j, REPORT)
    return j


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """Folders with a made-up libnvidia-ml.so.1: whole, as of an old driver, and one that lacks what is needed."""
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler to make the driver library with")
    base = tmp_path_factory.mktemp("driver")
    for name, source, flags in (("new", "tests/e2e/fake_nvml.c", []), ("old", "tests/e2e/fake_nvml.c", ["-DOLD"]), ("empty", None, [])):
        (base / name).mkdir()
        if source is None:
            source = base / "empty.c"
            source.write_text("int nvmlInit_v2(void);\nint nvmlInit_v2(void) { return 0; }\n")
        subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", *flags, "-o", base / name / "libnvidia-ml.so.1", source], check=True,
                       cwd=ROOT)

    def env(kind="new", **fake):
        return {"LD_LIBRARY_PATH": base / kind, **{f"FAKE_{k.upper()}": v for k, v in fake.items()}}
    return env


def test_without_a_gpu_it_says_so_and_counts_for_the_cpu():
    j = report()
    if j["gpus"]["count"]:
        pytest.skip("this machine has GPUs")
    assert j["gpus"]["why_none"] and j["model"]["ranks_on"] == "cpu" and j["cpu"]["allowed"] >= 1
    assert [d["tp"] for d in j["model"]["degrees"]] == [1, 2, 4, 8]
    one = j["model"]["degrees"][0]
    assert one["fits"] and one["needed"] == one["weights"] + one["kv"] + one["buffers"] <= one["had"]
    assert one["longest_sequence"] == j["model"]["longest_sequence"] == 1024
    if j["memory"]["bandwidth"]:
        assert j["memory"]["bandwidth"]["read"] > 1e8
    page = doctor()
    assert "everything runs on the CPU" in page and "--tp 8" in page and j["cpu"]["kernels"] in page


def test_libraries_of_the_cuda_backend_are_named(driver, tmp_path):
    if not (ROOT / "build/minisgl_cuda.so").exists():
        pytest.skip("the CUDA backend is not built")
    asked = ("ncclGetUniqueId", "ncclCommInitRank", "ncclCommAbort", "ncclCommGetAsyncError", "ncclGetErrorString", "ncclAllReduce", "ncclAllGather",
             "ncclMemAlloc", "ncclMemFree")
    nccl = "int ncclGetVersion(int *v) { *v = %d; return 0; }\n" + "".join(f"int {f}(void) {{ return 1; }}\n" for f in asked)
    cudnn = "unsigned long cudnnGetVersion(void) { return %d; }\n"

    def look(nccl_version, cudnn_version):
        for lib, text, version in (("libnccl.so.2", nccl, nccl_version), ("libcudnn.so.9", cudnn, cudnn_version)):
            (tmp_path / "lib.c").write_text(text % version)
            subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / lib, tmp_path / "lib.c"], check=True)
        env = driver(gpus=2)
        env["LD_LIBRARY_PATH"] = f"{env['LD_LIBRARY_PATH']}:{tmp_path}"
        return report(env=env)["gpus"]["libraries"], doctor(env=env)

    found, page = look(22809, 91900)
    if not found:
        pytest.skip("the CUDA backend does not open here")
    assert [(x["name"], x["found"], x["version"], x["why"]) for x in found] == [("NCCL", True, "2.28.9", None), ("cuDNN", True, "9.19.0", None)]
    assert found[0]["path"] == str(tmp_path / "libnccl.so.2") and f"NCCL 2.28.9: {tmp_path}/libnccl.so.2" in page
    old, page = look(21805, 90100)
    assert [x["found"] for x in old] == [False, False] and "2.19" in old[0]["why"] and "9.10.2" in old[1]["why"]
    assert "exchange by p2p only" in page and "--attention-backend cudnn is refused" in page


def test_weights_are_counted_as_the_files_have_them():
    files = (ROOT / "models/builtin/model.safetensors").stat().st_size
    j = report("--model", "builtin")
    one, two = j["model"]["degrees"][:2]
    assert 0 <= files - one["weights"] < 20000  # the header
    assert one["weights"] / 2 < two["weights"] < one["weights"] * 0.52  # norms are whole on every rank


def test_a_model_that_does_not_fit_is_told_what_would_make_it_fit():
    j = report("--model", "meta-llama/Llama-3.1-405B-Instruct")
    degrees = {d["tp"]: d for d in j["model"]["degrees"]}
    assert not degrees[1]["fits"] and degrees[1]["weights"] > 800e9
    assert any("does not fit" in a for a in j["advice"])
    assert "more are needed" in doctor("--model", "meta-llama/Llama-3.1-405B-Instruct")


def test_a_degree_that_does_not_divide_is_named(tmp_path):
    config = json.loads((ROOT / "models/builtin/config.json").read_text())
    config.update(intermediate_size=config["intermediate_size"] + 1)
    (tmp_path / "config.json").write_text(json.dumps(config))
    j = report("--model", tmp_path)
    assert [d["divides"] for d in j["model"]["degrees"]] == [True, False, False, False]
    assert "ffn width (705)" in j["model"]["degrees"][1]["why"]


def test_names_that_are_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    shutil.copytree(os.fsencode(ROOT / "models/builtin"), folder)
    r = subprocess.run([os.fsencode(PROGRAM), b"doctor", b"--json", b"--model", folder], capture_output=True, cwd=ROOT, timeout=60)
    assert r.returncode == 0 and json.loads(r.stdout)["model"]["name"].endswith("/caf?"), r.stderr


def test_wrong_requests():
    r = subprocess.run([PROGRAM, "doctor", "--model", "/nonexistent"], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 2 and "/nonexistent" in r.stderr and r.stdout == ""


def test_eight_linked_gpus(driver):
    env = driver(gpus=8, links=18)
    j = report("--model", "meta-llama/Llama-3.1-70B-Instruct", env=env)
    g = j["gpus"]
    assert (g["count"], g["driver"], g["cuda_of_driver"], g["all_nvlink"], g["why_none"]) == (8, "580.159.04", "13.0", True, None)
    assert g["list"][7] == {"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-00000000-0000-0000-0000-000000000007",
                            "bus": "00000000:17:00.0", "memory": 80 << 30, "free": 79 << 30, "compute_capability": "9.0",
                            "pcie_generation": 5, "pcie_width": 16, "nvlinks": 18, "mig": False, "n_processes": 0, "processes": [],
                            "trouble": None}
    assert {p["way"] for i, row in enumerate(g["topology"]) for k, p in enumerate(row) if i != k} == {"NVLink"}
    assert j["model"]["ranks_on"] == "gpu"
    assert [d["fits"] for d in j["model"]["degrees"]] == [False, False, True, True]
    page = doctor("--model", "meta-llama/Llama-3.1-70B-Instruct", env=env)
    assert page.count("NVIDIA H100 80GB HBM3") == 8 and "18 NVLinks" in page and page.count("fits") >= 2
    assert not any("NVLink" in a for a in j["advice"])


def test_one_gpu(driver):
    j = report("--model", "Qwen/Qwen3-0.6B", env=driver(gpus=1))
    assert j["gpus"]["all_nvlink"] is None and j["gpus"]["topology"] == [[{"way": "-", "peer_access": True}]]
    assert [d["fits"] for d in j["model"]["degrees"]] == [True, False, False, False]
    assert "there is 1 GPU" in doctor("--model", "Qwen/Qwen3-0.6B", env=driver(gpus=1))


def test_gpus_without_nvlink_or_peer_access(driver):
    j = report(env=driver(gpus=8, p2p=0))
    assert j["gpus"]["all_nvlink"] is False
    assert j["gpus"]["topology"][0][3] == {"way": "NUMA node", "peer_access": False}
    assert j["gpus"]["topology"][0][4]["way"] == "across sockets"
    assert any("NVLink" in a and "PCIe" in a for a in j["advice"]) and any("peer access" in a for a in j["advice"])


def test_troubles_of_gpus_are_named(driver):
    j = report(env=driver(gpus=4, links=4, broken=2, mig=1, odd=3, busy=20))
    advice = "\n".join(j["advice"])
    for words in ("GPU 0: 20 other processes", "GPU 1 is cut", "GPU 2: ", "GPU is lost", "GPU 3 is a NVIDIA L4"):
        assert words in advice, advice
    assert j["gpus"]["list"][0]["n_processes"] == 20 and len(j["gpus"]["list"][0]["processes"]) == 16
    assert j["gpus"]["list"][0]["processes"][0]["pid"] == 1
    assert "and 4 more" in doctor(env=driver(gpus=4, busy=20))
    many = report(env=driver(gpus=1, busy=200))
    assert many["gpus"]["list"][0]["n_processes"] == 200 and many["gpus"]["list"][0]["processes"] == []


@pytest.mark.parametrize("fake, says", [
    (dict(slowed=0x45), "GPU 0 is slowed by heat (by the hardware), at 61 degrees"), (dict(rows=1), "wait for a reset to be replaced: `nvidia-smi -r -i 0`"),
    (dict(rows=2), "have the GPU replaced"), (dict(lost=2), "GPU 0: 2 uncorrectable memory errors since the driver was loaded"),
])
def test_a_gpu_that_fares_badly_is_named(driver, fake, says):
    assert any(says in a for a in report(env=driver(gpus=1, **fake))["advice"])
    assert not any("GPU 0" in a for a in report(env=driver(gpus=1, slowed=5))["advice"])  # idle, and the power limit, are ordinary


@pytest.mark.parametrize("fake, says", [
    (dict(gpus=0), "finds no GPU"), (dict(gpus=2, error=9), "Driver Not Loaded"), (dict(gpus=2, error=18), "restart the machine"),
    (dict(gpus=2, error=999), "nvidia-smi"), (dict(kind="empty"), "too old"),
])
def test_a_driver_without_gpus_gives_its_reason(driver, fake, says):
    j = report(env=driver(**fake))
    assert j["gpus"]["count"] == 0 and says in j["gpus"]["why_none"] and j["model"]["ranks_on"] == "cpu"
    assert says in doctor(env=driver(**fake))


def test_an_old_driver_tells_less(driver):
    j = report(env=driver("old", gpus=2))
    assert j["gpus"]["count"] == 2 and j["gpus"]["driver"] is None and j["gpus"]["list"][1]["uuid"] is None
    assert j["gpus"]["topology"][0][1]["way"] == "unknown"
