"""The core serves every domain and names none, and no two modules import each other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gfnem

ROOT = Path(gfnem.__file__).parent
DOMAINS = {"parsing", "mixtures", "images", "energies", "graphs", "toys"}
CORE = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in DOMAINS)
MODULES = {
    ".".join(("gfnem", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


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


def named(text: str) -> list[str]:
    """Every mention of a domain: in code, in a string, in a docstring, in a comment."""
    return re.findall(r"\b(?:parsing|mixtures|images|graphs|toys)\b", text)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_never_names_a_domain(path):
    assert not named(path.read_text())


@pytest.mark.parametrize("line", ['X = "gfnem.parsing.trees"', "# as mixtures do", '"images"'])
def test_a_name_would_be_seen(line):
    assert named(line)


# ------------------------------------------------------------------------------ import circles


def run_on_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those for type checkers left out."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from run_on_import(node.orelse)
            continue
        yield node
        for part in ("body", "orelse", "handlers", "finalbody"):
            yield from run_on_import(getattr(node, part, []))


def needed(name: str, text: str) -> set[str]:
    """The modules of ours that must be there before one can be imported, packages included."""
    paths = set()
    for node in run_on_import(ast.parse(text).body):
        if isinstance(node, ast.Import):
            paths |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            paths |= {f"{node.module}.{alias.name}" for alias in node.names}
    found = set()
    for path in paths:
        parts = path.split(".")
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    own = {name, *(name.rsplit(".", length)[0] for length in range(1, name.count(".") + 1))}
    return (found & MODULES.keys()) - own


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A path of imports that ends where it began; empty if there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return []


def test_no_circle_of_imports():
    graph = {name: needed(name, path.read_text()) for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 300, "the imports are not found"
    assert not circle(graph)


def test_a_circle_would_be_seen():
    one = needed("gfnem.target", "if x:\n    from gfnem import policy")
    other = needed("gfnem.policy", "from gfnem.target import Target\ndef f():\n    import gfnem.em")
    assert one == {"gfnem.policy"} and other == {"gfnem.target"}
    graph = {"gfnem.target": one, "gfnem.policy": other}
    assert circle(graph) == ["gfnem.policy", "gfnem.target", "gfnem.policy"]
    hidden = "if TYPE_CHECKING:\n    import gfnem.policy"
    assert not needed("gfnem.target", hidden)


# ------------------------------------------------------------- tests and docstrings of the core

FILES = sorted(
    path
    for path in (*ROOT.glob("*.py"), *(ROOT / "running").glob("*.py"))
    if not path.name.startswith("__")
)
#: a shape, or the words that stand for one: `(batch, samples)`, `()`, `(..., k)`, any shape
SHAPE = re.compile(r"`\((\w[\w *+,.-]*|\.\.\.,[\w ,]+)?\)`|any shape|See `")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_the_core_has_its_tests(path):
    mirror = Path(__file__).parent / path.parent.relative_to(ROOT) / f"test_{path.name}"
    assert mirror.exists(), f"{mirror.name} is missing"
    assert "def test_" in mirror.read_text(encoding="utf-8")


def has_tensors(function: ast.FunctionDef) -> bool:
    """Whether a parameter or what is returned is annotated as a tensor."""
    arguments = function.args
    annotations = [
        argument.annotation
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    ]
    return any(
        re.search(r"\bTensor\b", ast.unparse(annotation))
        for annotation in (*annotations, function.returns)
        if annotation is not None
    )


def without_shapes(path: Path) -> list[str]:
    """Public functions and methods with tensors whose docstrings, and class's, say no shape."""
    module = ast.parse(path.read_text(encoding="utf-8"))

    def offending(body: list[ast.stmt], above: str):
        for node in body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or node.name.startswith("_"):
                continue
            said = above + (ast.get_docstring(node) or "")
            if isinstance(node, ast.ClassDef):
                yield from offending(node.body, said)
            elif has_tensors(node) and not SHAPE.search(said):
                yield node.name

    return list(offending(module.body, ast.get_docstring(module) or ""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_public_tensors_have_shapes_in_their_docstrings(path):
    assert not without_shapes(path)


def test_a_docstring_without_shapes_would_be_seen(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        'def bad(x: Tensor):\n    """Adds."""\n\ndef good(x: Tensor):\n    """`(batch,)` adds."""\n'
    )
    assert without_shapes(file) == ["bad"]
