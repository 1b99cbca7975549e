"""GET /metrics: text that a strict parser takes, names that vLLM's dashboards query, and figures that are what was sent.
POST /flush_cache."""

import collections
import json
import re
import socket
import threading
import time

import httpx
import pytest

LABELS = {"engine": "0", "model_name": "builtin"}
SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)'
)
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]Inf|NaN")


def parse(text):
    """Prometheus's text format 0.0.4, strictly: {family: (type, {(name, labels): value})}."""
    families, seen, current = {}, set(), None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if m := re.fullmatch(r"# HELP (\S+) (.+)", line):
            assert m[1] not in seen, f"{m[1]} twice"
            assert not re.search(r"\\[^\\n]", m[2])
            seen.add(m[1])
            current = m[1]
            continue
        if m := re.fullmatch(r"# TYPE (\S+) (counter|gauge|histogram)", line):
            assert m[1] == current and m[1] not in families
            families[m[1]] = (m[2], {})
            continue
        m = SAMPLE.fullmatch(line)
        assert m and NUMBER.fullmatch(m[3]), line
        labels = dict(
            (k, re.sub(r"\\(.)", lambda e: {"n": "\n"}.get(e[1], e[1]), v)) for k, v in LABEL.findall(m[2] or "")
        )
        assert len(labels) == len(LABEL.findall(m[2] or ""))
        kind, samples = families[current]
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        assert m[1] in [current + s for s in suffixes], line
        key = m[1], tuple(sorted(labels.items()))
        assert key not in samples, f"{line}: twice"
        samples[key] = float(m[3])
    for name, (kind, samples) in families.items():
        assert samples or name == "http_requests_total", name
        if kind == "histogram":
            check_histogram(name, samples)
    return families


def check_histogram(name, samples):
    groups = collections.defaultdict(list)
    for (n, labels), v in samples.items():
        if n == name + "_bucket":
            rest = tuple(x for x in labels if x[0] != "le")
            groups[rest].append((float(dict(labels)["le"]), v))
    for rest, buckets in groups.items():
        assert [b[0] for b in buckets] == sorted(b[0] for b in buckets) and buckets[-1][0] == float("inf"), name
        assert all(a[1] <= b[1] for a, b in zip(buckets, buckets[1:])), name
        assert buckets[-1][1] == samples[name + "_count", rest]
        assert (name + "_sum", rest) in samples


class Metrics:
    def __init__(self, server, **headers):
        r = httpx.get(server.url + "/metrics", headers=headers)
        assert r.status_code == 200, r.text
        assert r.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.text = r.text
        self.families = parse(r.text)

    def __call__(self, name, **labels):
        labels = tuple(sorted((k, v) for k, v in {**LABELS, **labels}.items() if v is not None))
        for kind, samples in self.families.values():
            if (name, labels) in samples:
                return samples[name, labels]
        raise KeyError(name, labels)


def complete(server, **fields):
    r = server.post("/v1/completions", {"model": "builtin", "temperature": 0, **fields})
    assert r.status_code == 200, r.text
    return r.json()


# What the dashboards in vLLM's repository query, and those of the gateways that read it.
QUERIED = """
vllm:e2e_request_latency_seconds_bucket vllm:e2e_request_latency_seconds_sum vllm:e2e_request_latency_seconds_count
vllm:prompt_tokens_total vllm:generation_tokens_total
vllm:time_per_output_token_seconds_bucket vllm:inter_token_latency_seconds_bucket vllm:inter_token_latency_seconds_count
vllm:request_time_per_output_token_seconds_bucket
vllm:num_requests_running vllm:num_requests_waiting
vllm:time_to_first_token_seconds_bucket vllm:time_to_first_token_seconds_sum
vllm:gpu_cache_usage_perc vllm:kv_cache_usage_perc vllm:cache_config_info
vllm:request_prompt_tokens_bucket vllm:request_generation_tokens_bucket vllm:request_generation_tokens_sum
vllm:request_success_total vllm:request_queue_time_seconds_sum vllm:request_prefill_time_seconds_sum
vllm:request_decode_time_seconds_sum vllm:request_inference_time_seconds_bucket
vllm:request_max_num_generation_tokens_sum vllm:request_params_max_tokens_bucket vllm:request_params_n_bucket
vllm:prefix_cache_queries_total vllm:prefix_cache_hits_total vllm:num_preemptions_total vllm:iteration_tokens_total_bucket
http_requests_total process_resident_memory_bytes process_cpu_seconds_total
""".split()


