"""The verbs on a table: files in, graphs out, and what is refused in words."""

import json
import math
import random
from types import SimpleNamespace

import networkx
import pytest
import torch
from commands import call, printed, refused

from gfnem.errors import UserError
from gfnem.graphs import Measurements
from gfnem.graphs.dags import every_dag
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.reading import read_graph, read_table
from gfnem.graphs.report import _graphs
from gfnem.graphs.tables import Tables
from gfnem.world import find

FLAGS = ["--world=graphs", "--accelerator=cpu", "--max-updates=30", "--dataset.interval=30"]


def write_table(path, separator=",", rows=60):
    draw = random.Random(1)
    lines = [separator.join(("a", "the b", "c", "d"))]
    for _ in range(rows):
        a, c = draw.gauss(0, 1), draw.gauss(0, 1)
        b = a + draw.gauss(0, 0.5)
        lines.append(separator.join(f"{v:.6f}" for v in (a, b, c, b - c + draw.gauss(0, 0.5))))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("graphs")
    table = write_table(place / "table.csv")
    (place / "truth.txt").write_text("a,the b\n")
    assert call("train", *FLAGS, f"--data={table}", f"--out={place / 'run'}") == 0
    return place / "run", table


@pytest.fixture
def undrawn(monkeypatch):
    """Trains without pictures, which take longer than a few updates."""
    monkeypatch.setattr("gfnem.graphs.drawing.draw_all", lambda *_: [])


@pytest.mark.slow
def test_train_evaluate_infer_report(run, capsys, tmp_path):
    run, table = run
    figures = json.loads(printed(capsys, "evaluate", run, "--format=json"))
    assert figures["exact"] and figures["nll"] == pytest.approx(-figures["log_evidence"] / 60)
    assert 0 <= figures["tv"] <= 0.5 and abs(figures["log_z"] - figures["log_evidence"]) < 1
    record = json.loads(printed(capsys, "infer", run, table, "-k", 3))
    best = record["latents"][0]
    assert record["observation"]["columns"] == ["a", "the b", "c", "d"] and record["exact"]
    assert all(cause != effect for cause, effect in best["latent"]["edges"])
    page = printed(capsys, "report", run).strip()
    text = open(page, encoding="utf-8").read()
    assert "the b" in text and "Equivalence classes" in text and "Markov blanket" in text
    assert "Effective sample size" in text
    assert {"edges.png", "graph.png"} <= {path.name for path in run.iterdir()}
    # the columns of another file are found by their names
    lines = [line.split(",") for line in table.read_text().split()[1:]]
    rows = [line.split(",") for line in table.read_text().splitlines()]
    turned = tmp_path / "turned.tsv"
    turned.write_text("\n".join("\t".join(row[::-1]) for row in rows) + "\n")
    assert lines and json.loads(printed(capsys, "infer", run, turned, "-k", 3)) == record


@pytest.mark.slow
def test_graphs_for_other_programs(run, capsys):
    run, table = run
    latents = json.loads(printed(capsys, "infer", run, table, "-k", 2))["latents"]
    draws = [json.loads(line) for line in printed(capsys, "sample", run, "-n", 2).splitlines()]
    for verb, found in ((["infer", run, table, "-k", 2], latents), (["sample", run, "-n2"], draws)):
        text = printed(capsys, *verb, "--format=graphml")
        assert text.count("<data ") == 2, "a log probability each"
        graphs = list(networkx.readwrite.graphml.GraphMLReader()(string=text))
        for graph, latent in zip(graphs, found, strict=True):
            assert sorted(graph.edges) == sorted(map(tuple, latent["latent"]["edges"]))
            assert set(graph.nodes) == {"a", "the b", "c", "d"}
        text = printed(capsys, *verb, "--format=dot")
        assert text.count("digraph") == 2 and '"the b"' in text


@pytest.mark.slow
def test_draws_are_the_samplers_for_the_table_of_the_run(run, capsys):
    run, table = run
    best = json.loads(printed(capsys, "infer", run, table, "-k", 1))
    lines = printed(capsys, "sample", run, "-n", 1000, "--seed=1").splitlines()
    draws = [json.loads(line) for line in lines]
    assert len(draws) == 1000 and draws[0]["observation"] == best["observation"]
    hits = [draw for draw in draws if draw["latent"] == best["latents"][0]["latent"]]
    assert hits[0]["log_prob"] == pytest.approx(best["latents"][0]["log_prob"])
    assert hits[0]["log_joint"] - hits[0]["log_prob"] == pytest.approx(best["log_marginal"])
    share = math.exp(hits[0]["log_sampler"])
    assert abs(len(hits) / 1000 - share) < 5 * (share * (1 - share) / 1000) ** 0.5


