#!/usr/bin/env python3
"""Tells from which package the code of a binary comes, by its symbols.

usage: costs.py BINARY (with symbols)

A generic function counts for the package that defines it, wherever it was made for a type. What has no symbol, such as
texts and tables for unwinding, is in `others` of its section.
"""

import re
import signal
import subprocess
import sys
from collections import Counter

# C code, by what its names begin with.
C_NAMES = [
    (re.compile(r"^(_?aws_lc_|bn_|ecp_|p256_|p384_|p521_|x25519|CRYPTO_|fips)"), "aws-lc-sys (C)"),
    (re.compile(r"^_?mi_"), "libmimalloc-sys (C)"),
]
LIBRARY = {"std", "core", "alloc", "hashbrown", "gimli", "addr2line", "miniz_oxide", "rustc_demangle", "object", "panic_unwind", "std_detect"}
FIRST_PATH = re.compile(r"^[<&*\[(]*(?:mut |const |dyn |impl )*([A-Za-z_][A-Za-z0-9_]*)(?:\[[0-9a-f]+\])?::")
# `<A as trait>::f`, where A is a primitive or a reference to one: the trait's package.
TRAIT_PATH = re.compile(r" as ([A-Za-z_][A-Za-z0-9_]*)(?:\[[0-9a-f]+\])?::")


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def package(name):
    found = FIRST_PATH.match(name) or TRAIT_PATH.search(name)
    if found:
        first = found.group(1)
        return "Rust's standard library" if first in LIBRARY else first
    for pattern, owner in C_NAMES:
        if pattern.match(name):
            return owner
    return "others"


def sections(binary):
    sizes = {}
    for line in run("size", "-A", binary).splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1].isdigit():
            sizes[fields[0]] = int(fields[1])
    return sizes


def symbols(binary):
    seen = set()
    for line in run("nm", "-S", "-C", "--defined-only", binary).splitlines():
        fields = line.split(" ", 3)
        if len(fields) == 4 and len(fields[1]) == 16 and (fields[0], fields[1]) not in seen:
            # Functions that are equal share one place.
            seen.add((fields[0], fields[1]))
            yield int(fields[1], 16), fields[2], fields[3]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = sys.argv[1]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    code, data = Counter(), Counter()
    for size, kind, name in symbols(binary):
        (code if kind in "tTwW" else data)[package(name)] += 0 if kind in "bB" else size
    sizes = sections(binary)
    text = sizes.get(".text", 0)
    code["others"] += text - sum(code.values())
    print(f"{'KiB of code':>12} {'%':>5}  {'KiB of data':>12}  package")
    for name, size in code.most_common():
        if size + data[name] >= 1024:
            print(f"{size / 1024:12.0f} {100 * size / text:5.1f}  {data[name] / 1024:12.0f}  {name}")
    print("\nKiB  section")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size >= 8192 and not name.startswith(".debug"):
            print(f"{size / 1024:5.0f}  {name}")


main()
