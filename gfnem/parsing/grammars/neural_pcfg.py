"""The neural PCFG of Kim et al. (2019, arXiv 1906.10225, section 2.2), and its parent classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gfnem.parsing.grammars.grammar import Grammar, start_choice
from gfnem.parsing.grammars.word_layer import WordLayer
from gfnem.ranges import Count, Fact


class Residual(nn.Module):
    """Adds what two hidden layers make of a vector to it."""

    def __init__(self, dim: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        """`(..., dim)` both ways."""
        return inputs + self.layers(inputs)


def scoring(dim: int, last: nn.Module) -> nn.Sequential:
    """A network from embeddings to the scores that its last layer gives."""
    return nn.Sequential(nn.Linear(dim, dim), Residual(dim), Residual(dim), last)


class NeuralPCFG(Grammar):
    """A grammar whose rule probabilities come from symbol embeddings through small networks.

    With parent classes, each context has an embedding too, added to those of the symbols under it;
    what rules follow from the sum is then learned by hidden layers.

    Args:
        vocab_size: words, the unknown word included; taken from the data if None.
        nonterminals: symbols of phrases, which label the tree's nodes.
        preterminals: symbols of words (parts of speech, so to speak); they are summed out.
        dim: size of embeddings and hidden layers.
        shortest: fewest words of a sentence; above 1, sentences of one word are impossible. Taken
            from the data; 1 if None.
        parent_classes: how many classes of nonterminals the expansion of a symbol below them tells
            apart (see `Grammar`); None or 1: none, this is a PCFG.
        forms: whether scores of words see how these are written (see `WordLayer`).
        vectors: a file of pretrained vectors of words, for their scores.
        vocabulary: the word at each index, for these two; from the data.
        grown_from: a run on the same data whose grammar this one starts from. What it has more
            symbols for is found by splitting (see `split_symbols`).

    Raises:
        ValueError: if `parent_classes` does not divide `nonterminals`, or a grammar that looks at
            parents is to be grown.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Count = 30,
        preterminals: Count = 60,
        dim: Count = 256,
        shortest: Count | None = None,
        parent_classes: Count | None = None,
        forms: bool = False,
        vectors: str | None = None,
        vocabulary: Sequence[str] | None = None,
        grown_from: str | None = None,
    ):
        super().__init__(nonterminals, preterminals, vocab_size, parent_classes)
        if grown_from is not None and self.contexts > 1:
            raise ValueError("grown_from: symbols that look at their parents are not split")
        self.shortest, self.grown_from = shortest or 1, grown_from
        self.derives_from = min(self.shortest, 2)
        symbols = nonterminals + preterminals
        self.start = nn.Parameter(torch.empty(1, dim))
        self.nonterminal = nn.Parameter(torch.empty(nonterminals, dim))
        self.preterminal = nn.Parameter(torch.empty(preterminals, dim))
        self.root_net = scoring(dim, nn.Linear(dim, symbols))
        self.word_net = scoring(dim, WordLayer(dim, vocab_size, vocabulary, forms, vectors))
        self.rule_net: nn.Module = nn.Linear(dim, symbols * symbols)
        self.context: nn.Parameter | None = None
        if self.contexts > 1:
            self.context = nn.Parameter(torch.empty(self.contexts, dim))
            hidden = [nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU()]
            self.rule_net = nn.Sequential(*hidden, self.rule_net)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    @property
    def recordable(self) -> bool:
        """Where rules do not look at parents."""
        return self.contexts == 1

    def prepare(self, data: Any) -> None:
        """Starts from the grammar of the run `grown_from`, where one is named."""
        super().prepare(data)
        if self.grown_from is not None:
            from gfnem.parsing.grammars.splitting import grow_from_run

            grow_from_run(self, self.grown_from, data)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised log probabilities (see `Grammar.tables`)."""
        symbols = self.nonterminals + self.preterminals
        root = start_choice(self.root_net(self.start).squeeze(0), self.nonterminals, self.shortest)
        inner, leaves = self.nonterminal, self.preterminal
        if self.context is not None:
            inner, leaves = (self.context[:, None] + part for part in (inner, leaves))
        rules = self.rule_net(inner).log_softmax(-1)
        emissions = self.word_net(leaves).log_softmax(-1)
        return root, rules.unflatten(-1, (symbols, symbols)), emissions


class NeuralParentPCFG(NeuralPCFG):
    """A `NeuralPCFG` with a parent class for each nonterminal.

    Args:
        vocab_size, nonterminals, preterminals, dim, shortest, forms, vectors, vocabulary: see
            `NeuralPCFG`.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Count = 30,
        preterminals: Count = 60,
        dim: Count = 128,
        shortest: Count | None = None,
        forms: bool = False,
        vectors: str | None = None,
        vocabulary: Sequence[str] | None = None,
    ):
        words = (forms, vectors, vocabulary)
        super().__init__(
            vocab_size, nonterminals, preterminals, dim, shortest, nonterminals, *words
        )
