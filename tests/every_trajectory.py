"""All trajectories of a space with free log probabilities, for exact expectations of estimators."""

from __future__ import annotations

import torch
from torch import Tensor

from gfnem.enumeration import enumerate_states, enumerate_trajectories
from gfnem.sampling import log_probability


class EveryTrajectory:
    """Tables of logits for `P_F` and `P_B`, and each trajectory's log probabilities under them."""

    def __init__(self, space, x, seed: int = 0, scale: float = 1.0):
        generator = torch.Generator().manual_seed(seed)
        graph, found = enumerate_states(space, x), enumerate_trajectories(space, x)
        self.graph = graph
        self.masks = space.forward_mask(graph.states)[0], space.backward_mask(graph.states)[0]
        self.tables = [
            (scale * torch.randn(mask.shape, generator=generator)).double().requires_grad_()
            for mask in self.masks
        ]
        paths = found.trajectories
        self.mask = paths.mask[0]
        self.number = torch.stack([graph.find(state)[0] for state in paths.states], 1)
        self.actions, self.undos = paths.actions[0], paths.backward_actions[0]
        place = torch.full((len(graph),), -1)
        place[graph.ends] = torch.arange(len(graph.ends))
        self.structure = place[self.number[:, -1]]  # of each trajectory
        self.log_reward = torch.randn(len(graph.ends), generator=generator).double()

    def steps(self) -> tuple[Tensor, Tensor]:
        """`(trajectories, steps)` log P_F and log P_B, differentiable in the tables."""
        forward, backward = (
            log_probability(table, mask)
            for table, mask in zip(self.tables, self.masks)  # noqa: B905
        )
        log_pf = forward[self.number[:, :-1], self.actions].masked_fill(~self.mask, 0.0)
        log_pb = backward[self.number[:, 1:], self.undos].masked_fill(~self.mask, 0.0)
        return log_pf, log_pb

    def rewards(self) -> Tensor:
        """`(trajectories,)` log R of where each ends."""
        return self.log_reward[self.structure]

    def log_target(self) -> Tensor:
        """`(trajectories,)` log P_B R / Z."""
        return self.steps()[1].sum(1) + self.rewards() - self.log_reward.logsumexp(0)

    def gradients(self, value: Tensor) -> list[Tensor]:
        """With respect to the tables of P_F and of P_B; zeros where there is none."""
        found = torch.autograd.grad(value, self.tables, allow_unused=True, retain_graph=True)
        return [
            torch.zeros_like(table) if gradient is None else gradient
            for table, gradient in zip(self.tables, found, strict=True)
        ]