def test_the_text_is_right_and_has_the_names(start):
    s = start()
    m = Metrics(s)  # before any request too
    names = {name for _, samples in m.families.values() for name, _ in samples}
    assert set(QUERIED) - {"http_requests_total"} <= names
    complete(s, prompt="The server", max_tokens=3)
    m = Metrics(s)
    assert set(QUERIED) <= {name for _, samples in m.families.values() for name, _ in samples}
    for _, samples in m.families.values():
        for name, labels in samples:
            if name.startswith(("vllm:", "minisgl:")):
                assert LABELS.items() <= dict(labels).items(), name
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        print("prometheus_client is not installed: its parser is not asked, only this file's own")
        return
    theirs = {
        (x.name, tuple(sorted(x.labels.items()))): x.value
        for f in text_string_to_metric_families(m.text)
        for x in f.samples
    }
    ours = {k: v for _, samples in m.families.values() for k, v in samples.items()}
    assert theirs == ours


def test_figures_are_what_was_sent(start):
    s = start("--max-running-requests", 4, "--page-size", 4)
    generated, prompts = [], []

    def add(usage):
        generated.append(usage["completion_tokens"])
        prompts.append(usage["prompt_tokens"])

    for i in range(5):
        add(complete(s, prompt="The server and option %d" % i, max_tokens=6 + i, ignore_eos=True)["usage"])
    assert (
        s.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": "Which port?"}], "temperature": 0}
        ).json()["choices"][0]["finish_reason"]
        == "stop"
    )
    chat = s.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Which port?"}], "temperature": 0, "max_tokens": 30},
    ).json()
    whole = complete(s, prompt="The server", max_tokens=20, ignore_eos=True)
    add(whole["usage"])
    # a stop string is a stop, not an abort, and its spare tokens are not counted
    stop = whole["choices"][0]["text"][8:12]
    cut = complete(s, prompt="The server", max_tokens=20, stop=stop)
    assert cut["choices"][0]["finish_reason"] == "stop"
    add(cut["usage"])
    before = Metrics(s)
    # refused ones change no figure of requests
    for body in ({"prompt": ""}, {"prompt": "x", "temperature": 9}, {"prompt": "x", "model": "other"}):
        assert s.post("/v1/completions", body).status_code in (400, 404)
    many = complete(s, prompt=["The server", "The model"], n=3, max_tokens=4, ignore_eos=True)
    m = Metrics(s)
    # all that one call asks for
    assert (
        m("vllm:generation_tokens_total") - before("vllm:generation_tokens_total")
        == many["usage"]["completion_tokens"]
        == 24
    )
    assert m("vllm:prompt_tokens_total") - before("vllm:prompt_tokens_total") == 3 * many["usage"]["prompt_tokens"]
    assert (
        m("vllm:request_success_total", finished_reason="length")
        - before("vllm:request_success_total", finished_reason="length")
        == 6
    )
    assert m("vllm:request_params_n_bucket", le="2.0") == before("vllm:request_params_n_bucket", le="2.0")
    assert m("vllm:request_params_n_bucket", le="5.0") == before("vllm:request_params_n_bucket", le="5.0") + 1
    assert m("http_requests_total", **nolabels("/v1/completions", "4xx")) == 3
    # and all in all
    n_tokens = sum(generated) + 2 * chat["usage"]["completion_tokens"] + 24
    n_prompt = sum(prompts) + 2 * chat["usage"]["prompt_tokens"] + 3 * many["usage"]["prompt_tokens"]
    n = len(generated) + 2 + 6
    assert m("vllm:generation_tokens_total") == n_tokens
    assert m("vllm:prompt_tokens_total") == n_prompt
    assert m("vllm:request_success_total", finished_reason="stop") == 3
    assert m("vllm:request_success_total", finished_reason="length") == n - 3
    for reason in ("abort", "timeout", "error"):
        assert m("vllm:request_success_total", finished_reason=reason) == 0
    for name in (
        "e2e_request_latency",
        "time_to_first_token",
        "request_queue_time",
        "request_prefill_time",
        "request_decode_time",
        "request_inference_time",
        "request_time_per_output_token",
    ):
        assert m(f"vllm:{name}_seconds_count") == n, name
    assert m("vllm:inter_token_latency_seconds_count") == n_tokens - n
    assert m("vllm:request_generation_tokens_sum") == n_tokens and m("vllm:request_generation_tokens_count") == n
    assert m("vllm:request_prompt_tokens_sum") == n_prompt
    assert m("vllm:request_generation_tokens_bucket", le="5.0") == 6 + (generated[-1] <= 5)
    # time adds up: queue + prefill = first token; first token + decode <= end
    t = {
        k: m(f"vllm:{k}_seconds_sum")
        for k in (
            "e2e_request_latency",
            "time_to_first_token",
            "request_queue_time",
            "request_prefill_time",
            "request_decode_time",
            "request_inference_time",
            "inter_token_latency",
        )
    }
    assert t["request_queue_time"] + t["request_prefill_time"] == pytest.approx(t["time_to_first_token"], abs=1e-6)
    assert t["request_prefill_time"] + t["request_decode_time"] == pytest.approx(t["request_inference_time"], abs=1e-6)
    assert t["inter_token_latency"] == pytest.approx(t["request_decode_time"], abs=1e-3)
    assert t["time_to_first_token"] + t["request_decode_time"] <= t["e2e_request_latency"] + 1e-6
    # steps: every prompt token computed or found, every token made in one
    assert m("minisgl:computed_prompt_tokens_total") + m("vllm:prefix_cache_hits_total") == n_prompt
    assert m("vllm:prefix_cache_queries_total") == n_prompt
    assert m("vllm:prompt_tokens_cached_total") == m("vllm:prefix_cache_hits_total") > 0
    assert m("minisgl:step_duration_seconds_count") == m("vllm:iteration_tokens_total_count") > 0
    assert m("vllm:num_requests_running") == m("vllm:num_requests_waiting") == m("vllm:kv_cache_usage_perc") == 0


