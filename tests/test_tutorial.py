"""The tutorial, docs/tutorial.md, followed to the letter in an empty folder."""

import contextlib
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from commands import call, printed, refused
from pages import Page

from gfnem.enumeration import enumerate_trajectories
from gfnem.running.runs import load_run

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
EXPERIMENTS = PAGE.parents[1] / "experiments"
TEXT = PAGE.read_text(encoding="utf-8")
UPDATES = 300


def files() -> dict[str, str]:
    """The files that the named blocks of the page make up."""
    parts: dict[str, list[str]] = {}
    for name, block in re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
        parts.setdefault(name, []).append(block)
    return {name: "\n\n".join(blocks) for name, blocks in parts.items()}


def shown(command: str) -> str:
    """What the page says that a command prints."""
    (output,) = re.findall(rf"^\$ {re.escape(command)}.*\n((?:[^$`].*\n)*)", TEXT, re.MULTILINE)
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the page's files and a run trained there; it is the current one."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.delitem(sys.modules, "symptoms", raising=False)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = call(
                *["train", "--config", "symptoms.yaml", "--out", "runs/symptoms"],
                *["--max-updates", UPDATES, "--accelerator", "cpu"],
            )
        assert code == 0
        (folder / "train.out").write_text(out.getvalue())
        yield folder
        for name in ("symptoms", "clinic"):
            sys.modules.pop(name, None)


def test_the_page_is_whole():
    assert set(files()) == {
        *("symptoms.py", "symptoms.yaml", "test_symptoms.py", "diagnose.py", "clinic.py"),
        "train.py",
    }
    lines = [line for line in files()["symptoms.py"].splitlines() if line.strip()]
    assert len(lines) <= 125, "about 100 lines were promised"
    for name in re.findall(r"`(gfnem/\w+/)`", TEXT):
        assert (PAGE.parents[1] / name).exists(), name


