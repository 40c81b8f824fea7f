"""Parent-conditioned grammar files against sums over derivations of the file's own rules.

Two independent roads: the reader's binary form with parents, and parent annotation of the file,
read as a plain PCFG.
"""

import itertools
import re
from collections import Counter

import pytest
import torch
from brute import all_trees
from grammar_files import ERRORS as PLAIN_ERRORS
from grammar_files import GRAMMARS as PLAIN
from grammar_files import derivation_sum
from nltk import PCFG
from nltk.grammar import Nonterminal
from parent_grammar_files import BINARY, GRAMMARS, annotated_pcfg, write

from gfnem.errors import UserError
from gfnem.parsing import Sentences, TabularGrammar
from gfnem.parsing.grammars import binary_form
from gfnem.parsing.grammars.binary_form import read_grammar
from gfnem.parsing.grammars.rules import read_rules
from gfnem.parsing.grammars.tabular import find_grammar
from gfnem.testing import TargetTestCase


def read_both(tmp_path, text):
    """The file's grammar, and the plain PCFG over annotated symbols."""
    path = write(tmp_path, text)
    return (
        TabularGrammar(path),
        TabularGrammar(write(tmp_path, annotated_pcfg(path), "annotated.pcfg")),
    )


def definition(text: str) -> PCFG:
    """The annotated grammar, made by hand: every symbol under every parent, by the rules' text."""
    text = re.sub(r"\\\s+", "", text)
    lines = [line.strip() for line in text.strip().split("\n")]
    start = next((line.split()[1] for line in lines if line.startswith("%")), None)
    blocks: dict = {}
    for line in lines:
        if line[0] in "#%":
            continue
        left, right = line.split("->", 1)
        symbol, _, parents = left.strip().partition("^")
        for parent in parents.split(",") if parents else [""]:
            blocks.setdefault(symbol, {}).setdefault(parent.strip(), []).append(right)
    start = start or next(iter(blocks))
    rules = []
    for symbol, by_parent in blocks.items():
        for parent in [*blocks, "TOP"]:
            for right in by_parent.get(parent, by_parent.get("", [])):
                side = re.sub(
                    r"(?<![\w'-])([\w-]+)(?=\s)(?!')", lambda m, s=symbol: f"{m[1]}^{s}", right
                )
                rules.append(f"{symbol}^{parent} -> {side}")
    grammar = PCFG.fromstring("\n".join(rules))
    return PCFG(Nonterminal(f"{start}^TOP"), grammar.productions())


@pytest.mark.slow
@pytest.mark.parametrize("text", GRAMMARS.values(), ids=GRAMMARS.keys())
def test_every_sentence_keeps_its_probability(tmp_path, text):
    ours, annotated = read_both(tmp_path, text)
    assert ours.vocabulary == annotated.vocabulary
    by_hand, positive = definition(text), 0
    for length in range(1, 5):
        sentences = list(itertools.product("ab", repeat=length))
        x = Sentences.from_lists([[ours.vocabulary.index(w) for w in row] for row in sentences])
        mine, plain = ours.log_marginal(x).exp(), annotated.log_marginal(x).exp()
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-9)
        for sentence, p in zip(sentences, mine.tolist(), strict=True):
            expected = derivation_sum(by_hand, sentence, sweeps=60)
            assert p == pytest.approx(expected, rel=1e-4, abs=1e-9), sentence
            positive += expected > 0
    assert positive >= 3


