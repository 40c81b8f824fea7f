"""Times one full update: rollout, E-loss with its gradient, M-step; and one exact-EM update.

    python experiments/benchmarks/bench_update.py [--model NeuralParentPCFG]

Random sentences, medians over several updates after a warm-up. `--model`, `--samples`, `--threads`,
`--lengths` and the sizes of grammar and batch can be set; `--device cuda` times a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from gfnem.component import build
from gfnem.lightning import GFlowNetEM
from gfnem.parsing import NeuralParentPCFG, NeuralPCFG
from gfnem.parsing.policies.topdown import TopDownPolicy
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.policy import Policy

MODELS = {model.__name__: model for model in (NeuralPCFG, NeuralParentPCFG)}


def median_seconds(job: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time of `job` in seconds, after two calls that do not count."""
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        job()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def updater(module: GFlowNetEM, x: Sentences) -> Callable[[], None]:
    """One training step of the module, driven without a Trainer."""
    optimizers = module.configure_optimizers()
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    return lambda: module.training_step(x, 0)


def main() -> None:
    """Prints the timings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="NeuralPCFG")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--words", type=int, default=20, help="tokens of every sentence")
    parser.add_argument("--samples", type=int, default=4, help="trees drawn for each sentence")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--nonterminals", type=int, default=30)
    parser.add_argument("--preterminals", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens = torch.randint(1, options.vocabulary, (options.sentences, options.words))
    lengths = torch.full((options.sentences,), options.words)
    x = Sentences(tokens, lengths).to(options.device)
    labels = options.nonterminals

    def module(**settings) -> GFlowNetEM:
        model = MODELS[options.model](options.vocabulary, labels, options.preterminals)
        return GFlowNetEM(
            model,
            TopDownSpace(labels),
            build(TopDownPolicy(options.vocabulary, labels).spec(), Policy, **model.facts()),
            samples=options.samples,
            **settings,
        ).to(options.device)

    sampled, exact = module(), module(e_step="exact")
    print(
        f"torch {torch.__version__}, {options.threads} threads, {options.device}; "
        f"{options.sentences} sentences of {options.words} words, {options.model} of {labels}+"
        f"{options.preterminals} symbols, {options.samples} samples a sentence"
    )
    job = updater(sampled, x)
    print(f"GFlowNet-EM update    {median_seconds(job, options.repeats, options.device):8.3f} s")
    job = updater(exact, x)
    print(f"exact-EM update       {median_seconds(job, options.repeats, options.device):8.3f} s")

    for batch in (options.sentences, 4 * options.sentences):
        tokens = torch.randint(1, options.vocabulary, (batch, options.words))
        many = Sentences(tokens, torch.full((batch,), options.words)).to(options.device)

        def sample(many: Sentences = many) -> None:
            with torch.no_grad():
                context = sampled.policy.encode(many, sampled.model.given(many))
                sampled.policy.sample(context, many, sampled.space, 1)

        seconds = median_seconds(sample, options.repeats, options.device)
        print(f"sampling, batch {batch:4} {batch / seconds:9.0f} sentences/s, one tree each")


if __name__ == "__main__":
    main()
