"""What a parent-conditioned grammar loses if it forgets the parents: its best context-free fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.language import ContextTables
from gfnem.parsing.grammars.rule_tables import Rules
from gfnem.parsing.inference.potentials import groups_of


class FixedPCFG(Grammar):
    """A PCFG in binary form with given tables; it is not trained.

    Args:
        root, rules, emissions: log probabilities (see `Grammar.tables`).
        names: of the nonterminals.
    """

    def __init__(self, root: Tensor, rules: Tensor, emissions: Tensor, names: list[str]):
        super().__init__(rules.shape[0], *emissions.shape)
        self._names = list(names)
        self.register_buffer("root", root)
        self.register_buffer("rules", rules)
        self.register_buffer("emissions", emissions)

    def names(self) -> list[str]:
        """The names given."""
        return self._names

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tables given."""
        return self.root, self.rules, self.emissions


@dataclass
class ContextFreeFit:
    """The context-free grammar of the same symbols that is nearest to a parent-conditioned one.

    Attributes:
        grammar: the fit.
        entropy: of the parent-conditioned grammar's derivations, in nats a sentence.
        cross_entropy: of the fit on those derivations, in nats a sentence. Its excess over
            `entropy` is the Kullback-Leibler divergence: positive unless no rule looks at its
            parent, and the least of any context-free grammar over these symbols.
        tokens: expected tokens of a sentence.
    """

    grammar: FixedPCFG
    entropy: float
    cross_entropy: float
    tokens: float


def expected_uses(grammar: Grammar) -> Tensor:
    """`(K, N + T)` float64: how often each symbol is expected under each context in a sentence.

    The solution of linear equations, one for each context and nonterminal: what hangs from `A` is
    what its expansions under each of its own contexts hang there (as the expectations of a PCFG in
    Chi 1999, here over symbols annotated with their contexts).

    Raises:
        ValueError: if sentences are infinitely long on the mean.
    """
    tables = _proper(grammar)
    root, rules = tables.root.exp(), _dense(tables.rules).exp()
    contexts, labels = rules.shape[:2]
    _, as_written = _children(_dense(grammar.by_context().rules).exp())
    if float(torch.linalg.eigvals(as_written).abs().max()) >= 1 - 1e-6:
        raise ValueError("sentences of this grammar are infinitely long on the mean")
    children, step = _children(rules)
    groups = groups_of(contexts)
    start = rules.new_zeros(contexts, labels)
    start[-1] = root[:labels]
    inner = torch.linalg.solve(
        torch.eye(len(step), dtype=step.dtype, device=step.device) - step.T, start.flatten()
    )
    found = torch.einsum("ka,kac->ac", inner.view(contexts, labels), children)
    uses = rules.new_zeros(contexts, len(root))
    uses[:groups] = found.unflatten(0, (groups, -1)).sum(1)
    uses[-1] += root
    return uses


def _children(rules: Tensor) -> tuple[Tensor, Tensor]:
    """How many children hang below one symbol on the mean.

    Returns:
        `(K, N, N + T)`, `[k, A, B]` of B below A under k; and the same of nonterminals under their
        own contexts, `(K N, K N)`: below (k, A) hang so many (g, B).
    """
    contexts, labels = rules.shape[:2]
    children = rules.sum(3) + rules.sum(2)
    step = rules.new_zeros(contexts, labels, contexts, labels)
    at = torch.arange(labels, device=rules.device)
    step[:, at, at // (labels // groups_of(contexts))] = children[:, :, :labels]
    return children, step.flatten(2).flatten(0, 1)


def context_free_fit(grammar: Grammar) -> ContextFreeFit:
    """The maximum-likelihood PCFG of infinitely many derivations of a grammar with contexts.

    Its rule probabilities are the relative frequencies of the rules, whatever the context. That
    they maximise the likelihood of derivations, and that the excess is a divergence, is Gibbs'
    inequality. Derivations have their preterminals; on sentences alone no such claim is made.

    Raises:
        ValueError: if sentences are infinitely long on the mean.
    """
    uses = expected_uses(grammar)
    labels = grammar.nonterminals
    tables = _proper(grammar)
    root, emissions, rules = tables.root, tables.words, _dense(tables.rules)
    inner, leaves = uses[:, :labels], uses[:, labels:]
    pooled_rules, rule_costs = _pool(inner, rules.flatten(2))
    pooled_words, word_costs = _pool(leaves, emissions)
    choice = -float(torch.special.xlogy(root.exp(), root.exp()).sum())
    names = grammar.names()
    pooled = (root, pooled_rules.view_as(rules[0]), pooled_words)
    return ContextFreeFit(
        FixedPCFG(*(table.float() for table in pooled), names),
        entropy=choice + rule_costs[0] + word_costs[0],
        cross_entropy=choice + rule_costs[1] + word_costs[1],
        tokens=float(leaves.sum()),
    )


def _proper(grammar: Grammar) -> ContextTables:
    """Float64 log probabilities, given that derivations end."""
    with torch.no_grad():
        tables = ContextTables.of(*grammar.production_probabilities())
    return tables.normalised().each(Tensor.log)


def _dense(rules: Rules) -> Tensor:
    """`(K, N, S, S)` float64 log probabilities."""
    rules = rules.each(lambda table: table.double().exp())
    return torch.stack([rules.pairs(label) for label in range(rules.labels)], 1).log()


def _pool(uses: Tensor, log: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Distributions `(K, A, outcomes)` averaged over the contexts, and what coding them costs.

    Returns:
        `(A, outcomes)` log probabilities, and the nats a sentence with each context's own
        distribution and with the average.
    """
    counts = uses[..., None] * log.exp()
    total = counts.sum(0)
    pooled = (total / total.sum(1, keepdim=True)).log()
    mine = -float(torch.where(counts > 0, counts * log, 0).sum())
    return pooled, (mine, -float(torch.where(total > 0, total * pooled, 0).sum()))
