"""Sentences from text files, treebanks, public datasets or memory, ready for a vocabulary."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nltk import Tree

from gfnem.errors import UserError
from gfnem.files import decode_lines, read_lines, read_text
from gfnem.parsing.drawing import bracket
from gfnem.parsing.treebank import EXTENSIONS, is_bracketed, read_treebank, tree_spans
from gfnem.parsing.vocabulary import UNKNOWN

if TYPE_CHECKING:  # it takes a second to import, which `--help` should not
    from datasets import Dataset

_DIGITS = re.compile(r"\d+")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
TOKENIZERS = ("word", "space")


@dataclass(frozen=True)
class Preprocessing:
    """How text becomes tokens; plain settings that belong in a checkpoint.

    Attributes:
        tokenizer: `"word"` (NLTK's `NLTKWordTokenizer`, Penn Treebank style) or `"space"` (the
            text is tokenised already).
        lower: fold to lower case.
        digits: write each run of digits as `0`.
        punctuation: keep tokens without a letter or digit. (In a treebank the tags decide what is
            punctuation, see `treebank.CONVENTION`.)

    Raises:
        UserError: for another tokenizer.
    """

    tokenizer: str = "word"
    lower: bool = True
    digits: bool = True
    punctuation: bool = False

    def __post_init__(self):
        if self.tokenizer not in TOKENIZERS:
            raise UserError(f"tokenizer {self.tokenizer!r}: choose one of {', '.join(TOKENIZERS)}")

    def words(self, text: str) -> list[str]:
        """Cuts one sentence into its words as spelt, punctuation removed unless kept."""
        if self.tokenizer == "space":
            words = text.split()
        elif UNKNOWN in text:  # the tokenizer would take it apart
            words = []
            for number, part in enumerate(text.split(UNKNOWN)):
                words += [UNKNOWN] * (number > 0) + self._tokenize(part)
        else:
            words = self._tokenize(text)
        return self.without_punctuation(words)

    def without_punctuation(self, words: Sequence[str]) -> list[str]:
        """The words with a letter or digit in them, or all if punctuation is kept."""
        if self.punctuation:
            return list(words)
        return [word for word in words if _LETTER_OR_DIGIT.search(word)]

    def normalise(self, words: Iterable[str]) -> list[str]:
        """Folds case and digits, word by word."""
        if self.lower:
            words = (word.lower() for word in words)
        if self.digits:
            words = (_DIGITS.sub("0", word) for word in words)
        return list(words)

    def longer_than(self, text: str, length: int) -> bool:
        """Whether a text surely has more than `length` tokens, told without tokenising it.

        Both tokenizers cut at white space at least, so each piece gives a token or more.
        """
        pieces = text.split()
        return len(pieces) > length and len(self.without_punctuation(pieces)) > length

    @cached_property
    def _tokenize(self):
        from nltk.tokenize import NLTKWordTokenizer

        return NLTKWordTokenizer().tokenize


@dataclass
class Corpus:
    """Sentences of the wanted lengths, and what became of the others.

    Attributes:
        data: a `datasets.Dataset`, one sentence a row: `tokens` (list of strings, normalised),
            `spans` (list of half-open `[left, right]` in tokens, sorted, or None where there is no
            gold tree), `tree` (the gold tree over the unnormalised words in brackets, or None),
            `source` (string) and `line` (line or row of the source, from 1).
        source: where it all came from.
        unit: what was counted: "lines", "trees", "rows" or "sentences".
        read: how many of them there were.
        skipped: how many were left out as "blank", "only punctuation", "too long", "too short".
        preprocessing: how the text was treated.
        min_length, max_length: the lengths wanted, in tokens; None is no limit.
    """

    data: Dataset
    source: str
    unit: str
    read: int
    skipped: dict[str, int]
    preprocessing: Preprocessing
    min_length: int
    max_length: int | None

    def __len__(self) -> int:
        return len(self.data)

    @cached_property
    def tokens(self) -> list[list[str]]:
        """The tokens of every sentence."""
        return self.data["tokens"][:]

    @cached_property
    def spans(self) -> list[set[tuple[int, int]] | None]:
        """The gold spans of every sentence, or None for one without a gold tree."""
        return [
            None if spans is None else {(left, right) for left, right in spans}
            for spans in self.data["spans"][:]
        ]

    def summary(self) -> str:
        """One line for people: what was read, kept and skipped."""
        lengths = [len(tokens) for tokens in self.tokens]
        kept = f"{len(self):,} sentence{'s' * (len(self) != 1)} kept"
        line = f"{self.read:,} {self.unit}: {kept} ({min(lengths)}-{max(lengths)} tokens)"
        reasons = _reasons(self.skipped, self.min_length, self.max_length)
        return f"{line}; skipped {reasons}" if reasons else line


@dataclass
class _Entry:
    """One unit of a source on its way in: a text, or words that are cut already."""

    source: str
    line: int
    text: str | None = None
    words: Sequence[str] | None = None
    spans: list[tuple[int, int]] | None = None
    tree: Tree | None = None


def read_corpus(
    source: str | os.PathLike | Iterable[Sequence[str]],
    *,
    tokenizer: str = "word",
    lower: bool = True,
    digits: bool = True,
    punctuation: bool = False,
    min_length: int = 2,
    max_length: int | None = 20,
    split: str | None = None,
) -> Corpus:
    """Reads sentences from wherever they are. Nothing is written beside the user's files.

    Args:
        source: one of

            - a text file, one sentence a line;
            - a file of bracketed trees (by its extension, or because it begins with a tree), or a
              folder with such files;
            - a column of a public dataset: `hf:NAME:COLUMN`, `hf:OWNER/NAME:COLUMN` or
              `hf:OWNER/NAME/CONFIG:COLUMN`, and after it `@SPLIT` if wanted
              (`hf:owner/news:text@train[:5000]`). A row holds a text (its lines are sentences) or
              a list of tokens;
            - an iterable of token lists, of texts, or of `nltk.Tree`s taken as they are.
        tokenizer, lower, digits, punctuation: see `Preprocessing`.
        min_length, max_length: tokens (punctuation not counted unless kept) a sentence may have;
            `max_length=None` is no limit. Others are skipped and counted.
        split: of a public dataset whose `source` names none; "train" if not given.

    Raises:
        UserError: if the source cannot be read (naming file and line), or no sentence is left.
    """
    preprocessing = Preprocessing(tokenizer, lower, digits, punctuation)
    if min_length < 1 or (max_length is not None and max_length < min_length):
        raise UserError(f"lengths from {min_length} to {max_length} tokens: no sentence has one")
    unit, name, entries = _open(source, preprocessing, split)
    kept: dict[str, list] = {key: [] for key in ("tokens", "spans", "tree", "source", "line")}
    skipped = dict.fromkeys(("blank", "only punctuation", "too long", "too short"), 0)
    read = 0
    for entry in entries:
        read += 1
        tokens, reason = _tokens(entry, preprocessing, min_length, max_length)
        if reason:
            skipped[reason] += 1
            continue
        kept["tokens"].append(tokens)
        kept["spans"].append(entry.spans)
        kept["tree"].append(None if entry.tree is None else bracket(entry.tree))
        kept["source"].append(entry.source)
        kept["line"].append(entry.line)
    if not kept["tokens"]:
        reasons = _reasons(skipped, min_length, max_length) or "none"
        raise UserError(f"{name}: no sentence left of {read:,} {unit}; skipped {reasons}")
    return Corpus(_dataset(kept), name, unit, read, skipped, preprocessing, min_length, max_length)


@dataclass
class Line:
    """One input line of `read_sentences`.

    Attributes:
        number: the line, from 1.
        words: its words as spelt, punctuation removed unless kept; empty for a blank line.
        tokens: the same words normalised, for `Vocabulary.encode`; one for each of `words`.
        text: the line itself.
        offsets: where each of `words` stands in `text`, `[start, end)` in characters.
    """

    number: int
    words: list[str]
    tokens: list[str]
    text: str = ""
    offsets: list[tuple[int, int]] = field(default_factory=list)


def read_sentences(
    source: str | os.PathLike | Iterable[bytes | str],
    preprocessing: Preprocessing | None = None,
    name: str = "standard input",
) -> Iterator[Line]:
    """Sentences to be parsed: one `Line` for every line of the input, blank ones included.

    Lines are read as they are asked for, so that a pipe is answered line by line.

    Args:
        source: a text file's path, or an open stream of lines (such as `sys.stdin.buffer`).
        preprocessing: as the model was trained with; the defaults of `Preprocessing` if None.
        name: what to call a stream in an error.

    Raises:
        UserError: at a line that is not UTF-8 text, or if a file is missing, empty or unreadable.
    """
    preprocessing = preprocessing or Preprocessing()
    if isinstance(source, (str, os.PathLike)):
        lines = read_lines(source)
    else:
        lines = decode_lines(source, name)
    for number, text in enumerate(lines, start=1):
        words = preprocessing.words(text)
        yield Line(number, words, preprocessing.normalise(words), text, _offsets(words, text))


def _offsets(words: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Where words that were cut out of a text stand in it, one after the other."""
    offsets, end = [], 0
    for word in words:
        start = text.find(word, end)
        start = end if start < 0 else start
        end = min(start + len(word), len(text))
        offsets.append((start, end))
    return offsets


