"""What flows know: log F of every state, log Z(x) of unseen x, spans of a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from claim_grids import PALETTE, Figure, Row
from claim_spans import embedded
from claim_tasks import Method, train
from matplotlib.figure import Figure as Picture

from gfnem.em import EM
from gfnem.objectives import SubTrajectoryBalance, TrajectoryBalance
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal
from gfnem.toys import (
    ConditionalPolicy,
    ConditionalTorus,
    FactorGraph,
    Hypergrid,
    HypergridReward,
    TablePolicy,
    Unobserved,
)

TABLES: dict[str, tuple[Any, Any]] = {
    "assignments, 4 variables of 3 values": (Unobserved(4, 3), FactorGraph(4, 3)),
    "hypergrid 8x8": (Hypergrid(8, 2), HypergridReward(8, 2, 0.1)),
}


def trained_flows(name: str) -> Iterator[Row]:
    """Tables trained by SubTB(0.9) under a uniform P_B, against exact flows of all states.

    2,000 updates of 128 trajectories, half of them drawn backwards.
    """
    space, reward = TABLES[name]
    torch.manual_seed(0)
    policy = TablePolicy(space)
    train(
        policy,
        reward,
        [Method("SubTB", SubTrajectoryBalance(0.9), 0.5, rate=0.1)],
        1,
        2000,
        128,
        1e-3,
    )
    graph = policy.graph
    log_reward = reward.log_reward(graph.latents()[0]).double()
    exact_flow = graph.log_flow(log_reward)
    with torch.no_grad():
        learned = policy.encode(torch.zeros(1, dtype=torch.long)).log_flow[0].double()
    open_states = ~policy.final
    error = (learned - exact_flow)[open_states].abs()
    yield {"what": name, "figure": "log F, largest error", "value": error.max().item(),
           "count": int(open_states.sum())}  # fmt: skip


LOW, HIGH = torch.tensor([-0.1, -0.5]), torch.tensor([0.3, 0.5])


def conditional_ising() -> Iterator[Row]:
    """log Z(x) of 3x3 lattices whose coupling and field were never seen, by trajectory balance.

    2,000 updates of 32 lattices drawn anew, 4 trajectories each. Coupling in (-0.1, 0.3), field in
    (-0.5, 0.5). The lattices of the test have a seed of their own, on which nothing was chosen.
    """
    torch.manual_seed(0)
    model, space, policy = ConditionalTorus(3), Unobserved(9, 2), ConditionalPolicy(9)
    recipe = posterior(TrajectoryBalance(), samples=4)
    rates = Rates(policy=Anneal(0.01, 0.0001, 2000, "exponential"), log_z=0.01)
    descent = Descent(EM(model, space, policy, recipe), rates)
    for update in range(2000):
        for group in (g for g in descent.optimizers["policy"].param_groups if g["log_z"]):
            group["lr"] = 0.01 * 0.01 ** (update / 2000)
        descent.update(LOW + (HIGH - LOW) * torch.rand(32, 2))
    x = LOW + (HIGH - LOW) * torch.rand(500, 2, generator=torch.Generator().manual_seed(20))
    with torch.no_grad():
        truth, learned = model.log_marginal(x), policy.log_z(policy.encode(x))
    error = (learned - truth).square().mean().sqrt().item()
    yield {"what": "Ising 3x3, 500 unseen x", "figure": "log Z(x), RMSE", "value": error,
           "count": len(x)}  # fmt: skip
    for (coupling, field), one, other in zip(
        x[:100].tolist(), truth.tolist(), learned.tolist(), strict=False
    ):
        yield {"what": "Ising 3x3", "figure": "log Z(x)", "coupling": coupling, "field": field,
               "value": other, "exact": one}  # fmt: skip


def draw_flows(rows: list[Row]) -> Picture:
    """Learned by exact log Z of the lattices, and the errors of spans."""
    spans = [row for row in rows if row["figure"].startswith("spans")]
    figure = Picture(figsize=(7.5 if spans else 4, 3.4), layout="constrained")
    left, *others = figure.subplots(1, 2 if spans else 1, squeeze=False)[0]
    points = [row for row in rows if row["figure"] == "log Z(x)"]
    pairs = [(float(row["exact"]), float(row["value"])) for row in points]
    if pairs:
        left.plot(*zip(*pairs, strict=True), ".", color=PALETTE[0])
        ends = [min(map(min, pairs)), max(map(max, pairs))]
        left.plot(ends, ends, color="grey", lw=0.6)
    left.set(xlabel="exact log Z(x) (nats)", ylabel="learned", title="lattices never seen")
    for right in others:
        names = [row["what"].replace(", ", ",\n") for row in spans]
        right.bar(names, [float(row["value"]) for row in spans], color=PALETTE[2])
        right.axhline(0.01, color="grey", lw=0.6, ls=":")
        right.set(ylabel="mean absolute error", title="spans of held-out sentences")
        right.tick_params("x", labelsize=7)
    return figure


FIGURES = {
    "flows": Figure(
        {
            **{name: partial(trained_flows, name) for name in TABLES},
            "lattices": conditional_ising,
            "spans": partial(embedded, "network"),
            "spans, recursion": partial(embedded, "recursion of rank 16"),
        },
        draw_flows,
    )
}
