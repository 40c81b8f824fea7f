"""Damaged input of every kind ends as success or as one line, and leaves nothing half-written."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SMALL, TINY, call, trained

from gfnem.component import build
from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.images.data import Images
from gfnem.parsing.answers import Answers
from gfnem.parsing.bracket_prior.energy import BracketEnergy
from gfnem.parsing.ensemble import Ensemble
from gfnem.parsing.text.corpus import read_corpus, read_sentences
from gfnem.parsing.text.data import TextData
from gfnem.parsing.text.vocabulary import Vocabulary
from gfnem.running.runs import load_run
from gfnem.running.training import assemble, train

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

#: how many examples of each kind ended how, in this process
TALLY: dict[str, Counter] = {}


# ------------------------------------------------------------------------------- what must hold


@contextlib.contextmanager
def limited_memory(gigabytes: float = 6) -> Iterator[None]:
    """Lets a number that is far too large cost an error rather than the machine."""
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):  # other systems than Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(gigabytes * 2**30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(action: Callable[[Path], Any]) -> str:
    """Runs an action on an empty folder: whether it is "done" or "refused"; anything else fails."""
    folder = Path(tempfile.mkdtemp(prefix="gfnem-fuzz-"))
    error = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            try:
                ended = action(folder)
            except UserError as refusal:
                assert str(refusal).strip(), "a refusal without a word"
                ended = 2
        if ended == 2:
            assert not (folder / "run").exists(), "a refusal that leaves a run folder"
        else:
            assert ended in (None, 0), ended
        left = [path for path in folder.rglob("*") if path.name.endswith(".tmp")]
        assert not left, left
        run = folder / "run"
        assert not run.exists() or (run / "last.ckpt").exists(), "a run folder without a run"
        return "refused" if ended == 2 else "done"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(
    kind: str, examples: int, strategy: st.SearchStrategy, action: Callable[[Path, Any], Any]
) -> None:
    """Tries an action on so many examples; some must be taken and some refused."""
    examples *= int(os.environ.get("GFNEM_FUZZ", 1))
    tally = TALLY.setdefault(kind, Counter())

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(strategy)
    def each(example: Any) -> None:
        with limited_memory(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            tally[outcome(lambda folder: action(folder, example))] += 1

    each()
    print(f"{kind}: {dict(tally)}")
    assert tally.total() >= examples * 0.9, "fewer examples than asked for"
    assert min(tally["done"], tally["refused"]) > examples * 0.03, "examples of one sort alone"


def command(capsys, *arguments) -> int:
    """Runs a command, which must end well or with one line on standard error."""
    capsys.readouterr()
    code = call(*arguments)
    output = capsys.readouterr()
    assert code in (0, 2), (code, output)
    if code:
        assert output.err.startswith("gfnem: error: ") and output.err.count("\n") == 1, output.err
    return code


# ----------------------------------------------------------------------------- how input is bent

#: what a text has no business to hold, or seldom does
ODD = [
    b"\0", b"\r", b"\n", b"\n\n", b"\t", b" ", b"\x0c", b"\x1c", b"\x85", b"\xff", b"\xe9",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PK\x03\x04", b"(", b")", b"((", b"))", b"()",
    b"(S", b"-NONE-", b"-LRB-", b"\"", b"'", b"''", b"``", b"\"\"", b"'\"", b"n't", b"cannot", b".",
    b"...", b",", b";", b"\\", b"\\/", b"\\n", b"\\u0000", b"\\ud800", b"<unk>", b"<", b">",
    b"%", b"#",
    b"^", b"|", b"->", b"-> ", b"[", b"]", b"[0]", b"[1e-320]", b"[1e400]", b"[-1]", b"[nan]", b"{",
    b"}", b"[]", b"{}", b":", b"null", b"true", b"NaN", b"1e400", b"-1", b"0", b"9" * 400,
    b"9" * 5000,
    b"*x*x*", b"TOP", b"%start", b"%start X", b"&a [*a]", b"!!python/object:os.system",
    *(
        text.encode()
        for text in (
            "é", "e\u0301", "ﬀ", "İ", "ß", "\u2028", "\u00a0", "\u200b", "\u200d", "\u202e",
            "\ufeff",
            "“", "’", "\U0001f600", "Ａ", "٣", "½", "שלום", "हिन्दी", "ᚢᚾᚲ", "\u1100\u1161",
            "\U000e0001",
        )
    ),
    "café\n".encode("utf-16"), "café\n".encode("utf-32"), "шум\n".encode("koi8-r"), b"+2AA-",
]  # fmt: skip
COUNTS = st.sampled_from([2, 3, 10, 100, 1500])
PLACES = st.floats(0, 1)


@st.composite
def bent(draw: st.DrawFn, seeds: list[bytes], odd: list[bytes] = ODD, edits: int = 4) -> bytes:
    """A good input after some edits, or as it is."""
    data = draw(st.sampled_from(seeds))
    limit = max(200_000, len(data))
    for _ in range(draw(st.integers(0, edits))):
        first, last = sorted((draw(PLACES), draw(PLACES)))
        i, j = int(first * len(data)), int(last * len(data))
        piece = data[i : min(j, i + 300)]
        edit = draw(st.sampled_from(("insert", "cut", "repeat", "swap", "keep", "replace", "flip")))
        if edit == "insert":
            data = data[:i] + draw(st.sampled_from(odd)) + data[i:]
        elif edit == "cut":
            data = data[:i] + data[i + len(piece) :]
        elif edit == "repeat":
            data = data[:i] + piece * draw(COUNTS) + data[i:]
        elif edit == "swap":
            data = data[:i] + data[j:] + data[i:j]
        elif edit == "keep":
            data = data[:i]
        elif edit == "replace":
            data = data[:i] + draw(st.sampled_from(odd)) + data[i + draw(st.integers(1, 4)) :]
        elif data:
            i = min(i, len(data) - 1)
            data = data[:i] + bytes([data[i] ^ draw(st.integers(1, 255))]) + data[i + 1 :]
        data = data[:limit]
    return data


class Bytes(bytes):
    """A file so large that nobody wants to read it in a report."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# --------------------------------------------------------------------------- text and treebanks

