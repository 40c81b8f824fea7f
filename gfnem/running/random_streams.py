"""Random numbers: their state in checkpoints, and a stream for each process."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """The states of torch's generators, on all devices."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts them back."""
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([device.cpu() for device in state["cuda"]])


def own_stream(rank: int) -> None:
    """Gives this process random numbers of its own; those of rank 0 stay as they are."""
    if rank:
        torch.manual_seed((torch.initial_seed() * 1_000_003 + rank) % 2**63)
        random.seed(torch.initial_seed())


def new_stream(state: Tensor, rank: int) -> None:
    """Random numbers for a process that goes on with the run of another number of processes.

    Args:
        state: `(bytes,)` a generator's state in the checkpoint.
        rank: of this process.
    """
    digest = hashlib.sha256(state.cpu().numpy().tobytes() + str(rank).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
