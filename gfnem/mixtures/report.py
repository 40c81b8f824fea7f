"""The report of a run on points: density beside data, posteriors, the learned means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gfnem.mixtures.drawing import draw_density, draw_means, draw_posteriors
from gfnem.mixtures.policy import learned_posterior
from gfnem.page import Block, Choice, Picture, Posterior, Row, Section, Table, Text
from gfnem.report import EXAMPLES, STRUCTURES, in_three
from gfnem.running.curves import png
from gfnem.running.run import Run

if TYPE_CHECKING:
    from gfnem.mixtures.data import Petals


#: what the figures of `Petals.evaluate` mean
_ABOUT = {
    "nll": "All is measured on the points that were trained on.",
    "recovered": "Recovered: the share of the true centres that have a learned mean of their own "
    "within one standard deviation.",
    "posterior_tv": "Posterior tv: how far the sampler's table of a point is from the exact one, "
    "half the sum of the differences; 0 is exact, 1 has nothing in common.",
}


def sections(run: Run, data: Petals | None, samples: int) -> list[Section]:
    """What was learned, points with their posterior, and how good it is.

    Args:
        run: a run on points.
        data: its data; None where that is not to be had.
        samples: importance samples for each point.
    """
    meaning = (
        ""
        if data is None
        else " ".join(about for name, about in _ABOUT.items() if _concerns(name, run, data))
    )

    def shown() -> tuple[list[Block], list[Block]]:
        points = data.points if data is not None else run.model.sample(500)[0]
        centres = None if data is None else data.centres
        return _learned(run, points, centres), _examples(run, points)

    title = "Examples: points and what they belong to"
    return in_three(run, data, samples, meaning, title, shown)


def _concerns(name: str, run: Run, data: Petals) -> bool:
    return {"recovered": data.centres is not None, "posterior_tv": run.has_policy}.get(name, True)


def _learned(run: Run, points: Tensor, centres: Tensor | None) -> list[Block]:
    model = run.model
    shares = model.exact_posterior(points).sum(2).mean(0).tolist()
    rows = [
        [f"super-cluster {index}", f"{x:.2f}", f"{y:.2f}", f"{100 * share:.0f} %"]
        for index, ((x, y), share) in enumerate(zip(model.means.tolist(), shares, strict=True))
    ]
    return [
        Text(
            f"Each point comes from one of {model.clusters} super-clusters and one of its "
            f"{model.petals} petals; neither is told. Learned are the means of the super-clusters."
        ),
        Row(
            [
                Picture(
                    png(draw_density(points, model)),
                    "The data, orange, over the density that the model gives to every place: "
                    "dark places without points, and points on white, are what the model gets "
                    "wrong.",
                ),
                Picture(
                    png(draw_means(points, model, centres)),
                    "The learned means with their petals, over the data.",
                ),
            ]
        ),
        Table(["", "mean x", "mean y", "share of the points"], rows),
    ]


def _examples(run: Run, points: Tensor) -> list[Block]:
    """The posterior as maps, and as bars for the points that it is least sure of."""
    exact = run.model.exact_posterior(points)
    learned = None
    if run.has_policy:
        learned = learned_posterior(run.policy, run.space, points, run.model)
    text = (
        "The points whose origin is least certain, with the most probable ones. The model's bar is "
        "the exact posterior"
    )
    text += "; the sampler's is how often it draws this origin." if run.has_policy else "."
    blocks: list[Block] = []
    if run.has_policy:
        blocks.append(
            Picture(
                png(draw_posteriors(points, run)),
                "What each place of the plane belongs to, by colour: mixed colours are doubt. Left "
                "the exact posterior, right the sampler's; they should look alike. The tables "
                "are of the point whose two answers hang together most.",
            )
        )
    blocks.append(Text(text))
    doubtful = exact.flatten(1).max(1).values.argsort()[:EXAMPLES].tolist()
    blocks += [_point(points[at], exact[at], None if learned is None else learned[at])
               for at in doubtful]  # fmt: skip
    return blocks


def _point(point: Tensor, exact: Tensor, learned: Tensor | None) -> Block:
    places: Sequence[int] = exact.flatten().argsort(descending=True)[:STRUCTURES].tolist()
    choices = []
    for place in places:
        cluster, petal = divmod(place, exact.shape[1])
        shares: dict[str, Any] = {"model": float(exact[cluster, petal])}
        if learned is not None:
            shares["sampler"] = float(learned[cluster, petal])
        choices.append(Choice(shares, Text(f"super-cluster {cluster}, petal {petal}")))
    left = 1 - sum(choice.shares["model"] for choice in choices)
    title = f"The point ({point[0]:.2f}, {point[1]:.2f})"
    return Posterior(title, choices, f"All other origins: {100 * max(left, 0.0):.1f} % together.")
