"""What libraries say of themselves stays out of what a command prints."""

import logging

import pytest
from commands import refused

from gfnem.cli import main


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--world=graphs", "--dataset.required=edges.txt"], "expected a list, not edges.txt"),
        (["--world=graphs", '--dataset.required=["a"]'], "expected a list, not a"),
        (["--world=graphs", "--model.terms=x"], "expected a list, not x"),
        (
            ["--model=EnergyGrammar", "--model.grammar.nonterminals=3"],
            "model.grammar: say which Grammar it is first, as --model.grammar CompoundPCFG; there",
        ),
    ],
    ids=lambda flags: flags[-1],
)
def test_settings_of_settings_are_refused_in_a_line(capsys, flags, why):
    line = refused(capsys, "train", *flags)
    assert why in line and "NestedArg" not in line and "NoneType" not in line


def test_a_font_that_is_not_there_is_not_reported(capsys):
    log = logging.getLogger("matplotlib.font_manager")
    log.setLevel(logging.NOTSET)
    assert main(["worlds"]) == 0
    assert not log.isEnabledFor(logging.WARNING)
    assert capsys.readouterr().err == ""
