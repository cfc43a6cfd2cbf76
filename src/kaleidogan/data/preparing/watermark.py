"""Finds an overlay that many pictures share, such as a watermark, and says which pictures have it.

After Dekel, Rubinstein, Liu and Freeman 2017, "On the effectiveness of visible watermarks": what the
pictures show differs, so that the median of their gradients at a place is that of the overlay. A median needs
most of the pictures to have it; here pictures that agree in a part are found first, and the median is theirs.

It is found where it lies at the same place of each picture: at as many pixels from a corner or the centre, or
stretched with the picture. A frame that many pictures share is an overlay too, by this measure; copies of
one picture should be taken out before (`filters.Duplicates`). Drawings on a flat ground take no part in the
search, as they share outlines that are none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PICTURES = 500
"""More are not looked at: the time grows with their square."""
MIN_PICTURES = 20
SIDE = 256
"""Pixels of a view, the square part of a picture in which an overlay is looked for."""
TILE = 64
"""Pixels of the squares in which pictures are compared: an overlay need not fill the view."""
MAX_STEP = 16
"""Of 255: where gradients are cut off, as the pictures' own edges are stronger than most overlays'."""
MIN_STEP = 2
"""Of 255: weaker gradients are taken for none."""
BUSY = 0.25
"""Share of a view's pixels that have a gradient; a photograph has 0.6, an emoji 0.03."""
MIN_BUSY = 1 / 3
"""Share of the pictures that must be busy: a set of drawings shares outlines (most emojis are a circle)."""
AGREEMENT = 0.2
"""Correlation of the gradients in a tile from which two pictures may share an overlay."""
MIN_GROUP = 6
MIN_SHARE = 0.02
"""Fewer pictures than this agree by chance."""
MIN_PIXELS = 250
"""Of a view: a smaller overlay cannot be told from chance."""
CERTAINTY = 3.0
"""How many of its own standard deviations the median must be from 0."""
NUM_HELD_OUT = 8
MAX_OTHERS = 32
"""How many members of a group are scored with the median of how many others."""
SUSPECT = 0.3
"""The score from which a picture is taken to have the overlay."""
NUM_ROUNDS = 3
"""How often the group and its median are found from one another."""
ANCHORS = {
    "top left": (0.0, 0.0),
    "top right": (1.0, 0.0),
    "bottom left": (0.0, 1.0),
    "bottom right": (1.0, 1.0),
    "centre": (0.5, 0.5),
}
"""Where in the width and the height a view lies; it shows the picture's own pixels."""
STRETCHED = "stretched"
VIEWS = (STRETCHED, *ANCHORS)
Gradients = NDArray[np.int8]
"""[2, SIDE, SIDE]: steps to the right and down, cut off at MAX_STEP."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """What many pictures share.

    Attributes:
        view: where it lies, one of VIEWS.
        template: [2, side, side], its gradients in that view; 0 where there is nothing of it.
        share: how many of the pictures that it was found in have it, 0..1.
    """

    view: str
    template: Gradients
    share: float

    def score(self, picture: Image.Image) -> float:
        """Say how well a picture's gradients agree with the overlay's, in 0..1; from SUSPECT on it has it.

        The correlation of both at the overlay's pixels, 0 if it is negative.
        """
        return float(_scores(view_gradients(picture, self.view)[None], self.template)[0])

    def drawn(self) -> Image.Image:
        """Draw its outlines, white on black, for a person to see what was found."""
        strength = np.abs(self.template.astype(np.int16)).max(axis=0)
        return Image.fromarray((strength * 255 // MAX_STEP).astype(np.uint8))


def estimate(pictures: Iterable[Image.Image]) -> Overlay | None:
    """Find the overlay that most of a set's pictures share.

    Args:
        pictures: upright, of mode L, RGB or RGBA and any size; the first MAX_PICTURES are looked at, so give
            a random choice. No two should be copies of one another.

    Returns:
        The one that the largest group of pictures shares, or None where no group is large enough, or where
        there are fewer than MIN_PICTURES.
    """
    views = [_all_views(picture) for picture in islice(pictures, MAX_PICTURES)]
    if len(views) < MIN_PICTURES:
        return None
    found = [
        overlay
        for number, view in enumerate(VIEWS)
        if (overlay := _find_in_view(view, np.stack([_gradients(each[number]) for each in views])))
    ]
    return max(found, key=lambda overlay: overlay.share, default=None)


def view_gradients(picture: Image.Image, view: str) -> Gradients:
    """Compute the gradients of one view of a picture, [2, SIDE, SIDE]."""
    return _gradients(_view(_flat_gray(picture), view))


def _all_views(picture: Image.Image) -> list[NDArray[np.uint8]]:
    gray = _flat_gray(picture)
    return [_view(gray, view) for view in VIEWS]


def _flat_gray(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture.convert("L")
    white = Image.new("L", picture.size, 255)
    white.paste(picture.convert("L"), mask=picture.getchannel("A"))
    return white


def _view(gray: Image.Image, view: str) -> NDArray[np.uint8]:
    """Cut the view out, [h, w]; smaller than SIDE where the picture is."""
    if view == STRETCHED:
        return np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BOX))
    across, down = ANCHORS[view]
    width, height = min(gray.width, SIDE), min(gray.height, SIDE)
    left, top = int((gray.width - width) * across), int((gray.height - height) * down)
    canvas = np.asarray(gray.crop((left, top, left + width, top + height)))
    # What is missing repeats the border, and so has no gradient.
    x, y = int((SIDE - width) * across), int((SIDE - height) * down)
    return np.pad(canvas, ((y, SIDE - height - y), (x, SIDE - width - x)), mode="edge")


def _gradients(view: NDArray[np.uint8]) -> Gradients:
    steps = np.zeros((2, SIDE, SIDE), np.int16)
    np.subtract(view[:, 1:], view[:, :-1], out=steps[0, :, :-1], dtype=np.int16)
    np.subtract(view[1:], view[:-1], out=steps[1, :-1], dtype=np.int16)
    return steps.clip(-MAX_STEP, MAX_STEP).astype(np.int8)


def _find_in_view(view: str, gradients: Gradients) -> Overlay | None:
    """Find what the largest group of pictures shares in one view; gradients [n, 2, SIDE, SIDE]."""
    busy = gradients[[np.mean(np.abs(each).max(axis=0) >= MIN_STEP) >= BUSY for each in gradients]]
    enough = max(MIN_GROUP, int(MIN_SHARE * len(gradients)))
    if len(busy) < max(enough, MIN_BUSY * len(gradients)):
        return None
    for group in sorted(_groups(busy), key=len, reverse=True):
        if (template := _refined(busy, group, enough)) is not None:
            return Overlay(view, template, float(np.mean(_scores(gradients, template) >= SUSPECT)))
    return None


def _refined(gradients: Gradients, group: NDArray[np.intp], enough: int) -> Gradients | None:
    """Find a group and its median from one another in turn; None if what they share may be chance."""
    for _ in range(NUM_ROUNDS):
        if len(group) < enough:
            return None
        template = _median(gradients[group])
        if np.count_nonzero(template.any(axis=0)) < MIN_PIXELS:
            return None
        group = np.flatnonzero(_scores(gradients, template) >= SUSPECT)
    if len(group) < enough:
        return None
    return template if _score_held_out(gradients, group) >= SUSPECT else None


def _score_held_out(gradients: Gradients, group: NDArray[np.intp]) -> float:
    """Score members of a group with the median of others: the mean score, which chance makes small."""
    some = group[:: max(1, len(group) // NUM_HELD_OUT)]
    scores = []
    for one in some:
        others = group[group != one][:MAX_OTHERS]
        scores.append(_scores(gradients[one : one + 1], _median(gradients[others]))[0])
    return float(np.mean(scores))


def _groups(gradients: Gradients) -> Iterator[NDArray[np.intp]]:
    """Find for each tile the picture that most others agree with, and those."""
    for top in range(0, SIDE, TILE):
        for left in range(0, SIDE, TILE):
            tile = gradients[:, :, top : top + TILE, left : left + TILE].reshape(len(gradients), -1)
            directions = tile.astype(np.float32)
            lengths = np.linalg.norm(directions, axis=1, keepdims=True)
            directions /= np.maximum(lengths, 1)
            agree = directions @ directions.T >= AGREEMENT
            yield np.flatnonzero(agree[agree.sum(axis=0).argmax()])


def _median(gradients: Gradients) -> Gradients:
    """Take the median over pictures [n, 2, SIDE, SIDE], and 0 where it may be chance."""
    template = np.median(gradients, axis=0)
    # The median of n values that scatter by s scatters by 1.25 s / sqrt(n).
    spread = np.sqrt(np.mean(np.square(gradients, dtype=np.int16)))
    least = max(MIN_STEP, CERTAINTY * 1.25 * spread / np.sqrt(len(gradients)))
    return np.where(np.abs(template) < least, 0, template).astype(np.int8)


def _scores(gradients: Gradients, template: Gradients) -> NDArray[np.float64]:
    """Correlate pictures [n, 2, SIDE, SIDE] with an overlay at its pixels: [n]."""
    places = template != 0
    wanted = template[places].astype(np.float64)
    there = gradients[:, places].astype(np.float64)
    lengths = np.linalg.norm(there, axis=1) * np.linalg.norm(wanted)
    return np.maximum(there @ wanted, 0) / np.maximum(lengths, 1)
