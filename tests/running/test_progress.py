"""What a person reads while a run trains."""

import pytest
import torch

from gfnem.running.progress import TrainingProgress, _clock


class Module:
    """The facts that progress asks a training module for."""

    max_updates = 400
    has_policy = True

    class model:
        unit = "token"

    def __init__(self, updates):
        self.updates = self.m_updates = torch.tensor(updates)


class Trainer:
    """The facts that progress asks a Trainer for."""

    def __init__(self, leads=True, **figures):
        self.is_global_zero = leads
        self.callback_metrics = {name: torch.tensor(value) for name, value in figures.items()}


def lines(capsys, *trainers) -> list[str]:
    progress = TrainingProgress()
    progress.on_train_start(trainers[0], Module(100))
    for trainer in trainers:
        progress.on_train_epoch_end(trainer, Module(200))
    return capsys.readouterr().out.splitlines()


def test_an_interval_is_a_line_with_its_units(capsys):
    (line,) = lines(capsys, Trainer(e_loss=0.5, val_nll=5.25, val_ess=0.5, elbo=-3.0, m_loss=9.0))
    assert line.startswith("update 200/400  E-loss 0.5  M-updates 200  ELBO -3.00")
    assert "held-out NLL/token 5.250  ESS 50%" in line and "to go" in line
    assert "M-loss" not in line, "the ELBO says the same"


def test_a_collapse_is_said_aloud(capsys):
    quiet, loud = lines(capsys, Trainer(val_missed=0.5)), lines(capsys, Trainer(val_missed=4.0))
    assert len(quiet) == 1 and "(4.0 nats): it may have collapsed" in loud[1]


def test_only_the_first_process_speaks(capsys):
    assert lines(capsys, Trainer(leads=False, e_loss=1.0)) == []


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (599.6, "10:00"), (3661, "1:01:01")])
def test_a_clock(seconds, text):
    assert _clock(seconds) == text
