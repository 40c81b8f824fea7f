"""Files of parent-conditioned grammars, and the PCFGs over symbols annotated with their parents."""

from nltk.grammar import Nonterminal

from gfnem.parsing.grammars.rules import read_rules

BINARY = """
    S -> A S [0.5] | A B [0.5]
    S^S -> B S [0.4] | A B [0.3] | B B [0.3]
    B^S -> 'b' [0.6] | 'a' [0.4]
    A^S -> 'a' [0.75] | 'b' [0.25]
"""


GRAMMARS = {
    "emissions and rules": """
        S -> A S [0.5] | A B [0.5]
        S^S -> B S [0.4] | A B [0.6]
        A^S -> 'a' [0.75] | 'b' [0.25]
        B -> 'b' [0.5] | A A [0.5]
        A -> 'b' [1.0]
    """,
    "long rules and words inside": """
        S^TOP -> A 'b' B S [0.2] | A 'b' B [0.3] | 'b' [0.1] | 'a' B 'b' 'a' [0.4]
        S^S -> 'a' [0.2] | B 'a' [0.2] | A 'b' B [0.6]
        A -> 'a' [0.6] | B [0.4]
        A^B -> 'b' [1.0]
        B^S -> 'b' [0.5] | A A 'a' [0.2] | B 'b' A [0.3]
        B -> 'a' [0.9] | A A [0.1]
    """,
    "unary chains": """
        S -> T [0.5] | A S [0.3] | 'a' [0.2]
        S^S -> T [0.3] | T A [0.7]
        T -> A B [0.4] | B [0.6]
        A^T -> 'a' [0.9] | B B [0.1]
        A -> 'b' [0.8] | B [0.2]
        B^T -> 'b' [0.7] | A A [0.2] | A [0.1]
        B -> 'a' [0.5] | 'b' [0.5]
    """,
    "unary loop": """
        S -> T [0.5] | S [0.2] | A T [0.3]
        S^T -> 'b' [0.1] | T [0.6] | T T [0.3]
        T -> S [0.4] | A [0.3] | T A [0.3]
        T^T -> S [0.8] | 'a' [0.2]
        A^S -> 'a' [1]
        A -> 'a' [0.2] | 'b' [0.8]
    """,
    "start directive, repeated rules, names that clash": """
        # a comment
        %start S
        X -> 'a' [0.5] | S S [0.5]
        S^TOP , X -> A B-C D [0.4] | A B C-D [0.3] | A B C-D [0.05] | B-C C-D [0.25]
        A -> 'a' [1.0]
        B -> 'b' [0.5] | 'a' [0.5]
        B-C -> 'b' [0.3] | \\
            B X [0.7]
        C-D -> 'a' [0.2] | D D [0.8]
        D -> 'b' [1.0]
        D^C-D -> 'a' [1.0]
    """,
}


def annotated_pcfg(path):
    """The same grammar as a PCFG in NLTK's notation, over symbols `SYMBOL^PARENT`."""
    rules = read_rules(path)
    lines, pairs = [f"%start {rules.start}^TOP"], [(rules.start, "TOP")]
    for symbol, parent in pairs:
        sides = []
        for right, p in rules.found(symbol, parent).sides.items():
            items = []
            for item in right:
                if isinstance(item, Nonterminal):
                    pairs += [(str(item), symbol)] * ((str(item), symbol) not in pairs)
                    items.append(f"{item}^{symbol}")
                else:
                    items.append(f'"{item}"' if "'" in item else f"'{item}'")
            sides.append(f"{' '.join(items)} [{p:.20f}]")
        lines.append(f"{symbol}^{parent} -> {' | '.join(sides)}")
    return "\n".join(lines) + "\n"


def write(tmp_path, text, name="toy.ncfg"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)
