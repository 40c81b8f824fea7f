"""The core serves every domain and imports none."""

import ast
from pathlib import Path

import pytest

import gfnem

ROOT = Path(gfnem.__file__).parent
DOMAINS = {"parsing", "mixtures", "images", "graphs"}
CORE = sorted(
    path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in {*DOMAINS, "cli"}
)


def imported(path: Path) -> set[str]:
    """Every dotted name a file imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = "gfnem." * bool(node.level) + (node.module or "")
            names |= {f"{package}.{alias.name}".replace("..", ".") for alias in node.names}
    return names


def offences(path: Path) -> set[str]:
    return {
        name
        for name in imported(path)
        if name.startswith("gfnem.") and name.split(".")[1] in DOMAINS
    }


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_never_imports_a_domain(path):
    assert not offences(path)


@pytest.mark.parametrize(
    "line",
    [
        "import gfnem.parsing.trees.trees",
        "from gfnem import images",
        "from gfnem.mixtures.model import Paths",
        "from . import graphs",
        "from .parsing import trees",
        "def f():\n    import gfnem.parsing",
    ],
)
def test_an_offence_would_be_seen(tmp_path, line):
    file = tmp_path / "core.py"
    file.write_text(line)
    assert offences(file)
