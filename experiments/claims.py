"""The figures of docs/claims.md: what is said of GFlowNets, computed exactly on small worlds.

    python experiments/claims.py hypergrid        one figure, its measurements first
    python experiments/claims.py all --draw       all figures from the measurements that are there

Each figure has a file of measurements, `experiments/results/claims/FIGURE.csv`, whose rows tell
their command, commit, date and machine, and a picture, `docs/img/claims_FIGURE.svg`. A second call
measures what the file still lacks.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "benchmarks")]

import claim_exact  # noqa: E402
import claim_flows  # noqa: E402
import claim_grids  # noqa: E402
import matplotlib  # noqa: E402
from energies import provenance, read, write  # noqa: E402

from gfnem.files import write_atomically  # noqa: E402

RESULTS, PICTURES = HERE / "results" / "claims", HERE.parent / "docs" / "img"
#: of each figure the parts it is measured in, and what draws it from its rows
FIGURES = {**claim_grids.FIGURES, **claim_exact.FIGURES, **claim_flows.FIGURES}


def measure(name: str, parts: list[str] | None = None) -> list[dict[str, str]]:
    """The rows of a figure, those of some parts or of all made now where they are missing."""
    path = RESULTS / f"{name}.csv"
    command = shlex.join(["python", "experiments/claims.py", name])
    facts = provenance(command)
    for part in FIGURES[name].parts if parts is None else parts:
        if any(row["part"] == part for row in read(path)):
            continue
        made = []
        for found in FIGURES[name].parts[part]():
            shown = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in found.items()}
            made.append({"part": part, **shown, **facts})
            print("  ".join(f"{key} {value}" for key, value in shown.items()), flush=True)
        write(path, [*read(path), *made])  # another call may have made other parts meanwhile
    return read(path)


def main() -> None:
    """Measures and draws."""
    matplotlib.rcParams["svg.hashsalt"] = "claims"  # the same picture from the same rows
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("figure", choices=[*FIGURES, "all"])
    parser.add_argument("--draw", action="store_true", help="from what is measured already")
    parser.add_argument("--parts", nargs="+", help="of one figure; all if not given")
    options = parser.parse_args()
    for name in FIGURES if options.figure == "all" else [options.figure]:
        rows = read(RESULTS / f"{name}.csv") if options.draw else measure(name, options.parts)
        if not rows:
            continue
        figure, content = FIGURES[name], io.BytesIO()
        if figure.table is not None:
            print(*figure.table(rows), sep="\n")
        figure.draw(rows).savefig(content, format="svg", metadata={"Date": None})
        write_atomically(PICTURES / f"claims_{name}.svg", content.getvalue())


if __name__ == "__main__":
    main()
