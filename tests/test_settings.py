"""Settings files are read, or refused with the line where they go wrong."""

import pytest

from gfnem.errors import UserError
from gfnem.settings import read_settings


def test_what_is_in_the_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("model:\n  class_path: a.B\nseed: 3\n")
    assert read_settings(file) == {"model": {"class_path": "a.B"}, "seed": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\nmodel: [1,\n", "line 3: not YAML"),
        ("- 1\n- 2\n", "no settings in it"),
        ("# nothing\n", "no settings in it"),
        ("", "the file is empty"),
        ("day: 2026-13-01\n", "not YAML"),
    ],
)
def test_another_file_is_refused(tmp_path, text, said):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_settings(file)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        read_settings(tmp_path / "nowhere.yaml")
