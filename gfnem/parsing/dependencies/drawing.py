"""Dependency trees as arcs above the words."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gfnem.page import escape

#: size of the letters, room between words and height of a step of arcs, in pixels
_SIZE, _ROOM, _STEP = 14, 16, 16


def heads_svg(words: Sequence[str], heads: Sequence[int]) -> str:
    """An SVG element: an arc from each head down to its dependent, the wall's from the top.

    Args:
        words: of the sentence.
        heads: 0 for the word that hangs from the wall, else the number of the head from 1.
    """
    return _picture(words, heads, 0)[0]


def _picture(words: Sequence[str], heads: Sequence[int], above: int) -> tuple[str, int, int]:
    """`heads_svg`, `above` pixels from the top of a larger picture; its width and height."""
    widths = [0.6 * _SIZE * sum(map(_cells, word)) for word in words]
    places = [sum(widths[:at]) + _ROOM * (at + 0.5) + widths[at] / 2 for at in range(len(words))]
    arcs = [(head - 1, at) for at, head in enumerate(heads) if head > 0]
    levels = {arc: _level(arc, arcs) for arc in arcs}
    ground = _STEP * (max(levels.values(), default=0) + 2)
    width, height = round(sum(widths) + _ROOM * len(words)), ground + 2 * _SIZE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" y="{above}" width="{width}" '
        f'height="{height}" font-family="monospace" font-size="{_SIZE}">'
    ]
    for (head, at), level in levels.items():
        start, end, top = places[head], places[at], ground - _STEP * level
        end += 3 if head > at else -3
        parts.append(
            _line(f"M{start:.1f},{ground} C{start:.1f},{top} {end:.1f},{top} ", end, ground)
        )
    for at, (word, place) in enumerate(zip(words, places, strict=True)):
        if heads[at] == 0:
            parts.append(_line(f"M{place:.1f},2 L", place, ground))
        parts.append(
            f'<text x="{place:.1f}" y="{ground + 1.4 * _SIZE:.1f}" '
            f'text-anchor="middle">{escape(word)}</text>'
        )
    return "".join([*parts, "</svg>"]), width, height


def stacked(trees: Sequence[tuple[Sequence[str], Sequence[int]]]) -> str:
    """Several trees, `(words, heads)`, below each other in one SVG file; longer heads are cut."""
    pictures, above, width = [], 0, 0
    for words, heads in trees:
        picture, wide, high = _picture(words, heads[: len(words)], above)
        pictures.append(picture)
        above, width = above + high + _ROOM, max(width, wide)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{above}">'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    return "".join([head, ground, *pictures, "</svg>\n"])


def _line(way: str, x: float, y: float) -> str:
    arrow = f'<path d="M{x - 3:.1f},{y - 6} L{x:.1f},{y} L{x + 3:.1f},{y - 6} Z"/>'
    return f'<path d="{way}{x:.1f},{y}" fill="none" stroke="black"/>{arrow}'


def _level(arc: tuple[int, int], arcs: Sequence[tuple[int, int]]) -> int:
    """How high an arc is drawn: above all that it spans."""
    low, high = sorted(arc)
    below = [other for other in arcs if other != arc and low <= min(other) and max(other) <= high]
    return 1 + max((_level(other, below) for other in below), default=0)


def _cells(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
