"""Optimisers: one Adam for the policy, one for the model; and the averages of their weights."""

from __future__ import annotations

import torch
from torch import nn

from gfnem.component import Component
from gfnem.em import EM
from gfnem.phases import MODEL, POLICY
from gfnem.ranges import NotNegative, PartialShare, Positive
from gfnem.schedules import Anneal, value_at


class Rates(Component):
    """Adam's learning rates and the limit of its gradients.

    Args:
        policy: learning rate of the policy; a number, or an `Anneal` over M-updates (over updates
            where no model is trained).
        log_z: learning rate of those parts of the policy that only `log Z(x)` uses
            (`Policy.log_z_parts`), which have a long way to go; a number or an `Anneal`, likewise.
        model: learning rate of the model; a number, or an `Anneal` over M-updates.
        model_betas: Adam's moment decays for the model.
        clip: largest gradient norm, of policy and model apart.
        fused: whether Adam's step is one operation for all parameters: three times as fast.
        average: what is validated, kept and used is an average of the weights over the updates, in
            which later ones count more (see `WeightAverages`, whose decay it is): 8 for about the
            last ninth of all updates. None for the weights themselves.
    """

    def __init__(
        self,
        policy: NotNegative | Anneal = 3e-3,
        log_z: NotNegative | Anneal = 1e-2,
        model: NotNegative | Anneal = 4e-3,
        model_betas: tuple[PartialShare, PartialShare] = (0.9, 0.999),
        clip: Positive = 5.0,
        fused: bool = True,
        average: NotNegative | None = None,
    ):
        self.policy, self.log_z, self.model = policy, log_z, model
        self.model_betas, self.clip = (float(model_betas[0]), float(model_betas[1])), clip
        self.fused, self.average = fused, average

    def optimizers(self, em: EM) -> dict[str, torch.optim.Optimizer]:
        """An optimiser for each network, by the name that phases call it."""
        groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in em.policy.named_parameters() if em.policy is not None else ():
            if parameter.requires_grad:
                groups[em.policy.is_for_log_z(name)].append(parameter)
        rates = {False: value_at(self.policy, 0), True: value_at(self.log_z, 0)}
        policy = [
            {"params": groups[part], "lr": rates[part], "log_z": part}
            for part in groups
            if groups[part]
        ]
        model = [parameter for parameter in em.model.parameters() if parameter.requires_grad]
        # a fixed model has nothing to optimise, but Lightning wants two optimisers throughout
        device = next((p.device for p in em.parameters()), None)
        nothing = [nn.Parameter(torch.zeros((), device=device))]
        return {
            POLICY: torch.optim.Adam(policy or nothing, lr=rates[False], fused=self.fused),
            MODEL: torch.optim.Adam(
                model or nothing,
                lr=value_at(self.model, 0),
                betas=self.model_betas,
                fused=self.fused,
            ),
        }

    def set(self, network: str, optimizer: torch.optim.Optimizer, now: int) -> None:
        """Gives an optimiser the learning rate of an update (see `Clock.now`)."""
        rate = value_at(self.policy if network == POLICY else self.model, now)
        for group in optimizer.param_groups:
            group["lr"] = value_at(self.log_z, now) if group.get("log_z") else rate

    def step(self, optimizer: torch.optim.Optimizer, scale: float | None = None) -> bool:
        """Takes a step along clipped gradients, unless they are not finite.

        Args:
            optimizer: its parameters have gradients.
            scale: by which a loss scaler has multiplied them; it leaves such a step out by itself.

        Returns:
            Whether the gradients were finite.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip * (1.0 if scale is None else scale))
        finite = bool(torch.isfinite(norm))  # a batch that overflows is left out
        if finite or scale is not None:
            optimizer.step()
        return finite


class Descent:
    """Takes updates without a Trainer, on one device: for scripts, tests and benchmarks.

    Weights are not averaged.

    Args:
        em: what is trained.
        rates: of the optimisers.
    """

    def __init__(self, em: EM, rates: Rates | None = None):
        self.em, self.rates = em, Rates() if rates is None else rates
        self.optimizers = self.rates.optimizers(em)

    def update(self, x) -> dict:
        """One update on a batch of observations; the figures that the phases report."""
        for phase, loss in self.em.update(x):
            optimizer = self.optimizers[phase.trains]
            self.rates.set(phase.trains, optimizer, self.em.clock.now)
            optimizer.zero_grad()
            if not loss.requires_grad:
                continue
            loss.backward()
            self.rates.step(optimizer)
        return self.em.figures
