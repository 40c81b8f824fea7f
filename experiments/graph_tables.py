"""What rows of `graphs.py` do whose latents are graphs: beside exact ones and beside rivals."""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from graph_samplers import Sampler, one_by_one, trained
from torch import Tensor

from gfnem.em import EM
from gfnem.graphs import exact
from gfnem.graphs.chains import bootstrap, partition_chains, structure_chains
from gfnem.graphs.dags import every_dag
from gfnem.graphs.data import Measurements, generated
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.measures import against_truth, divergences, over_all_graphs
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.priors import EdgePrior, PathPrior
from gfnem.graphs.sinks import SinkProgramme
from gfnem.graphs.tables import Tables
from gfnem.objectives import BalancedVarGrad
from gfnem.posterior import Posterior
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.schedules import Anneal

DRAWS = 20_000

#: the network of Sachs et al. (2005) as the bnlearn repository has it, 17 edges
SEVENTEEN = (
    "pkc pka, pkc raf, pka raf, pkc mek, pka mek, raf mek, mek erk, pka erk, erk akt, pka akt, "
    "pkc p38, pka p38, pkc jnk, pka jnk, plc pip3, plc pip2, pip3 pip2"
)

#: of the data sets of `five`, trained together when the first of them is asked for
_FIVE: dict[int, tuple[Sampler, float]] = {}


