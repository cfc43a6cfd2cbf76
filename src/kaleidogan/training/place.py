"""Which of a training's processes this one is. Imports nothing that is slow."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kaleidogan.training import slurm


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its training.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number among those of its machine.
        local_size: how many there are on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks, saves and records."""
        return self.rank == 0


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Read this process's place from what torchrun, srun or our own launcher has set.

    Raises:
        ValueError: if the environment names a rank that cannot be.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    if "RANK" not in environment and slurm.is_task(environment):
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    elif "RANK" not in environment or "WORLD_SIZE" not in environment:
        return Place()
    # SLURM counts tasks by node, e.g. 2(x3),1.
    rank, size, local_rank, local_size = (
        int(re.match(r"\d+", environment.get(name, default))[0])  # type: ignore[index]
        for name, default in zip(names, ("0", "1", "0", "1"), strict=True)
    )
    if not 0 <= rank < size:
        raise ValueError(f"{names[0]}={rank} is not a rank of {names[1]}={size}")
    return Place(rank, size, local_rank, local_size)
