"""DiffAugment: a few fixed augmentations of everything that the discriminator sees.

From Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training".
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kaleidogan.config import nearest
from kaleidogan.training.augment.corruption import cut_out, draw_square

MOST_SHIFT = 1 / 8
"""The largest translation, as a part of the side."""


class DiffAugment(nn.Module):
    """Applies each operation of its policy to each image, each time.

    Args:
        policy: which of color (brightness, saturation, contrast), translation and cutout, in order.
    """

    def __init__(
        self,
        *,
        policy: tuple[Literal["color", "translation", "cutout"], ...] = ("color", "translation", "cutout"),
    ) -> None:
        super().__init__()
        for name in policy:
            if name not in OPERATIONS:
                near = nearest(name, list(OPERATIONS))
                hint = f"did you mean {near}?" if near else f"valid here: {', '.join(OPERATIONS)}"
                raise ValueError(f"policy {name} is no operation of DiffAugment; {hint}")
        self.policy = policy

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Augment each image by itself; computed in float32 or better, returned in the images' own type.

        Args:
            images: in [-1, 1], gray, RGB or RGBA; the results may lie outside.
        """
        augmented = images.to(torch.promote_types(images.dtype, torch.float32))
        for name in self.policy:
            augmented = OPERATIONS[name](augmented)
        return augmented.to(images.dtype)


def color(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Brightness up to 0.5 up or down, saturation times 0 to 2, contrast times 0.5 to 1.5; alpha stays."""
    colours, alpha = images[:, :3], images[:, 3:]
    brightness, saturation, contrast = torch.rand(
        3, len(images), 1, 1, 1, device=images.device, dtype=images.dtype
    )
    colours = colours + (brightness - 0.5)
    gray = colours.mean(1, keepdim=True)
    colours = gray + (colours - gray) * (saturation * 2)
    middle = colours.mean((1, 2, 3), keepdim=True)
    colours = middle + (colours - middle) * (contrast + 0.5)
    return torch.cat([colours, alpha], dim=1)


def translation(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Move by whole pixels, up to an eighth of each side; what comes in is 0."""
    for dim in (2, 3):
        most = round(images.shape[dim] * MOST_SHIFT)
        images = shift(images, torch.randint(-most, most + 1, (len(images),), device=images.device), dim)
    return images


def shift(images: Float[Tensor, "n c h w"], by: Int[Tensor, " n"], dim: int) -> Float[Tensor, "n c h w"]:
    """Move each image by its own number of pixels along a dimension, with zeros following."""
    side = images.shape[dim]
    source = torch.arange(side, device=images.device) - by[:, None]
    source = source[:, None, :, None] if dim == 2 else source[:, None, None, :]
    moved = images.take_along_dim(source.clamp(0, side - 1), dim)
    return moved.masked_fill((source < 0) | (source >= side), 0.0)


def cutout(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Set a square of half the size, around a place anywhere in the image, to 0."""
    return cut_out(images, draw_square(images))


OPERATIONS = {"color": color, "translation": translation, "cutout": cutout}
