"""The command line where the data is drawn from a grammar, and where a model has no tree."""

import json

import pytest
from commands import SMALL, call, printed, refused
from nltk import Tree

import gfnem
from gfnem.parsing.grammars.tabular import TabularGrammar

pytestmark = pytest.mark.slow

DIGITS = (
    "S -> N V [0.5] | N V N [0.5]\nN -> '12' [0.4] | '7' [0.2] | 'The' [0.2] | 'the' [0.2]\n"
    "V -> 'sees.' [0.7] | 'IS' [0.3]\n"
)
TREE_OF_SHE = (
    "S -> NP VP [1.0]\nNP -> D N [0.8] | 'she' [0.2]\nVP -> V NP [1.0]\nD -> 'the' [1.0]\n"
    "N -> 'dog' [0.5] | 'man' [0.5]\nV -> 'saw' [1.0]\n"
)
LONG = "S -> A S [0.9] | A A [0.1]\nA -> 'a' [0.5] | 'b' [0.5]\n"
HALF = "S -> A A [0.25] | B A [0.75]\nB -> B A [1.0]\nA -> 'a' [1.0]\n"


def grammar(tmp_path, text):
    file = tmp_path / "toy.pcfg"
    file.write_text(text)
    return file


def train(capsys, tmp_path, *more, small=SMALL):
    return printed(
        capsys, "train", *small, "--dataset.sentences=200", "--out", tmp_path / "run", *more
    )


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_words_of_a_grammar_are_taken_to_the_letter(tmp_path, capsys):
    said = train(capsys, tmp_path, "--dataset.grammar", grammar(tmp_path, DIGITS))
    assert "(0.0 % of tokens unknown)" in said and "vocabulary 7 words" in said
    (tmp_path / "new.txt").write_text("The sees. 12\nthe sees. 7\n")
    capsys.readouterr()
    first, second = rows(
        printed(capsys, "parse", tmp_path / "run", tmp_path / "new.txt", "--format=json")
    )
    assert first["tokens"] == ["The", "sees.", "12"] and second["tokens"] == ["the", "sees.", "7"]
    assert first["log_marginal"]["value"] != second["log_marginal"]["value"]
    figures = json.loads(printed(capsys, "evaluate", tmp_path / "run", "--format=json"))
    assert 1 < figures["true_nll"] < figures["nll"]


@pytest.mark.slow
@pytest.mark.parametrize("text,more", [(LONG, ["--dataset.max_length=5"]), (HALF, [])])
def test_nothing_beats_the_truth(text, more, tmp_path, capsys):
    settings = [*SMALL, "--recipe=exact", "--max-updates=300", *more]
    said = train(capsys, tmp_path, "--dataset.grammar", grammar(tmp_path, text), small=settings)
    share = "34.4 %" if text == LONG else "25.0 %"
    assert f"{share} of the grammar's probability is on 2-" in said
    assert ("not used, since it never ends in words: B" in said) == (text == HALF)
    figures = json.loads(printed(capsys, "evaluate", tmp_path / "run", "--format=json"))
    assert figures["true_nll"] - 1e-6 <= figures["nll"] < figures["true_nll"] + 0.15


def test_a_grammar_without_a_finite_sentence(tmp_path, capsys):
    file = grammar(tmp_path, "S -> A S [1.0]\nA -> 'a' [1.0]\n")
    said = refused(capsys, "train", *SMALL, "--dataset.grammar", file, "--out", tmp_path / "run")
    assert "toy.pcfg:1:" in said and "the start symbol S never ends in words" in said
    assert not (tmp_path / "run").exists()


def test_no_sentence_of_the_lengths_asked_for(tmp_path, capsys):
    file = grammar(tmp_path, "S -> A A [1.0]\nA -> 'a' [1.0]\n")
    lengths = ["--dataset.min_length=3", "--dataset.max_length=9"]
    said = refused(capsys, "train", *SMALL, "--dataset.grammar", file, *lengths)
    assert "no sentence of 3 to 9 tokens" in said
    file = grammar(tmp_path, "S -> A S [0.9999] | A A [0.0001]\nA -> 'a' [1.0]\n")
    said = refused(capsys, "train", *SMALL, "--dataset.grammar", file, "--dataset.max_length=3")
    assert "raise max_length" in said


