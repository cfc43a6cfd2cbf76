"""What ADA does to the pixels in place: it shifts power between frequency bands, adds noise, and cuts out.

From Karras et al. 2020, "Training generative adversarial networks with limited data", appendix B.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from kornia.filters import filter2d_separable
from torch import Tensor, nn

from kaleidogan.training.augment.draws import Draws, choose
from kaleidogan.training.augment.warp import reflect

SYM2 = tuple((a + b * 3**0.5) / 32**0.5 for a, b in ((1, 1), (3, 1), (3, -1), (1, -1)))
"""The low-pass of the symlet with two vanishing moments (Daubechies 1992, "Ten lectures on wavelets")."""
NUM_BANDS = 4
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""What part of a natural picture's power lies in each band, lowest first."""
BAND_STD = 1.0
"""Of the base-2 logarithm of a band's gain."""
NOISE_STD = 0.1
"""Of the noise's standard deviation, which is half-normal."""
CUTOUT_SIZE = 0.5
"""Of the cut-out square, as a part of each side."""


class Bands(nn.Module):
    """Amplifies the octaves [0, pi/8], [pi/8, pi/4], [pi/4, pi/2] and [pi/2, pi], along x and along y."""

    bands: Tensor
    power: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", torch.tensor(band_filters(), dtype=torch.float32), persistent=False)
        self.register_buffer("power", torch.tensor(POWER), persistent=False)

    def draw(self, draws: Draws) -> Float[Tensor, "n bands"]:
        """Draw each band's gain; after each draw all gains are scaled to keep the expected power."""
        gains = torch.stack([draws.normal(BAND_STD).exp2() for _ in range(NUM_BANDS)], dim=1)
        expected = 1 + self.power * (gains.square() - 1)
        return gains / expected.prod(1, keepdim=True).sqrt()

    def forward(
        self, images: Float[Tensor, "n c h w"], gains: Float[Tensor, "n bands"]
    ) -> Float[Tensor, "n c h w"]:
        """Filter each image; where all gains are 1, the image is returned to the bit."""
        taps = (gains[:, :, None] * self.bands.to(gains.dtype)).sum(1)
        reach = taps.shape[1] // 2
        padded = reflect(images, (reach, reach, reach, reach))
        filtered = filter2d_separable(padded, taps, taps, padding="valid")
        return choose((gains != 1).any(1), filtered, images)


def band_filters() -> Float[np.ndarray, "bands taps"]:
    """The taps of the four bands' filters, lowest first, with no delay; they add up to 1 at the centre.

    Each level of the wavelet splits what lies below it: |H(z)|^2 / 2 keeps the lower half, |H(-z)|^2 / 2 the
    upper.
    """
    lowpass = np.array(SYM2)
    highpass = lowpass * (-1) ** np.arange(len(lowpass))
    below, found = np.ones(1), []
    for level in range(NUM_BANDS - 1):
        low, high = (_spread(np.convolve(half, half[::-1]) / 2, 2**level) for half in (lowpass, highpass))
        found.append(np.convolve(below, high))
        below = np.convolve(below, low)
    longest = len(below)
    return np.stack([np.pad(band, (longest - len(band)) // 2) for band in (below, *found[::-1])])


def _spread(taps: Float[np.ndarray, " taps"], step: int) -> Float[np.ndarray, " spread"]:
    """The taps at every `step`-th place, with zeros between."""
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


def draw_noise(draws: Draws, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Draw noise for the colours, of a strength that each image draws for itself; alpha has none."""
    noise = torch.randn_like(images) * draws.normal(NOISE_STD, 1, 1, 1).abs()
    noise[:, 3:] = 0
    return noise


def draw_square(images: Float[Tensor, "n c h w"]) -> Bool[Tensor, "n 1 h w"]:
    """Draw a square, or rather half of each side, around a place anywhere in the image."""
    count, _, *sides = images.shape
    inside = []
    for side in sides:
        centre = torch.rand(count, 1, device=images.device)
        first = ((centre - CUTOUT_SIZE / 2) * side).round()
        end = ((centre + CUTOUT_SIZE / 2) * side).round()
        place = torch.arange(side, device=images.device)
        inside.append((place >= first) & (place < end))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def cut_out(images: Float[Tensor, "n c h w"], square: Bool[Tensor, "n 1 h w"]) -> Float[Tensor, "n c h w"]:
    """Set a square of each image to 0, the middle gray."""
    return images.masked_fill(square, 0.0)
