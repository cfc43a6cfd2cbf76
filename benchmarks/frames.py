"""How often a frame is removed as it should be: MachineRay's search, the robust one, and doing nothing.

    python benchmarks/frames.py FOLDER
    python benchmarks/frames.py FOLDER --fit

FOLDER/paintings holds unframed pictures, around which frames of many kinds are drawn here; FOLDER/real holds
the files that `tests/golden/frames.json` names, whose rectangles were found by eye; FOLDER/photographs holds
more that have no frame. A crop is correct if its intersection over union with the truth is at least 0.95, at
most 1 % of a side of frame is left on any side, and at most 2 % of the painting's side is lost on any side.

With --fit the weights of `frame_search` are computed anew, from frames drawn with another seed, the pictures
of FOLDER/photographs, and procedural ones: softmax over a picture's rectangles, one of which is "no frame".
"""

import argparse
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from kaleidogan.data.preparing import frame_search
from kaleidogan.data.preparing.frames import Frame, _reduced, find_frame, machineray_box, preview
from kaleidogan.data.procedural import STYLES, Gallery

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "frames.json"
MIN_IOU, MOST_FRAME, MOST_EATEN = 0.95, 0.01, 0.02
GOLDS = ((178, 141, 72), (150, 112, 52), (205, 175, 110), (120, 92, 48))
WOODS = ((110, 70, 40), (72, 46, 30), (150, 105, 65), (52, 36, 30), (186, 150, 108))
PAINTS = ((20, 20, 22), (238, 236, 230), (90, 92, 96), (40, 60, 50), (110, 30, 30), (170, 172, 175))
WALLS = ((232, 230, 224), (200, 196, 188), (150, 160, 165), (90, 86, 84), (215, 205, 185), (60, 70, 84))
MATS = ((244, 242, 234), (232, 226, 208), (205, 205, 200), (250, 250, 250), (60, 62, 66), (150, 160, 145))

Pixels = NDArray[np.float64]
Widths = tuple[int, int, int, int]


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


KINDS = ("thin", "thick", "ornamented", "wood", "mat", "shadow", "rotated", "margin", "jpeg", "unframed")