@pytest.fixture(scope="module")
def table_run(tmp_path_factory):
    """A run whose model is a written-down grammar."""
    folder = tmp_path_factory.mktemp("table")
    file = grammar(folder, TREE_OF_SHE)
    settings = [word for word in SMALL if not word.startswith("--model")]
    settings += ["--model=TabularGrammar", "--model.grammar", file, "--dataset.grammar", file]
    assert call("train", *settings, "--dataset.sentences=200", "--out", folder / "run") == 0
    return folder / "run"


def test_what_cannot_be_derived_has_no_tree(table_run, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("dog saw\nthe the the\nshe saw the man\nthe dog\n")
    for decode in ("mbr", "map", "sample"):
        capsys.readouterr()
        command = ["parse", table_run, tmp_path / "new.txt", "--decode", decode]
        assert call(*command, "--format=json") == 0
        output = capsys.readouterr()
        found = rows(output.out)
        assert [row["tree"] is None for row in found] == [True, True, False, True]
        assert "log_marginal" not in found[0] or found[0]["log_marginal"]["value"] is None
        assert found[2]["log_marginal"]["value"] == pytest.approx(-2.525729, abs=1e-4)
        assert output.err.count("not derivable") == 3 and "line 2: not derivable" in output.err
        assert call(*command) == 0
        assert [bool(line) for line in capsys.readouterr().out.split("\n")[:4]] == [
            row["tree"] is not None for row in found
        ]
    assert call("parse", table_run, tmp_path / "new.txt", "--samples=4", "--format=json") == 0
    assert [row["tree"] is None for row in rows(capsys.readouterr().out)] == [
        True,
        True,
        False,
        True,
    ]


def test_evaluate_counts_what_cannot_be_derived_apart(table_run, tmp_path, capsys):
    (tmp_path / "good.txt").write_text("she saw the man\nthe dog saw she\n")
    (tmp_path / "both.txt").write_text("dog saw\nshe saw the man\nthe the\nthe dog saw she\n")
    good, both = (
        json.loads(
            printed(capsys, "evaluate", table_run, "--data", tmp_path / name, "--format=json")
        )
        for name in ("good.txt", "both.txt")
    )
    assert (good.pop("sentences"), good.pop("not_derivable")) == (2, 0)
    assert (both.pop("sentences"), both.pop("not_derivable")) == (4, 2)
    for figures in (good, both):  # what was read, in words
        del figures["data"], figures["read"]
    assert both == pytest.approx(good)
    said = printed(capsys, "evaluate", table_run, "--data", tmp_path / "both.txt")
    assert "2 of 4 sentences are not derivable" in said
    (tmp_path / "none.txt").write_text("dog saw\n")
    said = refused(capsys, "evaluate", table_run, "--data", tmp_path / "none.txt")
    assert "none of the 1 sentences is derivable" in said


ANSWERS = ["yes"] * 3 + ["no"] + ["the cat sees it", "a cat sleeps", "the dog sees a cat"]


@pytest.mark.parametrize("shortest", [1, 2])
@pytest.mark.parametrize("kind", ["NeuralPCFG", "NeuralParentPCFG", "RNNG"])
def test_sentences_of_one_word(kind, shortest, tmp_path, capsys):
    (tmp_path / "data.txt").write_text("\n".join(ANSWERS * 10) + "\n")
    settings = [*SMALL, f"--model={kind}", "--data", tmp_path / "data.txt"]
    if kind == "RNNG":
        settings = [word for word in settings if "terminals" not in str(word)]
    settings += [f"--dataset.min_length={shortest}", "--max-updates=60", "--dataset.min_count=1"]
    train(capsys, tmp_path, small=settings)
    (tmp_path / "new.txt").write_text("yes\nthe cat sees it\n")
    assert call("parse", tmp_path / "run", tmp_path / "new.txt", "--format=json") == 0
    output = capsys.readouterr()
    one, more = (row.get("log_marginal", {}).get("value") for row in rows(output.out))
    assert more > -30
    if shortest == 1:
        assert -10 < one < 0 and not output.err
    else:
        assert one is None
        assert "line 1: not derivable: the model was trained on sentences of 2 words" in output.err
    figures = json.loads(
        printed(
            *(capsys, "evaluate", tmp_path / "run", "--data", tmp_path / "data.txt"),
            *("--format=json", "--samples=4"),
        )
    )
    assert figures["sentences"] == (70 if shortest == 1 else 30) and figures["not_derivable"] == 0


def test_the_run_folder_holds_the_grammar_and_show_prints_it(tmp_path, capsys):
    said = train(capsys, tmp_path, "--dataset.grammar", grammar(tmp_path, DIGITS))
    assert said.rstrip().endswith("grammar.pcfg")
    learned = TabularGrammar(str(tmp_path / "run" / "grammar.pcfg"))
    assert {"12", "The", "sees."} <= set(learned.vocabulary)
    said = printed(capsys, "show", tmp_path / "run", "--top=2")
    assert "NeuralPCFG: 4 nonterminals, 6 preterminals, 7 words" in said
    assert "500 sentences drawn from it" in said
    for name in [*(f"NT{i}" for i in range(4)), *(f"T{i}" for i in range(6))]:
        assert name in said
    (tmp_path / "new.txt").write_text("The sees. 12\n")
    said = printed(capsys, "show", tmp_path / "run", "--data", tmp_path / "new.txt")
    assert "uses counted in 1 sentences of" in said
    again = TabularGrammar(str(tmp_path / "run" / "grammar.pcfg"), ["<unk>", "x"])
    assert again.vocab_size == 2


def test_a_grammar_with_parent_classes_is_read_and_shown_with_them(tmp_path, capsys):
    text = grammar(tmp_path, DIGITS)
    train(capsys, tmp_path, "--dataset.grammar", text, "--model.parent_classes=2")
    file = tmp_path / "run" / "grammar.ncfg"
    assert TabularGrammar(str(file)).contexts == 3
    small = [word for word in SMALL if not word.startswith("--model")]
    settings = [*small, "--model=TabularGrammar", "--model.grammar", file]
    out = ["--dataset.sentences=50", "--out", tmp_path / "again"]
    printed(capsys, "train", *settings, "--dataset.grammar", file, *out)
    assert (tmp_path / "again" / "grammar.ncfg").is_file()
    said = printed(capsys, "show", tmp_path / "again")
    assert "TabularGrammar: 4 nonterminals" in said and "under " in said


def test_a_grammar_of_children_apart_goes_through_every_verb(tmp_path, capsys):
    (tmp_path / "data.txt").write_text("\n".join(ANSWERS[3:] * 10) + "\n")
    settings = [*SMALL, "--model=SimplePCFG", "--data", tmp_path / "data.txt"]
    settings += ["--model.rank=3", "--model.forms=true", "--dataset.min_count=1"]
    train(capsys, tmp_path, small=settings)
    run = tmp_path / "run"
    learned = TabularGrammar(str(run / "grammar.pcfg"))
    assert len(learned.names()) <= 3
    said = printed(capsys, "show", run)
    assert "SimplePCFG: 3 nonterminals, 6 preterminals" in said
    (tmp_path / "new.txt").write_text("the dog sleeps\n")
    assert Tree.fromstring(printed(capsys, "parse", run, tmp_path / "new.txt")).leaves()
    assert len(printed(capsys, "generate", run, "-n", "3").splitlines()) == 3
    assert printed(capsys, "report", run).strip().endswith("report.html")
    (answer,) = gfnem.load(run).infer("the cat sees it", samples=5)
    assert answer["exact"] and answer["latents"][0]["log_joint"] <= answer["log_marginal"]


def test_show_says_what_there_is_of_a_model_without_rules(tmp_path, capsys):
    small = [word for word in SMALL if "nonterm" not in word and "preterm" not in word]
    text = grammar(tmp_path, DIGITS)
    train(capsys, tmp_path, "--dataset.grammar", text, "--model=RNNG", small=small)
    assert not list((tmp_path / "run").glob("grammar.*"))
    said = printed(capsys, "show", tmp_path / "run")
    assert "RNNG has no table of rules to show" in said and "gfnem generate" in said
    assert "at least 1" in refused(capsys, "show", tmp_path / "run", "--top=0")
