"""Grammars as generative models of sentences and their trees."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.grammars.language import ContextTables, length_weights, recognise
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.inside import inside, log_partition, span_marginals, viterbi
from gfnem.parsing.inference.potentials import IMPOSSIBLE, RulePotentials
from gfnem.parsing.inference.rule_choices import sample_trees, tree_log_joint
from gfnem.parsing.spaces.partial import partial_trees
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count
from gfnem.target import Conditioned, GenerativeModel

_LOG = logging.getLogger(__name__)


class GivenTrees(Conditioned):
    """A grammar, given sentences: the weights of its rules are made once.

    Attributes:
        potentials: with gradients where they are enabled, without where not.
    """

    target: TreeGrammar

    def __init__(self, target: TreeGrammar, x: Sentences):
        super().__init__(target, x)
        self._potentials: tuple[Any, Any] | None = None

    @property
    def potentials(self) -> Any:
        """The rules' log weights at each position of each sentence."""
        if self._potentials is None:
            with torch.enable_grad():
                potentials = self.target.potentials(self.x)
            self._potentials = potentials, potentials.detach()
        return self._potentials[0 if torch.is_grad_enabled() else 1]

    def log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats."""
        if not self.target.additive:
            return super().log_joint(z)
        return self.target._node_scores(self.potentials, z).sum(2)

    def partial_log_joint(self, state: Any) -> Tensor:
        """`(batch, samples)` log weight of the rules that a state has used."""
        trees, chosen = partial_trees(state)
        scores = self.target._node_scores(self.potentials, trees)
        return torch.where(chosen, scores, 0.0).sum(2)

    def collapsed_log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, bracketing)` in nats."""
        return self.target._bracketing_log_joint(self.potentials, z)

    def log_marginal(self) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats; minus infinity for what cannot be derived."""
        return self.target._within_support(self.x, self.target._log_partition(self.potentials))

    @torch.no_grad()
    def sample_posterior(self, samples: int) -> Trees:
        """Exact draws of `P(z|x)`."""
        return self.target._sample(self.potentials, samples)


class TreeGrammar(GenerativeModel):
    """What grammars in binary form share, whatever their rules look at.

    Nonterminals `0..N-1` expand to two symbols and label spans of two words or more; preterminals
    `N..N+T-1` emit one word. The latent `z` is the labelled binary tree; preterminals are summed
    out exactly (as in Hu et al. 2023, section 5.1). The start symbol chooses one symbol; where that
    is a preterminal the sentence has one word.

    Args:
        nonterminals, preterminals: how many of each.
        vocab_size: words, the unknown word (index 0) included.
    """

    unit = "token"
    #: whether `log_joint` is the sum of the weights of a tree's rules; a subclass that adds to it
    #: says False
    additive: bool = True

    def __init__(self, nonterminals: Count, preterminals: Count, vocab_size: Count):
        super().__init__()
        self.nonterminals, self.preterminals = nonterminals, preterminals
        self.vocab_size = vocab_size
        self._said = False  # whether a warning has been given
        self._kept_tables: tuple[list, tuple[Tensor, Tensor, Tensor]] | None = None

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights of all rules, in nats: of the start symbol, of pairs, and of words."""

    @abstractmethod
    def _potentials(self, tables: Sequence[Tensor], x: Sentences) -> Any:
        """What `potentials` gives for tables such as `tables` gives."""

    @staticmethod
    @abstractmethod
    def _log_partition(potentials: Any) -> Tensor:
        """`(batch,)` log weight of each sentence in nats, all its trees summed."""

    @abstractmethod
    def by_context(self) -> ContextTables:
        """The tables in the form of contexts (see `gfnem.parsing.grammars.language`)."""

    @staticmethod
    @abstractmethod
    def _node_scores(potentials: Any, z: Trees) -> Tensor:
        """`(batch, samples, nodes)` log weights, in nats, whose sum is the log joint."""

    def names(self) -> list[str]:
        """`N` nonterminal names, for drawing and printing."""
        return [f"NT{index}" for index in range(self.nonterminals)]

    def preterminal_names(self) -> list[str]:
        """`T` preterminal names, for printing."""
        return [f"T{index}" for index in range(self.preterminals)]

    def production_probabilities(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tables as probabilities that sum to 1 for each symbol, to sample derivations from.

        The tables themselves, for a grammar whose rule weights are already such probabilities.
        """
        root, rules, emissions = self.tables()
        return root.exp(), rules.exp(), emissions.exp()

    def expected_uses(self, x: Sentences) -> Tensor:
        """`(K, N + T)` float64: uses of each symbol under each context, over all trees of all of x.

        Posterior expectations, as gradients of the log partition in the rules' log weights (Eisner
        2016). There is one context where rules do not look at parents, else they are the
        nonterminals and, last, the start symbol. Sentences must be derivable.
        """
        with torch.enable_grad():
            tables = [table.detach().requires_grad_() for table in self.tables()]
            total = self._log_partition(self._potentials(tables, x)).sum()
            uses = torch.autograd.grad(total, tables, materialize_grads=True)
        uses = torch.cat([uses[1].double().sum((-2, -1)), uses[2].double().sum(-1)], -1)
        return uses.view(-1, uses.shape[-1])

    def facts(self) -> dict[str, Any]:
        """What spaces and policies are told: `nonterminals`."""
        return {"nonterminals": self.nonterminals}

    def given(self, x: Sentences) -> GivenTrees:
        """The grammar, given sentences: potentials are computed once."""
        return GivenTrees(self, x)

    def potentials(self, x: Sentences) -> Any:
        """The rules' log weights at each position of each sentence, preterminals summed out."""
        return self._potentials(self._fixed_tables(), x)

    def _fixed_tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """The `tables`; made once for parameters that nobody trains or changes."""
        if any(p.requires_grad for p in self.parameters()):
            return self.tables()
        versions = [(p._version, p.device) for p in self.parameters()]
        if self._kept_tables is None or self._kept_tables[0] != versions:
            self._kept_tables = versions, self.tables()
        return self._kept_tables[1]

    def in_support(self, x: Sentences) -> Tensor:
        """`(batch,)` bool: which sentences the grammar can derive. Exact."""
        tables = self.by_context()
        if not tables.everything():
            return recognise(tables, x)
        long, single = (
            part.isfinite().any() for part in tables.root.tensor_split([self.nonterminals])
        )
        return torch.where(x.lengths > 1, long, single)

    def length_weights(self, longest: int) -> Tensor:
        """`(longest,)` float64: how probable sentences of 1, 2, ... tokens are. Exact."""
        return length_weights(self.by_context(), longest)

    def _within_support(self, x: Sentences, log_marginal: Tensor) -> Tensor:
        """Minus infinity, without gradient, for sentences that cannot be derived.

        Charts give those about `IMPOSSIBLE`, since each of their trees has a part of that weight:
        what is far above can be derived, and what is as low is looked at exactly.
        """
        low = log_marginal.detach() < IMPOSSIBLE / 2
        if not low.any():
            return log_marginal
        rows = low.nonzero().squeeze(1)
        none = rows[~self.in_support(x.select(rows))]
        if not len(none):
            return log_marginal
        if self.training and log_marginal.requires_grad and not self._said:
            self._said = True
            _LOG.warning(
                "gfnem: the grammar cannot derive %d of %d sentences of a training batch: their "
                "likelihood is 0, and nothing is learned from such sentences (said once)",
                *(len(none), len(x)),
            )
        return log_marginal.index_fill(0, none, -torch.inf)

    @abstractmethod
    def log_brackets(self, brackets: Brackets) -> Tensor:
        """`(count,)` exact log probability, in nats, of trees that agree with the brackets.

        Of any words and labels; where nodes have more than two children, of all binary trees that
        contain the spans.
        """

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats, preterminals summed out."""
        return self._node_scores(self.potentials(x), z).sum(2)

    def partial_log_joint(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` log weight of the rules that a state of either tree space has used."""
        return self.given(x).partial_log_joint(state)

    def collapsed_log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, bracketing)` in nats: the labels of `z` are summed out."""
        return self.given(x).collapsed_log_joint(z)

    def log_marginal(self, x: Sentences) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats by the inside algorithm.

        Minus infinity, without gradient, for what the grammar cannot derive.
        """
        return self.given(x).log_marginal()

    def sample_posterior(self, x: Sentences, samples: int) -> Trees:
        """Exact draws of `P(z|x)` from the inside chart."""
        return self.given(x).sample_posterior(samples)

    @staticmethod
    @abstractmethod
    def _bracketing_log_joint(potentials: Any, z: Trees) -> Tensor:
        """`(batch, samples)` log weight of each bracketing, its labels summed out."""

    @staticmethod
    @abstractmethod
    def _sample(potentials: Any, samples: int) -> Trees:
        """Exact draws of trees."""

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths


class Grammar(TreeGrammar):
    """A probabilistic context-free grammar in binary form; a subclass says what its `tables` are.

    The arguments are `TreeGrammar`'s.
    """

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights of all rules, in nats.

        Returns:
            root: `(N + T,)` the start symbol's choice.
            rules: `(N, N + T, N + T)` of `A -> B C`.
            emissions: `(T, vocab_size)` of words.
        """

    def _potentials(self, tables: Sequence[Tensor], x: Sentences) -> RulePotentials:
        root, rules, emissions = tables
        scores = emissions.T.index_select(0, x.tokens.flatten()).unflatten(0, x.tokens.shape)
        return RulePotentials.from_tables(root, rules, scores, x.lengths)

    _node_scores = staticmethod(tree_log_joint)
    _log_partition = staticmethod(log_partition)

    _bracketing_log_joint = staticmethod(bracketing_log_joint)

    @staticmethod
    def _sample(potentials: RulePotentials, samples: int) -> Trees:
        return sample_trees(potentials, inside(potentials), samples)[0]

    def by_context(self) -> ContextTables:
        """The tables with one context and one group."""
        root, rules, emissions = self.tables()
        return ContextTables(root, rules[None, None], emissions[None])

    def log_brackets(self, brackets: Brackets) -> Tensor:
        """See `TreeGrammar.log_brackets`."""
        root, rules, emissions = self.tables()
        words = emissions.logsumexp(1).expand(*brackets.spans.shape[:2], -1)
        potentials = RulePotentials.from_tables(root, rules, words, brackets.lengths)
        return log_partition(potentials, inside(potentials, barred(brackets, self.nonterminals)))

    def best_trees(self, x: Sentences) -> Trees:
        """The most probable tree of each sentence, without autograd."""
        return viterbi(self.potentials(x))[0]

    def span_marginals(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1, N)` posterior probability of each labelled span, without autograd."""
        return span_marginals(self.potentials(x))

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Trees]:
        """Draws `count` sentences of at most `max_length` tokens with their trees.

        Longer derivations are thrown away and drawn again: the draws follow the grammar given that
        a sentence fits.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand fits.
        """
        return draw_derivations(*self.production_probabilities(), count, max_length)


def start_choice(scores: Tensor, nonterminals: int, shortest: int) -> Tensor:
    """`(N + T,)` log probabilities of the start symbol's child.

    A preterminal at the top is a sentence of one word. Where there are none to learn from, nothing
    but the normalisation would train these choices: then they are impossible.

    Args:
        scores: `(N + T,)` any numbers, nonterminals first.
        nonterminals: the number `N`.
        shortest: fewest words of a sentence.
    """
    if shortest > 1:
        preterminal = torch.arange(len(scores), device=scores.device) >= nonterminals
        scores = scores.masked_fill(preterminal, -torch.inf)
    return scores.log_softmax(0)


def barred(brackets: Brackets, labels: int) -> Tensor:
    """`(count, n, n + 1, labels)` span potentials that forbid what crosses a bracket."""
    weights = brackets.crossed.float() * IMPOSSIBLE
    return weights.unsqueeze(3).expand(-1, -1, -1, labels)


def draw_derivations(
    root: Tensor,
    rules: Tensor,
    emissions: Tensor,
    count: int,
    max_length: int,
    annotate: Callable[[Tensor | None, Tensor], Tensor] | None = None,
) -> tuple[Sentences, Trees]:
    """Draws `count` sentences of at most `max_length` tokens with their trees.

    Args:
        root: `(S,)` probabilities of the start symbol's child.
        rules: `(N, S, S)` probabilities of each nonterminal's children.
        emissions: `(T, words)` probabilities of each preterminal's words.
        count, max_length: how many sentences, and the most tokens of one.
        annotate: given the expanded nonterminals (None: the start symbol) and one drawn child of
            each, the symbols, below `N + T`, that these are. Default: the children as drawn.

    Raises:
        RuntimeError: if fewer than one derivation in a thousand fits.
    """
    tables = _Lottery(root[None]), _Lottery(rules.flatten(1)), _Lottery(emissions)
    annotate = annotate or (lambda parent, child: child)
    pieces: list[tuple[Sentences, Trees]] = []
    found = tried = 0
    while found < count:
        size = max(2 * (count - found), 32)
        x, z = _derive(*tables, size, max_length, annotate)
        found, tried = found + len(x), tried + size
        pieces.append((x, z))
        if tried > 1000 * max(found, 1):
            raise RuntimeError(
                f"only {found} of {tried} derivations had at most {max_length} tokens"
            )
    return _join(pieces, count)


class _Lottery:
    """Draws from the rows of a table of probabilities, any number of rows at once."""

    def __init__(self, probabilities: Tensor):
        self.rows, self.columns = probabilities.shape
        steps = probabilities.detach().double().cumsum(1)
        # a row without any weight is never asked for, but must not spoil the others
        steps = steps / steps[:, -1:].clamp(min=torch.finfo(steps.dtype).tiny)
        # row r runs from r to r + 1: one sorted list serves all rows
        self.steps = (steps + torch.arange(self.rows, device=steps.device)[:, None]).flatten()

    def draw(self, row: Tensor) -> Tensor:
        """`(count,)` columns, one for each of the rows asked for."""
        ticket = row + torch.rand(len(row), device=row.device, dtype=torch.double)
        found = torch.searchsorted(self.steps, ticket, right=True) - row * self.columns
        return found.clamp(0, self.columns - 1)


def _derive(
    root: _Lottery, rules: _Lottery, emissions: _Lottery, count: int, max_length: int, annotate
) -> tuple[Sentences, Trees]:
    """Leftmost derivations of a whole batch at once; those that grow too long are left out."""
    nonterminals, symbols = rules.rows, root.columns
    device = root.steps.device
    rows = torch.arange(count, device=device)
    width = max_length + 2
    # a stack of symbols still to expand; beside each, the node whose right child it is (or -1)
    stack = torch.zeros(count, width, dtype=torch.long, device=device)
    owner = torch.full((count, width), -1, device=device)
    depth = torch.ones(count, dtype=torch.long, device=device)
    stack[:, 0] = annotate(None, root.draw(torch.zeros(count, dtype=torch.long, device=device)))
    tokens = torch.zeros(count, width, dtype=torch.long, device=device)
    table = torch.zeros(4, count, width, dtype=torch.long, device=device)  # left right split label
    leaf_right = torch.zeros(count, width, dtype=torch.bool, device=device)
    words = torch.zeros(count, dtype=torch.long, device=device)
    nodes = torch.zeros(count, dtype=torch.long, device=device)
    while True:
        busy = rows[(depth > 0) & (words + depth <= max_length)]
        if not len(busy):
            break
        depth[busy] -= 1
        symbol, parent = stack[busy, depth[busy]], owner[busy, depth[busy]]
        right_child = parent >= 0
        of_right = busy[right_child]
        table[2, of_right, parent[right_child]] = words[of_right]
        emits = symbol >= nonterminals
        leaf_right[busy[right_child & emits], parent[right_child & emits]] = True
        leaf = busy[emits]
        if len(leaf):
            tokens[leaf, words[leaf]] = emissions.draw(symbol[emits] - nonterminals)
            words[leaf] += 1
        inner = busy[~emits]
        if len(inner):
            choice = rules.draw(symbol[~emits])
            node = nodes[inner]
            table[0, inner, node] = words[inner]
            table[3, inner, node] = symbol[~emits]
            for child, owned in ((choice % symbols, node), (choice // symbols, None)):
                stack[inner, depth[inner]] = annotate(symbol[~emits], child)
                owner[inner, depth[inner]] = -1 if owned is None else owned
                depth[inner] += 1
            nodes[inner] += 1
    done = depth == 0
    tokens, table, leaf_right = tokens[done], table[:, done], leaf_right[done]
    lengths = words[done]
    longest = int(lengths.max()) if len(lengths) else 1
    left, right, split, _ = table
    for node in range(longest - 2, -1, -1):  # a node ends where its right child ends
        child = (node + split[:, node] - left[:, node]).clamp(max=width - 1)
        ends = right.gather(1, child[:, None]).squeeze(1)
        right[:, node] = torch.where(leaf_right[:, node], split[:, node] + 1, ends)
    nodes_kept = torch.arange(longest - 1, device=device) < (lengths - 1)[:, None]
    table = table[:, :, : longest - 1] * nodes_kept
    x = Sentences(tokens[:, :longest], lengths)
    return x, Trees(*table.unsqueeze(2), lengths)


def _join(pieces: list[tuple[Sentences, Trees]], count: int) -> tuple[Sentences, Trees]:
    longest = max(x.max_length for x, _ in pieces)

    def pad(tensor: Tensor, size: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, size - tensor.shape[-1]))

    tokens = torch.cat([pad(x.tokens, longest) for x, _ in pieces])[:count]
    lengths = torch.cat([x.lengths for x, _ in pieces])[:count]
    parts = [
        torch.cat([pad(getattr(z, name), longest - 1) for _, z in pieces])[:count]
        for name in ("left", "right", "split", "label")
    ]
    longest = int(lengths.max())
    return (
        Sentences(tokens[:, :longest], lengths),
        Trees(*(part[..., : longest - 1] for part in parts), lengths),
    )
