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
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from framed import KINDS, Framed, framed_painting
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from kaleidogan.data.preparing import frame_search
from kaleidogan.data.preparing.frames import Frame, _reduced, find_frame, machineray_box, preview
from kaleidogan.data.procedural import STYLES, Gallery

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "frames.json"
MIN_IOU, MOST_FRAME, MOST_EATEN = 0.95, 0.01, 0.02


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
