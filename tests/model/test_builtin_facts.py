"""What the built-in model was taught agrees with the program: every option its answers name exists, under that name, and every
default they quote is the table's. Retraining takes both from the table (models/builtin-src/facts.py); this guards the time between."""
import json
import os
import re
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCE = os.path.join(ROOT, "models", "builtin-src")
sys.path.insert(0, SOURCE)
import facts  # noqa: E402

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def program_rows():
    out = subprocess.run([os.path.join(ROOT, "build", "minisgl"), "help", "--json"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def taught_rows():
    with open(os.path.join(SOURCE, "options.json"), encoding="utf-8") as f:
        return json.load(f)


def names(rows):
    return {name for row in rows for name in [row["name"], *row["aliases"]]}


def taught_answers():
    return facts.answers(facts.read_table(os.path.join(SOURCE, "options.json")))


@pytest.mark.parametrize("key", sorted(facts.ANSWERS))
def test_options_exist(key):
    known = names(program_rows())
    for text in taught_answers()[key]:
        for option in OPTION.findall(text):
            # a prefix of exactly one option is accepted by the command line too (--shell)
            hits = [name for name in known if name == option] or [name for name in known if name.startswith(option)]
            assert len(hits) == 1, f"{option} in {text!r} is no option of minisgl"


def test_quoted_parts_agree():
    """The same templates filled from the program's own table give the same answers, word for word."""
    with_program = facts.Table(program_rows())
    for key, texts in taught_answers().items():
        assert texts == [with_program.fill(text) for text in facts.ANSWERS[key]], f"{key}: retrain models/builtin (see its README)"


def test_every_option_of_the_server_has_an_answer():
    """A new option needs an answer in facts.py, or a reason in UNANSWERED."""
    quoted = {place[0] for texts in facts.ANSWERS.values() for text in texts for place in facts.PLACE.findall(text)}
    for row in program_rows():
        spellings = {name[2:] for name in [row["name"], *row["aliases"]]}
        if row["name"] and "serve" in row["commands"]:  # one without a name is an environment variable
            assert spellings & (quoted | facts.UNANSWERED), \
                f"{row['name']}: add an answer to models/builtin-src/facts.py, and to NOT_YET_TAUGHT there"


def test_the_card_names_what_the_weights_do_not_know():
    with open(os.path.join(ROOT, "models", "builtin", "README.md"), encoding="utf-8") as f:
        card = f.read()
    assert facts.NOT_YET_TAUGHT <= set(facts.ANSWERS)
    for key in facts.NOT_YET_TAUGHT:
        options = ["minisgl " + key[4:]] if key.startswith("sub_") else OPTION.findall(" ".join(taught_answers()[key]))
        assert all(name in card for name in options), f"models/builtin/README.md: say that the weights do not know {options}"


def test_an_unknown_option_is_noticed():
    with pytest.raises(KeyError):
        facts.Table(program_rows()).fill("{no-such-option} N")
