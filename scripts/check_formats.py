"""Mutate annotation files of every format, read and convert them, and check that only errors for users occur.

    python scripts/check_formats.py --inputs 100000
    python scripts/check_formats.py --only "boris: project" --seed 7

Each input is a small good file with one thing wrong: cut off, bytes replaced, a value of another kind, a stray letter.
It must be read, or refused with an AnnotationError that names the file and a remedy. One in fifty is also converted.
Needs a checkout. Exits with 1 if anything else happened, and prints the inputs.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.datasets.formats.files import FILES
from tests.datasets.formats.mutations import mutate
from vidgru.config import ConvertConfig, OutputFormat
from vidgru.datasets import formats
from vidgru.datasets.convert import convert
from vidgru.datasets.rows import Options
from vidgru.errors import AnnotationError

CONVERTED = 50  # every so many inputs are converted too, which is slower
MAX_SHOWN = 10


def main() -> int:
    """Run the check and print counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--only", choices=FILES, default=None)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    kinds = [args.only] if args.only else list(FILES)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.inputs):
            kind = kinds[number % len(kinds)]
            counts[check(Path(folder), kind, random.Random(f"{args.seed} {number}"), number, failures)] += 1
    for failure in failures[:MAX_SHOWN]:
        print(failure)
    print(
        f"{args.inputs} inputs of {len(kinds)} kinds in {time.monotonic() - start:.0f} s: {counts['read']} read, "
        f"{counts['refused']} refused, {len(failures)} wrong"
    )
    return bool(failures)


def check(folder: Path, kind: str, rng: random.Random, number: int, failures: list[str]) -> str:
    """Read one mutated file and return what came of it; add a description to `failures` if it is wrong."""
    name, content = FILES[kind]
    path = folder / name
    path.write_bytes(mutate(kind, content, rng))
    named = kind.partition(":")[0] if rng.random() < 0.5 else None
    try:
        formats.read(path, named, Options(fps=25.0))  # type: ignore[arg-type]
        if number % CONVERTED == 0:
            to = rng.choice(get_args(OutputFormat))
            out = folder / f"converted {to}" / ("out" if to in ("vtt", "cvat") else "out.json")
            convert(path, out, ConvertConfig(format=named, fps=25.0, to=to))  # type: ignore[arg-type]
    except AnnotationError as error:
        if name in error.message and error.remedy:
            return "refused"
        failures.append(f"input {number}, {kind}: no file or remedy in: {error}")
    except Exception:
        failures.append(f"input {number}, {kind}: {path.read_bytes()[:2000]!r}\n{traceback.format_exc()}")
    else:
        return "read"
    finally:
        os.unlink(path)
    return "wrong"


if __name__ == "__main__":
    sys.exit(main())
