"""Opening a run imports no code that its user has not named."""

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
import torch
import yaml
from commands import SMALL, printed, refused, trained

from gfnem.component import build
from gfnem.errors import UserError
from gfnem.running import trust
from gfnem.target import Target

MY_GRAMMAR = Path(__file__).parents[2] / "experiments" / "my_grammar.py"
EVIL = "import pathlib\npathlib.Path({mark!r}).write_text('here')\n"
TEXT = "the dog sees a cat\na cat sleeps\nthe cat sees the dog with a cat\n" * 10
FLAGS = [flag for flag in SMALL if "terminals" not in flag and "model.dim" not in flag]


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """A state folder of one's own, an empty working folder, and imports that are forgotten."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    # other tests may have put the folder of the file, or the file itself, among what is imported
    places = [place for place in sys.path if place and not Path(place, "my_grammar.py").exists()]
    monkeypatch.setattr(sys, "path", places)
    monkeypatch.delitem(sys.modules, "my_grammar", raising=False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("evil", "evil_package", "my_grammar", "helper", "lab"):
            del sys.modules[name]


@pytest.fixture
def mark(tmp_path):
    """The file that the malicious module writes when it is imported."""
    return tmp_path / "mark"


def plant(mark, name="evil.py"):
    """The malicious module in the working folder."""
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(EVIL.format(mark=str(mark)))


#: either is what a command opens
CHECKPOINTS = ("last.ckpt", "best.ckpt")


def save(content, run):
    for name in CHECKPOINTS:
        torch.save(content, run / name)


def stranger(run, part="model", path="evil.Model", **arguments):
    """A run whose checkpoint and settings name a class of the stranger's."""
    shutil.copytree(trained(), run)
    spec = {"class_path": path, "init_args": arguments}
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["hyper_parameters"][part] = spec
    save(content, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (settings if part in settings else settings["recipe"]["init_args"])[part] = spec
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return run


def openings(run):
    Path("text").write_text("a dog\n")
    return [
        ["parse", run, "text"],
        ["evaluate", run, "--data", "text"],
        ["generate", run],
        ["train", "--resume", run, "--max-updates=30"],
    ]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("model", "evil.Model"),
        ("model", "evil_package.inner.Model"),
        ("policy", "antigravity.Model"),  # installed, but neither ours nor asked for
        ("side", "evil.Model"),
    ],
)
def test_a_strangers_module_in_the_working_folder(capsys, tmp_path, mark, part, path):
    plant(mark)
    plant(mark, "evil_package/__init__.py")
    plant(mark, "evil_package/inner.py")
    run = stranger(tmp_path / "run", part, path)
    for command in openings(run):
        if part == "side" and command[0] != "train":  # which only training asks for
            printed(capsys, *command)
            continue
        line = refused(capsys, *command)
        assert f"cannot import {path}" in line and "--code" in line, line
    assert not mark.exists() and "antigravity" not in sys.modules


def test_inside_another_part(capsys, tmp_path, mark):
    plant(mark)
    inner = {"class_path": "evil.Model", "init_args": {}}
    run = stranger(tmp_path / "run", "reward", "gfnem.parsing.BracketPrior", prior=inner)
    for command in openings(run):
        refused(capsys, *command)
    assert not mark.exists()


@pytest.mark.parametrize(
    "disguise",
    [
        "evil.Model",
        "{class_path: evil.Model}",
        '{"class_path": "evil.Model", "init_args": {}}',
        "part.yaml",
    ],
)
def test_settings_that_name_it_otherwise(capsys, tmp_path, mark, disguise):
    plant(mark)
    Path("part.yaml").write_text("class_path: evil.Model\n")
    run = stranger(tmp_path / "run")
    for name in CHECKPOINTS:
        shutil.copy(trained() / name, run)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    for place in (settings, settings["recipe"]["init_args"]):
        place["model" if place is settings else "side"] = disguise
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        refused(capsys, "train", "--resume", run, "--max-updates=30")
    assert not mark.exists()


def test_the_data_of_another_world(capsys, tmp_path, mark):
    plant(mark)
    run = stranger(tmp_path / "run", "metadata")
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["metadata"] = {}
    save(content, run)
    settings = yaml.safe_load((trained() / "config.yaml").read_text())
    settings["dataset"] = {"class_path": "evil.Data"}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    assert "cannot import evil.Data" in refused(capsys, "evaluate", run)
    assert not mark.exists()


def test_modules_that_the_program_needs_are_not_taken_from_the_working_folder(capsys, mark):
    for name in ("rich", "matplotlib", "datasets", "json", "random"):
        plant(mark, f"{name}.py")
    for command in openings(trained())[:3]:
        printed(capsys, *command)
    assert not mark.exists()


# -------------------------------------------------------------------------- the ways that are open


@pytest.fixture
def own(capsys, tmp_path):
    """A run with a model in a file of the user's own, which has not been imported since."""
    folder = tmp_path / "mine"
    folder.mkdir()
    shutil.copy(MY_GRAMMAR, folder)
    (folder / "text.txt").write_text(TEXT)
    os.chdir(folder)
    run = folder / "run"
    printed(
        capsys, "train", *FLAGS, "--model=my_grammar.MyGrammar", "--data=text.txt", "--out", run
    )
    content = torch.load(run / "last.ckpt", weights_only=True)
    content["trust"] = trust.sign(content["hyper_parameters"])
    save(content, run)
    os.chdir(tmp_path / "here")
    del sys.modules["my_grammar"]
    while str(folder) in sys.path:
        sys.path.remove(str(folder))
    return run


