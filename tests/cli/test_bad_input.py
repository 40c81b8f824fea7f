"""Files that are not what they should be: one line on standard error, and nothing left behind."""

import io
import pickle
import sys
import zipfile

import pytest
import pytorch_lightning as pl
import torch
from commands import SMALL, call, printed, refused, trained

pytestmark = pytest.mark.slow

SENTENCES = "the cat sees the dog\na dog sleeps\nthe dog sees a cat\n" * 5
TREE = "(S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT the) (NN dog))))\n"
LONG = "word " * 2000 + "\n"

#: file content, and what the error must say of it
UNREADABLE = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty"),
    "mark": (b"\xef\xbb\xbf", "empty"),
    "blank": (b"\n\r\n   \n", "3 blank"),
    "punctuation": (b"...\n?!\n", "2 only punctuation"),
    "one-word": (b"yes\nno\n", "2 shorter than 2"),
    "long": (LONG.encode(), "1 longer than"),
    "binary": (b"a cat\n\x7fELF\0\1\2", "line 2: a NUL byte"),
    "latin-1": (b"the cat\nthe caf\xe9\n", "line 2: not UTF-8"),
    "utf-16": ("the cat sees".encode("utf-16"), "line 1"),
    "unclosed": (f"{TREE}\n(S (NP (DT the)\n".encode(), "line 3"),
    "unopened": (f"{TREE}(S (NN cat)))\n".encode(), "line 2"),
    "outside": (f"{TREE}cat\n".encode(), "line 2"),
}


@pytest.fixture(params=UNREADABLE)
def unreadable(request, tmp_path):
    content, expected = UNREADABLE[request.param]
    # a text may hold brackets; what the name calls trees must be trees
    broken = ("outside", "unclosed", "unopened")
    file = tmp_path / ("data.mrg" if request.param in broken else "data.txt")
    if content is not None:
        file.write_bytes(content)
    return file, expected


def test_training_data(capsys, tmp_path, unreadable):
    file, expected = unreadable
    line = refused(capsys, "train", *SMALL, "--data", file, "--out", tmp_path / "run")
    assert file.name in line and expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_validation_and_evaluation_data(capsys, tmp_path, unreadable):
    file, expected = unreadable
    good = tmp_path / "good.txt"
    good.write_text(SENTENCES)
    arguments = ["--data", good, "--valid", file, "--out", tmp_path / "run"]
    line = refused(capsys, "train", *SMALL, *arguments)
    assert file.name in line and expected in line
    assert not (tmp_path / "run").exists()
    line = refused(capsys, "evaluate", trained(), "--data", file)
    # a run on a grammar's sentences takes words as they are: each mark is one
    expected = expected.replace("only punctuation", "shorter than 2")
    assert file.name in line and expected in line


@pytest.mark.parametrize("name", ["missing", "empty", "mark", "binary", "latin-1", "utf-16"])
def test_sentences_to_parse(capsys, tmp_path, name):
    content, expected = UNREADABLE[name]
    file = tmp_path / "data.txt"
    if content is not None:
        file.write_bytes(content)
    line = refused(capsys, "parse", trained(), file)
    assert "data.txt" in line and expected in line


def test_a_folder_without_trees(capsys, tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "readme.md").write_text("no trees here")
    out = tmp_path / "run"
    line = refused(capsys, "train", *SMALL, "--data", tmp_path / "corpus", "--out", out)
    assert "corpus" in line and "no tree file" in line
    (tmp_path / "corpus" / "empty.mrg").write_text("\n")
    line = refused(capsys, "train", *SMALL, "--data", tmp_path / "corpus", "--out", out)
    assert "empty.mrg" in line and "no tree in it" in line
    assert "empty.mrg" in refused(capsys, "parse", trained(), tmp_path / "corpus")
    assert not out.exists()


def test_too_few_words(capsys, tmp_path):
    file = tmp_path / "rare.txt"
    file.write_text("every word differs\nhere and throughout\n")
    line = refused(capsys, "train", *SMALL, "--data", file, "--out", tmp_path / "run")
    assert "rare.txt" in line and "min_count" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_line_ends_marks_blanks_and_long_lines_are_counted_not_feared(capsys, tmp_path):
    file = tmp_path / "text.txt"
    text = f"{SENTENCES}\nyes\n{LONG}...\n".replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    out = printed(
        capsys, "train", *SMALL, "--max-updates=2", "--data", file, "--out", tmp_path / "r"
    )
    assert "19 lines: 15 sentences kept (3-5 tokens)" in out
    assert "1 blank, 1 only punctuation, 1 longer than 20, 1 shorter than 2" in out
    content = torch.load(tmp_path / "r" / "last.ckpt", weights_only=True)
    words = content["hyper_parameters"]["metadata"]["vocabulary"]
    assert set(words) == {"<unk>", "the", "a", "cat", "dog", "sees", "sleeps"}  # no \r, no mark


