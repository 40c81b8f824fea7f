"""Learned look-ahead values of spans: what a node is worth before it is expanded."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from gfnem.parsing.inference.corners import corners
from gfnem.parsing.inference.expansion import expanded
from gfnem.parsing.inference.look_ahead import ChartLookAhead, LookAhead
from gfnem.parsing.inference.potentials import IMPOSSIBLE, Potentials
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.policies.encoder import span_list, span_places

#: wider spans weigh what their corners say alike
_WIDEST = 64
#: steps of these weights over those of other parameters: there are few of them, and they go far
_STRIDE = 8.0


class Value(nn.Module):
    """A value for each span and label, linear in the span's vector; 0 at first.

    Where `corners`, what the first and the last word of a span say of its label is added, with a
    learned weight for each width: where there are many labels, a network takes long to find it out,
    and it moves with the rules.

    Args:
        size: of span vectors.
        labels: how many labels (`N`).
        corners: whether corners count.
    """

    def __init__(self, size: int, labels: int, corners: bool = False):
        super().__init__()
        self.out = nn.Linear(size, labels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.of_corners: nn.Parameter | None = None
        if corners:
            self.of_corners = nn.Parameter(torch.zeros(2, _WIDEST + 1))

    def forward(self, spans: Tensor) -> Tensor:
        """`(..., N)` nats for `(..., size)` span vectors."""
        return self.out(spans)

    @staticmethod
    def narrowest(known: bool) -> int:
        """The width of the narrowest spans whose vectors `rows` looks at; see there."""
        return 3 if known else 2

    def rows(
        self,
        spans: Tensor,
        level: Tensor,
        potentials: Potentials,
        guess: Tensor | None,
        known: bool,
        within: Tensor | None = None,
    ) -> ChartLookAhead:
        """The look-ahead of all spans, under one context (see `RuleChoices`).

        Names of what is no span, or is outside its sentence, stand for some value without meaning.

        Args:
            spans: `(batch, spans, size)` vectors of `span_list`, from `narrowest(known)` on.
            level: `(batch, n, n + 1)` what is added to every label of a span.
            potentials: the rules' weights.
            guess: `(batch, n, n + 1, N)` in nats, what the network's values are added to; 0 if
                None.
            known: whether the rules are all there is to the target, so that they tell the value of
                two words.
            within: `(batch, n, n + 1)` nats that each span counts besides; none if None.
        """
        n = potentials.max_length
        starts, ends = span_list(n, spans.device, self.narrowest(known))
        cells = starts * (n + 1) + ends
        values = self(spans) + level.flatten(1).index_select(1, cells).unsqueeze(2)
        follows = known or guess is not None  # the rules are the target's
        if self.of_corners is not None and follows:
            weights = _STRIDE * self.of_corners[:, (ends - starts).clamp(max=_WIDEST), None]
            first, last = corners(potentials)
            values = values + weights[0] * first.index_select(1, starts)
            values = values + weights[1] * last.index_select(1, ends - 1)
        if guess is not None:
            values = values + guess.flatten(1, 2).index_select(1, cells)
        place = span_places(n, cells.device, self.narrowest(known))
        if known and n > 1:
            pairs = potentials.both_leaves.squeeze(2)
            if within is not None:
                pairs = pairs + within.diagonal(2, 1, 2).unsqueeze(2)
            values = torch.cat([pairs, values], 1)
            place += n - 1
            place.diagonal(2).copy_(torch.arange(n - 1, device=place.device))
        rows = torch.arange(len(values), device=place.device) * values.shape[1]
        return ChartLookAhead(values, (rows[:, None, None] + place).flatten())


class ContextValue(nn.Module):
    """A value for each span and label under each context: a guess, and a correction, 0 at first.

    The correction knows the span and which labels the guess prefers there, under this context and
    on average. Span and context meet in one hidden layer, so that rows of values come one by one:
    of the `spans * K` rows a sentence has, its samples ask for a few hundred.

    Args:
        size: of span vectors.
        labels: how many labels (`N`).
        contexts: how many contexts (`K`).
        hidden: size of the hidden layer.
    """

    def __init__(self, size: int, labels: int, contexts: int, hidden: int):
        super().__init__()
        self.narrow = nn.Linear(size + labels, hidden)
        self.preferred = nn.Linear(labels, hidden, bias=False)
        self.context = nn.Embedding(contexts, 2 * hidden)  # scales and shifts
        self.out = nn.Linear(hidden, labels)
        nn.init.normal_(self.context.weight, std=0.5)
        with torch.no_grad():
            self.context.weight[:, :hidden] += 1
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def rows(
        self,
        spans: Tensor,
        average: Tensor,
        level: Tensor,
        potentials: RulePotentials,
        exact: bool,
        within: Tensor | None = None,
    ) -> LookAhead:
        """The look-ahead of one batch, row by row (see `RuleChoices`).

        Args:
            spans, level: as in `Value.rows`.
            average: `(batch, n, n + 1, N)` log values in nats, whatever the context. What is
                corrected is what follows from them (see `expanded`).
            potentials: the target's weights.
            exact: whether nothing is to be added to the values of few words.
            within: `(batch, n, n + 1)` nats that each span counts besides; none if None.
        """
        n, contexts = potentials.max_length, potentials.contexts
        count = spans.shape[1]
        starts, ends = span_list(n, spans.device)
        shares = average[:, starts, ends].log_softmax(2).clamp(min=-12)
        narrow = self.narrow(torch.cat([spans, shares], 2))
        place = span_places(n, spans.device).flatten()
        narrow = narrow.flatten(0, 1)
        guess = expanded(potentials, average)
        known_widths = ("both_leaves", "three_words")[: n - 1]
        if within is not None:  # of three words two bracketings, which then differ
            guess, known_widths = guess + within[..., None, None], ()
        guess = guess.flatten(0, 3)
        level = level.flatten().unsqueeze(1)
        short = [getattr(potentials, name).flatten(0, 2) for name in known_widths]

        def look_ahead(rows: Tensor) -> Tensor:
            span, context = rows.div(contexts, rounding_mode="floor"), rows % contexts
            cell = span % (n * (n + 1))
            row, left = span.div(n * (n + 1), rounding_mode="floor"), cell // (n + 1)
            width = (cell % (n + 1) - left)[:, None]
            guessed = embedding(rows, guess)
            vectors = embedding(row * count + place[cell], narrow)
            vectors = vectors + self.preferred(guessed.log_softmax(1).clamp(min=-12))
            scale, shift = self.context(context).chunk(2, 1)
            values = self.out((scale * vectors + shift).relu())
            whole = values + guessed + embedding(span, level)
            for words, table in enumerate(short, 2):  # of so few words the value is known
                at = (row * (n - words + 1) + left.clamp(max=n - words)) * contexts + context
                known = embedding(at, table)
                whole = torch.where(width == words, known if exact else known + values, whole)
            return whole.masked_fill(width < 2, IMPOSSIBLE)

        return LookAhead(look_ahead, len(guess))
