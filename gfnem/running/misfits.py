"""Which parts of a run do not fit together, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from gfnem.batched import State
from gfnem.component import class_of, derived
from gfnem.policy import Policy
from gfnem.reward import Reward
from gfnem.space import LatentSpace
from gfnem.target import Target
from gfnem.world import WORLDS, World, declared, find

_KINDS = {"model": Target, "space": LatentSpace, "policy": Policy, "reward": Reward}


def misfit(settings: Mapping[str, Any], world: World) -> str:
    """Why an error may come of the choice of parts, in a line; "" where it does not.

    Parts of two worlds may fit, and so may any two of one world; where they do not, anything can
    come of it. An error in a part of the user's own, or in those that a world starts from, is none
    of the choice.

    Args:
        settings: of the run, with its model, space and policy.
        world: the run's.
    """
    if world.name not in declared(WORLDS):
        return ""
    parts = _classes(settings)
    others = {name: find(name).modules for name in declared(WORLDS) if name != world.name}
    strangers = [
        f"{part}: {cls.__name__} is of the world {other}, not {world.name}"
        for part, cls in parts.items()
        if cls.__module__ not in world.modules
        for other, modules in others.items()
        if cls.__module__ in modules
    ]
    if strangers:
        return f"{', '.join(strangers)}; these parts do not fit together"
    usual = _classes(world.defaults())
    parts = {name: cls for name, cls in parts.items() if name in usual}
    if parts == usual or any(cls.__module__ not in world.modules for cls in parts.values()):
        return ""
    named = ", ".join(f"{part} {cls.__name__}" for part, cls in parts.items())
    wanted = _state(parts["policy"], Policy)
    spaces = [cls.__name__ for cls in derived(LatentSpace) if _state(cls, LatentSpace) is wanted]
    if isinstance(wanted, type) and spaces and parts["space"].__name__ not in spaces:
        way = f"{parts['policy'].__name__} goes with --space {' or '.join(spaces)}"
    else:
        start = [f"--{part} {cls.__name__}" for part, cls in usual.items() if parts[part] != cls]
        way = f"what this world starts from is {' '.join(start)}"
    return f"these parts do not fit together: {named}; {way}"


def _classes(settings: Mapping[str, Any]) -> dict[str, type]:
    return {
        part: class_of(settings[part], kind) for part, kind in _KINDS.items() if settings.get(part)
    }


def _state(cls: type, base: type) -> Any:
    """What a subclass of `LatentSpace` or `Policy` declares its states to be, if it does."""
    if cls is base:
        return State
    for parent in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin = get_origin(parent) or parent
        if isinstance(origin, type) and issubclass(origin, base):
            state = _state(origin, base)
            told = dict(zip(getattr(origin, "__parameters__", ()), get_args(parent), strict=False))
            return told.get(state, state)
    return None
