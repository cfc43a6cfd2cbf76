"""ADA's geometry: flips and quarter turns, and one matrix for all the rest.

From Karras et al. 2020, "Training generative adversarial networks with limited data", appendix B. A matrix
maps a position (x, y, 1) before to that after, in pixels, with y downwards and the origin at the picture's
centre.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kaleidogan.training.augment.draws import Draws, choose

Matrices = Float[Tensor, "n 3 3"]

WHOLE_SHIFT = 0.125
"""The largest translation by whole pixels, as a part of the side."""
SCALE_STD = 0.2
"""Of the base-2 logarithm of either scaling."""
SHIFT_STD = 0.125
"""Of the fractional translation, as a part of the side."""


def turn(
    images: Float[Tensor, "n c h w"], flipped: Bool[Tensor, " n"], turns: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Flip left to right where `flipped`, then turn by `turns` times 90 degrees, as torch.rot90 does.

    The paper puts these into the matrix too. Its low-pass is not quite symmetric, so a mirrored picture would
    lose a little; moving the pixels loses nothing, and what comes after is the same.

    Args:
        images: a batch.
        flipped: for each image.
        turns: 0 to 3 for each image; 0 or 2 where it is not square.
    """
    sideways = turns % 2 == 1
    if images.shape[2] == images.shape[3]:
        images = choose(sideways, images.mT, images)
    images = choose(((turns == 1) | (turns == 2)) ^ (flipped & sideways), images.flip(2), images)
    return choose((turns >= 2) ^ (flipped & ~sideways), images.flip(3), images)


def draw_turn(draws: Draws, height: int, width: int) -> tuple[Bool[Tensor, " n"], Int[Tensor, " n"]]:
    """Draw what `turn` takes: a flip in one draw of two, any of the turns that keep the shape."""
    flipped = draws.whole(2) == 1
    return flipped, draws.whole(4) if height == width else draws.whole(2) * 2


def draw_whole_shift(draws: Draws, height: int, width: int) -> Matrices:
    """Draw a translation by whole pixels: the rest of pixel blitting."""
    sides = _sides(draws, height, width)
    return translation((draws.uniform(WHOLE_SHIFT, 2) * sides).round())


def draw_transform(draws: Draws, height: int, width: int) -> Matrices:
    """Draw the general geometric transformations, composed in the paper's order.

    The two rotations have probability 1 - sqrt(1 - p) each, so that either happens with p.
    """
    p_rotation = 1 - (1 - draws.p).clamp(min=0).sqrt()
    size = draws.normal(SCALE_STD)
    stretch = draws.normal(SCALE_STD)
    steps = (
        scaling(size, size),
        rotation(draws.uniform(math.pi, p=p_rotation)),
        scaling(stretch, -stretch),
        rotation(draws.uniform(math.pi, p=p_rotation)),
        translation(draws.normal(SHIFT_STD, 2) * _sides(draws, height, width)),
    )
    return compose(*steps)


def _sides(draws: Draws, height: int, width: int) -> Float[Tensor, "2"]:
    # Filled in on the device: a copy from here would make the GPU wait.
    sides = torch.full((2,), float(width), device=draws.device, dtype=draws.dtype)
    sides[1] = height
    return sides


def compose(*steps: Float[Tensor, "n k k"]) -> Float[Tensor, "n k k"]:
    """The matrix of doing each step after those before it.

    Products are spelled out: matmul may round a position to TF32's ten bits, half a pixel of a large picture.
    """
    whole = steps[0]
    for step in steps[1:]:
        whole = (step[:, :, :, None] * whole[:, None]).sum(2)
    return whole


def identity(like: Tensor, size: int) -> Float[Tensor, "n k k"]:
    """One identity matrix for each entry of the first dimension, to write into."""
    return torch.eye(size, device=like.device, dtype=like.dtype).repeat(len(like), 1, 1)


def translation(by: Float[Tensor, "n 2"]) -> Matrices:
    """Move by (x, y) pixels."""
    matrix = identity(by, 3)
    matrix[:, :2, 2] = by
    return matrix


def scaling(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Matrices:
    """Scale by 2^x and 2^y."""
    matrix = identity(x, 3)
    matrix[:, 0, 0] = x.exp2()
    matrix[:, 1, 1] = y.exp2()
    return matrix


def rotation(angle: Float[Tensor, " n"]) -> Matrices:
    """Rotate by an angle in radians, clockwise for the eye, as y points downwards."""
    matrix = identity(angle, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix
