"""The averaged generator: an exponential moving average whose half-life is counted in images."""

import torch
from torch import nn

STATISTICS = ("running_mean", "running_var")
"""The buffers of a batch norm that are averages themselves."""


def decay(images: int, half_life: float, *, images_seen: int, rampup: float | None = None) -> float:
    """How much of the average stays after a step that showed some images.

    Args:
        images: shown in this step, over all ranks.
        half_life: in images; after as many, half of the old average is left.
        images_seen: so far.
        rampup: the half-life is at most this share of the images seen, so that the average does not
            remember the initial weights for long (Karras et al. 2020, "Training generative adversarial
            networks with limited data"); None: no limit.
    """
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (images / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update(average: nn.Module, live: nn.Module, keep: float) -> None:
    """Move an average towards the live network: parameters and batch norm's statistics; buffers are copied.

    The statistics belong to weights: the live network's would not fit the averaged ones, and darken or burn
    out the pictures.
    """
    old: list[torch.Tensor] = list(average.parameters())
    new: list[torch.Tensor] = list(live.parameters())
    for (name, kept), current in zip(average.named_buffers(), live.buffers(), strict=True):
        if name.endswith(STATISTICS):
            old.append(kept)
            new.append(current)
        else:
            kept.copy_(current)
    torch._foreach_lerp_(old, new, 1 - keep)  # one fused call: 3.5x a loop over the parameters
