#!/usr/bin/env python3
"""Write src/text/unicode_data.c by asking the reference tokenizer about every code point.

Usage: tools/make-unicode.py > src/text/unicode_data.c   (Python package `tokenizers` 0.23.2; about a minute)

The reference mixes several Unicode versions: its regular expressions know Unicode 16, its digit test Unicode 17,
its normaliser Unicode 9, its punctuation test an older one still. Rather than guess, every property is probed.
libutf8proc (newer than the reference's normaliser) is asked too, to find the code points it must not touch.
"""
import ctypes
import sys
import unicodedata
from tokenizers import Regex, normalizers, pre_tokenizers

ALL = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
SPACE, WORD, PUNCT = 0x20, 0x40, 0x80
NFC, NFKC, NFD, NFKD, OPAQUE, NUMERIC = 1, 2, 4, 8, 16, 32


def removed_by(splitter):
    """The characters a splitter of behaviour `removed` takes away."""
    out = set()
    for i in range(0, len(ALL), 4096):
        part = ALL[i : i + 4096]
        kept = set()
        for _, (a, b) in splitter.pre_tokenize_str("".join(map(chr, part))):
            kept.update(range(a, b))
        out.update(c for k, c in enumerate(part) if k not in kept)
    return out


def matching(pattern):
    return removed_by(pre_tokenizers.Split(Regex(pattern), "removed"))


def splits_from_a(splitter):
    return {c for c in ALL if len(splitter.pre_tokenize_str("a" + chr(c))) == 2}


def classes():
    table = [0] * 0x110000
    for i, name in enumerate(CATEGORIES):
        if name != "Cn":
            for c in matching(r"\p{%s}" % name):
                table[c] = i
    for c in matching(r"\s"):
        table[c] |= SPACE
    whole = pre_tokenizers.Whitespace()  # \w+|[^\w\s]+
    for c in ALL:
        if [p[1] for p in whole.pre_tokenize_str("a" + chr(c))] == [(0, 2)]:
            table[c] |= WORD
    for c in splits_from_a(pre_tokenizers.Punctuation()):
        table[c] |= PUNCT
    return table


class Property(ctypes.Structure):
    _fields_ = [("category", ctypes.c_short), ("combining", ctypes.c_short)]


def utf8proc():
    lib = ctypes.CDLL("libutf8proc.so.2")
    lib.utf8proc_get_property.restype = ctypes.POINTER(Property)
    free = ctypes.CDLL(None).free

    def form(name):
        call = getattr(lib, "utf8proc_" + name)
        call.restype = ctypes.c_void_p

        def of(c):
            p = call(ctypes.c_char_p(chr(c).encode()))
            s = ctypes.string_at(p).decode()
            free(ctypes.c_void_p(p))
            return s

        return of

    return form, lambda c: lib.utf8proc_get_property(c)[0].combining


def reorders(nfd, c):
    """Whether the reference gives c a combining class: does it move around marks of class 240 and 1?"""
    return not nfd.normalize_str("\u0345" + chr(c)).startswith("\u0345") or not nfd.normalize_str(
        chr(c) + "\u0334"
    ).endswith("\u0334")


def normal_forms():
    form, combining = utf8proc()
    names = ("NFC", "NFKC", "NFD", "NFKD")
    reference = {n: getattr(normalizers, n)() for n in names}
    mine = {n: form(n) for n in names}
    table = [0] * 0x110000
    opaque = set()
    for c in ALL[1:]:
        ref = {n: reference[n].normalize_str(chr(c)) for n in names}
        mark = combining(c) != 0
        if any(ref[n] != mine[n](c) for n in names) or (len(ref["NFD"]) == 1 and mark != reorders(reference["NFD"], c)):
            if any(ref[n] != chr(c) for n in names):
                sys.exit(f"U+{c:04X}: the reference maps it otherwise than utf8proc; the table cannot say that")
            opaque.add(c)
            second = mine["NFD"](c)[-1]
            if ord(second) != c:
                opaque.add(ord(second))  # or utf8proc would compose what the reference does not
            continue
        for bit, n in ((NFC, "NFC"), (NFKC, "NFKC"), (NFD, "NFD"), (NFKD, "NFKD")):
            if mark or ref[n] != chr(c):
                table[c] |= bit
        for d in ref["NFD"][1:]:  # may compose with what stands before it
            table[ord(d)] |= NFC | NFKC
    for c in opaque:
        table[c] = OPAQUE
    for c in splits_from_a(pre_tokenizers.Digits(True)):
        table[c] |= NUMERIC
    return table


def lower():
    """Runs (first, last, step, delta) of the one-to-one lower-case mappings; U+0130 is done in code."""
    f = normalizers.Lowercase()
    pairs = [(c, f.normalize_str(chr(c))) for c in ALL]
    pairs = [(c, ord(s)) for c, s in pairs if s != chr(c) and c != 0x130]
    runs = []
    for c, d in pairs:
        if runs and runs[-1][3] == d - c:
            first, last, step, _ = runs[-1]
            gap = c - last
            if gap in (1, 2) and (first == last or gap == step):
                runs[-1] = (first, c, gap, d - c)
                continue
        runs.append((c, c, 1, d - c))
    return runs


def newer(table):
    """Runs (first, last, stand-in) of characters whose category changed since the Unicode 14 of PCRE2 10.42.

    U+180E is with them: PCRE2 still takes it for a space."""
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("Python with Unicode 14 is needed (3.11), for it has the tables of PCRE2 10.42")
    old = {}
    han = matching(r"\p{Han}")
    width = lambda c: len(chr(c).encode())
    same = lambda c: CATEGORIES[table[c] & 31] == unicodedata.category(chr(c)) and c != 0x180E
    for c in ALL:
        if same(c):
            old.setdefault((table[c] & 31, width(c), c in han), c)
    runs = []
    for c in ALL:
        if same(c):
            continue
        d = old[table[c] & 31, width(c), c in han]
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == d:
            runs[-1] = (runs[-1][0], c, d)
        else:
            runs.append((c, c, d))
    return runs


def two_stage(table, name, size=64):
    blocks, index, out = {}, [], []
    for i in range(0, len(table), size):
        index.append(blocks.setdefault(tuple(table[i : i + size]), len(blocks)))
    kind = "uint8_t" if len(blocks) < 256 else "uint16_t"
    out.append(f"const {kind} uc_{name}_index[{len(index)}] = {{")
    out += ["    " + ",".join(map(str, index[i : i + 36])) + "," for i in range(0, len(index), 36)]
    out.append("};")
    out.append(f"const uint8_t uc_{name}_block[{len(blocks)}][{size}] = {{")
    for b in blocks:
        out.append("    {" + ",".join(map(str, b)) + "}," if any(b) else "    {0},")
    out.append("};")
    return "\n".join(out)


def main():
    print("/* unicode_data.c: made by tools/make-unicode.py; do not edit. See unicode.h. Constant data, no state. */")
    print("/* clang-format off */")
    print('#include "text/unicode.h"\n')
    table = classes()
    print(two_stage(table, "class"))
    print(two_stage(normal_forms(), "norm"))
    runs = lower()
    print(f"const size_t uc_lower_n = {len(runs)};")
    print(f"const struct uc_lower_run uc_lower_runs[{len(runs)}] = {{")
    print("\n".join("    {%d,%d,%d,%d}," % r for r in runs))
    print("};")
    runs = newer(table)
    print(f"const size_t uc_newer_n = {len(runs)};")
    print(f"const struct uc_newer_run uc_newer_runs[{len(runs)}] = {{")
    print("\n".join("    {%d,%d,%d}," % r for r in runs))
    print("};")


main()
