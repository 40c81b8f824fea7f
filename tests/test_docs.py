"""The pages: the results table is what the files say, and every page is in the navigation."""

import importlib.util
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def script(path: str):
    """A module that is a script of the repository, not of the package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_results_page_is_what_make_tables_writes():
    tables = script("experiments/tables.py")
    assert tables.PAGE.read_text(encoding="utf-8") == tables.page(), "run: make tables"


def test_every_measurement_says_where_it_comes_from():
    tables = script("experiments/tables.py")
    entries = yaml.safe_load((tables.RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    shown = {entry["file"] for entry in entries} | {"speed"}
    assert {path.stem for path in tables.RESULTS.glob("*.csv")} <= shown
    for entry in entries:
        assert len(entry["findings"]) <= 5, entry["file"]
        for row in tables.rows(entry["file"]):
            assert all(row[name] for name in ("command", "date", "machine")), row
            assert row["commit"] or row["source"], row


def test_a_cell_with_a_bar_does_not_break_the_table():
    tables = script("experiments/tables.py")
    assert tables.grid(["KL(q|p)"], [["a|b"]])[2] == "| a\\|b |"


def test_the_reference_has_every_command():
    generated = script("docs/generated.py")
    overview = "Available subcommands:\n    train      a\n               b\n    train-prior  c\n"
    assert generated.commands(overview) == ["train", "train-prior"]


def test_every_page_is_in_the_navigation():
    # `!!python/name` tags and the like are mkdocs' own: only the plain part is read here
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry):
        if isinstance(entry, str):
            return {entry}
        inner = entry.values() if isinstance(entry, dict) else entry
        return set().union(*map(pages, inner))

    generated = {script("docs/generated.py").PAGE}
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages(config["nav"]) == written | generated
