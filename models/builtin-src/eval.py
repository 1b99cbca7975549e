#!/usr/bin/env python3
"""Checks a folder with Hugging Face transformers: it loads, and how many questions it answers, in bf16 and float32.

    eval.py FOLDER [--show N] QUESTIONS.jsonl ...

Questions and answers are printed for the development set only; of a file with hidden questions nothing but the score.
"""
import argparse
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from train import read_questions, right


@torch.no_grad()
def answers(model, tokenizer, questions):
    """Greedy, all at once with left padding, through transformers' own generate()."""
    tokenizer.padding_side = "left"
    texts = [tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True) for q in questions]
    batch = tokenizer(texts, return_tensors="pt", padding=True).to(model.device)
    out = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=96)
    return [tokenizer.decode(x[batch["input_ids"].shape[1]:], skip_special_tokens=True) for x in out]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("questions", nargs="+")
    p.add_argument("--show", type=int, default=0)
    a = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(a.folder)
    for dtype in (torch.bfloat16, torch.float32):
        model = AutoModelForCausalLM.from_pretrained(a.folder, dtype=dtype).to(device).eval()
        for path in a.questions:
            questions, expect = read_questions(path)
            got = answers(model, tokenizer, questions)
            good = sum(right(x, e) for x, e in zip(got, expect))
            print(f"{type(model).__name__} {dtype} {os.path.basename(path)}: {good}/{len(got)}")
            if os.path.basename(path) == "dev.jsonl":
                for q, x in list(zip(questions, got))[:a.show]:
                    print(f"  {q}\n    {x}")


if __name__ == "__main__":
    sys.exit(main())
