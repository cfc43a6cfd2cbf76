"""Which pictures to leave out: too small, blurred, nearly empty, or there already; and which are the best.

What is measured is numbers; what is refused is a matter of limits, each off unless it is asked for. All is
integer arithmetic on Pillow's 8-bit pixels up to the last division, so that every machine measures alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHARPNESS = 0.35
"""What edges under a Gaussian blur of 1.1 pixels in the working copy have; rates in docs/filters.md."""
EMPTINESS = 0.98
"""What is left is a speck on a flat ground."""
DISTANCE = 6
"""Bits, of 64, that the fingerprints of two copies may differ in."""
SPARSE = 4
"""No more may differ than a quarter of those that are set: a plain drawing has few."""
WORKING_PIXELS = 2**16
"""Larger pictures are judged on a copy of about 256 x 256 pixels: what a GAN's eye sees of them."""
WINDOW = 8
"""Pixels: how far around a step the range of values is taken, so the widest blur that is told apart."""
MIN_RANGE = 24
"""Of 255: weaker edges are as likely grain or JPEG's ringing."""
STRONG_SHARE = 0.98
STRONG = 0.75
"""Only edges three quarters as strong as the strongest count (those that few exceed): in a blurred picture,
grain has small edges that are sharp."""
MIN_EDGES = 16
"""With fewer edges there is nothing to judge sharpness by."""
STEEP_SHARE = 0.9
"""A tenth of the edges may speak for the picture: much of a good photograph is out of focus by intent."""
FLAT_TOLERANCE = 12
"""Of 255, in each channel: what JPEG and scaling make of one flat colour."""
HASH_SIDE = 32
"""Pixels of the square that the fingerprint is taken from."""
HASH_BITS = 64
COSINE_SCALE = 2**14
"""Cosines are rounded to as many steps, so that the rest is arithmetic of integers."""
DEAD_ZONE = 8
"""A wave counts from an eighth of the mean strength on. Symmetric pictures have many of no strength, and
noise would decide on their bits: without this, every fifth clip-art had no likeness to its own JPEG."""


@dataclass(frozen=True)
class Measures:
    """What is known of one picture.

    Attributes:
        min_side: the shorter side, in pixels.
        sharpness: 0..1; how much of a steep edge is crossed within one pixel. 0 where there is no edge.
        emptiness: 0..1; the share of the picture that is one flat colour, where that is more than half.
        fingerprint: 64 bits; those of similar pictures differ in few.
    """

    min_side: int
    sharpness: float
    emptiness: float
    fingerprint: int


@dataclass(frozen=True)
class Limits:
    """What a picture must keep to; None is no limit.

    Attributes:
        min_side: pixels of the shorter side.
        min_sharpness: see `Measures`; SHARPNESS is a good one.
        max_emptiness: see `Measures`; EMPTINESS is a good one.
    """

    min_side: int | None = None
    min_sharpness: float | None = None
    max_emptiness: float | None = None


@dataclass(frozen=True)
class Fault:
    """Why a picture is refused: the filter's name, the kind of fault in words, and the particulars."""

    filter: str
    reason: str
    detail: str


def measure(picture: Image.Image) -> Measures:
    """Measure an upright picture of mode L, RGB or RGBA, of any size; transparency is judged on white.

    All but `min_side` is measured on a copy that is scaled down to at most `WORKING_PIXELS` with a box
    filter; smaller pictures are judged as they are, since being small is a fault of its own.

    Sharpness: at each step between two neighbours in a row or a column that is the steepest of its 8 pixels,
    the step divided by the range of those pixels; of the ratios at the picture's strong edges, the one that a
    tenth exceeds. An edge under a Gaussian blur of s pixels has erf(1 / (2 sqrt(2) s)), whatever its contrast
    (an edge-width measure as in Marziliano et al. 2002, "A no-reference perceptual blur metric").

    Fingerprint: see `fingerprint`.
    """
    copy = _working_copy(picture)
    gray = copy.convert("L")
    return Measures(
        min_side=min(picture.size),
        sharpness=_sharpness(np.asarray(gray).astype(np.int16)),
        emptiness=_emptiness(np.asarray(copy)),
        fingerprint=fingerprint(gray),
    )


