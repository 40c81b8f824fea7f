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
from gfnem.refinement import refine
from gfnem.sampling import ON_POLICY, Exploration
from gfnem.schedules import Anneal, EveryUpdate, Timing, value_at
from gfnem.side import SideInformation
from gfnem.space import LatentSpace, Trajectories, concatenate
from gfnem.target import Target
from gfnem.trained import Inference


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
        refine: int = 0,
        mcmc_steps: int = 1000,
        samples: int = 16,
        temperature: float | Anneal = 1.0,
        epsilon: float | Anneal = 0.0,
        reward_temperature: float | Anneal = 1.0,
        sleep: float = 0.0,
        policy_lr: float | Anneal = 3e-3,
        log_z_lr: float = 1e-2,
        model_lr: float | Anneal = 4e-3,
        model_betas: tuple[float, float] = (0.9, 0.999),
        clip: float = 5.0,
        average_decay: float = 0.99,
        eval_samples: int = 16,
        max_updates: int | None = None,
        max_m_updates: int | None = None,
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
        self.model_lr, self.model_betas = _schedule(model_lr), tuple(model_betas)
        self.average_decay, self.eval_samples = average_decay, eval_samples
        self.max_updates, self.max_m_updates = max_updates, max_m_updates
        self.metadata = metadata or {}
        # Lightning's global_step counts every optimiser step, so updates are counted here
        for name in ("updates", "e_updates", "m_updates"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))
        self.register_buffer("loss_average", torch.zeros((), dtype=torch.float64))
        self._not_finite = 0
        self._rng: dict[str, Any] | None = None
        self._held_out: list[dict[str, Tensor]] = []
        self._save_arguments(given)

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
                groups[name.split(".")[0] in self.policy.log_z_parts].append(parameter)
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

    def on_fit_start(self) -> None:
        """Has the side information read."""
        if self.side is not None:
            self.side.prepare(self.model)

    def training_step(self, x: Any, batch_idx: int) -> None:
        """One update: an E-step, an M-step, or both, as `timing` says."""
        self.model.follow(int(self.m_updates))
        with self.model.unchanged():
            if self.e_step == "exact":
                self._exact_step(x)
            elif not self.has_policy:
                self._drawn_step(x)
            else:
                self._sampled_step(x)
        self.updates += 1
        if (limit := self.max_m_updates) is not None and self.m_updates >= limit:
            self.trainer.should_stop = True

    def _exact_step(self, x: Any) -> None:
        log_marginal = self.model.log_marginal(x)
        if log_marginal is None:
            raise ValueError(f"{type(self.model).__name__} has no exact log marginal")
        self._m_update(-log_marginal.mean(), prog_bar=True)

    def _drawn_step(self, x: Any) -> None:
        """An M-step on structures that no policy is needed for."""
        if self.e_step == "exact-sampling":
            z = self.model.sample_posterior(x, self.samples)
        else:
            moves = self.space.moves()
            z = moves.initial(x, self.samples)
            log_joint = self.model.log_joint_given(x)
            z, _, accepted = metropolis(moves, log_joint, x, z, self.mcmc_steps)
            self.log("accepted", accepted.mean(), on_step=False, on_epoch=True)
        self._m_update(-self._climbed(x, z).mean(), prog_bar=True)

    def _sampled_step(self, x: Any) -> None:
        m_updates = int(self.m_updates)
        exploration = ON_POLICY
        if self.recipe.explores:
            exploration = Exploration(
                value_at(self.temperature, m_updates), value_at(self.epsilon, m_updates)
            )
        train_policy = self.timing.e_step_due(int(self.updates))
        with torch.set_grad_enabled(train_policy):
            context = self.policy.encode(x, self.model)
            trajectories = self.policy.sample(context, x, self.space, self.samples, exploration)
            scores = None
            if train_policy or not self._alike:
                scores = self._score(context, trajectories)
        z, log_joint, log_path = trajectories.latent, None, None
        figures = {}
        if scores is not None:
            with torch.no_grad():
                log_joint = self.model.log_joint(x, z)
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
            figures["threshold"] = torch.tensor(threshold)
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=len(x))

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
        if (extra := self.policy.auxiliary_loss(context)) is not None:
            total = total + extra.mean()
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
            context = self.policy.encode(x, self.model)  # the E-step has just moved the policy
            z, _, accepted = refine(self.policy, context, x, self.space, self.model, z, self.refine)
            self.log("accepted", accepted.mean(), on_step=False, on_epoch=True)
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

    def _m_update(self, loss: Tensor, prog_bar: bool = False) -> None:
        m_updates = int(self.m_updates)
        for group in self.optimizers()[1].param_groups:
            group["lr"] = value_at(self.model_lr, m_updates)
        total = loss
        if self.side is not None:
            beside = self.side.log_likelihood(self.model)
            total = loss - value_at(self.side.weight, m_updates) * beside
            self.log("side_log_likelihood", beside.detach(), on_step=False, on_epoch=True)
        self._descend(1, self.model, total)
        self.m_updates += 1
        self.log("m_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=prog_bar)

    def _climbed(self, x: Any, z: Any) -> Tensor:
        """`(batch, samples)` what the M-step raises: the log joint, collapsed where it can be."""
        collapsed = self.model.collapsed_log_joint(x, z) if self.collapse else None
        return self.model.log_joint(x, z) if collapsed is None else collapsed

    def _e_loss(self, x, trajectories, scores, log_joint: Tensor, m_updates: int) -> Tensor:
        temperature = value_at(self.reward_temperature, m_updates)
        partial = None
        if self.objective.forward_looking:
            states = trajectories.states or self.space.states(x, trajectories.latent)
            with torch.no_grad():
                partial = self.model.partial_log_joint(x, concatenate(states))
            if partial is None:
                raise ValueError(f"{type(self.model).__name__} offers no partial_log_joint")
            steps = len(states)
            partial = partial.unflatten(1, (steps, self.samples)).transpose(1, 2) / temperature
        return self.objective(scores, log_joint / temperature, partial).mean()

    def _sleep_loss(self, count: int) -> Tensor:
        """The policy's surprise, in nats, at structures dreamt by the model."""
        if not self.sleep:
            return torch.zeros(())
        with torch.no_grad():
            x, z = self.model.sample(count)
        context = self.policy.encode(x, self.model)
        trajectories = self.policy.retrace(context, x, self.space, z)
        log_pf = self.policy.score(context, self.space, trajectories).log_pf
        loss = forward_kl(log_pf, torch.zeros_like(log_pf[:, :, 0])).mean()
        self.log("sleep_loss", loss.detach(), on_step=False, on_epoch=True)
        return self.sleep * loss

    def _descend(self, which: int, module: torch.nn.Module, loss: Tensor) -> None:
        optimizer = self.optimizers()[which]
        optimizer.zero_grad()
        if not loss.requires_grad:
            return
        self.manual_backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.clip)
        self._not_finite = 0 if torch.isfinite(norm) else self._not_finite + 1
        if not self._not_finite:
            optimizer.step()
        elif self._not_finite >= 20:  # one batch may overflow; this many in a row will not mend
            raise UserError(
                f"update {int(self.updates)}: no finite gradient for 20 steps; lower the learning "
                "rates (em.policy_lr, em.model_lr) or em.clip"
            )

    def _follow(self, loss: Tensor) -> None:
        """Moves the E-loss's average; with several processes, by their mean, alike on each."""
        if self.trainer.world_size > 1:
            loss = self.all_gather(loss).mean()
        self.loss_average.lerp_(loss.to(self.loss_average), 1 - self.average_decay)

    def average_loss(self) -> float:
        """Moving average of the E-loss, corrected for its start at zero; NaN before any update."""
        count = int(self.e_updates)
        return float(self.loss_average) / (1 - self.average_decay**count) if count else float("nan")

    def on_train_epoch_end(self) -> None:
        """Ends training when the updates asked for are done."""
        if self.max_updates is not None and self.updates >= self.max_updates:
            self.trainer.should_stop = True

    # ---------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        """Gives validation a random stream of its own, so that it does not disturb training."""
        self._held_out = []
        self._training_rng = _random_state()
        torch.manual_seed(0)

    def validation_step(self, x: Any, batch_idx: int) -> None:
        """Figures of the sampler (and, where tractable, of exact inference) on held-out data."""
        self.model.follow(int(self.m_updates))
        figures = {"units": self.model.units(x).to(self.device)}
        exact, likely = self.model.log_marginal(x), self.model.normalised()
        log_p = exact if likely is self.model else likely.log_marginal(x)
        if self.has_policy:
            posterior = self.posterior(x)
            z, log_weights = posterior.log_weights(self.eval_samples)
            total = importance_weighted(log_weights) if exact is None else exact
            figures["elbo_gap"] = total - elbo(log_weights)
            figures["ess"] = effective_sample_size(log_weights) / self.eval_samples
            log_p = posterior.likelihood_bound(z, log_weights) if log_p is None else log_p
        if log_p is not None:  # exact inference, or a sampler to bound it with
            figures["log_p"] = log_p
        self._held_out.append(figures)

    def on_validation_epoch_end(self) -> None:
        """Logs `nll` a unit, `elbo_gap` an observation and the relative `ess`."""
        _set_random_state(self._training_rng)
        if not self._held_out:
            return
        total = {
            name: torch.cat([figures[name] for figures in self._held_out]).double()
            for name in self._held_out[0]
        }
        report = {name: total[name].mean() for name in ("elbo_gap", "ess") if name in total}
        if "log_p" in total:
            report["nll"] = -total["log_p"].sum() / total["units"].sum()
        self.log_dict(
            {f"val_{name}": value.float() for name, value in report.items()}, prog_bar=True
        )

    # ---------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the random generators' states: a resumed run draws what it would have drawn."""
        checkpoint["rng"] = _random_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the random generators' states until training starts."""
        self._rng = checkpoint.get("rng")

    def on_train_epoch_start(self) -> None:
        """Restores the random generators of a resumed run."""
        if self._rng is not None:
            _set_random_state(self._rng)
            self._rng = None


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])


def _schedule(value: Any) -> float | Anneal:
    return build(value, Anneal) if isinstance(value, Mapping) else value
