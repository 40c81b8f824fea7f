"""A generative model of one's own: a grammar in which the width of a phrase matters.

In the folder of this file: gfnem train --model my_grammar.MyGrammar --data TEXT
"""

import torch
from torch import nn
from torch.nn.functional import logsigmoid, pad

from gfnem.target import GenerativeModel

WIDEST = 10  # wider phrases share their rules


class MyGrammar(GenerativeModel):
    """Phrases are cut in two from the top down; label and width say where and into what."""

    unit = "token"

    def __init__(self, vocab_size: int, nonterminals: int = 8):
        super().__init__()
        self.longer = nn.Parameter(torch.tensor(2.0))  # sentence lengths are geometric
        self.root = nn.Parameter(torch.randn(nonterminals))
        self.tilt = nn.Parameter(torch.randn(nonterminals))  # towards long left parts
        self.labels = nn.Parameter(torch.randn(2, WIDEST + 1, nonterminals, nonterminals))
        self.words = nn.Parameter(torch.randn(2, nonterminals, vocab_size))

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
        tokens = x.tokens[:, None].expand(-1, z.samples, -1)
        places = (z.left, z.right - 1)  # of the left and of the right child, where it is a word
        children = zip(z.child_labels(), places, self.labels, self.words, strict=True)
        for child, place, labels, words in children:
            word = words.log_softmax(1)[label, tokens.gather(2, place.clamp(min=0))]
            phrase = labels.log_softmax(2)[width.clamp(max=WIDEST), label, child]
            total = total + torch.where(child < 0, word, phrase)  # -1: the child is a word
        top = self.root.log_softmax(0)[pad(label, (0, 1))[:, :, 0]]
        alone = self.words[0].log_softmax(1)[0, x.tokens[:, :1]]  # a sentence of one word
        total = (total * z.mask()).sum(2) + torch.where(x.lengths[:, None] > 1, top, alone)
        length = (x.lengths - 1) * logsigmoid(self.longer) + logsigmoid(-self.longer)
        return total + length[:, None]
