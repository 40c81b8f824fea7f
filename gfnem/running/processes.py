"""Several processes that train one run together: who is who, and what they tell each other.

Each process, or *rank*, takes its share of every batch, draws from a random stream of its own, and
adds its gradients to those of the others. What is decided from averages, such as whether the model
is trained, is decided from the same numbers everywhere.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gfnem.errors import UserError

#: seconds between two looks at the other processes
_LOOK = 0.5


def world_size() -> int:
    """How many processes train together; 1 before they have found each other."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_rank() -> int:
    """The number of this process among them, from 0; also before they have found each other."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    if "RANK" in os.environ:
        return int(os.environ["RANK"])
    if _in_a_cluster():
        return int(os.environ["SLURM_PROCID"])
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(os.environ.get("NODE_RANK", "0")) * here + int(os.environ.get("LOCAL_RANK", "0"))


def stream() -> int:
    """The number of this process's own random stream: 0 where it is alone."""
    return own_rank() if world_size() > 1 else 0


def _in_a_cluster() -> bool:
    """Whether SLURM started this process as one of several."""
    return "SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1


def gather(value: Any) -> list[Any]:
    """The values that all processes pass here, in order of rank; plain data on the CPU."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def mean(value: Tensor) -> Tensor:
    """The mean of a number, `()`, over all processes."""
    if world_size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world_size()


def average_gradients(parameters: Sequence[Tensor], weight: float, vote: bool = False) -> bool:
    """Replaces gradients by their weighted mean over all processes.

    A parameter without a gradient counts as zero where another process has one for it.

    Args:
        parameters: of any shape, alike on all processes.
        weight: how much this process counts: its observations of the batch.
        vote: what to ask the others about along the way.

    Returns:
        Whether any process voted yes.
    """
    if world_size() == 1 or not parameters:
        return vote
    first = parameters[0]
    dtype = torch.promote_types(first.dtype, torch.float32)
    extra = [float(p.grad is not None) for p in parameters] + [float(vote), float(weight)]
    pieces = [
        torch.zeros(p.numel(), dtype=dtype, device=first.device)
        if p.grad is None
        else p.grad.flatten().to(dtype) * weight
        for p in parameters
    ]
    flat = torch.cat([*pieces, torch.tensor(extra, dtype=dtype, device=first.device)])
    dist.all_reduce(flat)
    *present, voted, total = flat[-len(extra) :].tolist()
    start = 0
    for parameter, anyone in zip(parameters, present, strict=True):
        stop = start + parameter.numel()
        if anyone:
            mean = (flat[start:stop] / total).view_as(parameter).to(parameter.dtype)
            if parameter.grad is None:
                parameter.grad = mean
            else:
                parameter.grad.copy_(mean)
        start = stop
    return voted > 0


# ------------------------------------------------------------------ starting and watching them


def started_elsewhere() -> bool:
    """Whether something started this process as one of several: torchrun, a cluster, or us."""
    return "LOCAL_RANK" in os.environ or _in_a_cluster()


def shape_of_world(devices: int, nodes: int) -> tuple[int, int]:
    """`(devices, nodes)`: as asked for, or as `torchrun` has it.

    Raises:
        UserError: if both are there and contradict each other, or a machine's number is missing.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        there = int(os.environ["WORLD_SIZE"]) // here
        if (devices, nodes) not in ((1, 1), (here, there)):
            raise UserError(
                f"--devices {devices} --num-nodes {nodes}: torchrun started {here} processes on "
                f"each of {there} machines; leave both flags out"
            )
        return here, there
    if nodes > 1 and not started_elsewhere():
        missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if n not in os.environ]
        if missing:
            raise UserError(
                f"--num-nodes {nodes}: run the same command on each machine with "
                f"{' '.join(missing)} set (the first machine's address, a free port there, and "
                "0, 1, ... for the machine), or use torchrun"
            )
    return devices, nodes


class Helpers:
    """The processes of this machine beside this one; started and watched by it.

    Args:
        settings: plain data, what `gfnem.running.training.train` takes.
        devices: processes on this machine, this one included.
        nodes: machines.
    """

    def __init__(self, settings: Mapping[str, Any], devices: int, nodes: int):
        node = int(os.environ.get("NODE_RANK", "0"))
        world = {
            "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
            "MASTER_PORT": os.environ.get("MASTER_PORT") or str(_free_port()),
            "NODE_RANK": str(node),
            "WORLD_SIZE": str(devices * nodes),
            "LOCAL_WORLD_SIZE": str(devices),
        }
        os.environ.update(world, LOCAL_RANK="0", RANK=str(node * devices))
        self._ours = [*world, "LOCAL_RANK", "RANK"]
        self.processes = []
        for local in range(1, devices):
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                "LOCAL_RANK": str(local),
                "RANK": str(node * devices + local),
            }
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from gfnem.running.training import train_beside; train_beside()",
                ],
                stdin=subprocess.PIPE,
                env=environment,
                text=True,
            )
            assert process.stdin is not None
            with process.stdin as stream:
                stream.write(json.dumps(settings))
            self.processes.append(process)
        self._done = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Ends everything as soon as one process has died: the others would wait for it."""
        while not self._done.wait(_LOOK):
            for rank, process in enumerate(self.processes, 1):
                code = process.poll()
                if code and not self._done.is_set():
                    self._end(rank, code)

    def _end(self, rank: int, code: int) -> None:
        if code > 0 and self._done.wait(3.0):
            return  # what it failed of has happened here too, and has been said
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        if code < 0:  # one that failed by itself has said why
            print(
                f"gfnem: error: process {rank} of {len(self.processes) + 1} ended "
                f"({signal.Signals(-code).name}); go on with --resume",
                file=sys.stderr,
                flush=True,
            )
        os._exit(2)

    def __enter__(self) -> Helpers:
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        """Waits for the others to end, and ends those that do not."""
        self._done.set()
        ordinary = kind is None or issubclass(kind, KeyboardInterrupt)
        patience = 60.0 if ordinary else 3.0  # they fail by themselves, or wait for this one
        deadline = time.monotonic() + patience
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for name in self._ours:
            os.environ.pop(name, None)


def watch_parent() -> None:
    """Ends this process soon after the one that started it: it would wait for it for ever."""
    world = os.environ.get("WORLD_SIZE")
    end_with_parent(f"gfnem: error: process 0 of {world} ended; go on with --resume")


def end_with_parent(message: str = "") -> None:
    """Has this process end soon after the one that started it.

    Args:
        message: what to print then.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK)
        if message:
            print(message, file=sys.stderr, flush=True)
        os._exit(2)

    threading.Thread(target=look, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
