"""What worlds of text have in common: how sentences are read and shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gfnem.errors import UserError
from gfnem.world import Observed, World

#: sentences of a batch
BATCH = 32
#: why a line has no tree that has no word
NO_WORD = "no word in it"


@dataclass
class ObservedText(Observed):
    """Sentences, with the words that trees are printed over.

    Attributes:
        words: of each sentence.
    """

    words: list[list[str]]


class WorldOfSentences(World):
    """A world of sentences and, where a subclass says nothing else, their labelled trees."""

    data = (
        "a text file with one sentence a line, a file or folder of bracketed trees (.mrg .ptb "
        ".tree .psd), a folder of .txt files, a column of a table as FILE.csv:COLUMN, or "
        "hf:NAME[/CONFIG]:COLUMN"
    )
    told = frozenset({"vocab_size", "vocabulary", "shortest"})

    def read(self, run: Any, source: Any) -> Iterator[ObservedText]:
        """Sentences of a file (`-` is standard input), a sentence, or a list of sentences.

        Why a line has no tree is said with it, and of a file's lines that are not blank on standard
        error too.
        """
        from gfnem.parsing.grammars.support import derivable, why_not_derivable
        from gfnem.parsing.reader import Reader
        from gfnem.parsing.text.corpus import read_sentences

        reader, name = Reader(run), "standard input"
        if isinstance(source, Path):
            text = sys.stdin.buffer if str(source) == "-" else source
        else:
            sentences = [source] if isinstance(source, str) else list(source)
            if not all(isinstance(sentence, str) for sentence in sentences):
                raise UserError("a sentence is a string, as in infer('the old man saw a bird')")
            text, name = [f"{' '.join(each.split())}\n" for each in sentences], "sentences"
        lines = read_sentences(text, reader.preprocessing, name)
        while batch := list(islice(lines, BATCH)):
            why = ["" if line.tokens else NO_WORD for line in batch]
            if some := [row for row, line in enumerate(batch) if line.tokens]:
                x = reader.encode([batch[row].tokens for row in some])
                for row, possible in zip(some, derivable(run, x).tolist(), strict=True):
                    if not possible:
                        why[row] = why_not_derivable(run, len(batch[row].tokens))
            without: dict[int, tuple[str, str]] = {}
            for row, (line, cause) in enumerate(zip(batch, why, strict=True)):
                if cause:
                    without[row] = line.text.strip(), cause
                    if line.text.strip() and isinstance(source, Path):
                        print(f"gfnem: line {line.number}: {cause}", file=sys.stderr)
            kept = [line for line, cause in zip(batch, why, strict=True) if not cause]
            x = reader.encode([line.tokens for line in kept]) if kept else None
            shown, words = [line.text.strip() for line in kept], [line.words for line in kept]
            yield ObservedText(x, shown, words, without=without)

    def observed(self, run: Any, x: Any) -> ObservedText:
        """Sentences that a model has drawn."""
        from gfnem.parsing.reader import Reader

        vocabulary = Reader(run).vocabulary
        words = [
            vocabulary.decode(tokens[:length])
            for tokens, length in zip(x.tokens.tolist(), x.lengths.tolist(), strict=True)
        ]
        shown = [" ".join(sentence) for sentence in words]
        return ObservedText(x, shown, words)

    def latents(self, run: Any, observed: ObservedText, z: Any) -> list[list[str]]:
        """Trees in brackets."""
        from gfnem.parsing.parser import label_names
        from gfnem.parsing.trees.drawing import brackets

        return brackets(z, observed.words, label_names(run))
