"""One spelling for each word: composed characters, straight quotes, nothing invisible."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

UNKNOWN = "<unk>"

#: characters without a shape or meaning of their own: marks of direction, zero-width spaces, ...
_INVISIBLE = (
    "\u00ad\u034f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
)
# Joiners make up emoji and spell words of Persian and Indic scripts, and are noise anywhere else.
_DROPPED = re.compile(
    f"[{_INVISIBLE}]|(?<![^\0-\u024f\\s])[\u200c\u200d]+|[\u200c\u200d]+(?![^\0-\u024f\\s])"
)
_STRAIGHT = str.maketrans({**dict.fromkeys("‘’‚‛′", "'"), **dict.fromkeys("“”„‟″", '"')})
_BRACKETS = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
}
_ESCAPED = re.compile(r"\\([/*])")
#: a character with what is composed with it (Hangul vowels and finals too), or an escape
_CLUSTER = re.compile(
    r"\\[/*]|.[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u093c\u09be\u09d7\u0b3e-\u0b57\u1161-\u11ff"
    r"\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f]*",
    re.DOTALL,
)
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")

#: punctuation at which text pauses, of several scripts; hyphens, slashes and quotes join instead
_PAUSES = frozenset(",;:.?!()[]{}–—―…‥⋯،؛؟۔।。｡、，﹐﹑；：？！（）「」『』〈〉《》【】")


def clean(word: str) -> str:
    """The one spelling of a piece of text without white space; may be empty.

    Unicode's NFC; typographic apostrophes and quotes become straight ones; invisible characters go;
    the Penn Treebank's escapes (`-LRB-`, in either case, and a backslash before a slash or a star)
    are undone; `<UNK>` in any case is `<unk>`.
    """
    if len(word) == 5:
        if word[0] == "-" and (bracket := _BRACKETS.get(word.upper())):
            return bracket
        if word[0] == "<" and word.lower() == UNKNOWN:
            return UNKNOWN
    if "\\" in word:
        word = _ESCAPED.sub(r"\1", word)
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _DROPPED.sub("", word)).translate(_STRAIGHT)


def is_word(word: str) -> bool:
    """Whether there is a letter or a digit in it, so that it is no punctuation."""
    return word.isalnum() or _LETTER_OR_DIGIT.search(word) is not None


def pauses(word: str) -> bool:
    """Whether a token is punctuation at which the text pauses, perhaps with a quote beside it."""
    return word == "--" or (not _PAUSES.isdisjoint(word) and not is_word(word))


def pause_places(words: Iterable[str], keep_punctuation: bool = False) -> list[int]:
    """Before which marks the text pauses, rising: how many words come before each.

    Args:
        words: words and punctuation.
        keep_punctuation: whether punctuation counts as words.
    """
    found, before = [], 0
    for word in words:
        if pauses(word):
            found.append(before)
        before += keep_punctuation or is_word(word)
    return found


def within(places: Iterable[int], words: int) -> list[int]:
    """Each place between two of so many words once, rising."""
    return sorted({place for place in places if 0 < place < words})


def places(word: str) -> list[tuple[int, int]] | None:
    """For each character of `clean(word)` the `[start, end)` in `word` that it is made of.

    None where they do not belong together one by one.
    """
    cleaned = clean(word)
    spots: list[tuple[int, int]] = []
    made = ""
    for cluster in _CLUSTER.finditer(word):
        part = clean(cluster[0])
        spots += [cluster.span()] * len(part)
        made += part
    return spots if made == cleaned else None
