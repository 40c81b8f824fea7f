import os
import tarfile
from pathlib import Path

import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.trees.scores import SpanF1, left_branching, right_branching
from gfnem.parsing.trees.treebank import (
    CONVENTION,
    expressions,
    gold_tree,
    looks_bracketed,
    read_treebank,
    tree_files,
    tree_spans,
)

PENN = """( (S
    (NP-SBJ-1 (DT The) (NN cat) (-LRB- -LRB-) (JJ old) (-RRB- -RRB-))
    (VP (VBD was)
      (VP (VBN seen)
        (NP (-NONE- *-1))
        (PP-LOC=2 (IN in)
          (NP (NP (NNP May)) (CC and\\/or) (NNP June)))))
    (. .)) )
"""


def _file(folder, content, name="a.mrg"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_pauses_of_a_tree_are_those_of_its_text():
    tree = Tree.fromstring(
        "(S (X (, ,) (W A)) (-LRB- -LRB-) (X (W b) (HYPH -) (W c) (: --)) (W d) (, ,) (. .) (W e)"
        " (-NONE- *) (. .))"
    )
    gold, kept = gold_tree(tree), gold_tree(tree, keep_punctuation=True)
    assert gold.pauses == [1, 3, 4] == Preprocessing().cut_already(kept.tokens).pauses
    assert kept.pauses == []


def test_convention_on_a_penn_tree(tmp_path):
    [gold] = read_treebank(_file(tmp_path, PENN))
    assert gold.tokens == ["The", "cat", "old", "was", "seen", "in", "May", "and/or", "June"]
    assert gold.tags == ["DT", "NN", "JJ", "VBD", "VBN", "IN", "NNP", "CC", "NNP"]
    assert gold.spans == {(0, 9), (0, 3), (3, 9), (4, 9), (5, 9), (6, 9)}
    expected = (
        "(S (NP (DT The) (NN cat) (JJ old)) (VP (VBD was) (VP (VBN seen) (PP (IN in)"
        " (NP (NP (NNP May)) (CC and/or) (NNP June))))))"
    )
    assert gold.tree == Tree.fromstring(expected)
    assert gold.spans == tree_spans(gold.tree)
    assert (gold.source, gold.line) == (str(tmp_path / "a.mrg"), 1)
    assert "-NONE-" in CONVENTION and "letter or digit" in CONVENTION


def test_punctuation_can_be_kept(tmp_path):
    [gold] = read_treebank(_file(tmp_path, PENN), keep_punctuation=True)
    assert gold.tokens[2:5] == ["(", "old", ")"] and gold.tokens[-1] == "."
    assert gold.tags[2] == "-LRB-"
    assert (0, 5) in gold.spans and (0, 12) in gold.spans


def test_bare_words_unary_chains_and_emptied_trees():
    gold = gold_tree(Tree.fromstring("(S (X (Y (NP the dog))) barks (, ,) (Z (. .) (: --)))"))
    assert gold.tokens == ["the", "dog", "barks"] and gold.tags == ["", "", ""]
    assert gold.spans == {(0, 2), (0, 3)}
    assert gold_tree(Tree.fromstring("(NP (NN Abstract))")).spans == set()
    gold = gold_tree(Tree.fromstring("(S (NP (-NONE- *)) (. .))"))
    assert gold.tree is None and gold.tokens == [] and gold.spans == set()


def test_a_word_decides_for_itself_whatever_its_tag():
    gold = gold_tree(Tree.fromstring("(S (PU ，) (VV 日) ($, :) (PUNCT !) (NN 水) (SYM x) (NN %))"))
    assert gold.tokens == ["日", "水", "x"] and gold.removed == 4
    gold = gold_tree(Tree.fromstring("(S (NN -lrb-) (NN -LRB-) (NN a) (NN <UNK>) (POS ’s))"))
    assert gold.tokens == ["a", "<unk>", "'s"] and gold.removed == 2


@pytest.mark.slow
def test_trees_may_be_as_deep_as_they_like(tmp_path):
    deep = "(S " * 3000 + "(A a) (B b)" + ")" * 3000
    [gold] = read_treebank(_file(tmp_path, deep))
    assert gold.spans == {(0, 2)} == tree_spans(gold.tree)


def test_the_tree_given_is_left_alone():
    tree = Tree.fromstring(PENN, remove_empty_top_bracketing=True)
    before = str(tree)
    gold_tree(tree)
    assert str(tree) == before


def test_lines_are_those_of_the_file(tmp_path):
    text = "\ufeff*x*x* notice *x*\r\n\r\n(S (A a)\r\n (B b))\r\n(S (A c)) (S (A d))\r\n"
    golds = list(read_treebank(_file(tmp_path, text, "odd.name")))
    assert [(gold.line, gold.tokens) for gold in golds] == [(3, ["a", "b"]), (5, ["c"]), (5, ["d"])]


def test_a_word_ending_in_a_backslash(tmp_path):
    [gold] = read_treebank(_file(tmp_path, "(S (NN a) (NN b\\) (NN c))"))
    assert gold.tokens == ["a", "b\\", "c"]


def test_folders_are_read_in_order_and_below(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.PTB", "a.tree", "c.psd", "notes.txt", ".hidden.mrg"):
        _file(tmp_path, f"(S (A {name}))", name)
    assert [gold.tokens[0] for gold in read_treebank(tmp_path)] == ["a.tree", "b/2.PTB", "c.psd"]
    assert tree_files(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("(S (A a))\n\n(S (A b)\n", "line 3: unbalanced brackets: .* lacks 1"),
        ("(S (A a))\n(S (A b)))\n", "line 2: a closing bracket that none opened"),
        ("(S (A a))\n(S\n (A b))\nwords here\n(S (A c))", "line 4: text outside all brackets"),
        ("(S (A a))\nend", "line 2: text outside"),
        ("just a sentence\n", "line 1: text outside"),
        (" \n\n", "no tree in it"),
        ("", "the file is empty"),
        (b"(S (A a))\n(S (A \xff))", "line 2: not UTF-8"),
        (b"(S (A a\0))", "line 1: a NUL byte"),
    ],
)
def test_bad_files(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        list(read_treebank(_file(tmp_path, content)))
    assert "a.mrg" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder_without_trees(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        list(read_treebank(tmp_path / "none.mrg"))
    _file(tmp_path, "(S (A a))", "a.txt")
    with pytest.raises(UserError, match=r"no tree file.*\.mrg \.ptb \.tree \.psd"):
        list(read_treebank(tmp_path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PENN, True),
        ("(S (A a))\n(S (A b))", False),
        ("(S (A a) (B b))\nwhatever", True),
        ("( (S (NP (DT the) (NN cat)) (. .)) )", True),
        ("(TOP word)\n(X two words)\n", False),
        ("(S (NP broken\n", False),
        ("( + 1 ( * 2 3 ) )\n", False),
        ("(he left (at last) the room)\n", False),
        ("(see above) he said (A)\n", False),
        ("(Laughter.)\n(Applause.)\n", False),
        ("He said (A b)\n", False),
        ("", False),
    ],
)
def test_advice_about_texts_that_look_like_trees(text, expected):
    assert looks_bracketed(text) is expected


def test_expressions_cover_the_text():
    text = "(a (b c))(d e)\n\n (f\ng)"
    assert list(expressions(text, "x")) == [(1, "(a (b c))"), (1, "(d e)"), (3, "(f\ng)")]


@pytest.fixture(scope="module")
def craft(tmp_path_factory):
    here = Path(__file__).resolve().parents[3]
    data = Path(os.environ.get("GFNEM_TEST_DATA", here.parent / "shared" / "data"))
    archive = data / "craft-v5.0.2-penn-ccby88.tar.gz"
    if not archive.is_file():
        pytest.skip(f"needs {archive.name} in $GFNEM_TEST_DATA")
    folder = tmp_path_factory.mktemp("craft")
    with tarfile.open(archive) as tar:
        names = sorted(n for n in tar.getnames() if n.endswith(".tree"))[:12]
        for name in names:
            (folder / Path(name).name).write_bytes(tar.extractfile(name).read())
    return folder


@pytest.mark.slow
def test_baselines_on_real_trees(craft):
    left, right = SpanF1(), SpanF1()
    count = 0
    for gold in read_treebank(craft):
        count += 1
        n = len(gold.tokens)
        assert len(gold.tags) == n and all(0 <= a < b <= n for a, b in gold.spans)
        if gold.tree is not None:
            assert gold.tree.leaves() == gold.tokens and tree_spans(gold.tree) == gold.spans
        if 3 <= n <= 20:
            left.update(left_branching(n), gold.spans, n)
            right.update(right_branching(n), gold.spans, n)
    lines = [line for file in tree_files(craft) for line in file.read_text("utf-8").splitlines()]
    assert count == sum(bool(line.strip()) for line in lines)  # this treebank has a tree a line
    assert 36 < right.sentence_f1 < 45 and 9 < left.sentence_f1 < 16