def _working_copy(picture: Image.Image) -> Image.Image:
    scale = (WORKING_PIXELS / (picture.width * picture.height)) ** 0.5
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX)
    if picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, "white")
        white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
        return white
    return picture


def _sharpness(gray: NDArray[np.int16]) -> float:
    steps, ranges = np.concatenate([_edges(gray), _edges(gray.T)], axis=1)
    if len(ranges) < MIN_EDGES:
        return 0.0
    strong = ranges >= STRONG * _quantile(ranges, STRONG_SHARE)
    return float(_quantile(steps[strong] / ranges[strong], STEEP_SHARE))


def _quantile(values: NDArray[Any], share: float) -> Any:
    """Give the value itself that a share of all are not above: interpolation would round."""
    place = int(share * (len(values) - 1))
    return np.partition(values, place)[place]


def _edges(gray: NDArray[np.int16]) -> NDArray[np.int16]:
    """Find the steps along the rows that are the steepest of their windows: [step and range, edge]."""
    if gray.shape[1] < WINDOW:
        return np.empty((2, 0), np.int16)
    steps = np.abs(np.diff(gray, axis=1))
    steepest = _sliding_max(steps, WINDOW - 1)
    ranges = _sliding_max(gray, WINDOW) + _sliding_max(-gray, WINDOW)
    middle = steps[:, WINDOW // 2 - 1 :][:, : ranges.shape[1]]
    edges = (middle == steepest) & (ranges >= MIN_RANGE)
    return np.stack([middle[edges], ranges[edges]])


def _sliding_max(values: NDArray[np.int16], window: int) -> NDArray[np.int16]:
    """Give the maximum of each `window` neighbours in a row: of two overlapping halves, and so on."""
    if window == 1:
        return values
    half = (window + 1) // 2
    part = _sliding_max(values, half)
    return np.maximum(part[:, : part.shape[1] - (window - half)], part[:, window - half :])


def _emptiness(pixels: NDArray[np.uint8]) -> float:
    """Share of the pixels near the median colour; a colour that holds more than half is the median."""
    pixels = pixels.reshape(pixels.shape[0] * pixels.shape[1], -1)
    middle = len(pixels) // 2
    near = np.ones(len(pixels), bool)
    for channel in pixels.T.astype(np.int16):
        median = np.searchsorted(np.bincount(channel, minlength=256).cumsum(), middle, side="right")
        near &= np.abs(channel - median) <= FLAT_TOLERANCE
    return int(np.count_nonzero(near)) / len(near)


def fingerprint(picture: Image.Image) -> int:
    """Compute 64 bits that copies share: the signs of the 64 lowest waves of the cosine transform.

    The DCT hash of Zauner 2010, "Implementation and benchmarking of perceptual image hash functions" (gray,
    32 x 32, low frequencies), with two changes: the waves are taken along the diagonals, and a bit says
    whether a wave is clearly positive, rather than above the median. Colour and brightness have no part in
    it; a mirrored picture is another one, as an arrow to the left is not one to the right. All flat pictures
    have 0.

    Args:
        picture: mode L or RGB.
    """
    square = picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX)
    rows, columns, cosines = _waves()
    strengths = (cosines @ np.asarray(square).astype(np.int64) @ cosines.T)[rows, columns]
    bits = strengths * (DEAD_ZONE * HASH_BITS) > np.abs(strengths).sum()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@cache
