"""StyleGAN2-ADA's numbers that follow from the size of the pictures, the batch and the number of GPUs."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Numbers:
    """The published `auto` configuration, resolved."""

    batch_size: int
    mbstd_group: int
    channel_base: int
    learning_rate: float
    r1_gamma: float
    ema_kimg: float


def resolve(resolution: tuple[int, int], gpus: int = 1, batch_size: int | None = None) -> Numbers:
    """Find the numbers of StyleGAN2-ADA's `auto` configuration (Karras et al. 2020).

    Args:
        resolution: (height, width); a square of equal area counts.
        gpus: the published batch grows with their number.
        batch_size: over all GPUs; None: the published one.
    """
    area = resolution[0] * resolution[1]
    side = round(math.sqrt(area))
    if batch_size is None:
        each = min(4096 // side, 32)
        # Whole groups of the minibatch deviation: 5, as at 768 px, would make groups of one, with none.
        each -= each % 4 if each > 4 else 0
        batch_size = max(min(gpus * each, 64), gpus)
    return Numbers(
        batch_size=batch_size,
        mbstd_group=max(1, min(batch_size // gpus, 4)),
        channel_base=32768 if side >= 512 else 16384,
        learning_rate=0.002 if side >= 1024 else 0.0025,
        r1_gamma=0.0002 * area / batch_size,
        ema_kimg=batch_size * 10 / 32,
    )
