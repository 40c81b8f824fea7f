"""A grammar times an energy of the whole, against every tree of every short sentence."""

import json
from copy import deepcopy
from functools import cache

import pytest
import torch
from brute import all_trees
from commands import SMALL, call, printed
from torch import Tensor

import gfnem
from gfnem.batch import Batch, Draws
from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.offers import NotOffered
from gfnem.parsing import (
    CompoundPCFG,
    EnergyGrammar,
    NeuralParentPCFG,
    NeuralPCFG,
    SentenceChains,
    Sentences,
    SpanReward,
    TopDownPolicy,
    TopDownSpace,
    Trees,
)
from gfnem.parsing.generation.strings import all_sentences
from gfnem.parsing.grammars.sampling import joined
from gfnem.phases import TrainModel
from gfnem.rates import Descent, Rates
from gfnem.recipes import exact, gflownet
from gfnem.reward import Rewarded
from gfnem.sources import Source
from gfnem.testing import PolicyTestCase, TargetTestCase

WORDS, LABELS = 2, 2


def made(longest=4, words=WORDS, seed=1, kind=NeuralPCFG, shortest=2, bound=2.0) -> EnergyGrammar:
    """A random grammar and a random energy, which differ by nats."""
    torch.manual_seed(seed)
    grammar = kind(words, LABELS, 2, dim=8, shortest=shortest)
    model = EnergyGrammar(grammar, words, dim=6, bound=bound, longest=longest, draws=2000)
    with torch.no_grad():
        model.energy.join.weight.mul_(4.0)
        model.energy.hidden.weight.mul_(3.0)
        model.energy.score.weight.normal_(std=0.05)
        score = (model.energy(*model.propose(300)) / bound).atanh()
        model.energy.score.weight.div_(score.std())
        model.energy.score.bias.fill_(-score.mean() / score.std() * bound)
    return model


@cache
def every_pair(words: int, longest: int, shortest: int = 2) -> tuple[Sentences, Trees]:
    """Every sentence of up to `longest` words with every tree, `(pairs,)` and `(pairs, 1)`."""
    parts = []
    for n in range(shortest, longest + 1):
        x, z = all_sentences(words, n, n), all_trees(n, LABELS)
        trees = Trees.cat([z.map(lambda part: part.transpose(0, 1))] * len(x), 0)
        parts.append((x[torch.arange(len(x)).repeat_interleave(z.samples)], trees))
    return joined(parts, sum(len(x) for x, _ in parts))


def exactly(model: EnergyGrammar, longest: int, words=WORDS, shortest=2) -> Tensor:
    """`(pairs,)` log p~ of every pair, differentiable."""
    return model.log_joint(*every_pair(words, longest, shortest))[:, 0]


def log_marginal(model: EnergyGrammar, x: Sentences) -> Tensor:
    """`(batch,)` the log of the sum of p~ over all trees."""
    found = []
    for row in range(len(x)):
        one = x[torch.tensor([row])]
        found.append(model.log_joint(one, all_trees(int(one.lengths), LABELS)).logsumexp(1))
    return torch.cat(found)


class TestEnergyGrammar(TargetTestCase):
    def make_target(self):
        return made(words=6, shortest=1)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])

    def make_latents(self, x):
        return self.make_target().grammar.sample_posterior(x, 30)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


class TestParentEnergyGrammar(TestEnergyGrammar):
    def make_target(self):
        return made(words=6, kind=NeuralParentPCFG, shortest=1)


@pytest.mark.slow
class TestTopDownOnEnergyGrammar(PolicyTestCase):
    def make_target(self):
        return made(words=6, longest=5, shortest=1)

    def make_policy(self):
        return TopDownPolicy(6, LABELS, dim=8)

    def make_space(self):
        return TopDownSpace(LABELS)

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4, 0], [5], [3, 1]])


@torch.no_grad()
def test_labels_are_summed_out_and_long_sentences_are_not_of_the_model():
    model, x, trees = made(3), Sentences.from_lists([[1, 0, 1]]), all_trees(3, LABELS)
    joint, collapsed = model.log_joint(x, trees)[0], model.collapsed_log_joint(x, trees)[0]
    for split in (1, 2):
        same = trees.split[0, :, 0] == split
        torch.testing.assert_close(collapsed[same][0], joint[same].logsumexp(0))
    longer = Sentences.from_lists([[1, 0, 1, 1], [1, 0]])
    assert model.in_support(longer).tolist() == [False, True]
    assert model.log_joint(longer[:1], all_trees(4, LABELS)).exp().max() == 0


