"""SLURM: what a training asks of it."""

from collections.abc import Mapping


def is_task(environment: Mapping[str, str]) -> bool:
    """Whether this process is one task of an `srun`, rather than the batch script itself or none of it."""
    return "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment


def first_address() -> str:
    """."""
    raise NotImplementedError
