"""Parts of a run that do not fit together are named, and errors of the user's own parts are not."""

import pytest

from gfnem.running.misfits import misfit
from gfnem.world import find


def said(name, **parts):
    """What is said of the parts that a world starts from, some of them others."""
    world = find(name)
    world.import_classes()
    settings = world.defaults()
    for part, path in parts.items():
        settings[part] = {"class_path": path}
    return misfit(settings, world)


def test_a_policy_for_the_states_of_another_space():
    line = said("graphs", policy="gfnem.graphs.FlatPolicy")
    assert line.startswith("these parts do not fit together: model DagPosterior, space LayerSpace")
    assert line.endswith("FlatPolicy goes with --space DagSpace")
    line = said("text", policy="gfnem.parsing.ForestPolicy")
    assert line.endswith("ForestPolicy goes with --space ForestSpace")


def test_a_model_of_other_structures():
    line = said("graphs", model="gfnem.graphs.WeightedPosterior")
    assert line.endswith("what this world starts from is --model DagPosterior")


def test_a_part_of_another_world():
    line = said("dependencies", model="gfnem.parsing.NeuralPCFG")
    assert line.startswith("model: NeuralPCFG is of the world text, not dependencies")


@pytest.mark.parametrize(
    "parts", [{}, {"policy": "toy.BitPolicy"}, {"model": "toy.BitModel"}], ids=len
)
def test_other_errors_are_not_blamed_on_the_choice(parts):
    assert said("text", **parts) == ""


def test_a_world_of_the_users_own():
    assert misfit({}, type(find("text"))()) == ""
