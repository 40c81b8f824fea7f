"""Trees for people: brackets, terminal text, SVG, a web page, a PNG."""

from __future__ import annotations

import html
import io
import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from nltk import Tree

from gfnem.errors import UserError
from gfnem.files import write_atomically
from gfnem.parsing.trees.trees import Trees

# Sizes in pixels.
_FONT = 14
_FAMILY = "DejaVuSans"
# Verdana is as wide as the font that texts are measured in, and most others are narrower.
_SVG_FONTS = "DejaVu Sans, Verdana, sans-serif"
_GAP = 12
_ROW = 34
_MARGIN = 12
_TITLE = 30
_LABEL_COLOUR, _WORD_COLOUR, _EDGE_COLOUR = "#1f4e9c", "#1a1a1a", "#8a8a8a"
#: how much wider a bold title is, which is set a tenth larger
_BOLD = 1.1 * 1.15
_PNG_SIDE = 30_000
_MAX_DEPTH = 300

# Characters that XML 1.0 forbids and that a terminal might take for commands.
_SPECIAL = re.compile(r"[\s()]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def bracket(tree: Tree) -> str:
    """A tree on one line, as `(S (NP (DT the) (NN cat)) (VP (VBZ sleeps)))`.

    Round brackets in words and labels are written `-LRB-` and `-RRB-`, and white space in them
    `_`, so that the line can be read back.
    """
    if isinstance(tree, str):
        return _plain(tree)
    # A stack and not recursion: trees as deep as their sentence is long are common.
    parts: list[str] = []
    todo: list[Tree | str | None] = [tree]
    while todo:
        node = todo.pop()
        if node is None:
            parts.append(")")
        elif isinstance(node, Tree):
            parts.append(f" ({_plain(str(node.label()))}")
            todo += [None, *reversed(node)]
        else:
            parts.append(f" {_plain(str(node))}")
    return "".join(parts).lstrip()


def brackets(
    trees: Trees, sentences: Sequence[Sequence[str]], labels: Sequence[str]
) -> list[list[str]]:
    """All trees of a batch as `bracket` writes them, straight from the tensors.

    Args:
        trees: the batch.
        sentences: the words of each sentence.
        labels: the name of each nonterminal index.

    Returns:
        For each sentence one line for each of its samples.
    """
    opening = [f" ({_plain(label)}" for label in labels]
    tables = [table.tolist() for table in (trees.left, trees.right, trees.split, trees.label)]
    return [
        [
            _bracketed(nodes, [f" {_plain(word)}" for word in words], opening)
            for nodes in zip(*(table[row] for table in tables), strict=True)
        ]
        for row, words in enumerate(sentences)
    ]


def _bracketed(nodes: Sequence[list[int]], words: list[str], opening: list[str]) -> str:
    if len(words) == 1:
        return f"(TOP{words[0]})"
    left, right, split, label = nodes
    parts: list[str] = []
    todo: list[int | None] = [0]  # nodes by number; words by number, inverted; None for an end
    while todo:
        node = todo.pop()
        if node is None:
            parts.append(")")
        elif node < 0:
            parts.append(words[~node])
        else:
            start, middle, end = left[node], split[node], right[node]
            parts.append(opening[label[node]])
            todo += (
                None,
                ~middle if end - middle == 1 else node + middle - start,
                ~start if middle - start == 1 else node + 1,
            )
    return "".join(parts).lstrip()


def _plain(text: str) -> str:
    if _SPECIAL.search(text):
        text = text.replace("(", "-LRB-").replace(")", "-RRB-")
        text = _SPECIAL.sub("_", text)
    return text


def tree_text(tree: Tree) -> str:
    """A tree drawn with line characters for the terminal; ends in a line break.

    Raises:
        UserError: if the tree has more than 300 levels.
    """
    from nltk.tree.prettyprinter import TreePrettyPrinter

    _check_depth(tree)
    # With words for leaves NLTK numbers them node by node, which puts them into a wrong order where
    # words and phrases are sisters; with numbers for leaves it has no choice.
    words: list[str] = []
    drawing = TreePrettyPrinter(_numbered(tree, words), words).text(
        unicodelines=True, maxwidth=None
    )
    return "".join(f"{line.rstrip()}\n" for line in drawing.splitlines())


def _numbered(node, words: list[str]):
    """A copy with the leaves' numbers in their place; appends the leaves to `words`."""
    if isinstance(node, Tree):
        return Tree(_visible(node.label()), [_numbered(child, words) for child in node])
    words.append(_visible(node))
    return len(words) - 1


def _visible(text) -> str:
    return _CONTROL.sub("\ufffd", str(text))


def _check_depth(tree: Tree) -> None:
    # Drawing recurses, and nobody can read a drawing of more rows.
    level, depth = [tree], 0
    while level:
        level = [child for node in level if isinstance(node, Tree) for child in node]
        depth += 1
    if depth > _MAX_DEPTH:
        raise UserError(f"a tree of {depth} levels is too deep to draw ({_MAX_DEPTH} at most)")


@dataclass
class _Layout:
    """Where everything goes, in pixels from the top left.

    Attributes:
        texts: `(x of the middle, y of the middle, text, is it a word)`.
        lines: `(x1, y1, x2, y2)`, all level or upright, so that none crosses another.
        width, height: of the whole drawing.
    """

    width: float = 0.0
    height: float = 0.0
    texts: list[tuple[float, float, str, bool]] = field(default_factory=list)
    lines: list[tuple[float, float, float, float]] = field(default_factory=list)


def _text_width(text: str) -> float:
    """Pixels that a text takes at the size of words and labels."""
    return sum(map(_advance, text))


@cache
def _advance(character: str) -> float:
    """Pixels from one character to the next, in the font that comes with matplotlib.

    A character that it lacks is taken to be as wide as East Asian ones are, or as a wide letter.
    """
    if character in _own_glyphs():
        return _own_font().load_char(ord(character)).linearHoriAdvance / 2**16
    if _is_invisible(character):
        return 0.0
    return (1.2 if unicodedata.east_asian_width(character) in "WF" else 0.8) * _FONT


@cache
def _own_font():
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{_FAMILY}.ttf"))
    font.set_size(_FONT, 72)
    return font


@cache
def _own_glyphs() -> frozenset[str]:
    return _glyphs(_own_font())


def _glyphs(font) -> frozenset[str]:
    return frozenset(map(chr, font.get_charmap()))


def _is_invisible(character: str) -> bool:
    """Whether a character takes no place of its own: joiners, accents, variants of another."""
    return character.isspace() or unicodedata.category(character) in ("Cf", "Mn", "Me", "Zs")


def _families(texts: Iterable[str]) -> list[str]:
    """Font families on this machine that have every character of the texts, the usual one first.

    Raises:
        UserError: naming characters that no font has.
    """
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    families = ["DejaVu Sans"]
    missing = {c for text in texts for c in text if not _is_invisible(c)} - _own_glyphs()
    if not missing:
        return families
    found: dict[str, frozenset[str]] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.name.startswith("Last Resort"):  # a box for every character there is
            continue
        try:
            found.setdefault(entry.name, missing & _glyphs(FT2Font(entry.fname)))
        except (OSError, RuntimeError):  # fonts of pictures, say, which cannot be drawn with
            continue
    while missing:
        name = max(found, key=lambda name: len(found[name] & missing), default=None)
        if name is None or not found[name] & missing:
            shown = " ".join(sorted(missing)[:5])
            raise UserError(f"no font on this machine has the characters {shown}")
        families.append(name)
        missing -= found[name]
    return families


def _layout(tree: Tree) -> _Layout:
    """Words on the bottom row, each in a column of its own; a node above the middle of its own."""
    _check_depth(tree)
    layout = _Layout()
    right = float(_MARGIN)
    levels = tree.height() - 1

    def row(level: int) -> float:
        return _MARGIN + _FONT / 2 + (levels - level) * _ROW

    def place(node, room: float) -> tuple[float, int]:
        """Places a subtree at least `room` wide; returns its root's x and level above the words."""
        nonlocal right
        if not isinstance(node, Tree):
            text = _visible(node)
            width = max(_text_width(text), room)
            x = right + width / 2
            right += width + _GAP
            layout.texts.append((x, row(0), text, True))
            return x, 0
        label = _visible(node.label())
        wanted = _text_width(label)
        start, texts, lines = right, len(layout.texts), len(layout.lines)
        if len(node) == 1:
            children = [place(node[0], max(room, wanted))]
        else:
            children = [place(child, 0.0) for child in node]
        x = (children[0][0] + children[-1][0]) / 2 if children else start + wanted / 2
        # a label wider than what is below it: its subtree makes room on the left, then the right
        shift = max(0.0, start - (x - wanted / 2))
        if shift:
            layout.texts[texts:] = [(at + shift, *rest) for at, *rest in layout.texts[texts:]]
            layout.lines[lines:] = [
                (x1 + shift, y1, x2 + shift, y2) for x1, y1, x2, y2 in layout.lines[lines:]
            ]
            children = [(at + shift, level) for at, level in children]
            x += shift
        right = max(right + shift, x + wanted / 2 + _GAP, start + room + _GAP)
        level = max((level for _, level in children), default=0) + 1
        layout.texts.append((x, row(level), label, False))
        bar = row(level) + _ROW / 2
        if children:
            layout.lines.append((x, row(level) + 0.6 * _FONT, x, bar))
            if len(children) > 1:
                layout.lines.append((children[0][0], bar, children[-1][0], bar))
        for child_x, child_level in children:
            layout.lines.append((child_x, bar, child_x, row(child_level) - 0.7 * _FONT))
        return x, level

    place(tree, 0.0)
    layout.width = right - _GAP + _MARGIN
    layout.height = row(0) + _FONT / 2 + _MARGIN
    return layout


def tree_svg(tree: Tree) -> str:
    """A tree as an SVG element, words on one line at the bottom.

    Raises:
        UserError: if the tree has more than 300 levels.
    """
    layout = _layout(tree)
    width, height = f"{layout.width:.0f}", f"{layout.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_SVG_FONTS}" font-size="{_FONT}" '
        'text-anchor="middle">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<g stroke="{_EDGE_COLOUR}">',
    ]
    for x1, y1, x2, y2 in layout.lines:
        parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    parts.append("</g>")
    for x, y, text, word in layout.texts:
        colour = _WORD_COLOUR if word else _LABEL_COLOUR
        # The baseline by hand: not every viewer knows `dominant-baseline`.
        where = f'x="{x:.1f}" y="{y + 0.35 * _FONT:.1f}"'
        parts.append(f'<text {where} fill="{colour}">{html.escape(text, quote=False)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


#: a heading, and a tree or what to say in its place
Drawing = tuple[str, Tree | str]


def trees_page(trees: Sequence[Drawing], title: str = "Parse trees") -> str:
    """A web page (HTML, nothing loaded from elsewhere) with a heading and an SVG for each tree.

    Args:
        trees: pairs `(heading, tree)`. A text in place of a tree is printed as it is; a tree of
            more than 300 levels is named instead of drawn.
        title: of the page.
    """
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>{html.escape(_visible(title))}</title>",
        "<style>body { font-family: sans-serif; background: white; color: #1a1a1a } "
        "h2 { font-size: 1rem } div { overflow-x: auto }</style>\n</head>\n<body>",
        f"<h1>{html.escape(_visible(title))}</h1>",
    ]
    for heading, tree in trees:
        parts.append(f"<h2>{html.escape(_visible(heading))}</h2>")
        try:
            drawn = f"<div>{tree_svg(tree)}</div>" if isinstance(tree, Tree) else None
        except UserError as error:
            tree, drawn = str(error), None
        parts.append(drawn or f"<p>{html.escape(_visible(tree))}</p>")
    return "\n".join([*parts, "</body>\n</html>"]) + "\n"


