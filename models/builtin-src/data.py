#!/usr/bin/env python3
"""Makes the built-in model's training conversations from facts.py and phrases/*.txt. Needs nothing but Python.

    data.py --options options.json --exclude questions.jsonl --count 20000 [--seed 1]   print training texts, one a line
    data.py --options options.json --exclude questions.jsonl --report                   what the filter did

A training text that shares five words in a row with a question of --exclude is dropped here, by code, unseen
(tests/model/overlap.py says what counts): the questions are used as a filter and for nothing else.
"""
import argparse
import collections
import glob
import importlib.util
import json
import os
import random
import re
import sys

import facts

HERE = os.path.dirname(os.path.abspath(__file__))
OVERLAP = os.path.join(HERE, "..", "..", "tests", "model", "overlap.py")

# ---- a small grammar: (a|b|c) chooses, [x] is optional, {x} is a slot ----


def parse(text):
    """A tree: a list of str, ("slot", name) and ("any", [tree, ...])."""
    def seq(i, stop):
        out, buf = [], ""
        while i < len(text) and text[i] not in stop:
            c = text[i]
            if c in "([{":
                if buf:
                    out.append(buf)
                    buf = ""
                if c == "{":
                    end = text.index("}", i)
                    out.append(("slot", text[i + 1:end]))
                    i = end + 1
                    continue
                options = []
                close = ")" if c == "(" else "]"
                while True:
                    tree, i = seq(i + 1, "|" + close)
                    options.append(tree)
                    if i >= len(text):
                        raise ValueError(f"unclosed {c} in {text!r}")
                    if text[i] == close:
                        break
                if c == "[":
                    options.append([])
                out.append(("any", options))
                i += 1
            else:
                buf += c
                i += 1
        if buf:
            out.append(buf)
        return out, i
    tree, end = seq(0, "")
    assert end == len(text), text
    return tree


def expand(tree, r, slots, seen):
    out = []
    for part in tree:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "any":
            out.append(expand(r.choice(part[1]), r, slots, seen))
        else:
            out.append(slots(part[1], r, seen))
    return "".join(out)


def tidy(text):
    return re.sub(r"\s+([?.!,])", r"\1", re.sub(r"\s+", " ", text)).strip()