@torch.no_grad()
def test_words_far_apart_depend_on_each_other_given_the_tree():
    """In a context-free grammar they do not: what its labelled tree makes of them is a product."""
    model = made(5)
    sentences = [[first, 1, 0, 1, last] for first in (0, 1) for last in (0, 1)]
    x = Sentences.from_lists(sentences)
    z = (
        all_trees(5, LABELS)
        .take(torch.arange(5)[None] * 7)
        .map(lambda part: part.expand(4, *part.shape[1:]))
    )
    for score, depend in ((model.log_joint(x, z), True), (model.grammar.log_joint(x, z), False)):
        together = (score[0] - score[1] - score[2] + score[3]).abs().max()
        assert (together > 0.01) if depend else (together < 1e-4)


# ---------------------------------------------------------------- the gradient of the likelihood


class EveryTree(Source):
    """All trees of sentences of one length, which importance weights by the exact posterior."""

    weighted = True

    def draw(self, batch: Batch) -> Draws:
        trees = all_trees(batch.x.max_length, LABELS)
        draws = Draws(batch, trees.map(lambda part: part.expand(len(batch), *part.shape[1:])))
        draws._log_path = torch.zeros(len(batch), trees.samples)
        return draws


class OnePair(Source):
    """One pair of all there are."""

    number = 0

    def draw(self, batch: Batch) -> Draws:
        x, z = every_pair(WORDS, 3)
        rows = torch.tensor([self.number])
        return Draws(batch.of(x[rows]), z[rows].resized())


@pytest.mark.slow
@pytest.mark.parametrize("collapse", [False, True])
def test_the_expected_loss_has_the_gradient_of_the_exact_likelihood(collapse):
    model, negative = made(3), OnePair()
    phase = TrainModel(EveryTree(), "importance", collapse, negative)
    em = EM(model, TopDownSpace(LABELS), TopDownPolicy(WORDS, LABELS, dim=8), [phase])
    x = Sentences.from_lists([[0, 0, 1], [1, 1, 0], [1, 0, 0]])
    values = exactly(model, 3)
    loss = values.logsumexp(0) - log_marginal(model, x).mean()
    wanted = torch.autograd.grad(loss, list(model.parameters()))
    shares = values.detach().softmax(0)
    for negative.number, share in enumerate(shares.tolist()):
        (share * phase(Batch(em, x))).backward()
    assert max(part.abs().max() for part in wanted) > 0.05
    for (name, parameter), gradient in zip(model.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=2e-5, rtol=1e-3, msg=name)


# ---------------------------------------------------------------- draws of the model


def number_of(x: Sentences, z: Trees, longest: int) -> Tensor:
    """`(rows,)` which of `every_pair` each pair is."""
    every_x, every_z = every_pair(WORDS, longest)
    rows, place = {}, torch.arange(len(every_x)).tolist()

    def names(x: Sentences, z: Trees) -> list[tuple]:
        tokens = torch.nn.functional.pad(x.tokens, (0, longest - x.max_length))
        z = z.resized(longest - 1)
        return [
            tuple(row)
            for row in torch.cat(
                [tokens, x.lengths[:, None], z.split[:, 0], z.label[:, 0]], 1
            ).tolist()
        ]

    rows = dict(zip(names(every_x, every_z), place, strict=True))
    return torch.tensor([rows[name] for name in names(x, z)])


def close_to(p: Tensor, x: Sentences, z: Trees, longest: int) -> bool:
    """Whether counts are what multinomial draws of `p` give, by Pearson's chi-squared statistic."""
    counts = torch.bincount(number_of(x, z, longest), minlength=len(p)).double()
    expected = p.double() * len(x)
    often = expected > 5
    statistic = ((counts - expected).square() / expected)[often].sum()
    freedom = int(often.sum()) - 1
    return abs(float(statistic) - freedom) < 5 * (2 * freedom) ** 0.5


