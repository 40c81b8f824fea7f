"""Where sentences come from: files of text, trees and tables, public datasets, memory.

A source is read in blocks. A block is plain data that another process can make sentences of.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfnem.errors import UserError
from gfnem.files import (
    READ_ERRORS,
    open_bytes,
    read_lines,
    unreadable,
)
from gfnem.parsing.text.blocks import (
    Block,
    Reading,
    RowBlock,
    TextBlock,
    TreeBlock,
    choose_column,
)
from gfnem.parsing.text.line_reader import ENCODING_HINT, whole_lines
from gfnem.parsing.text.public_datasets import load_public, load_saved, parse_dataset_name
from gfnem.parsing.text.tables import TABLES, columns, rows_of
from gfnem.parsing.trees.treebank import (
    EXTENSIONS,
    file_expressions,
    has_tree_name,
    looks_bracketed,
)

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

#: rows that are read at once
ROWS = 20_000
#: what a file that is neither text nor a table begins with, and what it then is
_MAGIC = {
    b"PK\x03\x04": "a zip archive (as are .docx and .xlsx): unpack it, or save its text",
    b"%PDF": "a PDF file: save its text",
    b"BZh": "compressed with bzip2: decompress it first (gzip is read as it is)",
    b"\xfd7zXZ": "compressed with xz: decompress it first (gzip is read as it is)",
    b"(\xb5/\xfd": "compressed with zstd: decompress it first (gzip is read as it is)",
    b"PAR1": "a Parquet table: name it .parquet and its column, as in table.parquet:text",
    b"ARROW1": "an Arrow table: save it as .parquet and name its column, as in table.parquet:text",
    b"\x93NUMPY": "a NumPy array, where text is wanted",
}


class Source:
    """Something that sentences can be read from.

    Attributes:
        name: for people.
        unit: what it is made of: "lines", "trees", "rows" or "sentences".
        size: how much there is to read; None if that is unknown.
        measure: what `size` and the sizes of blocks count, "bytes" or "rows".
        large: whether reading it takes so long that more processes and a cache pay.
        note: what a person should know of how it is read; "" if nothing.
    """

    name: str
    unit: str
    size: int | None = None
    measure: str = "rows"
    large: bool = False
    note: str = ""

    def blocks(self) -> Iterator[Block]:
        """All of it, in order.

        Raises:
            UserError: if it cannot be read.
        """
        raise NotImplementedError

    def digest(self) -> str | None:
        """A digest of the content; None if there is none that is cheaper than reading."""
        return None


#: bytes of text from which on a source is large, and bytes of trees, which take longer
_LARGE_TEXT, _LARGE_TREES = 8 << 20, 3 << 20
#: rows of a dataset
_LARGE_ROWS = 100_000


class _Files(Source):
    """Some files in a row."""

    measure = "bytes"

    def __init__(self, name: str, files: Sequence[Path], reading: Reading, large: int):
        self.name, self.files, self.reading = name, files, reading
        try:
            self.size = sum(file.stat().st_size for file in files)
            regular = all(file.is_file() for file in files)
        except OSError as error:
            raise unreadable(error.filename or name, error) from error
        self.large = regular and self.size >= large

    def digest(self) -> str:
        """A digest of the content and of what is read of it."""
        digest = hashlib.blake2b(digest_size=20)
        for file in self.files:
            digest.update(f"{file}\0{file.stat().st_size}\0".encode("utf-8", "replace"))
            try:
                with open(file, "rb") as stream:
                    while data := stream.read(1 << 20):
                        digest.update(data)
            except OSError as error:
                raise unreadable(file, error) from error
        return digest.hexdigest()


class TextFiles(_Files):
    """Files of text, one sentence a line."""

    unit = "lines"

    def __init__(self, name: str, files: Sequence[Path], reading: Reading):
        super().__init__(name, files, reading, _LARGE_TEXT)
        for file in files:
            if file.is_file():
                self.note = self.note or self._looked_at(file)

    def _looked_at(self, file: Path) -> str:
        try:
            with open_bytes(file) as stream:
                start = stream.read(20_000)
        except READ_ERRORS as error:
            raise unreadable(file, error) from error
        for magic, what in _MAGIC.items():
            if start.startswith(magic):
                raise UserError(f"{file}: {what}")
        if looks_bracketed(start.decode("utf-8", "ignore")):
            return (
                f"read as text, though {file.name} looks like bracketed trees; to read these, set "
                "the format to trees (--dataset.format trees) or name the file .mrg"
            )
        return ""

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        left = self.reading.limit
        for file in self.files:
            for block in self._of(file):
                if left is not None:
                    newline = "\n" if isinstance(block.data, str) else b"\n"
                    lines = block.data.split(newline, left)
                    if len(lines) > left:
                        yield replace(block, data=newline.join(lines[:left]) + newline)
                        return
                    left -= len(lines) - (not lines[-1])
                yield block
                if left == 0:
                    return

    def _of(self, file: Path) -> Iterator[TextBlock]:
        """Blocks of whole lines."""
        line, empty = 1, True
        with open_bytes(file) as stream:
            raw = stream.fileobj if hasattr(stream, "fileobj") else stream
            place = 0
            for data in whole_lines(stream, file, self.reading.encoding):
                empty = False
                now = raw.tell() if raw.seekable() else 0
                yield TextBlock(str(file), max(now - place, 0), line, data)
                place = now
                line += data.count("\n" if isinstance(data, str) else b"\n")
        if empty:
            raise UserError(f"{file}: the file is empty")


class TreeFiles(_Files):
    """Files of bracketed trees."""

    unit = "trees"

    def __init__(self, name: str, files: Sequence[Path], reading: Reading):
        super().__init__(name, files, reading, _LARGE_TREES)

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        trees = itertools.islice(self._expressions(), self.reading.limit)
        while expressions := list(itertools.islice(trees, 500)):
            size = sum(len(expression) + 1 for _, _, expression in expressions)
            yield TreeBlock(self.name, size, expressions)

    def _expressions(self) -> Iterator[tuple[str, int, str]]:
        for file in self.files:
            for line, text in file_expressions(file, self.reading.encoding, ENCODING_HINT):
                yield str(file), line, text


class TableFiles(_Files):
    """A column of tables."""

    unit = measure = "rows"

    def __init__(self, name: str, files: Sequence[Path], column: str | None, reading: Reading):
        super().__init__(name, files, reading, _LARGE_TEXT)
        self.column, self.size = column, None
        if column is None:
            names = " ".join(columns(files[0], reading.encoding))
            raise UserError(
                f"{name}: a table: name its column, as {name}:COLUMN (there are: {names})"
            )

    def digest(self) -> str:
        """A digest of the content and of what is read of it."""
        return f"{super().digest()}:{self.column}"

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        left = self.reading.limit
        for file in self.files:
            rows = itertools.islice(rows_of(file, self.column, self.reading.encoding), left)
            read = 0
            while values := list(itertools.islice(rows, ROWS)):
                read += len(values)
                yield RowBlock(str(file), len(values), values, "row")
            if left is not None and (left := left - read) <= 0:
                return


class PublicRows(Source):
    """A column of a `datasets.Dataset` or of one that is streamed."""

    unit = "rows"

    def __init__(
        self,
        name: str,
        data: Dataset | IterableDataset,
        column: str | None,
        reading: Reading,
        identity: str | None = None,
    ):
        self.name, self.reading, self.identity = name, reading, identity
        columns = data.column_names
        if columns is None:  # a stream need not know them
            columns = list(next(iter(data), {}))
        if column is None and len(columns) == 1:
            (column,) = columns
        if column is None:
            raise UserError(f"{name}: rows of columns: {choose_column(' '.join(columns))}")
        if column not in columns:
            raise UserError(f"{name}: no column {column!r} (there are: {' '.join(columns)})")
        self.column = column
        self.data = data.select_columns([column]).with_format(None)
        self.stored = hasattr(data, "num_rows")
        if self.stored:
            self.size = min(data.num_rows, reading.limit or data.num_rows)
            self.large = self.size >= _LARGE_ROWS
        else:  # nobody wants to fetch it twice
            self.large = True

    def digest(self) -> str | None:
        """A digest of the content and of what is read of it."""
        if self.stored:
            return f"{self.data._fingerprint}:{self.column}"
        return self.identity and f"{self.identity}:{self.column}"

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        rows = itertools.islice(enumerate(self._values(), start=1), self.reading.limit)
        while values := list(itertools.islice(rows, ROWS if self.stored else 1000)):
            yield RowBlock(self.name, len(values), [*map(self._checked, values)], "row")

    def _values(self) -> Iterator[Any]:
        try:
            for batch in self.data.iter(1000):
                yield from batch[self.column]
        except Exception as error:  # a stream's trouble comes in all sorts
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{self.name}: cannot be read on: {reason}") from error

    def _checked(self, row: tuple[int, Any]) -> tuple[int, Any]:
        number, value = row
        if value is None or isinstance(value, str):
            return row
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return row
        kind = type(value).__name__
        raise UserError(
            f"{self.name}, row {number}: column {self.column!r} holds {kind}, not text or words"
        )


class Memory(Source):
    """Sentences from memory."""

    name, unit = "the sentences given", "sentences"

    def __init__(self, sentences: Iterable, reading: Reading):
        self.sentences, self.reading = sentences, reading

    def blocks(self) -> Iterator[Block]:
        """All of it, in order."""
        numbered = enumerate(self.sentences, start=1)
        rows = itertools.islice(numbered, self.reading.limit)
        while values := list(itertools.islice(rows, ROWS)):
            yield RowBlock(self.name, len(values), values, "number", lines=False)


def open_source(source: Any, reading: Reading) -> Source:
    """Finds out what a source is; see `read_corpus` for what there may be.

    Raises:
        UserError: if there is nothing of that name, or nothing that can be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        if hasattr(source, "select_columns"):
            return PublicRows("the dataset given", source, reading.column, reading)
        return Memory(source, reading)
    name = os.fspath(source)
    if name.startswith("hf:"):
        return _public(name, reading)
    path, column, split = _located(name, reading)
    if path.is_dir():
        return _folder(path, name, column, split, reading)
    lower = path.name.lower().removesuffix(".gz")
    trees = reading.format == "trees" or (
        reading.format == "auto" and has_tree_name(path.name, xml=True)
    )
    if reading.format == "auto" and lower.endswith(".conllu"):
        raise UserError(
            f"{path}: CoNLL-U, which --world dependencies reads; plain text needs another ending"
        )
    if trees or reading.format == "text" or not lower.endswith(TABLES):
        if column is not None:
            what = "trees" if trees else "text"
            raise UserError(f"{path}: {what}, which has no column {column!r}: name the file alone")
        return (TreeFiles if trees else TextFiles)(str(path), [path], reading)
    return TableFiles(str(path), [path], column, reading)


