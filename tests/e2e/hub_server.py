"""A hub of the tests' own: models under their usual names, by the protocols of Hugging Face and of ModelScope, with faults on demand.

    with Hub() as hub:
        hub.add("Qwen/Qwen3-32B", tiny_model("Qwen/Qwen3-32B"))      # a folder, or a dict of name: bytes
        subprocess.run([PROGRAM, "--model", "Qwen/Qwen3-32B"], env=hub.env(tmp_path))

Large files ("LFS": everything but *.json, *.jinja, *.md and *.txt) are redirected to a second server on another address, as the real hub does to a
CDN; the first sends the checksums along. hub.requests has every request as (server, method, path, headers).

hub.fault(Fault(...)) makes the next matching answers wrong; see class Fault. Nothing here is tuned for speed.
"""
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse

from conftest import PROGRAM, ROOT

SMALL = (".json", ".jinja", ".md", ".txt")


def git_sum(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclasses.dataclass
class Fault:
    path: str                 # regular expression, searched in the path (with its query)
    times: int = 1            # how many answers it spoils; -1: all
    server: str = "any"       # "hub", "cdn" or "any"
    status: int = 0           # answer this, with the headers and the body below, and nothing else
    headers: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    cut: int = -1             # close the connection after so many bytes of the body
    short: int = -1           # the same, but say in Content-Length that this is all
    extra: bytes = b""        # send this behind the body
    flip: bool = False        # send a wrong byte in the middle
    stall: bool = False       # send nothing more in the middle of the body, until the same is asked for again
    rate: float = 0           # bytes a second
    no_range: bool = False    # ignore the Range header
    gate: threading.Event = None  # wait for it in the middle of the body


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None  # set on the subclass
    role = ""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.hub._answer(self)

    do_HEAD = do_GET


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request, address):
        pass  # clients that hang up are part of the tests


