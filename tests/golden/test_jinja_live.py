"""Our Jinja against Python's: templates written by hand, random ones, and real ones on random conversations.

MINISGL_TEST_CASES  how many random templates (default 1500, with MINISGL_TEST_LONG 100000); a fiftieth of it is the
                    number of conversations for each real template
MINISGL_TEST_SEED   where to start (default 1); printed with a failure
"""

import glob
import os
import warnings

import pytest

import jinja_chats
import jinja_hand
import jinja_oracle
import jinja_random

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.environ.get("MINISGL_TEST_DATA", os.path.join(ROOT, "..", "shared", "data"))
PROGRAM = os.environ.get("MINISGL_PROGRAM", os.path.join(ROOT, "build", "minisgl"))
warnings.simplefilter("ignore", SyntaxWarning)


@pytest.fixture
def ours(tmp_path):
    if not os.path.exists(PROGRAM):
        pytest.skip(f"{PROGRAM} is not built")
    return jinja_oracle.Ours(PROGRAM, str(tmp_path))


def compare(ours, cases, seed):
    env = jinja_oracle.environment()
    bad, compared, rendered = [], 0, 0
    for at in range(0, len(cases), 2000):
        part = cases[at : at + 2000]
        for (source, variables), mine in zip(part, ours.render(part)):
            theirs = jinja_oracle.reference(env, source, variables)
            same = jinja_oracle.agree(theirs, mine)
            compared += same is not None
            rendered += theirs[0] == "ok"
            if same is False:
                bad.append(f"{source!r}\n  jinja2:  {theirs}\n  minisgl: {mine}")
    print(f"seed {seed}: {len(cases)} templates, {compared} compared, {rendered} rendered by jinja2, {len(bad)} differ")
    assert not bad, f"seed {seed}: {len(bad)} of {len(cases)} differ\n" + "\n".join(sorted(bad, key=len)[:20])
    return compared


def test_by_hand(ours):
    cases = [(source, jinja_random.VARIABLES) for source in jinja_hand.TEMPLATES]
    assert compare(ours, cases, "none") > 0.9 * len(cases)


COUNT = int(os.environ.get("MINISGL_TEST_CASES") or ("100000" if os.environ.get("MINISGL_TEST_LONG") else "1500"))
SEED = int(os.environ.get("MINISGL_TEST_SEED") or 1)


def test_random(ours):
    source = jinja_random.Random(SEED)
    assert compare(ours, [(source.case(), jinja_random.VARIABLES) for _ in range(COUNT)], SEED) > 0.8 * COUNT


def test_real(ours):
    files = sorted(glob.glob(os.path.join(DATA, "chat-templates", "*.jinja")))
    if not files:
        pytest.skip(f"no chat templates in {DATA} (set MINISGL_TEST_DATA)")
    random, cases = jinja_chats.Random(SEED), []
    for file in files:
        with open(file, encoding="utf-8", newline="") as f:
            source = f.read()
        cases += [(source, random.variables()) for _ in range(max(COUNT // 50, 1))]
    assert compare(ours, cases, SEED) > 0.8 * len(cases)
