"""MachineRay's offline augmentation: six turned, tilted and tinted variants of a picture.

Its author made seven pictures of each of 850, so that a GAN without adaptive augmentation would not overfit.
The article names the operations and their ranges; that each corner moves inwards, along both sides, by the
size of a normal number is our reading of "perspective jitter".
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUM_VARIANTS = 6
MAX_JITTER = 0.05
"""The most that the corners' standard deviation may be, as a share of a side."""
FARTHEST = 0.25
"""A corner moves at most so far, as a share of a side: beyond, the four would no longer be in order."""
MAX_TINT = 20
"""What is added to hue and saturation, both 0 ... 255, lies in -20 ... 20."""
TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
Corners = NDArray[np.float64]
"""[4, 2]: how far top left, top right, bottom right, bottom left move inwards, (x, y) as shares of a side."""


def machineray_variants(picture: Image.Image, seed: int) -> Iterator[Image.Image]:
    """Make six variants of a square RGB picture; they depend on the picture and the seed alone.

    Each is turned by a multiple of 90 degrees, its corners are moved inwards and stretched to the square
    again, and one whole number is added to its hue and its saturation. Mirroring is left to training.
    """
    # NumPy promises the raw stream of a bit generator for ever, but not what its distributions make of it.
    stream = np.random.Philox(seed)
    for _ in range(NUM_VARIANTS):
        draws = (stream.random_raw(20) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        turn = TURNS[int(draws[0] * len(TURNS))]
        turned = picture if turn is None else picture.transpose(turn)
        tilted = tilt(turned, MAX_JITTER * draws[1] * _half_normal(draws[2:18]))
        yield tint(tilted, math.floor(draws[18] * (2 * MAX_TINT + 1)) - MAX_TINT)


def _half_normal(draws: NDArray[np.float64]) -> Corners:
    """The sizes of eight normal numbers, of sixteen uniform ones: Box and Muller 1958."""
    radius = np.sqrt(-2 * np.log1p(-draws[:8]))
    return np.abs(radius * np.cos(2 * np.pi * draws[8:])).reshape(4, 2)


def tilt(picture: Image.Image, corners: Corners) -> Image.Image:
    """Stretch the quadrilateral whose corners moved inwards over the whole picture, in perspective."""
    moved = np.minimum(corners, FARTHEST)
    width, height = picture.size
    whole = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    inner = whole + moved * inwards * (width, height)
    # Pillow wants to know where a pixel comes from: x = (a u + b v + c) / (g u + h v + 1), and y likewise.
    rows, values = [], []
    for (u, v), (x, y) in zip(whole, inner, strict=True):
        rows += [(u, v, 1, 0, 0, 0, -u * x, -v * x), (0, 0, 0, u, v, 1, -u * y, -v * y)]
        values += [x, y]
    coefficients = np.linalg.solve(np.array(rows), np.array(values))
    return picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BICUBIC
    )


def tint(picture: Image.Image, value: int) -> Image.Image:
    """Add a value to hue, which goes round, and to saturation, which ends at 0 and 255."""
    pixels = np.asarray(picture.convert("HSV")).astype(np.int16)
    pixels[:, :, 0] = (pixels[:, :, 0] + value) % 256
    pixels[:, :, 1] = np.clip(pixels[:, :, 1] + value, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8), "HSV").convert("RGB")
