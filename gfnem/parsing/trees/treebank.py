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
from gfnem.parsing.text.characters import clean, is_word, pauses, within
from gfnem.parsing.trees.labels import labelled_spans
from gfnem.parsing.trees.xml_treebanks import EXTENSION, xml_expressions

EXTENSIONS = (".mrg", ".ptb", ".tree", ".psd")
TRACE = "-NONE-"

CONVENTION = (
    "Gold trees: traces (-NONE-) are removed, and so are words without a letter or digit, whatever "
    "their tag, unless punctuation is kept; phrases left without words disappear; spans count the "
    "remaining words, and a chain of phrases over the same words is one span; function tags are "
    "cut off labels (NP-SBJ becomes NP)."
)

_BRACKET = re.compile(r"[()]")
_TOKEN = re.compile(r"\(\s*([^\s()]*)|\)|[^\s()]+")
_LEAF = re.compile(r"\([A-Z$.,:`'#-][^\s()]*\s+[^\s()]+\s*\)")
_PHRASE = re.compile(r"\(\s*(?:[A-Z][^\s()\0]*)?\s*\0(?:\s*\0)*\s*\)")
# Some releases of the Penn Treebank open their files with a notice in lines such as `*x*x*`.
_NOTICE = re.compile(r"^\*x\*.*$", re.MULTILINE)


class NotTrees(UserError):
    """A file that is no treebank.

    Attributes:
        reason: the message without its advice.
    """

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(
            f"{reason}; to train on it as text, one sentence a line, set format to text: "
            "--dataset.format text"
        )


@dataclass
class GoldTree:
    """One sentence of a treebank after the removals of `CONVENTION`.

    Attributes:
        tokens: the words kept, each in its one spelling (see `characters.clean`; `-LRB-` is read
            as a bracket); may be empty.
        tags: one part-of-speech tag a word; empty for a word that stands bare in a phrase.
        spans: half-open `(left, right)` in kept tokens, each of two words or more; the whole
            sentence is one of them.
        tree: the tree of what was kept, leaves as in `tokens`; None if there are none.
        source: the file's path.
        line: the line, from 1, on which the tree begins.
        removed: how many words were removed as punctuation.
        pauses: behind how many of the words kept the text pauses, at punctuation that was removed.
    """

    tokens: list[str]
    tags: list[str]
    spans: set[tuple[int, int]]
    tree: Tree | None
    source: str = ""
    line: int = 0
    removed: int = 0
    pauses: list[int] = field(default_factory=list)


@dataclass
class _Kept:
    """What the walk over one tree gathers."""

    punctuation: bool
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    spans: set[tuple[int, int]] = field(default_factory=set)
    removed: int = 0
    pauses: list[int] = field(default_factory=list)


def read_treebank(
    path: str | os.PathLike,
    *,
    keep_punctuation: bool = False,
    encoding: str = "utf-8",
    hint: str = "",
) -> Iterator[GoldTree]:
    """Every tree of a file, or of all tree files in a folder and below (in order of their paths).

    A file named directly may have any extension; in a folder those of `EXTENSIONS` are read. Either
    may be compressed with gzip.

    Args:
        path: the file or folder.
        keep_punctuation: whether to keep words without a letter or digit.
        encoding: of the files.
        hint: what to say after an error that lies in the encoding.

    Raises:
        UserError: if there is nothing to read, or a file is not text, empty or not well-formed
            brackets (naming the line).
    """
    for file in tree_files(path):
        for line, expression in file_expressions(file, encoding, hint):
            yield read_tree(expression, str(file), line, keep_punctuation)


def file_expressions(
    file: str | os.PathLike, encoding: str = "utf-8", hint: str = ""
) -> Iterator[tuple[int, str]]:
    """The outermost brackets of a file, see `expressions`; there must be one. Or the trees of XML.

    Raises:
        UserError: as `read_treebank`.
    """
    if _ends(file, (EXTENSION,)):  # which says its encoding itself
        yield from xml_expressions(file)
        return
    count = 0
    for count, (line, expression) in enumerate(  # noqa: B007
        expressions(read_text(file, encoding, hint), str(file)), start=1
    ):
        yield line, expression
    if not count:
        raise NotTrees(f"{file}: no tree in it")


def read_tree(expression: str, source: str, line: int, keep_punctuation: bool = False) -> GoldTree:
    """One expression as a tree, `CONVENTION` applied."""
    gold = gold_tree(parse_tree(expression), keep_punctuation=keep_punctuation)
    gold.source, gold.line = source, line
    return gold


