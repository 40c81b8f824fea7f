"""The commands `parse`, `generate` and `evaluate` for text."""

from __future__ import annotations

import io
import os
import random
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.evaluation import figures, joined, summary
from gfnem.files import as_json, write
from gfnem.parsing.answers import Answer, Answers, LinesAtHand, records, windows
from gfnem.parsing.ensemble import Ensemble
from gfnem.parsing.grammars.support import derivable
from gfnem.parsing.parser import check_pauses, label_names
from gfnem.parsing.parser import parse as parse_batch
from gfnem.parsing.reader import Reader
from gfnem.parsing.run import load_text_run
from gfnem.parsing.text.corpus import Corpus, read_sentences
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.drawing import Drawing, brackets, trees_page
from gfnem.parsing.trees.labels import LABEL_CONVENTION, LabelF1, LabelledSpans
from gfnem.parsing.trees.scores import (
    SCORE_CONVENTION,
    SpanF1,
    left_branching,
    random_binary,
    right_branching,
)
from gfnem.parsing.trees.treebank import CONVENTION
from gfnem.parsing.trees.trees import Trees
from gfnem.running.run import Run
from gfnem.running.trained import Trained

if TYPE_CHECKING:
    from gfnem.parsing.grammars.truth import Truth

#: what a figure is that only sees the structures its sampler draws
OWN_SAMPLES = "estimate, from its own samples: blind to what it never draws"


def parse(
    runs: Sequence[str],
    file: str = "-",
    decode: str = "mbr",
    samples: int | None = None,
    format: str = "bracket",
    max_length: int = 150,
    seed: int = 0,
    pauses: bool = False,
) -> None:
    """Prints a tree for every line of a text; of several runs the one that they agree on.

    Raises:
        UserError: if a run or the file is unusable.
    """
    ensemble = Ensemble(runs, pauses)
    if pauses:
        check_pauses(decode, ensemble.preprocessing)
    answers = Answers(ensemble, decode, samples, max_length, seed, figures=format == "json")
    source, at_hand = _input(file, answers.drawn)
    drawings: list[Drawing] = []
    read = 0
    name = "standard input" if file == "-" else file
    lines = read_sentences(source, ensemble.preprocessing, name)
    for answered in answers.to(windows(lines, at_hand), at_hand):
        read += len(answered)
        output: list[str] = []
        for answer in answered:
            if answer.why not in ("", "blank"):
                print(f"gfnem: {_not_parsed(answer)}", file=sys.stderr)
            if format == "json":
                output += [as_json(record) for record in records(answer)]
            elif format == "bracket":
                output += answer.trees or [""]
            else:
                drawings += _drawings(answer)
        write("".join(f"{line}\n" for line in output))
    if not read and file == "-":
        raise UserError("standard input is empty")
    if format == "svg":
        write(trees_page(drawings))


def generate(run: str, count: int = 10, format: str = "bracket", seed: int = 0) -> None:
    """Prints sentences drawn from the model with their trees.

    Raises:
        UserError: if the run is unusable or its model cannot sample.
    """
    module = load_text_run(run)
    reader = Reader(module)
    torch.manual_seed(seed)
    try:
        x, z = module.model.sample(count)
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(str(error)) from error
    names = label_names(module)
    with torch.no_grad():
        log_joint = module.model.log_joint(x, z)[:, 0].tolist()
    sentences = [
        reader.vocabulary.decode(tokens[:length])
        for tokens, length in zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)
    ]
    lines = [trees[0] for trees in brackets(z, sentences, names)]
    if format == "svg":
        write(
            trees_page(
                [
                    (" ".join(words), z.to_nltk(row, words, names))
                    for row, words in enumerate(sentences)
                ]
            )
        )
        return
    if format == "json":
        lines = [
            as_json({"tokens": words, "tree": tree, "log_joint": value})
            for words, tree, value in zip(sentences, lines, log_joint, strict=True)
        ]
    write("".join(f"{line}\n" for line in lines))


def evaluate(
    module: Run,
    data: str | None = None,
    decode: str = "mbr",
    samples: int = 64,
    limit: int | None = None,
    max_length: int = 150,
    pauses: bool = False,
) -> dict[str, Any]:
    """NLL, the sampler's quality, and tree scores where there are gold trees.

    Args:
        module: the trained run.
        data: what to evaluate on. None: new sentences of the embedded grammar that the run was
            trained on, or the sentences that it held out.
        decode: how trees are chosen.
        samples: importance samples for each sentence.
        limit: how many sentences to evaluate on, from the first.
        max_length: longer sentences are left out.
        pauses: whether spans that cross a pause of the text count less (see `heeding`).

    Raises:
        UserError: if the data is unusable, or none is given and the run's own is not there.
    """
    reader, truth = Reader(module), None
    if pauses:
        check_pauses(decode, reader.preprocessing)
    if data is not None:
        corpus = reader.read(data, max_length)
    elif module.metadata.get("grammar") is not None:
        truth, corpus = drawn_corpus(module)
    else:
        corpus = _held_out(module)
    figures = {"data": corpus.source, "read": corpus.summary(), "read_from": corpus.unit}
    figures |= measure(module, corpus, truth, decode, samples, limit, pauses)
    return {**figures, "samples": samples}


