"""Sentences as they stand in a text, before what a grammar does not look at is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gfnem.parsing.text.characters import is_word, pause_places, within


@dataclass
class RawText:
    """A sentence.

    Attributes:
        words: its words.
        closed: of each word, whether the text pauses after it: at punctuation, or at its end.
        document: fingerprint of the document that it stands in.
    """

    words: list[str]
    closed: list[bool]
    document: int

    @classmethod
    def read(cls, tokens: Sequence[str], keep_punctuation: bool, document: int) -> RawText | None:
        """A sentence from its tokens, punctuation included; None if no word is in it.

        Args:
            tokens: words and punctuation.
            keep_punctuation: whether punctuation counts as words.
            document: fingerprint of its document.
        """
        words = [token for token in tokens if keep_punctuation or is_word(token)]
        if not words:
            return None
        closed = [False] * len(words)
        for place in within(pause_places(tokens, keep_punctuation), len(words)):
            closed[place - 1] = True
        closed[-1] = True
        return cls(words, closed, document)
