"""The commands `parse`, `generate` and `evaluate` for text."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from gfnem.em import GFlowNetEM
from gfnem.errors import UserError
from gfnem.estimates import effective_sample_size, elbo, importance_weighted
from gfnem.parsing.corpus import Corpus, Line, Preprocessing, read_corpus, read_sentences
from gfnem.parsing.drawing import bracket, trees_page
from gfnem.parsing.grammar_listing import UsedGrammar, grammar_of, listing
from gfnem.parsing.parser import Parses, label_names
from gfnem.parsing.parser import parse as parse_batch
from gfnem.parsing.scores import (
    SCORE_CONVENTION,
    SpanF1,
    left_branching,
    random_binary,
    right_branching,
)
from gfnem.parsing.sentences import Sentences
from gfnem.parsing.support import derivable, why_not_derivable
from gfnem.parsing.treebank import CONVENTION
from gfnem.parsing.truth import Truth
from gfnem.parsing.vocabulary import Vocabulary
from gfnem.runs import load_run
from gfnem.trust import opening_run

#: lines parsed together; fewer than a training batch, so that a pipe is answered soon
BATCH = 16


def parse(
    run: str,
    file: str = "-",
    decode: str = "mbr",
    samples: int | None = None,
    format: str = "bracket",
    max_length: int = 150,
) -> None:
    """Prints a tree for every line of a text.

    Raises:
        UserError: if the run or the file is unusable.
    """
    module = _load_text_run(run)
    reader = _Reader(module)
    source = sys.stdin.buffer if file == "-" else file
    person = file == "-" and sys.stdin.isatty()
    if person:
        print("reading sentences, one a line, until end of file (Ctrl-D)", file=sys.stderr)
    drawings, read = [], 0
    lines = read_sentences(source, reader.preprocessing)
    for batch in _batches(lines, max_length, 1 if person else BATCH):
        read += len(batch)
        for line, row, parses in _parsed(module, reader, batch, decode, samples, max_length):
            for record, tree in _records(module, line, row, parses):
                if format == "json":
                    print(json.dumps(record, ensure_ascii=False))
                elif format == "bracket":
                    print(bracket(tree) if tree is not None else "")
                elif tree is not None:
                    drawings.append((f"line {line.number}", tree))
        sys.stdout.flush()
    if not read and file == "-":
        raise UserError("standard input is empty")
    if format == "svg":
        print(trees_page(drawings))


def generate(run: str, count: int = 10, format: str = "bracket") -> None:
    """Prints sentences drawn from the model with their trees.

    Raises:
        UserError: if the run is unusable or its model cannot sample.
    """
    module = _load_text_run(run)
    reader = _Reader(module)
    try:
        if not hasattr(module.model, "sample"):
            raise NotImplementedError(f"{type(module.model).__name__} cannot sample")
        x, z = module.model.sample(count)
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(str(error)) from error
    names = label_names(module)
    with torch.no_grad():
        log_joint = module.model.log_joint(x, z)
    drawings = []
    for row in range(count):
        words = reader.vocabulary.decode(x.tokens[row, : int(x.lengths[row])].tolist())
        tree = z.to_nltk(row, words, names)
        if format == "json":
            record = {"tokens": words, "tree": bracket(tree), "log_joint": float(log_joint[row, 0])}
            print(json.dumps(record, ensure_ascii=False))
        elif format == "bracket":
            print(bracket(tree))
        else:
            drawings.append((" ".join(words), tree))
    if format == "svg":
        print(trees_page(drawings))


def evaluate(
    module: GFlowNetEM,
    data: str | None = None,
    decode: str = "mbr",
    samples: int = 64,
    limit: int | None = None,
    max_length: int = 150,
    format: str = "text",
) -> None:
    """Prints NLL, the sampler's quality, and tree scores where there are gold trees.

    Raises:
        UserError: if the data is unusable, or none is given and the run has no embedded grammar.
    """
    reader = _Reader(module)
    truth = None
    if data is None:
        truth = Truth.of_run(module.metadata)
        corpus = truth.draw(500, module.metadata["seed"] * 1000 + 2)
    else:
        corpus = reader.read(data, max_length)
    tokens, gold = corpus.tokens[:limit], corpus.spans[:limit]
    figures = _figures(module, reader, tokens, gold, decode, samples)
    if truth is not None:
        figures.update(truth.figures(reader.encode, _by_length(tokens), tokens, gold, decode))
    if format == "json":
        print(json.dumps(figures))
    else:
        _print_figures(corpus, figures, module.model.unit, samples)


def show(run: str, data: str | None = None, top: int = 5) -> None:
    """Prints what a run's model has learned: its symbols, their uses, rules and words.

    Args:
        run: run folder or checkpoint.
        data: sentences to count uses in; sentences drawn from the model if None.
        top: how many rules or words of each symbol.

    Raises:
        UserError: if the run or the data is unusable.
    """
    module = _load_text_run(run)
    reader = _Reader(module)
    grammar = grammar_of(module.model)
    if grammar is None:
        size = sum(parameter.numel() for parameter in module.model.parameters())
        print(
            f"{type(module.model).__name__} has no table of rules to show: trees and words come "
            f"from a network of {size:,} parameters.\n"
            f"Its labels: {', '.join(label_names(module))}\n"
            f"`gfnem generate {run}` prints sentences and trees that it makes."
        )
        return
    if data is None:
        try:
            x, _ = grammar.sample(500)
        except RuntimeError as error:
            raise UserError(f"{run}: {error}: name sentences with --data") from error
        rows = x.lengths.argsort().split(64)
        batches, source = (x.select(part) for part in rows), "drawn from it"
    else:
        corpus = reader.read(data, 40)
        batches = (
            reader.encode([corpus.tokens[row] for row in rows])
            for rows in _by_length(corpus.tokens)
        )
        source = f"of {data}"
    used = UsedGrammar.of(grammar, batches)
    print(
        f"{type(grammar).__name__}: {grammar.nonterminals} nonterminals, {grammar.preterminals} "
        f"preterminals, {grammar.vocab_size:,} words; uses counted in {used.sentences:,} sentences "
        f"{source}\n"
    )
    print("\n".join(listing(used, reader.vocabulary.to_list(), top)))


class _Reader:
    """Reads text the way a run's training data was read."""

    def __init__(self, module: GFlowNetEM):
        self.vocabulary = Vocabulary.from_list(module.metadata["vocabulary"])
        self.preprocessing = Preprocessing(**module.metadata["preprocessing"])
        # sentences of one word are read where the run was trained on such
        self.shortest = min(module.metadata.get("min_length", 2), 2)

    def read(self, data: str, max_length: int) -> Corpus:
        lengths = {"min_length": self.shortest, "max_length": max_length}
        return read_corpus(data, **asdict(self.preprocessing), **lengths)

    def encode(self, sentences: Sequence[Sequence[str]]) -> Sentences:
        return Sentences.from_lists([self.vocabulary.encode(tokens) for tokens in sentences])


