"""A grammar that starts from another run's, with more symbols: `--model.grown_from`."""

import pytest
import torch
from commands import TINY, printed, refused, trained

import gfnem
from gfnem.parsing import NeuralPCFG
from gfnem.parsing.grammars.splitting import grow_from_run
from gfnem.running.runs import load_run, read_config


@pytest.mark.slow
def test_a_grammar_of_as_many_symbols_starts_where_the_other_is():
    run = load_run(trained())
    data = run.data()
    model = NeuralPCFG(run.model.vocab_size, 4, 6, 16, run.model.shortest)
    grow_from_run(model, trained(), data)
    x = data.batch(range(20))
    uses = run.model.expected_uses(x).sum(0)
    assert float(uses.min()) > 0.2  # else one is dropped for a copy of another
    torch.testing.assert_close(model.log_marginal(x), run.model.log_marginal(x))


@pytest.mark.slow
def test_a_run_grows_and_goes_on(capsys, tmp_path):
    more = ["--model.nonterminals=7", "--model.preterminals=9", "--model.grown_from", trained()]
    printed(capsys, "train", *TINY, *more, "--out", tmp_path / "grown", "--max-updates=1")
    grown, before = gfnem.load(tmp_path / "grown"), gfnem.load(trained())
    assert (grown.model.nonterminals, grown.model.preterminals) == (7, 9)
    assert read_config(tmp_path / "grown")["model"]["init_args"]["grown_from"] == str(trained())
    x = before.data().batch(range(50))
    fresh = NeuralPCFG(before.model.vocab_size, 7, 9, 16, before.model.shortest)
    far, near = (
        float((other.log_marginal(x) - before.model.log_marginal(x)).abs().mean().detach())
        for other in (fresh, grown.model)
    )
    assert near < 0.5 < far
    out = printed(capsys, "train", "--resume", tmp_path / "grown", "--max-updates=3")
    assert "going on after update 1" in out


@pytest.mark.slow
def test_what_a_grammar_cannot_be_grown_from(capsys, tmp_path):
    def why(*flags) -> str:
        return refused(capsys, "train", *TINY, *flags, "--out", tmp_path / "run")

    assert "model.grown_from: nowhere: no such run" in why("--model.grown_from=nowhere")
    mine = f"--model.grown_from={trained()}"
    assert "only model.nonterminals and model.preterminals may differ" in why(mine, "--model.dim=8")
    text = tmp_path / "text.txt"
    text.write_text("the cat sleeps\na dog saw the cat\n" * 20)
    assert "another vocabulary" in why(mine, f"--data={text}")
    assert "their parents are not split" in why(mine, "--model.parent_classes=2")
    other = tmp_path / "other"
    printed(capsys, "train", *TINY, "--model=NeuralParentPCFG", "--max-updates=1", "--out", other)
    assert "parent classes, not in a NeuralParentPCFG" in why(f"--model.grown_from={other}")
    assert not (tmp_path / "run").exists()
