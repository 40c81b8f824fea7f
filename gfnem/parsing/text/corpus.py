"""Sentences from text files, treebanks, tables, public datasets or memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from gfnem.errors import UserError
from gfnem.parsing.text.blocks import Reading
from gfnem.parsing.text.corpus_cache import (
    Store,
    Writer,
    cache_folder,
    cache_size,
    key_of,
    load,
)
from gfnem.parsing.text.corpus_reader import REASONS, BlockReader, schema
from gfnem.parsing.text.input_lines import Line, read_sentences
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.text.public_datasets import parse_dataset_name
from gfnem.parsing.text.reading_progress import ReadingProgress
from gfnem.parsing.text.sources import Source, open_source
from gfnem.parsing.text.workers import cores, in_processes
from gfnem.parsing.trees.labels import LabelledSpans, labelled_spans
from gfnem.parsing.trees.treebank import parse_tree

if TYPE_CHECKING:  # they take a second to import, which `--help` should not
    import pyarrow as pa
    from datasets import Dataset

__all__ = [
    "Corpus",
    "Line",
    "Preprocessing",
    "parse_dataset_name",
    "read_corpus",
    "read_sentences",
]


@dataclass
class Corpus:
    """Sentences of the wanted lengths, and what became of the others.

    Attributes:
        data: a `datasets.Dataset`, one sentence a row: `tokens` (list of strings, normalised),
            `pauses` (behind how many tokens the text pauses, see `preprocessing.Part`), `spans`
            (list of half-open `[left, right]` in tokens, sorted, or None where there is no gold
            tree), `tree` (the gold tree over the unnormalised words in brackets, or None),
            `source` (string) and `line` (line or row of the source, from 1). That of a large
            source is memory-mapped.
        source: where it all came from.
        unit: what was counted: "lines", "trees", "rows" or "sentences".
        read: how many of them there were.
        skipped: how many were left out as "blank", "only punctuation", "too long", "too short".
        preprocessing: how the text was treated.
        min_length, max_length: the lengths wanted, in tokens; None is no limit.
        removed: how many words of the sentences kept were removed as punctuation.
        note: what a person should know of how the source was read.
        store: where the sentences are kept.
    """

    data: Dataset
    source: str
    unit: str
    read: int
    skipped: dict[str, int]
    preprocessing: Preprocessing
    min_length: int
    max_length: int | None
    removed: int = 0
    note: str = ""
    store: Store | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def tokens(self) -> list[list[str]]:
        """The tokens of every sentence, all in memory; see `rows` for some of them."""
        return self.data["tokens"][:]

    @cached_property
    def pauses(self) -> list[list[int]]:
        """Behind how many of its tokens each sentence pauses, at punctuation that was removed."""
        return self.data["pauses"][:]

    @cached_property
    def spans(self) -> list[set[tuple[int, int]] | None]:
        """The gold spans of every sentence, or None for one without a gold tree."""
        return [
            None if spans is None else {(left, right) for left, right in spans}
            for spans in self.data["spans"][:]
        ]

    @cached_property
    def labels(self) -> list[LabelledSpans | None]:
        """The labels of every sentence's gold spans, or None for one without a gold tree."""
        return [
            None if tree is None else labelled_spans(parse_tree(tree))
            for tree in self.data["tree"][:]
        ]

    @cached_property
    def lengths(self) -> np.ndarray:
        """`(sentences,)` int64 tokens of each sentence."""
        import pyarrow.compute as pc

        chunks = [pc.list_value_length(chunk).to_numpy() for chunk in self._chunks]
        return np.concatenate(chunks).astype(np.int64)

    def rows(self, indices: Sequence[int] | np.ndarray) -> list[list[str]]:
        """The tokens of some sentences, read from where they are."""
        indices = np.asarray(indices, dtype=np.int64)
        chunks = np.searchsorted(self._starts, indices, "right") - 1
        rows = indices - self._starts[chunks]
        return [
            self._chunks[chunk][row].as_py()
            for chunk, row in zip(chunks.tolist(), rows.tolist(), strict=True)
        ]

    def places(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Where the sentences stand: names of sources, `(sentences,)` which of these, and lines."""
        import pyarrow as pa

        columns = self.data.data.select(["source", "line"])
        sources = columns.column("source").combine_chunks()
        if isinstance(sources, pa.ChunkedArray):
            sources = sources.chunk(0)
        sources = sources.dictionary_encode()
        lines = columns.column("line").to_numpy()
        return sources.dictionary.to_pylist(), sources.indices.to_numpy(), lines

    def word_counts(self) -> Counter[str]:
        """How often each token comes."""
        if self.store is not None:
            return self.store.word_counts()
        return Counter(token for tokens in self.tokens for token in tokens)

    def digest(self, indices: np.ndarray | None = None) -> str:
        """A digest of the tokens of all sentences, or of those at rising `indices`, in order."""
        parts = [hashlib.blake2b(digest_size=20) for _ in range(3)]
        for chunk, start in zip(self._chunks, self._starts, strict=True):
            if indices is not None:
                first, last = np.searchsorted(indices, [start, start + len(chunk)])
                if last - first < len(chunk):
                    chunk = chunk.take(indices[first:last] - start)
            if not len(chunk):
                continue
            words = chunk.flatten()
            _, ends, letters = words.buffers()
            ends = np.frombuffer(ends, np.int32)[words.offset : words.offset + len(words) + 1]
            parts[0].update(memoryview(letters)[ends[0] : ends[-1]])
            parts[1].update(np.diff(ends).tobytes())
            parts[2].update(np.asarray(chunk.value_lengths(), dtype=np.int32).tobytes())
        return hashlib.blake2b(b"".join(p.digest() for p in parts), digest_size=20).hexdigest()

    def summary(self) -> str:
        """For people: what was read, kept and skipped, and where it is kept."""
        lengths = self.lengths
        kept = f"{len(self):,} sentence{'s' * (len(self) != 1)} kept"
        line = f"{self.read:,} {self.unit}: {kept} ({lengths.min()}-{lengths.max()} tokens)"
        if reasons := _reasons(self.skipped, self.unit, self.min_length, self.max_length):
            line += f"; skipped {reasons}"
        if self.removed:
            line += f"; {self.removed:,} words removed as punctuation"
        if self.note:
            line += f"\n{self.note}"
        if self.store is not None and self.store.kept:
            size, total = self.store.size() / 1e6, cache_size(self.store) / 1e6
            line += (
                f"\nkept for the next start in {self.store.folder} ({size:,.0f} MB, and "
                f"{total:,.0f} MB in all there; --dataset.cache names another place, or off)"
            )
        return line

    @cached_property
    def _chunks(self) -> list[pa.ListArray]:
        return [chunk for chunk in self.data.data.column("tokens").chunks if len(chunk)]

    @cached_property
    def _starts(self) -> np.ndarray:
        """The row that each chunk begins with."""
        return np.cumsum([0, *map(len, self._chunks)])[:-1]


def read_corpus(
    source: Any,
    *,
    tokenizer: str = "word",
    lower: bool = True,
    digits: bool = True,
    punctuation: bool = False,
    min_length: int = 2,
    max_length: int | None = 20,
    split: str | None = None,
    column: str | None = None,
    format: str = "auto",
    encoding: str = "utf-8",
    limit: int | None = None,
    streaming: bool = False,
    processes: int | None = None,
    cache: str = "auto",
) -> Corpus:
    """Reads sentences from wherever they are. Nothing is written beside the user's files.

    A large source (8 MB of text, 3 MB of trees, 100,000 rows, any stream) is read by several
    processes into an Arrow file in the cache, under a key made of its name, its content and these
    settings; a second start finds it there. What is streamed is read through once, so that nothing
    but its sentences is stored, and its key is made of its name and version alone: to read it anew,
    remove it from the cache.

    Args:
        source: one of

            - a text file, one sentence a line;
            - a file of bracketed trees, by its extension `.mrg .ptb .tree .psd` or because `format`
              says so, or a folder with such files (punctuation is that of `treebank.CONVENTION`);
            - a folder of `.txt` files;
            - a column of a table: `FILE.csv:COLUMN`, likewise `.tsv .jsonl .json .parquet`;
            - any of these files compressed, with `.gz` after its name;
            - a column of a dataset that `save_to_disk` has written: `FOLDER:COLUMN`, and after it
              `@SPLIT` if it has splits;
            - a column of a public dataset: `hf:NAME:COLUMN`, `hf:OWNER/NAME:COLUMN` or
              `hf:OWNER/NAME/CONFIG:COLUMN`, and after it `@SPLIT` if wanted
              (`hf:owner/news:text@train[:5000]`); for NAME there may be an absolute path. A row
              holds a text (its lines are sentences) or a list of tokens;
            - a `datasets.Dataset` or `IterableDataset`, with `column`;
            - an iterable of token lists, of texts, or of `nltk.Tree`s taken as they are.
        tokenizer, lower, digits, punctuation: see `Preprocessing`.
        min_length, max_length: tokens (punctuation not counted unless kept) a sentence may have;
            `max_length=None` is no limit. Others are skipped and counted.
        split, column, format, encoding, limit, streaming: see `text_sources.Reading`.
        processes: that read a large source; as many as there are cores if None.
        cache: folder of what has been read from large sources; "auto" is `gfnem/corpora` in
            `$XDG_CACHE_HOME` (`~/.cache`), "off" a temporary folder.

    Raises:
        UserError: if the source cannot be read (naming file and line), or no sentence is left.
    """
    reading = Reading(format, encoding, column, split, limit, streaming)
    preprocessing = Preprocessing(tokenizer, lower, digits, punctuation)
    if min_length < 1 or (max_length is not None and max_length < min_length):
        raise UserError(f"lengths from {min_length} to {max_length} tokens: no sentence has one")
    if processes is not None and processes < 1:
        raise UserError(f"processes {processes}: at least 1 is needed")
    found = open_source(source, reading)
    reader = BlockReader(preprocessing, min_length, max_length)
    if not found.large:
        store = _read(found, reader, 1, None)
    else:
        place, key = cache_folder(cache), None
        if place is not None and (digest := found.digest()):
            settings = asdict(preprocessing), min_length, max_length, asdict(reading)
            key = key_of(found.name, found.unit, digest, settings)
        store = load(place, key)
        if store is None:
            writer = Writer(place, key, schema())
            try:
                store = _read(found, reader, processes or cores(), writer)
            except BaseException:
                writer.discard()
                raise
    facts = store.facts
    return Corpus(
        store.data,
        found.name,
        found.unit,
        facts["read"],
        facts["skipped"],
        preprocessing,
        min_length,
        max_length,
        facts["removed"],
        found.note,
        store,
    )


def _read(source: Source, reader: BlockReader, processes: int, writer: Writer | None) -> Store:
    """Reads all of a source, into memory or by a writer."""
    import pyarrow as pa

    counts: Counter[str] = Counter()
    facts: dict[str, Any] = {"read": 0, "skipped": dict.fromkeys(REASONS, 0), "removed": 0}
    batches, kept = [], 0
    with ReadingProgress(source.name, source.size, source.measure) as progress:
        for made in in_processes(reader, source.blocks(), processes):
            facts["read"] += made.read
            facts["removed"] += made.removed
            for reason, number in made.skipped.items():
                facts["skipped"][reason] += number
            counts.update(made.counts)
            batch = pa.ipc.read_record_batch(pa.py_buffer(made.batch), schema())
            kept += batch.num_rows
            if batch.num_rows:
                writer.add(batch) if writer is not None else batches.append(batch)
            progress.add(made.size, kept)
    if not kept:
        reasons = _reasons(facts["skipped"], source.unit, reader.min_length, reader.max_length)
        raise UserError(
            f"{source.name}: no sentence left of {facts['read']:,} {source.unit}; skipped "
            f"{reasons or 'none'}"
        )
    if writer is not None:
        return writer.finish(facts, counts)
    from datasets import Dataset

    return Store(Dataset(pa.Table.from_batches(batches)), facts, counts=counts)


def _reasons(skipped: dict[str, int], unit: str, min_length: int, max_length: int | None) -> str:
    names = {
        "blank": "empty" if unit == "trees" else "blank",
        "too long": f"longer than {max_length}",
        "too short": f"shorter than {min_length}",
    }
    return ", ".join(f"{n:,} {names.get(why, why)}" for why, n in skipped.items() if n)
