"""A top-down policy: the grammar's own rule weights times a learned look-ahead."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gfnem.errors import UserError
from gfnem.parsing.grammars.grammar import Grammar
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.inside import by_label, inside, uniform_inside
from gfnem.parsing.inference.look_ahead import names_of_spans
from gfnem.parsing.inference.potentials import PROFILE, GivenPotentials
from gfnem.parsing.inference.rule_potentials import RulePotentials
from gfnem.parsing.policies.encoder import SpanEncoder
from gfnem.parsing.policies.look_ahead import ContextValue, Value
from gfnem.parsing.policies.recursion import Recursion
from gfnem.parsing.policies.rule_policy import RulePolicy
from gfnem.parsing.text.sentences import Sentences
from gfnem.ranges import Count, Fact, PartialShare
from gfnem.target import Conditioned, Target


class TopDownPolicy(RulePolicy):
    """Rules, and a look-ahead `V` by a network (see `RulePolicy`).

    A network reads the sentence once and gives the whole look-ahead; sampling and scoring trees are
    then table look-ups. Where there is more to the target than rules, `V` starts from the rules'
    own inside values. Where rules depend on the context as well, so does `V`; it then starts from
    each span expanded once by its own rules (`expanded`), its children worth the inside values of
    the rules' average over the contexts: a context-free grammar, whose chart is cheap. Only for a
    PCFG, whose posterior such a start would give away, is `V` learned from nothing, or, where spans
    count besides (`Target.tilted`), from what these make of trees drawn by uniform splits.

    The rules' weights are those of the target where it offers `potentials(x)` (without gradient:
    the policy follows every M-step at no cost); else the policy learns rule weights of its own.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        nonterminals: labels; from the model if None.
        dim: size of word embeddings and LSTM states.
        use_prior: whether to use the target's rule weights where it offers them.
        contexts: how many contexts the target's rules tell apart (see `Grammar`): more than one
            where they depend on the parent; from the model, and 1 if None.
        dropout: of the network, in training.
        corners: whether the look-ahead weighs what the first and the last word of a span say of its
            label by the target's rules (`inference.corners`); not where these look at parents. From
            the model: true for grammars of many symbols, and false if None.
        recursion: rank of a look-ahead that is built from narrow spans to wide ones (`Recursion`),
            which the network's is added to; none if None. Only where a grammar's rules are all that
            counts and do not look at parents; `RecursionPolicy` has no network besides.

    Raises:
        ValueError: if a recursion is asked for where rules look at parents.
    """

    log_z_parts = ("own.single_score",)
    recordable = True

    def __init__(
        self,
        vocab_size: Fact = None,
        nonterminals: Fact = None,
        dim: Count = 128,
        use_prior: bool = True,
        contexts: Count | None = None,
        dropout: PartialShare = 0.2,
        corners: bool | None = None,
        recursion: Count | None = None,
    ):
        super().__init__()
        self.nonterminals, self.use_prior = nonterminals, use_prior
        features = PROFILE * nonterminals if use_prior else 0
        self.encoder = SpanEncoder(vocab_size, dim, features, dropout)
        self.contexts = (contexts or 1) if use_prior else 1
        if self.contexts > 1:
            self.value = ContextValue(self.encoder.dim_out, nonterminals, self.contexts, dim)
        else:
            self.value = Value(self.encoder.dim_out, nonterminals, bool(corners and use_prior))
        self.recursion: Recursion | None = None
        if recursion is not None and use_prior:
            if self.contexts > 1:
                raise ValueError(
                    "a recursion needs rules that do not look at parents; leave recursion out, or "
                    "choose a grammar without parent classes"
                )
            self.recursion = Recursion(nonterminals, recursion)
        self.word_score = nn.Embedding(vocab_size, 1)
        nn.init.zeros_(self.word_score.weight)  # as the values: start from the rules alone
        self.own: OwnRules | None = OwnRules(vocab_size, nonterminals, dim)

    def serve(self, target: Target) -> None:
        """Keeps either its own rules or what it needs to follow the target's.

        Raises:
            UserError: if a recursion over the target's rules is asked for, and it offers none.
        """
        if self._follows(target):
            self.own = None
        else:
            if self.recursion is not None:
                raise UserError(
                    f"--policy.recursion is over the model's rules, and {_name(target)} has none: "
                    "leave it out"
                )
            self.use_prior = False
            self.encoder.without_features()
            self.value.of_corners = self.recursion = None

    def is_for_log_z(self, name: str) -> bool:
        """The words' scores besides, where the rules are its own: all trees have the same words."""
        levels = self.own is not None and name.startswith("word_score.")
        return levels or super().is_for_log_z(name)

    def _follows(self, target: Target | Conditioned | None) -> bool:
        return self.use_prior and target is not None and target.offers("potentials")

    def encode(self, x: Sentences, given: Conditioned | None = None) -> RuleChoices:
        """Rule weights and look-ahead values, one network call.

        Raises:
            ValueError: if the target's rules have other contexts than the policy knows.
        """
        own = not self._follows(given)
        scores = self.word_score(x.tokens).squeeze(2)
        if not own:
            with torch.no_grad():
                potentials = given.potentials
        elif self.own is not None:
            # a model that has learned nothing spreads each word over the whole vocabulary
            scores = scores - math.log(self.word_score.num_embeddings)
            potentials = self.own(x, self.encoder.embedding(x.tokens), scores)
        else:
            raise ValueError(
                "this TopDownPolicy follows the rules of the target it was made for, and "
                f"{_name(given)} offers no potentials"
            )
        if potentials.contexts != self.contexts:
            raise ValueError(
                f"TopDownPolicy(contexts={self.contexts}) does not fit the rules of "
                f"{_name(given)}, which have {potentials.contexts}"
            )
        # if not, there is more to a tree than the rules' weights
        exact = given is not None and _is_grammar(given.target)
        profiles = guess = levels = None
        spans = None if own else given.spans
        if not own:
            with torch.no_grad():
                profiles = potentials.word_profiles()
                if self.contexts > 1:
                    guess = _chart(potentials.context_free(), spans)
                elif not exact:
                    guess = _chart(potentials, spans)
                elif self.recursion is None:
                    levels = potentials.word_levels()
            if exact and self.recursion is not None:
                guess = self.recursion(potentials, spans)
            if levels is not None:
                scores = scores + levels
        level = nn.functional.pad(scores.masked_fill(~x.mask(), 0.0).cumsum(1), (1, 0))
        level = level[:, None] - level[:, : x.max_length, None]
        known = exact and not own
        if self.contexts > 1:
            vectors = self.encoder(x, profiles)
            ahead = self.value.rows(vectors, guess, level, potentials, exact, spans)
            return RuleChoices(potentials, ahead, spans=spans)
        vectors = self.encoder(x, profiles, self.value.narrowest(known))
        if spans is not None and guess is None:
            level = level + uniform_inside(spans)
        ahead = self.value.rows(vectors, level, potentials, guess, known, spans)
        if own:
            pairs = names_of_spans(len(x), x.max_length, level.device).diagonal(2, 1, 2)
            potentials.both_leaves = ahead(pairs).unsqueeze(2)
        return RuleChoices(potentials, ahead, guided=not own, spans=spans)

    def offers(self, hook: str) -> bool:
        """Marginals where the look-ahead is a whole chart and the rules are the target's."""
        known = self.contexts == 1 and self.own is None
        return super().offers(hook) and (hook != "marginals" or known)


