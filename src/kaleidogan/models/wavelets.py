"""Haar wavelets: a picture as four sub-bands of half its size, and pictures resampled as such.

Each is one convolution with a fixed weight. Sub-bands stand one after the other, each with all channels: LL,
the mean, then LH, HL and HH.
"""

from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from kaleidogan.models import ops
from kaleidogan.models.convolutions import conv, conv_transpose


def haar(channels: int) -> Float[Tensor, "bands c 2 2"]:
    """The orthonormal Haar wavelets as the weight of a convolution of stride 2.

    A block of 2x2 pixels with a top left, b bottom left, c top right and d bottom right has
    LL = (a + b + c + d) / 2, LH = (a + c - b - d) / 2, HL = (a - c + b - d) / 2, HH = (a - c - b + d) / 2.
    The signs are those of the popular port; the paper's code has LH and HL with the opposite ones.
    """
    low, high = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    weight = torch.zeros(4, channels, channels, 2, 2)
    for band, (rows, columns) in enumerate([(low, low), (high, low), (low, high), (high, high)]):
        for channel in range(channels):
            weight[band, channel, channel] = torch.outer(rows, columns) / 2
    return weight.flatten(0, 1)


@cache
def _haar(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`haar`, kept where it is used: to make or move it there each time would wait for the GPU."""
    return haar(channels).to(device, dtype)


def analyse(picture: Float[Tensor, "n c h w"]) -> Float[Tensor, "n bands h2 w2"]:
    """A picture's sub-bands. Energy is kept, and `synthesise` is the exact inverse."""
    return conv(picture, _haar(picture.shape[1], picture.device, picture.dtype), stride=2)


def synthesise(bands: Float[Tensor, "n bands h w"]) -> Float[Tensor, "n c h2 w2"]:
    """The picture that has these sub-bands."""
    return conv_transpose(bands, _haar(bands.shape[1] // 4, bands.device, bands.dtype))


def resampling(channels: int) -> Float[Tensor, "bands bands 4 4"]:
    """Synthesis, the low-pass filter's doubling, and analysis, as one transposed convolution's weight.

    Found by what they make of a single coefficient: all of it lies within 4x4 of the result.
    """
    count = 4 * channels
    single = torch.zeros(count, count, 5, 5, dtype=torch.float64)
    single[range(count), range(count), 2, 2] = 1
    weight = haar(channels).double()
    picture = F.conv_transpose2d(single, weight, stride=2)
    return F.conv2d(ops.upsample(picture), weight, stride=2)[:, :, 3:7, 3:7].float().contiguous()


@cache
def _resampling(channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`resampling`, kept where it is used."""
    return resampling(channels).to(device, dtype)


def upsample(bands: Float[Tensor, "n bands h w"]) -> Float[Tensor, "n bands h2 w2"]:
    """The sub-bands of the picture at twice the size."""
    return conv_transpose(bands, _resampling(bands.shape[1] // 4, bands.device, bands.dtype), padding=1)


def downsample(bands: Float[Tensor, "n bands h w"]) -> Float[Tensor, "n bands h2 w2"]:
    """The sub-bands of the picture at half the size."""
    # The adjoint of doubling, whose filter has four times the gain.
    weight = _resampling(bands.shape[1] // 4, bands.device, bands.dtype) / 4
    return conv(bands, weight, stride=2, padding=1)
