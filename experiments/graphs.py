"""Posteriors over graphs beside exact ones and beside rivals: the measurements.

    python experiments/graphs.py five --seeds 20
    python experiments/graphs.py sachs --data sachs.txt --truth consensus.txt
    python experiments/graphs.py larger --variables 12 14
    python experiments/graphs.py twenty
    python experiments/graphs.py amortised
    python experiments/graphs.py parameters
    python experiments/graphs.py mixture
    python experiments/graphs.py grammar
    python experiments/graphs.py networks
    python experiments/graphs.py summary

Each measurement is a line of `runs/graphs/TASK.csv`, written as it is done; a second call passes
over what is there, so several processes may share the seeds (`--seeds 3 4 5`). Seconds are those
of the CPU: machines are shared. `summary` makes the
tables in `experiments/results` from them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parent / "benchmarks"))
from record import commit, machine

from gfnem.em import EM
from gfnem.graphs import exact
from gfnem.graphs.annealed import Families, families
from gfnem.graphs.chains import bootstrap, partition_chains, structure_chains
from gfnem.graphs.completion import CompletedPolicy
from gfnem.graphs.dags import bits_of, every_dag, parent_sets, random_dag
from gfnem.graphs.data import Measurements, generated
from gfnem.graphs.layer_policy import LayerPolicy
from gfnem.graphs.layers import LayerSpace
from gfnem.graphs.measures import against_truth, divergences, joint_divergences, over_all_graphs
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.network_policy import NetworkPolicy
from gfnem.graphs.networks import NetworkPosterior, Networks
from gfnem.graphs.policy import FlatPolicy, GraphPolicy
from gfnem.graphs.priors import EdgePrior, PathPrior
from gfnem.graphs.sinks import SinkProgramme
from gfnem.graphs.space import DagSpace
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

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
DRAWS = 20_000

#: the network of Sachs et al. (2005) as the bnlearn repository has it, 17 edges
SEVENTEEN = (
    "pkc pka, pkc raf, pka raf, pkc mek, pka mek, raf mek, mek erk, pka erk, erk akt, pka akt, "
    "pkc p38, pka p38, pkc jnk, pka jnk, plc pip3, plc pip2, pip3 pip2"
)


def trained(descent: Descent, batch: Callable[[], Any], updates: int, seconds: float) -> float:
    """Takes updates until they or the CPU seconds are spent; the CPU seconds that it took."""
    start = time.process_time()
    for _ in range(updates):
        descent.update(batch())
        if time.process_time() - start > seconds:
            break
    return time.process_time() - start


class Sampler:
    """A policy, trained on one posterior."""

    def __init__(self, model: DagPosterior, x: Tables, kind: str, hidden: int = 128):
        n, limit = model.variables, model.max_parents
        self.model, self.x, self.kind = model, x, kind
        if kind == "layers":
            space = LayerSpace(n, limit, model.forbidden, model.required)
            policy = LayerPolicy(n, limit, hidden)
        else:
            space = DagSpace(n, limit, model.forbidden, model.required)
            policy = FlatPolicy(n, 2 * hidden) if kind == "flat" else GraphPolicy(n)
        self.space, self.policy, self.updates = space, policy.to(x.device), 0

    def train(self, updates: int, samples: int = 128, seconds: float = math.inf) -> float:
        """Trains; returns the seconds it took.

        Args:
            updates: over which rates and exploration fall.
            samples: graphs in an update.
            seconds: stop then, in any case.
        """
        rate = 0.003 if self.kind == "graph" else 0.01
        recipe = posterior(
            BalancedVarGrad(), samples=samples, epsilon=Anneal(0.1, 0.0, 3 * updates // 4 + 1)
        )
        em = EM(self.model, self.space, self.policy, recipe)
        rates = Rates(policy=Anneal(rate, rate / 30, updates, "exponential"))
        took = trained(Descent(em, rates), lambda: self.x, updates, seconds)
        self.updates = em.clock.updates
        return took

    def posterior(self) -> Posterior:
        """The sampler as a distribution."""
        return Posterior(self.model, self.space, self.policy, self.x)


class Apart(nn.Module):
    """Linear maps, one for each data set of a batch."""

    def __init__(self, one: nn.Linear, count: int):
        super().__init__()
        size = one.out_features, one.in_features
        bound = size[1] ** -0.5 if one.weight.any() else 0.0  # the last starts from nothing
        self.weight = nn.Parameter(torch.empty(count, *size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, size[0]).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """`(count, samples, features)`."""
        return torch.baddbmm(self.bias, x, self.weight.mT)

    def copy_to(self, one: nn.Linear, at: int) -> None:
        """Gives a map what has been learned for data set `at`."""
        with torch.no_grad():
            one.weight.copy_(self.weight[at])
            one.bias.copy_(self.bias[at, 0])


def one_by_one(
    model: DagPosterior, x: Tables, updates: int, hidden: int = 64
) -> tuple[list[Sampler], float]:
    """Samplers by layers, one for each data set, trained side by side; the CPU seconds it took.

    They share nothing: each has weights of its own, and an optimiser that looks at each weight by
    itself. Only the cost of calling small operations is shared.
    """
    made = Sampler(model, x, "layers", hidden)
    linears = [name for name, part in made.policy.named_modules() if isinstance(part, nn.Linear)]
    for name in linears:
        parent, _, last = name.rpartition(".")
        setattr(
            made.policy.get_submodule(parent), last, Apart(made.policy.get_submodule(name), len(x))
        )
    took, found = made.train(updates), []
    for at in range(len(x)):
        one = Sampler(model, x.select(torch.tensor([at])), "layers", hidden)
        for name in linears:
            made.policy.get_submodule(name).copy_to(one.policy.get_submodule(name), at)
        found.append(one)
    return found, took


# -------------------------------------------------------------------------------- tasks


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
        rows = self.x.values[0]
        yield (
            "bootstrap, greedy search",
            lambda: self.timed(lambda: bootstrap(self.model, rows, 200)),
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
        updates = args.updates or 6000
        recipe = posterior(BalancedVarGrad(), samples=16, epsilon=0.05)
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
            "log_z_rmse_24_orders": float(averaged.square().mean().sqrt()),
            "log_p_spread": float(log_p.std()),
            "elbo_gap": float((log_p - weights.mean(1)).mean()),
            "edges_mean_error": float((edges - best).abs().sum((1, 2)).mean() / 12),
            "cpu_seconds": took,
        }

    yield "GFlowNet, layers, reads the table", run


def parameters(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """5 nodes with their weights, noise known: the exact divergence of the joint."""
    _, values = generated(5, None, 100, torch.Generator().manual_seed(seed))
    x, model, space = Tables.of([values]), WeightedPosterior(5), LayerSpace(5)

    def run(curvature: bool) -> dict:
        policy = CompletedPolicy(LayerPolicy(5), 5, curvature)
        updates = args.updates or 4000
        recipe = posterior(BalancedVarGrad(), samples=128, epsilon=Anneal(0.1, 0.0, updates // 2))
        rates = Rates(policy=Anneal(0.02, 0.0005, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: x, updates, args.seconds)
        sampler = Posterior(model, space, policy, x)
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
        orders = list(itertools.permutations(range(3)))
        named = torch.stack([torch.tensor(order)[best] for order in orders])
        at = [(every == row).all(1) for row in named.unique(dim=0)]
        shares = torch.stack([q[hit].sum() / p[hit].sum() for hit in at])
        right = ((shares - 1).abs() < 0.2).sum()
        return {**found, "relabellings": len(at), "relabellings_right": float(right)}

    def run() -> dict:
        policy, space = LabelPolicy(10, 3, 2, 64), LabelSpace(3)
        updates = args.updates or 3000
        recipe = posterior(
            BalancedVarGrad(1.0), samples=128, epsilon=Anneal(0.1, 0.0, updates // 2)
        )
        rates = Rates(policy=Anneal(0.02, 0.0003, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: x, updates, args.seconds)
        sampler = Posterior(model, space, policy, x)
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
        recipe = posterior(
            BalancedVarGrad(0.3), samples=128, epsilon=Anneal(0.1, 0.0, updates // 2)
        )
        rates = Rates(policy=Anneal(0.02, 0.0003, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: x, updates, args.seconds)
        sampler = Posterior(model, space, policy, x)
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


def _apart(one: Tensor, other: Tensor) -> float:
    """Greatest distance of the distribution functions of draws `(draws, quantities)`."""
    both = torch.cat([one, other]).mT.contiguous()
    parts = [
        torch.searchsorted(part.mT.contiguous().sort(1).values, both, right=True) / len(part)
        for part in (one, other)
    ]
    return float((parts[0] - parts[1]).abs().max())


def _told(z: Networks, child: int, values: Tensor) -> Tensor:
    """`(draws, quantities)` what a network expects in some rows, and the sizes of its weights."""
    sizes = [z.inner[0, :, child, 0], z.bias[0, :, child, :1], z.outer[0, :, child, :1]]
    return torch.cat([z.means(values)[0, :, :, child], *(part.abs() for part in sizes)], 1)


def _networks_apart(
    sampler: Posterior, model: NetworkPosterior, found: Families, likely: Tensor, values: Tensor
) -> dict[str, float]:
    """Distances of marginals of each family of some weight, and between halves of the chains."""
    n, distances, halves = model.variables, [0.0], [0.0]
    policy: Any = sampler.policy
    masks = parent_sets(n, model.max_parents).masks
    for child, number in (likely > 0.01).nonzero().tolist():
        parents = bits_of(masks[number], n)
        if not parents.any():
            continue

        def networks(adjacency: Tensor, *parts: Tensor, child: int = child) -> Networks:
            whole = [part.new_zeros(1, len(part), n, *part.shape[1:]) for part in parts]
            for empty, part in zip(whole, parts, strict=True):
                empty[0, :, child] = part
            return Networks(adjacency, *whole)

        adjacency = torch.zeros(1, 5000, n, n, dtype=torch.bool)
        adjacency[..., child] = parents
        with torch.no_grad():
            parts = adjacency.split(500, 1)
            own = [policy.complete(sampler.context, part, ON_POLICY)[0] for part in parts]
            own = Networks.cat(own)
        at = child, number
        chains = networks(
            adjacency[:, : found.bias.shape[2]], found.inner[at], found.bias[at], found.outer[at]
        )
        own, chains = (_told(z, child, values[None]) for z in (own, chains))
        distances.append(_apart(own, chains))
        halves.append(_apart(chains[::2], chains[1::2]))
    return {"marginals_largest_distance": max(distances), "halves_of_chains": max(halves)}


def networks(seed: int, args: argparse.Namespace) -> Iterator[tuple[str, Callable[[], dict]]]:
    """3 nodes with a network of 2 units each, 50 rows: beside chains for every family."""
    model, space = NetworkPosterior(3), LayerSpace(3)
    x = Tables.of([_of_networks(seed, model, 50)])

    def run() -> dict:
        policy = NetworkPolicy(3)
        updates = args.updates or 3000
        recipe = posterior(
            BalancedVarGrad(10.0, pseudo_huber=True),
            samples=64,
            epsilon=Anneal(0.2, 0.02, updates // 2),
        )
        rates = Rates(policy=Anneal(0.01, 0.0003, updates, "exponential"))
        descent = Descent(EM(model, space, policy, recipe), rates)
        took = trained(descent, lambda: x, updates, args.seconds)
        start = time.process_time()
        found = families(model, x, 1000, 10)
        chains = time.process_time() - start
        sampler = Posterior(model, space, policy, x)
        graphs, log_p = exact.log_weights_of_all(found.table)
        with torch.no_grad():
            context = sampler.context.graphs
            traced = policy.graphs.retrace(context, x, space, graphs[None])
            q = policy.graphs.score(context, space, traced).log_pf.sum(2)[0].double().exp()
        p = log_p.softmax(0)
        edges = ((q - p)[:, None, None] * graphs).sum(0).abs()
        best = exact.marginals(found.table)
        weights = torch.cat([sampler.log_weights(500)[1] for _ in range(10)], 1)
        return {
            "edges_largest_error": float(edges.max()),
            **{f"graphs_{name}": value for name, value in divergences(p, q).items()},
            **_networks_apart(sampler, model, found, best.families, x.values[0, :5]),
            "log_z_error": float((sampler.log_z()[0] - log_p.logsumexp(0)).abs()),
            "elbo_gap": float(log_p.logsumexp(0) - weights.mean()),
            "ess": float(1 / weights.softmax(1).square().sum() / weights.shape[1]),
            "updates": descent.em.clock.updates,
            "cpu_seconds": took,
            "cpu_seconds_of_chains": chains,
        }

    yield "GFlowNet, layers, then networks", run


TASKS: dict[str, Callable[[int, Any], Iterator[tuple[str, Callable[[], dict]]]]] = {
    "five": five,
    "sachs": sachs,
    "larger": larger,
    "twenty": twenty,
    "amortised": amortised,
    "parameters": parameters,
    "mixture": mixture,
    "grammar": grammar,
    "networks": networks,
}
COLUMNS = ("task", "seed", "method", "figures", "command", "commit", "date", "machine")

# -------------------------------------------------------------------------------- the tables


def rows_of(path: Path) -> list[dict[str, str]]:
    """What has been measured."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def measure(args: argparse.Namespace) -> None:
    """Measures what is not there yet."""
    path = Path(args.output) / f"{args.task}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    # where the user's own files are is nobody's business
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    command = shlex.join(["python", "experiments/graphs.py", *words])
    for seed in args.seeds:
        for method, job in TASKS[args.task](seed, args):
            done = {(row["seed"], row["method"]) for row in rows_of(path)}
            wanted = not args.methods or any(part in method for part in args.methods)
            if (str(seed), method) in done or not wanted:
                continue
            torch.manual_seed(seed)
            figures = ";".join(f"{name}={value:.6g}" for name, value in job().items())
            facts = command, commit(), date.today().isoformat(), machine()
            new = not path.exists()
            with open(path, "a", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                row = (args.task, seed, method, figures, *facts)
                writer.writerows([COLUMNS, row] if new else [row])
            print(seed, method, figures, flush=True)


def summary(args: argparse.Namespace) -> None:
    """Medians and worst values over seeds, a row for each method.

    Rows of methods that have not been measured here stay as they are.
    """
    for task in TASKS:
        rows = rows_of(Path(args.output) / f"{task}.csv")
        if not rows:
            continue
        methods = list(dict.fromkeys(row["method"] for row in rows))
        found, names = [], []
        for method in methods:
            own = [row for row in rows if row["method"] == method]
            parts = [dict(pair.split("=") for pair in row["figures"].split(";")) for row in own]
            names += [name for name in parts[0] if name not in names]
            found.append((method, own, parts))
        lines = []
        for method, own, parts in found:
            line = {"method": method, "seeds": len(own)}
            for name in names:
                values = [float(part[name]) for part in parts if name in part]
                if not values:
                    line[name] = ""
                    continue
                line[name] = f"{statistics.median(values):.4g}"
                if len(values) > 1:
                    line[name] += f" ({min(values):.4g} to {max(values):.4g})"
            last = own[-1]
            lines.append({**line, **{key: last[key] for key in COLUMNS[4:]}})
        path = RESULTS / f"graphs_{task}.csv"
        kept = [row for row in rows_of(path) if row["method"] not in methods]
        columns = ["method", "seeds", *names]
        for row in kept:
            columns += [name for name in row if name not in (*columns, *COLUMNS[4:])]
        with open(path, "w", newline="", encoding="utf-8") as stream:
            columns += COLUMNS[4:]
            writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows([*lines, *kept])
        print(f"experiments/results/graphs_{task}.csv")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=(*TASKS, "summary"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", help="only those whose names hold one of these")
    parser.add_argument("--data", help="the table of sachs, with named columns")
    parser.add_argument("--truth", help="its graph of 20 edges, an edge A --> B a line")
    parser.add_argument("--variables", type=int, nargs="+", default=[12, 14])
    parser.add_argument("--updates", type=int)
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="CPU seconds, most of each training"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", default=str(ROOT / "runs" / "graphs"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    summary(args) if args.task == "summary" else measure(args)


if __name__ == "__main__":
    main()
