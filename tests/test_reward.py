"""Rewards in a world that can be listed: bits of strings."""

import itertools

import pytest
import torch
from toy import SIZES, BitModel, BitPolicy, BitSpace

from gfnem.estimates import importance_weighted
from gfnem.evaluation import figures
from gfnem.lightning import GFlowNetEM
from gfnem.offers import NotOffered
from gfnem.recipes import gflownet
from gfnem.reward import GivenRewarded, Reward, Rewarded, rewarded
from gfnem.running.trained import Trained
from gfnem.schedules import Anneal
from gfnem.target import Conditioned

X = torch.tensor([0, 1])


class Ones(Reward):
    """The number of ones, squared: no sum over places."""

    def forward(self, x, z):
        return z.sum(2).float() ** 2

    def summary(self):
        return "ones"


class Blind(Ones):
    of_collapsed = True
    of_samples = False

    def partial(self, x, state):
        return state.value.clamp(min=0).sum(2).float() ** 2


def all_bits(kind):
    strings = list(itertools.product((0, 1), repeat=SIZES[kind]))
    return torch.tensor(strings)[None]


def model():
    torch.manual_seed(3)
    return BitModel()


def test_the_sum_by_hand():
    target = Rewarded(model(), Ones(0.5))
    for kind in (0, 1):
        x, z = torch.tensor([kind]), all_bits(kind)
        expected = target.model.log_joint(x, z) + 0.5 * z.sum(2) ** 2
        torch.testing.assert_close(target.log_joint(x, z), expected)
        torch.testing.assert_close(target.given(x).log_joint(z), expected)
    assert rewarded(target.model, None) is target.model
    assert rewarded(target.model, Ones()).normalised() is target.model
    assert isinstance(target.given(X), GivenRewarded)


def test_the_weight_moves_with_m_updates():
    target = Rewarded(model(), Ones(Anneal(1.0, 0.0, 4)))
    x, z = torch.tensor([1]), all_bits(1)
    for m_updates, weight in ((0, 1.0), (1, 0.75), (4, 0.0), (9, 0.0)):
        target.on_step(m_updates)
        assert target.weight == weight
        expected = target.model.log_joint(x, z) + weight * z.sum(2) ** 2
        torch.testing.assert_close(target.log_joint(x, z), expected)


def test_what_a_reward_leaves_of_what_a_model_offers():
    offered = [name for name in ("log_marginal", "sample", "partial_log_joint", "sample_posterior")
               if model().offers(name)]  # fmt: skip
    assert {"sample", "partial_log_joint"} <= set(offered)
    plain, blind = Rewarded(model(), Ones()), Rewarded(model(), Blind())
    assert not any(plain.offers(name) for name in offered)
    assert [name for name in offered if blind.offers(name)] == [
        name for name in offered if name in ("sample", "partial_log_joint")
    ]
    with pytest.raises(NotOffered, match="BitModel rewarded by Ones offers no sample"):
        plain.sample(3)
    state = BitSpace().initial_state(X, 2)
    with pytest.raises(NotOffered):
        plain.partial_log_joint(X, state)
    found = blind.partial_log_joint(X, state)
    torch.testing.assert_close(found, blind.model.partial_log_joint(X, state))


def test_parts_are_given_to_a_model_that_takes_them():
    class Table(Conditioned):
        def __init__(self, target, x, parts):
            super().__init__(target, x)
            self.parts = parts

        def log_joint(self, z):
            return self.target.log_joint(self.x, z) + (self.parts * z).sum(2)

    class Taking(BitModel):
        def tilted(self, x, parts):
            return Table(self, x, parts)

    class Sum(Reward):
        def forward(self, x, z):
            return (self.parts(x) * z).sum(2)

        def parts(self, x):
            return torch.tensor([[[0.1, 0.2, 0.4]]])

    z = all_bits(1)
    one, other = Rewarded(Taking(), Sum(3.0)), Rewarded(Taking(), Ones())
    assert one.by_parts and not other.by_parts and not Rewarded(model(), Sum()).by_parts
    given = one.given(torch.tensor([1]))
    assert isinstance(given, Table)
    torch.testing.assert_close(given.parts, torch.tensor([[[0.3, 0.6, 1.2]]]))
    difference = one.log_joint(torch.tensor([1]), z) - one.model.log_joint(torch.tensor([1]), z)
    torch.testing.assert_close(difference, 3 * Sum()(None, z))


def module(reward, **settings):
    torch.manual_seed(0)
    return GFlowNetEM(model(), BitSpace(), BitPolicy(), gflownet(**settings), reward=reward)


@pytest.mark.slow
def test_the_sampler_aims_at_the_sum_and_the_figures_are_the_models():
    em = module(Ones(0.7), samples=32, m_step="equal")
    em.model.requires_grad_(False)
    optimizer = torch.optim.Adam(em.policy.parameters(), 0.02)
    for _ in range(400):
        for phase, loss in em.em.update(X):
            if phase.trains == "policy":
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    em.eval()
    posterior = em.posterior(X)
    for kind in (0, 1):
        x, z = torch.tensor([kind]), all_bits(kind)
        expected = em.target.log_joint(x, z)[0].softmax(0)
        own = em.posterior(x)
        found = own.log_prob(z, 64)[0].exp()
        assert (found - expected).abs().sum() / 2 < 0.03
        bare = em.model.log_joint(x, z)[0].softmax(0)
        assert (bare - expected).abs().sum() / 2 > 0.2  # the reward matters
    z, log_weights = posterior.log_weights(4000)
    exact = torch.cat([em.model.log_joint(torch.tensor([k]), all_bits(k)).logsumexp(1)
                       for k in (0, 1)])  # fmt: skip
    bound = importance_weighted(posterior.model_weights(z, log_weights))
    torch.testing.assert_close(bound, exact, atol=0.05, rtol=0)
    found = figures(em, X, 64)
    torch.testing.assert_close(found["log_p"], exact.double(), atol=0.1, rtol=0)
    assert (found["elbo_gap"] < 0.1).all()


def test_the_reward_is_told_what_the_m_step_learns_from():
    seen = []

    class Watching(Ones):
        def observe(self, x, z):
            seen.append((len(x), tuple(z.shape)))

    em = module(Watching(), samples=5)
    for _, loss in em.em.update(X):
        loss.backward()
    assert seen == [(2, (2, 5, 3))]


def test_it_is_registered_once_and_read_back(tmp_path):
    em = module(Ones(0.7))
    names = [name for name, _ in em.named_parameters()]
    assert len(names) == len(set(names)) and not any("target" in name for name in em.state_dict())
    torch.save({"hyper_parameters": dict(em.hparams), "state_dict": em.state_dict()},
               tmp_path / "c.pt")  # fmt: skip
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    run = Trained.from_checkpoint(content)
    assert isinstance(run.target, Rewarded) and run.target.model is run.model
    assert run.reward.weight == 0.7
    z = all_bits(1)
    one, other = (
        run.target.log_joint(torch.tensor([1]), z),
        em.target.log_joint(torch.tensor([1]), z),
    )
    torch.testing.assert_close(one, other)


def test_what_it_is_not():
    with pytest.raises(ValueError, match="takes a model and a reward, not Ones and Ones"):
        Rewarded(Ones(), Ones())
    with pytest.raises(ValueError, match="reward="):
        GFlowNetEM(Rewarded(model(), Ones()), BitSpace(), BitPolicy())
    with pytest.raises(ValueError, match="weight"):
        Ones(-1.0)
    assert Ones().prepare(None) is None and Reward.summary(Ones()) == "reward Ones"
