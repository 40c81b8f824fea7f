"""CoNLL-U files: what is read of them, what is refused, and what is written."""

import pytest

from gfnem.errors import UserError
from gfnem.parsing.dependencies.conllu import located, read_conllu, written
from gfnem.parsing.dependencies.scores import attachment, chains

#: a word of two tokens, an empty node, and punctuation that has dependents
TEXT = """\
# text = "Don't", said he.
1\t"\t"\tPUNCT\t_\t_\t2\tpunct\t_\t_
2-3\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tDo\tdo\tAUX\tVB\t_\t4\tccomp\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\t,\t,\tPUNCT\t_\t_\t5\tpunct\t_\t_
5\tsaid\tsay\tVERB\tVBD\t_\t0\troot\t_\t_
5.1\tit\t_\t_\t_\t_\t_\t_\t_\t_
6\the\the\tPRON\tPRP\t_\t5\tnsubj\t_\t_

1\t?!\t?!\tPUNCT\t_\t_\t0\troot\t_\t_
2\tyes\tyes\tINTJ\tUH\t_\t1\tdep\t_\t_
3\tno\tno\tINTJ\tUH\t_\t1\tdep\t_\t_
"""


def row(number=1, head="0", columns=10):
    return "\t".join([str(number), "word", *"____", head, *"___"][:columns]) + "\n"


def test_punctuation_is_left_out_and_what_hangs_from_it_moves_up(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text(TEXT)
    first, second = read_conllu(path)
    assert first.words == ["Do", "n't", "said", "he"] and first.heads == [3, 3, 0, 3]
    assert second.words == ["yes", "no"] and second.heads == [0, 1]
    assert (first.line, second.line) == (2, 11)
    tagged = list(read_conllu(path, "upos"))
    tags = [sentence.words for sentence in tagged]
    assert tags == [["AUX", "PART", "VERB", "PRON"], ["INTJ", "INTJ"]]
    assert [sentence.forms for sentence in tagged] == [first.words, second.words]


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text(written(["a", "b", "c"], [2, 0, 2], ["text = a b c"]) + row(head="_"))
    one, other = read_conllu(path)
    assert one.words == ["a", "b", "c"] and one.heads == [2, 0, 2]
    assert other.heads is None, "a file may lack heads"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (row(columns=9), "line 1: 9 columns"),
        (row() + row(number=3), "line 2: the ID is '3', not 2"),
        (row(head="2"), "line 1: the head '2'"),
        (
            row(head="2") + row(number=2, head="1"),
            "line 1: the heads above word 1 lead in a circle",
        ),
        ("# nothing", "no sentence in it"),
        ("The dog saw a cat.\n", "line 1: 1 columns.* plain text needs another ending"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, says):
    path = tmp_path / "a.conllu"
    path.write_text(text)
    with pytest.raises(UserError, match=f"a.conllu[:,] {says}"):
        list(read_conllu(path))


def test_files_of_other_encodings_are_read_where_they_are_named(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_bytes(row().replace("word", "mögen").encode("latin-1"))
    assert next(read_conllu(path, "form", "latin-1")).words == ["mögen"]
    with pytest.raises(UserError, match=r"a.conllu, line 1: not UTF-8 .*--dataset.encoding"):
        list(read_conllu(path))


def test_columns_are_named_after_the_file():
    assert located("a.conllu:upos") == located("a.conllu", "upos")
    assert located("a.conllu")[1] is None and located("a.txt") is None
    with pytest.raises(UserError, match="no column 'tag'"):
        located("a.conllu:tag")


def test_attachment_scores_are_counted_over_words():
    gold = [[2, 0, 2], [0]]
    assert attachment(gold, gold) == {"uas": 100, "undirected_uas": 100}
    turned = attachment([[0, 1, 2], [0]], gold)  # one arc turned round
    assert turned == {"uas": 50, "undirected_uas": 75}
    assert chains([3, 1]) == {"previous": [[0, 1, 2], [0]], "next": [[2, 3, 0], [0]]}
