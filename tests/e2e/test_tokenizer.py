"""`minisgl tokenize` against the Python package `tokenizers` on random text and random ids.

Under pytest: MINISGL_TEST_STRINGS strings a tokenizer (5,000 unless said), seed from MINISGL_TEST_SEED or the clock.
By hand: test_tokenizer.py [--strings N] [--seed N] [TOKENIZER or VARIANT ...]; `variants` means all of those
"""

import json
import lzma
import os
import pathlib
import random
import subprocess
import sys
import time
import unicodedata

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "minisgl"
DATA = pathlib.Path(os.environ.get("MINISGL_TEST_DATA") or ROOT.parent / "shared" / "data")
FAMILIES = ["gpt2", "llama3.1", "llama3.2", "mistral-v0.3", "qwen2.5", "qwen3", "tinyllama"]
CHUNK = 20000

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2007\u2009\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e"
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'rE", "'ve", "'m", "'ll", "'LL", "'lL", "'d", "'\u017f", "'x", "''"]
EMOJI = ["👨‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "1️⃣", "☕️", "🫨", "🧑🏿‍🚀"]
WORDS = "the Hello WORLD don't naïve Straße İstanbul Ω ﬁn ǅ 漢字かな交じり 한국어 Ünïcödé नमस्ते ไทย مرحبا שלום".split()
ODD = ["<0x0A>", "<0xE4>", "▁", "▁▁", "Ġ", "<unk>", "<s>", "</s>", "<|", "|>", "[INST]", "\x00", "\x7f", "\ufffd", "\U0010ffff"]


def combining():
    return [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and unicodedata.combining(chr(c))]


class Strings:
    """Random strings with much of what goes wrong in tokenizers."""

    def __init__(self, rng, tokenizer):
        self.rng = rng
        self.marks = combining()
        self.added = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
        self.tokens = list(tokenizer.get_vocab())
        self.kinds = [
            lambda: rng.choice(WORDS),
            lambda: "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 5))),
            lambda: " " * rng.randrange(1, 9),
            lambda: rng.choice(["\n", "\r\n", "\n\n", " \n", "\n ", "\t\n\t"]),
            lambda: "".join(rng.choice("0123456789٣४Ⅷ²½") for _ in range(rng.randrange(1, 8))),
            lambda: rng.choice(CONTRACTIONS),
            lambda: "".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randrange(1, 6))),
            lambda: "".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randrange(1, 12))),
            lambda: rng.choice("aeiouAXقक한") + "".join(chr(rng.choice(self.marks)) for _ in range(rng.randrange(1, 5))),
            lambda: "".join(chr(rng.randrange(0x4E00, 0xA000)) for _ in range(rng.randrange(1, 6))),
            lambda: "".join(chr(rng.randrange(0x1100, 0x1200)) for _ in range(rng.randrange(1, 4))),
            lambda: chr(rng.randrange(0xAC00, 0xD7A4)) + chr(rng.randrange(0x11A7, 0x11C4)),
            lambda: rng.choice(EMOJI),
            lambda: rng.choice(ODD),
            lambda: rng.choice(self.added),
            lambda: rng.choice(self.added)[: rng.randrange(1, 8)],
            lambda: rng.choice(self.tokens),
            lambda: chr(rng.randrange(0xE000, 0xF900)),
            lambda: "".join(self.any_char() for _ in range(rng.randrange(1, 4))),
            lambda: chr(rng.choice([0x10D40, 0x16D40, 0x1C89, 0xA7CB, 0x323AF, 0x11DE0, 0x1E5D0, 0x2EBF0, 0x11935, 0x11930])),
            lambda: rng.choice("aA 1\n'é漢") * rng.randrange(1, 60),
        ]

    def any_char(self):
        c = self.rng.randrange(0x110000 if self.rng.random() < 0.3 else 0x3000)
        return chr(c) if not 0xD800 <= c <= 0xDFFF else "x"

    def one(self):
        return "".join(self.rng.choice(self.kinds)() for _ in range(self.rng.randrange(1, 10)))


