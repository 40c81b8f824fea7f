"""A grammar written as a file is the same grammar, up to what is used hardly ever."""

import re

import pytest
import torch
from nltk import PCFG

from gfnem.errors import UserError
from gfnem.parsing import NeuralParentPCFG, NeuralPCFG, Sentences, TabularGrammar
from gfnem.parsing.grammars import grammar_file as module
from gfnem.parsing.grammars.grammar_file import grammar_file
from gfnem.parsing.grammars.listing import UsedGrammar, listing

pytestmark = pytest.mark.slow

WORDS = ["<unk>", "the", "don't", 'x"y', 'it\'s"so"', "|", "[", "#", "é", "'"]


def with_classes(words, labels, preterminals, dim, shortest):
    """Two classes of two nonterminals."""
    return NeuralPCFG(words, 4, preterminals, dim, shortest, parent_classes=2)


KINDS = {"plain": NeuralPCFG, "parent": NeuralParentPCFG, "classes": with_classes}


def made(kind, shortest=2, sharp=3.0):
    """A random grammar, some of whose rules are a thousand times rarer than others."""
    torch.manual_seed(0)
    model = kind(len(WORDS), 3, 4, 8, shortest=shortest).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += sharp * torch.randn_like(parameter) / (1 + parameter.dim())
    return model


def some(model, count=60):
    torch.manual_seed(1)
    x, _ = model.sample(count, 12)
    return [x[x.lengths.argsort()]]


