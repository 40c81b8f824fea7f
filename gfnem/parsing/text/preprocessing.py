"""How text becomes tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gfnem.parsing.text import tokenizers
from gfnem.parsing.text.characters import UNKNOWN, clean, is_word, pause_places, places, within

_DIGITS = re.compile(r"\d+")
# NLTK's tokenizer would take `<unk>` apart; it leaves letters together.
_STAND_IN = "ᚢᚾᚲ"
_UNKNOWN = re.compile(re.escape(UNKNOWN), re.IGNORECASE)
#: what may follow a sentence's last full stop
_QUOTES = frozenset("'\"")
_CLOSERS = frozenset("])}>\"'»”’")
#: marks that stand in numbers, times and abbreviations
_JOINING = frozenset(".,:")
#: pieces remembered; a text's frequent ones come again soon after they have been forgotten
_REMEMBERED = 200_000


@dataclass(frozen=True)
class Preprocessing:
    """How text becomes tokens; plain settings that belong in a checkpoint.

    Whatever the settings, a word has one spelling (see `characters.clean`).

    Attributes:
        tokenizer: `"word"` (NLTK's `NLTKWordTokenizer`, Penn Treebank style), `"space"` (the text
            is tokenised already), or one of `tokenizers.places`.
        lower: fold to lower case.
        digits: write each run of digits as `0`.
        punctuation: keep tokens without a letter or digit.

    Raises:
        UserError: for another tokenizer, or one that is not installed.
    """

    tokenizer: str = "word"
    lower: bool = True
    digits: bool = True
    punctuation: bool = False

    def __post_init__(self):
        object.__setattr__(self, "tokenizer", tokenizers.checked(self.tokenizer))

    def words(self, text: str) -> list[str]:
        """Cuts one sentence into its words as spelt, punctuation removed unless kept."""
        words = [clean(word) for _, words in self._cut(text) for word in words]
        return self.without_punctuation(words)

    def located(self, text: str) -> tuple[list[str], list[tuple[int, int]]]:
        """The words of one sentence, and the `[start, end)` of each in the characters of `text`."""
        found, offsets, place = [], [], 0
        for piece, words in self._cut(text):
            start = text.index(piece, place)
            place = start + len(piece)
            spots = places(piece)
            at = 0
            for word in words:
                # the tokenizer turns a double quote into a pair of single ones
                quote = word in ("``", "''") and clean(piece).startswith('"', at)
                end = at + (1 if quote else len(word))
                if kept := self.kept(word):
                    found.append(kept)
                    if spots is None:
                        offsets.append((start, place))
                    else:
                        offsets.append((start + spots[at][0], start + spots[end - 1][1]))
                at = end
        return found, offsets

    def cut(self, text: str) -> Part:
        """One sentence in words."""
        words: list[str] = []
        tokens: list[str] = []
        found: list[int] = []
        removed = 0
        for part in self._parts(text):
            if part.pauses:
                found += [len(words) + place for place in part.pauses]
            words += part.words
            tokens += part.tokens
            removed += part.removed
        return Part(words, tokens, removed, within(found, len(words)))

    def _parts(self, text: str) -> list[Part]:
        """One sentence in parts, most of which come from memory."""
        pieces = text.split()
        if not pieces:
            return []
        if self.tokenizer == "space":
            return [*map(self._middle.__getitem__, pieces)]
        if self.tokenizer == "word":
            last = self._last[pieces[-1]]
            # two quotes are others where nothing comes before them
            start = clean(pieces[0])[:2]
            if last is not None and (len(start) == 1 or not _QUOTES.issuperset(start)):
                return [*map(self._middle.__getitem__, pieces[:-1]), last]
        cut = self._cut(text)
        if self.tokenizer == "word":
            return [self._judged([word for _, words in cut for word in words])]
        # libraries that cut at marks cut numbers and abbreviations too
        joining, place = set(), 0
        for number, (piece, (word,)) in enumerate(cut):
            start = text.index(piece, place)
            place = start + len(piece)
            if word in _JOINING and (text[start - 1 : start] + text[place : place + 1]).isalnum():
                joining.add(number)
        return [self._judged([word for _, (word,) in cut], joining)]

    def without_punctuation(self, words: Sequence[str]) -> list[str]:
        """The words with a letter or digit in them, or all if punctuation is kept."""
        if self.punctuation:
            return list(words)
        return [word for word in words if is_word(word)]

    def cut_already(self, words: Iterable[str]) -> Part:
        """One sentence whose words are cut."""
        part = self._judged([spelt for word in words if (spelt := clean(word))])
        return part._replace(pauses=within(part.pauses, len(part.words)))

    def kept(self, word: str, of_tree: bool = False) -> str:
        """The one spelling of a word that is cut, "" if it goes; a tree has been pruned already."""
        word = clean(word)
        return word if of_tree or self.punctuation or is_word(word) else ""

    def normalise(self, words: Iterable[str]) -> list[str]:
        """Folds case and digits, word by word; `<unk>` has one spelling."""
        if self.lower:
            words = (word.lower() for word in words)
        else:
            words = (UNKNOWN if word.lower() == UNKNOWN else word for word in words)
        if self.digits:
            words = (_DIGITS.sub("0", word) for word in words)
        return list(words)

    def longer_than(self, text: str, length: int) -> bool:
        """Whether a text surely has more than `length` tokens, told without tokenising it.

        All tokenizers cut at white space at least, so each piece gives a token or more.
        """
        pieces = text.split()
        return len(pieces) > length and len(self.without_punctuation(list(map(clean, pieces)))) > (
            length
        )

    def _judged(self, words: Sequence[str], joining: Collection[int] = ()) -> Part:
        """Of words, some of which, by their numbers, are marks at which the text does not pause."""
        words = [clean(word) for word in words]
        kept = self.without_punctuation(words)
        found: list[int] = []
        if len(kept) < len(words):
            marked = (word for number, word in enumerate(words) if number not in joining)
            found = pause_places(marked)
        return Part(kept, self.normalise(kept), len(words) - len(kept), found)

    def _cut(self, text: str) -> list[tuple[str, list[str]]]:
        """The pieces between white space, each with the words it is made of."""
        if self.tokenizer not in ("word", "space"):
            found = [text[start:end] for start, end in self._places(text)]
            # each word is a piece of its own
            return [
                (piece, [spelt])
                for part in found
                for piece in part.split()
                if (spelt := clean(piece))
            ]
        pieces = [piece for piece in text.split() if clean(piece)]
        if self.tokenizer == "space":
            return [(piece, [clean(piece)]) for piece in pieces]
        words = iter(self._tokenize(" ".join(map(clean, pieces))))
        cut = []
        for piece in pieces:
            # no word reaches over white space, so the words make up the pieces one by one
            own: list[str] = []
            left = len(clean(piece))
            quotes = clean(piece)
            while left:
                word = next(words)
                quote = word in ("``", "''") and quotes[-left] == '"'
                left -= 1 if quote else len(word)
                own.append(word)
            cut.append((piece, own))
        return cut

    def _tokenize(self, text: str) -> list[str]:
        if "<" in text:
            marked, count = _UNKNOWN.subn(_STAND_IN, text)
            if count:
                words = self._nltk(marked)
                return [word.replace(_STAND_IN, UNKNOWN) for word in words]
        return self._nltk(text)

    @cached_property
    def _places(self) -> tokenizers.Places:
        return tokenizers.places(self.tokenizer)

    @cached_property
    def _nltk(self) -> Callable[[str], list[str]]:
        from nltk.tokenize import NLTKWordTokenizer

        return NLTKWordTokenizer().tokenize

    # NLTK's rules look no further than one white space, except for the end of the text (its last
    # full stop may have closing marks after it) and its beginning. So what a piece becomes depends
    # on the piece and on whether it is the first or the last, and most pieces of a text have been
    # seen before.

    @cached_property
    def _middle(self) -> _Pieces:
        def cut(piece: str) -> Part:
            if piece.isalpha() and piece.isascii() and not _CONTRACTED.search(piece):
                return Part([piece], [piece.lower() if self.lower else piece], 0, [])
            if self.tokenizer == "space":
                return self._judged([spelt] if (spelt := clean(piece)) else [])
            return self._judged(self._within(clean(piece), "x ", " x"))

        return _Pieces(cut)

    @cached_property
    def _last(self) -> _Pieces:
        """As `_middle`, None if what comes before the last piece must be known to cut the text."""

        def cut(piece: str) -> Part | None:
            word = clean(piece)
            if _CLOSERS.issuperset(word):
                return None
            if not _ENDING.search(word):
                return self._middle[piece]
            return self._judged(self._within(word, "x ", ""))

        return _Pieces(cut)

    def _within(self, piece: str, before: str, after: str) -> list[str]:
        """The words of a piece between a word before it and a word after it."""
        if simple := _SIMPLE.fullmatch(piece):
            opening, word, negated, clitic, marks = simple.groups(default="")
            core = word or negated[:-3]
            apart = negated[-3:] or clitic
            stop = marks[:1] == "." and after != ""  # in the middle of a text it stays where it is
            if not (_CONTRACTED.search(core) or (stop and apart)):
                words = ["``" if opening == '"' else opening] if opening else []
                words.append(f"{core}." if stop else core)
                if apart:
                    words.append(apart)
                words += ["''" if mark == '"' else mark for mark in marks[stop:]]
                return words
        words = self._tokenize(f"{before}{piece}{after}")
        return words[bool(before) : len(words) - bool(after)]


#: What NLTK's rules do to most pieces can be said without them, which are slow: a word or a number,
#: perhaps with a bracket or quote before it, with a clitic, and with one or two marks after it.
_SIMPLE = re.compile(
    r"""(["(]?)"""
    r"""(?:([A-Za-z0-9]+(?:-[A-Za-z0-9]+)*|[0-9]+(?:[.,][0-9]+)+)|([A-Za-z]+(?:n't|N'T)(?!')))"""
    r"""('(?:[sSmMdD]|ll|LL|re|RE|ve|VE))?([,;:?!)".]|[")][,;:?!.]|[,?!.]")?"""
)
#: words that NLTK's tokenizer takes apart
_CONTRACTED = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.IGNORECASE)
#: what the end of the text makes a difference to
_ENDING = re.compile("[.':,]")


class Part(NamedTuple):
    """What a sentence, or a part of it, becomes.

    Attributes:
        words: its words as spelt.
        tokens: the same normalised.
        removed: how many words were removed as punctuation.
        pauses: behind how many of the words the text pauses, at punctuation that was removed,
            rising; of a whole sentence pauses between two words alone.
    """

    words: list[str]
    tokens: list[str]
    removed: int
    pauses: list[int]


class _Pieces(dict):
    """What the pieces of a text become; the oldest are forgotten when there are too many."""

    def __init__(self, cut: Callable[[str], Part | None]):
        self.cut = cut

    def __missing__(self, piece: str) -> Part | None:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[piece] = made = self.cut(piece)
        return made
