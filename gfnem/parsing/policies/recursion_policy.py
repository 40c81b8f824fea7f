"""A top-down policy without a network, whose look-ahead is a recursion."""

from __future__ import annotations

import torch

from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.policies.recursion import Recursion
from gfnem.parsing.policies.rule_policy import RulePolicy
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Fact
from gfnem.target import Conditioned, Target


class RecursionPolicy(RulePolicy):
    """The target's rules, and a look-ahead by an inside recursion of low rank (`Recursion`).

    Where rules, and rewards that add over spans, are all that counts in a tree, this is close to
    the exact posterior with a few thousand weights. It reads nothing but the rules, so that it
    cannot learn what else a target looks at. There `TopDownPolicy`, which may have the same
    recursion, is the one to take.

    Args:
        nonterminals: labels; from the model if None.
        contexts: how many contexts the target's rules tell apart; from the model, and 1 if None.
        rank: products in place of the rules both of whose children are phrases.

    Raises:
        ValueError: if rules look at parents, or the target has none.
    """

    recordable = True

    def __init__(self, nonterminals: Fact = None, contexts: Count | None = None, rank: Count = 32):
        super().__init__()
        if (contexts or 1) > 1:
            raise ValueError(
                "a recursion needs rules that do not look at parents; TopDownPolicy takes others"
            )
        self.nonterminals = nonterminals
        self.recursion = Recursion(nonterminals, rank)

    def serve(self, target: Target) -> None:
        """See `Policy`.

        Raises:
            ValueError: if the target has no rules to follow.
        """
        if not target.offers("potentials"):
            raise ValueError(
                f"RecursionPolicy follows a target's rules, and {target.called()} offers no "
                "potentials; TopDownPolicy has rules of its own"
            )

    def encode(self, x: Sentences, given: Conditioned | None = None) -> RuleChoices:
        """The rules' weights, and the recursion's chart."""
        if given is None or not given.offers("potentials"):
            raise ValueError("RecursionPolicy needs a target that offers potentials")
        with torch.no_grad():
            potentials = given.potentials
        chart = self.recursion(potentials, given.spans).unsqueeze(3)
        return RuleChoices.from_chart(potentials, chart, spans=given.spans)