def parse_dataset_name(source: str, split: str | None = None) -> tuple[str, str | None, str, str]:
    """Takes `hf:[OWNER/]NAME[/CONFIG]:COLUMN[@SPLIT]` apart.

    A configuration can only be named together with an owner: `hf:a/b:text` is owner a, name b.

    Args:
        source: the text to take apart.
        split: the split if `source` names none; "train" if None.

    Returns:
        `(name, config or None, column, split)`, the name with its owner.

    Raises:
        UserError: if the text has another form.
    """
    # A split may hold a colon, as in `train[:1000]`; names never hold an @.
    rest, at, named = source.removeprefix("hf:").partition("@")
    path, _, column = rest.rpartition(":")
    parts = path.split("/")
    if not (all(parts) and len(parts) <= 3 and column and ":" not in path and (named or not at)):
        raise UserError(
            f"{source}: a public dataset is written hf:OWNER/NAME:COLUMN, hf:NAME:COLUMN or "
            "hf:OWNER/NAME/CONFIG:COLUMN, with @SPLIT after it if wanted"
        )
    config = parts[2] if len(parts) == 3 else None
    return "/".join(parts[:2]), config, column, named or split or "train"


def _open(source, preprocessing: Preprocessing, split: str | None):
    """Finds out what a source is: `(unit, name, iterator of entries)`."""
    if isinstance(source, str) and source.startswith("hf:"):
        return "rows", source, _dataset_entries(source, split)
    if not isinstance(source, (str, os.PathLike)):
        return "sentences", "the sentences given", _memory_entries(source)
    path = Path(source)
    if path.is_dir() or path.name.lower().endswith(EXTENSIONS):
        return "trees", str(path), _tree_entries(path, preprocessing)
    text = read_text(path)
    if is_bracketed(text):
        return "trees", str(path), _tree_entries(path, preprocessing)
    lines = text.removesuffix("\n").split("\n")
    entries = (_Entry(str(path), line, text) for line, text in enumerate(lines, start=1))
    return "lines", str(path), entries


