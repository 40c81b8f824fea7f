"""Help, flags, settings files, seeds and run folders."""

import re

import pytest
import torch
import yaml
from commands import SMALL, TINY, call, printed, refused, same, trained

from gfnem.errors import UserError
from gfnem.parsing import BracketEnergy
from gfnem.world import find

pytestmark = pytest.mark.slow


def weights(run):
    content = torch.load(run / "last.ckpt", weights_only=True)
    return {name: content["state_dict"][name] for name in sorted(content["state_dict"])}


def same_weights(one, other):
    return all(
        same(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True)
    )


def test_without_a_command_the_help_is_shown(capsys):
    assert call() == 2
    text = capsys.readouterr().err
    assert all(f"\n    {verb} " in text for verb in ("train", "parse", "evaluate", "generate"))


def test_help_of_train_explains_every_setting(capsys):
    text = printed(capsys, "train", "--help")
    entries = re.findall(r"\n  (-.+(?:\n {4,}.*)*)", text)
    assert len(entries) > 25
    for entry in entries:
        name, *lines = entry.split("\n")
        about = " ".join([name.split("  ", 1)[1] if "  " in name else "", *lines]).strip()
        assert re.match(r"[\w\"`'][^(]{8}", about), f"no explanation: {entry}"
    for ugly in ("class_path", "Optional[", "null", "gfnem.", "<class", "Union"):
        assert ugly not in text, ugly


def test_a_model_that_train_cannot_train_is_not_listed(capsys):
    text = " ".join(printed(capsys, "train", "--help").split())
    assert "NeuralPCFG" in text and BracketEnergy.__name__ not in text
    assert "(default: gflownet, known: " in text
    error = refused(capsys, "train", "--model", "nosuch")
    assert "NeuralPCFG" in error and BracketEnergy.__name__ not in error