class Hub:
    def __init__(self, tls=None):
        """tls: (certificate file, key file); then both servers speak https, as localhost."""
        self.models, self.faults, self.requests = {}, [], []
        self.token = None        # set: requests without it are answered 401
        self.blobs = True        # False: a mirror whose listing has no sizes and sums
        self._lock = threading.Lock()
        self._servers = []
        for role, host in (("hub", "127.0.0.1"), ("cdn", "127.0.0.1" if tls else "127.0.0.2")):
            handler = type("Handler", (_Handler,), {"hub": self, "role": role})
            server = _Server((host, 0), handler)
            if tls:
                import ssl
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*tls)
                server.socket = context.wrap_socket(server.socket, server_side=True)
            self._servers.append(server)
        self.url, self.cdn_url = (f"https://localhost:{s.server_address[1]}" if tls else "http://%s:%d" % s.server_address for s in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # ---- what it has ----

    def add(self, name, files, revision="main", **traits):
        """traits: gated=True, moved="ORG/NEW" (the name redirects). Gives the commit."""
        if isinstance(files, (str, pathlib.Path)):
            files = {p.name: p.read_bytes() for p in sorted(pathlib.Path(files).iterdir()) if p.is_file()}
        commit = hashlib.sha1(json.dumps({k: git_sum(v) for k, v in files.items()}).encode()).hexdigest()
        model = self.models.setdefault(name, {"commits": {}, "refs": {}})
        model.update(traits)
        model["commits"][commit] = files
        model["refs"][revision] = model["refs"]["master" if revision == "main" else revision] = commit
        return commit

    def fault(self, fault):
        self.faults.append(fault)
        return fault

    def env(self, cache, **more):
        """The environment of a program that uses this hub, with its caches below a folder."""
        env = {k: v for k, v in os.environ.items() if not k.upper().startswith(("HF_", "HUGGING", "MODELSCOPE", "TRANSFORMERS")) and
               "PROXY" not in k.upper()}
        env.update(HF_ENDPOINT=self.url, HF_HOME=str(pathlib.Path(cache) / "hf"), MODELSCOPE_ENDPOINT=self.url,
                   MODELSCOPE_CACHE=str(pathlib.Path(cache) / "ms"), HOME=str(cache))
        return {**env, **more}

    def asked(self, pattern, server="any", method="GET"):
        """The requests whose path matches."""
        return [r for r in self.requests if re.search(pattern, r[2]) and server in ("any", r[0]) and method in ("any", r[1])]

    # ---- answers ----

    def _times(self, path):
        with self._lock:
            return sum(r[2] == path for r in self.requests)

    def _take_fault(self, role, path):
        with self._lock:
            for f in self.faults:
                if f.times and f.server in ("any", role) and re.search(f.path, path):
                    f.times -= f.times > 0
                    return f
        return None

    def _answer(self, h):
        with self._lock:
            self.requests.append((h.role, h.command, h.path, dict(h.headers)))
        fault = self._take_fault(h.role, h.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if fault and fault.status:
                return self._send(h, fault.status, fault.headers, fault.body)
            url = urllib.parse.urlsplit(h.path)
            path, query = urllib.parse.unquote(url.path), dict(urllib.parse.parse_qsl(url.query))
            if h.role == "cdn":
                return self._cdn(h, path, fault)
            if path.startswith("/api/v1/models/"):
                return self._modelscope(h, path[len("/api/v1/models/"):], query, fault)
            if path.startswith("/api/models/"):
                return self._listing(h, path[len("/api/models/"):], url, query, fault)
            if m := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
                return self._resolve(h, *m.groups(), fault)
            self._send(h, 404, {}, b"")

    def _send(self, h, status, headers, body, fault=None):
        f = fault or Fault("")
        if f.flip and body:
            body = body[:len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1:]
        body += f.extra
        start, wanted = 0, h.headers.get("Range")
        if wanted and status == 200 and not f.no_range and (m := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            start = int(m.group(1))
            if start >= len(body):
                return self._send(h, 416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            end = int(m.group(2)) if m.group(2) else len(body) - 1
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}
            status, body = 206, body[start:end + 1]
        if f.short >= 0:
            body = body[:f.short]
        h.send_response(status)
        for k, v in headers.items():
            h.send_header(k, v)
        if "Content-Length" not in headers:
            h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        if h.command != "HEAD":
            self._send_body(h, body, f)

    def _send_body(self, h, body, f):
        if f.cut >= 0:
            h.wfile.write(body[:f.cut])
            h.wfile.flush()
            h.close_connection = True
            h.connection.shutdown(socket.SHUT_RDWR)
            return
        half = len(body) // 2
        if f.stall or f.gate:
            h.wfile.write(body[:half])
            h.wfile.flush()
            body = body[half:]
        if f.gate:
            f.gate.wait(60)
        asked = self._times(h.path)
        while f.stall and self._times(h.path) == asked:
            time.sleep(0.05)
        piece = max(1, int(f.rate / 20)) if f.rate else 1 << 20
        for i in range(0, len(body), piece):
            h.wfile.write(body[i:i + piece])
            if f.rate:
                time.sleep(1 / 20)

    def _refused(self, h, model):
        """Send the answer for a model that may not be had; whether it was sent."""
        token = h.headers.get("Authorization", "")
        known = self.token is not None and token == f"Bearer {self.token}"
        if model is None:
            code, error = "RepoNotFound", "Repository not found"
            self._send(h, 404 if known else 401, {"X-Error-Code": code, "X-Error-Message": error}, json.dumps({"error": error}).encode())
        elif model.get("gated") and not (known and model["gated"] == "granted"):
            error = f"Access to this model is restricted{'' if known else '; you must be authenticated'}."
            self._send(h, 403 if known else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": error}, b"")
        elif self.token is not None and not known and (model.get("private") or token):
            self._send(h, 401, {}, b'{"error":"Invalid credentials in Authorization header"}')
        else:
            return False
        return True

    @staticmethod
    def _large(name):
        return not name.endswith(SMALL)

    def _listing(self, h, path, url, query, fault):
        m = re.fullmatch(r"(.+?)/(revision|tree)/(.+?)/?", path) or re.fullmatch(r"(.+?)()()", path)
        name, kind, revision = m.groups()
        revision = revision or "main"
        model = self.models.get(name)
        if model and model.get("moved"):
            to = url.path.replace(name, model["moved"]) + (f"?{url.query}" if url.query else "")
            return self._send(h, 307, {"Location": to}, b"")
        if self._refused(h, model):
            return None
        commit = model["refs"].get(revision, revision)
        if commit not in model["commits"]:
            return self._send(h, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}, b"")
        siblings, tree = [], []
        for file, data in model["commits"][commit].items():
            entry = {"rfilename": file}
            oid = git_sum(data)
            item = {"type": "file", "path": file, "size": len(data), "oid": oid}
            if self._large(file):
                sha = hashlib.sha256(data).hexdigest()
                oid = git_sum(b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha.encode(), len(data)))
                item.update(oid=oid, lfs={"oid": sha, "size": len(data), "pointerSize": 134})
                lfs = {"sha256": sha, "size": len(data), "pointerSize": 134}
            if query.get("blobs") and self.blobs:
                entry.update(blobId=oid, size=len(data))
                if self._large(file):
                    entry["lfs"] = lfs
            siblings.append(entry)
            tree.append(item)
        answer = tree if kind == "tree" else {"_id": "1", "id": name, "modelId": name, "sha": commit, "private": False, "gated": False, "siblings": siblings}
        self._send(h, 200, {"Content-Type": "application/json", "X-Repo-Commit": commit}, json.dumps(answer).encode(), fault)

    def _resolve(self, h, name, revision, file, fault):
        model = self.models.get(name)
        if model and model.get("moved"):
            return self._send(h, 307, {"Location": f"/{model['moved']}/resolve/{revision}/{file}"}, b"")
        if self._refused(h, model):
            return None
        commit = model["refs"].get(revision, revision)
        data = model["commits"].get(commit, {}).get(file)
        if data is None:
            code = "EntryNotFound" if commit in model["commits"] else "RevisionNotFound"
            return self._send(h, 404, {"X-Error-Code": code, "X-Repo-Commit": commit}, b"Entry not found")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not self._large(file):
            return self._send(h, 200, {**headers, "ETag": f'"{git_sum(data)}"'}, data, fault)
        headers.update({"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data)),
                        "Location": f"{self.cdn_url}/{name}/{commit}/{file}?Signature=secret"})
        return self._send(h, 302, headers, b"Found. Redirecting")

    def _cdn(self, h, path, fault):
        m = re.fullmatch(r"/(.+)/([0-9a-f]{40})/(.+)", path)
        data = self.models.get(m.group(1), {}).get("commits", {}).get(m.group(2), {}).get(m.group(3)) if m else None
        if data is None:
            return self._send(h, 404, {}, b"")
        return self._send(h, 200, {"ETag": '"cdn-%d"' % len(data), "Accept-Ranges": "bytes"}, data, fault)

    def _modelscope(self, h, path, query, fault):
        m = re.fullmatch(r"(.+?)/(repo/files|repo|revisions)", path) or re.fullmatch(r"(.+?)()", path)
        name, kind = m.groups()
        model, revision = self.models.get(name), query.get("Revision", "master")
        token = h.headers.get("Authorization")

        def refuse(status, code, message):
            self._send(h, status, {}, json.dumps({"Code": code, "Message": message, "Success": False}).encode())

        if model is None:
            return refuse(404, 10010205001, "Model not found")
        if model.get("gated") and token != f"Bearer {self.token}":
            return refuse(403, 10990101002, "access denied")
        commit = model["refs"].get(revision, revision)
        if commit not in model["commits"]:
            return refuse(404, 10010205001, "Revision not found")
        files = model["commits"][commit]
        if kind == "repo/files":
            listing = [{"Name": f, "Path": f, "Type": "blob", "Size": len(d), "Sha256": hashlib.sha256(d).hexdigest(), "IsLFS": self._large(f),
                        "Revision": commit, "CommittedDate": 1700000000} for f, d in files.items()]
            listing.append({"Name": "original", "Path": "original", "Type": "tree", "Size": 0})
            return self._send(h, 200, {"Content-Type": "application/json"},
                              json.dumps({"Code": 200, "Data": {"Files": listing}, "Success": True}).encode(), fault)
        data = files.get(query.get("FilePath"))
        if kind != "repo" or data is None:
            return refuse(404, 10010205001, "File not found")
        if self._large(query["FilePath"]):
            return self._send(h, 302, {"Location": f"{self.cdn_url}/{name}/{commit}/{query['FilePath']}?Signature=secret"}, b"")
        return self._send(h, 200, {}, data, fault)


# ---- tiny models of well-known names ----

SHRUNK = {"hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 16, "intermediate_size": 256,
          "num_hidden_layers": 2, "max_position_embeddings": 1024, "vocab_size": 2560, "moe_intermediate_size": 64, "num_experts": 8,
          "num_experts_per_tok": 2, "max_window_layers": 2, "bos_token_id": None, "eos_token_id": [2559, 2557]}


def tiny_config(name, **changes):
    """config.json of a model of models/, shrunk to two layers that eight ranks can share, with the built-in tokenizer's vocabulary."""
    config = json.loads((ROOT / "models" / name / "config.json").read_text())
    config.update({k: v for k, v in SHRUNK.items() if k in config})
    if config.get("rope_scaling"):
        config["rope_scaling"]["original_max_position_embeddings"] = 256
    config.update(changes)
    return config


def tiny_model(name, folder, seed=1, shard_bytes=300_000, **changes):
    """A checkpoint of random weights for a name of models/, with the built-in tokenizer and template, in several files; gives its folder."""
    source, out = pathlib.Path(folder) / "source", pathlib.Path(folder) / "model"
    source.mkdir(parents=True)
    (source / "config.json").write_text(json.dumps(tiny_config(name, **changes)))
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(ROOT / "models" / "builtin" / file, source)
    subprocess.run([PROGRAM, "dummy", "--model", source, "--out", out, "--seed", str(seed), "--shard-bytes", str(shard_bytes)], check=True,
                   capture_output=True)
    return out
