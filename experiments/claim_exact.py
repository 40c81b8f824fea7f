"""Figures that take no training, or little: gradients, soft RL, chains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from claim_grids import PALETTE, Figure, Row
from claim_tasks import Method, train
from matplotlib.figure import Figure as Picture
from torch import Tensor

from gfnem.enumeration import enumerate_states, enumerate_trajectories
from gfnem.estimates import jensen_shannon, total_variation
from gfnem.graphs import DagPosterior, DagSpace, Measurements
from gfnem.hierarchical import hierarchical
from gfnem.kernels import back_and_forth_kernel, metropolis_kernel, spectral_gap
from gfnem.objectives import (
    TrajectoryBalance,
    detailed_balance,
    sub_trajectory_balance,
    trajectory_balance,
    vargrad,
)
from gfnem.soft_rl import SoftRL
from gfnem.state_graph import StateGraph
from gfnem.toys import (
    FactorGraph,
    Hypergrid,
    HypergridReward,
    TablePolicy,
    TimeStamped,
    TorusReward,
    TorusWalk,
    Unobserved,
)
from gfnem.toys.figures import terminal
from gfnem.toys.reward import ToyReward

X = torch.zeros(1, dtype=torch.long)

# ---------------------------------------------------------------- gradients


def estimators(log_z: float) -> dict[str, Any]:
    """Losses of two trajectories whose expected gradient on policy is that of the reverse KL."""

    def balance(away: float, pf: Tensor, pb: Tensor, reward: Tensor) -> Tensor:
        return trajectory_balance(pf, pb, reward, torch.full((len(pf),), log_z + away)) / 2

    return {
        "TB, log Z exact": partial(balance, 0.0),
        "TB, log Z off by 1 nat": partial(balance, 1.0),
        "VarGrad": lambda *parts: vargrad(*parts) / 2,
        "reverse KL, leave-one-out": partial(hierarchical, baseline="leave-one-out"),
        "reverse KL, batch mean": lambda *parts: 2 * hierarchical(*parts, baseline="batch"),
        "reverse KL, no baseline": partial(hierarchical, baseline="none"),
    }


def gradients() -> Iterator[Row]:
    """The noise of each estimator's gradient in P_F from two trajectories, by every pair of them.

    A hypergrid of 4x4 cells, R0 = 0.01, P_B uniform. Policies lie between the uniform choice of an
    action and the exact sampler, on a straight line of logits.
    """
    space, reward = Hypergrid(4, 2), HypergridReward(4, 2, 0.01)
    policy = TablePolicy(space, start="actions").double()
    graph, paths = policy.graph, enumerate_trajectories(space, X).trajectories
    log_reward = reward.log_reward(graph.latents()[0]).double()
    best = torch.zeros_like(policy.table)
    log_pb = graph.uniform_backward()
    exact = graph.choices(graph.log_flow(log_reward, log_pb), log_pb)
    best[0, graph.parent, graph.action] = exact
    log_z = log_reward.logsumexp(0).item()
    ends = reward.log_reward(paths.latent)[0].double()
    pairs = torch.cartesian_prod(*[torch.arange(len(ends))] * 2)
    for progress in (0.0, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99, 0.997, 1.0):
        with torch.no_grad():
            policy.table.copy_(progress * best)
        scores = policy.score(policy.encode(X), space, paths)
        log_pf, log_pb_of = scores.log_pf[0].sum(1), scores.log_pb[0].sum(1)
        rows = [
            torch.autograd.grad(value, policy.table, retain_graph=True)[0].flatten()
            for value in log_pf
        ]
        directions = torch.stack(rows)  # the gradient of each trajectory's log P_F
        gram = directions @ directions.T
        log_pf, log_pb_of = log_pf.detach(), log_pb_of.detach()
        divergence = (log_pf.exp() * (log_pf - log_pb_of - ends + log_z)).sum().item()
        weight = log_pf[pairs].sum(1).exp()
        for name, loss in estimators(log_z).items():
            leaf = log_pf[pairs][..., None].clone().requires_grad_()
            value = loss(leaf, log_pb_of[pairs][..., None], ends[pairs]).sum()
            pull = torch.autograd.grad(value, leaf)[0][..., 0]  # (pairs, 2)
            one, two = pairs.unbind(1)
            squared = pull[:, 0] ** 2 * gram[one, one] + pull[:, 1] ** 2 * gram[two, two]
            squared = squared + 2 * pull[:, 0] * pull[:, 1] * gram[one, two]
            mean = torch.zeros(len(ends), dtype=torch.double)
            for place, which in enumerate((one, two)):
                mean.index_add_(0, which, weight * pull[:, place])
            signal = (mean @ gram @ mean).item()
            trace = (weight @ squared).item() - signal
            yield {"estimator": name, "progress": progress, "divergence": divergence,
                   "covariance_trace": max(trace, 0.0), "squared_gradient": signal}  # fmt: skip
        one_by_one = [part[0][:, None] for part in (scores.log_pf, scores.log_pb, scores.mask)]
        visited = torch.stack([graph.find(state)[0] for state in paths.states], 1)
        flow = graph.log_flow(log_reward, log_pb)[visited][:, None]
        pf, pb, mask = one_by_one
        for name, losses in {
            "DB, flows exact": detailed_balance(pf, pb, ends[:, None], flow, mask),
            "SubTB(0.9), flows exact": sub_trajectory_balance(pf, pb, ends[:, None], flow, mask),
        }.items():
            rows = [
                torch.autograd.grad(value, policy.table, retain_graph=True)[0].flatten()
                for value in losses
            ]
            found, chance = torch.stack(rows), log_pf.exp()
            mean = chance @ found
            trace = (chance @ found.square().sum(1) - mean @ mean).item() / 2
            yield {"estimator": name, "progress": progress, "divergence": divergence,
                   "covariance_trace": max(trace, 0.0),
                   "squared_gradient": (mean @ mean).item()}  # fmt: skip


POINT = ("divergence", "covariance_trace", "squared_gradient")


def draw_gradients(rows: list[Row]) -> Picture:
    """The trace of the covariance, and its ratio to the signal, by the divergence that is left."""
    figure = Picture(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    styles = ("-", "--", ":", "-", "--", "-", "-", "-")
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for colour, style, name in zip(PALETTE, styles, names, strict=False):
        points = [
            tuple(float(row[key]) for key in POINT)
            for row in rows
            if row["estimator"] == name and float(row["divergence"]) > 1e-7
        ]
        x, trace, signal = (list(part) for part in zip(*points, strict=True))
        ratio = [noise / mean for noise, mean in zip(trace, signal, strict=True)]
        if "flows" not in name:  # of those the expected gradient is another one
            left.plot(x, trace, style, color=colour, marker=".")
        right.plot(x, ratio, style, color=colour, label=name, marker=".")
    left.set(xscale="log", yscale="log", ylabel="trace of the gradient's covariance")
    right.set(yscale="log", ylabel="trace over squared expected gradient")
    for axis in (left, right):
        axis.set(xlabel="divergence of the sampler (nats)")
    left.invert_xaxis()
    figure.legend(loc="outside lower center", ncols=4, fontsize=7)
    return figure


# ---------------------------------------------------------------- soft RL


class Graphs(ToyReward):
    """The posterior over graphs as a reward: BGe, some rows of a random network."""

    def __init__(self, variables: int, seed: int, rows: int):
        super().__init__()
        data = Measurements(variables=variables, seed=seed, rows=rows)
        self.given = DagPosterior(variables).given(data.x)

    def log_reward(self, z: Tensor) -> Tensor:
        """`(...)` of graphs `(..., n, n)`; constants that all share are left out."""
        value = self.given.log_graphs(z.flatten(0, -3)[None])[0]
        return (value - self.given.log_marginal()[0]).reshape(z.shape[:-2]).float()

    def every(self, device: Any = "cpu") -> Tensor:
        """All graphs."""
        from gfnem.graphs import every_dag

        return every_dag(self.given.target.variables)


def dags(n: int, seed: int, rows: int = 100) -> tuple[Any, ToyReward]:
    """Graphs of `n` nodes and their posterior."""
    return DagSpace(n), Graphs(n, seed, rows)


#: where soft RL is right and where it is not
WORLDS: dict[str, Callable[[], tuple[Any, ToyReward]]] = {
    "assignment in any order": lambda: (Unobserved(6, 4), FactorGraph(6, 4)),
    "walk on a torus": lambda: (TimeStamped(TorusWalk(8, 2), 6), TorusReward(8, 2)),
    "hypergrid 8x8": lambda: (Hypergrid(8, 2), HypergridReward(8, 2, 0.1)),
    "hypergrid 64x64": lambda: (Hypergrid(64, 2), HypergridReward(64, 2, 0.001)),
    **{f"5-node DAGs, table {seed}": partial(dags, 5, seed) for seed in range(5)},
}
#: where it is trained
TRAINED = {"hypergrid 8x8": WORLDS["hypergrid 8x8"], "4-node DAGs": partial(dags, 4, 0, 10)}


def predicted(graph: StateGraph, log_reward: Tensor) -> tuple[Tensor, Tensor]:
    """`(objects,)` log probabilities of soft RL, and of the target."""
    log_reward = log_reward.double()
    return (log_reward + graph.log_counts()[graph.ends]).log_softmax(0), log_reward.log_softmax(0)


def soft_rl(name: str) -> Iterator[Row]:
    """How far n(x) R(x) is from R(x), exactly."""
    space, reward = WORLDS[name]()
    graph = enumerate_states(space, X)
    log_reward = reward.log_reward(graph.latents()[0])
    soft, target = predicted(graph, log_reward)
    optimal = graph.log_terminal(graph.choices(graph.soft_values(log_reward.double())))
    yield {"world": name, "states": len(graph), "structures": len(graph.ends),
           "identity_error": (optimal.exp() - soft.exp()).abs().max().item(),
           "jensen_shannon": jensen_shannon(soft, target).item(),
           "total_variation": total_variation(soft, target).item()}  # fmt: skip


def soft_rl_trained(name: str) -> Iterator[Row]:
    """Tables trained by trajectory balance with and without P_B, against the predictions.

    Total variation; 2,000 updates of 128 trajectories, half of them drawn backwards; of 10 rows,
    for which the posterior is not sharp.
    """
    space, reward = TRAINED[name]()
    torch.manual_seed(0)
    chosen = [
        Method("soft RL", SoftRL(TrajectoryBalance()), 0.5, rate=0.3),
        Method("corrected", TrajectoryBalance(), 0.5, rate=0.3),
    ]
    policy = TablePolicy(space, 2)
    graph = policy.graph
    train(policy, reward, chosen, 1, 2000, 128, 0.01)
    soft, target = predicted(graph, reward.log_reward(graph.latents()[0]))
    reached = terminal(graph, policy, torch.arange(2))
    for method, found, aim in zip(chosen, reached, (soft, target), strict=True):
        yield {"world": name, "method": method.name,
               "from_prediction": total_variation(found, aim).item(),
               "from_target": total_variation(found, target).item()}  # fmt: skip


def draw_soft_rl(rows: list[Row]) -> Picture:
    """Bars of the exact bias."""
    figure = Picture(figsize=(6.5, 3.4), layout="constrained")
    axis = figure.add_subplot()
    exact = [row for row in rows if row["jensen_shannon"]]
    axis.barh(
        [row["world"] for row in exact], [float(row["jensen_shannon"]) for row in exact],
        color=PALETTE[0],
    )  # fmt: skip
    axis.invert_yaxis()
    axis.set(xlabel="Jensen-Shannon divergence of n(x) R(x) from R(x) (nats)", xlim=(0, 0.7))
    return figure


# ---------------------------------------------------------------- chains


class Magnet(ToyReward):
    """Five spins that all attract each other: `log R = coupling (sum s)^2`, two modes."""

    def __init__(self, coupling: float):
        super().__init__()
        self.coupling = coupling

    def log_reward(self, z: Tensor) -> Tensor:
        """`(...)` of values 0 and 1 `(..., 5)`."""
        return self.coupling * (2 * z - 1).sum(-1).square().double()

    def every(self, device: Any = "cpu") -> Tensor:
        """All 32."""
        return torch.cartesian_prod(*[torch.arange(2)] * 5)


def jumps() -> Iterator[Row]:
    """Spectral gaps of back-and-forth chains by depth, of five spins written in any order.

    The policy is the exact one, or its logits times one half. Where spins are written in a fixed
    order the first is never written anew but by going back all the way.
    """
    for coupling in (0.1, 0.2, 0.4):
        for order in ("any", "fixed"):
            graph = enumerate_states(Unobserved(5, 2, order=order), X)
            z, log_pb = graph.latents()[0], graph.uniform_backward()
            log_reward = Magnet(coupling).log_reward(z)
            if order == "any":
                local = ((z[:, None] != z).sum(2) == 1).double() / 5
                gap = spectral_gap(metropolis_kernel(local, log_reward), log_reward).item()
                yield {"coupling": coupling, "chain": "one spin", "depth": 1, "gap": gap}
            best = graph.choices(graph.log_flow(log_reward, log_pb), log_pb)
            chains = {f"exact policy, {order} order": 1.0}
            if order == "any":
                chains["half its logits, any order"] = 0.5
            for name, sharpness in chains.items():
                log_pf = _tempered(graph, best, sharpness)
                for depth in range(1, 6):
                    kernel = back_and_forth_kernel(graph, log_pf, log_pb, log_reward, depth)
                    yield {"coupling": coupling, "chain": name, "depth": depth,
                           "gap": spectral_gap(kernel, log_reward).item()}  # fmt: skip


def _tempered(graph: StateGraph, log_pf: Tensor, sharpness: float) -> Tensor:
    """The policy whose logits are so many times those given, `(edges,)`."""
    table = torch.full((len(graph), int(graph.action.max()) + 1), -torch.inf, dtype=torch.double)
    table[graph.parent, graph.action] = sharpness * log_pf
    return table.log_softmax(1)[graph.parent, graph.action]


def draw_jumps(rows: list[Row]) -> Picture:
    """The gap by depth, a panel for each coupling."""
    couplings = list(dict.fromkeys(row["coupling"] for row in rows))
    figure = Picture(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, len(couplings), sharey=True)
    for axis, coupling in zip(axes, couplings, strict=True):
        chains = defaultdict(list)
        for row in rows:
            if row["coupling"] == coupling:
                chains[row["chain"]].append((int(row["depth"]), max(float(row["gap"]), 1e-6)))
        for colour, (name, points) in zip(PALETTE[::2], chains.items(), strict=False):
            if len(points) == 1:
                axis.axhline(points[0][1], color=colour, label=name)
            else:
                axis.plot(*zip(*points, strict=True), color=colour, label=name, marker=".")
        axis.set(yscale="log", xlabel="steps undone", title=f"coupling {float(coupling):g}")
    axes[0].set(ylabel="spectral gap")
    axes[-1].legend(fontsize=7)
    return figure


FIGURES = {
    "gradients": Figure({"4x4": gradients}, draw_gradients),
    "soft_rl": Figure(
        {
            **{name: partial(soft_rl, name) for name in WORLDS},
            **{f"{name}, trained": partial(soft_rl_trained, name) for name in TRAINED},
        },
        draw_soft_rl,
    ),
    "jumps": Figure({"five spins": jumps}, draw_jumps),
}
