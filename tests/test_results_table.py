"""The table of all models and recipes: what is done is not done again, what cannot be is said."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "experiments" / "results_table.py"
TREE = "(S (NP (D the) (N {0})) (VP (V saw) (NP (D the) (N {1}))))\n"


@pytest.fixture
def table(tmp_path, monkeypatch, capfd):
    """Calls the script in this process; its cells are processes of their own."""
    spec = importlib.util.spec_from_file_location("results_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results_table", script)  # where dataclasses look
    spec.loader.exec_module(script)
    trees = tmp_path / "trees.mrg"
    nouns = ("dog", "cat", "bird", "fish")
    trees.write_text("".join(TREE.format(one, other) for one in nouns for other in nouns))
    data = [part for name in ("--train", "--test") for part in (name, trees)]
    size = ["--symbols", "2", "3", "--updates", "2", "--limit", "4", "--samples", "2"]

    def call(*words: str) -> str:
        arguments = [SCRIPT, *data, *size, "--out", tmp_path, *words]
        monkeypatch.setattr("sys.argv", [*map(str, arguments)])
        script.main()
        return capfd.readouterr().err

    return call


@pytest.mark.slow
def test_cells_are_added_refused_and_kept(tmp_path, table):
    table("--models", "PCFG", "--recipes", "gflownet", "--e-every", "2", "--m-step", "equal")
    first = tmp_path / "PCFG-gflownet-0" / "figures.json"
    before = first.read_bytes(), first.stat().st_mtime_ns
    table("--models", "PCFG", "--recipes", "gflownet")
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    settings = (first.parent / "run" / "config.yaml").read_text()
    assert "e_every: 2" in settings and "m_step: equal" in settings

    said = table("--models", "PCFG", "RNNG", "--recipes", "exact")
    refused = json.loads((tmp_path / "RNNG-exact-0" / "figures.json").read_text())["refused"]
    assert "RNNG" in refused and "exact" in refused and refused in said

    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")[1:3]] for line in lines[2:] if "|" in line]
    assert rows == [["PCFG", "gflownet"], ["PCFG", "exact"]]
    assert any(line.startswith("- right branching: sentence F1") for line in lines)
    assert any(line.startswith("- word trigrams: NLL") for line in lines)