def nolabels(path, status):
    return {"engine": None, "model_name": None, "handler": path, "method": "POST", "status": status}


def test_what_is_there_now(start):
    """Gauges, and clients that leave: one that was running, one that was waiting."""
    s = start("--max-running-requests", 1)
    body = json.dumps({"prompt": "a", "max_tokens": 900, "ignore_eos": True, "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    clients = []
    for _ in range(3):
        clients.append(socket.create_connection(("127.0.0.1", s.port)))
        clients[-1].sendall(head + body)
    wait_for(s, lambda m: m("vllm:num_requests_running") == 1 and m("vllm:num_requests_waiting") == 2)
    assert 0 < Metrics(s)("vllm:kv_cache_usage_perc") < 1
    r = httpx.post(s.url + "/flush_cache")
    assert r.status_code == 400 and r.json()["error"]["code"] == "requests_running"
    for c in clients:
        c.close()
    m = wait_for(s, lambda m: m("vllm:num_requests_running") == m("vllm:num_requests_waiting") == 0)
    assert m("vllm:request_success_total", finished_reason="abort") == 3
    assert m("vllm:e2e_request_latency_seconds_count") == 0
    assert m("vllm:kv_cache_usage_perc") == 0
    t = m("vllm:generation_tokens_total")
    assert t == m("vllm:time_to_first_token_seconds_count") + m("vllm:inter_token_latency_seconds_count")


def wait_for(s, true, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        m = Metrics(s)
        if true(m):
            return m
        time.sleep(0.02)
    raise AssertionError(m.text)


def test_labels_are_escaped(start):
    name = 'a "quoted" \\ back\nslash é'
    s = start("--served-model-name", name)
    labels = {
        k: v
        for _, samples in Metrics(s).families.values()
        for (n, l), _ in samples.items()
        for k, v in l
        if k == "model_name"
    }
    assert labels == {"model_name": name}


def test_metrics_want_the_key(start):
    s = start("--api-key", "secret")
    assert httpx.get(s.url + "/metrics").status_code == 401
    assert httpx.post(s.url + "/flush_cache").status_code == 401
    Metrics(s, authorization="Bearer secret")


def test_scraping_beside_streams(start):
    """Scrapes from several sides while answers are made: always well-formed, counters never fall."""
    s = start()
    stop = threading.Event()
    failed = []

    def scrape():
        last = None
        while not stop.is_set():
            try:
                m = Metrics(s)
                if last:
                    for kind, samples in last.families.values():
                        for key, v in samples.items():
                            for _, now in m.families.values():
                                if kind == "counter" and key in now:
                                    assert now[key] >= v, key
                last = m
            except Exception as e:  # told below, in the test's own thread
                failed.append(e)
                return

    threads = [threading.Thread(target=scrape) for _ in range(2)]
    for t in threads:
        t.start()
    for i in range(10):
        complete(s, prompt="The server", n=8, max_tokens=20, ignore_eos=True)
    stop.set()
    for t in threads:
        t.join()
    assert not failed, failed
    assert Metrics(s)("vllm:generation_tokens_total") == 1600


def test_flush_cache(start):
    s = start()
    long = "Please tell me about the option table and the server. " * 6

    def cached():
        return complete(s, prompt=long, max_tokens=2)["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached() == 0 and cached() > 0
    assert Metrics(s)("minisgl:kv_cache_pages", kind="cached") > 0
    r = httpx.post(s.url + "/flush_cache")
    assert r.status_code == 200 and r.json() == {"status": "ok"}
    assert Metrics(s)("minisgl:kv_cache_pages", kind="cached") == 0
    assert cached() == 0 and cached() > 0
    # right behind an answer, also one that a stop string ended while the next token was under way
    for i in range(20):
        text = complete(s, prompt=long, max_tokens=12, ignore_eos=True)["choices"][0]["text"]
        complete(s, prompt=long, max_tokens=400, ignore_eos=True, stop=text[4:8])
        assert httpx.post(s.url + "/flush_cache").status_code == 200
        assert Metrics(s)("minisgl:kv_cache_pages", kind="cached") == 0