@pytest.mark.parametrize("text", [*GRAMMARS.values(), *PLAIN.values()])
def test_every_distribution_sums_to_one_and_names_differ(tmp_path, text):
    tables = read_grammar(write(tmp_path, text))
    n, t, w = len(tables.nonterminals), len(tables.preterminals), len(tables.words)
    contexts = len(tables.rules)
    assert tables.root.shape == (n + t,) and tables.rules.shape == (contexts, n, n + t, n + t)
    assert tables.emissions.shape == (contexts, t, w) and tables.words == ["a", "b"]
    assert contexts == 1 or n % (contexts - 1) == 0
    assert len(set(tables.nonterminals + tables.preterminals)) == n + t
    for table in (tables.root, tables.rules.flatten(2), tables.emissions):
        total = table.exp().sum(-1)
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN.keys())
def test_a_file_that_names_no_parent_is_a_pcfg(tmp_path, text):
    ours = TabularGrammar(write(tmp_path, text))
    plain = TabularGrammar(write(tmp_path, text, "toy.pcfg"))
    assert ours.contexts == len(ours.rules) == 1
    assert ours.names() == plain.names()
    for mine, theirs in zip(ours.tables(), plain.tables(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.slow
def test_binary_grammars_and_their_annotation_agree_on_trees(tmp_path):
    """Best tree, spans, samples: without unary rules, trees correspond one to one."""
    ours, annotated = read_both(tmp_path, BINARY)
    names = [name.partition("^")[0] for name in annotated.names()]
    labels = torch.tensor([ours.names().index(name) for name in names])
    torch.manual_seed(0)
    x, _ = ours.sample(60, max_length=8)
    best, other = ours.best_trees(x), annotated.best_trees(x)
    score = annotated.log_joint(x, other)
    torch.testing.assert_close(ours.log_joint(x, best), score)
    other.label = labels[other.label]
    torch.testing.assert_close(ours.log_joint(x, other), score)
    spans = annotated.span_marginals(x)
    pooled = torch.zeros(*spans.shape[:3], ours.nonterminals).index_add(3, labels, spans)
    torch.testing.assert_close(ours.span_marginals(x), pooled, atol=1e-4, rtol=1e-4)
    for grammar in (ours, annotated):
        drawn, _ = grammar.sample(20_000, max_length=30)
        rows = zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True)
        counts = Counter(tuple(row[:n]) for row, n in rows)
        kinds = [kind for kind, _ in counts.most_common(10)]
        exact = annotated.log_marginal(Sentences.from_lists(kinds)).exp()
        for kind, p in zip(kinds, exact.tolist(), strict=True):
            assert abs(counts[kind] / 20_000 - p) < 5 * (p / 20_000) ** 0.5


def test_binary_and_lexical_symbols_keep_names_and_probabilities(tmp_path):
    tables = read_grammar(write(tmp_path, GRAMMARS["emissions and rules"]))
    assert tables.nonterminals == ["S", "B"] and tables.preterminals == ["A", "B|1"]
    s, b, top = 0, 1, 2
    rules = tables.rules.exp()
    assert rules[top, s, 2, 0] == 0.5 and rules[s, s, 2, 0] == 0
    # B is a word half the time, and that is decided when it is chosen
    torch.testing.assert_close(rules[top, s, 2, [b, 3]], torch.tensor([0.25, 0.25]))
    torch.testing.assert_close(tables.emissions.exp()[s, 0], torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(tables.emissions.exp()[b, 0], torch.tensor([0.0, 1.0]))


def test_symbols_made_by_the_conversion_carry_their_parent(tmp_path):
    text = """
        S -> N 'is' N [1]
        N -> B [0.5] | 'n' [0.5]
        B^N -> C C [0.5] | 'm' [0.5]
        B -> C C C [0.1] | 'b' [0.9]
        C -> 'c' [0.5] | B B [0.5]
    """
    tables = read_grammar(write(tmp_path, text))
    assert tables.nonterminals == ["S", "B^N", "B", "C", "S|'is'-N", "B|C-C"]
    assert tables.preterminals == ["N", "B^N|1", "B|1", "C|1", "'is'"]


BINARY_GOOD = "S -> A A [1.0]\nA -> 'a' [1.0]\n"
OWN_ERRORS = {
    "unknown parent": (BINARY_GOOD + "A^Q -> 'b' [1]", "toy.ncfg:3: the parent Q is no symbol"),
    "impossible parent": (BINARY_GOOD + "A^A -> 'b' [1]", "toy.ncfg:3: A can never be the parent"),
    "never at the top": (BINARY_GOOD + "A^TOP -> 'b' [1]", "toy.ncfg:3: TOP can never be the"),
    "parent out of reach": (
        BINARY_GOOD + "X -> A A [1]\nA^S,X -> 'b' [1]",
        "toy.ncfg:4: X can never be the parent of A",
    ),
    "sum under a parent": (
        BINARY_GOOD + "A^S -> 'b' [0.5] | 'c' [0.4]",
        "toy.ncfg:3: the probabilities of A under S sum to 0.9, not 1",
    ),
    "sum of the others": (
        "S -> A A [1]\nA^S -> 'b' [1]\nA -> 'b' [0.5]",
        "toy.ncfg:3: the probabilities of A under all parents not named sum to 0.5, not 1",
    ),
    "no rules there": (
        "S -> A B [1]\nB -> A A [1]\nA^S -> 'b' [1]",
        "toy.ncfg:3: A has no rules under B: name it, as in A\\^B, or",
    ),
    "no rules at the top": ("S^S -> 'b' [1]", "toy.ncfg:1: S has no rules under TOP"),
    "empty parent": (BINARY_GOOD + "A^ -> 'b' [1]", "toy.ncfg:3: not a grammar rule: with par"),
    "empty symbol": (BINARY_GOOD + "^S -> 'b' [1]", "toy.ncfg:3: not a grammar rule: with par"),
    "two carets": (BINARY_GOOD + "A^S^S -> 'b' [1]", "toy.ncfg:3: not a grammar rule: with par"),
    "trailing comma": (BINARY_GOOD + "A^S, -> 'b' [1]", "toy.ncfg:3: not a grammar rule: with"),
    "twice": (BINARY_GOOD + "A^S,S -> 'b' [1]", "toy.ncfg:3: a parent of A is named twice"),
    "on the right": (BINARY_GOOD + "B -> A^S A [1]", "toy.ncfg:3: A\\^S: only a left-hand side"),
    "rules for the top": (BINARY_GOOD + "TOP -> S S [1]", "toy.ncfg:3: TOP is the parent of the"),
    "unclosed bracket": (BINARY_GOOD + "A^S -> 'b' [1", "toy.ncfg:3: not a grammar rule"),
    "class of one": (BINARY_GOOD + "%class C\n", "toy.ncfg:3: not a directive; there are '%start"),
    "class named like a symbol": (BINARY_GOOD + "%class A S A", "toy.ncfg:3: the class A has the"),
    "class of an unknown": (BINARY_GOOD + "%class C S Q", "toy.ncfg:3: the parent Q is no symbol"),
    "two classes": (
        BINARY_GOOD + "%class C S A\n%class D S A",
        "toy.ncfg:4: S is in two classes, C and D",
    ),
    "a class that cannot be": (
        BINARY_GOOD + "%class C S A\nS^C -> A A [1]",
        "toy.ncfg:4: C can never be the parent of S",
    ),
    "loop under a parent": (
        BINARY_GOOD + "B^B -> B [1]\nB -> B [0.5] | 'b' [0.5]\nA^S -> B [1]",
        "toy.ncfg:3: the unary rules of B\\^B form a loop",
    ),
}
# what is refused in a .pcfg file is refused here too
ERRORS = OWN_ERRORS | {
    name: (text, message.replace("toy.pcfg", "toy.ncfg"))
    for name, (text, message) in PLAIN_ERRORS.items()
}


@pytest.mark.parametrize("text,message", ERRORS.values(), ids=ERRORS.keys())
def test_bad_files_are_refused_with_file_line_and_cause(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        read_grammar(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_too_large_a_table_is_refused_before_allocation(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_form, "MAX_RULE_CELLS", 3)
    with pytest.raises(UserError, match=r"too large: 1 nonterminals and 1 preterminals"):
        read_grammar(write(tmp_path, BINARY_GOOD))


def test_words_with_quotes_and_carets_survive_annotation(tmp_path):
    text = """S -> A A [1]\nA -> "'s" [0.4] | '"' [0.3] | '^' [0.2] | '->' [0.1]\n"""
    ours, annotated = read_both(tmp_path, text)
    assert ours.vocabulary == annotated.vocabulary == ["<unk>", '"', "'s", "->", "^"]
    torch.testing.assert_close(ours.emissions.exp(), annotated.emissions.exp())


def test_the_ending_decides_how_a_file_is_read(tmp_path):
    assert TabularGrammar(write(tmp_path, BINARY)).contexts == 2
    for name in ("toy.pcfg", "toy.txt"):
        with pytest.raises(UserError, match=f"{name}:1: the symbol A has no production"):
            TabularGrammar(write(tmp_path, BINARY.strip(), name))
    for name in ("english_context", "english_context.ncfg"):
        assert find_grammar(name).name == "english_context.ncfg"
    with pytest.raises(UserError, match=r"absent\.ncfg: cannot read the grammar"):
        TabularGrammar("absent.ncfg")
    # an annotated symbol is a symbol like any other in a .pcfg file, a class is none
    path = write(tmp_path, "S -> A^S A^S [1]\nA^S -> 'a' [1]", "toy.pcfg")
    assert read_grammar(path).preterminals == ["A^S"]
    with pytest.raises(UserError, match=r"toy\.pcfg:3: not a directive; the only one is '%start"):
        read_grammar(write(tmp_path, BINARY_GOOD + "%class C S A", "toy.pcfg"))


def test_words_outside_the_vocabulary_are_the_unknown_word(tmp_path):
    grammar = TabularGrammar(write(tmp_path, BINARY_GOOD), ["<unk>", "b"])
    assert grammar.emissions.exp().tolist() == [[[1.0, 0.0]]]


class TestTabularGrammar(TargetTestCase):
    @pytest.fixture(autouse=True)
    def _grammar(self, tmp_path):
        self.path = write(tmp_path, GRAMMARS["unary chains"])

    def make_target(self):
        return TabularGrammar(self.path)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 1], [1], [2, 1]])

    def make_latents(self, x):
        return self.make_target().sample_posterior(x, 30)

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), self.make_target().nonterminals)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


