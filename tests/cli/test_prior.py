"""`gfnem train-prior`, and runs of a grammar under the prior it wrote."""

import json
from functools import lru_cache

import pytest
import torch
from commands import SMALL, call, printed, refused, same

pytestmark = pytest.mark.slow

TREES = """\
(S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT the) (NN dog))) (. .))
(S (NP (DT a) (NN dog)) (VP (VBZ sleeps)))
(S (NP (DT the) (JJ old) (NN cat)) (VP (VBZ sees) (NP (NP (DT a) (NN dog)) (ADVP (RB there)))))
"""
FLAGS = [
    *SMALL,
    "--reward=BracketPrior",
    "--reward.temperature=Anneal",
    "--reward.temperature.start=1",
    "--reward.temperature.end=1000",
    "--reward.temperature.updates=20",
    "--reward.temperature.shape=exponential",
]


@lru_cache
def made(folder):
    """A treebank, a prior learned from it, a run with that prior; the prior's file is gone."""
    (folder / "bank.mrg").write_text(TREES * 20)
    prior = ["train-prior", "--data", folder / "bank.mrg", "--out", folder / "prior.pt"]
    assert call(*prior, "--updates=20", "--chains=16") == 0
    run = ["--data", folder / "bank.mrg", "--reward.prior", folder / "prior.pt"]
    assert call("train", *FLAGS, *run, "--out", folder / "run") == 0
    (folder / "prior.pt").rename(folder / "elsewhere.pt")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return made(tmp_path_factory.mktemp("prior"))


def test_what_a_person_sees(capsys, place, tmp_path):
    flags = ["--updates=10", "--chains=8", "--valid", place / "bank.mrg"]
    out = printed(
        capsys, "train-prior", "--data", place / "bank.mrg", "--out", tmp_path / "p", *flags
    )
    assert "training on 60 trees, holding out 60" in out
    assert out.count("held-out log-likelihood/tree") == 10 and "update 10/10" in out
    ours, equal, right = (float(line.split()[-1]) for line in out.splitlines()[-4:-1])
    assert equal < ours < 0 and equal <= right < 0
    assert f"--reward.prior {tmp_path / 'p'}" in out.splitlines()[-1]
    content = torch.load(tmp_path / "p", weights_only=True)
    assert content["settings"] == {"dim": 32}
    assert "unsupervised" in printed(capsys, "train-prior", "--help")


def test_a_run_does_without_the_priors_file(capsys, place):
    run, bank = place / "run", place / "bank.mrg"
    (place / "text").write_text("the old dog sees a cat\n")
    (line,) = printed(capsys, "parse", run, place / "text", "--format=json").splitlines()
    estimate = json.loads(line)["log_marginal"]
    assert estimate["method"] == "exact"
    figures = json.loads(printed(capsys, "evaluate", run, "--data", bank, "--format=json"))
    assert figures["reward"] == "BracketPrior" and figures["exact"] is True
    assert figures["elbo_gap_is"] != "exact"
    # the bound holds in expectation; this is an estimate of it
    assert 0 <= figures["nll"] <= figures["bound"] + 0.05 and "sentence_f1" in figures
    out = printed(capsys, "evaluate", run, "--data", bank)
    assert "to the posterior times BracketPrior" in " ".join(out.split())
    assert len(printed(capsys, "generate", run, "--count=3").splitlines()) == 3


def test_the_validated_likelihood_is_the_grammars(place):
    """The last row of the metrics equals the grammar's exact figure."""
    from gfnem.parsing.text.data import TextData
    from gfnem.running.runs import load_run

    module = load_run(place / "run")
    data = TextData(str(place / "bank.mrg"), valid_sentences=20, seed=0)
    total = units = 0
    with torch.no_grad():
        for x in data.validation_batches():
            total -= float(module.model.log_marginal(x).sum())
            units += int(x.lengths.sum())
    names, *_, last = (line.split(",") for line in (place / "run/metrics.csv").open())
    row = dict(zip(names, last, strict=True))
    assert float(row["val_nll"]) == pytest.approx(total / units, rel=1e-4)


def test_it_resumes(capsys, place, tmp_path):
    """10 updates and then 10 more end as 20 at once; the prior must be at hand for that."""
    prior = place / "elsewhere.pt"
    flags = [*FLAGS, "--data", place / "bank.mrg", "--reward.prior", prior, "--out", tmp_path / "r"]
    assert call("train", *flags, "--max-updates=10") == 0
    printed(capsys, "train", "--resume", tmp_path / "r", "--max-updates=20")
    once, twice = (
        torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
        for run in (place / "run", tmp_path / "r")
    )
    assert once.keys() == twice.keys() and any("reward.prior" in name for name in once)
    for name, value in once.items():
        assert same(value, twice[name]), name
    assert "prior.pt: no such file" in refused(capsys, "train", "--resume", place / "run")


def test_what_it_cannot_do(capsys, place, tmp_path):
    flags = [*FLAGS, "--data", place / "bank.mrg", "--out", tmp_path / "r"]
    ready = [*flags, "--reward.prior", place / "elsewhere.pt"]
    assert "offers no log_marginal" in refused(capsys, "train", *ready, "--recipe=exact")
    assert "a sleep phase needs" in refused(capsys, "train", *ready, "--recipe.sleep=1")
    assert "no such file" in refused(capsys, "train", *flags, "--reward.prior", tmp_path / "none")
    assert "missing: prior" in refused(capsys, "train", *flags)
    for content in (b"", b"a cat", (place / "elsewhere.pt").read_bytes()[:900]):
        (tmp_path / "bad.pt").write_bytes(content)
        line = refused(capsys, "train", *flags, "--reward.prior", tmp_path / "bad.pt")
        assert "bad.pt: not a prior" in line
    run = place / "run" / "last.ckpt"
    assert "last.ckpt: not a prior" in refused(capsys, "train", *flags, "--reward.prior", run)
    assert not (tmp_path / "r").exists()


BAD = {
    "missing": (None, "no such file"),
    "empty": (b"", "empty"),
    "text": (b"a cat sleeps\nthe dog sees it\n", "no trees in it"),
    "unclosed": (TREES.encode() + b"(S (NN cat", "line 4"),
    "short": (b"(S (NP (DT a) (NN cat)))\n", "1 shorter than 3"),
    "binary": (b"(S (NN cat)) \0", "NUL"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_treebanks(capsys, place, tmp_path, kind):
    content, expected = BAD[kind]
    file, out = tmp_path / "bank.txt", tmp_path / "prior.pt"
    if content is not None:
        file.write_bytes(content)
    for flags in (["--data", file], ["--data", place / "bank.mrg", "--valid", file]):
        line = refused(capsys, "train-prior", *flags, "--out", out)
        assert "bank.txt" in line and expected in line
    assert not out.exists()


def test_bad_settings(capsys, place, tmp_path):
    flags = ["train-prior", "--data", place / "bank.mrg", "--out", tmp_path / "p"]
    for flag in ("--updates=0", "--chains=0", "--moves=-1", "--dim=0", "--max-length=2"):
        assert flag.split("=")[1] in refused(capsys, *flags, flag)
    (tmp_path / "p").mkdir()
    assert "exists already" in refused(capsys, *flags)
    assert "missing: out" in refused(capsys, "train-prior", "--data", place / "bank.mrg")
    (tmp_path / "file").write_text("")
    line = refused(capsys, *flags[:-1], tmp_path / "file" / "p")
    assert "file: cannot make this folder" in line
    assert "lower --rate" in refused(capsys, *flags[:-1], tmp_path / "q", "--rate=1e30")
    assert not (tmp_path / "q").exists()
