"""The training module: E-step, M-step, and when to take which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gfnem.component import build, plain
from gfnem.errors import UserError
from gfnem.esteps import E_STEPS, M_STEPS
from gfnem.estimates import effective_sample_size, elbo, importance_weighted
from gfnem.moves import metropolis
from gfnem.objectives import BalancedVarGrad, Objective, forward_kl
from gfnem.policy import Policy, Scores
from gfnem.ranges import Amount, Count, NotNegative, PartialShare, Positive, Share, check_arguments
from gfnem.refinement import refine
from gfnem.running.averages import Averages
from gfnem.running.processes import average_gradients, gather, mean, own_rank, world_size
from gfnem.running.random_streams import new_stream, own_stream, random_state, set_random_state
from gfnem.running.trained import Inference
from gfnem.running.trainers import check_trainer, leave_gradients_alone, loss_scaler
from gfnem.running.trust import sign
from gfnem.sampling import ON_POLICY, Exploration
from gfnem.schedules import Anneal, EveryUpdate, Timing, value_at
from gfnem.side import SideInformation
from gfnem.space import LatentSpace, Trajectories, concatenate
from gfnem.target import EnergyModel, Target

#: held-out figures that are means over observations
_MEANS = ("elbo_gap", "ess", "missed")


class GFlowNetEM(Inference, pl.LightningModule):
    """GFlowNet-EM (Hu et al. 2023, arXiv 2302.06576) for any model, latent space and policy.

    One update takes one batch. The E-step draws `samples` structures for each `x` from the policy
    and trains it by `objective` towards `P(z|x)`; the M-step raises `log p(x, z)` on these samples.

    Args:
        model: the joint `p(x, z)` (all components may also be given as `Component.spec()` dicts,
            which is how checkpoints are loaded).
        space: how a structure is built.
        policy: the sampler.
        objective: the E-step's loss.
        timing: when to train sampler and model; every update if None.
        side: what the model learns from beside the observations; nothing if None.
        e_step: where the structures of the M-step come from (see `E_STEPS` for the names):
            "gflownet"; its rivals that train the policy otherwise, "wake-sleep", "reverse-kl" and
            "iw" (these choose objective and M-step themselves); and those that need no policy,
            "exact", "exact-sampling" and "mcmc".
        collapse: whether the M-step sums out what the model can sum out of a sample in closed form
            (`Target.collapsed_log_joint`), which makes it less noisy.
        m_step: "weighted" counts the samples of each `x` by self-normalised `p(x,z)/q(z|x)`: right
            where the sampler lags behind, if they are many for the structures there are. "plain"
            counts them equally: less noisy where they are few, as for trees. "best" takes the one
            with the greatest `p(x,z)` alone, and "drawn" one drawn by the weights: noisier than all
            of them, and `samples` times cheaper.
        refine: back-and-forth Metropolis-Hastings proposals to each sample before the M-step, in
            which the samples then count equally (Hu et al. 2023 use 10).
        mcmc_steps: of "mcmc": how many changes are proposed to each sample in each update.
        samples: structures drawn for each `x`. With few, both steps are noisy.
        temperature: of training samples: the policy's log weights are divided by it, so that above
            1 samples stray further from what the policy prefers.
        epsilon: probability that a step of a training sample is drawn uniformly instead.
        reward_temperature: the `T` in `p(z|x)^(1/T)`, which the sampler aims at.
        sleep: weight of the sleep phase: the policy's likelihood of structures that the model
            itself draws together with their `x`. 0 turns it off.
        policy_lr: Adam learning rate of the policy.
        log_z_lr: Adam learning rate of those parts of the policy that only `log Z(x)` uses
            (`Policy.log_z_parts`), which have a long way to go.
        model_lr: Adam learning rate of the model.
        model_betas: Adam's moment decays for the model.
        clip: largest gradient norm, of policy and model apart.
        average_decay: of the E-loss's moving average (bias-corrected) that an adaptive timing looks
            at; nearer to 1 is slower.
        eval_samples: structures drawn for each held-out `x`.
        max_updates: training stops after so many updates (None: left to the Trainer).
        max_m_updates: training stops after so many M-updates.
        metadata: plain data to carry in checkpoints (vocabulary, how text was read).

    Both temperatures, `epsilon`, `policy_lr` and `model_lr` may be numbers or an `Anneal` over
    M-updates.
    """

    def __init__(
        self,
        model: Target | Mapping,
        space: LatentSpace | Mapping,
        policy: Policy | Mapping,
        objective: Objective | Mapping | None = None,
        timing: Timing | Mapping | None = None,
        *,
        side: SideInformation | None = None,
        e_step: str = "gflownet",
        m_step: str = "weighted",
        collapse: bool = True,
        refine: Amount = 0,
        mcmc_steps: Count = 1000,
        samples: Count = 16,
        temperature: Positive | Anneal = 1.0,
        epsilon: Share | Anneal = 0.0,
        reward_temperature: Positive | Anneal = 1.0,
        sleep: NotNegative = 0.0,
        policy_lr: NotNegative | Anneal = 3e-3,
        log_z_lr: NotNegative = 1e-2,
        model_lr: NotNegative | Anneal = 4e-3,
        model_betas: tuple[PartialShare, PartialShare] = (0.9, 0.999),
        clip: Positive = 5.0,
        average_decay: PartialShare = 0.99,
        eval_samples: Count = 16,
        max_updates: Count | None = None,
        max_m_updates: Count | None = None,
        metadata: dict[str, Any] | None = None,
    ):
        given = dict(locals())
        super().__init__()
        if e_step not in E_STEPS:
            raise ValueError(f"e_step is one of {', '.join(E_STEPS)}, not {e_step!r}")
        if m_step not in M_STEPS:
            raise ValueError(f"m_step is one of {', '.join(M_STEPS)}, not {m_step!r}")
        recipe = E_STEPS[e_step]
        self.automatic_optimization = False
        self.model: Target = build(model, Target)
        self.space: LatentSpace = build(space, LatentSpace)
        self.policy: Policy = build(policy, Policy)
        self.policy.serve(self.model)
        self.objective: Objective = build(objective, Objective) or BalancedVarGrad()
        if recipe.objective is not None:
            self.objective = recipe.objective()
        self.timing: Timing = build(timing, Timing) or EveryUpdate()
        self.side: SideInformation | None = build(side, SideInformation)
        self.e_step, self.recipe, self.samples = e_step, recipe, samples
        self.m_step, self.mcmc_steps = recipe.m_step or m_step, mcmc_steps
        self.collapse, self.refine = collapse, refine
        self.temperature = _schedule(temperature)
        self.epsilon = _schedule(epsilon)
        self.reward_temperature = _schedule(reward_temperature)
        self.sleep, self.clip = max(sleep, recipe.sleep), clip
        self.policy_lr, self.log_z_lr = _schedule(policy_lr), log_z_lr
        self.model_lr, self.model_betas = _schedule(model_lr), tuple(map(float, model_betas))
        self.average_decay, self.eval_samples = average_decay, eval_samples
        self.max_updates, self.max_m_updates = max_updates, max_m_updates
        built = {name: getattr(self, name, value) for name, value in given.items()}
        check_arguments(GFlowNetEM.__init__, {**built, "sleep": sleep})
        self._check()
        self.metadata = metadata or {}
        # Lightning's global_step counts every optimiser step, so updates are counted here
        for name in ("updates", "e_updates", "m_updates", "averaged"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))
        self.register_buffer("loss_average", torch.zeros((), dtype=torch.float64))
        self._not_finite = {0: 0, 1: 0}  # in a row, of the policy's and of the model's gradients
        self._rng: list[dict[str, Any]] | None = None
        self._averages = Averages()
        self._stop_asked = self._stop_agreed = False
        self._held_out: list[dict[str, Tensor]] = []
        self._save_arguments(given)

    def _check(self) -> None:
        """Refuses what contradicts itself, before any data is read."""
        if isinstance(self.model, EnergyModel) and any(
            parameter.requires_grad for parameter in self.model.parameters()
        ):
            raise ValueError(
                f"{type(self.model).__name__} is an EnergyModel: training it takes a negative "
                "phase, which gfnem does not have; freeze it to train the sampler alone"
            )
        if self.objective.on_policy and self.recipe.explores and self._strays():
            raise ValueError(
                f"{type(self.objective).__name__} is right on the policy's own samples alone: "
                "leave temperature 1 and epsilon 0"
            )

    def _strays(self) -> bool:
        """Whether training samples are ever drawn otherwise than by the policy."""
        straight = ((self.temperature, 1.0), (self.epsilon, 0.0))
        return any(
            number != usual
            for value, usual in straight
            for number in (value.extremes() if isinstance(value, Anneal) else (value,))
        )

    def _save_arguments(self, given: dict[str, Any]) -> None:
        """Keeps plain data only, so that checkpoints load with `weights_only=True`."""
        arguments = {}
        for name, value in given.items():
            if name in ("self", "__class__"):
                continue
            try:
                arguments[name] = plain(value, name)
            except TypeError:
                continue  # `load_from_checkpoint(path, name=...)` must then be given it again
        self.save_hyperparameters(arguments, logger=False)

    # ---------------------------------------------------------------- training

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One Adam for the policy, one for the model."""
        groups: dict[bool, list[torch.nn.Parameter]] = {False: [], True: []}
        for name, parameter in self.policy.named_parameters():
            if parameter.requires_grad:
                groups[self.policy.is_for_log_z(name)].append(parameter)
        rates = {False: value_at(self.policy_lr, 0), True: self.log_z_lr}
        policy = [
            {"params": groups[part], "lr": rates[part], "log_z": part}
            for part in groups
            if groups[part]
        ]
        model = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # a fixed model has nothing to optimise, but Lightning wants two optimisers throughout
        nothing = [torch.nn.Parameter(torch.zeros(()))]
        return [
            torch.optim.Adam(policy or nothing, lr=rates[False]),
            torch.optim.Adam(
                model or nothing, lr=value_at(self.model_lr, 0), betas=self.model_betas
            ),
        ]

    def configure_callbacks(self) -> list:
        """None; but it is the first that Lightning asks, and so the place to refuse a Trainer."""
        if self._trainer is not None:
            check_trainer(self.trainer)
        return []

    def on_fit_start(self) -> None:
        """Has the side information read, and gives each process random numbers of its own."""
        if self.side is not None:
            self.side.prepare(self.model)
        own_stream(own_rank() if world_size() > 1 else 0)

    def on_train_start(self) -> None:
        """A run that is complete is not trained further."""
        self.trainer.should_stop = self.trainer.should_stop or self._complete()

    def on_fit_end(self) -> None:
        """Forgets that it was asked to stop: the next fit is another matter."""
        self._stop_asked = False

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
        """One update: an E-step, an M-step, or both, as `timing` says."""
        self._observations = len(x)
        if self._trainer is not None:
            leave_gradients_alone(self.trainer)
        self.model.on_step(int(self.m_updates))
        self._given = self.model.given(x)
        if self.e_step == "exact":
            self._exact_step(x)
        elif not self.has_policy:
            self._drawn_step(x)
        else:
            self._sampled_step(x)
        self.updates += 1
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

    def _exact_step(self, x: Any) -> None:
        self._m_update(-self._given.log_marginal().mean())

    def _drawn_step(self, x: Any) -> None:
        """An M-step on structures that no policy is needed for."""
        if self.e_step == "exact-sampling":
            z = self.model.sample_posterior(x, self.samples)
        else:
            moves = self.space.moves()
            z = moves.initial(x, self.samples)
            z, _, accepted = metropolis(moves, self._given.log_joint, x, z, self.mcmc_steps)
            self._averages.add(accepted=accepted.mean())
        self._m_update(-self._climbed(x, z).mean())

    def _sampled_step(self, x: Any) -> None:
        m_updates = int(self.m_updates)
        exploration = ON_POLICY
        if self.recipe.explores:
            exploration = Exploration(
                value_at(self.temperature, m_updates), value_at(self.epsilon, m_updates)
            )
        train_policy = self.timing.e_step_due(int(self.updates))
        with torch.set_grad_enabled(train_policy):
            context = self.policy.encode(x, self._given)
            trajectories = self.policy.sample(context, x, self.space, self.samples, exploration)
            scores = None
            if train_policy or not self._alike:
                scores = self._score(context, trajectories)
        z, log_joint, log_path = trajectories.latent, None, None
        figures = {}
        if scores is not None:
            with torch.no_grad():
                log_joint = self._given.log_joint(z)
            log_path = scores.log_pb.detach().sum(2) - trajectories.log_behaviour
            figures["elbo"] = (log_joint - (scores.log_pf - scores.log_pb).detach().sum(2)).mean()
        if train_policy:
            e_loss = self._policy_step(x, context, trajectories, scores, log_joint, m_updates)
            figures["e_loss"] = e_loss
            self._follow(e_loss)
            self.e_updates += 1
        if self.timing.m_step_due(int(self.updates), m_updates, self.average_loss()):
            z, weight = self._m_samples(x, context, z, log_joint, log_path)
            self._m_update(-(weight * self._climbed(x, z)).sum(1).mean())
        figures["m_updates"] = self.m_updates.float()
        if (threshold := self.timing.threshold(m_updates)) is not None:
            figures["threshold"] = threshold
        self._averages.add(**figures)

    @property
    def _alike(self) -> bool:
        """Whether the M-step counts its samples equally, and so does not look at their scores."""
        return self.m_step == "plain" or bool(self.refine)

    def _policy_step(self, x, context, trajectories, scores, log_joint, m_updates: int) -> Tensor:
        """Trains the sampler; returns its loss."""
        sleep_loss = self._sleep_loss(len(x))
        if self.recipe.wakes:
            loss = self._e_loss(x, trajectories, scores, log_joint, m_updates)
            total = loss + sleep_loss
        else:
            loss = total = sleep_loss
        if self.policy.offers("auxiliary_loss"):
            total = total + self.policy.auxiliary_loss(context).mean()
        for group in self.optimizers()[0].param_groups:
            if not group.get("log_z"):
                group["lr"] = value_at(self.policy_lr, m_updates)
        self._descend(0, self.policy, total)
        return loss.detach()

    def _score(self, context: Any, trajectories: Trajectories) -> Scores:
        if not (self.objective.needs_flow or self.objective.uses_flow):
            return self.policy.score(context, self.space, trajectories)
        looks = {"forward_looking": True} if self.objective.forward_looking else {}
        return self.policy.score(context, self.space, trajectories, flows=True, **looks)

    def _m_samples(self, x, context, z, log_joint, log_path) -> tuple[Any, Tensor | float]:
        """The M-step's structures, and how much each counts, `(batch, samples)` or all alike.

        `log_joint`, and `log_path` (`log P_B` less that of drawing), may be None where `_alike`.
        """
        if self.refine:
            context = self.policy.encode(x, self._given)  # the E-step has just moved the policy
            z, _, accepted = refine(self.policy, context, self._given, self.space, z, self.refine)
            self._averages.add(accepted=accepted.mean())
        if self._alike:
            return z, 1 / self.samples
        if self.m_step == "best":
            chosen = log_joint.argmax(1, keepdim=True)
        else:
            weight = (log_joint + log_path).softmax(1)
            if self.m_step == "weighted":
                return z, weight
            chosen = torch.multinomial(weight, 1)
        return self.space.pick(x, z, chosen), 1.0

    def _m_update(self, loss: Tensor) -> None:
        m_updates = int(self.m_updates)
        for group in self.optimizers()[1].param_groups:
            group["lr"] = value_at(self.model_lr, m_updates)
        total = loss
        if self.side is not None:
            beside = self.side.log_likelihood(self.model)
            total = loss - value_at(self.side.weight, m_updates) * beside
            self._averages.add(side_log_likelihood=beside)
        self._descend(1, self.model, total)
        self.m_updates += 1
        self._averages.add(m_loss=loss)

    def _climbed(self, x: Any, z: Any) -> Tensor:
        """`(batch, samples)` what the M-step raises: the log joint, collapsed where it can be."""
        if self.collapse and self.model.offers("collapsed_log_joint"):
            return self._given.collapsed_log_joint(z)
        return self._given.log_joint(z)

    def _e_loss(self, x, trajectories, scores, log_joint: Tensor, m_updates: int) -> Tensor:
        temperature = value_at(self.reward_temperature, m_updates)
        partial = None
        if self.objective.forward_looking:
            states = trajectories.states or self.space.states(x, trajectories.latent)
            with torch.no_grad():
                partial = self._given.partial_log_joint(concatenate(states))
            steps = len(states)
            partial = partial.unflatten(1, (steps, self.samples)).transpose(1, 2) / temperature
        return self.objective(scores, log_joint / temperature, partial).mean()

    def _sleep_loss(self, count: int) -> Tensor:
        """The policy's surprise, in nats, at structures dreamt by the model."""
        if not self.sleep:
            return torch.zeros((), device=self.device)
        with torch.no_grad():
            x, z = self.model.sample(count)
        context = self.policy.encode(x, self.model.given(x))
        trajectories = self.policy.retrace(context, x, self.space, z)
        log_pf = self.policy.score(context, self.space, trajectories).log_pf
        loss = forward_kl(log_pf, torch.zeros_like(log_pf[:, :, 0])).mean()
        self._averages.add(sleep_loss=loss)
        return self.sleep * loss

    def _descend(self, which: int, module: torch.nn.Module, loss: Tensor) -> None:
        optimizer = self.optimizers()[which]
        optimizer.zero_grad()
        if not loss.requires_grad:
            return
        self.manual_backward(loss)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._stop_agreed = average_gradients(parameters, self._observations, self._stop_asked)
        scaler = None if self._trainer is None else loss_scaler(self.trainer)
        # gradients of 16-mixed are larger by the scale, and so is the limit
        clip = self.clip if scaler is None else self.clip * scaler.get_scale()
        finite = bool(torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, clip)))
        self._not_finite[which] = 0 if finite else self._not_finite[which] + 1
        if finite or scaler is not None:  # a scaler leaves such a step out by itself
            optimizer.step()
        if self._not_finite[which] >= 20:  # one batch may overflow; this many will not mend
            part, rate = (("policy", "em.policy_lr"), ("model", "em.model_lr"))[which]
            raise UserError(
                f"update {int(self.updates)}: no finite gradient of the {part} for 20 steps; lower "
                f"its learning rate ({rate}) or em.clip"
            )

    def _follow(self, loss: Tensor) -> None:
        """Moves the E-loss's average; with several processes, by their mean, alike on each."""
        loss = mean(loss)
        if not torch.isfinite(loss):
            return
        self.loss_average.lerp_(loss.to(self.loss_average), 1 - self.average_decay)
        self.averaged += 1

    def average_loss(self) -> float:
        """Moving average of the E-loss, corrected for its start at zero; NaN before any update."""
        count = int(self.averaged)
        return float(self.loss_average) / (1 - self.average_decay**count) if count else float("nan")

    # ---------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        """Gives validation a random stream of its own, so that it does not disturb training."""
        self._held_out = []
        self._training_rng = random_state()

    def validation_step(self, x: Any, batch_idx: int) -> None:
        """Figures of the sampler (and, where tractable, of exact inference) on held-out data."""
        # the same draws for a batch, whichever process it comes to
        torch.manual_seed(batch_idx * world_size() + own_rank())
        self.model.on_step(int(self.m_updates))
        figures = {"units": self.model.units(x)}
        likely = self.model.normalised()
        exact = self.model.log_marginal(x) if self.model.offers("log_marginal") else None
        log_p = exact
        if likely is not self.model:
            log_p = likely.log_marginal(x) if likely.offers("log_marginal") else None
        if self.has_policy:
            posterior = self.posterior(x)
            z, log_weights = posterior.log_weights(self.eval_samples)
            total = importance_weighted(log_weights) if exact is None else exact
            figures["elbo_gap"] = total - elbo(log_weights)
            figures["ess"] = effective_sample_size(log_weights) / self.eval_samples
            if exact is None:  # gap and effective samples are of its own samples alone
                missed = posterior.missed(log_weights, self.eval_samples)
                figures |= {} if missed is None else {"missed": missed}
            log_p = posterior.likelihood_bound(z, log_weights) if log_p is None else log_p
        if log_p is not None:  # exact inference, or a sampler to bound it with
            figures["log_p"] = log_p
        self._held_out.append({name: value.double().cpu() for name, value in figures.items()})

    def on_validation_epoch_end(self) -> None:
        """Logs `nll` a unit, `elbo_gap` and `missed` an observation, and the relative `ess`."""
        self._log_held_out("val")
        set_random_state(self._training_rng)

    on_test_epoch_start = on_validation_epoch_start

    def test_step(self, x: Any, batch_idx: int) -> None:
        """As `validation_step`; the figures are named `test_...`."""
        self.validation_step(x, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Logs what `on_validation_epoch_end` logs."""
        self._log_held_out("test")
        set_random_state(self._training_rng)

    def _log_held_out(self, prefix: str) -> None:
        parts = [part for parts in gather(self._held_out) for part in parts]
        if not parts:
            return
        total = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        report = {name: total[name].mean() for name in _MEANS if name in total}
        if "log_p" in total:
            report["nll"] = -total["log_p"].sum() / total["units"].sum()
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
        """Adds the random generators' states: a resumed run draws what it would have drawn."""
        checkpoint["rng"] = gather(random_state())
        checkpoint["averages"] = gather(self._averages.state_dict())
        checkpoint.setdefault("trust", sign(dict(self.hparams)))  # a run folder has signed more

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the random generators' states until training starts."""
        self._rng = checkpoint.get("rng")
        states = checkpoint.get("averages", [])
        self._averages = Averages()
        if own_rank() < len(states):
            self._averages.load_state_dict(states[own_rank()])

    def on_train_epoch_start(self) -> None:
        """Restores the random generators of a resumed run."""
        if self._rng is None:
            return
        if len(self._rng) == world_size():
            set_random_state(self._rng[own_rank() if world_size() > 1 else 0])
        else:
            new_stream(self._rng[0]["cpu"], own_rank())
        self._rng = None


def _schedule(value: Any) -> float | Anneal:
    return build(value, Anneal) if isinstance(value, Mapping) else value
