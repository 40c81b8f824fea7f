"""The posterior over graphs: a prior times the evidence of each graph's families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from gfnem.graphs import exact
from gfnem.graphs.dags import bit_masks, every_dag, parent_sets
from gfnem.graphs.orders import orders_after, swaps_after
from gfnem.graphs.parents import partial_sums
from gfnem.graphs.priors import EdgePrior, GraphTerm, added_up
from gfnem.graphs.scores import BDeu, BGe, LocalScore
from gfnem.graphs.sinks import SinkProgramme
from gfnem.graphs.space import DagSpace, DagState
from gfnem.graphs.tables import Tables
from gfnem.ranges import Amount, Count, Fact
from gfnem.target import Conditioned, Target

T = TypeVar("T")

#: graphs of so many nodes are listed where the prior is not modular
_LISTED = 5
#: exact sums over all graphs of so many variables take seconds
_SUMMED = 17
#: all sets of parents are scored for so many variables
_ALL_SETS = 15
#: a table of `3 ** n` sums is made for so many variables
_LOOKS_AHEAD = 11


class GivenTables(Conditioned[Tables, Tensor]):
    """The posterior, given data sets: one table of local scores for each.

    Attributes:
        table: `(batch, n, sets)` float64 local scores and prior of every variable with every set of
            parents, in nats; -inf where the set is not permitted.
    """

    target: DagPosterior
    x: Tables

    def __init__(self, target: DagPosterior, x: Tables, table: Tensor | None = None):
        super().__init__(target, x)
        self._fixed = table is None
        self.table = target.table(x) if table is None else table
        self._sets = parent_sets(target.variables, target.max_parents, x.device)
        self._lookup = self._sets.lookup
        # the number past the last is that of the sets that are too large
        self._padded = torch.nn.functional.pad(self.table, (0, 1), value=-torch.inf)

    def replaced(self, table: Tensor) -> GivenTables:
        """The same with another table `(batch, n, sets)`, of which nothing is remembered."""
        return GivenTables(self.target, self.x, table)

    def known(self, name: str, compute: Callable[[], T]) -> T:
        """A table that follows from `table`, computed once unless that is learned."""
        return self.x.known((name, self.target.name), compute) if self._fixed else compute()

    def families(self, masks: Tensor) -> Tensor:
        """`(batch, samples, n)` local scores of bit masks of parents."""
        return self._rows(self._padded[..., None], self._sets.number(masks))[..., 0]

    @staticmethod
    def _rows(table: Tensor, number: Tensor) -> Tensor:
        """`(batch, samples, n, ...)` rows of a table `(batch, n, rows, ...)`, in one gather.

        Args:
            table: of each variable.
            number: `(batch, samples, n)` which row of each.
        """
        batch, n, rows = table.shape[:3]
        first = torch.arange(0, batch * n * rows, rows, device=number.device).view(batch, 1, n)
        found = table.flatten(0, 2).index_select(0, (first + number).flatten())
        return found.view(*number.shape, *table.shape[3:])

    def deltas(self, parents: Tensor) -> Tensor:
        """`(batch, samples, n, n)` nats that adding or removing each edge would gain.

        -inf on the diagonal, and where the set of parents is not permitted.

        Args:
            parents: `(batch, samples, n)` bit masks of the parents of each node.
        """
        return self._rows(self.known("gains", self._gains), self._sets.number(parents)).mT

    def _gains(self) -> Tensor:
        """`(batch, n, sets + 1, n)` see `deltas`, of each variable with each set of parents."""
        n, lookup, masks = self.table.shape[1], self._lookup, self._sets.masks
        # the set past the last is too large: nothing is gained by what leads from it
        found = [self._padded[..., lookup[masks ^ 2**node]] - self.table for node in range(n)]
        return torch.nn.functional.pad(torch.stack(found, -1), (0, 0, 0, 1), value=-torch.inf)

    def joins(self, state: DagState, gains: Tensor) -> tuple[Tensor, Tensor]:
        """How probable it is that each node joins the parents of another, families apart.

        The family of each node is looked at by itself: its parents are those it has and any of
        those that would close no cycle now, in proportion to its local scores. Two gathers from a
        table of `3 ** n` sums for up to 11 variables; for more, at most one parent is thought to
        join.

        Args:
            state: graphs `(batch, samples, n, n)`.
            gains: as from `deltas`.

        Returns:
            `(batch, samples, n, n)` log probability that `i` is among the parents of `j` in the
            end, 0 where it cannot join; `(batch, samples)` log probability that none joins.
        """
        may = state.open_edges
        if self.table.shape[1] > _LOOKS_AHEAD:
            gains = gains.masked_fill(~may, -torch.inf)
            nothing = torch.zeros_like(gains[..., :1, :])
            total = torch.cat([gains, nothing], 2).logsumexp(2, keepdim=True)
            return (gains - total).masked_fill(~may, 0.0), -total.flatten(2).sum(2)
        futures, ternary = self.known("futures", self._futures), self._sets.ternary
        code = 2 * ternary[state.parents] + ternary[state.joining]  # (batch, samples, child)
        # a node that joins: its digit rises from 1 to 2
        weight = 3 ** torch.arange(may.shape[-1], device=may.device)[:, None]
        joined = code[:, :, None, :] + may * weight  # (batch, samples, parent, child)
        joined = self._rows(futures, joined.flatten(1, 2)).view(may.shape)
        whole, own = self._rows(futures, code), self.families(state.parents)
        return (joined - whole[:, :, None]).masked_fill(~may, 0.0), (own - whole).sum(2)

    @property
    def best(self) -> Tensor:
        """`(batch, n)` log sum of each variable's local scores, over all sets of parents."""
        return self.table.logsumexp(2)

    def sums(self) -> list[Tensor]:
        """`(batch, n, 2 ** n)` float64 `partial_sums` over sets of parents, less `best`."""

        def compute() -> list[Tensor]:
            local = (self._padded - self.best[..., None])[..., self._lookup]
            return partial_sums(local.clamp(min=-1e30))

        return self.known("sums", compute)

    def orders(self) -> Tensor:
        """`(batch, 2 ** n)` float32 what is still to come; see `orders_after`."""
        return self.known("orders", lambda: orders_after(self.sums()[-1]).float())

    def swaps(self) -> Tensor:
        """`(batch, 2 ** n, n - 1)` float32 how many orders graphs agree with; see `swaps_after`."""
        return self.known("swaps", lambda: swaps_after(self.sums()[-1]).float())

    def _futures(self) -> Tensor:
        """`(batch, n, 3 ** n)` log sums over the sets between two sets, numbered in base 3.

        Digit 0 of a node: it is in neither; 1: in the larger alone; 2: in both.
        """
        n = self.table.shape[1]
        sums = torch.nn.functional.pad(self.table, (0, 1), value=-torch.inf)
        lookup = self._lookup
        sums = sums[..., lookup].clamp(min=-1e30).reshape(len(sums), n, *([2] * n))
        for axis in range(2, n + 2):
            without, within = sums.unbind(axis)
            sums = torch.stack([without, torch.logaddexp(without, within), within], axis)
        return sums.flatten(2)

    def log_graphs(self, adjacency: Tensor) -> Tensor:
        """`(batch, samples)` float64 log joint of data and graphs `(batch, samples, n, n)`."""
        return self.families(bit_masks(adjacency.mT)).sum(2) + self.target.log_terms(adjacency)

    def log_state(self, state: DagState) -> Tensor:
        """`(batch, samples)` float64 log joint of data and the graphs so far."""
        own = self.families(state.parents).sum(2)
        return own + self.target.log_terms(state.adjacency) if self.target.terms else own

    def first(self) -> DagState:
        """The graph that every other is built from, `(batch, 1)`."""
        return self.target.space.initial_state(self.x, 1)


