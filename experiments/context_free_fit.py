"""How much worse a context-free grammar of the same symbols fits a parent-conditioned one.

    python experiments/context_free_fit.py [GRAMMAR.ncfg] [--sentences N] [--em ITERATIONS]

On derivations (trees with their preterminals) the best PCFG is known, and so is how much worse it
is: exactly, from expected counts. On sentences alone it need not be the best PCFG of its size, so
exact EM (inside-outside) goes on from it, on sampled sentences; the last figures are on others.
"""

import argparse

import torch

from gfnem.parsing import Sentences, TabularGrammar
from gfnem.parsing.grammars.context_free_fit import FixedPCFG, context_free_fit

MAX_LENGTH = 20
# without it EM forgets the words that it has seen once
PRIOR = 5.0


def batches(x: Sentences, size: int = 50) -> list[Sentences]:
    """Sentences of similar length together."""
    order = x.lengths.argsort()
    return [
        Sentences(x.tokens[rows, : int(x.lengths[rows].max())], x.lengths[rows])
        for rows in order.split(size)
    ]


@torch.no_grad()
def nll_per_token(grammar, parts: list[Sentences]) -> float:
    """Exact, in nats."""
    total = sum(float(grammar.log_marginal(part).double().sum()) for part in parts)
    return -total / sum(int(part.lengths.sum()) for part in parts)


def em_step(grammar: FixedPCFG, prior: FixedPCFG, parts: list[Sentences]) -> FixedPCFG:
    """One iteration of inside-outside; `prior` adds `PRIOR` counts to each distribution."""
    tables = [table.clone().requires_grad_() for table in grammar.tables()]
    given = FixedPCFG(*tables, grammar.names())
    given.root, given.rules, given.emissions = tables  # buffers lose nothing of autograd
    for part in parts:
        given.log_marginal(part).sum().backward()
    new = []
    for table, other in zip(tables, prior.tables(), strict=True):
        shape = (len(table), -1) if table.dim() > 1 else (1, -1)
        counts = table.grad.reshape(shape) + PRIOR * other.exp().reshape(shape)
        new.append((counts / counts.sum(1, keepdim=True)).log().view_as(table))
    return FixedPCFG(*new, grammar.names())


def main() -> None:
    """Prints both figures, and what EM makes of the second."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("grammar", nargs="?", default="english_context")
    parser.add_argument("--sentences", type=int, default=500, help="held-out sentences")
    parser.add_argument("--training", type=int, default=5000, help="sentences for EM")
    parser.add_argument("--em", type=int, default=10, help="iterations of EM")
    options = parser.parse_args()
    grammar = TabularGrammar(options.grammar)
    fit = context_free_fit(grammar)
    sizes = f"{grammar.nonterminals} nonterminals, {grammar.preterminals} preterminals"
    print(f"{options.grammar}: {sizes}, {fit.tokens:.2f} tokens a sentence")
    print("nats per token, derivations, exact expectations:")
    print(f"  the grammar itself                         {fit.entropy / fit.tokens:.4f}")
    print(f"  best PCFG of the same symbols              {fit.cross_entropy / fit.tokens:.4f}")
    print(f"  divergence, nats a sentence                {fit.cross_entropy - fit.entropy:.4f}")
    torch.manual_seed(0)
    held_out = batches(grammar.sample(options.sentences, MAX_LENGTH)[0])
    training = batches(grammar.sample(options.training, MAX_LENGTH)[0])
    print(f"nats per token, {options.sentences} sentences of at most {MAX_LENGTH} tokens, exact:")
    print(f"  the grammar itself                         {nll_per_token(grammar, held_out):.4f}")
    pcfg = fit.grammar
    print(f"  best PCFG for derivations                  {nll_per_token(pcfg, held_out):.4f}")
    for iteration in range(1, options.em + 1):
        pcfg = em_step(pcfg, fit.grammar, training)
        if iteration in (1, 2, 5) or iteration % 10 == 0 or iteration == options.em:
            value = nll_per_token(pcfg, held_out)
            print(
                f"  after {iteration:3d} iterations of EM on sentences    {value:.4f}", flush=True
            )


if __name__ == "__main__":
    main()
