"""Hypergrids: which objective keeps the modes, from which start, and how fast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from claim_tasks import Method, table, train
from matplotlib.figure import Figure as Picture

from gfnem.hierarchical import HierarchicalVI
from gfnem.objectives import Objective, SubTrajectoryBalance, TrajectoryBalance, VarGrad
from gfnem.toys import Hypergrid, HypergridReward, NetworkPolicy

Row = dict[str, Any]
#: Okabe and Ito's palette, which colour-blind readers can tell apart
PALETTE = (
    "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#000000", "#999999",
)  # fmt: skip
#: Jensen-Shannon divergence where a sampler has 1, 2 or 3 of the 4 modes and nothing else is wrong
PLATEAUS = {1: 0.380, 2: 0.216, 3: 0.096}


@dataclass
class Figure:
    """A figure of the page.

    Attributes:
        parts: what it is measured in, each of which gives rows.
        draw: makes the picture of all rows.
        table: the lines of a table of them, which are printed.
    """

    parts: dict[str, Callable[[], Iterator[Row] | list[Row]]]
    draw: Callable[[list[Row]], Picture]
    table: Callable[[list[Row]], Iterator[str]] | None = None


#: what is compared
OBJECTIVES: dict[str, Objective] = {
    "TB": TrajectoryBalance(),
    "VarGrad": VarGrad(),
    "reverse KL, leave-one-out": HierarchicalVI(),
    "reverse KL, no baseline": HierarchicalVI(baseline="none"),
    "forward KL": HierarchicalVI("forward", "forward"),
    "wake-sleep": HierarchicalVI("forward", "reverse"),
    "reverse wake-sleep": HierarchicalVI("reverse", "forward"),
}


def compare(
    chosen: list[Method], side: int, base: float, seeds: int, trajectories: int, batch: int,
    start: str, points: int = 10, hidden: int = 32, last: float = 0.1,
) -> list[Row]:  # fmt: skip
    """All methods and seeds in one batch; a row for each at each of some numbers of trajectories.

    The sampler is a perceptron that sees both coordinates, with a learned P_B; batches of `batch`.
    """
    torch.manual_seed(0)
    space, reward = Hypergrid(side, 2), HypergridReward(side, 2, base)
    policy = NetworkPolicy(space, len(chosen) * seeds, "learned", "stop", start, hidden)
    rows: list[Row] = []

    def tell(update: int, figures: dict[str, torch.Tensor]) -> None:
        for row in table(chosen, seeds, figures):
            rows.append({"trajectories": update * batch, **row})
        for name in ("jensen_shannon", "modes"):
            values = figures[name].view(len(chosen), seeds).tolist()
            print(update * batch, name, [[round(v, 6) for v in row] for row in values], flush=True)

    updates = trajectories // batch
    train(policy, reward, chosen, seeds, updates, batch, last, updates // points, tell)
    return rows


def drawn_how(row: Row) -> str:
    """The end of a part's name: on whose trajectories."""
    return row["part"].split(", ")[-1]


def draw_curves(rows: list[Row]) -> Picture:
    """Jensen-Shannon by trajectories: each seed, one colour a method, a panel for each part."""
    parts = list(dict.fromkeys(drawn_how(row) for row in rows))
    names = list(dict.fromkeys(row["method"] for row in rows))
    figure = Picture(figsize=(3 + 3.6 * len(parts), 4.4), layout="constrained")
    axes = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
    for axis, part in zip(axes, parts, strict=True):
        seeds = defaultdict(list)
        for row in rows:
            if drawn_how(row) == part and float(row["trajectories"]):
                point = float(row["trajectories"]) / 1000, float(row["jensen_shannon"])
                seeds[row["method"], row["seed"]].append(point)
        for (name, _), points in seeds.items():
            colour = PALETTE[names.index(name)]
            axis.plot(*zip(*sorted(points), strict=True), color=colour, lw=1)
        for modes, value in PLATEAUS.items():
            axis.axhline(value, color="grey", lw=0.6, ls=":")
            if axis is axes[-1]:
                axis.annotate(
                    f"{modes} of 4 modes", (1.01, value), xycoords=("axes fraction", "data"),
                    fontsize=7, va="center",
                )  # fmt: skip
        axis.set(yscale="log", xlabel="thousands of trajectories", title=part)
    axes[0].set(ylabel="Jensen-Shannon divergence (nats)")
    for colour, name in zip(PALETTE, names, strict=False):
        axes[0].plot([], [], color=colour, label=name)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def ends(rows: list[Row]) -> Iterator[str]:
    """A line of the page's table for each part and method: Jensen-Shannon and modes at the end."""
    last = max(float(row["trajectories"]) for row in rows)
    found = defaultdict(list)
    for row in rows:
        if float(row["trajectories"]) == last:
            pair = float(row["jensen_shannon"]), int(float(row["modes"]))
            found[drawn_how(row), row["method"]].append(pair)
    for (part, name), pairs in found.items():
        divergences = sorted(js for js, _ in pairs)
        modes = ", ".join(str(modes) for _, modes in sorted(pairs))
        yield f"| {name} | {part} | {divergences[0]:.2g} to {divergences[-1]:.2g} | {modes} |"


def small(name: str, share: float) -> list[Row]:
    """64x64, R0 = 0.001, five seeds of a method, 200,000 trajectories in batches of 256."""
    chosen = [Method(name, OBJECTIVES[name], share, rate=0.03)]
    return compare(chosen, 64, 0.001, 5, 199_680, 256, "actions")


def large() -> list[Row]:
    """128x128, R0 = 0.001, one seed, 300,000 trajectories in batches of 64."""
    balance = SubTrajectoryBalance(0.9, forward_looking=True)
    chosen = [Method("SubTB that looks forward", balance, 0.25, rate=0.03)]
    return compare(chosen, 128, 0.001, 1, 299_520, 64, "structures", 20, 64, 0.02)


#: on whose trajectories: a share is drawn backwards from cells drawn uniformly
DRAWN = {"off-policy": 0.5, "on-policy": 0.0}

FIGURES = {
    "hypergrid": Figure(
        {
            f"{name}, {where}": partial(small, name, share)
            for where, share in DRAWN.items()
            for name in OBJECTIVES
        },
        draw_curves,
        ends,
    ),
    "large_grid": Figure({"128x128": large}, draw_curves),
}