SLOTS = {k: parse(v) for k, v in {
    "gpus": "(GPUs|GPUs|GPUs|gpus|gpus|graphics cards|cards|cards|video cards|accelerators|Nvidia cards|H100s|A100s|H200s|4090s|3090s|"
            "L40S cards|devices|GPU's|gpu cards|graphic cards|B200s|RTX cards|H100 cards|NVIDIA GPUs|A6000s|V100s|5090s|gfx cards|"
            "nvidia GPUs|A100 cards|graphics processors|cuda devices)",
    "gpu": "(GPU|GPU|gpu|gpu|graphics card|card|video card|accelerator|Nvidia card|H100|A100|H200|4090|3090|device|RTX 4090|graphic card|"
           "NVIDIA GPU|nvidia card|cuda device|RTX card|RTX 3060)",
    "vram": "(GPU memory|GPU memory|VRAM|VRAM|vram|video memory|memory|memory on the card|device memory|graphics memory|HBM|memory of the GPU|"
            "gpu memory|card memory|gpu ram|graphics card memory|video ram)",
    "mdl": "(model|model|model|LLM|checkpoint|network|language model|model|llm|neural network)",
    "mname": "(Qwen3-32B|Qwen3-8B|Qwen3-0.6B|Qwen2.5-7B|Qwen2.5-72B|Llama-3.1-70B|Llama-3.1-8B|Llama 3 70B|Llama 3|Mistral-7B|Qwen3-30B-A3B|"
             "Qwen/Qwen3-14B|meta-llama/Llama-3.3-70B-Instruct|a 70B model|a 32B model|an 8B model|a big model|my model|Llama 70B|qwen3 32b|"
             "a 14B model|Qwen|Mistral|the 235B model|a large model|a 7B model)",
    "srv": "(minisgl|minisgl|minisgl|the server|the server|it|this|the program|the engine|this tool|the service|your server|mini-sglang|"
           "the app|this software|this server|minisgl)",
    "pc": "(laptop|PC|workstation|box|machine|server|computer|desktop|node|rig|pc|host|home server)",
    "path": "(/models/qwen|/data/llama|~/models|./my-model|/mnt/weights/mistral|/home/me/checkpoints|/srv/llm|D:/models)",
    "howto": "(how do I|how do I|how do i|how can I|how can I|how would I|how could I|how should I|how to|how to|how does one|how can one|"
             "how might I|how can we|how do we|how do you|what's the way to|what is the best way to|is there a way to|is there any way to|"
             "any way to|is it possible to|can I|could I|may I|can we|I want to|I want to|I would like to|I'd like to|i wanna|I need to|"
             "I have to|we need to|we want to|we would like to|I am trying to|I'm trying to|I try to|trying to|I wish to|help me|"
             "help me to|tell me how to|show me how to|please explain how to|explain how to|I don't know how to|I don't understand how to|"
             "no idea how to|what do I do to|what must I do to|what should I do to|what do I have to do to|what do I need to|"
             "what's needed to|what does it take to|what do I pass to|what do I type to|what should I type to|what can I do to|"
             "which flag do I need to|which flag lets me|which option lets me|which option do I use to|which setting lets me|"
             "which switch should I use to|which parameter do I set to|what flag is used to|what option is there to|what is the flag to|"
             "what's the option to|what is the command to|what is the setting to|what is the switch to|is there a flag to|"
             "is there an option to|is there a setting to|is there something to|do you have an option to|do you have a flag to|"
             "can you tell me how to|could you tell me how to|could you explain how to|can you show me how to|could you help me to|"
             "would you tell me how to|do you know how to|I wonder how to|I was wondering how to|where can I|where do I|"
             "what if I want to|what if I need to|suppose I want to|let's say I want to|say I want to|when I want to|if I want to|"
             "in case I want to|my goal is to|the goal is to|my plan is to|I was asked to|my boss wants me to|I hope to|it would be nice to|"
             "I must|we must|we have to|I intend to|I plan to|how shall I|please|please let me|let me|I can't figure out how to|"
             "I can't find how to|I could not find out how to|docs don't say how to|need to|want to|would like to|looking to|"
             "looking for a way to|steps to|option to|flag to|command to|setting to|switch to|way to|a flag to|an option to|best way to|"
             "easiest way to|correct way to|what's the trick to|is one able to|am I able to|are we able to|how am I supposed to)",
    "ask": "(what can I do|what should I do|what do I do|what can be done|what now|how do I fix that|how do I fix this|how can I fix it|"
           "how do I solve this|how can that be solved|how do I change that|how can I change it|any idea|any ideas|any advice|any hints|ideas|"
           "help|please help|can you help|help me|is there a flag for that|is there an option for that|is there a setting|"
           "which option helps|which flag helps|which flag do I need|which option do I need|which setting is it|which flag|which option|"
           "what option is that|what flag|what's the flag|what is the right option|what is the right flag|what should I set|"
           "what do I set|what do I have to set|what do I type|what do I add|what do I pass|is that possible|possible|can I do that|"
           "how|how so|but how|how come|how do I do that|how can I do that|how do I do it|how to do that|how to proceed|how do I manage that|"
           "what would you suggest|what do you suggest|what do you recommend|your advice|suggestions|what's the solution|a solution|"
           "can this be changed|can that be configured|is there a cure|is there a remedy|what must I change|where do I configure that|"
           "where do I set this|which knob do I turn|which switch is for that|can minisgl do that|does minisgl have something for this|"
           "what am I missing|what did I do wrong|what to do|fix|solution|how to fix|how to solve|why|why is that)",
    "pre": "(hi,|hello,|hey,|hi!|hello!|hey there,|quick question:|question:|a question:|one question:|sorry,|excuse me,|please help:|newbie here,|"
           "beginner question:|one more thing:|so,|ok so|um,|well,|hello minisgl,|good morning,|hi there!|dear assistant,|stupid question:|"
           "sorry for asking,|just wondering,|just curious:|another question:|next question:|also,|and|but|now|then|tell me,|tell me:|"
           "I have a question.|can you help me?|help!|yo,|hey bot,|good day,|I am new to this.|I'm a beginner.|thanks! now|ok,|ok thanks,|"
           "great,|urgent:|for a friend:|hmm,|first,|please tell me,|please tell me:|could you tell me,|can you tell me,|do you know,|"
           "I wonder,|I was wondering,|I'd like to know,|I want to know:|say,|listen,|Q:|re:|hi all,|hi team,|guys,)",
    "post": "(thanks|thanks!|thank you|thx|please|pls|plz|thanks in advance|many thanks|cheers|?|??|with minisgl|in minisgl|in minisgl|on the server|"
            "with this|here|on linux|for production|in production|asap|at all|again|exactly|then|now|when starting the server|at startup|"
            "when I start it|from the command line|on the command line|if possible|somehow|without trouble|by the way|on my machine|"
            "with this server|with this program|using minisgl|with your server|or not|right|for me|I forgot|I can't find it|"
            "I did not find it in the docs|the readme does not say|hope you can help|any hint is welcome)",
    "ctx": "(I run Debian 12.|I use Ubuntu.|My boss asked me.|It is for a school project.|I come from vLLM.|I used SGLang before.|"
           "I used llama.cpp before.|I am new to this.|We serve {mname}.|I use {mname}.|I have one {gpu}.|We are a small company.|"
           "This is for a demo tomorrow.|I read the readme.|I am a student.|I am not an expert.|We run it in docker.|We run it on kubernetes.|"
           "My colleague set it up.|I just started it.|The server runs fine otherwise.|I am writing a script.|I work at a university.|"
           "We have a few users.|I am on a trial machine.|I use it from python.|It worked before.|I tried everything.|I am testing.|"
           "I am comparing servers.|I rented a cloud machine.|Everything else works.|My English is not good.|I have little time.)",
}.items()}

