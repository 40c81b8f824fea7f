"""The conversion against sums over derivations of the file's own, unconverted rules."""

import itertools
from pathlib import Path

import pytest
import torch
from grammar_files import ERRORS, GOOD, GRAMMARS, derivation_sum, inside
from nltk import PCFG
from nltk.grammar import Nonterminal

from gfnem.errors import UserError
from gfnem.parsing.grammars import binary_form, tabular
from gfnem.parsing.grammars.binary_form import read_grammar
from gfnem.parsing.grammars.tabular import TabularGrammar, find_grammar


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "toy.pcfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("text", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_conversion_keeps_every_sentences_probability(tmp_path, text):
    grammar = PCFG.fromstring(text)
    tables = read_grammar(write(tmp_path, text))
    positive = 0
    for length in range(1, 5):
        for sentence in itertools.product("ab", repeat=length):
            expected = derivation_sum(grammar, sentence)
            assert inside(tables, sentence) == pytest.approx(expected, rel=1e-5, abs=1e-12)
            positive += expected > 0
    assert positive > 3


@pytest.mark.parametrize("text", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_shapes_and_names(tmp_path, text):
    tables = read_grammar(write(tmp_path, text))
    n, t, w = len(tables.nonterminals), len(tables.preterminals), len(tables.words)
    assert tables.root.shape == (n + t,) and tables.rules.shape == (1, n, n + t, n + t)
    assert tables.emissions.shape == (1, t, w) and tables.words == ["a", "b"]
    assert {x.dtype for x in (tables.root, tables.rules, tables.emissions)} == {torch.float32}
    assert len(set(tables.nonterminals + tables.preterminals)) == n + t
    # Every symbol can be used at its width, and nothing is NaN or infinite upwards.
    assert tables.rules.flatten(2).isfinite().any(2).all()
    assert tables.emissions.isfinite().any(2).all()
    for table in (tables.root, tables.rules, tables.emissions):
        assert (table < torch.inf).all()


def test_binary_and_lexical_symbols_keep_names_and_probabilities(tmp_path):
    tables = read_grammar(write(tmp_path, GRAMMARS["plain"]))
    assert tables.nonterminals == ["S"] and tables.preterminals == ["A", "B"]
    rules = torch.zeros(1, 3, 3)
    rules[0, 1, 2], rules[0, 1, 0] = 0.6, 0.4
    torch.testing.assert_close(tables.rules[0].exp(), rules)
    torch.testing.assert_close(tables.emissions[0].exp(), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
    assert tables.root.tolist() == [0.0, -torch.inf, -torch.inf]


def test_fresh_symbols_are_named_after_what_they_stand_for(tmp_path):
    text = "S -> A B 'c' [0.5] | 'c' [0.5]\nA -> 'a' [1.0]\nB -> 'b' [1.0]\n"
    tables = read_grammar(write(tmp_path, text))
    assert tables.nonterminals == ["S", "S|B-'c'"]
    assert tables.preterminals == ["S|1", "A", "B", "'c'"]


def test_rounded_probabilities_are_rescaled(tmp_path):
    text = "S -> A A [0.3333] | A S [0.3333] | S A [0.3333]\nA -> 'a' [1]"
    rules = read_grammar(write(tmp_path, text)).rules.double().exp()
    assert float(rules.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("text,message", ERRORS.values(), ids=ERRORS.keys())
def test_bad_files_are_refused_with_file_line_and_cause(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_grammar(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path):
    for path in (tmp_path / "absent.pcfg", tmp_path):
        with pytest.raises(UserError, match=f"{path}: cannot read the grammar"):
            read_grammar(path)


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    text = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    assert read_grammar(write(tmp_path, text)).nonterminals == ["S"]


def test_too_large_a_table_is_refused_before_allocation(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_form, "MAX_RULE_CELLS", 3)
    with pytest.raises(UserError, match=r"too large: 1 nonterminals and 1 preterminals"):
        read_grammar(write(tmp_path, GOOD))


def test_shipped_grammars_are_found_by_name(tmp_path):
    for name in ("english", "english.pcfg"):
        assert find_grammar(name).name == "english.pcfg"
    for name in ("klingon", "../grammars/english", ""):
        with pytest.raises(UserError, match=r"shipped are: .*english"):
            find_grammar(name)


def test_an_installed_package_carries_its_own_grammars(tmp_path, monkeypatch):
    # As in a wheel: the folder lies inside the package, and nothing beside it.
    folder = tmp_path / "gfnem" / "grammars"
    folder.mkdir(parents=True)
    (folder / "toy.pcfg").write_text(GOOD)
    module = tmp_path / "gfnem" / "parsing" / "grammars" / "tabular.py"
    monkeypatch.setattr(tabular, "__file__", str(module))
    assert find_grammar("toy") == folder.resolve() / "toy.pcfg"
    with pytest.raises(UserError, match="shipped are: toy"):
        find_grammar("english")


NLTK_SYMBOLS = """
    Grammar with 15 productions (start state = S)
        X -> 'x' [1.0]
        S -> NP VP [0.99999]
        S -> S X [1e-05]
        NP -> PRP$ NP|<JJ-,-NN> [0.5] | `` NN '' [0.25]
        NP -> -LRB- NN -RRB- [0.25]
        NP|<JJ-,-NN> -> JJ , NN [1.0]
        PRP$ -> 'my' [1.0]
        JJ -> "o'clock" [1e-1] | 'it\\'s "it"' [.9]
        , -> ',' [1.0]
        # -> '#' [1.0]
        `` -> '``' [1.0]
        '' -> "''" [1.0]
        -LRB- -> '-LRB-' [1.0]
        -RRB- -> '-RRB-' [1.0]
        VP->V'|'[5.0E-1]|# NN[5e-1]
        V -> 'v' [1]
        NN -> 'n' [1]
""".replace("'it\\'s \"it\"'", "'it\\'s\"it\"'")


def test_what_nltk_prints_is_read(tmp_path):
    tables = read_grammar(write(tmp_path, NLTK_SYMBOLS))
    assert {"PRP$", ",", "``", "''", "-LRB-", "-RRB-", "#", "JJ"} <= set(tables.preterminals)
    assert {"S", "NP", "NP|<JJ-,-NN>"} <= set(tables.nonterminals)
    assert {"o'clock", 'it\'s"it"', "''", "|", "#", ","} <= set(tables.words)
    sentence = ("my", "o'clock", ",", "n", "#", "n")
    assert inside(tables, sentence) == pytest.approx(0.99999 * 0.5 * 0.1 * 0.5, rel=1e-5)
    assert inside(tables, (*sentence, "x")) == pytest.approx(1e-5 * 0.99999 * 0.025, rel=1e-4)


def test_a_grammar_induced_by_nltk_is_read_as_printed(tmp_path):
    from nltk import Tree, induce_pcfg

    trees = [
        "(S (NP (PRP$ my) (JJ old) (, ,) (NN dog)) (VP (V saw) (NP (-LRB- -LRB-) (NN it))))",
        "(S (NP (DT the) (NN dog)) (VP (V slept)))",
    ]
    productions = []
    for text in trees:
        tree = Tree.fromstring(text)
        tree.chomsky_normal_form()
        productions += tree.productions()
    grammar = induce_pcfg(Nonterminal("S"), productions * 1000 + productions[:1] * 3)
    tables = read_grammar(write(tmp_path, str(grammar)))
    for words in (trees[1], trees[0]):
        sentence = tuple(Tree.fromstring(words).leaves())
        assert inside(tables, sentence) == pytest.approx(
            derivation_sum(grammar, sentence), rel=1e-4
        )


def test_what_no_tree_can_hold_is_left_out_and_named(tmp_path):
    text = (
        "S -> A A [0.25] | B A [0.25] | A 'c' [0.5]\nB -> B A [0.5] | 'b' B [0.5]\n"
        "A -> 'a' [1.0]\nC -> A A [0.5] | 'd' [0.5]\nD -> 'd' B [1.0]\n"
    )
    tables = read_grammar(write(tmp_path, text))
    assert tables.nonterminals == ["S"] and tables.words == ["a", "c"]
    assert tables.useless == {
        "B": "never ends in words",
        "C": "is never reached from S",
        "D": "never ends in words",
    }
    assert inside(tables, ("a", "a")) == pytest.approx(0.25)
    assert inside(tables, ("a", "c")) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text,line",
    [
        ("S -> A S [1.0]\nA -> 'a' [1.0]\n", 1),
        ("A -> 'a' [1.0]\nS -> A T [0.5] | A S [0.5]\nT -> S A [1.0]\n%start S\n", 2),
    ],
)
def test_a_grammar_without_a_finite_sentence_is_refused(tmp_path, text, line):
    with pytest.raises(UserError, match=f"toy.pcfg:{line}: .* the start symbol S never ends"):
        read_grammar(write(tmp_path, text))


def test_a_word_spelt_like_the_unknown_one_is_the_unknown_one(tmp_path):
    text = "S -> A A [1.0]\nA -> '!' [0.5] | '<unk>' [0.5]\n"
    grammar = TabularGrammar(str(write(tmp_path, text)))
    assert grammar.vocabulary == ["<unk>", "!"]
    torch.testing.assert_close(grammar.emissions[0].exp(), torch.tensor([[0.5, 0.5]]))
