"""Grammar files, good and bad, and sums over derivations of their own rules."""

from functools import lru_cache

import torch
from nltk import PCFG
from nltk.grammar import Nonterminal

GRAMMARS = {
    "plain": """
        S -> A B [0.6] | A S [0.4]
        A -> 'a' [0.75] | 'b' [0.25]
        B -> 'b' [1.0]
    """,
    "unary chain": """
        S -> T [0.5] | A S [0.3] | 'a' [0.2]
        T -> A B [0.4] | B [0.6]
        A -> 'a' [0.9] | 'b' [0.1]
        B -> 'b' [0.7] | A A [0.2] | A [0.1]
    """,
    "unary loop": """
        S -> T [0.5] | S [0.2] | A T [0.3]
        T -> S [0.4] | A [0.3] | T A [0.3]
        A -> 'a' [0.8] | 'b' [0.2]
    """,
    "long rules and words inside": """
        S -> A 'b' B S [0.2] | A 'b' B [0.3] | 'b' [0.1] | 'a' B 'b' 'a' [0.25] | 'a' S [0.15]
        A -> 'a' [0.6] | B [0.4]
        B -> 'b' [0.5] | A A 'a' [0.2] | B 'b' A [0.3]
    """,
    "names that clash": """
        S -> A B-C D [0.4] | A B C-D [0.35] | B-C C-D [0.25]
        A -> 'a' [1.0]
        B -> 'b' [0.5] | 'a' [0.5]
        B-C -> 'b' [0.3] | B A [0.7]
        C-D -> 'a' [0.2] | D D [0.8]
        D -> 'b' [1.0]
    """,
    "repeated, unreachable and start directive": """
        # a comment
        %start S
        X -> 'a' [0.5] | S S [0.5]
        S -> A A [0.25] | A A [0.25] \\
            | 'b' [0.5]
        A -> S [0.5]
        A -> 'a' [0.5]
    """,
}


def derivation_sum(grammar: PCFG, sentence: tuple[str, ...], sweeps: int = 400) -> float:
    """Probability of `sentence`: the least fixed point of the rules as they stand.

    Iterating from zero, round `t` sums exactly the derivations of depth at most `t`, so unary loops
    are followed rather than inverted.
    """
    n = len(sentence)
    spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1)]
    symbols = {p.lhs() for p in grammar.productions()}
    value = {(a, span): 0.0 for a in symbols for span in spans}
    for _ in range(sweeps):

        @lru_cache(None)
        def side(right, i, j, value=value):
            """Sum over the ways to cut `[i, j)` into the items of `right`."""
            head, rest = right[0], right[1:]
            ends = [j] if not rest else range(i + 1, j - len(rest) + 1)
            total = 0.0
            for k in ends:
                if isinstance(head, Nonterminal):
                    weight = value[head, (i, k)]
                else:
                    weight = float(k == i + 1 and sentence[i] == head)
                if weight:
                    total += weight * (side(rest, k, j) if rest else 1.0)
            return total

        new = {key: 0.0 for key in value}
        for p in grammar.productions():
            for i, j in spans:
                if j - i >= len(p.rhs()):
                    new[p.lhs(), (i, j)] += p.prob() * side(p.rhs(), i, j)
        change = max(abs(new[key] - value[key]) for key in value)
        value = new
        if change < 1e-15:
            break
    return value[grammar.start(), (0, n)]


def inside(tables, sentence: tuple[str, ...]) -> float:
    """The tables' weight of a sentence, by the plain inside recursion."""
    n, size = len(sentence), len(tables.nonterminals)
    rules, emissions = tables.rules[0].double().exp(), tables.emissions[0].double().exp()
    chart = {}
    for i, word in enumerate(sentence):
        chart[i, i + 1] = torch.zeros(tables.root.shape[0], dtype=torch.float64)
        chart[i, i + 1][size:] = emissions[:, tables.words.index(word)]
    for width in range(2, n + 1):
        for i in range(n - width + 1):
            j = i + width
            cell = torch.zeros(tables.root.shape[0], dtype=torch.float64)
            for k in range(i + 1, j):
                cell[:size] += torch.einsum("abc,b,c->a", rules, chart[i, k], chart[k, j])
            chart[i, j] = cell
    return float(tables.root.double().exp() @ chart[0, n])


GOOD = "S -> A A [1.0]\nA -> 'a' [1.0]\n"


ERRORS = {
    "empty": ("", "toy.pcfg: the grammar is empty"),
    "only comments": ("# nothing\n", "toy.pcfg: the grammar is empty"),
    "not utf-8": (b"S -> A A [1.0]\nA -> '\xe9' [1.0]\n", "toy.pcfg:2: not UTF-8"),
    "no arrow": (GOOD + "B 'b' [1.0]\n", "toy.pcfg:3: not a grammar rule: Expected an arrow"),
    "unterminated": (GOOD + "B -> 'b [1.0]\n", "toy.pcfg:3: not a grammar rule: Unterminated"),
    "bad number": (GOOD + "B -> 'b' [1.0.0]\n", "toy.pcfg:3: not a grammar rule"),
    "above one": (GOOD + "B -> 'b' [1.5]\n", "toy.pcfg:3: .* of B has probability 1.5, above 1"),
    "directive": (GOOD + "%begin S\n", "toy.pcfg:3: not a directive"),
    "directive without symbol": ("%start\n" + GOOD, "toy.pcfg:1: not a directive"),
    "unfinished": (GOOD + "B -> 'b' [1.0] \\", "toy.pcfg:3: the line continues"),
    "sum": (GOOD + "\nB -> 'b' [0.5]\nB -> 'c' [0.4]", "toy.pcfg:4: .* of B sum to 0.9, not 1"),
    "sum above": (GOOD + "B -> 'b' [0.5] | 'c' [0.6]", "toy.pcfg:3: .* of B sum to 1.1, not 1"),
    "undefined": ("S -> A A [0.5]\nS -> A Q [0.5]\nA -> 'a' [1.0]", "toy.pcfg:2: .* Q has no"),
    "undefined start": (GOOD + "%start Q", "toy.pcfg:3: the symbol Q has no production"),
    "zero": (GOOD + "B -> 'b' [1.0] | 'c' [0.0]", "toy.pcfg:3: .* B has probability 0"),
    "missing probability": (
        GOOD + "B -> 'b' [1.0] | 'c'",
        "toy.pcfg:3: B -> 'c' has no probability",
    ),
    "empty side": (GOOD + "B -> 'b' [0.5] | [0.5]", "toy.pcfg:3: B has an empty right-hand side"),
    "empty word": (GOOD + "B -> '' [1.0]", "toy.pcfg:3: '' is not one word"),
    "two words": (GOOD + "B -> 'a b' [1.0]", "toy.pcfg:3: B yields 'a b', which is not one word"),
    "loop": (GOOD + "B -> C [1.0]\nC -> B [1.0]", "toy.pcfg:3: the unary rules of B form a loop"),
    "self-loop": (GOOD + "B -> B [1.0]", "toy.pcfg:3: the unary rules of B form a loop"),
    "numerical loop": (
        GOOD + "B -> B [1.0] | 'b' [0.00000000000000000001]",
        "toy.pcfg:3: the unary rules around B have infinite",
    ),
    "words only": ("S -> 'a' [1.0]\n", "toy.pcfg: no rule puts two symbols together"),
}
