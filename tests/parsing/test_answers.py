"""Lines that come one by one or many at once, and answers in their order."""

import io

import pytest
from nltk import Tree

from gfnem.errors import UserError
from gfnem.parsing import answers
from gfnem.parsing.answers import Answer, LinesAtHand, windows
from gfnem.parsing.text.corpus import Line, read_sentences
from gfnem.parsing.trees.drawing import bracket, brackets
from gfnem.parsing.trees.trees import Trees


class Pipe(io.RawIOBase):
    """Gives one piece for each time it is read."""

    def __init__(self, *pieces: bytes):
        self.pieces = list(pieces)

    def readable(self):
        return True

    def readinto(self, buffer):
        piece = self.pieces.pop(0) if self.pieces else b""
        buffer[: len(piece)] = piece
        return len(piece)


def piped(*pieces: bytes) -> LinesAtHand:
    return LinesAtHand(io.BufferedReader(Pipe(*pieces)))


@pytest.mark.parametrize(
    "text", [b"", b"a", b"a\n", b"a\n\nb\n", b"\xef\xbb\xbfa b\r\nc", b"x" * 200_000 + b"\ny\n"]
)
def test_lines_are_those_of_the_stream(text):
    assert list(LinesAtHand(io.BytesIO(text))) == list(io.BytesIO(text))
    pieces = [text[start : start + 3] for start in range(0, min(len(text), 90), 3)]
    assert list(piped(*pieces)) == list(io.BytesIO(b"".join(pieces)))


def test_what_is_there_is_taken_together_and_nothing_is_waited_for():
    lines = piped(b"one\ntwo\nthr", b"ee\n", b"four\n", b"five")
    found = windows(read_sentences(lines), lines.at_hand)
    assert [[line.text for line in window] for window in found] == [
        ["one", "two"], ["three"], ["four"], ["five"],
    ]  # fmt: skip


def test_windows_are_full_where_lines_do_not_run_out(monkeypatch):
    monkeypatch.setattr(answers, "WINDOW", 4)
    lines = read_sentences([f"line {number}\n" for number in range(10)])
    assert [len(window) for window in windows(lines, lambda: True)] == [4, 4, 2]


def test_lines_before_a_bad_one_are_answered():
    found = windows(read_sentences([b"a dog\n", b"a cat\n", b"d\xe9j\xe0\n"]), lambda: True)
    assert [line.text for line in next(found)] == ["a dog", "a cat"]
    with pytest.raises(UserError, match="line 3"):
        next(found)


def test_brackets_are_those_of_the_trees():
    trees = Trees.from_nodes(
        [
            [
                [(0, 4, 2, 0), (0, 2, 1, 1), (2, 4, 3, 2)],
                [(0, 4, 3, 1), (0, 3, 1, 0), (1, 3, 2, 1)],
            ],
            [[], []],
            [[(0, 2, 1, 2)], [(0, 2, 1, 0)]],
        ],
        [4, 1, 2],
    )
    words, labels = [["a", "(b)", "c", "d e"], ["alone"], ["x", "y"]], ["S", "N P", "V)"]
    found = brackets(trees, words, labels)
    for row, sentence in enumerate(words):
        for sample in (0, 1):
            tree = trees.to_nltk(row, sentence, labels, sample)
            assert found[row][sample] == bracket(tree)
            assert Tree.fromstring(found[row][sample]).pformat(10**6) == found[row][sample]


def test_trees_have_the_words_of_the_line():
    line = Line(1, ["the", "(old)", "dog"], ["the", "(old)", "dog"])
    (tree,) = Answer(line, trees=["(X the (X -LRB-old-RRB- dog))"]).nltk()
    assert tree.leaves() == line.words
    assert [len(part) for part in tree.subtrees()] == [2, 2]
    assert not list(Answer(line, "no word in it").nltk())
