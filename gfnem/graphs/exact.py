"""Exact inference over directed acyclic graphs, layer by layer.

A graph has one decomposition into layers: each node stands in the first layer that comes after all
its parents. So every node of a new layer has its parents among the nodes placed, and at least one
of them in the last layer. Sums over graphs become sums over (nodes placed, last layer), `3 ** n`
states with `4 ** n` steps between them. All terms are positive: nothing cancels, unlike inclusion
and exclusion (Tian and He 2009). Everything is in the log domain and differentiable; the derivative
of the log evidence with respect to a local score is the posterior probability of that family.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gfnem.batched import Batched
from gfnem.graphs.dags import bit_masks, bits_of, closure_of, every_dag, parent_sets

#: most variables of the programme: 14 take 2.7e8 steps
MOST = 14
#: the log of nothing: finite, since the gradient of an empty sum would be NaN
_NOTHING = -1e30
#: numbers in memory at a time
_CHUNK = 2**22


@dataclass(frozen=True)
class _Level(Batched):
    """The sets of one size `k`, and where their subsets stand.

    Attributes:
        sets: `(sets,)` bit masks.
        inside: `(sets, 2 ** k)` bit masks of the subsets of each.
        outside: `(sets, 2 ** (n - k))` of the subsets of its complement.
        members, others: `(sets, k)`, `(sets, n - k)` the nodes in each, and those that are not.
        source: `(sets, 2 ** k - 1)` for each non-empty subset `T` of a set `U`, where the step from
            `U - T` by the layer `T` stands among the steps of all smaller sets.
    """

    sets: Tensor
    inside: Tensor
    outside: Tensor
    members: Tensor
    others: Tensor
    source: Tensor


def _spread(nodes: Tensor) -> Tensor:
    """`(sets, 2 ** k)` bit masks of all subsets of nodes `(sets, k)`, numbered by their places."""
    k = nodes.shape[1]
    inside = bits_of(torch.arange(2**k, device=nodes.device), k).long()
    return (inside[None] * (2**nodes)[:, None, :]).sum(2) if k else nodes.new_zeros(len(nodes), 1)


@functools.lru_cache(maxsize=4)
def _levels(n: int) -> list[_Level]:
    found: list[_Level] = []
    where = torch.zeros(2**n, dtype=torch.long, device="cpu")  # of a set among those of its size
    first = torch.zeros(n + 1, dtype=torch.long, device="cpu")  # where the steps of each size begin
    size = bits_of(torch.arange(2**n, device="cpu"), n).sum(1)
    for k in range(n + 1):
        chosen = list(itertools.combinations(range(n), k))
        members = torch.tensor(chosen, dtype=torch.long, device="cpu").reshape(len(chosen), k)
        rest = [[node for node in range(n) if node not in part] for part in map(set, chosen)]
        others = torch.tensor(rest, dtype=torch.long, device="cpu").reshape(len(chosen), n - k)
        sets = (2**members).sum(1)
        where[sets] = torch.arange(len(sets), device="cpu")
        inside, outside = _spread(members), _spread(others)
        before = sets[:, None] - inside[:, 1:]  # what is placed before the layer
        column = _place(inside[:, 1:], before, n)
        source = first[size[before]] + where[before] * 2 ** (n - size[before]) + column
        found.append(_Level(sets, inside, outside, members, others, source))
        if k < n:
            first[k + 1] = first[k] + outside.numel()
    return found


def _place(subset: Tensor, without: Tensor, n: int) -> Tensor:
    """The number of a subset among those of the complement of `without`."""
    number, place = torch.zeros_like(subset), torch.zeros_like(subset)
    for node in range(n):
        number = number + ((subset >> node & 1) << place)
        place = place + (1 - (without >> node & 1))
    return number


def log_subset_sums(table: Tensor, n: int, nodes: Iterable[int] | None = None) -> Tensor:
    """`(..., 2 ** n)` log sums over all subsets of each set (the zeta transform).

    Args:
        table: `(..., 2 ** n)` logs by bit masks.
        n: how many nodes there are.
        nodes: which of them a subset may lack; all if None.
    """
    for node in range(n) if nodes is None else nodes:
        halves = table.unflatten(-1, (2 ** (n - node - 1), 2, 2**node))
        without, within = halves.unbind(-2)
        table = torch.stack([without, torch.logaddexp(without, within)], -2).flatten(-3)
    return table


class LayerProgramme:
    """Sums over all DAGs of products of local scores, for one table of them.

    Args:
        scores: `(n, sets)` float64 local scores in nats, the sets those of `parent_sets`; -inf is
            what must not be.
        max_parents: of `parent_sets`.

    Raises:
        ValueError: if there are more than 14 variables.
    """

    def __init__(self, scores: Tensor, max_parents: int | None = None):
        n = len(scores)
        if n > MOST:
            raise ValueError(f"{n} variables: the layer programme is for at most {MOST}")
        self.n, self.scores = n, scores
        padded = torch.nn.functional.pad(scores, (0, 1), value=_NOTHING)
        padded = padded.clamp(min=_NOTHING)
        self.local = padded[:, parent_sets(n, max_parents, scores.device).lookup]
        levels = _levels(n)
        device = scores.device
        self._levels = [level.to(device) for level in levels]
        self._sums = self._with_one()
        self._steps, self._states = self._run()

    def _with_one(self) -> Tensor:
        """`(n, n, 2 ** n)` entry `[j, i, S]`: sum over sets of parents of `j` in `S` with `i`."""
        n, place = self.n, torch.arange(self.n, device=self.local.device)
        has = bits_of(torch.arange(2**n, device=place.device), n).mT  # (i, sets)
        table = torch.where(has[None], self.local[:, None], _NOTHING)
        return log_subset_sums(table, n)

    def _families(self, level: _Level) -> Tensor:
        """`(sets, 2 ** k, n - k)` log sum over parents in a set with one in each of its subsets."""
        k = level.members.shape[1]
        found = torch.full(
            (len(level.sets), 1, level.others.shape[1]),
            _NOTHING,
            dtype=self.local.dtype,
            device=self.local.device,
        )
        for place in range(k):
            # one parent is the newest member, none in the rest of the subset so far
            node = level.members[:, place, None, None]
            left = (level.sets[:, None] - level.inside[:, : 2**place])[:, :, None]
            more = self._sums[level.others[:, None, :], node, left]
            found = torch.cat([found, torch.logaddexp(found, more)], 1)
        return found

    def _layers(self, level: _Level, state: Tensor) -> Tensor:
        """`(sets, 2 ** (n - k))` log weight of placing a set and then a layer outside of it."""
        product = _log_products(self._families(level))  # (sets, 2 ** k, 2 ** (n - k))
        return (state[:, :, None] + product).logsumexp(1)

    def _run(self) -> tuple[list[Tensor], list[Tensor]]:
        """Steps `(sets, 2 ** (n - k))` and states `(sets, 2 ** k)` of every size."""
        roots = self.local[:, 0][None]  # nobody has parents in the first layer
        steps, states = [_log_products(roots)], [roots.new_zeros(1, 1)]
        for k in range(1, self.n + 1):
            level = self._levels[k]
            flat = torch.cat([step.flatten() for step in steps])
            state = flat[level.source]
            state = torch.nn.functional.pad(state, (1, 0), value=_NOTHING)
            states.append(state)
            if k == self.n:
                break
            parts = max(1, _CHUNK // 2**self.n)
            found = []
            for at in range(0, len(level.sets), parts):
                some = slice(at, at + parts)
                part = level[some]
                if torch.is_grad_enabled() and self._sums.requires_grad and self.n > 9:
                    layers = checkpoint(self._layers, part, state[some], use_reentrant=False)
                else:
                    layers = self._layers(part, state[some])
                found.append(layers)
            steps.append(torch.cat(found))
        return steps, states

    def log_evidence(self) -> Tensor:
        """`()` log of the sum over all DAGs, in nats."""
        return self._states[self.n].flatten().logsumexp(0)

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """`(count, n, n)` bool: exact draws, independent of each other."""
        n, device = self.n, self.local.device
        adjacency = torch.zeros(count, n, n, dtype=torch.bool, device=device)
        last = drawn_by(self._states[n][0].expand(count, -1))
        placed = torch.full((count,), 2**n - 1, device=device)
        layer = self._levels[n].inside[0][last]
        size = bits_of(torch.arange(2**n, device=device), n).sum(1)
        place = torch.zeros(2**n, dtype=torch.long, device=device)
        for level in self._levels:
            place[level.sets] = torch.arange(len(level.sets), device=device)
        while ((placed := placed - layer) > 0).any():
            previous = torch.zeros_like(layer)
            for k in range(1, n):
                rows = ((size[placed] == k) & (layer > 0)).nonzero()[:, 0]
                if len(rows):
                    at = place[placed[rows]]
                    previous[rows] = self._step_back(k, at, layer[rows])
            for node in range(n):
                rows = ((layer >> node & 1).bool() & (placed > 0)).nonzero()[:, 0]
                for some in rows.split(max(1, _CHUNK // 2**n)):
                    chosen = self._parents(node, placed[some], previous[some])
                    adjacency[some, :, node] = bits_of(chosen, n)
            layer = previous
        return adjacency

    def _step_back(self, k: int, at: Tensor, layer: Tensor) -> Tensor:
        """The layers before `layer` `(rows,)`, where sets number `at` of size `k` were placed."""
        level, found = self._levels[k], []
        for some, new in zip(
            at.split(max(1, _CHUNK // (2**k * self.n))),
            layer.split(max(1, _CHUNK // (2**k * self.n))),
            strict=True,
        ):
            part = level[some]
            chosen = (new[:, None] >> part.others & 1).bool()  # (rows, n - k)
            family = self._families(part)
            weight = torch.where(chosen[:, None], family, 0.0).sum(2) + self._states[k][some]
            found.append(part.inside.gather(1, drawn_by(weight)[:, None])[:, 0])
        return torch.cat(found)

    def _parents(self, node: int, placed: Tensor, previous: Tensor) -> Tensor:
        """`(rows,)` sets of parents among those placed, with one in the layer before."""
        every = torch.arange(2**self.n, device=placed.device)
        # draws of one posterior share most of their layers: each pair is weighed once
        pairs, which = torch.stack([placed, previous], 1).unique(dim=0, return_inverse=True)
        own, last = pairs[:, :1], pairs[:, 1:]
        fits = ((every & ~own) == 0) & ((every & last) > 0)
        weights = self.local[node].expand_as(fits).masked_fill(~fits, -torch.inf)
        heights = weights.softmax(1).cumsum(1)
        heights = heights / heights[:, -1:]
        uniform = torch.rand(len(which), 1, dtype=heights.dtype, device=placed.device)
        found = torch.searchsorted(heights[which], uniform, right=True)[:, 0]
        return found.clamp(max=2**self.n - 1)


def _log_products(factors: Tensor) -> Tensor:
    """`(..., 2 ** m)` sums of the log factors `(..., m)` over each subset; of none it is 0."""
    found = torch.zeros_like(factors[..., :1])
    for place in range(factors.shape[-1]):
        found = torch.cat([found, found + factors[..., place, None]], -1)
    return found


def drawn_by(log_weights: Tensor) -> Tensor:
    """`(...)` a choice drawn by log weights `(..., choices)`, by Gumbel's trick."""
    uniform = torch.rand_like(log_weights).clamp(min=torch.finfo(log_weights.dtype).tiny)
    return (log_weights - (-uniform.log()).log()).argmax(-1)