@torch.no_grad()
def test_rejection_draws_the_model_and_chains_leave_it_as_it_is():
    model, count = made(3, bound=1.0), 5000
    p, chains = exactly(model, 3).softmax(0), SentenceChains(count, 2)
    parts = (TopDownSpace(LABELS), TopDownPolicy(WORDS, LABELS, dim=8), gflownet(negative=chains))
    batch = Batch(EM(model, *parts), Sentences.from_lists([[1, 0]]))
    x, z = chains._ends = model.sample(count)
    assert close_to(p, x, z, 3)
    assert not close_to(p, *model.propose(count), 3), "the energy makes no difference"
    moved = chains.draw(batch)
    assert close_to(p, moved.batch.x, moved.z, 3)
    assert 0.2 < float(batch.figures["accepted"]) < 0.95
    # from a checkpoint they go on where they stood
    again = SentenceChains(count, 2)
    again.load_state_dict(chains.state_dict())
    torch.manual_seed(5)
    one = again.draw(batch)
    torch.manual_seed(5)
    assert torch.equal(one.z.split, chains.draw(batch).z.split)


@torch.no_grad()
def test_log_z_is_that_of_listing_and_its_error_is_its_error():
    model = made(4)
    exact_z = exactly(model, 4).logsumexp(0)
    found = []
    for seed in range(25):
        torch.manual_seed(seed)
        model._estimate = None
        found.append(torch.stack(model.estimated_log_partition()))
    values, errors = torch.stack(found).unbind(1)
    assert abs(float(values.mean() - exact_z)) < 4 * float(values.std()) / 25**0.5 + 1e-5
    assert 0.7 < float(values.std() / errors.mean()) < 1.4
    assert torch.equal(model.estimated_log_partition()[0], values[-1]), "made again"
    model.energy.score.bias.add_(0.5)
    assert model.estimated_log_partition()[0] < values[-1] - 0.1


# ---------------------------------------------------------------- training


@pytest.mark.slow
def test_it_fits_what_a_grammar_cannot():
    """Data of a known grammar times an energy: below the best that the grammar alone finds."""
    truth, longest = made(4, words=3, seed=7, bound=3.0), 4
    with torch.no_grad():
        joint = exactly(truth, longest, words=3)
        x, _ = every_pair(3, longest)
        data = x[torch.multinomial(joint.softmax(0), 3000, replacement=True)]
        listed = all_sentences(3, 2, longest)
        log_p = log_marginal(truth, listed) - joint.logsumexp(0)

    def divergence(model) -> float:
        with torch.no_grad():
            if isinstance(model, EnergyGrammar):
                log_q = log_marginal(model, listed) - exactly(model, longest, 3).logsumexp(0)
            else:  # also given that sentences are as short
                log_q = model.log_marginal(listed)
                log_q = log_q - log_q.logsumexp(0)
            return float((log_p.exp() * (log_p - log_q)).sum())

    def train(model, recipe):
        torch.manual_seed(0)
        policy = TopDownPolicy(3, LABELS, dim=8)
        descent = Descent(EM(model, TopDownSpace(LABELS), policy, recipe), Rates(0.03, 0.03))
        for _ in range(40):
            descent.update(data[torch.randint(len(data), (50,))])
        return divergence(model)

    # both start from the grammar of the truth; the grammar alone has exact EM
    alone, grammar = deepcopy(truth.grammar), deepcopy(truth.grammar)
    both = EnergyGrammar(grammar, 3, dim=8, bound=4.0, longest=longest)
    recipe = gflownet(samples=4, negative=SentenceChains(150))
    assert train(both, recipe) < 0.6 * train(alone, exact())


class Left(SpanReward):
    """A nat for each span that begins the sentence."""

    def spans(self, x):
        value = torch.zeros(len(x), x.max_length, x.max_length + 1)
        value[:, 0] = 1.0
        return value


