"""Words of any script and length in pictures of trees."""

from itertools import pairwise
from xml.dom import minidom

import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.trees import drawing
from gfnem.parsing.trees.drawing import forest_png, tree_svg, trees_page


def measured(text):
    """Pixels of a text as matplotlib sets it, by another road than the one under test."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=14, prop=FontProperties(family="DejaVu Sans")).get_extents()


@pytest.mark.parametrize(
    "words",
    [
        ["W" * 40, "M" * 40, "@" * 20],
        ["i" * 40, "WWW", "l"],
        ["Donaudampfschifffahrtsgesellschaft", "MMMM-MMMM", "@@@@"],
    ],
)
def test_long_tokens_neither_overlap_nor_leave_the_picture(words):
    svg = minidom.parseString(tree_svg(Tree("W" * 30, [Tree("A", words[:1]), *words[1:]])))
    width = float(svg.documentElement.getAttribute("width"))
    rows = {}
    for node in svg.getElementsByTagName("text"):
        box = measured(node.firstChild.data)
        x, half = float(node.getAttribute("x")), box.width / 2
        assert x - half >= 0 and x + half <= width
        rows.setdefault(node.getAttribute("y"), []).append((x - half, x + half))
    for row in rows.values():
        for (_, end), (start, _) in pairwise(sorted(row)):
            assert end < start


def test_wide_characters_have_room():
    svg = minidom.parseString(tree_svg(Tree("S", ["犬が猫を", "見た見た見た"])))
    one, other = (
        float(node.getAttribute("x"))
        for node in svg.getElementsByTagName("text")
        if node.firstChild.data != "S"
    )
    assert other - one >= 14 * (4 + 6) / 2  # each is as wide as it is high


def test_a_picture_whose_characters_no_font_has(tmp_path, monkeypatch):
    nowhere = "\U00011bd0"  # a script for which there is no font here
    trees = [("one", Tree("S", ["a", nowhere]))]
    with pytest.raises(UserError, match="no font on this machine has the characters"):
        forest_png(trees, tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []
    assert nowhere in trees_page(trees)
    forest_png(
        [("é", Tree("S", ["e\u0301", "\u2764\ufe0f"]))], tmp_path / "x.png"
    )  # marks are fine


def test_fonts_of_the_machine_are_looked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "_own_glyphs", lambda: frozenset("ab"))
    assert len(drawing._families(["ab"])) == 1
    assert len(drawing._families(["abc"])) == 2  # as another has what is missing


def test_a_page_names_what_is_not_drawn():
    deep = "w"
    for _ in range(400):
        deep = Tree("X", ["w", deep])
    page = trees_page([("a", "200 tokens: not parsed"), ("b", deep), ("c", Tree("X", ["w", "v"]))])
    assert page.count("<svg") == 1 and page.count("<h2>") == 3
    assert "200 tokens: not parsed" in page and "too deep to draw" in page
