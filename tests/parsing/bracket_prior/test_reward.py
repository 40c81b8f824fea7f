"""A grammar rewarded by a prior over bracketings: all against all trees of short sentences."""

import pytest
import torch
from brute import all_trees
from sharp_energy import sharp_energy
from sharp_grammar import LABELS, SENTENCES, WORDS, SharpPCFG, compare, e_train

from gfnem.component import build
from gfnem.estimates import importance_weighted
from gfnem.lightning import GFlowNetEM
from gfnem.mcmc import metropolis
from gfnem.objectives import VarGrad
from gfnem.parsing import (
    BracketPrior,
    ForestPolicy,
    ForestSpace,
    NeuralParentPCFG,
    NeuralPCFG,
    Sentences,
    TopDownPolicy,
    TopDownSpace,
)
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.reward import Rewarded
from gfnem.schedules import Anneal
from gfnem.target import Target
from gfnem.testing import TargetTestCase


def shaped(grammar=None, temperature=2.0) -> Rewarded:
    torch.manual_seed(2)
    grammar = grammar or NeuralPCFG(6, LABELS, 3, dim=8)
    return Rewarded(grammar, BracketPrior(sharp_energy(), temperature))


class TestRewardedGrammar(TargetTestCase):
    def make_target(self):
        return shaped()

    def make_x(self):
        return Sentences.from_lists([[1, 2, 3, 4], [5], [3, 1]])

    def make_latents(self, x):
        return self.make_target().model.sample_posterior(x, 30)

    def take_latent(self, z, row):
        return z[row : row + 1].resized()


class TestRewardedParentGrammar(TestRewardedGrammar):
    def make_target(self):
        torch.manual_seed(2)
        return shaped(NeuralParentPCFG(6, LABELS, 3, dim=8))


X = Sentences.from_lists([[1, 2, 3, 4]])


def test_the_joint_by_hand_and_as_the_temperature_rises():
    model = shaped(temperature=Anneal(1.0, 100.0, 10, "exponential"))
    trees = all_trees(4, LABELS)
    for m_updates, temperature in ((0, 1.0), (5, 10.0), (10, 100.0), (1000, 100.0)):
        model.on_step(m_updates)
        with torch.no_grad():
            expected = model.model.log_joint(X, trees) - model.reward.prior(trees) / temperature
            torch.testing.assert_close(model.log_joint(X, trees), expected)
            torch.testing.assert_close(model.given(X).log_joint(trees), expected)


@pytest.mark.parametrize("kind", [NeuralPCFG, NeuralParentPCFG])
def test_labels_are_summed_out_beside_the_prior(kind):
    model, trees = shaped(kind(6, LABELS, 3, dim=8)), all_trees(4, LABELS)
    joint, collapsed = model.log_joint(X, trees)[0], model.collapsed_log_joint(X, trees)[0]
    splits = [tuple(split) for split in trees.split[0].tolist()]
    for split in set(splits):
        same = torch.tensor([other == split for other in splits])
        torch.testing.assert_close(collapsed[same][0], joint[same].logsumexp(0))


def test_what_it_offers_and_what_it_does_not():
    for model in (shaped(), shaped(NeuralParentPCFG(6, LABELS, 3, dim=8))):
        lacking = ("log_marginal", "sample_posterior", "sample", "tilted", "partial_log_joint")
        assert not any(model.offers(name) for name in lacking)
        assert model.offers("collapsed_log_joint")
        assert model.normalised() is model.model
        assert model.unit == "token"
        assert model.facts() == model.model.facts() and model.units(X).tolist() == [4]
        assert model.offers("potentials")


def test_the_prior_is_not_trained_and_travels_with_the_weights(tmp_path):
    energy = sharp_energy()
    energy.save(tmp_path / "prior.pt")
    reward = BracketPrior(str(tmp_path / "prior.pt"))
    model = Rewarded(NeuralPCFG(6, LABELS, 3, dim=8), reward)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        f"reward.prior.{name}" for name, _ in energy.named_parameters()
    }
    (tmp_path / "prior.pt").unlink()
    twin = build(model.spec(), Target)
    twin.load_state_dict(model.state_dict())
    trees = all_trees(4, LABELS)
    assert torch.equal(twin.log_joint(X, trees), model.log_joint(X, trees))


