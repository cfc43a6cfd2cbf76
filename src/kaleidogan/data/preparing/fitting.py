"""A picture of any shape to pixels of one shape: which part of it is taken, and how that is scaled."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kaleidogan.data.preparing.pictures import PictureError

Box = tuple[int, int, int, int]
"""(left, top, right, bottom), in whole pixels."""
Crop = Literal["center", "three", "letterbox", "squash", "ratio", "none"]
Filter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Fitted:
    """A picture, or a part of it, that fits the data set.

    Attributes:
        pixels: [h, w, c].
        enlarged: whether there were fewer pixels than this.
    """

    pixels: NDArray[np.uint8]
    enlarged: bool


def fit(
    picture: Image.Image,
    resolution: tuple[int, int],
    crop: Crop = "center",
    resize: Filter = "box",
    ratio: float | None = None,
) -> list[Fitted]:
    """Make a picture fit a resolution.

    Args:
        picture: of mode L, RGB or RGBA.
        resolution: (height, width) of the result.
        crop: `center`, the largest centred part of the result's shape; `three` such parts, at both ends and
            in the middle of what is too long (a picture of that shape gives one); `letterbox`, all of it on
            black, or on nothing if it is RGBA; `squash`, all of it out of proportion; `ratio`, the centred
            part of the shape `ratio`, squashed; `none`, all of it, which must have the result's shape.
        resize: filter by which it shrinks, with a support that grows with the scale. What grows is
            interpolated, bicubic where this is box.
        ratio: width / height, for crop=ratio.

    Raises:
        PictureError: if the picture does not have the shape that crop=none needs.
    """
    size = (picture.height, picture.width)
    if crop == "letterbox":
        return [_letterbox(picture, resolution, resize)]
    if crop == "none" and not _has_shape(size, resolution):
        raise PictureError("another shape than the resolution's", f"{size[0]} x {size[1]}")
    if crop in ("squash", "none"):
        boxes = [(0, 0, size[1], size[0])]
    elif crop == "ratio":
        assert ratio is not None
        boxes = [centre_box(size, (1.0, ratio))]
    elif crop == "three":
        boxes = three_boxes(size, resolution)
    else:
        boxes = [centre_box(size, resolution)]
    return [_scale(picture, box, resolution, resize) for box in boxes]


def centre_box(size: tuple[int, int], shape: tuple[float, float]) -> Box:
    """Find the largest centred box of a shape, in whole pixels.

    Args:
        size: (height, width) of the source.
        shape: (height, width) in any unit.
    """
    height, width = size
    box_width = min(width, max(1, round(height * shape[1] / shape[0])))
    box_height = min(height, max(1, round(width * shape[0] / shape[1])))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def three_boxes(size: tuple[int, int], shape: tuple[float, float]) -> list[Box]:
    """Find the boxes of a shape at the start, the middle and the end of what is too long: MAGnet's crops.

    Args:
        size: (height, width) of the source.
        shape: (height, width) in any unit.

    Returns:
        Three boxes; one if the source has that shape.
    """
    left, top, right, bottom = centre_box(size, shape)
    shifts = [(-left, -top), (0, 0), (size[1] - right, size[0] - bottom)]
    boxes = [(left + x, top + y, right + x, bottom + y) for x, y in shifts]
    return boxes if len(set(boxes)) == len(boxes) else [boxes[1]]


def _has_shape(size: tuple[int, int], resolution: tuple[int, int]) -> bool:
    """Whether one is the other scaled, to the nearest whole pixel of the smaller."""
    (height, width), (h, w) = size, resolution
    small, large = (size, resolution) if height * width < h * w else (resolution, size)
    fits_width = round(large[1] * small[0] / large[0]) == small[1]
    return fits_width or round(large[0] * small[1] / large[1]) == small[0]


def _scale(picture: Image.Image, box: Box, resolution: tuple[int, int], resize: Filter) -> Fitted:
    enlarged = box[2] - box[0] < resolution[1] or box[3] - box[1] < resolution[0]
    picture = picture.crop(box)
    if picture.size != resolution[::-1]:
        # RGBA is scaled premultiplied by Pillow: what is invisible has no part in the mean.
        kind = FILTERS["bicubic" if enlarged and resize == "box" else resize]
        picture = picture.resize(resolution[::-1], kind)
    return Fitted(_pixels(picture), enlarged)


def _letterbox(picture: Image.Image, resolution: tuple[int, int], resize: Filter) -> Fitted:
    scale = min(resolution[0] / picture.height, resolution[1] / picture.width)
    height = min(resolution[0], max(1, round(picture.height * scale)))
    width = min(resolution[1], max(1, round(picture.width * scale)))
    inner = _scale(picture, (0, 0, picture.width, picture.height), (height, width), resize)
    pixels = np.zeros((*resolution, inner.pixels.shape[2]), np.uint8)
    top, left = (resolution[0] - height) // 2, (resolution[1] - width) // 2
    pixels[top : top + height, left : left + width] = inner.pixels
    return Fitted(pixels, inner.enlarged)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
