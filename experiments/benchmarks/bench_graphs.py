"""An update of the sampler of graphs, beside the same loop written with Python graphs.

    python experiments/benchmarks/bench_graphs.py

Both take trajectories edge by edge with one perceptron over the adjacency matrix, its calls
batched, start its logits from the gains of edges, and descend on the modified detailed balance
loss. In ours a state is a tensor of all graphs, with its closure kept up. In the other each graph
is a `networkx.DiGraph`, copied for each step; each mask makes its closure afresh, and the BGe score
of each family is computed by itself when it is first seen, and remembered. The two are timed in
turn: one update of the other, from the weights that ours has come to, then as many of ours as take
about as long. The first update of the other, which computes scores, is not counted; after it few
families are new. Beside them stands what the perceptron alone takes of one of our updates.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from functools import partial
from typing import cast

import networkx
import numpy
import torch
from record import record
from torch import Tensor, nn

from gfnem.em import EM
from gfnem.graphs.dags import parent_sets
from gfnem.graphs.data import generated
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.policy import ScoredPolicy
from gfnem.graphs.space import DagSpace
from gfnem.graphs.tables import Tables
from gfnem.objectives import DetailedBalance
from gfnem.rates import Descent, Rates
from gfnem.recipes import posterior
from gfnem.space import Trajectories


def perceptron(n: int) -> nn.Sequential:
    """What both learn."""
    last = nn.Linear(128, n * n + 1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(n * n, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), last)


class Plain(ScoredPolicy):
    """Reads the adjacency matrix alone."""

    def __init__(self, variables: int):
        super().__init__(variables)
        self.network = perceptron(variables)

    def logits(self, context, state):
        """What the perceptron says, and the gain of an edge."""
        with torch.no_grad():
            edges = state.adjacency.mT.flatten(2).float()
            gains = context.given.deltas(state.parents).mT.flatten(2).float()
            gains = gains - (state.added[..., None] + 1).log()
        return self.network(edges) + torch.nn.functional.pad(gains, (0, 1))

    def correction(self, state, hints):
        """Not needed: `logits` says all."""
        raise NotImplementedError


class Scores:
    """BGe scores of families, one by one (Kuipers et al. 2014), remembered."""

    def __init__(self, values: Tensor):
        rows, n = values.shape
        self.rows, self.n, self.alpha = rows, n, n + 2
        self.t = (self.alpha - n - 1) / 2
        table = values.numpy()
        mean = table.mean(0)
        away = table - mean
        self.posterior = self.t * numpy.eye(n) + away.T @ away
        self.posterior += rows / (rows + 1) * numpy.outer(mean, mean)
        self.known: dict[tuple, float] = {}

    def log_det(self, nodes: list[int]) -> float:
        """Of the posterior scale matrix of some nodes."""
        return numpy.linalg.slogdet(self.posterior[numpy.ix_(nodes, nodes)])[1] if nodes else 0.0

    def __call__(self, node: int, parents: list[int]) -> float:
        """The score of a family, in nats."""
        key = node, tuple(sorted(parents))
        if key not in self.known:
            size, free = len(parents), self.alpha - self.n + len(parents) + 1
            value = -math.log(self.rows + 1) / 2 - self.rows / 2 * math.log(math.pi)
            value += math.lgamma((self.rows + free) / 2) - math.lgamma(free / 2)
            value += (free + size) / 2 * math.log(self.t)
            value += (self.rows + free - 1) / 2 * self.log_det(parents)
            value -= (self.rows + free) / 2 * self.log_det([node, *parents])
            self.known[key] = value
        return self.known[key]


class Loop:
    """The same training, graph by graph."""

    def __init__(self, values: Tensor, samples: int):
        self.n, self.samples, self.scores = values.shape[1], samples, Scores(values)
        self.network = perceptron(self.n)
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=True)
        self.pairs = [(i, j) for j in range(self.n) for i in range(self.n)]

    def mask(self, graph: networkx.DiGraph) -> list[bool]:
        """Edges that close no cycle, and stopping."""
        closure = networkx.transitive_closure(graph)
        return [
            i != j and not graph.has_edge(i, j) and not closure.has_edge(j, i)
            for i, j in self.pairs
        ] + [True]

    def gain(self, graph: networkx.DiGraph, i: int, j: int) -> float:
        """What an edge adds to the score."""
        before = list(graph.predecessors(j))
        return self.scores(j, [*before, i]) - self.scores(j, before)

    def log_pf(self, graphs: list[networkx.DiGraph]) -> Tensor:
        """`(graphs, actions)` log probabilities of all actions."""
        matrices, gains, masks = [], [], []
        for graph in graphs:
            mask = self.mask(graph)
            masks.append(mask)
            matrices.append([float(graph.has_edge(i, j)) for i, j in self.pairs])
            gains.append(
                [
                    self.gain(graph, *pair) if allowed else 0.0
                    for pair, allowed in zip(self.pairs, mask[:-1], strict=True)
                ]
            )
        edges = torch.tensor([graph.number_of_edges() + 1.0 for graph in graphs]).log()
        logits = self.network(torch.tensor(matrices))
        base = torch.tensor(gains) - edges[:, None]
        logits = logits + torch.nn.functional.pad(base, (0, 1))
        return logits.masked_fill(~torch.tensor(masks), -torch.inf).log_softmax(1)

    def update(self) -> None:
        """One update."""
        graphs = []
        for _ in range(self.samples):
            graphs.append(networkx.DiGraph())
            graphs[-1].add_nodes_from(range(self.n))
        losses, log_pf = [], self.log_pf(graphs)
        while graphs:
            actions = log_pf.detach().exp().multinomial(1)[:, 0].tolist()
            rows, children, known = [], [], []
            for row, action in enumerate(actions):
                if action == self.n * self.n:
                    continue
                child = graphs[row].copy()
                child.add_edge(*self.pairs[action])
                rows.append(row)
                children.append(child)
                gain = self.gain(graphs[row], *self.pairs[action])
                known.append(torch.tensor(float(child.number_of_edges())).log() - gain)
            if not rows:
                break
            after = self.log_pf(children)
            taken = torch.tensor([actions[row] for row in rows])
            before = log_pf[rows]
            residual = before.gather(1, taken[:, None])[:, 0] - before[:, -1] + after[:, -1]
            losses.append((residual + torch.stack(known)).square())
            graphs, log_pf = children, after
        self.optimizer.zero_grad()
        torch.cat(losses).mean().backward()
        self.optimizer.step()


def alone(network: nn.Sequential, trajectories: Trajectories) -> None:
    """What no update with this network can do without: to draw, to score and to descend."""
    states, mask = trajectories.states, trajectories.mask
    assert states is not None and mask is not None
    with torch.no_grad():
        for time, state in enumerate(states[:-1]):
            network(state.adjacency.mT.flatten(2).float()[mask[:, :, time]])
    edges = torch.stack([state.adjacency.mT.flatten(2) for state in states[:-1]], 2)
    network.zero_grad()
    network(edges[mask].float()).sum().backward()


def main() -> None:
    """Times both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variables", type=int, default=11)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=20, help="of ours in a round")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = args.variables
    _, values = generated(n, n, 500, torch.Generator().manual_seed(0))
    x, model = Tables.of([values]), DagPosterior(n)
    recipe = posterior(DetailedBalance(), samples=args.samples)
    ours = Descent(EM(model, DagSpace(n), Plain(n), recipe), Rates(policy=1e-3))
    other = Loop(values, args.samples)
    table, sets = model.given(x).table[0] - model.prior_table(), parent_sets(n)
    for node, parents in ((0, []), (3, [1, 5]), (10, [0, 2, 9])):  # both score alike
        own = float(table[node, sets.lookup[sum(2**parent for parent in parents)]])
        assert abs(other.scores(node, parents) - own) < 1e-6, (node, parents)
    seconds: dict[str, list[float]] = {"tensors": [], "Python graphs": [], "perceptron": []}
    ours.update(x)
    start = time.process_time()
    other.update()
    print(f"first update of Python graphs: {time.process_time() - start:.3f} CPU s")
    policy = cast(Plain, ours.em.policy)
    for _ in range(args.rounds):
        other.network.load_state_dict(policy.network.state_dict())
        trajectories = policy.sample(policy.encode(x, model.given(x)), x, DagSpace(n), args.samples)
        for name, job, times in (
            ("Python graphs", other.update, 1),
            ("tensors", lambda: ours.update(x), args.updates),
            ("perceptron", partial(alone, other.network, trajectories), args.updates),
        ):
            start = time.process_time()
            for _ in range(times):
                job()
            seconds[name].append((time.process_time() - start) / times)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        what = f"graphs: update, {n} nodes, {args.samples} trajectories, {name}"
        print(f"{what}: {value:.3f} CPU s")
        if args.record:
            record(what, value)
    print(f"ratio {medians['Python graphs'] / medians['tensors']:.0f}")


if __name__ == "__main__":
    main()
