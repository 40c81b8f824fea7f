"""Sentences as they stand in a text, before what a grammar does not look at is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gfnem.parsing.text.characters import is_word, pauses


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
        words: list[str] = []
        closed: list[bool] = []
        for token in tokens:
            if words and pauses(token):
                closed[-1] = True
            if keep_punctuation or is_word(token):
                words.append(token)
                closed.append(False)
        if not words:
            return None
        closed[-1] = True
        return cls(words, closed, document)