@pytest.mark.slow
def test_known_edges(run, undrawn, capsys, tmp_path):
    table = run[1]
    flags = [*FLAGS, f"--data={table}", "--max-updates=2", f"--out={tmp_path / 'run'}"]
    term = '[{"class_path": "PathPrior", "init_args": {"cause": "a", "effect": "d"}}]'
    line = refused(capsys, "train", *flags, f"--model.terms={term}")
    assert "--build edges" in line
    known = ['--dataset.forbidden=[["a","the b"]]', '--dataset.required=[["the b","a"]]']
    assert call("train", *flags, *known) == 0
    capsys.readouterr()
    record = json.loads(printed(capsys, "infer", tmp_path / "run", table, "-k", 50))
    for latent in record["latents"]:
        edges = latent["latent"]["edges"]
        assert ["the b", "a"] in edges and ["a", "the b"] not in edges
    assert call("train", *flags[:-1], *known, "--build=edges", f"--out={tmp_path / 'edges'}") == 0


def refusal(tmp_path, text, name="table.csv", **settings):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as caught:
        read_table(tmp_path / name, **settings)
    return str(caught.value)


def test_tables_that_are_refused(tmp_path):
    assert "line 3: 1 fields" in refusal(tmp_path, "a,b\n1,2\n3\n")
    assert "line 3: column 'b': 'x' is not a number" in refusal(
        tmp_path, "a,b\n1,2\n3,x\n", kind="continuous"
    )
    assert "line 2: column 'a' is empty" in refusal(tmp_path, "a,b\n,2\n3,4\n")
    assert "column 'b' has one value in all rows" in refusal(tmp_path, "a,b\n1,2\n3,2\n")
    assert "numbers where names" in refusal(tmp_path, "1,2\n3,4\n5,6\n")
    assert "'a' is there twice" in refusal(tmp_path, "a,a\n3,4\n5,6\n")
    assert "all different, and '' is none" in refusal(tmp_path, "a,\n3,4\n5,6\n")
    assert "separated by tabs, commas or white space" in refusal(tmp_path, "a;b\n1;2\n3;4\n")
    assert "line 2: unexpected end of data" in refusal(tmp_path, 'a,b\n"1,2\n3,4\n')
    wide = ",".join(f"c{at}" for at in range(21))
    assert "21 columns, where at most 20" in refusal(tmp_path, f"{wide}\n")
    assert "no column 'z'; there are a, b" in refusal(tmp_path, "a,b\n1,2\n3,4\n", drop=["z"])
    assert "a graph takes two or more" in refusal(tmp_path, "a,b\n1,2\n3,4\n", drop=["a"])
    assert "line 3: by names no column: 'z'" in refusal(
        tmp_path, "a,b,by\n1,2,a\n3,4,z\n", interventions="by"
    )
    for name in ("no.csv", "no.parquet"):
        with pytest.raises(UserError, match="no such file"):
            read_table(tmp_path / name)


def test_line_breaks_in_quotes(tmp_path):
    (tmp_path / "t.csv").write_text('"a\nb","c,d"\n\n1,"""x"\n"2\n3",y\n1,y\n')
    table = read_table(tmp_path / "t.csv")
    assert table.names == ["a\nb", "c,d"] and table.values.tolist() == [[0, 0], [1, 1], [0, 1]]
    assert table.levels == [["1", "2\n3"], ['"x', "y"]]
    assert "line 5: 1 fields" in refusal(tmp_path, 'a,b\n1,2\n"3\n4",5\n6\n')