V_FORMS = [parse(x) for x in [
    "{howto} {X}?", "{howto} {X}?", "{howto} {X}?", "{howto} {X}", "{howto} {X}", "{howto} {X}?", "{X}?", "{X}", "please {X}",
    "I want to {X}. {ask}?", "I'd like to {X}, {ask}?", "I need to {X}. {ask}?", "I must {X}. {ask}?", "I tried to {X} but it failed. {ask}?",
    "I am trying to {X}. {ask}?", "{ask} to {X}?", "to {X}, {ask}?", "{X}: {ask}?", "can minisgl {X}?", "does it let me {X}?",
    "does minisgl allow me to {X}?", "is there a (flag|option|setting|switch|parameter|command) that lets me {X}?",
    "what is the name of the (flag|option|setting) to {X}?", "(flag|option|setting|switch|parameter|command) to {X}",
    "how {X}", "how {X}?", "possible to {X}?", "am I allowed to {X}?", "need to {X} {ask}", "{ctx} {howto} {X}?", "I would rather {X}"]]
N_FORMS = [parse(x) for x in [
    "what is {X}?", "what's {X}?", "what is {X}", "what are {X}?", "what about {X}?", "where do I (set|find|change|specify|give|put|configure) {X}?",
    "how do I (set|change|choose|use|find|get|configure|specify|pick|adjust|enable|see) {X}?", "how can I (set|change|choose|use|find|get|configure) {X}?",
    "tell me about {X}", "tell me more about {X}", "explain {X}", "explain {X} to me", "please explain {X}", "describe {X}",
    "what does {X} (do|mean)?", "what do I use {X} for?", "{X}?", "{X}", "{X} please", "I am looking for {X}", "I'm searching for {X}",
    "is there {X}?", "is there (anything|something) like {X}?", "do you have {X}?", "does minisgl (have|support|offer|know) {X}?",
    "can I (set|change|choose|use|have|control|configure) {X}?", "how does {X} work?", "what is {X} (for|good for|used for)?",
    "(info|information|details|help|documentation|docs) (on|about|for) {X}", "I (want|need|would like) {X}", "I want to (know|change|set|see|use) {X}",
    "I need to (know|change|set|find|use) {X}", "which (flag|option|setting|parameter) is for {X}?", "which (flag|option|setting) (sets|controls|changes|gives) {X}?",
    "what (flag|option|setting) (sets|controls|changes|gives) {X}?", "{howto} (set|change|find|use|configure|choose|get) {X}?",
    "what (should|can|must) {X} be?", "default of {X}", "what is the default (for|of) {X}?", "meaning of {X}", "the meaning of {X}?",
    "purpose of {X}?", "what (decides|determines) {X}?", "I don't understand {X}", "I don't know {X}", "I forgot {X}", "remind me of {X}",
    "who (sets|decides) {X}?", "when do I need {X}?", "why would I use {X}?", "can you explain {X}?", "could you explain {X}?",
    "what can you tell me about {X}?", "I read about {X}. {ask}?", "{ctx} what is {X}?", "give me {X}", "how is {X} (set|chosen|changed|used)?",
    "a few words on {X}", "I have heard of {X}, what is it?", "what value does {X} have?", "which values can I give for {X}?", "change {X}", "set {X}"]]
