"""A generative model of one's own: a grammar in which widths and neighbours matter.

In the folder of this file: gfnem train --model my_grammar.MyGrammar --data TEXT
"""

import torch
from torch import nn
from torch.nn.functional import logsigmoid, pad

from gfnem.target import GenerativeModel

WIDEST = 10  # wider phrases share their rules


class MyGrammar(GenerativeModel):
    """Phrases are cut in two from the top down; label and width say where and into what.

    A word follows from the label above it or from the word before it.
    """

    unit = "token"

    def __init__(self, vocab_size: int, nonterminals: int = 8, dim: int = 64):
        super().__init__()
        self.longer = nn.Parameter(torch.tensor(2.0))  # sentence lengths are geometric
        self.root = nn.Parameter(torch.randn(nonterminals))
        self.tilt = nn.Parameter(torch.randn(nonterminals))  # towards long left parts
        self.labels = nn.Parameter(torch.randn(2, WIDEST + 1, nonterminals, nonterminals))
        self.above = nn.Parameter(torch.randn(2, nonterminals, dim))
        self.before = nn.Embedding(vocab_size + 1, dim)  # the last: no word yet
        self.words = nn.Linear(dim, vocab_size)  # vectors learn faster than a table of words
        self.which = nn.Parameter(torch.zeros(2, nonterminals))  # label or word before

    def facts(self):
        """What the latent space and the policy must know."""
        return {"nonterminals": len(self.root)}

    def units(self, x):
        """Tokens, so that likelihoods are reported per token."""
        return x.lengths

    def log_joint(self, x, z):
        """`(batch, samples)` log p(sentence, tree); z holds all nodes of all trees at once."""
        label, width = z.label, (z.right - z.left).clamp(min=2)  # (batch, samples, nodes)
        size = torch.arange(1, max(x.max_length, 2), device=label.device)
        cut = self.tilt[label][..., None] * size / width[..., None]
        cut = cut.masked_fill(size >= width[..., None], -torch.inf).log_softmax(3)
        total = cut.gather(3, (z.split - z.left - 1).clamp(min=0)[..., None]).squeeze(3)
        before = self.before(pad(x.tokens, (1, -1), value=self.words.out_features))
        after = self.words(before).log_softmax(2).gather(2, x.tokens[..., None])[:, None, :, 0]
        labels, words = self.labels.log_softmax(3), self.words(self.above).log_softmax(2)
        ends = (z.left, (z.right - 1).clamp(min=0))  # where a child is if it is a word
        for side, (child, end) in enumerate(zip(z.child_labels(), ends, strict=True)):
            token = x.tokens[:, None].expand(-1, z.samples, -1).gather(2, end)
            by_label = words[side, label, token] + logsigmoid(-self.which[side, label])
            by_word = after.expand(-1, z.samples, -1).gather(2, end)
            word = by_label.logaddexp(by_word + logsigmoid(self.which[side, label]))
            phrase = labels[side, width.clamp(max=WIDEST), label, child]
            total = total + torch.where(child < 0, word, phrase)  # -1: the child is a word
        top = self.root.log_softmax(0)[pad(label, (0, 1))[:, :, 0]]
        top = torch.where(x.lengths[:, None] > 1, top, after[:, :, 0])  # or a single word
        length = (x.lengths - 1) * logsigmoid(self.longer) + logsigmoid(-self.longer)
        return (total * z.mask()).sum(2) + top + length[:, None]