@dataclass
class ExactPosterior:
    """What there is to know of one posterior over graphs.

    Attributes:
        log_evidence: `()` nats.
        families: `(n, sets)` probability of each variable's set of parents.
        edges: `(n, n)` probability of each edge.
    """

    log_evidence: Tensor
    families: Tensor
    edges: Tensor


def marginals(scores: Tensor, max_parents: int | None = None) -> ExactPosterior:
    """Families' and edges' posterior probabilities, by one backward pass of the programme.

    Args:
        scores: `(n, sets)` as for `LayerProgramme`.
        max_parents: as there.
    """
    with torch.enable_grad():
        leaf = scores.detach().clamp(min=_NOTHING).requires_grad_()
        evidence = LayerProgramme(leaf, max_parents).log_evidence()
        (families,) = torch.autograd.grad(evidence, leaf)
    members = parent_sets(len(scores), max_parents, scores.device).members().to(families)
    return ExactPosterior(evidence.detach(), families, (families @ members).mT)


def log_weights_of_all(scores: Tensor, max_parents: int | None = None) -> tuple[Tensor, Tensor]:
    """All DAGs `(graphs, n, n)` of at most 5 nodes and their log weights `(graphs,)`."""
    graphs = every_dag(len(scores)).to(scores.device)
    return graphs, log_weight(graphs, scores, max_parents)


def log_weight(adjacency: Tensor, scores: Tensor, max_parents: int | None = None) -> Tensor:
    """`(...)` sum of the local scores `(n, sets)` of graphs `(..., n, n)`."""
    n = len(scores)
    index = parent_sets(n, max_parents, scores.device).number(bit_masks(adjacency.mT))
    padded = torch.nn.functional.pad(scores, (0, 1), value=-torch.inf)
    return padded[torch.arange(n, device=scores.device), index].sum(-1)


def statistics(adjacency: Tensor) -> dict[str, Tensor]:
    """`(n, n)` shares of graphs `(graphs, n, n)` with an edge, a path, a blanket between nodes.

    `blanket` is symmetric: an edge either way, or a child in common.
    """
    closed = closure_of(adjacency)
    spouses = adjacency.float() @ adjacency.mT.float() > 0
    blanket = adjacency | adjacency.mT | spouses
    blanket = blanket & ~torch.eye(adjacency.shape[-1], dtype=torch.bool, device=closed.device)
    return {
        "edge": adjacency.double().mean(0),
        "path": closed.double().mean(0),
        "blanket": blanket.double().mean(0),
    }
