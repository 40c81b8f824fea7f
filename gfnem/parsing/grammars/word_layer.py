"""Scores of words that know how words are written, or vectors that others have trained."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, linear

from gfnem.errors import UserError
from gfnem.files import read_lines
from gfnem.parsing.text.characters import UNKNOWN
from gfnem.parsing.text.unknown_words import CLASS

#: a part of words is a feature if so many words of the vocabulary have it
SHARED = 3
#: the longest beginnings and ends of words that are features, in characters
BEGINNING, END = 3, 4


def word_features(word: str) -> list[str]:
    """What a word looks like: its beginnings, its ends, and what kinds of characters it has.

    The ends alone tell apart much of what parts of speech do in many languages. A word is not its
    own beginning or end. Unknown words have nothing in common but their class.
    """
    if word == UNKNOWN or word.startswith(CLASS):
        return [word]
    size = len(word)
    parts = [f"{word[:n].lower()}-" for n in range(1, min(BEGINNING, size - 1) + 1)]
    parts += [f"-{word[-n:].lower()}" for n in range(1, min(END, size - 1) + 1)]
    kinds = {
        "digit": any(c.isdigit() for c in word),
        "number": word.replace(",", "").replace(".", "").isdigit(),
        "capital": word[:1].isupper(),
        "capitals": size > 1 and word.isupper(),
        "mark inside": any(not c.isalnum() for c in word[1:-1]),
        "no letter": not any(c.isalpha() for c in word),
    }
    return [*parts, *(kind for kind, has in kinds.items() if has), f"{min(size, 12)} characters"]


class WordLayer(nn.Linear):
    """Scores of words for hidden vectors, as `nn.Linear`; a word's weights know more of the word.

    A word's weight vector is one of its own, plus one of each of its `word_features` where `forms`,
    plus a projection of its pretrained vector where there are `vectors`. A rare word then has the
    scores of words that look like it.

    Args:
        dim: size of hidden vectors.
        vocab_size: words, the unknown word (index 0) included.
        vocabulary: the word at each index; needed for `forms` and `vectors`.
        forms: whether scores see how words are written.
        vectors: a text file, a word and its numbers in each line, as word2vec and GloVe have it; a
            first line of two numbers is passed over. Words are looked for as they are, then in
            lower case; those absent have none. None: no vectors.

    Raises:
        ValueError: if `forms` or `vectors` are asked for without a vocabulary.
        UserError: if the file cannot be read, a line has other numbers than the first, or it has
            none of the words.
    """

    def __init__(
        self,
        dim: int,
        vocab_size: int,
        vocabulary: Sequence[str] | None = None,
        forms: bool = False,
        vectors: str | None = None,
    ):
        super().__init__(dim, vocab_size)
        self.parts: nn.Parameter | None = None
        self.projection: nn.Linear | None = None
        if (forms or vectors) and vocabulary is None:
            raise ValueError("word forms and pretrained vectors need the vocabulary")
        if forms:
            found = [word_features(word) for word in vocabulary]
            counts = Counter(feature for features in found for feature in features)
            kept = sorted(feature for feature, count in counts.items() if count >= SHARED)
            number = {feature: at for at, feature in enumerate(kept)}
            rows = [[number[f] for f in features if f in number] for features in found]
            starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
            flat = torch.tensor([at for row in rows for at in row], dtype=torch.long)
            self.register_buffer("features", flat, persistent=False)
            self.register_buffer("starts", starts, persistent=False)
            self.parts = nn.Parameter(torch.zeros(len(kept), dim))
        if vectors is not None:
            self.register_buffer("vectors", read_vectors(vectors, vocabulary), persistent=False)
            self.projection = nn.Linear(self.vectors.shape[1], dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """`(..., vocab_size)` scores of `(..., dim)` hidden vectors."""
        weight = self.weight
        if self.parts is not None:
            weight = weight + embedding_bag(self.features, self.parts, self.starts, mode="sum")
        if self.projection is not None:
            weight = weight + self.projection(self.vectors)
        return linear(hidden, weight, self.bias)


def read_vectors(path: str | os.PathLike, vocabulary: Sequence[str]) -> Tensor:
    """`(words, size)` pretrained vectors of a vocabulary's words, each over the mean length.

    0 for words that the file does not have. See `WordLayer` for the file and for what raises.
    """
    wanted = {word: [at] for at, word in enumerate(vocabulary)}
    for at, word in enumerate(vocabulary):
        if word.lower() != word:
            wanted.setdefault(word.lower(), []).append(at)
    found: dict[int, list[float]] = {}
    exact: set[int] = set()
    size = None
    for number, line in enumerate(read_lines(path), start=1):
        word, *values = line.rstrip().split(" ")
        if number == 1 and len(values) == 1:
            continue
        size = len(values) if size is None else size
        if len(values) != size or not values:
            raise UserError(
                f"{path}, line {number}: a word and {size or 'some'} numbers are wanted, as in "
                f"the lines before, not {len(values)}"
            )
        rows = [at for at in wanted.get(word, ()) if at not in exact]
        if not rows:
            continue
        try:
            numbers = [float(value) for value in values]
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if not all(math.isfinite(value) for value in numbers):
            raise UserError(f"{path}, line {number}: a number of {word} is not finite")
        found |= dict.fromkeys(rows, numbers)
        exact |= {at for at in rows if vocabulary[at] == word}
    if not found:
        raise UserError(f"{path}: none of the {len(vocabulary):,} words of the text has a vector")
    table = torch.zeros(len(vocabulary), size or 1)
    table[list(found)] = torch.tensor(list(found.values()))
    length = table.norm(dim=1)
    return table / length[length > 0].mean()
