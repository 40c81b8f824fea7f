"""A sampler that writes a sentence by growing a tree, and forgets the tree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gfnem.offers import NotOffered
from gfnem.parsing.generation.sampler import SentenceSampler
from gfnem.parsing.generation.strings import Strings
from gfnem.parsing.grammars.language import length_weights
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.grammars.rule_tables import DenseRules
from gfnem.parsing.grammars.sampling import draw_derivations
from gfnem.parsing.inference.choices import RuleChoices
from gfnem.parsing.inference.draws import draw_trees, score_choices
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Scores, Step
from gfnem.ranges import Count, Fact, Positive
from gfnem.sampling import Exploration, explored
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned

PARSERS = ("learned", "exact")


class GrammarSampler(SentenceSampler[object]):
    """A neural PCFG as the forward policy, and a parser as the backward policy.

    A trajectory derives a labelled tree with its words, top-down, and then forgets the tree: many
    trajectories lead to one sentence. With `p` the grammar and `L` the most words of a sentence,

        log P_F(tree, sentence) = log p(tree, sentence) - log p(at most L words),

    preterminals summed out. Backwards, `P_B(tree | sentence)` chooses the tree of a sentence, which
    is to parse it. Trajectory balance (Malkin et al. 2022, eq. 14) then reads

        log Z + log P_F(tree, sentence) = log R(sentence) + log P_B(tree | sentence).

    Where it holds everywhere the sentences follow `R / Z`, and `P_B` is the grammar's posterior
    over trees.

    Args:
        vocab_size: words, the unknown word included.
        longest: most words of a sentence.
        shortest: fewest words, 1 or 2; 1 if None.
        nonterminals, preterminals, dim: of the grammar, as of `NeuralPCFG`.
        parser: "learned": `TopDownPolicy`, which follows the grammar's rules and learns its
            look-ahead. "exact": the grammar's own posterior by the inside algorithm, with nothing
            to learn: the ruler of the former.
        parser_dim: size of the learned parser.
        spread: standard deviation, in nats, of the log weights of a symbol's rules and words before
            training. Symbols that start alike learn alike: where all words are equally frequent,
            as in the copy language, nothing else tells them apart.
        recursion: rank of a recursion that the learned parser's look-ahead starts from, as of
            `TopDownPolicy`; none if None.

    Raises:
        ValueError: if there is no such parser, or sentences have to be longer.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        longest: Fact = None,
        shortest: Count | None = None,
        nonterminals: Count = 30,
        preterminals: Count = 60,
        dim: Count = 128,
        parser: str = "learned",
        parser_dim: Count = 128,
        spread: Positive = 1.0,
        recursion: Count | None = None,
    ):
        super().__init__()
        if parser not in PARSERS:
            raise ValueError(f"parser is {' or '.join(PARSERS)}, not {parser!r}")
        if (shortest or 1) > 2:
            raise ValueError(f"shortest {shortest}: a grammar's sentences have 1 or 2 words")
        self.longest, self.shortest = longest, shortest or 1
        self.grammar = NeuralPCFG(vocab_size, nonterminals, preterminals, dim, self.shortest)
        rules, words = self.grammar.rule_net, self.grammar.word_net
        _spread(self.grammar.nonterminal, rules, rules.weight, spread)
        _spread(self.grammar.preterminal, words, words[-1].weight, spread)
        self.parser: TopDownPolicy | None = None
        if parser == "learned":
            self.parser = TopDownPolicy(
                vocab_size, nonterminals, parser_dim, dropout=0.0, recursion=recursion
            )
            self.parser.serve(self.grammar)
            # all trees of a sentence have the same words: what these score moves nothing
            self.parser.word_score.requires_grad_(False)

    def unique_trajectory(self, space: LatentSpace) -> bool:
        """A sentence has many trees."""
        return False

    def forward(self, context: Sentences, state: object) -> Step:
        """Refuses.

        Raises:
            NotOffered: whole derivations are drawn and scored.
        """
        raise NotOffered("GrammarSampler goes by whole derivations, not state by state")

    def log_mass(self) -> Tensor:
        """`()` exact log probability, in nats, that the grammar's sentence fits; differentiable."""
        weights = length_weights(self.grammar.by_context(), self.longest)
        return weights[self.shortest - 1 :].sum().log().to(self.level)

    def log_sentence(self, x: Sentences) -> Tensor:
        """`(batch,)` exact log probability of sentences, all trees summed out, in nats."""
        return self._marginal(x, self.grammar.given(x)) - self.log_mass()

    def _marginal(self, x: Sentences, given: Any) -> Tensor:
        return x.by_length(lambda rows: given.some(rows).log_marginal())

    def apart(self, x: Sentences, trees: Trees) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """See `SentenceSampler`; with the exact parser there is nothing to learn of trees."""
        given = self.grammar.given(x)
        log_marginal = self._marginal(x, given)
        log_sentence = log_marginal - self.log_mass()
        if self.parser is None:
            return log_sentence, None, None

        def of(rows: Tensor) -> Tensor:
            some = given.some(rows)
            choices = self.parses(some.x, some)
            own = trees[rows].resized(some.x.max_length - 1)
            both = Trees.cat([own, draw_trees(choices, 1)[0]])
            log_joint = tree_log_joint(some.potentials, both).sum(2)
            log_p = log_joint - log_marginal[rows, None]
            return torch.stack([log_p, score_choices(choices, both).sum(2)], 2)

        return log_sentence, *x[: len(trees)].by_length(of).unbind(2)

    @torch.no_grad()
    def sample(
        self,
        context: Sentences,
        x: Sentences,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Derives sentences from nothing; those that were observed are returned.

        A temperature tempers, and `epsilon` mixes with uniform choices, the root's symbol, each
        rule and each word; of explored derivations the probability is not known.

        Raises:
            RuntimeError: if fewer than one derivation in a thousand is short enough.
        """
        if _observed(context):
            z = Strings.of(context, self.longest, samples)
            return Trajectories(z, log_behaviour=self.level.new_zeros(z.lengths.shape))
        rows = len(context)
        drawn, trees = self.derive(rows * samples, exploration)
        z = Strings.drawn(drawn, self.longest)
        z = z.map(lambda tensor: tensor[0].unflatten(0, (rows, samples)))
        return Trajectories(z, choices=self._folded(trees, rows))

    @torch.no_grad()
    def derive(self, count: int, exploration: Exploration | None = None) -> tuple[Sentences, Trees]:
        """Sentences with a tree each.

        Raises:
            RuntimeError: as `sample`.
        """
        root, rules, words = (
            _explored(table, axes, exploration or Exploration())
            for table, axes in zip(self.grammar.tables(), (1, 2, 1), strict=True)
        )
        return draw_derivations(root, DenseRules(rules), words[None], count, self.longest)

    @torch.no_grad()
    def retrace(
        self, context: Sentences, x: Sentences, space: LatentSpace, latent: Strings
    ) -> Trajectories:
        """Parses the sentences with `P_B`, a tree each."""
        if _observed(context):
            zeros = self.level.new_zeros(latent.lengths.shape)
            return Trajectories(latent, log_behaviour=zeros)
        sentences = latent.sentences()
        trees, _ = draw_trees(self.parses(sentences), 1)
        return Trajectories(latent, choices=self._folded(trees, len(latent.lengths)))

    def score(
        self,
        context: Sentences,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """Scores whole derivations: the root, then each node's rule with its words, in preorder."""
        z, trees = trajectories.latent, trajectories.choices
        log_z = self.log_z(context)
        if trees is None:  # observed: nothing was built
            zeros = self.level.new_zeros(*z.lengths.shape, 0)
            return Scores(zeros, zeros, zeros.bool(), log_z)
        x = z.sentences()
        one = trees.map(lambda tensor: tensor.flatten(0, 1)[:, None]).resized(x.max_length - 1)
        given = self.grammar.given(x)
        log_pf = tree_log_joint(given.potentials, one)
        log_pf = torch.cat([log_pf[..., :1] - self.log_mass(), log_pf[..., 1:]], 2)
        log_pb = score_choices(self.parses(x, given), one)
        mask = torch.nn.functional.pad(one.mask(), (1, 0), value=True)
        log_pf, log_pb, mask = (part.view(*z.lengths.shape, -1) for part in (log_pf, log_pb, mask))
        return Scores(log_pf, log_pb, mask, log_z)

    def parses(self, x: Sentences, given: Conditioned | None = None) -> RuleChoices:
        """`P_B` of sentences: the weights of all choices that build their trees.

        Args:
            x: the sentences.
            given: `grammar.given(x)`, where it is at hand.
        """
        given = self.grammar.given(x) if given is None else given
        if self.parser is not None:
            return self.parser.encode(x, given)
        return RuleChoices.from_chart(given.potentials, given.chart())

    def _folded(self, trees: Trees, rows: int) -> Trees:
        """Trees of `rows * samples` sentences, one each, as `(rows, samples)`."""
        trees = trees.resized(self.longest - 1)
        return trees.map(lambda tensor: tensor[:, 0].unflatten(0, (rows, -1)))


@torch.no_grad()
def _spread(symbols: Tensor, scores: nn.Module, last: Tensor, deviation: float) -> None:
    """Scales the vectors of symbols so that the scores that a network gives them spread.

    The last layer's weights grow as much as the vectors do. With long vectors alone one step of
    Adam moves all scores by nats, and symbols that differ at first become one.
    """
    for _ in range(3):  # biases do not grow
        factor = (deviation / scores(symbols).std()).sqrt()
        symbols.mul_(factor)
        last.mul_(factor)


def _observed(context: Sentences) -> bool:
    """Whether a batch's sentences are observed; if not, it says nothing."""
    return bool((context.lengths > 0).all())


def _explored(table: Tensor, axes: int, exploration: Exploration) -> Tensor:
    """Probabilities over the last `axes` axes, tempered and mixed with uniform ones."""
    logs = table.flatten(-axes)
    return explored(logs, logs.isfinite(), exploration).view(table.shape)
