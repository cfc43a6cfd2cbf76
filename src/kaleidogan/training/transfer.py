"""Transfer: begin a training with another one's weights, as far as they fit."""

from pathlib import Path

import torch
from torch import Tensor

from kaleidogan.training import checkpoint as checkpoints
from kaleidogan.training.gan import GAN
from kaleidogan.training.runs import Run, find_checkpoints

NETWORKS = ("generator.", "discriminator.", "average.")


def begin_with(gan: GAN, path: Path, run: Run) -> None:
    """Copy both networks and the average from a run or a checkpoint; what does not fit stays random.

    Each tensor that stays is named in the run's log, with both shapes.

    Raises:
        ValueError: if nothing fits.
    """
    found = checkpoints.load_newest(find_checkpoints(path))
    assert found is not None
    source, checkpoint = found
    copied, kept = copy_fitting(gan, checkpoint["state_dict"])
    total = len(copied) + len(kept)
    if not copied:
        raise ValueError(
            f"nothing in '{source}' fits this model; init_from= takes a checkpoint of a like one"
        )
    run.say(f"beginning with {len(copied)} of {total} tensors from '{source}'")
    for line in kept:
        run.note(f"not from there: {line}")
    if kept:
        run.say(f"the other {len(kept)} stay as initialised: {kept[0]}{' ...' if len(kept) > 1 else ''}")


@torch.no_grad()
def copy_fitting(gan: GAN, theirs: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copy each tensor of the networks that has the same name and shape.

    Returns:
        The names that were copied, and a line for each that was not: why.
    """
    copied, kept = [], []
    for name, own in gan.state_dict().items():
        if not name.startswith(NETWORKS):
            continue
        if name not in theirs:
            kept.append(f"{name} {tuple(own.shape)}: not there")
        elif theirs[name].shape != own.shape:
            kept.append(f"{name} {tuple(own.shape)}: {tuple(theirs[name].shape)} there")
        else:
            own.copy_(theirs[name])
            copied.append(name)
    return copied, kept
