"""Transfer: begin a training with another one's weights, as far as they fit."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from kaleidogan.training import checkpoint as checkpoints
from kaleidogan.training.gan import GAN
from kaleidogan.training.runs import Run, find_checkpoints

NETWORKS = ("generator.", "discriminator.", "average.")
BLOCK = re.compile(r"(discriminator\.(?:blocks|from_bands|neural)\.)(\d+)\.")


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
def copy_fitting(gan: GAN, theirs: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Copy each tensor of the networks that has the same place and shape.

    Returns:
        The names that were copied, and a line for each that was not: why.
    """
    copied, kept = [], []
    state, found = gan.state_dict(), by_place(theirs)
    for place, name in by_place(state).items():
        if not name.startswith(NETWORKS) or not isinstance(state[name], torch.Tensor):
            continue  # a growing network's level is not a weight
        own = state[name]
        if place not in found:
            kept.append(f"{name} {tuple(own.shape)}: not there")
        elif (there := theirs[found[place]]).shape != own.shape:
            kept.append(f"{name} {tuple(own.shape)}: {tuple(there.shape)} there")
        else:
            own.copy_(there)
            copied.append(name)
    return copied, kept


def by_place(names: Iterable[str]) -> dict[str, str]:
    """Name each tensor by its place: a discriminator's block by how many follow it.

    A block is numbered from the picture inwards, and has the same sizes as another network's where as many
    follow.
    """
    names = list(names)
    last: dict[str, int] = {}
    for name in names:
        if block := BLOCK.match(name):
            last[block[1]] = max(last.get(block[1], 0), int(block[2]))
    return {
        BLOCK.sub(lambda block: f"{block[1]}{last[block[1]] - int(block[2])}.", name): name for name in names
    }