def test_a_grammar_without_a_finite_sentence_is_refused(tmp_path):
    text = "S^TOP -> A S [1.0]\nS -> S A [1.0]\nA -> 'a' [1.0]\n"
    with pytest.raises(UserError, match=r"toy.ncfg:1: .* the start symbol S never ends"):
        read_rules(write(tmp_path, text))


def test_what_no_tree_can_hold_is_named(tmp_path):
    text = "S -> A A [0.5] | B A [0.5]\nB -> B B [1.0]\nC -> 'c' [1.0]\nA -> 'a' [1.0]\n"
    assert read_rules(write(tmp_path, text)).useless == {
        "B": "never ends in words",
        "C": "is never reached from S",
    }
    text = "S -> A S [0.5] | A A [0.5]\nS^S -> S S [1.0]\nA -> 'a' [1.0]\n"
    assert read_rules(write(tmp_path, text)).useless == {"S under S": "never ends in words"}
    grammar = TabularGrammar(write(tmp_path, text))
    assert float(grammar.length_weights(9).sum()) == pytest.approx(0.5)


def test_tags_with_marks_may_name_parents(tmp_path):
    text = "S -> A , B [1.0]\n,^S -> ',' [1.0]\nA^S,NP|<A-,> -> 'a' [1.0]\nA -> 'b' [1.0]\n"
    text += "B -> A NP|<A-,> [1.0]\nNP|<A-,> -> A A [1.0]\n"
    rules = read_rules(write(tmp_path, text))
    assert rules.found(",", "S").sides == {(",",): 1.0}
    assert rules.found("A", "NP|<A-,>").sides == {("a",): 1.0}
    assert rules.found("A", "B").sides == {("b",): 1.0}


