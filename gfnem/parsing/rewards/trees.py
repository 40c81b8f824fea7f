"""Rewards of sentences and their trees: of spans, and of whole bracketings."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.inference.log_joint import span_scores
from gfnem.parsing.spaces.partial import partial_trees
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.reward import Reward


class TreeReward(Reward[Sentences, Trees]):
    """A black box: `forward(x, trees)` gives each tree a score and looks at no label.

    See `Reward` for its arguments.
    """

    of_collapsed = True


class SpanReward(TreeReward):
    """A reward that is the sum over a tree's spans, whatever their labels.

    A subclass says in `spans` what each is worth. Grammars then keep their exact inference.
    """

    @abstractmethod
    def spans(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1)` nats of each span `[i, j)`; widths 0 and 1 are ignored.

        Args:
            x: the sentences. `x.tokens` are numbers of the vocabulary, which a reward is told that
                has a constructor argument of that name; `x.keys` tell words apart that it lacks.
        """

    def parts(self, x: Sentences) -> Tensor:
        """See `spans`."""
        return self.spans(x)

    def forward(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` nats: the sum over the spans of each tree."""
        return span_scores(self.spans(x), z).sum(2)

    def partial(self, x: Sentences, state: Any) -> Tensor:
        """`(batch, samples)` nats of the spans that a state has expanded."""
        trees, chosen = partial_trees(state)
        return (pad(span_scores(self.spans(x), trees), (1, 0)) * chosen).sum(2)
