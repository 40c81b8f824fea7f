"""Which document each sentence of a corpus stands in."""

from __future__ import annotations

import numpy as np

from gfnem.parsing.text.corpus import Corpus
from gfnem.parsing.text.fingerprints import fingerprint

#: sentences of a document, where nothing says where documents end
BLOCK = 100
#: with fewer sentences to a blank line these do not divide documents
_LEAST = 3


class Documents:
    """Documents are files, if there are several; else rows of a table with several sentences each;
    else what stands between blank lines; else blocks of `BLOCK` lines.

    They are told apart by their numbers in the order of the text, whatever path it is read by: a
    checkpoint counts them, and may be used from another folder.

    Args:
        corpus: all sentences of a source, of whatever length.
        first: number of the first document; those of other sources come before it.

    Attributes:
        how: in words.
        count: how many there are.
    """

    def __init__(self, corpus: Corpus, first: int = 0):
        names, _, lines = corpus.places()
        self.first = first
        self._names = {name: number for number, name in enumerate(names)}
        self._starts: np.ndarray | None = None  # first lines of documents, if not by file
        if len(names) > 1:
            self.how, self.count = "files", len(names)
            return
        different = np.unique(lines)
        behind_blank = np.flatnonzero(np.diff(lines, prepend=-1) > 1)
        if len(lines) >= _LEAST * len(different):
            self.how, self._starts = "rows", different
        elif len(behind_blank) > 1 and len(lines) >= _LEAST * len(behind_blank):
            self.how, self._starts = "parts between blank lines", lines[behind_blank]
        else:
            self.how, self._starts = f"blocks of {BLOCK} lines", lines[::BLOCK]
        self.count = len(self._starts)

    def of(self, corpus: Corpus) -> np.ndarray:
        """`(sentences,)` int64 fingerprints; 0 for sentences of another source."""
        names, which, lines = corpus.places()
        numbers = np.array([self._names.get(name, -1) for name in names], dtype=np.int64)[which]
        if self._starts is not None:
            part = np.searchsorted(self._starts, lines, "right")
            numbers = np.where(numbers < 0, -1, part)
        keys = [fingerprint(f"document {self.first + k}") for k in range(self.count + 1)]
        return np.array([*keys, 0], dtype=np.int64)[numbers]  # the last one is that of number -1
