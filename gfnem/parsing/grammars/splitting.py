"""A grammar of more symbols made of one of fewer: symbols are split (Petrov et al. 2006)."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gfnem.component import build
from gfnem.errors import UserError
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.grammars.support import mean_uses
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, NotNegative, checked

#: a symbol with fewer uses than this in a sentence is dropped, and its place given to another
RARE = 0.01
#: sentences that uses are counted in, of a run's data
COUNTED = 320


@checked
def split_symbols(
    grammar: NeuralPCFG,
    text: Iterable[Sentences],
    nonterminals: Count,
    preterminals: Count,
    noise: NotNegative = 0.3,
) -> NeuralPCFG:
    """A grammar with more symbols: those that say the least of what is below them become several.

    Training few symbols is fast, and finds what is frequent. A symbol that stands for two then has
    many uses and spreads its probability over many rules: uses times entropy, in nats a sentence,
    is what it costs. Places go one by one to the symbol whose copies cost the most each. Symbols
    that are hardly used lose theirs. `copied_symbols` says what a copy is.

    Args:
        grammar: a context-free one.
        text: batches of sentences that uses are counted in, by the posterior over trees.
        nonterminals, preterminals: how many the new grammar has.
        noise: by which copies differ.

    Raises:
        ValueError: as `copied_symbols`, or if there is no text.
    """
    _check(grammar)
    uses, sentences = mean_uses(grammar, text)
    if not sentences:
        raise ValueError("symbols are split by their uses in sentences, and there are none")
    uses = uses.sum(0)  # a context-free grammar has one context
    with torch.no_grad():
        _, rules, words = grammar.tables()
        entropy = torch.cat([_entropy(rules.flatten(-2)), _entropy(words)]).to(uses)
    sides = uses.split([grammar.nonterminals, grammar.preterminals])
    costs = (uses * entropy).split([grammar.nonterminals, grammar.preterminals])
    chosen = [
        _places(use.tolist(), cost.tolist(), count)
        for use, cost, count in zip(sides, costs, (nonterminals, preterminals), strict=True)
    ]
    return copied_symbols(grammar, *chosen, noise)


@torch.no_grad()
def copied_symbols(
    grammar: NeuralPCFG, nonterminals: Sequence[int], preterminals: Sequence[int], noise: float
) -> NeuralPCFG:
    """A grammar whose symbols are copies of another's.

    The copies of a symbol share its probability. Without noise the new grammar gives each sentence
    the probability that the old one gives it, unless a symbol that it uses has no copy.

    Args:
        grammar: a context-free one.
        nonterminals, preterminals: the old symbol of each new one, from 0 each.
        noise: of symbols that have several copies, the vectors are moved by so many of their
            standard deviations, and the scores of choosing a copy by so many nats.

    Raises:
        ValueError: if the grammar is of another kind, or looks at parents.
    """
    _check(grammar)
    spec, like = grammar.spec(), grammar.start
    sizes = {"nonterminals": len(nonterminals), "preterminals": len(preterminals)}
    new = build({**spec, "init_args": {**spec["init_args"], **sizes}}, NeuralPCFG).to(like)
    inner, leaves = (torch.tensor(of, device=like.device) for of in (nonterminals, preterminals))
    of = torch.cat([inner, leaves + grammar.nonterminals])
    copies = of.bincount()[of].to(like)
    share, several = -copies.log(), (copies > 1).to(like)
    new.start.copy_(grammar.start)
    for old_vectors, vectors, rows in (
        (grammar.nonterminal, new.nonterminal, inner),
        (grammar.preterminal, new.preterminal, leaves),
    ):
        moves = noise * (rows.bincount()[rows] > 1) * old_vectors.std(1)[rows]
        vectors.copy_(old_vectors[rows] + moves[:, None] * torch.randn_like(vectors))
    new.word_net.load_state_dict(grammar.word_net.state_dict())
    new.root_net[:-1].load_state_dict(grammar.root_net[:-1].state_dict())
    old_last, last = grammar.root_net[-1], new.root_net[-1]
    last.weight.copy_(old_last.weight[of])
    last.bias.copy_(old_last.bias[of] + share)
    old, size = grammar.nonterminals + grammar.preterminals, len(of)
    weight, bias = grammar.rule_net.weight.view(old, old, -1), grammar.rule_net.bias.view(old, old)
    moves = noise * torch.maximum(several[:, None], several) * torch.randn(size, size).to(like)
    new.rule_net.weight.copy_(weight[of][:, of].flatten(0, 1))
    new.rule_net.bias.copy_((bias[of][:, of] + share[:, None] + share + moves).flatten())
    return new


def grow_from_run(grammar: NeuralPCFG, run: str | os.PathLike, data: Any) -> None:
    """Gives a grammar the weights of a run's, whose symbols are split where there are to be more.

    Args:
        grammar: what is to be trained.
        run: a run folder or checkpoint.
        data: what it is to be trained on: uses are counted in some of its sentences.

    Raises:
        UserError: if the run cannot be opened, is of another vocabulary or kind of model, or of
            other sizes than those of symbols.
    """
    from gfnem.running.runs import load_run

    name = f"model.grown_from: {run}"
    try:
        other = load_run(run)
    except UserError as error:  # says which run
        raise UserError(f"model.grown_from: {error}") from error
    try:
        _check(other.model)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    if other.metadata["vocabulary"] != data.facts()["vocabulary"]:
        raise UserError(
            f"{name}: it has another vocabulary; train both on the same data, read with the same "
            "dataset settings"
        )
    size = len(data.sizes())
    rows = list(range(0, size, max(size // COUNTED, 1)))[:COUNTED]
    text = (data.batch(rows[first : first + 32]) for first in range(0, len(rows), 32))
    grown = split_symbols(other.model, text, grammar.nonterminals, grammar.preterminals)
    try:
        grammar.load_state_dict(grown.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"{name}: it has other sizes; only model.nonterminals and model.preterminals may differ"
        ) from error


def _check(grammar: Any) -> None:
    name = type(grammar).__name__
    if type(grammar) is NeuralPCFG:
        if grammar.contexts == 1:
            return
        name += " with parent classes"
    raise ValueError(f"symbols are split in a NeuralPCFG without parent classes, not in a {name}")


def _entropy(logs: Tensor) -> Tensor:
    """`(rows,)` nats, of log probabilities `(rows, entries)`, or `(1, rows, entries)`."""
    return torch.special.entr(logs.exp()).sum(-1).flatten()


def _places(uses: Sequence[float], costs: Sequence[float], count: int) -> list[int]:
    """Which symbol each of `count` places goes to, in increasing order.

    Args:
        uses: of each symbol, in a sentence.
        costs: of each symbol; its copies share it.
        count: places.
    """
    ranked = sorted(range(len(uses)), key=lambda symbol: -uses[symbol])
    kept = [symbol for symbol in ranked if uses[symbol] >= RARE][:count] or ranked[:1]
    found = list(kept)
    heap = [(-costs[symbol], symbol, 1) for symbol in kept]
    heapq.heapify(heap)
    while len(found) < count:
        _, symbol, copies = heap[0]
        found.append(symbol)
        heapq.heapreplace(heap, (-costs[symbol] / (copies + 1), symbol, copies + 1))
    return sorted(found)
