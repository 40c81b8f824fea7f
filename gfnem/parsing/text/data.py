"""Text as training data: a corpus, its vocabulary, batches of similar length."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import chain, islice
from typing import Annotated, Any

import numpy as np
import torch

from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.files import absolute, write_atomically
from gfnem.parsing.grammars.support import derivable
from gfnem.parsing.grammars.truth import AS_DRAWN, Truth
from gfnem.parsing.text.corpus import Corpus, Preprocessing, read_corpus
from gfnem.parsing.text.documents import Documents
from gfnem.parsing.text.raw import RawText
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.text.vocabulary import Vocabulary
from gfnem.ranges import Amount, Count, Range, Seed


class TextData(DataModule[Sentences]):
    """Sentences of a text file, a treebank, a public dataset, or an embedded grammar.

    Args:
        path: a text file with one sentence a line; a file or folder of bracketed trees (`.mrg
            .ptb .tree .psd`), or of trees in TIGER's or Alpino's XML (`.xml`); a folder of `.txt`
            files; a column of a table, `FILE.csv:COLUMN` (`.tsv .jsonl .json .parquet` too); any
            of these with `.gz`; a column of a saved dataset, `FOLDER:COLUMN[@SPLIT]`, or of a
            public one, `hf:NAME[/CONFIG]:COLUMN[@SPLIT]`. In Python also a `datasets.Dataset`, or
            token lists, texts or `nltk.Tree`s. None samples a corpus from `grammar`.
        valid: held-out sentences, in any of these forms; None holds some of the training data back.
        format: "auto" (trees and tables have the endings above, anything else is text), "text" or
            "trees".
        encoding: of files.
        column: of a table or dataset, where `path` does not name it.
        limit: lines, trees or rows read at most, of `valid` too; None is no limit.
        streaming: whether the rows of a public dataset are fetched one by one. They are read
            through once, up to `limit`, before training; nothing but their sentences is stored.
        processes: that read a large source; as many as there are cores if None.
        cache: folder that keeps what was read of large sources for the next start: "auto" is
            `gfnem/corpora` in `$XDG_CACHE_HOME` or `~/.cache`, "off" a temporary one.
        grammar: an embedded grammar's name, or a grammar file (`.pcfg`, or `.ncfg` where rules
            name parents), used where `path` is None. Its words are taken to the letter: how text
            is cut and folded (the next settings but one) has no say.
        sentences: how many training sentences to sample from `grammar`.
        tokenizer: "word" cuts text into words and punctuation, "space" only at white space,
            "wordpunct" at marks too, "character" takes each character of a script without spaces
            alone; "spacy:LANGUAGE" and "tokenizers:FILE" are those libraries' (see
            `gfnem.parsing.text.tokenizers`).
        lower: whether to fold case.
        digits: whether to write each run of digits as `0`.
        punctuation: whether to keep punctuation.
        min_length: fewest tokens of a sentence; shorter ones are skipped and counted.
        max_length: most tokens of a sentence; longer ones are skipped and counted.
        min_count: rarer words become `<unk>`.
        unknown_classes: whether unknown words fall into classes by how they are written, as
            `<unk:word-ing>`, instead of one `<unk>`. Likelihoods of runs with and without them do
            not compare.
        max_vocabulary: most words kept.
        valid_sentences: most sentences to validate on.
        batch_size: sentences in a training batch.
        interval: updates between two validations (and checkpoints).
        seed: of the order of the sentences, of which of them are held back for validation, and of
            those drawn from `grammar`; that of the run if None.

    Raises:
        UserError: if the data cannot be read.
    """

    world = "text"

    def __init__(
        self,
        path: str | None = None,
        valid: str | None = None,
        grammar: str = "english",
        sentences: Count = 10_000,
        tokenizer: str = "word",
        lower: bool = True,
        digits: bool = True,
        punctuation: bool = False,
        min_length: Count = 2,
        max_length: Count = 20,
        min_count: Count = 2,
        max_vocabulary: Annotated[int, Range(2)] = 10_000,
        valid_sentences: Amount = 500,
        batch_size: Count = 32,
        interval: Count = 100,
        seed: Seed | None = None,
        format: str = "auto",
        encoding: str = "utf-8",
        column: str | None = None,
        limit: Count | None = None,
        streaming: bool = False,
        processes: Count | None = None,
        cache: str = "auto",
        unknown_classes: bool = False,
    ):
        super().__init__(batch_size, interval, seed)
        self.path, self.grammar, self.sentences = path, grammar, sentences
        self.preprocessing = AS_DRAWN
        if path is not None:
            self.preprocessing = Preprocessing(tokenizer, lower, digits, punctuation)
        self.lengths = {"min_length": min_length, "max_length": max_length}
        self.reading = {
            "format": format,
            "encoding": encoding,
            "column": column,
            "limit": limit,
            "streaming": streaming,
            "processes": processes,
            "cache": cache,
        }
        self.valid_sentences = valid_sentences
        held_out = None
        if path is None:
            self.train = self.sampled(sentences, 0)
            if valid is None:
                held_out = self.sampled(max(valid_sentences, 1), 1)
        else:
            self.train = self.read(path)
        if valid is not None:
            held_out = self.read(valid)
        shuffled = list(range(len(self.train)))
        random.Random(self.seed).shuffle(shuffled)
        if held_out is None:
            held_out, count = self.train, min(valid_sentences, len(self.train) // 10)
            held_rows = sorted(shuffled[:count])
        else:
            count, held_rows = 0, range(min(valid_sentences, len(held_out)))
        self._held_out = held_out, list(held_rows)
        self._valid = held_out.rows(held_rows)
        # numbers in an array: a million of them are 8 MB, and 40 MB in a list
        self._rows = np.sort(np.array(shuffled[count:], dtype=np.int64))
        self._documents: np.ndarray | None = None  # of each training sentence
        self._counts = self._count_words(held_out is self.train)
        self.vocabulary = self._build_vocabulary(min_count, max_vocabulary, unknown_classes)

    def read(self, source: Any) -> Corpus:
        """Reads a corpus with this module's settings."""
        return read_corpus(source, **asdict(self.preprocessing), **self.lengths, **self.reading)

    def texts(self, limit: int | None = None, more: Any = None) -> tuple[Iterator[RawText], str]:
        """The training text as it stands in its source: all lengths, and where it pauses.

        From now on batches say in which documents their sentences stand.

        Args:
            limit: sentences at most, from the first.
            more: another source, read after it.

        Returns:
            The sentences, and what the training text's documents are.

        Raises:
            UserError: if a source cannot be read.
        """
        # what is streamed is not fetched twice
        again = self.path is not None and not self.reading["streaming"]
        corpus = self._whole(self.path) if again else self.train
        documents = Documents(corpus)
        self._documents = documents.of(self.train)
        found = [(corpus, documents.of(corpus))]
        if more is not None:
            corpus = self._whole(more)
            found.append((corpus, Documents(corpus, documents.count + 1).of(corpus)))
        texts = chain.from_iterable(self._texts(*each) for each in found)
        return islice(texts, limit), documents.how

    def _whole(self, source: Any) -> Corpus:
        """All sentences of a source, punctuation included."""
        settings = {**asdict(self.preprocessing), "punctuation": True}
        return read_corpus(source, **settings, min_length=1, max_length=None, **self.reading)

    def _texts(self, corpus: Corpus, documents: np.ndarray) -> Iterator[RawText]:
        keeps = self.preprocessing.punctuation
        for start in range(0, len(corpus), 1000):
            rows = range(start, min(start + 1000, len(corpus)))
            for row, tokens in zip(rows, corpus.rows(rows), strict=True):
                if text := RawText.read(tokens, keeps, int(documents[row])):
                    yield text

    def held_out(self) -> Corpus:
        """The sentences that validation runs on, with gold trees where the data has them."""
        corpus, rows = self._held_out
        data = type(corpus.data).from_dict(corpus.data[rows], features=corpus.data.features)
        return replace(
            corpus,
            data=data,
            source=f"held-out sentences of {corpus.source}",
            read=len(rows),
            skipped={},
            removed=0,
            note="",
            store=None,
        )

    def sampled(self, count: int, stream: int) -> Corpus:
        """Draws a corpus with gold trees from the grammar.

        Args:
            count: sentences.
            stream: different numbers give different corpora (0 train, 1 validation, 2 test).
        """
        return self.truth.draw(count, self.seed * 1000 + stream)

    @cached_property
    def truth(self) -> Truth:
        """What an embedded corpus is sampled from."""
        return Truth(self.grammar, **self.lengths)

    def _count_words(self, held_back: bool) -> Counter[str]:
        """How often each word comes in the training sentences."""
        counts = self.train.word_counts()
        if held_back:
            for tokens in self._valid:
                counts.subtract(tokens)
        return counts

    def _counts_by_index(self) -> list[int]:
        """How often each word of the vocabulary comes, the unknown ones together first."""
        counts = [0] * len(self.vocabulary)
        indices = self.vocabulary.encode(self._counts)
        for index, count in zip(indices, self._counts.values(), strict=True):
            counts[index] += count
        return counts

    def _build_vocabulary(self, min_count: int, max_size: int, classes: bool) -> Vocabulary:
        if self.path is None:  # every word the grammar knows, so that likelihoods compare exactly
            return Vocabulary.from_list(self.truth.grammar.vocabulary)
        try:
            return Vocabulary.from_counts(self._counts, min_count, max_size, classes)
        except UserError as error:
            raise UserError(f"{self.train.source}: {error}") from error

    def facts(self) -> dict[str, Any]:
        """`vocab_size`, the `vocabulary` itself, and `shortest`: fewest words of a sentence."""
        return {
            "vocab_size": len(self.vocabulary),
            "vocabulary": self.vocabulary.to_list(),
            "shortest": self.lengths["min_length"],
        }

    def sizes(self) -> np.ndarray:
        """`(sentences,)` tokens of each training sentence."""
        return self.train.lengths[self._rows]

    def batch(self, indices: Sequence[int]) -> Sentences:
        """Training sentences as word indices."""
        rows = self._rows[list(indices)]
        return self._in_documents(self.encode(self.train.rows(rows)), rows)

    def _in_documents(self, x: Sentences, rows: np.ndarray) -> Sentences:
        """Rows of the training corpus, with their documents where these have been asked for."""
        if self._documents is not None:
            x.documents = torch.from_numpy(self._documents[rows])
        return x

    def encode(self, sentences: Sequence[Sequence[str]]) -> Sentences:
        """Tokens to word indices, padded."""
        return Sentences.from_words(sentences, self.vocabulary)

    def validation_batches(self) -> list[Sentences]:
        """Held-out sentences, similar lengths together."""
        corpus, rows = self._held_out
        found = []
        for part in batches_by_length(self._valid):
            x = self.encode([self._valid[at] for at in part])
            if corpus is self.train:
                x = self._in_documents(x, np.array(rows)[part])
            found.append(x)
        return found

    def batches(self, sentences: Sequence[Sequence[str]], size: int = 50) -> list[Sentences]:
        """Any sentences as word indices, similar lengths together."""
        return [
            self.encode([sentences[at] for at in part])
            for part in batches_by_length(sentences, size)
        ]

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Parses of a few held-out sentences, and the grammar where the model is or has one."""
        from gfnem.parsing.grammars.grammar_file import write_grammar

        counted = self.batches((self._valid or self.train.tokens)[:200])
        grammar = write_grammar(module.model, self.vocabulary.to_list(), counted, folder)
        return [*self._draw_parses(module, folder), *grammar]

    def _draw_parses(self, module: Any, folder: Any) -> list[str]:
        """A few held-out sentences as `parses.png` and `parses.html`."""
        from gfnem.parsing.parser import label_names, parse
        from gfnem.parsing.trees.drawing import forest_png, trees_page

        middling = [tokens for tokens in self._valid if 5 <= len(tokens) <= 10] or self._valid
        if not middling:
            return []
        chosen = middling[:4]
        try:
            x = self.encode(chosen)
            parses, possible = parse(module, x), derivable(module, x)
        except UserError:  # trained without a sampler, and without exact inference
            return []
        names = label_names(module)
        drawings = []
        for row, words in enumerate(chosen):
            if possible[row]:
                score = f"log p(x, z) = {float(parses.log_joint[row, 0]):.1f} nats"
                drawings.append((score, parses.trees.to_nltk(row, words, names)))
        if not drawings:
            return []
        written = ["parses.html"]
        write_atomically(folder / "parses.html", trees_page(drawings))
        try:
            forest_png(drawings, folder / "parses.png")
            written.insert(0, "parses.png")
        except UserError as error:
            print(f"no picture of parses beside parses.html: {error}")
        return written

    def metadata(self) -> dict[str, Any]:
        """Vocabulary and preprocessing: what it takes to read new text the same way."""
        # in full, since the run may be used from another folder
        grammar = absolute(self.grammar) if self.path is None else None
        return {
            "world": self.world,
            "vocabulary": self.vocabulary.to_list(),
            "counts": self._counts_by_index(),
            "sentences": len(self._rows),
            "preprocessing": asdict(self.preprocessing),
            "grammar": grammar,
            **self.lengths,
            "seed": self.seed,
        }

    def fingerprint(self) -> dict[str, str]:
        """Hex digests: of the `vocabulary`, of the `training` and of the `held_out` sentences."""
        digests = {
            "vocabulary": hashlib.blake2b(digest_size=20),
            "held_out": hashlib.blake2b(digest_size=20),
        }
        digests["vocabulary"].update("\n".join(self.vocabulary.to_list()).encode())
        for tokens in self._valid:
            digests["held_out"].update(f"{' '.join(tokens)}\n".encode())
        fingerprint = {name: digest.hexdigest() for name, digest in digests.items()}
        return {**fingerprint, "training": self.train.digest(self._rows)}

    def summary(self) -> str:
        """What was read, and how much of it the vocabulary covers."""
        unknown = self.vocabulary.unknown_rate(
            token for tokens in self.train.rows(self._rows[:2000]) for token in tokens
        )
        remarks = [] if self.path is not None else self.truth.remarks()
        remarks = "".join(f"{remark}\n" for remark in remarks)
        return (
            f"{self.train.source}: {self.train.summary()}\n{remarks}"
            f"training on {len(self._rows):,} sentences, validating on {len(self._valid):,}; "
            f"vocabulary {len(self.vocabulary):,} words ({100 * unknown:.1f} % of tokens unknown)"
        )


def batches_by_length(sentences: Sequence[Sequence[str]], size: int = 50) -> Iterator[list[int]]:
    """The numbers of some sentences in batches, from the shortest to the longest."""
    order = sorted(range(len(sentences)), key=lambda at: len(sentences[at]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
