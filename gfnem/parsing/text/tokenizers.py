"""Ways to cut a text into words beside the default one. Each gives the words' places in the text.

`word` and `space` are in `preprocessing`, which remembers what the pieces of a text become.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec

from gfnem.errors import UserError

#: for people: what a tokenizer may be called
NAMES = ("word", "space", "wordpunct", "character", "spacy:LANGUAGE", "tokenizers:FILE")
#: those without an argument
_PLAIN = frozenset(name for name in NAMES if ":" not in name)

#: letters of scripts that are written without spaces: Thai, Lao, Tibetan, Burmese, Khmer, Kana, Han
_UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua48f\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003134f"
)
_RUN = re.compile(rf"(?:(?![{_UNSPACED}])\w[\u0300-\u036f]*)+|\S")
_WORD_OR_MARKS = re.compile(r"\w+|[^\w\s]+")

Places = Callable[[str], list[tuple[int, int]]]


def checked(name: str) -> str:
    """The name of a tokenizer, with the file that it may name in full.

    Raises:
        UserError: if there is no such tokenizer, its library is not installed, or its file is
            missing.
    """
    if name in _PLAIN:
        return name
    library, colon, argument = name.partition(":")
    if library not in ("spacy", "tokenizers") or not (colon and argument):
        raise UserError(f"tokenizer {name!r}: choose one of {', '.join(NAMES)}")
    if find_spec(library) is None:
        raise UserError(f"tokenizer {name}: pip install {library} first")
    if library == "tokenizers":
        if not os.path.isfile(argument):
            raise UserError(f"tokenizer {name}: no file {argument}, as `Tokenizer.save` writes it")
        return f"tokenizers:{os.path.realpath(argument)}"
    return name


def places(name: str) -> Places:
    """A function that gives the `[start, end)` of each word in the characters of a text.

    Args:
        name: "wordpunct" (runs of letters and digits, and runs of other marks), "character" (each
            character of a script without spaces, and runs of other letters and digits),
            "spacy:LANGUAGE" (spaCy's rules for a language, `spacy.blank(LANGUAGE)`: no trained
            pipeline is needed) or "tokenizers:FILE" (a saved `tokenizers.Tokenizer`: byte pairs,
            word pieces, ...).

    Raises:
        UserError: if the tokenizer cannot be opened.
    """
    if name == "wordpunct":
        return lambda text: [match.span() for match in _WORD_OR_MARKS.finditer(text)]
    if name == "character":
        return _characters
    library, _, argument = checked(name).partition(":")
    return (_of_spacy if library == "spacy" else _of_tokenizers)(argument)


def _characters(text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for match in _RUN.finditer(text):
        start, end = match.span()
        # vowel signs and tones belong to the character before them
        if found and found[-1][1] == start and unicodedata.category(text[start])[0] == "M":
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found


def _of_spacy(language: str) -> Places:
    import spacy  # type: ignore[import-not-found]  # if the user has it

    try:
        cut = spacy.blank(language)
    except Exception as error:  # also what the language's own libraries raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"tokenizer spacy:{language}: {reason}") from error
    return lambda text: [(word.idx, word.idx + len(word)) for word in cut.make_doc(text)]


def _of_tokenizers(file: str) -> Places:
    from tokenizers import Tokenizer  # type: ignore[import-not-found]  # if the user has it

    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception as error:  # the library has no exception of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"tokenizer tokenizers:{file}: {reason}") from error

    def cut(text: str) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for start, end in tokenizer.encode(text, add_special_tokens=False).offsets:
            # several pieces may share a character's bytes: the first of them stands for it
            start = max(start, found[-1][1]) if found else start
            if end > start:
                found.append((start, end))
        return found

    return cut
