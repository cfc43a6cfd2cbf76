"""A blur that fades during the first images, before the discriminator and its augmentation."""

import torch
from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn

SMALLEST = 0.1
"""A blur of a smaller deviation, in pixels, changes nothing that 8 bits would show."""


class Fade(nn.Module):
    """Blurs with a Gaussian whose deviation shrinks linearly with the images seen.

    From Karras et al. 2021, "Alias-free generative adversarial networks": it keeps the discriminator from
    settling on high frequencies before there is anything to see. A callback sets `sigma`.

    Args:
        start: deviation at the first image, in pixels.
        kimg: thousands of images after which there is none.
    """

    def __init__(self, start: float, kimg: float) -> None:
        super().__init__()
        self.start = start
        self.kimg = kimg
        self.sigma = start

    def at(self, images_seen: int) -> float:
        """The deviation after so many images."""
        return self.start * max(0.0, 1 - images_seen / (self.kimg * 1000))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Blur the pictures, mirrored at the border."""
        if self.sigma < SMALLEST:
            return images
        # The reflection must not be wider than the picture.
        radius = min(round(3 * self.sigma) or 1, *(side - 1 for side in images.shape[2:]))
        size = 2 * radius + 1
        # Autocast would round the pictures to bfloat16, even where ADA keeps them from it.
        with torch.autocast(images.device.type, enabled=False):
            blurred = gaussian_blur2d(
                images.to(torch.promote_types(images.dtype, torch.float32)),
                (size, size),
                (self.sigma, self.sigma),
            )
        return blurred.to(images.dtype)
