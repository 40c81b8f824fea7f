"""The proof that training reaches every parameter of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from gfnem.batched import Batched
from gfnem.objectives import BalancedVarGrad, Objective, TrajectoryBalance
from gfnem.policy import Policy
from gfnem.refinement import refine
from gfnem.sampling import Exploration
from gfnem.space import LatentSpace
from gfnem.target import Target
from gfnem.testing.common import DevicesNamed, devices, moved, rebuild


class PolicyTestCase:
    """Proves that a policy has no parameter which training would leave as it is.

    Supply `make_policy`, `make_target`, `make_space` and `make_x`; `make_objectives` where the
    policy is meant for others.
    """

    #: optimiser steps with each objective; heads that start at zero hide what lies below at first
    steps: int = 4
    #: structures drawn for each observation
    samples: int = 8

    def make_policy(self) -> Policy:
        """The policy, as it is before training."""
        raise NotImplementedError

    def make_target(self) -> Target:
        """The target it is to serve, with random parameters."""
        raise NotImplementedError

    def make_space(self) -> LatentSpace:
        """The space it moves in."""
        raise NotImplementedError

    def make_x(self) -> Any:
        """A batch of observations of different sizes, among which every parameter has a use."""
        raise NotImplementedError

    def make_objectives(self) -> Sequence[Objective]:
        """What the policy is trained by; those that need more than it offers are passed over."""
        return BalancedVarGrad(), TrajectoryBalance()

    def _served(self) -> tuple[Policy, Target]:
        torch.manual_seed(0)
        target = self.make_target()
        policy = self.make_policy()
        policy.serve(target)
        return policy.train(), target

    def _reached(self, objective: Objective) -> tuple[set[str], set[str]] | None:
        """The names of the parameters that an objective reaches, and of all there are.

        None where the policy does not offer what the objective needs.
        """
        policy, target = self._served()
        space, x = self.make_space(), self.make_x()
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.01)
        reached: set[str] = set()
        for _ in range(self.steps):
            loss = self._loss(objective, policy, target, space, x)
            if loss is None:
                return None
            optimizer.zero_grad()
            loss.backward()
            for name, parameter in policy.named_parameters():
                if parameter.grad is not None:
                    assert torch.isfinite(parameter.grad).all(), (
                        f"{name} gets a gradient that is not finite by {type(objective).__name__}"
                    )
                    if parameter.grad.abs().sum() > 0:
                        reached.add(name)
            optimizer.step()
        return reached, {name for name, p in policy.named_parameters() if p.requires_grad}

    def _loss(self, objective, policy, target, space, x):
        context = policy.encode(x, target.given(x))
        trajectories = policy.sample(context, x, space, self.samples)
        flows = objective.needs_flow or objective.uses_flow
        looks = {"forward_looking": True} if objective.forward_looking else {}
        options = {"flows": True, **looks} if flows else {}
        scores = policy.score(context, space, trajectories, **options)
        if (objective.needs_flow and scores.log_flow is None) or (
            objective.needs_log_z and scores.log_z is None
        ):
            return None
        partial = None
        with torch.no_grad():
            log_joint = target.log_joint(x, trajectories.latent)
            if objective.forward_looking:
                states = trajectories.states or space.states(x, trajectories.latent)
                partial = target.partial_log_joint(x, Batched.cat(states))
                partial = partial.unflatten(1, (len(states), self.samples)).transpose(1, 2)
        loss = objective(scores, log_joint, partial).mean()
        if policy.offers("auxiliary_loss"):
            loss = loss + policy.auxiliary_loss(context).mean()
        return loss

    def test_training_reaches_every_parameter(self):
        """Each gets a gradient; those for `log Z` alone only need one where it is learned."""
        reached: dict[bool, set[str]] = {False: set(), True: set()}
        every: set[str] = set()
        for objective in self.make_objectives():
            found = self._reached(objective)
            if found is not None:
                reached[objective.needs_log_z] |= found[0]
                every |= found[1]
        assert every, "no objective fits this policy, or it has no parameters"
        for_log_z = set(filter(self._served()[0].is_for_log_z, every))
        missed = every - reached[False] - reached[True]
        assert not missed, f"no objective reaches {', '.join(sorted(missed))}"
        if reached[False]:
            missed = every - reached[False] - for_log_z
            assert not missed, (
                f"{', '.join(sorted(missed))} are reached only where log Z is learned, and are not "
                "among log_z_parts"
            )

    def test_on_every_device(self):
        """A training step works on the devices that are there, and would on another.

        Only the objectives that the policy serves are tried.
        """
        for device in devices():
            for objective in self.make_objectives():
                policy, target = self._served()
                policy, target = policy.to(device), target.to(device)
                space, x = self.make_space(), moved(self.make_x(), device)
                with DevicesNamed():
                    loss = self._loss(objective, policy, target, space, x)
                    if loss is not None:
                        loss.backward()
                        self._draw(policy, target, space, x)

    @torch.no_grad()
    def _draw(self, policy, target, space, x) -> None:
        """What is done with a policy beside training it: explored samples, and their refinement."""
        policy.eval()
        context = policy.encode(x, target.given(x))
        z = policy.sample(context, x, space, 2, Exploration(1.5, 0.1)).latent
        policy.score(context, space, policy.retrace(context, x, space, z))
        try:
            refine(policy, context, target.given(x), space, z, 1)
        except NotImplementedError:  # a policy that scores whole structures only
            pass

    def test_a_policy_that_serves_rebuilds(self):
        """Made again from plain data and told its target, it takes the weights of the first."""
        policy, target = self._served()
        twin = rebuild(policy, Policy)
        twin.serve(target)
        twin.load_state_dict(policy.state_dict())
