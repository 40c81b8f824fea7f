"""What an update of a sampler of sentences is made of."""

from __future__ import annotations

from gfnem.objectives import BackwardLikelihood, MaximumLikelihood, Objective, TrajectoryBalance
from gfnem.parsing.generation.split_balance import SplitBalance
from gfnem.phases import Phase, Together, TrainModel, TrainPolicy
from gfnem.ranges import Amount, Count, NotNegative, PartialShare, Positive, Share
from gfnem.recipes import recipe
from gfnem.schedules import Anneal
from gfnem.sources import Free, Mixed, Own, Released, Replay, Source


@recipe
def sentence_sampler(
    objective: Objective | None = None,
    samples: Count = 64,
    share: PartialShare = 0.5,
    temperature: Positive | Anneal = 1.0,
    epsilon: Share | Anneal = 0.0,
    reward_temperature: Positive | Anneal = 1.0,
    replay: Amount = 0,
    parsing: NotNegative | Anneal = 1.0,
    imitation: NotNegative | Anneal = 0.0,
    learn: bool = False,
    collapse: bool = False,
) -> list[Phase]:
    """A sampler of whole sentences, trained from both ends of its trajectories.

    Forwards it writes sentences of its own. Backwards, sentences of the data, or of earlier
    updates, get trajectories from `P_B`: trees, where it has any.

    Args:
        objective: the loss; `TrajectoryBalance` if None.
        samples: sentences that the sampler writes in each update.
        share: of sentences of the data among those that it is trained on; 0 needs none.
        temperature, epsilon: how its own sentences stray, as in `gflownet`.
        reward_temperature: the `T` in `R^(1/T)`, which it aims at.
        replay: updates whose sentences are kept; half of the updates then train on kept ones.
        parsing: weight of the surprise of `P_B` at the trees of the sampler's own sentences, beside
            the objective, where these do not stray. 0 without trees.
        imitation: weight of the sampler's surprise at the data, beside the objective: maximum
            likelihood of the words with a tree from `P_B`. A number, or an `Anneal` over updates.
        learn: whether the reward is a language model that learns from the data as well.
        collapse: whether sentences are balanced by the sampler's exact probability of them, trees
            summed out, and trees apart (`SplitBalance`): less noisy than the balance of both.

    Raises:
        ValueError: if that is to be done with an objective of one's own, with replay, or with
            imitation of no data.
    """
    own = Free(Own(samples, temperature, epsilon))
    data = Released(Own(1))
    taught = parsing if own.on_policy else 0.0
    if collapse:
        if objective is not None or replay or (imitation and not share):
            raise ValueError(
                "collapse is a loss by itself, without objective and replay, and imitates the "
                "share of the data"
            )
        settings = (reward_temperature, taught, imitation)
        sampler: Phase = SplitBalance(own, data if share else None, share, *settings)
    else:
        source: Source = Mixed(own, data, share) if share else own
        if replay:
            source = Replay(source, replay)
        loss = TrajectoryBalance() if objective is None else objective
        parts: dict[Phase, float | Anneal]
        parts = {TrainPolicy(source, loss, reward_temperature): 1.0}
        if imitation:
            parts[TrainPolicy(data, MaximumLikelihood(), name="surprise")] = imitation
        if taught:
            parts[TrainPolicy(own, BackwardLikelihood(), name="parser_loss")] = taught
        sampler = Together(list(parts), list(parts.values()))
    return [TrainModel(data, "equal"), sampler] if learn else [sampler]