@pytest.mark.parametrize(
    ("known", "why"),
    [
        ({"required": [["a"]]}, "required: \\['a'\\] is no edge"),
        ({"forbidden": [["a", "a"]]}, "forbidden: \\['a', 'a'\\] is no edge"),
        ({"forbidden": [["a", "e"]]}, "'e' is no column; there are a, the b, c, d"),
        (
            {"forbidden": [["a", "c"]], "required": [["a", "the b"], ["a", "c"]]},
            "the edge a --> c is both required and forbidden",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_known(tmp_path, known, why):
    with pytest.raises(UserError, match=why):
        Measurements(str(write_table(tmp_path / "t.csv", rows=3)), **known)


def test_the_way_to_build_keeps_what_is_said_of_the_parts():
    world = find("graphs")
    settings = world.defaults()

    def paths(told):
        return [told[name]["class_path"].split(".")[-1] for name in ("space", "policy")]

    assert paths(world.expand(settings | {"build": "layers"})) == ["LayerSpace", "LayerPolicy"]
    flat = {"class_path": "gfnem.graphs.FlatPolicy", "init_args": {"hidden": 8}}
    told = world.expand(settings | {"build": "edges", "policy": flat})
    assert paths(told) == ["DagSpace", "FlatPolicy"] and told["policy"] == flat
    narrow = {**settings["policy"], "init_args": {"variables": None, "hidden": 8}}
    told = world.expand(settings | {"build": "edges", "policy": narrow})
    assert paths(told) == ["DagSpace", "GraphPolicy"]
    assert told["policy"]["init_args"] == {"hidden": 8}


def test_discrete_tables_and_interventions(tmp_path):
    (tmp_path / "t.tsv").write_text("a\tb\tby\nlow\tyes\t\nhigh\tno\ta\nlow\tno\ta;b\n")
    table = read_table(tmp_path / "t.tsv", interventions="by")
    assert table.levels == [["high", "low"], ["no", "yes"]]
    assert table.values.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert table.hand.tolist() == [[False, False], [True, False], [True, True]]
    (tmp_path / "u.csv").write_text("b,a\nno,low\nyes,low\nyes,high\n")
    other = read_table(tmp_path / "u.csv").ordered(["a", "b"], table.levels)
    assert other.values.tolist() == [[1, 0], [1, 1], [0, 1]]
    (tmp_path / "v.csv").write_text("b,a\nno,low\nyes,new\n")
    with pytest.raises(UserError, match="column 'a' has 'new'"):
        read_table(tmp_path / "v.csv").ordered(["a", "b"], table.levels)


def test_parquet(tmp_path):
    from datasets import Dataset

    path = tmp_path / "t.parquet"
    Dataset.from_dict({"x": [0.5, 1.5, 2.5], "y": [1.0, 0.0, 3.0]}).to_parquet(path)
    table = read_table(path, kind="continuous")
    assert table.names == ["x", "y"] and table.values.tolist() == [[0.5, 1], [1.5, 0], [2.5, 3]]


def test_a_graph_from_a_file(tmp_path):
    path = tmp_path / "g.txt"
    path.write_text("Graph Edges:\n1. a --> b\n\nb -> c\n")
    assert read_graph(path, ["a", "b", "c"]).nonzero().tolist() == [[0, 1], [1, 2]]
    path.write_text("a --> z\n")
    with pytest.raises(UserError, match="line 1: 'z' is no column"):
        read_graph(path, ["a", "b"])


@pytest.mark.slow
def test_a_discrete_table_with_interventions(undrawn, capsys, tmp_path):
    draw, lines = random.Random(0), ["a,b,id,set"]
    for at in range(60):
        a = draw.random() < 0.5
        b = a if draw.random() < 0.8 else not a
        by_hand = "b" if at % 4 == 0 else ""
        lines.append(f"{'yn'[a]},{'hl'[b]},{at},{by_hand}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines) + "\n")
    flags = [f"--data={table}", "--dataset.interventions=set", '--dataset.drop=["id"]']
    assert call("train", *FLAGS, *flags, f"--out={tmp_path / 'run'}") == 0
    assert "60 rows of 2 discrete columns" in capsys.readouterr().out
    record = json.loads(printed(capsys, "infer", tmp_path / "run", table))
    figures = json.loads(printed(capsys, "evaluate", tmp_path / "run", "--format=json"))
    assert record["log_marginal"] == pytest.approx(figures["log_evidence"])
    best = record["latents"][0]["latent"]["edges"]
    assert best == [["a", "b"]] or best == [["b", "a"]]


@pytest.mark.slow
def test_graphs_with_weights(run, undrawn, capsys, tmp_path):
    table = run[1]
    flags = [f"--data={table}", "--model=WeightedPosterior", f"--out={tmp_path / 'run'}"]
    flags += ["--policy=CompletedPolicy", "--policy.graphs=LayerPolicy", "--max-updates=2"]
    assert call("train", *FLAGS, *flags) == 0
    capsys.readouterr()
    record = json.loads(printed(capsys, "infer", tmp_path / "run", table, "-k", 1))
    latent = record["latents"][0]["latent"]
    assert len(latent["weights"]) == len(latent["edges"])
    figures = json.loads(printed(capsys, "evaluate", tmp_path / "run", "--format=json"))
    assert figures["kl"] == pytest.approx(figures["kl_graphs"] + figures["kl_weights"])
    page = open(printed(capsys, "report", tmp_path / "run").strip()).read()
    assert "Equivalence" in page and "What it does to set a variable" in page


def test_estimated_shares_of_graphs_are_the_models(monkeypatch):
    """Where no evidence is exact: shares among the graphs drawn, however often each was drawn."""
    monkeypatch.setattr("gfnem.graphs.report.png", lambda figure: b"")
    values = torch.randn(8, 3, dtype=torch.float64)
    x, model = Tables.of([values]), DagPosterior(3)
    drawn = every_dag(3)[:20]
    total = model.given(x).log_graphs(drawn[None])[0].logsumexp(0)
    exact = (model.given(x).log_graphs(drawn[None])[0] - total).exp().sort(descending=True).values
    monkeypatch.setattr(model, "offers", lambda hook: False)
    often = torch.cat([drawn, drawn[:5], drawn[:2]])
    run = SimpleNamespace(model=model, has_policy=True)
    (block,) = _graphs(run, x, often, SimpleNamespace(names=["a", "b", "c"], truth=None))
    found = [choice.shares["model (estimate)"] for choice in block.choices]
    assert found == pytest.approx(exact[: len(found)].tolist())