def _load_text_run(run: str) -> GFlowNetEM:
    with opening_run(run):
        module = load_run(run)
    if module.metadata.get("kind") != "text":
        raise UserError(f"{run}: this run was not trained on text")
    return module


def _batches(lines: Iterator[Line], max_length: int, size: int) -> Iterator[list[Line]]:
    """Up to `size` lines of 20 tokens at a time, fewer if they are longer."""
    batch: list[Line] = []
    longest = 1
    for line in lines:
        batch.append(line)
        longest = max(longest, min(len(line.tokens), max_length))
        if len(batch) >= size or len(batch) * longest >= size * 20:
            yield batch
            batch, longest = [], 1
    if batch:
        yield batch


def _parsed(module, reader, batch: list[Line], decode, samples, max_length):
    """Yields `(line, row, parses)` in order; row and parses are None where there is no tree."""
    usable = [line for line in batch if 0 < len(line.tokens) <= max_length]
    parses = None
    if usable:
        x = reader.encode([line.tokens for line in usable])
        parses = parse_batch(module, x, decode, samples)
        possible = derivable(module, x)
    rows = {line.number: row for row, line in enumerate(usable)}
    for line in batch:
        if len(line.tokens) > max_length:
            print(
                f"gfnem: line {line.number}: {len(line.tokens):,} tokens, more than --max-length "
                f"{max_length}: not parsed",
                file=sys.stderr,
            )
        row = rows.get(line.number)
        if row is not None and not possible[row]:
            why, row = why_not_derivable(module, len(line.tokens)), None
            print(f"gfnem: line {line.number}: {why}", file=sys.stderr)
        yield line, row, parses if row is not None else None


def _records(module, line: Line, row: int | None, parses: Parses | None):
    """Yields a JSON record and the tree for each tree of a line (a record alone if none)."""
    if parses is None:
        yield {"line": line.number, "tokens": line.words, "tree": None}, None
        return
    names = label_names(module)
    marginal = parses.log_marginal
    estimate: dict[str, Any] = {"value": float(marginal.value[row])}
    if module.model.normalised() is not module.model:
        estimate["normalised"] = False
    if marginal.exact:
        estimate["method"] = "exact"
    else:
        estimate["method"] = "importance-weighted"
        estimate["samples"] = marginal.samples
        estimate["effective_samples"] = float(marginal.effective_samples[row])
    for sample in range(parses.trees.samples):
        tree = parses.trees.to_nltk(row, line.words, names, sample)
        yield (
            {
                "line": line.number,
                "tokens": line.words,
                "tree": bracket(tree),
                "log_joint": float(parses.log_joint[row, sample]),
                "log_q": float(parses.log_q[row, sample]),
                "log_marginal": estimate,
            },
            tree,
        )


