"""The conversion against sums over derivations of the file's own, unconverted rules."""

import itertools
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from nltk import PCFG
from nltk.grammar import Nonterminal

from gfnem.errors import UserError
from gfnem.parsing import grammar_text
from gfnem.parsing.grammar_text import find_grammar, read_grammar
from gfnem.parsing.tabular_pcfg import TabularPCFG

GRAMMARS = {
    "plain": """
        S -> A B [0.6] | A S [0.4]
        A -> 'a' [0.75] | 'b' [0.25]
        B -> 'b' [1.0]
    """,
    "unary chain": """
        S -> T [0.5] | A S [0.3] | 'a' [0.2]
        T -> A B [0.4] | B [0.6]
        A -> 'a' [0.9] | 'b' [0.1]
        B -> 'b' [0.7] | A A [0.2] | A [0.1]
    """,
    "unary loop": """
        S -> T [0.5] | S [0.2] | A T [0.3]
        T -> S [0.4] | A [0.3] | T A [0.3]
        A -> 'a' [0.8] | 'b' [0.2]
    """,
    "long rules and words inside": """
        S -> A 'b' B S [0.2] | A 'b' B [0.3] | 'b' [0.1] | 'a' B 'b' 'a' [0.25] | 'a' S [0.15]
        A -> 'a' [0.6] | B [0.4]
        B -> 'b' [0.5] | A A 'a' [0.2] | B 'b' A [0.3]
    """,
    "names that clash": """
        S -> A B-C D [0.4] | A B C-D [0.35] | B-C C-D [0.25]
        A -> 'a' [1.0]
        B -> 'b' [0.5] | 'a' [0.5]
        B-C -> 'b' [0.3] | B A [0.7]
        C-D -> 'a' [0.2] | D D [0.8]
        D -> 'b' [1.0]
    """,
    "repeated, unreachable and start directive": """
        # a comment
        %start S
        X -> 'a' [0.5] | S S [0.5]
        S -> A A [0.25] | A A [0.25] \\
            | 'b' [0.5]
        A -> S [0.5]
        A -> 'a' [0.5]
    """,
}


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "toy.pcfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def derivation_sum(grammar: PCFG, sentence: tuple[str, ...], sweeps: int = 400) -> float:
    """Probability of `sentence`: the least fixed point of the rules as they stand.

    Iterating from zero, round `t` sums exactly the derivations of depth at most `t`, so unary loops
    are followed rather than inverted.
    """
    n = len(sentence)
    spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1)]
    symbols = {p.lhs() for p in grammar.productions()}
    value = {(a, span): 0.0 for a in symbols for span in spans}
    for _ in range(sweeps):

        @lru_cache(None)
        def side(right, i, j, value=value):
            """Sum over the ways to cut `[i, j)` into the items of `right`."""
            head, rest = right[0], right[1:]
            ends = [j] if not rest else range(i + 1, j - len(rest) + 1)
            total = 0.0
            for k in ends:
                if isinstance(head, Nonterminal):
                    weight = value[head, (i, k)]
                else:
                    weight = float(k == i + 1 and sentence[i] == head)
                if weight:
                    total += weight * (side(rest, k, j) if rest else 1.0)
            return total

        new = {key: 0.0 for key in value}
        for p in grammar.productions():
            for i, j in spans:
                if j - i >= len(p.rhs()):
                    new[p.lhs(), (i, j)] += p.prob() * side(p.rhs(), i, j)
        change = max(abs(new[key] - value[key]) for key in value)
        value = new
        if change < 1e-15:
            break
    return value[grammar.start(), (0, n)]


def inside(tables, sentence: tuple[str, ...]) -> float:
    """The tables' weight of a sentence, by the plain inside recursion."""
    n, size = len(sentence), len(tables.nonterminals)
    rules, emissions = tables.rules.double().exp(), tables.emissions.double().exp()
    chart = {}
    for i, word in enumerate(sentence):
        chart[i, i + 1] = torch.zeros(tables.root.shape[0], dtype=torch.float64)
        chart[i, i + 1][size:] = emissions[:, tables.words.index(word)]
    for width in range(2, n + 1):
        for i in range(n - width + 1):
            j = i + width
            cell = torch.zeros(tables.root.shape[0], dtype=torch.float64)
            for k in range(i + 1, j):
                cell[:size] += torch.einsum("abc,b,c->a", rules, chart[i, k], chart[k, j])
            chart[i, j] = cell
    return float(tables.root.double().exp() @ chart[0, n])


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
    assert tables.root.shape == (n + t,) and tables.rules.shape == (n, n + t, n + t)
    assert tables.emissions.shape == (t, w) and tables.words == ["a", "b"]
    assert {x.dtype for x in (tables.root, tables.rules, tables.emissions)} == {torch.float32}
    assert len(set(tables.nonterminals + tables.preterminals)) == n + t
    # Every symbol can be used at its width, and nothing is NaN or infinite upwards.
    assert (
        tables.rules.flatten(1).isfinite().any(1).all() and tables.emissions.isfinite().any(1).all()
    )
    for table in (tables.root, tables.rules, tables.emissions):
        assert (table < torch.inf).all()