TEXTS = [
    b"the cat sees the dog\na dog sleeps\nthe dog sees a cat\n" * 5,
    "“Don't,” she said; it cost $3.50 (or 4%).\r\nYes.\r\n\r\nHe's <UNK> here.\r\n".encode() * 3,
    "\ufeffder Hund schläft\nдва слова\n二 つ の 語\nCafe\u0301 au lait\n".encode() * 3,
]
TREES = [
    b"(S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT a) (NN dog))))\n" * 4
    + b"(S (NP (NN cat)) (VP (VBZ sleeps)))\n" * 3,
    b"*x*x*x*\n( (S (NP-SBJ-1 (PRP He)) (VP (VBD was) (VP (VBN seen) (NP (-NONE- *-1)))) (. .)) )\n"
    * 3,
    b"(TOP a (X b c) d)\n(-LRB- -LRB-)\n( (FRAG (NN one) (NN two)))\n" * 3,
]


def read_as_text(folder: Path, example: tuple) -> None:
    data, name, how, encoding = example
    file = written(folder / name, data)
    if how == "data":
        made = TextData(str(file), encoding=encoding, min_count=1, max_length=30, cache="off")
        made.summary(), made.fingerprint(), made.metadata(), made.batch([0])
    elif how == "corpus":
        options = {"tokenizer": "space", "lower": False, "digits": False, "punctuation": True}
        corpus = read_corpus(file, encoding=encoding, min_length=1, max_length=None, **options)
        corpus.summary(), corpus.digest(), corpus.spans
    elif how == "vocabulary":
        Vocabulary.load(file)
    else:
        for line in read_sentences(file):
            assert len(line.words) == len(line.tokens) == len(line.offsets)
            if not line.text.startswith("("):
                assert all(0 <= i < j <= len(line.text) for i, j in line.offsets)


HOW = ("data", "corpus", "lines", "vocabulary")
ENCODINGS = ("utf-8", "utf-8", "latin-1", "utf-16", "utf-7", "cp1252", "gb18030", "utf-8-sig")


@pytest.mark.slow
def test_text():
    names = st.sampled_from(("text.txt", "text", "text.txt.gz", os.fsdecode(b"caf\xe9.txt")))
    examples = st.tuples(bent(TEXTS), names, st.sampled_from(HOW), st.sampled_from(ENCODINGS))
    fuzz("text", 200, examples, read_as_text)


@pytest.mark.slow
def test_treebanks():
    names = st.sampled_from(("trees.mrg", "trees.ptb", "trees.txt"))
    how = st.sampled_from(HOW[:3])
    examples = st.tuples(bent(TREES), names, how, st.sampled_from(ENCODINGS[:3]))
    fuzz("treebanks", 150, examples, read_as_text)


