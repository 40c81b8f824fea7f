"""`gfnem.load` and `gfnem.train`: plain data in and out, and the command line's defaults."""

import math
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import call, trained
from nltk import Tree

import gfnem
from gfnem.errors import UserError
from gfnem.parsing import NeuralPCFG, TextData, TopDownPolicy
from gfnem.parsing.policies.topdown import TopDownPolicy as Sampler
from gfnem.parsing.run import _tree
from gfnem.ranges import Missing
from gfnem.recipes import fitting

pytestmark = pytest.mark.slow

TEXT = "the old man saw a bird\na bird saw the man\nthe man sleeps\n" * 20
#: nested settings of a run that takes a second
TINY = {
    "max_updates": 10,
    "accelerator": "cpu",
    "dataset": {"interval": 5},
    "policy": {"dim": 8},
}
SMALL_MODEL = {"nonterminals": 3, "preterminals": 4, "dim": 8}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and a run that Python has trained on it."""
    place = tmp_path_factory.mktemp("front")
    (place / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        model = NeuralPCFG(**SMALL_MODEL)  # the vocabulary's size is the text's
        gfnem.train("text.txt", out="run", model=model, **TINY)
    return place


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def run(here):
    return gfnem.load("run")


def test_a_run_parses(run):
    trees = run.parse("the old man saw a bird", k=4)
    assert 1 < len(trees) <= 4 and all(isinstance(tree, Tree) for tree in trees)
    assert all(tree.leaves() == "the old man saw a bird".split() for tree in trees)
    probabilities = [tree.prob() for tree in trees]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1 + 1e-5
    # p(z|x), by exact inference
    x = run.world.read(run, "the old man saw a bird").__next__().x
    best = run.model.best_trees(x)
    exact = (run.model.log_joint(x, best)[0, 0] - run.model.log_marginal(x)[0]).exp()
    assert probabilities[0] == pytest.approx(float(exact), rel=1e-4)


def test_sentences_keep_their_places(run):
    found = run.parse(["a bird saw the man", "", "sleeps", "the man sleeps"], k=1)
    assert [len(trees) for trees in found] == [1, 0, 0, 1]
    assert found[3][0].leaves() == ["the", "man", "sleeps"]
    assert run.parse([]) == run.infer([]) == []
    assert run.parse("") == []


def test_what_has_no_tree_is_said_in_words(run, tmp_path):
    (one,) = run.infer([""])
    assert one["observation"] == "" and one["latents"] == [] and one["log_marginal"] is None
    assert one["why"] == "no word in it"
    lines = ["a bird saw the man", "", "sleeps", "the man sleeps"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    for source in (lines, tmp_path / "lines.txt"):
        found = run.infer(source, k=1)
        assert [record["observation"] for record in found] == lines
        assert [len(record["latents"]) for record in found] == [1, 0, 0, 1]
        assert found[2]["why"].startswith("not derivable") and "why" not in found[3]


def test_a_path_is_a_file_and_a_string_a_sentence(run):
    assert len(run.infer("text.txt is not read")) == 1
    lines = run.infer(Path("text.txt"), k=1)
    assert len(lines) == 60 and lines[0]["observation"] == "the old man saw a bird"
    with pytest.raises(UserError, match="a sentence is a string"):
        run.infer([3])


def test_draws_and_figures(run):
    torch.manual_seed(0)
    for record in run.sample(3):
        assert Tree.fromstring(record["latent"]).leaves() == record["observation"].split()
        assert record["log_joint"] < 0
    figures = run.evaluate("text.txt", samples=8)
    assert figures["sentences"] == 60 and figures["exact"] is True
    assert run.evaluate()["sentences"] == 6  # what was held out


def test_the_defaults_are_those_of_the_command_line(here):
    flags = ["--data=text.txt", "--out=by_flags", "--accelerator=cpu", "--max-updates=10"]
    flags += ["--dataset.interval=5", "--policy.dim=8"]
    flags += [f"--model.{name}={value}" for name, value in SMALL_MODEL.items()]
    assert call("train", *flags) == 0
    run = gfnem.train("text.txt", out="by_dict", model=SMALL_MODEL, **TINY)
    one, two, three = (
        torch.load(Path(name) / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("by_flags", "by_dict", "run")
    )
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, two[name]) and torch.equal(value, three[name]), name
    by_flags, by_dict = (
        # a class may be written with a shorter import path
        yaml.safe_load(
            re.sub(r"(class_path: )gfnem\S*\.", r"\1", (Path(name) / "config.yaml").read_text())
        )
        for name in ("by_flags", "by_dict")
    )
    assert by_flags == by_dict
    assert not torch.are_deterministic_algorithms_enabled()
    assert run.model.nonterminals == 3


def test_parts_by_class_by_name_and_by_instance(here):
    flags = {**TINY, "max_updates": 1, "policy": Sampler(dim=8), "out": "parts"}
    run = gfnem.train("text.txt", model="RNNG", **flags)
    assert type(run.model).__name__ == "RNNG" and run.policy.spec()["init_args"]["dim"] == 8
    with pytest.raises(UserError, match="already holds a run"):
        gfnem.train("text.txt", model=NeuralPCFG, **flags)


def test_points(here):
    flags = {"max_updates": 2, "accelerator": "cpu", "dataset": {"points": 50, "batch_size": 25}}
    run = gfnem.train(world="points", out="points", model={"sd": 0.5}, **flags)
    assert run.model.sd == 0.5 and run.space.order == "either"  # a default of the world
    pair = np.array([[0.0, 1.0], [1.0, 1.0]])
    for data in (pair, torch.tensor(pair), pair.tolist()):
        found = run.infer(data, k=2)
        assert [record["observation"] for record in found] == pair.tolist()
        first = found[0]["latents"][0]
        assert first["latent"].keys() == {"cluster", "petal"}
        assert 0 < math.exp(first["log_prob"]) <= 1
    assert not hasattr(run, "parse")
    for bad in ([1.0, 2.0], [["a", "b"]], [[1.0, math.nan]], np.zeros((0, 2))):
        with pytest.raises(UserError, match="these points: "):
            run.infer(bad)


def test_a_world_of_ones_own(here, monkeypatch):
    shutil.copy(Path(__file__).parent / "world_of_numbers.py", "mine.py")
    monkeypatch.syspath_prepend(str(here))
    from mine import Noisy, Numbers

    run = gfnem.train(world=Numbers, out="own", model=Noisy, max_updates=2, accelerator="cpu")
    assert type(run.world) is Numbers
    (record,) = run.infer([2], k=1)
    assert record["observation"] == 2 and record["latents"][0]["latent"] == "was 2"
    sys.modules.pop("mine")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"world": "nosuch"}, "no world 'nosuch'"),
        ({"nosuch": 3}, "unknown setting nosuch"),
        ({"model": {"nosuch": 3}}, "NeuralPCFG: unknown setting nosuch"),
        ({"recipe": fitting}, "fitting is a function without the decorator @gfnem.recipe"),
        ({"e_step": "exact"}, "e_step is recipe now"),
        ({"max_updates": 0}, "at least 1"),
        ({"data": "none.txt"}, "none.txt: no such file"),
        ({"data": ["a sentence"]}, "data: a path is wanted, not list"),
        ({"world": "points", "dataset": TextData}, "TextData is of the world text"),
        ({"world": "points", "model": NeuralPCFG()}, "vocab_size is needed"),
        ({"world": "dependencies", "model": NeuralPCFG}, "NeuralPCFG is of the world text, not"),
    ],
)
def test_bad_settings(here, settings, says):
    settings = {"data": "text.txt", **settings}
    if settings.get("world") == "points":
        del settings["data"]
    with pytest.raises(UserError, match=says):
        gfnem.train(out="bad", accelerator="cpu", **settings)
    assert not Path("bad").exists()


def test_a_run_that_is_none():
    with pytest.raises(UserError, match="no such run"):
        gfnem.load("nosuch")


def test_a_component_that_lacks_a_size():
    for unfinished in (NeuralPCFG(nonterminals=5), TopDownPolicy(dim=4)):
        assert "unfinished: " in repr(unfinished) and " needed" in repr(unfinished)
        with pytest.raises(Missing, match="vocab_size"):
            unfinished.parameters()
    assert isinstance(unfinished, TopDownPolicy)
    assert NeuralPCFG(nonterminals=5).spec()["init_args"] == {"nonterminals": 5}
    with pytest.raises(UserError, match="vocab_size is needed"):
        gfnem.GFlowNetEM(NeuralPCFG(), trained_space(), TopDownPolicy(7, 5))


def trained_space():
    return gfnem.load(trained()).space


def test_leaves_are_words_and_not_how_brackets_spell_them():
    tree = _tree("(TOP (X -LRB- (Y dog -RRB-)))", log_prob=-1.0, log_joint=-2.0)
    assert tree.leaves() == ["(", "dog", ")"] and tree.prob() == pytest.approx(math.exp(-1))


def test_what_cannot_be_is_refused(here, run):
    with pytest.raises(UserError, match="device 'nowhere': "):
        gfnem.load("run", "nowhere")
    for more in ({"k": 0}, {"k": -1}, {"samples": 0}):
        with pytest.raises(UserError, match="at least 1 is needed"):
            run.parse("the man sleeps", **more)
