"""Blocks of a source made into sentences, in this process or another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gfnem.files import shown
from gfnem.parsing.text.blocks import Block, Entry
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.trees.drawing import bracket

if TYPE_CHECKING:  # it takes a second to import, which `--help` should not
    import pyarrow as pa

REASONS = ("blank", "only punctuation", "too long", "too short")


@dataclass
class Made:
    """What has become of a block: plain data, so that it can come from another process."""

    size: int
    batch: bytes
    read: int
    skipped: dict[str, int]
    removed: int
    counts: dict[str, int]


@dataclass
class BlockReader:
    """Makes sentences of blocks."""

    preprocessing: Preprocessing
    min_length: int
    max_length: int | None

    def __call__(self, block: Block) -> Made:
        """The sentences of a block, and what became of the rest of it."""
        import pyarrow as pa

        ends, words = [0], []
        spans, trees, sources, lines = [], [], [], []
        skipped = dict.fromkeys(REASONS, 0)
        read = removed = 0
        for entry in block.entries(self.preprocessing.punctuation):
            read += 1
            tokens, gone, reason = self._tokens(entry)
            if reason:
                skipped[reason] += 1
                continue
            removed += gone
            words += tokens
            ends.append(len(words))
            spans.append(entry.spans)
            trees.append(None if entry.tree is None else bracket(entry.tree))
            sources.append(shown(entry.source))
            lines.append(entry.line)
        columns_of = schema()
        columns = [
            pa.ListArray.from_arrays(
                pa.array(ends, pa.int32()),
                pa.array(words, pa.string()),
                type=columns_of.field("tokens").type,
            ),
            *(
                pa.array(values, columns_of.field(name).type)
                for name, values in (
                    ("spans", spans),
                    ("tree", trees),
                    ("source", sources),
                    ("line", lines),
                )
            ),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=columns_of).serialize()
        return Made(block.size, batch.to_pybytes(), read, skipped, removed, dict(Counter(words)))

    def _tokens(self, entry: Entry) -> tuple[list[str], int, str]:
        """The tokens of an entry, how many words went, and why it is skipped ("" if not)."""
        preprocessing, longest = self.preprocessing, self.max_length
        if entry.text is not None:
            text = entry.text
            if longest is not None and preprocessing.longer_than(text, longest):
                return [], 0, "too long"
            tokens, removed = preprocessing.tokens(text)
            if not (tokens or removed):
                return [], 0, "blank"
        elif entry.spans is not None:  # punctuation has gone from the tree already
            tokens, removed = preprocessing.normalise(entry.words), entry.removed
            if not (tokens or removed):
                return [], 0, "blank"
        else:
            if not entry.words:
                return [], 0, "blank"
            tokens, removed = preprocessing.cut_already(entry.words)
        if not tokens:
            return [], 0, "only punctuation"
        if longest is not None and len(tokens) > longest:
            return [], 0, "too long"
        if len(tokens) < self.min_length:
            return [], 0, "too short"
        return tokens, removed, ""


def schema() -> pa.Schema:
    """The columns of `Corpus.data`."""
    from datasets import Features, Sequence, Value

    return Features(
        tokens=Sequence(Value("string")),
        spans=Sequence(Sequence(Value("int32"))),
        tree=Value("string"),
        source=Value("string"),
        line=Value("int64"),
    ).arrow_schema
