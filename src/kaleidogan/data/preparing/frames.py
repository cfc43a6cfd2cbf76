"""Frames around pictures of paintings: found, and cut off.

Two searches. MachineRay's looks at the outermost thirtieth of each side. The robust one looks for what makes
a frame (`frame_search`). Eating into a painting is the worse error, so it finds nothing where it is in doubt.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kaleidogan.data.preparing.frame_search import Floats, find_depths, find_tilt, turned

Box = tuple[int, int, int, int]

MACHINERAY_DEPTH = 30
"""MachineRay looks at one part in so many of a side."""
MACHINERAY_VARIANCE = 15000.0
MACHINERAY_DISTANCE = 30.0

SIDE = 384
"""Pixels on the longer side of the copy that is searched: a frame of 1 % is 4 pixels there."""
SMALLEST = 48
"""Pixels on the shorter side of that copy below which there is no telling frame from painting."""
PASSES = 2
"""How often what was found is searched again: first a wall, then the frame on it."""
INSET = 0.5
"""Pixels of the searched copy that are cut off beyond the edge, for it is nowhere sharper than that."""


@dataclass(frozen=True)
class Frame:
    """Where the painting lies within its frame.

    Attributes:
        box: (left, top, right, bottom) in pixels of the picture turned upright about its centre.
        angle: degrees counter-clockwise by which the painting is turned within the picture, -5 to 5.
    """

    box: Box
    angle: float


def machineray_box(pixels: NDArray[np.uint8]) -> Box:
    """Find the rectangle within a thin plain frame, as MachineRay does.

    The reference colour is the median of the picture without its outermost thirtieth. From each side, lines
    count as frame until one is too varied (the variances of its channels add up to more than 15000) or its
    median is nearer than 30 to the reference.

    Args:
        pixels: [h, w, 3].

    Returns:
        (left, top, right, bottom).
    """
    height, width, _ = pixels.shape
    down, across = height // MACHINERAY_DEPTH, width // MACHINERAY_DEPTH
    reference = np.median(pixels[down : height - down, across : width - across], axis=(0, 1))
    rows, columns = pixels[:, across : width - across], pixels[down : height - down].swapaxes(0, 1)

    def frame_lines(lines: NDArray[np.uint8]) -> int:
        for number, line in enumerate(lines):
            varied = line.var(axis=0).sum() > MACHINERAY_VARIANCE
            if varied or np.linalg.norm(np.median(line, axis=0) - reference) < MACHINERAY_DISTANCE:
                return number
        return len(lines)

    left, top = frame_lines(columns[:across]), frame_lines(rows[:down])
    right, bottom = frame_lines(columns[::-1][:across]), frame_lines(rows[::-1][:down])
    return left, top, width - right, height - bottom


def find_frame(picture: Image.Image) -> Frame:
    """Find the painting within thick, ornamented, nested or slightly turned frames, mats and plain margins.

    In a copy of at most 384 pixels, the tilt is that at which the longest straight edges lie. Rectangles of
    such edges are scored by how sharp they are, how little the lines outside change along their length, and
    how alike the four bars are; the best one is cut off, and what is left searched again.

    Args:
        picture: upright, of mode L, RGB or RGBA; transparency counts as white.

    Returns:
        The whole picture, at angle 0, where no frame was found.
    """
    nothing = Frame((0, 0, *picture.size), 0.0)
    small = _reduced(picture)
    if min(small.shape[:2]) < SMALLEST:
        return nothing
    whole = (0, 0, small.shape[1], small.shape[0])
    angle = find_tilt(small)
    inner = _peeled(turned(small, angle), angle)
    if angle and inner == whole:
        # What was long and straight was no frame; a scan's margins are upright.
        angle = 0.0
        inner = _peeled(small, angle)
    if inner == whole:
        return nothing
    across, down = picture.width / small.shape[1], picture.height / small.shape[0]
    inset = INSET * (2 if angle else 1)
    left, top, right, bottom = inner
    box = (
        math.ceil((left + inset) * across) if left else 0,
        math.ceil((top + inset) * down) if top else 0,
        math.floor((right - inset) * across) if right < whole[2] else picture.width,
        math.floor((bottom - inset) * down) if bottom < whole[3] else picture.height,
    )
    return Frame(box, angle) if _within(box, angle, picture.size) else nothing


def _peeled(picture: Floats, angle: float) -> Box:
    """Cut off what is found, and search again within."""
    left, top, right, bottom = 0, 0, picture.shape[1], picture.shape[0]
    framed = False
    for number in range(PASSES):
        margins = number == 0 and angle == 0
        depths, bars = find_depths(picture[top:bottom, left:right], framed=framed, margins=margins)
        left, top, right, bottom = left + depths[0], top + depths[1], right - depths[2], bottom - depths[3]
        framed |= bars
        if not any(depths) or min(right - left, bottom - top) < SMALLEST:
            break
    return left, top, right, bottom


def remove_frame(picture: Image.Image, search: Literal["machineray", "robust"] = "robust") -> Image.Image:
    """Cut a picture to the painting within its frame; give it back as it is if no frame was found.

    A turned painting is turned upright with bicubic interpolation.

    Args:
        picture: upright, of mode L, RGB or RGBA; the mode is kept.
        search: whose rules say what a frame is.
    """
    if search == "machineray":
        frame = Frame(machineray_box(np.asarray(_on_white(picture))), 0.0)
    else:
        frame = find_frame(picture)
    if frame.box == (0, 0, *picture.size):
        return picture
    if frame.angle:
        picture = picture.rotate(-frame.angle, Image.Resampling.BICUBIC)
    return picture.crop(frame.box)


def preview(picture: Image.Image, frame: Frame) -> Image.Image:
    """Draw the found rectangle onto a copy of the picture, in RGB."""
    drawn = _on_white(picture)
    corners = _corners(frame.box, frame.angle, picture.size)
    pen, width = ImageDraw.Draw(drawn), max(1, max(picture.size) // 200)
    for color, thick in (("black", 2 * width), ("yellow", width)):
        pen.line([tuple(point) for point in [*corners, corners[0], corners[1]]], fill=color, width=thick)
    return drawn


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
    return white


def _corners(box: Box, angle: float, size: tuple[int, int]) -> list[list[float]]:
    """Turn a rectangle counter-clockwise about the picture's centre: four points (x, y)."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    left, top, right, bottom = box
    points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - np.array(size) / 2
    return (points @ np.array([[cos, -sin], [sin, cos]]) + np.array(size) / 2).tolist()


def _within(box: Box, angle: float, size: tuple[int, int]) -> bool:
    return all(
        0 <= coordinate <= most
        for point in _corners(box, angle, size)
        for coordinate, most in zip(point, size, strict=True)
    )


def _reduced(picture: Image.Image) -> Floats:
    scale = min(1.0, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(_on_white(picture).resize(size, Image.Resampling.BOX)).astype(np.float32)
