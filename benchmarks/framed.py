"""Frames of many kinds drawn around pictures, with the place of the painting in each."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from kaleidogan.data.preparing.frames import Frame

GOLDS = ((178, 141, 72), (150, 112, 52), (205, 175, 110), (120, 92, 48))
WOODS = ((110, 70, 40), (72, 46, 30), (150, 105, 65), (52, 36, 30), (186, 150, 108))
PAINTS = ((20, 20, 22), (238, 236, 230), (90, 92, 96), (40, 60, 50), (110, 30, 30), (170, 172, 175))
WALLS = ((232, 230, 224), (200, 196, 188), (150, 160, 165), (90, 86, 84), (215, 205, 185), (60, 70, 84))
MATS = ((244, 242, 234), (232, 226, 208), (205, 205, 200), (250, 250, 250), (60, 62, 66), (150, 160, 145))

Pixels = NDArray[np.float64]
Widths = tuple[int, int, int, int]


KINDS = ("thin", "thick", "ornamented", "wood", "mat", "shadow", "rotated", "margin", "jpeg", "unframed")


@dataclass(frozen=True)
class Framed:
    """A picture and where its painting lies: a rectangle [left, top, right, bottom] turned by `angle`.

    As in `Frame`: degrees counter-clockwise about the picture's centre.
    """

    picture: Image.Image
    box: tuple[float, float, float, float]
    angle: float = 0.0

    def frame(self) -> Frame:
        """Give the truth as a search would."""
        left, top, right, bottom = (round(value) for value in self.box)
        return Frame((left, top, right, bottom), self.angle)


def surround(inner: Pixels, widths: Widths, paint: Callable[[int, int], Pixels]) -> Pixels:
    """Put mitred bars around a picture; `paint(width, length)` gives the left one, outer edge at x = 0."""
    left, top, right, bottom = widths
    h, w = inner.shape[0] + top + bottom, inner.shape[1] + left + right
    y, x = np.mgrid[:h, :w]
    depths = np.stack(
        [
            depth / width if width else np.full((h, w), np.inf)
            for depth, width in zip((x, y, w - 1 - x, h - 1 - y), widths, strict=True)
        ]
    )
    side = depths.argmin(axis=0)
    whole = np.empty((h, w, 3))
    for number, (width, length, turns) in enumerate(
        ((left, h, 0), (top, w, 3), (right, h, 2), (bottom, w, 1))
    ):
        if not width:
            continue
        bar = np.rot90(paint(width, length), turns)
        full = np.zeros((h, w, 3))
        place = (
            (slice(None), slice(0, width)),
            (slice(0, width), slice(None)),
            (slice(None), slice(w - width, w)),
            (slice(h - width, h), slice(None)),
        )[number]
        full[place] = bar
        whole[side == number] = full[side == number]
    whole[top : h - bottom, left : w - right] = inner
    return whole


def choice(options: tuple[tuple[int, int, int], ...], rng: np.random.Generator) -> Pixels:
    """Pick a colour and change it a little."""
    return np.array(options[rng.integers(len(options))]) + rng.uniform(-8, 8, 3)


def moulding(width: int, rng: np.random.Generator) -> Pixels:
    """Draw how light a bar is across its width, [width]: steps and rounds, as carpenters plane them."""
    light = np.ones(width)
    places = np.sort(rng.uniform(0, 1, rng.integers(1, 5)))
    for start, end in zip([0.0, *places], [*places, 1.0], strict=True):
        first, last = int(start * width), max(int(start * width) + 1, int(end * width))
        t = np.linspace(-1, 1, last - first)
        light[first:last] = rng.uniform(0.65, 1.25) + rng.uniform(-0.3, 0.3) * t - rng.uniform(0, 0.25) * t**2
    return light[:width]


def plain_bars(color: Pixels, width: int, rng: np.random.Generator) -> Callable[[int, int], Pixels]:
    """Bars of one colour with a moulded profile, each side in its own light."""
    profile = moulding(width, rng)

    def paint(w: int, length: int) -> Pixels:
        light = np.interp(np.linspace(0, 1, w), np.linspace(0, 1, width), profile) * rng.uniform(0.85, 1.12)
        return (light[None, :, None] * color).repeat(length, axis=0)

    return paint


def wooden_bars(color: Pixels, width: int, rng: np.random.Generator) -> Callable[[int, int], Pixels]:
    """Bars with grain along their length, and a few knots of other tone."""
    plain = plain_bars(color, width, rng)
    strength = rng.uniform(6, 22)

    def paint(w: int, length: int) -> Pixels:
        coarse = rng.normal(size=(max(2, length // 60), max(2, w)))
        grain = np.asarray(Image.fromarray(coarse.astype(np.float32)).resize((w, length)))
        fine = rng.normal(size=(length, w))
        fine = np.cumsum(fine, axis=0) - np.cumsum(fine, axis=0).mean(axis=0)
        fine /= fine.std() + 1e-9
        return plain(w, length) + (strength * (grain + 0.4 * fine))[:, :, None]

    return paint


def ornamented_bars(color: Pixels, width: int, rng: np.random.Generator) -> Callable[[int, int], Pixels]:
    """Bars with a carved pattern that repeats along them between two smooth edges."""
    plain = plain_bars(color, width, rng)
    period = max(6, round(width * rng.uniform(0.5, 1.6)))
    noise = Image.fromarray(np.tile(rng.integers(0, 256, (period, max(4, width)), np.uint8), (3, 1)))
    blurred = np.asarray(noise.filter(ImageFilter.GaussianBlur(max(1.0, width / 14)))).astype(np.float32)
    motif = (blurred[period : 2 * period] - blurred.mean()) / (blurred.std() + 1e-9)
    strength, border = rng.uniform(14, 38), rng.uniform(0.05, 0.25)

    def paint(w: int, length: int) -> Pixels:
        carved = np.tile(motif, (-(-length // period), 1))[:length]
        carved = np.asarray(Image.fromarray(carved).resize((w, length)))
        t = np.linspace(0, 1, w)
        relief = carved * ((t > border) & (t < 1 - border))[None, :] * strength
        return plain(w, length) + relief[:, :, None] * (color / color.mean())

    return paint


def flat_bars(color: Pixels, rng: np.random.Generator, noise: float) -> Callable[[int, int], Pixels]:
    """Bars of one colour, as paper and scanners give them."""
    return lambda w, length: color + rng.normal(0, noise, (length, w, 1))


def frame_bars(material: str, width: int, rng: np.random.Generator) -> Callable[[int, int], Pixels]:
    """Choose bars of a material: plain, wood or ornamented."""
    if material == "wood":
        return wooden_bars(choice(WOODS, rng), width, rng)
    if material == "ornamented":
        return ornamented_bars(choice(GOLDS, rng), width, rng)
    return plain_bars(choice(GOLDS + WOODS + PAINTS, rng), width, rng)


def inner_shadow(painting: Pixels, rng: np.random.Generator) -> Pixels:
    """Darken the painting's upper and left edge, where the frame keeps the light away."""
    reach, dark = max(1.0, 0.008 * max(painting.shape)), rng.uniform(0.0, 0.5)
    h, w = painting.shape[:2]
    fall = lambda n: 1 - dark * np.exp(-np.arange(n) / reach)  # noqa: E731
    return painting * np.minimum(fall(h)[:, None], fall(w)[None, :])[:, :, None]