# a top-down policy weighs spans apart from one another; from 5 words on that cannot express every
# prior over shapes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "policy", "sentences", "updates"),
    [
        (TopDownSpace(LABELS), TopDownPolicy, (0, 1, 2), 150),
        (ForestSpace(LABELS), ForestPolicy, (0, 1), 300),
    ],
    ids=["down", "up"],
)
def test_the_sampler_becomes_the_posterior(space, policy, sentences, updates):
    torch.manual_seed(0)
    grammar = SharpPCFG(WORDS, LABELS, 3, dim=16)
    model = Rewarded(grammar, BracketPrior(sharp_energy()))
    x = Sentences.from_lists([SENTENCES[row] for row in sentences])
    policy = policy(WORDS, LABELS, dim=32).eval()
    without = posterior(model.model, x, 1)
    assert (without - posterior(model, x, 1)).abs().sum() / 2 > 0.08  # the prior matters
    e_train(policy, space, model, x, VarGrad(), updates)
    for row in range(len(x)):
        result = compare(policy, space, model, x, row)
        assert result["distance"] <= 0.02, result
        assert abs(result["vargrad_log_z"]) <= 0.02, result


@torch.no_grad()
def posterior(model, x, row):
    one = x[torch.tensor([row])]
    return model.log_joint(one, all_trees(int(one.lengths[0]), LABELS))[0].softmax(0)


@pytest.mark.slow
def test_chains_follow_it_too():
    """Expected energy under `p~` by Metropolis-Hastings, and by listing all trees."""
    model, chains = shaped(temperature=1.0), 3000
    torch.manual_seed(0)
    moves = TreeMoves(LABELS)
    z = moves.initial(X, chains)
    z, _, _ = metropolis(moves, model.given(X).log_joint, X, z, 60)
    with torch.no_grad():
        drawn = model.reward.prior(z)[0]
        listed = model.reward.prior(all_trees(4, LABELS))[0]
    expected = (posterior(model, X, 0) * listed).sum()
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / chains**0.5
    assert drawn.mean() < listed.mean() - 4 * drawn.std() / chains**0.5


def test_the_likelihood_is_the_grammars():
    """The bound from draws for `p~` is one of the grammar's `log p(x)`, and tight with many."""
    model = shaped(temperature=1.0)
    policy = TopDownPolicy(6, LABELS, dim=8)
    module = GFlowNetEM(model.model, TopDownSpace(LABELS), policy, reward=model.reward)
    posterior = module.posterior(X)
    torch.manual_seed(0)
    z, log_weights = posterior.log_weights(20_000)
    with torch.no_grad():
        exact = model.model.log_marginal(X)
        total = model.log_joint(X, all_trees(4, LABELS)).logsumexp(1)
    bound = importance_weighted(posterior.model_weights(z, log_weights))
    torch.testing.assert_close(bound, exact, atol=0.05, rtol=0)
    torch.testing.assert_close(importance_weighted(log_weights), total, atol=0.05, rtol=0)
    torch.testing.assert_close(posterior.log_marginal(20_000).value, exact, atol=0.05, rtol=0)
    assert abs(float(total - exact)) > 1


@torch.no_grad()
def test_an_untrained_sampler_is_the_grammars_exact_posterior():
    """What the prior adds is all that is left to learn; without it nothing is."""
    x = Sentences.from_lists([[1, 2, 3, 4, 2, 3], [3, 1], [2]])
    for kind, exact in ((SharpPCFG, True), (NeuralParentPCFG, False)):
        model = shaped(kind(WORDS, LABELS, 3, dim=8), temperature=1e9)
        policy = TopDownPolicy(WORDS, LABELS, dim=8, contexts=1 if exact else LABELS + 1).eval()
        module = GFlowNetEM(model.model, TopDownSpace(LABELS), policy, reward=model.reward)
        log_weights = module.posterior(x).log_weights(20)[1]
        expected = model.model.log_marginal(x)[:, None].expand_as(log_weights)
        error = (log_weights - expected).abs().amax(1)
        assert (error[0] < 1e-4) == exact  # rules that see the parent are only nearly guessed
        assert (error[1:] < 1e-4).all()
