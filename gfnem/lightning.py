"""The LightningModule around the algorithm: optimisers, processes, validation, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gfnem.averaging import WeightAverages
from gfnem.component import build, plain
from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.evaluation import figures, summary
from gfnem.phases import MODEL, POLICY, Phase
from gfnem.policy import Policy
from gfnem.ranges import Count, checked
from gfnem.rates import Rates
from gfnem.recipes import Recipe
from gfnem.reward import Reward
from gfnem.running.averages import Averages
from gfnem.running.processes import average_gradients, gather, own_rank, stream, world_size
from gfnem.running.random_streams import new_stream, own_stream, random_state, set_random_state
from gfnem.running.trained import Inference
from gfnem.running.trainers import check_trainer, leave_gradients_alone, loss_scaler
from gfnem.running.trust import sign
from gfnem.schedules import Schedule
from gfnem.space import LatentSpace
from gfnem.target import Target

_NETWORKS = (POLICY, MODEL)


class GFlowNetEM(Inference, pl.LightningModule):
    """GFlowNet-EM (Hu et al. 2023, arXiv 2302.06576) for any model, latent space and policy.

    One update takes one batch through the phases of the recipe. With the default recipe, the E-step
    draws structures for each `x` from the policy and trains it towards `P(z|x)`, and the M-step
    raises `log p(x, z)` on these samples.

    Args:
        model: the joint `p(x, z)` (all components may also be given as `Component.spec()` dicts,
            which is how checkpoints are loaded).
        space: how a structure is built.
        policy: the sampler.
        recipe: what an update is made of; `gfnem.recipes.gflownet()` if None.
        schedule: when to train sampler and model; both in every update if None.
        rates: of the optimisers; `Rates()` if None.
        reward: what the E-step adds to the model's `log p(x, z)`; nothing if None.
        eval_samples: structures drawn for each held-out `x`.
        record: whether updates on a GPU are recorded and repeated (see `gfnem.recording`).
        max_updates: training stops after so many updates (None: left to the Trainer).
        max_m_updates: training stops after so many M-updates.
        metadata: plain data to carry in checkpoints (vocabulary, how text was read).

    Raises:
        ValueError, NotOffered: if the parts do not fit each other.
    """

    @checked
    def __init__(
        self,
        model: Target | Mapping,
        space: LatentSpace | Mapping,
        policy: Policy | Mapping,
        recipe: Recipe | Mapping | None = None,
        schedule: Schedule | Mapping | None = None,
        rates: Rates | Mapping | None = None,
        reward: Reward | Mapping | None = None,
        *,
        eval_samples: Count = 16,
        record: bool = True,
        max_updates: Count | None = None,
        max_m_updates: Count | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        given = {name: value for name, value in locals().items() if name in _ARGUMENTS}
        super().__init__()
        self.automatic_optimization = False
        self.em = EM(
            build(model, Target),
            build(space, LatentSpace),
            build(policy, Policy),
            build(recipe, Recipe),
            build(schedule, Schedule),
            build(reward, Reward),
            record,
        )
        self.rates: Rates = build(rates, Rates) or Rates()
        self.eval_samples = eval_samples
        self.max_updates, self.max_m_updates = max_updates, max_m_updates
        self.metadata = metadata or {}
        self._not_finite = {POLICY: 0, MODEL: 0}  # gradients in a row
        self._rng: list[dict[str, Any]] | None = None
        self._averages = Averages()
        self._weights: WeightAverages | None = None
        self._means: dict[str, Tensor] = {}  # of a run that goes on
        self._evaluated = ExitStack()
        self._stop_asked = self._stop_agreed = False
        self._held_out: list[dict[str, Tensor]] = []
        self._save_arguments(given)

    @property
    def model(self) -> Target:
        """The joint `p(x, z)`."""
        return self.em.model

    @property
    def reward(self) -> Reward | None:
        """What the E-step adds to the model's `log p(x, z)`."""
        return self.em.reward

    @property
    def target(self) -> Target:
        """What the sampler aims at: the model, times the reward where there is one."""
        return self.em.target

    @property
    def space(self) -> LatentSpace:
        """How a structure is built."""
        return self.em.space

    @property
    def policy(self) -> Policy:
        """The sampler."""
        return self.em.policy

    @property
    def has_policy(self) -> bool:
        """Whether a sampler is trained at all."""
        return self.em.has_policy

    @property
    def updates(self) -> int:
        """Updates done; Lightning's `global_step` counts every optimiser step."""
        return self.em.clock.updates

    @property
    def e_updates(self) -> int:
        """Updates that trained the sampler."""
        return self.em.clock.e_updates

    @property
    def m_updates(self) -> int:
        """Updates that trained the model."""
        return self.em.clock.m_updates

    def _save_arguments(self, given: dict[str, Any]) -> None:
        """Keeps plain data only, so that checkpoints load with `weights_only=True`."""
        arguments = {}
        for name, value in given.items():
            try:
                arguments[name] = plain(value, name)
            except TypeError:
                continue  # `load_from_checkpoint(path, name=...)` must then be given it again
        self.save_hyperparameters(arguments, logger=False)

    # ---------------------------------------------------------------- training

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam for the policy, one for the model."""
        optimizers = self.rates.optimizers(self.em)
        return [optimizers[network] for network in _NETWORKS]

    def configure_callbacks(self) -> list:
        """None; but it is the first that Lightning asks, and so the place to refuse a Trainer."""
        if self._trainer is not None:
            check_trainer(self.trainer)
        return []

    def on_fit_start(self) -> None:
        """Has the phases read what they need, and gives each process its own random numbers."""
        self._evaluated.close()  # of a fit that failed in the middle of a validation
        self.em.prepare()
        own_stream(stream())
        if self.rates.average is not None:
            self._weights = WeightAverages(self.named_parameters(), self.rates.average)
            self._weights.load(self._means)
        self._means = {}

    def on_train_start(self) -> None:
        """A run that is complete is not trained further."""
        self.trainer.should_stop = self.trainer.should_stop or self._complete()

    def on_fit_end(self) -> None:
        """Keeps the averages of weights, and forgets that it was asked to stop."""
        self._stop_asked = False
        if self._weights is not None:
            self._weights.put(self._weights.means)
            self._weights = None

    def _complete(self) -> bool:
        """Whether the updates asked for are done."""
        return any(
            limit is not None and done >= limit
            for done, limit in (
                (self.updates, self.max_updates),
                (self.m_updates, self.max_m_updates),
            )
        )

    def stop_soon(self) -> None:
        """Asks training to stop after the present update, on all processes at the same one."""
        self._stop_asked = True

    @property
    def stopping(self) -> bool:
        """Whether all processes have agreed to stop."""
        return self._stop_agreed

    def training_step(self, x: Any, batch_idx: int) -> None:
        """One update: the phases that are due, each with a step of its network's optimiser."""
        if self._trainer is not None:
            leave_gradients_alone(self.trainer)
        for phase, loss in self.em.update(x):
            self._descend(phase, loss, len(x))
        if self._weights is not None:
            self._weights.add(self.updates)
        self._averages.add(m_updates=float(self.m_updates), **self.em.figures)
        if world_size() == 1:
            self._stop_agreed = self._stop_asked
        if self._trainer is not None:
            self._end_update()

    def _end_update(self) -> None:
        """Tells the Trainer to go on, to sum up, or to stop."""
        trainer = self.trainer
        complete = self._complete()
        if trainer.is_last_batch or complete:
            self.log_dict(self._averages.take(), on_step=False, on_epoch=True, prog_bar=True)
        elif self._stop_agreed:
            trainer.limit_val_batches = 0  # an interval that is cut short has no figures
        if complete or self._stop_agreed:
            trainer.should_stop = True

    def _descend(self, phase: Phase, loss: Tensor, observations: int) -> None:
        network = phase.trains
        optimizers: Any = self.optimizers()
        optimizer = optimizers[_NETWORKS.index(network)]
        self.rates.set(network, optimizer, self.em.clock.now)
        optimizer.zero_grad()
        if not loss.requires_grad:
            return
        self.manual_backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._stop_agreed = average_gradients(parameters, observations, self._stop_asked)
        scaler = None if self._trainer is None else loss_scaler(self.trainer)
        finite = self.rates.step(optimizer, None if scaler is None else scaler.get_scale())
        self._not_finite[network] = 0 if finite else self._not_finite[network] + 1
        self.check_gradients(20)  # one batch may overflow; this many will not mend

    def check_gradients(self, most: int) -> None:
        """Refuses to go on where a network has had no finite gradient for `most` steps.

        Raises:
            UserError: naming the network.
        """
        for network, steps in self._not_finite.items():
            if steps >= most:
                raise UserError(
                    f"update {self.updates}: no finite gradient of the {network} for {steps} "
                    f"step{'s' * (steps > 1)}; lower its learning rate (rates.{network}) or "
                    "rates.clip"
                )

    # ---------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        """Gives validation a random stream of its own, so that it does not disturb training."""
        self._held_out = []
        self._training_rng = random_state()
        if self._weights is not None:
            self._evaluated.enter_context(self._weights.in_place())

    def validation_step(self, x: Any, batch_idx: int) -> None:
        """Figures of the sampler (and, where tractable, of exact inference) on held-out data."""
        # the same draws for a batch, whichever process it comes to
        torch.manual_seed(batch_idx * world_size() + own_rank())
        self._held_out.append(figures(self, x, self.eval_samples))

    def on_validation_epoch_end(self) -> None:
        """Logs `nll` a unit, `elbo_gap` and `missed` an observation, and the relative `ess`."""
        self._log_held_out("val")
        self._end_evaluation()

    on_test_epoch_start = on_validation_epoch_start

    def test_step(self, x: Any, batch_idx: int) -> None:
        """As `validation_step`; the figures are named `test_...`."""
        self.validation_step(x, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Logs what `on_validation_epoch_end` logs."""
        self._log_held_out("test")
        self._end_evaluation()

    def _end_evaluation(self) -> None:
        self._evaluated.close()
        set_random_state(self._training_rng)

    def _log_held_out(self, prefix: str) -> None:
        report = summary([part for parts in gather(self._held_out) for part in parts])
        # alike on all processes
        self.log_dict({f"{prefix}_{name}": v.float() for name, v in report.items()}, prog_bar=True)

    def forward(self, x: Any, samples: int = 1) -> Any:
        """Latents drawn by the sampler for a batch of observations, `(batch, samples)` each."""
        return self.posterior(x).sample(samples)

    def predict_step(self, x: Any, batch_idx: int) -> Any:
        """One latent for each observation."""
        return self(x)

    # ---------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the random generators' states: a resumed run draws what it would have drawn.

        Where weights are averaged, it has the averages, and beside them what is trained.
        """
        checkpoint["rng"] = gather(random_state())
        checkpoint["averages"] = gather(self._averages.state_dict())
        checkpoint["has_policy"] = self.has_policy
        if self._weights is not None:
            state = checkpoint["state_dict"]
            checkpoint["trained"] = {name: state[name] for name in self._weights.means}
            checkpoint["state_dict"] = {**state, **self._weights.means}
        checkpoint.setdefault("trust", sign(dict(self.hparams)))  # a run folder has signed more

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the random generators' states until training starts, and averages of weights."""
        self._rng = checkpoint.get("rng")
        states = checkpoint.get("averages", [])
        self._averages = Averages()
        if own_rank() < len(states):
            self._averages.load_state_dict(states[own_rank()])
        training = self._trainer is not None and self.trainer.state.fn == "fit"
        if training and "trained" in checkpoint:
            self._means = dict(checkpoint["state_dict"])
            checkpoint["state_dict"] = {**self._means, **checkpoint["trained"]}

    def on_train_epoch_start(self) -> None:
        """Restores the random generators of a resumed run."""
        if self._rng is None:
            return
        if len(self._rng) == world_size():
            set_random_state(self._rng[stream()])
        else:
            new_stream(self._rng[0]["cpu"], own_rank())
        self._rng = None


_ARGUMENTS = (
    "model", "space", "policy", "recipe", "schedule", "rates", "reward", "eval_samples",
    "max_updates", "max_m_updates", "metadata",
)  # fmt: skip
