"""ADA's colours: one matrix over (r, g, b, 1) for each image.

From Karras et al. 2020, "Training generative adversarial networks with limited data", appendix B. Colours are
in [-1, 1], so that gray is the origin, and are not clamped.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidogan.training.augment.draws import Draws, choose
from kaleidogan.training.augment.geometry import compose, identity

Matrices = Float[Tensor, "n 4 4"]

BRIGHTNESS_STD = 0.2
CONTRAST_STD = 0.5
"""Of the base-2 logarithm."""
SATURATION_STD = 1.0
"""Of the base-2 logarithm."""


def draw_colours(draws: Draws) -> Matrices:
    """Draw brightness, contrast, luma flip, hue and saturation, composed in this order."""
    steps = (
        brightness(draws.normal(BRIGHTNESS_STD)),
        contrast(draws.normal(CONTRAST_STD)),
        luma_flip(draws.whole(2).to(draws.dtype)),
        hue(draws.uniform(math.pi)),
        saturation(draws.normal(SATURATION_STD)),
    )
    return compose(*steps)


def apply_colours(images: Float[Tensor, "n c h w"], matrix: Matrices) -> Float[Tensor, "n c h w"]:
    """Recolour each image by its matrix; where that is the identity, the image is returned to the bit.

    Args:
        images: RGB; or RGBA, whose alpha stays; or gray, which becomes the mean of what it would as RGB.
        matrix: (r, g, b, 1) before to after.
    """
    linear, offset = matrix[:, :3, :3], matrix[:, :3, 3:]
    if images.shape[1] == 1:
        linear, offset = linear.sum((1, 2)).view(-1, 1, 1) / 3, offset.mean(1, keepdim=True)
    elif images.shape[1] == 4:
        linear, offset = identity(matrix, 4), torch.cat([offset, torch.zeros_like(offset[:, :1])], dim=1)
        linear[:, :3, :3] = matrix[:, :3, :3]
    coloured = torch.baddbmm(offset, linear, images.flatten(2)).view_as(images)
    changed = (matrix != torch.eye(4, device=matrix.device, dtype=matrix.dtype)).flatten(1).any(1)
    return choose(changed, coloured, images)


def brightness(by: Float[Tensor, " n"]) -> Matrices:
    """Add to each colour."""
    matrix = identity(by, 4)
    matrix[:, :3, 3] = by[:, None]
    return matrix


def contrast(by: Float[Tensor, " n"]) -> Matrices:
    """Multiply each colour by 2^by."""
    matrix = identity(by, 4)
    matrix[:, :3, :3] *= by.exp2()[:, None, None]
    return matrix


def luma_flip(flipped: Float[Tensor, " n"]) -> Matrices:
    """Reflect about the plane of no luma where `flipped` is 1: light becomes dark, hues stay."""
    return identity(flipped, 4) - 2 * flipped[:, None, None] * _luma(flipped)


def hue(angle: Float[Tensor, " n"]) -> Matrices:
    """Rotate about the luma axis by an angle in radians (Rodrigues' formula); 120 degrees: red to green."""
    around = torch.zeros(4, 4, device=angle.device, dtype=angle.dtype)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        around[second, first], around[first, second] = 3**-0.5, -(3**-0.5)
    away = torch.eye(4, device=angle.device, dtype=angle.dtype) - _luma(angle)
    away[3, 3] = 0
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return identity(angle, 4) + sine * around + (cosine - 1) * away


def saturation(by: Float[Tensor, " n"]) -> Matrices:
    """Scale the distance from the luma axis by 2^by."""
    away = torch.eye(4, device=by.device, dtype=by.dtype) - _luma(by)
    away[3, 3] = 0
    return identity(by, 4) + (by.exp2() - 1)[:, None, None] * away


def _luma(like: Tensor) -> Float[Tensor, "4 4"]:
    """The projection onto the luma axis, (1, 1, 1, 0) / sqrt(3)."""
    projection = torch.zeros(4, 4, device=like.device, dtype=like.dtype)
    projection[:3, :3] = 1 / 3
    return projection
