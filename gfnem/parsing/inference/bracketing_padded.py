"""The inside algorithm on given bracketings, place after place of all trees (`fixed_shapes`)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from gfnem.parsing.inference.potentials import full_precision, relative, safe_log, safe_over
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.trees.trees import Trees


def top_values(potentials: RulePotentials, trees: Trees) -> Tensor:
    """`(batch, samples, N)` nats: the weight of each tree's bracketing under each root label.

    Words and phrases are treated alike: both are a row over all symbols, of which preterminals, or
    nonterminals, weigh nothing. So a node is worth `sum_{B, C} R[A, B, C] l[B] r[C]` whatever its
    children are. What no tree has is valued too, and asked for by nobody.

    Args:
        potentials: of rules that do not look at parents.
        trees: the trees.
    """
    batch, samples, places = trees.left.shape
    count, n = batch * samples, potentials.max_length
    rules, tops = relative(potentials.productions[0].flatten(1))
    words, peaks = (part.squeeze(0) for part in potentials.word_weights)
    left, right, split = (part.flatten(0, 1).T for part in (trees.left, trees.right, trees.split))
    column = torch.arange(count, device=left.device)
    row = column.div(samples, rounding_mode="floor")
    place = torch.arange(places, device=left.device)[:, None]
    # which row of what is known: words come first, then nodes from the first place on
    words_first, nodes_first = left * batch + row, n * batch + (place + 1) * count + column
    words_last = (right - 1).clamp(min=0) * batch + row
    second = n * batch + (place + split - left).clamp(max=places - 1) * count + column
    first = torch.where(split - left > 1, nodes_first, words_first)
    second = torch.where(right - split > 1, second, words_last)
    last = n * batch + places * count - 1
    children = torch.stack([first.clamp(max=last), second.clamp(max=last)], 1)  # places, 2, count
    logs = _Upwards.apply(
        rules.view(potentials.productions[0].shape),
        words.flatten(0, 1),
        tops,
        peaks.flatten(),
        children,
    )
    return logs.view(batch, samples, -1)


class _Upwards(torch.autograd.Function):
    """Values of nodes from the last place to the first, and gradients from the first to the last.

    Known are rows over all symbols in exp space, each over its largest, and the logs of these.
    """

    @staticmethod
    def forward(ctx, rules: Tensor, words: Tensor, tops: Tensor, peaks: Tensor, children: Tensor):
        labels, symbols, _ = rules.shape
        (places, _, count), start = children.shape, len(words)
        known = words.new_zeros(start + places * count, symbols)
        known[:start, labels:] = words
        levels = pad(peaks, (0, places * count))
        flat = rules.flatten(1).T.contiguous()
        totals = words.new_empty(places, count, labels)
        for place in range(places - 1, -1, -1):
            below = children[place].flatten()
            one, other = known.index_select(0, below).view(2, count, symbols).unbind()
            pairs = one[:, :, None] * other[:, None]
            total = torch.mm(pairs.flatten(1), flat, out=totals[place])
            level = levels.index_select(0, below).view(2, count).sum(0)
            log = safe_log(total) + tops + level[:, None]
            at = slice(start + place * count, start + (place + 1) * count)
            known[at, :labels], levels[at] = relative(log)
        ctx.save_for_backward(rules, known, totals, children)
        return log

    @staticmethod
    def backward(ctx, gradient: Tensor):
        with full_precision(gradient):
            return *_Upwards.downwards(ctx, gradient), None, None, None

    @staticmethod
    def downwards(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        rules, known, totals, children = ctx.saved_tensors
        labels, symbols, _ = rules.shape
        places, _, count = children.shape
        start = len(known) - places * count
        of_rules, of_known = torch.zeros_like(rules).flatten(1), torch.zeros_like(known)
        flat, over = rules.flatten(1), safe_over(totals)
        for place in range(places):
            if place:
                at = slice(start + place * count, start + (place + 1) * count)
                gradient = of_known[at, :labels] * known[at, :labels]
            below = children[place].flatten()
            one, other = known.index_select(0, below).view(2, count, symbols).unbind()
            found = gradient * over[place]
            pairs = one[:, :, None] * other[:, None]
            of_rules.addmm_(found.T, pairs.flatten(1))
            weighed = (found @ flat).view(count, symbols, symbols)
            to_one = torch.bmm(weighed, other[:, :, None]).squeeze(2)
            to_other = torch.bmm(one[:, None], weighed).squeeze(1)
            of_known.index_add_(0, below, torch.cat([to_one, to_other]))
        return of_rules.view_as(rules), of_known[:start, labels:]
