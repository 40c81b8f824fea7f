"""The table of all models and recipes: what is done is not done again, what cannot be is said."""

import contextlib
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import call

SCRIPT = Path(__file__).parent.parent / "experiments" / "results_table.py"
TREE = "(S (NP (D the) (N {0})) (VP (V saw) (NP (D the) (N {1}))))\n"


def here(command, **_) -> subprocess.CompletedProcess:
    """Runs a command of gfnem in this process: a new one imports for longer than it works."""
    assert command[:3] == [sys.executable, "-m", "gfnem"]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = call(*command[3:])
    return subprocess.CompletedProcess(command, code, out.getvalue(), errors.getvalue())


@pytest.fixture
def table(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("results_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "results_table", module)  # its dataclass looks itself up
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.subprocess, "run", here)
    trees = tmp_path / "trees.mrg"
    nouns = ("dog", "cat", "bird", "fish")
    trees.write_text("".join(TREE.format(one, other) for one in nouns for other in nouns))
    data = [part for name in ("--train", "--test") for part in (name, trees)]
    size = ["--symbols", "2", "3", "--updates", "2", "--limit", "4", "--samples", "2"]

    def run(*words: str) -> None:
        command = [SCRIPT, *data, *size, "--out", tmp_path, *words]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        module.main()

    return run


@pytest.mark.slow
def test_cells_are_added_refused_and_kept(tmp_path, table, capsys):
    table("--models", "PCFG", "--recipes", "gflownet", "--e-every", "2", "--m-step", "equal")
    first = tmp_path / "PCFG-gflownet-0" / "figures.json"
    before = first.read_bytes(), first.stat().st_mtime_ns
    table("--models", "PCFG", "--recipes", "gflownet")
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    settings = (first.parent / "run" / "config.yaml").read_text()
    assert "e_every: 2" in settings and "m_step: equal" in settings

    table("--models", "PCFG", "RNNG", "--recipes", "exact")
    refused = json.loads((tmp_path / "RNNG-exact-0" / "figures.json").read_text())["refused"]
    assert "RNNG" in refused and "exact" in refused and refused in capsys.readouterr().err

    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")[1:3]] for line in lines[2:] if "|" in line]
    assert rows == [["PCFG", "gflownet"], ["PCFG", "exact"]]
    assert any(line.startswith("- right branching: sentence F1") for line in lines)
    assert any(line.startswith("- word trigrams: NLL") for line in lines)
