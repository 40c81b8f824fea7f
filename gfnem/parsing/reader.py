"""Text as a run read it when it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from gfnem.errors import UserError
from gfnem.parsing.text.corpus import Corpus, Preprocessing, read_corpus
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.text.vocabulary import Vocabulary
from gfnem.running.trained import Trained

#: what a checkpoint says of the text that a run was trained on; older ones say less
_METADATA = {
    "vocabulary": list,
    "preprocessing": dict,
    "counts": list,
    "sentences": int,
    "grammar": (str, type(None)),
    "min_length": int,
    "max_length": int,
    "seed": int,
    "data": dict,
}


class Reader:
    """Reads text the way a run's training data was read.

    Raises:
        UserError: if the run does not say how that was.
    """

    def __init__(self, module: Trained):
        try:
            for name, kind in _METADATA.items():
                if name in module.metadata and not isinstance(module.metadata[name], kind):
                    raise TypeError(f"{name} is {type(module.metadata[name]).__name__}")
            self.vocabulary = Vocabulary.from_list(module.metadata["vocabulary"])
            self.preprocessing = Preprocessing(**module.metadata["preprocessing"])
            known = getattr(module.model, "vocab_size", len(self.vocabulary))
            if known != len(self.vocabulary):
                raise ValueError(f"{len(self.vocabulary)} words, where the model has {known}")
            counts = module.metadata.get("counts", [])
            if not all(isinstance(count, int) for count in counts):
                raise TypeError("counts that are no numbers")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"a damaged run: how its text was read is not known ({error})"
            ) from error
        # sentences of one word are read where the run was trained on such
        self.shortest = min(module.metadata.get("min_length", 2), 2)

    def read(self, data: str, max_length: int) -> Corpus:
        """Sentences to evaluate on."""
        lengths = {"min_length": self.shortest, "max_length": max_length}
        return read_corpus(data, **asdict(self.preprocessing), **lengths)

    def encode(
        self, sentences: Sequence[Sequence[str]], pauses: Sequence[Sequence[int]] = ()
    ) -> Sentences:
        """Tokens as word indices, padded; `pauses` as in `Sentences.from_words`."""
        return Sentences.from_words(sentences, self.vocabulary, pauses)
