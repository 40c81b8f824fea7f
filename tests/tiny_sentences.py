"""A grammar of three words, and sentences of it."""

#: an ambiguous one, with sentences of two words and more
GRAMMAR = """
S -> A B [0.5]
S -> A S [0.2]
S -> S B [0.1]
S -> X Y [0.2]
X -> A A [0.6]
X -> B A [0.4]
Y -> B C [0.7]
Y -> C S [0.3]
A -> 'a' [0.7]
A -> 'c' [0.3]
B -> 'b' [0.8]
B -> 'c' [0.2]
C -> 'c' [0.6]
C -> 'a' [0.4]
"""
SENTENCES = [[1, 2], [3, 1, 2], [1, 1, 2, 2], [2, 3, 3, 1, 2]]
