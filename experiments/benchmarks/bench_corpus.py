"""Times how long a large text takes until a run's first batch, read anew and from the cache.

    python experiments/benchmarks/bench_corpus.py [--lines 1000000] [--processes 2]

The text is made up: words by Zipf's law, with punctuation, capitals, numbers and contractions. Each
reading is done by a process of its own, so that its peak of resident memory is its own, and that of
its children is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

from record import record


def make(path: Path, lines: int, words: int, seed: int = 0) -> None:
    """Writes a text of so many lines from a vocabulary of so many words."""
    rng = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [1 / (rank + 1) for rank in range(len(letters))]
    vocabulary = [
        "".join(rng.choices(letters, weights, k=min(2 + rank.bit_length() // 2, 12)))
        + str(rank % 7) * (rank % 101 == 100)
        for rank in range(words)
    ]
    vocabulary[:6] = ["the", "of", "and", "don't", "it's", "cannot"]
    zipf = list(accumulate(1 / (rank + 2.7) for rank in range(words)))
    with open(path, "w", encoding="utf-8") as stream:
        for _ in range(lines):
            chosen = rng.choices(vocabulary, cum_weights=zipf, k=rng.randint(2, 14))
            for place in range(len(chosen)):
                chance = rng.random()
                if chance < 0.06:
                    chosen[place] += ","
                elif chance < 0.08:
                    chosen[place] = f'"{chosen[place]}"'
                elif chance < 0.09:
                    chosen[place] = f"({chosen[place]})"
                elif chance < 0.1:
                    chosen[place] = f"{rng.randint(1, 9999):,}"
            stream.write(" ".join(chosen).rstrip(",").capitalize() + rng.choice(".....?!") + "\n")


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def read(path: str, processes: int | None, cache: str) -> None:
    """Reads the text in this process and prints figures as JSON."""
    start = time.perf_counter()
    from gfnem.parsing.text.data import TextData

    imported = time.perf_counter()
    data = TextData(path, processes=processes, cache=cache)
    made = time.perf_counter()
    data.training_batch(0)
    first = time.perf_counter()
    for update in range(1, 101):
        data.training_batch(update)
    hundred = time.perf_counter()
    digests = data.fingerprint()
    figures = {
        "sentences": len(data.train),
        "vocabulary": len(data.vocabulary),
        "import": imported - start,
        "read": made - imported,
        "first batch": first - made,
        "100 batches": hundred - first,
        "fingerprint": time.perf_counter() - hundred,
        "total": first - start,
        "CPU": sum(sum(resource.getrusage(who)[:2]) for who in _WHO),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak of a child": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "training": digests["training"],
    }
    print(json.dumps(figures))


def main() -> None:
    """Makes the text where there is none, reads it twice and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=200_000, help="different words")
    parser.add_argument("--processes", type=int, help="default: as many as cores")
    parser.add_argument("--text", type=Path, help="text to read, made if it is not there")
    parser.add_argument("--read", metavar="CACHE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(str(options.text), options.processes, options.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = options.text or Path(folder) / "text.txt"
        if not text.exists():
            make(text, options.lines, options.words)
        print(f"{text.stat().st_size / 1e6:.1f} MB, {os.cpu_count()} cores")
        command = [sys.executable, __file__, "--text", str(text), "--read", f"{folder}/cache"]
        if options.processes:
            command += ["--processes", str(options.processes)]
        for name in ("anew", "from the cache"):
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode:
                raise SystemExit(result.stderr)
            figures = json.loads(result.stdout)
            print(f"{name}:")
            for what, value in figures.items():
                unit = "MB" if what.startswith("peak") else "s"
                form = f"{value:10.2f} {unit}" if isinstance(value, float) else f"{value:>10}"
                print(f"    {what:16} {form}")
            record(f"reading {figures['sentences']:,} sentences, {name}", figures["CPU"])


if __name__ == "__main__":
    main()