CLASSES = """
    %class Big S T
    %class Small U V
    S -> T U [0.5] | T V [0.2] | U V [0.3]
    S^Big -> U V [1.0]
    T^S -> S U [0.25] | U A [0.75]
    T^Small -> A A [1.0]
    U -> A T [0.4] | A A [0.6]
    V -> A U [0.1] | A B [0.9]
    A^Big -> 'a' [0.7] | 'b' [0.3]
    A^V -> 'a' [0.5] | 'b' [0.5]
    A^Small -> 'a' [0.2] | 'b' [0.8]
    B -> 'b' [1.0]
"""


def test_a_class_stands_for_the_parents_in_it(tmp_path):
    ours, annotated = read_both(tmp_path, CLASSES)
    spelt = CLASSES.replace("S^Big", "S^T").replace("T^Small", "T^U").replace("A^Big", "A^T")
    spelt = re.sub(r"%class.*", "", spelt.replace("A^Small", "A^U"))
    without = TabularGrammar(write(tmp_path, spelt))
    for length in range(4, 9):
        x = Sentences.from_lists(list(itertools.product([1, 2], repeat=length)))
        for other in (annotated, without):
            mine, theirs = ours.log_marginal(x).exp(), other.log_marginal(x).exp()
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-9)
        assert float(mine.max()) > 0
