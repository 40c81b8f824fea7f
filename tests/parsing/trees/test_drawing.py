import re
from itertools import pairwise
from xml.dom import minidom

import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.trees.drawing import bracket, forest_png, tree_svg, tree_text, trees_page
from gfnem.parsing.trees.treebank import gold_tree

PLAIN = Tree.fromstring("(S (NP (DT the) (NN cat)) (VP (VBZ sleeps)))")
# Bare words beside phrases, as the samplers make them, with everything that needs escaping.
HARD = Tree(
    "S<", [Tree("A&B", ["x<&>", "(b)"]), '日本"', Tree("C", [Tree("D", ["$a$"]), "e\x1bf"])]
)


def _deep(levels):
    tree = "w"
    for _ in range(levels):
        tree = Tree("X", ["w", tree])
    return tree


def test_brackets_read_back():
    assert bracket(PLAIN) == "(S (NP (DT the) (NN cat)) (VP (VBZ sleeps)))"
    assert bracket(Tree("X", ["a b", "(c)"])) == "(X a_b -LRB-c-RRB-)"
    tree = Tree("S", [Tree("-LRB-", ["("]), Tree("NN", ["a<&>b"]), Tree("-RRB-", [")"])])
    assert gold_tree(Tree.fromstring(bracket(tree)), keep_punctuation=True).tree == tree
    assert bracket(_deep(3000)).count("(X w ") == 3000


def test_svg_is_xml_and_shows_every_text():
    texts = [
        node.firstChild.data
        for node in minidom.parseString(tree_svg(HARD)).getElementsByTagName("text")
    ]
    words = ["x<&>", "(b)", '日本"', "$a$", "e\ufffdf"]
    assert sorted(texts) == sorted([*words, "S<", "A&B", "C", "D"])
    assert [text for text in texts if text in words] == words


@pytest.mark.parametrize("tree", [PLAIN, HARD, _deep(30), Tree("TOP", ["one"])])
def test_nothing_overlaps_and_words_keep_their_order(tree):
    svg = minidom.parseString(tree_svg(tree)).documentElement
    width, height = float(svg.getAttribute("width")), float(svg.getAttribute("height"))
    rows = {}
    for node in svg.getElementsByTagName("text"):
        x, y = float(node.getAttribute("x")), float(node.getAttribute("y"))
        half = 4 * len(node.firstChild.data)  # pixels, about half the width of the text
        assert 0 <= x - half + 8 and x + half - 8 <= width and 0 < y < height
        rows.setdefault(y, []).append((x - half, x + half, node.firstChild.data))
    for row in rows.values():
        row.sort()
        for (_, end, _), (start, _, _) in pairwise(row):
            assert end < start
    words = [text for _, _, text in rows[max(rows)]]
    assert words == [leaf.replace("\x1b", "\ufffd") for leaf in tree.leaves()]


def test_page_escapes_titles_and_holds_every_tree():
    page = trees_page([("a <b> & c", PLAIN), ("second", HARD)], title="<script>")
    assert "<script>" not in page and "a &lt;b&gt; &amp; c" in page
    assert page.count("<svg ") == 2 and '<meta charset="utf-8">' in page
    body = re.sub(r"^.*?(?=<body>)", "", page, flags=re.S).replace("</html>", "")
    minidom.parseString(body)


def test_terminal_text_keeps_the_order_of_words():
    last = tree_text(HARD).splitlines()[-1]
    positions = [last.index(word) for word in ["x<&>", "(b)", '日本"', "$a$", "e\ufffdf"]]
    assert positions == sorted(positions)
    assert tree_text(PLAIN).splitlines()[-1].split() == ["the", "cat", "sleeps"]
    assert "\x1b" not in tree_text(HARD)
    assert tree_text(Tree("TOP", ["a-very-long-word-that-is-not-wrapped"])).count("\n") == 3


def test_png(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "new" / "forest.png"
    latin = HARD.copy(deep=True)
    latin[1] = "na\u00efve"  # whether a machine has fonts for others is not known
    forest_png([("gold $x", PLAIN), ("predicted $y_$", latin)], path)
    image = imread(path)
    assert image.ndim == 3 and (image[..., :3] < 0.5).any() and image[0, 0, :3].min() == 1.0
    edges = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge[:, :3] == 1.0).all() for edge in edges)  # nothing is cut off


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(UserError, match="no tree to draw"):
        forest_png([], tmp_path / "x.png")
    with pytest.raises(UserError, match="draw fewer"):
        forest_png([("t", PLAIN)] * 500, tmp_path / "x.png")
    for draw in (tree_svg, tree_text):
        with pytest.raises(UserError, match="too deep to draw"):
            draw(_deep(2000))
    assert list(tmp_path.iterdir()) == []
