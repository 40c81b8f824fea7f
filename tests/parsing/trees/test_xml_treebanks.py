"""Trees in XML: TIGER's and Alpino's."""

import pytest

from gfnem.errors import UserError
from gfnem.parsing.text.corpus import read_corpus
from gfnem.parsing.trees.treebank import read_treebank

# "Das Buch hat er gelesen": the VP (das Buch, gelesen) has a gap
TIGER = """<?xml version="1.0" encoding="ISO-8859-1"?>
<corpus><body><s id="s1"><graph root="s1_502">
<terminals>
<t id="s1_1" word="Das" pos="ART"/><t id="s1_2" word="B\xfcchlein" pos="NN"/>
<t id="s1_3" word="hat" pos="VAFIN"/><t id="s1_4" word="er" pos="PPER"/>
<t id="s1_5" word="gelesen" pos="VVPP"/><t id="s1_6" word="(" pos="$("/>
</terminals>
<nonterminals>
<nt id="s1_500" cat="NP"><edge label="NK" idref="s1_1"/><edge label="NK" idref="s1_2"/></nt>
<nt id="s1_501" cat="VP"><edge label="OA" idref="s1_500"/><edge label="HD" idref="s1_5"/></nt>
<nt id="s1_502" cat="S"><edge label="OC" idref="s1_501"/><edge label="HD" idref="s1_3"/>
<edge label="SB" idref="s1_4"/></nt>
</nonterminals></graph></s></body></corpus>"""

# words out of order in the tree, and an empty node that stands for one of them
ALPINO = """<?xml version="1.0" encoding="UTF-8"?>
<treebank><alpino_ds><node begin="0" cat="top" end="4">
<node begin="0" cat="smain" end="4">
<node begin="1" end="2" pos="verb" word="leest"/>
<node begin="0" end="1" pos="name" word="Jan" index="1"/>
<node begin="2" cat="np" end="4"><node begin="3" end="4" pos="noun" word="boek"/>
<node begin="2" end="3" pos="det" word="een"/><node begin="0" end="1" index="1"/></node>
</node></node><sentence>Jan leest een boek</sentence></alpino_ds></treebank>"""


def test_a_phrase_with_a_gap_is_left_out(tmp_path):
    file = tmp_path / "tiger.xml"
    file.write_bytes(TIGER.encode("latin-1"))
    (gold,) = read_treebank(file)
    assert gold.tokens == ["Das", "Büchlein", "hat", "er", "gelesen"]
    assert gold.tags == ["ART", "NN", "VAFIN", "PPER", "VVPP"]
    assert gold.spans == {(0, 5), (0, 2)}
    (kept,) = read_treebank(file, keep_punctuation=True)
    assert kept.tokens[-1] == "(" and kept.spans == {(0, 6), (0, 5), (0, 2)}


def test_alpino_words_stand_in_their_order(tmp_path):
    file = tmp_path / "alpino.xml"
    file.write_text(ALPINO)
    corpus = read_corpus(file)  # by its name alone
    assert corpus.unit == "trees" and corpus.tokens == [["jan", "leest", "een", "boek"]]
    assert corpus.spans == [{(0, 4), (2, 4)}]
    assert corpus.labels[0][2, 4] == "np"


def test_other_files_of_a_folder_are_not_taken_for_trees(tmp_path):
    (tmp_path / "build.xml").write_text("<project/>")
    (tmp_path / "text.txt").write_text("the dog sees a cat\n")
    assert read_corpus(tmp_path).unit == "lines"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("<corpus><s>", "not well-formed"),
        ("<html><p>a</p></html>", "no tree"),
        ("", "not well-formed"),
        ("<s><t id='1'/></s>", "lacks 'word'"),
        (
            "<s><t id='1' word='a'/><nt id='2'><edge idref='3'/></nt>"
            "<nt id='3'><edge idref='2'/></nt><nt id='4'><edge idref='2'/></nt></s>",
            "below itself",
        ),
    ],
)
def test_damaged_files_cost_one_line(tmp_path, content, why):
    file = tmp_path / "bad.xml"
    file.write_text(content)
    with pytest.raises(UserError, match=why):
        list(read_treebank(file))