def random_ids(rng, tokenizer, byte_ids):
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    added = list(tokenizer.get_added_tokens_decoder())
    out = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.random()
        if kind < 0.3 and byte_ids:
            out += [rng.choice(byte_ids) for _ in range(rng.randrange(1, 6))]
        elif kind < 0.45 and byte_ids:  # a whole character in byte tokens
            out += [byte_ids[b] for b in rng.choice("é漢👍ÿA").encode()]
        elif kind < 0.55:
            out.append(rng.choice(added))
        else:
            out.append(rng.randrange(size))
    return out


def ask(model, lines, *options):
    run = subprocess.run(
        [PROGRAM, "tokenize", "--model", model, *options],
        input="".join(json.dumps(x) + "\n" for x in lines),
        capture_output=True, text=True, check=True,
    )
    answers = [json.loads(x) for x in run.stdout.split("\n")[:-1]]
    assert len(answers) == len(lines)
    return answers


def byte_tokens(tokenizer):
    """The ids of the 256 bytes, however this tokenizer spells them."""
    ids = [tokenizer.token_to_id(f"<0x{b:02X}>") for b in range(256)]
    if None in ids:
        own = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
        rest = [b for b in range(256) if b not in own]
        ids = [tokenizer.token_to_id(chr(b) if b in own else chr(256 + rest.index(b))) for b in range(256)]
    return [] if None in ids else ids


def compare(model, tokenizer, strings, ids):
    """The differences, as text."""
    bad = []
    for special in (False, True):
        want = [e.ids for e in tokenizer.encode_batch_fast(strings, add_special_tokens=special)]
        got = ask(model, strings, *(["--special"] if special else []))
        bad += [f"{s!r}: {g} instead of {w}" for s, w, g in zip(strings, want, got) if g != {"ids": w}]
        want = tokenizer.decode_batch(ids, skip_special_tokens=special)
        got = ask(model, ids, "--decode", *(["--special"] if special else []))
        bad += [f"decode {i}, skip {special}: {g} instead of {w!r}" for i, w, g in zip(ids, want, got) if g != {"text": w}]
    return bad


