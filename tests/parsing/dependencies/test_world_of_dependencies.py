"""The verbs on dependency trees: a CoNLL-U file in, CoNLL-U out."""

import json
import random

import pytest
import torch
from commands import call, printed, refused

import gfnem
from gfnem.parsing.dependencies.conllu import read_conllu, written

FLAGS = [
    "--world=dependencies",
    "--accelerator=cpu",
    "--max-updates=6",
    "--dataset.interval=6",
    "--model.dim=8",
    "--policy.dim=8",
]


def a_file(path, sentences=60):
    """Determiners before nouns, nouns around a verb; the full stop is no word."""
    draw, text = random.Random(1), ""
    for _ in range(sentences):
        noun = [draw.choice(["dog", "cat"]) for _ in range(2)]
        words = ["The", noun[0], draw.choice(["saw", "bit"]), "a", noun[1], "."]
        text += written(words, [2, 3, 0, 5, 3, 3])
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("dependencies")
    data = a_file(place / "toy.conllu")
    reward = ["--reward=Harmonic", "--reward.offset=2"]
    assert call("train", *FLAGS, *reward, f"--data={data}", f"--out={place / 'run'}") == 0
    return place / "run", data


@pytest.mark.slow
def test_verbs_on_conllu(run, capsys, tmp_path):
    run, data = run
    figures = json.loads(printed(capsys, "evaluate", run, "--format=json", "--samples=4"))
    assert figures["exact"] and figures["trees"] == 6
    assert figures["previous_uas"] == 0 and figures["next_uas"] == pytest.approx(60)
    assert 0 <= figures["uas"] <= figures["undirected_uas"] <= 100
    assert "trees.svg" in {path.name for path in run.iterdir()}
    # sentences of the length that scores are often given for
    mixed = tmp_path / "mixed.conllu"
    mixed.write_text(data.read_text() + 7 * written(["a", "dog"], [2, 0]))
    flags = ["--samples=2", "--format=json"]
    for longest, count in ((4, 7), (5, 67)):
        flag = f"--max-length={longest}"
        figures = json.loads(printed(capsys, "evaluate", run, f"--data={mixed}", flag, *flags))
        assert figures["observations"] == figures["trees"] == count
    assert "nothing to evaluate" in refused(capsys, "evaluate", run, "--max-length=1")
    # what is inferred is written as it can be read again
    out = tmp_path / "out.conllu"
    out.write_text(printed(capsys, "infer", run, data, "--format=conllu", "--samples=2"))
    found = list(read_conllu(out))
    assert [each.words for each in found] == [each.words for each in read_conllu(data)]
    again = json.loads(
        printed(capsys, "evaluate", run, f"--data={out}", "--format=json", "--samples=2")
    )
    assert again["trees"] == 60
    # sentences without a tree are said, and not counted
    odd = tmp_path / "odd.conllu"
    long = written(["a", "dog"] * 15, range(30))
    odd.write_text(written(["dog"], [0]) + written(["!"], [0]) + long)
    records = [*gfnem.load(run).inferences(odd, k=1, samples=2)]
    assert [len(record["latents"]) for record in records] == [0, 0, 1]
    assert ["2 words or more" in records[0]["why"], records[1]["why"]] == [True, "no word in it"]
    figures = gfnem.load(run).evaluate(odd, samples=2)
    assert figures["observations"] == figures["trees"] == 1, "longer than any training sentence"
    page = open(printed(capsys, "report", run, "--samples=4").strip(), encoding="utf-8").read()
    assert "has one on the left" in page and "previous uas" in page and "<svg" in page


@pytest.mark.slow
def test_plain_data_in_python(run, capsys):
    trained = gfnem.load(run[0])
    record = trained.infer("The dog, it saw a zebra", k=3)[0]
    best = record["latents"][0]
    assert best["latent"]["words"] == ["The", "dog", "it", "saw", "a", "zebra"]
    assert best["latent"]["heads"].count(0) == 1 and record["exact"]
    assert best["log_prob"] == pytest.approx(best["log_joint"] - record["log_marginal"])
    x = trained.world.read(trained, ["The dog, it saw a zebra"]).__next__().x
    with torch.no_grad():
        assert best["latent"]["heads"] == trained.model.best_heads(x)[0].tolist()
    drawn = trained.sample(3)
    text = printed(capsys, "sample", run[0], "-n", 2, "--format=conllu")
    assert text.count("# log_joint = ") == 2
    assert all(len(d["latent"]["heads"]) == len(d["observation"].split()) for d in drawn)
    assert not trained.infer("word")[0]["latents"], "no sentence of one word was trained on"
    assert "nothing.conllu" in refused(capsys, "evaluate", run[0], "--data=nothing.conllu")


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("# nothing\n", "form", "no sentence in it"),
        (
            written(["word"], [0]),
            "form",
            "none of its 1 sentences has 2 to 20 words; dataset.min_le",
        ),
        (written(["a", "b"], [0, 1]), "upos", "its column upos is empty; name one of form, lemma"),
    ],
)
def test_files_without_a_word_to_learn_from_are_refused(capsys, tmp_path, text, column, says):
    path = tmp_path / "empty.conllu"
    path.write_text(text)
    said = refused(capsys, "train", *FLAGS, f"--data={path}:{column}", f"--out={tmp_path / 'run'}")
    assert f"{path}: {says}" in said and not (tmp_path / "run").exists()