def test_binary_and_lexical_symbols_keep_names_and_probabilities(tmp_path):
    tables = read_grammar(write(tmp_path, GRAMMARS["plain"]))
    assert tables.nonterminals == ["S"] and tables.preterminals == ["A", "B"]
    rules = torch.zeros(1, 3, 3)
    rules[0, 1, 2], rules[0, 1, 0] = 0.6, 0.4
    torch.testing.assert_close(tables.rules.exp(), rules)
    torch.testing.assert_close(tables.emissions.exp(), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
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


GOOD = "S -> A A [1.0]\nA -> 'a' [1.0]\n"
ERRORS = {
    "empty": ("", "toy.pcfg: the grammar is empty"),
    "only comments": ("# nothing\n", "toy.pcfg: the grammar is empty"),
    "not utf-8": (b"S -> A A [1.0]\nA -> '\xe9' [1.0]\n", "toy.pcfg:2: not UTF-8"),
    "no arrow": (GOOD + "B 'b' [1.0]\n", "toy.pcfg:3: not a grammar rule: Expected an arrow"),
    "unterminated": (GOOD + "B -> 'b [1.0]\n", "toy.pcfg:3: not a grammar rule: Unterminated"),
    "bad number": (GOOD + "B -> 'b' [1.0.0]\n", "toy.pcfg:3: not a grammar rule"),
    "above one": (GOOD + "B -> 'b' [1.5]\n", "toy.pcfg:3: .* of B has probability 1.5, above 1"),
    "directive": (GOOD + "%begin S\n", "toy.pcfg:3: not a directive"),
    "directive without symbol": ("%start\n" + GOOD, "toy.pcfg:1: not a directive"),
    "unfinished": (GOOD + "B -> 'b' [1.0] \\", "toy.pcfg:3: the line continues"),
    "sum": (GOOD + "\nB -> 'b' [0.5]\nB -> 'c' [0.4]", "toy.pcfg:4: .* of B sum to 0.9, not 1"),
    "sum above": (GOOD + "B -> 'b' [0.5] | 'c' [0.6]", "toy.pcfg:3: .* of B sum to 1.1, not 1"),
    "undefined": ("S -> A A [0.5]\nS -> A Q [0.5]\nA -> 'a' [1.0]", "toy.pcfg:2: .* Q has no"),
    "undefined start": (GOOD + "%start Q", "toy.pcfg:3: the symbol Q has no production"),
    "zero": (GOOD + "B -> 'b' [1.0] | 'c' [0.0]", "toy.pcfg:3: .* B has probability 0"),
    "missing probability": (
        GOOD + "B -> 'b' [1.0] | 'c'",
        "toy.pcfg:3: B -> 'c' has no probability",
    ),
    "empty side": (GOOD + "B -> 'b' [0.5] | [0.5]", "toy.pcfg:3: B has an empty right-hand side"),
    "empty word": (GOOD + "B -> '' [1.0]", "toy.pcfg:3: '' is not one word"),
    "two words": (GOOD + "B -> 'a b' [1.0]", "toy.pcfg:3: B yields 'a b', which is not one word"),
    "loop": (GOOD + "B -> C [1.0]\nC -> B [1.0]", "toy.pcfg:3: the unary rules of B form a loop"),
    "self-loop": (GOOD + "B -> B [1.0]", "toy.pcfg:3: the unary rules of B form a loop"),
    "numerical loop": (
        GOOD + "B -> B [1.0] | 'b' [0.00000000000000000001]",
        "toy.pcfg:3: the unary rules around B have infinite",
    ),
    "words only": ("S -> 'a' [1.0]\n", "toy.pcfg: no rule puts two symbols together"),
}


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
    monkeypatch.setattr(grammar_text, "MAX_RULE_CELLS", 3)
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
    module = tmp_path / "gfnem" / "parsing" / "grammar_text.py"
    monkeypatch.setattr(grammar_text, "__file__", str(module))
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
    grammar = TabularPCFG(str(write(tmp_path, text)))
    assert grammar.vocabulary == ["<unk>", "!"]
    torch.testing.assert_close(grammar.emissions.exp(), torch.tensor([[0.5, 0.5]]))
