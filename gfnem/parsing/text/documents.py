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

    Args:
        corpus: all sentences of a source, of whatever length.

    Attributes:
        how: in words.
        count: how many there are.
    """

    def __init__(self, corpus: Corpus):
        names, _, lines = corpus.places()
        self._names = set(names)
        self._starts: np.ndarray | None = None  # first lines of documents, if not by file
        if len(names) > 1:
            self.how, self.count = "files", len(names)
            return
        different = np.unique(lines)
        first = np.flatnonzero(np.diff(lines, prepend=-1) > 1)
        if len(lines) >= _LEAST * len(different):
            self.how, self._starts = "rows", different
        elif len(first) > 1 and len(lines) >= _LEAST * len(first):
            self.how, self._starts = "parts between blank lines", lines[first]
        else:
            self.how, self._starts = f"blocks of {BLOCK} lines", lines[::BLOCK]
        self.count = len(self._starts)

    def of(self, corpus: Corpus) -> np.ndarray:
        """`(sentences,)` int64 fingerprints; 0 for sentences of another source."""
        names, which, lines = corpus.places()
        files = [fingerprint(name) if name in self._names else 0 for name in names]
        found = np.array(files, dtype=np.int64)[which]
        if self._starts is None:
            return found
        part = np.searchsorted(self._starts, lines, "right")
        keys = [fingerprint(f"{number} of {names[0]}") for number in range(len(self._starts) + 1)]
        return np.where(found == 0, 0, np.array(keys, dtype=np.int64)[part])
