"""What rows of `graphs.py` do whose latents have parameters or labels, of graphs or of others."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from graph_samplers import trained
from torch import Tensor, nn

from gfnem.em import EM
from gfnem.graphs import exact
from gfnem.graphs.annealed import Families, families
from gfnem.graphs.completion import CompletedPolicy
from gfnem.graphs.dags import bits_of, parent_sets, random_dag
from gfnem.graphs.data import generated
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.measures import divergences, joint_divergences
from gfnem.graphs.network_policy import NetworkPolicy
from gfnem.graphs.networks import NetworkPosterior, Networks
from gfnem.graphs.tables import Tables
from gfnem.graphs.weights import WeightedPosterior
from gfnem.mixtures.assignments import ClusterPosterior, LabelPolicy, LabelSpace, mean_field
from gfnem.objectives import BalancedVarGrad
from gfnem.parsing.dirichlet.model import DirichletGrammar
from gfnem.parsing.dirichlet.policy import AnalysesPolicy
from gfnem.parsing.dirichlet.space import AnalysesSpace
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.sampling import ON_POLICY, log_probability
from gfnem.schedules import Anneal


def fitted(
    model: Any,
    space: Any,
    policy: Any,
    x: Any,
    balance: float,
    lowest: float,
    updates: int,
    args: argparse.Namespace,
) -> tuple[Posterior, float]:
    """A sampler of one observation, trained with balance of this weight, and CPU seconds.

    Its learning rate falls to `lowest`, and in the first half of the updates it strays.
    """
    objective, strays = BalancedVarGrad(balance), Anneal(0.1, 0.0, updates // 2)
    recipe = posterior(objective, samples=128, epsilon=strays)
    rates = Rates(policy=Anneal(0.02, lowest, updates, "exponential"))
    descent = Descent(EM(model, space, policy, recipe), rates)
    took = trained(descent, lambda: x, updates, args.seconds)
    return Posterior(model, space, policy, x), took


def parameters(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """5 nodes with their weights, noise known: the exact divergence of the joint."""
    _, values = generated(5, None, 100, torch.Generator().manual_seed(seed))
    x, model, space = Tables.of([values]), WeightedPosterior(5), LayerSpace(5)

    def run(curvature: bool) -> dict:
        policy = CompletedPolicy(LayerPolicy(5), 5, curvature)
        updates = args.updates or 4000
        sampler, took = fitted(model, space, policy, x, 3.0, 0.0005, updates, args)
        found = joint_divergences(sampler, model, x)
        torch.manual_seed(1)
        drawn = torch.cat([sampler.sample(2000).effects()[0] for _ in range(5)]).mean(0)
        best = model.sample_posterior(x, 20_000).effects()[0].mean(0)
        error = float((sampler.log_z() - model.log_marginal(x))[0].abs())
        apart = float((drawn - best).abs().max())
        return {**found, "log_z_error": error, "effects_largest_error": apart, "cpu_seconds": took}

    yield "GFlowNet, layers, then weights", lambda: run(True)
    yield "the same, weights from each parent alone at first", lambda: run(False)


@torch.no_grad()
def over_all(sampler: Posterior) -> tuple[Any, Tensor]:
    """Every structure of one observation and its probability `(structures,)`, level by level.

    Where each structure has one trajectory, and all are of one length. States share what leads to
    them, so that each is seen by the policy once.
    """
    space, state = sampler.space, sampler.space.initial_state(sampler.x, 1)
    log_q = torch.zeros(1, dtype=torch.float64)
    while not space.is_final(state).all():
        found = []
        for at in range(0, len(log_q), 20_000):
            part = state.map(lambda tensor, at=at: tensor[:, at : at + 20_000])
            logits = sampler.policy(sampler.context, part).forward
            found.append(log_probability(logits, space.forward_mask(part))[0])
        log_p = torch.cat(found).double()
        row, action = space.forward_mask(state)[0].nonzero().unbind(1)
        log_q = log_q[row] + log_p[row, action]
        state = space.step(state.take(row[None]), action[None])
    return state, log_q.exp()


def mixture(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """10 points in 3 clusters, parameters summed out: all 59,049 assignments are compared."""
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(3, 2, generator=generator)
    labels = torch.randint(3, (10,), generator=generator)
    x = (means[labels] + torch.randn(10, 2, generator=generator))[None]
    model = ClusterPosterior(3)
    every, p = model.every(x), model.log_table(x).softmax(1)[0]

    def figures(q: Tensor) -> dict:
        found = divergences(p.double(), q.double())
        best = every[p.argmax()]
        orders = list(itertools.permutations(range(80)))
        named = torch.stack([torch.tensor(order)[best] for order in orders])
        at = [(every == row).all(1) for row in named.unique(dim=0)]
        shares = torch.stack([q[hit].sum() / p[hit].sum() for hit in at])
        right = ((shares - 1).abs() < 0.2).sum()
        return {**found, "relabellings": len(at), "relabellings_right": float(right)}

    def run() -> dict:
        policy, space = LabelPolicy(10, 3, 2, 64), LabelSpace(3)
        updates = args.updates or 3000
        sampler, took = fitted(model, space, policy, x, 1.0, 0.0003, updates, args)
        q = over_all(sampler)[1]  # in the order of `every`
        error = float((sampler.log_z() - model.log_marginal(x))[0].abs())
        estimate = float((sampler.log_marginal(2000).value - model.log_marginal(x))[0].abs())
        more = {"log_z_error": error, "log_marginal_error": estimate, "cpu_seconds": took}
        return {**figures(q), **more}

    def alone() -> dict:
        start = time.process_time()
        table = mean_field(model, x[0])
        q = torch.stack([table[at, every[:, at]] for at in range(10)]).prod(0)
        return {**figures(q), "cpu_seconds": time.process_time() - start}

    yield "GFlowNet", run
    yield "mean field", alone


def grammar(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """Sentences of 4 words, rules of the grammar summed out: all trees together are compared."""

    def run(sentences: int, nonterminals: int) -> dict:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(3, (1, sentences, 4), generator=generator)
        model = DirichletGrammar(nonterminals, 2, 3)
        sizes = model.facts()
        policy = AnalysesPolicy(**sizes, sentences=sentences, length=4)
        space, updates = AnalysesSpace(**sizes), args.updates or 4000
        sampler, took = fitted(model, space, policy, x, 0.3, 0.0003, updates, args)
        state, q = over_all(sampler)
        log_p = model.partial_log_joint(x, state)[0].double()
        error = float((sampler.log_z() - log_p.logsumexp(0))[0].abs())
        found = divergences(log_p.softmax(0), q)
        return {**found, "log_z_error": error, "structures": len(q), "cpu_seconds": took}

    yield "GFlowNet, 2 sentences, 1 nonterminal", lambda: run(2, 1)
    yield "GFlowNet, 2 sentences, 2 nonterminals", lambda: run(2, 2)
    yield "GFlowNet, 3 sentences, 1 nonterminal", lambda: run(3, 1)


def _of_networks(seed: int, model: NetworkPosterior, rows: int) -> Tensor:
    """`(rows, n)` drawn from a random graph of 2 edges expected, and networks of the prior."""
    generator, n = torch.Generator().manual_seed(seed), model.variables
    graph = random_dag(n, 2, generator)[None, None]

    def noise(*shape: int) -> Tensor:
        return torch.randn(1, 1, *shape, generator=generator, dtype=torch.float64)

    some, units = graph.any(2)[..., None], model.units_of_each
    inner = model.spread * noise(n, units, n) * graph.mT[..., None, :]
    z = Networks(graph, inner, noise(n, units) * some, noise(n, units) * some)
    found = error = math.sqrt(model.noise) * noise(rows, n)
    for _ in range(n):
        found = z.means(found) + error
    return found[0, 0]


class _Drawn:
    """Draws of quantities that do not depend on how units are called, and how much each counts.

    What a network expects in some rows, and the sizes of the weights of any of its units: the
    weights themselves have as many equal modes as units can be renamed and turned.

    Args:
        z: networks `(1, draws)`.
        child: whose.
        values: `(rows, n)`.
        weight: `(draws,)` of sum 1; all alike if None.
    """

    def __init__(self, z: Networks, child: int, values: Tensor, weight: Tensor | None = None):
        means, units = z.means(values[None])[0, :, :, child], z.bias.shape[3]
        sizes = torch.cat([z.inner, z.bias[..., None], z.outer[..., None]], -1)[0, :, child].abs()
        count = len(means)
        weight = means.new_full((count,), 1 / count) if weight is None else weight
        parts = [(means, weight), (sizes.flatten(0, 1), weight.repeat_interleave(units) / units)]
        self.steps = []  # of the distribution function of each quantity: places and heights
        for quantities, weights in parts:
            for quantity in quantities.unbind(1):
                places, order = quantity.sort()
                self.steps.append((places, nn.functional.pad(weights[order].cumsum(0), (1, 0))))

    def apart(self, other: _Drawn) -> float:
        """Greatest distance of the distribution functions, over all quantities."""
        found = 0.0
        for one, two in zip(self.steps, other.steps, strict=True):
            at = torch.cat([one[0], two[0]])
            heights = [
                rise[torch.searchsorted(places, at, right=True)] for places, rise in (one, two)
            ]
            found = max(found, float((heights[0] - heights[1]).abs().max()))
        return found


def _networks_apart(
    sampler: Posterior, model: NetworkPosterior, found: list[Families], values: Tensor
) -> dict[str, float]:
    """Distances of marginals of each likely family, and between two runs of chains.

    Given a graph families are independent, so that these are the marginals of each graph.
    """
    n, distances, weighted, runs = model.variables, [0.0], [0.0], [0.0]
    policy: Any = sampler.policy
    masks = parent_sets(n, model.max_parents).masks
    for child, number in torch.isfinite(found[0].table).nonzero().tolist():
        parents = bits_of(masks[number], n)
        graph = torch.zeros(1, 500, n, n, dtype=torch.bool)
        graph[..., child] = parents
        own, log_weight = [], []
        with torch.no_grad():
            for _ in range(80):
                z = policy.complete(sampler.context, graph, ON_POLICY)[0]
                log_q = policy.log_density(sampler.context, z)
                log_weight.append((model.families(sampler.x, z) - log_q)[0, :, child])
                own.append(z)
        own, weight = Networks.cat(own), torch.cat(log_weight).softmax(0)

        def of_chains(
            *some: Families, at: tuple[int, int] = (child, number), graph: Tensor = graph
        ) -> _Drawn:
            parts = [
                torch.cat([getattr(run, name)[at] for run in some])
                for name in ("inner", "bias", "outer")
            ]
            whole = [part.new_zeros(1, len(part), n, *part.shape[1:]) for part in parts]
            for empty, part in zip(whole, parts, strict=True):
                empty[0, :, at[0]] = part
            adjacency = graph[:, :1].expand(1, len(parts[0]), n, n)
            return _Drawn(Networks(adjacency, *whole), at[0], values)

        chains = of_chains(*found)
        distances.append(_Drawn(own, child, values).apart(chains))
        weighted.append(_Drawn(own, child, values, weight).apart(chains))
        runs.append(of_chains(found[0]).apart(of_chains(found[1])))
    return {
        "marginals_largest_distance": max(distances),
        "marginals_largest_distance_weighted": max(weighted),
        "two_runs_of_chains": max(runs),
    }


#: families that are less probable are not compared
_LIKELY = 0.01


def _chains(model: NetworkPosterior, x: Tables, path: Path) -> tuple[list[Families], float]:
    """Chains for every family, and two longer runs for the likely ones; CPU seconds they took.

    Kept in a file.
    """
    if not path.exists():
        start = time.process_time()
        every = families(model, x, 2000, 10)
        likely = exact.marginals(every.table).families > _LIKELY
        likely[:, 0] = False  # no network without parents
        runs = [every, *(families(model, x, 5000, 10, likely) for _ in range(2))]
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(([vars(run) for run in runs], time.process_time() - start), path)
    found, took = torch.load(path)
    return [Families(**run) for run in found], took


def networks(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """3 nodes with a network of 2 units each, 50 rows: beside chains for every family."""
    model, space = NetworkPosterior(3), LayerSpace(3)
    x = Tables.of([_of_networks(seed, model, 50)])

    def run() -> dict:
        policy = NetworkPolicy(3)
        updates = args.updates or 1200
        recipe = posterior(
            BalancedVarGrad(30.0, pseudo_huber=True),
            samples=32,
            epsilon=Anneal(0.2, 0.02, updates // 2),
        )
        rates = Rates(policy=Anneal(0.01, 0.0003, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: x, updates, args.seconds)
        kept = Path(args.output) / f"chains_of_networks_{seed}.pt"
        (every, *runs), chains = _chains(model, x, kept)
        sampler = Posterior(model, space, policy, x)
        graphs, log_p = exact.log_weights_of_all(every.table)
        with torch.no_grad():
            context = sampler.context.graphs
            traced = policy.graphs.retrace(context, x, space, graphs[None])
            q = policy.graphs.score(context, space, traced).log_pf.sum(2)[0].double().exp()
        p = log_p.softmax(0)
        edges = ((q - p)[:, None, None] * graphs).sum(0).abs()
        weights = torch.cat([sampler.log_weights(500)[1] for _ in range(10)], 1)
        return {
            "edges_largest_error": float(edges.max()),
            **{f"graphs_{name}": value for name, value in divergences(p, q).items()},
            **_networks_apart(sampler, model, runs, x.values[0, :5]),
            "log_z_error": float((sampler.log_z()[0] - log_p.logsumexp(0)).abs()),
            "elbo_gap": float(log_p.logsumexp(0) - weights.mean()),
            "ess": float(1 / weights.softmax(1).square().sum() / weights.shape[1]),
            "updates": descent.em.clock.updates,
            "cpu_seconds": took,
            "cpu_seconds_of_chains": chains,
        }

    yield "GFlowNet, layers, then networks", run
