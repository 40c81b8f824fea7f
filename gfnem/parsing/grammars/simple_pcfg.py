"""Grammars of many symbols: rules that choose their children apart, and rules of low rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.parsing.grammars.grammar import Grammar, start_choice
from gfnem.parsing.grammars.neural_pcfg import Residual, scoring
from gfnem.parsing.grammars.rule_tables import ApartRules
from gfnem.parsing.grammars.word_layer import WordLayer
from gfnem.ranges import Count, Fact


def _vectors(dim: int) -> nn.Sequential:
    """From vectors to vectors."""
    return nn.Sequential(nn.Linear(dim, dim), Residual(dim), nn.Linear(dim, dim))


class SimplePCFG(Grammar):
    """A neural PCFG whose rules choose their two children apart (Liu et al. 2023).

    `p(A -> B C) = p(B | A, left) p(C | A, right)`, which makes exact inference cheap for hundreds
    of symbols. Each choice is a softmax of products of two vectors, one of the parent and one of
    the child.

    With a `rank` the rules are of low rank (Yang et al. 2021, eq. 3),
    `p(A -> B C) = sum_r p(r | A) p(B | r, left) p(C | r, right)`. That is the same kind of grammar
    over the components `r` (Yang et al. 2022, "Dynamic programming in rank space"): from a
    component to a child's, a nonterminal is chosen and summed out. The trees are then labelled
    with components, and `rank` is the number of labels.

    Args:
        vocab_size: words, the unknown word included; taken from the data if None.
        nonterminals: symbols of phrases; they label the tree's nodes where `rank` is None.
        preterminals: symbols of words; they are summed out.
        rank: components of low-rank rules; None: children are chosen apart given the nonterminal.
        dim: size of embeddings and hidden layers.
        shortest: fewest words of a sentence; above 1, sentences of one word are impossible. Taken
            from the data; 1 if None.
        forms: whether scores of words see how these are written (see `WordLayer`).
        vectors: a file of pretrained vectors of words, for their scores.
        vocabulary: the word at each index, for these two; from the data.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Count = 128,
        preterminals: Count = 256,
        rank: Count | None = None,
        dim: Count = 256,
        shortest: Count | None = None,
        forms: bool = False,
        vectors: str | None = None,
        vocabulary: Sequence[str] | None = None,
    ):
        super().__init__(rank or nonterminals, preterminals, vocab_size)
        self.phrases, self.shortest = nonterminals, shortest or 1
        symbols = nonterminals + preterminals
        self.start = nn.Parameter(torch.randn(1, dim))
        self.parent = nn.Parameter(torch.randn(self.nonterminals, dim))
        self.preterminal = nn.Parameter(torch.randn(preterminals, dim))
        self.child = nn.Parameter(torch.randn(symbols, dim))
        words = WordLayer(dim, vocab_size, vocabulary, forms, vectors)
        self.root_net, self.word_net = scoring(dim, nn.Linear(dim, symbols)), scoring(dim, words)
        self.side_nets = nn.ModuleList([_vectors(dim), _vectors(dim)])
        self.component: nn.Parameter | None = None
        if rank is not None:
            self.component = nn.Parameter(torch.randn(nonterminals, rank) / 2)

    def facts(self) -> dict[str, Any]:
        """As of any grammar; and that a sampler is to look at `corners`."""
        return {**super().facts(), "corners": True}

    def tables(self) -> tuple[Tensor, ApartRules, Tensor]:
        """Normalised log probabilities (see `Grammar.tables`)."""
        root = start_choice(self.root_net(self.start).squeeze(0), self.phrases, self.shortest)
        child = self.child.T / math.sqrt(self.child.shape[1])
        sides = [(net(self.parent) @ child).log_softmax(1) for net in self.side_nets]
        emissions = self.word_net(self.preterminal).log_softmax(1)
        if self.component is not None:
            component = self.component.softmax(1)
            root, *sides = (self._components(table, component) for table in (root, *sides))
        return root, ApartRules(*sides), emissions

    def _components(self, table: Tensor, component: Tensor) -> Tensor:
        """Log probabilities of components and preterminals, of those of all symbols."""
        phrases, words = table.split([self.phrases, table.shape[-1] - self.phrases], -1)
        tiny = torch.finfo(table.dtype).tiny
        return torch.cat([(phrases.exp() @ component).clamp(min=tiny).log(), words], -1)
