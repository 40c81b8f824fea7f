"""Times one full update: rollout, E-loss with its gradient, M-step; and one exact-EM update.

    python experiments/benchmarks/bench_update.py [--model NeuralParentPCFG]

Random sentences, medians over several updates after a warm-up, both kinds in turn. `--model`,
`--samples`, `--threads`, `--words` and the sizes of grammar and batch can be set; `--device cuda`
times a GPU. Trees of parts that have learned nothing are flat; `--trained 40` times updates after
so many others of one batch, when they have become deep and alike. `--text FILE` takes other
sentences of a text for each update, the first words of those that are long enough: trees are then
deep and differ.
"""

from __future__ import annotations

import argparse
import random

import torch
from record import median_seconds, medians_in_turn, record

from gfnem.component import build
from gfnem.em import EM
from gfnem.parsing import (
    ForestPolicy,
    ForestSpace,
    NeuralParentPCFG,
    NeuralPCFG,
    RecursionPolicy,
    TextData,
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
    parser.add_argument("--text", help="sentences, in any form that `gfnem train --data` takes")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    lengths = torch.full((options.sentences,), options.words)
    if options.text:
        text = TextData(options.text, min_length=options.words, max_length=100_000)
        options.vocabulary, order = len(text.vocabulary), random.Random(0)

        def batch() -> Sentences:
            rows = order.sample(range(len(text.sizes())), options.sentences)
            tokens = text.batch(rows).tokens[:, : options.words]
            return Sentences(tokens, lengths).to(options.device)
    else:
        tokens = torch.randint(1, options.vocabulary, (options.sentences, options.words))
        only = Sentences(tokens, lengths).to(options.device)

        def batch() -> Sentences:
            return only

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
    data += " of a text" if options.text else ""
    data += f", {options.samples} samples" if options.samples != 4 else ""
    after = f", after {options.trained} updates" if options.trained else ""
    print(
        f"torch {torch.__version__}, {options.threads} threads, {options.device}; {data}, {size}, "
        f"{options.samples} samples a sentence"
    )
    sampled = trained_by(gflownet(samples=options.samples))
    both = [Descent(em) for em in (sampled, trained_by(exact()))]
    for _ in range(options.trained):
        x = batch()
        for descent in both:
            descent.update(x)
    jobs = [lambda descent=descent: descent.update(batch()) for descent in both]
    for name, took in zip(
        ("GFlowNet-EM", "exact-EM"), medians_in_turn(jobs, options.repeats, wait), strict=True
    ):
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
