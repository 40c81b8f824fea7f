"""Rewards in a world of numbers: `x` and `z` are small, and everything is listed."""

import pytest
import torch

from gfnem.estimates import importance_weighted
from gfnem.evaluation import figures
from gfnem.lightning import GFlowNetEM
from gfnem.offers import NotOffered
from gfnem.recipes import exact, gflownet
from gfnem.reward import Reward, Rewarded, rewarded
from gfnem.running.trained import Trained
from gfnem.schedules import Anneal

PLACEHOLDER = None
