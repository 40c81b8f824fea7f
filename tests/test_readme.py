"""The README's own programs run."""

import gc
import re
from pathlib import Path

import pytest

from gfnem.em import EM

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for program in programs:
        exec(compile(program, str(README), "exec"), names)
    assert (tmp_path / "em.ckpt").exists()
    printed = capsys.readouterr().out
    assert "LogMarginal(" in printed and "(NT" in printed
    em = EM(names["model"], names["em"].space, names["em"].policy, names["twice"](samples=2))
    assert len(list(em.update(names["x"]))) == 3, "the recipe of one's own takes an update"
    del em  # no other test is to meet a recipe that belongs to no module
    names.clear()
    gc.collect()


def test_the_files_it_names_exist():
    text = README.read_text(encoding="utf-8")
    for name in set(re.findall(r"(?:experiments|grammars|docs)/[\w./]+\w", text)):
        assert (README.parent / name).exists(), name


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120
