import sys
from pathlib import Path

# specs name the toy world's classes by import path: tests are not a package
sys.path.insert(0, str(Path(__file__).parent))

import torch

# small tensors gain nothing from threads, and the suite is to run beside other work
torch.set_num_threads(1)
