"""`gfnem report`: one page about a run, with the figures of `gfnem evaluate`."""

import json
import shutil

import pytest
from commands import SMALL, call, printed, refused, trained
from pages import Page

pytestmark = pytest.mark.slow

WORDS = ["<i>", "&amp;", "שלום", "مرحبا", "🙂", "w" * 100, '"x"', "</svg>"]
#: words as they are, and fewer updates
FLAGS = [*(flag for flag in SMALL if not flag.startswith("--max-updates")), "--max-updates=4"]
FLAGS += ["--dataset.tokenizer=space", "--dataset.punctuation=true", "--dataset.interval=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on bracketed trees of words that look like HTML."""
    folder = tmp_path_factory.mktemp("report")
    lines = []
    for row in range(80):
        a, b, c, d = (WORDS[at % 8] for at in range(row, row + 4))
        lines.append(f"(S (NP (D {a}) (N {b})) (VP (V {c}) (N {d})))")
    (folder / "trees.mrg").write_text("\n".join(lines), encoding="utf-8")
    assert call("train", *FLAGS, "--data", folder / "trees.mrg", "--out", folder / "run") == 0
    return folder / "run"


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def agrees(text: str, figures: dict) -> None:
    """Whether a page says what `gfnem evaluate` says."""
    assert f"{figures['nll']:.4f} nats per token" in text
    assert f"{figures['elbo_gap']:.3f} nats per sentence" in text
    assert f"{100 * figures['ess']:.1f} % of 8 samples" in text
    assert f"this run {figures['sentence_f1']:.1f} {figures['corpus_f1']:.1f}" in text
    assert f"always branching right {figures['right_sentence_f1']:.1f}" in text


def test_the_figures_are_those_of_evaluate(capsys, run):
    flags = ["--seed=3", "--samples=8"]
    assert printed(capsys, "report", run, *flags) == f"{run}/report.html\n"
    page = read(run / "report.html")
    figures = json.loads(printed(capsys, "evaluate", run, *flags, "--format=json"))
    agrees(page.text, figures)
    for part in ("What was learned", "NT0", "sampler", "Curves", "All settings", "NeuralPCFG"):
        assert part in page.text
    for word in WORDS:
        assert word in page.text or word[:40] in page.text
    assert "i" not in page.tags and "svg" in page.tags


@pytest.mark.slow
def test_of_an_embedded_grammar_the_truth_stands_beside(capsys, tmp_path):
    run, flags = trained(), ["--seed=3", "--samples=8"]
    printed(capsys, "report", run, *flags, "--out", tmp_path / "page.html")
    figures = json.loads(printed(capsys, "evaluate", run, *flags, "--format=json"))
    text = read(tmp_path / "page.html").text
    agrees(text, figures)
    assert f"{figures['nll']:.4f} {figures['true_nll']:.4f}" in text


def test_the_same_seed_gives_the_same_page(capsys, run, tmp_path):
    for name in ("a.html", "b.html"):
        printed(capsys, "report", run, "--samples=4", "--out", tmp_path / "new" / name)
    pages = [(tmp_path / "new" / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_data_that_is_gone_or_has_changed(capsys, run, tmp_path):
    data, page = run.parent / "trees.mrg", tmp_path / "page.html"
    before = data.read_text(encoding="utf-8")
    try:
        data.unlink()
        printed(capsys, "report", run, "--samples=4", "--out", page)
        gone = read(page).text
        data.write_text(before.replace("(D", "(X") + "\n(S (N new) (N words))", encoding="utf-8")
        printed(capsys, "report", run, "--samples=4", "--out", page)
    finally:
        data.write_text(before, encoding="utf-8")
    assert "What the run held out is not to be had" in gone and "no such file" in gone
    assert "sentences the model makes" in gone and "Negative log-likelihood" not in gone
    assert "the data has changed" in read(page).text


def test_bad_input_is_one_line_and_nothing_is_written(capsys, run, tmp_path):
    assert "no such run" in refused(capsys, "report", tmp_path / "none")
    (tmp_path / "file").write_text("x")
    place = tmp_path / "file" / "page.html"
    assert "cannot write" in refused(capsys, "report", run, "--samples=2", "--out", place)
    assert "samples" in refused(capsys, "report", run, "--samples=0")
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "report.html").unlink(missing_ok=True)
    (damaged / "metrics.csv").write_text("update,val_nll\nx,y\n")
    assert "metrics.csv" in refused(capsys, "report", damaged, "--samples=2")
    assert not list(damaged.glob("*report*"))
    (damaged / "config.yaml").unlink()
    assert "config.yaml: no such file" in refused(capsys, "report", damaged)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--model=RNNG", "--model.dim=8"], ["--recipe=exact"]])
def test_models_without_rules_and_runs_without_a_sampler(capsys, run, tmp_path, flags):
    rnng = flags[0] == "--model=RNNG"
    flags = [*(flag for flag in FLAGS if not rnng or "--model." not in flag), *flags]
    data = run.parent / "trees.mrg"
    assert call("train", *flags, "--data", data, "--out", tmp_path / "run") == 0
    printed(capsys, "report", tmp_path / "run", "--samples=4")
    text = read(tmp_path / "run" / "report.html").text
    if rnng:
        assert "RNNG has no table of rules" in text and "model (estimate)" in text
    else:
        assert "no sampler" in text and "nats per sentence" not in text and "model" in text
