#!/usr/bin/env python3
"""Fails when the built-in model's training text shares wording with its test questions.

    overlap.py questions.jsonl train.txt...    check; every line of a training file is one text
    overlap.py --self-test                     check this script

Text is lower-cased, apostrophes are dropped and all other punctuation separates words. A question and a line overlap
when they share WORDS words in a row; a question shorter than that overlaps a line that contains the whole of it.
Exit 0: clean. Exit 1: overlaps, one per line on stdout. Exit 2: an input could not be used.
"""
import json
import re
import sys

WORDS = 5
APOSTROPHES = re.compile("['\u2018\u2019\u02bc`]")
WORD = re.compile(r"[^\W_]+")


class InputError(Exception):
    """An input file that cannot be used; the text says which and why."""


def words(text):
    return WORD.findall(APOSTROPHES.sub("", text.lower()))


def runs(seq, n):
    return (tuple(seq[i:i + n]) for i in range(len(seq) - n + 1))


def read_questions(lines, name):
    """{id: question}. An expected answer inside its own question is refused: a model that echoes would pass."""
    found = {}
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        try:
            item = json.loads(line)
            key, text, expect = item["id"], item["question"], item["expect"]
        except (ValueError, KeyError, TypeError) as e:
            raise InputError(f"{where}: expected an object with id, question and expect: {e!r}") from e
        if not isinstance(text, str) or not words(text):
            raise InputError(f"{where}: the question has no words")
        if not isinstance(key, int) or key in found:
            raise InputError(f"{where}: expected a new integer id, found {key!r}")
        if not isinstance(expect, list) or not expect or not all(isinstance(e, str) and e.strip() for e in expect):
            raise InputError(f"{where}: expected a list of non-empty strings in expect, found {expect!r}")
        for e in expect:
            if e.lower() in text.lower():
                raise InputError(f"{where}: the question itself contains the expected answer {e!r}")
        found[key] = text
    if not found:
        raise InputError(f"{name}: no questions")
    return found


def index(questions):
    """{run length: {run: ids of the questions it comes from}}"""
    table = {}
    for key, text in questions.items():
        seq = words(text)
        n = min(WORDS, len(seq))
        for run in runs(seq, n):
            table.setdefault(n, {}).setdefault(run, set()).add(key)
    return table


def overlaps(table, lines):
    """Yields (line number, question id, shared words)."""
    for number, line in enumerate(lines, 1):
        seq = words(line)
        for n, known in table.items():
            for run in runs(seq, n):
                for key in sorted(known.get(run, ())):
                    yield number, key, " ".join(run)


def read_lines(name):
    try:
        with open(name, encoding="utf-8") as f:
            lines = f.read().split("\n")
    except (OSError, UnicodeError) as e:
        raise InputError(f"{name}: cannot be read as UTF-8 text: {e}") from e
    lines = lines[:-1] if lines[-1] == "" else lines
    if not any(words(line) for line in lines):
        raise InputError(f"{name}: no text; an empty file would always pass")
    return lines


def check(question_file, train_files):
    questions = read_questions(read_lines(question_file), question_file)
    table = index(questions)
    total = found = 0
    for name in train_files:
        lines = read_lines(name)
        total += len(lines)
        for number, key, run in overlaps(table, lines):
            found += 1
            print(f'{name}:{number}: question {key}: "{run}"')
    print(f"{len(questions)} questions, {total} training lines, {found} overlaps", file=sys.stderr)
    return 1 if found else 0


def self_test():
    questions = {1: "It's a red, round BALL today!", 2: "Blue ball?"}
    table = index(questions)
    cases = [
        ("its a red round", []),
        ("Say: ITS a red-round ball.", [(1, "its a red round ball")]),
        ("it\u2019s a_red round\tball today", [(1, "its a red round ball"), (1, "a red round ball today")]),
        ("a red round square ball today", []),
        ("bits a red round ball", []),
        ("the blue ball.", [(2, "blue ball")]),
        ("blue balls, blue big ball", []),
        ("", []),
    ]
    bad = 0
    for line, want in cases:
        got = [(key, run) for _, key, run in overlaps(table, [line])]
        if got != want:
            bad += 1
            print(f"self-test: {line!r}: expected {want}, found {got}")
    refused = [
        [],
        ["not json"],
        ["[]"],
        ['{"id":1,"question":"?!","expect":["a"]}'],
        ['{"id":1,"question":"why","expect":[]}'],
        ['{"id":1,"question":"why","expect":[" "]}'],
        ['{"id":1,"question":"Is it --TP?","expect":["--tp"]}'],
        ['{"id":1,"question":"why","expect":["a"]}'] * 2,
    ]
    for lines in refused:
        try:
            read_questions(lines, "self-test")
        except InputError:
            continue
        bad += 1
        print(f"self-test: {lines} was accepted")
    print(f"self-test: {len(cases) + len(refused)} cases, {bad} wrong", file=sys.stderr)
    return 1 if bad else 0


def main(argv):
    if argv == ["--self-test"]:
        return self_test()
    if len(argv) < 2 or argv[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        return check(argv[0], argv[1:])
    except InputError as e:
        print(f"overlap: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
