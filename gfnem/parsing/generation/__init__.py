"""Sentence and tree built together: samplers of sentences, and rewards that look at the words."""

from typing import Any

from gfnem.lazy import public_names

# a run is opened with the classes that it names, and no others
_attribute, __dir__, __all__ = public_names(
    "gfnem.parsing.generation",
    {
        "data": ("SentenceData",),
        "grammar_sampler": ("GrammarSampler",),
        "language_models": ("NGram", "WordLSTM"),
        "left_to_right": ("LeftToRight",),
        "recipes": ("sentence_sampler",),
        "space": ("SentenceSpace",),
        "strings": ("Strings",),
        "targets": ("Copied", "Counted", "GrammarTarget", "SentenceTarget"),
    },
)


def __getattr__(name: str) -> Any:
    return _attribute(name)