@pytest.mark.parametrize("verb", ["parse", "evaluate", "generate"])
def test_help_of_the_others_explains_every_setting(capsys, verb):
    text = printed(capsys, verb, "--help")
    entries = re.findall(r"\n  (\S.*(?:\n {4,}.*)*)", text.partition("arguments:")[2])
    for entry in entries:
        name, *lines = entry.split("\n")
        about = " ".join([name.split("  ", 1)[1] if "  " in name else "", *lines]).strip()
        assert re.match(r"[\w-][^(]{5}", about), f"no explanation: {entry}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model.help"], "--model.nonterminals"),
        (["--dataset.help"], "--dataset.max_length"),
        (["--schedule.help", "AdaptiveThreshold"], "--schedule.level"),
        (["--schedule", "Alternating", "--schedule.help"], "--schedule.e_updates"),
    ],
)
def test_help_of_a_part_is_that_of_the_class_chosen(capsys, arguments, expected):
    text = printed(capsys, "train", *arguments)
    assert expected in text
    for entry in re.findall(r"\n  (--.+(?:\n {4,}.*)*)", text):
        assert re.search(r"\s\w+ \w+", entry.partition(" ")[2]), f"no explanation: {entry}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nosuch"], "nosuch"),
        (["train", "--nosuch", "3"], "unknown argument: --nosuch 3"),
        (["train", "extra"], "unknown argument: extra"),
        (["train", "--data"], "--data"),
        (["train", "--max-updates", "x"], "max_updates: expected int, not x"),
        (["train", "--max-updates", "0"], "at least 1"),
        (["train", "--max-m-updates", "0"], "at least 1"),
        (["train", "--seed", "-1"], "--seed -1"),
        (["train", "--model", "NoSuch"], "model: there is no class NoSuch"),
        (["train", "--model", "no_such_file.Grammar"], "No module named 'no_such_file'"),
        (["train", "--model", "gfnem.schedules.Anneal"], "gfnem.schedules.Anneal is not a Target"),
        (["train", "--model.nonterminalz", "3"], "NeuralPCFG: unknown setting nonterminalz"),
        (["train", "--model.nonterminals", "x"], "nonterminals: expected int, not x"),
        (["train", "--schedule", "AdaptiveThreshold"], "missing: level"),
        (["train", "--recipe.temperature", "warm"], "recipe.temperature: expected float"),
        (["train", "--recipe", "nosuch"], "no class nosuch; there are "),
        (["train", "--recipe.samples", "1"], "VarGrad compares samples"),
        (["train", "--recipe.objective", "nosuch"], "nosuch; there are BackwardLikelihood, Bal"),
        (["train", "--recipe", "gfnem.recipes.fitting"], "without the decorator @gfnem.recipe"),
        (["train", "--e-step", "exact"], "(--e-step is --recipe now)"),
        (["train", "--objective=VarGrad"], "(--objective is --recipe.objective now)"),
        (["train", "--timing.e_every", "2"], "(--timing.e_every is --schedule.e_every now)"),
        (["train", "--shapes", "trees.mrg"], "(--shapes is --brackets now)"),
        (
            ["train", "--em.samples=8", "--em.policy_lr=1", "--em.eval_samples=4"],
            "(--em.samples is --recipe.samples now, --em.policy_lr is --rates.policy now, "
            "--em.eval_samples is --eval-samples now)",
        ),
        (["train", "--accelerator", "abacus"], "abacus"),
        (["train", "--precision", "exquisite"], "exquisite"),
        (["train", "--devices", "0"], "devices"),
        (["train", "--dataset.grammar", "klingon"], "klingon"),
        (["train", "--dataset.interval", "0"], "at least 1"),
        (["train", "--dataset.sentences", "0"], "sentences 0: at least 1"),
        (["parse"], "missing: run"),
        (["parse", "x", "--decode", "best"], "'best'"),
        (["parse", "x", "--samples", "0"], "--samples 0"),
        (["evaluate", "x", "--format", "xml"], "'xml'"),
        (["generate", "x", "-n", "0"], "--count 0"),
    ],
)
def test_wrong_arguments(capsys, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train":
        arguments = ["train", *(flag for flag in TINY if "updates" not in flag), *arguments[1:]]
        if "--dataset.sentences" in arguments or "--dataset.interval" in arguments:
            arguments = [flag for flag in arguments if not flag.startswith("--dataset.sentences=")]
    assert expected in refused(capsys, *arguments)
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"model: [1, 2\nseed: {", "line 2: not YAML"),
        (b"- seed\n- model\n", "no settings in it"),
        (b"just words", "no settings in it"),
        (b"seed: \xff\n", "line 1: not UTF-8"),
        (b"modle:\n  class_path: NeuralPCFG\n", "unknown setting modle"),
        (b"em:\n  samples: 8\n", "(em.samples is recipe.samples now)"),
        (b"seed: many\n", "seed: expected int, not many"),
        (b"model:\n  class_path: NoSuch\n", "there is no class NoSuch"),
        (b"reward: none\n", "reward: there is no class none; null goes without; there are Agree"),
        (b"model:\n  class_path: NeuralPCFG\n  init_args:\n    depth: 3\n", "setting depth"),
    ],
)
def test_wrong_settings_files_are_named(capsys, tmp_path, content, expected):
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_bytes(content)
    line = refused(capsys, "train", "--config", file, "--out", tmp_path / "run")
    assert "settings.yaml" in line and expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_printed_settings_can_be_trained_with(capsys, tmp_path):
    flags = [flag for flag in TINY if "nonterminals" not in flag]
    text = printed(capsys, "train", *flags, "--recipe.sleep=0.5", "--print_config")
    settings = yaml.safe_load(text)
    assert settings["recipe"]["init_args"]["sleep"] == 0.5
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    run = tmp_path / "run"
    # flags come after the file and win
    printed(
        capsys, "train", "--config", file, "--model.nonterminals=3", "--max-updates=2", "--out", run
    )
    kept = yaml.safe_load((run / "config.yaml").read_text())
    assert (
        kept["recipe"]["init_args"]["sleep"] == 0.5
        and kept["model"]["init_args"]["nonterminals"] == 3
    )
    assert kept["dataset"]["init_args"]["sentences"] == 200 and kept["max_updates"] == 2