def test_the_list_of_experiments_is_whole():
    text = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w./]+)`", text, re.MULTILINE))
    for name in listed:
        assert (EXPERIMENTS / name).exists(), name
    kept = {path.name for path in EXPERIMENTS.iterdir() if path.suffix in (".py", ".yaml")}
    assert kept <= listed, "the list of experiments lacks some"
    timed = set(re.findall(r"`(bench_\w+\.py)`", text))
    assert timed == {path.name for path in (EXPERIMENTS / "benchmarks").glob("bench_*.py")}


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk here")
def test_the_line_that_copies_the_files(tmp_path):
    (command,) = re.findall(r"^```sh\n(awk .*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    command = command.replace("path/to/gfnem/docs/tutorial.md", f"'{PAGE}'")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files()


@pytest.mark.slow
def test_its_own_tests_pass(folder):
    settings = {**os.environ, "PYTHONPATH": str(PAGE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_symptoms.py"]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (counts,) = re.findall(r"\d+ passed, \d+ skipped", done.stdout)
    assert counts in shown("pytest -q test_symptoms.py")


def exact_and_learned(module, x):
    """`(batch, sets)` of `p(z|x)` and of `q(z|x)`, the latter summed over all trajectories."""
    sets = module.model.sets
    with torch.no_grad():
        exact = module.model.log_joint(x, sets.expand(len(x), -1, -1)).softmax(1)
        trajectories = enumerate_trajectories(module.space, x).trajectories
        context = module.policy.encode(x)
        log_pf = module.policy.score(context, module.space, trajectories).log_pf.sum(2)
    number = (trajectories.latent * 2 ** torch.arange(sets.shape[1])).sum(2)
    learned = torch.zeros_like(exact).scatter_add_(1, number, log_pf.exp())
    return exact, learned


@pytest.mark.slow
def test_the_sampler_is_near_the_exact_posterior(folder):
    from symptoms import Clinic, Doctor

    module, held_out = load_run("runs/symptoms"), Clinic(seed=0).held_out
    often = Counter(map(tuple, held_out.tolist())).most_common(40)
    x = torch.tensor([symptoms for symptoms, _ in often])
    weight = torch.tensor([float(count) for _, count in often])
    weight = weight / weight.sum()

    def total_variation():
        exact, learned = exact_and_learned(module, x)
        assert (learned.sum(1) - 1).abs().max() < 1e-4
        return float(weight @ (exact - learned).abs().sum(1) / 2)

    trained = total_variation()
    # the gap to the exact marginal bounds the KL divergence, and so is never negative in the mean
    posterior = module.posterior(x)
    exact = posterior.log_marginal().value
    torch.manual_seed(0)
    _, log_weights = posterior.log_weights(500)
    gap = float(weight @ (exact - log_weights.mean(1)))
    assert 0 < gap < 0.05
    assert trained < 0.08
    assert 2 * trained**2 <= gap + 0.01  # Pinsker
    module.policy = Doctor(8, 5)
    assert total_variation() > 0.4, "an untrained sampler would pass as well"


@pytest.mark.slow
def test_the_model_learns(capsys, folder):
    lines = (folder / "train.out").read_text().splitlines()
    assert (
        lines[0] == shown("gfnem train --config symptoms.yaml --out runs/symptoms").split("\n")[0]
    )
    pattern = r"^update (\d+)/.* NLL/patient (\S+)  ELBO gap (\S+)"
    rows = re.findall(pattern, "\n".join(lines), re.MULTILINE)
    assert [int(update) for update, _, _ in rows] == [100, 200, 300]
    assert float(rows[0][1]) - 0.1 > float(rows[-1][1])
    figures = dict(
        line.split() for line in printed(capsys, "evaluate", "runs/symptoms").splitlines()
    )
    learned, truth = float(figures["nll_learned"]), float(figures["nll_truth"])
    assert learned == pytest.approx(float(rows[-1][1]), abs=2e-3)
    assert truth - 0.02 < learned < truth + 0.25


@pytest.mark.slow
def test_the_world_reads_files(capsys, folder):
    train = ["train", "--world", "clinic.ClinicWorld"]
    assert call(*train, "--max-updates", 5, "--out", "runs/clinic", "--accelerator", "cpu") == 0
    (folder / "new.txt").write_text("fever, headache\n")
    capsys.readouterr()
    record = json.loads(printed(capsys, "infer", "runs/clinic", "new.txt", "-k", 2))
    example = json.loads(shown("gfnem infer runs/clinic new.txt -k 2"))
    assert record.keys() == example.keys() and len(record["latents"]) == 2
    assert record["observation"] == example["observation"] == ["fever", "headache"]
    # the most probable set is that of exact inference
    model, latent = load_run("runs/clinic").model, record["latents"][0]
    x = torch.tensor([[True, *[False] * 4, True, False, False]])
    exact = model.log_joint(x, model.sets[None]).log_softmax(1)[0]
    assert latent["latent"] == model.sets[exact.argmax()].nonzero().flatten().tolist()
    assert latent["log_prob"] == pytest.approx(float(exact.max()), abs=1e-3)
    found = load_run("runs/clinic").infer([["fever", "headache"]], k=2)
    assert found[0]["observation"] == ["fever", "headache"]
    (drawn,) = printed(capsys, "sample", "runs/clinic", "-n", 1).splitlines()
    assert set(json.loads(drawn)) == {"observation", "latent", "log_joint"}
    figures = printed(capsys, "evaluate", "runs/clinic", "--data", "new.txt").split()
    assert figures[:2] == ["observations", "1"]
    (folder / "many.txt").write_text("fever, headache\n\nrash\n" * 20)
    data = ["--data=many.txt", "--max-updates=2", "--accelerator=cpu", "--out=runs/file"]
    assert call(*train[:3], *data) == 0
    (folder / "new.txt").write_text("fever\nfevr\n")
    said = "new.txt, line 2: no symptom is called fevr"
    assert said in refused(capsys, "infer", "runs/clinic", "new.txt")
    assert said in refused(capsys, *train[:3], "--data=new.txt", "--out=runs/bad")


@pytest.mark.slow
def test_a_report_of_a_world_of_ones_own(capsys, folder):
    printed(capsys, "report", "runs/symptoms", "--samples=16")
    text = Page((folder / "runs/symptoms/report.html").read_text(encoding="utf-8")).text
    figures = dict(
        line.split() for line in printed(capsys, "evaluate", "runs/symptoms").splitlines()
    )
    assert f"{float(figures['nll_learned']):.4f} nats per patient" in text
    assert "z = [" in text and "model" in text and "NoisyOr" in text


@pytest.mark.slow
def test_the_programs_run(capsys, folder):
    runpy.run_path("diagnose.py")
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  disease")]) == 5
    table = [line.split() for line in lines[-5:]]
    assert float(table[0][0]) > 0.2
    for exact, drawn, *_ in table:
        assert float(drawn) == pytest.approx(float(exact), abs=0.12)
    program = (folder / "train.py").read_text()
    quick = program.replace("max_updates=200", "max_updates=30")
    assert quick != program
    exec(compile(quick, "train.py", "exec"), {})
    figures = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(r"\{'nll_learned': [\d.]+, 'nll_truth': [\d.]+\}", figures)