@torch.no_grad()
def test_rewards_of_spans_are_added_and_the_sampler_starts_from_them():
    model, x, z = made(4), Sentences.from_lists([[0, 1, 1, 0]]), all_trees(4, LABELS)
    both = Rewarded(model, Left(2.0))
    given = both.given(x)
    torch.testing.assert_close(
        given.log_joint(z), model.log_joint(x, z) + 2.0 * (z.left == 0).sum(2)
    )
    torch.testing.assert_close(given.normalised().log_joint(z), model.log_joint(x, z))
    assert TopDownPolicy(WORDS, LABELS, dim=8).encode(x, given).spans is given.spans


# ---------------------------------------------------------------- the commands


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="CompoundPCFG has no exact"):
        EnergyGrammar(CompoundPCFG(5, 2, 2, dim=4), 5)
    for reward in (None, Left()):
        with pytest.raises(ValueError, match=r"EnergyGrammar is.*--recipe\.negative"):
            parts = made(), TopDownSpace(LABELS), TopDownPolicy(WORDS, LABELS), gflownet()
            EM(*parts, reward=reward)
    with pytest.raises(NotOffered, match="NeuralPCFG offers no propose"):
        recipe = gflownet(negative=SentenceChains())
        EM(NeuralPCFG(5, LABELS, 2), TopDownSpace(LABELS), TopDownPolicy(5, LABELS), recipe)

    class Data:
        def sizes(self):
            return torch.tensor([3, 9])

    with pytest.raises(UserError, match=r"9 tokens.*--model\.longest 9"):
        made(4).prepare(Data())


@pytest.mark.slow
def test_every_verb_of_a_grammar_times_an_energy(capsys, tmp_path):
    run, text = tmp_path / "run", tmp_path / "text.txt"
    nouns = ("dog", "cat", "bird", "fish")
    lines = [f"the {one} saw a {two}\nthe {one} slept\n" for one in nouns for two in nouns]
    text.write_text("".join(lines))
    grammar = ["--model.grammar=NeuralPCFG", "--model.grammar.nonterminals=3"]
    grammar += ["--model.grammar.preterminals=4", "--model.grammar.dim=8", "--model.dim=8"]
    flags = [f"--data={text}", *SMALL[3:], "--max-updates=4", "--dataset.interval=4"]
    flags += ["--dataset.valid_sentences=5", "--reward=none"]
    flags += ["--recipe.negative=SentenceChains", "--recipe.negative.samples=16"]
    flags += ["--model.draws=512", "--model.bound=1", f"--out={run}"]
    assert call("train", "--model=EnergyGrammar", *grammar, *flags) == 0
    assert "grammar.pcfg" in {path.name for path in run.iterdir()}
    assert "val_log_z_error" in (run / "metrics.csv").read_text().splitlines()[0]
    record = json.loads(printed(capsys, "parse", run, text, "--format=json").splitlines()[0])
    assert record["log_marginal"]["method"] == "importance-weighted"
    evaluated = printed(capsys, "evaluate", run, "--samples=4")
    assert "log Z of the model" in evaluated and "with log Z by draws" in evaluated
    assert printed(capsys, "generate", run, "--count=2").count("(") >= 2
    assert "NeuralPCFG: 3 nonterminals" in printed(capsys, "show", run)
    page = printed(capsys, "report", run, "--samples=2").strip()
    assert "energy of whole sentences" in open(page, encoding="utf-8").read()
    trained = gfnem.load(run)
    assert isinstance(trained.model, EnergyGrammar) and len(trained.sample(3)) == 3
    assert len(trained.infer("the cat slept", samples=4)[0]["latents"]) >= 1


def test_the_samplers_bound_is_of_the_normalised_likelihood():
    """A constant energy changes log Z alone, and so neither the likelihood nor its bound."""
    from gfnem.evaluation import figures
    from gfnem.running.run import Run

    found, model = [], made()
    run = Run(model, TopDownSpace(LABELS), TopDownPolicy(WORDS, LABELS, dim=8))
    x, _ = model.grammar.sample(8, 4)
    for bias in (0.0, 1.0):
        with torch.no_grad():
            model.energy.score.weight.zero_()
            model.energy.score.bias.fill_(bias)
        torch.manual_seed(0)
        found.append(figures(run, x, 16))
    assert abs(float(found[0]["log_z"][0] - found[1]["log_z"][0])) > 0.1
    for name in ("log_p", "bound"):
        assert torch.allclose(found[0][name], found[1][name], atol=1e-4)
