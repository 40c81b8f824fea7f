"""The report of a run on text: its grammar, sentences with their trees, figures in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.page import (
    Block,
    Certificate,
    Choice,
    Fold,
    Parts,
    Picture,
    Posterior,
    Row,
    Section,
    Share,
    Table,
    Text,
    percent,
)
from gfnem.parsing.commands import drawn_corpus, measure, remarks
from gfnem.parsing.grammars.listing import (
    RARE,
    Described,
    UsedGrammar,
    at_the_top,
    described,
    grammar_of,
)
from gfnem.parsing.grammars.support import derivable
from gfnem.parsing.parser import Parses, label_names, parse
from gfnem.parsing.reader import Reader
from gfnem.parsing.rewards.report import of_reward
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.drawing import bracket, tree_svg
from gfnem.parsing.trees.scores import SCORE_CONVENTION
from gfnem.parsing.trees.trees import Trees
from gfnem.report import BARS, EXAMPLE_DRAWS, EXAMPLES, STRUCTURES, certificates, others, ranked
from gfnem.running.run import Run

if TYPE_CHECKING:
    from gfnem.parsing.text.corpus import Corpus
    from gfnem.parsing.text.data import TextData

#: symbols shown in full, rules or words shown of each, sentences drawn from the model
SYMBOLS, PARTS, DRAWN = 30, 6, 6
#: most characters of a word in a table, least share of a word or rule, most tokens of an example
_WORD, _LEAST, _LONGEST = 40, 0.001, 12


def sections(run: Run, data: TextData | None, samples: int) -> list[Section]:
    """What was learned, examples with their trees, and how good it is.

    Args:
        run: a run on text.
        data: its data; None where that is not to be had.
        samples: trees drawn for each sentence.
    """
    reader, corpus, truth = Reader(run), None, None
    if run.metadata.get("grammar") is not None:
        truth, corpus = drawn_corpus(run)
    elif data is not None and len(held_out := data.held_out()):
        corpus = held_out
    quality: list[Block] = []
    if corpus is not None:  # first: the figures are those of `gfnem evaluate` with the same seed
        quality = _quality(run, corpus, measure(run, corpus, truth, samples=samples), samples)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = _drawn(run, reader)
        sentences = corpus.tokens if corpus is not None else [words for words, _ in drawn]
        examples = _examples(run, reader, sentences)
        learned = _learned(run, reader, corpus)
        rewarded = [] if run.reward is None else of_reward(run, reader, sentences, _tree)
    if drawn:
        examples.append(
            Fold(
                "Sentences that the model makes, with their trees",
                [_tree(tree, " ".join(words)) for words, tree in drawn],
            )
        )
    where = "held-out sentences" if corpus is not None else "sentences the model makes"
    return [
        Section("What was learned", learned),
        *([Section("What was worth having in trees", rewarded)] if rewarded else []),
        Section(f"Examples: {where} and their trees", examples),
        Section("How good is it?", quality),
    ]


# ---------------------------------------------------------------- what was learned


def _learned(run: Run, reader: Reader, corpus: Corpus | None) -> list[Block]:
    grammar = grammar_of(run.model)
    if grammar is None:
        return [
            Text(
                f"{type(run.model).__name__} has no table of rules: trees and words come from a "
                f"network. Its labels: {', '.join(label_names(run))}. What it has learned is to be "
                "seen in its trees and in the sentences it makes, below."
            )
        ]
    if corpus is not None:
        tokens = sorted(corpus.tokens[:500], key=len)
        batches = [reader.encode(tokens[at : at + 50]) for at in range(0, len(tokens), 50)]
        source = "held-out"
    else:
        drawn, source = _sample(run, 200), "drawn"
        batches = [] if drawn is None else [drawn[0]]
    try:
        used = UsedGrammar.of(grammar, batches)
    except UserError:  # nothing derivable, or nothing drawn
        return [Text("The model has no tree for any of the sentences, so no symbol is in use.")]
    symbols = described(used, reader.vocabulary.to_list(), PARTS)
    phrases = [symbol for symbol in symbols if symbol.phrase]
    words = [symbol for symbol in symbols if not symbol.phrase]
    starts = ", ".join(f"{name} ({100 * p:.0f} %)" for name, p in at_the_top(used, 3))
    whole = "The model is this grammar times an energy of whole sentences with their trees."
    return [
        *([] if grammar is run.model else [Text(whole)]),
        Text(
            f"A grammar of {len(phrases)} phrase symbols and {len(words)} word symbols over "
            f"{grammar.vocab_size:,} words. Nobody gave the symbols a meaning: their names are "
            "numbers, and what each stands for shows in the words and symbols that it makes. Uses "
            f"are counted in {used.sentences:,} {source} sentences, over all their trees, each as "
            f"probable as the model says. A whole sentence is {starts}."
        ),
        *_symbols("Word symbols: what words each makes", words),
        *_symbols("Phrase symbols: what each divides into", phrases),
    ]


def _symbols(caption: str, symbols: Sequence[Described]) -> list[Block]:
    """The most used symbols as a table, and a line for the rest."""
    shown = [symbol for symbol in symbols if symbol.uses >= RARE][: SYMBOLS // 2]
    rest = symbols[len(shown) :]
    most = max((symbol.uses for symbol in shown), default=1.0)
    parents = any(symbol.parents for symbol in shown)
    rows = []
    for symbol in shown:
        row = [symbol.name, Share(symbol.uses / most, f"{symbol.uses:.2f}")]
        if parents:
            row.append(_parts(symbol.parents[:4]))
        rows.append([*row, _parts(symbol.makes)])
    head = ["symbol", "uses a sentence", *(["stands under"] if parents else []), "makes"]
    blocks: list[Block] = [Table(head, rows, caption)]
    if rest:
        uses = sum(symbol.uses for symbol in rest)
        names = ", ".join(symbol.name for symbol in rest)
        blocks.append(
            Fold(
                f"{len(rest)} more symbols, used {uses:.2f} times a sentence together",
                [Text(names)],
            )
        )
    return blocks


def _parts(parts: Sequence[tuple[str, float]]) -> Parts:
    usual = [(_short(name), p) for name, p in parts if p >= _LEAST]
    return Parts(usual, f"many things, none of them more than {percent(_LEAST)}")


def _short(word: str) -> str:
    return word if len(word) <= _WORD else f"{word[:_WORD]}…"


# ---------------------------------------------------------------- examples


def _examples(run: Run, reader: Reader, sentences: Sequence[Sequence[str]]) -> list[Block]:
    """A few sentences, each with its most probable bracketings among those drawn."""
    middling = [words for words in sentences if 4 <= len(words) <= _LONGEST]
    chosen = (middling or sorted(sentences, key=len))[:EXAMPLES]
    if not chosen:
        return []
    x, names = reader.encode(chosen), label_names(run)
    try:
        parses, possible = parse(run, x, "sample", EXAMPLE_DRAWS), derivable(run, x).tolist()
        model, exact = _probabilities(run, x, parses)
    except UserError as error:
        return [Text(f"No trees can be drawn: {error}.")]
    rewarded = run.reward is not None and run.has_policy
    aim = " The sampler aims at trees that the reward likes as well, the model does not."
    blocks: list[Block] = [
        Text(f"{BARS}{aim if rewarded else ''}"),
        Text(
            "Here a structure is a tree without its labels: trees that divide the sentence alike "
            "count as one, drawn with the labels of the most probable of them."
        ),
    ]
    for row, words in enumerate(chosen):
        title = " ".join(words)
        if not possible[row]:
            blocks.append(Posterior(title, [], "The model has no tree for it."))
            continue
        order = parses.log_joint[row].argsort(descending=True).tolist()
        keys = [tuple(span[:2] for span in parses.trees.spans(row, at)) for at in order]
        ranks = ranked(keys, model[row, order].tolist(), exact, run.has_policy)
        choices = [
            Choice(shares, _tree(parses.trees.to_nltk(row, words, names, order[place])))
            for place, shares in ranks[:STRUCTURES]
        ]
        blocks.append(Posterior(title, choices, others(ranks, STRUCTURES, EXAMPLE_DRAWS)))
    return blocks


@torch.no_grad()
def _probabilities(run: Run, x: Sentences, parses: Parses) -> tuple[Tensor, bool]:
    """`(batch, samples)` the model's probability of each tree's bracketing, and whether exact.

    Where it is not, the trees' importance weights, which add up to 1.
    """
    if parses.log_marginal.exact and run.model.offers("collapsed_log_joint"):
        log_joint = run.model.collapsed_log_joint(x, parses.trees)
        return (log_joint - parses.log_marginal.value[:, None]).exp(), True
    return (parses.log_joint - parses.log_q).softmax(1), False


def _tree(tree: Any, caption: str = "") -> Block:
    try:
        return Picture(tree_svg(tree), caption, wide=True)
    except UserError:  # too deep to draw
        return Text(f"{caption} {bracket(tree)}".strip())


def _drawn(run: Run, reader: Reader) -> list[tuple[list[str], Any]]:
    """Sentences of the model with their trees; none where it cannot draw."""
    drawn = _sample(run, DRAWN)
    if drawn is None:
        return []
    x, z = drawn
    names, found = label_names(run), []
    for row, (tokens, length) in enumerate(zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)):
        words = reader.vocabulary.decode(tokens[:length])
        found.append((words, z.to_nltk(row, words, names)))
    return found


def _sample(run: Run, count: int) -> tuple[Any, Trees] | None:
    if not run.model.offers("sample"):
        return None
    try:
        with torch.no_grad():
            return run.model.sample(count)
    except RuntimeError:  # a grammar that finds no end
        return None


# ---------------------------------------------------------------- how good it is


def _quality(run: Run, corpus: Corpus, figures: dict[str, Any], samples: int) -> list[Block]:
    unit = run.model.unit
    about = f"Measured on {figures['sentences']:,} sentences: {corpus.source}."
    if figures["not_derivable"]:
        about += (
            f" {figures['not_derivable']:,} of them have no tree in the model and are left out."
        )
    blocks: list[Block] = [Text(about)]
    blocks += [Text(remark, remark=True) for remark in remarks(figures, samples)]
    gap_exact = figures.get("elbo_gap_is") == "exact"
    figures = {
        **figures,
        "perplexity": math.exp(min(figures["nll"], 700.0)),
    }
    blocks.append(certificates(figures, samples, unit, "sentence", gap_exact))
    rows = [
        (f"NLL per {unit}, nats", "nll", "true_nll", "{:.4f}"),
        (
            f"perplexity, e to the NLL: as uncertain as among so many {unit}s",
            "perplexity",
            "",
            "{:,.0f}",
        ),
        (f"upper bound on it, {samples} samples, nats", "bound", "", "{:.4f}"),
        (f"standard error of NLL by that of log Z, a {unit}, nats", "nll_error", "", "{:.4f}"),
        ("log Z of the model, nats", "log_z", "", "{:.4f}"),
        (f"NLL of {unit}s without any structure, nats", "unigram_nll", "", "{:.4f}"),
        ("words that the model does not know", "unknown", "", "{:.1%}"),
        (f"labels in use, of {figures['labels']}", "labels_in_use", "", "{}"),
        (f"different trees among {samples} draws", "different_trees", "", "{:.1f}"),
    ]
    truth = "true_nll" in figures
    table = [
        [what, form.format(figures[name])]
        + ([form.format(figures[true]) if true else ""] if truth else [])
        for what, name, true, form in rows
        if name in figures
    ]
    blocks.append(Table(["figure", "model", *(["true grammar"] if truth else [])], table))
    return blocks + _tree_scores(figures)


def _tree_scores(figures: dict[str, Any]) -> list[Block]:
    """F1 against gold trees, beside what it takes no learning to get."""
    if "sentence_f1" not in figures:
        return []
    kinds = [
        ("this run", ""),
        ("the true grammar", "true_"),
        ("always branching right", "right_"),
        ("always branching left", "left_"),
        ("random trees", "random_"),
    ]
    rows = [
        [title, *(f"{figures[f'{prefix}{name}_f1']:.1f}" for name in ("sentence", "corpus"))]
        for title, prefix in kinds
        if f"{prefix}sentence_f1" in figures
    ]
    return [
        Row(
            [
                Certificate(
                    "Agreement with the trees of people (F1)",
                    f"{figures['sentence_f1']:.1f} %",
                    "How many brackets of the chosen tree are those of the gold tree, in percent, "
                    "a mean over sentences. A run that is not "
                    "above the trees that always branch right or left has learned no structure "
                    "that people see.",
                    "Labels: brackets are compared without them. And other trees than these may be "
                    "right too.",
                )
            ]
        ),
        Table(["trees of", "sentence F1", "corpus F1"], rows),
        Fold("How F1 is counted", [Text(SCORE_CONVENTION)]),
    ]
