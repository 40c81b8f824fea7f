"""Times updates on a GPU, recorded and as they come, and a whole run on a text.

    python experiments/gpu.py [--train TEXT --valid TEXT] [--updates 10000]

Random sentences, 32 a batch, 30+60 symbols, 16 trees for each: milliseconds on the clock of one
update, medians over several after a warm-up; launches, and milliseconds that the GPU computes, are
those that torch's profiler counts. With a text, `gfnem train --config text` takes that many updates
beside, once in single and once in mixed precision, and its time on the clock is a row, all that a
run does included. Rows go to `experiments/results/gpu.csv`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

from energies import provenance, read, write  # noqa: E402

from gfnem.component import build  # noqa: E402
from gfnem.em import EM  # noqa: E402
from gfnem.parsing import NeuralPCFG, RecursionPolicy, TopDownPolicy  # noqa: E402
from gfnem.parsing.spaces.topdown import TopDownSpace  # noqa: E402
from gfnem.parsing.text.sentences import Sentences  # noqa: E402
from gfnem.policy import Policy  # noqa: E402
from gfnem.rates import Descent  # noqa: E402
from gfnem.recipes import exact, gflownet  # noqa: E402

RESULTS = HERE / "results" / "gpu.csv"
VOCABULARY, LABELS, LEAVES = 5000, 30, 60
JOBS = {
    "GFlowNet-EM": (TopDownPolicy, lambda: gflownet(m_step="equal")),
    "GFlowNet-EM, recursion": (RecursionPolicy, lambda: gflownet(m_step="equal")),
    "exact EM": (TopDownPolicy, exact),
}


def trained_by(name: str, record: bool) -> Descent:
    """A grammar and its sampler on the GPU."""
    policy, recipe = JOBS[name]
    torch.manual_seed(0)
    model = NeuralPCFG(VOCABULARY, LABELS, LEAVES)
    facts = {"vocab_size": VOCABULARY, "nonterminals": LABELS, **model.facts()}
    named = {"class_path": f"{policy.__module__}.{policy.__qualname__}"}
    parts = model, TopDownSpace(LABELS), build(named, Policy, **facts)
    return Descent(EM(*parts, recipe(), record=record).to("cuda"))


def batch(longest: int, seed: int) -> Sentences:
    """32 random sentences on the GPU, of half of `longest` to `longest` words."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(longest // 2, longest + 1, (32,), generator=generator)
    lengths[0] = longest
    tokens = torch.randint(1, VOCABULARY, (32, longest), generator=generator)
    inside = torch.arange(longest) < lengths[:, None]
    return Sentences(tokens * inside, lengths).to("cuda")


def update(name: str, record: bool, longest: int, precision: str, repeats: int) -> dict[str, Any]:
    """Figures of one update."""
    descent, batches = trained_by(name, record), [batch(longest, seed) for seed in range(4)]
    walls = []
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16-mixed"):
        for number in range(repeats + 4):
            start = time.perf_counter()
            descent.update(batches[number % len(batches)])
            torch.cuda.synchronize()
            walls.append(time.perf_counter() - start)
        with torch.profiler.profile() as profile:
            descent.update(batches[0])
            torch.cuda.synchronize()
    kernels = [e for e in profile.key_averages() if e.self_device_time_total > 0]
    kernels = [e for e in kernels if e.self_cpu_time_total == 0]  # not what launches them
    took = statistics.median(walls[4:])
    return {
        "ms an update": f"{1000 * took:.1f}",
        "launches": sum(e.count for e in kernels) if not record else "",
        "GPU busy, ms": f"{sum(e.self_device_time_total for e in kernels) / 1000:.1f}",
        "seconds for 10,000": f"{10_000 * took:.0f}",
    }


def run(train: str, valid: str, updates: int, precision: str) -> dict[str, Any]:
    """Figures of a whole run."""
    sizes = ["--model.nonterminals", str(LABELS), "--model.preterminals", str(LEAVES)]
    words = ["--config", "text", "--reward", "none", *sizes, "--max-updates", str(updates)]
    words += ["--dataset.interval", "1000", "--precision", precision]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        data = ["--data", train, "--valid", valid, "--out", str(out)]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "gfnem", "train", *words, *data], check=True)
        took = time.perf_counter() - start
        held_out = [row for row in read(out / "metrics.csv") if row.get("val_nll")]
    best = min(held_out, key=lambda row: float(row["val_nll"]))
    return {
        "seconds for 10,000": f"{took * 10_000 / updates:.0f}",
        "held-out NLL": f"{float(best['val_nll']):.4g}",
        "ELBO gap": f"{float(best['val_elbo_gap']):.3g}",
        "command": shlex.join(["gfnem", "train", *words, "--data", "TRAIN", "--valid", "DEV"]),
    }


def main() -> None:
    """Makes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train", help="text to train on; none for no whole run")
    parser.add_argument("--valid", help="held-out text")
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--whole", action="store_true", help="the whole run alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if bool(options.train) != bool(options.valid):
        parser.error("--train and --valid: both or none")
    if not torch.cuda.is_available():
        parser.error("torch sees no GPU here")
    rows = list(read(options.results))
    gpu = re.sub(r"^NVIDIA ", "", torch.cuda.get_device_name())

    def keep(what: str, how: str, precision: str, figures: dict[str, Any]) -> None:
        named = {"what": what, "updates are": how, "precision": precision}
        row = {**named, **provenance("experiments/gpu.py"), **figures}
        row["machine"] = gpu
        rows.append(row)
        write(options.results, rows)
        print("  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)

    for longest in () if options.whole else (20, 40):
        for name in JOBS:
            for record, precision in ((False, "32-true"), (True, "32-true"), (True, "bf16-mixed")):
                how = "recorded" if record else "as they come"
                print(f"{name}, {longest} words, {how}, {precision}", end="  ")
                found = update(name, record, longest, precision, options.repeats)
                keep(f"{name}, up to {longest} words", how, precision, found)
    if options.train:
        for precision in ("32-true", "bf16-mixed"):
            found = run(options.train, options.valid, options.updates, precision)
            keep(f"a run of {options.updates:,} updates", "recorded", precision, found)


if __name__ == "__main__":
    main()