def _waves() -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Give the numbers of the waves down and across, along the diagonals, and the cosines [wave, pixel]."""
    numbers = np.arange(HASH_SIDE)
    sums, rows = np.meshgrid(numbers, numbers, indexing="ij")
    chosen = (rows <= sums) & (sums > 0)
    rows, columns = rows[chosen][:HASH_BITS], (sums - rows)[chosen][:HASH_BITS]
    angles = (
        np.pi * np.outer(np.arange(max(rows.max(), columns.max()) + 1), 2 * numbers + 1) / (2 * HASH_SIDE)
    )
    return rows, columns, np.rint(np.cos(angles) * COSINE_SCALE).astype(np.int64)


def judge(measures: Measures, limits: Limits) -> Fault | None:
    """Say why a picture is refused, or None: too small first, then nearly empty, then blurred.

    Emptiness goes before blur, as a flat ground has no edge to be sharp.
    """
    low, sharp, empty = limits.min_side, limits.min_sharpness, limits.max_emptiness
    if low is not None and measures.min_side < low:
        return Fault("too_small", "too small", f"{measures.min_side} < {low} px")
    if empty is not None and measures.emptiness > empty:
        return Fault("empty", "nearly empty", f"{measures.emptiness:.4g} of it one colour > {empty:g}")
    if sharp is not None and measures.sharpness < sharp:
        return Fault("blur", "blurred", f"sharpness {measures.sharpness:.3g} < {sharp:g}")
    return None


def margins(measures: Measures, limits: Limits) -> dict[str, float]:
    """Say for each limit that is set how far from it a picture is, by the filter's name.

    Relative: 0 on the limit, positive within it, -1 at the worst there is (no pixel, no edge, nothing but
    ground). The pictures with the smallest absolute values are those to look at.
    """
    low, sharp, empty = limits.min_side, limits.min_sharpness, limits.max_emptiness
    found = {}
    if low:
        found["too_small"] = measures.min_side / low - 1
    if empty is not None and empty < 1:
        found["empty"] = (1 - measures.emptiness) / (1 - empty) - 1
    if sharp:
        found["blur"] = measures.sharpness / sharp - 1
    return found


class Duplicates:
    """Remembers the fingerprints of the pictures that are kept, in their order, and finds copies of them.

    Args:
        distance: the most bits in which a copy's fingerprint differs; DISTANCE is a good one. A fingerprint
            with few bits set, that of a plain drawing, may differ in a quarter of them at most.
        fingerprints: of the pictures kept by an earlier run that is continued.

    Raises:
        ValueError: if the distance is not in 0..63.
    """

    def __init__(
        self, distance: int = DISTANCE, fingerprints: Iterable[int] | NDArray[np.uint64] = ()
    ) -> None:
        if not 0 <= distance < HASH_BITS:
            raise ValueError(f"distance={distance} is not in 0..{HASH_BITS - 1} bits")
        self.distance = distance
        kept = np.fromiter(fingerprints, np.uint64)
        self._count = len(kept)
        self._kept = np.concatenate([kept, np.empty(max(1024, self._count), np.uint64)])

    def __len__(self) -> int:
        return self._count

    @property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Those that are kept, in order: what another `Duplicates` can be made of."""
        return self._kept[: self._count].copy()

    def find(self, fingerprint: int) -> int | None:
        """Give the number of the first kept picture that this one is a copy of, or None."""
        most = min(self.distance, fingerprint.bit_count() // SPARSE)
        near = np.bitwise_count(self._kept[: self._count] ^ np.uint64(fingerprint)) <= most
        first = int(near.argmax()) if self._count else 0
        return first if self._count and near[first] else None

    def add(self, fingerprint: int) -> None:
        """Keep one more."""
        if self._count == len(self._kept):
            self._kept = np.concatenate([self._kept, np.empty_like(self._kept)])
        self._kept[self._count] = fingerprint
        self._count += 1


class Scorer(Protocol):
    """Rates pictures, in the order in which they are given: a higher number is a better picture."""

    def __call__(self, pictures: Sequence[Image.Image]) -> Sequence[float]:
        """Give one number for each picture."""


@dataclass(frozen=True)
class Cut:
    """The best of a number of pictures.

    Attributes:
        kept: their positions.
        around: the positions around the cut, from better to worse: those last kept and those first left out.
    """

    kept: frozenset[int]
    around: tuple[int, ...]


def best(scores: Sequence[float], keep: int, num_around: int = 16) -> Cut:
    """Choose the pictures with the highest scores; of equal ones, those that come first.

    Args:
        scores: one for each picture.
        keep: how many to keep; all if there are fewer.
        num_around: how many of the last kept, and of the first left out, to name.

    Raises:
        ValueError: if `keep` is negative, or a score is not a number.
    """
    if keep < 0:
        raise ValueError(f"keep={keep} is negative")
    values = np.asarray(scores, np.float64)
    if (unknown := np.flatnonzero(np.isnan(values))).size:
        raise ValueError(f"the score of picture {unknown[0]} is not a number")
    order = np.argsort(-values, kind="stable").tolist()
    return Cut(frozenset(order[:keep]), tuple(order[max(0, keep - num_around) : keep + num_around]))
