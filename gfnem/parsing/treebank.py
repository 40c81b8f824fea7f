"""Bracketed trees in, gold words and spans out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from nltk import Tree

from gfnem.errors import UserError
from gfnem.files import read_text

EXTENSIONS = (".mrg", ".ptb", ".tree", ".psd")
TRACE = "-NONE-"
PUNCTUATION_TAGS = frozenset(
    [",", ".", ":", "``", "''", "-LRB-", "-RRB-", "$", "#", "HYPH", "SYM", "NFP"]
)

CONVENTION = (
    "Gold trees: traces (-NONE-) are removed, and so are words whose tag is one of "
    + " ".join(sorted(PUNCTUATION_TAGS))
    + " unless punctuation is kept; phrases left without words disappear; spans count the "
    "remaining words, and a chain of phrases over the same words is one span; function tags are "
    "cut off labels (NP-SBJ becomes NP)."
)

_UNESCAPE = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
}
_BRACKET = re.compile(r"[()]")
# Some releases of the Penn Treebank open their files with a notice in lines such as `*x*x*`.
_NOTICE = re.compile(r"^\*x\*.*$", re.MULTILINE)


@dataclass
class GoldTree:
    """One sentence of a treebank after the removals of `CONVENTION`.

    Attributes:
        tokens: the words kept, as spelt (`-LRB-` is read as a bracket); may be empty.
        tags: one part-of-speech tag a word; empty for a word that stands bare in a phrase.
        spans: half-open `(left, right)` in kept tokens, each of two words or more; the whole
            sentence is one of them.
        tree: the tree of what was kept, leaves as in `tokens`; None if there are none.
        source: the file's path.
        line: the line, from 1, on which the tree begins.
    """

    tokens: list[str]
    tags: list[str]
    spans: set[tuple[int, int]]
    tree: Tree | None
    source: str = ""
    line: int = 0


@dataclass
class _Kept:
    """What the walk over one tree gathers."""

    punctuation: bool
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    spans: set[tuple[int, int]] = field(default_factory=set)


def read_treebank(path: str | os.PathLike, *, keep_punctuation: bool = False) -> Iterator[GoldTree]:
    """Every tree of a file, or of all tree files in a folder and below (in order of their paths).

    A file named directly may have any extension; in a folder those of `EXTENSIONS` are read.

    Raises:
        UserError: if there is nothing to read, or a file is not UTF-8 text, empty or not
            well-formed brackets (naming the line).
    """
    for file in tree_files(path):
        text = read_text(file)
        count = 0
        for line, expression in expressions(text, str(file)):
            count += 1
            try:
                gold = gold_tree(_parse(expression), keep_punctuation=keep_punctuation)
            except RecursionError as error:
                raise UserError(f"{file}, line {line}: the tree is nested too deeply") from error
            except ValueError as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"{file}, line {line}: not a tree ({reason})") from error
            gold.source, gold.line = str(file), line
            yield gold
        if not count:
            raise UserError(f"{file}: no tree in it")


def tree_files(path: str | os.PathLike) -> list[Path]:
    """The file itself, or the tree files in a folder and below, sorted by path.

    Raises:
        UserError: if there is no such path, or no tree file in the folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]  # a missing file is reported on reading
    files = sorted(
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )
    if not files:
        raise UserError(f"{path}: no tree file in this folder (looked for {' '.join(EXTENSIONS)})")
    return files