def drawn_corpus(module: Trained) -> tuple[Truth, Corpus]:
    """New sentences of the embedded grammar that a run was trained on, and the truth about them."""
    from gfnem.parsing.grammars.truth import Truth

    truth = Truth.of_run(module.metadata)
    return truth, truth.draw(500, module.metadata["seed"] * 1000 + 2)


def measure(
    module: Trained,
    corpus: Corpus,
    truth: Truth | None = None,
    decode: str = "mbr",
    samples: int = 64,
    limit: int | None = None,
    pauses: bool = False,
) -> dict[str, Any]:
    """The figures that `evaluate` prints.

    Args:
        module: the trained module.
        corpus: what to evaluate on.
        truth: what it was drawn from, where that is known.
        decode, samples, limit, pauses: as for `evaluate`.
    """
    reader = Reader(module)
    tokens, gold = corpus.tokens[:limit], corpus.spans[:limit]
    places = corpus.pauses[:limit] if pauses else [[] for _ in tokens]
    figures = _figures(module, reader, tokens, places, gold, corpus.labels[:limit], decode, samples)
    if pauses:
        figures["pauses"] = sum(map(len, places))
    if truth is not None:
        figures.update(truth.figures(reader.encode, by_length(tokens), tokens, gold, decode))
    return figures


def show(run: str, data: str | None = None, top: int = 5) -> None:
    """Prints what a run's model has learned: its symbols, their uses, rules and words.

    Args:
        run: run folder or checkpoint.
        data: sentences to count uses in; sentences drawn from the model if None.
        top: how many rules or words of each symbol.

    Raises:
        UserError: if the run or the data is unusable.
    """
    from gfnem.parsing.grammars.listing import UsedGrammar, grammar_of, listing

    module = load_text_run(run)
    reader = Reader(module)
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
        batches, source = (x[part] for part in rows), "drawn from it"
    else:
        corpus = reader.read(data, 40)
        batches = (
            reader.encode([corpus.tokens[row] for row in rows]) for rows in by_length(corpus.tokens)
        )
        source = f"of {data}"
    used = UsedGrammar.of(grammar, batches)
    print(
        f"{type(grammar).__name__}: {grammar.nonterminals} nonterminals, {grammar.preterminals} "
        f"preterminals, {grammar.vocab_size:,} words; uses counted in {used.sentences:,} sentences "
        f"{source}\n"
    )
    print("\n".join(listing(used, reader.vocabulary.to_list(), top)))


def _input(file: str, drawn: bool) -> tuple[str | LinesAtHand, Callable[[], bool]]:
    """What to read, and a function that says whether its next line can be had without waiting.

    Args:
        file: a path; "-" is standard input.
        drawn: whether trees are drawn, and so depend on which lines are taken together.
    """
    if file == "-":
        stream = sys.stdin.buffer
        if sys.stdin.isatty():
            print("reading sentences, one a line, until end of file (Ctrl-D)", file=sys.stderr)
    elif Path(file).is_fifo():
        stream = open(file, "rb")
    else:
        return file, lambda: True
    lines = LinesAtHand(stream)
    # how lines arrive must not decide which trees are drawn for them
    return lines, (lambda: False) if drawn and not _is_a_file(stream) else lines.at_hand


def _is_a_file(stream: Any) -> bool:
    """Whether a stream comes from a file, all of which is there already."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # nothing that the system knows of
        return True


def _not_parsed(answer: Answer) -> str:
    return f"line {answer.line.number}: {answer.why}: not parsed"


def _drawings(answer: Answer) -> Iterator[Drawing]:
    title = f"line {answer.line.number}: {answer.line.text.strip()}"
    if answer.why and answer.why != "blank":
        yield title, f"{answer.why}: not parsed"
    for tree in answer.nltk():
        yield title, tree


def _held_out(module: Run) -> Corpus:
    """The sentences that a run on the user's own data was validated on, read again."""
    run, other = module.path, "name held-out data with --data"
    try:
        data = module.data()
    except UserError as error:
        raise UserError(f"{error}; to evaluate this run on something else, {other}") from error
    if module.metadata.get("data", {}) != data.fingerprint():
        raise UserError(
            f"{run}: its data has changed since it was trained, so what was held out is not known "
            f"any more: {other}"
        )
    held_out = data.held_out()
    if not len(held_out):
        raise UserError(f"{run}: nothing was held out of its data: {other}")
    return held_out


