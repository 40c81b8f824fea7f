"""Treebanks in XML: TIGER-XML (Brants et al. 2002) and Alpino (van der Beek et al. 2002).

Both have phrases with gaps, which bracketed trees cannot hold. A phrase with a gap is left out; its
parts hang from the phrase above it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from gfnem.errors import UserError
from gfnem.files import READ_ERRORS, open_bytes, unreadable

EXTENSION = ".xml"

Leaves = list[tuple[str, str]]
Phrases = list[tuple[str, set[int]]]


def xml_expressions(file: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """The trees of a file as bracketed expressions, with their numbers from 1.

    Raises:
        UserError: if it cannot be read, is no XML, or has neither TIGER's nor Alpino's elements.
    """
    number = 0
    try:
        with open_bytes(file) as stream:
            for _, element in ElementTree.iterparse(stream):
                if element.tag not in _READERS:
                    continue
                leaves, phrases = _READERS[element.tag](element)
                element.clear()
                if leaves:
                    number += 1
                    yield number, _bracketed(leaves, phrases)
    except ElementTree.ParseError as error:
        raise UserError(f"{file}: not well-formed XML ({error})") from error
    except KeyError as error:
        raise UserError(f"{file}, tree {number + 1}: an element lacks {error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}, tree {number + 1}: a damaged tree ({error})") from error
    except READ_ERRORS as error:
        raise unreadable(file, error) from error
    if not number:
        raise UserError(
            f"{file}: no tree in it (looked for TIGER-XML's <s> and Alpino's <alpino_ds>)"
        )


def _tiger(sentence: Element) -> tuple[Leaves, Phrases]:
    leaves: Leaves = []
    place: dict[str, int] = {}
    for number, word in enumerate(sentence.iter("t")):
        place[word.attrib["id"]] = number
        leaves.append((word.get("pos", ""), word.attrib["word"]))
    nodes = {node.attrib["id"]: node for node in sentence.iter("nt")}
    children = {
        name: [edge.attrib["idref"] for edge in node.iter("edge")] for name, node in nodes.items()
    }
    below = {child for names in children.values() for child in names}
    phrases: Phrases = []

    def visit(name: str, above: tuple[str, ...]) -> set[int]:
        if name in place:
            return {place[name]}
        if name in above:
            raise ValueError(f"{name} is below itself")
        index = len(phrases)
        phrases.append((nodes[name].get("cat", ""), set()))
        for child in children[name]:
            phrases[index][1].update(visit(child, (*above, name)))
        return phrases[index][1]

    for name in nodes:
        if name not in below:
            visit(name, ())
    return leaves, phrases


def _alpino(sentence: Element) -> tuple[Leaves, Phrases]:
    words = [node for node in sentence.iter("node") if "word" in node.attrib]
    words.sort(key=lambda node: int(node.attrib["begin"]))
    place = {node: number for number, node in enumerate(words)}
    leaves = [(node.get("pos") or node.get("pt") or "", node.attrib["word"]) for node in words]
    phrases = [
        (node.get("cat", ""), {place[word] for word in node.iter("node") if word in place})
        for node in sentence.iter("node")
        if "cat" in node.attrib
    ]
    return leaves, phrases


_READERS = {"s": _tiger, "alpino_ds": _alpino}


def _bracketed(leaves: Leaves, phrases: Phrases) -> str:
    """The tree in brackets of the phrases without a gap, which are listed parents first."""
    spans = [(min(places), max(places) + 1, places, label) for label, places in phrases if places]
    kept = [
        (left, right, label) for left, right, places, label in spans if right - left == len(places)
    ]
    opening: list[list[str]] = [[] for _ in leaves]
    closing = [0] * len(leaves)
    for left, right, label in sorted(kept, key=lambda phrase: (phrase[0], -phrase[1])):
        opening[left].append(f"({_name(label) or 'X'} ")
        closing[right - 1] += 1
    words = (
        f"{''.join(opening[number])}({_name(tag) or 'X'} {_word(word)}){')' * closing[number]}"
        for number, (tag, word) in enumerate(leaves)
    )
    return f"(TOP {' '.join(words)})"


def _name(label: str) -> str:
    """A label or tag without what brackets mean something by."""
    return "".join("_" if char in "()" or char.isspace() else char for char in label)


def _word(word: str) -> str:
    return "".join(word.split()).replace("(", "-LRB-").replace(")", "-RRB-") or "_"
