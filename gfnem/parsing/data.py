"""Text as training data: a corpus, its vocabulary, batches of similar length."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Annotated, Any

from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.files import absolute, write_atomically
from gfnem.parsing.corpus import Corpus, Preprocessing, read_corpus
from gfnem.parsing.sentences import Sentences
from gfnem.parsing.support import derivable
from gfnem.parsing.truth import AS_DRAWN, Truth
from gfnem.parsing.vocabulary import Vocabulary
from gfnem.ranges import Amount, Count, Range, Seed


class TextData(DataModule):
    """Sentences of a text file, a treebank, a public dataset, or an embedded grammar.

    Args:
        path: a text file with one sentence a line; a file or folder of bracketed trees; or
            `hf:NAME[/CONFIG]:COLUMN`. None samples a corpus from `grammar`.
        valid: held-out sentences, in any of these forms; None holds some of the training data back.
        grammar: an embedded grammar's name, or a grammar file (`.pcfg`, or `.ncfg` where rules
            name parents), used where `path` is None. Its words are taken to the letter: how text
            is cut and folded (the next settings but one) has no say.
        sentences: how many training sentences to sample from `grammar`.
        tokenizer: "word" cuts text into words and punctuation, "space" only at white space.
        lower: whether to fold case.
        digits: whether to write each run of digits as `0`.
        punctuation: whether to keep punctuation.
        min_length: fewest tokens of a sentence; shorter ones are skipped and counted.
        max_length: most tokens of a sentence; longer ones are skipped and counted.
        min_count: rarer words become `<unk>`.
        max_vocabulary: most words kept.
        valid_sentences: most sentences to validate on.
        batch_size: sentences in a training batch.
        interval: updates between two validations (and checkpoints).
        seed: of the order of the sentences, of which of them are held back for validation, and of
            those drawn from `grammar`; that of the run if None.

    Raises:
        UserError: if the data cannot be read.
    """

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
    ):
        super().__init__(batch_size, interval, seed)
        self.path, self.grammar, self.sentences = path, grammar, sentences
        self.preprocessing = AS_DRAWN
        if path is not None:
            self.preprocessing = Preprocessing(tokenizer, lower, digits, punctuation)
        self.lengths = {"min_length": min_length, "max_length": max_length}
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
            count = min(valid_sentences, len(self.train) // 10)
            self._held_out = self.train, sorted(shuffled[:count])
            self._valid = [self.train.tokens[index] for index in self._held_out[1]]
            self._rows = sorted(shuffled[count:])
        else:
            self._held_out = held_out, list(range(min(valid_sentences, len(held_out))))
            self._valid = held_out.tokens[:valid_sentences]
            self._rows = sorted(shuffled)
        self.vocabulary = self._build_vocabulary(min_count, max_vocabulary)

    def read(self, source: Any) -> Corpus:
        """Reads a corpus with this module's settings."""
        return read_corpus(source, **asdict(self.preprocessing), **self.lengths)

    def held_out(self) -> Corpus:
        """The sentences that validation runs on, with gold trees where the data has them."""
        corpus, rows = self._held_out
        return replace(
            corpus,
            data=corpus.data.select(rows),
            source=f"held-out sentences of {corpus.source}",
            read=len(rows),
            skipped={},
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

    def _build_vocabulary(self, min_count: int, max_size: int) -> Vocabulary:
        if self.path is None:  # every word the grammar knows, so that likelihoods compare exactly
            return Vocabulary.from_list(self.truth.grammar.vocabulary)
        tokens = (self.train.tokens[row] for row in self._rows)
        try:
            return Vocabulary.build(tokens, min_count=min_count, max_size=max_size)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error

    def facts(self) -> dict[str, Any]:
        """`vocab_size`, the `vocabulary` itself, and `shortest`: fewest words of a sentence."""
        return {
            "vocab_size": len(self.vocabulary),
            "vocabulary": self.vocabulary.to_list(),
            "shortest": self.lengths["min_length"],
        }

    def sizes(self) -> Sequence[int]:
        """Tokens of each training sentence."""
        return [len(self.train.tokens[row]) for row in self._rows]

    def batch(self, indices: Sequence[int]) -> Sentences:
        """Training sentences as word indices."""
        return self.encode([self.train.tokens[self._rows[index]] for index in indices])

    def encode(self, sentences: Sequence[Sequence[str]]) -> Sentences:
        """Tokens to word indices, padded."""
        return Sentences.from_lists([self.vocabulary.encode(tokens) for tokens in sentences])

    def validation_batches(self) -> list[Sentences]:
        """Held-out sentences, similar lengths together."""
        return self.batches(self._valid)

    def batches(self, sentences: Sequence[Sequence[str]], size: int = 50) -> list[Sentences]:
        """Any sentences as word indices, similar lengths together."""
        ordered = sorted(sentences, key=len)
        starts = range(0, len(ordered), size)
        return [self.encode(ordered[start : start + size]) for start in starts]

    def draw(self, module: Any, folder: Any) -> list[str]:
        """Parses of a few held-out sentences, and the grammar where the model is or has one."""
        from gfnem.parsing.grammar_listing import write_grammar

        counted = self.batches((self._valid or self.train.tokens)[:200])
        grammar = write_grammar(module.model, self.vocabulary.to_list(), counted, folder)
        return [*self._draw_parses(module, folder), *grammar]

    def _draw_parses(self, module: Any, folder: Any) -> list[str]:
        """A few held-out sentences as `parses.png` and `parses.html`."""
        from gfnem.parsing.drawing import forest_png, trees_page
        from gfnem.parsing.parser import label_names, parse

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
            "kind": "text",
            "vocabulary": self.vocabulary.to_list(),
            "counts": self._word_counts(),
            "sentences": len(self._rows),
            "preprocessing": asdict(self.preprocessing),
            "grammar": grammar,
            **self.lengths,
            "seed": self.seed,
        }

    def _word_counts(self) -> list[int]:
        """How often each word of the vocabulary comes in the training sentences."""
        counts = [0] * len(self.vocabulary)
        for row in self._rows:
            for index in self.vocabulary.encode(self.train.tokens[row]):
                counts[index] += 1
        return counts

    def summary(self) -> str:
        """What was read, and how much of it the vocabulary covers."""
        unknown = self.vocabulary.unknown_rate(
            token for row in self._rows[:2000] for token in self.train.tokens[row]
        )
        remarks = [] if self.path is not None else self.truth.remarks()
        remarks = "".join(f"{remark}\n" for remark in remarks)
        return (
            f"{self.train.source}: {self.train.summary()}\n{remarks}"
            f"training on {len(self._rows):,} sentences, validating on {len(self._valid):,}; "
            f"vocabulary {len(self.vocabulary):,} words ({100 * unknown:.1f} % of tokens unknown)"
        )