def _located(name: str, reading: Reading) -> tuple[Path, str | None, str | None]:
    """Path, column and split of `PATH[:COLUMN[@SPLIT]]`; a path may hold a colon itself."""
    path, column = Path(name), None
    try:
        there = path.exists()
        if not there:
            before, colon, after = name.rpartition(":")
            if colon and before and after and Path(before).exists():
                path, column, there = Path(before), after, True
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot read ({error})") from error
    if not there:
        raise UserError(f"{name.rpartition(':')[0] if _is_table(name) else name}: no such file")
    split = None
    if column is not None and path.is_dir():
        column, _, split = column.partition("@")
    return path, column or reading.column, split or reading.split


def _is_table(name: str) -> bool:
    before = name.rpartition(":")[0].lower().removesuffix(".gz")
    return before.endswith(TABLES)


def _public(name: str, reading: Reading) -> Source:
    dataset, config, column, split = parse_dataset_name(name, reading.split)
    if os.path.isabs(dataset) or dataset.startswith((".", "~")):
        path = Path(dataset).expanduser()
        if not path.exists():
            raise UserError(f"{name}: no such file or folder: {path}")
        if path.is_file() or _is_saved(path):
            return open_source(
                f"{path}:{column}@{split}" if path.is_dir() else f"{path}:{column}", reading
            )
        dataset = str(path)
    data = load_public(name, dataset, config, split, reading.streaming)
    identity = None
    if reading.streaming:
        version = getattr(getattr(data, "info", None), "version", None)
        identity = f"streamed {dataset} {config} {split} {version} {reading.limit}"
    return PublicRows(name, data, column, reading, identity)


