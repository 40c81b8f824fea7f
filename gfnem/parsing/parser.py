"""From a trained run and some sentences to trees with their probabilities."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from gfnem.errors import UserError
from gfnem.estimates import LogMarginal
from gfnem.parsing.inference.decoding import minimum_risk, span_counts
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.posterior import Posterior
from gfnem.running.trained import Inference
from gfnem.target import Conditioned, Target

#: importance samples for each sentence where exact inference does not exist
SAMPLES = 64
#: how trees are chosen
DECODES = ("map", "mbr", "sample")


class Parses:
    """Trees of a batch of sentences. What else is known of them is computed when it is asked for.

    Args:
        given: the model, given the sentences.
        trees: one or more trees for each sentence.
        posterior: makes the sampler's posterior, or what stands in for it.
        log_marginal: how to compute `log p(x)`.
        spans: `(batch, n, n + 1)` how probable each span is, where trees were chosen by it.
    """

    def __init__(
        self,
        given: Conditioned,
        trees: Trees,
        posterior: Callable[[], Posterior],
        log_marginal: Callable[[], LogMarginal],
        spans: Tensor | None = None,
    ):
        self.trees, self.spans = trees, spans
        self._given = given
        self._posterior, self._log_marginal = posterior, log_marginal

    @cached_property
    def log_joint(self) -> Tensor:
        """`(batch, samples)` `log p(x, z)` in nats."""
        with torch.no_grad():
            return self._given.log_joint(self.trees)

    @cached_property
    def log_q(self) -> Tensor:
        """`(batch, samples)` `log q(z|x)` of the sampler in nats."""
        return self._posterior().log_prob(self.trees)

    @cached_property
    def log_marginal(self) -> LogMarginal:
        """`log p(x)` with how it was computed."""
        with torch.no_grad():
            return self._log_marginal()

    def figures(self, row: int) -> list[dict[str, Any]]:
        """What is said of each tree of a sentence beside the tree, as plain data."""
        marginal = self.log_marginal
        estimate: dict[str, Any] = {"value": float(marginal.value[row])}
        if marginal.exact:
            known = self._given.target.normalised().marginal_is_exact
            estimate["method"] = "exact" if known else "bound"
        else:
            estimate["method"] = "importance-weighted"
            estimate["samples"] = marginal.samples
            estimate["effective_samples"] = float(marginal.effective_samples[row])
        return [
            {"log_joint": log_joint, "log_q": log_q, "log_marginal": estimate}
            for log_joint, log_q in zip(
                self.log_joint[row].tolist(), self.log_q[row].tolist(), strict=True
            )
        ]


@torch.no_grad()
def parse(
    module: Inference,
    x: Sentences,
    decode: str = "mbr",
    samples: int | None = None,
    given: Conditioned | None = None,
) -> Parses:
    """Parses a batch of sentences.

    Args:
        module: a trained module over `Trees`.
        x: the sentences.
        decode: "map" for the most probable tree, "mbr" for the tree with the greatest expected
            number of right spans (Goodman 1996), where spans that cross a pause count less (see
            `heeding`), "sample" for draws from the sampler.
        samples: with "sample", how many trees (default 1). Otherwise: None asks for exact inference
            where the model offers it; a number for importance samples instead.
        given: `module.target.given(x)`, where it is at hand.

    Raises:
        UserError: if the module has no sampler and its model no exact inference, or `decode` is
            none of these.
    """
    if decode not in DECODES:
        raise UserError(f"decode is {', '.join(DECODES[:-1])} or {DECODES[-1]}, not {decode}")
    model, solvable = module.model, _is_solvable(module)
    if not module.has_policy and not solvable:
        raise UserError(f"{type(model).__name__} was trained without a sampler: it cannot parse")
    exact = solvable and (samples is None or decode == "sample")

    @cache
    def aimed_at() -> Conditioned:
        return module.target.given(x) if given is None else given

    @cache
    def posterior() -> Posterior:
        return module.posterior(x, aimed_at()) if module.has_policy else _ExactPosterior(alone)

    # what a reward says of the sentences is not needed for exact inference
    alone = model.given(x) if exact and given is None else aimed_at().normalised()
    if decode == "sample":
        trees = posterior().sample(samples or 1)
        count = None if exact else SAMPLES
        return Parses(alone, trees, posterior, lambda: posterior().log_marginal(count))
    if exact:
        trees, spans = _best_trees(alone, decode)

        def exactly() -> LogMarginal:
            return LogMarginal.from_exact(alone.log_marginal())

        return Parses(alone, trees, posterior, exactly, spans)
    drawn, log_weights = posterior().log_weights(samples or SAMPLES)
    of_model = posterior().model_weights(drawn, log_weights)
    if decode == "map":
        trees, spans = drawn.take(aimed_at().log_joint(drawn).argmax(1, keepdim=True)), None
    else:
        labels = int(drawn.label.max()) + 1 if drawn.label.numel() else 1
        counts = span_counts(drawn, log_weights.softmax(1), labels=labels)
        trees, spans = minimum_risk(counts, x.lengths, x.pauses)
    return Parses(alone, trees, posterior, lambda: LogMarginal.from_weights(of_model), spans)


def check_pauses(decode: str, preprocessing: Preprocessing) -> None:
    """Whether pauses of the text can have a say in its trees.

    Raises:
        UserError: if not, with the reason.
    """
    if decode != "mbr":
        raise UserError(f"pauses need decode mbr, which chooses trees by their spans, not {decode}")
    if preprocessing.punctuation:
        raise UserError(
            "pauses are where punctuation has been removed from a text, and this run reads it as "
            "words, as runs with dataset.punctuation and those of a grammar's own sentences do"
        )


def draws(module: Inference, decode: str, samples: int | None) -> bool:
    """Whether `parse` with these arguments chooses trees by means of random numbers."""
    return decode == "sample" or samples is not None or not _is_solvable(module)


def _is_solvable(module: Inference) -> bool:
    return module.model.offers("span_marginals") and module.model.offers("best_trees")


def label_names(module: Inference) -> list[str]:
    """A name for each nonterminal: the model's own names where it has any."""
    if module.model.offers("names"):
        return module.model.names()
    return [f"NT{index}" for index in range(module.space.nonterminals)]


@torch.no_grad()
def exact_trees(model: Target, x: Sentences, decode: str) -> tuple[Trees, Tensor]:
    """The best trees by exact inference, and the exact `(batch,)` `log p(x)` in nats."""
    given = model.given(x)
    return _best_trees(given, decode)[0], given.log_marginal()


def _best_trees(given: Any, decode: str) -> tuple[Trees, Tensor | None]:
    if decode == "map":
        return given.best_trees(), None
    return minimum_risk(given.span_marginals(), given.x.lengths, given.x.pauses)


class _ExactPosterior(Posterior[Sentences, Trees]):
    """For runs trained without a sampler: the model's exact posterior in its place."""

    def __init__(self, given: Conditioned):
        self.model = self.target = given.target
        self.x, self.given = given.x, given
        self.exact = self.given.log_marginal()

    def sample(self, shape=1, temperature: float = 1.0) -> Trees:
        if temperature != 1:
            raise NotImplementedError("exact draws are those of temperature 1")
        return self.given.sample_posterior(shape)

    def log_prob(self, z: Trees, paths: int = 1) -> Tensor:
        return self.given.log_joint(z) - self.exact[:, None]

    def log_weights(self, samples: int) -> tuple[Trees, Tensor]:
        trees = self.sample(samples)
        return trees, self.exact[:, None].expand(-1, samples)
