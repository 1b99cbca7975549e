"""The reference: Python's jinja2, set up as transformers does for chat templates."""

import copy
import datetime
import functools
import json
import os
import re
import subprocess

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2026, 1, 15, 9, 30, 0)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    @staticmethod
    def _body(caller):
        return caller()


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols], cache_size=0
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


@functools.lru_cache(maxsize=1)  # a real template comes many times in a row
def compiled(env, source):
    return env.from_string(source)


def reference(env, source, variables):
    """('ok', text) or ('error', what)."""
    try:
        text = compiled(env, source).render(**copy.deepcopy(variables))  # |indent writes to a list it is given
        text.encode("utf-8")
        return "ok", text
    except RecursionError:
        return "deep", ""
    except MemoryError:
        return "deep", ""
    except Exception as e:  # noqa: BLE001 - any exception is Jinja's "no"
        return "error", f"{type(e).__name__}: {e}"


class Ours:
    """`minisgl template` as a filter of JSON lines."""

    def __init__(self, program, model):
        self.command = [program, "template", "--model", model]

    def render(self, cases):
        lines = [
            json.dumps({"template": s, "variables": v, "now": NOW.strftime("%Y-%m-%d %H:%M:%S")}) for s, v in cases
        ]
        done = subprocess.run(
            self.command,
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=1"},
            errors="surrogatepass",
        )
        answers = [json.loads(a) for a in done.stdout.split("\n")[:-1]]
        assert done.returncode == any("error" in a for a in answers), done.stderr[-4000:]
        assert len(answers) == len(cases), done.stderr[-4000:]
        return [("ok", a["prompt"]) if "prompt" in a else ("error", a["error"]) for a in answers]


DOTTED = re.compile(r"No (filter|test) named '\w+\.")
CONSTANT_SLICE = ("is not subscriptable", "slice indices must", "type: 'slice'", "slice step cannot")


def agree(theirs, ours):
    """True, False, or None when the case cannot tell (a known difference on purpose)."""
    if theirs[0] == "deep":
        return None
    if ours[0] == "error" and theirs[0] == "ok" and DOTTED.search(ours[1]):
        return None  # Jinja folds `constant or x` and never looks at x
    if ours[0] == "error" and theirs[0] == "ok" and any(u in ours[1] for u in CONSTANT_SLICE):
        return None  # a wrong slice of a constant becomes undefined when Jinja folds it, and is an error otherwise
    if (
        ours[0] == "error"
        and theirs[0] == "ok"
        and any(
            u in ours[1] for u in ("beyond 64 bits", "is refused", "not supported", "a fractional power", "unhashable")
        )
    ):
        return None
    if theirs[0] == "error":
        return ours[0] == "error"
    return ours == theirs