def added(i, content, **flags):
    base = {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {**base, "special": False, **flags}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
META = {"type": "Metaspace", "replacement": "▁", "split": True}


def template(token, i, suffix):
    place = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": token, "type_id": 0}}]
    special = {token: {"id": token, "ids": [i], "tokens": [token]}}
    single = place if suffix else place[::-1]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def variants():
    """(name, the family whose model is used, what is changed in its file): parts that the published files do not use."""
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        yield form, "gpt2", {"normalizer": {"type": form}}
    norm = sequence("normalizers", {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True})
    yield "normalizers", "gpt2", {"normalizer": norm}
    yield "replace", "tinyllama", {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": "▁"}}
    yield "prefix-space", "gpt2", {"pre_tokenizer": {**BYTES, "add_prefix_space": True, "use_regex": True}}
    for name, pattern in (("o200k", O200K), ("qwen3.5", QWEN35)):
        yield name, "gpt2", {"pre_tokenizer": sequence("pretokenizers", split({"Regex": pattern}), BYTES)}
    yield "deepseek", "gpt2", {"pre_tokenizer": sequence("pretokenizers", *[split({"Regex": r}) for r in DEEPSEEK], BYTES)}
    for behavior in BEHAVIORS:
        for invert in (False, True):
            steps = split({"Regex": r"[\p{Lu}\s]+(?=\p{L})|\p{M}"}, behavior, invert), split({"String": "a"}, behavior, invert), BYTES
            yield f"{behavior}-{invert}", "gpt2", {"pre_tokenizer": sequence("pretokenizers", *steps)}
    for digits in (False, True):
        steps = {"type": "Digits", "individual_digits": digits}, {"type": "Punctuation", "behavior": "Isolated"}, BYTES
        yield f"digits-{digits}", "gpt2", {"pre_tokenizer": sequence("pretokenizers", *steps)}
    yield "whitespace", "tinyllama", {"normalizer": None, "pre_tokenizer": {"type": "Whitespace"}}
    steps = {"type": "WhitespaceSplit"}, {**META, "prepend_scheme": "always"}
    yield "words", "tinyllama", {"normalizer": None, "pre_tokenizer": sequence("pretokenizers", *steps)}
    for scheme in ("always", "first", "never"):
        meta = {**META, "prepend_scheme": scheme}
        yield f"metaspace-{scheme}", "tinyllama", {"normalizer": None, "pre_tokenizer": meta, "decoder": meta}
    gemma = sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"})
    yield "gemma", "tinyllama", {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": split({"String": " "}, "MergedWithPrevious"),
        "decoder": gemma,
    }
    yield "no-decoder", "tinyllama", {"decoder": None}
    tokens = [
        added(0, "<unk>", special=True), added(1, "<s>", special=True, lstrip=True), added(2, "</s>", special=True, rstrip=True),
        added(32000, "naïve", single_word=True), added(32001, "Ünïcödé", normalized=True), added(32002, " x", normalized=True, lstrip=True),
        added(32003, "<|", special=True), added(32004, "<|end|>", special=True, normalized=True), added(32005, "\n\n", rstrip=True),
    ]
    for form in (None, {"type": "NFKD"}, {"type": "Lowercase"}):
        yield f"added-{form and form['type']}", "tinyllama", {"added_tokens": tokens, "normalizer": form, "post_processor": template("</s>", 2, True)}
    yield "unknown", "tinyllama", {"model": {"byte_fallback": False}}
    yield "unknown-apart", "tinyllama", {"model": {"byte_fallback": False, "fuse_unk": False}}
    yield "unknown-gone", "tinyllama", {"model": {"byte_fallback": False, "unk_token": None}}
    yield "ignore-merges", "tinyllama", {"model": {"ignore_merges": True}, "pre_tokenizer": {**META, "prepend_scheme": "first"}}


VARIANTS = {name: (family, change) for name, family, change in variants()}


def unpack(name, folder):
    """Write the tokenizer.json of a family or a variant."""
    family, change = VARIANTS.get(name, (name, {}))
    text = lzma.open(DATA / "tokenizers" / family / "tokenizer.json.xz").read()
    if change:
        whole = json.loads(text)
        change = {**change, "model": {**whole["model"], **change.get("model", {})}}
        text = json.dumps({**whole, **change}).encode()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(text)
    return folder


def differential(family, folder, count, seed):
    tokenizers = pytest.importorskip("tokenizers")
    model = unpack(family, folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    rng = random.Random(f"{family} {seed}")
    strings, bytes_ = Strings(rng, tokenizer), byte_tokens(tokenizer)
    bad = []
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        bad += compare(model, tokenizer, [strings.one() for _ in range(n)], [random_ids(rng, tokenizer, bytes_) for _ in range(n)])
    print(f"{family}: {count} strings and {count} id lists, each two ways, seed {seed}: {len(bad)} differences")
    return bad


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no reference data in {DATA} (set MINISGL_TEST_DATA)")
@pytest.mark.parametrize("family", FAMILIES)
def test_random_text_and_ids(family, tmp_path):
    count = int(os.environ.get("MINISGL_TEST_STRINGS") or (50000 if os.environ.get("MINISGL_TEST_LONG") else 5000))
    seed = int(os.environ.get("MINISGL_TEST_SEED") or time.time())
    bad = differential(family, tmp_path, count, seed)
    assert not bad, "\n".join(bad[:5])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no reference data in {DATA} (set MINISGL_TEST_DATA)")
@pytest.mark.parametrize("variant", VARIANTS)
def test_parts_that_no_published_file_uses(variant, tmp_path):
    count = int(os.environ.get("MINISGL_TEST_STRINGS") or (50000 if os.environ.get("MINISGL_TEST_LONG") else 5000)) // 5
    seed = int(os.environ.get("MINISGL_TEST_SEED") or time.time())
    bad = differential(variant, tmp_path, count, seed)
    assert not bad, "\n".join(bad[:5])


def main():
    import argparse
    import tempfile

    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--strings", type=int, default=200000)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("family", nargs="*", default=FAMILIES)
    a = p.parse_args()
    wrong = 0
    for family in list(VARIANTS) if a.family == ["variants"] else a.family or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            bad = differential(family, pathlib.Path(folder), a.strings, a.seed)
            print("\n".join(bad[:5]))
            wrong += len(bad)
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
