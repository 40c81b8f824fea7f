"""The README's own programs run."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(program, str(README), "exec"), {})
    assert (tmp_path / "em.ckpt").exists()
    printed = capsys.readouterr().out
    assert "LogMarginal(" in printed and "(NT" in printed


def test_the_files_it_names_exist():
    text = README.read_text(encoding="utf-8")
    for name in set(re.findall(r"(?:experiments|grammars)/[\w.]+\w", text)):
        assert (README.parent / name).exists(), name