def _is_saved(folder: Path) -> bool:
    """Whether `Dataset.save_to_disk` has made the folder."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _folder(
    path: Path, name: str, column: str | None, split: str | None, reading: Reading
) -> Source:
    if _is_saved(path):
        return PublicRows(name, load_saved(path, split), column, reading)
    files = sorted(
        Path(folder, file)
        for folder, _, names in os.walk(path)
        for file in names
        if not file.startswith(".")
    )
    asked = reading.format == "trees"
    trees = [file for file in files if has_tree_name(file.name, xml=asked)]
    texts = [file for file in files if _ends(file, (".txt",))]
    tables = [file for file in files if _ends(file, TABLES)]
    if reading.format != "text" and trees:
        return TreeFiles(str(path), trees, reading)
    if reading.format != "trees" and texts and column is None:
        return TextFiles(str(path), texts, reading)
    if reading.format == "auto" and tables and column is not None:
        return TableFiles(str(path), tables, column, reading)
    found = ""
    if tables:
        found = f"; tables are read with a column, as {tables[0]}:COLUMN"
    elif files:
        found = f"; {files[0].name} can be named itself"
    wanted = {
        "text": "no .txt file in this folder",
        "trees": f"no tree file in this folder (looked for {' '.join(EXTENSIONS)})",
    }
    missing = wanted.get(
        reading.format,
        f"no tree file in this folder (looked for {' '.join(EXTENSIONS)}), and no .txt file",
    )
    raise UserError(f"{path}: {missing}{found}")


def _ends(file: Path, extensions: tuple[str, ...]) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(extensions)


def lines_of(source: str | os.PathLike, encoding: str = "utf-8") -> Iterator[str] | None:
    """The lines of a plain text file one by one, or None if `source` is anything else."""
    found = open_source(source, Reading(encoding=encoding))
    if isinstance(found, TextFiles) and len(found.files) == 1 and encoding == "utf-8":
        return read_lines(found.files[0], ENCODING_HINT)
    return None
