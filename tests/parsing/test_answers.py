"""What is said of a line."""

from gfnem.parsing.answers import Answer
from gfnem.parsing.text.corpus import Line


def test_trees_have_the_words_of_the_line():
    line = Line(1, ["the", "(old)", "dog"], ["the", "(old)", "dog"])
    (tree,) = Answer(line, trees=["(X the (X -LRB-old-RRB- dog))"]).nltk()
    assert tree.leaves() == line.words
    assert [len(part) for part in tree.subtrees()] == [2, 2]
    assert not list(Answer(line, "no word in it").nltk())
