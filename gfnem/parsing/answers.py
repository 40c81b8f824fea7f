"""Lines of text to trees: parsed in batches of similar length, answered in their own order."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from gfnem.errors import UserError
from gfnem.parsing.ensemble import Agreed, Ensemble
from gfnem.parsing.grammars.support import why_not_derivable
from gfnem.parsing.parser import Parses, draws
from gfnem.parsing.text.corpus import Line
from gfnem.parsing.trees.drawing import brackets

#: lines taken together where so many are there
WINDOW = 512
#: chart cells of a batch: 64 sentences of 20 tokens
_CELLS = 64 * 20**2
#: tokens of a batch of which many trees are drawn
_DRAWN_TOKENS = 16 * 20
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
        parses, row: the batch that it was parsed in, and its place there.
        trees: its trees in brackets.
    """

    line: Line
    why: str = ""
    parses: Parses | Agreed | None = None
    row: int = 0
    trees: list[str] = field(default_factory=list)


class Answers:
    """Answers lines of text with trees.

    Args:
        ensemble: one trained run or several.
        decode, samples: see `parser.parse`.
        max_length: longer lines, in tokens, are not parsed.
        seed: of samples.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        decode: str = "mbr",
        samples: int | None = None,
        max_length: int = 150,
        seed: int = 0,
    ):
        self.ensemble, self.max_length = ensemble, max_length
        self.decode, self.samples, self.seed = decode, samples, seed
        self.names = ensemble.names
        #: whether trees depend on random numbers, and so on what is parsed together
        self.drawn = any(draws(run, decode, samples) for run in ensemble.runs)

    def of(self, lines: Sequence[Line]) -> list[Answer]:
        """The answers to some lines, in their order."""
        answers, batches = self._begin(lines)
        for batch in batches:
            self._answer(batch)
        return answers

    def to(
        self, windows: Iterator[list[Line]], at_hand: Callable[[], bool]
    ) -> Iterator[list[Answer]]:
        """The answers to window after window.

        Where nothing is drawn, batches are parsed by as many threads as torch may use, while the
        next window is read. torch's own threads are of little use for operations of this size.

        Args:
            windows: lines that are answered together (see `windows`).
            at_hand: whether the next line can be had without waiting.
        """
        if self.drawn or self.ensemble.device.type != "cpu":
            yield from map(self.of, windows)
            return
        with _threads(torch.get_num_threads()) as pool:
            begun: deque[tuple[list[Answer], list[Future]]] = deque()

            def finished() -> list[Answer]:
                answers, work = begun.popleft()
                for batch in work:
                    batch.result()
                return answers

            try:
                for window in windows:
                    answers, batches = self._begin(window)
                    begun.append((answers, [pool.submit(self._answer, batch) for batch in batches]))
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

    def _answer(self, batch: list[Answer]) -> None:
        if self.drawn:
            # A batch has random numbers of its own: what else is asked of an earlier one, such as
            # probabilities to print, changes no tree.
            number = batch[0].line.number
            torch.manual_seed(random.Random(f"{self.seed} {number}").getrandbits(63))
        tokens = [answer.line.tokens for answer in batch]
        parses, possible = self.ensemble.answer(tokens, self.decode, self.samples)
        found = brackets(parses.trees, [answer.line.words for answer in batch], self.names)
        for row, answer in enumerate(batch):
            if possible[row]:
                answer.parses, answer.row, answer.trees = parses, row, found[row]
            else:
                answer.why = why_not_derivable(self.ensemble.runs[0], len(answer.line.tokens))

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
            size = _DRAWN_TOKENS // longest if self.drawn else min(256, _CELLS // longest**2)
            yield by_length[start : start + max(size, 1)]
            start += max(size, 1)


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in each of which torch works by itself."""
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)


def records(answer: Answer) -> Iterator[dict[str, Any]]:
    """A JSON record for each tree of a line; one that says why where there is none.

    Args:
        answer: the answer.
    """
    line, parses, row = answer.line, answer.parses, answer.row
    start: dict[str, Any] = {
        "line": line.number,
        "text": line.text,
        "tokens": line.words,
        "offsets": line.offsets,
    }
    if parses is None:
        yield {**start, "tree": None, "why": answer.why}
        return
    for tree, figures in zip(answer.trees, parses.figures(row), strict=True):
        yield {**start, "tree": tree, **figures}
