"""A sampler that writes in a fixed order and scores whole assignments in one pass."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from gfnem.energies.policies import AssignmentNetwork
from gfnem.energies.space import Assignment
from gfnem.policy import Scores, Step
from gfnem.ranges import Count, Fact
from gfnem.refinement import steps_back
from gfnem.sampling import Exploration, draw
from gfnem.space import LatentSpace, Trajectories


class MaskedPolicy(AssignmentNetwork):
    """An autoregressive network with masked weights (Germain et al. 2015, arXiv 1502.03509).

    What it says of a block depends on the blocks before it alone, so one pass scores all steps of a
    trajectory. Of a row with missing entries it sees, at each step, what stands before. The flow of
    a state is the log of the sum of `p~` over its completions.

    Args:
        variables: how many there are, latent ones included.
        values: values of each.
        block: variables written by one action.
        order: must be "fixed", as of the space.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
    """

    log_z_parts = ("level",)

    def __init__(
        self,
        variables: Fact = None,
        values: Fact = None,
        block: Fact = 1,
        order: str = "fixed",
        hidden: Count = 512,
        layers: Count = 2,
    ):
        super().__init__(variables, values, block, order)
        if order != "fixed":
            raise ValueError("MaskedPolicy writes in a fixed order: dataset.order fixed")
        inputs = torch.arange(variables).repeat_interleave(self.per_variable) // block
        # a unit sees blocks up to its own number; those of the last block would serve nobody
        units = torch.arange(hidden) % max(self.blocks - 1, 1)
        outputs = torch.arange(self.blocks).repeat_interleave(self.options) - 1
        outputs = torch.cat([outputs, torch.arange(self.blocks + 1) - 1])  # and the flows
        sees = [inputs, *[units] * layers, outputs]
        self.stages = nn.ModuleList(
            nn.Linear(len(before), len(after)) for before, after in itertools.pairwise(sees)
        )
        for number, (before, after) in enumerate(itertools.pairwise(sees)):
            mask = (before <= after[:, None]).float()
            self.register_buffer(f"mask{number}", mask, persistent=False)
        self.direct = nn.Parameter(torch.zeros(len(outputs), len(inputs)))
        mask = (inputs <= outputs[:, None]).float()
        self.register_buffer("direct_mask", mask, persistent=False)
        nn.init.zeros_(self.stages[-1].weight)
        nn.init.zeros_(self.stages[-1].bias)
        self.level = nn.Parameter(torch.zeros(self.blocks + 1))

    def weights(self) -> list[Tensor]:
        """The masked weights of all stages, the direct path last."""
        masked = [
            stage.weight * getattr(self, f"mask{number}")
            for number, stage in enumerate(self.stages)
        ]
        return [*masked, self.direct * self.direct_mask]

    def network(
        self, value: Tensor, weights: list[Tensor] | None = None, rows: slice = slice(None)
    ) -> Tensor:
        """`(..., outputs)`, or those of some `rows`, of assignments `(..., variables)`."""
        *masked, last, direct = self.weights() if weights is None else weights
        features = self.features(value)
        hidden = features
        for stage, weight in zip(self.stages, masked, strict=False):
            hidden = silu(linear(hidden, weight, stage.bias))
        return linear(hidden, last[rows], self.stages[-1].bias[rows]) + linear(
            features, direct[rows]
        )

    def heads(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(..., blocks, options)`, and log flows `(..., blocks + 1)` before each block."""
        logits, flows = self.network(value).split((self.blocks * self.options, self.blocks + 1), -1)
        left = self.variables - self.block * torch.arange(self.blocks + 1, device=value.device)
        level = self.level + left * torch.tensor(float(self.values), device=value.device).log()
        return logits.unflatten(-1, (self.blocks, self.options)), flows + level

    def forward(self, context: Any, state: Assignment) -> Step:
        """Scores states one by one."""
        logits, flows = self.heads(state.value)
        open = self.space.open(state.value)
        first = torch.where(open.any(-1), open.int().argmax(-1), self.blocks)
        forward = self.codes(logits, state.value).flatten(-2)
        return Step(forward, None, flows.gather(-1, first.unsqueeze(-1)).squeeze(-1))

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned log of the sum of `p~` over completions of what stands first."""
        state = Assignment(context[:, None], context[:, None] >= 0)
        return self.forward(None, state).log_flow.squeeze(1)

    # ---------------------------------------------------------------- whole trajectories

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws block after block."""
        known = context[:, None].expand(-1, samples, -1)
        z, log_behaviour = self.complete(known, exploration or Exploration())
        return Trajectories(z, log_behaviour=log_behaviour)

    @torch.no_grad()
    def retrace(self, context: Tensor, x: Any, space: LatentSpace, latent: Tensor) -> Trajectories:
        """There is one trajectory to each assignment."""
        nothing = torch.zeros(latent.shape[:2], device=latent.device)
        return Trajectories(latent, log_behaviour=nothing)

    def complete(self, value: Tensor, exploration: Exploration) -> tuple[Tensor, Tensor]:
        """Writes what is open of `(batch, samples, variables)`.

        Returns:
            The assignments, and `(batch, samples)` log probability of what was drawn, in nats.
        """
        weights, digits = self.weights(), self.space.digits(value.device)
        log_behaviour = torch.zeros(value.shape[:2], device=value.device)
        steps = self.space.open(value).flatten(0, 1).any(0).tolist()
        value = value.clone()
        for block in (block for block, open in enumerate(steps) if open):
            rows = slice(block * self.options, (block + 1) * self.options)
            place = slice(block * self.block, (block + 1) * self.block)
            known = value[..., place]
            agrees = ((known.unsqueeze(-2) < 0) | (known.unsqueeze(-2) == digits)).all(-1)
            code, log_drawn = draw(self.network(value, weights, rows), agrees, exploration)
            value[..., place] = torch.where(known < 0, digits[code], known)
            log_behaviour = log_behaviour + log_drawn
        return value, log_behaviour

    def score(
        self,
        context: Tensor,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """One pass for all steps; blocks that are observed are no steps, and come first."""
        z = trajectories.latent
        log_pf, log_flow, mask = self.steps(context, z)
        order = mask.int().argsort(dim=-1, stable=True)
        log_pf, mask = log_pf.gather(2, order), mask.gather(2, order)
        if flows:
            last = torch.full_like(order[..., :1], self.blocks)
            log_flow = log_flow.gather(2, torch.cat([order, last], 2))
        nothing = torch.zeros_like(log_pf)
        return Scores(
            log_pf, nothing, mask, self.log_z(context), log_flow if flows else None, guided=False
        )

    def steps(self, context: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of every block `(batch, samples, blocks)`: log P_F, 0 where observed, and whether not.

        The second is `(batch, samples, blocks + 1)` log flows.
        """
        logits, log_flow = self.heads(z)
        known = context[:, None].expand_as(z)
        log_pf = self.codes(logits, known).gather(-1, self.space.code(z).unsqueeze(-1)).squeeze(-1)
        mask = self.space.open(known)
        return log_pf.masked_fill(~mask, 0.0), log_flow, mask

    @torch.no_grad()
    def regrow(
        self, context: Tensor, x: Any, space: LatentSpace, latent: Tensor, back: int | float
    ) -> tuple[Tensor, Tensor]:
        """Opens the last blocks again and writes them anew; see `gfnem.refinement`."""
        known = context[:, None].expand_as(latent)
        open = self.space.open(known)
        steps = steps_back(open.sum(-1), back)
        from_end = open.flip(-1).cumsum(-1).flip(-1)
        undone = (open & (from_end <= steps.unsqueeze(-1))).repeat_interleave(self.block, -1)
        new, log_new = self.complete(torch.where(undone, known, latent), Exploration())
        log_pf, _, _ = self.steps(context, latent)
        redone = undone.unflatten(-1, (self.blocks, self.block)).any(-1)
        return new, (log_pf * redone).sum(-1) - log_new
