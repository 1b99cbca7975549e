"""The program as a user meets it: what it says about wrong requests, the README's commands, offline answers."""
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess

import pytest
import tokenizers
from conftest import PROGRAM, ROOT

BUILTIN = ROOT / "models" / "builtin"


def run(*args, stdin="", timeout=120):
    return subprocess.run([PROGRAM, *map(str, args)], input=stdin, capture_output=True, text=True, cwd=ROOT, timeout=timeout)


@pytest.mark.parametrize("args, says", [
    (["--model", "/nonexistent"], "/nonexistent"), (["--model", "Qwen/Nothing"], "Qwen/Nothing"), (["--port", "70000"], "70000"),
    (["--tp", "3"], "--tp"), (["--dtype", "float16", "--device", "cpu"], "bfloat16"), (["--dtype", "fp8"], "float16"),
    (["--kv-cache-dtype", "fp8_e5m2"], "fp8_e4m3"), (["--kv-cache-dtype", "int8"], "int8"), (["--nonsense"], "--nonsense"),
    (["--max-seq-len-override", "99999"], "1024"), (["--device", "cuda"], "CUDA"), (["--model", "Qwen/Qwen3-0.6B"], "--dummy-weight"),
    (["--chat-template", "/nonexistent"], "/nonexistent"), (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
])
def test_wrong_requests_end_with_a_sentence(args, says):
    r = run("--port", 0, *args) if "--port" not in args else run(*args)
    assert r.returncode == 2, r.stderr
    errors = [line for line in r.stderr.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1 and says in errors[0]
    assert "ready to serve" not in r.stderr


def test_every_value_that_help_names_is_taken():
    for o in json.loads(run("help", "--json").stdout):
        values = o["arg"].split("|") if o["arg"] else []
        if len(values) < 2 or not all(re.fullmatch(r"[A-Za-z0-9_,]+", v) for v in values) or values == ["DIR", "NAME"] or o["not_in_this_version"]:
            continue
        command = "serve" if "serve" in o["commands"] else o["commands"][0]
        for v in values:
            r = run(command, o["name"], v, "--nonsense", timeout=20)
            assert r.returncode == 2 and "--nonsense" in r.stderr, f"{command} {o['name']} {v}: {r.stderr}"


@pytest.mark.parametrize("args, says", [
    (["sevre"], "sevre"), (["serve", "x"], "'x'"), (["version", "x"], "'x'"), (["help", "--json", "serve"], "one of"),
    (["help", "nothing"], "'nothing'"), (["generate", "--raw"], "--raw"), (["generate", "--seed", 1, "hi"], "--dummy-weight"),
    (["simulate", "--trace", "x", "--rate", 4], "--rate"), (["simulate", "--trace", "x", "--seed", 0], "--seed"),
    (["doctor", "--max-seq-len-override", 2000], "1024"),
    (["dummy"], "--out"), (["tokenize", "--raw"], "--raw"), (["template", "--log-level", "loud"], "--log-level"),
])
def test_what_has_no_meaning_is_refused(args, says):
    """Nothing is accepted and ignored: an option that means nothing without another one says so."""
    r = run(*args)
    assert r.returncode == 2, r.stdout + r.stderr
    assert r.stderr.startswith("ERROR: ") and says in r.stderr and r.stderr.count("\n") == 1 and not r.stdout


def test_a_bad_checkpoint_is_refused_before_the_port_opens(tmp_path):
    """The front end is not running yet: it has nothing to finish."""
    model = tmp_path / "model"
    shutil.copytree(BUILTIN, model)
    with open(model / "model.safetensors", "r+b") as f:
        f.truncate(model.joinpath("model.safetensors").stat().st_size - 100)
    r = run("--port", 0, "--model", model)
    assert r.returncode == 2 and "truncated" in r.stderr.splitlines()[-1], r.stderr
    assert "Finishing" not in r.stderr and "Stopping" not in r.stderr, r.stderr


def test_loading_shows_its_progress():
    """A line that is rewritten on a terminal, plain lines elsewhere; both with the file and the speed."""
    line = r"loading model\.safetensors: [\d.]+ of [\d.]+ GB( so far)?, [\d.]+ GB/s"
    assert re.search("^INFO: " + line + "$", run("generate", "hi").stderr, re.M)
    ours, theirs = pty.openpty()
    p = subprocess.Popen([PROGRAM, "generate", "hi"], stderr=theirs, stdout=subprocess.DEVNULL, cwd=ROOT)
    os.close(theirs)
    seen = b""
    while b"tokens generated" not in seen and b"loaded" not in seen:
        seen += os.read(ours, 4096)
    p.wait(60)
    os.close(ours)
    assert re.search("\r" + line, seen.decode()) and "so far" not in seen.decode(), seen


def test_wishes_of_the_model(tmp_path):
    """What generation_config.json asks for is a request's default, or it is said that it is none."""
    model = tmp_path / "model"
    shutil.copytree(BUILTIN, model)
    wishes = {"temperature": 1, "min_p": 1.0, "top_k": 10 ** 6, "repetition_penalty": 1.05, "max_new_tokens": 64}
    (model / "generation_config.json").write_text(json.dumps(wishes))
    line = json.dumps({"prompt": "Which port does the server use?", "max_tokens": 8, "seed": 1})
    r = run("generate", "--model", model, stdin=line + "\n")
    greedy = run("generate", "--model", BUILTIN, stdin=json.dumps({**json.loads(line), "temperature": 0}) + "\n")
    assert r.returncode == 0 and "repetition_penalty 1.05" in r.stderr
    assert json.loads(r.stdout)["text"] == json.loads(greedy.stdout)["text"]  # min_p 1 leaves the likeliest token only


def test_cache_formats():
    """Half the bytes of a page for fp8, and an easy answer stays what it is; dummy weights come in any format."""
    ask = json.dumps({"messages": [{"role": "user", "content": "Which port does the server use?"}], "temperature": 0, "logprobs": 0}) + "\n"
    common = ["generate", "--model", BUILTIN, "--device", "cpu", "--num-pages", 5001]
    size, replies = {}, {}
    for name in ("auto", "bf16", "fp8", "float"):
        r = run(*common, "--kv-cache-dtype", name, stdin=ask)
        assert r.returncode == 0, r.stderr
        size[name] = float(re.search(r"pages of 16 tokens, ([0-9.]+) GB", r.stderr)[1])
        replies[name] = json.loads(r.stdout)
    assert size["auto"] == size["bf16"] and size["fp8"] == pytest.approx(size["auto"] / 2, abs=0.01) and size["float"] == pytest.approx(2 * size["auto"], abs=0.01)
    assert replies["auto"] == replies["bf16"]
    assert len({r["text"] for r in replies.values()}) == 1
    values = [[t["logprob"] for t in replies[name]["logprobs"]] for name in ("auto", "fp8")]
    assert values[0] != values[1] and max(abs(a - b) for a, b in zip(*values)) < 0.5
    r = run(*common, "--dtype", "half", "--dummy-weight", stdin=json.dumps({"prompt": "hi", "max_tokens": 1}) + "\n")
    assert r.returncode == 0 and "float16 weights" in r.stderr


def broken(tmp_path, change):
    model = tmp_path / "model"
    shutil.copytree(BUILTIN, model)
    change(model)
    r = run("generate", "--model", model, "hi")
    assert r.returncode == 2 and r.stderr.count("ERROR: ") == 1, r.stderr
    return r.stderr


def edit(**fields):
    def change(model):
        config = json.loads((model / "config.json").read_text())
        config.update(fields)
        (model / "config.json").write_text(json.dumps(config))
    return change


def cut(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def loop_of_links(model):
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("config.json")


def weights_are_a_folder(model):
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").mkdir()


def is_a_folder(name):
    def change(model):
        (model / name).unlink(missing_ok=True)
        (model / name).mkdir()
    return change


def leads_nowhere(name):
    def change(model):
        (model / name).unlink(missing_ok=True)
        (model / name).symlink_to("nothing")
    return change


def huge_tokenizer(model):
    with open(model / "tokenizer.json", "r+b") as f:
        f.truncate(200 << 20)


def too_many_tokens(model):
    """One more token than the embedding has rows."""
    words = json.loads((model / "tokenizer.json").read_text())
    last = max(words["added_tokens"], key=lambda t: t["id"])
    words["added_tokens"].append({**last, "id": last["id"] + 1, "content": "<|one more|>"})
    (model / "tokenizer.json").write_text(json.dumps(words))


@pytest.mark.parametrize("change, says", [
    (edit(architectures=["GPTOddForCausalLM"]), "GPTOddForCausalLM"), (edit(hidden_act="gelu"), "gelu"),
    (edit(rope_scaling={"rope_type": "longrope", "factor": 2}), "longrope"), (edit(quantization_config={"quant_method": "awq"}), "awq"),
    (edit(num_hidden_layers=7), "model.layers.6"), (edit(num_hidden_layers=5), "model.layers.5"),
    (edit(intermediate_size=64), "shape"), (cut, "model.safetensors"), (lambda m: (m / "tokenizer.json").write_text("{"), "tokenizer.json"),
    (lambda m: (m / "config.json").unlink(), "config.json"), (loop_of_links, "config.json"), (weights_are_a_folder, "safetensors"),
    (is_a_folder("generation_config.json"), "generation_config.json"), (leads_nowhere("generation_config.json"), "generation_config.json"),
    (is_a_folder("tokenizer_config.json"), "tokenizer_config.json"), (leads_nowhere("chat_template.jinja"), "chat_template.jinja"),
    (huge_tokenizer, "tokenizer.json"), (too_many_tokens, "2559"), (edit(vocab_size=2559), "shape"), (edit(num_hidden_layers=10**9), "layers"),
    (lambda m: (m / "chat_template.jinja").write_text("{% for x in messages %}"), "chat_template.jinja"),
    (lambda m: (m / "chat_template.jinja").write_text("{{ " + "(" * 100000), "chat_template.jinja"),
    (lambda m: (m / "tokenizer.json").write_bytes(b"\xff" + (m / "tokenizer.json").read_bytes()), "tokenizer.json"),
])
def test_broken_checkpoints_are_named(tmp_path, change, says):
    assert says in broken(tmp_path, change)


def test_generate_batch_equals_one_by_one():
    lines = [{"messages": [{"role": "user", "content": q}], "temperature": 0, "max_tokens": 40} for q in
             ("Which port?", "How do I save memory?", "What is --tp?", "Hello!")]
    lines += [{"prompt": "The server", "max_tokens": 20, "temperature": 1, "seed": 3, "logprobs": 2, "ignore_eos": True}, {"prompt": 5}]
    text = "".join(json.dumps(x) + "\n" for x in lines)
    r = run("generate", "--log-level", "error", stdin=text)
    answers = [json.loads(x) for x in r.stdout.splitlines()]
    assert len(answers) == len(lines) and "error" in answers[-1]
    for line, answer in zip(lines[:-1], answers):
        alone = json.loads(run("generate", "--log-level", "error", "--threads", 1, "--max-prefill-length", 7, "--cache-type", "naive",
                               "--page-size", 1, stdin=json.dumps(line) + "\n").stdout)
        assert (alone["text"], alone["token_ids"], alone["finish_reason"]) == (answer["text"], answer["token_ids"], answer["finish_reason"])
        assert answer["usage"]["completion_tokens"] == len(answer["token_ids"])
    assert len(answers[4]["logprobs"]) == 20


@pytest.mark.parametrize("command, good, bad", [("tokenize", '"hello"', "{}"), ("template", '{"template": "{{ 1 }}"}', '{"template": "{{"}')])
def test_a_refused_line_shows_in_the_exit_code(command, good, bad):
    r = run(command, "--model", BUILTIN, stdin=f"{bad}\n{good}\n")
    assert r.returncode == 1 and ["error" in json.loads(x) for x in r.stdout.splitlines()] == [True, False]
    assert run(command, "--model", BUILTIN, stdin=good + "\n").returncode == 0


def test_a_bare_prompt_answers_in_plain_text():
    r = run("generate", "Which port does the server use?", "--log-level", "error")
    assert r.returncode == 0 and "1919" in r.stdout and "{" not in r.stdout


def test_dummy_checkpoint_goes_round(tmp_path):
    r = run("dummy", "--model", BUILTIN, "--out", tmp_path / "d", "--seed", 3)
    assert r.returncode == 0, r.stderr
    request = '{"prompt": "a", "max_tokens": 8, "temperature": 0}\n'
    disk = run("generate", "--model", tmp_path / "d", "--log-level", "error", stdin=request)
    memory = run("generate", "--model", BUILTIN, "--dummy-weight", "--seed", 3, "--log-level", "error", stdin=request)
    assert json.loads(disk.stdout)["token_ids"] == json.loads(memory.stdout)["token_ids"]
    assert run("dummy", "--model", BUILTIN, "--out", tmp_path / "d").returncode == 2


def test_a_dummy_checkpoint_of_a_shape_can_be_served(tmp_path):
    """A shape has no tokenizer: the folder gets one of bytes, the same that --dummy-weight has."""
    shape = tmp_path / "shape"
    shape.mkdir()
    shutil.copy(BUILTIN / "config.json", shape)
    assert run("dummy", "--model", shape, "--out", tmp_path / "d").returncode == 0
    request = json.dumps({"prompt": "a\u00e9\n \"\\", "max_tokens": 8, "temperature": 0}) + "\n"
    disk = run("generate", "--model", tmp_path / "d", stdin=request)
    memory = run("generate", "--model", shape, "--dummy-weight", stdin=request)
    assert disk.returncode == 0 and disk.stdout == memory.stdout, disk.stderr
    text = "".join(map(chr, range(256))) + "\u6f22"
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "d" / "tokenizer.json"))
    ids = json.loads(run("tokenize", "--model", tmp_path / "d", stdin=json.dumps(text) + "\n").stdout)["ids"]
    assert ids == list(text.encode()) == theirs.encode(text).ids
    assert json.loads(run("tokenize", "--decode", "--model", tmp_path / "d", stdin="[97, 300]\n").stdout)["text"] == "a <300>"


def test_overlap_is_an_option_and_an_environment_variable(monkeypatch):
    def said(*options):
        r = run("generate", "a", *options)
        return r.returncode, "overlap scheduling" in r.stderr, r.stderr
    assert said()[:2] == (0, False)  # a CPU's launch does the work: nothing would overlap
    assert said("--overlap", "on")[:2] == (0, True)
    assert said("--overlap", "off")[:2] == said("--disable-overlap-schedule")[:2] == (0, False)
    monkeypatch.setenv("MINISGL_DISABLE_OVERLAP_SCHEDULING", "1")
    assert said()[:2] == (0, False)
    code, _, text = said("--overlap", "on")
    assert code == 2 and "MINISGL_DISABLE_OVERLAP_SCHEDULING" in text
    monkeypatch.setenv("MINISGL_DISABLE_OVERLAP_SCHEDULING", "0")
    assert said("--overlap", "on")[:2] == (0, True)
    monkeypatch.setenv("MINISGL_DISABLE_OVERLAP_SCHEDULING", "perhaps")
    assert said()[0] == 2


def test_options_for_gpus_are_named_and_left_aside():
    r = run("generate", "hi", "--attn", "fa,fi", "--cuda-graph-max-bs", 256, "--raw")
    lines = [line for line in r.stderr.splitlines() if "GPUs only" in line]
    assert r.returncode == 0 and len(lines) == 2 and all(line.startswith("INFO: --") for line in lines), r.stderr
    assert "attention-backend" in lines[0] and "cuda-graph-max-bs" in lines[1]


def test_log_formats():
    r = run("generate", "hi", "--log-format", "json", "--log-level", "debug")
    lines = [json.loads(line) for line in r.stderr.splitlines()]
    assert r.returncode == 0 and lines and all(set(x) == {"time", "level", "message"} for x in lines)
    r = run("generate", "hi", "--log-format", "json", "--model", "/nonexistent")
    line = r.stderr.splitlines()[-1]
    assert r.returncode == 2 and json.loads(line)["level"] == "ERROR" and "/nonexistent" in json.loads(line)["message"]
    r = run("generate", "hi", "--log-prefix", "time,rank")
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO: ", line) for line in r.stderr.splitlines())


def test_help_names_every_option():
    table = json.loads(run("help", "--json").stdout)
    text = run("--help").stdout
    assert all(row["name"] in text for row in table if "serve" in row["commands"])


def test_readme_commands(server):
    """The README's request with curl and its Python program, as printed but for the port."""
    readme = (ROOT / "README.md").read_text()
    curl = re.search(r"```sh\n(curl .*?)```", readme, re.S).group(1).replace(":1919", f":{server.port}")
    out = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
    assert "1919" in json.loads(out)["choices"][0]["message"]["content"]
    program = re.search(r"```python\n(.*?)```", readme, re.S).group(1).replace(":1919", f":{server.port}")
    import sys
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "--tp 4" in out
