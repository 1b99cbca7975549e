#!/usr/bin/env python3
"""Concurrent streams over HTTP: tokens a second, time to first token, time between tokens.

    bench/serve/streams.py [--model M] [--in 124] [--out 64] [--streams 1,8,32] [--busy N] [--wait S] [--port P] [-- server options]

Starts build/minisgl with dummy weights (or, with --weights, the model's own), sends prompts of random token ids, greedy,
ignoring the end of text, and prints one line a number of streams. --port measures a server that runs already (a peer). --busy N keeps N other processes busy meanwhile; --wait:
seconds between ready and the first request. Needs no package; the client is this one thread, so that it takes little of the cores."""
import argparse
import json
import os
import random
import re
import selectors
import socket
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Stream:
    def __init__(self, port, ids, n_out):
        body = json.dumps({"prompt": ids, "max_tokens": n_out, "temperature": 0, "ignore_eos": True, "stream": True,
                           "stream_options": {"include_usage": True}}).encode()
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.start = time.perf_counter()
        self.sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nConnection: close\r\n"
                          b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.times, self.text, self.tokens, self.end = [], b"", 0, None

    def read(self):
        """False at the end."""
        data = self.sock.recv(1 << 16)
        now = time.perf_counter()
        self.text += data
        if b'"choices":[{' in data:
            self.times.append(now)
        if data:
            return True
        self.end = now
        m = re.search(rb'"(?:completion_tokens|predicted_n)":(\d+)', self.text)
        if not m:
            sys.exit(f"a stream failed: {self.text[:300]!r}")
        self.tokens = int(m.group(1))
        return False


def run(port, n_streams, n_in, n_out, rng, vocab):
    streams = [Stream(port, [rng.randrange(vocab) for _ in range(n_in)], n_out) for _ in range(n_streams)]
    sel = selectors.DefaultSelector()
    for s in streams:
        sel.register(s.sock, selectors.EVENT_READ, s)
    left = n_streams
    while left:
        for key, _ in sel.select():
            if not key.data.read():
                sel.unregister(key.fileobj)
                left -= 1
    wall = max(s.end for s in streams) - min(s.start for s in streams)
    first = sorted(s.times[0] - s.start for s in streams)
    gaps = sorted(b - a for s in streams for a, b in zip(s.times, s.times[1:])) or [0]
    pick = lambda x, q: x[min(len(x) - 1, int(len(x) * q))] * 1000
    print(f"{n_streams:4d} streams, {n_in} in, {n_out} out: {sum(s.tokens for s in streams) / wall:8.1f} tok/s; first token P50 "
          f"{pick(first, .5):7.0f} ms, P90 {pick(first, .9):7.0f}; between tokens P50 {pick(gaps, .5):6.1f} ms, P90 {pick(gaps, .9):6.1f}", flush=True)


def start(a):
    options = ["--model", a.model, "--host", "127.0.0.1", "--port", "0", *([] if a.weights else ["--dummy-weight"]), *a.server]
    begin = time.perf_counter()
    server = subprocess.Popen([f"{ROOT}/build/minisgl", *options], stderr=subprocess.PIPE, text=True)
    port = None
    for line in server.stderr:
        if m := re.search(r"ready to serve on \S+:(\d+)", line):
            port = int(m.group(1))
            break
        print("  " + line, end="")
    if port is None:
        sys.exit("the server did not start")
    print(f"ready after {time.perf_counter() - begin:.2f} s")
    return server, port


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="Qwen/Qwen3-0.6B")
    p.add_argument("--weights", action="store_true")
    p.add_argument("--in", dest="n_in", type=int, default=124)
    p.add_argument("--out", dest="n_out", type=int, default=64)
    p.add_argument("--streams", default="1,8,32")
    p.add_argument("--busy", type=int, default=0)
    p.add_argument("--wait", type=float, default=0)
    p.add_argument("--port", type=int, help="of a server that runs already")
    p.add_argument("server", nargs="*")
    a = p.parse_args()
    server, port = (None, a.port) if a.port else start(a)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(a.busy)]
    try:
        time.sleep(a.wait)
        rng = random.Random(1)
        run(port, 1, 8, 8, rng, 1000)
        for n in map(int, a.streams.split(",")):
            run(port, n, a.n_in, a.n_out, rng, 1000)
    finally:
        for b in busy:
            b.kill()
        if server:
            server.terminate()
            server.wait()


main()
