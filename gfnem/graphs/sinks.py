"""Exact evidence and marginals over directed acyclic graphs by inclusion and exclusion over sinks.

The graphs over a set `S` in which no node of `T` has a child in `S` weigh `R(S - T)` times, for
each node of `T`, the sum `A` over its sets of parents within `S - T`. So `R(S)` is the sum over all
non-empty `T` in `S` of these with the sign of `(-1) ** (|T| + 1)` (Tian and He 2009, UAI, eq. 11):
`3 ** n` terms, where layers take `4 ** n`. It draws no graphs.

Terms cancel, but little: the sum of their absolute values is the mean of `2 ** sinks` over the
graphs that are summed. Numbers are kept relative to the sum over orders `O(S)`, which counts a
graph once for each order that it agrees with, so that nothing under- or overflows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gfnem.graphs.dags import bits_of, parent_sets
from gfnem.graphs.exact import ExactPosterior, log_subset_sums
from gfnem.graphs.orders import orders_before, sets_of_size

#: what is impossible has a log below this
_IMPOSSIBLE = -1e29
#: numbers in memory at a time: as many as a cache holds
_CHUNK = 2**18


class SinkProgramme:
    """Sums over all DAGs of products of local scores, for one table of them.

    Up to 17 nodes take seconds, 20 nodes some minutes on one core.

    Args:
        scores: `(n, sets)` float64 local scores in nats, the sets those of `parent_sets`; -inf is
            what must not be.
        max_parents: of `parent_sets`.
    """

    def __init__(self, scores: Tensor, max_parents: int | None = None):
        self.n, self.sets = len(scores), parent_sets(len(scores), max_parents, scores.device)
        padded = torch.nn.functional.pad(scores.detach(), (0, 1), value=-torch.inf)
        self._local = padded.clamp(min=-1e30)[:, self.sets.lookup]
        self._within = torch.stack([log_subset_sums(row, self.n) for row in self._local])
        size = bits_of(torch.arange(2**self.n, device=scores.device), self.n).sum(1)
        orders = torch.lgamma(size.double() + 1)  # from means to sums
        self._orders = orders_before(self._within[None])[0] + orders
        # nothing leads to what is impossible
        possible = self._orders > _IMPOSSIBLE
        self._scale = torch.where(possible, self._orders, torch.inf)
        self._ratio = self._run()

    def _steps(self, k: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Steps from each set of `k` nodes to all that hold it, in parts.

        Yields:
            `(some,)` bit masks of sets; `(some, n - k)` the other nodes; `(some, 2 ** (n - k))` bit
            masks of where each subset of these leads, and its weight relative to the orders.
        """
        m = self.n - k
        sign = 1 - 2 * (bits_of(torch.arange(2**m, device=self._local.device), m).sum(1) % 2)
        sign = -sign.to(self._local)
        sign[0] = 0.0  # not a step
        sets, _ = sets_of_size(self.n, k, self._local.device)
        for some in sets[self._orders[sets] > _IMPOSSIBLE].split(max(1, _CHUNK // 2**m)):
            others = (~bits_of(some, self.n)).nonzero()[:, 1].view(len(some), m)
            target, weight = some[:, None], self._orders[some][:, None]
            for place in range(m):
                node = others[:, place]
                target = torch.cat([target, target + 2 ** node[:, None]], 1)
                more = self._within[node, some][:, None]
                weight = torch.cat([weight, weight + more], 1)
            yield some, others, target, weight.sub_(self._scale[target]).exp_().mul_(sign)

    def _run(self) -> Tensor:
        """`(2 ** n,)` the sum over the graphs of each set, as a share of that over its orders."""
        ratio = self._local.new_zeros(2**self.n)
        ratio[0] = 1.0
        for k in range(self.n):
            for some, _, target, weight in self._steps(k):
                weight.mul_(ratio[some][:, None])
                ratio.index_add_(0, target.flatten(), weight.flatten())
        return ratio

    def log_evidence(self) -> Tensor:
        """`()` log of the sum over all DAGs, in nats."""
        return self._orders[-1] + self._ratio[-1].log()

    def _uses(self) -> Tensor:
        """`(n, 2 ** n)` derivatives of the log evidence by the sums of parents within each set."""
        passed, found = torch.zeros_like(self._ratio), torch.zeros_like(self._within)
        passed[-1] = 1 / self._ratio[-1]
        for k in reversed(range(self.n)):
            for some, others, target, weight in self._steps(k):
                weight.mul_(passed[target])
                passed[some] = weight.sum(1)
                weight.mul_(self._ratio[some][:, None])
                for place in reversed(range(self.n - k)):
                    without, within = weight.unflatten(1, (2, 2**place)).unbind(1)
                    found[others[:, place], some] = within.sum(1)
                    weight = without + within
        return found

    def marginals(self) -> ExactPosterior:
        """Families' and edges' posterior probabilities."""
        families = []
        for local, uses in zip(self._local, self._uses(), strict=True):
            with torch.enable_grad():
                leaf = local.clone().requires_grad_()
                (each,) = torch.autograd.grad(log_subset_sums(leaf, self.n), leaf, uses)
            families.append(each[self.sets.masks].clamp(min=0))
        families = torch.stack(families)
        edges = (families @ self.sets.members().to(families)).mT
        return ExactPosterior(self.log_evidence(), families, edges)
