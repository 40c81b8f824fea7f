"""Writes docs/results.md from the measurements in experiments/results.

    python experiments/tables.py            (or: make tables)

Each CSV file there holds rows and where they come from: the columns `command`, `commit`, `date`,
`machine` and, for figures taken over from the notebook, `source`. `tables.yaml` says in which order
the tables stand, and what is found in them. `speed.csv`, to which the benchmarks append, is listed
by its latest rows.
"""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from gfnem.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "results.md"
#: where a row comes from; the rest is what was measured
PROVENANCE = ("command", "commit", "date", "machine", "source")
INTRO = """# Results

Written by `make tables` from the files in `experiments/results/`. Under each table are the
commands, commits, dates and machines of its rows. The story of these figures, disappointments
included, is in `experiments/notebook/`. Commands are as they were when they ran: flags of the
command line have changed names since, and `CHANGELOG.md` tells which.
"""


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one file."""
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def grid(columns: list[str], cells: list[list[str]]) -> list[str]:
    """A table in Markdown."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    return [f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *escaped)]


def origins(found: list[dict[str, str]]) -> list[str]:
    """A line for each command, with its commit, date and machine."""
    lines = []
    for row in found:
        commit = f"commit {row['commit']}" if row["commit"] else "commit not recorded"
        facts = (commit, row["date"], row["machine"], row.get("source"))
        lines.append(f"    - `{row['command']}`: {', '.join(filter(None, facts))}")
    return list(dict.fromkeys(lines))


def section(entry: dict) -> list[str]:
    """One table with what stands around it."""
    found = rows(entry["file"])
    columns = [name for name in found[0] if name not in PROVENANCE]
    return [
        f"## {entry['title']}\n",
        entry["about"] + "\n",
        *grid(columns, [[row[name] for name in columns] for row in found]),
        "",
        *(f"- {finding}" for finding in entry["findings"]),
        "",
        '??? note "Where these rows come from"\n',
        f"    `experiments/results/{entry['file']}.csv`\n",
        *origins(found),
        "",
    ]


def speed() -> list[str]:
    """The latest measurement of each thing that the benchmarks time."""
    if not (RESULTS / "speed.csv").exists():
        return []
    latest = {row["what"]: row for row in rows("speed")}
    columns = ["what", "CPU seconds", "commit", "date", "machine"]
    cells = [
        [row["what"], row["cpu_seconds"], row["commit"], row["date"], row["machine"]]
        for row in latest.values()
    ]
    intro = "CPU time of the latest measurement of each; `experiments/results/speed.csv` has all.\n"
    return ["## Speed\n", intro, *grid(columns, cells), "", *commands(latest), ""]


def commands(latest: dict[str, dict[str, str]]) -> list[str]:
    """The commands of the benchmarks."""
    return list(dict.fromkeys(f"- `{row['command']}`" for row in latest.values()))


def page() -> str:
    """The whole page."""
    tables = yaml.safe_load((RESULTS / "tables.yaml").read_text(encoding="utf-8"))
    lines = [INTRO, *(line for entry in tables for line in section(entry)), *speed()]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    write_atomically(PAGE, page())
    print(f"{PAGE.relative_to(ROOT)} written")