def drop_shadow(whole: Pixels, rng: np.random.Generator) -> tuple[Pixels, Widths]:
    """Hang it on a wall with the light from above left."""
    long = max(whole.shape)
    around = tuple(int(v) for v in rng.uniform(0.05, 0.14, 4) * long)
    left, top, right, bottom = around
    h, w = whole.shape[0] + top + bottom, whole.shape[1] + left + right
    wall = np.ones((h, w, 3)) * choice(WALLS, rng) + rng.normal(0, 1.5, (h, w, 1))
    shade = Image.new("L", (w, h), 0)
    dx, dy = (int(v) for v in rng.uniform(0.008, 0.03, 2) * long)
    shade.paste(255, (left + dx, top + dy, w - right + dx, h - bottom + dy))
    blurred = np.asarray(shade.filter(ImageFilter.GaussianBlur(rng.uniform(0.004, 0.02) * long))) / 255
    wall *= 1 - rng.uniform(0.3, 0.7) * blurred[:, :, None]
    wall[top : h - bottom, left : w - right] = whole
    return wall, around


def photographed(whole: Pixels, rng: np.random.Generator) -> Image.Image:
    """Add what a camera does: uneven light, a little blur, noise."""
    h, w = whole.shape[:2]
    slope = rng.uniform(-0.06, 0.06, 2)
    light = 1 + slope[0] * np.linspace(-1, 1, h)[:, None] + slope[1] * np.linspace(-1, 1, w)[None, :]
    noisy = whole * light[:, :, None] + rng.normal(0, rng.uniform(0, 3), whole.shape)
    picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Compress and decode it."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def turned(framed: Framed, angle: float, rng: np.random.Generator) -> Framed:
    """Turn the whole picture, on a wall or with the corners cut off."""
    picture = framed.picture
    w, h = picture.size
    tangent = math.tan(math.radians(abs(angle)))
    cut = math.ceil(tangent * h / 2) + 1, math.ceil(tangent * w / 2) + 1
    left, top, right, bottom = framed.box
    if rng.random() < 0.5 or min(left, w - right) < 2 * cut[0] or min(top, h - bottom) < 2 * cut[1]:
        wall = tuple(int(v) for v in np.clip(choice(WALLS, rng), 0, 255))
        margin = int(rng.uniform(0.03, 0.08) * max(w, h))
        large = Image.new("RGB", (w + 2 * margin, h + 2 * margin), wall)
        large.paste(picture, (margin, margin))
        box = tuple(v + margin for v in framed.box)
        rotated = large.rotate(angle, Image.Resampling.BICUBIC, fillcolor=wall)
        return Framed(rotated, box, angle)  # type: ignore[arg-type]
    rotated = picture.rotate(angle, Image.Resampling.BICUBIC)
    cropped = rotated.crop((cut[0], cut[1], w - cut[0], h - cut[1]))
    return Framed(cropped, (left - cut[0], top - cut[1], right - cut[0], bottom - cut[1]), angle)


