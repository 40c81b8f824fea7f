"""What libraries say of themselves stays out of what a command prints."""

import logging

from gfnem.cli import main


def test_a_font_that_is_not_there_is_not_reported(capsys):
    log = logging.getLogger("matplotlib.font_manager")
    log.setLevel(logging.NOTSET)
    assert main(["worlds"]) == 0
    assert not log.isEnabledFor(logging.WARNING)
    assert capsys.readouterr().err == ""
