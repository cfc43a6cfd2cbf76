"""The anti-aliased warp: up to twice the resolution, sample, and down again.

From Karras et al. 2020, "Training generative adversarial networks with limited data", appendix B.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from kornia.geometry.transform import warp_affine
from torch import Tensor, nn

from kaleidogan.training.augment.draws import choose

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
"""The low-pass of the symlet with six vanishing moments (Daubechies 1992, "Ten lectures on wavelets").

Its shifts by two are orthonormal, so that down after up gives back every pixel.
"""
CENTRE = 5
"""The tap that a pixel is at."""
DELAY = 3 / 32
"""How far low frequencies lag behind it: 0.098, or rather a number that makes no rounding errors."""


class Warp(nn.Module):
    """Moves pictures by matrices; what lies beyond the edge is the reflected picture."""

    lowpass: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("lowpass", torch.tensor(SYM6), persistent=False)

    def forward(
        self, images: Float[Tensor, "n c h w"], matrix: Float[Tensor, "n 3 3"]
    ) -> Float[Tensor, "n c h w"]:
        """Transform each image by its matrix; where that is the identity, the image is returned to the bit.

        Args:
            images: a batch.
            matrix: (x, y, 1) before to (x, y, 1) after, in pixels from the centre.
        """
        height, width = images.shape[2:]
        # Pixel i is at 2 i on the fine grid, so the centre of a side is at that side less 1 ...
        centre = torch.full((2,), width - 1 + DELAY, device=images.device, dtype=images.dtype)
        centre[1] = height - 1 + DELAY
        linear, shift = matrix[:, :2, :2], matrix[:, :2, 2]
        # ... and the grid that is read begins CENTRE earlier, as the filter reaches over the edge.
        shift = 2 * shift + centre + CENTRE - (linear * centre).sum(2)
        fine_matrix = torch.cat([linear, shift[:, :, None]], dim=2)
        size = (2 * height + len(SYM6) - 2, 2 * width + len(SYM6) - 2)
        fine = upsample(images, self.lowpass)
        warped = downsample(warp_affine(fine, fine_matrix, size, padding_mode="reflection"), self.lowpass)
        moved = (matrix != torch.eye(3, device=matrix.device, dtype=matrix.dtype)).flatten(1).any(1)
        return choose(moved, warped, images)


def upsample(
    images: Float[Tensor, "n c h w"], lowpass: Float[Tensor, " taps"]
) -> Float[Tensor, "n c 2*h-1 2*w-1"]:
    """Double the resolution; pixel i of a line goes to 2 i, and the last pixel is the last."""
    channels = images.shape[1]
    taps = _depthwise(lowpass * 2**0.5, images)
    # Separable depthwise filters are fastest in channels_last.
    images = reflect(images, (3, 2, 3, 2)).contiguous(memory_format=torch.channels_last)
    cut = 2 * 3 + CENTRE
    fine = F.conv_transpose2d(images, taps, None, (1, 2), (0, cut), (0, 1), channels)
    return F.conv_transpose2d(fine, taps.mT, None, (2, 1), (cut, 0), (1, 0), channels)


def downsample(
    fine: Float[Tensor, "n c fine_h fine_w"], lowpass: Float[Tensor, " taps"]
) -> Float[Tensor, "n c h w"]:
    """Halve the resolution with the filter reversed; 2 h + 10 lines give h."""
    channels = fine.shape[1]
    taps = _depthwise(lowpass / 2**0.5, fine)
    fine = fine.contiguous(memory_format=torch.channels_last)
    half = F.conv2d(fine, taps, None, (1, 2), groups=channels)
    return F.conv2d(half, taps.mT, None, (2, 1), groups=channels)


def _depthwise(taps: Tensor, images: Tensor) -> Float[Tensor, "c 1 1 taps"]:
    return taps.to(images.dtype).view(1, 1, 1, -1).expand(images.shape[1], 1, 1, -1)


def reflect(
    images: Float[Tensor, "n c h w"], sides: tuple[int, int, int, int]
) -> Float[Tensor, "n c padded_h padded_w"]:
    """Pad with reflections about the outermost pixels, as far as one likes.

    Args:
        images: a batch.
        sides: pixels on the left, right, top and bottom. PyTorch refuses more than a side's length less 1.
    """
    while any(sides):
        height, width = images.shape[2:]
        step = tuple(
            min(side, most - 1) for side, most in zip(sides, (width, width, height, height), strict=True)
        )
        images = F.pad(images, step, mode="reflect")
        sides = tuple(side - done for side, done in zip(sides, step, strict=True))  # type: ignore[assignment]
    return images


def probe(device: torch.device | str) -> None:
    """Check that gradient penalties can pass through the warp on a device.

    They differentiate the sampling twice, which older versions of PyTorch cannot.

    Raises:
        ValueError: if this PyTorch has no second derivative of it there.
    """
    images = torch.rand(1, 1, 4, 4, device=device, requires_grad=True)
    where = torch.rand(1, 4, 4, 2, device=device)
    try:
        sampled = F.grid_sample(images, where, padding_mode="reflection", align_corners=True)
        (gradient,) = torch.autograd.grad(sampled.square().sum(), images, create_graph=True)
        torch.autograd.grad(gradient.square().sum(), images)
    except RuntimeError as error:
        raise ValueError(
            f"PyTorch {torch.__version__} cannot differentiate grid_sample twice on {device}, which gradient "
            "penalties need with ADA; 2.13 and later can"
        ) from error