class DagPosterior(Target[Tables, Tensor]):
    """`log p(D, G)` of a data set `D` and a directed acyclic graph `G` over its columns.

    The prior over graphs is normalised, so that `log_marginal` is the log marginal likelihood of
    the data. There is nothing to train. Observations are `Tables`, latents adjacency matrices
    `(batch, samples, n, n)` bool.

    Args:
        variables: how many columns.
        score: the evidence of a family; if None `BDeu()` for discrete tables, else `BGe()`.
        prior: over edges; uniform over graphs if None.
        terms: factors of the prior that do not add over families, which are left unnormalised.
            With them exact inference is for at most 5 variables.
        max_parents: most parents of a node; any number if None.
        forbidden, required: `[i, j]` pairs, edges that never or always are there.
        discrete: whether the tables hold codes; not known if None.
        columns: names of the columns, by which terms may speak of them.

    Raises:
        ValueError: if required edges are forbidden, too many or form a cycle, if the score is not
            of such tables, or if there are more than 15 variables and no limit on parents.
    """

    unit = "row"
    #: whether latents have weights of edges beside the graph
    weighted = False

    def __init__(
        self,
        variables: Fact = None,
        score: LocalScore | None = None,
        prior: EdgePrior | None = None,
        terms: Sequence[GraphTerm] = (),
        max_parents: Count | None = None,
        forbidden: Sequence[Sequence[Amount]] | None = None,
        required: Sequence[Sequence[Amount]] | None = None,
        discrete: bool | None = None,
        columns: Sequence[str] | None = None,
    ):
        super().__init__()
        assert variables is not None
        self.variables = variables
        if variables > _ALL_SETS and max_parents is None:
            raise ValueError(
                f"{variables} variables: for more than {_ALL_SETS} a limit on parents is wanted, "
                "such as --model.max_parents 3"
            )
        if score is None:
            score = BDeu() if discrete else BGe()
        if discrete is not None and score.discrete != discrete:
            kinds = {True: "discrete", False: "continuous"}
            other = "BDeu, or BIC with discrete true" if discrete else "BGe and BIC"
            raise ValueError(
                f"{type(score).__name__} is a score of {kinds[score.discrete]} tables, and this "
                f"one is {kinds[discrete]}; DagPosterior has {other} for such"
            )
        self.score = score
        self.prior = EdgePrior() if prior is None else prior
        self.terms, self.max_parents = [term.of(columns) for term in terms], max_parents
        self.forbidden, self.required = forbidden, required
        self.space = DagSpace(variables, max_parents, forbidden, required)
        self.name = str(self.spec())

    def graphs(self, z: Any) -> Tensor:
        """`(batch, samples, n, n)` bool the graphs of latents."""
        return z

    def told(self, z: Any) -> dict[str, Any]:
        """What a record says of one latent `(1, 1, ...)` beside its edges, as plain data."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What spaces and policies must know of the graphs."""
        return {
            "variables": self.variables,
            "max_parents": self.max_parents,
            "forbidden": self.forbidden,
            "required": self.required,
        }

    def offers(self, hook: str) -> bool:
        """Exact inference is offered where it is affordable."""
        if hook in ("log_marginal", "sample_posterior"):
            most = exact.MOST if hook == "sample_posterior" else _SUMMED
            return self.variables <= (_LISTED if self.terms else most)
        return super().offers(hook)

    def given(self, x: Tables) -> GivenTables:
        """The tables of local scores, which are computed once for a data set."""
        return x.known(("given", self.name), lambda: GivenTables(self, x))

    # ------------------------------------------------------------------ the table

    def table(self, x: Tables) -> Tensor:
        """`(batch, n, sets)` float64 nats; the log normaliser of the prior is shared out."""
        return self.score.table(x, self.max_parents) + self.prior_table(x.device)

    def prior_table(self, device: torch.device | str = "cpu") -> Tensor:
        """`(n, sets)` float64 the prior's part of it; the sum over all graphs is 1."""
        n = self.variables
        members = parent_sets(n, self.max_parents, device).members()
        factors = self.prior.table(n, members).expand(n, -1)
        knowledge = self.space.knowledge
        factors = factors.masked_fill(~knowledge.permits(members), -torch.inf)
        if knowledge.free:
            total = self.prior.log_normaliser(n, self.max_parents)
        elif n <= _SUMMED:
            total = float(SinkProgramme(factors, self.max_parents).log_evidence())
        else:
            total = 0.0  # not known: the evidence is then up to a constant
        return factors - total / n

    def log_parents(self, adjacency: Tensor) -> Tensor:
        """`(batch, samples, n)` float64 the prior of the parents in graphs, in nats."""
        sets = parent_sets(self.variables, self.max_parents, adjacency.device)
        table = torch.nn.functional.pad(
            self.prior_table(adjacency.device), (0, 1), value=-torch.inf
        )
        node = torch.arange(self.variables, device=adjacency.device)
        return table[node, sets.number(bit_masks(adjacency.mT))]

    def log_terms(self, adjacency: Tensor) -> Tensor | float:
        """`(batch, samples)` the terms of the prior that do not add over families, in nats."""
        return added_up(self.terms, adjacency) if self.terms else 0.0

    # ------------------------------------------------------------------ densities

    def log_joint(self, x: Tables, z: Tensor) -> Tensor:
        """`(batch, samples)` float64 `log p(D, G)` in nats."""
        return self.given(x).log_graphs(z)

    def partial_log_joint(self, x: Tables, state: DagState) -> Tensor:
        """`(batch, samples)` the joint of the graph so far: every graph is complete."""
        return self.log_joint(x, state.adjacency)

    def units(self, x: Tables) -> Tensor:
        """`(batch,)` rows of each data set."""
        return x.real.sum(1).clamp(min=1)

    def in_support(self, x: Tables) -> Tensor:
        """`(batch,)` all of them."""
        return torch.ones(len(x), dtype=torch.bool, device=x.device)

    # ------------------------------------------------------------------ exact inference

    def log_marginal(self, x: Tables) -> Tensor:
        """`(batch,)` exact `log p(D)` in nats, by a `SinkProgramme` or by listing."""
        self._refuse("log_marginal")
        return x.known(("log_marginal", self.name), lambda: self._log_marginal(x))

    def _log_marginal(self, x: Tables) -> Tensor:
        if self.terms:
            return self._listed(x)[1].logsumexp(1)
        return torch.stack([programme.log_evidence() for programme in self._programmes(x)])

    def _programmes(self, x: Tables) -> list[SinkProgramme]:
        def compute() -> list[SinkProgramme]:
            return [SinkProgramme(scores, self.max_parents) for scores in self.given(x).table]

        return x.known(("programmes", self.name), compute)

    @torch.no_grad()
    def sample_posterior(self, x: Tables, samples: int) -> Tensor:
        """`(batch, samples, n, n)` exact independent draws."""
        self._refuse("sample_posterior")
        if self.terms:
            graphs, weights = self._listed(x)
            return graphs[weights.softmax(1).multinomial(samples, replacement=True)]
        table = self.given(x).table
        return torch.stack(
            [exact.LayerProgramme(scores, self.max_parents).sample(samples) for scores in table]
        )

    def marginals(self, x: Tables) -> list[exact.ExactPosterior]:
        """Exact marginals of families and edges of each data set; computed once.

        Raises:
            NotOffered: if there are too many variables, or the prior is not modular.
        """
        self._refuse("log_marginal")
        return x.known(("marginals", self.name), lambda: self._marginals(x))

    def _marginals(self, x: Tables) -> list[exact.ExactPosterior]:
        if not self.terms:
            return [programme.marginals() for programme in self._programmes(x)]
        graphs, weights = self._listed(x)
        sets = parent_sets(self.variables, self.max_parents, graphs.device)
        index = sets.number(bit_masks(graphs.mT))  # (graphs, n)
        found = []
        for row in weights:
            p = row.softmax(0)
            families = p.new_zeros(self.variables, len(sets) + 1)
            families.scatter_add_(1, index.mT, p.expand(self.variables, -1))
            edges = (p[:, None, None] * graphs).sum(0)
            found.append(exact.ExactPosterior(row.logsumexp(0), families[:, :-1], edges))
        return found

    def _listed(self, x: Tables) -> tuple[Tensor, Tensor]:
        """All graphs `(graphs, n, n)` and `(batch, graphs)` their log joint."""
        graphs = every_dag(self.variables).to(x.device)
        return graphs, self.log_joint(x, graphs.expand(len(x), -1, -1, -1))

    def _refuse(self, hook: str) -> None:
        if not self.offers(hook):
            getattr(super(), hook)(None, *([1] if hook == "sample_posterior" else []))