def by_length(tokens: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    """Rows in batches of similar length, fewer of the long ones."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    start = 0
    while start < len(order):
        longest = len(tokens[order[min(start + 63, len(order) - 1)]])
        stop = start + max(1, min(64, 1600 // longest))
        yield order[start:stop]
        start = stop


def _figures(
    module: Trained,
    reader: Reader,
    tokens: Sequence[Sequence[str]],
    pauses: Sequence[Sequence[int]],
    gold: Sequence[set[tuple[int, int]] | None],
    gold_labels: Sequence[LabelledSpans | None],
    decode: str,
    samples: int | None,
) -> dict[str, Any]:
    names = ("tree", "left", "right", "random")
    labelled = LabelF1()
    unigrams = _Unigrams.of_run(module.metadata)
    labels: set[int] = set()
    scores = {name: SpanF1() for name in names}
    rng = random.Random(0)
    parts: list[dict[str, Tensor]] = []
    surprise, model = 0.0, module.model
    exact = model.offers("log_marginal")
    for rows in by_length(tokens):
        x = reader.encode([tokens[row] for row in rows], [pauses[row] for row in rows])
        possible = derivable(module, x)
        if not possible.any():
            continue
        rows, x = (
            [rows[place] for place in possible.nonzero().flatten().tolist()],
            x[possible],
        )
        given = module.target.given(x)
        parses = parse_batch(module, x, decode, given=given)
        labels.update(parses.trees.label[parses.trees.mask()].tolist())
        if unigrams is not None:
            surprise -= unigrams.log_prob(x)
        parts.append(figures(module, x, samples, lambda z: {"different": _different(z)}, given))
        if "log_p" not in parts[-1]:  # a run that samples from chains
            parts[-1]["log_p"] = parses.log_marginal.value.double().cpu()
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
            if gold_labels[row] is not None:
                labelled.update(parses.trees.spans(place), gold_labels[row], length)
    if not parts:
        raise UserError(
            f"none of the {len(tokens):,} sentences is derivable: no tree has its words"
        )
    every, means = joined(parts), summary(parts)
    units = every["units"].sum().item()
    report = {
        "sentences": len(tokens),
        "not_derivable": len(tokens) - len(every["units"]),
        "tokens": units,
        "exact": exact and model.marginal_is_exact,
        "nll": means["nll"].item(),
        "unknown": reader.vocabulary.unknown_rate(word for words in tokens for word in words),
        "labels": len(label_names(module)),
        "labels_in_use": len(labels),
    }
    if unigrams is not None:
        report["unigram_nll"] = surprise / units
    if exact and not model.marginal_is_exact:
        report["nll_is"] = "bound: exact over trees, in expectation over the rest"
    if "log_z" in means:
        report["nll_is"] = f"bound, {samples} samples, with log Z by draws"
        report["log_z"], error = means["log_z"].item(), means["log_z_error"].item()
        report["log_z_error"] = error
        report["nll_error"] = error * len(every["units"]) / units
    if "bound" in every:
        report["bound"] = -every["bound"].sum().item() / units
        report["elbo_gap"] = means["elbo_gap"].item()
        report["elbo_gap_is"] = "exact" if module.target.offers("log_marginal") else OWN_SAMPLES
        if module.reward is not None:
            report["reward"] = type(module.reward).__name__
        report["ess"] = means["ess"].item()
        report |= {"missed": means["missed"].item()} if "missed" in means else {}
        report["different_trees"] = every["different"].mean().item()
    if scores["tree"].sentences:
        for name in names:
            prefix = "" if name == "tree" else f"{name}_"
            report[f"{prefix}sentence_f1"] = scores[name].sentence_f1
            report[f"{prefix}corpus_f1"] = scores[name].corpus_f1
    if labelled.gold:
        report["labelled_f1_one_to_one"] = labelled.one_to_one
        report["labelled_f1_many_to_one"] = labelled.many_to_one
    return report


def _different(trees: Trees) -> Tensor:
    """`(batch,)` how many different trees there are among the samples of each sentence."""
    # trees are equal where a random mixture of all their entries is; 64 bits do not collide
    mixing = torch.Generator().manual_seed(0)
    parts = torch.stack([trees.split, trees.label], -1).flatten(2) + 1
    weights = torch.randint(2**62, parts.shape[2:], generator=mixing).to(parts.device)
    mixed = (parts * weights).sum(2).sort(1).values
    return 1 + (mixed[:, 1:] != mixed[:, :-1]).sum(1)


class _Unigrams:
    """Words drawn one by one, with an end that is drawn like a word: what any model should beat.

    Args:
        counts: how often each word of the vocabulary comes in the training sentences.
        sentences: how many these are.
    """

    def __init__(self, counts: Sequence[int], sentences: int):
        # the end comes last; one more of each, so that nothing is impossible
        counts = torch.tensor([*counts, sentences], dtype=torch.float64) + 1
        self.logs = (counts / counts.sum()).log()

    @classmethod
    def of_run(cls, metadata: dict[str, Any]) -> _Unigrams | None:
        """From what a run remembers of its data; None if it is from before runs did."""
        if "counts" not in metadata:
            return None
        return cls(metadata["counts"], metadata["sentences"])

    def log_prob(self, x: Sentences) -> float:
        """Log probability of a batch of sentences, ends included, in nats."""
        return float(self.logs[x.tokens[x.mask()]].sum() + len(x) * self.logs[-1])


def report(figures: dict[str, Any], unit: str) -> str:
    """The figures of `evaluate` as tables.

    Args:
        figures: what `evaluate` returns.
        unit: what likelihoods are reported for.
    """
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else 100
    console = Console(
        width=width, highlight=False, file=io.StringIO(), force_terminal=sys.stdout.isatty()
    )
    samples = figures["samples"]
    console.print(f"{figures['data']}: {figures['read']}", soft_wrap=True)
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

    how = "exact" if figures["exact"] else figures.get("nll_is", f"bound, {samples} samples")
    gap = "ELBO gap per sentence, nats"
    if figures.get("elbo_gap_is") == OWN_SAMPLES:
        gap += f" ({OWN_SAMPLES})"
    if "reward" in figures:  # which the sampler aims at besides
        gap += f", to the posterior times {figures['reward']}"
    row(f"NLL per {unit}, nats ({how})", "{:.4f}", "nll")
    row(f"... of which log Z leaves open, per {unit}, a standard error", "{:.4f}", "nll_error")
    row("log Z of the model, nats", "{:.4f}", "log_z")
    row("... its standard error", "{:.4f}", "log_z_error")
    if figures["exact"]:
        row(f"NLL bound per {unit}, nats ({samples} samples)", "{:.4f}", "bound")
    row(f"... of unigrams, that is of {unit}s without any structure", "{:.4f}", "unigram_nll")
    row("unknown words", "{:.1%}", "unknown")
    row(gap, "{:.3f}", "elbo_gap")
    row(f"effective sample size, of {samples}", "{:.1%}", "ess")
    row(f"different trees among {samples} samples of a sentence", "{:.1f}", "different_trees")
    row(f"labels in use, of {figures['labels']}", "{}", "labels_in_use")
    heeded = ", pauses heeded" if "pauses" in figures else ""
    row(f"sentence F1{heeded}", "{:.1f}", "sentence_f1")
    row(f"corpus F1{heeded}", "{:.1f}", "corpus_f1")
    labelled = f"labelled F1{heeded}, symbols to labels"
    row(f"{labelled} one to one", "{:.1f}", "labelled_f1_one_to_one")
    row(f"{labelled} many to one", "{:.1f}", "labelled_f1_many_to_one")
    console.print(table)
    for remark in remarks(figures, samples):
        console.print(remark)
    if "sentence_f1" in figures:
        baselines = Table("baseline", "sentence F1", "corpus F1")
        for name in ("left", "right", "random"):
            pair = (figures[f"{name}_sentence_f1"], figures[f"{name}_corpus_f1"])
            baselines.add_row(f"{name} branching", *(f"{value:.1f}" for value in pair))
        console.print(baselines)
        console.print(SCORE_CONVENTION, style="dim")
        if "labelled_f1_one_to_one" in figures:
            console.print(LABEL_CONVENTION, style="dim")
        if figures["read_from"] == "trees":
            console.print(CONVENTION, style="dim")
    return console.file.getvalue()


def remarks(figures: dict[str, Any], samples: int) -> Iterator[str]:
    """What a reader of the figures might not see in them."""
    if figures["unknown"] > 0.2:
        yield (
            f"{figures['unknown']:.0%} of the words are unknown to the model, which cannot tell "
            "them apart: the NLL is lower than that of a text whose words it knows."
        )
    if figures.get("unigram_nll", figures["nll"]) < figures["nll"]:
        yield "The model predicts the words less well than unigrams do: it has not learned yet."
    if "pauses" in figures and "sentence_f1" in figures:
        yield (
            "Trees were chosen with a look at the text's punctuation, which is no word of theirs: "
            "their F1 does not compare with that of words alone."
            if figures["pauses"]
            else "No sentence pauses at punctuation that was removed: there was nothing to heed."
        )
    if figures["labels_in_use"] == 1 < figures["labels"]:
        yield f"Collapsed: one label of {figures['labels']} is in use."
    if figures.get("elbo_gap_is") == OWN_SAMPLES and figures["different_trees"] < 1.5 < samples:
        yield (
            "Collapsed: the sampler draws nearly always the same tree of a sentence. ELBO gap and "
            "effective sample size come from these samples and do not show it."
        )
