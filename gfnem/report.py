"""What a trained run has learned and how far it can be trusted, as one web page.

The page opens with what the run's world says of it (`World.report`); curves and settings, which
every run has, follow. `general` is the report of a world that says nothing special.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from gfnem.data import DataModule
from gfnem.errors import UserError
from gfnem.files import shown, write_atomically
from gfnem.page import (
    Block,
    Certificate,
    Choice,
    Fold,
    Lines,
    Picture,
    Posterior,
    Row,
    Section,
    Table,
    Text,
    percent,
    render,
)
from gfnem.running.curves import PANELS, draw_panel, png
from gfnem.running.run import Run, measured
from gfnem.running.runs import METRICS, checkpoint_path, load_run, read_config

#: the page's name in a run folder
REPORT = "report.html"
#: observations shown with their posterior, structures shown of each, and draws of the model
EXAMPLES, STRUCTURES, DRAWN = 5, 4, 8
#: structures drawn for each of these observations
EXAMPLE_DRAWS = 256
#: what the bars beside structures mean
BARS = (
    f"Each observation stands above structures that explain it, of {EXAMPLE_DRAWS} drawn. The "
    "model's bar is how probable the model finds a structure, given the observation; the sampler's "
    "bar is the share of the draws. Bars of one length mean that the sampler has learned the "
    "model's posterior."
)
#: most characters of a record
_RECORD = 300


def write_report(
    run: str | os.PathLike,
    out: str | os.PathLike | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Path:
    """Writes a run's report; returns the file.

    Args:
        run: run folder or checkpoint.
        out: the file; None is `report.html` in the run folder.
        samples: structures drawn for each observation.
        seed: of the samples; torch's global generator is left as it was.

    Raises:
        UserError: if the run is unusable, or the file cannot be written.
    """
    trained, config = load_run(run), read_config(run)
    folder = checkpoint_path(run).parent
    data, why = _data_of(trained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # then the figures are those of `evaluate`
        sections = list(trained.world.report(trained, data, samples))
    if why:
        remark = f"What the run held out is not to be had ({why}): nothing here is of such data."
        sections.insert(0, Section("Without held-out data", [Text(remark, remark=True)]))
    sections += [curves(folder / METRICS), settings(config, "" if data is None else data.summary())]
    title = f"Run {shown(folder.resolve().name)}"
    path = folder / REPORT if out is None else Path(out)
    write_atomically(path, render(title, sections, _facts(trained)))
    return path


def _data_of(run: Run) -> tuple[DataModule | None, str]:
    """The data of a run where it is as it was, and why not where it is not."""
    try:
        data = run.data()
    except UserError as error:
        return None, str(error)
    then = run.metadata.get("data", {})
    if any(then.get(name, digest) != digest for name, digest in data.fingerprint().items()):
        return None, "the data has changed since the run was trained"
    return data, ""


def _facts(run: Run) -> list[str]:
    def part(module: torch.nn.Module) -> str:
        size = sum(parameter.numel() for parameter in module.parameters())
        return f"{type(module).__name__} of {size:,} parameters"

    sampler = f"sampler {part(run.policy)}" if run.has_policy else "no sampler (exact EM)"
    return [f"Model {part(run.model)}, {sampler}; {int(run.m_updates):,} updates of the model."]


# ---------------------------------------------------------------- figures and what they mean


def certificates(
    figures: Mapping[str, Any], samples: int, unit: str, each: str, exact: bool
) -> Block:
    """Cards that say what a run's figures mean, and to which of its failures each is blind.

    Args:
        figures: those of `gfnem.running.run.measured` that there are.
        samples: with which they were measured.
        unit: what `nll` is an average over.
        each: what an observation is called.
        exact: whether the ELBO gap is measured against an exact likelihood.
    """
    cards = []
    if "nll" in figures:
        cards.append(_likelihood(figures["nll"], figures["exact"], samples, unit))
    if "elbo_gap" in figures:
        cards.append(_gap(figures["elbo_gap"], exact, each))
    if "ess" in figures:
        cards.append(
            Certificate(
                "Effective sample size (ESS)",
                f"{100 * figures['ess']:.1f} % of {samples} samples",
                f"How many of the sampler's draws count: {samples} of them are worth "
                f"{figures['ess'] * samples:.1f} draws from the model's own posterior. 100 % "
                "means structures are drawn exactly as often as they should be.",
                "It is computed from the sampler's own draws. A sampler that has collapsed onto "
                "one structure draws it again and again, all draws weigh the same, and the figure "
                "says 100 %. "
                + (
                    "Believe it only together with the ELBO gap, which is exact here."
                    if exact
                    else "Here nothing exact contradicts it: look at how different the structures "
                    "of the examples are."
                ),
            )
        )
    if "missed" in figures:
        cards.append(
            Certificate(
                "What the sampler misses",
                f"{figures['missed']:+.3f} nats per {each}",
                "Draws in which one step of five is random are compared with the sampler's own. "
                "About 0 or less: they find nothing that the sampler does not. Well above 0: they "
                "find much better structures, which the sampler overlooks.",
                "Random steps reach what is near. Structures that differ from the sampler's in "
                "many steps at once stay unseen by both, and with few draws the figure is noisy.",
            )
        )
    return Row(cards)


def _likelihood(nll: float, exact: bool, samples: int, unit: str) -> Certificate:
    meaning = (
        f"How surprised the model is by a {unit} of the data it is measured on, on average. "
        "Lower is better; compare it only on the same data. "
    )
    if exact:
        meaning += "Exact: summed over every structure there is."
        blind = (
            "Whether the structures are those that a person would draw: a model can predict well "
            "with structures that nobody recognises."
        )
    else:
        meaning += (
            f"An upper bound from {samples} draws of the sampler for each: on average the model's "
            "true figure is this or lower."
        )
        blind = (
            "How far above the true figure it is. Where the sampler misses good structures the "
            "bound is loose, and a bad sampler cannot be told from a bad model."
        )
    return Certificate(
        "Negative log-likelihood (NLL)" + ("" if exact else ", bound"),
        f"{nll:.4f} nats per {unit}",
        meaning,
        blind,
    )


def _gap(gap: float, exact: bool, each: str) -> Certificate:
    meaning = (
        "How far the sampler's distribution over structures is from the model's true one: a bound "
        f"on the KL divergence from the first to the second, for a mean {each}. 0 is perfect. "
    )
    if exact:
        meaning += "It is measured against the exact likelihood."
        blind = (
            "Its average is over what the sampler draws. A sampler that never draws half of the "
            "posterior, but the other half well, pays only log 2 = 0.69 nats."
        )
    else:
        meaning += (
            "There is no exact likelihood here, so it is measured against an estimate from the "
            "same draws: the true gap is larger."
        )
        blind = (
            "A collapse. A sampler that draws one structure alone agrees with itself, and the "
            "figure is 0."
        )
    return Certificate("ELBO gap", f"{gap:.3f} nats per {each}", meaning, blind)


# ---------------------------------------------------------------- structures of an observation


def ranked(
    keys: Sequence[Hashable], model: Sequence[float], exact: bool, sampler: bool
) -> list[tuple[int, dict[str, float]]]:
    """The different structures among draws, the model's most probable first.

    Args:
        keys: of each draw; equal ones are one structure.
        model: the model's `p(z|x)` of each where `exact`, else normalised importance weights.
        exact: see `model`.
        sampler: whether the draws are a sampler's.

    Returns:
        For each structure its first draw, and its probabilities by who says so: the model's, and
        its share of the sampler's draws.
    """
    first: dict[Hashable, int] = {}
    weight: dict[Hashable, float] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
        weight[key] = model[place] if exact else weight.get(key, 0.0) + model[place]
    counts, name = Counter(keys), "model" if exact else "model (estimate)"
    return [
        (first[key], {name: p} | ({"sampler": counts[key] / len(keys)} if sampler else {}))
        for key, p in sorted(weight.items(), key=lambda entry: -entry[1])
    ]


def others(ranks: Sequence[tuple[int, dict[str, float]]], shown: int, drawn: int) -> str:
    """A sentence about the structures that are not shown.

    Args:
        ranks: what `ranked` gave.
        shown: how many of them are shown.
        drawn: how many draws there were.
    """
    if len(ranks) <= shown:
        return f"No other structure is among {drawn} draws."
    left = sum(next(iter(shares.values())) for _, shares in ranks[shown:])
    count = len(ranks) - shown
    some = f"{count} other structures are" if count > 1 else "One other structure is"
    return f"{some} among {drawn} draws; the model gives {percent(left)} to what is not shown."


def general(run: Run, data: DataModule | None, samples: int) -> list[Section]:
    """The report of a world that has none of its own: records of observations and structures.

    Args:
        run: the trained run.
        data: the run's data; None where it is not to be had.
        samples: structures drawn for each observation.
    """
    batches = list(run.world.held_out(data)) if data is not None else []

    def shown() -> tuple[list[Block], list[Block]]:
        drawn, learned = _drawn(run), []
        x = batches[0] if batches else drawn[0] if drawn else None
        if drawn:
            about = "What the model has learned shows in what it makes: observations x with the "
            about += "structures z behind them, drawn from it."
            learned = [Text(about), _records(run, *drawn)]
        return learned, [] if x is None else _examples(run, x)

    title = "Examples of held-out data" if batches else "Examples drawn from the model"
    return in_three(run, data, samples, "", title, shown)


def in_three(
    run: Run,
    data: DataModule | None,
    samples: int,
    meaning: str,
    title: str,
    shown: Callable[[], tuple[list[Block], list[Block]]],
) -> list[Section]:
    """A report in three sections: what was learned, examples, how good it is.

    Args:
        run, data, samples: as for `general`.
        meaning: what the world's own figures mean.
        title: of the examples.
        shown: makes what was learned, and examples; with random numbers of its own.
    """
    quality: list[Block] = []
    if data is not None:  # first: the figures are those of `gfnem evaluate` with the same seed
        quality = figures_of(run, data, samples) + ([Text(meaning)] if meaning else [])
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        learned, examples = shown()
    return [
        Section("What was learned", learned),
        Section(title, examples),
        Section("How good is it?", quality),
    ]


def figures_of(run: Run, data: DataModule, samples: int) -> list[Block]:
    """What `gfnem evaluate` says of a run: cards of what all worlds have, a table of the whole.

    Args:
        run: the trained run.
        data: its data.
        samples: importance samples for each observation.
    """
    if not (run.has_policy or run.model.offers("log_marginal")):
        return [Text("There is neither a sampler nor an exact likelihood to measure with.")]
    batches = list(run.world.held_out(data))
    if not batches:
        return [Text("No observation was held out to measure on.")]
    figures = measured(run, batches, samples)
    figures |= run.world.scores(run, data, None)
    rows = [[name.replace("_", " "), value] for name, value in figures.items()]
    unit, exact = run.model.unit, run.model.offers("log_marginal")
    return [
        certificates(figures, samples, unit, unit, exact),
        Table(["figure", "value"], rows, "What gfnem evaluate prints."),
    ]


def _drawn(run: Run) -> tuple[Any, Any] | None:
    """Observations and structures drawn from the model; None where it cannot draw."""
    if not run.model.offers("sample"):
        return None
    try:
        return run.model.sample(DRAWN)
    except RuntimeError:  # a model that finds no end
        return None


@torch.no_grad()
def _examples(run: Run, x: Any) -> list[Block]:
    samples = EXAMPLE_DRAWS
    x = x[:EXAMPLES] if isinstance(x, Tensor) else x
    given = run.model.given(x)
    exact = given.log_marginal() if given.offers("log_marginal") else None
    if run.has_policy:
        z, log_weights = run.posterior(x).log_weights(samples)
        model = log_weights.softmax(1)
    elif exact is not None and given.offers("sample_posterior"):
        z = given.sample_posterior(samples)
    else:
        return []
    if exact is not None:
        model = (given.log_joint(z) - exact[:, None]).exp()
    blocks: list[Block] = [Text(f"{BARS} An observation is x; a structure that explains it is z.")]
    observed = run.world.observed(run, x)
    latents = run.world.latents(run, observed, z)
    for row in range(min(EXAMPLES, len(latents))):
        keys = [_short(latent) for latent in latents[row]]
        ranks = ranked(keys, model[row].tolist(), exact is not None, run.has_policy)
        choices = [
            Choice(shares, Lines(f"z = {keys[place]}")) for place, shares in ranks[:STRUCTURES]
        ]
        rest = others(ranks, STRUCTURES, samples)
        blocks.append(Posterior(f"x = {_short(observed.shown[row])}", choices, rest))
    return blocks


def _records(run: Run, x: Any, z: Any) -> Block:
    observed = run.world.observed(run, x)
    latents = run.world.latents(run, observed, z)
    pairs = zip(observed.shown, latents, strict=True)
    return Table(["x", "z"], [[_short(seen), _short(latent[0])] for seen, latent in pairs])


def _short(value: Any) -> str:
    """Plain data as JSON, as much of it as people read."""
    text = json.dumps(_rounded(value), ensure_ascii=False, default=str)
    return text if len(text) <= _RECORD else f"{text[:_RECORD]}…"


def _rounded(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------- what every run has


def curves(path: Path) -> Section:
    """The curves of training, from a run's `metrics.csv`.

    Raises:
        UserError: if the file is damaged.
    """
    if not path.is_file():
        return Section("Curves", [])
    rows = read_metrics(path)
    pictures = []
    for title, names, about in PANELS:
        if len(rows) > 1 and any(name in row for row in rows for name in names):
            pictures.append(Picture(png(draw_panel(rows, title, names)), about))
    return Section("Curves", [Row(pictures)] if pictures else [])


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run's `metrics.csv`, without cells that are empty.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return [{k: float(v) for k, v in row.items() if k and v} for row in rows]
    except OSError as error:
        raise UserError(f"{path}: cannot read ({error.strerror})") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of numbers ({error})") from error


def settings(config: Mapping[str, Any], data: str) -> Section:
    """What a run was trained with.

    Args:
        config: its settings.
        data: what was read, in some lines for people.
    """
    parts = [
        [name, part["class_path"].rpartition(".")[2]]
        for name, part in config.items()
        if isinstance(part, Mapping) and "class_path" in part
    ]
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    folds = [Fold("All settings (config.yaml)", [Lines(text)])]
    if data:
        folds.insert(0, Fold("The data", [Lines(data)]))
    return Section("Settings", [Table(["part", "class"], parts), *folds])
