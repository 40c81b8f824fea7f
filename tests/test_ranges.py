"""Numbers outside their ranges are refused where they are declared, in Python too."""

import pytest

from gfnem.component import Component, build
from gfnem.errors import UserError
from gfnem.ranges import Count, Positive, Range, Share
from gfnem.schedules import Anneal


class Base(Component):
    def __init__(self, count: Count = 1):
        self.count = count


class Part(Base):
    def __init__(
        self,
        rate: Positive | Anneal = 1.0,
        share: Share | None = None,
        betas: tuple[Share, Share] = (0.9, 0.9),
        count: int = 1,
    ):
        super().__init__(count)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 0}, "rate 0: more than 0"),
        ({"rate": float("nan")}, "rate nan"),
        ({"rate": float("inf")}, "rate inf"),
        ({"rate": Anneal(1.0, -1.0, 5)}, "rate -1"),
        ({"share": 1.5}, "share 1.5: at least 0 and at most 1"),
        ({"betas": (0.9, 2.0)}, "betas 2"),
        ({"count": 0}, "count 0: at least 1"),
    ],
)
def test_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Part(**arguments)
    spec = {"class_path": f"{Part.__module__}.Part", "init_args": arguments}
    with pytest.raises(UserError, match=says):
        build(spec, Component)


def test_allowed():
    part = Part(0.5, share=None, betas=(0.0, 1.0), count=2)
    assert part.count == 2
    assert part.spec()["init_args"] == {"rate": 0.5, "share": None, "betas": [0.0, 1.0], "count": 2}
    assert not Range(above=0, below=1).holds(1)