def framed_painting(painting: Image.Image, kind: str, rng: np.random.Generator) -> Framed:
    """Draw a frame of a kind around a painting; see `KINDS`."""
    scale = rng.uniform(420, 700) / max(painting.size)
    painting = painting.convert("RGB").resize(tuple(max(64, round(v * scale)) for v in painting.size))
    pixels = np.asarray(painting).astype(float)
    if kind == "unframed":
        return Framed(photographed(pixels, rng), (0, 0, *painting.size))
    if kind in ("rotated", "jpeg"):
        inner = framed_painting(
            painting, str(rng.choice(("thin", "thick", "ornamented", "wood", "mat"))), rng
        )
        if kind == "jpeg":
            return Framed(as_jpeg(inner.picture, int(rng.integers(25, 80))), inner.box)
        return turned(inner, float(rng.uniform(-3, 3)), rng)
    long, short, added = max(painting.size), min(painting.size), np.zeros(4, int)

    def put(widths: Widths, paint: Callable[[int, int], Pixels]) -> None:
        nonlocal pixels, added
        pixels, added = surround(pixels, widths, paint), added + widths

    if kind == "margin":
        color = ((255,) * 3, (250, 248, 240), (128,) * 3, (0,) * 3, (200, 200, 200))[rng.integers(5)]
        widths = [int(v) for v in rng.uniform(0.01, 0.2, 4) * long * (rng.random(4) < 0.85)]
        put(tuple(widths), flat_bars(np.array(color, float), rng, rng.uniform(0, 2)))  # type: ignore[arg-type]
    else:
        if kind == "mat":
            width = int(rng.uniform(0.04, 0.16) * long)
            foot = int(width * rng.uniform(1, 1.4))
            put((width, width, width, foot), flat_bars(choice(MATS, rng), rng, 1.0))
            material, share = ("plain", "wood")[rng.integers(2)], (0.015, 0.07)
        else:
            material = {"thin": "plain", "thick": "plain", "shadow": "plain"}.get(kind, kind)
            share = {"thin": (0.01, 0.03), "thick": (0.1, 0.3)}.get(kind, (0.05, 0.18))
            pixels = inner_shadow(pixels, rng)
        width = max(4, int(rng.uniform(*share) * (short if kind == "thick" else long)))
        put((width,) * 4, frame_bars(material, width, rng))
    if kind == "shadow":
        pixels, around = drop_shadow(pixels, rng)
        added = added + around
    left, top = int(added[0]), int(added[1])
    box = (left, top, left + painting.width, top + painting.height)
    return Framed(photographed(pixels, rng), box)
