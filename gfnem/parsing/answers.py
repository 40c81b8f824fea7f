"""Lines of text to trees: parsed in batches of similar length, answered in their own order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.ensemble import Ensemble
from gfnem.parsing.grammars.support import why_not_derivable
from gfnem.parsing.parser import SAMPLES, draws
from gfnem.parsing.text.corpus import Line
from gfnem.parsing.trees.drawing import brackets
from gfnem.parsing.trees.treebank import parse_tree
from gfnem.running.workers import workers

#: lines taken together where so many are there
WINDOW = 1024
#: chart cells of a batch: 64 sentences of 20 tokens
_CELLS = 64 * 20**2
#: ... where trees are drawn, which takes more operations, of less memory
_DRAWN_CELLS = 4 * _CELLS
#: tokens of all trees that are drawn for a batch: 64 trees for 16 sentences of 20 tokens
_DRAWN_TOKENS = 16 * 20 * 64
_BYTES = 1 << 16


class LinesAtHand:
    """The lines of a stream, which knows whether one more can be had without waiting.

    Args:
        stream: a buffered binary stream, such as `sys.stdin.buffer`.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._lines: deque[bytes] = deque()

    def __iter__(self) -> Iterator[bytes]:
        begun: list[bytes] = []
        while piece := self._stream.read1(_BYTES):  # what is there, be it less
            *whole, last = piece.split(b"\n")
            if whole:
                whole[0] = b"".join([*begun, whole[0]])
                begun = []
            begun.append(last)
            self._lines.extend(whole)
            while self._lines:
                yield self._lines.popleft() + b"\n"
        if rest := b"".join(begun):
            yield rest

    def at_hand(self) -> bool:
        """Whether a whole line has been read and not yet been asked for."""
        return bool(self._lines)


def windows(lines: Iterator[Line], at_hand: Callable[[], bool]) -> Iterator[list[Line]]:
    """Lines that are answered together: up to `WINDOW`, fewer where one would have to wait.

    Args:
        lines: where they come from.
        at_hand: whether the next line can be had without waiting.
    """
    window: list[Line] = []
    try:
        for line in lines:
            window.append(line)
            if len(window) == WINDOW or not at_hand():
                yield window
                window = []
    except UserError:  # at a line that cannot be read; those before it are answered all the same
        if window:
            yield window
        raise
    if window:
        yield window


@dataclass
class Answer:
    """What there is to say of one line.

    Attributes:
        line: the line.
        why: why it has no tree; "" where it has one.
        trees: its trees in brackets.
        figures: what is said of each tree beside the tree, where that was asked for.
    """

    line: Line
    why: str = ""
    trees: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def nltk(self) -> Iterator[Tree]:
        """Its trees, with the words of the line: brackets have some characters in another form."""
        for written in self.trees:
            tree = parse_tree(written)
            for place, word in zip(tree.treepositions("leaves"), self.line.words, strict=True):
                tree[place] = word
            yield tree


#: of a line why it has no tree, its trees in brackets, and what is said of each of them
_Found = tuple[str, list[str], list[dict[str, Any]]]


def _bare(batch: list[Answer]) -> list[Line]:
    """Lines without the text that they come from, which another process does not need."""
    lines = [answer.line for answer in batch]
    return [Line(line.number, line.words, line.tokens, pauses=line.pauses) for line in lines]


def _end(batch: list[Answer], found: list[_Found]) -> None:
    for answer, (why, trees, figures) in zip(batch, found, strict=True):
        answer.why, answer.trees, answer.figures = why, trees, figures


