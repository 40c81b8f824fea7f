"""The compound PCFG: the shipped proofs, its bound by quadrature, and the commands."""

import json
import math

import numpy as np
import pytest
import torch
from brute import all_trees
from commands import TINY, call, printed
from torch.distributions import Normal, kl_divergence

import gfnem
from gfnem.parsing import CompoundPCFG, Sentences, TopDownPolicy, TopDownSpace
from gfnem.parsing.commands import report
from gfnem.parsing.grammars.sentence_noise import sentence_noise
from gfnem.parsing.inference.inside import log_partition
from gfnem.testing import PolicyTestCase, TargetTestCase

WORDS, LABELS = 6, 2


def made(latent=3):
    torch.manual_seed(2)
    model = CompoundPCFG(WORDS, LABELS, 3, dim=8, latent=latent, encoder=4)
    with torch.no_grad():
        for shift in (model.rule_shift, model.root_net.of_vector, model.word_net.of_vector):
            shift.weight *= 40
        model.of_vector.weight *= 3
    return model


def sentences():
    return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])


class TestCompoundPCFG(TargetTestCase):
    def make_target(self):
        return made()

    def make_x(self):
        return sentences()

    def make_space(self):
        return TopDownSpace(LABELS)

    def make_latents(self, x):
        return self.make_target().sample_posterior(x, 20)

    def enumerate_latents(self, x):
        return all_trees(int(x.lengths[0]), LABELS)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


@pytest.mark.slow
class TestTopDownOnCompound(PolicyTestCase):
    def make_target(self):
        return made()

    def make_policy(self):
        return TopDownPolicy(WORDS, LABELS, dim=8)

    def make_space(self):
        return TopDownSpace(LABELS)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4, 0], [5], [3, 1], [5, 5, 1, 4]])


@torch.no_grad()
def test_the_mean_over_vectors_is_the_evidence_lower_bound():
    """With one number as the vector the bound and `p(x)` are integrals that a grid can do."""
    model, x = made(latent=1), sentences()
    drawn = []
    for step in range(120):
        model.on_step(step)
        drawn.append(model.log_marginal(x))
    drawn = torch.stack(drawn)
    mean, log_variance = model.inferred(x)
    q = Normal(mean[:, 0], (log_variance[:, 0] / 2).exp())
    points, weights = map(torch.tensor, np.polynomial.hermite_e.hermegauss(21))
    weights = weights / weights.sum()
    at = q.mean + q.stddev * points[:, None].float()
    log_p = torch.stack([log_partition(model.potentials_of(x, v[:, None])) for v in at])
    bound = (weights[:, None] * log_p).sum(0) - kl_divergence(q, Normal(0.0, 1.0))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert (drawn.std(0) > 0.05).all(), "the vector makes no difference: nothing is tested"
    assert ((drawn.mean(0) - bound).abs() < 4 * error + 1e-3).all()
    prior = torch.stack(
        [log_partition(model.potentials_of(x, v.expand(3, 1))) for v in points.float()]
    )
    exact = (prior + weights.log()[:, None]).logsumexp(0)
    assert (bound < exact).all()


def test_an_update_sees_one_vector_and_the_next_another():
    model, x = made(), sentences()
    model.on_step(1)
    first = model.log_marginal(x)
    assert torch.equal(first, model.given(x).log_marginal())
    spans = torch.zeros(3, 4, 5)
    assert torch.allclose(first, model.tilted(x, spans).log_marginal(), atol=1e-5)
    best = model.best_trees(x)
    model.on_step(2)
    assert not torch.isclose(first, model.log_marginal(x)).any()
    assert torch.equal(best.split, model.best_trees(x).split), "trees are those of the mean"


def test_noise_is_normal_and_a_function_of_the_sentence():
    x = Sentences.from_lists([[row % 7, row // 7 % 7, row // 49] for row in range(343)])
    noise = sentence_noise(x, 64, 5)
    assert abs(float(noise.mean())) < 0.03 and abs(float(noise.std()) - 1) < 0.03
    for other in (noise[torch.randperm(343)], sentence_noise(x, 64, 6), noise.roll(1, 1)):
        assert abs(float((noise * other).mean())) < 0.03
    longer = Sentences.from_lists([[1, 2, 3], [4, 4, 4, 4, 4]])
    alone = sentence_noise(Sentences.from_lists([[1, 2, 3]]), 64, 5)
    assert torch.equal(sentence_noise(longer, 64, 5)[:1], alone)


@pytest.mark.slow
def test_every_verb(capsys, tmp_path):
    run, text = tmp_path / "run", tmp_path / "text.txt"
    sizes = ["--model.latent=4", "--model.encoder=8", "--model.dim=8", "--max-updates=2"]
    sizes += ["--model.preterminals=3", "--dataset.valid_sentences=5"]
    again = {size.split("=")[0] for size in sizes}
    flags = [flag for flag in TINY if flag.split("=")[0] not in again]
    assert call("train", "--model=CompoundPCFG", *flags, *sizes, f"--out={run}") == 0
    assert "grammar.pcfg" in {path.name for path in run.iterdir()}
    text.write_text("the dog saw a cat\nthe cat slept\n")
    records = printed(capsys, "parse", run, text, "--format=json")
    assert json.loads(records.splitlines()[0])["log_marginal"]["method"] == "bound"
    assert records == printed(capsys, "parse", run, text, "--format=json")
    trained = gfnem.load(run)
    figures = trained.evaluate(samples=4, limit=5)
    assert not figures["exact"] and figures["elbo_gap"] > 0 and "sentence_f1" in figures
    assert "in expectation" in report(figures, "token")
    assert not trained.infer("the cat slept", samples=4)[0]["exact"]
    assert printed(capsys, "generate", run, "--count=2").count("(") >= 2
    page = printed(capsys, "report", run, "--samples=2").strip()
    assert "Phrase symbols" in open(page, encoding="utf-8").read()


def test_noise_is_finite_whatever_the_bits(monkeypatch):
    """The number next to 1 is the quantile of 1 - 2^-53, not infinite."""
    monkeypatch.setattr(f"{sentence_noise.__module__}._mixed", lambda number: number | -1)
    noise = sentence_noise(sentences(), 4, 0)
    largest = float(Normal(0.0, 1.0).icdf(1 - torch.tensor(2.0**-53).double()))
    assert noise.flatten().tolist() == pytest.approx([largest] * noise.numel())
