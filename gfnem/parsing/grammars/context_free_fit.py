"""What a parent-conditioned grammar loses if it forgets the parents: its best context-free fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.grammars.parent_grammar import ParentGrammar


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


def expected_uses(grammar: ParentGrammar) -> Tensor:
    """`(N + 1, N + T)` float64: how often each symbol is expected under each parent in a sentence.

    The solution of linear equations, one for each parent and nonterminal: what hangs from `A` is
    what its expansions under each of its own parents hang there (as the expectations of a PCFG in
    Chi 1999, here over symbols annotated with their parents).

    Raises:
        ValueError: if sentences are infinitely long on the mean.
    """
    root, rules, _ = (table.double().exp() for table in grammar.tables())
    labels = grammar.nonterminals
    children = rules.sum(3) + rules.sum(2)  # (P, A, child): how many of each below one A under P
    # the unknowns are the uses of nonterminals: below (P, A) hangs (A, B) `children[P, A, B]` times
    step = rules.new_zeros(labels + 1, labels, labels + 1, labels)
    at = torch.arange(labels, device=rules.device)
    step[:, at, at] = children[:, at, :labels]
    step = step.flatten(2).flatten(0, 1)
    if float(torch.linalg.eigvals(step).abs().max()) >= 1 - 1e-6:
        raise ValueError("sentences of this grammar are infinitely long on the mean")
    start = rules.new_zeros(labels + 1, labels)
    start[labels] = root[:labels]
    inner = torch.linalg.solve(
        torch.eye(len(step), dtype=step.dtype, device=step.device) - step.T, start.flatten()
    )
    uses = torch.einsum("pa,pac->ac", inner.view(labels + 1, labels), children)
    return torch.cat([uses, root[None]])


def context_free_fit(grammar: ParentGrammar) -> ContextFreeFit:
    """The maximum-likelihood PCFG of infinitely many derivations of a parent-conditioned grammar.

    Its rule probabilities are the relative frequencies of the rules, whatever the parent. That they
    maximise the likelihood of derivations, and that the excess is a divergence, is Gibbs'
    inequality. Derivations have their preterminals; on sentences alone no such claim is made.

    Raises:
        ValueError: if sentences are infinitely long on the mean.
    """
    uses = expected_uses(grammar)
    labels = grammar.nonterminals
    root, rules, emissions = (table.double() for table in grammar.tables())
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


def _pool(uses: Tensor, log: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Distributions `(P, A, outcomes)` averaged over the parents, and what coding them costs.

    Returns:
        `(A, outcomes)` log probabilities, and the nats a sentence with each parent's own
        distribution and with the average.
    """
    counts = uses[..., None] * log.exp()
    total = counts.sum(0)
    pooled = (total / total.sum(1, keepdim=True)).log()
    mine = -float(torch.where(counts > 0, counts * log, 0).sum())
    return pooled, (mine, -float(torch.where(total > 0, total * pooled, 0).sum()))