# ------------------------------------------------------------------------------------- grammars

PCFG = [
    b"# a comment\nS -> NP VP [1.0]\nNP -> Det N [0.6] | 'he' [0.3] | NP PP [0.1]\n"
    b"VP -> V NP [0.7] | VP PP [0.3]\nPP -> 'with' NP [1]\nDet -> 'the' [.5] | \"a\" [.5]\n"
    b"N -> 'cat' [0.5] | 'dog' [0.5]\nV -> 'sees' [1.0]\n",
    b"%start S\nS -> A [0.2] | A B [0.7] | B [1e-1]\nA -> 'a' [0.9] | A A A [0.1]\nB -> 'b' [1]\n",
    b"Grammar with 3 productions (start state = S)\n  S -> S S [0.4]\n  S -> 'x' [0.6]\n",
]
NCFG = [
    b"%start S\nS -> NP VP [1]\nNP^S -> Det N [0.3] | 'he' [0.7]\n"
    b"NP^VP,PP -> Det N [0.8] | 'him' [0.2]\nVP -> V NP [0.6] | V PP [0.4]\nPP -> P NP [1]\n"
    b"P -> 'at' [1]\nV -> 'looks' [1]\nDet -> 'the' [1]\nN -> 'cat' [0.5] | 'dog' [0.5]\n",
    b"%class C S A\n%class D B TOP\nS^C -> A S [0.3] | B B [0.7]\nS -> A B [1]\n"
    b"A^S -> 'a' [1]\nA^C,D -> S S [0.4] | 'b' [0.6]\nB -> A A [0.2] | 'b' [0.8]\n",
]


SYMBOLS = ["S", "A", "B", "NP|<X-Y>", "''", "D"]
WORDS = ["'a'", '"b"', "'it\\'s'", "','", "''", "'ß'"]
PARENTS = [*[""] * 12, "^S", "^A,B", "^TOP", "^A", "^D", "^Some", "^Some,D"]


@st.composite
def made_grammars(draw: st.DrawFn, parents: bool) -> bytes:
    """A grammar that is right in form: loops, long rules, tiny probabilities, unused symbols."""
    symbols = SYMBOLS[: draw(st.integers(1, 6))]
    items = st.sampled_from([*symbols * 4, *WORDS[:2] * 8, *WORDS])
    lines = ["%class Some S A"] if parents and len(symbols) > 1 and draw(st.booleans()) else []
    for symbol in symbols:
        for parent in draw(st.lists(st.sampled_from(PARENTS), min_size=1, max_size=2)):
            sides = draw(st.lists(st.lists(items, min_size=1, max_size=3), min_size=1, max_size=3))
            sides[0] *= draw(st.sampled_from((*[1] * 9, 2, 30, 1100)))
            sides.append(["'w'"])
            weights = draw(st.sampled_from((1e-320, 1e-200, 1e-30, 1e-3, 0.1, 0.1, 0.2)))
            shares = [weights] * (len(sides) - 1)
            if len(set(map(tuple, sides))) == len(sides) or draw(st.booleans()):
                shares.append(1 - sum(shares))
            rules = " | ".join(
                f"{' '.join(side)} [{p!r}]" for side, p in zip(sides, shares, strict=False)
            )
            lines.append(f"{symbol}{parent if parents else ''} -> {rules}")
            if not parents:
                break
    return "\n".join(lines).encode()


def draw_from(folder: Path, example: tuple) -> None:
    data, name = example
    sizes = {"sentences": 5, "valid_sentences": 3, "min_length": 1, "max_length": 6}
    arguments = {"grammar": str(written(folder / name, data)), **sizes}
    build({"class_path": "gfnem.parsing.TextData", "init_args": arguments}, DataModule).summary()


@pytest.mark.slow
def test_grammars():
    plain = st.tuples(bent(PCFG), st.just("grammar.pcfg"))
    parents = st.tuples(bent(NCFG), st.just("grammar.ncfg"))
    made = st.booleans().flatmap(
        lambda named: st.tuples(
            made_grammars(named), st.just("grammar.ncfg" if named else "grammar.pcfg")
        )
    )
    fuzz("grammars", 120, plain | parents | made | made, draw_from)


# --------------------------------------------------------------------------------------- tables