S_FORMS = [parse(x) for x in ["{X}", "{X} {ask}?", "{X} {ask}?", "{X} {ask}", "{X} {ask}?", "{ask}? {X}", "{ctx} {X} {ask}?", "{X} {ctx} {ask}?"]]
SV_FORMS = [parse(x) for x in ["{X} {howto} {V}?", "{X} (so|now) {howto} {V}?", "{X} I (want|need|would like) to {V}.", "{X} can I {V}?"]]
Q_FORMS = [parse(x) for x in ["{X}"] * 12 + ["{ctx} {X}"]]
K_FORMS = [parse(x) for x in ["{X}"] * 5 + ["{X}?", "{X} ?", "{X} minisgl", "minisgl {X}", "{X} option", "{X} flag", "{X} please", "{X} help", "about {X}", "need {X}",
                              "{X} how", "how {X}", "{X} setting", "{X} how to", "{X} default", "{X} info", "set {X}", "question about {X}", "{X} issue",
                              "my question is about {X}", "something with {X}", "{X} doc"]]
FORMS = {"v": V_FORMS, "n": N_FORMS, "s": S_FORMS, "q": Q_FORMS, "k": K_FORMS}
KIND_WEIGHT = {"v": 0.30, "n": 0.20, "s": 0.20, "q": 0.22, "k": 0.08}

# intent -> its option, whose spellings all lead to it
OPTION = {"tp": "tp", "port": "port", "host": "host", "model": "model", "model_source": "model-source", "served_name": "served-model-name",
          "api_key": "api-key", "chat_template": "chat-template", "log_level": "log-level", "memory": "memory-ratio",
          "max_running": "max-running-requests", "max_queued": "max-queued-requests", "max_seq_len": "max-seq-len-override",
          "dtype": "dtype", "dummy_weight": "dummy-weight", "cuda_graph": "cuda-graph-max-bs", "num_tokenizer": "num-tokenizer",
          "max_prefill": "max-prefill-length", "num_pages": "num-pages", "page_size": "page-size", "attn": "attention-backend",
          "cache_type": "cache-type", "shell": "shell-mode", "threads": "threads", "device": "device", "cpu_isa": "cpu-isa",
          "max_body": "max-body-bytes", "max_conn": "max-connections", "schedule_policy": "schedule-policy", "target_itl": "target-itl",
          "request_timeout": "request-timeout", "comm_timeout": "comm-timeout", "overlap": "overlap"}
FLAG_FORMS = ["{f}", "the {f} (flag|option|switch|parameter|setting)", "(flag|option) {f}", "the (option|flag) {f}", "{b}", "the {b} (flag|option|setting)"]
PLAIN = {"hello", "thanks", "bye", "oos", "who"}  # no help-desk forms around these
WEIGHT = {"tp": 2.2, "memory": 1.8, "port": 1.5, "oos": 2.5, "hello": 0.8, "bye": 0.4, "cpu_isa": 0.5, "max_body": 0.4, "max_conn": 0.4, "raw": 0.4,
          "version": 0.4, "max_queued": 0.7, "routes": 0.6, "sub_dummy": 0.7, "n": 0.9}
NUMBERS = {"2": 2, "two": 2, "a pair of": 2, "4": 4, "four": 4, "8": 8, "eight": 8}
ODD_NUMBERS = ["3", "three", "5", "six", "7", "a dozen"]

# ---- noise: what hurried people do to a sentence ----

SHORT = {"please": "pls", "you": "u", "are": "r", "and": "&", "thanks": "thx", "with": "w/", "because": "bc", "do not": "don't",
         "what is": "whats", "does not": "doesnt", "cannot": "cant", "would like": "wanna", "want to": "wanna", "through": "thru", "for": "4",
         "requests": "reqs", "memory": "mem", "parameter": "param", "configure": "config", "what is the": "what's the", "I am": "I'm"}
