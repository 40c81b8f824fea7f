"""The table of all models and recipes: what is done is not done again, what cannot be is said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "experiments" / "results_table.py"
TREE = "(S (NP (D the) (N {0})) (VP (V saw) (NP (D the) (N {1}))))\n"


def table(folder: Path, *words: str) -> subprocess.CompletedProcess:
    trees = folder / "trees.mrg"
    nouns = ("dog", "cat", "bird", "fish")
    trees.write_text("".join(TREE.format(one, other) for one in nouns for other in nouns))
    data = [part for name in ("--train", "--test") for part in (name, trees)]
    size = ["--symbols", "2", "3", "--updates", "2", "--limit", "4", "--samples", "2"]
    command = [sys.executable, SCRIPT, *data, *size, "--out", folder, *words]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_cells_are_added_refused_and_kept(tmp_path):
    done = table(
        tmp_path, "--models", "PCFG", "--recipes", "gflownet", "--e-every", "2", "--m-step", "equal"
    )
    assert done.returncode == 0, done.stderr
    first = tmp_path / "PCFG-gflownet-0" / "figures.json"
    before = first.read_bytes(), first.stat().st_mtime_ns
    assert table(tmp_path, "--models", "PCFG", "--recipes", "gflownet").returncode == 0
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    settings = (first.parent / "run" / "config.yaml").read_text()
    assert "e_every: 2" in settings and "m_step: equal" in settings

    done = table(tmp_path, "--models", "PCFG", "RNNG", "--recipes", "exact")
    assert done.returncode == 0, done.stderr
    refused = json.loads((tmp_path / "RNNG-exact-0" / "figures.json").read_text())["refused"]
    assert "RNNG" in refused and "exact" in refused and refused in done.stderr

    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")[1:3]] for line in lines[2:] if "|" in line]
    assert rows == [["PCFG", "gflownet"], ["PCFG", "exact"]]
    assert any(line.startswith("- right branching: sentence F1") for line in lines)
    assert any(line.startswith("- word trigrams: NLL") for line in lines)
