"""The proof of a target."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Any
from unittest import SkipTest

import torch

from gfnem.batched import tensors_of
from gfnem.offers import NotOffered
from gfnem.space import LatentSpace
from gfnem.target import Target
from gfnem.testing.common import DevicesNamed, Rows, close, devices, moved, rebuild


class TargetTestCase(Rows):
    """Proves a target: gradients, padding, normalisation, sampling.

    Supply `make_target`, `make_x` and `make_latents`; the other hooks where you can.
    """

    #: largest difference, in nats, between two computations of one log density
    tolerance: float = 1e-4
    #: draws of `sample` to compare with `log_joint` where both `x` and `z` are discrete; 0: none
    frequency_samples: int = 0

    def make_target(self) -> Target:
        """The target, with random parameters."""
        raise NotImplementedError

    def make_x(self) -> Any:
        """A batch of observations of different sizes."""
        raise NotImplementedError

    def make_latents(self, x: Any) -> Any:
        """Latents for `x`, leading axes `(batch, samples)`, that together use every parameter."""
        raise NotImplementedError

    def enumerate_latents(self, x: Any) -> Any | None:
        """All latents of a batch of one observation, `(1, how many)`."""
        return None

    def make_space(self) -> LatentSpace | None:
        """The space the latents live in, to check `partial_log_joint`."""
        return None

    def _target(self) -> tuple[Target, Any, Any]:
        torch.manual_seed(0)
        target, x = self.make_target(), self.make_x()
        return target, x, self.make_latents(x)

    def test_log_joint_is_a_finite_number_a_sample(self):
        """`log_joint` is finite, `(batch, samples)`; `units` is `(batch,)`."""
        target, x, z = self._target()
        value = target.log_joint(x, z)
        assert value.dim() == 2 and len(value) == len(x), f"log_joint has shape {value.shape}"
        assert torch.isfinite(value).all()
        units = target.units(x)
        assert units.shape == (len(x),) and (units > 0).all()

    def test_gradients_reach_every_parameter(self):
        """Every parameter that is to be trained gets a finite gradient."""
        target, x, z = self._target()
        value = target.log_joint(x, z)
        parameters = {n: p for n, p in target.named_parameters() if p.requires_grad}
        if not parameters:
            raise SkipTest("the target has nothing to train")
        value.sum().backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), (
                f"{name} gets a gradient that is not finite"
            )
            assert parameter.grad.abs().sum() > 0, f"{name} gets a gradient of zeros"

    @torch.no_grad()
    def test_padding_does_not_change_values(self):
        """Values in a padded batch are those of each observation on its own."""
        target, x, z = self._target()
        together = target.log_joint(x, z)
        marginal = target.log_marginal(x) if target.offers("log_marginal") else None
        for row in range(len(x)):
            single = self.take(x, row)
            alone = target.log_joint(single, self.take_latent(z, row))
            close(together[row], alone[0], self.tolerance, f"log_joint of row {row}")
            if marginal is not None:
                alone = target.log_marginal(single)
                close(marginal[row], alone[0], self.tolerance, f"log_marginal of row {row}")
            close(target.units(x)[row], target.units(single)[0], 0.0, f"units of row {row}")

    @torch.no_grad()
    def test_log_joint_sums_to_log_marginal(self):
        """The joint summed over all latents is the marginal."""
        target, x, _ = self._target()
        marginal = target.log_marginal(x) if target.offers("log_marginal") else None
        latents = [self.enumerate_latents(self.take(x, row)) for row in range(len(x))]
        if marginal is None or any(z is None for z in latents):
            raise SkipTest("no exact log_marginal, or no enumerate_latents")
        assert marginal.shape == (len(x),)
        for row, z in enumerate(latents):
            total = target.log_joint(self.take(x, row), z).logsumexp(1)
            close(total[0], marginal[row], self.tolerance, f"log_marginal of row {row}")

    @torch.no_grad()
    def test_samples(self):
        """`sample` returns what `log_joint` accepts, as often as `log_joint` says."""
        target, _, _ = self._target()
        if not target.offers("sample"):
            raise SkipTest("the target does not sample")
        count = max(self.frequency_samples, 4)
        x, z = target.sample(count)
        value = target.log_joint(x, z)
        assert value.shape == (count, 1), f"log_joint of samples has shape {value.shape}"
        assert torch.isfinite(value).all(), "sampled what log_joint calls impossible"
        if not self.frequency_samples:
            return
        seen: Counter = Counter()
        probability: dict[Hashable, float] = {}
        for row in range(count):
            pair = (self.take(x, row), self.take_latent(z, row))
            key = tuple(tuple(t.flatten().tolist()) for part in pair for t in tensors_of(part))
            seen[key] += 1
            probability[key] = float(value[row, 0].exp())
        for key, p in probability.items():
            bound = 5 * math.sqrt(p * max(1 - p, 0.0) / count) + 5 / count
            assert abs(seen[key] / count - p) <= bound, (
                f"drawn {seen[key]} of {count} times, probability {p:.4f}: {key}"
            )

    @torch.no_grad()
    def test_partial_log_joint_ends_at_log_joint(self):
        """Forward-looking credit equals the joint at final states."""
        target, x, z = self._target()
        space = self.make_space()
        if space is None:
            raise SkipTest("no make_space")
        if not target.offers("partial_log_joint"):
            raise SkipTest("the target offers no partial_log_joint")
        partial = target.partial_log_joint(x, space.final_state(x, z))
        close(partial, target.log_joint(x, z), self.tolerance, "partial_log_joint at the end")

    @torch.no_grad()
    def test_on_every_device(self):
        """All that the target offers works on the devices that are there, and would on another."""
        target, x, z = self._target()
        values = target.log_joint(x, z)
        for device in devices():
            target, x, z = target.to(device), moved(x, device), moved(z, device)
            # a GPU's recurrent networks have 10 bits of precision otherwise
            with DevicesNamed(), torch.backends.cudnn.flags(allow_tf32=False):
                close(target.log_joint(x, z).cpu(), values.cpu(), 1e-3, f"log_joint on {device}")
                device = target.log_joint(x, z).device
                assert target.units(x).device == device
                for value in self._offered(target, x, z).values():
                    assert getattr(value, "device", device) == device
                if target.offers("sample"):
                    target.log_joint(*target.sample(3))

    @staticmethod
    def _offered(target: Target, x: Any, z: Any) -> dict[str, Any]:
        """The hooks of one batch that the target says it offers, each called."""
        given = target.given(x)
        hooks = {
            "collapsed_log_joint": lambda: given.collapsed_log_joint(z),
            "log_marginal": given.log_marginal,
            "sample_posterior": lambda: given.sample_posterior(2),
        }
        return {name: hook() for name, hook in hooks.items() if target.offers(name)}

    @torch.no_grad()
    def test_offers_and_hooks_agree(self):
        """A hook that is offered returns something; one that is not raises `NotOffered`."""
        target, x, z = self._target()
        offered = self._offered(target, x, z)
        assert all(value is not None for value in offered.values())
        calls = {
            "collapsed_log_joint": (x, z),
            "log_marginal": (x,),
            "sample_posterior": (x, 2),
            "sample": (2,),
            "partial_log_joint": (x, None),
        }
        for name, arguments in calls.items():
            if not target.offers(name):
                try:
                    getattr(target, name)(*arguments)
                except NotOffered:
                    continue
                raise AssertionError(f"{name} is not offered, but can be called")

    @torch.no_grad()
    def test_given_a_batch_it_is_the_same(self):
        """`given(x)` says what the target says of `x`."""
        target, x, z = self._target()
        given = target.given(x)
        close(given.log_joint(z), target.log_joint(x, z), self.tolerance, "given(x).log_joint")
        for name, arguments in (("log_marginal", ()), ("collapsed_log_joint", (z,))):
            if target.offers(name):
                one, other = getattr(given, name)(*arguments), getattr(target, name)(x, *arguments)
                close(one, other, self.tolerance, f"given(x).{name}")

    @torch.no_grad()
    def test_spec_rebuilds(self):
        """The target can be made again from plain data, as a checkpoint does."""
        target, x, z = self._target()
        twin = rebuild(target, Target)
        twin.load_state_dict(target.state_dict())
        close(twin.log_joint(x, z), target.log_joint(x, z), self.tolerance, "log_joint")