def forest_png(trees: Sequence[tuple[str, Tree]], path: str | os.PathLike) -> None:
    """Draws trees below one another, each under its title, into a PNG file.

    Raises:
        UserError: if there is no tree, one has more than 300 levels, the picture would be more
            than 30,000 pixels wide or high, no font has some character, or the file cannot be
            written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    if not trees:
        raise UserError(f"{path}: no tree to draw")
    layouts = [(_visible(title), _layout(tree)) for title, tree in trees]
    width = max(
        max(layout.width, _BOLD * _text_width(title) + 2 * _MARGIN) for title, layout in layouts
    )
    height = sum(layout.height + _TITLE for _, layout in layouts)
    scale = 2  # pixels of the file for one of the layout, for sharp print
    if scale * max(width, height) > _PNG_SIDE:
        raise UserError(
            f"{path}: {len(layouts)} trees make a picture of {scale * width:.0f} x "
            f"{scale * height:.0f} pixels: draw fewer, or a web page"
        )
    try:
        families = _families(
            text for title, layout in layouts for text in (title, *(t[2] for t in layout.texts))
        )
    except UserError as error:
        raise UserError(f"{path}: {error}: draw a web page") from error
    figure = Figure(figsize=(width / 100, height / 100), dpi=100 * scale, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    points = 72 / 100  # of a layout pixel
    # `parse_math=False`: a word such as $x$ is a word.
    every = {"va": "center", "parse_math": False, "family": families}
    middle = {**every, "ha": "center", "fontsize": _FONT * points}
    top, segments = 0.0, []
    for title, layout in layouts:
        axes.text(
            _MARGIN,
            top + _TITLE / 2,
            title,
            fontsize=1.1 * _FONT * points,
            fontweight="bold",
            **every,
        )
        top += _TITLE
        segments += [((x1, top + y1), (x2, top + y2)) for x1, y1, x2, y2 in layout.lines]
        for x, y, text, word in layout.texts:
            axes.text(x, top + y, text, color=_WORD_COLOUR if word else _LABEL_COLOUR, **middle)
        top += layout.height
    axes.add_collection(LineCollection(segments, colors=_EDGE_COLOUR, linewidths=1), autolim=False)
    file = io.BytesIO()
    # a font without a bold face is drawn with as it is
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # marks that change another character, such as the form of an emoji
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas.print_png(file)
    write_atomically(path, file.getvalue())
