"""Numbers that no training could use are refused in one line, before any folder is made."""

import pytest
from commands import TINY, call, printed, refused

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--model.dim 0", "dim 0: at least 1"),
        ("--model.nonterminals -3", "nonterminals -3: at least 1"),
        ("--policy.dim 0", "dim 0: at least 1"),
        ("--policy.dropout 1", "dropout 1.0: at least 0 and less than 1"),
        ("--recipe.objective.local -1", "local -1.0: at least 0"),
        (
            "--recipe.objective SubTrajectoryBalance --recipe.objective.decay 0",
            "decay 0.0: more than 0",
        ),
        ("--schedule.m_every 0", "m_every 0: at least 1"),
        ("--schedule Alternating --schedule.e_updates 0", "e_updates 0: at least 1"),
        ("--schedule AdaptiveThreshold --schedule.level .nan", "level nan: a finite number"),
        ("--dataset.max_length 0", "max_length 0: at least 1"),
        ("--dataset.valid_sentences -1", "valid_sentences -1: at least 0"),
        ("--dataset.max_vocabulary 1", "max_vocabulary 1: at least 2"),
        ("--dataset.seed -1", "seed -1: at least 0"),
        ("--dataset gfnem.mixtures.Petals --dataset.sd 0", "sd 0.0: more than 0"),
        ("--dataset gfnem.mixtures.Petals --dataset.centres [[0,.inf]]", "centres inf: a finite"),
        ("--dataset gfnem.images.data.Images --dataset.threshold 1", "threshold 1.0: at least 0"),
        (
            "--recipe.side TreebankBrackets --recipe.side.treebank x --recipe.side.weight -1",
            "weight -1.0",
        ),
        ("--max-updates 0", "--max-updates 0: at least 1"),
        ("--max-m-updates -1", "--max-m-updates -1: at least 1"),
        ("--devices 0", "--devices 0: at least 1"),
        ("--seed 4294967296", "--seed 4294967296: at least 0 and at most 4294967295"),
    ],
)
def test_training(capsys, tmp_path, flags, says):
    asked = [word.split(".")[0] for word in flags.split() if word.startswith("--")]
    if "--dataset" in flags.split():  # another world has another model
        asked += ["--model", "--policy"]
    tiny = [flag for flag in TINY if not ("=" in flag and flag.split(".")[0] in asked)]
    line = refused(capsys, "train", *tiny, *flags.split(), "--out", tmp_path / "run")
    assert says in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("parse RUN --max-length 0", "--max-length 0: at least 1"),
        ("parse RUN --samples -1", "--samples -1: at least 1"),
        ("parse RUN --seed -1", "--seed -1: at least 0"),
        ("evaluate RUN --samples 0", "--samples 0: at least 1"),
        ("evaluate RUN --limit 0", "--limit 0: at least 1"),
        ("generate RUN --count -2", "--count -2: at least 1"),
        ("train-prior --data X --out Y --rate -1", "--rate -1.0: more than 0"),
        ("train-prior --data X --out Y --penalty -1", "--penalty -1.0: at least 0"),
        ("train-prior --data X --out Y --max-length 0", "--max-length 0: at least 1"),
        ("train-prior --data X --out Y --moves 0", "--moves 0: at least 1"),
    ],
)
def test_the_other_commands(capsys, arguments, says):
    assert says in refused(capsys, *arguments.split())


def test_a_settings_file_is_checked_too(capsys, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("max_updates: 0\n")
    assert "--max-updates 0: at least 1" in refused(capsys, "train", "--config", file)
    file.write_text("model:\n  class_path: NeuralPCFG\n  init_args:\n    dim: -2\n")
    assert "dim -2: at least 1" in refused(capsys, "train", "--config", file)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "type: int, at least 1, default: 1000"),
        (["--model.help"], "type: int, at least 1, default: 256"),
        (["--policy.help"], "type: float, at least 0 and less than 1, default: 0.2"),
        (["--schedule.help", "AdaptiveThreshold"], "type: float | Anneal"),
        (["--reward.help", "BracketPrior"], "type: float, more than 0 | Anneal, default: 1.0"),
        (["--dataset.help", "gfnem.mixtures.Petals"], "type: Sequence[Sequence[float]]"),
    ],
)
def test_help_says_the_ranges_readably(capsys, arguments, says):
    text = " ".join(printed(capsys, "train", *arguments).split())
    assert says in text
    for ugly in ("Annotated", "Union", "Optional", "Range(", "a finite number"):
        assert ugly not in text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--dataset.seed x", "dataset.seed: expected int"),
        ("--schedule AdaptiveThreshold --schedule.level warm", "schedule.level: expected float"),
    ],
)
def test_a_setting_of_a_setting_is_named(capsys, flags, says):
    assert says in refused(capsys, "train", *flags.split())


@pytest.mark.slow
def test_what_is_allowed_at_the_edge(tmp_path):
    flags = ["--dataset.valid_sentences=0", "--policy.dropout=0", "--max-updates=1"]
    assert call("train", *TINY, *flags, "--out", tmp_path / "run") == 0