def written(model, folder, batches=None):
    name, text = grammar_file(UsedGrammar.of(model, batches or some(model)), WORDS, "A grammar.")
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("shortest", [1, 2])
def test_with_nothing_left_out_it_is_the_same_distribution(kind, shortest, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RAREST", 10**12)
    model = made(kind, shortest, sharp=0.7)
    file = written(model, tmp_path)
    assert file.suffix == (".pcfg" if kind is NeuralPCFG else ".ncfg")
    again = TabularGrammar(str(file), WORDS)
    rows = [[word] for word in range(len(WORDS))]
    rows += [*torch.randint(0, len(WORDS), (30, 4)).tolist(), [1, 2], [0, 0], [9, 4, 1]]
    x = Sentences.from_lists(rows)
    with torch.no_grad():
        expected, found = model.log_marginal(x), again.log_marginal(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected[:10].isfinite().all() == (shortest == 1)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_what_is_rare_is_left_out_and_every_symbol_sums_to_one(kind, tmp_path):
    model = made(kind, sharp=3.0 if kind is NeuralPCFG else 2.0)  # others hardly ever end
    file = written(model, tmp_path)
    text = file.read_text(encoding="utf-8")
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if "->" in line:
            left = line.split(" -> ")[0]
            found = re.findall(r" \[([\d.e-]+)\](?= \||$)", line)
            sums[left] = sums.get(left, 0.0) + sum(map(float, found))
    assert sums and all(total == pytest.approx(1, abs=1e-6) for total in sums.values())
    kept = text.count(" [")
    everything = sum(int(table.isfinite().sum()) for table in model.tables())
    assert kept < everything
    lost = float(re.search(r"([\d.e-]+) % of all uses", text)[1])
    assert 0 < lost < 2
    again = TabularGrammar(str(file), WORDS)
    (x,) = some(model, 200)
    with torch.no_grad():
        expected, found = model.log_marginal(x), again.log_marginal(x)
    possible = found.isfinite()
    assert possible.float().mean() > 0.95
    assert float((expected - found)[possible].abs().mean()) < 0.1


def test_nltk_reads_the_file():
    model = made(NeuralPCFG, sharp=0.7)
    plain = [word if "it's" not in word else "its" for word in WORDS]
    _, text = grammar_file(UsedGrammar.of(model, some(model)), plain, "A grammar.")
    assert not re.search(r"\[[\d.]+e-\d+\]", text)  # it would have to be tiny
    grammar = PCFG.fromstring(text)
    assert str(grammar.start()) == "S" and len(grammar.productions()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["english", "english_context"])
def test_a_grammar_from_a_file_keeps_its_names(name, tmp_path):
    grammar = TabularGrammar(name)
    torch.manual_seed(0)
    x, _ = grammar.sample(40, 10)
    used = UsedGrammar.of(grammar, [x])
    file, text = grammar_file(used, grammar.vocabulary, "A grammar.")
    (tmp_path / file).write_text(text, encoding="utf-8")
    again = TabularGrammar(str(tmp_path / file), grammar.vocabulary)
    assert {"NP", "VP", "PP"} & set(again.names()) or {"NPs", "VPs"} <= set(again.names())
    torch.testing.assert_close(again.log_marginal(x), grammar.log_marginal(x), rtol=0.01, atol=0.02)


def test_names_and_endless_best_rules(tmp_path):
    # the best rules of B alone go on for ever; names that the notation cannot hold are changed
    text = (
        "S -> B 'c' B [0.5] | S S [0.5]\nB -> B A [0.6] | A B [0.39999] | 'b' 'b' [0.00001]\n"
        "A -> 'a' [1.0]\n"
    )
    source = tmp_path / "source.pcfg"
    source.write_text(text)
    grammar = TabularGrammar(str(source))
    x = Sentences.from_lists([[2, 2, 3, 2, 2]])
    x.tokens = torch.tensor([[grammar.vocabulary.index(word) for word in "bbcbb"]])
    used = UsedGrammar.of(grammar, [x])
    assert float(used.uses.sum()) == pytest.approx(5 + 4)
    name, text = grammar_file(used, grammar.vocabulary, "A grammar.")
    (tmp_path / name).write_text(text)
    again = TabularGrammar(str(tmp_path / name), grammar.vocabulary)
    assert again.in_support(x).all() and not again.useless
    assert "'" not in "".join(again.names()) and "|" not in "".join(again.names())


def test_uses_are_counted_exactly(tmp_path):
    text = "S -> A S [0.5] | A A [0.5]\nA -> 'a' [1.0]\n"
    top = "S^TOP -> A S [0.4] | A A [0.6]\n"
    for file, more in ((tmp_path / "toy.pcfg", ""), (tmp_path / "toy.ncfg", top)):
        file.write_text(text + more)
        grammar = TabularGrammar(str(file))
        assert grammar.contexts == 1 + bool(more)
        used = UsedGrammar.of(grammar, [Sentences.from_lists([[1, 1], [1, 1, 1, 1], [1]])])
        assert used.sentences == 2  # one word alone has no tree
        torch.testing.assert_close(used.uses.sum(0), torch.tensor([2.0, 3.0]).double())
        lines = "\n".join(listing(used, grammar.vocabulary))
        assert "100.0 % of sentences are S" in lines
        assert f"A S {'45.0' if more else '50.0'} %" in lines  # half of its uses are at the top
        assert "-> a 100.0 %" in lines
    with pytest.raises(UserError, match="none of the sentences"):
        UsedGrammar.of(grammar, [Sentences.from_lists([[1]])])


def with_six_classes(words, labels, preterminals, dim, shortest):
    return NeuralPCFG(words, 12, 5, dim, shortest, parent_classes=6)


@pytest.mark.parametrize("kind", [*KINDS.values(), with_six_classes], ids=[*KINDS, "six classes"])
@pytest.mark.parametrize("shortest", [1, 2])
def test_what_is_read_is_as_large_as_what_was_written(kind, shortest, tmp_path, monkeypatch):
    """Classes and all: not a grammar with a class for each nonterminal."""
    monkeypatch.setattr(module, "RAREST", 10**12)
    model = made(kind, shortest, sharp=0.7)
    again = TabularGrammar(str(written(model, tmp_path)), WORDS)
    assert again.contexts == model.contexts
    tables = model.by_context()
    for table, other in zip(
        (tables.root, tables.rules.table, tables.words), again.tables(), strict=True
    ):
        assert table.shape == other.shape
    torch.manual_seed(3)
    x = Sentences.from_lists([torch.randint(0, len(WORDS), (n,)).tolist() for n in range(2, 30)])
    with torch.no_grad():
        expected, found = model.log_marginal(x), again.log_marginal(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_class_that_lost_a_symbol_is_filled_up(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RAREST", 10**12)
    model = made(with_six_classes, sharp=0.7)
    with torch.no_grad():  # nothing leads to the fourth symbol
        root, rules, words = (table.clone() for table in model.tables())
    root[3] = rules[:, :, 3] = rules[:, :, :, 3] = -100.0
    rules = rules.flatten(2).log_softmax(-1).view_as(rules)
    model.tables = lambda: (root.log_softmax(0), rules, words)
    file = written(model, tmp_path)
    assert len(re.findall(r"^%class .* \S+ \S+$", file.read_text(), re.MULTILINE)) == 5
    again = TabularGrammar(str(file), WORDS)
    assert again.contexts == model.contexts and len(again.names()) == 12
    x = Sentences.from_lists([torch.randint(0, len(WORDS), (n,)).tolist() for n in range(2, 12)])
    torch.testing.assert_close(again.log_marginal(x), model.log_marginal(x), rtol=1e-5, atol=1e-5)