def tree_files(path: str | os.PathLike) -> list[Path]:
    """The file itself, or the tree files in a folder and below, sorted by path.

    Raises:
        UserError: if there is no such path, or no tree file in the folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]  # a missing file is reported on reading
    names = [
        Path(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if not name.startswith(".")
    ]
    files = sorted(name for name in names if has_tree_name(name.name))
    files = files or sorted(name for name in names if _ends(name, (EXTENSION,)))
    if not files:
        raise UserError(f"{path}: no tree file in this folder (looked for {' '.join(EXTENSIONS)})")
    return files


def has_tree_name(name: str, xml: bool = False) -> bool:
    """Whether a file's name says that it holds trees: bracketed ones, or also those in XML.

    Of many files in a folder XML may be anything.
    """
    return _ends(name, (*EXTENSIONS, EXTENSION) if xml else EXTENSIONS)


def _ends(name: str | os.PathLike, extensions: tuple[str, ...]) -> bool:
    return os.fspath(name).lower().removesuffix(".gz").endswith(extensions)


def looks_bracketed(text: str) -> bool:
    """Whether the beginning of a text is surely a tree: `(label (tag word) ...)` throughout.

    Only for advice: there are formulas that look the same.
    """
    text = _NOTICE.sub("", text).lstrip()
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match[0] == "(" else -1
        if depth <= 0:
            text = text[: match.end()]
            break
    if depth or text.count("(") < 3:
        return False
    tree, count = _LEAF.subn("\0", text)
    while count:
        tree, count = _PHRASE.subn("\0", tree)
    return tree == "\0"


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
            what = f"line {number}: text outside all brackets: {stray[:30]!r}"
            if "(" in text:
                raise NotTrees(f"{name}, {what}")
            raise NotTrees(f"{name}: no trees in it ({what})")

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
                raise NotTrees(f"{name}, line {number}: a closing bracket that none opened")
            if depth == 0:
                end = match.end()
                yield line, text[start:end]
    if depth:
        raise NotTrees(
            f"{name}, line {line}: unbalanced brackets: the tree that begins here lacks {depth} "
            "closing"
        )
    outside(len(text))


def gold_tree(tree: Tree, *, keep_punctuation: bool = False) -> GoldTree:
    """Applies `CONVENTION` to one tree, which is left as it is."""
    kept = _Kept(keep_punctuation)
    pruned = _prune(tree, kept)
    return GoldTree(
        kept.tokens,
        kept.tags,
        kept.spans,
        pruned,
        removed=kept.removed,
        pauses=within(kept.pauses, len(kept.tokens)),
    )


def tree_words(tree: Tree) -> list[str]:
    """The leaves of a tree of any depth."""
    words: list[str] = []
    todo: list[Tree | str] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, Tree):
            todo += reversed(node)
        else:
            words.append(node)
    return words


def tree_spans(tree: Tree) -> set[tuple[int, int]]:
    """The half-open spans of two leaves or more in a tree, nothing removed."""
    return set(labelled_spans(tree))


def parse_tree(expression: str) -> Tree:
    """The tree of a balanced expression; an outermost bracket without a label is no node."""
    # `Tree.fromstring` refuses deep trees, and takes a backslash for an escape of a bracket
    top = Tree("", [])
    opened = [top]
    for match in _TOKEN.finditer(expression):
        token = match[0]
        if token == ")":
            opened.pop()
        elif token[0] == "(":
            node = Tree(match[1], [])
            opened[-1].append(node)
            opened.append(node)
        else:
            opened[-1].append(token)
    (tree,) = top
    return tree[0] if not tree.label() and len(tree) == 1 else tree


def _prune(tree: Tree, kept: _Kept) -> Tree | None:
    # each open node with its children still to come, those kept, and where it begins
    opened: list[tuple[Tree, Iterator, list[Tree | str], int]] = [(tree, iter(tree), [], 0)]
    while True:
        node, rest, children, left = opened[-1]
        for child in rest:
            if isinstance(child, Tree):
                opened.append((child, iter(child), [], len(kept.tokens)))
                break
            if word := _keep(child, node, kept):
                children.append(word)
        else:
            opened.pop()
            right = len(kept.tokens)
            if right - left > 1:
                kept.spans.add((left, right))
            pruned = Tree(_category(node.label()) or "TOP", children) if children else None
            if not opened:
                return pruned
            if pruned is not None:
                opened[-1][2].append(pruned)


def _keep(leaf: str, node: Tree, kept: _Kept) -> str:
    """The word of a leaf, noted with its tag; "" if it goes."""
    # A word alone under a node has that node for a tag; others stand bare in a phrase.
    tag = _category(node.label()) if len(node) == 1 else ""
    if tag == TRACE:
        return ""
    word = clean(leaf)
    if not (kept.punctuation or is_word(word)):
        kept.removed += 1
        if pauses(word):
            kept.pauses.append(len(kept.tokens))
        return ""
    if word:
        kept.tokens.append(word)
        kept.tags.append(tag)
    return word


@lru_cache(maxsize=10_000)
def _category(label: str) -> str:
    """A label without function tags and indices; labels such as `-LRB-` stay whole."""
    if label.startswith("-"):
        return label
    return re.split(r"[-=]", label, maxsplit=1)[0] or label
