"""Ranks: what a training's processes tell one another.

A batch is shared equally by the ranks, each of which holds all weights. Gradients are averaged once a step,
just before the optimiser takes it, and so are the figures that each rank has found on its part of the batch.
"""

import os
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kaleidogan.training import slurm
from kaleidogan.training.place import Place

FIRST_PORT, PORTS = 20000, 20000
"""Where the ranks of a SLURM job meet: a port that follows from the job's number."""


def join(place: Place, timeout_s: float) -> None:
    """Meet the other ranks, if there are any.

    Args:
        place: this process's.
        timeout_s: how long to wait for another rank, in seconds, here and whenever they tell each other
            something.

    Raises:
        RuntimeError: if they do not come.
    """
    if place.size == 1 or dist.is_initialized():
        return
    if "MASTER_ADDR" not in os.environ and slurm.is_task(os.environ):
        os.environ["MASTER_ADDR"] = slurm.first_address()
        os.environ["MASTER_PORT"] = str(FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS)
    dist.init_process_group(
        # Whole numbers and words travel by gloo: they never wait for the GPU.
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        init_method="env://",
        rank=place.rank,
        world_size=place.size,
        timeout=timedelta(seconds=timeout_s),
    )


def leave() -> None:
    """Part from the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_broken(error: Exception) -> bool:
    """Whether an error says that another rank has gone, or does not answer."""
    return isinstance(error, dist.DistBackendError) or (
        isinstance(error, RuntimeError) and re.search("gloo|nccl", str(error), re.I) is not None
    )


def size() -> int:
    """How many ranks there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(tensors: Sequence[Tensor]) -> None:
    """Replace tensors by their means over all ranks: one message for each type of number."""
    if size() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        own = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = own[0].new_empty(sum(tensor.numel() for tensor in own))
        views, offset = [], 0
        for tensor in own:
            views.append(_view_like(flat[offset : offset + tensor.numel()], tensor))
            offset += tensor.numel()
        torch._foreach_copy_(views, own)
        dist.all_reduce(flat)
        flat /= size()
        torch._foreach_copy_(own, views)


def _view_like(flat: Tensor, tensor: Tensor) -> Tensor:
    """A stretch of memory as a tensor of another's shape, laid out as that is, so that copying is quick."""
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return flat.as_strided(tensor.shape, tensor.stride())
    return flat.view(tensor.shape)


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all ranks."""
    if size() > 1:
        tensor = tensor.clone()
        average([tensor])
    return tensor


def combine(tensor: Tensor, how: str) -> Tensor:
    """A tensor combined over all ranks: `sum`, `max`, `min` or what else PyTorch knows."""
    tensor = tensor.clone()
    if size() > 1:
        dist.all_reduce(tensor, getattr(dist.ReduceOp, how.upper()))
    return tensor


def gather(value: Any) -> list[Any]:
    """What each rank has, on all."""
    if size() == 1:
        return [value]
    found: list[Any] = [None] * size()
    dist.all_gather_object(found, value)
    return found


def broadcast(value: Any) -> Any:
    """What the first rank has, on all."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


class Agreement:
    """A flag that any rank may raise and all see after the same step, without waiting for one another.

    What is said at one step is heard at the next; a single process hears itself at once.
    """

    def __init__(self) -> None:
        self._flag: Tensor | None = None
        self._message: dist.Work | None = None

    def reached(self, value: int) -> int:
        """Say a number, and hear the largest that any rank said at the step before (alone: at this one)."""
        if size() == 1:
            return value
        heard = 0
        if self._message is not None:
            assert self._flag is not None
            self._message.wait()
            heard = int(self._flag)
            self._message = None
        if not heard:
            self._flag = torch.tensor(value)
            self._message = dist.all_reduce(self._flag, dist.ReduceOp.MAX, async_op=True)
        return heard

    def settle(self, value: int) -> int:
        """Say a number and wait for what the others say: at a point that all ranks come to."""
        heard = self.reached(value)
        return heard or self.reached(value)