@pytest.mark.slow
def test_one_word_sentences_can_be_trained_on(capsys, tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("yes\nno\n" * 10)
    flags = ["--dataset.min_length=1", "--max-updates=2", "--out", tmp_path / "run"]
    assert "20 sentences kept (1-1 tokens)" in printed(
        capsys, "train", *SMALL, "--data", file, *flags
    )
    assert printed(capsys, "parse", tmp_path / "run", file).startswith("(TOP yes)\n(TOP no)\n")


def stdin(monkeypatch, data: bytes):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(capsys, monkeypatch):
    stdin(monkeypatch, b"\xef\xbb\xbfa dog\r\nxyzzy plugh\r\n")
    assert printed(capsys, "parse", trained()).count("dog)\n") == 1
    stdin(monkeypatch, b"")
    assert "standard input is empty" in refused(capsys, "parse", trained())
    stdin(monkeypatch, b"a dog\nd\xe9j\xe0 vu\n")
    assert "standard input, line 2: not UTF-8" in refused(capsys, "parse", trained(), "-")


def test_a_long_line_is_left_out_with_a_word(capsys, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(f"a dog sleeps\n{LONG}the cat sees\n")
    capsys.readouterr()
    assert call("parse", trained(), file) == 0
    output = capsys.readouterr()
    first, second, third = output.out.splitlines()
    assert "dog" in first and second == "" and "cat" in third
    assert output.err.count("\n") == 1 and "line 2: 2,000 tokens" in output.err


class Payload:
    """Unpickling this would show."""

    def __reduce__(self):
        return (exec, ("import sys; sys.unpickled = True",))


class Foreign(pl.LightningModule):
    def __init__(self, width: int = 3):
        super().__init__()
        self.save_hyperparameters()
        self.line = torch.nn.Linear(width, 1)

    def training_step(self, batch, index):
        return self.line(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def damaged(kind: str, path):
    """Writes a file that is no checkpoint of ours; what the error must say of it."""
    good = (trained() / "last.ckpt").read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "beginning missing":
        path.write_bytes(good[1000:])
    elif kind == "bytes changed":
        path.write_bytes(good[:200] + bytes(len(good) // 2) + good[200 + len(good) // 2 :])
    elif kind == "random":
        torch.manual_seed(0)
        path.write_bytes(torch.randint(256, (5000,), dtype=torch.uint8).numpy().tobytes())
    elif kind == "text":
        path.write_text("a cat\n")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a cat")
    elif kind in ("pickle", "old pickle"):
        content = {"state_dict": {}, "hyper_parameters": Payload()}
        path.write_bytes(pickle.dumps(content, protocol=2 if kind == "old pickle" else 5))
    elif kind == "object":
        torch.save({"state_dict": {}, "hyper_parameters": Payload()}, path)
    elif kind == "tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "weights alone":
        torch.save(Foreign().state_dict(), path)
    elif kind == "foreign":
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Foreign(), torch.utils.data.DataLoader(torch.ones(2, 3)))
        trainer.save_checkpoint(path)
    else:
        content = torch.load(io.BytesIO(good), weights_only=True)
        parameters = content["hyper_parameters"]
        if kind == "model not importable":
            parameters["model"]["class_path"] = "gone_grammar.MyGrammar"
        elif kind == "model of another size":
            parameters["model"]["init_args"]["nonterminals"] = 5
        elif kind == "not a model":
            parameters["model"]["class_path"] = "subprocess.Popen"
        elif kind == "unknown setting":
            parameters["model"]["init_args"]["colour"] = "red"
        elif kind == "older version":
            state = content["state_dict"]
            content["state_dict"] = {n.removeprefix("em."): v for n, v in state.items()}
        elif kind == "weights missing":
            del content["state_dict"]
        torch.save(content, path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("empty", "not a checkpoint"),
        ("truncated", "not a checkpoint, or a damaged one"),
        ("beginning missing", "not a checkpoint, or a damaged one"),
        ("bytes changed", "damaged"),
        ("random", "not a checkpoint"),
        ("text", "not a checkpoint"),
        ("zip", "not a checkpoint"),
        ("pickle", "not a checkpoint, or a damaged one"),  # of a protocol torch never writes
        ("old pickle", "more than plain data"),
        ("object", "more than plain data"),
        ("tensor", "not a gfnem checkpoint"),
        ("weights alone", "not a gfnem checkpoint"),
        ("foreign", "not a gfnem checkpoint"),
        ("model not importable", "cannot import gone_grammar.MyGrammar"),
        ("model of another size", "do not fit"),
        ("not a model", "subprocess.Popen is not a Target"),
        ("unknown setting", "colour"),
        ("older version", "from an older version of gfnem, which this one cannot read; train"),
        ("weights missing", "not a gfnem checkpoint"),
    ],
)
def test_checkpoints(capsys, tmp_path, kind, expected):
    file = tmp_path / "run" / "last.ckpt"
    file.parent.mkdir()
    damaged(kind, file)
    sentence = tmp_path / "text.txt"
    sentence.write_text("a dog\n")
    for command in (
        ["parse", file, sentence],
        ["parse", file.parent, sentence],
        ["generate", file],
        ["evaluate", file, "--data", sentence],
    ):
        line = refused(capsys, *command)
        assert "last.ckpt" in line and expected in line, line
    assert not hasattr(sys, "unpickled"), "a checkpoint's code was run"


@pytest.mark.parametrize("kind", ["truncated", "object", "older version", "weights missing"])
def test_resuming_from_a_damaged_checkpoint(capsys, tmp_path, kind):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes((trained() / "config.yaml").read_bytes())
    damaged(kind, run / "last.ckpt")
    assert "last.ckpt" in refused(capsys, "train", "--resume", run, "--max-updates=30")
    assert not hasattr(sys, "unpickled")
    (run / "config.yaml").write_text("model: {")
    assert "config.yaml, line 1: not YAML" in refused(capsys, "train", "--resume", run)


def test_folders_that_hold_no_run(capsys, tmp_path):
    for verb in ("parse", "generate", "evaluate"):
        assert "no such run" in refused(capsys, verb, tmp_path / "nosuch")
        assert "no last.ckpt" in refused(capsys, verb, tmp_path)
