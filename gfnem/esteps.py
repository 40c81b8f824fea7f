"""The E-steps that `GFlowNetEM` offers: where the structures of an M-step come from."""

from __future__ import annotations

from dataclasses import dataclass

from gfnem.objectives import ForwardKL, Objective, ReverseKL


@dataclass(frozen=True)
class EStep:
    """What one choice of `em.e_step` means.

    Attributes:
        about: one line for people.
        policy: whether a policy is trained.
        objective: the loss it is trained by, where the choice decides that.
        m_step: the M-step's weights, where the choice decides that.
        wakes: whether the policy is trained on its own samples (else on the model's dreams alone).
        explores: whether training samples may stray from the policy.
        sleep: least weight of the sleep phase.
    """

    about: str
    policy: bool = True
    objective: type[Objective] | None = None
    m_step: str | None = None
    wakes: bool = True
    explores: bool = True
    sleep: float = 0.0


#: how the samples of one `x` count in the M-step (see `GFlowNetEM`)
M_STEPS = ("weighted", "plain", "best", "drawn")

E_STEPS = {
    "gflownet": EStep("a GFlowNet, trained by the objective chosen"),
    "wake-sleep": EStep(
        "the policy learns from the model's dreams alone (Hinton et al. 1995)",
        m_step="plain",
        wakes=False,
        explores=False,
        sleep=1.0,
    ),
    "reverse-kl": EStep(
        "hierarchical variational inference: the policy climbs the ELBO",
        objective=ReverseKL,
        m_step="plain",
        explores=False,
    ),
    "iw": EStep(
        "reweighted wake-sleep (Bornschein and Bengio 2015)",
        objective=ForwardKL,
        m_step="weighted",
        explores=False,
    ),
    "exact": EStep("none: the exact log marginal is climbed", policy=False),
    "exact-sampling": EStep("exact posterior samples", policy=False, m_step="plain"),
    "mcmc": EStep("Metropolis-Hastings with small random changes", policy=False, m_step="plain"),
}
