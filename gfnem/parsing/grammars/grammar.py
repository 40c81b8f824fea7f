"""Grammars as generative models of sentences and their trees."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.fixed_shapes import fixed_shapes
from gfnem.offers import NotOffered
from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.grammars.language import ContextTables, length_weights, recognise
from gfnem.parsing.grammars.rule_tables import Rules, rules_of
from gfnem.parsing.grammars.sampling import draw_derivations
from gfnem.parsing.inference.bracketing import bracketing_log_joint
from gfnem.parsing.inference.charted import Charted
from gfnem.parsing.inference.draws import sample_trees
from gfnem.parsing.inference.inside import (
    by_label,
    inside,
    log_partition,
    marginals_and_chart,
)
from gfnem.parsing.inference.log_joint import span_scores, tree_log_joint
from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials
from gfnem.parsing.inference.viterbi import viterbi
from gfnem.parsing.spaces.partial import partial_trees
from gfnem.parsing.spaces.topdown import TopDownState
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count
from gfnem.target import GenerativeModel

_LOG = logging.getLogger(__name__)


class GivenTrees(Charted[Trees, Potentials, Tensor]):
    """A grammar, given sentences: the weights of its rules are made once.

    Args:
        target: the grammar.
        x: the sentences.
        spans: `(batch, n, n + 1)` log weight, in nats, that each node of a tree has beside those of
            its rules. None: the grammar alone.
    """

    target: Grammar

    def __init__(self, target: Grammar, x: Sentences, spans: Tensor | None = None):
        super().__init__(target, x, spans)
        self.spans = spans

    def log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats."""
        if not self.target.additive:
            return super().log_joint(z)
        values = self._precise(lambda p: tree_log_joint(p, z).sum(2), lambda values: values.amax(1))
        return self._with_spans(values, z)

    def _with_spans(self, log_joint: Tensor, z: Trees) -> Tensor:
        """Adds what the spans of the trees count, where they do."""
        return log_joint if self.spans is None else log_joint + span_scores(self.spans, z).sum(2)

    def some(self, rows: Tensor) -> GivenTrees:
        """The grammar, given some of the sentences alone; its tables are made once for all.

        Args:
            rows: `(count,)` int64.

        Raises:
            NotOffered: if its rules choose their children apart, or each sentence has its own.
        """
        found = type(self)(self.target, self.x[rows])
        if self.spans is not None:
            found.spans = self.spans[rows, : found.x.max_length, : found.x.max_length + 1]
        with torch.enable_grad():
            weights = self.potentials.some(rows)
        found._potentials = weights, weights.detach()
        return found

    def normalised(self) -> GivenTrees:
        """The grammar alone, with the same potentials."""
        alone = cast(GivenTrees, super().normalised())
        if alone is not self:
            alone._potentials = self._both()
        return alone

    def _inside(self) -> Tensor:
        extra = None if self.spans is None else by_label(self.spans, self.potentials.labels)
        return self._precise(
            lambda p: inside(p, extra), lambda chart: log_partition(self.potentials, chart)
        )

    def _precise(
        self, compute: Callable[[Potentials], Any], values: Callable[[Any], Tensor]
    ) -> Any:
        """What is computed of the potentials; of float64 ones, from then on, if float32 fails.

        Args:
            compute: of potentials.
            values: of what was computed `(batch,)` log weights of the sentences, or of the best of
                some trees of each: float32 may take for impossible what is not.
        """
        found = compute(self.potentials)
        with torch.no_grad():
            if not self._lost(values(found)):
                return found
        with torch.enable_grad():
            precise = self._both()[0].double()
        self._potentials = precise, precise.detach()
        return compute(self.potentials)

    def _lost(self, values: Tensor) -> bool:
        """Whether sentences that can be derived have the weight of what cannot be."""
        if values.dtype == torch.float64 or fixed_shapes(values):
            return False
        rows = (values < IMPOSSIBLE / 2).nonzero().squeeze(1)
        return len(rows) > 0 and bool(self.target.in_support(self.x[rows]).any())

    def partial_log_joint(self, state: Any) -> Tensor:
        """`(batch, samples)` log weight of the rules that a state has used.

        Raises:
            NotOffered: for bottom-up states where rules look at parents: they do not know them yet.
        """
        if self.target.contexts > 1 and not isinstance(state, TopDownState):
            raise NotOffered("bottom-up states do not know the parents that rules look at")
        trees, chosen = partial_trees(state)
        scores = tree_log_joint(self.potentials, trees)
        if self.spans is not None:
            scores = scores + pad(span_scores(self.spans, trees), (1, 0))
        return torch.where(chosen, scores, 0.0).sum(2)

    def collapsed_log_joint(self, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, bracketing)` in nats."""
        values = self._precise(lambda p: bracketing_log_joint(p, z), lambda values: values.amax(1))
        return self._with_spans(values, z)

    def log_marginal(self) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats; minus infinity for what cannot be derived."""
        total = log_partition(self.potentials, self.chart())
        return self.target._within_support(self.x, total)

    @torch.no_grad()
    def sample_posterior(self, samples: int) -> Trees:
        """Exact draws of `P(z|x)`."""
        return sample_trees(self.potentials, self.chart(), samples)[0]

    @torch.no_grad()
    def best_trees(self) -> Trees:
        """The most probable tree of each sentence, without autograd."""
        return self._precise(lambda p: viterbi(p, self.spans), lambda best: best[1])[0]

    @torch.no_grad()
    def span_marginals(self) -> Tensor:
        """`(batch, n, n + 1, N)` posterior probability of each labelled span, without autograd."""
        marginals, self._chart = self._precise(
            lambda p: marginals_and_chart(p, self.spans),
            lambda found: log_partition(self.potentials, found[1]),
        )
        return marginals


class Grammar(GenerativeModel[Sentences, Trees]):
    """A probabilistic grammar in binary form; a subclass says what its `tables` are.

    Nonterminals `0..N-1` expand to two symbols and label spans of two words or more; preterminals
    `N..N+T-1` emit one word. The latent `z` is the labelled binary tree; preterminals are summed
    out exactly (as in Hu et al. 2023, section 5.1). The start symbol chooses one symbol; where that
    is a preterminal the sentence has one word.

    The grammar is context-free, or how a symbol expands depends on the *parent class* of the symbol
    above it: the nonterminals are divided into classes of `N / classes` neighbours each (parent
    annotation, Johnson 1998, with tying). With a class for each nonterminal that is the model that
    is not context-free of Hu et al. (2023, section 5.2). There are as many *contexts* as classes
    and, last, that of the symbol at the top of the tree.

    Args:
        nonterminals, preterminals: how many of each.
        vocab_size: words, the unknown word (index 0) included.
        parent_classes: a divisor of `nonterminals`; None or 1: the grammar is context-free.

    Raises:
        ValueError: if the nonterminals do not fall into classes of equal size.
    """

    unit = "token"
    #: whether `log_joint` is the sum of the weights of a tree's rules; a subclass that adds to it
    #: says False
    additive: bool = True
    #: 1 or 2 where it derives all sentences of so many words or more, and no others; None where
    #: that is for its tables to say
    derives_from: int | None = None

    def __init__(
        self,
        nonterminals: Count,
        preterminals: Count,
        vocab_size: Count,
        parent_classes: Count | None = None,
    ):
        super().__init__()
        classes = parent_classes or 1
        if nonterminals % classes:
            sizes = [str(size) for size in range(1, nonterminals + 1) if nonterminals % size == 0]
            raise ValueError(
                f"parent_classes={classes}: {nonterminals} nonterminals do not fall into {classes} "
                f"classes of equal size; possible are {', '.join(sizes)}"
            )
        self.nonterminals, self.preterminals = nonterminals, preterminals
        self.vocab_size = vocab_size
        self.contexts = classes + 1 if classes > 1 else 1
        self._said = False  # whether a warning has been given
        self._kept_tables: tuple[list, tuple[Tensor, Tensor | Rules, Tensor]] | None = None

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor | Rules, Tensor]:
        """Log weights of all rules, in nats; minus infinity for what cannot be.

        Returns:
            root: `(N + T,)` the start symbol's choice.
            rules: `(K, N, N + T, N + T)` of `A -> B C` under each context; or rules that need no
                such table, as `ApartRules` do not.
            emissions: `(K, T, vocab_size)` of words, for a preterminal under each context.

        The axis of contexts may be left out where there is one.
        """

    def names(self) -> list[str]:
        """`N` nonterminal names, for drawing and printing."""
        return [f"NT{index}" for index in range(self.nonterminals)]

    def preterminal_names(self) -> list[str]:
        """`T` preterminal names, for printing."""
        return [f"T{index}" for index in range(self.preterminals)]

    def production_probabilities(self) -> tuple[Tensor, Tensor | Rules, Tensor]:
        """Weights to sample derivations from: a symbol's rules are drawn in proportion to them.

        The tables' own probabilities, where all derivations come to an end.
        """
        root, rules, emissions = self.tables()
        return root.exp(), rules.exp(), emissions.exp()

    def expected_uses(self, x: Sentences) -> Tensor:
        """`(K, N + T)` float64: uses of each symbol under each context, over all trees of all of x.

        Posterior expectations, as gradients of the log partition in the rules' log weights (Eisner
        2016). Sentences must be derivable.
        """
        with torch.no_grad():
            tables = self.by_context()
        labels, words = tables.rules.labels, tables.words
        with torch.enable_grad():
            extra = words.new_zeros(tables.rules.contexts, tables.rules.symbols).requires_grad_()
            rules = tables.rules.weighed(extra[:, :labels])
            words = words + extra[:, labels:, None]
            total = log_partition(self._potentials((tables.root, rules, words), x))
            return torch.autograd.grad(total.sum(), extra)[0].double()

    def facts(self) -> dict[str, Any]:
        """What spaces and policies are told: `nonterminals`, and under how many `contexts`."""
        return {"nonterminals": self.nonterminals, "contexts": self.contexts}

    def given(self, x: Sentences) -> GivenTrees:
        """The grammar, given sentences: potentials are computed once."""
        return GivenTrees(self, x)

    def tilted(self, x: Sentences, parts: Tensor) -> GivenTrees:
        """The grammar, given sentences, and `(batch, n, n + 1)` nats for each node's span."""
        return GivenTrees(self, x, parts)

    def offers(self, hook: str) -> bool:
        """All, but no exact inference where there is more to a tree than its rules."""
        return super().offers(hook) and (self.additive or hook != "tilted")

    def potentials(self, x: Sentences) -> Potentials:
        """The rules' log weights at each position of each sentence."""
        return self._potentials(self._fixed_tables(), x)

    def _potentials(self, tables: tuple[Tensor, Tensor | Rules, Tensor], x: Sentences):
        root, rules, emissions = tables
        words = emissions.movedim(-1, 0).index_select(0, x.tokens.flatten())
        words = words.unflatten(0, x.tokens.shape)
        return rules_of(rules).potentials(root, words, x.lengths, x.tokens)

    def _fixed_tables(self) -> tuple[Tensor, Tensor | Rules, Tensor]:
        """The `tables`; made once for parameters that nobody trains or changes."""
        if any(p.requires_grad for p in self.parameters()):
            return self.tables()
        held = (*self.parameters(), *self.buffers())
        versions = [(tensor._version, tensor.device, tensor.dtype) for tensor in held]
        if self._kept_tables is None or self._kept_tables[0] != versions:
            tables = self.tables()
            if torch.is_inference_mode_enabled():  # good for nothing outside of it
                return tables
            self._kept_tables = versions, tables
        return self._kept_tables[1]

    def by_context(self) -> ContextTables:
        """The tables, the axis of contexts never left out."""
        return ContextTables.of(*self._fixed_tables())

    def in_support(self, x: Sentences) -> Tensor:
        """`(batch,)` bool: which sentences the grammar can derive. Exact."""
        tables = self.by_context()
        if not tables.everything():
            return recognise(tables, x)
        long, single = (
            part.isfinite().any() for part in tables.root.tensor_split([self.nonterminals])
        )
        return torch.where(x.lengths > 1, long, single)

    @torch.no_grad()
    def length_weights(self, longest: int) -> Tensor:
        """`(longest,)` float64: how probable sentences of 1, 2, ... tokens are. Exact."""
        return length_weights(self.by_context(), longest)

    def _within_support(self, x: Sentences, log_marginal: Tensor) -> Tensor:
        """Minus infinity, without gradient, for sentences that cannot be derived.

        Charts give those about `IMPOSSIBLE`, since each of their trees has a part of that weight:
        what is far above can be derived, and what is as low is looked at exactly.
        """
        if self.derives_from is not None and fixed_shapes(log_marginal):
            return log_marginal.masked_fill(x.lengths < self.derives_from, -torch.inf)
        low = log_marginal.detach() < IMPOSSIBLE / 2
        if not low.any():
            return log_marginal
        rows = low.nonzero().squeeze(1)
        none = rows[~self.in_support(x[rows])]
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

    def log_brackets(self, brackets: Brackets) -> Tensor:
        """`(count,)` exact log probability, in nats, of trees that agree with the brackets.

        Of any words and labels; where nodes have more than two children, of all binary trees that
        contain the spans.
        """
        root, rules, emissions = self.tables()
        words = emissions.logsumexp(-1)
        words = words.expand(*brackets.spans.shape[:2], *words.shape)
        potentials = rules_of(rules).potentials(root, words, brackets.lengths)
        barred = (brackets.crossed.float() * IMPOSSIBLE).unsqueeze(3)
        barred = barred.expand(-1, -1, -1, self.nonterminals)
        return log_partition(potentials, inside(potentials, barred))

    def log_joint(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats, preterminals summed out."""
        return tree_log_joint(self.potentials(x), z).sum(2)

    def partial_log_joint(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` log weight of the rules that a state has used.

        A state of either tree space; where rules look at parents, a top-down one.
        """
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

    @torch.no_grad()
    def best_trees(self, x: Sentences) -> Trees:
        """The most probable tree of each sentence, without autograd."""
        return self.given(x).best_trees()

    @torch.no_grad()
    def span_marginals(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1, N)` posterior probability of each labelled span, without autograd."""
        return self.given(x).span_marginals()

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Trees]:
        """Draws `count` sentences of at most `max_length` tokens with their trees.

        Longer derivations are thrown away and drawn again: the draws follow the grammar given that
        a sentence fits.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand fits.
        """
        tables = ContextTables.of(*self.production_probabilities())
        return draw_derivations(tables.root, tables.rules, tables.words, count, max_length)

    def units(self, x: Sentences) -> Tensor:
        """`(batch,)` tokens of each sentence."""
        return x.lengths


def start_choice(scores: Tensor, nonterminals: int, shortest: int) -> Tensor:
    """`(..., N + T)` log probabilities of the start symbol's child.

    A preterminal at the top is a sentence of one word. Where there are none to learn from, nothing
    but the normalisation would train these choices: then they are impossible.

    Args:
        scores: `(..., N + T)` any numbers, nonterminals first.
        nonterminals: the number `N`.
        shortest: fewest words of a sentence.
    """
    if shortest > 1:
        preterminal = torch.arange(scores.shape[-1], device=scores.device) >= nonterminals
        scores = scores.masked_fill(preterminal, -torch.inf)
    return scores.log_softmax(-1)
