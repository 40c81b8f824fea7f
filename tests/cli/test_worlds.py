"""The verbs of every world, with worlds that come with gfnem and one of a user's own."""

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import call, printed, refused, trained

import gfnem

pytestmark = pytest.mark.slow

OWN = Path(__file__).parents[1] / "world_of_numbers.py"
FLAGS = ["--accelerator=cpu", "--max-updates=10"]


def records(capsys, *arguments):
    return [json.loads(line) for line in printed(capsys, *arguments).splitlines()]


def figures(capsys, *arguments):
    return json.loads(printed(capsys, "evaluate", *arguments, "--format=json"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of each world."""
    place = tmp_path_factory.mktemp("worlds")
    shutil.copy(OWN, place / "own.py")
    (place / "numbers.txt").write_text("0\n2\n1\n" * 10)
    generator = np.random.default_rng(0)
    images = (generator.random((30, 4, 4)) < 0.5).astype(np.uint8)
    np.savez(place / "images.npz", x_train=images[:20], x_test=images[20:])
    np.save(place / "images.npy", images[:2])
    np.save(place / "points.npy", generator.normal(size=(30, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "path", list(sys.path))
        points = ["--data=points.npy", "--dataset.interval=5", "--out=points"]
        assert call("train", "--world=points", *FLAGS, *points) == 0
        grid = ["--dataset.codes=3", "--dataset.validation=5", "--dataset.interval=5"]
        grid += ["--dataset.test_samples=10", "--model.channels=4", "--out=images"]
        assert call("train", "--world=images", "--data=images.npz", *FLAGS, *grid) == 0
        own = ["--data=numbers.txt", "--out=own_run"]
        assert call("train", "--world=own.Numbers", *FLAGS, *own) == 0
    (place / "text").symlink_to(trained())
    sys.modules.pop("own", None)
    return place


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    yield place
    sys.modules.pop("own", None)


def test_what_there_is(capsys):
    lines = printed(capsys, "worlds").splitlines()
    names = ["dependencies", "energies", "graphs", "images", "points"]
    names += ["sentences", "text", "toys"]
    assert [line.split()[0] for line in lines] == names
    assert all("; --data: " in line and " and " in line for line in lines)


def test_a_world_that_cannot_be_imported_is_in_nobodys_way(capsys, here, monkeypatch):
    worlds = {"broken": "no.such:World", "points": "gfnem.mixtures.world:PointsWorld"}
    for module in ("world", "cli.worlds", "cli.shared"):
        monkeypatch.setattr(f"gfnem.{module}.declared", lambda group: worlds)
    lines = printed(capsys, "worlds").splitlines()
    assert lines[0].startswith("broken       cannot be used: world broken: cannot import no.such")
    assert lines[1].startswith("points ")
    assert "--decode" in refused(capsys, "evaluate", "points", "--decode=map")


@pytest.mark.parametrize("world", ["points", "images"])
def test_the_defaults_of_a_world_are_its_experiment(capsys, world):
    experiment = {"points": "mixture", "images": "dvae"}[world]
    ours, theirs = (
        # a class may be written with a shorter import path
        yaml.safe_load(re.sub(r"class_path: gfnem\S*\.", "class_path: ", printed(capsys, *flags)))
        for flags in (
            ["train", f"--world={world}", "--print_config"],
            ["train", f"--config={experiment}", "--print_config"],
        )
    )
    assert ours == theirs and ours["world"] == world


def test_a_class_is_known_by_its_bare_name_in_its_world(capsys):
    flags = ["--space=AnyOrderGrid", "--policy=AnyOrderPolicy", "--print_config"]
    content = yaml.safe_load(printed(capsys, "train", "--world=images", *flags))
    assert content["space"]["class_path"] == "gfnem.images.grids.AnyOrderGrid"
    # settings of the default class do not leak into another
    assert "trust" not in content["policy"]["init_args"]


@pytest.mark.parametrize(
    ("run", "file", "latents"),
    [
        ("points", "points.npy", 16),
        ("images", "images.npy", 81),
        ("images", "images.npz", 81),
        ("own_run", "numbers.txt", 3),
    ],
)
def test_infer(capsys, here, run, file, latents):
    found = records(capsys, "infer", run, file, "-k", "2", "--samples=500")
    assert len(found) == {"points.npy": 30, "images.npy": 2, "images.npz": 10}.get(file, 30)
    for record in found:
        first, second = record["latents"]
        assert first["latent"] != second["latent"]
        assert first["log_prob"] >= second["log_prob"]
        for latent in (first, second):
            difference = latent["log_joint"] - record["log_marginal"]
            assert latent["log_prob"] == pytest.approx(difference, abs=1e-4)
        assert math.exp(first["log_prob"]) + math.exp(second["log_prob"]) <= 1 + 1e-4
    (whole, *_) = records(capsys, "infer", run, file, "-k", "100", "--samples=2000")
    total = sum(math.exp(latent["log_prob"]) for latent in whole["latents"])
    assert len(whole["latents"]) <= latents and total == pytest.approx(1, abs=0.05)


def test_infer_trees(capsys, here, tmp_path):
    file = tmp_path / "text"
    file.write_text("the dog sees a cat\n\nyes\nthe cat sleeps\n")
    capsys.readouterr()
    assert call("infer", "text", file, "-k", "3") == 0
    output = capsys.readouterr()
    found = [json.loads(line) for line in output.out.splitlines()]
    assert [record["observation"] for record in found] == file.read_text().splitlines()
    assert output.err.startswith("gfnem: line 3: not derivable")
    assert found[1].pop("why") == "no word in it" and "not derivable" in found[2].pop("why")
    assert not any(record["latents"] for record in found[1:3])
    found = [record for record in found if record["latents"]]
    assert len(found) == 2 and all(record["exact"] for record in found)
    # the most probable tree is that of exact inference
    best = [record["latents"][0]["latent"] for record in found]
    file.write_text("the dog sees a cat\nthe cat sleeps\n")
    assert printed(capsys, "parse", "text", file, "--decode=map").splitlines() == best


def test_sample(capsys, here):
    keys = {"observation", "latent", "log_joint"}
    for run, number in (("text", 3), ("points", 5), ("images", 2)):
        drawn = records(capsys, "sample", run, "-n", number)
        assert len(drawn) == number and all(record.keys() == keys for record in drawn)
        assert drawn == records(capsys, "sample", run, "-n", number)
        assert drawn != records(capsys, "sample", run, "-n", number, "--seed=1")
    assert isinstance(drawn[0]["observation"][0][0], int)
    assert set(records(capsys, "sample", "points", "-n", 1)[0]["latent"]) == {"cluster", "petal"}


def test_evaluate(capsys, here):
    for run, own, data in (
        ("points", "posterior_tv", "points.npy"),
        ("images", "test_nll", "images.npz"),
        ("own_run", "parameters", "numbers.txt"),
    ):
        found = figures(capsys, run)
        assert {"observations", "exact", "nll", "elbo_gap", "ess", own} <= found.keys()
        assert found["nll"] > 0 and 0 < found["ess"] <= 1 + 1e-6
        assert figures(capsys, run, "--data", data)["observations"] >= found["observations"]
    assert found["exact"] is False


def test_a_worlds_scores_are_exact_where_its_model_is(capsys, here):
    found = figures(capsys, "points", "--data=points.npy")
    run = gfnem.load("points")
    x = next(run.world.read(run, Path("points.npy"))).x
    assert found["nll"] == pytest.approx(-float(run.model.log_marginal(x).mean()), rel=1e-5)
    values = [round(abs(value), 3) for value in found.values() if type(value) is float]
    assert len(set(values)) == len(values), "one figure has two names"


def test_a_checkpoint_knows_its_world(here, capsys):
    def world_of(run):
        content = torch.load(Path(run) / "last.ckpt", weights_only=True)
        return content["hyper_parameters"]["metadata"]["world"]

    assert [world_of(run) for run in ("points", "images", "text")] == ["points", "images", "text"]
    assert world_of("own_run") == {"class_path": "own.Numbers"}
    for run in ("points", "own_run"):
        named = world_of(run)
        named = named["class_path"] if isinstance(named, dict) else named
        assert yaml.safe_load((Path(run) / "config.yaml").read_text())["world"] == named


def test_a_run_of_ones_own_world_goes_on_and_opens_elsewhere(capsys, here, tmp_path, monkeypatch):
    shutil.copytree(here / "own_run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert call("train", "--resume=run", "--max-updates=12") == 0
    data = here / "numbers.txt"
    latent = records(capsys, "infer", "run", data)[0]["latents"][0]["latent"]
    assert latent.startswith("was ")
    # nobody else's: the world's file is code too
    content = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    content["trust"] = {}
    for name in ("last.ckpt", "best.ckpt"):
        torch.save(content, tmp_path / "run" / name)
    sys.modules.pop("own", None)
    assert "--code own.py" in refused(capsys, "infer", "run", data)
    assert records(capsys, "infer", "run", data, "--code", here / "own.py")


def test_report(capsys, here, tmp_path):
    for run in ("points", "images", "own_run"):
        printed(capsys, "report", run, "--samples=8", "--out", tmp_path / f"{run}.html")
        assert "<html" in (tmp_path / f"{run}.html").read_text()


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["train", "--world=nosuch"],
            "'nosuch'; there are dependencies, energies, graphs, images, points, se",
        ),
        (["train", "--world=nosuch.World"], "cannot import nosuch.World"),
        (["train", "--world=own.Choice"], "own.Choice is not a World"),
        (["train", "--world=own.Unreadable"], "lacks methods that it must define: read"),
        (["train", "--world=own.Partial"], "its parts lack space, policy"),
        (["train", "--world=points", "--dataset=gfnem.parsing.TextData"], "of the world text"),
        (["train", "--world=points", "--brackets=x.mrg"], "--brackets: of the world text"),
        (["train", "--world=points", "--data=text.txt"], "text.txt, line 1: expected two numbers"),
        (["train", "--world=points", "--data=three.csv"], "three.csv, line 2: expected two numb"),
        (["train", "--world=points", "--data=images.npy"], "two columns are wanted"),
        (["train", "--world=points", "--data=broken.npy"], "broken.npy: not an .npy file"),
        (["train", "--world=points", "--data=none.npy"], "none.npy: no such file"),
        (["train", "--world=images", "--data=text.txt"], "text.txt: not an .npz file"),
        (["infer", "points", "text.txt"], "text.txt, line 1: expected two numbers"),
        (["infer", "images", "text.txt"], "text.txt: not an .npz file"),
        (["infer", "images", "points.npy"], "not (images, height, width)"),
        (["infer", "images", "large.npy"], "large.npy: images of 5x5, where the run knows 4x4"),
        (["infer", "text", "none.txt"], "none.txt: no such file"),
        (["infer", "points", "points.npy", "-k", "0"], "--count 0: at least 1"),
        (["infer", "none", "points.npy"], "none: no such run"),
        (["sample", "own_run"], "Noisy cannot sample"),
        (["evaluate", "points", "--decode=map"], "--decode: of the world text"),
        (["evaluate", "points", "--data=three.csv"], "three.csv, line 2"),
        (["parse", "points", "text.txt"], "not trained on text"),
        (["worlds", "extra"], "unknown argument: extra"),
    ],
)
def test_bad_input(capsys, here, arguments, says):
    (here / "text.txt").write_text("the dog sees a cat\n")
    (here / "three.csv").write_text("x,y\n1,2,3\n")
    (here / "broken.npy").write_bytes(b"\x93NUMPY")
    np.save(here / "large.npy", np.eye(5)[None])
    out = ["--out=bad", *FLAGS] if arguments[0] == "train" else []
    assert says in refused(capsys, *arguments, *out)
    assert not Path("bad").exists()


def test_a_run_without_a_sampler(capsys, here):
    """Exact posteriors stand in for it where a model has them; else it is said."""
    flags = ["--data=numbers.txt", "--model.exact=true", "--recipe=exact", "--out=exact_run"]
    if not os.path.exists("exact_run"):
        assert call("train", "--world=own.Numbers", *FLAGS, *flags) == 0
    assert "without a sampler" in refused(capsys, "infer", "exact_run", "numbers.txt")
    assert figures(capsys, "exact_run")["exact"] is True


def test_data_without_a_world(capsys, here):
    """A dataset that belongs to no world can be trained on and evaluated."""
    parts = {"dataset": "own.Counts", "model": "own.Noisy", "space": "own.Choice"}
    Path("settings.yaml").write_text(yaml.safe_dump({**parts, "policy": "own.Guess"}))
    flags = ["--config=settings.yaml", "--data=numbers.txt", *FLAGS, "--out=plain"]
    assert call("train", *flags) == 0
    assert figures(capsys, "plain")["parameters"] == 4
    assert "--world my_file.MyWorld" in refused(capsys, "infer", "plain", "numbers.txt")