CSV = [
    b'id,text\n1,"the cat, a cat"\n2,a dog sleeps\n3,"two ""quoted"" words\nand a line"\n' * 2,
    b"text\nthe cat sleeps\na dog\n",
]
JSONL = [
    b'{"text": "the cat sleeps", "id": 1}\n{"text": ["a", "dog"], "id": 2}\n{"text": null}\n' * 2,
    b'[{"text": "the cat"}, {"text": "a dog sleeps"}]',
    b'{"text": ["the cat", "a dog"], "id": [1, 2]}',
]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    file = tmp_path_factory.mktemp("table") / "table.parquet"
    parquet.write_table(
        pa.table({"text": ["the cat sleeps", "a dog", None], "id": [1, 2, 3]}), file
    )
    return file.read_bytes()


def read_table(folder: Path, example: tuple) -> None:
    data, ending, column = example
    file = written(folder / f"table{ending}", data)
    corpus = read_corpus(f"{file}:{column}" if column else str(file), min_length=1)
    corpus.summary(), corpus.digest()


@pytest.mark.slow
def test_tables(parquet):
    columns = st.sampled_from(("text", "text", "text", "id", "", "none"))
    separated = bent(CSV) | bent([seed.replace(b",", b"\t") for seed in CSV])
    examples = (
        st.tuples(separated, st.sampled_from((".csv", ".tsv")), columns)
        | st.tuples(bent(JSONL), st.sampled_from((".jsonl", ".json")), columns)
        | st.tuples(bent([parquet], edits=2), st.just(".parquet"), columns)
    )
    fuzz("tables", 100, examples, read_table)


# --------------------------------------------------------------------------------------- images


