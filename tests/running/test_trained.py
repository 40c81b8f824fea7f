"""A run opened for inference is the one that was trained."""

import pytest
import torch
from commands import trained

from gfnem.errors import UserError
from gfnem.lightning import GFlowNetEM
from gfnem.parsing import Sentences
from gfnem.running.runs import load_run
from gfnem.running.trained import Trained

pytestmark = pytest.mark.slow


def test_it_says_what_the_training_module_says():
    run, module = load_run(trained()), GFlowNetEM.load_from_checkpoint(trained() / "last.ckpt")
    module.eval()
    x = Sentences(torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([4, 2]))
    draws = []
    for either in (run, module):
        torch.manual_seed(3)
        z, log_weights = either.posterior(x).log_weights(5)
        draws.append((z.split, z.label, log_weights, either.posterior(x).log_prob(z)))
    for one, other in zip(*draws, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert run.has_policy is module.has_policy is True
    assert run.metadata == module.metadata and run.m_updates == int(module.m_updates) > 0


def test_it_is_for_inference_alone():
    run = load_run(trained())
    assert isinstance(run, Trained) and not run.training
    assert not any(parameter.requires_grad for parameter in run.parameters())
    assert run.device.type == "cpu" and run.to(torch.float64).model.start.dtype == torch.float64


def test_weights_that_do_not_fit(tmp_path):
    content = torch.load(trained() / "last.ckpt", weights_only=True)
    name = next(name for name in content["state_dict"] if name.startswith("em.policy."))
    del content["state_dict"][name]
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="do not fit"):
        load_run(tmp_path / "x.ckpt")