def is_bracketed(text: str) -> bool:
    """Whether a text is bracketed trees rather than sentences.

    It is if it begins with a bracket that holds a bracket or two words, and after that bracket's
    end comes another bracket or nothing: "(see above) he said" and "(Laughter.)" are sentences.
    A first bracket that never ends is taken for a broken tree.
    """
    start = re.match(r"\s*\(\s*(\(|[^\s()]+\s*\(|[^\s()]+\s+[^\s()]+)", _NOTICE.sub("", text))
    if not start:
        return False
    depth = 0
    text = _NOTICE.sub("", text)
    for match in _BRACKET.finditer(text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            rest = re.compile(r"\s*").match(text, match.end()).end()
            return rest == len(text) or text[rest] == "("
    return True


def expressions(text: str, name: str) -> Iterator[tuple[int, str]]:
    """Cuts a text into its outermost brackets: `(line, expression)`, lines from 1.

    Raises:
        UserError: naming the line of a bracket that is never closed or never opened, or of text
            outside all brackets.
    """
    depth = start = end = 0
    line, counted = 1, 0  # `line` is the line of position `counted`
    text = _NOTICE.sub("", text)

    def outside(until: int) -> None:
        stray = text[end:until].strip()
        if stray:
            where = text.index(stray, end)
            number = line + text.count("\n", counted, where)
            raise UserError(f"{name}, line {number}: text outside all brackets: {stray[:30]!r}")

    for match in _BRACKET.finditer(text):
        if match[0] == "(":
            if depth == 0:
                start = match.start()
                outside(start)
                line, counted = line + text.count("\n", counted, start), start
            depth += 1
        else:
            depth -= 1
            if depth < 0:
                number = line + text.count("\n", counted, match.start())
                raise UserError(f"{name}, line {number}: a closing bracket that none opened")
            if depth == 0:
                end = match.end()
                yield line, text[start:end]
    if depth:
        raise UserError(
            f"{name}, line {line}: unbalanced brackets: the tree that begins here lacks {depth} "
            "closing"
        )
    outside(len(text))


def gold_tree(tree: Tree, *, keep_punctuation: bool = False) -> GoldTree:
    """Applies `CONVENTION` to one tree, which is left as it is."""
    kept = _Kept(keep_punctuation)
    pruned = _prune(tree, kept)
    return GoldTree(kept.tokens, kept.tags, kept.spans, pruned)


def tree_spans(tree: Tree) -> set[tuple[int, int]]:
    """The half-open spans of two leaves or more in a tree, nothing removed."""
    spans: set[tuple[int, int]] = set()

    def walk(node: Tree | str, left: int) -> int:
        if isinstance(node, str):
            return left + 1
        right = left
        for child in node:
            right = walk(child, right)
        if right - left > 1:
            spans.add((left, right))
        return right

    walk(tree, 0)
    return spans


def _parse(expression: str) -> Tree:
    patterns = {}
    if "\\" in expression:
        # Otherwise NLTK reads a word that ends in a backslash as escaping the bracket after it.
        patterns = dict.fromkeys(("node_pattern", "leaf_pattern"), r"[^\s()]+")
    return Tree.fromstring(expression, remove_empty_top_bracketing=True, **patterns)


def _prune(node: Tree, kept: _Kept) -> Tree | None:
    left = len(kept.tokens)
    children: list[Tree | str] = []
    for child in node:
        if isinstance(child, Tree):
            pruned = _prune(child, kept)
            if pruned is not None:
                children.append(pruned)
            continue
        # A word alone under a node has that node for a tag; others stand bare in a phrase.
        tag = _category(node.label()) if len(node) == 1 else ""
        if tag == TRACE or (tag in PUNCTUATION_TAGS and not kept.punctuation):
            continue
        word = _UNESCAPE.get(child, child)
        if "\\" in word:
            word = word.replace("\\/", "/").replace("\\*", "*")
        kept.tokens.append(word)
        kept.tags.append(tag)
        children.append(word)
    right = len(kept.tokens)
    if right - left > 1:
        kept.spans.add((left, right))
    return Tree(_category(node.label()) or "TOP", children) if children else None


@lru_cache(maxsize=10_000)
def _category(label: str) -> str:
    """A label without function tags and indices; labels such as `-LRB-` stay whole."""
    if label.startswith("-"):
        return label
    return re.split(r"[-=]", label, maxsplit=1)[0] or label
