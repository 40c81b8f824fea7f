"""Grammars whose expansions depend on the parent, and their neural parameterisation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.offers import NotOffered
from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.grammars.grammar import TreeGrammar, barred, draw_derivations, start_choice
from gfnem.parsing.grammars.language import ContextTables
from gfnem.parsing.inference.parent_bracketing import parent_bracketing_log_joint
from gfnem.parsing.inference.parent_inside import (
    parent_inside,
    parent_log_partition,
    parent_span_marginals,
    parent_viterbi,
)
from gfnem.parsing.inference.parent_potentials import ParentPotentials
from gfnem.parsing.inference.parent_rule_choices import parent_sample, parent_tree_log_joint
from gfnem.parsing.spaces.topdown import TopDownState
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, Fact


class ParentGrammar(TreeGrammar):
    """A grammar in binary form whose rules and emissions are conditioned on the symbol's parent.

    The model that is not context-free of Hu et al. (2023, section 5.2). The parent of the tree's
    root is the start symbol, index `N` among the parents. Preterminals are summed out exactly.

    The arguments are `TreeGrammar`'s.
    """

    @abstractmethod
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised log probabilities of all rules, in nats.

        Returns:
            root: `(N + T,)` the start symbol's choice.
            rules: `(N + 1, N, N + T, N + T)` of `A -> B C` under each parent.
            emissions: `(N + 1, T, vocab_size)` of words, for a preterminal under each parent.
        """

    def facts(self) -> dict[str, Any]:
        """What spaces and policies are told: `nonterminals`, and that parents matter."""
        return {**super().facts(), "parent_conditioned": True}

    def _potentials(self, tables: Sequence[Tensor], x: Sentences) -> ParentPotentials:
        root, rules, emissions = tables
        words = emissions.index_select(2, x.tokens.flatten()).permute(2, 0, 1).contiguous()
        words = words.unflatten(0, x.tokens.shape)
        return ParentPotentials.from_tables(root, rules, words, x.lengths)

    _node_scores = staticmethod(parent_tree_log_joint)
    _log_partition = staticmethod(parent_log_partition)

    _bracketing_log_joint = staticmethod(parent_bracketing_log_joint)
    _sample = staticmethod(parent_sample)

    def partial_log_joint(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` log weight of the rules that a top-down state has used.

        Raises:
            NotOffered: for bottom-up states, which do not know parents yet.
        """
        if not isinstance(state, TopDownState):
            raise NotOffered("bottom-up states do not know the parents that rules look at")
        return super().partial_log_joint(x, state)

    def by_context(self) -> ContextTables:
        """The tables with each nonterminal in a group of its own: its children stand under it."""
        root, rules, emissions = self.tables()
        return ContextTables(root, rules.unsqueeze(2), emissions)

    def log_brackets(self, brackets: Brackets) -> Tensor:
        """See `TreeGrammar.log_brackets`."""
        root, rules, emissions = self.tables()
        words = emissions.logsumexp(2).expand(*brackets.spans.shape[:2], -1, -1)
        potentials = ParentPotentials.from_tables(root, rules, words, brackets.lengths)
        chart = parent_inside(potentials, barred(brackets, self.nonterminals))
        return parent_log_partition(potentials, chart)

    @torch.no_grad()
    def best_trees(self, x: Sentences) -> Trees:
        """The most probable tree of each sentence."""
        return parent_viterbi(self.potentials(x))[0]

    @torch.no_grad()
    def span_marginals(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1, N)` posterior probability of each labelled span."""
        return parent_span_marginals(self.potentials(x))

    @torch.no_grad()
    def sample(self, count: int, max_length: int = 40) -> tuple[Sentences, Trees]:
        """Draws `count` sentences of at most `max_length` tokens with their trees.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand fits.
        """
        root, rules, emissions = self.production_probabilities()
        labels, preterminals = self.nonterminals, self.preterminals
        inner = (labels + 1) * labels  # symbols (P, A), then symbols (P, T)

        def annotate(parent: Tensor | None, child: Tensor) -> Tensor:
            parent = labels if parent is None else parent % labels
            leaf = inner + parent * preterminals + child - labels
            return torch.where(child < labels, parent * labels + child, leaf)

        tables = root, rules.flatten(0, 1), emissions.flatten(0, 1)
        x, z = draw_derivations(*tables, count, max_length, annotate)
        z.label = z.label % labels
        return x, z


class NeuralParentPCFG(ParentGrammar):
    """A parent-conditioned grammar whose probabilities come from embeddings of symbol and parent.

    Args:
        vocab_size: words, the unknown word included; taken from the data if None.
        nonterminals: symbols of phrases, which label the tree's nodes.
        preterminals: symbols of words; they are summed out.
        dim: size of embeddings and hidden layers.
        shortest: fewest words of a sentence; above 1, sentences of one word are impossible. Taken
            from the data; 1 if None.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Count = 30,
        preterminals: Count = 60,
        dim: Count = 128,
        shortest: Count | None = None,
    ):
        super().__init__(nonterminals, preterminals, vocab_size)
        self.shortest = shortest or 1
        symbols = nonterminals + preterminals
        self.root = nn.Parameter(torch.zeros(symbols))
        self.symbol = nn.Parameter(torch.empty(symbols, dim))
        self.parent = nn.Parameter(torch.empty(nonterminals + 1, dim))
        self.rule_net = _pair_net(dim, symbols * symbols)
        self.word_net = _pair_net(dim, vocab_size)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised log probabilities (see `ParentGrammar.tables`)."""
        symbols = self.nonterminals + self.preterminals
        pairs = self.parent[:, None] + self.symbol
        rules = self.rule_net(pairs[:, : self.nonterminals]).log_softmax(-1)
        emissions = self.word_net(pairs[:, self.nonterminals :]).log_softmax(-1)
        root = start_choice(self.root, self.nonterminals, self.shortest)
        return root, rules.unflatten(-1, (symbols, symbols)), emissions


def _pair_net(dim: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, outputs)
    )