@pytest.mark.slow
def test_the_seed_is_also_the_datas_unless_it_has_its_own(capsys, tmp_path):
    runs = {}
    for name, flags in {
        "zero": [],
        "one": ["--seed=1"],
        "one more": ["--seed=1"],
        "one, data of its own": ["--seed=1", "--dataset.seed=0"],
    }.items():
        runs[name] = tmp_path / name
        # no M-step learning: what differs is the first weights and the sentences drawn
        printed(capsys, "train", *TINY, "--max-updates=2", *flags, "--out", runs[name])

    def seed_of_data(name):
        content = torch.load(runs[name] / "last.ckpt", weights_only=True)
        return content["hyper_parameters"]["metadata"]["seed"]

    assert [seed_of_data(name) for name in runs] == [0, 1, 1, 0]
    assert same_weights(runs["one"], runs["one more"])
    assert not same_weights(runs["one"], runs["zero"])
    assert not same_weights(runs["one"], runs["one, data of its own"])


@pytest.mark.slow
def test_run_folders_are_numbered_and_never_overwritten(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "1").mkdir(parents=True)
    out = printed(capsys, "train", *TINY, "--max-updates=1")
    assert "done: runs/2 holds best.ckpt, last.ckpt, config.yaml, metrics.csv" in out
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs/2").iterdir()}
    assert "already holds a run" in refused(capsys, "train", *TINY, "--out", "runs/2")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "runs/2").iterdir()}
    (tmp_path / "file").write_text("mine")
    assert "cannot make" in refused(capsys, "train", *TINY, "--out", "file")


@pytest.mark.slow
def test_resuming_needs_a_run_that_fits(capsys, tmp_path):
    assert "no run to resume" in refused(capsys, "train", "--resume", tmp_path)
    assert "give either" in refused(capsys, "train", "--resume", trained(), "--out", tmp_path / "r")
    line = refused(capsys, "train", "--resume", trained(), "--model.nonterminals=7")
    assert "weights do not fit" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_updates(capsys, tmp_path):
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    printed(
        capsys, "train", *SMALL, "--dataset.sentences=100", "--max-updates=20", "--out", straight
    )
    printed(capsys, "train", *SMALL, "--dataset.sentences=100", "--max-updates=10", "--out", parts)
    assert "has had its 10 updates" in printed(capsys, "train", "--resume", parts)
    before = (parts / "config.yaml").read_bytes()
    assert "has had its 10" in printed(capsys, "train", "--resume", parts, "--recipe=exact")
    assert (parts / "config.yaml").read_bytes() == before  # nothing was trained by it
    out = printed(capsys, "train", "--resume", parts, "--max-updates=20")
    assert "going on after update 10" in out
    assert same_weights(straight, parts)
    assert yaml.safe_load((parts / "config.yaml").read_text())["max_updates"] == 20


@pytest.mark.parametrize(
    "flags",
    [
        ["--recipe.objective.pseudo_huber", "true", "--recipe.objective", "VarGrad"],
        ["--recipe.objective.pseudo_huber=true", "--recipe.objective=VarGrad", "--recipe=gflownet"],
        ["--recipe.objective", "VarGrad", "--recipe.objective.pseudo_huber", "true", "--seed", "3"],
    ],
)
def test_a_class_may_stand_after_its_settings(capsys, flags):
    settings = yaml.safe_load(printed(capsys, "train", *flags, "--print_config"))
    objective = settings["recipe"]["init_args"]["objective"]
    assert objective["class_path"].endswith(".VarGrad")
    assert objective["init_args"]["pseudo_huber"] is True
    assert settings["seed"] == (3 if "--seed" in flags else 0)


@pytest.mark.parametrize("form", ["--world {}", "--world={}", "file"])
@pytest.mark.parametrize("dataset", ["Points", "BinaryImages"])
def test_a_world_may_be_named_with_its_dataset(capsys, tmp_path, form, dataset):
    def settings(world, *flags):
        words = form.format(world).split()
        if form == "file":
            file = tmp_path / "settings.yaml"
            file.write_text(f"world: {world}\n")
            words = ["--config", str(file)]
        text = printed(capsys, "train", *words, *flags, "--seed", "3", "--print_config")
        return {**yaml.safe_load(text), "world": None}

    found = settings(f"energies.{dataset}")
    assert found == settings("energies", "--dataset", dataset)
    assert found["dataset"]["class_path"].endswith(f".{dataset}")
    with pytest.raises(UserError, match="no dataset Lines; it has BinaryImages, Points"):
        find("energies.Lines")


def test_training_that_diverges_ends_with_advice(capsys, tmp_path):
    said = refused(capsys, "train", *TINY, "--rates.model=1e6", "--out", tmp_path / "run")
    assert "no finite gradient" in said and "learning rate" in said