@pytest.mark.slow
def test_ones_own_run_opens_anywhere(capsys, own):
    for command in openings(own):
        if command[0] == "generate":  # this model cannot
            assert "offers no sample" in refused(capsys, *command)
        else:
            printed(capsys, *command)
        assert sys.modules.pop("my_grammar").__file__ == str(own.parent / "my_grammar.py")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["signature", "key", "no key", "open key", "class", "file"])
def test_a_run_that_is_not_quite_ones_own(capsys, tmp_path, mark, own, change):
    key = tmp_path / "state" / "gfnem" / "key"
    content = torch.load(own / "last.ckpt", weights_only=True)
    if change == "signature":
        content["trust"]["signature"] = "0" * 64
    elif change == "key":
        key.write_bytes(bytes(32))
    elif change == "no key":
        key.unlink()
    elif change == "open key":
        key.chmod(0o644)
    elif change == "class":
        content["hyper_parameters"]["policy"] = {"class_path": "my_grammar.WIDEST"}
    else:
        plant(mark)
        content["trust"]["modules"]["my_grammar"] = str(Path("evil.py").resolve())
    save(content, own)
    for command in openings(own)[:3]:
        assert "--code my_grammar.py" in refused(capsys, *command)
    assert "my_grammar" not in sys.modules and not mark.exists()


@pytest.mark.slow
def test_code_named_by_the_user(capsys, own):
    (own.parent / "my_grammar.py").rename("my_grammar.py")
    command = openings(own)[0]
    line = refused(capsys, *command)
    assert "best.ckpt" in line and "my_grammar.py is gone" in line and "--code" in line
    for command in openings(own):
        if command[0] != "generate":
            printed(capsys, *command, "--code", "my_grammar.py")
            del sys.modules["my_grammar"]


@pytest.mark.slow
def test_an_import_of_the_users_own(capsys, tmp_path, own, monkeypatch):
    (tmp_path / "state" / "gfnem" / "key").unlink()
    monkeypatch.syspath_prepend(str(own.parent))
    refused(capsys, *openings(own)[0])  # being importable is not enough
    import my_grammar  # noqa: F401

    printed(capsys, *openings(own)[0])


@pytest.mark.slow
def test_training_names_code_itself(capsys, tmp_path):
    folder = tmp_path / "settings"
    folder.mkdir()
    shutil.copy(MY_GRAMMAR, folder)
    Path("text.txt").write_text(TEXT)
    (folder / "my.yaml").write_text("model:\n  class_path: my_grammar.MyGrammar\n")
    flags = [*FLAGS, "--data=text.txt", "--max-updates=1"]
    # the settings' own folder is searched
    printed(capsys, "train", *flags, "--config", folder / "my.yaml", "--out=one")
    del sys.modules["my_grammar"]
    sys.path.remove(str(folder))
    code = ["--code", folder / "my_grammar.py", "--model", "my_grammar.MyGrammar"]
    printed(capsys, "train", *flags, *code, "--out=two")
    assert "code" not in yaml.safe_load(Path("two/config.yaml").read_text())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone.py", None, "gone.py: no such file"),
        ("no such thing", None, "no such file"),
        ("no_such_module", None, "No module named 'no_such_module'"),
        ("evil.py", "1 +", "SyntaxError"),
        ("evil.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("evil.txt", "x = 1", "not a Python file"),
    ],
)
def test_code_that_cannot_be_imported(capsys, name, content, says):
    if content is not None:
        Path(name).write_text(content)
    line = refused(capsys, "parse", trained(), "--code", name)
    assert f"--code {name}" in line and says in line
    assert "evil" not in sys.modules


def test_a_module_of_a_package_is_named_with_dots(monkeypatch, tmp_path):
    package = tmp_path / "packages" / "lab"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    shutil.copy(MY_GRAMMAR, package / "models.py")
    monkeypatch.syspath_prepend(str(package.parent))
    spec = {"class_path": "lab.models.MyGrammar", "init_args": {"vocab_size": 3}}
    with pytest.raises(UserError, match=r"--code lab\.models"), trust.opening(spec):
        build(spec, Target)
    trust.use_code(["lab.models"])
    with trust.opening(spec):
        assert type(build(spec, Target)).__name__ == "MyGrammar"
    signed = trust.sign(spec)
    for name in ("lab.models", "lab"):
        del sys.modules[name]
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(package.parent)])
    with trust.opening(spec, signed):
        assert type(build(spec, Target)).__name__ == "MyGrammar"


# -------------------------------------------------------------------------- the key


def test_the_key_is_private_whole_and_made_once(tmp_path):
    sys.modules["evil"] = type(sys)("evil")
    sys.modules["evil"].__file__ = "/somewhere/evil.py"
    spec = {"class_path": "evil.Model"}
    assert trust.sign({"class_path": "gfnem.objectives.VarGrad"}) == {}
    assert not (tmp_path / "state").exists(), "a key is made only where there is something to sign"
    signed = trust.sign(spec)
    key = tmp_path / "state" / "gfnem" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    assert trust.sign(spec) == signed and [p.name for p in key.parent.iterdir()] == ["key"]
    assert signed["modules"] == {"evil": "/somewhere/evil.py"}


def test_without_a_place_for_the_key_nothing_is_signed(tmp_path, monkeypatch):
    sys.modules["evil"] = type(sys)("evil")
    sys.modules["evil"].__file__ = "/somewhere/evil.py"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert trust.sign({"class_path": "evil.Model"}) == {}
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert trust.sign({"class_path": "evil.Model"}) == {}


def test_python_users_build_what_they_like(tmp_path, monkeypatch):
    shutil.copy(MY_GRAMMAR, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = {"class_path": "my_grammar.MyGrammar", "init_args": {"vocab_size": 3}}
    assert isinstance(build(spec, Target), Target)
