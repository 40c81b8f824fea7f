"""Times one full update: rollout, E-loss with its gradient, M-step; and one exact-EM update.

    python experiments/benchmarks/bench_update.py [--model NeuralParentPCFG]

Random sentences, medians over several updates after a warm-up. `--model`, `--samples`, `--threads`,
`--words` and the sizes of grammar and batch can be set; `--device cuda` times a GPU. Trees of parts
that have learned nothing are flat; `--trained 40` times updates after so many others, when they
have become deep.
"""

from __future__ import annotations

import argparse

import torch
from record import median_seconds, record

from gfnem.component import build
from gfnem.em import EM
from gfnem.parsing import (
    ForestPolicy,
    ForestSpace,
    NeuralParentPCFG,
    NeuralPCFG,
    RecursionPolicy,
    TopDownPolicy,
)
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.parsing.text.sentences import Sentences
from gfnem.policy import Policy
from gfnem.rates import Descent
from gfnem.recipes import Recipe, exact, gflownet

SAMPLERS = {
    "top-down": (TopDownSpace, TopDownPolicy),
    "recursion": (TopDownSpace, RecursionPolicy),
    "forest": (ForestSpace, ForestPolicy),
}
MODELS = {model.__name__: model for model in (NeuralPCFG, NeuralParentPCFG)}


def main() -> None:
    """Prints the timings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="NeuralPCFG")
    parser.add_argument("--sampler", choices=SAMPLERS, default="top-down")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sentences", type=int, default=32)
    parser.add_argument("--words", type=int, default=20, help="tokens of every sentence")
    parser.add_argument("--samples", type=int, default=4, help="trees drawn for each sentence")
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--nonterminals", type=int, default=30)
    parser.add_argument("--preterminals", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--trained", type=int, default=0, help="updates before those timed")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens = torch.randint(1, options.vocabulary, (options.sentences, options.words))
    lengths = torch.full((options.sentences,), options.words)
    x = Sentences(tokens, lengths).to(options.device)
    labels = options.nonterminals

    def trained_by(recipe: Recipe) -> EM:
        model = MODELS[options.model](options.vocabulary, labels, options.preterminals)
        space, policy = SAMPLERS[options.sampler]
        facts = {"vocab_size": options.vocabulary, "nonterminals": labels, **model.facts()}
        named = {"class_path": f"{policy.__module__}.{policy.__qualname__}"}
        parts = model, space(labels), build(named, Policy, **facts)
        return EM(*parts, recipe).to(options.device)

    def wait() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    size = f"{options.model} of {labels}+{options.preterminals} symbols"
    size += f", {options.sampler}" if options.sampler != "top-down" else ""
    data = f"{options.sentences} sentences of {options.words} words"
    after = f", after {options.trained} updates" if options.trained else ""
    print(
        f"torch {torch.__version__}, {options.threads} threads, {options.device}; {data}, {size}, "
        f"{options.samples} samples a sentence"
    )
    sampled = trained_by(gflownet(samples=options.samples))
    for name, em in (("GFlowNet-EM", sampled), ("exact-EM", trained_by(exact()))):
        descent = Descent(em)
        for _ in range(options.trained):
            descent.update(x)
        took = median_seconds(lambda descent=descent: descent.update(x), options.repeats, wait)
        print(f"{name + ' update':22}{took.wall:8.3f} s, {took.cpu:.3f} s of CPU time")
        record(f"{name} update, {size}, {data}{after}", took.cpu)

    sampled.requires_grad_(False).eval()  # as a run that is loaded, without dropout
    for batch in (options.sentences, 4 * options.sentences):
        tokens = torch.randint(1, options.vocabulary, (batch, options.words))
        many = Sentences(tokens, torch.full((batch,), options.words)).to(options.device)

        def sample(many: Sentences = many) -> None:
            with torch.no_grad():
                context = sampled.policy.encode(many, sampled.model.given(many))
                sampled.policy.sample(context, many, sampled.space, 1)

        took = median_seconds(sample, options.repeats, wait)
        print(f"sampling, batch {batch:4} {batch / took.wall:9.0f} sentences/s, one tree each")
        record(
            f"sampling a tree each for {batch} sentences of {options.words} words, {size}", took.cpu
        )


if __name__ == "__main__":
    main()