def five(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """5 nodes, 5 edges expected, 100 rows: every graph is compared."""
    _, values = generated(5, None, 100, torch.Generator().manual_seed(seed))
    x = Tables.of([values])

    def layers(updates: int) -> dict:
        if not _FIVE:
            parts = [
                generated(5, None, 100, torch.Generator().manual_seed(each))[1]
                for each in args.seeds
            ]
            made, seconds = one_by_one(DagPosterior(5), Tables.of(parts), updates)
            _FIVE.update((each, (one, seconds)) for each, one in zip(args.seeds, made, strict=True))
        made, seconds = _FIVE[seed]
        return figures(made, seconds / len(_FIVE), updates)

    def sampler(kind: str, updates: int, model: DagPosterior | None = None) -> dict:
        made = Sampler(DagPosterior(5) if model is None else model, x, kind)
        return figures(made, made.train(updates), updates)

    def figures(made: Sampler, seconds: float, updates: int) -> dict:
        model = made.model
        found = over_all_graphs(made.posterior(), model, x)
        log_z = made.posterior().log_z()
        error = float((log_z - model.log_marginal(x))[0].abs())
        return {**found, "log_z_error": error, "cpu_seconds": seconds, "updates": updates}

    def chains(draw: Callable[[], Tensor]) -> dict:
        model, start = DagPosterior(5), time.process_time()
        drawn = draw()
        seconds = time.process_time() - start
        graphs = every_dag(5)
        p = model.log_joint(x, graphs[None])[0].softmax(0)
        places = 2 ** torch.arange(25)
        order = (graphs.flatten(1) * places).sum(1).sort()
        at = torch.searchsorted(order.values, (drawn.flatten(1) * places).sum(1))
        q = torch.bincount(order.indices[at], minlength=len(graphs)).double() / len(drawn)
        return {**divergences(p, q), "cpu_seconds": seconds, "updates": len(drawn)}

    model = DagPosterior(5)
    yield "GFlowNet, layers", lambda: layers(args.updates or 1000)
    yield "GFlowNet, edges (perceptron)", lambda: sampler("flat", 4000)
    yield "GFlowNet, edges (equivariant)", lambda: sampler("graph", 1000)
    yield (
        "GFlowNet, edges, a path is likely (not modular)",
        lambda: sampler("flat", 4000, DagPosterior(5, terms=[PathPrior(0, 4, 3.0)])),
    )
    yield "exact draws", lambda: chains(lambda: model.sample_posterior(x, 100_000)[0])
    yield "partition MCMC", lambda: chains(lambda: _thinned(model, x, "partition", 2000, 50, 20))
    yield "structure MCMC", lambda: chains(lambda: _thinned(model, x, "structure", 2000, 50, 20))


def _thinned(
    model: DagPosterior, x: Tables, kind: str, chains: int, keep: int, steps: int, burn: int = 200
) -> Tensor:
    """`(chains * keep, n, n)` graphs, one every `steps` proposals after `burn`."""
    found, state = [], None
    for at in range(keep):
        count = steps + (burn if at == 0 else 0)
        if kind == "partition":
            graphs, state = partition_chains(model, x, chains, count, state)
        else:
            graphs = state = structure_chains(model, x, chains, count, state)
        found.append(graphs[0])
    return torch.cat(found)


class Beside:
    """One posterior with its exact edges, and graphs that are given as the truth, by name."""

    def __init__(
        self, model: DagPosterior, x: Tables, best: exact.ExactPosterior, truths: dict[str, Tensor]
    ):
        self.model, self.x, self.best, self.truths = model, x, best, truths

    def edges(self, marginals: Tensor) -> dict[str, float]:
        """How far the probabilities of edges `(n, n)` are from exact ones."""
        error, n = (marginals.cpu() - self.best.edges.cpu()).abs(), len(marginals)
        return {
            "edges_largest_error": float(error.max()),
            "edges_mean_error": float(error.sum() / (n * (n - 1))),
        }

    def row(self, drawn: Tensor, more: dict) -> dict:
        """Figures of draws `(draws, n, n)`."""
        drawn = drawn.cpu()
        marginals = drawn.double().mean(0)
        found = {**self.edges(marginals), **more}
        for name, truth in self.truths.items():
            figures = against_truth(marginals, drawn, truth)
            found |= {f"{key}{name}": value for key, value in figures.items()}
        return found

    def sampler(self, kind: str, updates: int, seconds: float, samples: int = 128) -> dict:
        """A sampler, trained for so long."""
        made = Sampler(self.model, self.x, kind, 256)
        took = made.train(updates, samples, seconds)
        posterior = made.posterior()
        parts = [posterior.log_weights(1000) for _ in range(10)]
        drawn = torch.cat([part[0][0] for part in parts])
        weights = torch.cat([part[1][0] for part in parts])
        log_p, share = self.best.log_evidence.to(weights), weights.softmax(0)
        weighted = (share[:, None, None].cpu() * drawn.cpu()).sum(0)
        more = {
            "log_z_error": float((posterior.log_z()[0] - log_p).abs()),
            "log_marginal_error": float(
                (weights.logsumexp(0) - math.log(len(weights)) - log_p).abs()
            ),
            "elbo_gap": float(log_p - weights.mean()),
            "ess": float(1 / share.square().sum() / len(weights)),
            "edges_largest_error_weighted": self.edges(weighted)["edges_largest_error"],
            "updates": made.updates,
            "cpu_seconds": took,
        }
        return self.row(drawn, more)

    def timed(self, draw: Callable[[], Tensor]) -> dict:
        """Draws of another method, and how long they took."""
        start = time.process_time()
        drawn = draw()
        return self.row(drawn, {"cpu_seconds": time.process_time() - start})

    def chains(self, kind: str, seconds: float, count: int = 100) -> dict:
        """Chains from the empty graph; what they visit in the second half of the time."""
        start, state, found = time.process_time(), None, []
        while (spent := time.process_time() - start) < seconds:
            if kind == "partition":
                graphs, state = partition_chains(self.model, self.x, count, 50, state)
            else:
                graphs = state = structure_chains(self.model, self.x, count, 50, state)
            if spent > seconds / 2:
                found.append(graphs[0])
        half = [torch.cat([part[at] for part in found]) for at in torch.arange(count).chunk(2)]
        one, other = (part.double().mean(0) for part in half)
        more = {"halves_apart": float((one - other).abs().max()), "cpu_seconds": spent}
        return self.row(torch.cat(half), more)

    def rivals(self, seconds: float) -> Iterator[tuple[str, Callable[[], dict]]]:
        """Those that learn nothing: chains for so long, bootstrap, and all graphs alike."""
        yield "partition MCMC", lambda: self.chains("partition", seconds)
        yield "structure MCMC", lambda: self.chains("structure", seconds)
        rows, levels = self.x.values[0], self.x.levels
        levels = None if levels is None else levels[0].tolist()
        yield (
            "bootstrap, greedy search",
            lambda: self.timed(lambda: bootstrap(self.model, rows, 200, levels)),
        )
        yield "uniform", lambda: self.edges(_uniform(self.model))


def _uniform(model: DagPosterior) -> Tensor:
    """`(n, n)` how probable an edge is where all graphs are alike."""
    n, step = model.variables, 1e-4
    more, less = (
        EdgePrior("edges", odds).log_normaliser(n, model.max_parents) for odds in (step, -step)
    )
    every = torch.full((n, n), (more - less) / (2 * step) / (n * (n - 1)), dtype=torch.float64)
    return every.fill_diagonal_(0)


def sachs(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """11 proteins, the first 853 rows, standardised: beside exact, against both truths by name."""
    data = Measurements(args.data, kind="continuous", standardise=True, rows=853, truth=args.truth)
    x, model, names = data.x.to(args.device), DagPosterior(11), data.names
    truths = {"_17": torch.zeros(11, 11, dtype=torch.bool)}
    if data.truth is not None:
        truths["_20"] = data.truth
    for pair in SEVENTEEN.split(", "):
        cause, effect = pair.split()
        truths["_17"][names.index(cause), names.index(effect)] = True
    beside = Beside(model, x, model.marginals(data.x)[0], truths)
    yield "exact draws", lambda: beside.timed(lambda: model.sample_posterior(x, DRAWS)[0])
    updates = args.updates or 2000
    yield "GFlowNet, layers", lambda: beside.sampler("layers", updates, args.seconds)
    yield (
        "GFlowNet, edges (equivariant)",
        lambda: beside.sampler("graph", updates, args.seconds),
    )
    yield from beside.rivals(min(args.seconds, 60))


def larger(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """12 and 14 nodes beside the layer programme."""
    for n in args.variables:
        _, values = generated(n, n, 500, torch.Generator().manual_seed(seed))
        x, model, seconds = Tables.of([values]), DagPosterior(n), min(args.seconds, 60)
        beside = Beside(model, x, model.marginals(x)[0], {})

        def programme(model=model, x=x, beside=beside) -> dict:
            scores, start = model.given(x).table[0], time.process_time()
            evidence = exact.LayerProgramme(scores).log_evidence()
            middle = time.process_time()
            found = {**beside.edges(exact.marginals(scores).edges), "cpu_seconds": middle - start}
            found["log_marginal_error"] = float((evidence - beside.best.log_evidence).abs())
            return {**found, "cpu_seconds_of_marginals": time.process_time() - middle}

        def sinks(model=model, x=x) -> dict:
            start = time.process_time()
            made = SinkProgramme(model.given(x).table[0])
            middle = time.process_time()
            made.marginals()
            return {
                "cpu_seconds": middle - start,
                "cpu_seconds_of_marginals": time.process_time() - middle,
            }

        def sampler(beside=beside, seconds=seconds) -> dict:
            return beside.sampler("layers", args.updates or 1000, seconds)

        yield f"{n} nodes, layer programme", programme
        yield f"{n} nodes, inclusion and exclusion", sinks
        yield f"{n} nodes, GFlowNet, layers", sampler
        for name, job in beside.rivals(seconds):
            yield f"{n} nodes, {name}", job


def twenty(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """20 nodes, at most 3 parents, each method for as long as another, beside exact edges."""
    truth, values = generated(20, 20, 500, torch.Generator().manual_seed(seed))
    x, model = Tables.of([values]).to(args.device), DagPosterior(20, max_parents=3)
    path, seconds = Path(args.output) / f"twenty_{seed}.pt", min(args.seconds, 100)
    took = 0.0
    if not path.exists():  # some minutes
        start = time.process_time()
        best = SinkProgramme(model.given(x).table[0], 3).marginals()
        took = time.process_time() - start
        torch.save((best.log_evidence, best.families, best.edges), path)
    beside = Beside(model, x, exact.ExactPosterior(*torch.load(path)), {"": truth})
    exactly = against_truth(beside.best.edges.cpu(), None, truth)
    del exactly["e_shd"]  # edges one by one
    yield "inclusion and exclusion", lambda: {**exactly, "cpu_seconds": took}
    updates = args.updates or 800
    yield "GFlowNet, layers", lambda: beside.sampler("layers", updates, seconds, 64)
    yield from beside.rivals(seconds)


def random_tables(count: int, n: int, rows: int, generator: torch.Generator) -> Tables:
    """Tables of random linear-Gaussian networks."""
    return Tables.of([generated(n, n, rows, generator)[1] for _ in range(count)])


def amortised(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """One policy for all data sets of 4 columns: log Z and edges of data sets never seen."""

    def run() -> dict:
        generator = torch.Generator().manual_seed(seed)
        model, space = DagPosterior(4), LayerSpace(4)
        torch.manual_seed(seed)
        policy = LayerPolicy(4, hidden=256, layers=3, reads=128)
        updates = args.updates or 1000
        recipe = posterior(BalancedVarGrad(evidence=1.0), samples=16, epsilon=0.05)
        rates = Rates(policy=Anneal(0.003, 0.00003, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: random_tables(32, 4, 100, generator), updates, args.seconds)
        x = random_tables(200, 4, 100, torch.Generator().manual_seed(10_000 + seed))
        sampler = Posterior(model, space, policy, x)
        log_p = model.log_marginal(x)
        error = sampler.log_z() - log_p
        # what is asked of a table in every order of its columns, and averaged
        turned = [
            Posterior(model, space, policy, Tables.of(list(x.values[..., list(order)]))).log_z()
            for order in itertools.permutations(range(4))
        ]
        averaged = torch.stack(turned).mean(0) - log_p
        _, weights = sampler.log_weights(256)
        edges = sampler.sample(500).double().mean(1)
        best = torch.stack([found.edges for found in model.marginals(x)])
        return {
            "log_z_rmse": float(error.square().mean().sqrt()),
            "log_z_mean_error": float(error.mean()),
            "log_z_rmse_24_orders": float(averaged.square().mean().sqrt()),
            "log_p_spread": float(log_p.std()),
            "elbo_gap": float((log_p - weights.mean(1)).mean()),
            "edges_mean_error": float((edges - best).abs().sum((1, 2)).mean() / 12),
            "cpu_seconds": took,
        }

    yield "GFlowNet, layers, reads the table", run
