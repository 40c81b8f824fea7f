"""Sentences on disk: an Arrow file that is memory-mapped, kept for the next start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gfnem.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

#: of what is stored; another number, and what is there is made anew
VERSION = 2
_DATA, _WORDS, _FACTS = "sentences.arrow", "words.arrow", "facts.json"
#: seconds after which an unfinished folder is taken for one of a process that was killed
_ABANDONED = 24 * 3600


@dataclass
class Store:
    """Sentences that are there.

    Attributes:
        data: the sentences.
        facts: what was counted while they were read.
        folder: where they are; None for those in memory.
        kept: whether they stay there for the next start.
        counts: how often each token comes, where it is in memory.
        owner: keeps a temporary folder alive.
    """

    data: Dataset
    facts: dict[str, Any]
    folder: Path | None = None
    kept: bool = False
    counts: Counter[str] | None = None
    owner: Any = field(default=None, repr=False)

    def word_counts(self) -> Counter[str]:
        """How often each token comes."""
        if self.counts is not None:
            return Counter(self.counts)
        import pyarrow as pa

        with pa.memory_map(str(self.folder / _WORDS)) as stream:
            table = pa.ipc.open_stream(stream).read_all()
            return Counter(dict(zip(table[0].to_pylist(), table[1].to_pylist(), strict=True)))

    def size(self) -> int:
        """Bytes on disk."""
        return _size(self.folder) if self.folder else 0


def cache_folder(cache: str) -> Path | None:
    """The folder that a cache setting means: "auto", "off" (None) or a path."""
    if cache == "off":
        return None
    if cache != "auto":
        return Path(cache).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "gfnem" / "corpora"


def key_of(*settings: Any) -> str:
    """A name for what some settings make of some content."""
    import nltk

    versions = [VERSION, nltk.__version__, unicodedata.unidata_version]
    plain = json.dumps([versions, *settings], sort_keys=True)
    return hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=16).hexdigest()


def load(cache: Path | None, key: str | None) -> Store | None:
    """What the cache holds under a key, or None; a damaged entry is none."""
    if cache is None or key is None:
        return None
    folder = cache / key
    try:
        facts = json.loads((folder / _FACTS).read_text("utf-8"))
        if facts["version"] != VERSION or any(
            (folder / name).stat().st_size != size for name, size in facts["sizes"].items()
        ):
            return None
        with contextlib.suppress(OSError):  # tells which entries are used
            os.utime(folder)
        return Store(_mapped(folder), facts, folder, kept=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Writer:
    """Writes sentences to disk, a batch at a time; nothing is to be seen of them until the end.

    Args:
        cache: the folder to keep them in; None, or one that cannot be written to, for a temporary
            one that goes when the process ends.
        key: their name in it.
        schema: of the batches.
    """

    def __init__(self, cache: Path | None, key: str | None, schema: pa.Schema):
        import pyarrow as pa

        self.key, self.owner, self.kept = key, None, False
        if cache is not None and key is not None:
            with contextlib.suppress(OSError):
                cache.mkdir(parents=True, exist_ok=True)
                _sweep(cache)
                self.folder = cache / f".{key}.{secrets.token_hex(6)}.tmp"
                self.folder.mkdir()
                self.kept = True
        if not self.kept:
            self.owner = tempfile.TemporaryDirectory(prefix="gfnem-", ignore_cleanup_errors=True)
            self.folder = Path(self.owner.name)
        with _one_line(self.folder):
            self._stream = pa.OSFile(str(self.folder / _DATA), "wb")
            self._writer = pa.ipc.new_stream(self._stream, schema)

    def add(self, batch: pa.RecordBatch) -> None:
        """Appends a batch."""
        with _one_line(self.folder):
            self._writer.write_batch(batch)

    def finish(self, facts: dict[str, Any], counts: Counter[str]) -> Store:
        """Puts all in its place. Where another process was faster, what it made is used."""
        import pyarrow as pa

        with _one_line(self.folder):
            self._close()
            words = pa.table([list(counts), list(counts.values())], names=["word", "count"])
            with pa.OSFile(str(self.folder / _WORDS), "wb") as stream:
                with pa.ipc.new_stream(stream, words.schema) as writer:
                    writer.write_table(words)
            del words
            sizes = {name: (self.folder / name).stat().st_size for name in (_DATA, _WORDS)}
            facts = {**facts, "version": VERSION, "sizes": sizes}
            (self.folder / _FACTS).write_text(json.dumps(facts), "utf-8")
            for name in (_DATA, _WORDS, _FACTS):
                with open(self.folder / name, "rb+") as stream:
                    os.fsync(stream.fileno())
        if not self.kept:
            return Store(_mapped(self.folder), facts, self.folder, owner=self.owner)
        cache = self.folder.parent
        place = cache / self.key
        with _one_line(place):
            try:
                os.rename(self.folder, place)
            except OSError:
                if (other := load(cache, self.key)) is not None:
                    shutil.rmtree(self.folder, ignore_errors=True)
                    return other
                # damaged, or of another version
                os.rename(place, self.folder / "old")
                os.rename(self.folder, place)
                shutil.rmtree(place / "old", ignore_errors=True)
        return Store(_mapped(place), facts, place, kept=True)

    def _close(self) -> None:
        self._writer.close()
        self._stream.close()

    def discard(self) -> None:
        """Takes back what has been written."""
        with contextlib.suppress(Exception):
            self._close()
        shutil.rmtree(self.folder, ignore_errors=True)


def cache_size(store: Store) -> int:
    """Bytes of everything in the cache that `store` lies in."""
    return _size(store.folder.parent)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process may be tidying up
            total += path.stat().st_size
    return total


def _mapped(folder: Path) -> Dataset:
    from datasets import Dataset

    # the fingerprint spares a look at the content
    data = Dataset.from_file(str(folder / _DATA))
    data._fingerprint = folder.name.strip(".")
    return data


def _sweep(cache: Path) -> None:
    """Removes what killed processes have left."""
    for path in cache.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the sentences that were read ({error.strerror or error}); "
            "another place for them is named with the cache setting (--dataset.cache FOLDER)"
        ) from error
