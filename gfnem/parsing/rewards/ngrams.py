"""Which substrings a text repeats: n-grams of words, counted in the whole and in each document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.fixed_shapes import fixed_shapes
from gfnem.parsing.text.fingerprints import fingerprint
from gfnem.parsing.text.raw import RawText

# odd numbers of 63 bits that nobody has chosen for a purpose: products wrap around
_NEXT_WORD = 0x1F83D9ABFB41BD6B
_DOCUMENT = 0x5BE0CD19137E2179
_LENGTHS = 0x3C6EF372FE94F82B


@dataclass
class NgramTable:
    """Substrings of one to `longest` words that come twice or more.

    All are known by a number of 64 bits, which is made of the fingerprints of their words.

    Attributes:
        grams: `(grams,)` int64 their numbers, rising.
        counts: `(grams,)` int64 how often each comes.
        closed: `(grams,)` int64 how often punctuation or a sentence's end follows.
        spread: `(grams,)` int64 in how many documents it comes.
        local_grams: `(pairs,)` int64 numbers of substring and document together, rising.
        local_counts: `(pairs,)` int64 how often the substring comes in the document, twice or more.
        totals: `(4,)` int64 words, closed words, documents and sentences of the text.
        longest: words of the longest substrings counted.
    """

    grams: Tensor
    counts: Tensor
    closed: Tensor
    spread: Tensor
    local_grams: Tensor
    local_counts: Tensor
    totals: Tensor
    longest: int

    @classmethod
    def empty(cls, longest: int = 8) -> NgramTable:
        """Of a text without a word."""
        return cls.count([], longest)

    @classmethod
    def count(cls, texts: Iterable[RawText], longest: int = 8, most: int = 2_000_000) -> NgramTable:
        """Counts the substrings of a text.

        Memory is a few hundred bytes a word of text at worst. A substring of `n` words can only be
        repeated where those of `n - 1` words that it begins and ends with are: others are not
        looked at.

        Args:
            texts: its sentences.
            longest: words of the longest substrings.
            most: substrings kept: where there are more, the rarest are left out.
        """
        words, documents = _read(texts)
        keys, room, closes, document = words
        number = torch.zeros_like(keys)
        repeated = torch.ones(len(keys) + 1, dtype=torch.bool)
        found: list[tuple[Tensor, ...]] = []
        local: list[tuple[Tensor, Tensor]] = []
        for length in range(1, longest + 1):
            places = ((room >= length) & repeated[:-1] & repeated[1:]).nonzero().squeeze(1)
            number[places] = number[places] * _NEXT_WORD + keys[places + length - 1]
            grams, which, counts = (number[places] + _of_length(length)).unique(
                return_inverse=True, return_counts=True
            )
            twice = counts > 1
            closed = torch.zeros_like(counts).index_add_(0, which, closes[places + length - 1])
            again = twice[which]
            repeated = torch.zeros_like(repeated)
            repeated[places[again]] = True
            pairs, pair, local_counts = _within(
                grams[which[again]], document[places[again]]
            ).unique(return_inverse=True, return_counts=True)
            owner = torch.empty_like(local_counts).scatter_(0, pair, which[again])
            spread = torch.zeros_like(counts).index_add_(0, owner, torch.ones_like(owner))
            found.append(tuple(part[twice] for part in (grams, counts, closed, spread)))
            often = local_counts > 1
            local.append((pairs[often], local_counts[often]))
            if not twice.any():
                break
        tables = [torch.cat(part) for part in zip(*found, strict=True)]
        tables = _most_frequent(tables, 1, most)
        here = _most_frequent([torch.cat(part) for part in zip(*local, strict=True)], 1, most)
        totals = torch.tensor([len(keys), int(closes.sum()), documents, int((room == 1).sum())])
        return cls(*tables, *here, totals, longest)

    def to(self, device: torch.device) -> NgramTable:
        """The same table elsewhere."""
        return NgramTable(
            **{name: part.to(device) for name, part in self.tensors()}, longest=self.longest
        )

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Everything but `longest`, by name."""
        names = [part.name for part in fields(self) if part.name != "longest"]
        return [(name, getattr(self, name)) for name in names]

    def rows(self, keys: Tensor, lengths: Tensor) -> Tensor:
        """`(batch, longest, n)` int64: where substrings stand in `grams`; -1 for others.

        Args:
            keys, lengths: see `look_up`.
        """
        return torch.stack([row for _, row in self._found(keys, lengths)], 1)

    def _found(self, keys: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each length the `(batch, n)` numbers of substrings, and where they stand, or -1."""
        n = keys.shape[1]
        number = torch.zeros_like(keys)
        there = (keys != 0) & (torch.arange(n, device=keys.device) < lengths[:, None])
        for length in range(1, min(self.longest, n) + 1):
            number = number * _NEXT_WORD + pad(keys[:, length - 1 :], (0, length - 1))
            if length > 1:  # what is repeated begins and ends with what is
                there = there & pad(there[:, 1:], (0, 1))
            gram = number + _of_length(length)
            row = _rows(self.grams, gram, there)
            there = row >= 0
            yield gram, row

    def look_up(self, keys: Tensor, lengths: Tensor, documents: Tensor) -> Found:
        """What is known of every substring of a batch of sentences.

        Args:
            keys: `(batch, n)` fingerprints of the words; 0 where it is not known.
            lengths: `(batch,)` words of each sentence.
            documents: `(batch,)` fingerprints of the documents; 0 where it is not known.
        """
        found: list[tuple[Tensor, ...]] = []
        for gram, row in self._found(keys, lengths):
            pair = _within(gram, documents[:, None])
            local = _rows(self.local_grams, pair, (row >= 0) & (documents != 0)[:, None])
            parts = [_values(part, row) for part in (self.counts, self.closed, self.spread)]
            found.append((*parts, _values(self.local_counts, local)))
        stacked = [torch.stack(part, 1) for part in zip(*found, strict=True)]
        return Found(*stacked, self.totals)


@dataclass
class Found:
    """Substrings of a batch of sentences by their length and first word.

    Attributes:
        counts, closed, spread, local: `(batch, longest, n)` float32: entry `[b, m - 1, i]` is of
            the substring of `m` words from word `i` on (see `NgramTable`; `local` is how often it
            comes in the sentence's own document); 0 for what does not come twice.
        totals: see `NgramTable`.
    """

    counts: Tensor
    closed: Tensor
    spread: Tensor
    local: Tensor
    totals: Tensor

    def as_spans(self, values: Tensor) -> Tensor:
        """`(batch, n, n + 1)` the values `(batch, longest, n)` of substrings as those of spans."""
        batch, longest, n = values.shape
        table = values.new_zeros(batch, n, n + 1)
        for length in range(1, longest + 1):
            table.diagonal(length, 1, 2).copy_(values[:, length - 1, : n - length + 1])
        return table

    def over_splits(self, values: Tensor) -> list[Tensor]:
        """For each length from 2 on `(2, length - 1, batch, n - length + 1)`: both parts' values.

        Args:
            values: `(batch, longest, n)`.
        """
        n, parts = values.shape[2], []
        for length in range(2, values.shape[1] + 1):
            last = n - length + 1
            first = [values[:, cut - 1, :last] for cut in range(1, length)]
            second = [values[:, length - cut - 1, cut : cut + last] for cut in range(1, length)]
            parts.append(torch.stack([torch.stack(first), torch.stack(second)]))
        return parts


def _read(texts: Iterable[RawText]) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], int]:
    """Of each word its fingerprint, the words to its sentence's end, whether it closes, document.

    And how many documents there are.
    """
    keys: list[Tensor] = []
    lengths: list[int] = []
    closes: list[Tensor] = []
    documents: list[int] = []
    some_keys: list[int] = []
    some_closes: list[bool] = []
    for text in texts:
        some_keys += map(fingerprint, text.words)
        some_closes += text.closed
        lengths.append(len(text.words))
        documents.append(text.document)
        if len(some_keys) > 1_000_000:  # Python's numbers are large
            keys.append(torch.tensor(some_keys))
            closes.append(torch.tensor(some_closes))
            some_keys, some_closes = [], []
    keys.append(torch.tensor(some_keys, dtype=torch.long))
    closes.append(torch.tensor(some_closes, dtype=torch.bool))
    count = torch.tensor(lengths, dtype=torch.long)
    ends = count.cumsum(0).repeat_interleave(count)
    room = ends - torch.arange(len(ends))
    document = torch.tensor(documents, dtype=torch.long)
    words = torch.cat(keys), room, torch.cat(closes).long(), document.repeat_interleave(count)
    return words, len(document.unique())


def _of_length(words: int) -> int:
    """What tells substrings of so many words from others; wrapped around, as tensors do."""
    return (words * _LENGTHS + 2**63) % 2**64 - 2**63


def _within(gram: Tensor, document: Tensor) -> Tensor:
    """The number of a substring in a document."""
    return gram * _DOCUMENT + document


def _rows(table: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Where numbers that may be known stand in a rising table; -1 for what does not."""
    if not len(table):
        return torch.full_like(wanted, -1)
    if fixed_shapes(wanted):
        return torch.where(known, _places(table, wanted), -1)
    some = known.nonzero(as_tuple=True)
    return torch.full_like(wanted, -1).index_put_(some, _places(table, wanted[some]))


def _places(table: Tensor, wanted: Tensor) -> Tensor:
    """As `_rows`, of numbers all of which may be known."""
    row = torch.searchsorted(table, wanted).clamp_(max=len(table) - 1)
    return torch.where(table[row] == wanted, row, -1)


def _values(column: Tensor, row: Tensor) -> Tensor:
    """A table's column at rows, as float32; 0 at -1."""
    if not len(column):
        return torch.zeros(row.shape, device=row.device)
    return torch.where(row < 0, 0, column[row]).float()


def _most_frequent(tables: list[Tensor], by: int, most: int) -> list[Tensor]:
    """The tables sorted by the first of them, without the rarest of those above `most`."""
    if len(tables[0]) > most:
        least = tables[by].sort(descending=True).values[most]
        kept = tables[by] > least
        tables = [table[kept] for table in tables]
    order = tables[0].argsort()
    return [table[order] for table in tables]