def _by_length(tokens: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    """Rows in batches of similar length, fewer of the long ones."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    start = 0
    while start < len(order):
        longest = len(tokens[order[min(start + 63, len(order) - 1)]])
        stop = start + max(1, min(64, 1600 // longest))
        yield order[start:stop]
        start = stop


def _figures(
    module: GFlowNetEM,
    reader: _Reader,
    tokens: Sequence[Sequence[str]],
    gold: Sequence[set[tuple[int, int]] | None],
    decode: str,
    samples: int | None,
) -> dict[str, float]:
    names = ("tree", "left", "right", "random")
    scores = {name: SpanF1() for name in names}
    rng = random.Random(0)
    sums: dict[str, float] = dict.fromkeys(("nll", "units", "gap", "ess", "bound"), 0.0)
    exact, likely, counted = False, module.model.normalised(), 0
    for rows in _by_length(tokens):
        x = reader.encode([tokens[row] for row in rows])
        possible = derivable(module, x)
        if not possible.any():
            continue
        rows, x = (
            [rows[place] for place in possible.nonzero().flatten().tolist()],
            x.select(possible),
        )
        counted += len(rows)
        parses = parse_batch(module, x, decode)
        log_marginal = parses.log_marginal.value.double()
        log_p = log_marginal if parses.log_marginal.exact else None
        if likely is not module.model:
            with torch.no_grad():
                log_p = likely.log_marginal(x)
        exact = log_p is not None
        if module.has_policy and samples is not None:
            posterior = module.posterior(x)
            z, log_weights = posterior.log_weights(samples)
            bound = posterior.likelihood_bound(z, log_weights).double()
            log_p = log_p if exact else bound
            sums["bound"] -= float(bound.sum())
            if not parses.log_marginal.exact:
                log_marginal = importance_weighted(log_weights).double()
            sums["gap"] += float((log_marginal - elbo(log_weights)).sum())
            sums["ess"] += float(effective_sample_size(log_weights).sum()) / samples
        sums["nll"] -= float((log_marginal if log_p is None else log_p).double().sum())
        sums["units"] += float(module.model.units(x).sum())
        for place, row in enumerate(rows):
            if gold[row] is None:
                continue
            length = len(tokens[row])
            for name, spans in (
                ("tree", parses.trees.spans(place)),
                ("left", left_branching(length)),
                ("right", right_branching(length)),
                ("random", random_binary(length, rng)),
            ):
                scores[name].update(spans, gold[row], length)
    if not counted:
        raise UserError(
            f"none of the {len(tokens):,} sentences is derivable: no tree has its words"
        )
    figures = {
        "sentences": len(tokens),
        "not_derivable": len(tokens) - counted,
        "tokens": sums["units"],
        "exact": exact,
        "nll": sums["nll"] / sums["units"],
    }
    if likely is not module.model:
        figures["likelihood_of"] = type(likely).__name__
    if module.has_policy and samples is not None:
        figures["bound"] = sums["bound"] / sums["units"]
        figures["elbo_gap"] = sums["gap"] / counted
        figures["ess"] = sums["ess"] / counted
    if scores["tree"].sentences:
        for name in names:
            prefix = "" if name == "tree" else f"{name}_"
            figures[f"{prefix}sentence_f1"] = scores[name].sentence_f1
            figures[f"{prefix}corpus_f1"] = scores[name].corpus_f1
    return figures


def _print_figures(corpus: Corpus, figures: dict[str, float], unit: str, samples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(f"{corpus.source}: {corpus.summary()}", soft_wrap=True)
    if figures["not_derivable"]:
        share = f"{figures['not_derivable']:,} of {figures['sentences']:,} sentences"
        what = "the model has no tree for them; the figures are of the others"
        console.print(f"{share} are not derivable: {what}", soft_wrap=True)
    table = Table("", "model", title=None)
    truth = "true_nll" in figures
    if truth:
        table.add_column("true grammar")

    def row(title: str, form: str, name: str) -> None:
        if name in figures:
            cells = [form.format(figures[name])]
            if truth:
                cells.append(
                    form.format(figures[f"true_{name}"]) if f"true_{name}" in figures else ""
                )
            table.add_row(title, *cells)

    how = "exact" if figures["exact"] else f"bound, {samples} samples"
    gap = "ELBO gap per sentence, nats"
    if "likelihood_of" in figures:  # the sampler aims at more than what has a likelihood
        how = f"{figures['likelihood_of']} alone, {how}"
        gap = f"ELBO gap per sentence, nats (of the unnormalised whole, {samples} samples)"
    row(f"NLL per {unit}, nats ({how})", "{:.4f}", "nll")
    if figures["exact"]:
        row(f"NLL bound per {unit}, nats ({samples} samples)", "{:.4f}", "bound")
    row(gap, "{:.3f}", "elbo_gap")
    row(f"effective sample size, of {samples}", "{:.1%}", "ess")
    row("sentence F1", "{:.1f}", "sentence_f1")
    row("corpus F1", "{:.1f}", "corpus_f1")
    console.print(table)
    if "sentence_f1" in figures:
        baselines = Table("baseline", "sentence F1", "corpus F1")
        for name in ("left", "right", "random"):
            pair = (figures[f"{name}_sentence_f1"], figures[f"{name}_corpus_f1"])
            baselines.add_row(f"{name} branching", *(f"{value:.1f}" for value in pair))
        console.print(baselines)
        console.print(SCORE_CONVENTION, style="dim")
        if corpus.unit == "trees":
            console.print(CONVENTION, style="dim")
