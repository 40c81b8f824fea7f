"""What the package itself offers: its names, its version, its configurations."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from commands import printed, refused

import gfnem

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["gfnem", "gfnem.parsing"])
def test_every_public_name_is_listed_and_there(name):
    package = import_module(name)
    assert len(package.__all__) > 10 and set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        assert getattr(package, public).__name__ == public
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        package.Nonsense  # noqa: B018


def test_importing_imports_nothing_heavy():
    script = "import sys, gfnem.parsing; print('torch' in sys.modules, 'nltk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_version(capsys):
    assert printed(capsys, "--version") == f"gfnem {gfnem.__version__}\n"


def test_a_wheel_holds_every_configuration_and_says_it_is_typed():
    project = (ROOT / "pyproject.toml").read_text()
    files = sorted((ROOT / "experiments").glob("*.yaml"))
    assert files
    for file in files:
        assert f'"experiments/{file.name}" = "gfnem/configs/{file.name}"' in project
    assert (ROOT / "gfnem" / "py.typed").exists()


def test_configurations_by_name(capsys, tmp_path, monkeypatch):
    settings = printed(capsys, "train", "--config", "text", "--print_config")
    file = ROOT / "experiments" / "text.yaml"
    assert settings == printed(capsys, "train", f"--config={file}", "--print_config")
    assert settings == printed(capsys, "train", "--config=text", "--print_config")
    line = refused(capsys, "train", "--config", "nosuch")
    assert "nosuch" in line and "text" in line and "mixture" in line
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("max_updates: 7\n")  # a file of one's own comes first
    assert "max_updates: 7" in printed(capsys, "train", "--config", "text", "--print_config")
