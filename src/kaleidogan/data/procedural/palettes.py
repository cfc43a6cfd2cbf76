"""Colour schemes on the painter's wheel: red, yellow and blue 120 degrees apart, complements opposite.

A hue is an angle in degrees. Twelve pigment-like anchors stand 30 degrees apart, the wheel that art schools
teach; a hue between two of them is the straight line between their RGB values. Thus opposite are
red and green, orange and blue, yellow and purple, which no rotation of the RGB wheel gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHEEL = np.array(
    [
        (212, 36, 42),  # 0: red
        (232, 84, 34),
        (246, 128, 10),  # 60: orange
        (251, 172, 14),
        (254, 216, 34),  # 120: yellow
        (146, 196, 52),
        (38, 150, 74),  # 180: green
        (0, 144, 146),
        (24, 92, 186),  # 240: blue
        (74, 60, 172),
        (124, 44, 150),  # 300: purple
        (190, 34, 108),
    ],
    np.float64,
)
"""RGB of the hues 0, 30, ... 330 degrees, each 0 to 255."""
WHITE = (252, 250, 245)
BLACK = (20, 19, 26)
NEUTRALS = {"white": WHITE, "cream": (243, 230, 204), "gray": (186, 186, 190), "black": BLACK}
SECTORS = (
    (26, "red"),
    (86, "orange"),
    (130, "yellow"),
    (160, "lime"),
    (200, "green"),
    (222, "teal"),
    (266, "blue"),
    (308, "purple"),
    (344, "magenta"),
    (360, "red"),
)
"""Where each named sector of the wheel ends, in degrees."""
LIGHT = {"red": "pink", "orange": "peach", "purple": "lavender", "magenta": "pink"}
"""Names of tints that have a word of their own; the others are called light."""
DARK = {
    "red": "maroon",
    "orange": "brown",
    "yellow": "olive",
    "lime": "olive",
    "blue": "navy",
    "magenta": "plum",
}
"""Names of shades that have a word of their own; the others are called dark."""
NAMED_TONE = 0.25
"""From this share of white or black on, a colour's name says so."""
MIN_CONTRAST = 0.3
"""Between a ground and what is painted on it, as `contrast` measures."""


@dataclass(frozen=True)
class Paint:
    """A colour and the word for it in a caption."""

    name: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Three paints of one colour scheme, and a ground that they stand out from."""

    scheme: str
    paints: tuple[Paint, ...]
    ground: Paint


def list_names(paints: Sequence[Paint]) -> str:
    """Join the names of paints, each once: 'red, blue and green'."""
    names = list(dict.fromkeys(paint.name for paint in paints))
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def wheel_rgb(hue: float) -> NDArray[np.float64]:
    """Compute the RGB of a hue on the painter's wheel.

    Args:
        hue: degrees; red 0, yellow 120, blue 240.

    Returns:
        [3], each 0 to 255.
    """
    step, share = divmod(hue % 360.0 / 30.0, 1.0)
    anchor = int(step) % 12
    return WHEEL[anchor] * (1 - share) + WHEEL[(anchor + 1) % 12] * share


def mix(hue: float, tone: float = 0.0) -> Paint:
    """Mix a paint from a hue and white or black, and name it.

    Args:
        hue: degrees on the painter's wheel.
        tone: -1 (black) over 0 (the pure hue) to 1 (white).
    """
    end = WHITE if tone > 0 else BLACK
    red, green, blue = wheel_rgb(hue) * (1 - abs(tone)) + np.array(end) * abs(tone)
    name = next(name for limit, name in SECTORS if hue % 360.0 < limit)
    if tone >= NAMED_TONE:
        name = LIGHT.get(name, f"light {name}")
    elif tone <= -NAMED_TONE:
        name = DARK.get(name, f"dark {name}")
    return Paint(name, (round(red), round(green), round(blue)))


def contrast(one: Paint, other: Paint) -> float:
    """Measure how far apart two paints are: 0 for one paint, 1 for white and black.

    Green differs more to the eye than red, and red more than blue, hence the weights.
    """
    gap = (np.array(one.rgb) - np.array(other.rgb)) / 255.0
    return float(np.sqrt(np.dot((0.3, 0.5, 0.2), gap**2)))


def analogous(key: float) -> list[Paint]:
    """Mix neighbours on the wheel."""
    return [mix(key), mix(key - 40, -0.2), mix(key + 40, 0.1)]


def triadic(key: float) -> list[Paint]:
    """Mix three hues a third of the wheel apart."""
    return [mix(key), mix(key + 120), mix(key + 240)]


def monochrome(key: float) -> list[Paint]:
    """Mix one hue, its tint and its shade."""
    return [mix(key), mix(key, 0.55), mix(key, -0.5)]


def warm(key: float) -> list[Paint]:
    """Mix three hues between magenta and yellow."""
    start = 330 + key / 360 * 40
    return [mix(start), mix(start + 55), mix(start + 110)]


def cool(key: float) -> list[Paint]:
    """Mix three hues between green and purple."""
    start = 170 + key / 360 * 30
    return [mix(start, 0.1), mix(start + 55), mix(start + 110, 0.1)]


def complementary(key: float) -> list[Paint]:
    """Mix two opposite hues of the wheel, and a tint of the first."""
    return [mix(key), mix(key + 180), mix(key, 0.5)]


SCHEMES = {
    "analogous": analogous,
    "triadic": triadic,
    "monochrome": monochrome,
    "warm": warm,
    "cool": cool,
    "complementary": complementary,
}


def choose_palette(rng: np.random.Generator) -> Palette:
    """Draw a scheme, its key hue, and a ground that contrasts with every paint."""
    scheme = list(SCHEMES)[rng.integers(len(SCHEMES))]
    key = float(rng.uniform(0, 360))
    mixed = SCHEMES[scheme](key)
    paints = tuple(mixed[number] for number in rng.permutation(len(mixed)))
    return Palette(scheme, paints, _choose_ground(paints, key, rng))


def _choose_ground(paints: tuple[Paint, ...], key: float, rng: np.random.Generator) -> Paint:
    grounds = [Paint(name, rgb) for name, rgb in NEUTRALS.items()]
    grounds += [mix(key + 180), mix(key + 180, -0.6), mix(key + 180, 0.7), mix(key, -0.7), mix(key, 0.75)]
    names = {paint.name for paint in paints}
    shuffled = [grounds[number] for number in rng.permutation(len(grounds))]
    fitting = [ground for ground in shuffled if ground.name not in names]

    def clearness(ground: Paint) -> float:
        return min(contrast(ground, paint) for paint in paints)

    return next((g for g in fitting if clearness(g) >= MIN_CONTRAST), max(fitting, key=clearness))
