"""Points in the plane: a hierarchical Gaussian mixture whose posterior is known exactly."""

from gfnem.mixtures.data import Petals
from gfnem.mixtures.model import PetalMixture
from gfnem.mixtures.policy import PetalPolicy
from gfnem.mixtures.space import PetalSpace, PetalState

__all__ = ["PetalMixture", "PetalPolicy", "PetalSpace", "PetalState", "Petals"]
