"""The built-in model through the program itself: how many of the questions that nobody trained on it answers, greedily."""
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUESTIONS = os.path.join(ROOT, "tests", "model", "questions.jsonl")
BAR = 48


def read_questions():
    with open(QUESTIONS, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def ask(questions):
    lines = "".join(json.dumps({"messages": [{"role": "user", "content": q}], "temperature": 0, "max_tokens": 96}) + "\n" for q in questions)
    run = subprocess.run([os.path.join(ROOT, "build", "minisgl"), "generate", "--model", os.path.join(ROOT, "models", "builtin")],
                         input=lines, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return [json.loads(line)["text"] for line in run.stdout.splitlines()]


def test_hidden_questions():
    items = read_questions()
    got = ask([item["question"] for item in items])
    assert len(got) == len(items) == 60
    good = sum(any(e.lower() in text.lower() for e in item["expect"]) for item, text in zip(items, got))
    print(f"built-in model: {good} of {len(items)} right")
    assert good >= BAR, f"{good} of {len(items)} right, expected {BAR}"  # says no more: the questions stay unread


def test_first_question_of_every_user():
    hello, tp, port, poem = ask(["Hello!", "How do I use four GPUs?", "Which port does the server use?", "Write me a poem about the moon."])
    assert "minisgl" in hello
    assert "--tp 4" in tp
    assert "1919" in port
    assert "only know minisgl" in poem


def test_training_texts_share_no_wording(tmp_path):
    """A fresh sample of the training texts, made as train.py makes them, and the answers, checked by the separate script."""
    source = os.path.join(ROOT, "models", "builtin-src")
    texts = subprocess.run([sys.executable, os.path.join(source, "data.py"), "--exclude", QUESTIONS, "--count", "20000", "--seed", "1000"],
                           check=True, capture_output=True, text=True).stdout
    assert texts.count("\n") > 10000
    (tmp_path / "texts.txt").write_text(texts, encoding="utf-8")
    check = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "model", "overlap.py"), QUESTIONS, str(tmp_path / "texts.txt")],
                           capture_output=True, text=True)
    assert check.returncode == 0, check.stderr.splitlines()[-1]
