"""Texture: how much of each frequency pictures have, and how much noise where they should be flat.

What makes a picture look computerised is not in any structure that SWD or FID weigh much: a grid that the
upsampling left, a shimmer over plain paper. These numbers are for that.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidogan.metrics.swd import low_pass

CHUNK = 32
"""Pictures that are transformed at once."""
GRAY_LEVEL = 1 / 127.5
"""One of the 255 steps of a picture in [-1, 1]."""
FLATTEST = 0.25
"""The share of the reals' patches that count as flat."""
LEAST_STD = 2 * GRAY_LEVEL
"""Patches up to here are flat in any case."""
NO_POWER = 1e-12


def colours(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
    """Leave out the alpha channel, where there is one."""
    return pictures[:, :3] if pictures.shape[1] == 4 else pictures


def radial_spectrum(pictures: Float[Tensor, "n c h w"]) -> Float[Tensor, " f"]:
    """Power of the luminance by frequency: 1, 2, 3 ... cycles in the shorter side, up to Nyquist.

    The mean over pictures and over all directions, in decibels, of pictures less their mean under a Hann
    window. White noise of variance v has 10 log10(v) at all frequencies; no power at all is -120.
    """
    height, width = pictures.shape[2:]
    window = torch.outer(torch.hann_window(height), torch.hann_window(width)).to(pictures.device)
    power = torch.zeros(height, width, dtype=torch.float64, device=pictures.device)
    for chunk in torch.split(pictures, CHUNK):
        luminance = colours(chunk).mean(1)
        luminance = luminance - luminance.mean((1, 2), keepdim=True)
        power += torch.fft.fft2(luminance * window).abs().square().sum(0)
    power /= len(pictures) * window.square().sum()
    shorter = min(height, width)
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width))
    ring = (frequency * shorter).round().long().flatten().to(pictures.device)
    sums = torch.zeros(int(ring.max()) + 1, dtype=torch.float64, device=pictures.device)
    means = sums.index_add(0, ring, power.flatten()) / ring.bincount()
    return 10 * means[1 : shorter // 2 + 1].clamp_min(NO_POWER).log10().float()


def spectrum_gap(fake_db: Float[Tensor, " f"], real_db: Float[Tensor, " f"]) -> tuple[float, float]:
    """Compare two spectra: the mean distance, and the mean excess in the top quarter, in dB."""
    gap = fake_db - real_db
    return gap.abs().mean().item(), gap[-max(1, len(gap) // 4) :].mean().item()


class FlatNoise:
    """The noise in flat areas: what a slight blur takes away there.

    A patch is flat if its pixels, blurred thrice lest the noise itself count, deviate no more from their mean
    than those of the flattest quarter of the reals' patches, or by two gray levels: reals with plain paper
    have a quarter that does not deviate at all, and no generated patch is that flat. Such reals also have
    about no noise there; so compare the levels, of fakes and of reals, and not their ratio. The outermost
    patches are left out: networks draw lines along the border, where their convolutions see zeros, which is
    another matter.

    Args:
        reals: in [-1, 1].
        patch: side of a patch, in pixels; no more than the pictures'.
    """

    def __init__(self, reals: Float[Tensor, "n c h w"], patch: int = 8) -> None:
        self._patch = min(patch, *reals.shape[2:])
        stds = torch.cat([self._look(chunk)[0].flatten() for chunk in torch.split(reals, CHUNK)])
        rank = max(1, int(FLATTEST * len(stds)))
        self._limit = max(stds.kthvalue(rank).values.item(), LEAST_STD)

    def __call__(self, pictures: Float[Tensor, "n c h w"]) -> float:
        """Measure pictures.

        Returns:
            The root mean square of pictures less their blur in flat patches, in gray levels of 255; NaN if no
            patch is flat.
        """
        squares, count = 0.0, 0
        for chunk in torch.split(pictures, CHUNK):
            stds, noise = self._look(chunk)
            flat = noise[stds <= self._limit]
            squares += flat.sum(dtype=torch.float64).item()
            count += len(flat)
        return (squares / count) ** 0.5 / GRAY_LEVEL if count else float("nan")

    def _look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """How much each patch deviates when blurred, and the mean square of what the blur takes away."""
        pictures = colours(pictures)
        blurred = low_pass(pictures)
        structure = low_pass(low_pass(blurred))
        deviation = self._patches(structure).var(-1, correction=0).mean(1).sqrt()
        return deviation, self._patches(pictures - blurred).square().mean((1, -1))

    def _patches(self, pictures: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c, rows, columns, pixels]; what does not fill a patch is left out."""
        cut = pictures.unfold(2, self._patch, self._patch).unfold(3, self._patch, self._patch)
        if min(cut.shape[2:4]) > 2:
            cut = cut[:, :, 1:-1, 1:-1]
        return cut.flatten(-2)