class OwnRules(nn.Module):
    """Rule weights of the policy itself, for targets that offer none; all alike at first.

    Every word counts once in a tree, by its score, whichever rule has it: the scores are a matter
    of `log Z(x)` and do not move the policy. Two words have no rule weight of their own; theirs is
    the look-ahead of their span, put in by `TopDownPolicy.encode`.

    Args:
        vocab_size: words.
        nonterminals: labels.
        dim: size of word embeddings.
    """

    def __init__(self, vocab_size: int, nonterminals: int, dim: int):
        super().__init__()
        # with one more label that stands for any word
        self.rules = nn.Parameter(torch.zeros(nonterminals, nonterminals + 1, nonterminals + 1))
        self.leaf = nn.Linear(dim, 2 * nonterminals**2)  # which word it is, left or right
        nn.init.zeros_(self.leaf.weight)
        nn.init.zeros_(self.leaf.bias)
        self.root = nn.Parameter(torch.zeros(nonterminals))
        self.single_score = nn.Embedding(vocab_size, 1)

    def forward(self, x: Sentences, words: Tensor, scores: Tensor) -> GivenPotentials:
        """The weights for sentences whose words have vectors and scores.

        Args:
            x: the sentences.
            words: `(batch, n, dim)` vectors.
            scores: `(batch, n)` nats.
        """
        labels = len(self.root)
        leaves = self.leaf(words).unflatten(2, (2, labels, labels)).transpose(0, 1)
        once = scores.T[..., None, None]
        left = self.rules[:, labels, :labels] + leaves[:, :, 0] + once
        right = self.rules[:, :labels, labels] + leaves[:, :, 1] + once
        left, right = left.unsqueeze(3), right.unsqueeze(3)  # one context
        both = scores.new_zeros(len(x), max(x.max_length - 1, 0), 1, labels)
        single = self.single_score(x.tokens[:, 0]).squeeze(1) + scores[:, 0]
        inner = self.rules[None, :, :labels, :labels]
        return GivenPotentials(self.root, inner, left, right, both, single, x.lengths)


def _chart(potentials: RulePotentials, spans: Tensor | None) -> Tensor:
    """`(batch, n, n + 1, N)` inside values of a grammar with one context."""
    extra = None if spans is None else by_label(spans, potentials.labels)
    return inside(potentials, extra).squeeze(3).to(potentials.root)


def _is_grammar(target: Target) -> bool:
    """Whether the target's log joint is the sum of its potentials and nothing else."""
    return isinstance(target, Grammar) and target.additive


def _name(found: Target | Conditioned | None) -> str:
    return type(found.target if isinstance(found, Conditioned) else found).__name__
