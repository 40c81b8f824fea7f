"""Targets: what is computed once for a batch, and what is refused."""

import torch
from toy import BitModel, strings

from gfnem.target import Target

KINDS = torch.tensor([0, 0])
HOOKS = (
    *("partial_log_joint", "collapsed_log_joint", "log_marginal", "sample_posterior", "sample"),
)


class Least(Target):
    """A target that offers nothing but its log joint."""

    def log_joint(self, x, z):
        return -(z.double().sum(2) - x[:, None]).abs()


def test_log_joint_is_all_that_is_needed():
    target, z = Least(), torch.zeros(2, 3, 4)
    assert not any(target.offers(hook) for hook in HOOKS)
    given = target.given(torch.tensor([1.0, 2.0]))
    assert given.log_joint(z).tolist() == [[-1] * 3, [-2] * 3]
    assert not any(given.offers(hook) for hook in HOOKS)
    assert target.normalised() is target and target.facts() == {}
    assert target.units(torch.zeros(3)).tolist() == [1, 1, 1]


def test_what_a_model_offers_is_asked_through_the_batch(monkeypatch):
    model = BitModel()
    given, asked = model.given(KINDS), []
    exact = model.log_marginal

    def counted(x):
        asked.append(x)
        return exact(x)

    monkeypatch.setattr(model, "log_marginal", counted)
    z = strings(2).expand(2, -1, -1)
    first = given.log_marginal()
    torch.testing.assert_close(given.log_joint(z).logsumexp(1), first)
    assert given.log_marginal() is first and len(asked) == 1, "it is computed once"
    with torch.no_grad():  # without gradients it is another tensor
        assert not given.log_marginal().requires_grad and first.requires_grad
