"""Hypergrids: which objective keeps the modes, from which start, and how fast."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from claim_tasks import Method, table, train
from matplotlib.figure import Figure as Picture

from gfnem.hierarchical import HierarchicalVI
from gfnem.objectives import SubTrajectoryBalance, TrajectoryBalance, VarGrad
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
    """

    parts: dict[str, Callable[[], Iterator[Row] | list[Row]]]
    draw: Callable[[list[Row]], Picture]


def methods(rate: float) -> list[Method]:
    """What is compared."""
    vi = HierarchicalVI
    return [
        Method("TB, off-policy", TrajectoryBalance(), 0.5, rate=rate),
        Method("VarGrad, off-policy", VarGrad(), 0.5, rate=rate),
        Method("TB, on-policy", TrajectoryBalance(), rate=rate),
        Method("reverse KL, leave-one-out", vi(), rate=rate),
        Method("reverse KL, no baseline", vi(baseline="none"), rate=rate),
        Method("forward KL", vi("forward", "forward"), rate=rate),
        Method("wake-sleep", vi("forward", "reverse"), rate=rate),
        Method("reverse wake-sleep", vi("reverse", "forward"), rate=rate),
    ]


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


def draw_curves(rows: list[Row]) -> Picture:
    """Jensen-Shannon by trajectories: each seed, one colour a method, the plateaus marked."""
    figure = Picture(figsize=(8, 4.6), layout="constrained")
    axis = figure.add_subplot()
    names = list(dict.fromkeys(row["method"] for row in rows))
    for colour, name in zip(PALETTE, names, strict=False):
        seeds = defaultdict(list)
        for row in rows:
            if row["method"] == name and float(row["trajectories"]):
                point = float(row["trajectories"]), float(row["jensen_shannon"])
                seeds[row["seed"]].append(point)
        for number, points in enumerate(seeds.values()):
            label = None if number else name
            axis.plot(*zip(*sorted(points), strict=True), color=colour, lw=1, label=label)
    for modes, value in PLATEAUS.items():
        axis.axhline(value, color="grey", lw=0.6, ls=":")
        axis.annotate(
            f"{modes} of 4 modes", (1, value), xycoords=("axes fraction", "data"), fontsize=7,
            ha="right", va="bottom",
        )  # fmt: skip
    axis.set(yscale="log", xlabel="trajectories", ylabel="Jensen-Shannon divergence (nats)")
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def ends(rows: list[Row]) -> dict[str, tuple[float, list[int]]]:
    """By method the median Jensen-Shannon divergence and the modes kept, at the end."""
    last = max(float(row["trajectories"]) for row in rows)
    found = defaultdict(list)
    for row in rows:
        if float(row["trajectories"]) == last:
            found[row["method"]].append((float(row["jensen_shannon"]), int(float(row["modes"]))))
    return {
        name: (median(js for js, _ in pairs), sorted(modes for _, modes in pairs))
        for name, pairs in found.items()
    }


def small(start: str, off_policy: bool) -> list[Row]:
    """64x64, R0 = 0.001, five seeds, 200,000 trajectories in batches of 128."""
    chosen = [method for method in methods(0.03) if (method.share > 0) == off_policy]
    return compare(chosen, 64, 0.001, 5, 199_680, 128, start)


def large() -> list[Row]:
    """128x128, R0 = 0.001, one seed, 300,000 trajectories in batches of 64."""
    balance = SubTrajectoryBalance(0.9, forward_looking=True)
    chosen = [Method("SubTB that looks forward", balance, 0.25, rate=0.03)]
    return compare(chosen, 128, 0.001, 1, 299_520, 64, "structures", 20, 64, 0.02)


FIGURES = {
    "hypergrid": Figure(
        {
            "off-policy": partial(small, "actions", True),
            "on-policy": partial(small, "actions", False),
        },
        draw_curves,
    ),
    "hypergrid_start": Figure({"on-policy": partial(small, "structures", False)}, draw_curves),
    "large_grid": Figure({"128x128": large}, draw_curves),
}