SMALL = set("the a an do does i to is of my can it in on for be are me we that this there with one any please have".split())
KEYS = {a: b for a, b in zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioipsdfghjklkxcvbnmn")}


def typo(word, r):
    if len(word) < 4 or not word.isalpha():
        return word
    i = r.randrange(1, len(word) - 1)
    how = r.random()
    if how < 0.3:
        return word[:i] + word[i + 1:]
    if how < 0.6:
        return word[:i] + word[i + 1] + word[i] + word[i + 2:]
    if how < 0.8:
        return word[:i] + word[i] + word[i:]
    return word[:i] + KEYS.get(word[i].lower(), word[i]) + word[i + 1:]


def noise(text, r):
    if r.random() < 0.12:
        a = r.choice(list(SHORT))
        text = re.sub(rf"\b{a}\b", SHORT[a], text)
    words = text.split(" ")
    if r.random() < 0.12 and len(words) > 4:   # telegram style, non-native style: small words go missing
        words = [w for w in words if w.lower() not in SMALL or r.random() < 0.45] or words
    if r.random() < 0.04 and len(words) > 3:
        i = r.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    if r.random() < 0.04 and len(words) > 5:
        del words[r.randrange(len(words))]
    if r.random() < 0.22:
        for _ in range(r.choice((1, 1, 2))):
            i = r.randrange(len(words))
            words[i] = typo(words[i], r)
    text = " ".join(words)
    if r.random() < 0.35:
        text = re.sub(r"[?.!,:]+( |$)", r"\1", text)
    case = r.random()
    if case < 0.45:
        text = text.lower()
    elif case < 0.85:
        text = text[:1].upper() + text[1:]
    elif case < 0.87:
        text = text.upper()
    return text


# ---- questions ----


def read_phrases(table):
    """{intent: {kind: [tree, ...]}}"""
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    for path in sorted(glob.glob(os.path.join(HERE, "phrases", "*.txt"))):
        key = None
        for number, line in enumerate(open(path, encoding="utf-8"), 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            if line.startswith("== "):
                key = line[3:]
                if key not in facts.ANSWERS:
                    raise ValueError(f"{path}:{number}: no answer for {key}")
            elif line[:2] in ("v ", "n ", "s ", "q ", "k "):
                groups[key][line[0]].append(parse(line[2:]))
            else:
                raise ValueError(f"{path}:{number}: expected v, n, s, q or k: {line!r}")
    for key, option in OPTION.items():
        row = table.rows["--" + option]
        for f in [row["name"], *row["aliases"]]:
            for form in FLAG_FORMS:
                groups[key]["flag"].append(parse(form.replace("{f}", f).replace("{b}", f[2:])))
    return groups


class Filter:
    """Says whether a text shares wording with the questions of a file; never what."""

    def __init__(self, paths, dev=None):
        spec = importlib.util.spec_from_file_location("overlap", OVERLAP)
        self.overlap = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.overlap)
        questions = {}
        for path in paths:
            for i, line in enumerate(open(path, encoding="utf-8")):
                item = json.loads(line)
                questions[(path, i)] = item["question"]
        if dev:  # our own development questions: five words in a row only, so that short ones don't take key words away
            for i, line in enumerate(open(dev, encoding="utf-8")):
                text = json.loads(line)["q"]
                if len(self.overlap.words(text)) >= self.overlap.WORDS:
                    questions[(dev, i)] = text
        self.table = self.overlap.index(questions)

    def hit(self, text):
        seq = self.overlap.words(text)
        return any(tuple(seq[i:i + n]) in known for n, known in self.table.items() for i in range(len(seq) - n + 1))


class Maker:
    """Seeded conversations; everything it gives away has passed the filter."""

    def __init__(self, table, exclude):
        answer_filter = Filter(exclude)
        self.filter = Filter(exclude, os.path.join(HERE, "dev.jsonl"))
        self.groups = read_phrases(table)
        self.table = table
        self.keys = [k for k in self.groups]
        self.weights = [WEIGHT.get(k, 1.0) for k in self.keys]
        self.answers, self.second_choice = {}, []
        for key, texts in facts.answers(table).items():
            good = [t for t in texts if not answer_filter.hit(t.replace("@N", "4")) and not answer_filter.hit(t)]
            if not good:
                raise ValueError(f"every wording of the answer {key} shares words with a test question: add one to facts.py")
            self.answers[key] = good[0]
            if good[0] != texts[0]:
                self.second_choice.append(key)
        self.made = self.dropped = 0

    def slot(self, name, r, seen):
        if name == "tpn":
            if r.random() < 0.07:
                seen["odd"] = True
                return r.choice(ODD_NUMBERS)
            word = r.choice(list(NUMBERS))
            seen["n"] = NUMBERS[word]
            return word
        if name == "port":
            seen["n"] = r.choice([8000, 8080, 30000, 5000, 80, 443, 9000, 1234]) if r.random() < 0.3 else r.randrange(80, 65536)
            return str(seen["n"])
        if name in seen.get("fill", {}):
            return seen["fill"][name]
        return expand(SLOTS[name], r, self.slot, seen)

    def form(self, forms, fill, r, seen):
        seen["fill"] = fill
        return expand(r.choice(forms), r, self.slot, seen)

    def plain_question(self, key, r):
        group = self.groups[key]
        kinds = [k for k in "vnsqk" if group.get(k)]
        seen = {}
        if key in OPTION and r.random() < 0.10:
            x = expand(r.choice(group["flag"]), r, self.slot, seen)
            text = self.form(N_FORMS, {"X": x}, r, seen)
        else:
            kind = r.choices(kinds, [KIND_WEIGHT[k] * (len(group[k]) ** 0.5) for k in kinds])[0]
            x = expand(r.choice(group[kind]), r, self.slot, seen)
            if kind == "s" and group.get("v") and r.random() < 0.25:
                v = expand(r.choice(group["v"]), r, self.slot, seen)
                text = self.form(SV_FORMS, {"X": x, "V": v}, r, seen)
            else:
                text = self.form([["", ("slot", "X")]] if key in PLAIN else FORMS[kind], {"X": x}, r, seen)
        p = 0.06 if key in PLAIN else 0.22
        seen["fill"] = {}
        if r.random() < p:
            text = expand(SLOTS["pre"], r, self.slot, seen) + " " + text
        if r.random() < p and key not in PLAIN:
            text = text.rstrip("?. ") + " " + expand(SLOTS["post"], r, self.slot, seen)
        return tidy(text), seen

    def answer(self, key, seen):
        if key in ("tp", "port") and "n" in seen and not seen.get("odd"):
            return self.answers[key + "_n"].replace("@N", str(seen["n"]))
        return self.answers[key]

    def pair(self, r, key=None):
        """(question, answer, intent)"""
        while True:
            k = key or r.choices(self.keys, self.weights)[0]
            clean, seen = self.plain_question(k, r)
            text = noise(clean, r)
            self.made += 1
            if len(text) < 2 or len(text) > 400 or self.filter.hit(clean) or self.filter.hit(text):
                self.dropped += 1
                continue
            return text, self.answer(k, seen), k

    AGAIN = parse("(again please|what was that|can you repeat (that|it)|please repeat|say that again|sorry, what|once more|repeat|pardon|come again)[?]")
    AND_N = parse("(and|what about|how about|and with|and for|now for|make it) {tpn}[ {gpus}][ then| instead]?")

    def chat(self, r, turns):
        """[(question, answer), ...]: questions that follow each other, some of which lean on the one before."""
        out = []
        while len(out) < turns:
            p = r.random()
            if out and p < 0.06:
                text, seen = noise(tidy(expand(self.AGAIN, r, self.slot, {})), r), None
                item = (text, out[-1][1])
            elif out and p < 0.16 and "tensor parallelism" in out[-1][1]:
                seen = {}
                text = noise(tidy(expand(self.AND_N, r, self.slot, seen)), r)
                item = (text, self.answer("tp", seen))
            else:
                key = "thanks" if out and p > 0.92 else None
                text, answer, _ = self.pair(r, key)
                item = (text, answer)
            if not self.filter.hit(item[0]):
                out.append(item)
        return out

    SYSTEM = ["You are a helpful assistant.", "You are the help desk of minisgl.", "You are a helpful assistant for minisgl.", "Answer briefly.",
              "You are an AI assistant.", "Be short and precise."]

    def system(self, r):
        return r.choice([s for s in self.SYSTEM if not self.filter.hit(s)])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--options", default=os.path.join(HERE, "options.json"), help="output of `minisgl help --json`")
    p.add_argument("--exclude", action="append", default=[], help="questions that training texts must share no wording with")
    p.add_argument("--count", type=int, default=20000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--report", action="store_true")
    p.add_argument("--with-intent", action="store_true")
    a = p.parse_args()
    maker = Maker(facts.read_table(a.options), a.exclude)
    r = random.Random(a.seed)
    lines = dict.fromkeys(maker.pair(r) for _ in range(a.count))
    if a.report:
        print(f"{maker.made} made, {maker.dropped} dropped, {len(lines)} different; answers in their second wording: {maker.second_choice}")
        return
    for text in dict.fromkeys(maker.answers.values()):
        if not a.with_intent:
            print(text)
    for question, _, key in lines:
        print(f"{key}\t{question}" if a.with_intent else question)


if __name__ == "__main__":
    sys.exit(main())
