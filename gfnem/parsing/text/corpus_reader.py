"""Blocks of a source made into sentences, in this process or another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gfnem.files import shown
from gfnem.parsing.text.blocks import Block, Entry
from gfnem.parsing.text.preprocessing import Part, Preprocessing
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
        pauses, spans, trees, sources, lines = [], [], [], [], []
        skipped = dict.fromkeys(REASONS, 0)
        read = removed = 0
        for entry in block.entries(self.preprocessing.punctuation):
            read += 1
            part, reason = self._judged(entry)
            if reason:
                skipped[reason] += 1
                continue
            removed += part.removed
            words += part.tokens
            pauses.append(part.pauses)
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
                    ("pauses", pauses),
                    ("spans", spans),
                    ("tree", trees),
                    ("source", sources),
                    ("line", lines),
                )
            ),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=columns_of).serialize()
        return Made(block.size, batch.to_pybytes(), read, skipped, removed, dict(Counter(words)))

    def _judged(self, entry: Entry) -> tuple[Part, str]:
        """What becomes of an entry, and why it is skipped ("" if not)."""
        longest = self.max_length
        if entry.text is not None and longest is not None:
            if self.preprocessing.longer_than(entry.text, longest):
                return Part([], [], 0, []), "too long"
        part = entry.part(self.preprocessing)
        tokens = len(part.tokens)
        if not tokens:
            return part, "only punctuation" if part.removed else "blank"
        if longest is not None and tokens > longest:
            return part, "too long"
        return part, "too short" if tokens < self.min_length else ""


def schema() -> pa.Schema:
    """The columns of `Corpus.data`."""
    from datasets import Features, Sequence, Value

    return Features(
        tokens=Sequence(Value("string")),
        pauses=Sequence(Value("int32")),
        spans=Sequence(Sequence(Value("int32"))),
        tree=Value("string"),
        source=Value("string"),
        line=Value("int64"),
    ).arrow_schema