class Answers:
    """Answers lines of text with trees.

    Args:
        ensemble: one trained run or several.
        decode, samples: see `parser.parse`.
        max_length: longer lines, in tokens, are not parsed.
        seed: of samples.
        figures: whether to say more of trees than the trees.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        decode: str = "mbr",
        samples: int | None = None,
        max_length: int = 150,
        seed: int = 0,
        figures: bool = False,
    ):
        self.ensemble, self.max_length = ensemble, max_length
        self.decode, self.samples, self.seed = decode, samples, seed
        self.figures = figures
        self.names = ensemble.names
        #: whether trees depend on random numbers, and so on what is parsed together
        self.drawn = any(draws(run, decode, samples) for run in ensemble.runs)
        self._drawn_trees = samples or (1 if decode == "sample" else SAMPLES)

    def of(self, lines: Sequence[Line]) -> list[Answer]:
        """The answers to some lines, in their order."""
        answers, batches = self._begin(lines)
        for batch in batches:
            _end(batch, self._answer(_bare(batch)))
        return answers

    def to(
        self, windows: Iterator[list[Line]], at_hand: Callable[[], bool]
    ) -> Iterator[list[Answer]]:
        """The answers to window after window.

        On a CPU batches are parsed by several processes, while the next window is read. torch's
        own threads are of little use for operations of this size.

        Args:
            windows: lines that are answered together (see `windows`).
            at_hand: whether the next line can be had without waiting.

        Raises:
            UserError: if lines cannot be read, after the answers to those before.
        """
        if self.ensemble.device.type != "cpu":
            yield from map(self.of, windows)
            return
        with workers(self._answer, self.drawn) as submit:
            begun: deque[tuple[list[Answer], list[tuple[list[Answer], Future]]]] = deque()

            def finished() -> list[Answer]:
                answers, work = begun.popleft()
                for batch, found in work:
                    _end(batch, found.result())
                return answers

            try:
                for window in windows:
                    answers, batches = self._begin(window)
                    begun.append((answers, [(batch, submit(_bare(batch))) for batch in batches]))
                    while len(begun) > 1 or (begun and not at_hand()):
                        yield finished()
            except UserError:  # at a line that cannot be read
                while begun:
                    yield finished()
                raise
            while begun:
                yield finished()

    def _begin(self, lines: Sequence[Line]) -> tuple[list[Answer], Iterator[list[Answer]]]:
        answers = [Answer(line, self._why_not(line)) for line in lines]
        return answers, self._batches([answer for answer in answers if not answer.why])

    def _answer(self, batch: list[Line]) -> list[_Found]:
        if self.drawn:
            # A batch has random numbers of its own: what else is asked of an earlier one, such as
            # probabilities to print, changes no tree.
            torch.manual_seed(random.Random(f"{self.seed} {batch[0].number}").getrandbits(63))
        tokens = [line.tokens for line in batch]
        pauses = [line.pauses for line in batch]
        parses, possible = self.ensemble.answer(tokens, self.decode, self.samples, pauses)
        found = brackets(parses.trees, [line.words for line in batch], self.names)
        run = self.ensemble.runs[0]
        return [
            ("", found[row], parses.figures(row) if self.figures else [])
            if possible[row]
            else (why_not_derivable(run, len(tokens[row])), [], [])
            for row in range(len(batch))
        ]

    def _why_not(self, line: Line) -> str:
        if not line.tokens:
            return "no word in it" if line.text.strip() else "blank"
        if len(line.tokens) > self.max_length:
            return f"{len(line.tokens):,} tokens, more than --max-length {self.max_length}"
        return ""

    def _batches(self, answers: list[Answer]) -> Iterator[list[Answer]]:
        by_length = sorted(answers, key=lambda answer: len(answer.line.tokens), reverse=True)
        start = 0
        while start < len(by_length):
            longest = len(by_length[start].line.tokens)
            if self.drawn:
                size = _DRAWN_TOKENS // (longest * self._drawn_trees)
                size = min(size, _DRAWN_CELLS // longest**2)
            else:
                size = _CELLS // longest**2
            size = min(max(size, 1), 256)
            yield by_length[start : start + size]
            start += size


def records(answer: Answer) -> Iterator[dict[str, Any]]:
    """A JSON record for each tree of a line; one that says why where there is none.

    Args:
        answer: the answer, with figures.
    """
    line = answer.line
    start: dict[str, Any] = {
        "line": line.number,
        "text": line.text,
        "tokens": line.words,
        "offsets": line.offsets,
    }
    if answer.why:
        yield {**start, "tree": None, "why": answer.why}
        return
    for tree, figures in zip(answer.trees, answer.figures, strict=True):
        yield {**start, "tree": tree, **figures}
