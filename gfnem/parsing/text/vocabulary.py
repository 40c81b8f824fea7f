"""Words and their indices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gfnem.errors import UserError
from gfnem.files import read_lines, write_atomically
from gfnem.parsing.text.characters import UNKNOWN

__all__ = ["UNKNOWN", "Vocabulary"]


class Vocabulary:
    """A two-way map between words and indices `0 .. len(self) - 1`; index 0 is `<unk>`.

    A text that spells `<unk>` itself, as some published corpora do, means index 0 by it; so it does
    by `<UNK>`.

    Args:
        words: the known words in index order, from index 1 on; a leading `<unk>` may be given too.

    Raises:
        ValueError: if a word is empty, holds white space, or comes twice.
    """

    def __init__(self, words: Sequence[str]):
        words = list(words)
        self._words = words if words[:1] == [UNKNOWN] else [UNKNOWN, *words]
        self._index: dict[str, int] = {}
        for index, word in enumerate(self._words):
            if not isinstance(word, str) or word.split() != [word]:
                raise ValueError(f"word {index} is not one word: {word!r}")
            if self._index.setdefault(word, index) != index:
                raise ValueError(f"word {index} comes twice: {word!r}")

    @classmethod
    def build(
        cls, sentences: Iterable[Sequence[str]], min_count: int = 2, max_size: int = 10_000
    ) -> Vocabulary:
        """The most frequent words of some tokenised sentences.

        The order is by falling count, words of equal count by code point, so the same sentences in
        any order give the same vocabulary.

        Args:
            sentences: lists of tokens.
            min_count: a word seen less often is unknown.
            max_size: the largest `len` of the result, `<unk>` included.

        Raises:
            UserError: if `max_size` leaves no room for a word, or no word is frequent enough.
        """
        counts: Counter[str] = Counter()
        for tokens in sentences:
            counts.update(tokens)
        return cls.from_counts(counts, min_count, max_size)

    @classmethod
    def from_counts(
        cls, counts: Mapping[str, int], min_count: int = 2, max_size: int = 10_000
    ) -> Vocabulary:
        """As `build`, from how often each word comes.

        Raises:
            UserError: as `build`.
        """
        if max_size < 2:
            raise UserError(f"a vocabulary of {max_size} has no room for a word beside {UNKNOWN}")
        counted = [
            (-count, word)
            for word, count in counts.items()
            if count > 0 and word.lower() != UNKNOWN
        ]
        frequent = [entry for entry in counted if -entry[0] >= min_count]
        if not frequent:
            raise UserError(
                f"no word of {len(counted):,} comes {min_count} times or more: lower min_count"
            )
        return cls([word for _, word in sorted(frequent)[: max_size - 1]])

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The index of each token; 0 where it is unknown."""
        index = self._index
        return [index.get(token, 0) for token in tokens]

    def decode(self, indices: Iterable[int]) -> list[str]:
        """The word at each index.

        Raises:
            IndexError: for an index outside `0 .. len(self) - 1`.
        """
        words = []
        for index in indices:
            if not 0 <= index < len(self._words):
                raise IndexError(f"index {index} is outside a vocabulary of {len(self._words)}")
            words.append(self._words[index])
        return words

    def unknown_rate(self, tokens: Iterable[str]) -> float:
        """The share of the tokens with index 0, between 0 and 1 (0 for no tokens)."""
        indices = self.encode(tokens)
        return indices.count(0) / len(indices) if indices else 0.0

    def to_list(self) -> list[str]:
        """Every word in index order, `<unk>` first: plain data for a checkpoint."""
        return list(self._words)

    @classmethod
    def from_list(cls, words: Sequence[str]) -> Vocabulary:
        """The inverse of `to_list`.

        Raises:
            ValueError: if the list does not start with `<unk>`, or as the constructor.
        """
        if list(words[:1]) != [UNKNOWN]:
            raise ValueError(f"a saved vocabulary starts with {UNKNOWN}")
        return cls(words)

    def save(self, path: str | os.PathLike) -> None:
        """Writes one word a line in index order.

        Raises:
            UserError: if the file cannot be written.
        """
        write_atomically(path, "".join(f"{word}\n" for word in self._words))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Vocabulary:
        """Reads a list of one word a line; `<unk>`, in either case, need not be in it.

        Raises:
            UserError: naming the line that is blank, holds several words or repeats an earlier one.
        """
        seen: dict[str, int] = {}
        for number, word in enumerate(read_lines(path), start=1):
            if word.split() != [word]:
                raise UserError(f"{path}, line {number}: one word is wanted, not {word!r}")
            if word.lower() == UNKNOWN:
                word = UNKNOWN
            if seen.setdefault(word, number) != number:
                raise UserError(f"{path}, line {number}: {word!r} stands in line {seen[word]} too")
            if word == UNKNOWN and number > 1:
                raise UserError(f"{path}, line {number}: {UNKNOWN} may only be the first word")
        return cls(list(seen))

    def __contains__(self, word: str) -> bool:
        return word in self._index

    def __len__(self) -> int:
        return len(self._words)

    def __eq__(self, other) -> bool:
        return isinstance(other, Vocabulary) and self._words == other._words

    __hash__ = None

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words)"