def archive(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def compressed(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


PICTURES = np.random.default_rng(0).integers(0, 256, (12, 4, 4)).astype("uint8")
GOOD_IMAGES = [
    archive(x_train=PICTURES, x_test=PICTURES[:3]),
    compressed(x_train=PICTURES > 99, x_test=PICTURES[:3] > 99),
]
#: arrays that are no pictures, or odd ones
ODD_ARRAYS = [
    PICTURES, PICTURES > 99, PICTURES[0], PICTURES[:0], PICTURES[:, :0], PICTURES * 0, PICTURES.T,
    PICTURES.astype("float32") / 255, PICTURES[:, :2], np.full((3, 4, 4), np.nan), np.array(3),
    np.array("text"), PICTURES.astype("int64") - 300, PICTURES[None], PICTURES > 300,
    np.zeros((2, 4, 4), dtype="S3"), PICTURES[:1],
    np.zeros((2, 4), dtype=[("a", "u1"), ("b", "f4")]),
]  # fmt: skip


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        arrays = st.sampled_from(ODD_ARRAYS)
        return archive(x_train=draw(arrays), x_test=draw(arrays))
    data = draw(bent(GOOD_IMAGES, edits=2))
    # what the archive says of each array, its descriptor and its shape
    old, new = draw(st.sampled_from((
        (b"", b""), (b"", b""), (b"", b""), (b"(12, 4, 4)", b"(9999999, 4, 4)"), (b"(12, 4, 4)",
        b"(-2, 4, 4)"),
        (b"|u1", b"|O8"), (b"'fortran_order'", b"'fortran_order"), (b"NUMPY\x01", b"NUMPY\x09"),
        (b"(3, 4, 4)", b"(3, 4, 4"), (b"x_test", b"../tes"), (b"PK\x01\x02", b"PK\x01\x03"),
    )))  # fmt: skip
    return data.replace(old, new) if old else data


def read_images(folder: Path, data: bytes) -> None:
    file = written(folder / "images.npz", data)
    images = Images(str(file), validation=2, rows=2, columns=2, codes=3)
    images.facts(), images.summary(), images.batch([0]), images.validation_batches()


@pytest.mark.slow
def test_images():
    fuzz("images", 100, image_files(), read_images)


# ------------------------------------------------------------------------------------- settings

ANNEAL = {"start": 1.0, "end": 0.1, "updates": 3}
NUMBERS = [0, 1, -1, 2, 3, 0.5, 2.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 10**30]
ODD_VALUES = [
    *NUMBERS, *NUMBERS, float("nan"), float("inf"), -float("inf"), None, True, False, "", "abc",
    "1",
    "nan", "\0", "../..", "é" * 300, "exponential", [], [1], [0.5, 0.9], [1, [2]], {}, {"a": 1},
    {"class_path": "os.system", "init_args": {"command": "touch fuzzed"}},
    {"class_path": "gfnem.schedules.Anneal", "init_args": ANNEAL},
    {"class_path": "gfnem.schedules.Anneal", "init_args": [1, 2]},
    {"class_path": "gfnem.schedules.Anneal", "init_args": {1: 2}},
    {"class_path": "gfnem.nosuch.Class"}, {"class_path": ".."}, {"class_path": ""}, "<deep>",
]  # fmt: skip
#: what takes as long as it says, and so must not be large here
PATIENT = {"sentences", "mcmc_steps", "refine", "max_updates", "max_m_updates", "limit"}


def of_name(name: str) -> st.SearchStrategy:
    """Odd values for a setting."""
    values = st.sampled_from(ODD_VALUES)
    return values.map(lambda value: 3 if value == 2**31 else value) if name in PATIENT else values


def places_of(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where there is something in nested settings."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield (*path, key)
        if isinstance(value[key], (dict, list)):
            yield from places_of(value[key], (*path, key))


def with_value(value: Any, path: tuple, new: Any) -> Any:
    """Nested settings with another value in a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(copy[path[0]], path[1:], new)
    return copy


@st.composite
def odd_settings(draw: st.DrawFn, content: dict, edits: int, avoid: tuple = ()) -> dict:
    """Settings with odd values in some places."""
    # the command line makes sure that these are there, and made of settings
    whole = [("dataset",), ("recipe",), ("rates",), ("dataset", "init_args")] if avoid else []
    found = [
        path
        for path in places_of(content)
        if path[0] not in avoid and path not in whole and path[-1] != "model_betas"
    ]
    paths = draw(st.lists(st.sampled_from(found), max_size=edits, unique=True))
    for path in sorted(paths, key=len, reverse=True):  # what is inside first
        content = with_value(content, path, draw(of_name(str(path[-1]))))
    return content


def run_settings() -> dict:
    """Settings of a tiny run."""
    import yaml

    content = yaml.safe_load((trained() / "config.yaml").read_text())
    content["dataset"]["init_args"].update(sentences=40, interval=2, valid_sentences=5, cache="off")
    content["recipe"]["init_args"].update(samples=4)
    return {
        **content,
        "max_updates": 2,
        "eval_samples": 2,
        "resume": None,
        "out": None,
        "config": None,
    }


def expanded(value: Any) -> Any:
    """Settings with what stands for a deeply nested one replaced by it; it is too deep to print."""
    if isinstance(value, dict):
        return {key: expanded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [expanded(entry) for entry in value]
    if value == "<deep>":
        value = 1.0
        for _ in range(2000):
            value = {"class_path": "gfnem.schedules.Anneal", "init_args": {"start": value}}
    return value


#: what the command line itself makes sure of
OWN = ("accelerator", "devices", "num_nodes", "precision", "seed", "max_updates", "out", "resume",
       "config", "max_m_updates", "patience", "data", "valid", "brackets",
       "eval_samples")  # fmt: skip


@pytest.mark.slow
def test_settings():
    content = run_settings()
    examples = odd_settings(content, 3, OWN)
    fuzz("settings", 100, examples, lambda folder, example: assemble(expanded(example)) and None)


@pytest.mark.slow
def test_training():
    def run(folder: Path, example: dict) -> None:
        try:
            train({**expanded(example), "out": str(folder / "run")})
        finally:
            torch.use_deterministic_algorithms(False)

    fuzz("training", 50, odd_settings(run_settings(), 2, OWN), run)


# ---------------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    """A module on the path that leaves a file when it is imported."""
    folder = tmp_path_factory.mktemp("trap")
    (folder / "trapped.py").write_text(
        "from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG as Model\n"
        f"open({str(folder / 'sprung')!r}, 'w').close()\n"
    )
    sys.path.insert(0, str(folder))
    yield folder / "sprung"
    sys.path.remove(str(folder))


class Payload:
    def __reduce__(self):
        return (exec, ("import sys; sys.unpickled = True",))


FOREIGN = st.sampled_from([
    "trapped.Model", "trapped.sub.Model", "trapped", "os.system", "subprocess.Popen",
    "builtins.exec",
    "gfnem.parsing.grammars.neural_pcfg.NeuralPCFG",
    "gfnem.parsing.spaces.topdown.TopDownSpace", "gfnem.nosuch.X",
    "gfnem.parsing.grammars.neural_pcfg.torch", "..a.b", "", "a\0b.c", "torch.nn.Linear",
    "gfnem.files.write",
])  # fmt: skip


@st.composite
def checkpoints(draw: st.DrawFn, good: bytes) -> tuple[bytes, bool]:
    """A checkpoint after some damage, and whether its bytes were changed."""
    if draw(st.booleans()):
        return Bytes(draw(bent([good], edits=2))), True
    content = torch.load(io.BytesIO(good), weights_only=True)
    kind = draw(st.sampled_from(("settings", "class", "weights", "object", "keys")))
    parameters, state = content["hyper_parameters"], content["state_dict"]
    if kind == "settings":
        content["hyper_parameters"] = draw(odd_settings(dict(parameters), 3))
    elif kind == "class":
        part = draw(st.sampled_from(("model", "space", "policy", "recipe", "schedule")))
        path = draw(FOREIGN)
        parameters[part] = {**(parameters[part] or {}), "class_path": path}
        content["trust"] = draw(st.sampled_from((None, {}, [], 3, {
            "classes": [path], "modules": {"trapped": "trapped.py"}, "signature": "0" * 64,
        })))  # fmt: skip
    elif kind == "weights":
        name = draw(st.sampled_from(sorted(state)))
        odd = [None, 3, "abc", torch.zeros(0), torch.tensor(float("nan")), [], {}, float("inf")]
        odd += [state[name].double() if torch.is_tensor(state[name]) else 2, torch.ones(2, 3)]
        state[draw(st.sampled_from((name, "model.more", 3, "")))] = draw(st.sampled_from(odd))
    elif kind == "object":
        place = draw(st.sampled_from((content, parameters, state)))
        place[draw(st.sampled_from(("model", "epoch", "extra")))] = Payload()
    else:
        place = draw(st.sampled_from((content, parameters, state)))
        key = draw(st.sampled_from(sorted(place, key=str)))
        if draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(st.sampled_from(ODD_VALUES))
    stream = io.BytesIO()
    torch.save(content, stream)
    return Bytes(stream.getvalue()), False


@pytest.mark.slow
def test_checkpoints(trap):
    good = (trained() / "last.ckpt").read_bytes()
    weights = load_run(trained() / "last.ckpt").state_dict()

    def open_run(folder: Path, example: tuple) -> None:
        data, changed = example
        module = load_run(written(folder / "last.ckpt", data))
        if changed:  # nothing that counts, or it would not have been opened
            state = module.state_dict()
            assert all(torch.equal(state[name], weights[name]) for name in weights)
        if module.metadata.get("kind") == "text":
            Answers(Ensemble([module]), "mbr", None, 20, 0)

    fuzz("checkpoints", 100, checkpoints(good), open_run)
    assert not trap.exists(), "a stranger's module was imported"
    assert not hasattr(sys, "unpickled"), "a checkpoint's code was run"


def test_priors(tmp_path):
    BracketEnergy(4).save(tmp_path / "prior.pt")
    good = (tmp_path / "prior.pt").read_bytes()
    whole = BracketEnergy.load(tmp_path / "prior.pt").state_dict()

    def load(folder: Path, data: bytes) -> None:
        state = BracketEnergy.load(written(folder / "prior.pt", data)).state_dict()
        assert all(torch.equal(state[name], value) for name, value in whole.items())

    fuzz("priors", 50, bent([good], edits=1), load)


# ----------------------------------------------------------------------------- the command line

TEXT = TEXTS[0]
YAML = b"seed: 1\nmodel:\n  class_path: NeuralPCFG\n  init_args:\n    dim: 8\n"
NAN = b"rates:\n  class_path: gfnem.rates.Rates\n  init_args:\n    policy: .nan\n"
#: a file's name and content, and the command that reads it
COMMANDS = {
    "name of other bytes": (os.fsdecode(b"caf\xe9.txt"), TEXT, "train --data FILE"),
    "half a character": ("t.jsonl", b'{"a": "x \\ud800 y"}\n' * 9, "train --data FILE:a"),
    "text of another encoding": ("t.txt", TEXT + b"\xe9\n", "train --data FILE"),
    "deep brackets": ("t.mrg", b"(S " * 3000 + b"a b" + b")" * 3000, "train --data FILE"),
    "long rule": ("g.pcfg", b"S -> " + b"'a' " * 1500 + b"[1]", "train --dataset.grammar FILE"),
    "looping rules": ("g.pcfg", b"S -> S [0.5] | 'a' 'b' [0.5]\n" * 2,
    "train --dataset.grammar FILE"),
    "deep settings": ("s.yaml", b"model: " + b"[" * 3000, "train --config FILE"),
    "settings in themselves": ("s.yaml", b"model: &a\n  init_args: *a\n", "train --config FILE"),
    "settings, a strange date": ("s.yaml", b"seed: 2001-13-45\n", "train --config FILE"),
    "settings, a strange number": ("s.yaml", b"seed: 0b_\n", "train --config FILE"),
    "settings of another kind": ("s.yaml", b"em: 3\n", "train --config FILE"),
    "settings, none": ("s.yaml", b"em:\nmodel:\ndataset:\n", "train --config FILE"),
    "settings, NaN": ("s.yaml", YAML + NAN, "train --config FILE"),
    "settings, a list": ("s.yaml", YAML + b"  clip: [1]\n", "train --config FILE"),
    "huge model": ("t.txt", TEXT, "train --data FILE --model.nonterminals 2000000"),
    "huger model": ("t.txt", TEXT, f"train --data FILE --model.preterminals {10**30}"),
    "huge sampler": ("t.txt", TEXT, "train --data FILE --policy.dim 3000000000"),
    "huge rates": ("t.txt", TEXT, "train --data FILE --rates.model 1e300 --rates.policy 1e300"),
    "huge interval": ("t.txt", TEXT, f"train --data FILE --dataset.interval {10**30}"),
    "huge batch": ("t.txt", TEXT, f"train --data FILE --dataset.batch_size {10**30}"),
    "many samples": ("t.txt", TEXT, f"train --data FILE --recipe.samples {10**12}"),
    "no lists of rates": ("t.txt", TEXT, "train --data FILE --rates.model_betas [0,0.9]"),
    "parents or not": ("t.txt", TEXT, "train --data FILE --policy.contexts 5"),
    "another space": ("t.txt", TEXT, "train --data FILE --space.nonterminals 3"),
    "no sentence held out": ("t.txt", TEXT, "train --data FILE --dataset.valid_sentences 0"),
    "text to parse": ("t.txt", TEXT * 2 + "“’\u200d ''\"n't\n".encode(), "parse RUN FILE"),
    "table to parse": ("t.csv", b'a,b\n"x,y\n', "parse RUN FILE:a"),
    "text to evaluate": ("t.txt", b"\xff\xfe" + TEXT, "evaluate RUN --data FILE"),
    "trees to evaluate": ("t.mrg", TREES[1] + b"()" * 3, "evaluate RUN --data FILE"),
    "text to show": ("t.txt", "ᚢᚾᚲ <unk>\n".encode() * 3, "show RUN --data FILE"),
    "prior": ("t.mrg", TREES[1] * 9, "train-prior --data FILE --out OUT --updates 2 --chains 2"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands(capsys, tmp_path, name):
    file, data, line = COMMANDS[name]
    places = {"FILE": tmp_path / file, "RUN": trained(), "OUT": tmp_path / "out.pt"}
    written(tmp_path / file, data)
    words = line.split()
    for word, place in places.items():
        words = [each.replace(word, str(place)) for each in words]
    run = tmp_path / "run"
    if words[0] == "train":
        small = TINY if "--data" not in words else SMALL
        words = ["train", *small, "--max-updates=2", *words[1:], "--out", str(run)]
    with limited_memory():
        code = command(capsys, *words)
    TALLY.setdefault("commands", Counter())[("done", "refused")[code == 2]] += 1
    assert not list(tmp_path.rglob("*.tmp"))
    if words[0] == "train":
        assert (run / "last.ckpt").exists() == (code == 0)
        assert run.exists() == (code == 0), list(run.rglob("*"))


def test_how_many():
    """What all the tests above tried; each kind has its own where they do not all run."""
    for kind, tally in TALLY.items():
        print(f"{kind:12} {tally.total():5,} examples: {tally['done']:4,} done, "
              f"{tally['refused']:4,} refused")  # fmt: skip
    total = sum(tally.total() for tally in TALLY.values())
    print(f"{'in all':12} {total:5,}")
    if len(TALLY) < 10:
        pytest.skip("not all kinds were tried in this process")
    assert total >= 1000
