"""Test cases that a plug-in inherits: the proof of a new latent space, policy, target or reward.

They are plain classes for pytest. A test class inherits one and supplies two or three methods;
instances are to be small enough that every structure can be listed, because most checks compare
with exhaustive search:

    class TestMySpace(LatentSpaceTestCase):
        def make_space(self): ...
        def make_x(self): ...
"""

from gfnem.enumeration import enumerate_trajectories
from gfnem.testing.common import DevicesNamed, devices
from gfnem.testing.latent_space import LatentSpaceTestCase
from gfnem.testing.policy import PolicyTestCase
from gfnem.testing.reward import RewardTestCase
from gfnem.testing.target import TargetTestCase

__all__ = [
    "DevicesNamed",
    "LatentSpaceTestCase",
    "PolicyTestCase",
    "RewardTestCase",
    "TargetTestCase",
    "devices",
    "enumerate_trajectories",
]
