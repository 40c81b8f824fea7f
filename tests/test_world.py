"""Worlds: found by name or import path, and refused in words where they lack something."""

import sys

import pytest

from gfnem.errors import UserError
from gfnem.world import DEFAULT, NEEDED, WORLDS, Unnamed, World, declared, find, reference

OWN = """
from gfnem.world import World

class Whole(World):
    about = "numbers"
    space = {"class_path": "a.Space"}
    parts = {"dataset": "a.Data", "model": World, "space": space, "policy": "a.P"}

    def read(self, run, source):
        yield from ()

class Partless(Whole):
    parts = {"dataset": "a.Data", "policy": "a.P"}

class Blind(World):
    about = "nothing is read"

number = 3
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_world.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_world", None)


@pytest.mark.parametrize("name", declared(WORLDS))
def test_every_world_that_is_shipped_names_its_parts(name):
    world = find(name)
    content = world.defaults()
    assert world.about and world.data and world.name == name
    assert all("class_path" in content[part] for part in NEEDED)
    assert reference(world) == name


def test_the_world_of_a_run_that_says_nothing_is_shipped():
    assert DEFAULT in declared(WORLDS) and isinstance(find(None), Unnamed)
    assert reference(find(None)) is None


def test_a_users_own_is_found_by_its_path_and_remembered_by_it():
    world = find("own_world.Whole")
    assert isinstance(world, World) and find(reference(world)).name == "own_world.Whole"
    parts = world.defaults()
    assert parts["dataset"] == {"class_path": "a.Data"}
    assert parts["model"] == {"class_path": "gfnem.world.World"}
    assert parts["space"] == {"class_path": "a.Space"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "nowhere",
            "there is no world 'nowhere'; there are .*text.*, and yours as my_file.MyWorld",
        ),
        ("own_world.Blind", "own_world.Blind lacks methods that it must define: read"),
        ("own_world.number", "own_world.number is not a World"),
        ("own_world.Missing", "cannot import own_world.Missing"),
        ("no_such_file.World", "cannot import no_such_file.World .* name it with --code FILE"),
    ],
)
def test_another_is_refused_in_words(name, said):
    with pytest.raises(UserError, match=said):
        find(name)


def test_parts_that_lack_are_named():
    with pytest.raises(UserError, match="its parts lack model, space"):
        find("own_world.Partless").defaults()


def test_scores_are_listed_for_a_person():
    table = find("own_world.Whole").table(None, {"nll": 1.23456, "exact": True})
    assert [line.split() for line in table.splitlines()] == [["nll", "1.2346"], ["exact", "True"]]