def corners(box: tuple[float, ...], angle: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """Turn a rectangle counter-clockwise about the picture's centre: four points (x, y)."""
    left, top, right, bottom = box
    centre = np.array(size) / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - centre
    return points @ np.array([[cos, -sin], [sin, cos]]) + centre


def judge(truth: Framed, found: Frame) -> tuple[bool, float, float, float]:
    """Judge a crop: whether it is correct, its IoU, the most frame left and the most painting lost.

    The two shares are of the painting's side, at the worst corner of the crop.
    """
    size = truth.picture.size
    # In the painting's own axes.
    upright = corners(truth.box, 0, size)
    points = (corners(found.box, found.angle, size) - np.array(size) / 2) @ np.array(
        [
            [math.cos(math.radians(truth.angle)), math.sin(math.radians(truth.angle))],
            [-math.sin(math.radians(truth.angle)), math.cos(math.radians(truth.angle))],
        ]
    ) + np.array(size) / 2
    left, top, right, bottom = truth.box
    w, h = right - left, bottom - top
    inward = np.array(
        [
            *((points[[0, 3], 0] - left) / w),
            *((points[[0, 1], 1] - top) / h),
            *((right - points[[1, 2], 0]) / w),
            *((bottom - points[[2, 3], 1]) / h),
        ]
    )
    iou = overlap(upright, points)
    left_over, eaten = max(0.0, -inward.min()), max(0.0, inward.max())
    return iou >= MIN_IOU and left_over <= MOST_FRAME and eaten <= MOST_EATEN, iou, left_over, eaten


def overlap(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Intersection over union of two quadrangles, counted in pixels."""
    low, high = np.minimum(first.min(0), second.min(0)), np.maximum(first.max(0), second.max(0))
    masks = []
    for points in (first, second):
        mask = Image.new("1", (1000, 1000))
        scaled = (points - low) / (high - low) * 1000 - 0.5
        ImageDraw.Draw(mask).polygon([tuple(p) for p in scaled.tolist()], fill=1)
        masks.append(np.asarray(mask))
    return float((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())


def _machineray(picture: Image.Image) -> Frame:
    return Frame(machineray_box(np.asarray(picture.convert("RGB"))), 0.0)


def _nothing(picture: Image.Image) -> Frame:
    return Frame((0, 0, *picture.size), 0.0)


SEARCHES = {"nothing": _nothing, "machineray": _machineray, "robust": find_frame}


def synthetic(folder: Path, seed: int, per_kind: int) -> Iterator[tuple[str, str, Framed]]:
    """Draw the framed pictures, a kind after the other: (kind, file, picture)."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for kind in KINDS:
        for number in range(per_kind):
            file = files[number % len(files)]
            rng = np.random.default_rng([seed, KINDS.index(kind), number])
            with Image.open(file) as painting:
                yield kind, f"{file.stem} {number}", framed_painting(painting, kind, rng)


def real(folder: Path) -> Iterator[tuple[str, str, Framed]]:
    """Read the pictures with rectangles found by eye: (kind, file, picture)."""
    for file, truth in json.loads(GOLDEN.read_text()).items():
        if (folder / file).exists():
            with Image.open(folder / file) as picture:
                rgb = on_white(picture)
            yield truth["kind"], file, Framed(rgb, tuple(truth["box"]), truth.get("angle", 0.0))


def on_white(picture: Image.Image) -> Image.Image:
    """Give it as RGB, transparency on white."""
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(rgba)
    return white.convert("RGB")


def table(pictures: Iterator[tuple[str, str, Framed]], failures: Path | None) -> None:
    """Judge every search on every picture, and print the share of correct crops by kind."""
    correct: dict[str, list[list[bool]]] = defaultdict(lambda: [[] for _ in SEARCHES])
    seconds = 0.0
    for kind, name, framed in pictures:
        for number, search in enumerate(SEARCHES.values()):
            start = time.perf_counter()
            found = search(framed.picture)
            seconds += (time.perf_counter() - start) * (search is find_frame)
            good, iou, left_over, eaten = judge(framed, found)
            correct[kind][number].append(good)
            if search is find_frame and not good and failures is not None:
                print(f"    {kind} {name}: IoU {iou:.3f}, {left_over:.1%} left, {eaten:.1%} eaten")
                drawn = preview(preview(framed.picture, found), framed.frame())
                drawn.save(failures / f"{kind}_{name}.jpg".replace(" ", "_"))
    print(f"{'':<16}{'number':>8}" + "".join(f"{name:>12}" for name in SEARCHES))
    for kind, results in correct.items():
        print(f"{kind:<16}{len(results[0]):8}" + "".join(f"{np.mean(share):12.1%}" for share in results))
    together = [[one for results in correct.values() for one in results[k]] for k in range(len(SEARCHES))]
    print(f"{'all':<16}{len(together[0]):8}" + "".join(f"{np.mean(share):12.1%}" for share in together))
    print(f"robust: {1000 * seconds / max(1, len(together[0])):.0f} ms a picture")


FIT_SEED, FIT_PER_KIND, NUM_PROCEDURAL = 100, 60, 72
ABSTRACT = ("fields", "circles", "triangles", "stripes", "tiles", "flow", "fractal")
"""Procedural styles with no edge all around: a grid of squares looks like a picture with a margin."""
NEAR, NO_FRAME_WEIGHT, DECAY, MOST_RECTANGLES = 2.6, 0.7, 3e-4, 3000


def unframed(
    folder: Path, half: int, seed: int, styles: tuple[str, ...]
) -> Iterator[tuple[str, str, Framed]]:
    """Give half of the photographs, and procedural pictures, all without a frame: (kind, file, picture)."""
    for file in sorted((folder / "photographs").iterdir())[half::2]:
        with Image.open(file) as photograph:
            yield "photograph", file.stem, Framed(photograph.convert("RGB"), (0, 0, *photograph.size))
    gallery = Gallery(num_images=NUM_PROCEDURAL, seed=seed, styles=styles)
    for number in range(NUM_PROCEDURAL):
        picture = Image.fromarray(gallery.draw(number, (320, 400)).pixels)
        yield "procedural", f"{styles[number % len(styles)]} {number}", Framed(picture, (0, 0, 400, 320))


def example(framed: Framed, rng: np.random.Generator) -> tuple[Tensor, Tensor | None] | None:
    """Describe a picture's rectangles, and tell which are the truth; None if it can teach nothing."""
    small = _reduced(framed.picture)
    angle = frame_search.find_tilt(small)
    height, width = small.shape[:2]
    left, top, right, bottom = np.array(framed.box) * (width / framed.picture.width)
    truth = np.array([left, top, width - right, height - bottom])
    sides = [frame_search._side(view) for view in frame_search._views(frame_search.turned(small, angle))]
    depths = frame_search._candidates(sides)
    has_frame = truth.min() >= 1
    if not all(depths) or (has_frame and abs(angle - framed.angle) > 0.5):
        return None
    features = frame_search._features(sides, depths, max(small.shape)).reshape(-1, len(frame_search.FEATURES))
    near = [np.abs(np.array(one) - depth) <= NEAR for one, depth in zip(depths, truth, strict=True)]
    right_one = np.einsum("a,b,c,d->abcd", *near).ravel() > 0
    if has_frame and not right_one.any():
        return None
    kept = (rng.random(len(features)) < MOST_RECTANGLES / len(features)) | (right_one & has_frame)
    return torch.tensor(features[kept, 1:]), torch.tensor(right_one[kept]) if has_frame else None


def fit(folder: Path) -> None:
    """Print the weights that tell the true rectangles best."""
    rng = np.random.default_rng(0)
    drawn = chain(
        synthetic(folder / "paintings", FIT_SEED, FIT_PER_KIND), unframed(folder, 0, FIT_SEED, ABSTRACT)
    )
    described = (example(framed, rng) for _, _, framed in drawn)
    examples = [one for one in described if one is not None]
    everything = torch.cat([features for features, _ in examples])
    mean, deviation = everything.mean(0), everything.std(0)
    weights = torch.zeros(len(mean) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = DECAY * (weights[:-1] ** 2).sum() * len(examples)
        for features, truth in examples:
            scores = (features - mean) / deviation @ weights[:-1] + weights[-1]
            every = torch.logsumexp(torch.cat([scores, torch.zeros(1)]), 0)
            total = total + (NO_FRAME_WEIGHT * every if truth is None else every - scores[truth].logsumexp(0))
        mean_loss = total / len(examples)
        mean_loss.backward()
        return mean_loss

    optimizer.step(loss)  # type: ignore[arg-type]
    found = weights.detach()
    scaled = (found[:-1] / deviation).tolist()
    constant = float(found[-1] - (found[:-1] * mean / deviation).sum())
    for name, weight in zip((*frame_search.FEATURES[1:], "constant"), (*scaled, constant), strict=True):
        print(f"{name:<28}{weight:8.2f}")


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-kind", type=int, default=40)
    parser.add_argument(
        "--failures", type=Path, help="a folder for pictures of what the robust search missed"
    )
    parser.add_argument("--fit", action="store_true", help="print the weights, computed anew")
    options = parser.parse_args()
    if options.fit:
        fit(options.folder)
        return
    if options.failures is not None:
        options.failures.mkdir(parents=True, exist_ok=True)
    drawn = synthetic(options.folder / "paintings", options.seed, options.per_kind)
    table(chain(drawn, unframed(options.folder, 1, options.seed, tuple(STYLES))), options.failures)
    if (options.folder / "real").exists():
        table(real(options.folder / "real"), options.failures)


if __name__ == "__main__":
    main()
