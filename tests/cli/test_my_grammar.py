"""A generative model in a user's own file, through the command line and through the API."""

import importlib.util
import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from commands import SMALL, printed, refused

from gfnem.lightning import GFlowNetEM
from gfnem.objectives import VarGrad
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.data import TextData
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.recipes import gflownet
from gfnem.testing import TargetTestCase

FILE = Path(__file__).parents[2] / "experiments" / "my_grammar.py"
TEXT = "the dog sees a cat\na cat sleeps\nthe cat sees the dog with a cat\n" * 20
FLAGS = [flag for flag in SMALL if "terminals" not in flag and "model.dim" not in flag]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder outside the package that holds the user's file and is the current one."""
    shutil.copy(FILE, tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    # scripts that other tests have read put their folder, which has the file too, on the path
    places = [p for p in sys.path if p and not Path(p, "my_grammar.py").exists()]
    monkeypatch.setattr(sys, "path", places)
    monkeypatch.delitem(sys.modules, "my_grammar", raising=False)
    yield tmp_path
    sys.modules.pop("my_grammar", None)


def test_the_file_is_short_and_the_model_none_of_ours():
    assert len(FILE.read_text().splitlines()) <= 65
    assert not hasattr(load().MyGrammar(3), "potentials")


@pytest.mark.slow
def test_through_the_command_line(capsys, elsewhere):
    flags = [*FLAGS, "--data=text.txt", "--out=run"]
    # its settings may come before its name
    out = printed(
        capsys, "train", *flags, "--model.nonterminals=3", "--model", "my_grammar.MyGrammar"
    )
    assert "model MyGrammar" in out and "parses.png" in out
    (record,) = [
        json.loads(line)
        for line in printed(
            capsys, "parse", "run", sentence(elsewhere), "--format=json"
        ).splitlines()
    ]
    assert record["log_marginal"]["method"] == "importance-weighted"
    assert record["log_marginal"]["samples"] == 64 and record["log_q"] < 0
    for decode in ("map", "mbr", "sample"):
        (line,) = printed(capsys, "parse", "run", "text", "--decode", decode).splitlines()
        assert line.count("NT") == 4 and "NT3" not in line
    assert "bound, 8 samples" in printed(
        capsys, "evaluate", "run", "--data=text.txt", "--samples=8"
    )
    assert "offers no sample" in refused(capsys, "generate", "run")
    assert "a sleep phase needs" in refused(
        capsys, "train", *flags, "--out=b", "--model=my_grammar.MyGrammar", "--recipe.sleep=1"
    )
    sys.modules.pop("my_grammar")
    (elsewhere / "my_grammar.py").unlink()
    line = refused(capsys, "parse", "run", "text")
    assert "best.ckpt: cannot import my_grammar.MyGrammar" in line and "PYTHONPATH" in line


def sentence(folder) -> str:
    (folder / "text").write_text("the dog sees a cat\n")
    return "text"


@pytest.mark.slow
def test_through_the_api(elsewhere, monkeypatch):
    monkeypatch.syspath_prepend(str(elsewhere))
    from my_grammar import MyGrammar

    torch.manual_seed(0)
    data = TextData("text.txt", interval=5)
    words = len(data.vocabulary)
    module = GFlowNetEM(
        MyGrammar(words, nonterminals=3),
        TopDownSpace(nonterminals=3),
        TopDownPolicy(words, nonterminals=3, dim=16),
        gflownet(VarGrad()),
        max_updates=10,
        metadata=data.metadata(),
    )
    before = [parameter.clone() for parameter in module.model.parameters()]
    trainer = pl.Trainer(
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    assert int(module.updates) == int(module.m_updates) == 10
    after = list(module.model.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    trainer.save_checkpoint("my.ckpt")
    again = GFlowNetEM.load_from_checkpoint("my.ckpt").eval()  # with weights_only=True
    x = data.encode([["the", "dog", "sees", "a", "cat"]])
    module.eval()
    torch.manual_seed(0)
    z = module.posterior(x).sample((4,))
    torch.testing.assert_close(
        again.posterior(x).log_prob(z), module.posterior(x).log_prob(z), rtol=0, atol=0
    )
    estimate = again.posterior(x).log_marginal(16)
    assert not estimate.exact and estimate.samples == 16
    assert torch.isfinite(estimate.value).all()


def load():
    spec = importlib.util.spec_from_file_location("my_grammar_checked", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def all_trees(left, right, labels):
    """Every labelled binary tree over a span, as lists of `(left, right, split, label)`."""
    if right - left == 1:
        return [[]]
    return [
        [(left, right, split, label), *first, *second]
        for split in range(left + 1, right)
        for label in range(labels)
        for first in all_trees(left, split, labels)
        for second in all_trees(split, right, labels)
    ]


class TestMyGrammar(TargetTestCase):
    def make_target(self):
        return load().MyGrammar(vocab_size=3, nonterminals=2)

    def make_x(self):
        return Sentences.from_lists([[0, 1, 2, 1], [2], [1, 0], *[[2, 1, 0] * 4] * 2])

    def make_latents(self, x):
        policy = TopDownPolicy(3, nonterminals=2, dim=4)
        space = TopDownSpace(nonterminals=2)
        return policy.sample(policy.encode(x), x, space, 60).latent

    def test_it_sums_to_the_probability_of_a_length(self):
        """Over all sentences and all trees of n words: `p(n)`, so it is a distribution."""
        torch.manual_seed(0)
        model = load().MyGrammar(vocab_size=3, nonterminals=2)
        more = float(model.longer.detach().sigmoid())
        for length in (1, 2, 3, 4):
            sentences = list(itertools.product(range(3), repeat=length))
            x = Sentences.from_lists(sentences)
            trees = all_trees(0, length, 2)
            z = Trees.from_nodes([trees] * len(sentences), x.lengths)
            with torch.no_grad():
                total = model.log_joint(x, z).double().exp().sum()
            assert abs(float(total) - more ** (length - 1) * (1 - more)) < 1e-5
