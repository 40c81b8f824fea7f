"""Words and their indices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from gfnem.errors import UserError
from gfnem.files import read_lines, write_atomically
from gfnem.parsing.text.characters import UNKNOWN, clean
from gfnem.parsing.text.unknown_words import CLASS, choose_classes, class_of

__all__ = ["UNKNOWN", "Vocabulary"]


class Vocabulary:
    """A two-way map between words and indices `0 .. len(self) - 1`; index 0 is `<unk>`.

    A text that spells `<unk>` itself, as some published corpora do, means index 0 by it; so it does
    by `<UNK>`. Where there are classes of unknown words, as `<unk:word-ing>`, a word that is not
    known has the index of the narrowest of them that it falls in, and index 0 if it falls in none.
    A text may name classes too; such names are no words of a vocabulary that is built from it.
    A word that is spelt as no text is read (see `characters.clean`), such as `-LRB-`, is also known
    by the spelling that texts are read with.

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
        # a grammar's words are spelt as it likes, those of a text in one way
        for index, word in enumerate(self._words):
            self._index.setdefault(clean(word), index)
        self._classes = {word for word in self._words if word.startswith(CLASS)}

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        min_count: int = 2,
        max_size: int = 10_000,
        classes: bool = False,
    ) -> Vocabulary:
        """The most frequent words of some tokenised sentences.

        The order is by falling count, words of equal count by code point, so the same sentences in
        any order give the same vocabulary.

        Args:
            sentences: lists of tokens.
            min_count: a word seen less often is unknown.
            max_size: the largest `len` of the result, `<unk>` included.
            classes: whether unknown words fall into classes by how they are written.

        Raises:
            UserError: if `max_size` leaves no room for a word, or no word is frequent enough.
        """
        counts: Counter[str] = Counter()
        for tokens in sentences:
            counts.update(tokens)
        return cls.from_counts(counts, min_count, max_size, classes)

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        min_count: int = 2,
        max_size: int = 10_000,
        classes: bool = False,
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
            if count > 0 and word.lower() != UNKNOWN and not word.startswith(CLASS)
        ]
        frequent = [entry for entry in counted if -entry[0] >= min_count]
        if not frequent:
            raise UserError(
                f"no word of {len(counted):,} comes {min_count} times or more: lower min_count"
            )
        words = [word for _, word in sorted(frequent)[: max_size - 1]]
        if not classes:
            return cls(words)
        known = set(words)
        named = choose_classes({word: -count for count, word in counted if word not in known})
        named = named[: max_size - 2]
        return cls([*words[: max_size - 1 - len(named)], *named])

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The index of each token; where it is unknown 0, or that of its class."""
        index = self._index
        if not self._classes:
            return [index.get(token, 0) for token in tokens]
        return [index[token] if token in index else self._of_class(token) for token in tokens]

    def _of_class(self, token: str) -> int:
        name = None if token.lower() == UNKNOWN else class_of(token, self._classes)
        return 0 if name is None else self._index[name]

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
        """The share of the tokens that are unknown, between 0 and 1 (0 for no tokens)."""
        named = self._classes | {UNKNOWN}
        unknown = [token in named or token not in self._index for token in tokens]
        return sum(unknown) / len(unknown) if unknown else 0.0

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