def _tree_entries(path: Path, preprocessing: Preprocessing) -> Iterator[_Entry]:
    for gold in read_treebank(path, keep_punctuation=preprocessing.punctuation):
        yield _Entry(
            gold.source, gold.line, words=gold.tokens, spans=sorted(gold.spans), tree=gold.tree
        )


def _memory_entries(sentences: Iterable) -> Iterator[_Entry]:
    for number, sentence in enumerate(sentences, start=1):
        name = "the sentences given"
        if isinstance(sentence, str):
            yield _Entry(name, number, sentence)
            continue
        if isinstance(sentence, Tree):
            spans = sorted(tree_spans(sentence))
            yield _Entry(name, number, words=sentence.leaves(), spans=spans, tree=bracket(sentence))
            continue
        words = list(sentence)
        for word in words:
            if not isinstance(word, str) or word.split() != [word]:
                raise UserError(f"{name}, number {number}: not a word: {word!r}")
        yield _Entry(name, number, words=words)


def _dataset_entries(source: str, split: str | None) -> Iterator[_Entry]:
    name, config, column, split = parse_dataset_name(source, split)
    data = _download(source, name, config, split)
    if column not in data.column_names:
        raise UserError(
            f"{source}: no column {column!r} (there are: {' '.join(data.column_names)})"
        )
    for number, value in enumerate(data.select_columns([column]), start=1):
        value = value[column]
        if value is None or isinstance(value, str):
            # Only \n and \r\n end a line, as in a file.
            for text in (value or "").removesuffix("\n").split("\n"):
                yield _Entry(source, number, text)
        elif isinstance(value, list) and all(isinstance(word, str) for word in value):
            yield _Entry(source, number, words=" ".join(value).split())
        else:
            kind = type(value).__name__
            raise UserError(
                f"{source}, row {number}: column {column!r} holds {kind}, not text or words"
            )


def _download(source: str, name: str, config: str | None, split: str):
    """`datasets.load_dataset` without progress bars and with one-line errors."""
    import datasets

    # The downloader logs every retry; what matters of it is in the error.
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    bars = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the library and its downloaders raise all sorts
        kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if re.search("Connect|Offline|Timeout|Network", kinds):
            reason = f"no connection to the dataset hub, and no copy on this machine ({reason})"
        raise UserError(f"{source}: cannot load split {split!r}: {reason}") from error
    finally:
        hub.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _tokens(
    entry: _Entry, preprocessing: Preprocessing, min_length: int, max_length: int | None
) -> tuple[list[str], str]:
    """The tokens of an entry, and why it is skipped ("" if it is not)."""
    if entry.text is not None:
        if not entry.text.strip():
            return [], "blank"
        if max_length is not None and preprocessing.longer_than(entry.text, max_length):
            return [], "too long"
        words = preprocessing.words(entry.text)
    elif entry.spans is not None:
        words = entry.words  # the tags have decided about punctuation
    else:
        if not entry.words:
            return [], "blank"
        words = preprocessing.without_punctuation(entry.words)
    if not words:
        return [], "only punctuation"
    if max_length is not None and len(words) > max_length:
        return [], "too long"
    if len(words) < min_length:
        return [], "too short"
    return preprocessing.normalise(words), ""


def _reasons(skipped: dict[str, int], min_length: int, max_length: int | None) -> str:
    names = {"too long": f"longer than {max_length}", "too short": f"shorter than {min_length}"}
    return ", ".join(f"{n:,} {names.get(why, why)}" for why, n in skipped.items() if n)


def _dataset(columns: dict[str, list]) -> Dataset:
    from datasets import Dataset, Features, Sequence, Value

    features = Features(
        tokens=Sequence(Value("string")),
        spans=Sequence(Sequence(Value("int32"))),
        tree=Value("string"),
        source=Value("string"),
        line=Value("int64"),
    )
    return Dataset.from_dict(columns, features=features)
