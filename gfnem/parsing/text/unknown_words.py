"""Classes of unknown words by how these are written, as parsers of treebanks have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping

from gfnem.parsing.text.characters import is_word

#: what a class begins with in a vocabulary
CLASS = "<unk:"
#: fewest tokens of a class
FEWEST = 20
#: characters of the ends that tell classes apart, the longest first
ENDS = (3, 2, 1)


def classes_of(word: str) -> Iterator[str]:
    """The classes that a word may fall in, the narrowest first.

    A class is a kind of word, by digits, hyphens and capitals, and for most kinds the word's end.
    """
    kind, with_end = "word", True
    if not is_word(word):
        kind, with_end = "mark", False
    elif any(character.isdigit() for character in word):
        with_end = any(character.isalpha() for character in word)
        kind = "digit" if with_end else "number"
    elif "-" in word[1:-1]:
        kind = "hyphen"
    elif word[:1].isupper():
        kind = "capital"
    if with_end:
        for size in ENDS:
            if len(word) >= size + 2:
                yield f"{CLASS}{kind}-{word[-size:].lower()}>"
    yield f"{CLASS}{kind}>"


def class_of(word: str, known: Container[str]) -> str | None:
    """The narrowest class of a word that is `known`; None if there is none."""
    return next((name for name in classes_of(word) if name in known), None)


def choose_classes(counts: Mapping[str, int]) -> list[str]:
    """The classes that some unknown words make, the largest first.

    Words go to the narrowest of their classes that is large enough, `FEWEST` tokens or more of
    words that have found none that is narrower; the rest stay without.

    Args:
        counts: tokens of each unknown word.
    """
    left = {word: list(classes_of(word)) for word in counts}
    chosen: Counter[str] = Counter()
    for depth in range(len(ENDS) + 1, 0, -1):
        # classes so many steps from the widest one
        sizes: Counter[str] = Counter()
        for word, names in left.items():
            if len(names) >= depth:
                sizes[names[-depth]] += counts[word]
        large = {name: size for name, size in sizes.items() if size >= FEWEST}
        chosen.update(large)
        left = {
            word: names
            for word, names in left.items()
            if len(names) < depth or names[-depth] not in large
        }
    return sorted(chosen, key=lambda name: (-chosen[name], name))
